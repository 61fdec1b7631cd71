"""State-space operators."""

from .scan import selective_scan

__all__ = ["selective_scan"]
