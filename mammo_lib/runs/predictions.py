"""The table of predictions that a record holds: one row per breast."""

from __future__ import annotations

import numpy as np
import pandas as pd


def as_predictions(cohort: pd.DataFrame, logits: np.ndarray) -> pd.DataFrame:
    """Add logits of malignancy to the identifiers of a cohort's breasts."""
    known = cohort[
        ["sample_id", "patient_id", "laterality", "split", "label", "density", "assessment", "subtlety"]
    ].reset_index(drop=True)
    has = {f"has_{view}": cohort[f"whole_{view}"].notna().to_numpy() for view in ("CC", "MLO")}
    with np.errstate(over="ignore"):  # for a logit below -709 the probability is 0
        probability = 1 / (1 + np.exp(-logits))
    return known.assign(logit=logits, probability=probability, **has)


def with_choices(frame: pd.DataFrame, threshold: float, temperature: float) -> pd.DataFrame:
    """Add the decision threshold and the temperature, chosen on validation, to every row."""
    return frame.assign(threshold=float(threshold), temperature=float(temperature))
