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
import warnings
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn import functional

from .scan_chunked import scan_chunked
from .scan_op import register

BACKENDS = ("reference", "chunked", "numba", "triton", "mamba_ssm")
OPERATORS = {"numba": register("scan_cpu"), "triton": register("scan_gpu")}
DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


def selective_scan(
    u: Float[Tensor, "batch dim length"], delta: Float[Tensor, "batch dim length"], A: Float[Tensor, "dim state"],
    B: Float[Tensor, "*_"], C: Float[Tensor, "*_"], D: Float[Tensor, " dim"] | None = None,
    z: Float[Tensor, "batch dim length"] | None = None, delta_bias: Float[Tensor, " dim"] | None = None,
    delta_softplus: bool = False, return_last_state: bool = False, *, backend: str = "auto",
):  # fmt: skip
    """Run the selective scan; the signature is that of ``mamba_ssm``'s ``selective_scan_fn``.

    Tensors may have any strides. State and accumulation are float32, or float64 for a float64 ``u``. Differentiable in
    every tensor. With ``z`` the output is multiplied by SiLU(z). ``backend`` is ``reference`` (plain PyTorch, the
    specification), ``chunked`` (plain PyTorch, fewer steps in sequence: for export), ``numba`` (CPU), ``triton`` or
    ``mamba_ssm`` (NVIDIA GPU), or ``auto``: the fastest that runs here, on a GPU ``mamba_ssm``, then ``triton``; on a
    CPU ``numba``; else ``reference``. The two in plain PyTorch offer second derivatives, forward-mode derivatives and
    the transforms of ``torch.func``; ``auto`` uses ``reference`` for the last two.

    Returns
    -------
    Tensor, or (Tensor, Tensor)
        ``out`` (batch, dim, L) in the dtype of ``u``; with ``return_last_state`` also the final state (batch, dim, N).

    Raises
    ------
    ValueError
        A shape does not fit, a tensor is not real floating-point or lies on another device than ``u``, or the backend
        is unknown.
    RuntimeError
        The backend cannot run here, or not on this device; or ``torch.jit.trace`` records. The message says why.
    NotImplementedError
        A compiled backend, requested by name, is used under a transform of ``torch.func`` or in forward mode; or a
        compiled backend, even if chosen by ``auto``, would need second derivatives: request ``reference`` or
        ``chunked`` for these.

    Examples
    --------
    A step of ln 2 halves the state, h = 1, 1/2, 1/4, and B is chosen so that an impulse arrives whole:

    >>> import math, torch
    >>> u = torch.tensor([[[1.0, 0.0, 0.0]]])
    >>> step, ones = torch.full_like(u, math.log(2)), torch.ones_like(u)
    >>> selective_scan(u, step, -torch.ones(1, 1), ones / math.log(2), ones, backend="reference")
    tensor([[[1.0000, 0.5000, 0.2500]]])
    """
    tensors = {"u": u, "delta": delta, "A": A, "B": B, "C": C, "D": D, "z": z, "delta_bias": delta_bias}
    tensors = {name: tensor for name, tensor in tensors.items() if tensor is not None}
    _check(tensors)
    backend = _choose(backend, tensors)
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
    y, last_state = PLAIN[backend](*inputs) if backend in PLAIN else _run_compiled(backend, inputs)
    if z is not None:
        y = y * functional.silu(z.to(work))
    out = y.to(u.dtype)
    return (out, last_state) if return_last_state else out


def scan_reference(
    u: Float[Tensor, "batch dim length"], step: Float[Tensor, "batch dim length"], A: Float[Tensor, "dim state"],
    B: Float[Tensor, "batch groups state length"], C: Float[Tensor, "batch groups state length"],
    D: Float[Tensor, " dim"],
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Step through time as in the equation; return y and the last state."""
    B, C = (m.repeat_interleave(u.shape[1] // m.shape[1], dim=1) for m in (B, C))
    decay = torch.exp(step.unsqueeze(2) * A[:, :, None]).unbind(-1)
    drive = ((step * u).unsqueeze(2) * B).unbind(-1)
    h, outputs = u.new_zeros(*u.shape[:2], A.shape[1]), []
    for a_t, b_t, C_t in zip(decay, drive, C.unbind(-1), strict=True):
        h = a_t * h + b_t
        outputs.append((h * C_t).sum(-1))
    y = torch.stack(outputs, dim=-1) if outputs else torch.zeros_like(u)
    return y + D[:, None] * u, h


PLAIN = {"reference": scan_reference, "chunked": scan_chunked}


def choose_backend(u: Tensor) -> str:
    """Return the backend that ``auto`` selects for a tensor: the fastest one that runs on its device."""
    names = {"cpu": ("numba",), "cuda": ("mamba_ssm", "triton")}.get(u.device.type, ())
    # mamba_ssm has no float64.
    return _first_that_runs(*(name for name in names if name != "mamba_ssm" or u.dtype != torch.float64))


def backends() -> dict[str, str]:
    """Return, for every backend, "available" or why it is not, and whether GPU parity has been recorded."""
    return {name: reason_against(name) or _status(name) for name in BACKENDS}


def _constant(function: Callable) -> Callable:
    """Let ``torch.compile`` call a function during tracing and treat the result as constant.

    ``torch.compiler.assume_constant_result`` sets the same mark, but loads ``torch._dynamo``, which takes two seconds.
    """
    function._dynamo_marked_constant = True
    return function


@_constant
def reason_against(name: str) -> str | None:
    """Return why a backend cannot be used here, or None if it can. Determined once, at first use."""
    return _probe(name)


@functools.cache
def _probe(name: str) -> str | None:
    try:
        if name == "numba":
            importlib.import_module(".scan_cpu", __package__).compile_kernel("forward", torch.float32)
        elif name == "triton":
            kernels = importlib.import_module(".scan_gpu", __package__)
            if not (torch.cuda.is_available() or kernels.is_interpreted()):
                return "no CUDA device"
            one = torch.ones(1, 1, 1, 1, device="cuda" if torch.cuda.is_available() else "cpu")
            kernels.scan_forward(one[0], one[0], one[0, 0], one, one, one[0, 0, 0], keep=False)
        elif name == "mamba_ssm":
            _mamba_ssm()
            if not torch.cuda.is_available():
                return "no CUDA device"
    except Exception as error:  # compiled code and its compilers may fail in any way; the error is the reason
        return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no message'}"
    return None


@_constant
def _first_that_runs(*names: str) -> str:
    found = next((name for name in names if reason_against(name) is None), "reference")
    if names and found == "reference":
        reasons = "; ".join(f"{name}: {reason_against(name)}" for name in names)
        slow = f"the selective scan runs in plain PyTorch, many times slower than compiled ({reasons})"
        warnings.warn(slow, RuntimeWarning, stacklevel=2)
    return found


def _status(name: str) -> str:
    if name != "triton":
        return "available"
    from .scan_gpu import has_recorded_parity

    return "available" if has_recorded_parity() else "available, not yet verified on a GPU"


def _choose(backend: str, tensors: dict[str, Tensor]) -> str:
    """Return the backend to run: the requested one, if it supports this call, or the choice of ``auto``."""
    if backend not in ("auto", *BACKENDS):
        raise ValueError(f"backend must be one of auto, {', '.join(BACKENDS)}, got {backend!r}")
    if backend in PLAIN:
        return backend
    is_transformed = _is_transformed(tensors.values())
    if backend == "auto" and is_transformed:
        return "reference"
    if backend == "auto":
        return choose_backend(tensors["u"])
    if reason := reason_against(backend):
        raise RuntimeError(f"backend {backend!r} is not available: {reason}; choose another or backend='auto'")
    # Without a GPU Triton runs under its interpreter, on the CPU.
    is_cpu = backend == "numba" or (backend == "triton" and not torch.cuda.is_available())
    device, own = tensors["u"].device.type, "cpu" if is_cpu else "cuda"
    if device not in (own, "meta"):
        raise RuntimeError(f"backend {backend!r} runs on {own}, and u is on {device}; choose another or backend='auto'")
    if is_transformed:
        raise NotImplementedError(
            f"backend {backend!r} offers neither torch.func's transforms nor forward-mode derivatives; use 'reference'"
        )
    return backend


def _is_transformed(tensors) -> bool:
    """Return whether ``torch.func`` (vmap, grad, jvp, ...) or forward-mode differentiation traces a tensor.

    The compiled operators would return a tangent of zero, or fail obscurely.
    """
    if torch.compiler.is_compiling():
        return False
    is_wrapped = torch._C._functorch.is_functorch_wrapped_tensor
    return any(is_wrapped(tensor) or forward_ad.unpack_dual(tensor).tangent is not None for tensor in tensors)


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
    """Bring B or C to (batch, groups, N, L): one group per channel if constant, a single group if it has no groups."""
    batch, dim, length = u.shape
    if matrix.dim() == 2:
        return matrix[None, :, :, None].expand(batch, dim, -1, length)
    return matrix[:, None] if matrix.dim() == 3 else matrix


def _check(tensors: dict[str, Tensor]) -> None:
    """Refuse what no backend accepts: a cast would drop imaginary parts, and the compiled kernels check no bounds."""
    if torch.jit.is_tracing():
        raise RuntimeError(
            "selective_scan cannot be traced by torch.jit.trace; use torch.export.export or torch.compile"
        )
    u, A = tensors["u"], tensors["A"]
    for name, tensor in tensors.items():
        if tensor.dtype not in DTYPES:
            offered = ", ".join(str(dtype).removeprefix("torch.") for dtype in DTYPES)
            raise ValueError(f"{name} must be real floating-point ({offered}), got {tensor.dtype}")
        if tensor.device != u.device:
            raise ValueError(f"{name} must be on u's device {u.device}, got {tensor.device}")
    if u.dim() != 3:
        raise ValueError(f"u must be (batch, dim, L), got {tuple(u.shape)}")
    batch, dim, length = u.shape
    if A.dim() != 2 or A.shape[0] != dim:
        raise ValueError(f"A must be (dim={dim}, N), got {tuple(A.shape)}")
    N = A.shape[1]
    if dim < 1 or N < 1:
        raise ValueError(f"the scan needs at least one channel and one state, got dim={dim} and N={N}")
    for name, tensor in tensors.items():
        shape = tuple(tensor.shape)
        if name in ("delta", "z") and shape != u.shape:
            raise ValueError(f"{name} must have u's shape {tuple(u.shape)}, got {shape}")
        if name in ("D", "delta_bias") and shape != (dim,):
            raise ValueError(f"{name} must be (dim={dim},), got {shape}")
        if name in ("B", "C"):
            groups = shape[1] if len(shape) == 4 and shape[1] > 0 else 1
            if shape not in ((dim, N), (batch, N, length), (batch, groups, N, length)) or dim % groups:
                raise ValueError(
                    f"{name} must be (dim={dim}, N={N}), (batch={batch}, N={N}, L={length}) or (batch, groups, N, L) "
                    f"with groups dividing dim, got {shape}"
                )
