"""What the benchmarks compare with: two ways in which the scan is commonly computed in plain PyTorch.

Both take the arguments of ``mammo_lib.ops.scan.scan_reference``, with one group, and return y and None.
"""

from __future__ import annotations

import contextlib
import sys
from unittest import mock

import torch
from torch import Tensor

from mammo_lib.ops import scan


@contextlib.contextmanager
def scanning_with(side: str):
    """Let every mixer use ``indexing_loop`` or ``mambapy``; the rest of a network stays as it is."""
    other = {"indexing_loop": indexing_loop, "mambapy": parallel_scan}[side]
    with mock.patch.object(scan, "_run_compiled", lambda _, inputs: other(*inputs)):
        yield


def indexing_loop(u: Tensor, step: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor) -> tuple[Tensor, None]:
    """A loop that indexes (batch, dim, L, N) tensors at every step, as ``mamba_ssm``'s reference does (own code)."""
    B, C = B[:, 0], C[:, 0]
    decay = torch.exp(torch.einsum("bdl,dn->bdln", step, A))
    drive = torch.einsum("bdl,bnl,bdl->bdln", step, B, u)
    h, outputs = u.new_zeros(*u.shape[:2], A.shape[1]), []
    for t in range(u.shape[2]):
        h = decay[:, :, t] * h + drive[:, :, t]
        outputs.append(torch.einsum("bdn,bn->bd", h, C[:, :, t]))
    return torch.stack(outputs, dim=2) + u * D[:, None], None


def parallel_scan(u: Tensor, step: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor) -> tuple[Tensor, None]:
    """``mambapy``'s parallel scan (PyPI) over (batch, L, dim, N)."""
    try:
        from mambapy.pscan import pscan
    except ModuleNotFoundError:
        sys.exit("this benchmark compares with mambapy, which is not installed: pip install mambapy")

    u_, step_, B_, C_ = u.transpose(1, 2), step.transpose(1, 2), B[:, 0].transpose(1, 2), C[:, 0].transpose(1, 2)
    decay = torch.exp(step_[..., None] * A)
    drive = step_[..., None] * B_[:, :, None] * u_[..., None]
    h = pscan(decay, drive)
    return ((h @ C_[..., None])[..., 0] + D * u_).transpose(1, 2), None
