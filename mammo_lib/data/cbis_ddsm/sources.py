"""The images of a cohort of CBIS-DDSM; the layout is detected automatically.

A source returns a located view (:mod:`mammo_lib.data.views`) for every sample, view and stream of a cohort. A crop
without an official file is cut 20 px around its mask or box. With several lesions in a view, the crop shows the largest
one, a rule that does not depend on the label.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from ...errors import InputError
from ..folders import find_collection
from ..memo import remember
from ..prepare import VERSION
from ..views import CROP_MARGIN, STREAMS, VIEWS, Box, ImageSource, Located, as_frame, is_binary, mask_box, rows_by
from .mirror import Mirror800
from .series import DIGITISED_MM, KAGGLE_TABLE, describe_layouts, index_dicom, index_kaggle

FILM_SIZED = 0.8  # a file with this share of its film's pixels is a mask: the largest official crops have half of them


def open_source(root: str | Path) -> ImageSource:
    """Return the image source for the layout found below ``root``.

    Raises
    ------
    InputError
        There is no known layout, or there are several that would give different results.
    """
    root = Path(root)
    dicom = find_collection(root, "DICOM")
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


class SeriesSource:
    """Films, crops and masks as separate files, joined on the SeriesInstanceUID."""

    def __init__(self, root: Path, files: pd.DataFrame):
        self.root, self.files, self.kind = root, files, describe_layouts(files)
        usable = files[~files["problem"].str.startswith("duplicate")]
        self.series = rows_by("series", usable.dropna(subset="series"))

    def locate(self, cohort: pd.DataFrame) -> pd.DataFrame:
        """Return one located row per sample, view and stream of a cohort."""
        return as_frame(
            located for row in cohort.itertuples(index=False) for view in VIEWS for located in self._view(row, view)
        )

    def series_of(self, table_path: str) -> list:
        """Return the files of the series that a table's path names; the path's file name is unreliable."""
        return self.series.get(Path(table_path).parent.name, [])

    def lesion_files(self, film, crop_path: str, mask_path: str) -> tuple[object | None, object | None]:
        """Return (crop, mask) of a lesion; because some names and descriptions are swapped, size and pixels decide."""
        files = {file.path: file for path in (crop_path, mask_path) for file in self.series_of(path)}
        ordered = sorted(files.values(), key=lambda file: (file.rows * file.columns, file.path))
        masks = [file for file in ordered if self._is_mask(file, film, ordered)]
        crops = [file for file in ordered if file not in masks]
        return (crops[0] if crops else None), (masks[-1] if masks else None)

    def boxes(self, cohort: pd.DataFrame) -> dict[tuple[str, str], Box]:
        """Return ``{(sample_id, view): box}`` of the largest lesion in pixels of its film, from the masks."""
        found = {}
        for row in cohort.itertuples(index=False):
            for view in VIEWS:
                pairs = zip(getattr(row, f"crops_{view}"), getattr(row, f"masks_{view}"), strict=True)
                film = self._film(getattr(row, f"whole_{view}"))
                masks = [] if film is None or film.problem else [self.lesion_files(film, *pair)[1] for pair in pairs]
                boxes = [box for mask in masks if mask is not None and (box := _box_in_film(film, mask))]
                if boxes:
                    found[row.sample_id, view] = max(boxes, key=_area)
        return found

    def pixel_mm(self, row) -> float | None:
        """Return the approximate side of a pixel of a located view, in mm."""
        return DIGITISED_MM

    def _film(self, table_path):
        """Return the largest file of a film's series; None without one."""
        films = [] if pd.isna(table_path) else self.series_of(table_path)
        return max(films, key=lambda file: file.rows * file.columns, default=None)

    def _is_mask(self, file, film, files: list) -> bool:
        if file.problem:
            return False
        if film is not None and len(files) == 2:
            by_size = [one.rows * one.columns >= FILM_SIZED * film.rows * film.columns for one in files]
            if sum(by_size) == 1:
                return by_size[files.index(file)]
        if file.description == "cropped images":
            return False
        path = Path(file.path)
        found = remember(f"binary pixels, {VERSION}", [path], is_binary, keep=lambda answer: answer is not None)
        return bool(found[path])

    def _view(self, row, view: str) -> list[Located]:
        """Return the crop and the whole film of one view."""
        whole = getattr(row, f"whole_{view}")
        names = (row.sample_id, row.breast_id, view)
        if pd.isna(whole):
            return [Located(*names, stream, "absent") for stream in STREAMS]
        film = self._film(whole)
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
        box = _box_in_film(film, mask)
        if box is None:
            return 0, Located(*names, "crop", "undecodable", mask.path, "an empty mask, and no crop beside it")
        return _area(box), Located(*names, "crop", "found", film.path, "", box, derived=True)


def _box_in_film(film, mask) -> Box | None:
    """Return the box of a mask in pixels of its film, ``CROP_MARGIN`` wider a side; None for an empty mask."""
    box = remember(f"mask box, {VERSION}", [Path(mask.path)], mask_box)[Path(mask.path)]
    if box is None:
        return None
    taller, wider = film.rows / mask.rows, film.columns / mask.columns  # masks of another size than their film
    x0, y0 = max(0, box[0] * wider - CROP_MARGIN), max(0, box[1] * taller - CROP_MARGIN)
    return x0, y0, min(film.columns, box[2] * wider + CROP_MARGIN), min(film.rows, box[3] * taller + CROP_MARGIN)


def _area(box: Box) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])
