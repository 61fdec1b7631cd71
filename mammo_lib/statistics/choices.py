"""The choices made on validation: the threshold and the temperature."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from scipy import optimize
from scipy.special import expit
from sklearn import metrics as sk

from ..errors import InputError
from .intervals import checked


def youden_threshold(label: np.ndarray, probability: np.ndarray) -> float:
    """Return the threshold with the largest sensitivity + specificity; the highest one in case of ties.

    Raises
    ------
    InputError
        Only one class is present, or a label or score is missing.

    >>> youden_threshold([1, 1, 0, 0, 0], [0.9, 0.6, 0.7, 0.5, 0.1])  # finds both, at one false alarm of three
    0.6
    """
    label, probability = checked(label, probability, needs_both=True)
    fpr, tpr, thresholds = sk.roc_curve(label, probability, drop_intermediate=False)
    # The first point decides nothing malignant: its threshold is infinite. Rounding makes equals equal.
    best = np.argmax(np.round(tpr - fpr, 12)[1:])
    return float(thresholds[1:][best])


def fit_temperature(label: np.ndarray, logit: np.ndarray) -> float:
    """Return the T > 0 for which sigmoid(logit / T) has the smallest log loss (Guo et al. 2017), within [0.05, 20]."""
    label, logit = checked(label, logit, needs_both=True)

    def loss(log_t: float) -> float:
        scaled = logit / math.exp(log_t)
        return float(np.mean(np.logaddexp(0, scaled) - label * scaled))

    bounds = (math.log(0.05), math.log(20))
    return math.exp(optimize.minimize_scalar(loss, bounds=bounds, method="bounded").x)


def scaled_probability(frame: pd.DataFrame) -> np.ndarray:
    """Return sigmoid(logit / temperature), the probabilities after temperature scaling."""
    refuse_missing(frame, ["logit", "temperature"])
    return expit((frame["logit"] / frame["temperature"]).to_numpy())


def refuse_missing(frame: pd.DataFrame, columns: list[str]) -> None:
    """Raise an InputError if a column of predictions contains NaN."""
    for name in columns:
        if missing := int(frame[name].isna().sum()):
            raise InputError(f"predictions: {name} is missing (NaN) in {missing} of {len(frame)} rows")
