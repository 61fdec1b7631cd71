"""One way of scoring: the logit of malignancy, averaged over an image and its upside-down copy where that is wanted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from .mammo_mamba import MammoMamba, MammoMambaOutput, Overrides, log_odds


def score_passes(
    model: MammoMamba, batch: dict, *, flip_averaging: bool, overrides: Overrides | None = None
) -> list[MammoMambaOutput]:
    """Return the output for the images as they are and, with ``flip_averaging``, for them upside down.

    Gates that ``overrides`` puts in place turn with the image.
    """
    outputs = [model(batch, overrides)]
    if flip_averaging:
        turned = batch | {"images": {stream: images.flip(-2) for stream, images in batch["images"].items()}}
        outputs.append(model(turned, _upside_down(overrides)))
    return outputs


def mean_log_odds(outputs: Sequence[MammoMambaOutput]) -> Float[Tensor, " batch"]:
    """Return the mean logit of malignancy over passes, in 32-bit floats."""
    logits = [log_odds(one.logits) for one in outputs]
    return logits[0] if len(logits) == 1 else torch.stack(logits).sum(dim=0) / len(logits)


def _upside_down(overrides: Overrides | None) -> Mapping | None:
    """Turn gates that have a place, (batch, views, rows, columns); one value per image stays."""
    if overrides is None:
        return None
    return {
        stream: {block: gate.flip(2) if gate.ndim == 4 else gate for block, gate in blocks.items()}
        for stream, blocks in overrides.items()
    }
