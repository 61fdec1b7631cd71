"""Estimates with their confidence intervals: Wilson, Hanley-McNeil, and the bootstrap over patients."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import stats
from scipy.special import expit, logit
from statsmodels.stats.proportion import proportion_confint

from ..errors import InputError

LEVEL = 0.95
Z = float(stats.norm.ppf(0.5 + LEVEL / 2))
N_RESAMPLES = 2000


@dataclass(frozen=True)
class Interval:
    """An estimate with its confidence interval, and the number of breasts behind it."""

    value: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f}, n = {self.n})"


# A metric as the bootstrap wants it: weights (resamples, breasts), how often each was drawn -> (resamples,).
Metric = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


def ones(label: np.ndarray) -> np.ndarray:
    return np.ones((1, len(label)))


def value_of(metric: Metric, label: np.ndarray, probability: np.ndarray) -> float:
    label, probability = checked(label, probability)
    return float(metric(label, probability, ones(label))[0])


def checked(label: np.ndarray, score: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return labels and scores, (breasts,) or (draws, breasts), as arrays that can be compared.

    Raises
    ------
    InputError
        There is no breast, the lengths differ, a label is not 0 or 1, or a score is no number.
    """
    label, score = np.asarray(label), np.asarray(score, dtype=float)
    if not label.size or label.ndim != 1 or score.shape[-1:] != label.shape:
        raise InputError(f"labels and scores: one of each per breast, got shapes {label.shape} and {score.shape}")
    if not np.isin(label, (0, 1)).all():
        raise InputError(f"labels must be 0 (benign) or 1 (malignant), got {sorted(set(label.tolist()) - {0, 1})[:3]}")
    if np.isnan(score).any():
        raise InputError(f"scores must be numbers, got {int(np.isnan(score).sum())} that are not")
    return label, score


def wilson_interval(successes: float, n: int) -> Interval:
    """A proportion with Wilson's score interval (1927); NaN bounds for n = 0."""
    if n == 0:
        return Interval(math.nan, math.nan, math.nan, 0)
    low, high = proportion_confint(successes, n, alpha=1 - LEVEL, method="wilson")
    return Interval(successes / n, float(low), float(high), n)


def hanley_mcneil_interval(value: float, n_malignant: int, n_benign: int) -> Interval:
    """Interval of a published AUC, from its value and the class sizes alone (Hanley and McNeil 1982).

    On the logit scale; ``value`` lies strictly between 0 and 1. DeLong's interval is better where the scores are known.
    """
    q1, q2 = value / (2 - value), 2 * value**2 / (1 + value)
    variance = value * (1 - value) + (n_malignant - 1) * (q1 - value**2) + (n_benign - 1) * (q2 - value**2)
    spread = math.sqrt(variance / (n_malignant * n_benign)) / (value * (1 - value))
    low, high = expit(logit(value) + np.array([-1, 1]) * Z * spread)
    return Interval(value, float(low), float(high), n_malignant + n_benign)


def bootstrap_interval(
    metric: Metric, label: np.ndarray, probability: np.ndarray, patients: np.ndarray,
    *, n_resamples: int = N_RESAMPLES, seed: int = 0,
) -> Interval:  # fmt: skip
    """Percentile interval over resampled patients, all breasts of a patient together.

    ``metric(label, probability, weights)`` maps weights (resamples, breasts) to (resamples,). Resamples on which it is
    undefined (one class only) are left out.
    """
    return weighted_interval(metric, label, probability, patient_weights(patients, n_resamples, seed))


def weighted_interval(metric: Metric, label: np.ndarray, probability: np.ndarray, weights: np.ndarray) -> Interval:
    """Percentile interval over resamples that are already drawn, (resamples, breasts)."""
    label, probability = checked(label, probability)
    values = metric(label, probability, weights)
    values = values[~np.isnan(values)]
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(values, [tail, 1 - tail]) if len(values) else (math.nan, math.nan)
    return Interval(value_of(metric, label, probability), float(low), float(high), len(label))


def separated_bound(pairs: int) -> float:
    """Return the smallest AUC that is not refuted when every malignant breast scores above every benign one.

    Match the breasts into ``pairs`` disjoint pairs: all of them are in order with probability AUC^pairs, so an AUC
    below (1 - LEVEL)/2 to the power 1/pairs would be in the tail. Conservative: the other pairs are not used.
    """
    return ((1 - LEVEL) / 2) ** (1 / pairs)


def patient_weights(patients: np.ndarray, n_resamples: int, seed: int) -> np.ndarray:
    """Return how often each breast is in each bootstrap sample over patients, (resamples, breasts)."""
    names, member = np.unique(np.asarray(patients), return_inverse=True)
    share = np.full(len(names), 1 / len(names))
    return np.random.default_rng(seed).multinomial(len(names), share, size=n_resamples)[:, member].astype(float)
