"""What a trained network loses when its gates are overridden, from records of cross-validation (protocols 2 and 11)."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from ..config import Profile
from ..runs.experiments import experiment_configs, read_groups
from ..runs.records import Run
from ..statistics import FoldDifference, compare_folds
from .answers import EQUIVALENT, Repeats, as_answers
from .diagnostics import AS_IS
from .sentences import one_in_words

ROUTING = ("frozen", "shuffled", "open")  # overridden gates that leave the network its token blocks
OVERRIDDEN = (*ROUTING, "shut")


def interventions(networks: Repeats) -> pd.DataFrame:
    """Compare trained networks with themselves under overridden gates, out of fold, as one family of comparisons.

    A network without runs is one that is planned: its comparisons count in Holm's correction. Columns as in
    :func:`mammo_lib.analysis.answers.answers`, and before them ``network`` and ``intervention``; ``experiment`` names
    both. Logits are averaged over draws.
    """
    found = {}
    for network, runs in networks.items():
        overridden = _overridden(runs) if runs else dict.fromkeys(OVERRIDDEN)
        found |= {(network, name): difference for name, difference in overridden.items()}
    table = as_answers({f"{network}: {name}": difference for (network, name), difference in found.items()})
    if len(table):
        keys = [key for key, difference in found.items() if difference is not None]
        for place, column in enumerate(("network", "intervention")):
            table.insert(place, column, [key[place] for key in keys])
    return table


def gated_networks(profile: Profile, repeats: Repeats) -> dict[str, Sequence[Run]]:
    """Return the repeats of all networks with learned gates among a profile's questions on gates.

    Fixed and random gates are left out, since they have nothing to lose when they are overridden.
    """
    names = [name for group, names in read_groups(profile).items() if group.startswith("gates") for name in names]
    learned = [name for name in names if experiment_configs(profile, name)[0].model.gate.kind == "learned"]
    return {name: repeats.get(name, ()) for name in learned}


def _overridden(runs: Sequence[Run]) -> dict[str, FoldDifference]:
    """Return by intervention what overridden gates change in a network's score."""
    changed: dict[str, list[pd.DataFrame]] = {}
    for run in runs:
        own, logits = run.predictions, run.interventions.pivot_table("logit", "sample_id", "intervention")
        for name in logits.columns:
            changed.setdefault(name, []).append(own.assign(logit=own["sample_id"].map(logits[name]).astype(float)))
    as_is = changed.pop(AS_IS)
    return {name: compare_folds(frames, as_is) for name, frames in changed.items()}


def routing(table: pd.DataFrame) -> str:
    """Say which overridden gates of :func:`interventions` change the score, network by network.

    Gates that are shut are left out, because a network without its token blocks is a different network.
    """
    shown = table[table["intervention"].isin(ROUTING)]
    unmoved = [name for name, own in shown.groupby("network", sort=False) if own["answer"].eq(EQUIVALENT).all()]
    names, total = ", ".join(f"`{name}`" for name in unmoved), shown["network"].nunique()
    said = (
        f"In {len(unmoved)} of {total} networks with learned gates the score is equivalent when gates are frozen at "
        f"their means, taken from another breast, or open: {names}."
    )
    for name, own in shown[~shown["network"].isin(unmoved)].groupby("network", sort=False):
        told = map(one_in_words, own.assign(shown=own["intervention"]).itertuples())
        said += f" In `{name}`: {'; '.join(told)}."
    return said
