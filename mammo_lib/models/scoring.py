"""Scoring: the logit of malignancy, optionally averaged over an image and its upside-down copy."""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor

from .mammo_mamba import MammoMamba, MammoMambaOutput, Overrides, log_odds


def score(
    model: MammoMamba, batch: dict, *, flip_averaging: bool, overrides: Overrides | None = None
) -> tuple[Float[Tensor, " batch"], MammoMambaOutput]:
    """Return a batch's logits of malignancy, in 32-bit floats, and the output for the unchanged images.

    ``flip_averaging`` and ``overrides`` are those of :func:`score_passes`.
    """
    passes = score_passes(model, batch, flip_averaging=flip_averaging, overrides=overrides)
    return mean_log_odds(passes), passes[0]


def score_passes(
    model: MammoMamba, batch: dict, *, flip_averaging: bool, overrides: Overrides | None = None
) -> list[MammoMambaOutput]:
    """Return the output for the unchanged images and, with ``flip_averaging``, for the upside-down images.

    Spatial gates in ``overrides``, (batch, views, rows, columns), are flipped with the image. Rows of windows are
    flipped as a whole; they cover the same pixels if windows divide the map.
    """
    outputs = [model(batch, overrides)]
    if flip_averaging:
        turned = upside_down(batch)
        forced = {
            stream: {block: gate.flip(2) if gate.ndim == 4 else gate for block, gate in gates.items()}
            for stream, gates in (overrides or {}).items()
        }
        outputs.append(model(turned, forced))
    return outputs


def upside_down(batch: dict) -> dict:
    """Return a batch with upside-down images, or with the cached maps of upside-down images."""
    if "maps" in batch:
        return batch | {"maps": batch["turned_maps"]}
    return batch | {"images": {stream: images.flip(-2) for stream, images in batch["images"].items()}}


def mean_log_odds(outputs: Sequence[MammoMambaOutput]) -> Float[Tensor, " batch"]:
    """Return the mean logit of malignancy over passes, in 32-bit floats."""
    return sum(log_odds(one.logits) for one in outputs) / len(outputs)
