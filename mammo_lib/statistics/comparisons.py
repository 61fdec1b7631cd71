"""Two scores on the same breasts: DeLong, McNemar, Holm."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar as sm_mcnemar

from ..errors import InputError
from .choices import refuse_missing
from .intervals import Interval, Z, checked, logit_interval, separated_bound, separated_interval, unbounded
from .metrics import auc

NO_SPREAD = 1e-12  # a smaller standard error is only rounding: a true one is at least 1 / breasts^3


def delong_interval(label: np.ndarray, probability: np.ndarray) -> Interval:
    """AUC with DeLong's interval, on the logit scale so that it stays within [0, 1] (DeLong et al. 1988).

    NaN bounds with fewer than two breasts of a class. If the classes are separated, the estimated variance is zero,
    which does not mean certainty; the open bound is then that of :func:`separated_bound`.

    >>> print(delong_interval([1, 1, 0, 0], [0.8, 0.4, 0.6, 0.2]))
    0.750 (0.069 to 0.992, n = 4)
    """
    value, (malignant, benign) = auc(label, probability), _placements(label, probability)
    n, pairs = len(label), min(len(malignant), len(benign))
    if pairs < 2:
        return unbounded(value, n)
    if value in (0, 1):
        return separated_interval(value, pairs, n)
    return logit_interval(value, _spread(malignant, benign) / (value * (1 - value)), n)


def delong_test(label: np.ndarray, one: np.ndarray, other: np.ndarray) -> tuple[Interval, float]:
    """Paired difference AUC(one) - AUC(other) on the same breasts, with DeLong's interval and two-sided p value.

    Scores are (breasts,) or (draws, breasts); with draws, their mean AUC is compared, for the given draws. NaN bounds
    and p with fewer than two breasts of a class. Breasts are treated as independent.

    If no breast varies, the estimated variance is zero, which does not mean certainty; see ``_without_variance``.

    >>> label, score = [1] * 6 + [0] * 6, list(range(12, 0, -1))
    >>> difference, p = delong_test(label, score, score[::-1])  # every pair in order, every pair out of order
    >>> print(difference, round(p, 3))
    1.000 (0.081 to 1.000, n = 12) 0.031
    """
    (m1, b1), (m2, b2) = _placements(label, one), _placements(label, other)
    value, n, pairs = float(np.mean(m1) - np.mean(m2)), len(label), min(len(m1), len(b1))
    if pairs < 2:
        return unbounded(value, n), math.nan
    spread = _spread(m1 - m2, b1 - b2)
    if spread < NO_SPREAD:
        return _without_variance(value, label, one, other, pairs)
    p = 2 * stats.norm.sf(abs(value) / spread)
    return Interval(value, value - Z * spread, value + Z * spread, n), float(p)


def unpaired_difference(
    one: tuple[np.ndarray, np.ndarray], other: tuple[np.ndarray, np.ndarray]
) -> tuple[Interval, float]:
    """Difference AUC(one) - AUC(other) of scores on different breasts, with interval and two-sided p value.

    Each argument is (label, score). The two AUCs are independent: their variances, DeLong's, are added. NaN bounds and
    p where a class has fewer than two breasts, or where the classes are separated in both.

    >>> difference, p = unpaired_difference(([1, 1, 0, 0], [0.8, 0.4, 0.6, 0.2]), ([1, 1, 0, 0], [0.8, 0.1, 0.6, 0.2]))
    >>> print(difference, round(p, 2))  # .75 - .50; variances .125 and .25
    0.250 (-0.950 to 1.450, n = 8) 0.68
    """
    (m1, b1), (m2, b2) = _placements(*one), _placements(*other)
    value, n = auc(*one) - auc(*other), len(one[0]) + len(other[0])
    spread = math.hypot(_spread(m1, b1), _spread(m2, b2)) if min(map(len, (m1, b1, m2, b2))) > 1 else 0.0
    if spread < NO_SPREAD:
        return unbounded(value, n), math.nan
    p = 2 * stats.norm.sf(abs(value) / spread)
    return Interval(value, value - Z * spread, value + Z * spread, n), float(p)


def _without_variance(value: float, label, one, other, pairs: int) -> tuple[Interval, float]:
    """Return interval and p value of a difference that is the same for every breast.

    Match the breasts into ``pairs`` disjoint pairs of a malignant and a benign one, as :func:`separated_bound` does. A
    score has a pair in order (1), tied (1/2) or out of order (0). Let d be this value for the first score minus that
    for the other. AUC(one) - AUC(other) is the mean of d, which lies in [-1, 1]. All ``pairs`` were observed with
    d >= ``least``, which has probability P^pairs with P = P(d >= least). Interval: P is at least
    b = separated_bound(pairs), or the data would be in the tail; so the mean is at least b least - (1 - b), and at most
    b most + (1 - b). p: if the mean is 0, P is at most 1 / (1 + least), so p is twice (1 + least)^-pairs. This is the
    sign test if every pair is in order for one score and out of order for the other. Interval and p agree at
    ``LEVEL``; both are conservative, because the other pairs are not used.

    Two scores with the same ranks count as one score: they differ by 0.
    """
    ranks = np.broadcast_arrays(stats.rankdata(one, axis=-1), stats.rankdata(other, axis=-1))
    if np.array_equal(*ranks):
        return Interval(value, value, value, len(label)), 1.0
    d, bound = _in_order(label, one) - _in_order(label, other), separated_bound(pairs)
    least, most = float(d.min()), float(d.max())
    p = min(1.0, 2 * (1 + max(least, -most, 0)) ** -pairs)
    return Interval(value, bound * (1 + least) - 1, 1 - bound * (1 - most), len(label)), p


def normal_p(value: float, spread: float) -> float:
    """Return the two-sided p value of a difference with a standard error; NaN if it is undefined or without spread.

    >>> round(normal_p(1.96, 1.0), 3), normal_p(0.1, 0.0), normal_p(0.0, 0.0)
    (0.05, nan, 1.0)
    """
    if spread < NO_SPREAD:
        return 1.0 if value == 0 else math.nan
    return float(2 * stats.norm.sf(abs(value) / spread))


def holm(p: ArrayLike) -> np.ndarray:
    """Return Holm-corrected p values (Holm 1979); NaN, from a test that was not possible, counts as 1.

    >>> holm([0.01, 0.04, 0.03])
    array([0.03, 0.06, 0.06])
    """
    values = np.nan_to_num(np.asarray(p, dtype=float), nan=1.0)
    order = np.argsort(values)
    # Not the function of statsmodels: each call runs the garbage collector, which takes a quarter of a second.
    raised = np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1))
    return np.minimum(raised, 1)[np.argsort(order)]


def paired_differences(label: np.ndarray, one: np.ndarray, others: Mapping[str, np.ndarray]) -> pd.DataFrame:
    """Compare one score with several on the same breasts: ``name value low high n p p_holm`` of AUC(one) - AUC(other).

    The p values are DeLong's; ``p_holm`` is Holm-corrected for their number.
    """
    if not others:
        raise InputError("others: no score to compare with is given")
    rows = []
    for name, other in others.items():
        difference, p = delong_test(label, one, other)
        rows.append({"name": name, **asdict(difference), "p": p})
    frame = pd.DataFrame(rows)
    return frame.assign(p_holm=holm(frame["p"]))


def compare_predictions(one: pd.DataFrame, others: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Compare one set of predictions with a family of others on the same breasts, in rank and in decisions.

    Returns
    -------
    DataFrame
        Per other: ``name n auc low high p p_holm`` of AUC(one) - AUC(other) by DeLong, and ``gained lost p_mcnemar
        p_mcnemar_holm``: breasts that only the one, or only the other, classifies correctly at its own threshold.
        Holm's correction (1979) is over the family, for each test.

    Raises
    ------
    InputError
        A frame contains other breasts.
    """
    label = one["label"].to_numpy()
    decisions = decide(one)
    for name, other in others.items():
        if one["sample_id"].tolist() != other["sample_id"].tolist():
            raise InputError(f"{name}: not the same breasts in the same order; compare runs of one cohort")
    scores = {name: other["probability"].to_numpy() for name, other in others.items()}
    ranks = paired_differences(label, one["probability"].to_numpy(), scores).rename(columns={"value": "auc"})
    right = decisions == label
    also = [decide(other) == label for other in others.values()]
    p = [mcnemar(label, decisions, decide(other)) for other in others.values()]
    return ranks.assign(
        gained=[int((right & ~other).sum()) for other in also],
        lost=[int((~right & other).sum()) for other in also],
        p_mcnemar=p,
        p_mcnemar_holm=holm(p),
    )


def decide(frame: pd.DataFrame) -> np.ndarray:
    """Return the decisions, 0 or 1, of predictions at their threshold."""
    refuse_missing(frame, ["probability", "threshold"])
    return (frame["probability"] >= frame["threshold"]).astype(int).to_numpy()


def _spread(malignant: np.ndarray, benign: np.ndarray) -> float:
    """Standard error of a mean of placements (or of their paired differences)."""
    return math.sqrt(malignant.var(ddof=1) / len(malignant) + benign.var(ddof=1) / len(benign))


def _placements(label: np.ndarray, score: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each malignant breast the share of benign scores below it; for each benign one, of malignant scores above it.

    For several draws, (draws, breasts), the mean shares: their mean is the mean AUC.
    """
    draws = [(won.mean(axis=1), won.mean(axis=0)) for won in _won(label, score)]
    return draws[0] if len(draws) == 1 else tuple(np.mean(side, axis=0) for side in zip(*draws, strict=True))


def _in_order(label: np.ndarray, score: np.ndarray) -> np.ndarray:
    """Return by malignant and benign breast whether the pair is in order, 1/2 for a tie, the mean over draws."""
    return np.mean(list(_won(label, score)), axis=0)


def _won(label: np.ndarray, score: np.ndarray) -> Iterator[np.ndarray]:
    """Yield for each draw, by malignant and benign breast, 1 where the malignant one scores higher, 1/2 for a tie."""
    label, score = checked(label, score, needs_both=True)
    for one in np.atleast_2d(score):
        malignant, benign = one[label == 1][:, None], one[label == 0]
        yield (malignant > benign) + 0.5 * (malignant == benign)


def mcnemar(label: np.ndarray, one: np.ndarray, other: np.ndarray) -> float:
    """Return McNemar's exact p value for two sets of decisions on the same breasts.

    >>> mcnemar([1] * 10, [1] * 10, [1] * 5 + [0] * 5)  # five breasts lost, none gained: 2 / 2^5
    0.0625
    """
    label = np.asarray(label)
    right, also = (decision == label for _, decision in (checked(label, one), checked(label, other)))
    table = [[np.sum(right & also), np.sum(right & ~also)], [np.sum(~right & also), np.sum(~right & ~also)]]
    return float(sm_mcnemar(table, exact=True).pvalue)
