"""A cache on disk for the output of frozen encoder parts: written once, read by every run that shares it.

There is one file per view, ``<key>.<part>.npy``, next to the prepared pixels: half-precision maps (variants, dim, rows,
columns). ``key`` identifies the pixels and their size, ``part`` the frozen weights, the augmentation and the number of
variants. Variant 0 is the unchanged image, variant 1 the image upside down; the others are augmented.
:mod:`mammo_lib.training.frozen` writes them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ..files import read_array

CLEAN, TURNED, N_PLAIN = 0, 1, 2


@dataclass(frozen=True)
class FrozenMaps:
    """The cache of one frozen part: ``folder`` and ``part`` name its files, ``shape`` is (dim, rows, columns)."""

    folder: Path
    part: str
    shape: tuple[int, int, int]
    variants: int

    def path(self, key: str) -> Path:
        """Return the file of one prepared view."""
        return self.folder / f"{key}.{self.part}.npy"

    def draw(self, rng: np.random.Generator) -> int:
        """Return one of the augmented variants."""
        return N_PLAIN + int(rng.integers(self.variants))

    def read(self, key: str | None, variant: int) -> torch.Tensor:
        """Return one variant of a view, float32 (dim, rows, columns); zeros for a view that a breast lacks (None).

        Raises
        ------
        InputError
            The file is missing or damaged.
        """
        if key is None:
            return torch.zeros(self.shape)
        maps = read_array(self.path(key), "delete the file and start the run again", variant)
        return torch.from_numpy(maps.astype(np.float32))
