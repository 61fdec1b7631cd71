"""The selective scan for NVIDIA GPUs (Triton), forward and backward; the equations are those of ``scan_cpu``.

One program owns ``BLOCK`` channels of one batch entry and steps through time with the state (BLOCK, N) in registers.
The forward keeps the state at the start of each chunk of ``CHUNK`` steps; the backward recomputes the states of a chunk
into a scratch buffer of its own (batch x dim x CHUNK x N, independent of L) and walks back through it. Sums over
channels (dB, dC) go to one slot per program and are added afterwards, so results do not depend on scheduling.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..config import MATERIAL
from ..files import read_json

BLOCK = 16
CHUNK = 16
PARITY_RECORD = MATERIAL / "benchmarks" / "gpu_parity.json"


def is_interpreted() -> bool:
    """Whether Triton runs under its interpreter (TRITON_INTERPRET=1), which needs no GPU and checks the arithmetic."""
    return triton.knobs.runtime.interpret


def has_recorded_parity() -> bool:
    """Whether the GPU tests have passed on a real device, as recorded in ``benchmarks/gpu_parity.json``."""
    return PARITY_RECORD.is_file() and read_json(PARITY_RECORD)["passed"]


def starts_shape(u: Tensor, A: Tensor, B: Tensor, keep: bool) -> tuple[int, ...]:
    """Return the shape of the states that the forward keeps: (batch, blocks, chunks, BLOCK, N)."""
    batch, dim, length = u.shape
    return batch, _blocks(dim, B), -(-length // CHUNK) if keep else 0, BLOCK, A.shape[1]


def scan_forward(u: Tensor, step: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, *, keep: bool):
    """Run the recurrence; arguments and results as in ``scan_cpu.scan_forward``."""
    batch, dim, length = u.shape
    y, last = torch.empty_like(u), u.new_zeros(batch, dim, A.shape[1])
    starts = u.new_empty(starts_shape(u, A, B, keep))
    if u.numel():
        A, D = A.contiguous(), D.contiguous()
        _forward_kernel[(batch, _blocks(dim, B))](
            u, step, A, B, C, D, y, last, starts, *u.stride(), *step.stride(), *B.stride(), *C.stride(), *y.stride(),
            dim, length, A.shape[1], dim // B.shape[1], **_constants(A), KEEP=keep, num_warps=1,
        )  # fmt: skip
    return y, last, starts


def scan_backward(g: Tensor, g_last: Tensor, u: Tensor, step: Tensor, A, B, C, D, starts: Tensor):
    """Return the gradients of u, step, A, B, C, D; arguments as in ``scan_cpu.scan_backward``."""
    batch, dim, length = u.shape
    groups, N = B.shape[1:3]
    blocks = _blocks(dim, B)
    du, dstep = torch.empty_like(u), torch.empty_like(step)
    dA, dD = u.new_zeros(batch, dim, N), u.new_zeros(batch, dim)
    dB, dC = (u.new_zeros(batch, blocks, N, length) for _ in range(2))
    if u.numel():
        A, D, g_last = A.contiguous(), D.contiguous(), g_last.contiguous()
        scratch = u.new_empty(batch, blocks, CHUNK, BLOCK, N)
        _backward_kernel[(batch, blocks)](
            g, g_last, u, step, A, B, C, D, starts, scratch, du, dstep, dA, dB, dC, dD,
            *g.stride(), *u.stride(), *step.stride(), *B.stride(), *C.stride(), *du.stride(), *dstep.stride(),
            dim, length, N, dim // groups, **_constants(A), num_warps=1,
        )  # fmt: skip
    dB, dC = (part.view(batch, groups, blocks // groups, N, length).sum(2) for part in (dB, dC))
    return du, dstep, dA.sum(0), dB, dC, dD.sum(0)


@triton.jit
def _forward_kernel(
    u, step, A, B, C, D, y, last, starts,
    u_b, u_d, u_t, s_b, s_d, s_t, B_b, B_g, B_n, B_t, C_b, C_g, C_n, C_t, y_b, y_d, y_t,
    dim, length, N, per_group,
    BLOCK: tl.constexpr, STATE: tl.constexpr, CHUNK: tl.constexpr, KEEP: tl.constexpr,
):  # fmt: skip
    b, block = tl.program_id(0), tl.program_id(1)
    per_group_blocks = tl.cdiv(per_group, BLOCK)
    group = block // per_group_blocks
    lane, n = tl.arange(0, BLOCK), tl.arange(0, STATE)
    in_group = (block % per_group_blocks) * BLOCK + lane
    d, is_d, is_n = group * per_group + in_group, in_group < per_group, n < N
    is_dn = is_d[:, None] & is_n[None, :]
    a = tl.load(A + d[:, None] * N + n[None, :], mask=is_dn, other=0.0)
    skip = tl.load(D + d, mask=is_d, other=0.0)
    h = tl.zeros([BLOCK, STATE], dtype=u.dtype.element_ty)
    kept = starts + (b * tl.num_programs(1) + block) * tl.cdiv(length, CHUNK) * BLOCK * N
    for t in range(0, length):
        if KEEP and t % CHUNK == 0:
            tl.store(kept + (t // CHUNK) * BLOCK * N + lane[:, None] * N + n[None, :], h, mask=is_n[None, :])
        x = tl.load(u + b * u_b + d * u_d + t * u_t, mask=is_d, other=0.0)
        s = tl.load(step + b * s_b + d * s_d + t * s_t, mask=is_d, other=0.0)
        b_t = tl.load(B + b * B_b + group * B_g + n * B_n + t * B_t, mask=is_n, other=0.0)
        c_t = tl.load(C + b * C_b + group * C_g + n * C_n + t * C_t, mask=is_n, other=0.0)
        h = tl.exp(s[:, None] * a) * h + (s * x)[:, None] * b_t[None, :]
        tl.store(y + b * y_b + d * y_d + t * y_t, tl.sum(h * c_t[None, :], axis=1) + skip * x, mask=is_d)
    tl.store(last + (b * dim + d)[:, None] * N + n[None, :], h, mask=is_dn)


@triton.jit
def _backward_kernel(
    g, g_last, u, step, A, B, C, D, starts, scratch, du, dstep, dA, dB, dC, dD,
    g_b, g_d, g_t, u_b, u_d, u_t, s_b, s_d, s_t, B_b, B_g, B_n, B_t, C_b, C_g, C_n, C_t,
    du_b, du_d, du_t, ds_b, ds_d, ds_t,
    dim, length, N, per_group, BLOCK: tl.constexpr, STATE: tl.constexpr, CHUNK: tl.constexpr,
):  # fmt: skip
    b, block = tl.program_id(0), tl.program_id(1)
    per_group_blocks = tl.cdiv(per_group, BLOCK)
    group = block // per_group_blocks
    lane, n = tl.arange(0, BLOCK), tl.arange(0, STATE)
    in_group = (block % per_group_blocks) * BLOCK + lane
    d, is_d, is_n = group * per_group + in_group, in_group < per_group, n < N
    is_dn = is_d[:, None] & is_n[None, :]
    a = tl.load(A + d[:, None] * N + n[None, :], mask=is_dn, other=0.0)
    skip = tl.load(D + d, mask=is_d, other=0.0)
    program, chunks = b * tl.num_programs(1) + block, tl.cdiv(length, CHUNK)
    cell = lane[:, None] * N + n[None, :]
    kept, states = starts + program * chunks * BLOCK * N, scratch + program * CHUNK * BLOCK * N
    carried = tl.load(g_last + (b * dim + d)[:, None] * N + n[None, :], mask=is_dn, other=0.0)  # a_{t+1} G_{t+1}
    sum_A = tl.zeros([BLOCK, STATE], dtype=u.dtype.element_ty)
    sum_D = tl.zeros([BLOCK], dtype=u.dtype.element_ty)
    for back in range(0, chunks):
        chunk = chunks - 1 - back
        t0, n_steps = chunk * CHUNK, tl.minimum(CHUNK, length - chunk * CHUNK)
        h = tl.load(kept + chunk * BLOCK * N + cell, mask=is_n[None, :], other=0.0)
        tl.debug_barrier()
        for i in range(0, n_steps):
            tl.store(states + i * BLOCK * N + cell, h, mask=is_n[None, :])
            x = tl.load(u + b * u_b + d * u_d + (t0 + i) * u_t, mask=is_d, other=0.0)
            s = tl.load(step + b * s_b + d * s_d + (t0 + i) * s_t, mask=is_d, other=0.0)
            b_t = tl.load(B + b * B_b + group * B_g + n * B_n + (t0 + i) * B_t, mask=is_n, other=0.0)
            h = tl.exp(s[:, None] * a) * h + (s * x)[:, None] * b_t[None, :]
        tl.debug_barrier()
        for i in range(0, n_steps):
            t = t0 + n_steps - 1 - i
            before = tl.load(states + (n_steps - 1 - i) * BLOCK * N + cell, mask=is_n[None, :], other=0.0)
            x = tl.load(u + b * u_b + d * u_d + t * u_t, mask=is_d, other=0.0)
            s = tl.load(step + b * s_b + d * s_d + t * s_t, mask=is_d, other=0.0)
            g_y = tl.load(g + b * g_b + d * g_d + t * g_t, mask=is_d, other=0.0)
            b_t = tl.load(B + b * B_b + group * B_g + n * B_n + t * B_t, mask=is_n, other=0.0)
            c_t = tl.load(C + b * C_b + group * C_g + n * C_n + t * C_t, mask=is_n, other=0.0)
            decay = tl.exp(s[:, None] * a)
            G = carried + g_y[:, None] * c_t[None, :]
            decayed = G * decay * before
            h = decay * before + (s * x)[:, None] * b_t[None, :]
            through_B = tl.sum(G * b_t[None, :], axis=1)
            slot = program * N * length + n * length + t
            tl.store(dB + slot, tl.sum(G * (s * x)[:, None], axis=0), mask=is_n)
            tl.store(dC + slot, tl.sum(h * g_y[:, None], axis=0), mask=is_n)
            tl.store(du + b * du_b + d * du_d + t * du_t, s * through_B + skip * g_y, mask=is_d)
            d_step = tl.sum(decayed * a, axis=1) + through_B * x
            tl.store(dstep + b * ds_b + d * ds_d + t * ds_t, d_step, mask=is_d)
            sum_A += decayed * s[:, None]
            sum_D += g_y * x
            carried = G * decay
    tl.store(dA + (b * dim + d)[:, None] * N + n[None, :], sum_A, mask=is_dn)
    tl.store(dD + b * dim + d, sum_D, mask=is_d)


def _blocks(dim: int, B: Tensor) -> int:
    groups = B.shape[1]
    return groups * triton.cdiv(dim // groups, BLOCK)


def _constants(A: Tensor) -> dict[str, int]:
    return {"BLOCK": BLOCK, "STATE": triton.next_power_of_2(A.shape[1]), "CHUNK": CHUNK}
