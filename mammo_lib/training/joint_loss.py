"""One loss from the losses of several targets.

L = L_main + w sum_t f_t L_t, with the weight w of the config and, by ``weighting``, the factor f_t:

| weighting | f_t |
|---|---|
| fixed | 1 |
| uncertainty | exp(-s_t) with learned s_t, and L_main times exp(-s_main); each s / 2 is added (Kendall et al. 2018) |
| gradient | norm of dL_main/dz over that of dL_t/dz, with z the view embeddings; no gradient passes through it |
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

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

    def forward(self, main: Tensor, others: Mapping[str, Tensor], embeddings: Sequence[Tensor]) -> Tensor:
        """Return the joint loss; ``embeddings`` are the tensors from which all losses were computed."""
        if self.log_variance:
            main, others = self._tempered("main", main), {name: self._tempered(name, others[name]) for name in others}
        total = main
        for loss in others.values():
            factor = gradient_ratio(main, loss, embeddings) if self.weighting == "gradient" else 1.0
            total = total + self.weight * factor * loss
        return total

    def _tempered(self, name: str, loss: Tensor) -> Tensor:
        log_variance = self.log_variance[name]
        return torch.exp(-log_variance) * loss + log_variance / 2


def gradient_ratio(main: Tensor, loss: Tensor, embeddings: Sequence[Tensor]) -> Tensor:
    """Return the norm of the main loss's gradient at the embeddings over that of another loss; 0 where that is 0."""
    norms = [
        torch.cat([one.flatten().float() for one in torch.autograd.grad(of, embeddings, retain_graph=True)]).norm()
        for of in (main, loss)
    ]
    return torch.where(norms[1] > 0, norms[0] / norms[1].clamp(min=torch.finfo(torch.float32).tiny), 0.0)
