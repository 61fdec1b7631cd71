"""Where the images of a cohort are, for each layout people have. The layout is found by looking.

A source answers two questions: `locate` (which file, which box, is it there?) and
`read` (the pixels of one located view). A located view is one row with ``breast_id view
stream status path x0 y0 x1 y1 aspect derived``: the box is in pixels of the file (NaN: the whole
file), ``aspect`` is the height of a pixel over its width, ``derived`` marks a crop that was cut out of
the full mammogram instead of being an official crop. With several lesions in a view the
crop is of the largest one, a rule that does not look at the label.
"""

from __future__ import annotations

import math
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import pandas as pd

from ..errors import InputError
from .cohort import VIEWS
from .images import DECODING_ERRORS, cut, read_image, unstretch

CROP_MARGIN = 20  # pixels a side at full resolution: the rule that the official crops follow
NO_BOX = (math.nan,) * 4


@dataclass(frozen=True)
class Located:
    """One view of one breast in one stream, and whether its file is there."""

    breast_id: str
    view: str
    stream: str
    status: str
    path: str
    box: tuple[float, float, float, float] = NO_BOX
    aspect: float = 1.0
    derived: bool = False


class ImageSource(Protocol):
    """What every layout offers."""

    kind: str

    def locate(self, cohort: pd.DataFrame) -> pd.DataFrame:
        """Answer for every breast, view and stream of a cohort."""
        ...

    def read(self, row) -> np.ndarray:
        """Return the pixels of one located row, float32 (height, width) in [0, 1], with square pixels."""
        ...


def open_source(root: str | Path) -> ImageSource:
    """Return the image source for the layout found below ``root``.

    Raises
    ------
    InputError
        No known layout is there.
    """
    root = Path(root)
    for source in (Mirror800, ClassicDicom):
        if source.is_at(root):
            return source(root)
    raise InputError(
        f"{root}: no images found; expected mass-800/ with lesion_boxes.csv, "
        "or DICOM as <case>/<StudyUID>/<SeriesUID>/*.dcm"
    )


class Mirror800:
    """Full mammograms stretched to 800 x 800, with lesion boxes and the size of the original film."""

    kind = "mirror-800"
    side = 800

    @staticmethod
    def is_at(root: Path) -> bool:
        """Whether this layout is below ``root``."""
        return (root / "mass-800" / "lesion_boxes.csv").is_file()

    def __init__(self, root: Path):
        self.folder = root / "mass-800"
        boxes = _read_csv(
            self.folder / "lesion_boxes.csv", ["patient_id", "laterality", "view", "x0", "y0", "x1", "y1"]
        )
        boxes["area"] = (boxes["x1"] - boxes["x0"]) * (boxes["y1"] - boxes["y0"])
        largest = boxes.sort_values("area").drop_duplicates(["patient_id", "laterality", "view"], keep="last")
        self.boxes = largest.set_index(
            largest["patient_id"].str.removeprefix("P_") + "_" + largest["laterality"] + "_" + largest["view"]
        )
        sizes = _read_csv(self.folder / "original_size_estimate.csv", ["image", "rows", "cols_est"])
        # The width of some films is not known: they get the median shape of the others.
        sizes["cols_est"] = sizes["cols_est"].fillna(sizes["rows"] / (sizes["rows"] / sizes["cols_est"]).median())
        self.sizes = sizes.set_index("image")

    def locate(self, cohort: pd.DataFrame) -> pd.DataFrame:
        """Answer for every breast, view and stream of a cohort."""
        return _as_frame(self._locate(row, view, stream) for row, view, stream in _views(cohort))

    def read(self, row) -> np.ndarray:
        """Return the pixels of one located row."""
        return _read(row)

    def _locate(self, row, view: str, stream: str) -> Located:
        name = f"{row.patient_id.removeprefix('P_')}_{row.laterality}_{view}"
        path = self.folder / row.split / f"{name}.jpg"
        if pd.isna(getattr(row, f"whole_{view}")):
            return Located(row.breast_id, view, stream, "absent", "")
        if not path.is_file() or name not in self.sizes.index or name not in self.boxes.index:
            return Located(row.breast_id, view, stream, "missing", str(path))
        size = self.sizes.loc[name]
        aspect = float(size["rows"] / size["cols_est"])
        if stream == "whole":
            return Located(row.breast_id, view, stream, "found", str(path), aspect=aspect)
        dx, dy = CROP_MARGIN * self.side / float(size["cols_est"]), CROP_MARGIN * self.side / float(size["rows"])
        x0, y0, x1, y1 = (float(self.boxes.loc[name, key]) for key in ("x0", "y0", "x1", "y1"))
        box = (max(0.0, x0 - dx), max(0.0, y0 - dy), min(self.side, x1 + dx), min(self.side, y1 + dy))
        return Located(row.breast_id, view, stream, "found", str(path), box, aspect, derived=True)


class ClassicDicom:
    """``<case>/<StudyUID>/<SeriesUID>/*.dcm``: films and official crops as DICOM, joined on the series UID."""

    kind = "dicom-classic"

    @staticmethod
    def is_at(root: Path) -> bool:
        """Whether this layout is below ``root``."""
        return any(root.glob("*/*/*/*.dcm"))

    def __init__(self, root: Path):
        self.root = root
        self.series = _index_series(root)

    def locate(self, cohort: pd.DataFrame) -> pd.DataFrame:
        """Answer for every breast, view and stream of a cohort."""
        return _as_frame(self._locate(row, view, stream) for row, view, stream in _views(cohort))

    def read(self, row) -> np.ndarray:
        """Return the pixels of one located row."""
        return _read(row)

    def _locate(self, row, view: str, stream: str) -> Located:
        whole = getattr(row, f"whole_{view}")
        if pd.isna(whole):
            return Located(row.breast_id, view, stream, "absent", "")
        if stream == "whole":
            files, wanted = self._files(whole), whole
        else:
            pairs = zip(getattr(row, f"crops_{view}"), getattr(row, f"masks_{view}"), strict=True)
            lesions = [self._crop_of(crop, mask) for crop, mask in pairs]
            files = sorted((path for path in lesions if path), key=_area)[-1:]  # the largest lesion
            wanted = getattr(row, f"crops_{view}")[0]
            if not all(lesions):
                files = []
        status = "found" if files else "missing"
        return Located(row.breast_id, view, stream, status, str(files[0]) if files else str(self.root / wanted))

    def _files(self, table_path: str) -> list[Path]:
        return self.series.get(Path(table_path).parent.name, [])

    def _crop_of(self, crop: str, mask: str) -> Path | None:
        """Tell crop from mask by pixels: names and descriptions are swapped in places.

        A mask is as large as its film, so the smaller of two files is the crop; a file that is alone may be the mask of
        a crop that is missing.
        """
        files = {*self._files(crop), *self._files(mask)}
        smallest = sorted(files, key=lambda path: (_area(path), path.as_posix()))
        if not smallest or (len(smallest) == 1 and _is_mask(smallest[0])):
            return None
        return smallest[0]


def _views(cohort: pd.DataFrame):
    for row in cohort.itertuples(index=False):
        for view in VIEWS:
            for stream in ("crop", "whole"):
                yield row, view, stream


def _as_frame(located) -> pd.DataFrame:
    frame = pd.DataFrame([asdict(one) for one in located])
    boxes = pd.DataFrame(frame.pop("box").tolist(), columns=["x0", "y0", "x1", "y1"], index=frame.index)
    return frame.join(boxes.astype(float))


def film_box(row) -> tuple[float, float, float, float] | None:
    """Return a located crop's box in pixels of the film as read; None where the crop is a file of its own."""
    if math.isnan(row.x0):
        return None
    wider, taller = max(1.0, 1 / row.aspect), max(1.0, row.aspect)
    return row.x0 * wider, row.y0 * taller, row.x1 * wider, row.y1 * taller


def _read(row) -> np.ndarray:
    image = read_image(row.path)
    box = (row.x0, row.y0, row.x1, row.y1)
    pixels = image if math.isnan(row.x0) else cut(image, box)
    return pixels if row.aspect == 1 else unstretch(pixels, row.aspect)


def _read_csv(path: Path, columns: list[str]) -> pd.DataFrame:
    if not path.is_file():
        raise InputError(f"{path}: missing; complete the data folder")
    frame = pd.read_csv(path)
    missing = [name for name in columns if name not in frame.columns]
    if missing:
        raise InputError(f"{path}: column {missing[0]!r} is missing (found: {', '.join(frame.columns)})")
    return frame


def _index_series(root: Path) -> dict[str, list[Path]]:
    """Return series UID -> its files, by walking the tree once."""
    found = {}
    for folder, _, names in os.walk(root):
        files = sorted(Path(folder) / name for name in names if name.lower().endswith(".dcm"))
        if files:
            found.setdefault(Path(folder).name, []).extend(files)
    return found


def _area(path: Path) -> int:
    import pydicom

    try:
        header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=["Rows", "Columns"])
        return int(header.Rows) * int(header.Columns)
    except DECODING_ERRORS as error:
        raise InputError(f"{path}: not a DICOM image ({error}); download the file again") from None


def _is_mask(path: Path) -> bool:
    """Whether an image is binary."""
    pixels = read_image(path)
    return bool(np.isin(pixels, (pixels.min(), pixels.max())).all())
