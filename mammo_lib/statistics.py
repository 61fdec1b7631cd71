"""Numpy in, numbers with intervals out: discrimination, decisions, calibration, comparisons, the paper's arithmetic.

Everywhere ``label`` is 0 (benign) or 1 (malignant), ``probability`` the predicted probability of
malignancy, and a decision is malignant when ``probability >= threshold``. Intervals are two-sided
at ``LEVEL``. Breasts of one patient are not independent, so bootstrap samples are drawn over patients.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from itertools import product

import numpy as np
import pandas as pd
from scipy import optimize, stats
from scipy.special import expit, logit
from sklearn import metrics as sk
from statsmodels.stats.contingency_tables import mcnemar as sm_mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

from .errors import InputError

LEVEL = 0.95
Z = float(stats.norm.ppf(0.5 + LEVEL / 2))
N_RESAMPLES = 2000
SPECIFICITIES = (0.80, 0.90, 0.95)


@dataclass(frozen=True)
class Interval:
    """An estimate with its confidence interval, and the number of breasts behind it."""

    value: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f}, n = {self.n})"


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
        return _ratio(self.tp + self.tn, self.n)

    @property
    def sensitivity(self) -> float:
        """tp / (tp + fn), the share of malignant breasts found."""
        return _ratio(self.tp, self.tp + self.fn)

    @property
    def specificity(self) -> float:
        """tn / (tn + fp), the share of benign breasts left alone."""
        return _ratio(self.tn, self.tn + self.fp)

    @property
    def ppv(self) -> float:
        """tp / (tp + fp), the share of malignant decisions that are right."""
        return _ratio(self.tp, self.tp + self.fp)

    @property
    def f1(self) -> float:
        """2 tp / (2 tp + fp + fn)."""
        return _ratio(2 * self.tp, 2 * self.tp + self.fp + self.fn)

    @property
    def mcc(self) -> float:
        """Matthews correlation coefficient."""
        margins = (self.tp + self.fp) * (self.tp + self.fn) * (self.tn + self.fp) * (self.tn + self.fn)
        return _ratio(self.tp * self.tn - self.fp * self.fn, np.sqrt(margins))


def _ratio(part, whole):
    """Divide; NaN where the whole is zero. Works on counts and on arrays of counts."""
    whole = np.asarray(whole, dtype=float)
    ratio = np.divide(part, whole, out=np.full(np.broadcast(part, whole).shape, math.nan), where=whole != 0)
    return ratio if ratio.ndim else float(ratio)


def confusion(label: np.ndarray, probability: np.ndarray, threshold: float) -> Confusion:
    """Count decisions at a threshold."""
    counts = _weighted_confusion(label, probability, _ones(label), threshold)
    return Confusion(*(int(getattr(counts, name)[0]) for name in ("tp", "fn", "tn", "fp")))


def auc(label: np.ndarray, probability: np.ndarray) -> float:
    """Area under the ROC curve, ties counting half; NaN where only one class is present."""
    return _value(_auc, label, probability)


def average_precision(label: np.ndarray, probability: np.ndarray) -> float:
    """Area under the precision-recall curve (AUPRC), as a step function; NaN without a malignant breast."""
    return _value(_average_precision, label, probability)


def brier(label: np.ndarray, probability: np.ndarray) -> float:
    """Mean squared difference of probability and label; 0 is perfect, base rate times its complement is uninformed."""
    return _value(_brier, label, probability)


def calibration_error(label: np.ndarray, probability: np.ndarray) -> float:
    """Expected calibration error: mean gap of probability and malignant share over ten equal bins, weighted by size."""
    return _value(_calibration_error, label, probability)


def reliability(label: np.ndarray, probability: np.ndarray, n_bins: int = 10) -> pd.DataFrame:
    """Return ``mean value low high n`` per equal bin that holds a breast: its mean probability, its malignant share."""
    label, probability = np.asarray(label), np.asarray(probability)
    bins = np.minimum((probability * n_bins).astype(int), n_bins - 1)
    return pd.DataFrame(
        [
            {
                "mean": probability[bins == k].mean(),
                **asdict(wilson_interval(int(label[bins == k].sum()), (bins == k).sum())),
            }
            for k in np.unique(bins)
        ]
    )


def sensitivity_at(label: np.ndarray, probability: np.ndarray, specificity: float) -> float:
    """Return the best sensitivity among thresholds whose specificity is at least the given one."""
    return _value(_sensitivity_at(specificity), label, probability)


# A metric as the bootstrap wants it: weights (resamples, breasts), how often each was drawn -> (resamples,).
Metric = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


def _value(metric: Metric, label: np.ndarray, probability: np.ndarray) -> float:
    return float(metric(np.asarray(label), np.asarray(probability), _ones(label))[0])


def _ones(label: np.ndarray) -> np.ndarray:
    return np.ones((1, len(label)))


def _rates(label: np.ndarray, probability: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return true and false positives, (resamples, thresholds + 1), from the strictest threshold to the loosest."""
    order = np.argsort(-probability, kind="stable")
    last_of_tie = np.flatnonzero(np.diff(probability[order], append=np.nan) != 0)
    tp = np.cumsum(weights[:, order] * (label[order] == 1), axis=1)[:, last_of_tie]
    fp = np.cumsum(weights[:, order] * (label[order] == 0), axis=1)[:, last_of_tie]
    return np.pad(tp, ((0, 0), (1, 0))), np.pad(fp, ((0, 0), (1, 0)))


def _auc(label, probability, weights):
    tp, fp = _rates(label, probability, weights)
    return _ratio(np.trapezoid(tp, fp, axis=1), tp[:, -1] * fp[:, -1])


def _average_precision(label, probability, weights):
    tp, fp = _rates(label, probability, weights)
    gained = np.diff(tp, axis=1)
    precision = np.nan_to_num(_ratio(tp[:, 1:], tp[:, 1:] + fp[:, 1:]))
    return _ratio((gained * precision).sum(axis=1), tp[:, -1])


def _brier(label, probability, weights):
    return weights @ (probability - label) ** 2 / weights.sum(axis=1)


def _calibration_error(label, probability, weights, n_bins=10):
    bins = np.clip((probability * n_bins).astype(int), 0, n_bins - 1)
    gap = weights @ ((probability - label)[:, None] * (bins[:, None] == np.arange(n_bins)))
    return np.abs(gap).sum(axis=1) / weights.sum(axis=1)


def _sensitivity_at(specificity: float) -> Metric:
    def metric(label, probability, weights):
        tp, fp = _rates(label, probability, weights)
        allowed = _ratio(fp, fp[:, -1:]) <= 1 - specificity + 1e-12
        return _ratio(np.where(allowed, tp, 0).max(axis=1), np.where(fp[:, -1] > 0, tp[:, -1], 0))

    return metric


def _weighted_confusion(label, probability, weights, threshold) -> Confusion:
    label, decision = np.asarray(label) == 1, np.asarray(probability) >= threshold
    cells = (label & decision, label & ~decision, ~label & ~decision, ~label & decision)
    return Confusion(*(weights @ cell for cell in cells))


def _at_threshold(name: str, threshold: float) -> Metric:
    return lambda *arguments: getattr(_weighted_confusion(*arguments, threshold), name)


def delong_interval(label: np.ndarray, probability: np.ndarray) -> Interval:
    """AUC with DeLong's interval, on the logit scale so that it stays within [0, 1] (DeLong et al. 1988).

    NaN bounds with fewer than two breasts of a class. Where the classes are separated the estimated variance is zero,
    which is no certainty: the open bound is then that of :func:`_separated_bound`.
    """
    value, (malignant, benign) = auc(label, probability), _placements(label, probability)
    n, pairs = len(label), min(len(malignant), len(benign))
    if pairs < 2:
        return Interval(value, math.nan, math.nan, n)
    if value in (0, 1):
        bound = _separated_bound(pairs)
        return Interval(value, bound, 1.0, n) if value else Interval(value, 0.0, 1 - bound, n)
    spread = _spread(malignant, benign) / (value * (1 - value))
    low, high = expit(logit(value) + np.array([-1, 1]) * Z * spread)
    return Interval(value, float(low), float(high), n)


def _separated_bound(pairs: int) -> float:
    """Return the smallest AUC that is not refuted when every malignant breast scores above every benign one.

    Match the breasts into ``pairs`` disjoint pairs: all of them are in order with probability AUC^pairs, so an AUC
    below (1 - LEVEL)/2 to the power 1/pairs would be in the tail. Conservative: the other pairs are not used.
    """
    return ((1 - LEVEL) / 2) ** (1 / pairs)


def delong_test(label: np.ndarray, one: np.ndarray, other: np.ndarray) -> tuple[Interval, float]:
    """Paired difference AUC(one) - AUC(other) on the same breasts, with DeLong's interval and two-sided p value.

    NaN bounds and p with fewer than two breasts of a class. Breasts count as independent.
    """
    (m1, b1), (m2, b2) = _placements(label, one), _placements(label, other)
    value = auc(label, one) - auc(label, other)
    if min(len(m1), len(b1)) < 2:
        return Interval(value, math.nan, math.nan, len(label)), math.nan
    spread = _spread(m1 - m2, b1 - b2)
    if spread == 0:
        return Interval(value, value, value, len(label)), 1.0 if value == 0 else 0.0
    p = 2 * stats.norm.sf(abs(value) / spread)
    return Interval(value, value - Z * spread, value + Z * spread, len(label)), float(p)


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


def _spread(malignant: np.ndarray, benign: np.ndarray) -> float:
    """Standard error of a mean of placements (or of their paired differences)."""
    return math.sqrt(malignant.var(ddof=1) / len(malignant) + benign.var(ddof=1) / len(benign))


def _placements(label: np.ndarray, score: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Per malignant breast the share of benign scores below it, per benign one that of malignant scores above it."""
    label, score = np.asarray(label), np.asarray(score, dtype=float)
    malignant, benign = score[label == 1], score[label == 0]
    wins = (malignant[:, None] > benign[None, :]) + 0.5 * (malignant[:, None] == benign[None, :])
    if not wins.size:
        return np.full(len(malignant), math.nan), np.full(len(benign), math.nan)
    return wins.mean(axis=1), wins.mean(axis=0)


def hanley_mcneil_interval(value: float, n_malignant: int, n_benign: int) -> Interval:
    """Interval of a published AUC, from its value and the class sizes alone (Hanley and McNeil 1982).

    On the logit scale; ``value`` lies strictly between 0 and 1. DeLong's interval is better where the scores are known.
    """
    q1, q2 = value / (2 - value), 2 * value**2 / (1 + value)
    variance = value * (1 - value) + (n_malignant - 1) * (q1 - value**2) + (n_benign - 1) * (q2 - value**2)
    spread = math.sqrt(variance / (n_malignant * n_benign)) / (value * (1 - value))
    low, high = expit(logit(value) + np.array([-1, 1]) * Z * spread)
    return Interval(value, float(low), float(high), n_malignant + n_benign)


def wilson_interval(successes: int, n: int) -> Interval:
    """A proportion with Wilson's score interval (1927); NaN bounds for n = 0."""
    if n == 0:
        return Interval(math.nan, math.nan, math.nan, 0)
    low, high = proportion_confint(successes, n, alpha=1 - LEVEL, method="wilson")
    return Interval(successes / n, float(low), float(high), n)


def bootstrap_interval(
    metric: Metric, label: np.ndarray, probability: np.ndarray, patients: np.ndarray,
    *, n_resamples: int = N_RESAMPLES, seed: int = 0,
) -> Interval:  # fmt: skip
    """Percentile interval over resampled patients, all breasts of a patient together.

    ``metric(label, probability, weights)`` maps weights (resamples, breasts) to (resamples,). Resamples on which it is
    undefined (one class only) are left out.
    """
    label, probability = np.asarray(label), np.asarray(probability)
    values = metric(label, probability, patient_weights(patients, n_resamples, seed))
    values = values[~np.isnan(values)]
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(values, [tail, 1 - tail]) if len(values) else (math.nan, math.nan)
    return Interval(_value(metric, label, probability), float(low), float(high), len(label))


def auc_bootstrap_interval(label: np.ndarray, probability: np.ndarray, patients: np.ndarray, **options) -> Interval:
    """AUC with the patient-cluster bootstrap interval."""
    return bootstrap_interval(_auc, label, probability, patients, **options)


def patient_weights(patients: np.ndarray, n_resamples: int, seed: int) -> np.ndarray:
    """Return how often each breast is in each bootstrap sample over patients, (resamples, breasts)."""
    names, member = np.unique(np.asarray(patients), return_inverse=True)
    share = np.full(len(names), 1 / len(names))
    return np.random.default_rng(seed).multinomial(len(names), share, size=n_resamples)[:, member].astype(float)


def youden_threshold(label: np.ndarray, probability: np.ndarray) -> float:
    """Return the threshold with the largest sensitivity + specificity; the highest of equals.

    Raises
    ------
    InputError
        Only one class is present.
    """
    if len(np.unique(label)) < 2:
        raise InputError(f"no threshold can be chosen: all {len(label)} breasts have one label; use larger folds")
    fpr, tpr, thresholds = sk.roc_curve(label, probability, drop_intermediate=False)
    # The first point decides nothing malignant: its threshold is infinite. Rounding makes equals equal.
    best = np.argmax(np.round(tpr - fpr, 12)[1:])
    return float(thresholds[1:][best])


def fit_temperature(label: np.ndarray, logit: np.ndarray) -> float:
    """Return the T > 0 for which sigmoid(logit / T) has the smallest log loss (Guo et al. 2017), within [0.05, 20]."""

    def loss(log_t: float) -> float:
        scaled = np.asarray(logit) / math.exp(log_t)
        return float(np.mean(np.logaddexp(0, scaled) - np.asarray(label) * scaled))

    bounds = (math.log(0.05), math.log(20))
    return math.exp(optimize.minimize_scalar(loss, bounds=bounds, method="bounded").x)


def evaluate_predictions(frame: pd.DataFrame) -> dict[str, dict]:
    """Compute every metric of one split's predictions.

    Parameters
    ----------
    frame
        One row per breast with ``patient_id label probability threshold``; with ``logit temperature`` the calibration
        after temperature scaling is computed too.

    Returns
    -------
    dict
        ``{name: {value, low, high, n}}``; where the value is undefined it is None and a ``reason`` stands beside it.
        Accuracy, sensitivity and specificity have Wilson intervals, ``auc`` DeLong's, all others patient-cluster
        bootstrap intervals.

    Raises
    ------
    InputError
        There is no row, a label other than 0 and 1, a probability outside [0, 1] or more than one threshold.
    """
    _check_predictions(frame)
    label, probability = frame["label"].to_numpy(), frame["probability"].to_numpy()
    threshold = float(frame["threshold"].iloc[0])
    counts = confusion(label, probability, threshold)
    exact = {
        "auc": delong_interval(label, probability),
        "accuracy": wilson_interval(counts.tp + counts.tn, counts.n),
        "sensitivity": wilson_interval(counts.tp, counts.tp + counts.fn),
        "specificity": wilson_interval(counts.tn, counts.tn + counts.fp),
    }
    resampled = {"auc_bootstrap": _auc, "auprc": _average_precision, "brier": _brier, "ece": _calibration_error}
    resampled |= {name: _at_threshold(name, threshold) for name in ("f1", "mcc", "ppv")}
    resampled |= {f"sensitivity_at_{round(100 * s)}": _sensitivity_at(s) for s in SPECIFICITIES}
    patients = frame["patient_id"].to_numpy()
    results = exact | {name: bootstrap_interval(f, label, probability, patients) for name, f in resampled.items()}
    if "temperature" in frame:
        scaled = expit((frame["logit"] / frame["temperature"]).to_numpy())
        for name, metric in {"brier": _brier, "ece": _calibration_error}.items():
            results[f"{name}_scaled"] = bootstrap_interval(metric, label, scaled, patients)
    reason = _why_undefined(counts)
    return {name: _as_json(interval, reason) for name, interval in results.items()}


def _check_predictions(frame: pd.DataFrame) -> None:
    if frame.empty:
        raise InputError("predictions: no row to evaluate; check the split's name")
    label, probability, thresholds = frame["label"], frame["probability"], frame["threshold"].unique()
    if not label.isin([0, 1]).all():
        raise InputError(f"predictions: labels must be 0 or 1, got {sorted(set(label) - {0, 1})}")
    if not (outside := probability[~probability.between(0, 1)]).empty:
        raise InputError(f"predictions: probabilities must lie in [0, 1], got {outside.iloc[0]} in {len(outside)} rows")
    if len(thresholds) != 1 or np.isnan(thresholds[0]):
        raise InputError(f"predictions: one split has one threshold, got {thresholds.tolist()}")


def _why_undefined(counts: Confusion) -> str:
    absent = {"malignant": counts.tp + counts.fn, "benign": counts.tn + counts.fp}
    missing = [name for name, n in absent.items() if n == 0]
    return f"no {missing[0]} breast" if missing else "every breast got the same decision"


def _as_json(interval: Interval, reason: str) -> dict:
    record = {
        key: None if isinstance(value, float) and math.isnan(value) else value
        for key, value in asdict(interval).items()
    }
    return record | ({"reason": reason} if record["value"] is None else {})


def mcnemar(label: np.ndarray, one: np.ndarray, other: np.ndarray) -> float:
    """Return McNemar's exact p value for two sets of decisions on the same breasts."""
    right, also = np.asarray(one) == label, np.asarray(other) == label
    table = [[np.sum(right & also), np.sum(right & ~also)], [np.sum(~right & also), np.sum(~right & ~also)]]
    return float(sm_mcnemar(table, exact=True).pvalue)


def matching_denominators(published: list[float], decimals: int, n_max: int) -> list[int]:
    """Return every n below ``n_max`` for which each published proportion is some k / n, rounded to ``decimals``."""
    return [n for n in range(1, n_max) if all(numerators(value, n, decimals) for value in published)]


def numerators(value: float, n: int, decimals: int) -> list[int]:
    """Return every k for which k / n rounds to ``value``."""
    reach = 0.5 * 10**-decimals * n + 1
    near = range(max(0, math.floor(value * n - reach)), min(n, math.ceil(value * n + reach)) + 1)
    return [k for k in near if _rounds_to(k / n, value, decimals)]


def matching_confusions(n_malignant: int, n_benign: int, published: dict[str, float], decimals: int) -> list[Confusion]:
    """Return every confusion matrix of this size whose metrics round to all published values."""
    cells = product(range(n_malignant + 1), range(n_benign + 1))
    candidates = (Confusion(tp, n_malignant - tp, tn, n_benign - tn) for tp, tn in cells)
    return [
        c for c in candidates if all(_rounds_to(getattr(c, name), value, decimals) for name, value in published.items())
    ]


def _rounds_to(value: float, published: float, decimals: int) -> bool:
    # Half-up and half-even both count: nobody knows which one a publication used.
    return abs(value - published) <= 0.5 * 10**-decimals + 1e-12


def mcnemar_power(n: int, gain: float, discordant_share: float) -> float:
    """Return the chance that McNemar's exact test sees an accuracy gain between two classifiers on ``n`` breasts.

    ``discordant_share`` is the expected share of breasts on which exactly one of the two is right; it cannot be less
    than ``gain``. Exact: summed over the number of discordant breasts and their division.
    """
    if not 0 <= gain <= discordant_share <= 1:
        raise ValueError(f"gain must lie in [0, discordant_share={discordant_share}], got {gain}")
    favoured = 0.5 * (1 + gain / discordant_share)
    power = 0.0
    for discordant in range(1, n + 1):
        wins = np.arange(discordant + 1)
        p_values = np.minimum(1, 2 * stats.binom.cdf(np.minimum(wins, discordant - wins), discordant, 0.5))
        rejected = stats.binom.pmf(wins, discordant, favoured)[p_values < 1 - LEVEL].sum()
        power += stats.binom.pmf(discordant, n, discordant_share) * rejected
    return float(power)
