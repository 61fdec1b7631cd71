"""The selective scan in plain PyTorch operators with few steps in sequence: the form that can be exported.

| code | meaning |
|---|---|
| size | steps in a chunk, ceil(sqrt(L)); the last chunk is filled up with steps of length 0, which change no state |
| n | chunks, ceil(L / size) |
| per | channels per group |

A chunk maps its first state to its last by h -> exp(A sum of its steps) h + e, with e the last state from h = 0. So

1. all chunks run at once from h = 0, which gives e;
2. the n maps, one after the other, give every chunk its true first state;
3. all chunks run again, from there, and are read out.

This takes 2 size + n steps in sequence instead of L. Every factor is exp of a negative number: there is no division by
a product of decays, which would underflow.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional


def scan_chunked(
    u: Float[Tensor, "batch dim length"], step: Float[Tensor, "batch dim length"], A: Float[Tensor, "dim state"],
    B: Float[Tensor, "batch groups state length"], C: Float[Tensor, "batch groups state length"],
    D: Float[Tensor, " dim"],
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Return what :func:`mammo_lib.ops.scan.scan_reference` returns: y and the last state, (batch, dim, N)."""
    (batch, dim, length), (groups, N) = u.shape, B.shape[1:3]
    if length == 0:
        return D[:, None] * u, u.new_zeros(batch, dim, N)
    A = A.reshape(groups, dim // groups, N).transpose(1, 2)
    steps, inputs, maps, outputs = (_by_position(x, groups) for x in (step, step * u, B, C))
    decay = [torch.exp(one * A) for one in steps[..., None, :].unbind(0)]
    drive = [one * b for one, b in zip(inputs[..., None, :].unbind(0), maps[..., None].unbind(0), strict=True)]
    h = torch.zeros_like(drive[0])
    for a, x in zip(decay, drive, strict=True):
        h = a * h + x
    whole = torch.exp(steps.sum(dim=0)[..., None, :] * A)
    h, last = _first_states(whole.unbind(1), h.unbind(1))
    y = []
    for a, x, C_t in zip(decay, drive, outputs[..., None, :].unbind(0), strict=True):
        h = a * h + x
        y.append((C_t @ h).flatten(2))
    y = torch.stack(y, dim=2).flatten(1, 2)[:, :length].transpose(1, 2)
    return y + D[:, None] * u, last.transpose(2, 3).reshape(batch, dim, N)


def _by_position(x: Float[Tensor, "batch _ length"], groups: int) -> Float[Tensor, "size batch n groups m"]:
    """Cut a sequence into chunks, with the position in a chunk as first axis: one step of all chunks lies together."""
    batch, m, length = x.shape[0], x.shape[1:-1].numel() // groups, x.shape[-1]
    size = math.isqrt(length - 1) + 1
    n = -(-length // size)
    x = functional.pad(x, (0, n * size - length))
    return x.reshape(batch, groups, m, n, size).permute(4, 0, 3, 1, 2)


def _first_states(decay: tuple[Tensor, ...], added: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
    """Return the states before every chunk, (batch, n, groups, N, per), and the one after the last."""
    h, first = torch.zeros_like(added[0]), []
    for a, e in zip(decay, added, strict=True):
        first.append(h)
        h = a * h + e
    return torch.stack(first, dim=1), h
