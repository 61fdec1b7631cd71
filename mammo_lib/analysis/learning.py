"""Did a network learn its own training breasts? The training losses that records of cross-validation keep. No torch.

A network that gives every breast the probability one half has a cross-entropy of ln 2, whatever the targets are. A fit
whose loss ends there is *stuck*: it has learned nothing, and its score on other breasts says nothing about their images
(:func:`mammo_lib.analysis.diagnostics.nothing_learned`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from ..runs.records import Run
from ..statistics import stratified_auc
from .answers import last_losses
from .diagnostics import CONSTANT_ANSWER, nothing_learned
from .wording import estimate

INITIAL = (
    "In the first series the batch normalisation behind the frozen stages kept its initial statistics, that is, it "
    "normalised nothing. Networks on crops learned all the same; most networks on whole films did not. Their scores in "
    "the first series, at the fourth look and in protocol 6 say little about whole films."
)


def fits(runs: Sequence[Run]) -> list[pd.DataFrame]:
    """Return the history of every fit, ``epoch train_loss ...``: one per fold of each repeat."""
    return [own.reset_index(drop=True) for run in runs for _, own in run.history.groupby("fold")]


def learned(networks: Mapping[str, Sequence[Run]]) -> pd.DataFrame:
    """Return ``network fits last_loss stuck auc auc_low auc_high n``; the loss is the mean over a network's fits."""
    rows = []
    for name, runs in networks.items():
        last = [loss for run in runs for loss in last_losses(run).values()]
        found = stratified_auc([run.predictions for run in runs])
        rows.append({
            "network": name, "fits": len(last), "last_loss": sum(last) / len(last),
            "stuck": sum(nothing_learned(loss).holds for loss in last), **estimate("auc", found), "n": found.n,
        })  # fmt: skip
    return pd.DataFrame(rows)


def learned_in_words(table: pd.DataFrame) -> str:
    """Say of each network how many of its fits learned nothing, and how its training loss ended."""
    said = [
        f"{row['network']}: {row['stuck'] or 'none'} of {row['fits']} (mean loss {row['last_loss']:.3f})"
        for row in table.to_dict("records")
    ]
    return f"Fits whose training loss ended at that of a constant answer, {CONSTANT_ANSWER:.3f}: {'; '.join(said)}."
