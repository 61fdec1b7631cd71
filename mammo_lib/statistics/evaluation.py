"""Every metric of a split, from its predictions alone."""

from __future__ import annotations

import math
from dataclasses import asdict

import numpy as np
import pandas as pd

from ..errors import InputError
from .choices import scaled_probability
from .comparisons import delong_interval
from .intervals import N_RESAMPLES, Interval, checked, patient_weights, unbounded, weighted_interval, wilson_interval
from .metrics import SCORES, Confusion, confusion, weighted_at_threshold, weighted_calibration_in_the_large


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
        ``{name: {value, low, high, n}}``; an undefined value is None and has a ``reason``.
        Accuracy, sensitivity and specificity have Wilson intervals, ``auc`` DeLong's, all others patient-cluster
        bootstrap intervals.

    Raises
    ------
    InputError
        There are no rows, a label is not 0 or 1, a probability is outside [0, 1], or there is more than one threshold.
    """
    _check_predictions(frame)
    label, probability = frame["label"].to_numpy(), frame["probability"].to_numpy()
    threshold = float(frame["threshold"].iloc[0])
    counts = confusion(label, probability, threshold)
    is_mixed = 0 < label.sum() < len(label)
    exact = {
        "auc": delong_interval(label, probability) if is_mixed else unbounded(math.nan, counts.n),
        "accuracy": wilson_interval(counts.tp + counts.tn, counts.n),
        "sensitivity": wilson_interval(counts.tp, counts.tp + counts.fn),
        "specificity": wilson_interval(counts.tn, counts.tn + counts.fp),
    }
    resampled = {"auc_bootstrap": SCORES["auc"]}
    resampled |= {name: SCORES[name] for name in ("partial_auc", "auprc", "brier", "ece")}
    resampled |= {name: weighted_at_threshold(name, threshold) for name in ("f1", "mcc", "ppv")}
    resampled |= {name: metric for name, metric in SCORES.items() if name.startswith("sensitivity_at_")}
    weights = patient_weights(frame["patient_id"].to_numpy(), N_RESAMPLES, seed=0)
    results = exact | {name: weighted_interval(f, label, probability, weights) for name, f in resampled.items()}
    if "temperature" in frame:
        scaled = scaled_probability(frame)
        for name in ("brier", "ece"):
            results[f"{name}_scaled"] = weighted_interval(SCORES[name], label, scaled, weights)
    reason = _why_undefined(counts)
    return {name: _as_json(interval, reason) for name, interval in results.items()}


def evaluate_calibration(frame: pd.DataFrame) -> dict[str, dict]:
    """Return calibration in the large, before and after temperature scaling, in the form of the other metrics.

    It is the mean probability minus the malignant share, with an interval over resampled patients.
    """
    _check_predictions(frame)
    weights = patient_weights(frame["patient_id"].to_numpy(), N_RESAMPLES, seed=0)
    scores = {"calibration": frame["probability"].to_numpy(), "calibration_scaled": scaled_probability(frame)}
    label, metric = frame["label"].to_numpy(), weighted_calibration_in_the_large
    return {name: _as_json(weighted_interval(metric, label, score, weights), "") for name, score in scores.items()}


def _check_predictions(frame: pd.DataFrame) -> None:
    if frame.empty:
        raise InputError("predictions: no row to evaluate; check the split's name")
    probability, thresholds = frame["probability"], frame["threshold"].unique()
    if not (outside := probability[~probability.between(0, 1)]).empty:
        raise InputError(f"predictions: probabilities must lie in [0, 1], got {outside.iloc[0]} in {len(outside)} rows")
    checked(frame["label"], probability)
    if len(thresholds) != 1 or np.isnan(thresholds[0]):
        raise InputError(f"predictions: one split has one threshold, got {thresholds.tolist()}")


def _why_undefined(counts: Confusion) -> str:
    absent = {"malignant": counts.tp + counts.fn, "benign": counts.tn + counts.fp}
    missing = [name for name, n in absent.items() if n == 0]
    return f"no {missing[0]} breast" if missing else "every breast got the same decision"


def _as_json(interval: Interval, reason: str) -> dict:
    record = {key: None if math.isnan(value) else value for key, value in asdict(interval).items()}
    return record | ({"reason": reason} if record["value"] is None else {})
