"""The additional heads of a network: their probabilities for held-out breasts, and how well these rank them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch

from ..config import TARGETS
from ..data.loader import UNKNOWN, target_classes
from ..models import MammoMamba
from .gates import Observation


@torch.inference_mode()
def score_heads(model: MammoMamba, seen: Observation, cohort: pd.DataFrame, targets: Sequence[str]) -> pd.DataFrame:
    """Return ``split sample_id target word is_true probability`` for every class of each target after the first.

    A breast whose class is unknown is left out. Probabilities are averaged over passes.
    """
    outputs = [model.decide(embeddings, seen.present) for embeddings in seen.embeddings]
    who, parts = cohort[["split", "sample_id"]].reset_index(drop=True), []
    for name in targets[1:]:
        probability = torch.stack([one.target_logits[name].float().softmax(dim=1) for one in outputs]).mean(dim=0)
        known = np.array(target_classes(cohort, name))
        for number, word in enumerate(TARGETS[name].classes):
            rows = who.assign(target=name, word=word, is_true=known == number,
                              probability=probability[:, number].cpu().numpy())  # fmt: skip
            parts.append(rows[known != UNKNOWN])
    return pd.concat(parts, ignore_index=True)
