"""Repeated cross-validation: out-of-fold scores, and paired differences with equivalence tests.

A *repeat* is one prediction frame with the columns of :mod:`mammo_lib.statistics.seeds` and ``fold``. Networks of
different folds do not share a scale, so breasts are compared only within their fold.

| symbol | meaning |
|---|---|
| V_i | placement of breast i: the share of the other class in its fold that is ordered correctly with respect to it |
| AUC | sum over folds f of (n_f / n) AUC_f, AUC_f the mean V of either class in fold f |

The variance of an AUC, or of a paired difference of two, is that of the placements, averaged over repeats and summed
within patients (DeLong et al. 1988; Obuchowski 1997). The training sets of two folds overlap, which this variance
ignores; ``benchmarks/interval_coverage.py`` simulates the coverage of its intervals. The corrected resampled t
interval of Nadeau and Bengio (2003), which is wider because of that overlap, is given as well.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from ..errors import InputError
from .choices import fit_temperature, youden_threshold
from .comparisons import NO_SPREAD, delong_interval
from .evaluation import evaluate_predictions
from .intervals import LEVEL, Interval, Z, checked, logit_interval, separated_interval

EQUIVALENCE = 0.02  # largest AUC difference that protocol 2 treats as no difference
OUT_OF_FOLD = "out_of_fold"
AT_THRESHOLD = ("accuracy", "sensitivity", "specificity", "f1", "mcc", "ppv")


@dataclass(frozen=True)
class FoldDifference:
    """AUC(one) - AUC(other) over repeats of cross-validation, on ``n`` breasts.

    ``low high p``: difference from zero, at ``LEVEL`` and two-sided. ``p_equivalence``: two one-sided tests (TOST) of
    a difference beyond +-``bound``. ``reach``: the smallest bound at which TOST succeeds at 5 %, so "no effect larger
    than reach". ``low_nb high_nb``: Nadeau and Bengio's interval over the ``folds`` of all repeats. A difference that
    is the same for every breast has no variance, which does not mean certainty: bounds and reach are NaN, p values 1.
    """

    value: float
    low: float
    high: float
    p: float
    p_equivalence: float
    reach: float
    low_nb: float
    high_nb: float
    n: int
    repeats: int
    folds: int
    bound: float = EQUIVALENCE

    def __str__(self) -> str:
        return f"{self.value:+.3f} ({self.low:+.3f} to {self.high:+.3f})"

    @property
    def interval(self) -> Interval:
        """The difference with its interval from placements."""
        return Interval(self.value, self.low, self.high, self.n)

    @property
    def is_equivalent(self) -> bool:
        """Whether the difference lies within the bound, at 5 %."""
        return self.p_equivalence < 1 - LEVEL


def join_folds(frames: Mapping[int, pd.DataFrame]) -> pd.DataFrame:
    """Return the predictions of every fold's held-out breasts as one repeat: columns ``fold``, split "out_of_fold".

    A fold's threshold and temperature are chosen on the predictions of the other folds, never on its own.
    """
    parts = []
    for number, frame in frames.items():
        others = pd.concat([other for fold, other in frames.items() if fold != number])
        label = others["label"].to_numpy()
        parts.append(frame.assign(
            split=OUT_OF_FOLD, fold=np.int8(number),
            threshold=youden_threshold(label, others["probability"].to_numpy()),
            temperature=fit_temperature(label, others["logit"].to_numpy()),
        ))  # fmt: skip
    return pd.concat(parts, ignore_index=True).sort_values("sample_id", ignore_index=True)


def evaluate_out_of_fold(frame: pd.DataFrame) -> dict[str, dict]:
    """Compute every metric of one repeat, in the form of :func:`evaluate_predictions`.

    ``auc`` compares breasts within their fold; ``auc_pooled`` compares all breasts. Decisions are made at each fold's
    own threshold. Calibration uses the probabilities.
    """
    called = frame.assign(probability=(frame["probability"] >= frame["threshold"]).astype(float), threshold=0.5)
    decisions, probabilities = evaluate_predictions(called), evaluate_predictions(frame.assign(threshold=0.5))
    kept = {name: value for name, value in probabilities.items() if name not in (*AT_THRESHOLD, "auc", "auc_bootstrap")}
    pooled = delong_interval(frame["label"].to_numpy(), frame["probability"].to_numpy())
    intervals = {"auc": stratified_auc([frame]), "auc_pooled": pooled}
    return (
        {name: vars(one) for name, one in intervals.items()} | {name: decisions[name] for name in AT_THRESHOLD} | kept
    )


def stratified_auc(repeats: Sequence[pd.DataFrame]) -> Interval:
    """Return the AUC within folds, mean over repeats, with an interval over patients on the logit scale."""
    check_repeats(repeats)
    placements = [_placements(frame) for frame in repeats]
    value = float(np.mean([_mean(frame, own) for frame, own in zip(repeats, placements, strict=True)]))
    label = repeats[0]["label"]
    if value in (0, 1):
        return separated_interval(value, int(min(label.sum(), (1 - label).sum())), len(label))
    spread = _standard_error(repeats, placements)
    return logit_interval(value, spread / (value * (1 - value)), len(label))


def compare_folds(
    one: Sequence[pd.DataFrame], other: Sequence[pd.DataFrame], bound: float = EQUIVALENCE
) -> FoldDifference:
    """Compare two experiments that were cross-validated on the same breasts in the same folds, repeat by repeat.

    Raises
    ------
    InputError
        The repeats differ in number, breasts or folds.
    """
    check_repeats(one, other)
    differences = [_placements(a) - _placements(b) for a, b in zip(one, other, strict=True)]
    by_fold = [_by_fold(a, d) for a, d in zip(one, differences, strict=True)]
    value = float(np.mean([_mean(a, d) for a, d in zip(one, differences, strict=True)]))
    each = np.concatenate(by_fold)
    more = (*_nadeau_bengio(each, held_out=1 / len(by_fold[0])), len(one[0]), len(one), len(each), bound)
    spread = _standard_error(one, differences)
    if spread < NO_SPREAD < abs(value):
        return FoldDifference(value, math.nan, math.nan, 1.0, 1.0, math.nan, *more)
    spread = max(spread, np.finfo(float).tiny)
    nearer = (bound - abs(value)) / spread
    return FoldDifference(
        value, value - Z * spread, value + Z * spread, float(2 * stats.norm.sf(abs(value) / spread)),
        float(stats.norm.sf(nearer)), abs(value) + float(stats.norm.ppf(LEVEL)) * spread, *more,
    )  # fmt: skip


def check_repeats(*experiments: Sequence[pd.DataFrame]) -> None:
    """Raise an InputError unless the experiments' repeats have the same breasts in the same folds, in the same order.

    Repeats of one experiment have the same breasts, in different folds.
    """
    if not all(len(repeats) for repeats in experiments):
        raise InputError("predictions: no repeat is given; give at least one frame")
    if len({len(repeats) for repeats in experiments}) > 1:
        counts = " and ".join(str(len(repeats)) for repeats in experiments)
        raise InputError(f"predictions: {counts} repeats; compare equally many")
    first = experiments[0]
    for number, frames in enumerate(zip(*experiments, strict=True)):
        for frame in frames:
            checked(frame["label"].to_numpy(), frame["logit"].to_numpy())
            if frame["sample_id"].tolist() != first[0]["sample_id"].tolist():
                raise InputError(f"predictions: repeat {number} has other breasts; compare runs of one cohort")
            if frame["fold"].tolist() != frames[0]["fold"].tolist():
                raise InputError(f"predictions: repeat {number} has other folds; compare runs with the same folds")
        classes = frames[0].groupby("fold")["label"]
        if classes.mean().isin([0, 1]).any():
            raise InputError(f"predictions: a fold of repeat {number} has only one class: {classes.size().to_dict()}")
        if (patients := frames[0].groupby("fold")["patient_id"].nunique()).min() < 2:
            one = patients.idxmin()
            raise InputError(f"predictions: fold {one} of repeat {number} has one patient; use fewer folds")


def _placements(frame: pd.DataFrame) -> np.ndarray:
    """Return V_i, (breasts,): of a breast the share of the other class in its fold that is ordered correctly."""
    label, score, fold = (frame[name].to_numpy() for name in ("label", "logit", "fold"))
    placements = np.empty(len(frame))
    for number in np.unique(fold):
        malignant, benign = ((fold == number) & (label == value) for value in (1, 0))
        ahead = score[malignant][:, None] - score[benign]
        won = (ahead > 0) + 0.5 * (ahead == 0)
        placements[malignant], placements[benign] = won.mean(axis=1), won.mean(axis=0)
    return placements


def _by_fold(frame: pd.DataFrame, placements: np.ndarray) -> np.ndarray:
    """Return the AUC of each fold, (folds,); for paired differences of placements, the difference of the AUCs."""
    is_malignant = (frame["label"] == 1).to_numpy()
    fold = _codes(frame["fold"])[is_malignant]
    return np.bincount(fold, placements[is_malignant]) / np.bincount(fold)


def _mean(frame: pd.DataFrame, placements: np.ndarray) -> float:
    """Return the mean over folds, weighted by their share of the breasts."""
    return float(_by_fold(frame, placements) @ np.bincount(_codes(frame["fold"])) / len(frame))


def _standard_error(repeats: Sequence[pd.DataFrame], placements: Sequence[np.ndarray]) -> float:
    """Return the standard error of the mean of placements (or of paired differences of them) over repeats.

    Its square has two parts: the variance over patients, from placements averaged over repeats, and the variance
    between fits, divided by the number of fits. The variance between fits is that of the folds' means beyond what the
    patients in them explain.
    """
    each = [_influence(frame, values) for frame, values in zip(repeats, placements, strict=True)]
    patient = _codes(repeats[0]["patient_id"])
    patients = _variance(np.mean(each, axis=0), patient)
    means = np.concatenate([_by_fold(frame, values) for frame, values in zip(repeats, placements, strict=True)])
    within = []
    for frame, influence in zip(repeats, each, strict=True):
        fold = frame["fold"].to_numpy()
        for number in np.unique(fold):
            inside = fold == number
            within.append(_variance(influence[inside] / inside.mean(), patient[inside]))
    fits = max(0.0, float(np.var(means, ddof=1) - np.mean(within))) if len(means) > 1 else 0.0
    return math.sqrt(patients + fits / len(means))


def _influence(frame: pd.DataFrame, placements: np.ndarray) -> np.ndarray:
    """Return what each breast adds to the AUC beyond the mean of its class and fold, (breasts,)."""
    fold = _codes(frame["fold"])
    group = 2 * fold + (frame["label"] == 1).to_numpy()
    size = np.bincount(group)[group]
    share = np.bincount(fold)[fold] / len(frame)
    return (placements - np.bincount(group, placements)[group] / size) / size * share


def _variance(influence: np.ndarray, patient: np.ndarray) -> float:
    """Return the variance of the influences' sum: patients are independent, the breasts of one patient are not."""
    sums = np.bincount(pd.factorize(patient)[0], influence)
    return len(sums) / (len(sums) - 1) * float((sums**2).sum())


def _codes(column: pd.Series) -> np.ndarray:
    """Return the rank of each value among the distinct sorted values of its column, (rows,)."""
    return np.unique(column.to_numpy(), return_inverse=True)[1]


def _nadeau_bengio(each: np.ndarray, held_out: float) -> tuple[float, float]:
    """Return the corrected resampled t interval of fold differences; ``held_out`` is a fold's share of the breasts."""
    if len(each) < 2 or held_out == 1:  # a fold with all breasts leaves none to train on
        return math.nan, math.nan
    spread = math.sqrt((1 / len(each) + held_out / (1 - held_out)) * each.var(ddof=1))
    reach = float(stats.t.ppf(0.5 + LEVEL / 2, len(each) - 1)) * spread
    return float(each.mean()) - reach, float(each.mean()) + reach
