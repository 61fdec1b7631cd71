"""Chapter 09 from records: how well further heads rank the readers' words, and what was measured without images.

These functions read only records and do not import torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from ..files import read_json
from ..runs.records import COMMITTED, WAY_OUT, Run
from ..statistics import mean_auc, patient_draws
from ..statistics.fold_groups import FEW, with_interval

CALCIFICATIONS = "calcification_baselines.json"


def head_scores(runs: Sequence[Run]) -> pd.DataFrame:
    """Return the AUC of every word against the other words of its target, out of fold, within folds.

    Columns: ``target word level n positive auc auc_low auc_high``, with intervals over patients; ``level`` is the word
    as a page prints it, with its number of breasts. A word with fewer than ``FEW`` breasts is left out.
    """
    tables = [_with_patients(run) for run in runs]
    rows = []
    for (target, word), first in tables[0].groupby(["target", "word"], sort=False):
        frames = [first, *(_of_word(table, target, word) for table in tables[1:])]
        frames = [one.sort_values("sample_id", ignore_index=True) for one in frames]
        positive = int(frames[0]["label"].sum())
        if positive >= FEW:
            estimate = with_interval("auc", mean_auc(frames, patient_draws(frames[0])))
            level = f"{word.lower().replace('_', ' ')}, {positive}"
            rows.append(
                {"target": target, "word": word, "level": level, "n": len(frames[0]), "positive": positive} | estimate
            )
    return pd.DataFrame(rows)


def calcification_baselines(home: Path | None = None) -> pd.DataFrame:
    """Return the record of ``benchmarks/calcifications.py``: a row per cohort and baseline, on both sides."""
    return pd.DataFrame(read_json((home or COMMITTED) / CALCIFICATIONS, WAY_OUT)["rows"])


def _with_patients(run: Run) -> pd.DataFrame:
    patients = run.predictions.set_index("sample_id")["patient_id"]
    table = run.targets
    return table.assign(
        patient_id=table["sample_id"].map(patients), label=table["is_true"].astype(int), logit=table["probability"]
    )


def _of_word(table: pd.DataFrame, target: str, word: str) -> pd.DataFrame:
    return table[(table["target"] == target) & (table["word"] == word)]
