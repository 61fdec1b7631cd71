"""Performance in subgroups: each level of a column, with its size and interval."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict

import pandas as pd

from .comparisons import delong_interval
from .fold_groups import FEW
from .intervals import checked, unbounded

UNKNOWN = "unknown"


def subgroups(frame: pd.DataFrame, columns: Mapping[str, str], least: int = FEW) -> pd.DataFrame:
    """Return the AUC of all breasts and of each level of each column: ``name level value low high n malignant``.

    ``frame`` holds predictions of one split; ``columns`` maps a column to the name it is shown under. A column that is
    missing or has only one level is left out. A level with fewer than ``least`` breasts of a class has no value.
    """
    rows = [_row("all breasts", "", frame, 1)]
    for column, name in columns.items():
        if column not in frame:
            continue
        levels = frame[column].astype("string").fillna(UNKNOWN)
        names = sorted(levels.unique())
        if len(names) > 1:
            rows += [_row(name, level, frame[levels == level], least) for level in names]
    return pd.DataFrame(rows)


def _row(name: str, level: str, part: pd.DataFrame, least: int) -> dict:
    label, probability = checked(part["label"], part["probability"])
    is_large = least <= label.sum() <= len(label) - least
    interval = delong_interval(label, probability) if is_large else unbounded(math.nan, len(label))
    return {"name": name, "level": level, **asdict(interval), "malignant": int(label.sum())}
