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

import functools
import importlib
import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from .scan_op import register

BACKENDS = ("reference", "numba", "triton", "mamba_ssm")
OPERATORS = {"numba": register("scan_cpu"), "triton": register("scan_gpu")}


def selective_scan(
    u: Float[Tensor, "batch dim length"],
    delta: Float[Tensor, "batch dim length"],
    A: Float[Tensor, "dim state"],
    B: Float[Tensor, "*_"],
    C: Float[Tensor, "*_"],
    D: Float[Tensor, " dim"] | None = None,
    z: Float[Tensor, "batch dim length"] | None = None,
    delta_bias: Float[Tensor, " dim"] | None = None,
    delta_softplus: bool = False,
    return_last_state: bool = False,
    *,
    backend: str = "auto",
):
    """Run the selective scan; the signature is that of ``mamba_ssm``'s ``selective_scan_fn``.

    Tensors may have any strides. State and accumulation are float32, or float64 for a float64 ``u``. Differentiable in
    every tensor. With ``z`` the output is multiplied by SiLU(z). ``backend`` is ``reference`` (plain PyTorch, the
    specification), ``numba`` (CPU), ``triton`` or ``mamba_ssm`` (NVIDIA GPU), or ``auto``: on a GPU ``mamba_ssm``, then
    ``triton``; on a CPU ``numba``; ``reference`` on other devices.

    Returns
    -------
    Tensor, or (Tensor, Tensor)
        ``out`` (batch, dim, L) in the dtype of ``u``; with ``return_last_state`` also the final state (batch, dim, N).

    Raises
    ------
    ValueError
        A shape does not fit, or the backend is unknown.
    RuntimeError
        The backend is not available here; the message says why.
    """
    _check_shapes(u, delta, A, B, C, D, z, delta_bias)
    backend = choose_backend(u) if backend == "auto" else _available(backend)
    if backend == "mamba_ssm":
        return _mamba_ssm()(u, delta, A, B, C, D, z, delta_bias, delta_softplus, return_last_state)
    work = torch.float64 if u.dtype == torch.float64 else torch.float32
    step = delta.to(work)
    if delta_bias is not None:
        step = step + delta_bias.to(work)[:, None]
    if delta_softplus:
        step = functional.softplus(step)
    skip = u.new_zeros(u.shape[1], dtype=work) if D is None else D.to(work)
    inputs = (u.to(work), step, A.to(work), *(m.to(work) for m in _same_groups(B, C, u)), skip)
    y, last_state = scan_reference(*inputs) if backend == "reference" else _run_compiled(backend, inputs)
    if z is not None:
        y = y * functional.silu(z.to(work))
    out = y.to(u.dtype)
    return (out, last_state) if return_last_state else out


def scan_reference(
    u: Float[Tensor, "batch dim length"],
    step: Float[Tensor, "batch dim length"],
    A: Float[Tensor, "dim state"],
    B: Float[Tensor, "batch groups state length"],
    C: Float[Tensor, "batch groups state length"],
    D: Float[Tensor, " dim"],
) -> tuple[Tensor, Tensor]:
    """Step through time, as the equation says; return y and the last state."""
    B, C = (m.repeat_interleave(u.shape[1] // m.shape[1], dim=1) for m in (B, C))
    decay = torch.exp(step.unsqueeze(2) * A[:, :, None]).unbind(-1)
    drive = ((step * u).unsqueeze(2) * B).unbind(-1)
    h, outputs = u.new_zeros(*u.shape[:2], A.shape[1]), []
    for a_t, b_t, C_t in zip(decay, drive, C.unbind(-1), strict=True):
        h = a_t * h + b_t
        outputs.append((h * C_t).sum(-1))
    return torch.stack(outputs, dim=-1) + D[:, None] * u, h


def choose_backend(u: Tensor) -> str:
    """Return what ``auto`` means for a tensor: the fastest available backend of its device."""
    if u.device.type == "cuda":
        # mamba_ssm has no float64.
        names = ["triton"] if u.dtype == torch.float64 else ["mamba_ssm", "triton"]
        return next((name for name in names if reason_against(name) is None), "reference")
    return _available("numba") if u.device.type == "cpu" else "reference"


def backends() -> dict[str, str]:
    """Return, for every backend, "available" or the reason why not, and whether GPU parity has been recorded."""
    return {name: reason_against(name) or _status(name) for name in BACKENDS}


@torch.compiler.assume_constant_result
def reason_against(name: str) -> str | None:
    """Return why a backend cannot be used here, None where it can. Found out once, at first use."""
    return _probe(name)


@functools.cache
def _probe(name: str) -> str | None:
    try:
        if name == "numba":
            importlib.import_module("numba")
        elif name == "triton":
            importlib.import_module("triton")
            from .scan_gpu import is_interpreted

            if not (torch.cuda.is_available() or is_interpreted()):
                return "no CUDA device"
        elif name == "mamba_ssm":
            _mamba_ssm()
            if not torch.cuda.is_available():
                return "no CUDA device"
    except Exception as error:  # an import of compiled code may fail in any way; the way is the answer
        return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no message'}"
    return None


def _status(name: str) -> str:
    if name != "triton":
        return "available"
    from .scan_gpu import has_recorded_parity

    return "available" if has_recorded_parity() else "available, not yet verified on a GPU"


def _available(name: str) -> str:
    if name not in BACKENDS:
        raise ValueError(f"backend must be one of auto, {', '.join(BACKENDS)}, got {name!r}")
    if reason := reason_against(name):
        raise RuntimeError(f"backend {name!r} is not available: {reason}; choose another or backend='auto'")
    return name


def _run_compiled(backend: str, inputs: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
    keep = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in inputs)
    y, last_state, _ = OPERATORS[backend](*inputs, keep)
    return y, last_state


def _mamba_ssm() -> Callable:
    return importlib.import_module("mamba_ssm.ops.selective_scan_interface").selective_scan_fn


def _same_groups(B: Tensor, C: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
    """Bring B and C to (batch, groups, N, L) with as many groups in both."""
    B, C = _grouped(B, u), _grouped(C, u)
    groups = math.lcm(B.shape[1], C.shape[1])
    return tuple(m if m.shape[1] == groups else m.repeat_interleave(groups // m.shape[1], dim=1) for m in (B, C))


def _grouped(matrix: Tensor, u: Tensor) -> Tensor:
    """Bring B or C to (batch, groups, N, L): a group per channel where it is constant, one group where it has none."""
    batch, dim, length = u.shape
    if matrix.dim() == 2:
        return matrix[None, :, :, None].expand(batch, dim, -1, length)
    return matrix[:, None] if matrix.dim() == 3 else matrix


def _check_shapes(u, delta, A, B, C, D, z, delta_bias):
    """Refuse what does not fit: the compiled kernels do not check their bounds."""
    if u.dim() != 3:
        raise ValueError(f"u must be (batch, dim, L), got {tuple(u.shape)}")
    batch, dim, length = u.shape
    for name, sequence in (("delta", delta), ("z", z)):
        if sequence is not None and sequence.shape != u.shape:
            raise ValueError(f"{name} must have u's shape {tuple(u.shape)}, got {tuple(sequence.shape)}")
    for name, vector in (("D", D), ("delta_bias", delta_bias)):
        if vector is not None and tuple(vector.shape) != (dim,):
            raise ValueError(f"{name} must be (dim={dim},), got {tuple(vector.shape)}")
    if A.dim() != 2 or A.shape[0] != dim:
        raise ValueError(f"A must be (dim={dim}, N), got {tuple(A.shape)}")
    N = A.shape[1]
    for name, matrix in (("B", B), ("C", C)):
        groups = matrix.shape[1] if matrix.dim() == 4 and matrix.shape[1] > 0 else 1
        is_known = tuple(matrix.shape) in {(dim, N), (batch, N, length), (batch, groups, N, length)}
        if not is_known or dim % groups:
            raise ValueError(
                f"{name} must be (dim={dim}, N={N}), (batch={batch}, N={N}, L={length}) or (batch, groups, N, L) "
                f"with groups dividing dim, got {tuple(matrix.shape)}"
            )
