"""The paper's published numbers beside ours: how exact theirs are, how far ours lie from them, and the verdict.

A published number has an interval from its number of breasts; our result has one over patients and seeds. The
protocol's verdict compares the difference with ``TOLERANCE``. These functions read only run records and do not import
torch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from ..config import MATERIAL, Profile, get_profile
from ..files import read_table, with_numbers
from ..runs.records import Run
from ..statistics import (
    Interval,
    hanley_mcneil_interval,
    matching_confusions,
    numerators,
    over_seeds,
    wilson_interval,
)
from .tables import Runs, predictions_per_seed
from .wording import estimate

PUBLISHED = MATERIAL / "book" / "published.csv"
PUBLISHED_COLUMNS = ("name", "experiment", "value", "decimals", "n", "ours", "reading", "source")
TOLERANCE = 0.03
MIN_SEEDS = 5
SAID_ELSEWHERE = ("weights",)  # settings that `what_differs` describes in a sentence of its own
IN_WORDS = {  # how a setting that differs from the ``paper`` profile's is described
    "allow_missing": "unreadable views left out",
    "image_size": "{ours}-px images instead of {theirs}",
    "crop_context": "crops cut by us as squares, {ours} times the longer side of the lesion",
    "extra_training": "additional training breasts ({ours} cohort)",
    "reader_words": "readers' descriptions from {ours}",
    "n_folds": "{ours} folds instead of {theirs}",
    "fold": "validation on fold {ours} instead of {theirs}",
    "backbone": "the {ours} backbone instead of {theirs}",
    "view_fusion": "views joined by {ours} instead of {theirs}",
}


def read_published(path: Path = PUBLISHED) -> pd.DataFrame:
    """Return the published numbers: ``name experiment value decimals n ours reading source``.

    ``n`` is the number of breasts in the denominator, as chapter 00 reconstructs it. ``ours`` is the experiment of the
    frozen list that we compare with the number, and ``reading`` says why.
    """
    table = read_table(path, PUBLISHED_COLUMNS, unknown=())
    return with_numbers(path, table, ["value", "decimals", "n"])


def published_intervals(published: pd.DataFrame) -> pd.DataFrame:
    """Return intervals of published values: ``name value low high n half_width n_to_confirm shift_to_refute``.

    Shares have Wilson's interval, the AUC Hanley and McNeil's. F1 is left out, because its denominator is not a fixed
    number of breasts. The last two columns give the number of breasts that would confirm the value within
    ``TOLERANCE``, and the distance at which a result would refute it.
    """
    n = published.set_index(["experiment", "name"])["n"]
    rows = []
    for row in published[published["name"] != "f1"].itertuples(index=False):
        if row.name == "auc":
            one = hanley_mcneil_interval(row.value, n[row.experiment, "sensitivity"], n[row.experiment, "specificity"])
        else:
            one = wilson_interval(row.value * row.n, row.n)  # rounded as published
        half = (one.high - one.low) / 2
        name = f"{row.experiment.replace('_', ' ')}, {row.name}"
        needed, shift = math.ceil(row.n * (half / TOLERANCE) ** 2), TOLERANCE + half
        rows.append({"name": name, **vars(one), "half_width": half, "n_to_confirm": needed, "shift_to_refute": shift})
    return pd.DataFrame(rows)


def published_gain(published: pd.DataFrame) -> tuple[int, int]:
    """Return SeqMoE's published gain over the plain dual stream, in breasts, and the size of the test set.

    The two decimals of the headline accuracy do not determine the number of correct decisions. The single confusion
    matrix that fits all shares of the headline does.
    """
    headline = published[published["experiment"] == "headline"].set_index("name")
    plain = published[published["experiment"] == "ablation_dual_stream"].iloc[0]
    sizes = headline.loc["sensitivity", "n"], headline.loc["specificity", "n"]
    counts = headline["value"].drop("auc").to_dict()
    [matrix] = matching_confusions(*map(int, sizes), counts, int(headline["decimals"].iloc[0]))
    [right] = numerators(plain["value"], int(plain["n"]), int(plain["decimals"]))
    return matrix.tp + matrix.tn - right, matrix.n


def beside_paper(published: pd.DataFrame, runs: Runs, profile: Profile) -> pd.DataFrame:
    """Compare our results with every published number: ``of metric published ours difference verdict why``.

    The columns of our results are empty if the profile does not run the experiment.
    """
    return pd.DataFrame([_beside(row, runs.get(row.ours), profile) for row in published.itertuples()])


def _beside(row, runs: Sequence[Run] | None, profile: Profile) -> dict:
    names = {
        "of": row.experiment.replace("_", " "),
        "metric": row.name,
        "published": row.value,
        "our_experiment": row.ours,
    }
    if not runs:
        missing = Interval(float("nan"), float("nan"), float("nan"), 0)
        return names | _compared(missing, missing, 0) | {"verdict": "not tested", "why": "not run in this profile"}
    ours = over_seeds(predictions_per_seed(runs), row.name)
    difference = Interval(ours.value - row.value, ours.low - row.value, ours.high - row.value, ours.n)
    is_whole = not profile.run.data.allow_missing  # a copy with gaps is another cohort
    decided = verdict(row.value, difference, profile.name, ours.seeds) if is_whole else "not tested"
    why = what_differs(profile) if decided == "not tested" else explain(difference)
    return names | _compared(ours.interval, difference, ours.seeds) | {"verdict": decided, "why": why}


def _compared(ours: Interval, difference: Interval, seeds: int) -> dict:
    return {"n": ours.n, "seeds": seeds, **estimate("ours", ours), **estimate("difference", difference)}


def verdict(published: float, difference: Interval, profile: str, seeds: int) -> str:
    """Return the protocol's verdict on the difference ours - published.

    ``reproduced``: the interval lies within the tolerance. ``not reproduced``: it lies outside. ``undecidable``:
    anything else. ``not tested``: the profile is not ``paper``, or has fewer than ``MIN_SEEDS`` seeds.
    """
    if not 0 <= published <= 1:
        raise ValueError(f"a published share must lie in [0, 1], got {published}")
    if profile != "paper" or seeds < MIN_SEEDS:
        return "not tested"
    if difference.low >= -TOLERANCE and difference.high <= TOLERANCE:
        return "reproduced"
    if difference.high < -TOLERANCE or difference.low > TOLERANCE:
        return "not reproduced"
    return "undecidable"


def explain(difference: Interval) -> str:
    """Compare the width of a difference's interval with the tolerance; say how many breasts would be enough."""
    n, half = difference.n, (difference.high - difference.low) / 2
    if half <= TOLERANCE:
        return f"with {n} breasts the interval is ±{half:.3f}, narrow enough to decide within ±{TOLERANCE}"
    needed = math.ceil(n * (half / TOLERANCE) ** 2)
    return (
        f"with {n} breasts the interval is ±{half:.3f}, too wide to confirm any result within ±{TOLERANCE}; "
        f"about {needed} breasts would be needed"
    )


def what_differs(profile: Profile) -> str:
    """List in words how a profile's run differs from the ``paper`` profile's."""
    run, paper = profile.run, get_profile("paper").run
    parts = ["a synthetic phantom instead of mammograms"] if profile.phantom_breasts else []
    for section in ("data", "model"):
        ours, theirs = getattr(run, section), getattr(paper, section)
        parts += [
            IN_WORDS.get(key, "{key} {ours} instead of {theirs}").format(
                key=key.replace("_", " "), ours=_setting(value), theirs=_setting(getattr(theirs, key))
            )
            for key, value in ours
            if value != getattr(theirs, key) and key not in SAID_ELSEWHERE
        ]
    if run.model.weights is None:
        parts.append("ImageNet stages of EfficientNet-Lite0" if run.model.is_pretrained else "no ImageNet weights")
    changed = [key for key, value in run.train if value != getattr(paper.train, key)]
    if changed:
        parts.append(f"{len(changed)} different training settings")
    if len(profile.seeds) < MIN_SEEDS:
        parts.append(f"{len(profile.seeds)} seed{'s' if len(profile.seeds) > 1 else ''} instead of {MIN_SEEDS}")
    return ", ".join(parts) or "nothing"


def _setting(value: object) -> object:
    """Return a setting as it reads in a sentence: the side of a square, the kind of a gate."""
    if isinstance(value, tuple):
        return value[0] if len(set(value)) == 1 else " and ".join(map(str, value))
    return value.replace("_", " ") if isinstance(value, str) else getattr(value, "kind", value)
