"""The literal reading of the paper's equation: a convolution with a fixed kernel, then a gate.

| code | meaning | shape |
|---|---|---|
| x | tokens of a window, row-major | (windows, tokens, dim) |
| A, B, C, dt, D | constant coefficients of one diagonal model per channel | (dim, N), (dim,) |
| K | kernel [CB, CAB, ..., C A^{L-1} B] | (dim, L) |

    y = sigmoid(W_g x + b_g) * (K * x + D x)

The kernel is the same for every input ("SSM as convolution"); only the gate depends on the content. MambaVision's own
mixer is input-dependent and has no kernel; the paper uses both descriptions.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..ops import ssm_convolve

D_STATE = 8  # as in the state-space mixer
DT_RANGE = (0.001, 0.1)  # Mamba's initial step sizes, log-uniform


class GatedConvMixer(nn.Module):
    """A replacement for the state-space mixer: same input, same output, about as many parameters."""

    def __init__(self, width: int):
        super().__init__()
        self.in_proj = nn.Linear(width, width, bias=False)
        self.gate = nn.Linear(width, width)
        self.out_proj = nn.Linear(width, width, bias=False)
        self.A_log = nn.Parameter(torch.log(torch.arange(1, D_STATE + 1, dtype=torch.float32)).repeat(width, 1))
        self.B = nn.Parameter(torch.ones(width, D_STATE))
        self.C = nn.Parameter(torch.randn(width, D_STATE) / math.sqrt(D_STATE))
        low, high = (math.log(bound) for bound in DT_RANGE)
        self.log_dt = nn.Parameter(torch.rand(width) * (high - low) + low)
        self.D = nn.Parameter(torch.ones(width))

    def forward(self, x: Float[Tensor, "windows tokens dim"]) -> Float[Tensor, "windows tokens dim"]:
        """Mix the tokens of a window."""
        u = self.in_proj(x).transpose(1, 2)
        K = self.kernel(u.shape[-1])
        y = ssm_convolve(u.to(K.dtype), K, self.D.to(K.dtype)[:, None])
        return self.out_proj(self.token_gate(x) * y.transpose(1, 2).to(x.dtype))

    def token_gate(self, x: Float[Tensor, "windows tokens dim"]) -> Float[Tensor, "windows tokens dim"]:
        """Return sigmoid(W_g x + b_g), the only part that depends on the content."""
        return torch.sigmoid(self.gate(x))

    def coefficients(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return the discrete A (decay per step), B and C, each (dim, N)."""
        return self.log_decay().exp(), self.log_dt.exp()[:, None] * self.B, self.C

    def log_decay(self) -> Float[Tensor, "dim state"]:
        """Return log A = -dt exp(A_log), which stays finite when A underflows to 0."""
        return -self.log_dt.exp()[:, None] * self.A_log.exp()

    def kernel(self, length: int) -> Float[Tensor, "dim length"]:
        """Return K for every channel; K_l = sum_n C_n A_n^l B_n."""
        terms = self.log_decay(), *self.coefficients()[1:]
        log_A, B, C = (m.float() if m.dtype != torch.float64 else m for m in terms)
        powers = torch.exp(log_A[:, :, None] * torch.arange(length, device=log_A.device))
        return torch.einsum("dn,dnl->dl", C * B, powers)
