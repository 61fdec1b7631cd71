"""One loss from the losses of several targets.

L = L_main + w sum_t f_t L_t, with the weight w of the config and, by ``weighting``, the factor f_t:

| weighting | f_t |
|---|---|
| fixed | 1 |
| uncertainty | exp(-s_t) with learned s_t, and L_main times exp(-s_main); s / 2 is added, without w (Kendall 2018) |
| gradient | norm of dL_main/dz over that of dL_t/dz, with z the view embeddings; no gradient passes through it |
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import torch
from torch import Tensor, nn

from ..config import TargetWeighting


class JointLoss(nn.Module):
    """Joins the main loss and those of further ``targets``; learned uncertainties are its parameters."""

    def __init__(self, targets: Sequence[str], weight: float, weighting: TargetWeighting):
        super().__init__()
        self.weight, self.weighting = weight, weighting
        learned = ["main", *targets] if weighting == "uncertainty" and targets else []
        self.log_variance = nn.ParameterDict({name: nn.Parameter(torch.zeros(())) for name in learned})

    def forward(
        self, main: Tensor, others: Mapping[str, Tensor], embeddings: Sequence[Tensor], unknown: Collection[str] = (),
    ) -> Tensor:  # fmt: skip
        """Return the joint loss; ``embeddings`` are the tensors from which all losses were computed.

        Targets in ``unknown`` have no label in this batch, so nothing is learned about their uncertainty.
        """
        total = self._factor("main") * main
        for name, loss in others.items():
            ratio = gradient_ratio(main, loss, embeddings) if self.weighting == "gradient" else 1.0
            total = total + self.weight * ratio * self._factor(name) * loss
        for name, log_variance in self.log_variance.items():
            total = total + (0 if name in unknown else 0.5) * log_variance
        return total

    def _factor(self, name: str) -> Tensor | float:
        return torch.exp(-self.log_variance[name]) if self.log_variance else 1.0


def gradient_ratio(main: Tensor, loss: Tensor, embeddings: Sequence[Tensor]) -> Tensor:
    """Return the norm of the main loss's gradient at the embeddings over that of another loss; 0 where that is 0."""
    norms = [
        torch.cat([one.flatten().float() for one in torch.autograd.grad(of, embeddings, retain_graph=True)]).norm()
        for of in (main, loss)
    ]
    return torch.where(norms[1] > 0, norms[0] / norms[1].clamp(min=torch.finfo(torch.float32).tiny), 0.0)
