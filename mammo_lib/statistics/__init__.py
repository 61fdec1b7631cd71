"""Statistics with intervals, on numpy arrays: discrimination, decisions, calibration, comparisons, published numbers.

Everywhere ``label`` is 0 (benign) or 1 (malignant), ``probability`` the predicted probability of
malignancy, and a decision is malignant when ``probability >= threshold``. Intervals are two-sided
at ``LEVEL``. Breasts of one patient are not independent, so bootstrap samples are drawn over patients.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submod_attrs={
    "arithmetic": ["matching_confusions", "matching_denominators", "mcnemar_breasts", "mcnemar_power", "numerators"],
    "choices": ["fit_temperature", "scaled_probability", "youden_threshold"],
    "comparisons": [
        "compare_predictions", "delong_interval", "delong_test", "holm", "mcnemar", "paired_differences",
        "unpaired_difference",
    ],
    "decisions": ["decision_curve"],
    "evaluation": ["evaluate_calibration", "evaluate_predictions"],
    "fold_groups": ["group_difference", "group_scores", "mean_auc", "patient_draws", "youden_gain"],
    "intervals": ["LEVEL", "Interval", "hanley_mcneil_interval", "patient_weights", "wilson_interval"],
    "out_of_fold": [
        "EQUIVALENCE", "OUT_OF_FOLD", "FoldDifference", "compare_folds", "evaluate_out_of_fold", "join_folds",
        "stratified_auc",
    ],
    "metrics": ["Confusion", "auc", "auc_bootstrap_interval", "auc_of", "confusion", "reliability"],
    "seeds": ["SeedEstimate", "difference_over_seeds", "ensemble", "over_seeds", "shift_over_seeds"],
    "subgroups": ["subgroups"],
})  # fmt: skip
