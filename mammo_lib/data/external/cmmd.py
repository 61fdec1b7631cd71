"""CMMD, in two forms: to be scored (:func:`adapt_cmmd`), or as a data set with the cohorts of CBIS-DDSM.

The second (:func:`open_cmmd`) is the example for a data set of one's own. It provides two things; cohorts, preparation,
batches and scores are used unchanged:

1. a *table* in the form of :func:`mammo_lib.data.cbis_ddsm.tables.read_tables`, one row per lesion and view, with NA
   for fields that the collection does not give. Every row has the split ``test``, because nothing is trained on it;
2. a *source* (:class:`mammo_lib.data.views.ImageSource`) that locates the image of each view.

CMMD (Cui et al. 2021, doi 10.7937/tcia.eqde-4b16, CC BY 4.0): digital mammograms of Chinese patients, biopsy-proven.
It marks no lesions, so there are no crops: the crop stream is absent, and networks mask it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from ...errors import InputError
from ...files import read_table, require
from ..collection import Collection
from ..dicom import read_header
from ..folders import find_collection
from ..header_tags import SIDES, read_tags
from ..memo import remember
from ..views import BREAST, VIEWS, Box, Located, locate_each
from .adapter import About, OtherCollection, as_left_out, as_table, find_named

ABOUT = About(
    key="cmmd",
    name="CMMD",
    citation="Cui C et al. (2021). The Chinese Mammography Database (CMMD). The Cancer Imaging Archive. "
    "doi 10.7937/tcia.eqde-4b16",
    licence="CC BY 4.0",
    truth="pathology",
)
CLINICAL = r"CMMD_clinicaldata.*\.csv"  # published as .xlsx, under the same name
LESIONS = {"mass": "mass", "calcification": "calcification", "both": "mass"}  # as in CBIS-DDSM: the mass counts
CLASSES = {"Benign": "BENIGN", "Malignant": "MALIGNANT"}
WORDS = {"LeftRight": SIDES, "abnormality": LESIONS, "classification": CLASSES}
SPECIAL = "not a standard CC or MLO view"


@dataclass(frozen=True)
class CmmdFolder:
    """The images of CMMD: whole views only.

    ``unmatched`` has one row (``patient_id laterality reason``) per breast of the clinical table without an image, per
    imaged breast that is not in the table (it has no label and is in no cohort), and per image that is the second one
    of its view or not a standard view.
    """

    root: Path
    unmatched: pd.DataFrame
    kind: str = "cmmd"

    def locate(self, cohort: pd.DataFrame) -> pd.DataFrame:
        """Answer for every sample, view and stream of a cohort; crops are absent."""
        return locate_each(cohort, self._locate)

    def boxes(self, cohort: pd.DataFrame) -> dict[tuple[str, str], Box]:
        """Return none: CMMD marks no lesion."""
        return {}

    def _locate(self, row, view: str, stream: str) -> Located:
        names, image = (row.sample_id, row.breast_id, view, stream), getattr(row, f"whole_{view}")
        if stream == "crop" or pd.isna(image):
            return Located(*names, "absent")
        path = self.root / image
        return Located(*names, "found", str(path)) if path.is_file() else Located(*names, "missing", str(path), "gone")


def open_cmmd(root: str | Path) -> Collection:
    """Open a copy of CMMD: the clinical table as CSV and the DICOM files, anywhere below ``root``.

    Raises
    ------
    InputError
        The table is missing, lacks a column or holds an unknown word; a DICOM header cannot be read; nothing matches.
    """
    root = Path(root)
    lesions, images = read_clinical_table(root), _index_images(root)
    special = images.pop("special").ne("")
    again = images[~special].duplicated([*BREAST, "view"]).reindex(images.index, fill_value=False)
    passed_over = pd.concat(
        [images[again].assign(reason="a second image of its view"), images[special].assign(reason=SPECIAL)]
    )
    images = images[~special & ~again]
    both = lesions.merge(images, on=BREAST, how="outer", indicator="found")
    reasons = both["found"].map({"left_only": "no image", "right_only": "no row in the clinical table"})
    unmatched = both.assign(reason=reasons).dropna(subset="reason")[[*BREAST, "reason"]].drop_duplicates()
    unmatched = pd.concat([unmatched, passed_over[[*BREAST, "reason"]]])
    table = both[both["found"] == "both"].drop(columns="found").reset_index(drop=True)
    if table.empty:
        raise InputError(f"{root}: no image belongs to a row of the clinical table; give the folder that holds both")
    return Collection(root, table, CmmdFolder(root, unmatched.reset_index(drop=True)))


def adapt_cmmd(root: str | Path) -> OtherCollection:
    """Open a copy of CMMD as a collection to be scored; the errors are those of :func:`open_cmmd`."""
    opened = open_cmmd(root)
    unmatched = opened.source.unmatched
    items = (unmatched["patient_id"] + "_" + unmatched["laterality"], unmatched["reason"])
    table = as_table(opened.table.assign(finding=opened.table["lesion_type"]))
    return OtherCollection(ABOUT, opened.root, table, as_left_out(zip(*items, strict=True)))


def find_cmmd(root: Path) -> list[Path]:
    """Return the files below a folder that may be CMMD's clinical table, including the archive's spreadsheet."""
    return find_named(root, r"CMMD_clinicaldata.*")


def read_clinical_table(root: Path) -> pd.DataFrame:
    """Return the clinical table as lesions, one row each, in our names; reader scores and density are NA.

    Raises
    ------
    InputError
        There is none or more than one, a column is missing, or a cell is outside its vocabulary.
    """
    paths = find_named(Path(root), CLINICAL)
    if len(paths) != 1:
        raise InputError(
            f"{root}: {len(paths)} files CMMD_clinicaldata*.csv, expected 1; the archive has it as .xlsx: save as CSV"
        )
    raw = read_table(paths[0], ("ID1", *WORDS), "save the archive's table as CSV again")
    raw = raw.apply(lambda column: column.str.strip())
    require(paths[0], raw["ID1"], raw["ID1"].notna(), "a patient's name")
    for column, words in WORDS.items():
        require(paths[0], raw[column], raw[column].isin(list(words)), f"one of {', '.join(words)}")
    lesions = pd.DataFrame({"patient_id": raw["ID1"], "laterality": raw["LeftRight"].map(SIDES)}).astype("string")
    lesions["abnormality_id"] = lesions.groupby(BREAST).cumcount() + 1
    lesions["lesion_type"] = raw["abnormality"].map(LESIONS)
    lesions["pathology"] = raw["classification"].map(CLASSES)
    unknown = dict.fromkeys(("density", "assessment", "subtlety"), pd.array([pd.NA] * len(raw), dtype="Int64"))
    return lesions.assign(**unknown, crop_path=pd.NA, mask_path=pd.NA, split="test", table=paths[0].stem)


def _index_images(root: Path) -> pd.DataFrame:
    """Return ``patient_id laterality view special image_path`` of CC and MLO images, in the order of their paths."""
    paths = find_collection(root, "DICOM")
    headers = remember("headers of CMMD", paths, _read_header)
    rows = [[*headers[path], path.relative_to(root).as_posix()] for path in paths if headers[path][2]]
    return pd.DataFrame(rows, columns=[*BREAST, "view", "special", "image_path"], dtype="string")


def _read_header(path: Path) -> list[str]:
    """Return patient, side, view and why it is not a standard view; the view is empty if it is neither CC nor MLO."""
    tags = read_tags(path)
    if tags["side"] not in SIDES.values():
        said = str(read_header(path, ("ImageLaterality",)).get("ImageLaterality", ""))
        raise InputError(f"{path}: ImageLaterality must be L or R, got {said!r}; leave the file out or correct its tag")
    return [tags["patient"], tags["side"], tags["view"] if tags["view"] in VIEWS else "", tags["special"]]
