"""From lesion rows to breasts: cohort definitions, the selection of the paper's cohort, and validation folds.

A row of a cohort is one sample: a breast or, for the definition ``lesion``, a lesion.
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import pandas as pd

from ..config import TARGETS, DataConfig, Definition
from ..errors import InputError
from .views import BREAST, SPLITS, VIEWS

# Targets, and where the tables describe them.
WORDS = {
    "shape": "mass_shape", "margins": "mass_margins",
    "calc_type": "calc_type", "calc_distribution": "calc_distribution",
}  # fmt: skip
SPELLINGS = {"LUCENT_CENTERED": "LUCENT_CENTER"}


def build_cohort(table: pd.DataFrame, definition: Definition = "paper", split: str = "train") -> pd.DataFrame:
    """Group lesion rows into the breasts of an official split.

    ``paper``: mass breasts with both views whose lesions have one label (a candidate for the paper's test set, found
    by arithmetic). ``official``: mass breasts with both views, malignant when any lesion is. ``lesion``: mass lesions
    seen in both views, one row each. ``any-view``: mass breasts with at least one view. ``calc``: calcification breasts
    with both views, malignant when any calcification is. ``mass+calc``: both lesion types, both views; training breasts
    of patients who are also in a test table are left out, so that the official test stays whole. ``lesion-id``: mass
    breasts with a lesion *id* seen in both views, malignant when any such lesion is; it has as many test breasts as the
    paper, two of which differ from those of ``paper``.

    Returns
    -------
    DataFrame
        ``sample_id breast_id patient_id laterality split label lesion_type n_lesions density assessment subtlety``
        (``sample_id`` is the breast's; for ``lesion`` the ``abnormality_id`` is appended), and per view
        ``whole_<view>`` (the image's path in the table, NA without that view), ``crops_<view>`` and ``masks_<view>``
        (tuples with one path per lesion in that view). If the table describes masses, also ``shape`` and ``margins``;
        if it describes calcifications, also ``calc_type`` and ``calc_distribution``: the one word of the target's
        classes that the readers used for the breast's lesions of the cohort, NA for none or several.
    """
    if split not in SPLITS:
        raise InputError(f"split must be one of {', '.join(SPLITS)}, got {split!r}")
    lesions = {"calc": ("calcification",), "mass+calc": ("mass", "calcification")}.get(definition, ("mass",))
    rows = table[table["lesion_type"].isin(lesions)]
    if definition == "mass+calc":
        rows = rows[~(rows["split"].eq("train") & rows["patient_id"].isin(patients_on_both_sides(rows)))]
    rows = rows[rows["split"] == split]
    keys = [*BREAST, "abnormality_id"] if definition == "lesion" else BREAST
    if definition == "lesion-id":
        rows = rows[_has_both_views(rows, [*BREAST, "abnormality_id"])]
    elif definition != "any-view":
        rows = rows[_has_both_views(rows, keys)]
    if definition == "paper":
        rows = rows[~has_conflicting_labels(rows)]
    if rows.empty:
        raise InputError(
            f"cohort {definition!r}, split {split!r}: no breast fits; check that the {split} tables are there"
        )
    return _one_row_each(rows, keys)


def build_cohorts(table: pd.DataFrame, definition: Definition = "paper") -> dict[str, pd.DataFrame]:
    """Return the cohorts of both official splits by the split's name; see :func:`build_cohort`."""
    return {split: build_cohort(table, definition, split) for split in SPLITS}


def select_cohort(table: pd.DataFrame, data: DataConfig, split: str) -> pd.DataFrame:
    """Return the breasts of an official split that a config selects; breasts for training only are ``is_extra``."""
    cohort = build_cohort(table, data.definition, split).assign(is_extra=False)
    if split == "train" and data.extra_training:
        return with_extra(cohort, build_cohort(table, data.extra_training, split))
    return cohort


def with_extra(cohort: pd.DataFrame, wider: pd.DataFrame) -> pd.DataFrame:
    """Return the cohort plus the additional breasts of a wider one, marked ``is_extra``."""
    extra = wider[~wider["breast_id"].isin(cohort["breast_id"])]
    return pd.concat([cohort.assign(is_extra=False), extra.assign(is_extra=True)], ignore_index=True)


def patients_on_both_sides(table: pd.DataFrame) -> set[str]:
    """Return the patients with rows in both official splits; there are some if masses and calcifications are pooled."""
    train, test = (set(table.loc[table["split"] == split, "patient_id"]) for split in SPLITS)
    return train & test


def pooled_leak(table: pd.DataFrame) -> dict[str, int]:
    """Count what the official train and test sets share once masses and calcifications are pooled."""
    keys = {"patients": BREAST[:1], "breasts": BREAST, "films": [*BREAST, "view"]}
    shared = {}
    for name, columns in keys.items():
        train, test = (set(map(tuple, table.loc[table["split"] == split, columns].to_numpy())) for split in SPLITS)
        shared[name] = len(train & test)
    test = table[table["split"] == "test"]
    leaked = test["patient_id"].isin(patients_on_both_sides(table))
    return shared | {"test rows": int(leaked.sum()), "of test rows": len(test)}


def cohort_funnel(table: pd.DataFrame, split: str) -> pd.DataFrame:
    """Count ``rows breasts patients malignant`` after each ``step`` from the split's tables to the paper cohort."""
    rows = table[table["split"] == split]
    steps = {"all rows of the split": rows}
    steps["mass lesions"] = rows = rows[rows["lesion_type"] == "mass"]
    steps["both views"] = rows = rows[_has_both_views(rows, BREAST)]
    steps["one label per breast"] = rows[~has_conflicting_labels(rows)]
    return pd.DataFrame([{"step": name, **_count(part)} for name, part in steps.items()])


def assign_folds(cohort: pd.DataFrame, n_folds: int, seed: int) -> pd.Series:
    """Return a fold index per row: no patient in two folds, labels balanced, the same for the same seed.

    Raises
    ------
    InputError
        There are fewer than two folds; or more than patients, or than patients of one label, so that a fold would have
        none.
    """
    if n_folds < 2:
        raise InputError(f"n_folds={n_folds}: one fold is held out, and the others train; give 2 or more")
    if cohort["patient_id"].nunique() < n_folds:
        raise InputError(f"n_folds={n_folds} exceeds the {cohort['patient_id'].nunique()} patients: lower data.n_folds")
    label, n_patients = rarest_label(cohort)
    if n_patients < n_folds:
        raise InputError(f"n_folds={n_folds} exceeds the {n_patients} patients with label {label}: lower data.n_folds")
    folds = _folds(tuple(cohort["label"]), tuple(cohort["patient_id"]), n_folds, seed)
    return pd.Series(folds, index=cohort.index, name="fold")


@cache
def _folds(labels: tuple[int, ...], patients: tuple[str, ...], n_folds: int, seed: int) -> tuple[int, ...]:
    """Return the fold of each row: every fold of a cross-validation asks for the same division."""
    from sklearn.model_selection import StratifiedGroupKFold

    folds = np.full(len(labels), -1)
    splitter = StratifiedGroupKFold(n_folds, shuffle=True, random_state=seed)
    for fold, (_, members) in enumerate(splitter.split(np.zeros(len(labels)), labels, patients)):
        folds[members] = fold
    return tuple(folds.tolist())


def rarest_label(cohort: pd.DataFrame) -> tuple[int, int]:
    """Return the label with the fewest patients, and their number."""
    patients = cohort.groupby("label")["patient_id"].nunique()
    return patients.idxmin(), int(patients.min())


def split_cohort(data: DataConfig, cohort: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Return the breasts of ``train``, ``validation`` and ``extra``.

    One fold of the training cohort is used for validation. Extra breasts do not change the folds. They are used for
    training, if their patient is not in the validation fold. With ``data.hold_out_extra`` their patients have a fold
    too, and ``extra`` holds those of the validation fold; otherwise it is empty. Of the patients that remain for
    training, ``data.training_share`` are kept.

    Raises
    ------
    InputError
        There are more folds than patients of a label, or one of the two parts has only one label.
    """
    if data.fold == "each":
        raise ValueError("data.fold='each' is a cross-validation: split the cohort of one of its folds")
    proper, others = cohort[~cohort["is_extra"]], cohort[cohort["is_extra"]]
    validation = proper[assign_folds(proper, data.n_folds, data.fold_seed) == data.fold]
    extra = others[others["patient_id"].isin(validation["patient_id"])]
    if data.hold_out_extra:
        strangers = others[~others["patient_id"].isin(proper["patient_id"])]
        own = strangers[assign_folds(strangers, data.n_folds, data.fold_seed) == data.fold]
        extra = pd.concat([extra, own])
    held_out = {*validation["patient_id"], *extra["patient_id"]}
    train = cohort[~cohort["patient_id"].isin(held_out)]
    train = thinned(train, data.training_share, data.fold_seed)
    parts = {"train": train, "validation": validation.assign(split="validation")}
    for name, part in parts.items():
        if part["label"].nunique() < 2:
            raise InputError(
                f"data.fold={data.fold} of data.n_folds={data.n_folds}: the {len(part)} {name} breasts have only "
                "one label, so AUC and threshold are undefined; choose another data.fold, or lower data.n_folds"
            )
    parts["extra"] = (extra if data.hold_out_extra else extra[:0]).assign(split="extra")
    return {name: part.reset_index(drop=True) for name, part in parts.items()}


def thinned(cohort: pd.DataFrame, share: float, seed: int) -> pd.DataFrame:
    """Return the breasts of a share of the patients, the same share of patients with and without a malignant breast.

    The patients are drawn by ``seed`` in a fixed order, so that a smaller share is a part of a larger one.
    """
    if share == 1:
        return cohort
    patients = cohort.groupby("patient_id")["label"].max()
    drawn = patients.iloc[np.random.default_rng(seed).permutation(len(patients))]
    kept = [own.index[: math.ceil(share * len(own))] for _, own in drawn.groupby(drawn)]
    return cohort[cohort["patient_id"].isin(np.concatenate(kept))]


def _has_both_views(rows: pd.DataFrame, keys: list[str]) -> pd.Series:
    return rows.groupby(keys)["view"].transform("nunique").eq(len(VIEWS))


def has_conflicting_labels(rows: pd.DataFrame) -> pd.Series:
    """Return for each row whether its breast has both malignant and other rows."""
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
    for name, column in WORDS.items():
        if column in rows:
            cohort[name] = _only_word(rows, keys, column, TARGETS[name].classes).reindex(cohort.index)
    cohort = cohort.reset_index()
    cohort["lesion_type"] = cohort.pop("is_mass").map({True: "mass", False: "calcification"})
    cohort.insert(0, "breast_id", cohort["patient_id"] + "_" + cohort["laterality"])
    lesion = "_" + cohort["abnormality_id"].astype("string") if "abnormality_id" in keys else ""
    cohort.insert(0, "sample_id", cohort["breast_id"] + lesion)
    return cohort


def _only_word(rows: pd.DataFrame, keys: list[str], column: str, classes: tuple[str, ...]) -> pd.Series:
    """Return the one of ``classes`` that describes a sample's lesions; samples with none or several are left out."""
    said = rows[keys].assign(word=rows[column].astype("string").str.split("-")).explode("word")
    said = said.replace({"word": SPELLINGS}).drop_duplicates()
    said = said[said["word"].isin(classes)]
    return said[~said.duplicated(keys, keep=False)].set_index(keys)["word"]
