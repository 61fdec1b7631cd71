"""Estimates with their confidence intervals: Wilson, Hanley-McNeil, and the bootstrap over patients."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats
from scipy.special import expit, logit
from statsmodels.stats.proportion import proportion_confint

from ..errors import InputError

LEVEL = 0.95
Z = float(stats.norm.ppf(0.5 + LEVEL / 2))
N_RESAMPLES = 2000


@dataclass(frozen=True)
class Interval:
    """An estimate with its confidence interval and number of breasts."""

    value: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f}, n = {self.n})"


# A metric in the form for the bootstrap: weights (resamples, breasts), how often each was drawn -> (resamples,).
Metric = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


def ones(label: np.ndarray) -> np.ndarray:
    """Return one row of weights (1, breasts) in which every breast counts once: the data themselves, not a draw."""
    return np.ones((1, len(label)))


def checked(
    label: np.ndarray, score: np.ndarray, weights: np.ndarray | None = None, *, needs_both: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Return labels and scores, (breasts,) or (draws, breasts), as validated arrays.

    Raises
    ------
    InputError
        There is no breast, the lengths differ, a label is not 0 or 1, a score is NaN, or a needed class is absent.
    """
    label, score = np.asarray(label), np.asarray(score, dtype=float)
    if not label.size or label.ndim != 1 or score.shape[-1:] != label.shape:
        raise InputError(f"labels and scores: one of each per breast, got shapes {label.shape} and {score.shape}")
    if not np.isin(label, (0, 1)).all():
        raise InputError(f"labels must be 0 or 1, got {sorted(set(label.tolist()) - {0, 1})[:3]}")
    if np.isnan(score).any():
        raise InputError(f"scores must be numbers, got {int(np.isnan(score).sum())} NaN")
    if weights is not None and weights.shape[1] != len(label):
        raise InputError(f"patients: one per breast, got {weights.shape[1]} for {len(label)} breasts")
    if needs_both and (label == label[0]).all():
        raise InputError(
            f"all {len(label)} breasts have label {label[0]}: both classes are needed, so use larger folds"
        )
    return label, score


def unbounded(value: float, n: int) -> Interval:
    """Return an estimate without bounds, or without a value."""
    return Interval(value, math.nan, math.nan, n)


def percentiles(drawn: np.ndarray) -> tuple[float, float]:
    """Return the bounds at ``LEVEL`` of resampled values; undefined ones (NaN) are left out."""
    drawn, tail = drawn[~np.isnan(drawn)], (1 - LEVEL) / 2
    low, high = np.quantile(drawn, [tail, 1 - tail]) if len(drawn) else (math.nan, math.nan)
    return float(low), float(high)


def wilson_interval(successes: float, n: int) -> Interval:
    """A proportion with Wilson's score interval (1927); NaN for n = 0.

    >>> print(wilson_interval(129, 149))  # the paper's accuracy at its test size
    0.866 (0.802 to 0.911, n = 149)
    """
    if not 0 <= successes <= n:
        raise InputError(f"successes must lie in [0, n={n}], got {successes}")
    if n == 0:
        return unbounded(math.nan, 0)
    low, high = proportion_confint(successes, n, alpha=1 - LEVEL, method="wilson")
    return Interval(successes / n, float(low), float(high), n)


def hanley_mcneil_interval(value: float, n_malignant: int, n_benign: int) -> Interval:
    """Interval of a published AUC, from its value and the class sizes only (Hanley and McNeil 1982).

    On the logit scale; ``value`` lies strictly between 0 and 1. If the scores are known, DeLong's interval is better.

    >>> print(hanley_mcneil_interval(0.8, 3, 2))
    0.800 (0.217 to 0.983, n = 5)
    """
    if not 0 < value < 1:
        raise InputError(f"the AUC must lie in (0, 1), got {value}")
    if min(n_malignant, n_benign) < 1:
        raise InputError(f"an AUC needs at least one breast of each class, got {n_malignant} and {n_benign}")
    q1, q2 = value / (2 - value), 2 * value**2 / (1 + value)
    variance = value * (1 - value) + (n_malignant - 1) * (q1 - value**2) + (n_benign - 1) * (q2 - value**2)
    spread = math.sqrt(variance / (n_malignant * n_benign)) / (value * (1 - value))
    return logit_interval(value, spread, n_malignant + n_benign)


def separated_interval(value: float, pairs: int, n: int) -> Interval:
    """Interval of an AUC of exactly 0 or 1, from :func:`separated_bound`."""
    bound = separated_bound(pairs)
    return Interval(value, bound, 1.0, n) if value else Interval(value, 0.0, 1 - bound, n)


def logit_interval(value: float, spread: float, n: int) -> Interval:
    """Interval of a share from its standard error on the logit scale, which keeps it within [0, 1]."""
    low, high = expit(logit(value) + np.array([-1, 1]) * Z * spread)
    return Interval(value, float(low), float(high), n)


def weighted_interval(metric: Metric, label: np.ndarray, probability: np.ndarray, weights: np.ndarray) -> Interval:
    """Percentile interval over resamples that are already drawn, (resamples, breasts)."""
    label, probability = checked(label, probability, weights)
    value = float(metric(label, probability, ones(label))[0])
    return Interval(value, *percentiles(metric(label, probability, weights)), len(label))


def separated_bound(pairs: int) -> float:
    """Return the smallest AUC that is not refuted when every malignant breast scores above every benign one.

    Match the breasts into ``pairs`` disjoint pairs. All of them are correctly ordered with probability AUC^pairs, so an
    AUC below ((1 - LEVEL)/2)^(1/pairs) is refuted. Conservative, because the other pairs are not used.
    """
    return ((1 - LEVEL) / 2) ** (1 / pairs)


def patient_weights(patients: np.ndarray, n_resamples: int, seed: int) -> np.ndarray:
    """Return the count of each breast in each bootstrap sample over patients, (resamples, breasts)."""
    patients = np.asarray(patients)
    if not len(patients) or pd.isna(patients).any():
        raise InputError(f"patients: an identifier per breast, got {len(patients)}, {pd.isna(patients).sum()} missing")
    names, member = np.unique(patients, return_inverse=True)
    share = np.full(len(names), 1 / len(names))
    return np.random.default_rng(seed).multinomial(len(names), share, size=n_resamples)[:, member].astype(float)
