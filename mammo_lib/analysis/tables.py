"""The tables of the chapters, made from run records: results, comparisons, and verdicts on the published numbers.

These functions read only run records and do not import torch. *Runs* are ``{experiment: [run per seed]}``, as
:func:`mammo_lib.runs.evaluate.run_and_evaluate` returns them. In every table, an estimate ``x`` occupies the columns
``x x_low x_high``, which :func:`readable` merges for the page.

An experiment's value is the mean over its seeds, with the interval over patients and seeds; its *ensemble* is the mean
logit of its seeds.
"""

from __future__ import annotations

import html
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ..config import MATERIAL, Profile, get_profile
from ..errors import InputError
from ..files import file_hash, read_table, with_numbers
from ..runs.experiments import list_hash
from ..runs.protocols import protocol_of
from ..runs.receipts import is_exploratory
from ..runs.records import COMMITTED, Run, part_of
from ..statistics import (
    LEVEL,
    Interval,
    compare_predictions,
    difference_over_seeds,
    ensemble,
    hanley_mcneil_interval,
    matching_confusions,
    numerators,
    over_seeds,
    scaled_probability,
    wilson_interval,
)
from ..statistics.seeds import DECISIONS, SCORES

if TYPE_CHECKING:
    from pandas.io.formats.style import Styler  # needs Jinja

PUBLISHED = MATERIAL / "book" / "published.csv"
DID_NOT_HELP = "what_did_not_help.csv"
PUBLISHED_COLUMNS = ("name", "experiment", "value", "decimals", "n", "ours", "reading", "source")
DID_NOT_HELP_COLUMNS = ("tried", "measured_on", "value", "reference", "verdict")
MARKUP = re.compile(r"[\\`*_{}\[\]$|~^#]")  # what Markdown and MyST read within a line
TOLERANCE = 0.03
MIN_SEEDS = 5
DIFFERENCE_COLUMNS = (
    "experiment", "difference", "difference_low", "difference_high", "p_auc", "gained", "lost", "p_decisions", "n",
    "status",
)  # fmt: skip
SAID_ELSEWHERE = ("weights",)
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
MATCHED = 0.05  # two networks whose parameters differ by less than this share count as equal in size
SPLITS = {
    "test": "paper: both views, one label",
    "test_official": "official: both views, any label",
    "test_lesion": "lesion: each lesion seen in both views",
}

Runs = Mapping[str, Sequence[Run]]


def openings(runs: Runs, profile: Profile) -> pd.DataFrame:
    """Return the openings by receipt: ``opened_at experiments runs exploratory same_list same_protocol``.

    ``same_list`` and ``same_protocol`` say whether the profile's experiment list and the protocol are unchanged since.
    """
    now = list_hash(profile)
    rows = [
        {
            "opened_at": run.receipt["opened_at"],
            "experiment": run.config.experiment,
            "exploratory": is_exploratory(run),
            "same_list": run.receipt.get("list_hash") == now,
            "same_protocol": run.receipt["protocol_hash"] == file_hash(protocol_of(run.config)),
        }
        for run in _flat(runs)
        if run.receipt
    ]
    same = ["opened_at", "exploratory", "same_list", "same_protocol"]
    grouped = pd.DataFrame(rows, columns=["experiment", *same]).groupby(same, as_index=False)
    counted = grouped.agg(experiments=("experiment", "nunique"), runs=("experiment", "size"))
    return counted[["opened_at", "experiments", "runs", "exploratory", "same_list", "same_protocol"]]


def rows_of(runs: Sequence[Run], split: str = "test") -> list[pd.DataFrame]:
    """Return a split's predictions, one frame per seed.

    Raises
    ------
    InputError
        The split has not been opened for a run.
    """
    frames = [part_of(run.predictions, split) for run in runs]
    for run, frame in zip(runs, frames, strict=True):
        if frame.empty:
            have = ", ".join(run.predictions["split"].unique())
            raise InputError(f"{run.folder}: no {split!r} predictions (it has {have}); run `mammo evaluate` first")
    return frames


def together(runs: Sequence[Run], split: str = "test") -> pd.DataFrame:
    """Return the ensemble's predictions of a split: mean logit over seeds, its own threshold and temperature."""
    return part_of(ensemble([run.predictions for run in runs]), split)


def summary(
    runs: Runs, *, split: str = "test", metric: str = "auc", parameters: Mapping[str, int | None] | None = None
) -> pd.DataFrame:
    """Return one row per experiment: ``experiment seeds mean sd ensemble n status``, and its size if that is given.

    ``parameters`` maps experiments to parameter counts; ``size`` is then the ratio to the first experiment's
    count, and ``matched`` says whether the two are equal within ``MATCHED``.
    """
    table = pd.DataFrame([_summary_row(name, seeds, split, metric) for name, seeds in runs.items()])
    if parameters is None:
        return table
    counts = [parameters.get(name) or float("nan") for name in runs]
    table.insert(len(table.columns) - 1, "parameters", counts)
    table.insert(len(table.columns) - 1, "size", table["parameters"] / table["parameters"].iloc[0])
    table.insert(len(table.columns) - 1, "matched", (table["size"] - 1).abs().lt(MATCHED))
    return table


def _summary_row(name: str, runs: Sequence[Run], split: str, metric: str) -> dict:
    frames = rows_of(runs, split)
    mean, merged = over_seeds(frames, metric), over_seeds([together(runs, split)], metric)
    return {
        "experiment": name,
        "seeds": mean.seeds,
        **estimate("mean", mean.interval),
        "sd": mean.sd,
        **estimate("ensemble", merged.interval),
        "n": mean.n,
        "status": status_of(runs),
    }


def all_metrics(runs: Sequence[Run], *, split: str = "test") -> pd.DataFrame:
    """Return ``metric value sd n`` of an experiment: means over seeds, intervals over patients and seeds."""
    frames = rows_of(runs, split)
    scaled = [frame.assign(probability=scaled_probability(frame)) for frame in frames]
    found = {name: over_seeds(frames, name) for name in (*SCORES, *DECISIONS)}
    found |= {f"{name}_scaled": over_seeds(scaled, name) for name in ("brier", "ece")}  # after the temperature
    return pd.DataFrame(
        [{"metric": name, **estimate("value", x.interval), "sd": x.sd, "n": x.n} for name, x in found.items()]
    )


def status_of(runs: Sequence[Run]) -> str:
    """Return ``exploratory`` if test scores of a seed were made after the first opening, else ``frozen list``."""
    return "exploratory" if any(is_exploratory(run) for run in runs) else "frozen list"


def differences(runs: Runs, reference: str, *, split: str = "test", metric: str = "auc") -> pd.DataFrame:
    """Compare every experiment with a reference on the same breasts; the rows are one family for Holm's correction.

    Returns
    -------
    DataFrame
        ``experiment`` and ``difference`` (other - reference) of the means over seeds, with an interval over patients
        and seeds. For the two ensembles: DeLong's ``p_auc`` and McNemar's ``p_decisions``, both after Holm, and the
        numbers of breasts that only the other (``gained``) or only the reference (``lost``) classifies correctly.
    """
    base, merged = rows_of(runs[reference], split), together(runs[reference], split)
    others = {name: seeds for name, seeds in runs.items() if name != reference}
    if not others:
        return pd.DataFrame(columns=list(DIFFERENCE_COLUMNS))
    family = compare_predictions(merged, {name: together(seeds, split) for name, seeds in others.items()})
    rows = []
    for (name, seeds), test in zip(others.items(), family.itertuples(), strict=True):
        difference = difference_over_seeds(rows_of(seeds, split), base, metric)
        rows.append(
            {
                "experiment": name,
                **estimate("difference", difference),
                "p_auc": test.p_holm,
                "gained": test.lost,
                "lost": test.gained,
                "p_decisions": test.p_mcnemar_holm,
                "n": difference.n,
                "status": status_of([*seeds, *runs[reference]]),
            }
        )
    return pd.DataFrame(rows)


def told_apart(differences: pd.DataFrame, experiment: str, name: str) -> str:
    """Compare the reference of :func:`differences` with an experiment in words: better, worse or undecided."""
    row = differences.set_index("experiment").loc[experiment]
    value, low, high = -row["difference"], -row["difference_high"], -row["difference_low"]
    relation = "better than" if low > 0 else "worse than" if high < 0 else "not shown to differ from"
    return f"{relation} {name} (AUC difference {value:+.3f}, {100 * LEVEL:.0f} % CI {low:+.3f} to {high:+.3f})"


def by_definition(runs: Sequence[Run], metrics: Sequence[str] = ("auc", "accuracy")) -> pd.DataFrame:
    """Score one experiment on each definition of the test set: ``definition n malignant`` and one column per metric.

    Values of the metrics are means over seeds with intervals over patients and seeds.
    """
    opened = set(runs[0].predictions["split"])
    rows = []
    for split, definition in SPLITS.items():
        if split in opened:
            frames = rows_of(runs, split)
            found = {name: over_seeds(frames, name).interval for name in metrics}
            size = {"definition": definition, "n": len(frames[0]), "malignant": int(frames[0]["label"].sum())}
            rows.append(size | {key: x for name, one in found.items() for key, x in estimate(name, one).items()})
    return pd.DataFrame(rows)


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
    ours = over_seeds(rows_of(runs), row.name)
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


def did_not_help(home: Path | None = None) -> pd.DataFrame:
    """Return the record of ideas that did not help: ``tried measured_on value reference verdict``; empty if absent."""
    path = (home or COMMITTED) / DID_NOT_HELP
    if not path.exists():
        return pd.DataFrame(columns=list(DID_NOT_HELP_COLUMNS))
    return with_numbers(path, read_table(path, DID_NOT_HELP_COLUMNS), ["value"])[list(DID_NOT_HELP_COLUMNS)]


def readable(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table as text: ``x x_low x_high`` become one column, numbers are rounded, names become words."""
    shown = pd.DataFrame(index=table.index)
    for name in table.columns:
        if name.removesuffix("_low").removesuffix("_high") != name and name.rpartition("_")[0] in table:
            continue
        if f"{name}_low" in table:
            bounds = zip(table[name], table[f"{name}_low"], table[f"{name}_high"], strict=True)
            sign = "+" if "difference" in name else ""
            shown[name] = [_estimate_text(*one, sign) for one in bounds]
        else:
            shown[name] = [_text(name, value) for value in table[name]]
    return shown.rename(columns=_title)


def _title(column: str) -> str:
    return column.replace("_", " ")


def shown(table: pd.DataFrame) -> Styler:
    """Return a table as a chapter shows it: :func:`readable`, no index, text on the left, and every cell escaped."""
    texts = table.select_dtypes(exclude="number").columns.map(_title)
    left = {name: [{"selector": "", "props": "text-align: left"}] for name in texts}
    return readable(table).style.hide(axis="index").set_table_styles(left).format(escape="html")


def as_text(value: object) -> str:
    """Return Markdown that shows ``value`` literally in one line: no HTML, links, mathematics or table cells."""
    line = " ".join(str(value).split())
    return MARKUP.sub(r"\\\g<0>", html.escape(line, quote=False))


def in_words(row: Mapping, name: str, sign: str = "+") -> str:
    """Return an estimate of a row with its interval, as sentences say it.

    >>> in_words({"auc": 0.8, "auc_low": 0.7, "auc_high": 0.9}, "auc", "")
    '0.800 (0.700 to 0.900)'
    """
    return _with_bounds(row[name], row[f"{name}_low"], row[f"{name}_high"], sign)


def _estimate_text(value: float, low: float, high: float, sign: str) -> str:
    return "" if pd.isna(value) else _with_bounds(value, low, high, sign)


def _with_bounds(value: float, low: float, high: float, sign: str) -> str:
    return f"{value:{sign}.3f} ({low:{sign}.3f} to {high:{sign}.3f})"


def _text(name: str, value) -> str:
    if isinstance(value, str):
        return value.replace("_", " ") if name in ("experiment", "our_experiment") else value
    if isinstance(value, (bool, np.bool_)):
        return "yes" if value else "no"
    if value is None or pd.isna(value):
        return ""
    if name == "p" or name.startswith("p_"):
        return "< 0.001" if value < 0.001 else f"{value:.3f}"
    if name == "published":
        return f"{value:g}"
    if name == "parameters":
        return f"{value / 1e6:.2f} M"
    if name == "size":
        return f"{value:.2f} x"
    return f"{value:.3f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)


def estimate(name: str, interval: Interval) -> dict:
    """Return the three columns of an estimate."""
    return {name: interval.value, f"{name}_low": interval.low, f"{name}_high": interval.high}


def _flat(runs: Runs) -> list[Run]:
    return [run for seeds in runs.values() for run in seeds]
