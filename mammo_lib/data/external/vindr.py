"""VinDr-Mammo: 5,000 digital examinations from Vietnam, four views each (Nguyen et al. 2023).

Assumed, as on PhysioNet (version 1.0.0): ``breast-level_annotations.csv``, one row per image (``study_id series_id
laterality view_position image_id height width breast_birads breast_density split``, such as "BI-RADS 4" and "DENSITY
C"); ``finding_annotations.csv``, one row per finding (the same, and ``finding_categories`` such as "['Mass']",
``finding_birads``, ``xmin ymin xmax ymax``, empty for "No Finding"); images ``<image_id>.dicom`` (or pictures of the
same name and size) anywhere below. A study is one patient.

**There is no biopsy.** The radiologists' BI-RADS category is all that is known: no breast has a label of malignancy,
and no score on it says anything about cancer. Boxes are in pixels of the full-resolution image.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd

from ...errors import InputError
from ...files import read_table, require, with_numbers
from ..folders import find_collection
from ..header_tags import SIDES
from ..views import VIEWS
from .adapter import About, OtherCollection, as_left_out, as_table, dicom_first, find_named, only_one

ABOUT = About(
    key="vindr_mammo",
    name="VinDr-Mammo",
    citation="Nguyen HT et al. (2023). VinDr-Mammo: a large-scale benchmark dataset for computer-aided diagnosis in "
    "full-field digital mammography. Scientific Data 10:277.",
    licence="PhysioNet, under its data use agreement; no redistribution",
    truth="readers",
)
BREASTS, FINDINGS = r"breast-level_annotations\.csv", r"finding_annotations\.csv"
IMAGE_COLUMNS = ("study_id", "image_id", "laterality", "view_position", "height", "width", "breast_birads",
                 "breast_density")  # fmt: skip
BOX = {"xmin": "x0", "ymin": "y0", "xmax": "x1", "ymax": "y1"}
DENSITIES = {f"DENSITY {letter}": number for number, letter in enumerate("ABCD", start=1)}
CATEGORIES = {f"BI-RADS {number}": number for number in range(7)}
TYPES_OF = {"Mass": "mass", "Suspicious Calcification": "calcification"}
NOTHING = "No Finding"
WAY_OUT = "restore the file from PhysioNet"


def open_vindr(root: str | Path) -> OtherCollection:
    """Open a copy of VinDr-Mammo, complete or not; without the table of findings nothing is marked.

    Raises
    ------
    InputError
        The table of breasts is missing, a table lacks a column or has a cell outside its vocabulary, or no image
        belongs to a row.
    """
    root = Path(root)
    images = _read_images(only_one(root, find_vindr(root), "breast-level_annotations.csv"))
    images_here = dicom_first(find_collection(root, "DICOM", "picture"))
    files = {one.stem: one.relative_to(root).as_posix() for one in reversed(images_here)}
    has_file = images["image_id"].isin(list(files))
    left_out = [(name, "no image") for name in images.loc[~has_file, "image_id"]]
    left_out += [(name, "no row in the table") for name in sorted(set(files) - set(images["image_id"]))]
    if not has_file.any():
        raise InputError(f"{root}: no image of breast-level_annotations.csv is here; give the folder that holds both")
    kept = images[has_file].assign(image_path=images["image_id"].map(files))
    again = kept.duplicated(["patient_id", "laterality", "view"])
    left_out += [(name, "a second image of its view") for name in kept.loc[again, "image_id"]]
    findings = _read_findings(root)
    foreign = ~findings["image_id"].isin(images["image_id"])
    left_out += [(name, "a finding without a row in the table") for name in findings.loc[foreign, "image_id"]]
    table = kept[~again].merge(findings, on="image_id", how="left")
    table["lesion_type"] = table["lesion_type"].fillna("none")
    return OtherCollection(ABOUT, root, as_table(table), as_left_out(left_out))


def find_vindr(root: Path) -> list[Path]:
    """Return the files below a folder that may be the table of VinDr-Mammo's breasts."""
    return find_named(root, BREASTS)


def _read_images(path: Path) -> pd.DataFrame:
    raw = read_table(path, IMAGE_COLUMNS, WAY_OUT, fallback="latin-1").apply(lambda column: column.str.strip())
    raw = with_numbers(path, raw, ("height", "width"))
    known = {"laterality": SIDES, "view_position": VIEWS, "breast_birads": CATEGORIES, "breast_density": DENSITIES}
    for column, words in known.items():
        is_known = raw[column].isin(list(words)) | (raw[column].isna() & column.startswith("breast"))
        require(path, raw[column], is_known, f"one of {', '.join(words)}")
    for column in ("study_id", "image_id"):
        require(path, raw[column], raw[column].notna(), "an identifier")
    require(path, raw["image_id"], ~raw["image_id"].duplicated(), "of an image that no earlier row has")
    return pd.DataFrame({
        "patient_id": raw["study_id"], "image_id": raw["image_id"], "laterality": raw["laterality"].map(SIDES),
        "view": raw["view_position"], "assessment": raw["breast_birads"].map(CATEGORIES).astype("Int64"),
        "density": raw["breast_density"].map(DENSITIES).astype("Int64"), "height": raw["height"], "width": raw["width"],
    })  # fmt: skip


def _read_findings(root: Path) -> pd.DataFrame:
    """Return ``image_id finding lesion_type x0 y0 x1 y1``, one row per finding."""
    found = find_named(root, FINDINGS)
    if not found:
        return pd.DataFrame(columns=["image_id", "finding", "lesion_type", *BOX.values()])
    path = only_one(root, found, "finding_annotations.csv")
    raw = read_table(path, ("image_id", "finding_categories", *BOX), WAY_OUT, fallback="latin-1")
    raw = with_numbers(path, raw, BOX)
    texts = raw["finding_categories"].fillna("").str.title()
    words = [re.findall(r"[A-Za-z][A-Za-z ]*", text) for text in texts]
    is_finding = np.array([bool(some) and some != [NOTHING] for some in words], dtype=bool)
    raw, words = raw[is_finding], [some for some, is_one in zip(words, is_finding, strict=True) if is_one]
    for low, high in (("xmin", "xmax"), ("ymin", "ymax")):
        require(path, raw[high], (raw[high] > raw[low]) | raw[low].isna(), f"larger than {low}")
    types = [next((TYPES_OF[word] for word in TYPES_OF if word in some), "other") for some in words]
    findings = pd.DataFrame(
        {"image_id": raw["image_id"].str.strip(), "finding": [" and ".join(some) for some in words]}, dtype="string"
    )
    return findings.assign(
        lesion_type=pd.array(types, dtype="string"), **{ours: raw[theirs] for theirs, ours in BOX.items()}
    )
