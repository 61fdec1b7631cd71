"""What each view and each stream is worth: held-out breasts scored again with inputs hidden or filled.

A breast is scored with every combination of the views and streams that its network reads. A hidden input is a mask. A
hidden view is also filled, by ``fill``:

| fill | in place of the hidden view's embedding |
|---|---|
| mask | nothing; the view is marked as absent |
| other_view | the embedding of the other view of the same stream |
| mean | the mean embedding of that view and stream over the training breasts |

Encoders do not run again: hiding and filling act on the embeddings of :func:`mammo_lib.analysis.gates.observe`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ..models import MammoMamba, mean_log_odds
from .gates import Observation

MASK, OTHER_VIEW, MEAN = "mask", "other_view", "mean"
Embeddings = dict[str, Tensor]  # stream -> (breasts, views, features)


def joined(parts: Sequence[str]) -> str:
    """Return the name of a combination of views or streams.

    >>> joined(["CC", "MLO"])
    'CC+MLO'
    """
    return "+".join(parts)


def subsets(parts: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """Yield every non-empty subset, the whole first.

    >>> list(subsets(["CC", "MLO"]))
    [('CC', 'MLO'), ('CC',), ('MLO',)]
    """
    for size in range(len(parts), 0, -1):
        yield from combinations(parts, size)


@torch.inference_mode()
def score_hidden(
    model: MammoMamba, seen: Observation, cohort: pd.DataFrame, views: Sequence[str], training: Embeddings | None
) -> pd.DataFrame:
    """Return ``split sample_id patient_id label views streams fill logit`` for the breasts that have all views.

    ``training`` holds the mean embeddings, {stream: (views, features)}; without them nothing is filled. The rows of
    the complete input repeat the scores of the run.
    """
    everything = torch.stack([seen.present[stream] for stream in model.streams]).all(dim=0).all(dim=1)
    whole = everything.cpu().numpy()
    parts = []
    for streams in subsets(model.streams):
        for shown in subsets(views):
            only_mask = training is None or len(shown) == len(views)
            for fill in (MASK,) if only_mask else (MASK, OTHER_VIEW, MEAN):
                logit = _score(model, seen, [views.index(view) for view in shown], streams, fill, training or {})
                parts.append(_rows(cohort, logit, joined(shown), joined(streams), fill)[whole])
    return pd.concat(parts, ignore_index=True)


def score_as_taken(seen: Observation, cohort: pd.DataFrame, views: Sequence[str], streams: Sequence[str]):
    """Return the same columns for breasts scored with the views that they have; ``views`` names these views."""
    present = torch.stack([seen.present[stream] for stream in streams]).any(dim=0).cpu().numpy()
    names = [joined([view for view, is_there in zip(views, row, strict=True) if is_there]) for row in present]
    return _rows(cohort, seen.logit, np.array(names, dtype=object), joined(streams), MASK)


def mean_embeddings(seen: Observation) -> Embeddings:
    """Return the mean embedding of each view over the breasts that have it, {stream: (views, features)}."""
    first = seen.embeddings[0]  # of the unchanged images; zeros where a view is missing
    return {
        stream: first[stream].sum(dim=0) / seen.present[stream].sum(dim=0).clamp(min=1)[:, None] for stream in first
    }


def _score(model, seen, shown: list[int], streams: Sequence[str], fill: str, training: Embeddings) -> np.ndarray:
    """Return the logits (breasts,) with the views ``shown`` of ``streams``, the other views filled."""
    present, passes = {}, []
    for stream in model.streams:
        kept = torch.zeros_like(seen.present[stream])
        if stream in streams:
            kept[:, shown] = True
        has = seen.present[stream] & kept
        present[stream] = has if fill == MASK or stream not in streams else torch.ones_like(has)
    for embeddings in seen.embeddings:
        filled = {
            stream: _filled(embeddings[stream], shown, fill, training.get(stream))
            if stream in streams else torch.zeros_like(embeddings[stream])
            for stream in model.streams
        }  # fmt: skip
        passes.append(model.decide(filled, present))
    return mean_log_odds(passes).cpu().numpy()


def _filled(views: Tensor, shown: list[int], fill: str, mean: Tensor | None) -> Tensor:
    """Return view embeddings (breasts, views, features) with those that are not ``shown`` replaced."""
    filled = torch.zeros_like(views)
    if fill != MASK:
        filled[:] = mean if fill == MEAN else views[:, shown].mean(dim=1, keepdim=True)
    filled[:, shown] = views[:, shown]
    return filled


def _rows(cohort: pd.DataFrame, logit: np.ndarray, views, streams: str, fill: str) -> pd.DataFrame:
    who = cohort[["split", "sample_id", "patient_id", "label"]].reset_index(drop=True)
    return who.assign(views=views, streams=streams, fill=fill, logit=logit.astype(np.float32))
