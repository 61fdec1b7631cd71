"""Where the lesion lies in a prepared whole view, so that a map over the view can be held against it.

The box is the one that the crop shows: the lesion's mask and 20 px a side at full resolution, cut out of the film.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from ..config import DataConfig
from .images import read_image
from .memo import remember
from .prepare import chest_walls, plain_rows
from .sources import CROP_MARGIN, ImageSource, SeriesSource, film_box, mask_box
from .tables import VIEWS

Box = tuple[float, float, float, float]


def lesion_boxes(cohort: pd.DataFrame, source: ImageSource, data: DataConfig) -> dict[tuple[str, str], Box]:
    """Return ``{(sample_id, view): (x0, y0, x1, y1)}`` in pixels of the prepared whole view; the largest lesion's box.

    A view whose lesion is not known in its film (no mask, no box, no file) is not in the dictionary.
    """
    located = source.locate(cohort)
    wholes = located[(located["stream"] == "whole") & (located["status"] == "found")]
    if wholes.empty:
        return {}
    shapes = remember("film shape", [Path(path) for path in wholes["path"]], _shape)
    turned = chest_walls(wholes).eq("right") & data.orient
    in_film = _boxes_of_crops(located) | _boxes_of_masks(cohort, source)
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
    """Return {(sample_id, view): log of the lesion box's share of the square that holds the film}, base e."""
    return {
        who: float(np.log((x1 - x0) * (y1 - y0) / data.image_size**2))
        for who, (x0, y0, x1, y1) in lesion_boxes(cohort, source, data).items()
    }


def to_prepared(box: Box, shape: tuple[float, float], size: int, is_turned: bool) -> Box:
    """Carry a box from a film of this (height, width) into the square that the network sees."""
    x0, y0, x1, y1 = box
    if is_turned:
        x0, x1 = shape[1] - x1, shape[1] - x0
    scale = size / max(shape)
    return x0 * scale, y0 * scale, x1 * scale, y1 * scale


def _boxes_of_crops(located: pd.DataFrame) -> dict[tuple[str, str], Box]:
    crops = located[located["derived"].astype(bool) & (located["status"] == "found")]
    return {(row.sample_id, row.view): film_box(row) for row in plain_rows(crops)}


def _boxes_of_masks(cohort: pd.DataFrame, source: ImageSource) -> dict[tuple[str, str], Box]:
    """Return the boxes of views whose crop is a file of its own: they are where the mask is."""
    if not isinstance(source, SeriesSource):
        return {}
    found = {}
    for row in plain_rows(cohort):
        for view in VIEWS:
            boxes = [
                box for pair in _pairs(row, view) if (box := _mask_in_film(source, _film(source, row, view), pair))
            ]
            if boxes:
                found[row.sample_id, view] = max(boxes, key=lambda box: (box[2] - box[0]) * (box[3] - box[1]))
    return found


def _pairs(row, view: str) -> list[tuple[str, str]]:
    return list(zip(getattr(row, f"crops_{view}"), getattr(row, f"masks_{view}"), strict=True))


def _film(source: SeriesSource, row, view: str):
    whole = getattr(row, f"whole_{view}")
    films = [] if pd.isna(whole) else source.series_of(whole)
    return max(films, key=lambda file: file.rows * file.columns, default=None)


def _mask_in_film(source: SeriesSource, film, pair: tuple[str, str]) -> Box | None:
    if film is None or film.problem:
        return None
    _, mask = source.lesion_files(film, *pair)
    box = remember("mask box", [Path(mask.path)], mask_box)[Path(mask.path)] if mask is not None else None
    if box is None:
        return None
    taller, wider = film.rows / mask.rows, film.columns / mask.columns  # masks of another size than their film
    x0, x1 = (np.clip([box[0] * wider - CROP_MARGIN, box[2] * wider + CROP_MARGIN], 0, film.columns)).tolist()
    y0, y1 = (np.clip([box[1] * taller - CROP_MARGIN, box[3] * taller + CROP_MARGIN], 0, film.rows)).tolist()
    return x0, y0, x1, y1


def _shape(path: Path) -> list[int]:
    return list(read_image(path).shape)
