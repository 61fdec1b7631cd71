"""The tables of the chapters, made from run records: results, comparisons, and openings of the test set.

These functions read only run records and do not import torch. *Runs* are ``{experiment: [run per seed]}``, as
:func:`mammo_lib.runs.evaluate.run_and_evaluate` returns them. In every table, an estimate ``x`` occupies the columns
``x x_low x_high``, which :func:`mammo_lib.analysis.wording.readable` merges for the page.

An experiment's value is the mean over its seeds, with the interval over patients and seeds; its *ensemble* is the mean
logit of its seeds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from ..config import Profile
from ..errors import InputError
from ..files import file_hash, read_table, with_numbers
from ..runs.experiments import list_hash
from ..runs.protocols import protocol_of
from ..runs.receipts import is_exploratory
from ..runs.records import COMMITTED, Run, part_of
from ..statistics import LEVEL, compare_predictions, difference_over_seeds, ensemble, over_seeds, scaled_probability
from ..statistics.seeds import DECISIONS, SCORES
from .wording import estimate

DID_NOT_HELP = "what_did_not_help.csv"
DID_NOT_HELP_COLUMNS = ("tried", "measured_on", "value", "reference", "verdict")
DIFFERENCE_COLUMNS = (
    "experiment", "difference", "difference_low", "difference_high", "p_auc", "gained", "lost", "p_decisions", "n",
    "status",
)  # fmt: skip
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


def predictions_per_seed(runs: Sequence[Run], split: str = "test") -> list[pd.DataFrame]:
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


def ensemble_predictions(runs: Sequence[Run], split: str = "test") -> pd.DataFrame:
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
    frames = predictions_per_seed(runs, split)
    mean, merged = over_seeds(frames, metric), over_seeds([ensemble_predictions(runs, split)], metric)
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
    frames = predictions_per_seed(runs, split)
    scaled = [frame.assign(probability=scaled_probability(frame)) for frame in frames]
    found = {name: over_seeds(frames, name) for name in (*SCORES, *DECISIONS)}
    found |= {f"{name}_scaled": over_seeds(scaled, name) for name in ("brier", "ece")}  # after temperature scaling
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
        and seeds. For the two ensembles: DeLong's ``p_auc`` and McNemar's ``p_decisions``, both Holm-corrected, and the
        numbers of breasts that only the other (``gained``) or only the reference (``lost``) classifies correctly.
    """
    base, merged = predictions_per_seed(runs[reference], split), ensemble_predictions(runs[reference], split)
    others = {name: seeds for name, seeds in runs.items() if name != reference}
    if not others:
        return pd.DataFrame(columns=list(DIFFERENCE_COLUMNS))
    family = compare_predictions(merged, {name: ensemble_predictions(seeds, split) for name, seeds in others.items()})
    rows = []
    for (name, seeds), test in zip(others.items(), family.itertuples(), strict=True):
        difference = difference_over_seeds(predictions_per_seed(seeds, split), base, metric)
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
            frames = predictions_per_seed(runs, split)
            found = {name: over_seeds(frames, name).interval for name in metrics}
            size = {"definition": definition, "n": len(frames[0]), "malignant": int(frames[0]["label"].sum())}
            rows.append(size | {key: x for name, one in found.items() for key, x in estimate(name, one).items()})
    return pd.DataFrame(rows)


def did_not_help(home: Path | None = None) -> pd.DataFrame:
    """Return the record of ideas that did not help: ``tried measured_on value reference verdict``; empty if absent."""
    path = (home or COMMITTED) / DID_NOT_HELP
    if not path.exists():
        return pd.DataFrame(columns=list(DID_NOT_HELP_COLUMNS))
    return with_numbers(path, read_table(path, DID_NOT_HELP_COLUMNS), ["value"])[list(DID_NOT_HELP_COLUMNS)]


def _flat(runs: Runs) -> list[Run]:
    return [run for seeds in runs.values() for run in seeds]
