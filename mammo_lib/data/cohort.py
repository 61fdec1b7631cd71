"""From the published description tables to breasts: parse, repair, name every repair, group.

A row of the tables is one lesion in one view. A row of a cohort is one breast (or one
lesion, for the definition that says so). Missing values are NA; a density of 0 is
stored where the readers gave none, so it is NA too. No function here looks at pixels,
and none changes a label.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from ..config import Definition, fingerprint
from ..errors import InputError

VIEWS = ("CC", "MLO")
SPLITS = ("train", "test")
TABLE_PATTERN = "*_case_description_*_set.csv"
BREAST = ["patient_id", "laterality"]

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
ALLOWED = {
    "laterality": {"LEFT", "RIGHT"},
    "view": set(VIEWS),
    "lesion_type": {"mass", "calcification"},
    "pathology": {"MALIGNANT", "BENIGN", "BENIGN_WITHOUT_CALLBACK"},
}


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
        A table is missing, lacks a column, or holds an empty cell or a value outside its vocabulary.
    """
    return pd.concat([_read_table(path) for path in find_tables(Path(root))], ignore_index=True)


def table_fingerprint(table: pd.DataFrame) -> str:
    """Return the SHA-256 of the canonical table: parsed, repaired, sorted; line ends and NA spellings do not count."""
    columns = [name for name in table.columns if name != "repairs"]
    keys = ["table", "patient_id", "laterality", "view", "abnormality_id"]
    canonical = table[columns].sort_values([*keys, "image_path", "crop_path"])
    return fingerprint(canonical.astype("string").fillna("").values.tolist())


def build_cohort(table: pd.DataFrame, definition: Definition = "paper", split: str = "train") -> pd.DataFrame:
    """Group lesion rows into the breasts of an official split.

    ``paper``: mass breasts with both views whose lesions carry one label (a candidate for the paper's test set, found
    by arithmetic). ``official``: mass breasts with both views, malignant when any lesion is. ``lesion``: mass lesions
    seen in both views, one row each. ``any-view``: mass breasts with at least one view. ``mass+calc``: both lesion
    types, both views; training breasts of patients who are also in a test table are left out, so that the official
    test stays whole.

    Returns
    -------
    DataFrame
        ``breast_id patient_id laterality split label lesion_type n_lesions density assessment subtlety`` (for
        ``lesion`` also ``abnormality_id``), and per view ``whole_<view>`` (the image's path in the table, NA without
        that view), ``crops_<view>`` and ``masks_<view>`` (tuples with one path per lesion in that view).
    """
    if split not in SPLITS:
        raise InputError(f"split must be one of {', '.join(SPLITS)}, got {split!r}")
    rows = table if definition == "mass+calc" else table[table["lesion_type"] == "mass"]
    if definition == "mass+calc":
        rows = rows[~(rows["split"].eq("train") & rows["patient_id"].isin(patients_on_both_sides(rows)))]
    rows = rows[rows["split"] == split]
    keys = [*BREAST, "abnormality_id"] if definition == "lesion" else BREAST
    if definition != "any-view":
        rows = rows[_has_both_views(rows, keys)]
    if definition == "paper":
        rows = rows[~_has_conflicting_labels(rows)]
    if rows.empty:
        raise InputError(
            f"cohort {definition!r}, split {split!r}: no breast fits; check that the {split} tables are there"
        )
    return _one_row_each(rows, keys)


def patients_on_both_sides(table: pd.DataFrame) -> set[str]:
    """Return the patients with rows in both official splits: some, once mass and calcification tables are pooled."""
    train, test = (set(table.loc[table["split"] == split, "patient_id"]) for split in SPLITS)
    return train & test


def cohort_funnel(table: pd.DataFrame, split: str) -> pd.DataFrame:
    """Count ``rows breasts patients malignant`` after each ``step`` from the split's tables to the paper cohort."""
    rows = table[table["split"] == split]
    steps = {"all rows of the split": rows}
    steps["mass lesions"] = rows = rows[rows["lesion_type"] == "mass"]
    steps["both views"] = rows = rows[_has_both_views(rows, BREAST)]
    steps["one label per breast"] = rows[~_has_conflicting_labels(rows)]
    return pd.DataFrame([{"step": name, **_count(part)} for name, part in steps.items()])


def assign_folds(cohort: pd.DataFrame, n_folds: int, seed: int) -> pd.Series:
    """Return a fold index per row: no patient in two folds, labels balanced, the same for the same seed."""
    from sklearn.model_selection import StratifiedGroupKFold

    if cohort["patient_id"].nunique() < n_folds:
        raise InputError(f"n_folds={n_folds} exceeds the {cohort['patient_id'].nunique()} patients: lower data.n_folds")
    folds = pd.Series(-1, index=cohort.index, name="fold")
    splitter = StratifiedGroupKFold(n_folds, shuffle=True, random_state=seed)
    for fold, (_, members) in enumerate(splitter.split(cohort, cohort["label"], cohort["patient_id"])):
        folds.iloc[members] = fold
    return folds


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
    tidy = raw.rename(columns=names)[[name for name in names.values() if name in raw.rename(columns=names)]]
    tidy, repairs = _repair(tidy, spelling)
    _check_filled(path, tidy)
    _check_vocabulary(path, tidy)
    for name in ("abnormality_id", "assessment", "subtlety", "density"):
        tidy[name] = _integers(path, tidy, name)
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


def _check_filled(path: Path, tidy: pd.DataFrame) -> None:
    for published, name in COLUMNS.items():
        empty = tidy.index[tidy[name].isna() | tidy[name].eq("")]
        if len(empty):
            raise InputError(f"{path}, row {empty[0] + 2}: {published!r} is empty; download the table again")


def _check_vocabulary(path: Path, tidy: pd.DataFrame) -> None:
    for name, allowed in ALLOWED.items():
        strange = tidy.loc[~tidy[name].isin(allowed), name]
        if len(strange):
            row = strange.index[0] + 2
            raise InputError(
                f"{path}, row {row}: {name} must be one of {', '.join(sorted(allowed))}, got {strange.iloc[0]!r}"
            )


def _integers(path: Path, tidy: pd.DataFrame, name: str) -> pd.Series:
    values = pd.to_numeric(tidy[name], errors="coerce")
    strange = tidy.loc[~values.mod(1).eq(0).fillna(False) & tidy[name].notna(), name]
    if len(strange):
        raise InputError(f"{path}, row {strange.index[0] + 2}: {name} must be a whole number, got {strange.iloc[0]!r}")
    return values.astype("Int64")


def _has_both_views(rows: pd.DataFrame, keys: list[str]) -> pd.Series:
    return rows.groupby(keys)["view"].transform("nunique").eq(len(VIEWS))


def _has_conflicting_labels(rows: pd.DataFrame) -> pd.Series:
    return _is_malignant(rows).groupby([rows[key] for key in BREAST]).transform("nunique").gt(1)


def _is_malignant(rows: pd.DataFrame) -> pd.Series:
    return rows["pathology"].eq("MALIGNANT").astype(bool)


def _count(rows: pd.DataFrame) -> dict[str, int]:
    malignant = _is_malignant(rows).groupby([rows[key] for key in BREAST]).any()
    return {
        "rows": len(rows),
        "breasts": len(malignant),
        "patients": rows["patient_id"].nunique(),
        "malignant": int(malignant.sum()),
    }


def _one_row_each(rows: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    """Collapse lesion rows to one per key; reader scores are the highest over the lesions."""
    # A breast with both kinds of lesion counts as a mass: the mass decides what the crop shows.
    rows = rows.assign(label=_is_malignant(rows).astype(int), is_mass=rows["lesion_type"].eq("mass"))
    grouped = rows.groupby(keys, sort=True)
    cohort = grouped.agg(
        split=("split", "first"), label=("label", "max"), is_mass=("is_mass", "any"),
        n_lesions=("abnormality_id", "nunique"),
        density=("density", "max"), assessment=("assessment", "max"), subtlety=("subtlety", "max"),
    )  # fmt: skip
    for view in VIEWS:
        seen = rows[rows["view"] == view].groupby(keys)
        cohort[f"whole_{view}"] = seen["image_path"].first().reindex(cohort.index)
        for name in ("crop", "mask"):
            paths = {key: tuple(values) for key, values in seen[f"{name}_path"]}
            cohort[f"{name}s_{view}"] = [paths.get(key, ()) for key in cohort.index]
    cohort = cohort.reset_index()
    cohort["lesion_type"] = cohort.pop("is_mass").map({True: "mass", False: "calcification"})
    cohort.insert(0, "breast_id", cohort["patient_id"] + "_" + cohort["laterality"])
    return cohort
