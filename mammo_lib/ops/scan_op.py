"""One torch operator per compiled kernel, so that autograd, ``torch.compile`` and checkpointing work through it.

A kernel module, :mod:`mammo_lib.ops.scan_cpu` or :mod:`mammo_lib.ops.scan_gpu`, offers ``scan_forward``,
``scan_backward`` and ``starts_shape``; this module gives them a schema, a fake implementation and a derivative. The
kernels, and the compiler behind them, are imported when they first run.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from types import ModuleType

import torch

FORWARD = "(Tensor u, Tensor step, Tensor A, Tensor B, Tensor C, Tensor D, bool keep) -> (Tensor, Tensor, Tensor)"
BACKWARD = (
    "(Tensor g, Tensor g_last, Tensor u, Tensor step, Tensor A, Tensor B, Tensor C, Tensor D, Tensor starts)"
    " -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)"
)


def register(module: str) -> Callable:
    """Register ``mammo::<module>`` and its derivative; return (u, step, A, B, C, D, keep) -> (y, last, starts)."""

    def forward(u, step, A, B, C, D, keep):
        return _kernels(module).scan_forward(u, step, A, B, C, D, keep=keep)

    def differentiate(g, g_last, u, step, A, B, C, D, starts):
        return _kernels(module).scan_backward(g, g_last, u, step, A, B, C, D, starts)

    op = torch.library.custom_op(f"mammo::{module}", forward, mutates_args=(), schema=FORWARD)
    derivative = torch.library.custom_op(f"mammo::{module}_backward", differentiate, mutates_args=(), schema=BACKWARD)

    @op.register_fake
    def _(u, step, A, B, C, D, keep):
        shape = _kernels(module).starts_shape(u, A, B, keep)
        return torch.empty_like(u), u.new_empty(*u.shape[:2], A.shape[1]), u.new_empty(shape)

    @derivative.register_fake
    def _(g, g_last, u, step, A, B, C, D, starts):
        return torch.empty_like(u), torch.empty_like(step), *(torch.empty_like(t) for t in (A, B, C, D))

    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs[:6], output[2])

    def backward(ctx, g, g_last, _):
        return *derivative(g, g_last, *ctx.saved_tensors), None

    def refuse(ctx, *_):
        raise NotImplementedError("the compiled selective scan offers no second derivative; use backend='reference'")

    op.register_autograd(backward, setup_context=setup_context)
    derivative.register_autograd(refuse)
    return op


def _kernels(module: str) -> ModuleType:
    return importlib.import_module(f".{module}", __package__)
