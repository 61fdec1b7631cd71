"""Breasts to look at: the first of each label whose images are available."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from .views import Box, film_box, read_view


@dataclass(frozen=True)
class Example:
    """One view of a breast: film and crop, float32 (height, width), and the crop's box in pixels of the film."""

    breast_id: str
    label: int
    film: np.ndarray
    crop: np.ndarray
    box: Box | None  # None if the crop is a separate file
    pixel_mm: float | None = None  # side of a pixel of film and crop, mm; None where it is not known


def examples(
    cohort: pd.DataFrame, located: pd.DataFrame, view: str = "MLO", per_label: int = 2,
    pixel_mm: Callable[..., float | None] = lambda row: None,
) -> list[Example]:  # fmt: skip
    """Return the first ``per_label`` breasts of each label whose film and crop of a view were found.

    ``pixel_mm`` is :meth:`mammo_lib.data.Collection.pixel_mm`.
    """
    found = located.query("view == @view and status == 'found'").set_index(["sample_id", "stream"])
    complete = found.groupby(level="sample_id").size().eq(2)
    chosen = cohort[cohort["sample_id"].isin(complete.index[complete])].groupby("label").head(per_label)
    return [
        _read(row, found.loc[(row.sample_id, "whole")], found.loc[(row.sample_id, "crop")], pixel_mm)
        for row in chosen.itertuples()
    ]


def _read(row, whole, crop, pixel_mm) -> Example:
    return Example(row.breast_id, row.label, read_view(whole), read_view(crop), film_box(crop), pixel_mm(crop))
