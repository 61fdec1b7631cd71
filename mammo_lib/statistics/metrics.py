"""Metrics of a score on given breasts. A ``weighted_*`` metric takes bootstrap weights (resamples, breasts)."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace

import numpy as np
import pandas as pd

from ..errors import InputError
from .intervals import (
    N_RESAMPLES,
    Interval,
    Metric,
    checked,
    ones,
    patient_weights,
    separated_bound,
    weighted_interval,
    wilson_interval,
)  # fmt: skip

SPECIFICITIES = (0.80, 0.90, 0.95)
PARTIAL = 0.80  # the partial AUC keeps specificities from here to 1


@dataclass(frozen=True)
class Confusion:
    """Counts at one threshold: true positives, false negatives, true negatives, false positives."""

    tp: int
    fn: int
    tn: int
    fp: int

    @property
    def n(self) -> int:
        """All breasts."""
        return self.tp + self.fn + self.tn + self.fp

    @property
    def accuracy(self) -> float:
        """(tp + tn) / n."""
        return ratio(self.tp + self.tn, self.n)

    @property
    def sensitivity(self) -> float:
        """tp / (tp + fn), the share of malignant breasts found."""
        return ratio(self.tp, self.tp + self.fn)

    @property
    def specificity(self) -> float:
        """tn / (tn + fp), the share of benign breasts classified as benign."""
        return ratio(self.tn, self.tn + self.fp)

    @property
    def ppv(self) -> float:
        """tp / (tp + fp), the share of malignant decisions that are correct."""
        return ratio(self.tp, self.tp + self.fp)

    @property
    def f1(self) -> float:
        """2 tp / (2 tp + fp + fn)."""
        return ratio(2 * self.tp, 2 * self.tp + self.fp + self.fn)

    @property
    def mcc(self) -> float:
        """Matthews correlation coefficient."""
        margins = (self.tp + self.fp) * (self.tp + self.fn) * (self.tn + self.fp) * (self.tn + self.fn)
        return ratio(self.tp * self.tn - self.fp * self.fn, np.sqrt(margins))


def ratio(part, whole):
    """Divide; NaN if the denominator is zero. Works on counts and on arrays of counts."""
    whole = np.asarray(whole, dtype=float)
    quotient = np.divide(part, whole, out=np.full(np.broadcast(part, whole).shape, math.nan), where=whole != 0)
    return quotient if quotient.ndim else float(quotient)


def confusion(label: np.ndarray, probability: np.ndarray, threshold: float) -> Confusion:
    """Count decisions at a threshold.

    >>> confusion([1, 0, 1, 0, 1], [0.9, 0.5, 0.2, 0.1, 0.7], threshold=0.5)
    Confusion(tp=2, fn=1, tn=1, fp=1)
    """
    label, probability = checked(label, probability)
    counts = weighted_confusion(label, probability, ones(label), threshold)
    return Confusion(*(int(getattr(counts, name)[0]) for name in ("tp", "fn", "tn", "fp")))


def auc(label: np.ndarray, probability: np.ndarray) -> float:
    """Area under the ROC curve; ties count as one half.

    >>> auc([1, 1, 0, 0], [0.8, 0.4, 0.6, 0.2])  # of four pairs, one is in the wrong order
    0.75
    """
    label, probability = checked(label, probability, needs_both=True)
    return float(weighted_auc(label, probability, ones(label))[0])


def reliability(label: np.ndarray, probability: np.ndarray, n_bins: int = 10) -> pd.DataFrame:
    """Return ``mean value low high n`` per non-empty bin of equal width: mean probability and malignant share."""
    label, probability = checked(label, probability)
    bins = np.minimum((probability * n_bins).astype(int), n_bins - 1)
    shares = [wilson_interval(int(label[bins == k].sum()), (bins == k).sum()) for k in np.unique(bins)]
    table = pd.DataFrame(map(asdict, shares))
    table.insert(0, "mean", [probability[bins == k].mean() for k in np.unique(bins)])
    return table


def auc_bootstrap_interval(
    label: np.ndarray, probability: np.ndarray, patients: np.ndarray, *, n_resamples: int = N_RESAMPLES, seed: int = 0
) -> Interval:
    """AUC with the percentile interval over resampled patients, all breasts of a patient together.

    Resamples with only one class are left out. If the classes are separated, all resamples agree, which does not mean
    certainty; the open bound is then that of :func:`mammo_lib.statistics.intervals.separated_bound` for the patients of
    the smaller class.
    """
    weights, patients = patient_weights(patients, n_resamples, seed), np.asarray(patients)
    label, probability = checked(label, probability, weights, needs_both=True)
    found = weighted_interval(weighted_auc, label, probability, weights)
    if found.value not in (0, 1):
        return found
    bound = separated_bound(min(len(np.unique(patients[label == one])) for one in (0, 1)))
    return replace(found, low=bound) if found.value else replace(found, high=1 - bound)


def auc_of(frame: pd.DataFrame, score: str = "probability") -> Interval:
    """Return the AUC of a column with its interval over patients; breasts without a value are left out.

    ``frame`` has ``label patient_id`` and the column.
    """
    known = frame.dropna(subset=score)
    return auc_bootstrap_interval(known["label"].to_numpy(), known[score].to_numpy(float), known["patient_id"])


def cumulative_rates(label: np.ndarray, probability: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return true and false positives, (resamples, thresholds + 1), from the strictest threshold to the loosest."""
    order = np.argsort(-probability, kind="stable")
    last_of_tie = np.flatnonzero(np.diff(probability[order], append=np.nan) != 0)
    tp = np.cumsum(weights[:, order] * (label[order] == 1), axis=1)[:, last_of_tie]
    fp = np.cumsum(weights[:, order] * (label[order] == 0), axis=1)[:, last_of_tie]
    return np.pad(tp, ((0, 0), (1, 0))), np.pad(fp, ((0, 0), (1, 0)))


def weighted_auc(label, probability, weights):
    """The area under the ROC curve."""
    tp, fp = cumulative_rates(label, probability, weights)
    return ratio(np.trapezoid(tp, fp, axis=1), tp[:, -1] * fp[:, -1])


def weighted_partial_auc(label, probability, weights):
    """The area under the ROC curve at specificities of 80 % and more, standardised after McClish (1989).

    1 is perfect and 0.5 is guessing, as for the whole area: scikit-learn's ``roc_auc_score(..., max_fpr=0.2)``.
    """
    tp, fp = cumulative_rates(label, probability, weights)
    y, x, limit = ratio(tp, tp[:, -1:]), ratio(fp, fp[:, -1:]), 1 - PARTIAL
    x0, x1, y0, y1 = x[:, :-1], x[:, 1:], y[:, :-1], y[:, 1:]
    inside = np.clip(limit - x0, 0, x1 - x0)  # how far each segment of the curve goes before the limit
    slope = np.divide(y1 - y0, x1 - x0, out=np.zeros_like(x0), where=x1 > x0)
    area = (inside * (y0 + slope * inside / 2)).sum(axis=1)
    guessing = limit**2 / 2
    return (1 + (area - guessing) / (limit - guessing)) / 2


def weighted_average_precision(label, probability, weights):
    """The area under the precision-recall curve (AUPRC), as a step function."""
    tp, fp = cumulative_rates(label, probability, weights)
    gained = np.diff(tp, axis=1)
    precision = np.nan_to_num(ratio(tp[:, 1:], tp[:, 1:] + fp[:, 1:]))
    return ratio((gained * precision).sum(axis=1), tp[:, -1])


def weighted_brier(label, probability, weights):
    """The mean squared difference of probability and label; 0 is perfect."""
    return weights @ (probability - label) ** 2 / weights.sum(axis=1)


def weighted_calibration_error(label, probability, weights, n_bins=10):
    """The expected calibration error: mean gap of probability and malignant share over equal bins, by size."""
    bins = np.clip((probability * n_bins).astype(int), 0, n_bins - 1)
    gap = weights @ ((probability - label)[:, None] * (bins[:, None] == np.arange(n_bins)))
    return np.abs(gap).sum(axis=1) / weights.sum(axis=1)


def weighted_calibration_in_the_large(label, probability, weights):
    """The mean probability minus the malignant share; above 0, the probabilities are too high on average."""
    return weights @ (probability - label) / weights.sum(axis=1)


def weighted_sensitivity_at(specificity: float) -> Metric:
    """The best sensitivity among thresholds whose specificity is at least the given one."""

    def metric(label, probability, weights):
        tp, fp = cumulative_rates(label, probability, weights)
        allowed = ratio(fp, fp[:, -1:]) <= 1 - specificity + 1e-12
        return ratio(np.where(allowed, tp, 0).max(axis=1), np.where(fp[:, -1] > 0, tp[:, -1], 0))

    return metric


def weighted_confusion(label, probability, weights, threshold) -> Confusion:
    """Count the cells of the confusion matrix at a threshold, a breast as often as its weight says, for each draw."""
    label, decision = np.asarray(label) == 1, np.asarray(probability) >= threshold
    cells = (label & decision, label & ~decision, ~label & ~decision, ~label & decision)
    return Confusion(*(weights @ cell for cell in cells))


def weighted_at_threshold(name: str, threshold: float) -> Metric:
    """A property of :class:`Confusion` at a threshold."""
    return lambda *arguments: getattr(weighted_confusion(*arguments, threshold), name)


# Metrics by name: of scores alone, and of decisions at a threshold.
SCORES = {
    "auc": weighted_auc, "partial_auc": weighted_partial_auc, "auprc": weighted_average_precision,
    "brier": weighted_brier, "ece": weighted_calibration_error,
    **{f"sensitivity_at_{round(100 * s)}": weighted_sensitivity_at(s) for s in SPECIFICITIES},
}  # fmt: skip
DECISIONS = ("accuracy", "sensitivity", "specificity", "f1", "mcc", "ppv")


def known(name: str, names: Iterable[str] = (*SCORES, *DECISIONS)) -> str:
    """Return the name of a metric; raise an InputError if it is not one of ``names``."""
    if name not in names:
        raise InputError(f"unknown metric {name!r}: choose one of {', '.join(names)}")
    return name
