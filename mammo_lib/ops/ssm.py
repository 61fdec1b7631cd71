"""A linear state space model with constant coefficients: how it becomes steps, and three forms of one operator.

| code | meaning | shape |
|---|---|---|
| A | state matrix | (N, N), or (N,) for a diagonal one |
| B, C | input and output vectors | (N,) |
| D | skip, a number | |
| dt | step size | a number |
| h | state | (..., N) |
| K | kernel | (L,) |

    h'(t) = A h(t) + B x(t),  y(t) = C h(t) + D x(t)     (continuous: needs a discretisation)
    h_t = A h_{t-1} + B x_t,  y_t = C h_t + D x_t        (recurrence: L steps, one after the other)
    y = K * x + D x,  K = [CB, CAB, ..., C A^{L-1} B]    (convolution: all steps at once)

A and B of the last two lines are those that a discretisation returns (Gu and Dao 2023, equations 1 to 4).

A *selective* scan has no such kernel: its coefficients change with the input.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def ssm_zero_order_hold(
    A: Float[Tensor, "*_"], B: Float[Tensor, " state"], dt: float
) -> tuple[Float[Tensor, "*_"], Float[Tensor, " state"]]:
    """Return A and B of the step that is exact when x is held for a time ``dt``.

    A becomes exp(dt A) and B becomes A^-1 (exp(dt A) - I) B (Gu and Dao 2023, equation 4); A may be singular.

    >>> import math
    >>> ssm_zero_order_hold(torch.tensor([-1.0]), torch.tensor([3.0]), math.log(2))  # exp(-ln 2) = 1/2, 3 (1 - 1/2)
    (tensor([0.5000]), tensor([1.5000]))
    """
    _check_step(dt)
    if A.dim() == 1:
        is_zero = A == 0
        return torch.exp(dt * A), B * torch.where(is_zero, dt, torch.expm1(dt * A) / A.masked_fill(is_zero, 1))
    # The exponential of [[A, B], [0, 0]] contains both, without dividing by A.
    size = A.shape[0]
    both = torch.linalg.matrix_exp(dt * torch.cat([torch.cat([A, B[:, None]], dim=1), A.new_zeros(1, size + 1)]))
    return both[:size, :size], both[:size, size]


def ssm_euler(
    A: Float[Tensor, "*_"], B: Float[Tensor, " state"], dt: float
) -> tuple[Float[Tensor, "*_"], Float[Tensor, " state"]]:
    """Return A and B of one forward Euler step, I + dt A and dt B: the first terms of the zero-order hold.

    >>> ssm_euler(torch.tensor([-1.0]), torch.tensor([3.0]), 0.5)
    (tensor([0.5000]), tensor([1.5000]))
    """
    _check_step(dt)
    identity = torch.ones_like(A) if A.dim() == 1 else torch.eye(A.shape[0], dtype=A.dtype, device=A.device)
    return identity + dt * A, dt * B


def ssm_recurrence(
    x: Float[Tensor, "*batch length"], A: Float[Tensor, "*_"], B: Float[Tensor, " state"], C: Float[Tensor, " state"],
    D: float | Tensor = 0.0,
) -> Float[Tensor, "*batch length"]:  # fmt: skip
    """Run the recurrence, one step after the other.

    >>> half = torch.tensor([0.5])  # h = 3, 3/2 + 0, 3/4 + 6 and y = 2 h
    >>> ssm_recurrence(torch.tensor([1.0, 0.0, 2.0]), half, torch.tensor([3.0]), torch.tensor([2.0]))
    tensor([ 6.0000,  3.0000, 13.5000])
    """
    h, outputs = x.new_zeros(*x.shape[:-1], B.shape[0]), []
    for x_t in x.unbind(-1):
        h = _advance(A, h) + B * x_t[..., None]
        outputs.append(h @ C)
    return torch.stack(outputs, dim=-1) + D * x


def ssm_kernel(
    A: Float[Tensor, "*_"], B: Float[Tensor, " state"], C: Float[Tensor, " state"], length: int
) -> Float[Tensor, " length"]:
    """Return K = [CB, CAB, ..., C A^(length-1) B].

    >>> ssm_kernel(torch.tensor([0.5]), torch.tensor([3.0]), torch.tensor([2.0]), length=3)
    tensor([6.0000, 3.0000, 1.5000])
    """
    if length < 1:
        raise ValueError(f"length must be at least 1, got {length}")
    state, entries = B, []
    for _ in range(length):
        entries.append(state @ C)
        state = _advance(A, state)
    return torch.stack(entries)


def ssm_convolve(
    x: Float[Tensor, "*batch length"], K: Float[Tensor, " length"], D: float | Tensor = 0.0
) -> Float[Tensor, "*batch length"]:
    """Return the causal convolution K * x + D x by FFT, in O(L log L); padded so that nothing wraps around.

    >>> ssm_convolve(torch.tensor([1.0, 0.0, 2.0]), torch.tensor([6.0, 3.0, 1.5]))  # 3/2 + 2 * 6 = 13.5
    tensor([ 6.0000,  3.0000, 13.5000])
    """
    length = x.shape[-1]
    if K.shape[-1] < length:
        raise ValueError(f"the kernel must be at least as long as x ({length}), got {K.shape[-1]}")
    n = 2 * length
    product = torch.fft.rfft(x, n=n) * torch.fft.rfft(K[..., :length], n=n)
    return torch.fft.irfft(product, n=n)[..., :length] + D * x


def _advance(A: Tensor, h: Tensor) -> Tensor:
    return A * h if A.dim() == 1 else h @ A.T


def _check_step(dt: float) -> None:
    if not dt > 0:
        raise ValueError(f"dt must be above 0, got {dt}")
