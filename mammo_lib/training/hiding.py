"""Training with hidden inputs: views and streams are hidden at random, so that a network learns to do without them.

A hidden view stands for a film that was never taken, so it is hidden in every stream. Hiding changes only ``present``,
and a network ignores what is not present (:mod:`mammo_lib.models.mammo_mamba`).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Bool
from torch import Tensor


def hide(
    present: Mapping[str, Bool[Tensor, "batch views"]], *, view_dropout: float, stream_dropout: float
) -> dict[str, Bool[Tensor, "batch views"]]:
    """Hide each view with probability ``view_dropout`` and each stream with probability ``stream_dropout``.

    A breast that would keep no input keeps all of them. Random numbers come from torch's generator; with both
    probabilities at 0 none is drawn.
    """
    if not view_dropout and not stream_dropout:
        return dict(present)
    streams = sorted(present)
    shown = torch.stack([present[stream] for stream in streams], dim=1)  # (batch, streams, views)
    n, n_streams, n_views = shown.shape
    kept = (torch.rand(n, 1, n_views) >= view_dropout) & (torch.rand(n, n_streams, 1) >= stream_dropout)
    left = shown & kept.to(shown.device)
    left = torch.where(left.any(dim=(1, 2), keepdim=True), left, shown)
    return dict(zip(streams, left.unbind(dim=1), strict=True))
