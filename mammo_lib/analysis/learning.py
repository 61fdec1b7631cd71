"""Did a network learn its own training breasts? The training losses that records of cross-validation keep. No torch.

A network that gives every breast the probability one half has a cross-entropy of ln 2, whatever the targets are. A
network whose loss ends there has learned nothing, and its score on other breasts says nothing about their images.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import pandas as pd

from ..runs.records import Run
from ..statistics import stratified_auc
from .wording import estimate

CONSTANT = math.log(2)  # the loss of the answer one half
LEAST = 0.01  # of cross-entropy below CONSTANT, from which a network counts as having learned something


def fits(runs: Sequence[Run]) -> list[pd.DataFrame]:
    """Return the history of every fit, ``epoch train_loss ...``: one per fold of each repeat."""
    return [own.reset_index(drop=True) for run in runs for _, own in run.history.groupby("fold")]


def learned(networks: Mapping[str, Sequence[Run]]) -> pd.DataFrame:
    """Return ``network fits first_loss last_loss stuck auc auc_low auc_high n``, means over the fits of each network.

    ``stuck`` counts the fits whose last training loss lies less than :data:`LEAST` below :data:`CONSTANT`.
    """
    rows = []
    for name, runs in networks.items():
        losses = [history.sort_values("epoch")["train_loss"] for history in fits(runs)]
        last = pd.Series([loss.iloc[-1] for loss in losses])
        found = stratified_auc([run.predictions for run in runs])
        rows.append({
            "network": name, "fits": len(losses), "first_loss": sum(loss.iloc[0] for loss in losses) / len(losses),
            "last_loss": last.mean(), "stuck": int((last > CONSTANT - LEAST).sum()), **estimate("auc", found),
            "n": found.n,
        })  # fmt: skip
    return pd.DataFrame(rows)


def learned_in_words(table: pd.DataFrame) -> str:
    """Say of each network how its training loss ended, and how many of its fits learned nothing."""
    said = [
        f"{row['network']}: {row['last_loss']:.3f}, {row['stuck'] or 'none'} of {row['fits']} fits stuck"
        for row in table.to_dict("records")
    ]
    return f"Mean training loss of the last epoch ({CONSTANT:.3f} is a constant answer): {'; '.join(said)}."
