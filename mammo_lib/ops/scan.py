"""The selective scan: a linear recurrence whose coefficients depend on the input.

| code | meaning | shape |
|---|---|---|
| u | input | (batch, dim, L) |
| delta | step size, before softplus where ``delta_softplus`` | (batch, dim, L) |
| A | state matrix, diagonal, negative | (dim, N) |
| B, C | input and output maps | (dim, N), (batch, N, L) or (batch, groups, N, L) |
| D | skip | (dim,) |
| h | state | (batch, dim, N) |

    h_t = exp(delta_t A) h_{t-1} + delta_t B_t u_t,    y_t = <C_t, h_t> + D u_t,    h_0 = 0

(Gu and Dao 2023, equations 2a-2b; Euler for B, as their code does). B_t and C_t depend on the input, so there is no
convolution kernel.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

BACKENDS = ("auto", "reference")


def selective_scan(
    u: Float[Tensor, "batch dim length"],
    delta: Float[Tensor, "batch dim length"],
    A: Float[Tensor, "dim state"],
    B: Float[Tensor, ...],
    C: Float[Tensor, ...],
    D: Float[Tensor, " dim"] | None = None,
    z: Float[Tensor, "batch dim length"] | None = None,
    delta_bias: Float[Tensor, " dim"] | None = None,
    delta_softplus: bool = False,
    return_last_state: bool = False,
    *,
    backend: str = "auto",
):
    """Run the selective scan; the signature is that of ``mamba_ssm``'s ``selective_scan_fn``.

    Tensors may have any strides. State and accumulation are float32, or float64 for float64 inputs. Differentiable in
    every tensor. With ``z`` the output is multiplied by SiLU(z).

    Returns
    -------
    Tensor, or (Tensor, Tensor)
        ``out`` (batch, dim, L) in the dtype of ``u``; with ``return_last_state`` also the final state (batch, dim, N).

    Raises
    ------
    ValueError
        A shape does not fit, or the backend is unknown.
    """
    if backend not in BACKENDS:
        raise ValueError(f"backend must be one of {', '.join(BACKENDS)}, got {backend!r}")
    _check_shapes(u, delta, A, B, C)
    work = torch.float64 if u.dtype == torch.float64 else torch.float32
    step = delta.to(work)
    if delta_bias is not None:
        step = step + delta_bias.to(work)[:, None]
    if delta_softplus:
        step = functional.softplus(step)
    y, last_state = _recurrence(u.to(work), step, A.to(work), _per_channel(B, u).to(work), _per_channel(C, u).to(work))
    if D is not None:
        y = y + D.to(work)[:, None] * u.to(work)
    if z is not None:
        y = y * functional.silu(z.to(work))
    out = y.to(u.dtype)
    return (out, last_state) if return_last_state else out


def _recurrence(u, delta, A, B, C):
    """Step through time: u, delta (batch, dim, L); A (dim, N); B, C (batch, dim or 1, N, L)."""
    decay = torch.exp(delta.unsqueeze(2) * A[:, :, None]).unbind(-1)
    drive = ((delta * u).unsqueeze(2) * B).unbind(-1)
    state, outputs = u.new_zeros(*u.shape[:2], A.shape[1]), []
    for t, read in enumerate(C.unbind(-1)):
        state = decay[t] * state + drive[t]
        outputs.append((state * read).sum(-1))
    return torch.stack(outputs, dim=-1) if outputs else torch.empty_like(u), state


def _per_channel(matrix: Tensor, u: Tensor) -> Tensor:
    """Bring B or C to (batch, dim or 1, N, L)."""
    batch, dim, length = u.shape
    if matrix.dim() == 2:
        return matrix[None, :, :, None].expand(batch, dim, -1, length)
    if matrix.dim() == 3:
        return matrix[:, None]
    groups = matrix.shape[1]
    return matrix if groups == 1 else matrix.repeat_interleave(dim // groups, dim=1)


def _check_shapes(u, delta, A, B, C):
    batch, dim, length = u.shape
    if delta.shape != u.shape:
        raise ValueError(f"delta must have u's shape {tuple(u.shape)}, got {tuple(delta.shape)}")
    if A.dim() != 2 or A.shape[0] != dim:
        raise ValueError(f"A must be (dim={dim}, N), got {tuple(A.shape)}")
    N = A.shape[1]
    for name, matrix in (("B", B), ("C", C)):
        is_grouped = matrix.dim() == 4 and matrix.shape[1] > 0 and dim % matrix.shape[1] == 0
        groups = matrix.shape[1] if is_grouped else 0
        if tuple(matrix.shape) not in {(dim, N), (batch, N, length), (batch, groups, N, length)}:
            raise ValueError(
                f"{name} must be (dim={dim}, N={N}), (batch={batch}, N={N}, L={length}) or (batch, groups, N, L) "
                f"with groups dividing dim, got {tuple(matrix.shape)}"
            )
