"""Groups of breasts, scored out of fold: discrimination, decisions and calibration of each, over resampled patients.

A draw is a row of weights: how often each breast counts. The first row is the data as observed. Estimates are means
over repeats. Breasts are compared only within their fold, as in :mod:`mammo_lib.statistics.out_of_fold`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from scipy import stats

from .choices import scaled_probability, youden_threshold
from .comparisons import normal_p
from .intervals import LEVEL, N_RESAMPLES, patient_weights, percentiles
from .metrics import weighted_auc

POWER = 0.8
FEW = 10  # breasts of a class below which no AUC is given


def patient_draws(frame: pd.DataFrame, *, seed: int = 0, n: int = N_RESAMPLES) -> np.ndarray:
    """Return draws of patients, (1 + n, breasts): first the breasts as observed."""
    drawn = patient_weights(frame["patient_id"].to_numpy(), n, seed)
    return np.vstack([np.ones(len(frame)), drawn])


def mean_auc(frames: Sequence[pd.DataFrame], weights: np.ndarray) -> np.ndarray:
    """Return the weighted AUC, (draws,): mean over frames, and over folds in proportion to their weight."""
    values = []
    for frame in frames:
        label, logit = frame["label"].to_numpy(), frame["logit"].to_numpy(float)
        fold = frame["fold"].to_numpy() if "fold" in frame else np.zeros(len(frame))
        parts = [(weights[:, fold == f], label[fold == f], logit[fold == f]) for f in np.unique(fold)]
        aucs = np.array([weighted_auc(y, score, own) for own, y, score in parts])
        shares = np.array([own.sum(axis=1) for own, _, _ in parts])
        shares = np.where(np.isnan(aucs), 0.0, shares)  # a fold with only one class in a draw
        total = shares.sum(axis=0)
        values.append((np.nan_to_num(aucs) * shares).sum(axis=0) / np.where(total > 0, total, np.nan))
    return np.mean(values, axis=0)


def with_interval(name: str, drawn: np.ndarray) -> dict[str, float]:
    """Return the three columns of an estimate from its value, the first, and its resamples, the rest."""
    low, high = percentiles(drawn[1:])
    return {name: float(drawn[0]), f"{name}_low": low, f"{name}_high": high}


def group_scores(repeats: Sequence[pd.DataFrame], groups: Mapping[str, np.ndarray]) -> pd.DataFrame:
    """Describe each group of breasts, a mask (breasts,) by name, with intervals over patients.

    Columns: ``name n malignant`` and, each with ``_low`` and ``_high``, ``auc``, ``sensitivity`` and ``specificity`` at
    the threshold of a breast's fold, and ``calibration``: the mean predicted probability after temperature scaling
    minus the share of malignant breasts. AUC is NaN for a group with fewer than ``FEW`` breasts
    of a class; sensitivity and specificity are NaN if their own class has fewer than ``FEW``.
    """
    draws, rows = patient_draws(repeats[0]), []
    for name, inside in groups.items():
        frames, own = [frame[inside].reset_index(drop=True) for frame in repeats], draws[:, inside]
        label = frames[0]["label"].to_numpy()
        decided = [(frame["probability"] >= frame["threshold"]).to_numpy() for frame in frames]
        excess = [scaled_probability(frame) - label for frame in frames]
        rows.append(
            {"name": name, "n": len(label), "malignant": int(label.sum())}
            | with_interval("auc", mean_auc(frames, own) if _is_large(label) else np.full(len(own), np.nan))
            | with_interval("sensitivity", _share_of(own, label == 1, decided))
            | with_interval("specificity", _share_of(own, label == 0, [~one for one in decided]))
            | with_interval("calibration", _share(own, excess))
        )
    return pd.DataFrame(rows)


def group_difference(repeats: Sequence[pd.DataFrame], one: np.ndarray, other: np.ndarray) -> dict[str, float]:
    """Return the AUC of the breasts ``one`` minus that of the breasts ``other``, unpaired.

    Keys: ``difference difference_low difference_high p detectable``; ``detectable`` is the smallest difference that
    these numbers would find with 80 % power. All are NaN if a group has fewer than ``FEW`` breasts of a class.
    """
    draws, label = patient_draws(repeats[0]), repeats[0]["label"].to_numpy()
    if not (_is_large(label[one]) and _is_large(label[other])):
        return dict.fromkeys(("difference", "difference_low", "difference_high", "p", "detectable"), np.nan)
    parts = [mean_auc([frame[inside] for frame in repeats], draws[:, inside]) for inside in (one, other)]
    gap = parts[0] - parts[1]
    spread = float(np.nanstd(gap[1:], ddof=1))
    needed = float(stats.norm.ppf(0.5 + LEVEL / 2) + stats.norm.ppf(POWER)) * spread
    return with_interval("difference", gap) | {"p": normal_p(gap[0], spread), "detectable": needed}


def thresholds_by_group(frame: pd.DataFrame, group: pd.Series) -> np.ndarray:
    """Return a threshold per breast, (breasts,): its group's Youden point on the other folds."""
    found = np.empty(len(frame))
    for (fold, name), rows in frame.groupby(["fold", group.to_numpy()]).groups.items():
        others = frame[(frame["fold"] != fold) & (group == name).to_numpy()]
        found[rows] = youden_threshold(others["label"].to_numpy(), others["probability"].to_numpy())
    return found


def youden_gain(repeats: Sequence[pd.DataFrame], group: pd.Series) -> dict[str, float]:
    """Return what a threshold per group adds to sensitivity + specificity - 1, with an interval over patients.

    Keys: ``common own gain gain_low gain_high``.
    """
    draws, label = patient_draws(repeats[0]), repeats[0]["label"].to_numpy()

    def youden(thresholds: Sequence[np.ndarray]) -> np.ndarray:
        decided = [(f["probability"] >= t).to_numpy() for f, t in zip(repeats, thresholds, strict=True)]
        return _share(draws * (label == 1), decided) + _share(draws * (label == 0), [~one for one in decided]) - 1

    common = youden([frame["threshold"] for frame in repeats])
    own = youden([thresholds_by_group(frame, group) for frame in repeats])
    return {"common": float(common[0]), "own": float(own[0])} | with_interval("gain", own - common)


def _share_of(weights: np.ndarray, of: np.ndarray, values: Sequence[np.ndarray]) -> np.ndarray:
    """Return the weighted mean over the breasts ``of`` one class; NaN if they are too few."""
    return _share(weights * of, values) if of.sum() >= FEW else np.full(len(weights), np.nan)


def _is_large(label: np.ndarray) -> bool:
    return FEW <= label.sum() <= len(label) - FEW


def _share(weights: np.ndarray, values: Sequence[np.ndarray]) -> np.ndarray:
    """Return the weighted mean, (draws,), of values (breasts,), averaged over repeats; NaN without weight."""
    total = weights.sum(axis=1)
    total = np.where(total > 0, total, np.nan)
    return np.mean([weights @ np.asarray(one, dtype=float) / total for one in values], axis=0)
