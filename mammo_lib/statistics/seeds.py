"""Several seeds of one experiment: their mean, their spread, their ensemble, and intervals over patients and seeds.

An experiment is a list of prediction frames, one per seed, each with ``sample_id patient_id split label logit
probability threshold temperature`` and the same breasts.

An interval *over patients and seeds* resamples both: patients, because other patients could have come; seeds, because
another seed would have given another network. With one seed it is an interval over patients alone. Of S seeds a
bootstrap counts only (S - 1) / S of the variance between them: with three, two thirds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.special import expit

from ..errors import InputError
from .choices import fit_temperature, youden_threshold
from .intervals import LEVEL, N_RESAMPLES, Interval, Metric, ones, patient_weights
from .metrics import (
    SPECIFICITIES,
    weighted_at_threshold,
    weighted_auc,
    weighted_average_precision,
    weighted_brier,
    weighted_calibration_error,
    weighted_partial_auc,
    weighted_sensitivity_at,
)

DECISIONS = ("accuracy", "sensitivity", "specificity", "f1", "mcc", "ppv")
SCORES = {
    "auc": weighted_auc,
    "partial_auc": weighted_partial_auc,
    "auprc": weighted_average_precision,
    "brier": weighted_brier,
    "ece": weighted_calibration_error,
    **{f"sensitivity_at_{round(100 * s)}": weighted_sensitivity_at(s) for s in SPECIFICITIES},
}


@dataclass(frozen=True)
class SeedEstimate:
    """A mean over seeds, the standard deviation between them, and the interval over patients and seeds."""

    value: float
    low: float
    high: float
    n: int  # breasts that the metric is a share of: the malignant ones for sensitivity, the benign for specificity
    seeds: int
    sd: float

    @property
    def interval(self) -> Interval:
        """The estimate without the spread between its seeds."""
        return Interval(self.value, self.low, self.high, self.n)

    def __str__(self) -> str:
        return f"{self.interval}"


def over_seeds(frames: Sequence[pd.DataFrame], name: str, *, seed: int = 0) -> SeedEstimate:
    """Return a metric's mean over the seeds of one split: an entry of ``SCORES`` or of ``DECISIONS``.

    Raises
    ------
    InputError
        The frames do not hold the same breasts.
    """
    _check_metric(name)
    check_same_breasts(frames)
    values = _per_seed(frames, name, _ones_of(frames))[:, 0]
    drawn = _draw(frames, name, seed=seed)
    sd = float(np.std(values, ddof=1)) if len(values) > 1 else float("nan")
    return SeedEstimate(
        float(values.mean()), *_quantiles(drawn), denominator(frames[0]["label"], name), len(frames), sd
    )


def difference_over_seeds(
    one: Sequence[pd.DataFrame], other: Sequence[pd.DataFrame], name: str, *, seed: int = 0
) -> Interval:
    """Return mean(one) - mean(other) on the same breasts, with its interval over patients and seeds.

    Both experiments are scored on the same resampled patients; their seeds are drawn independently, since two networks
    of different shape have nothing in common but a number.
    """
    _check_metric(name)
    for frames in (one, other, [*one, *other]):
        check_same_breasts(frames)
    value = _per_seed(one, name, _ones_of(one)).mean() - _per_seed(other, name, _ones_of(other)).mean()
    drawn = _draw(one, name, seed=seed) - _draw(other, name, seed=seed, stream=1)
    return Interval(float(value), *_quantiles(drawn), len(one[0]))


def denominator(label: pd.Series, name: str) -> int:
    """Return how many breasts a metric is a share of."""
    if name.startswith("sensitivity"):
        return int((label == 1).sum())
    return int((label == 0).sum()) if name == "specificity" else len(label)


def _check_metric(name: str) -> None:
    if name not in DECISIONS and name not in SCORES:
        raise InputError(f"unknown metric {name!r}: choose one of {', '.join((*SCORES, *DECISIONS))}")


def ensemble(frames: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Return the predictions of the mean logit over seeds, every split, as one network's.

    Threshold and temperature are chosen on the ensemble's own validation rows.
    """
    check_same_breasts(frames)
    logit = np.mean([frame["logit"].to_numpy() for frame in frames], axis=0)
    merged = frames[0].reset_index(drop=True).assign(logit=logit, probability=expit(logit))
    validation = merged[merged["split"] == "validation"]
    label, scores = validation["label"].to_numpy(), validation["logit"].to_numpy()
    threshold = youden_threshold(label, validation["probability"].to_numpy())
    return merged.assign(threshold=threshold, temperature=fit_temperature(label, scores))


def check_same_breasts(frames: Sequence[pd.DataFrame]) -> None:
    """Raise an InputError unless every frame holds the same samples with the same labels, in the same order."""
    if not len(frames):
        raise InputError("predictions: no run is given; give at least one frame")
    if frames[0].empty:
        raise InputError("predictions: no row to evaluate; check the split's name")
    keys = ["sample_id", "split", "label"]
    first = frames[0][keys].reset_index(drop=True)
    for frame in frames[1:]:
        if not first.equals(frame[keys].reset_index(drop=True)):
            raise InputError(
                f"predictions: {len(first)} and {len(frame)} rows that are not the same breasts in the same order; "
                "compare runs of one cohort and one fold"
            )


def _metric(name: str, threshold: float) -> Metric:
    return weighted_at_threshold(name, threshold) if name in DECISIONS else SCORES[name]


def _per_seed(frames: Sequence[pd.DataFrame], name: str, weights: np.ndarray) -> np.ndarray:
    """Return the metric of every seed on every resample, (seeds, resamples)."""
    return np.array(
        [
            _metric(name, frame["threshold"].iloc[0])(
                frame["label"].to_numpy(), frame["probability"].to_numpy(), weights
            )
            for frame in frames
        ]
    )


def _draw(frames: Sequence[pd.DataFrame], name: str, *, seed: int, stream: int = 0) -> np.ndarray:
    """Return the mean over drawn seeds on drawn patients, (resamples,); ``stream`` draws other seeds, same patients."""
    values = _per_seed(frames, name, patient_weights(frames[0]["patient_id"].to_numpy(), N_RESAMPLES, seed))
    generator = np.random.default_rng([seed, 1, stream])
    share = np.full(len(frames), 1 / len(frames))
    drawn = generator.multinomial(len(frames), share, size=N_RESAMPLES).T / len(frames)
    return (values * drawn).sum(axis=0)


def _quantiles(drawn: np.ndarray) -> tuple[float, float]:
    drawn, tail = drawn[~np.isnan(drawn)], (1 - LEVEL) / 2
    if not len(drawn):
        return float("nan"), float("nan")
    low, high = np.quantile(drawn, [tail, 1 - tail])
    return float(low), float(high)


def _ones_of(frames: Sequence[pd.DataFrame]) -> np.ndarray:
    return ones(frames[0]["label"].to_numpy())
