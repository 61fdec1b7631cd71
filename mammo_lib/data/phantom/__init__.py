"""The phantom: a synthetic copy of CBIS-DDSM, with the original's defects planted in known numbers."""

from .exams import VERSION, write_phantom

__all__ = ["VERSION", "write_phantom"]
