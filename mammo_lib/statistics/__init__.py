"""Numpy in, numbers with intervals out: discrimination, decisions, calibration, comparisons, the paper's arithmetic.

Everywhere ``label`` is 0 (benign) or 1 (malignant), ``probability`` the predicted probability of
malignancy, and a decision is malignant when ``probability >= threshold``. Intervals are two-sided
at ``LEVEL``. Breasts of one patient are not independent, so bootstrap samples are drawn over patients.
"""

from .arithmetic import (
    matching_confusions,
    matching_denominators,
    mcnemar_breasts,
    mcnemar_power,
    numerators,
)
from .choices import fit_temperature, scaled_probability, youden_threshold
from .comparisons import compare_predictions, decide, delong_interval, delong_test, mcnemar, paired_differences
from .decisions import decision_curve
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
    partial_auc,
    reliability,
    sensitivity_at,
)
from .seeds import SeedEstimate, difference_over_seeds, ensemble, over_seeds
from .subgroups import subgroups

__all__ = [
    "LEVEL",
    "N_RESAMPLES",
    "SPECIFICITIES",
    "Confusion",
    "Interval",
    "Metric",
    "SeedEstimate",
    "auc",
    "auc_bootstrap_interval",
    "average_precision",
    "bootstrap_interval",
    "brier",
    "calibration_error",
    "compare_predictions",
    "confusion",
    "decide",
    "decision_curve",
    "delong_interval",
    "delong_test",
    "difference_over_seeds",
    "ensemble",
    "evaluate_predictions",
    "fit_temperature",
    "hanley_mcneil_interval",
    "matching_confusions",
    "matching_denominators",
    "mcnemar",
    "mcnemar_breasts",
    "mcnemar_power",
    "numerators",
    "over_seeds",
    "paired_differences",
    "partial_auc",
    "patient_weights",
    "reliability",
    "scaled_probability",
    "sensitivity_at",
    "subgroups",
    "wilson_interval",
    "youden_threshold",
]
