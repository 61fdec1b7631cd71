"""From images and tables to batches. These modules do not depend on any model."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "cbis_ddsm": ["open_source", "read_tables", "table_fingerprint"],
        "cohort": ["assign_folds", "build_cohort", "build_cohorts", "cohort_funnel", "pooled_leak"],
        "collection": ["Collection"],
        "data_sets": ["open_collection", "register_data_set"],
        "images": ["read_image"],
        "phantom": ["write_phantom"],
    },
)
