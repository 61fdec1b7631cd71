"""Did a network fit its own training breasts? The training losses that records of cross-validation keep. No torch.

A network that gives every breast the probability one half has a cross-entropy of ln 2, whatever the targets are. A fit
whose loss ends less than .01 below it is *stuck* (protocol 9): it hardly fits its training breasts, and its score on
other breasts tells little about what such images are worth (:func:`mammo_lib.analysis.diagnostics.underfitting`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from ..errors import InputError
from ..runs.manifest import WAY_OUT
from ..runs.records import Run
from ..statistics import stratified_auc
from .diagnostics import CONSTANT_ANSWER, FITTED, underfitting
from .wording import estimate

INITIAL = (
    "In the first series the batch normalisation behind the frozen stages kept its initial statistics, that is, it "
    "normalised nothing. Networks on crops fitted their breasts all the same; most networks on whole films hardly "
    "did. Their scores in the first series, at the fourth look and in the runs of protocol 6 do not show what whole "
    "films are worth."
)


def last_losses(run: Run) -> dict[int, float]:
    """Return the training loss of the last epoch by fold; empty where it cannot be judged.

    It cannot be judged for a run without a history, or with several targets, because its loss is then a sum.

    Raises
    ------
    InputError
        The history has no folds or no training loss.
    """
    path = run.folder / "history.csv"
    if len(run.config.model.targets) > 1 or not path.is_file():
        return {}
    history = run.history
    if missing := {"fold", "train_loss"} - set(history):
        raise InputError(f"{path}: the column {min(missing)!r} is missing; {WAY_OUT}")
    history = history.sort_values("epoch")
    return {int(fold): float(own["train_loss"].iloc[-1]) for fold, own in history.groupby("fold")}


def fits(runs: Sequence[Run]) -> list[pd.DataFrame]:
    """Return the history of every fit, ``epoch train_loss ...``: one per fold of each repeat."""
    return [own.reset_index(drop=True) for run in runs for _, own in run.history.groupby("fold")]


def fitted(networks: Mapping[str, Sequence[Run]]) -> pd.DataFrame:
    """Return ``network fits last_loss stuck auc auc_low auc_high n``; the loss is the mean over a network's fits."""
    rows = []
    for name, runs in networks.items():
        last = [loss for run in runs for loss in last_losses(run).values()]
        if not last:
            continue
        found = stratified_auc([run.predictions for run in runs])
        rows.append({
            "network": name, "fits": len(last), "last_loss": sum(last) / len(last),
            "stuck": sum(underfitting(loss).holds for loss in last), **estimate("auc", found), "n": found.n,
        })  # fmt: skip
    return pd.DataFrame(rows)


def fitted_in_words(table: pd.DataFrame) -> str:
    """Say of each network how many of its fits are stuck, and the mean loss that they end with."""
    if table.empty:
        return "No training loss is known."
    said = [
        f"{row['network']}: {row['stuck'] or 'none'} of {row['fits']} (mean loss {row['last_loss']:.3f})"
        for row in table.to_dict("records")
    ]
    return (
        f"Fits whose training loss ended less than {FITTED} below that of a constant answer, {CONSTANT_ANSWER:.3f}: "
        f"{'; '.join(said)}."
    )
