"""The highest rates of this processor: multiply-adds in a matrix product, bytes in a copy. On torch's threads."""

from __future__ import annotations

import torch
from timing import paired_medians

PRODUCT, COPY = 2048, 1 << 26  # side of the matrices; float32 values of an array that no cache holds
TRIES = 7


def multiply_adds_per_second() -> float:
    """Return the rate of a large float32 matrix product: nothing on this processor multiplies and adds faster."""
    a, b = torch.rand(PRODUCT, PRODUCT), torch.rand(PRODUCT, PRODUCT)
    return PRODUCT**3 / paired_medians({"product": lambda: torch.mm(a, b)}, TRIES)["product"]


def bytes_per_second() -> float:
    """Return the rate at which a large array is read and written."""
    source = torch.rand(COPY)
    target = torch.empty_like(source)
    return 2 * source.nbytes / paired_medians({"copy": lambda: target.copy_(source)}, TRIES)["copy"]
