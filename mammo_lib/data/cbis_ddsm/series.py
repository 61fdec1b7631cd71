"""The image files in a copy of CBIS-DDSM, one row per file, whatever their layout.

The archive's unit is the series. NBIA Data Retriever, the classic tree, flat folders and IDC differ in the names of
folders and files, and some names contradict the tables, so the SeriesInstanceUID is read from each DICOM file. The
Kaggle mirror has JPEG files and a table with the content of the DICOM headers.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from pathlib import Path, PurePosixPath

import pandas as pd

from ...errors import InputError
from ...files import read_table, require, with_numbers
from ..dicom import read_header
from ..memo import remember

COLUMNS = ("path", "layout", "series", "instance", "description", "rows", "columns", "patient", "laterality", "problem")
TAGS = ("SeriesInstanceUID", "SOPInstanceUID", "SeriesDescription", "Rows", "Columns", "PatientID", "Laterality")
UID = r"\d+(?:\.\d+){3,}"
# Paths below the data folder, as each download tool writes them. They only name the layout for people: files are
# matched to the tables by their headers.
DICOM_LAYOUTS = {
    "nbia": re.compile(r"[^/]+/[^/]*\d{2}-\d{2}-\d{4}[^/]*/[^/]+/\d+-\d+\.dcm$"),
    "idc": re.compile(rf"[^/]+/{UID}/[A-Z]+_{UID}/[^/]+\.dcm$"),
    "classic": re.compile(rf"[^/]+/{UID}/{UID}/[^/]+\.dcm$"),
    "flat": re.compile(rf"(?:^|/){UID}/[^/]+\.dcm$"),
}
DIGITISED_MM = 0.046  # side of a pixel: no file records it; the digitisers of DDSM had 0.042 to 0.050 mm
LONGEST_SIDE = 2**16  # pixels; the films have up to 7,000
KAGGLE_TABLE = Path("csv") / "dicom_info.csv"
KAGGLE_COLUMNS = {"image_path": "path", "SeriesInstanceUID": "series", "SeriesDescription": "description",
                  "Rows": "rows", "Columns": "columns", "PatientID": "patient"}  # fmt: skip


def index_dicom(root: Path, paths: list[Path]) -> pd.DataFrame:
    """Return one row per DICOM file, with the columns of ``COLUMNS``.

    ``problem`` says why a header cannot be read (its series is then the folder's name), or which other file a
    duplicate repeats.
    """
    headers = remember("DICOM headers", paths, _read_header, keep=lambda header: not header["problem"])
    rows = [{"path": str(path), "layout": _layout(root, path), **headers[path]} for path in paths]
    frame = pd.DataFrame(rows, columns=COLUMNS)
    first = frame.drop_duplicates("instance").set_index("instance")["path"]
    repeated = frame["instance"].ne("") & frame["instance"].duplicated()
    frame.loc[repeated, "problem"] = [f"duplicate of {first[uid]}" for uid in frame.loc[repeated, "instance"]]
    return frame


def index_kaggle(root: Path) -> pd.DataFrame:
    """Return the same table for the Kaggle JPEG mirror, from ``csv/dicom_info.csv``.

    Raises
    ------
    InputError
        The table cannot be read, lacks a column, or a size is not a number of pixels.
    """
    path = root / KAGGLE_TABLE
    table = read_table(path, KAGGLE_COLUMNS, "download the mirror again")
    frame = table.rename(columns=KAGGLE_COLUMNS)[[*KAGGLE_COLUMNS.values()]].dropna(subset=["path"])
    # The table's paths begin with the data set's name, which is not a folder of the mirror.
    inside = [PurePosixPath(name.strip().replace("\\", "/")) for name in frame["path"]]
    frame["path"] = [str(root / "jpeg" / name.parent.name / name.name) for name in inside]
    frame["series"] = frame["series"].fillna("").str.strip()
    frame = with_numbers(path, frame, ("rows", "columns")).fillna({"rows": 0, "columns": 0})
    for name in ("rows", "columns"):
        require(path, frame[name], frame[name].between(0, LONGEST_SIDE), f"a number from 0 to {LONGEST_SIDE}")
    frame = frame.astype({"rows": int, "columns": int})
    frame["problem"] = ["" if os.path.isfile(path) else "in dicom_info.csv, but missing" for path in frame["path"]]
    frame = frame.assign(layout="kaggle", instance=frame["path"], laterality="")
    return frame.fillna({"description": "", "patient": ""}).drop_duplicates("path", ignore_index=True)[list(COLUMNS)]


def describe_layouts(files: pd.DataFrame) -> str:
    """Return the layouts of an index, the most frequent first: ``classic``, or ``nbia+flat`` where two are mixed."""
    return "+".join(name for name, _ in Counter(files["layout"]).most_common())


def _layout(root: Path, path: Path) -> str:
    inside = path.relative_to(root).as_posix()
    return next((name for name, pattern in DICOM_LAYOUTS.items() if pattern.search(inside)), "dicom")


def _read_header(path: Path) -> dict:
    try:
        header = read_header(path, TAGS)
        series = str(header.get("SeriesInstanceUID", path.parent.name))
        values = [str(header.get(tag, "")) for tag in ("SOPInstanceUID", "SeriesDescription", "PatientID")]
        size, side = (int(header.get("Rows", 0)), int(header.get("Columns", 0))), str(header.get("Laterality", ""))
        problem = "" if all(size) else "no Rows or Columns: not an image"
    except InputError as error:
        series, values, size, side = path.parent.name, ["", "", ""], (0, 0), ""
        problem = str(error).removeprefix(f"{path}: ")
    return {"series": series, "instance": values[0], "description": values[1], "rows": size[0], "columns": size[1],
            "patient": values[2], "laterality": side, "problem": problem}  # fmt: skip
