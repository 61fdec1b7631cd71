"""The selective scan compiled for CPUs (Numba): the forward, and a backward derived by hand.

Work is cut into tiles of ``LANES`` channels and chunks of ``CHUNK`` steps. Inside a tile the channels are the
vector lanes of the processor, so the recurrence over time costs no vector width. A tile is loaded once into local
buffers, whatever the strides of its tensors. Where steps are neighbours in memory, squares of ``BLOCK`` steps and
``BLOCK`` channels are transposed in registers; to copy them one by one takes about as long as the recurrence. The
forward keeps the state at the start of each chunk (N / CHUNK times the size of u), from which the backward recomputes
the states inside a chunk. No batch x dim x L x N array is stored.

With s the step, a_t = exp(s_t A), h_t = a_t h_{t-1} + s_t B_t u_t, y_t = <C_t, h_t> + D u_t and g = dL/dy, the adjoint
state G_t = C_t g_t + a_{t+1} G_{t+1} runs backwards in time and gives

    dC_t = g_t h_t,  dB_t = G_t s_t u_t,  du_t = D g_t + s_t <G_t, B_t>,  dD = sum g_t u_t,
    dA = sum G_t a_t h_{t-1} s_t,  ds_t = <G_t, A a_t h_{t-1} + B_t u_t>.
"""

from __future__ import annotations

import functools
import itertools
import math
import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from llvmlite import ir
from numba import carray, njit, types
from numba.core import cgutils
from numba.extending import intrinsic, overload
from torch import Tensor

LANES = 16
CHUNK = 32
BLOCK = 8  # side of the square that is transposed in registers
SERIAL_WORK = 200_000  # below this number of state updates a second thread costs more than it saves
FAST = {"contract", "reassoc", "nsz", "arcp"}  # no assumption on NaN or infinity

# Cephes' expf: exp(x) = 2^k exp(r), r = x - k ln 2 in two parts, a degree-5 polynomial; 1e-7 relative error.
LOG2_E, LN2_HIGH, LN2_LOW = np.float32(1.44269504), np.float32(0.693359375), np.float32(-2.12194440e-4)
P0, P1, P2 = np.float32(1.9875691500e-4), np.float32(1.3981999507e-3), np.float32(8.3334519073e-3)
P3, P4, P5 = np.float32(4.1665795894e-2), np.float32(1.6666665459e-1), np.float32(0.5)
LOWEST, HIGHEST, HALF, ONE = np.float32(-87.3), np.float32(88.0), np.float32(0.5), np.float32(1)
EXPONENT_BIAS, MANTISSA_BITS = np.int32(127), np.int32(23)


def scan_forward(u: Tensor, step: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, *, keep: bool):
    """Run the recurrence.

    ``u step`` (batch, dim, L), any strides; ``A`` (dim, N); ``B C`` (batch, groups, N, L); ``D`` (dim,); all float32
    or all float64. Returns ``y`` (batch, dim, L), the last state (batch, dim, N), and the states at chunk starts that
    the backward needs (empty unless ``keep``).
    """
    batch, dim, _ = u.shape
    tiles, N = _tiles(dim, B), A.shape[1]
    y, last = torch.empty_like(u), u.new_zeros(batch, dim, N)
    starts = u.new_empty(starts_shape(u, A, B, keep))
    arrays = [_array(tensor) for tensor in (u, step, A, B, C, D, y, last, starts)]
    kernel = compile_kernel("forward", u.dtype)
    _in_parallel(lambda first, stop: kernel(first, stop, *arrays), batch * tiles, u.numel() * N)
    return y, last, starts


def scan_backward(g: Tensor, g_last: Tensor, u: Tensor, step: Tensor, A, B, C, D, starts: Tensor):
    """Return the gradients of u, step, A, B, C, D for the gradients of y and of the last state."""
    batch, dim, _ = u.shape
    tiles = _tiles(dim, B)
    du, dstep = torch.empty_like(u), torch.empty_like(step)
    # Threads own whole batch entries if there are enough of them; else channels are split, each with its own sums.
    threads = torch.get_num_threads()
    splits = 1 if batch >= threads else min(tiles, -(-threads // max(1, batch)))
    units = batch * splits
    dA, dD = u.new_zeros(units, *A.shape), u.new_zeros(units, dim)
    dB, dC = (u.new_zeros(splits, *B.shape) for _ in range(2))
    arrays = [_array(tensor) for tensor in (g, g_last, u, step, A, B, C, D, starts, du, dstep, dA, dB, dC, dD)]
    kernel = compile_kernel("backward", u.dtype)
    _in_parallel(lambda first, stop: kernel(first, stop, splits, *arrays), units, 3 * u.numel() * A.shape[1])
    return du, dstep, dA.sum(0), dB.sum(0), dC.sum(0), dD.sum(0)


def starts_shape(u: Tensor, A: Tensor, B: Tensor, keep: bool) -> tuple[int, ...]:
    """Return the shape of the states that the forward keeps: (batch, tiles, chunks, N, LANES)."""
    batch, dim, length = u.shape
    return batch, _tiles(dim, B), -(-length // CHUNK) if keep else 0, A.shape[1], LANES


def _forward(first, stop, u, step, A, B, C, D, y, last, starts):
    """Tasks first to stop - 1; a task is one tile of channels of one batch entry."""
    dim, length, groups, N = u.shape[1], u.shape[2], B.shape[1], A.shape[1]
    per_group = dim // groups
    tiles_per_group = (per_group + LANES - 1) // LANES
    tiles = groups * tiles_per_group
    us, ss, ys, row = _tile(u), _tile(u), _tile(u), _tile(u)
    h, An = row[0], row[1]
    states, Al, Dl = np.zeros((N, LANES), u.dtype), np.zeros((N, LANES), u.dtype), np.zeros(LANES, u.dtype)
    for task in range(first, stop):
        b, tile = task // tiles, task % tiles
        group, d0, width = _channels(tile, tiles_per_group, per_group)
        _load_coefficients(A, D, d0, width, Al, Dl)
        states[:] = 0
        for chunk in range((length + CHUNK - 1) // CHUNK):
            t0 = chunk * CHUNK
            n_steps = min(CHUNK, length - t0)
            if starts.shape[2]:
                starts[b, tile, chunk] = states
            _load(u, b, d0, width, t0, n_steps, us)
            _load(step, b, d0, width, t0, n_steps, ss)
            for t in range(n_steps):
                for i in range(LANES):
                    ys[t, i] = Dl[i] * us[t, i]
            for n in range(N):
                for i in range(LANES):
                    h[i], An[i] = states[n, i], Al[n, i]
                for t in range(n_steps):
                    Bt, Ct = B[b, group, n, t0 + t], C[b, group, n, t0 + t]
                    for i in range(LANES):
                        h[i] = _exp(ss[t, i] * An[i]) * h[i] + ss[t, i] * us[t, i] * Bt
                        ys[t, i] += Ct * h[i]
                for i in range(LANES):
                    states[n, i] = h[i]
            _store(ys, y, b, d0, width, t0, n_steps)
        for n in range(N):
            for i in range(width):
                last[b, d0 + i, n] = states[n, i]


def _backward(first, stop, splits, g, g_last, u, step, A, B, C, D, starts, du, dstep, dA, dB, dC, dD):
    """Units first to stop - 1; a unit is one split of the channels of one batch entry."""
    dim, length, groups, N = u.shape[1], u.shape[2], B.shape[1], A.shape[1]
    per_group = dim // groups
    tiles_per_group = (per_group + LANES - 1) // LANES
    tiles = groups * tiles_per_group
    us, ss, gs, dus, dss = _tile(u), _tile(u), _tile(u), _tile(u), _tile(u)
    hs, decays, row = _tile(u), _tile(u), _tile(u)
    h, An, Gn, dAn = row[0], row[1], row[2], row[3]
    Al, Dl = np.zeros((N, LANES), u.dtype), np.zeros(LANES, u.dtype)
    G = np.zeros((tiles, N, LANES), u.dtype)  # a_{t+1} G_{t+1} of every tile, carried from chunk to chunk
    dAl, dDl = np.zeros((tiles, N, LANES), u.dtype), np.zeros((tiles, LANES), u.dtype)
    for unit in range(first, stop):
        b, split = unit // splits, unit % splits
        tile0, tile1 = split * tiles // splits, (split + 1) * tiles // splits
        dAl[:] = 0
        dDl[:] = 0
        for tile in range(tile0, tile1):
            group, d0, width = _channels(tile, tiles_per_group, per_group)
            G[tile] = 0
            for i in range(width):
                for n in range(N):
                    G[tile, n, i] = g_last[b, d0 + i, n]
        for chunk in range((length + CHUNK - 1) // CHUNK - 1, -1, -1):
            t0 = chunk * CHUNK
            n_steps = min(CHUNK, length - t0)
            for tile in range(tile0, tile1):
                group, d0, width = _channels(tile, tiles_per_group, per_group)
                _load_coefficients(A, D, d0, width, Al, Dl)
                _load(u, b, d0, width, t0, n_steps, us)
                _load(step, b, d0, width, t0, n_steps, ss)
                _load(g, b, d0, width, t0, n_steps, gs)
                _clear(dus, n_steps)
                _clear(dss, n_steps)
                for n in range(N):
                    for i in range(LANES):
                        h[i], An[i], Gn[i], dAn[i] = starts[b, tile, chunk, n, i], Al[n, i], G[tile, n, i], 0
                    _recompute(n_steps, t0, us, ss, gs, An, B[b, group, n], h, hs, decays, dC[split, b, group, n])
                    _run_back(n_steps, t0, us, ss, gs, An, B[b, group, n], C[b, group, n], hs, decays,
                              Gn, dus, dss, dAn, dB[split, b, group, n])  # fmt: skip
                    for i in range(LANES):
                        G[tile, n, i] = Gn[i]
                        dAl[tile, n, i] += dAn[i]
                _finish(n_steps, us, ss, gs, Dl, dus, dss, dDl[tile])
                _store(dus, du, b, d0, width, t0, n_steps)
                _store(dss, dstep, b, d0, width, t0, n_steps)
        for tile in range(tile0, tile1):
            group, d0, width = _channels(tile, tiles_per_group, per_group)
            for i in range(width):
                dD[unit, d0 + i] = dDl[tile, i]
                for n in range(N):
                    dA[unit, d0 + i, n] = dAl[tile, n, i]


@njit(inline="always")
def _recompute(n_steps, t0, us, ss, gs, An, B, h, hs, decays, dC):
    """Run one state through a chunk again, from ``h`` at its start; keep h_{t-1} and a_t, and add dC_t."""
    for t in range(n_steps):
        Bt, dCt = B[t0 + t], us.dtype.type(0)
        for i in range(LANES):
            hs[t, i] = h[i]
            decays[t, i] = _exp(ss[t, i] * An[i])
            h[i] = decays[t, i] * h[i] + ss[t, i] * us[t, i] * Bt
            dCt += gs[t, i] * h[i]
        dC[t0 + t] += dCt


@njit(inline="always")
def _run_back(n_steps, t0, us, ss, gs, An, B, C, hs, decays, Gn, dus, dss, dAn, dB):
    """Run one adjoint state back through a chunk, from ``Gn`` at its end; add dB_t and sums over states and steps.

    ``dus`` sums <G_t, B_t>, ``dss`` the first term of ds_t; :func:`_finish` completes both.
    """
    for t in range(n_steps - 1, -1, -1):
        Bt, Ct, dBt = B[t0 + t], C[t0 + t], us.dtype.type(0)
        for i in range(LANES):
            Gt = Gn[i] + Ct * gs[t, i]
            Gn[i] = Gt * decays[t, i]
            through = Gn[i] * hs[t, i]
            dBt += Gt * ss[t, i] * us[t, i]
            dAn[i] += through * ss[t, i]
            dss[t, i] += through * An[i]
            dus[t, i] += Gt * Bt
        dB[t0 + t] += dBt


@njit(inline="always")
def _finish(n_steps, us, ss, gs, Dl, dus, dss, dDl):
    """Turn the sums over states of a chunk into du and ds, and add dD."""
    for t in range(n_steps):
        for i in range(LANES):
            dDl[i] += gs[t, i] * us[t, i]
            dss[t, i] += dus[t, i] * us[t, i]
            dus[t, i] = dus[t, i] * ss[t, i] + Dl[i] * gs[t, i]


@njit(inline="always")
def _channels(tile, tiles_per_group, per_group):
    """Return the group of a tile, its first channel and the number of its channels."""
    group = tile // tiles_per_group
    d0 = group * per_group + (tile % tiles_per_group) * LANES
    return group, d0, min(LANES, (group + 1) * per_group - d0)


@intrinsic
def _stack(typing_context, like):
    """Reserve a (CHUNK, LANES) buffer on the stack, so that the compiler knows that it overlaps no other buffer."""

    def codegen(context, builder, signature, arguments):
        buffer = cgutils.alloca_once(builder, context.get_value_type(like.dtype), size=CHUNK * LANES)
        buffer.align = 64  # bytes, a cache line: no vector crosses two
        return buffer

    return types.CPointer(like.dtype)(like), codegen


@njit(inline="always")
def _tile(like):
    """Return an uninitialised (CHUNK, LANES) buffer of the type of ``like``."""
    return carray(_stack(like), (CHUNK, LANES))


@intrinsic
def _as_float32(typing_context, bits):
    """Reinterpret the bits of an int32 as a float32."""

    def codegen(context, builder, signature, arguments):
        return builder.bitcast(arguments[0], ir.FloatType())

    return types.float32(types.int32), codegen


def _exp(x):
    """Return exp(x); in float32 by a form that the compiler can vectorise."""
    return math.exp(x)


@overload(_exp, inline="always")
def _compiled_exp(x):
    if x != types.float32:
        return lambda x: math.exp(x)

    def vectorised(x):
        x = max(min(x, HIGHEST), LOWEST)
        k = np.floor(x * LOG2_E + HALF)
        r = x - k * LN2_HIGH - k * LN2_LOW
        p = (((((P0 * r + P1) * r + P2) * r + P3) * r + P4) * r + P5) * r * r + r + ONE
        return p * _as_float32((np.int32(k) + EXPONENT_BIAS) << MANTISSA_BITS)

    return vectorised


@intrinsic
def _transpose(typing_context, source, row, column, target, to_row, to_column):
    """Set target[to_row + c, to_column + r] = source[row + r, column + c] for all r and c below ``BLOCK``.

    The elements of a row must be neighbours in memory, in both arrays; bounds are not checked. The compiler does not
    vectorise such a loop.
    """

    def codegen(context, builder, signature, arguments):
        item = context.get_value_type(source.dtype)
        alignment, vector = context.get_abi_alignment(item), ir.VectorType(item, BLOCK).as_pointer()

        def pointers(array_type, array, first, start):
            array = context.make_array(array_type)(context, builder, array)
            for r in range(BLOCK):
                cell = [builder.add(first, first.type(r)), start]
                yield builder.bitcast(cgutils.get_item_pointer(context, builder, array_type, array, cell), vector)

        rows = [builder.load(pointer, align=alignment) for pointer in pointers(source, *arguments[:3])]
        for values, pointer in zip(_columns(builder, rows), pointers(target, *arguments[3:]), strict=True):
            builder.store(values, pointer, align=alignment)
        return context.get_dummy_value()

    return types.void(source, row, column, target, to_row, to_column), codegen


def _columns(builder, rows):
    """Return the columns of a square of ``BLOCK`` vectors: squares of 8, 4, then 2 exchange two of their quarters."""
    columns, lanes = list(rows), range(BLOCK)
    for side in (4, 2, 1):
        upper = [BLOCK + lane - side if lane & side else lane for lane in lanes]
        lower = [BLOCK + lane if lane & side else lane + side for lane in lanes]
        for r in [lane for lane in lanes if not lane & side]:
            pair = columns[r], columns[r + side]
            for row, lanes_of_pair in ((r, upper), (r + side, lower)):
                mask = ir.Constant(ir.VectorType(ir.IntType(32), BLOCK), lanes_of_pair)
                columns[row] = builder.shuffle_vector(*pair, mask)
    return columns


@njit(inline="always")
def _has_blocks(rows, width, n_steps):
    """Whether a tile holds a square of ``BLOCK`` and its steps are neighbours in memory."""
    return width >= BLOCK and n_steps >= BLOCK and rows.strides[1] == rows.itemsize


@njit(inline="always")
def _load(source, b, d0, width, t0, n_steps, tile):
    """Copy steps t0... of channels d0... into a (step, lane) tile; lanes beyond the width stay zero."""
    if width < LANES:
        tile[:] = 0
    rows = source[b]
    if _has_blocks(rows, width, n_steps):
        for i0 in range(0, width, BLOCK):
            for s in range(0, n_steps, BLOCK):
                i, t = min(i0, width - BLOCK), min(s, n_steps - BLOCK)  # the last block may overlap the one before
                _transpose(rows, d0 + i, t0 + t, tile, t, i)
    elif width == LANES:  # a number of lanes that the compiler knows: neighbours are copied as one vector
        for t in range(n_steps):
            for i in range(LANES):
                tile[t, i] = rows[d0 + i, t0 + t]
    else:
        for t in range(n_steps):
            for i in range(width):
                tile[t, i] = rows[d0 + i, t0 + t]


@njit(inline="always")
def _clear(tile, n_steps):
    """Set the first steps of a tile to zero."""
    for t in range(n_steps):
        for i in range(LANES):
            tile[t, i] = 0


@njit(inline="always")
def _store(tile, target, b, d0, width, t0, n_steps):
    """Copy a (step, lane) tile back."""
    rows = target[b]
    if _has_blocks(rows, width, n_steps):
        for i0 in range(0, width, BLOCK):
            for s in range(0, n_steps, BLOCK):
                i, t = min(i0, width - BLOCK), min(s, n_steps - BLOCK)
                _transpose(tile, t, i, rows, d0 + i, t0 + t)
    elif width == LANES:
        for t in range(n_steps):
            for i in range(LANES):
                rows[d0 + i, t0 + t] = tile[t, i]
    else:
        for t in range(n_steps):
            for i in range(width):
                rows[d0 + i, t0 + t] = tile[t, i]


@njit(inline="always")
def _load_coefficients(A, D, d0, width, Al, Dl):
    """Copy A and D of a tile's channels; lanes beyond the width stay zero."""
    Al[:] = 0
    Dl[:] = 0
    for i in range(width):
        Dl[i] = D[d0 + i]
        for n in range(A.shape[1]):
            Al[n, i] = A[d0 + i, n]


@functools.cache
def compile_kernel(name: str, dtype: torch.dtype):
    """Compile ``forward`` or ``backward`` for a type, for arrays of any strides.

    This happens once per machine, because Numba caches the result; without a cache, once per process.
    """
    scalar = types.float32 if dtype == torch.float32 else types.float64

    def arrays(*dimensions: int):
        return [types.Array(scalar, d, "A") for d in dimensions]

    integer = types.int64
    if name == "forward":
        signature, kernel = [integer, integer, *arrays(3, 3, 2, 4, 4, 1, 3, 3, 5)], _forward
    else:
        signature = [integer, integer, integer, *arrays(3, 3, 3, 3, 2, 4, 4, 1, 5, 3, 3, 3, 5, 5, 2)]
        kernel = _backward
    options = {"nogil": True, "fastmath": FAST, "error_model": "numpy"}
    try:
        return njit(types.void(*signature), cache=True, **options)(kernel)
    except Exception:  # no writable folder, no space, a damaged file; an error in the kernel itself recurs below
        return njit(types.void(*signature), **options)(kernel)


@functools.cache
def _pool(workers: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(workers, thread_name_prefix="selective-scan")


def _after_fork() -> None:
    """Forget the parent's threads, ours and OpenMP's: a forked child has none of them and would wait forever."""
    _pool.cache_clear()
    torch.set_num_threads(1)  # as in torch's own DataLoader workers


if hasattr(os, "register_at_fork"):  # not on Windows, where nothing forks
    os.register_at_fork(after_in_child=_after_fork)


def _in_parallel(kernel, tasks: int, work: int) -> None:
    """Distribute tasks 0 to tasks - 1 over torch's number of threads."""
    threads = min(torch.get_num_threads(), tasks) if work > SERIAL_WORK else 1
    if threads <= 1:
        kernel(0, tasks)
        return
    bounds = [k * tasks // threads for k in range(threads + 1)]
    futures = [_pool(threads - 1).submit(kernel, *span) for span in itertools.pairwise(bounds[1:])]
    kernel(bounds[0], bounds[1])
    for future in futures:
        future.result()


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().numpy()


def _tiles(dim: int, B: Tensor) -> int:
    groups = B.shape[1]
    return groups * -(-(dim // groups) // LANES)
