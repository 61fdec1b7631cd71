"""The book's figures: functions that draw data frames and arrays in one visual style.

Titles state the finding, computed from the numbers drawn. Axes have units, and n and intervals are shown. Colours are
the Okabe-Ito set, which readers with colour-vision deficiency can distinguish. Mammograms are never tinted.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submod_attrs={
    "breasts": ["cohort_composition", "crop_sizes", "funnel", "malignant_shares", "mammogram_grid"],
    "costs": ["cost_growth", "cost_parts"],
    "curves": ["auc_by_breasts", "auc_by_side", "seed_bands", "training_losses"],
    "findings": ["answer_forest"],
    "forests": ["decision_curves", "difference_forest", "equivalence_forest", "subgroup_forest"],
    "listing": ["source_listing"],
    "overlays": ["gate_view", "lesion_shares", "map_cases", "prediction_sheet"],
    "paper": ["denominators", "published_forest"],
    "routing": [
        "correlation_forest", "gate_heatmap", "gate_trajectories", "gate_views",
        "intervention_forest",
    ],
    "scores": ["auc_intervals", "confusion_matrix", "reliability_diagram", "roc_curve"],
    "sides": ["drawn_divisions", "imbalances", "side_by_side"],
    "slopes": ["score_strips", "slope_chart"],
    "style": ["LABEL_NAMES", "use_style"],
    "theory": [
        "cost_curves", "gate_learning", "gate_opening", "kernel_curves", "memory_maps", "precision_curves",
        "routing_plans", "scan_chunks", "step_responses",
    ],
})  # fmt: skip
