"""Chapter 10 from its record: what networks cost, counted at every input size and timed at some of them.

These functions read only ``benchmarks/efficiency.json`` and do not import torch. G stands for 10^9 multiply-adds,
which is half of the operations that the record counts.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from ..config import ROOT
from ..files import read_json
from ..statistics.intervals import N_RESAMPLES, percentiles

RECORD = ROOT / "benchmarks" / "efficiency.json"
COMPARED = (  # the networks whose growth the chapter draws
    "MambaVision-T", "T, one window", "T, state-space only", "Swin-T", "ViT-S", "ConvNeXt-T", "ResNet-50",
)  # fmt: skip
WAY_OUT = "restore it from the repository, or run benchmarks/efficiency.py"


def counted(path: Path | None = None) -> pd.DataFrame:
    """Return ``network per side g million_parameters kept_gb`` and the share of each part, a row per network and side.

    ``g``: multiply-adds of a forward pass, in 10^9; ``kept_gb``: what a training step keeps of it.
    """
    rows = read_json(path or RECORD, WAY_OUT)["counted"]
    parts = pd.DataFrame([row["operations"] for row in rows]).fillna(0)
    table = pd.DataFrame({
        "network": [row["network"] for row in rows], "per": [row["per"] for row in rows],
        "side": [row["side"] for row in rows], "g": [row["total"] / 2e9 for row in rows],
        "million_parameters": [row["parameters"] / 1e6 for row in rows],
        "kept_gb": [row["kept_bytes"] / 1e9 for row in rows],
    })  # fmt: skip
    return table.join(parts.div(parts.sum(axis=1), axis=0))


def measured(path: Path | None = None) -> pd.DataFrame:
    """Return ``network side step seconds_per_image peak_megabytes seconds`` as measured; empty without measurements."""
    return pd.DataFrame(read_json(path or RECORD, WAY_OUT).get("measured", []))


def growth(sides: np.ndarray, values: np.ndarray) -> float:
    """Return the exponent of growth with the number of pixels: the slope in logarithms, over ``sides`` squared.

    >>> round(growth(np.array([224, 448]), np.array([1.0, 4.0])), 6)
    1.0
    """
    return float(np.polyfit(np.log(np.square(sides, dtype=float)), np.log(values), 1)[0])


def measured_growth(table: pd.DataFrame, *, seed: int = 0) -> pd.DataFrame:
    """Return ``network step exponent exponent_low exponent_high`` of time; the interval resamples repeated passes."""
    rng, rows = np.random.default_rng(seed), []
    for (network, step), own in table.groupby(["network", "step"], sort=False):
        sides, passes = own["side"].to_numpy(), [np.array(one) for one in own["seconds"]]
        drawn = [
            growth(sides, [np.median(rng.choice(one, len(one))) for one in passes]) for _ in range(N_RESAMPLES // 4)
        ]
        low, high = percentiles(np.array(drawn))
        value = growth(sides, np.array([np.median(one) for one in passes]))
        rows.append({"network": network, "step": step, "exponent": value, "exponent_low": low, "exponent_high": high})
    return pd.DataFrame(rows)
