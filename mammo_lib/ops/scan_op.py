"""One torch operator per compiled kernel, so that autograd, ``torch.compile`` and checkpointing work through it.

A kernel module offers ``scan_forward``, ``scan_backward`` and ``starts_shape`` (see :mod:`mammo_lib.ops.scan_cpu`
for what they take and return); this module gives them a schema, a fake implementation and a derivative.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

import torch
from torch import Tensor

FORWARD = "(Tensor u, Tensor step, Tensor A, Tensor B, Tensor C, Tensor D, bool keep) -> (Tensor, Tensor, Tensor)"
BACKWARD = (
    "(Tensor g, Tensor g_last, Tensor u, Tensor step, Tensor A, Tensor B, Tensor C, Tensor D, Tensor starts)"
    " -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)"
)


def register(name: str, kernels: ModuleType) -> Callable:
    """Register ``mammo::<name>`` and its derivative; return (u, step, A, B, C, D, keep) -> (y, last, starts)."""
    op = torch.library.custom_op(f"mammo::{name}", _forward_of(kernels), mutates_args=(), schema=FORWARD)
    derivative = torch.library.custom_op(
        f"mammo::{name}_backward", _backward_of(kernels), mutates_args=(), schema=BACKWARD
    )

    @op.register_fake
    def _(u, step, A, B, C, D, keep):
        shape = kernels.starts_shape(u, A, B, keep)
        return torch.empty_like(u), u.new_empty(*u.shape[:2], A.shape[1]), u.new_empty(shape)

    @derivative.register_fake
    def _(g, g_last, u, step, A, B, C, D, starts):
        return torch.empty_like(u), torch.empty_like(step), *(torch.empty_like(t) for t in (A, B, C, D))

    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs[:6], output[2])

    def backward(ctx, g, g_last, _):
        return *derivative(g, g_last, *ctx.saved_tensors), None

    op.register_autograd(backward, setup_context=setup_context)
    return op


def _forward_of(kernels: ModuleType) -> Callable:
    def forward(u: Tensor, step: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, keep: bool):
        return kernels.scan_forward(u, step, A, B, C, D, keep=keep)

    return forward


def _backward_of(kernels: ModuleType) -> Callable:
    def backward(g: Tensor, g_last: Tensor, u: Tensor, step: Tensor, A, B, C, D, starts: Tensor):
        return kernels.scan_backward(g, g_last, u, step, A, B, C, D, starts)

    return backward
