"""The 800-px mirror of CBIS-DDSM: films stretched to a square, and two tables with lesion boxes and original sizes.

The mirror has no crops: each is cut out of its film, ``CROP_MARGIN`` wider a side than the lesion's box. The original
size of a film gives the shape of its pixels. Both tables are checked when they are read.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from ...errors import InputError
from ...files import read_table, require, with_numbers
from ..views import CROP_MARGIN, VIEWS, Box, Located, locate_each, official_side, rows_by
from .series import DIGITISED_MM, LONGEST_SIDE
from .tables import PATIENT, VOCABULARY

BOX_SLACK = 10  # pixels by which a box may extend beyond its 800-px film: boxes are a little too large
FILM = r"[0-9]{5}_(?:LEFT|RIGHT)_(?:CC|MLO)"  # the name of an 800-px film


class Mirror800:
    """Full mammograms stretched to 800 x 800, with lesion boxes and the size of the original film."""

    kind = "mirror-800"
    side = 800

    def __init__(self, root: Path):
        self.folder = root / "mass-800"
        boxes = _read_boxes(self.folder / "lesion_boxes.csv")
        self.lesions = rows_by("film", boxes.sort_values("area", kind="stable"))  # the largest last
        sizes = _read_sizes(self.folder / "original_size_estimate.csv")
        self.sizes = {film: (rows, columns) for film, rows, columns in sizes.itertuples()}

    def locate(self, cohort: pd.DataFrame) -> pd.DataFrame:
        """Return one located row per sample, view and stream of a cohort."""
        return locate_each(cohort, self._locate)

    def boxes(self, cohort: pd.DataFrame) -> dict[tuple[str, str], Box]:
        """Return an empty dictionary: every crop is cut out of its film, so its box is in its row."""
        return {}

    def pixel_aspect(self, film: str) -> float | None:
        """Return the height of a film's pixels over their width; None for a film that is not listed."""
        if film not in self.sizes:
            return None
        rows, columns = self.sizes[film]
        return rows / columns

    def pixel_mm(self, row) -> float | None:
        """Return the approximate side of a pixel of a located view as read, in mm; None for a film without a size."""
        size = self.sizes.get(Path(row.path).stem)
        # Reading resamples the film to square pixels, which adds pixels.
        return None if size is None else min(size) / self.side * DIGITISED_MM

    def crop_box(self, film: str) -> Box | None:
        """Return the box of a film's largest lesion, ``CROP_MARGIN`` wider a side; None for a film without one."""
        if film not in self.lesions or film not in self.sizes:
            return None
        rows, columns = self.sizes[film]
        dx, dy = CROP_MARGIN * self.side / columns, CROP_MARGIN * self.side / rows
        box = self.lesions[film][-1]
        return max(0.0, box.x0 - dx), max(0.0, box.y0 - dy), min(self.side, box.x1 + dx), min(self.side, box.y1 + dy)

    def _locate(self, row, view: str, stream: str) -> Located:
        names = (row.sample_id, row.breast_id, view, stream)
        if pd.isna(getattr(row, f"whole_{view}")):
            return Located(*names, "absent")
        film = f"{row.patient_id.removeprefix('P_')}_{row.laterality}_{view}"
        path = self.folder / official_side(row.split) / f"{film}.jpg"
        aspect, box = self.pixel_aspect(film), self.crop_box(film)
        if not path.is_file() or box is None:
            return Located(
                *names, "missing", str(path), "missing" if not path.is_file() else "no lesion box for this film"
            )
        if stream == "whole":
            return Located(*names, "found", str(path), aspect=aspect)
        n_boxes = len(self.lesions[film])
        if row.sample_id != row.breast_id and n_boxes > 1:
            # The mirror does not say which box of a film is which lesion.
            return Located(*names, "missing", str(path), f"{n_boxes} boxes in this film cannot be matched to lesions")
        return Located(*names, "found", str(path), "", box, aspect, derived=True)


def _read_boxes(path: Path) -> pd.DataFrame:
    """Return the lesion boxes of the 800-px films, with ``area`` and ``film``; every one lies in its film."""
    corners, side = ("x0", "y0", "x1", "y1"), Mirror800.side
    boxes = read_table(path, ("patient_id", "laterality", "view", *corners), "complete the data folder")
    boxes = with_numbers(path, boxes, corners)
    require(path, boxes["patient_id"], boxes["patient_id"].str.fullmatch(PATIENT), "P_ and five digits")
    require(path, boxes["laterality"], boxes["laterality"].isin(VOCABULARY["laterality"]), "LEFT or RIGHT")
    require(path, boxes["view"], boxes["view"].isin(VIEWS), " or ".join(VIEWS))
    for name in corners:
        is_inside = boxes[name].between(-BOX_SLACK, side + BOX_SLACK)
        require(path, boxes[name], is_inside, f"a place in a film of {side} px")
    for low, high in (("x0", "x1"), ("y0", "y1")):
        require(path, boxes[high], boxes[high] > boxes[low], f"larger than {low}")
    in_pixels = (boxes["x1"] > 1) | (boxes["y1"] > 1)
    require(path, boxes["x1"], in_pixels, f"in pixels of a film of {side} px, not a share of it")
    is_new = ~boxes.duplicated(["patient_id", "laterality", "view", *corners])
    require(path, boxes["patient_id"], is_new, "of a box that no earlier row has", "remove the repeated row")
    area = (boxes["x1"] - boxes["x0"]) * (boxes["y1"] - boxes["y0"])
    film = boxes["patient_id"].str.removeprefix("P_") + "_" + boxes["laterality"] + "_" + boxes["view"]
    return boxes.assign(area=area, film=film)


def _read_sizes(path: Path) -> pd.DataFrame:
    """Return ``rows cols_est`` of the original film of every ``image``, each in pixels."""
    sides = ("rows", "cols_est")
    sizes = with_numbers(path, read_table(path, ("image", *sides), "complete the data folder"), sides)
    require(path, sizes["image"], sizes["image"].str.fullmatch(FILM), "a name like 00001_LEFT_CC")
    require(path, sizes["image"], ~sizes["image"].duplicated(), "named in one row only", "remove the repeated row")
    for name in sides:
        is_size = sizes[name].between(1, LONGEST_SIDE) | (sizes[name].isna() & (name == "cols_est"))
        require(path, sizes[name], is_size, f"a number of pixels from 1 to {LONGEST_SIDE}")
    if sizes["cols_est"].isna().all():
        raise InputError(f"{path}: cols_est is empty in every row; complete the data folder")
    # The width of some films is not known: they get the median shape of the others.
    shape = (sizes["rows"] / sizes["cols_est"]).median()
    if shape < 1:
        raise InputError(
            f"{path}: most films are wider than tall (rows / cols_est {shape:.2f}); exchange the two columns"
        )
    return sizes.assign(cols_est=sizes["cols_est"].fillna(sizes["rows"] / shape)).set_index("image")[[*sides]]
