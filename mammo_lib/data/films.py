"""What can be measured on films without looking into the lesion: which way they face, what lies beside the breast."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from ..files import read_table, with_numbers
from .collection import Collection
from .images import breast_mask, faces_right, read_image
from .sample import sample_folder
from .views import read_view

COLUMNS = ("sample_id", "view", "chest_wall", "beside", "height", "width")


def measure_surroundings(located: pd.DataFrame) -> pd.DataFrame:
    """Return ``sample_id view chest_wall beside height width`` of every view whose film and crop were found.

    ``chest_wall`` is left or right, as the pixels show it. ``beside`` is the share of the film's brightness that lies
    outside of the breast: labels, markers, edges. ``height`` and ``width`` are those of the crop, in pixels.
    """
    rows = []
    found = located[located["status"] == "found"].set_index("stream")
    for (sample, view), pair in found.groupby(["sample_id", "view"]):
        if {"whole", "crop"} <= set(pair.index):
            rows.append((sample, view, *_measured(pair.loc["whole"], pair.loc["crop"])))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def surroundings_of(collection: Collection, cohort: pd.DataFrame) -> pd.DataFrame:
    """Return the measurements of a cohort of test breasts; for the sample, the recorded measurements of all films."""
    if collection.is_sample:
        return read_films(sample_folder() / "films.csv")
    return measure_surroundings(collection.source.locate(cohort))


def read_films(path: Path) -> pd.DataFrame:
    """Return the measurements of films from a file, as :func:`measure_surroundings` makes them."""
    return with_numbers(path, read_table(path, COLUMNS), ("beside", "height", "width"))


def _measured(whole, crop) -> tuple[str, float, int, int]:
    image = read_image(whole["path"])
    film = read_view(whole, image)
    mask = breast_mask(film)
    cut = read_view(crop, image if crop["path"] == whole["path"] else None)
    wall = "right" if faces_right(breast_mask(image)) else "left"
    return wall, float(film[~mask].sum() / film.sum()), *cut.shape
