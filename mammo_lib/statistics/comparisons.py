"""Two scores on the same breasts: DeLong, McNemar, Holm."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict

import numpy as np
import pandas as pd
from scipy import stats
from scipy.special import expit, logit
from statsmodels.stats.contingency_tables import mcnemar as sm_mcnemar
from statsmodels.stats.multitest import multipletests

from ..errors import InputError
from .intervals import Interval, Z, checked, separated_bound
from .metrics import auc


def delong_interval(label: np.ndarray, probability: np.ndarray) -> Interval:
    """AUC with DeLong's interval, on the logit scale so that it stays within [0, 1] (DeLong et al. 1988).

    NaN bounds with fewer than two breasts of a class. Where the classes are separated the estimated variance is zero,
    which is no certainty: the open bound is then that of :func:`separated_bound`.
    """
    value, (malignant, benign) = auc(label, probability), _placements(label, probability)
    n, pairs = len(label), min(len(malignant), len(benign))
    if pairs < 2:
        return Interval(value, math.nan, math.nan, n)
    if value in (0, 1):
        bound = separated_bound(pairs)
        return Interval(value, bound, 1.0, n) if value else Interval(value, 0.0, 1 - bound, n)
    spread = _spread(malignant, benign) / (value * (1 - value))
    low, high = expit(logit(value) + np.array([-1, 1]) * Z * spread)
    return Interval(value, float(low), float(high), n)


def delong_test(label: np.ndarray, one: np.ndarray, other: np.ndarray) -> tuple[Interval, float]:
    """Paired difference AUC(one) - AUC(other) on the same breasts, with DeLong's interval and two-sided p value.

    Scores are (breasts,) or (draws, breasts); of draws the mean AUC counts, and the draws as given. NaN bounds and p
    with fewer than two breasts of a class. Breasts count as independent.

    Where no breast varies (separated classes) the estimated variance is zero, which is no certainty. The interval then
    has the reach of :func:`separated_bound` for each AUC, and p is that of a sign test over disjoint pairs of a
    malignant and a benign breast: all of them agree with probability 2^-pairs on either side. Two scores that rank all
    breasts alike differ by 0, surely.
    """
    (m1, b1), (m2, b2) = _placements(label, one), _placements(label, other)
    value = float(np.mean(m1) - np.mean(m2)) if len(m1) and len(b1) else math.nan
    if min(len(m1), len(b1)) < 2:
        return Interval(value, math.nan, math.nan, len(label)), math.nan
    spread = _spread(m1 - m2, b1 - b2)
    if spread == 0:
        return _without_variance(value, label, one, other, min(len(m1), len(b1)))
    p = 2 * stats.norm.sf(abs(value) / spread)
    return Interval(value, value - Z * spread, value + Z * spread, len(label)), float(p)


def _without_variance(value: float, label, one, other, pairs: int) -> tuple[Interval, float]:
    if np.array_equal(stats.rankdata(one, axis=-1), stats.rankdata(other, axis=-1)):
        return Interval(value, value, value, len(label)), 1.0
    reach = (2 if value else 1) * (1 - separated_bound(pairs))
    interval = Interval(value, max(-1.0, value - reach), min(1.0, value + reach), len(label))
    return interval, min(1.0, 2 * 0.5**pairs) if value else 1.0


def paired_differences(label: np.ndarray, one: np.ndarray, others: Mapping[str, np.ndarray]) -> pd.DataFrame:
    """Compare one score with several on the same breasts: ``name value low high n p p_holm`` of AUC(one) - AUC(other).

    The p values are DeLong's; ``p_holm`` is corrected for their number after Holm (1979).
    """
    rows = []
    for name, other in others.items():
        difference, p = delong_test(label, one, other)
        rows.append({"name": name, **asdict(difference), "p": p})
    frame = pd.DataFrame(rows)
    return frame.assign(p_holm=multipletests(frame["p"].fillna(1.0), method="holm")[1])


def compare_predictions(one: pd.DataFrame, others: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Compare one set of predictions with a family of others on the same breasts, in rank and in decisions.

    Returns
    -------
    DataFrame
        Per other: ``name n auc low high p p_holm`` of AUC(one) - AUC(other) by DeLong, and ``gained lost p_mcnemar
        p_mcnemar_holm``: breasts on which only the one, and only the other, decides rightly at its own threshold.
        Holm's correction (1979) is over the family, for each test.

    Raises
    ------
    InputError
        A frame holds other breasts.
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
        p_mcnemar_holm=multipletests(p, method="holm")[1],
    )


def decide(frame: pd.DataFrame) -> np.ndarray:
    """Return the decisions, 0 or 1, of predictions at their threshold."""
    return (frame["probability"] >= frame["threshold"]).astype(int).to_numpy()


def _spread(malignant: np.ndarray, benign: np.ndarray) -> float:
    """Standard error of a mean of placements (or of their paired differences)."""
    return math.sqrt(malignant.var(ddof=1) / len(malignant) + benign.var(ddof=1) / len(benign))


def _placements(label: np.ndarray, score: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Per malignant breast the share of benign scores below it, per benign one that of malignant scores above it.

    Of several draws, (draws, breasts), the mean shares: their mean is the mean AUC.
    """
    label, score = checked(label, score)
    if score.ndim == 2:
        draws = [_placements(label, one) for one in score]
        return np.mean([m for m, _ in draws], axis=0), np.mean([b for _, b in draws], axis=0)
    malignant, benign = score[label == 1], score[label == 0]
    wins = (malignant[:, None] > benign[None, :]) + 0.5 * (malignant[:, None] == benign[None, :])
    if not wins.size:
        return np.full(len(malignant), math.nan), np.full(len(benign), math.nan)
    return wins.mean(axis=1), wins.mean(axis=0)


def mcnemar(label: np.ndarray, one: np.ndarray, other: np.ndarray) -> float:
    """Return McNemar's exact p value for two sets of decisions on the same breasts."""
    right, also = np.asarray(one) == label, np.asarray(other) == label
    table = [[np.sum(right & also), np.sum(right & ~also)], [np.sum(~right & also), np.sum(~right & ~also)]]
    return float(sm_mcnemar(table, exact=True).pvalue)
