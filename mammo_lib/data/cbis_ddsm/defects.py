"""The known defects of CBIS-DDSM, counted in a copy, with one example each."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from ..cohort import has_conflicting_labels, pooled_leak
from ..views import BREAST, VIEWS
from .sources import SeriesSource
from .tables import DENSITY_SPELLINGS, PATHS

NEWLINE = "rows with a newline inside a path"
SPELLING = "rows that spell 'breast density' with a space"
DENSITY = "rows with density 0, which is unknown"
SAME_NAME = "rows whose crop and mask have one file name, in different series"
REVERSED = "rows whose mask comes before its crop in file names"
CONFLICT = "breasts with conflicting labels"
SWAPPED = "breasts whose lesion ids are swapped between views"
SINGLE_VIEW = "breasts with a mass in one view only"
SHARED_PATIENTS = "patients on both sides of the pooled split"
ONE_SERIES = "lesions whose crop and mask share a series called 'ROI mask images'"
OTHER_SIZE = "masks of another size than their film"
PATIENT_ID = "files whose DICOM PatientID is not the patient"
OTHER_NAME = "files that are not named as the tables say"
DUPLICATE = "files that repeat another one"
UNREADABLE = "files that cannot be read"
IN_TABLES = (NEWLINE, SPELLING, DENSITY, SAME_NAME, REVERSED, CONFLICT, SWAPPED, SINGLE_VIEW, SHARED_PATIENTS)
IN_FILES = (ONE_SERIES, OTHER_SIZE, PATIENT_ID, OTHER_NAME, DUPLICATE, UNREADABLE)
STAMP = "phantom.json"  # in a phantom's folder: how many defects of each kind were planted
DEFECTS = (*IN_TABLES, *IN_FILES)


def count_table_defects(table: pd.DataFrame) -> dict[str, tuple[int, str]]:
    """Return ``{defect: (count, an example)}`` of the defects in the tables."""
    repairs = table["repairs"]
    crop, mask = (table[column].map(Path) for column in ("crop_path", "mask_path"))
    names = pd.DataFrame({"crop": crop.map(lambda p: p.name), "mask": mask.map(lambda p: p.name)})
    other_series = crop.map(lambda p: p.parent.name) != mask.map(lambda p: p.parent.name)
    marks = {
        NEWLINE: repairs.str.contains("newline in (?:" + "|".join(PATHS) + ")"),
        SPELLING: repairs.str.contains(f"'{DENSITY_SPELLINGS[1]}'", regex=False),
        DENSITY: repairs.str.contains("density 0"),
        SAME_NAME: (names["crop"] == names["mask"]) & other_series,
        REVERSED: names["crop"] > names["mask"],
    }
    found = {name: _count(table[mark.astype(bool)]) for name, mark in marks.items()}
    conflicting = [_breasts(part[has_conflicting_labels(part)]) for _, part in table.groupby("lesion_type")]
    found[CONFLICT] = _count(pd.concat(conflicting))
    found[SWAPPED] = _count(_breasts(swapped_lesions(table)))
    masses = table[table["lesion_type"] == "mass"]
    found[SINGLE_VIEW] = _count(_breasts(masses[masses.groupby(BREAST)["view"].transform("nunique") == 1]))
    found[SHARED_PATIENTS] = pooled_leak(table)["patients"], ""
    return found


def count_file_defects(table: pd.DataFrame, source: SeriesSource) -> dict[str, tuple[int, str]]:
    """Return ``{defect: (count, an example)}`` of the defects in the files' headers, for rows with files."""
    found = dict.fromkeys((ONE_SERIES, OTHER_SIZE), (0, ""))
    for row in table.itertuples():
        films = source.series_of(row.image_path)
        crop, mask = source.lesion_files(films[0] if films else None, row.crop_path, row.mask_path)
        if crop and mask and crop.series == mask.series and mask.description == "ROI mask images":
            found[ONE_SERIES] = found[ONE_SERIES][0] + 1, crop.path
        if films and mask and (mask.rows, mask.columns) != (films[0].rows, films[0].columns):
            found[OTHER_SIZE] = found[OTHER_SIZE][0] + 1, mask.path
    files = source.files
    readable = files[files["problem"] == ""]
    marks = {
        PATIENT_ID: readable[~readable["patient"].isin(table["patient_id"])],
        OTHER_NAME: readable[~readable["path"].map(lambda path: Path(path).name).isin(_table_names(table))],
        DUPLICATE: files[files["problem"].str.startswith("duplicate")],
        UNREADABLE: files[files["problem"].ne("") & ~files["problem"].str.startswith("duplicate")],
    }
    return found | {name: (len(part), _example(part)) for name, part in marks.items()}


def swapped_lesions(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of breasts whose two lesions match across views only if the ids of one view are swapped.

    Each view describes its lesions separately. If lesion 1 of one view matches lesion 2 of the other and vice versa,
    while equal ids do not match, the ids were swapped.
    """
    described = ["mass_shape", "mass_margins", "calc_type", "calc_distribution"]
    reading = table[[name for name in described if name in table]].astype("string").fillna("").agg("|".join, axis=1)
    rows, keys = table.assign(reading=reading), [*BREAST, "lesion_type"]
    two = rows.groupby(keys)[["abnormality_id", "view"]].transform("nunique").eq(2).all(axis=1)
    swapped = []
    for _, breast in rows[two].groupby(keys):
        readings = breast.pivot_table(index="abnormality_id", columns="view", values="reading", aggfunc="first")
        if list(readings.index) != [1, 2] or list(readings.columns) != list(VIEWS) or readings.isna().any(axis=None):
            continue
        (cc1, mlo1), (cc2, mlo2) = readings.to_numpy()
        if cc1 == mlo2 != mlo1 == cc2:
            swapped.append(breast)
    return pd.concat(swapped) if swapped else rows.iloc[:0]


def _breasts(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.drop_duplicates(BREAST)


def _count(rows: pd.DataFrame) -> tuple[int, str]:
    return len(rows), " ".join(str(rows.iloc[0][key]) for key in (*BREAST, "view")) if len(rows) else ""


def _example(files: pd.DataFrame) -> str:
    return ": ".join(text for text in files.iloc[0][["path", "problem"]] if text) if len(files) else ""


def _table_names(table: pd.DataFrame) -> set[str]:
    return {Path(path).name for column in PATHS for path in table[column]}
