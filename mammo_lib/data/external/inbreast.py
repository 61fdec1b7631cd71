"""INbreast: 410 digital images of 115 examinations from Portugal (Moreira et al. 2012).

Assumed, as in release 1.0: ``INbreast.csv`` (separated by semicolons) or ``INbreast.xls`` with the columns
``Patient ID; Patient age; Laterality; View; Acquisition date; File Name; ACR; Bi-Rads``, perhaps with rows of other
text above the header and below the last image; images ``<file>_<patient>_MG_<L|R>_<CC|ML>_ANON.dcm``, where ``ML``
stands for MLO; ``<file>.xml`` with OsiriX outlines (property lists, the origin at the top left), absent for images
without a lesion. The table's patient ids are "removed", so the patient is taken from the file name. ``ACR`` may be
blank; ``Bi-Rads`` may be 4a, 4b or 4c.

The table has no biopsy results: only the readers' BI-RADS category is known, and no breast gets a malignancy label.
If a breast was examined twice, the earlier examination is used.
"""

from __future__ import annotations

import plistlib
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from ...errors import InputError
from ...files import read_table, require
from ..folders import find_collection
from ..header_tags import SIDES
from ..views import VIEWS
from .adapter import About, OtherCollection, as_left_out, as_table, dicom_first, find_named, only_one

ABOUT = About(
    key="inbreast",
    name="INbreast",
    citation="Moreira IC et al. (2012). INbreast: toward a full-field digital mammographic database. "
    "Academic Radiology 19(2):236-248.",
    licence="on request to the authors, for research; no redistribution",
    truth="readers",
    margin=14,  # 1 mm at 70 micrometres
)
TABLE = r"inbreast\.(csv|xls|xlsx)"
IMAGE = re.compile(r"(?P<file>\d+)_(?P<patient>[0-9a-f]+)_MG_(?P<side>[LR])_(?P<view>\w+?)_ANON", re.IGNORECASE)
COLUMNS_READ = ("Laterality", "View", "Acquisition date", "File Name", "ACR", "Bi-Rads")
HEADER = "File Name"
OUTLINES = {"mass": "mass", "espiculated region": "mass", "spiculated region": "mass", "calcification": "calcification",
            "calcifications": "calcification", "cluster": "calcification"}  # fmt: skip
CATEGORY = r"([0-6])[a-c]?"
WAY_OUT = "save the sheet as CSV, with its header"


def open_inbreast(root: str | Path) -> OtherCollection:
    """Open a copy of INbreast, complete or not.

    Raises
    ------
    InputError
        The table is missing or cannot be read, an outline is not a property list, or no image belongs to a row.
    """
    root = Path(root)
    rows, files = read_inbreast_table(_chosen_table(root)), _named_files(root)
    outlines = {path.stem: path for path in find_named(root, r"\d+\.xml")}
    left_out = [(name, "no row in the table") for name in sorted(set(files) - set(rows["file"]))]
    found, seen, examined = [], set(), {}
    for row in rows.sort_values(["date", "file"]).to_dict("records"):
        key, reason = _matched(row, files.get(row["file"]), seen, examined)
        if reason:
            left_out.append((row["file"], reason))
            continue
        place = {"image_path": files[row["file"]][0].relative_to(root).as_posix()}
        lesions = [*_read_outlines(outlines[row["file"]])] if row["file"] in outlines else []
        found += [row | key | place | lesion for lesion in lesions or [{"lesion_type": "none"}]]
    if not found:
        raise InputError(f"{root}: no image of the table is here; give the folder that holds both")
    return OtherCollection(ABOUT, root, as_table(pd.DataFrame(found)), as_left_out(left_out))


def find_inbreast(root: Path) -> list[Path]:
    """Return the files below a folder that may be the table of INbreast."""
    return find_named(root, TABLE)


def read_inbreast_table(path: Path) -> pd.DataFrame:
    """Return ``file laterality view date assessment density`` of every image of the table.

    Raises
    ------
    InputError
        A column is missing, a cell is outside its vocabulary, or a spreadsheet cannot be read.
    """
    raw = _read_sheet(path) if path.suffix.lower() != ".csv" else _read_plain(path)
    raw = raw.apply(lambda column: column.str.strip())
    number = raw["File Name"].str.removesuffix(".0")
    raw = raw.assign(**{"File Name": number})[number.fillna("").str.fullmatch(r"\d{5,}")]  # others are titles and sums
    if raw.empty:
        raise InputError(f"{path}: no row has a file number under 'File Name'; {WAY_OUT}")
    density = raw["ACR"].str.removesuffix(".0").replace({"": pd.NA})
    category = raw["Bi-Rads"].str.removesuffix(".0").str.lower().str.extract(f"^{CATEGORY}$")[0]
    require(path, raw["Laterality"], raw["Laterality"].isin(list(SIDES)), "L or R")
    require(path, raw["Bi-Rads"], category.notna(), "0 to 6, or 4a, 4b, 4c")
    require(path, raw["ACR"], density.isna() | density.isin(list("1234")), "1 to 4, or blank")
    return pd.DataFrame({
        "file": raw["File Name"], "laterality": raw["Laterality"].map(SIDES),
        "view": raw["View"].str.upper().replace({"ML": "MLO"}), "date": raw["Acquisition date"].fillna(""),
        "assessment": category.astype("Int64"), "density": density.astype("Int64"),
    })  # fmt: skip


def _chosen_table(root: Path) -> Path:
    """Return the table; the CSV if a copy has it both as CSV and as a spreadsheet."""
    found = find_inbreast(root)
    plain = [path for path in found if path.suffix.lower() == ".csv"]
    return only_one(root, plain or found, "INbreast.csv or INbreast.xls")


def _read_plain(path: Path) -> pd.DataFrame:
    return read_table(path, COLUMNS_READ, WAY_OUT, fallback="latin-1", header=HEADER)


def _read_sheet(path: Path) -> pd.DataFrame:
    """Return the first sheet as text, from the row that holds the header."""
    try:
        cells = pd.read_excel(path, header=None, dtype="string")
    except ImportError as error:
        raise InputError(f"{path}: {error}; install it, or {WAY_OUT}") from None
    except Exception as error:  # a damaged file can raise anything
        raise InputError(f"{path}: not a readable spreadsheet ({type(error).__name__}); {WAY_OUT}") from None
    cells = cells.apply(lambda column: column.str.strip())
    at = np.flatnonzero(cells.eq(HEADER).fillna(False).any(axis=1))
    names = [] if not len(at) else cells.iloc[at[0]].fillna("").tolist()
    if missing := [name for name in COLUMNS_READ if name not in names]:
        raise InputError(f"{path}: column {missing[0]!r} is missing; {WAY_OUT}")
    frame = cells.iloc[at[0] + 1 :]
    return pd.DataFrame({name: frame.iloc[:, names.index(name)] for name in COLUMNS_READ})


def _named_files(root: Path) -> dict[str, tuple[Path, re.Match]]:
    """Return {number: file and what its name says} of every image below a folder; DICOM before a picture of it."""
    files = dicom_first(find_collection(root, "DICOM", "picture"))
    named = ((path, IMAGE.fullmatch(path.stem)) for path in files)
    return {match["file"]: (path, match) for path, match in reversed([*named]) if match}


def _matched(row: dict, file: tuple | None, seen: set, examined: dict) -> tuple[dict, str]:
    """Return the identity of an image, and the reason if it cannot be used.

    ``seen`` are the views used so far, ``examined`` the date of each breast's first examination.
    """
    if file is None:
        return {}, "no image"
    named = file[1]
    side, view = SIDES[named["side"].upper()], named["view"].upper().replace("MLO", "ML").replace("ML", "MLO")
    if (side, view) != (row["laterality"], row["view"]):
        return {}, f"the table says {row['laterality']} {row['view']}, the file's name {side} {view}"
    if view not in VIEWS:
        return {}, f"a view {view}"
    key = {"patient_id": named["patient"].lower(), "laterality": side, "view": view}
    if tuple(key.values()) in seen:
        return {}, "a second image of its view"
    if examined.setdefault((key["patient_id"], side), row["date"]) != row["date"]:
        return {}, "of a later examination"
    seen.add(tuple(key.values()))
    return key, ""


def _read_outlines(path: Path) -> Iterator[dict]:
    """Yield ``finding lesion_type x0 y0 x1 y1`` of every outline of a property list of OsiriX."""
    try:
        regions = [one for image in plistlib.loads(path.read_bytes())["Images"] for one in image["ROIs"]]
        outlines = [(str(one.get("Name", "")).strip(), _points(one["Point_px"])) for one in regions]
    except Exception as error:  # a damaged file can raise anything, such as an XML error
        raise InputError(f"{path}: not the outlines of OsiriX ({type(error).__name__}); restore the file") from None
    for name, points in outlines:
        if len(points):
            (x0, y0), (x1, y1) = points.min(axis=0), points.max(axis=0)
            kind = OUTLINES.get(name.lower(), "other")
            yield {"finding": name, "lesion_type": kind, "x0": x0, "y0": y0, "x1": x1, "y1": y1}


def _points(texts: list[str]) -> np.ndarray:
    """Return the points of an outline, (n, 2), from texts of the form "(x, y)"."""
    pairs = (text.strip().strip("()").split(",") for text in texts)
    return np.array([(float(x), float(y)) for x, y in pairs]).reshape(-1, 2)
