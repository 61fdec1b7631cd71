"""Comparisons from records of cross-validation: which parts of the network matter, with equivalence tests (protocol 2).

These functions read only run records and do not import torch. *Repeats* are ``{experiment: [run per repeat]}``. In
every table, an estimate ``x`` occupies the columns ``x x_low x_high``;
:func:`mammo_lib.analysis.wording.readable` merges them. :mod:`mammo_lib.analysis.sentences` says them in sentences.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import pandas as pd

from ..config import Profile, get_profile
from ..runs.experiments import experiment_configs, read_experiments, read_groups
from ..runs.records import Run, finished_of, runs_by_config
from ..statistics import LEVEL, FoldDifference, compare_folds, holm, stratified_auc

Repeats = Mapping[str, Sequence[Run]]
DIFFERENT, EQUIVALENT, BOTH, UNDECIDED = "different", "equivalent", "different, but by less than the bound", "undecided"
LONG_GATES = "mirror-long-gates"  # the profile of protocol 11
LONG = 100  # tokens of stage 3 from which protocol 2 calls a geometry long


def find_repeats(profile: Profile) -> dict[str, list[Run]]:
    """Return the finished repeats of a profile's experiments, committed or made on this machine, ordered by seed.

    Records are found by their config, whatever data they were made on; no images are needed. Repeats from the profile's
    further seeds follow the planned ones once all of them have been run: with a look after each of them, one could stop
    where it suits.
    """
    known, every = runs_by_config(), profile.extended
    found = {name: finished_of(experiment_configs(every, name), known) for name in read_experiments(profile)}
    counted = {
        name: runs if len(runs) == len(every.seeds) else of_planned_seeds(profile, runs) for name, runs in found.items()
    }
    return {name: runs for name, runs in counted.items() if runs}


def of_planned_seeds(profile: Profile, runs: Sequence[Run]) -> list[Run]:
    """Return the runs of the repeats that a profile plans for every variant, without those that are added."""
    return [run for run in runs if run.config.seed in profile.seeds]


def still_missing(profile: Profile, repeats: Repeats) -> pd.DataFrame:
    """Return ``question variants finished`` per group; ``finished`` reads "3 of 8" planned runs."""
    finished = {name: len(of_planned_seeds(profile, runs)) for name, runs in repeats.items()}
    rows = [
        {
            "question": group, "variants": len(names),
            "finished": f"{sum(finished.get(name, 0) for name in names)} of {len(names) * len(profile.seeds)}",
        }
        for group, names in read_groups(profile).items()
    ]  # fmt: skip
    return pd.DataFrame(rows)


def scores(profile: Profile, group: str, repeats: Repeats) -> pd.DataFrame:
    """Return ``experiment question auc auc_low auc_high repeats n`` of a group's variants that have been run."""
    rows, asked = [], read_experiments(profile)
    for name in read_groups(profile)[group]:
        if runs := repeats.get(name):
            one = stratified_auc([run.predictions for run in runs])
            rows.append({
                "experiment": name, "question": asked[name]["question"], "auc": one.value, "auc_low": one.low,
                "auc_high": one.high, "repeats": len(runs), "n": one.n,
            })  # fmt: skip
    return pd.DataFrame(rows)


def geometries(profile: Profile, repeats: Repeats) -> dict[str, str]:
    """Return the ``best`` and the ``long`` geometry: highest AUC, and highest among those with :data:`LONG` tokens.

    Empty until every variant of the question has a run, because the rule compares all of them.
    """
    table = scores(profile, "geometry", repeats).set_index("experiment")["auc"]
    if len(table) < len(read_groups(profile)["geometry"]):
        return {}
    tokens = pd.Series({name: _tokens(repeats[name][0]) for name in table.index})
    return {"best": table.idxmax(), "long": table[tokens >= LONG].idxmax()}


def _tokens(run: Run) -> int:
    """Return the number of tokens of stage 3."""
    stride = run.config.model.frozen_stride
    return math.prod(side // stride for side in run.config.data.image_size)


def answers(profile: Profile, group: str, repeats: Repeats) -> pd.DataFrame:
    """Compare the variants of a group with its first variant; Holm's correction covers every planned comparison.

    Columns: ``experiment name difference difference_low difference_high p_difference reach p_equivalence nb_low nb_high
    answer repeats n``. Both p values, and with them the answer, are corrected; the interval and ``reach``, the smallest
    bound at which TOST succeeds at 5 %, are not. Only repeats that both variants have are compared.
    """
    first, *others = read_groups(profile)[group]
    return against(profile, others, repeats.get(first, ()), repeats)


def against(profile: Profile, names: Sequence[str], reference: Sequence[Run], repeats: Repeats) -> pd.DataFrame:
    """Compare variants of a profile with the repeats of a reference, as one family; columns as in :func:`answers`."""
    return named({name: compare_repeats(reference, repeats.get(name, ())) for name in names}, profile)


def compare_repeats(reference: Sequence[Run], runs: Sequence[Run]) -> FoldDifference | None:
    """Compare runs with a reference, repeat by repeat; None if they have no repeat in common."""
    ours, theirs = common(reference, runs)
    if not ours:
        return None
    return compare_folds([run.predictions for run in theirs], [run.predictions for run in ours])


def common(ours: Sequence[Run], theirs: Sequence[Run]) -> tuple[list[Run], list[Run]]:
    """Return the runs of repeats that both sides have, by seed."""
    by_seed = [{run.config.seed: run for run in runs} for runs in (ours, theirs)]
    seeds = sorted(by_seed[0].keys() & by_seed[1].keys())
    return [by_seed[0][seed] for seed in seeds], [by_seed[1][seed] for seed in seeds]


def named(found: Mapping[str, FoldDifference | None], profile: Profile) -> pd.DataFrame:
    """Return planned comparisons of a profile's variants as one family, None where one has not been run."""
    asked = read_experiments(profile)
    return as_answers(found, {name: asked[name]["name"] for name in found})


def between_series(first: Repeats, second: Repeats) -> pd.DataFrame:
    """Compare each network of the second series of runs with that of the first, repeat by repeat (:func:`as_answers`).

    The series differ in the mode of the encoder while it trains (``train.cached_encoder``, errata of the protocols).
    """
    networks = {name: runs for name, runs in second.items() if name in first and not runs[0].config.baseline}
    found = {name: compare_repeats(first[name], runs) for name, runs in networks.items()}
    return as_answers({name: one for name, one in found.items() if one is not None})


def gates_on_100_tokens(second: Repeats) -> tuple[pd.DataFrame, Repeats]:
    """Compare the gates of protocol 11 with learned ones of the second series; their repeats are returned, too."""
    profile = get_profile(LONG_GATES)
    own = find_repeats(profile)
    return against(profile, read_groups(profile)["gates"], second.get("crop_160_16", ()), own), own


def as_answers(planned: Mapping[str, FoldDifference | None], names: Mapping[str, str] | None = None) -> pd.DataFrame:
    """Return one family of comparisons as a table; for its columns see :func:`answers`.

    ``names`` says what readers are told instead of a key; without it there is no such column. Planned comparisons that
    have not been run are None and count with p = 1, so that an answer cannot be lost when they are.
    """
    found = {name: one for name, one in planned.items() if one is not None}
    if not found:
        table = pd.DataFrame()
        table.attrs["waiting"] = len(planned)
        return table
    waiting = [1.0] * (len(planned) - len(found))
    p, p_equivalence = (
        holm([getattr(one, name) for one in found.values()] + waiting) for name in ("p", "p_equivalence")
    )
    table = pd.DataFrame([
        {
            "experiment": name, **({"name": names[name]} if names else {}),
            "difference": one.value, "difference_low": one.low, "difference_high": one.high,
            "p_difference": p[i], "reach": one.reach, "p_equivalence": p_equivalence[i], "nb_low": one.low_nb,
            "nb_high": one.high_nb, "answer": answer(p[i], p_equivalence[i]), "repeats": one.repeats, "n": one.n,
        }
        for i, (name, one) in enumerate(found.items())
    ])  # fmt: skip
    table.attrs["waiting"] = len(waiting)
    return table


def answer(p_difference: float, p_equivalence: float, level: float = 1 - LEVEL) -> str:
    """Return the protocol's answer to a comparison, from its corrected p values.

    >>> answer(0.2, 0.01), answer(0.2, 0.2)
    ('equivalent', 'undecided')
    """
    is_different, is_equivalent = p_difference < level, p_equivalence < level
    if is_different:
        return BOTH if is_equivalent else DIFFERENT
    return EQUIVALENT if is_equivalent else UNDECIDED
