"""CBIS-DDSM: tables, layouts of images, known defects, audit and download."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "tables": ["find_tables", "read_tables", "table_fingerprint"],
        "sources": ["open_source"],
        "audit": ["audit_copy"],
        "folds": ["write_folds"],
    },
)
