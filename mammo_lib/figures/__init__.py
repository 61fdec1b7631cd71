"""The book's figures: plain frames and arrays in, a matplotlib figure out, one visual language.

Titles say the finding, computed from the numbers drawn; axes carry units; n and intervals are shown. Colours are
the Okabe-Ito set, told apart by readers with colour-vision deficiency. Mammograms are never tinted.
"""

from .cohort import cohort_composition, crop_sizes, funnel, malignant_shares, mammogram_grid
from .comparisons import decision_curves, difference_forest, subgroup_forest
from .gates import (
    Case,
    correlation_forest,
    gate_cases,
    gate_heatmap,
    gate_trajectories,
    gate_views,
    intervention_forest,
)
from .maps import gate_view, lesion_shares, map_cases, map_panels, prediction_sheet
from .paper import denominators, published_intervals
from .scores import auc_intervals, confusion_matrix, operating_points, reliability, roc_curve
from .style import LABEL_NAMES, use_style
from .theory import cost_curves, gate_opening, kernel_curves
from .training import learning_curves, seed_bands

__all__ = [
    "LABEL_NAMES",
    "Case",
    "auc_intervals",
    "cohort_composition",
    "confusion_matrix",
    "correlation_forest",
    "cost_curves",
    "crop_sizes",
    "decision_curves",
    "denominators",
    "difference_forest",
    "funnel",
    "gate_cases",
    "gate_heatmap",
    "gate_opening",
    "gate_trajectories",
    "gate_view",
    "gate_views",
    "intervention_forest",
    "kernel_curves",
    "learning_curves",
    "lesion_shares",
    "malignant_shares",
    "mammogram_grid",
    "map_cases",
    "map_panels",
    "operating_points",
    "prediction_sheet",
    "published_intervals",
    "reliability",
    "roc_curve",
    "seed_bands",
    "subgroup_forest",
    "use_style",
]
