"""Several seeds of one experiment: their mean, their spread, their ensemble, and intervals over patients and seeds.

An experiment is a list of prediction frames, one per seed, each with ``sample_id patient_id split label logit
probability threshold temperature`` and the same breasts.

An interval *over patients and seeds* resamples both: patients, because others could have been sampled; seeds, because
another seed gives another network. With one seed, it is an interval over patients only. With S seeds, the bootstrap
counts only (S - 1) / S of the variance between seeds: two thirds with three seeds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.special import expit

from ..errors import InputError
from .choices import fit_temperature, youden_threshold
from .intervals import N_RESAMPLES, Interval, checked, ones, patient_weights, percentiles
from .metrics import DECISIONS, SCORES, known, weighted_at_threshold


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
        The frames do not have the same breasts.
    """
    check_same_breasts(frames)
    values = _per_seed(frames, name)[:, 0]
    sd = float(np.std(values, ddof=1)) if len(values) > 1 else float("nan")
    bounds = percentiles(_draw(frames, name, seed=seed))
    return SeedEstimate(float(values.mean()), *bounds, denominator(frames[0], name), len(frames), sd)


def difference_over_seeds(
    one: Sequence[pd.DataFrame],
    other: Sequence[pd.DataFrame],
    name: str,
    *,
    seed: int = 0,
    same_networks: bool = False,
) -> Interval:
    """Return mean(one) - mean(other) on the same breasts, with its interval over patients and seeds.

    Both experiments are scored on the same resampled patients; their seeds are drawn independently, because equal
    seeds of different networks are unrelated. With ``same_networks`` the frames at one place come from one network,
    which saw two inputs, so that seeds are drawn in pairs.
    """
    for frames in (one, other, [*one, *other]):
        check_same_breasts(frames)
    value = _per_seed(one, name).mean() - _per_seed(other, name).mean()
    drawn = _draw(one, name, seed=seed) - _draw(other, name, seed=seed, stream=0 if same_networks else 1)
    return Interval(float(value), *percentiles(drawn), denominator(one[0], name))


def shift_over_seeds(
    outside: Sequence[pd.DataFrame], inside: Sequence[pd.DataFrame], name: str, *, seed: int = 0
) -> Interval:
    """Return mean(outside) - mean(inside) of two independent sets of breasts, with an interval over patients and seeds.

    Patients and seeds are drawn independently, although the seeds of both sides may be the same networks (protocol 8).
    The n is that of ``outside``.
    """
    for frames in (outside, inside):
        check_same_breasts(frames)
    value = _per_seed(outside, name).mean() - _per_seed(inside, name).mean()
    drawn = _draw(outside, name, seed=seed) - _draw(inside, name, seed=seed + 1, stream=1)
    return Interval(float(value), *percentiles(drawn), denominator(outside[0], name))


def denominator(frame: pd.DataFrame, name: str) -> int:
    """Return the denominator of a metric: the number of malignant, of benign or of all breasts."""
    n_malignant = int((frame["label"] == 1).sum())
    if name.startswith("sensitivity"):
        return n_malignant
    return len(frame) - n_malignant if name == "specificity" else len(frame)


def ensemble(frames: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Return the predictions of the mean logit over seeds for every split, in the form of a single network's.

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
    """Raise an InputError unless every frame scores the same samples with the same labels, in the same order."""
    if not len(frames):
        raise InputError("predictions: no run is given; give at least one frame")
    if frames[0].empty:
        raise InputError("predictions: no row to evaluate; check the split's name")
    keys = ["sample_id", "split", "label"]
    first = frames[0][keys].reset_index(drop=True)
    for frame in frames:
        checked(frame["label"], frame[["logit", "probability"]].to_numpy().T)
        if not first.equals(frame[keys].reset_index(drop=True)):
            raise InputError(
                f"predictions: {len(first)} and {len(frame)} rows that are not the same breasts in the same order; "
                "compare runs of one cohort and one fold"
            )


def _per_seed(frames: Sequence[pd.DataFrame], name: str, weights: np.ndarray | None = None) -> np.ndarray:
    """Return the metric of every seed on every resample, (seeds, resamples); without weights, on all breasts once."""
    values = []
    for frame in frames:
        label, probability = frame["label"].to_numpy(), frame["probability"].to_numpy()
        is_decision = known(name) in DECISIONS
        metric = weighted_at_threshold(name, frame["threshold"].iloc[0]) if is_decision else SCORES[name]
        values.append(metric(label, probability, ones(label) if weights is None else weights))
    if weights is None and np.isnan(values).any():
        checked(label, probability, needs_both=True)
    return np.array(values)


def _draw(frames: Sequence[pd.DataFrame], name: str, *, seed: int, stream: int = 0) -> np.ndarray:
    """Return the mean over drawn seeds on drawn patients, (resamples,); ``stream`` draws other seeds, same patients."""
    values = _per_seed(frames, name, patient_weights(frames[0]["patient_id"].to_numpy(), N_RESAMPLES, seed))
    generator = np.random.default_rng([seed, 1, stream])
    share = np.full(len(frames), 1 / len(frames))
    drawn = generator.multinomial(len(frames), share, size=N_RESAMPLES).T / len(frames)
    return (values * drawn).sum(axis=0)
