"""From a copy of CBIS-DDSM, as people really have it, to batches. Nothing here knows a model."""

from .cohort import assign_folds, build_cohort, cohort_funnel, pooled_leak
from .images import read_image
from .phantom import write_phantom
from .sources import open_source
from .tables import count_repairs, read_tables, table_fingerprint

__all__ = [
    "assign_folds", "build_cohort", "cohort_funnel", "count_repairs", "open_source", "pooled_leak", "read_image",
    "read_tables", "table_fingerprint", "write_phantom",
]  # fmt: skip
