"""Where the images of a cohort are. The layout is found by looking, never by a flag.

A source answers, for every sample, view and stream of a cohort: which file, which box in it, is it there? A located
view is one row with ``sample_id breast_id view stream status problem path x0 y0 x1 y1 aspect derived``. The box is in
pixels of the file (NaN: the whole file), ``aspect`` is the height of a pixel over its width, ``derived`` marks a crop
that is cut out of the full mammogram (20 px around mask or box, the rule that official crops follow) because there is
no official one. ``status`` is ``found``, ``missing``, ``undecodable`` or ``absent`` (the tables have no such view).
With several lesions in a view the crop is of the largest one, a rule that does not look at the label.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Protocol

import numpy as np
import pandas as pd

from ..errors import InputError
from .images import cut, read_image, unstretch
from .memo import remember
from .series import KAGGLE_TABLE, describe_layouts, find_dicom, index_dicom, index_kaggle
from .tables import VIEWS

CROP_MARGIN = 20  # pixels a side at full resolution
NO_BOX = (math.nan,) * 4
FILM_SIZED = 0.8  # a file with this share of its film's pixels is a mask: the largest official crops have half of them


@dataclass(frozen=True)
class Located:
    """One view of one sample in one stream, and whether its file is there."""

    sample_id: str
    breast_id: str
    view: str
    stream: str
    status: str
    path: str = ""
    problem: str = ""
    box: tuple[float, float, float, float] = NO_BOX
    aspect: float = 1.0
    derived: bool = False


class ImageSource(Protocol):
    """What every layout offers."""

    kind: str

    def locate(self, cohort: pd.DataFrame) -> pd.DataFrame:
        """Answer for every sample, view and stream of a cohort."""
        ...


def open_source(root: str | Path) -> ImageSource:
    """Return the image source for the layout found below ``root``.

    Raises
    ------
    InputError
        No known layout is there, or several that would answer differently.
    """
    root = Path(root)
    dicom = find_dicom(root)
    found = {
        Mirror800.kind: (root / "mass-800" / "lesion_boxes.csv").is_file(),
        "kaggle": (root / KAGGLE_TABLE).is_file() and (root / "jpeg").is_dir(),
        "DICOM": bool(dicom),
    }
    kinds = [kind for kind, is_there in found.items() if is_there]
    if len(kinds) > 1:
        raise InputError(
            f"{root}: images in {len(kinds)} layouts ({', '.join(kinds)}); give the folder of the one to use"
        )
    if not kinds:
        raise InputError(
            f"{root}: no images found; expected mass-800/ with lesion_boxes.csv, DICOM files in any layout that "
            "The Cancer Imaging Archive gives, or the Kaggle mirror's jpeg/ with csv/dicom_info.csv"
        )
    if found[Mirror800.kind]:
        return Mirror800(root)
    return SeriesSource(root, index_dicom(root, dicom) if dicom else index_kaggle(root))


def read_view(row, image: np.ndarray | None = None) -> np.ndarray:
    """Return the pixels of one located row, float32 (height, width) in [0, 1], with square pixels.

    ``image`` spares the decoding where the file's pixels are at hand.
    """
    image = read_image(row.path) if image is None else image
    box = (row.x0, row.y0, row.x1, row.y1)
    pixels = image if math.isnan(row.x0) else cut(image, box)
    return pixels if row.aspect == 1 else unstretch(pixels, row.aspect)


def with_context(row, context: float | None):
    """Return a located row whose box is a square ``context`` times as wide as the lesion's box is long, same centre.

    Rows without a box (official crops, whole films) and ``context=None`` change nothing. What reaches beyond the film
    is left out when the box is cut.
    """
    if context is None or math.isnan(row.x0):
        return row
    half = context * max(row.x1 - row.x0, (row.y1 - row.y0) * row.aspect) / 2
    x, y = (row.x0 + row.x1) / 2, (row.y0 + row.y1) / 2
    square = {"x0": x - half, "y0": y - half / row.aspect, "x1": x + half, "y1": y + half / row.aspect}
    return SimpleNamespace(**(vars(row) | square))


def film_box(row) -> tuple[float, float, float, float] | None:
    """Return a located crop's box in pixels of the film as read; None where the crop is a file of its own."""
    if math.isnan(row.x0):
        return None
    wider, taller = max(1.0, 1 / row.aspect), max(1.0, row.aspect)
    return row.x0 * wider, row.y0 * taller, row.x1 * wider, row.y1 * taller


class SeriesSource:
    """Films, crops and masks as files of their own, joined on the SeriesInstanceUID."""

    def __init__(self, root: Path, files: pd.DataFrame):
        self.root, self.files, self.kind = root, files, describe_layouts(files)
        usable = files[~files["problem"].str.startswith("duplicate")]
        self.series = {uid: list(group.itertuples(index=False)) for uid, group in usable.groupby("series")}

    def locate(self, cohort: pd.DataFrame) -> pd.DataFrame:
        """Answer for every sample, view and stream of a cohort."""
        return as_frame(
            located for row in cohort.itertuples(index=False) for view in VIEWS for located in self._view(row, view)
        )

    def series_of(self, table_path: str) -> list:
        """Return the files of the series that a table's path names; the path's file name is not to be trusted."""
        return self.series.get(Path(table_path).parent.name, [])

    def lesion_files(self, film, crop_path: str, mask_path: str) -> tuple[object | None, object | None]:
        """Return (crop, mask) of a lesion; names and descriptions are swapped in places, so size and pixels decide."""
        files = {file.path: file for path in (crop_path, mask_path) for file in self.series_of(path)}
        ordered = sorted(files.values(), key=lambda file: (file.rows * file.columns, file.path))
        masks = [file for file in ordered if self._is_mask(file, film, ordered)]
        crops = [file for file in ordered if file not in masks]
        return (crops[0] if crops else None), (masks[-1] if masks else None)

    def _is_mask(self, file, film, files: list) -> bool:
        if file.problem:
            return False
        if film is not None and len(files) == 2:
            by_size = [one.rows * one.columns >= FILM_SIZED * film.rows * film.columns for one in files]
            if sum(by_size) == 1:
                return by_size[files.index(file)]
        if file.description == "cropped images":
            return False
        return remember("binary pixels", [Path(file.path)], is_binary)[Path(file.path)]

    def _view(self, row, view: str) -> list[Located]:
        """Return the crop and the whole film of one view."""
        whole = getattr(row, f"whole_{view}")
        names = (row.sample_id, row.breast_id, view)
        if pd.isna(whole):
            return [Located(*names, stream, "absent") for stream in ("crop", "whole")]
        films = sorted(self.series_of(whole), key=lambda file: -file.rows * file.columns)
        film = films[0] if films else None
        pairs = zip(getattr(row, f"crops_{view}"), getattr(row, f"masks_{view}"), strict=True)
        lesions = [self._crop(names, film, *pair) for pair in pairs]
        wrong = next((one for one in lesions if one[1].status != "found"), None)
        crop = wrong or max(lesions, key=lambda one: (one[0], one[1].path))
        return [crop[1], self._answer(names, "whole", film, whole)]

    def _answer(self, names, stream: str, file, wanted: str) -> Located:
        if file is None:
            return Located(*names, stream, "missing", str(self.root / wanted), "missing, no file of this series")
        return Located(*names, stream, "undecodable" if file.problem else "found", file.path, file.problem)

    def _crop(self, names, film, crop_path: str, mask_path: str) -> tuple[float, Located]:
        """Return a lesion's area and its crop: the official one, else one derived from the mask."""
        crop, mask = self.lesion_files(film, crop_path, mask_path)
        if crop is not None or mask is None or film is None or film.problem:
            area = crop.rows * crop.columns if crop is not None else 0
            return area, self._answer(names, "crop", crop, crop_path)
        box = remember("mask box", [Path(mask.path)], mask_box)[Path(mask.path)]
        if box is None:
            return 0, Located(*names, "crop", "undecodable", mask.path, "an empty mask, and no crop beside it")
        taller, wider = film.rows / mask.rows, film.columns / mask.columns  # masks of another size than their film
        x0, y0 = max(0, box[0] * wider - CROP_MARGIN), max(0, box[1] * taller - CROP_MARGIN)
        x1 = min(film.columns, box[2] * wider + CROP_MARGIN)
        y1 = min(film.rows, box[3] * taller + CROP_MARGIN)
        return (x1 - x0) * (y1 - y0), Located(*names, "crop", "found", film.path, "", (x0, y0, x1, y1), derived=True)


class Mirror800:
    """Full mammograms stretched to 800 x 800, with lesion boxes and the size of the original film."""

    kind = "mirror-800"
    side = 800

    def __init__(self, root: Path):
        self.folder = root / "mass-800"
        boxes = _read_csv(
            self.folder / "lesion_boxes.csv",
            ["patient_id", "laterality", "view", "abnormality_id", "x0", "y0", "x1", "y1"],
        )
        boxes["area"] = (boxes["x1"] - boxes["x0"]) * (boxes["y1"] - boxes["y0"])
        boxes["film"] = boxes["patient_id"].str.removeprefix("P_") + "_" + boxes["laterality"] + "_" + boxes["view"]
        self.boxes = {film: group.sort_values("area") for film, group in boxes.groupby("film")}
        sizes = _read_csv(self.folder / "original_size_estimate.csv", ["image", "rows", "cols_est"])
        # The width of some films is not known: they get the median shape of the others.
        sizes["cols_est"] = sizes["cols_est"].fillna(sizes["rows"] / (sizes["rows"] / sizes["cols_est"]).median())
        self.sizes = sizes.set_index("image")

    def locate(self, cohort: pd.DataFrame) -> pd.DataFrame:
        """Answer for every sample, view and stream of a cohort."""
        return locate_each(cohort, self._locate)

    def _locate(self, row, view: str, stream: str) -> Located:
        names = (row.sample_id, row.breast_id, view, stream)
        if pd.isna(getattr(row, f"whole_{view}")):
            return Located(*names, "absent")
        film = f"{row.patient_id.removeprefix('P_')}_{row.laterality}_{view}"
        path = self.folder / row.split / f"{film}.jpg"
        if not path.is_file() or film not in self.boxes or film not in self.sizes.index:
            return Located(
                *names, "missing", str(path), "missing" if not path.is_file() else "no lesion box for this film"
            )
        size = self.sizes.loc[film]
        aspect = float(size["rows"] / size["cols_est"])
        if stream == "whole":
            return Located(*names, "found", str(path), aspect=aspect)
        boxes = self.boxes[film]
        if row.sample_id != row.breast_id and len(boxes) > 1:
            # The mirror does not say which box of a film is which lesion.
            return Located(*names, "missing", str(path), f"{len(boxes)} boxes in this film, which lesion is not known")
        dx, dy = CROP_MARGIN * self.side / float(size["cols_est"]), CROP_MARGIN * self.side / float(size["rows"])
        x0, y0, x1, y1 = (float(boxes.iloc[-1][key]) for key in ("x0", "y0", "x1", "y1"))
        box = (max(0.0, x0 - dx), max(0.0, y0 - dy), min(self.side, x1 + dx), min(self.side, y1 + dy))
        return Located(*names, "found", str(path), "", box, aspect, derived=True)


def locate_each(cohort: pd.DataFrame, locate: Callable[..., Located]) -> pd.DataFrame:
    """Ask ``locate(row, view, stream)`` for every sample, view and stream of a cohort."""
    return as_frame(
        locate(row, view, stream)
        for row in cohort.itertuples(index=False)
        for view in VIEWS
        for stream in ("crop", "whole")
    )


def as_frame(located) -> pd.DataFrame:
    """Return located views as a table, one row each."""
    frame = pd.DataFrame([asdict(one) for one in located])
    boxes = pd.DataFrame(frame.pop("box").tolist(), columns=["x0", "y0", "x1", "y1"], index=frame.index)
    return frame.join(boxes.astype(float))


def _read_csv(path: Path, columns: list[str]) -> pd.DataFrame:
    if not path.is_file():
        raise InputError(f"{path}: missing; complete the data folder")
    frame = pd.read_csv(path)
    missing = [name for name in columns if name not in frame.columns]
    if missing:
        raise InputError(f"{path}: column {missing[0]!r} is missing (found: {', '.join(frame.columns)})")
    return frame


def is_binary(path: Path) -> bool:
    """Whether an image has two grey levels; a file that cannot be decoded is left to the one who reads it."""
    try:
        pixels = read_image(path)
    except InputError:
        return False
    # JPEG rings around edges: a mask stays within 4 % of black or white.
    return bool(((pixels < 0.04) | (pixels > 0.96)).all() and pixels.max() > pixels.min())


def mask_box(path: Path) -> list[int] | None:
    """Return x0, y0, x1, y1 around the white pixels of a mask."""
    white = read_image(path) > 0.5
    if not white.any():
        return None
    rows, columns = np.flatnonzero(white.any(axis=1)), np.flatnonzero(white.any(axis=0))
    return [int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1]
