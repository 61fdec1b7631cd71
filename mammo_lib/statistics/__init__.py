"""Numpy in, numbers with intervals out: discrimination, decisions, calibration, comparisons, the paper's arithmetic.

Everywhere ``label`` is 0 (benign) or 1 (malignant), ``probability`` the predicted probability of
malignancy, and a decision is malignant when ``probability >= threshold``. Intervals are two-sided
at ``LEVEL``. Breasts of one patient are not independent, so bootstrap samples are drawn over patients.
"""

from .arithmetic import matching_confusions, matching_denominators, mcnemar_power, numerators
from .choices import fit_temperature, youden_threshold
from .comparisons import delong_interval, delong_test, mcnemar, paired_differences
from .evaluation import evaluate_predictions
from .intervals import (
    LEVEL,
    N_RESAMPLES,
    Interval,
    Metric,
    bootstrap_interval,
    hanley_mcneil_interval,
    patient_weights,
    wilson_interval,
)
from .metrics import (
    SPECIFICITIES,
    Confusion,
    auc,
    auc_bootstrap_interval,
    average_precision,
    brier,
    calibration_error,
    confusion,
    reliability,
    sensitivity_at,
)

__all__ = [
    "LEVEL",
    "N_RESAMPLES",
    "SPECIFICITIES",
    "Confusion",
    "Interval",
    "Metric",
    "auc",
    "auc_bootstrap_interval",
    "average_precision",
    "bootstrap_interval",
    "brier",
    "calibration_error",
    "confusion",
    "delong_interval",
    "delong_test",
    "evaluate_predictions",
    "fit_temperature",
    "hanley_mcneil_interval",
    "matching_confusions",
    "matching_denominators",
    "mcnemar",
    "mcnemar_power",
    "numerators",
    "paired_differences",
    "patient_weights",
    "reliability",
    "sensitivity_at",
    "wilson_interval",
    "youden_threshold",
]
