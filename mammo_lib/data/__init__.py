"""From a copy of CBIS-DDSM, as people really have it, to batches. Nothing here knows a model."""

from .cohort import assign_folds, build_cohort, cohort_funnel, read_tables, table_fingerprint
from .images import read_image
from .phantom import write_phantom
from .sources import open_source

__all__ = [
    "assign_folds", "build_cohort", "cohort_funnel", "open_source", "read_image", "read_tables", "table_fingerprint",
    "write_phantom",
]  # fmt: skip
