"""Validation folds as files, so that others can train on the same folds."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd

from ...config import Definition
from ...files import file_hash
from ..cohort import assign_folds, build_cohort
from .tables import table_fingerprint


def write_folds(table: pd.DataFrame, definition: Definition, n_folds: int, seed: int, folder: Path) -> dict:
    """Write ``<name>.csv`` (``sample_id patient_id label fold``) and ``<name>.json`` (description and SHA-256).

    Returns the record. The folds keep patients together and balance labels; the same arguments give the same bytes.
    """
    cohort = build_cohort(table, definition, "train")
    folds = cohort[["sample_id", "patient_id", "label"]].assign(fold=assign_folds(cohort, n_folds, seed))
    name = f"folds-{definition}-{n_folds}-seed{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.csv"
    folds.to_csv(path, index=False, lineterminator="\n")
    record = {
        "file": path.name, "sha256": file_hash(path), "cohort": definition, "split": "train", "n_folds": n_folds,
        "seed": seed, "rows": len(folds), "patients": int(folds["patient_id"].nunique()),
        "breasts_per_fold": folds["fold"].value_counts().sort_index().tolist(),
        "malignant_per_fold": folds.groupby("fold")["label"].sum().tolist(),
        "table": table_fingerprint(table),
    }  # fmt: skip
    (folder / f"{name}.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return record
