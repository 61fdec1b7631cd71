"""Position of the lesion in a prepared whole view, for comparison with maps over the view.

The box is that of the crop: the lesion's mask plus 20 px on each side at full resolution.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from ..config import DataConfig
from .images import fit_scale, image_shape
from .memo import remember
from .prepare import chest_walls, plain_rows
from .views import Box, ImageSource, film_box


def lesion_boxes(cohort: pd.DataFrame, source: ImageSource, data: DataConfig) -> dict[tuple[str, str], Box]:
    """Return ``{(sample_id, view): (x0, y0, x1, y1)}`` in pixels of the prepared whole view; the largest lesion's box.

    A view without a known lesion position (no mask, no box, no file) is not in the dictionary.
    """
    located = source.locate(cohort)
    wholes = located[(located["stream"] == "whole") & (located["status"] == "found")]
    if wholes.empty:
        return {}
    shapes = remember("film size", [Path(path) for path in wholes["path"]], image_shape)
    turned = chest_walls(wholes).eq("right") & data.orient
    in_film = _boxes_of_crops(located) | source.boxes(cohort)
    boxes = {}
    for row, is_turned in zip(plain_rows(wholes), turned, strict=True):
        if (row.sample_id, row.view) in in_film:
            height, width = shapes[Path(row.path)]
            shape = (height * max(1.0, row.aspect), width * max(1.0, 1 / row.aspect))
            boxes[row.sample_id, row.view] = to_prepared(
                in_film[row.sample_id, row.view], shape, data.image_size, is_turned
            )
    return boxes


def log_areas(cohort: pd.DataFrame, source: ImageSource, data: DataConfig) -> dict[tuple[str, str], float]:
    """Return {(sample_id, view): log of the lesion box's share of the network's input}, base e."""
    height, width = data.image_size
    return {
        who: float(np.log((x1 - x0) * (y1 - y0) / (height * width)))
        for who, (x0, y0, x1, y1) in lesion_boxes(cohort, source, data).items()
    }


def to_prepared(box: Box, shape: tuple[float, float], size: tuple[int, int], is_turned: bool) -> Box:
    """Map a box from a film of this (height, width) to the network's input of this (height, width)."""
    x0, y0, x1, y1 = box
    if is_turned:
        x0, x1 = shape[1] - x1, shape[1] - x0
    scale = fit_scale(shape, size)
    return x0 * scale, y0 * scale, x1 * scale, y1 * scale


def _boxes_of_crops(located: pd.DataFrame) -> dict[tuple[str, str], Box]:
    crops = located[located["derived"].astype(bool) & (located["status"] == "found")]
    return {(row.sample_id, row.view): film_box(row) for row in plain_rows(crops)}
