"""The published description tables: find, parse, repair (and name every repair), and check against a schema.

A row is one lesion in one view. Missing values are NA; a density of 0 is stored where the readers gave none, so it is
NA too. No function here reads pixels or changes a label.
"""

from __future__ import annotations

import functools
import re
from pathlib import Path

import pandas as pd

from ...config import fingerprint
from ...errors import InputError
from ...files import read_table, require
from ..cohort import patients_on_both_sides
from ..views import VIEWS

TABLE_PATTERN = "*_case_description_*_set.csv"
PACKED = ".gz"
# What a table of this name contains: lesion type, split, and the start of its cases' folder names.
TABLES = {
    "mass_case_description_train_set.csv": ("mass", "train", "Mass-Training"),
    "mass_case_description_test_set.csv": ("mass", "test", "Mass-Test"),
    "calc_case_description_train_set.csv": ("calcification", "train", "Calc-Training"),
    "calc_case_description_test_set.csv": ("calcification", "test", "Calc-Test"),
}

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
PATIENT = re.compile(r"P_[0-9]{5}")
# The folder of a film or a lesion, whatever precedes it: Mass-Training_P_00001_LEFT_CC, with _1 for a lesion.
CASE = re.compile(r"(?:^|/)((?:Mass|Calc)-(?:Training|Test)_P_[0-9]{5}_(?:LEFT|RIGHT)_(?:CC|MLO)(?:_[0-9]+)?/.+)$")
LESION = ["patient_id", "laterality", "view", "abnormality_id"]


def find_tables(root: Path) -> list[Path]:
    """Return the description tables in ``root``, ``root/tables`` or ``root/csv``; each may be packed by gzip.

    Raises
    ------
    InputError
        There is none, a name is not a published one, or one of the two tables of a lesion type is missing.
    """
    for folder in (root, root / "tables", root / "csv"):
        found = [path for ending in ("", PACKED) for path in folder.glob(TABLE_PATTERN + ending)]
        paths = sorted(path for path in found if not path.name.startswith("."))
        if paths:
            _check_pairs(folder, [published_name(path) for path in paths])
            return paths
    raise InputError(
        f"{root}: no {TABLE_PATTERN} here, in tables/ or in csv/; give the folder that holds the CBIS-DDSM tables"
    )


def published_name(path: Path) -> str:
    """Return the name under which a table was published."""
    return path.name.removesuffix(PACKED)


def read_tables(root: str | Path) -> pd.DataFrame:
    """Read the description tables of a copy of CBIS-DDSM into one tidy table.

    Returns
    -------
    DataFrame
        One row per published row, with ``patient_id laterality view abnormality_id lesion_type density assessment
        pathology subtlety split table``, the morphology columns, ``image_path crop_path mask_path`` (from the case's
        folder on), and ``repairs``: the comma-joined names of the repairs that the row needed.

    Raises
    ------
    InputError
        A table is missing, lacks a column, contains the rows of another table, or a cell is empty or outside its
        vocabulary; rows contradict each other; a patient is in both tables of a lesion type.
    """
    paths = find_tables(Path(root))
    table = pd.concat([_read_table(path) for path in paths], ignore_index=True)
    _check_disjoint(paths[0].parent, table)
    return table


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


def _check_pairs(folder: Path, names: list[str]) -> None:
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"{folder / name}: present twice, plain and packed ({PACKED}); keep one of them")
        if name not in TABLES:
            raise InputError(
                f"{folder / name}: not one of the published tables {', '.join(TABLES)}; remove it from the folder"
            )
        partner = name.replace("_train_", "_test_") if "_train_" in name else name.replace("_test_", "_train_")
        if partner not in names:
            raise InputError(f"{folder / partner}: missing, while {name} is there; both official splits are needed")
    if not any(name.startswith("mass_") for name in names):
        raise InputError(
            f"{folder / 'mass_case_description_train_set.csv'}: missing; the cohorts are built from the mass tables"
        )


def _read_table(path: Path) -> pd.DataFrame:
    raw = read_table(path, COLUMNS, "download the table again")
    spelling = next((name for name in DENSITY_SPELLINGS if name in raw), None)
    if spelling is None:
        raise InputError(f"{path}: column {DENSITY_SPELLINGS[0]!r} is missing; download the table again")
    if raw.empty:
        raise InputError(f"{path}: no rows below the header; download the table again")
    names = COLUMNS | OPTIONAL | {spelling: "density"}
    renamed = raw.rename(columns=names)
    tidy, noted = _repair(path, renamed[[name for name in names.values() if name in renamed]])
    noted["'breast density' spelt with a space"] = spelling == DENSITY_SPELLINGS[1]
    is_right = tidy["patient_id"].str.fullmatch(PATIENT) | tidy["patient_id"].isna()
    require(path, tidy["patient_id"], is_right, "P_ and five digits", "a spreadsheet changed it: download it again")
    _check_schema(path, tidy)
    _check_not_swapped(path, tidy)
    tidy, noted = _leave_out_repeated(path, tidy, noted)
    name = published_name(path)
    kinds = noted.columns.to_numpy(dtype=object)
    repairs = [",".join(kinds[row]) for row in noted.to_numpy(dtype=bool)]
    return tidy.assign(split=TABLES[name][1], table=Path(name).stem, repairs=pd.array(repairs, dtype="string"))


def _repair(path: Path, tidy: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the repaired table, and a boolean column per repair that marks the rows that needed it."""
    tidy, noted = tidy.copy(), pd.DataFrame(index=tidy.index)
    for name in tidy.columns.drop([*PATHS]):
        noted[f"space around {name}"] = tidy[name].ne(tidy[name].str.strip()).fillna(False)
        tidy[name] = tidy[name].str.strip()
    for name in PATHS:
        noted[f"newline in {name}"] = tidy[name].str.contains(r"[\r\n]", na=False)
        noted[f"backslashes in {name}"] = tidy[name].str.contains("\\", na=False, regex=False)
        tidy[name] = tidy[name].str.strip().str.replace("\\", "/", regex=False)
        inside = tidy[name].str.extract(CASE, expand=False)
        noted[f"folders before the case in {name}"] = inside.notna() & inside.ne(tidy[name])
        tidy[name] = inside.fillna(tidy[name])
    for name in SCALES:
        tidy[name] = _integers(path, tidy, name)
    noted["density 0 is unknown"] = tidy["density"].eq(0).fillna(False)
    tidy["density"] = tidy["density"].mask(noted["density 0 is unknown"])
    return tidy, noted


def _integers(path: Path, tidy: pd.DataFrame, name: str) -> pd.Series:
    values = pd.to_numeric(tidy[name], errors="coerce")
    require(path, tidy[name], values.mod(1).eq(0) & values.abs().lt(2**31) | tidy[name].isna(), "a whole number")
    return values.astype("Int64")


def _leave_out_repeated(path: Path, tidy: pd.DataFrame, noted: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Keep the first of identical rows and note the repair; refuse rows that contradict each other about a lesion."""
    noted["repeated row left out"] = tidy.duplicated(keep=False)
    is_first = ~tidy.duplicated()
    kept = tidy[is_first]
    for other in kept.index[kept.duplicated(LESION)]:
        one = kept.index[kept[LESION].eq(kept.loc[other, LESION]).all(axis=1)][0]
        pairs = zip(kept, kept.loc[one], kept.loc[other], strict=True)
        name, this, that = next(pair for pair in pairs if str(pair[1]) != str(pair[2]))
        raise InputError(
            f"{path}, row {other + 2}: {name} is {that!r:.80}, while row {one + 2} says {this!r:.80} of the same "
            "lesion and view; keep the right one of the two rows"
        )
    return kept, noted[is_first]


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
        shown = f"{value!r:.80}" if isinstance(value, str) else value
        raise InputError(f"{where}: {name} must be {wanted}, got {shown}") from None


def _check_not_swapped(path: Path, tidy: pd.DataFrame) -> None:
    """Refuse swapped tables and shifted cells: both would turn training breasts into test breasts."""
    lesion_type, _, group = TABLES[published_name(path)]
    film = group + "_" + tidy["patient_id"] + "_" + tidy["laterality"] + "_" + tidy["view"]
    lesion = film + "_" + tidy["abnormality_id"].astype("string")
    for name, stated in zip(PATHS, (film, lesion, lesion), strict=True):
        case = tidy[name].str.extract(CASE, expand=False).str.partition("/")[0]
        for row in tidy.index[case.ne(stated).fillna(True)]:
            where, found = f"{path}, row {row + 2}", case[row]
            if pd.isna(found):
                raise InputError(
                    f"{where}: {name} must name its case's folder, {stated[row]}/, got {tidy.loc[row, name]!r:.200}; "
                    "download the table again"
                )
            if not found.startswith(f"{group}_"):
                raise InputError(
                    f"{where}: a row of {found.partition('_')[0]} in this table; "
                    "tables are swapped or renamed: give each its published name again"
                )
            raise InputError(f"{where}: {name} is of {found}, but the row of {stated[row]}; download the table again")
    is_right = tidy["lesion_type"].eq(lesion_type)
    require(path, tidy["lesion_type"], is_right, f"{lesion_type} in this table", "download the table again")


def _check_disjoint(folder: Path, table: pd.DataFrame) -> None:
    """The official splits share no patient within a lesion type; pooled over both types they do."""
    for lesion_type, rows in table.groupby("lesion_type"):
        if both := sorted(patients_on_both_sides(rows)):
            raise InputError(
                f"{folder}: patients in both the train and the test table of type {lesion_type}: {len(both)}, "
                f"{both[0]} first; a model would be tested on its training patients: download the tables again"
            )
