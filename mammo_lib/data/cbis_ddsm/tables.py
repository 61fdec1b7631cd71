"""The published description tables: find, parse, repair, name every repair, check against a schema.

A row is one lesion in one view. Missing values are NA; a density of 0 is stored where the readers gave none, so it is
NA too. No function here looks at pixels, and none changes a label.
"""

from __future__ import annotations

import functools
import re
from pathlib import Path

import pandas as pd

from ...config import fingerprint
from ...errors import InputError
from ..views import VIEWS

TABLE_PATTERN = "*_case_description_*_set.csv"

# Published column -> our column. The mass and calcification tables spell some of them differently.
COLUMNS = {
    "patient_id": "patient_id",
    "left or right breast": "laterality",
    "image view": "view",
    "abnormality id": "abnormality_id",
    "abnormality type": "lesion_type",
    "assessment": "assessment",
    "pathology": "pathology",
    "subtlety": "subtlety",
    "image file path": "image_path",
    "cropped image file path": "crop_path",
    "ROI mask file path": "mask_path",
}
DENSITY_SPELLINGS = ("breast_density", "breast density")
OPTIONAL = {
    "mass shape": "mass_shape",
    "mass margins": "mass_margins",
    "calc type": "calc_type",
    "calc distribution": "calc_distribution",
}
PATHS = ("image_path", "crop_path", "mask_path")
VOCABULARY = {
    "laterality": ("LEFT", "RIGHT"),
    "view": VIEWS,
    "lesion_type": ("calcification", "mass"),
    "pathology": ("BENIGN", "BENIGN_WITHOUT_CALLBACK", "MALIGNANT"),
}
# Smallest and largest code of each scale; 0 is BI-RADS "incomplete", and "not given" for the subtlety.
SCALES = {"abnormality_id": (1, None), "assessment": (0, 5), "subtlety": (0, 5), "density": (1, 4)}
CASE = re.compile(r"^(Mass|Calc)-(Training|Test)_")
CASE_OF = {("mass", "train"): "Mass-Training", ("mass", "test"): "Mass-Test",
           ("calc", "train"): "Calc-Training", ("calc", "test"): "Calc-Test"}  # fmt: skip


def find_tables(root: Path) -> list[Path]:
    """Return the description tables in ``root``, ``root/tables`` or ``root/csv``.

    Raises
    ------
    InputError
        There is none, or a lesion type has a train table without a test table (or the reverse).
    """
    for folder in (root, root / "tables", root / "csv"):
        paths = sorted(folder.glob(TABLE_PATTERN))
        if paths:
            _check_pairs(folder, {path.name for path in paths})
            return paths
    raise InputError(
        f"{root}: no {TABLE_PATTERN} here, in tables/ or in csv/; give the folder that holds the CBIS-DDSM tables"
    )


def read_tables(root: str | Path) -> pd.DataFrame:
    """Read the description tables of a copy of CBIS-DDSM into one tidy table.

    Returns
    -------
    DataFrame
        One row per published row, with ``patient_id laterality view abnormality_id lesion_type density assessment
        pathology subtlety split table``, the morphology columns, ``image_path crop_path mask_path``, and ``repairs``:
        the comma-joined names of the repairs that the row needed.

    Raises
    ------
    InputError
        A table is missing, lacks a column, holds what another table should hold, or a cell is empty or outside its
        vocabulary.
    """
    return pd.concat([_read_table(path) for path in find_tables(Path(root))], ignore_index=True)


def table_fingerprint(table: pd.DataFrame) -> str:
    """Return the SHA-256 of the canonical table: parsed, repaired, sorted; line ends and NA spellings do not count."""
    columns = [name for name in table.columns if name != "repairs"]
    keys = ["table", "patient_id", "laterality", "view", "abnormality_id"]
    canonical = table[columns].sort_values([*keys, "image_path", "crop_path"])
    return fingerprint(canonical.astype("string").fillna("").values.tolist())


@functools.cache
def table_schema():
    """Return the pandera schema of one tidy table."""
    import pandera.pandas as pa

    words = {name: pa.Column("string", pa.Check.isin(allowed), nullable=False) for name, allowed in VOCABULARY.items()}
    scales = {
        name: pa.Column("Int64", pa.Check.in_range(low, high if high is not None else 99), nullable=name == "density")
        for name, (low, high) in SCALES.items()
    }
    texts = {
        name: pa.Column("string", pa.Check.str_length(min_value=1), nullable=False) for name in ("patient_id", *PATHS)
    }
    return pa.DataFrameSchema(words | scales | texts)


def _check_pairs(folder: Path, names: set[str]) -> None:
    for name in sorted(names):
        partner = name.replace("_train_", "_test_") if "_train_" in name else name.replace("_test_", "_train_")
        if partner not in names:
            raise InputError(f"{folder / partner}: missing, while {name} is there; both official splits are needed")
    if not any(name.startswith("mass_") for name in names):
        raise InputError(
            f"{folder / 'mass_case_description_train_set.csv'}: missing; the cohorts are built from the mass tables"
        )


def _read_table(path: Path) -> pd.DataFrame:
    try:
        raw = pd.read_csv(path, dtype="string", keep_default_na=False, na_values=["", "N/A", "NA"])
    except (OSError, UnicodeDecodeError, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise InputError(f"{path}: not a readable CSV ({error}); download it again") from None
    spelling = next((name for name in DENSITY_SPELLINGS if name in raw.columns), None)
    missing = [name for name in COLUMNS if name not in raw.columns] + ([] if spelling else [DENSITY_SPELLINGS[0]])
    if missing:
        raise InputError(
            f"{path}: column {missing[0]!r} is missing (found: {', '.join(raw.columns)}); download the table again"
        )
    names = COLUMNS | OPTIONAL | {spelling: "density"}
    renamed = raw.rename(columns=names)
    tidy, repairs = _repair(renamed[[name for name in names.values() if name in renamed]], spelling)
    for name in SCALES:
        tidy[name] = _integers(path, tidy, name)
    _check_schema(path, tidy)
    _check_not_swapped(path, tidy)
    split = "train" if "_train_" in path.name else "test"
    return tidy.assign(split=split, table=path.stem, repairs=repairs)


def _repair(tidy: pd.DataFrame, spelling: str) -> tuple[pd.DataFrame, pd.Series]:
    tidy = tidy.copy()
    noted = pd.DataFrame(index=tidy.index)
    for name in PATHS:
        noted[f"newline in {name}"] = tidy[name].str.contains(r"[\r\n]", na=False)
        tidy[name] = tidy[name].str.strip()
    noted["density 0 is unknown"] = tidy["density"].eq("0").fillna(False)
    tidy["density"] = tidy["density"].mask(noted["density 0 is unknown"])
    noted["'breast density' spelt with a space"] = spelling == DENSITY_SPELLINGS[1]
    names = pd.Series(
        [",".join(noted.columns[row]) for row in noted.to_numpy(dtype=bool)], index=tidy.index, dtype="string"
    )
    return tidy, names


def _integers(path: Path, tidy: pd.DataFrame, name: str) -> pd.Series:
    values = pd.to_numeric(tidy[name], errors="coerce")
    strange = tidy.loc[~values.mod(1).eq(0).fillna(False) & tidy[name].notna(), name]
    if len(strange):
        raise InputError(f"{path}, row {strange.index[0] + 2}: {name} must be a whole number, got {strange.iloc[0]!r}")
    return values.astype("Int64")


def _check_schema(path: Path, tidy: pd.DataFrame) -> None:
    from pandera.errors import SchemaError

    try:
        table_schema().validate(tidy)
    except SchemaError as error:
        case = error.failure_cases.iloc[0]
        name, value = error.schema.name, case["failure_case"]
        where = f"{path}, row {case['index'] + 2}"
        published = next((p for p, ours in COLUMNS.items() if ours == name), name)
        if pd.isna(value) or value == "":
            raise InputError(f"{where}: {published!r} is empty; download the table again") from None
        if name in VOCABULARY:
            wanted = f"one of {', '.join(VOCABULARY[name])}"
        else:
            low, high = SCALES[name]
            wanted = f"at least {low}" if high is None else f"{low} to {high}"
        shown = repr(value) if isinstance(value, str) else value
        raise InputError(f"{where}: {name} must be {wanted}, got {shown}") from None


def _check_not_swapped(path: Path, tidy: pd.DataFrame) -> None:
    """A file under another one's name would turn training breasts into test breasts."""
    lesion_type, split = path.name[:4], "train" if "_train_" in path.name else "test"
    for name in PATHS:
        found = tidy[name].str.extract(CASE, expand=True).dropna().agg("-".join, axis=1)
        strange = found[found.ne(CASE_OF.get((lesion_type, split)))]
        if len(strange):
            raise InputError(
                f"{path}, row {strange.index[0] + 2}: a row of {strange.iloc[0]} in this table; "
                "tables are swapped or renamed: give each its published name again"
            )
