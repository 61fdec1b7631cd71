"""The fourth look at the test set: the list of protocol 5, compared by its rules.

These functions read records and do not import torch. *Runs* are ``{experiment: [run per seed]}``; in every table, an
estimate ``x`` occupies the columns ``x x_low x_high``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from ..config import Profile
from ..runs.experiments import read_experiments
from ..runs.records import Run
from ..statistics import LEVEL, Interval, delong_test, over_seeds, stratified_auc
from . import tables
from .answers import DIFFERENT, UNDECIDED
from .wording import estimate, in_words

REFERENCE = "final_crop"  # what every other entry of the list is compared with
BEST = "final_attention"  # the best by cross-validation when protocol 5 was fixed
READERS = "final_birads"
AIM = (BEST, READERS)  # the comparison that the fourth look aimed at
OUT_OF_FOLD = {  # the same network or baseline in profile mirror-cv
    "final_dual": "dual", "final_crop": "crop", "final_whole": "whole", "final_plain": "crop_plain",
    "final_attention": "crop_attention", "final_frozen_stages": "baseline_frozen_stages",
    "final_birads": "baseline_birads", "final_metadata": "baseline_metadata",
}  # fmt: skip


def beside_out_of_fold(
    profile: Profile, runs: Mapping[str, Sequence[Run]], repeats: Mapping[str, Sequence[Run]]
) -> pd.DataFrame:
    """Return ``experiment name out test ensemble lower``, the AUC of each entry out of fold and on the test breasts.

    ``test`` is the mean over seeds, ``ensemble`` their mean logit; ``lower`` is ``out`` minus ``test``. ``out`` is NaN
    for an entry without a record of cross-validation.
    """
    asked, rows, nan = read_experiments(profile), [], float("nan")
    for name, seeds in runs.items():
        crossed = repeats.get(OUT_OF_FOLD[name], ())
        out = stratified_auc([run.predictions for run in crossed]) if crossed else Interval(nan, nan, nan, 0)
        test = over_seeds(tables.predictions_per_seed(seeds), "auc").interval
        merged = over_seeds([tables.ensemble_predictions(seeds)], "auc").interval
        estimates = {"out": out, "test": test, "ensemble": merged}
        named = {key: x for part, one in estimates.items() for key, x in estimate(part, one).items()}
        lower = out.value - test.value
        rows.append({"experiment": name, "name": asked[name]["name"], **named, "lower": lower, "n": test.n})
    return pd.DataFrame(rows)


def compared(profile: Profile, runs: Mapping[str, Sequence[Run]]) -> pd.DataFrame:
    """Compare each entry with the crop stream, as one family: ``tables.differences``, and ``name answer``.

    *Different*: the interval of the difference excludes zero, and the Holm-corrected DeLong p of the two ensembles is
    below .05 (protocol 5).
    """
    asked, table = read_experiments(profile), tables.differences(runs, REFERENCE)
    table.insert(1, "name", [asked[name]["name"] for name in table["experiment"]])
    table.insert(2, "answer", answered(table, "p_auc"))
    return table


def answered(table: pd.DataFrame, p: str) -> pd.Series:
    """Return the answers by the rule of protocol 5, from ``difference`` with its interval and a corrected p value."""
    excludes = (table["difference_low"] > 0) | (table["difference_high"] < 0)
    return (excludes & (table[p] < 1 - LEVEL)).map({True: DIFFERENT, False: UNDECIDED})


def best_against_readers(runs: Mapping[str, Sequence[Run]]) -> tuple[Interval, float]:
    """Return the AUC of the ensemble of the best by cross-validation minus that of the readers' BI-RADS, and its p."""
    ours, readers = (tables.ensemble_predictions(runs[name]) for name in AIM)
    return delong_test(ours["label"].to_numpy(), ours["logit"].to_numpy(), readers["logit"].to_numpy())


def compared_in_words(table: pd.DataFrame) -> str:
    """Say which entries of :func:`compared` differ from the crop stream, with their differences, and which do not."""
    heads = {DIFFERENT: "Different from the crop stream", UNDECIDED: "No difference shown"}
    said = {answer: [f"{row['name']} {in_words(row, 'difference')}" for row in part.to_dict("records")]
            for answer, part in table.groupby("answer")}  # fmt: skip
    return " ".join(f"{head}: {'; '.join(said[answer])}." for answer, head in heads.items() if answer in said)
