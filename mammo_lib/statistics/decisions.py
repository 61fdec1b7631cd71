"""Decision curves: net benefit over the thresholds that a reader might use (Vickers and Elkin 2006).

At threshold t, a reader would work up a breast whose probability of malignancy is at least t. An unnecessary
work-up therefore counts t / (1 - t) of a missed cancer. Net benefit = TP / n - FP / n * t / (1 - t):
cancers found per breast, minus unnecessary work-ups in the same unit.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from ..errors import InputError
from .intervals import LEVEL, N_RESAMPLES, checked, ones, patient_weights

THRESHOLDS = np.linspace(0.05, 0.80, 16)


def decision_curve(
    label: np.ndarray, probability: np.ndarray, patients: np.ndarray, *,
    thresholds: np.ndarray = THRESHOLDS, n_resamples: int = N_RESAMPLES, seed: int = 0,
) -> pd.DataFrame:  # fmt: skip
    """Return ``threshold value low high treat_all gain_low n`` of net benefit, with an interval over patients.

    ``treat_all`` is the net benefit of working up every breast; working up none has net benefit 0. ``gain_low`` is the
    lower bound of the gain over the better of these two rules on the same patients.
    """
    weights = patient_weights(patients, n_resamples, seed)
    label, probability = checked(label, probability, weights)
    if not ((thresholds >= 0) & (thresholds < 1)).all():
        raise InputError(f"thresholds must lie in [0, 1), got {np.asarray(thresholds).tolist()}")
    everybody = np.ones(len(label))
    drawn = _net_benefit(label, probability, weights, thresholds)
    simple = np.maximum(_net_benefit(label, everybody, weights, thresholds), 0)
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(drawn, [tail, 1 - tail], axis=0)
    return pd.DataFrame(
        {
            "threshold": thresholds,
            "value": _net_benefit(label, probability, ones(label), thresholds)[0],
            "low": low,
            "high": high,
            "treat_all": _net_benefit(label, everybody, ones(label), thresholds)[0],
            "gain_low": np.quantile(drawn - simple, tail, axis=0),
            "n": len(label),
        }
    )


def _net_benefit(label, probability, weights, thresholds) -> np.ndarray:
    """Return net benefit, (resamples, thresholds)."""
    called = probability[:, None] >= thresholds
    tp, fp = weights @ (called & (label == 1)[:, None]), weights @ (called & (label == 0)[:, None])
    return (tp - fp * thresholds / (1 - thresholds)) / weights.sum(axis=1, keepdims=True)
