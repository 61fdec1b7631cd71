"""What an adapter provides, so that networks can be scored on a collection that they were not trained on.

An adapter is one function, folder in, :class:`OtherCollection` out. Its table has one row per lesion and view, and one
row without a lesion for a view that has none:

| column | meaning |
|---|---|
| patient_id, laterality, view | LEFT or RIGHT, CC or MLO |
| image_path | file below the folder |
| lesion_type | mass, calcification, other or none |
| finding | the collection's own word for the lesion |
| pathology | MALIGNANT, BENIGN or NORMAL; NA without biopsy or follow-up |
| assessment, density | BI-RADS, NA where not given |
| tissue | the collection's own grading of tissue, if that is not BI-RADS density; NA |
| x0 y0 x1 y1 | the lesion in pixels of the file, without a margin; NaN where it is not marked |
| height, width | the size of the image that the box refers to; NA: that of the file |

An adapter lists what it had to leave out (a row without an image, an image without a row), with the reason.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from ...config import DataConfig
from ...errors import InputError
from .. import collection
from ..folders import is_dicom, walk_files
from ..images import image_shape
from ..memo import remember
from ..prepare import Prepared, prepare
from ..views import BREAST, CROP_MARGIN, STREAMS, VIEWS, Box, Located, locate_each

CORNERS = ["x0", "y0", "x1", "y1"]
COLUMNS = (
    *BREAST, "view", "image_path", "lesion_type", "finding", "pathology", "assessment", "density", "tissue", *CORNERS,
    "height", "width",
)  # fmt: skip
NUMBERS = (*CORNERS, "height", "width")
LABELS = {"MALIGNANT": 1, "BENIGN": 0, "NORMAL": 0}
TYPES = ("none", "other", "calcification", "mass")  # a breast with several counts as the last of them
SUSPICIOUS = 4  # BI-RADS category from which readers call a breast suspicious
SPLIT = "external"


@dataclass(frozen=True)
class About:
    """What a collection is. ``truth`` says what its labels are: pathology, or the readers' BI-RADS category alone.

    ``margin`` is added to a lesion's box on each side to make a crop, in pixels: 1 mm, as on CBIS-DDSM.
    """

    key: str
    name: str
    citation: str
    licence: str
    truth: Literal["pathology", "readers"]
    margin: float = CROP_MARGIN


@dataclass(frozen=True)
class OtherCollection:
    """A collection on disk: its table, and where the image of a view is (:class:`mammo_lib.data.views.ImageSource`).

    ``left_out`` has one row (``item reason``) per image or table row that has no counterpart or cannot be used.
    """

    about: About
    root: Path
    table: pd.DataFrame = field(repr=False)
    left_out: pd.DataFrame = field(repr=False)

    @property
    def kind(self) -> str:
        """The collection's name, as an image source."""
        return self.about.name

    @cached_property
    def breasts(self) -> pd.DataFrame:
        """One row per breast, in the form of a cohort (:func:`mammo_lib.data.build_cohort`).

        ``label`` is 1 if any lesion is malignant, NA if the pathology is unknown; ``is_suspicious`` is the readers'
        opinion, BI-RADS 4 or more, NA if they gave none. ``has_box`` says whether a crop can be cut.
        """
        breasts = _grouped(self.table)
        names = breasts["patient_id"] + "_" + breasts["laterality"]
        unknown = pd.array([pd.NA] * len(names), "Int64")
        opinion = breasts["assessment"].ge(SUSPICIOUS).astype("Int64")
        who = {"sample_id": names, "breast_id": names, "split": SPLIT}
        return breasts.assign(**who, is_suspicious=opinion, subtlety=unknown)

    def locate(self, cohort: pd.DataFrame) -> pd.DataFrame:
        """Answer for every breast, view and stream; a crop is cut around the lesion, with the margin."""
        shapes = self._shapes(cohort)
        return locate_each(cohort, lambda row, view, stream: self._locate(row, view, stream, shapes))

    def boxes(self, cohort: pd.DataFrame) -> dict[tuple[str, str], Box]:
        """Return none: every crop is cut out of its image, so its box is in its row."""
        return {}

    def prepare(
        self, cohort: pd.DataFrame, data: DataConfig, views: Sequence[str] = VIEWS, streams: Sequence[str] = STREAMS
    ) -> Prepared:
        """Return the pixels of some of the breasts as input of a network; images in the cache are not decoded again."""
        return prepare(cohort.reset_index(drop=True), self, data, views, streams, cache=collection.CACHE)

    @cached_property
    def _shown(self) -> dict[tuple[str, str], dict]:
        """The lesion that a crop shows, by breast and view: a mass before any other, then the largest."""
        marked = self.table[self.table["x0"].notna()]
        area = (marked["x1"] - marked["x0"]) * (marked["y1"] - marked["y0"])
        ordered = marked.assign(is_mass=marked["lesion_type"].eq("mass"), area=area).sort_values(["is_mass", "area"])
        return {(f"{row['patient_id']}_{row['laterality']}", row["view"]): row for row in ordered.to_dict("records")}

    def _shapes(self, cohort: pd.DataFrame) -> dict[str, list[int] | str]:
        """Return {image_path: height and width, or why they cannot be read} of the images that are there."""
        images = pd.concat([cohort[f"whole_{view}"] for view in VIEWS]).dropna().unique()
        paths = {image: self.root / image for image in images if (self.root / image).is_file()}
        found = remember("image shape", paths.values(), shape_or_problem, keep=lambda shape: not isinstance(shape, str))
        return {image: found[path] for image, path in paths.items()}

    def _locate(self, row, view: str, stream: str, shapes: dict[str, list[int] | str]) -> Located:
        names, image = (row.sample_id, row.breast_id, view, stream), getattr(row, f"whole_{view}")
        lesion = self._shown.get((row.breast_id, view))
        if pd.isna(image) or (stream == "crop" and lesion is None):
            return Located(*names, "absent")
        path = str(self.root / image)
        if image not in shapes:
            return Located(*names, "missing", path, "no such image")
        shape = shapes[image]
        problem = shape if isinstance(shape, str) else _misplaced(lesion, shape) if stream == "crop" else ""
        if problem:
            return Located(*names, "undecodable", path, problem)
        if stream == "whole":
            return Located(*names, "found", path)
        x0, y0, x1, y1 = (lesion[name] for name in CORNERS)
        margin, (height, width) = self.about.margin, shape
        box = max(0.0, x0 - margin), max(0.0, y0 - margin), min(width, x1 + margin), min(height, y1 + margin)
        return Located(*names, "found", path, "", box, derived=True)


def _grouped(table: pd.DataFrame) -> pd.DataFrame:
    """Return one row per breast of a table: its label, the lesion type that counts, its readings and its images."""
    rows = table.assign(
        label=table["pathology"].map(LABELS).astype("Int64"),
        rank=table["lesion_type"].map({name: rank for rank, name in enumerate(TYPES)}),
        is_lesion=table["lesion_type"].ne("none"), is_marked=table["x0"].notna(),
    )  # fmt: skip
    breasts = rows.groupby(BREAST, sort=True).agg(
        label=("label", "max"), rank=("rank", "max"), n_lesions=("is_lesion", "sum"), finding=("finding", _words),
        tissue=("tissue", "first"), density=("density", "max"), assessment=("assessment", "max"),
        has_box=("is_marked", "max"),
    )  # fmt: skip
    for view in VIEWS:
        seen = rows[rows["view"] == view].groupby(BREAST)["image_path"].first()
        breasts[f"whole_{view}"] = seen.reindex(breasts.index)
    return breasts.assign(lesion_type=[TYPES[rank] for rank in breasts.pop("rank")]).reset_index()


def as_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Return an adapter's rows with the columns of the module's table; those that it does not give are NA.

    >>> as_table(pd.DataFrame({"patient_id": ["1"], "view": ["MLO"]})).loc[0, ["patient_id", "density"]].tolist()
    ['1', <NA>]
    """
    table = rows.reindex(columns=list(COLUMNS))
    words = [name for name in COLUMNS if name not in (*NUMBERS, "assessment", "density")]
    kinds = dict.fromkeys(words, "string") | dict.fromkeys(NUMBERS, float)
    return table.astype(kinds | dict.fromkeys(("assessment", "density"), "Int64")).reset_index(drop=True)


def as_left_out(items: Sequence[tuple[str, str]]) -> pd.DataFrame:
    """Return what was left out, one row of ``item reason`` each."""
    return pd.DataFrame(list(items), columns=["item", "reason"], dtype="string")


def find_named(root: Path, pattern: str) -> list[Path]:
    """Return the files below a folder whose name matches, ignoring case; hidden files are skipped."""
    form = re.compile(pattern, re.IGNORECASE)
    found = (path for path in walk_files(root) if form.fullmatch(path.name) and not path.name.startswith("."))
    return sorted(path for path in found if path.is_file())


def dicom_first(paths: Sequence[Path]) -> list[Path]:
    """Return files in their order, but DICOM before pictures, which may be smaller copies of the same image."""
    return sorted(paths, key=lambda path: not is_dicom(path))


def only_one(root: Path, found: Sequence[Path], what: str) -> Path:
    """Return the one file that was found.

    Raises
    ------
    InputError
        There is none, or there are several.
    """
    if len(found) == 1:
        return found[0]
    listed = f" ({', '.join(str(path.relative_to(root)) for path in found[:3])})" if found else ""
    raise InputError(f"{root}: {len(found)} files {what}{listed}, expected 1; give the folder of one copy")


def _words(values: pd.Series) -> str:
    return " and ".join(sorted(set(values.dropna()) - {""}))


def shape_or_problem(path: Path) -> list[int] | str:
    """Return an image's height and width, or why they cannot be read, in a form that :func:`remember` stores."""
    try:
        return list(image_shape(path))
    except InputError as error:
        return str(error).removeprefix(f"{path}: ")


def _misplaced(lesion: dict, shape: Sequence[int]) -> str:
    """Say why a lesion's box cannot belong to an image of this height and width; empty if it can."""
    height, width = shape
    wanted = (lesion["height"], lesion["width"])
    if not np.isnan(wanted).any() and tuple(shape) != wanted:
        return f"{width} x {height} px, but its lesions are marked in {wanted[1]:.0f} x {wanted[0]:.0f} px"
    x, y = (lesion["x0"] + lesion["x1"]) / 2, (lesion["y0"] + lesion["y1"]) / 2
    return "" if 0 <= x <= width and 0 <= y <= height else f"a lesion at {x:.0f}, {y:.0f} outside of {width} x {height}"
