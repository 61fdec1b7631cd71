"""The images of a cohort of CBIS-DDSM; the layout is detected automatically.

A source returns a located view (:mod:`mammo_lib.data.views`) for every sample, view and stream of a cohort. A crop
without an official file is cut 20 px around its mask or box. With several lesions in a view, the crop shows the largest
one, a rule that does not depend on the label.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import pandas as pd

from ...errors import InputError
from ...files import read_table, require, with_numbers
from ..folders import find_collection
from ..memo import remember
from ..prepare import VERSION
from ..views import (
    CROP_MARGIN,
    STREAMS,
    VIEWS,
    Box,
    ImageSource,
    Located,
    as_frame,
    is_binary,
    locate_each,
    mask_box,
    official_side,
)
from .series import KAGGLE_TABLE, LONGEST_SIDE, describe_layouts, index_dicom, index_kaggle
from .tables import PATIENT, VOCABULARY

BOX_SLACK = 10  # pixels that a box of an 800-px film may lie outside it: boxes are a little too large
FILM = r"[0-9]{5}_(?:LEFT|RIGHT)_(?:CC|MLO)"  # the name of an 800-px film
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
        self.series = _rows_by("series", usable.dropna(subset="series"))

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


class Mirror800:
    """Full mammograms stretched to 800 x 800, with lesion boxes and the size of the original film."""

    kind = "mirror-800"
    side = 800

    def __init__(self, root: Path):
        self.folder = root / "mass-800"
        boxes = _read_boxes(self.folder / "lesion_boxes.csv")
        self.lesions = _rows_by("film", boxes.sort_values("area", kind="stable"))  # the largest last
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


def _rows_by(column: str, table: pd.DataFrame) -> dict[str, list]:
    """Return ``{value: [row, ...]}`` of a column, in the table's order; some ten times as fast as groups of pandas."""
    found: dict[str, list] = defaultdict(list)
    for row in table.itertuples(index=False):
        found[getattr(row, column)].append(row)
    return dict(found)


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
    require(path, boxes["patient_id"], is_new, "of a box that no row above has", "leave the repeated row out")
    area = (boxes["x1"] - boxes["x0"]) * (boxes["y1"] - boxes["y0"])
    film = boxes["patient_id"].str.removeprefix("P_") + "_" + boxes["laterality"] + "_" + boxes["view"]
    return boxes.assign(area=area, film=film)


def _read_sizes(path: Path) -> pd.DataFrame:
    """Return ``rows cols_est`` of the original film of every ``image``, each in pixels."""
    sides = ("rows", "cols_est")
    sizes = with_numbers(path, read_table(path, ("image", *sides), "complete the data folder"), sides)
    require(path, sizes["image"], sizes["image"].str.fullmatch(FILM), "named as 00001_LEFT_CC is")
    require(path, sizes["image"], ~sizes["image"].duplicated(), "named in one row only", "leave the repeated row out")
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
