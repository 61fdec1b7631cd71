"""The highest rates of this processor: multiply-adds in a matrix product, bytes in a copy. On torch's threads."""

from __future__ import annotations

from collections.abc import Callable

import torch
from timing import paired_medians

PRODUCT, COPY = 2048, 1 << 26  # side of the matrices; float32 values of an array that no cache holds
TRIES = 7


def matrix_product(dtype: torch.dtype) -> Callable:
    """Return a large matrix product, ``PRODUCT`` cubed multiply-adds, as a call without arguments.

    Nothing multiplies and adds faster in its precision.
    """
    a, b = torch.rand(PRODUCT, PRODUCT).to(dtype), torch.rand(PRODUCT, PRODUCT).to(dtype)
    return lambda: torch.mm(a, b)


def bytes_per_second() -> float:
    """Return the rate at which a large array is read and written."""
    source = torch.rand(COPY)
    target = torch.empty_like(source)
    return 2 * source.nbytes / paired_medians({"copy": lambda: target.copy_(source)}, TRIES)["copy"]
