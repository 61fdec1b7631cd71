"""Comparisons from records of cross-validation: which parts of the network matter, with equivalence tests (protocol 2).

These functions read only run records and do not import torch. *Repeats* are ``{experiment: [run per repeat]}``. In
every table, an estimate ``x`` occupies the columns ``x x_low x_high``;
:func:`mammo_lib.analysis.wording.readable` merges them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import pandas as pd

from ..config import Profile, get_profile
from ..runs.experiments import experiment_configs, read_experiments, read_groups
from ..runs.records import Run, finished_of, runs_by_config
from ..statistics import EQUIVALENCE, LEVEL, FoldDifference, auc, compare_folds, holm, stratified_auc
from .diagnostics import AS_IS, fusion_dominance, gate_saturation, over_breasts, overcalling, underfitting
from .learning import last_losses
from .wording import as_text, in_words

DIFFERENT, EQUIVALENT, BOTH, UNDECIDED = "different", "equivalent", "different, but by less than the bound", "undecided"
RELATIONS = {  # how a summary names an answer
    DIFFERENT: "Different from", BOTH: "Different by less than the bound from", EQUIVALENT: "Equivalent to",
    UNDECIDED: "Undecided against",
}  # fmt: skip
LONG_GATES = "mirror-long-gates"  # the profile of protocol 11
LONG = 100  # tokens of stage 3 from which protocol 2 calls a geometry long
COLLAPSE = 0.2  # of AUC, some five standard errors of a fold of a hundred breasts
ROUTING = ("frozen", "shuffled", "open")  # overridden gates that leave the network its token blocks
OVERRIDDEN = (*ROUTING, "shut")
SIGNS = ("underfitting", "overcalling", "gate saturation", "fusion dominance")


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


def still_missing(profile: Profile, repeats: Mapping[str, Sequence[Run]]) -> pd.DataFrame:
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


def scores(profile: Profile, group: str, repeats: Mapping[str, Sequence[Run]]) -> pd.DataFrame:
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


def geometries(profile: Profile, repeats: Mapping[str, Sequence[Run]]) -> dict[str, str]:
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


def answers(profile: Profile, group: str, repeats: Mapping[str, Sequence[Run]]) -> pd.DataFrame:
    """Compare the variants of a group with its first variant; Holm's correction covers every planned comparison.

    Columns: ``experiment name difference difference_low difference_high p_difference reach p_equivalence nb_low nb_high
    answer repeats n``. Both p values, and with them the answer, are corrected; the interval and ``reach``, the smallest
    bound at which TOST succeeds at 5 %, are not. Only repeats that both variants have are compared.
    """
    first, *others = read_groups(profile)[group]
    return against(profile, others, repeats.get(first, ()), repeats)


def against(
    profile: Profile, names: Sequence[str], reference: Sequence[Run], repeats: Mapping[str, Sequence[Run]]
) -> pd.DataFrame:
    """Compare variants of a profile with the repeats of a reference, as one family; columns as in :func:`answers`."""
    return named({name: compare_repeats(reference, repeats.get(name, ())) for name in names}, profile)


def compare_repeats(reference: Sequence[Run], runs: Sequence[Run]) -> FoldDifference | None:
    """Compare runs with a reference, repeat by repeat; None if they have no repeat in common."""
    ours, theirs = common(reference, runs)
    if not ours:
        return None
    return compare_folds([run.predictions for run in theirs], [run.predictions for run in ours])


def named(found: Mapping[str, FoldDifference | None], profile: Profile) -> pd.DataFrame:
    """Return planned comparisons of a profile's variants as one family, None where one has not been run."""
    asked = read_experiments(profile)
    return as_answers(found, {name: asked[name]["name"] for name in found})


def between_series(first: Mapping[str, Sequence[Run]], second: Mapping[str, Sequence[Run]]) -> pd.DataFrame:
    """Compare each network of the second series of runs with that of the first, repeat by repeat (:func:`as_answers`).

    The series differ in the mode of the encoder while it trains (``train.cached_encoder``, errata of the protocols).
    """
    networks = {name: runs for name, runs in second.items() if name in first and not runs[0].config.baseline}
    found = {name: compare_repeats(first[name], runs) for name, runs in networks.items()}
    return as_answers({name: one for name, one in found.items() if one is not None})


def gates_on_100_tokens(second: Mapping[str, Sequence[Run]]) -> tuple[pd.DataFrame, Mapping[str, Sequence[Run]]]:
    """Compare the gates of protocol 11 with learned ones of the second series; their repeats are returned, too."""
    profile = get_profile(LONG_GATES)
    own = find_repeats(profile)
    return against(profile, read_groups(profile)["gates"], second.get("crop_160_16", ()), own), own


def modes_in_words(first: Mapping[str, Sequence[Run]], second: Mapping[str, Sequence[Run]]) -> str:
    """Say what training mode changes in each network: second minus first series."""
    changes = [f"`{row['experiment']}` {in_words(row, 'difference')}"
               for row in between_series(first, second).to_dict("records")]  # fmt: skip
    return f"What training mode changes, second minus first series: {'; '.join(changes)}."


def gates_and_streams(profile: Profile, *series: Mapping[str, Sequence[Run]]) -> str:
    """Say in two sentences, of the first and the second series, what gates and the whole stream bring."""
    (plain, again), (crop, crop_again) = (
        [answers(profile, group, runs).set_index("experiment").loc[name] for runs in series]
        for group, name in (("gates", "crop_plain"), ("streams", "crop"))
    )
    return (
        f"Leaving out SeqMoE's gates changes the AUC of the crop network by {in_words(plain, 'difference')}, "
        f"{plain['answer']}, out of fold on {plain['n']} training breasts; in a second series, trained as the protocol "
        f"states, by {in_words(again, 'difference')}, {again['answer']} over {again['repeats']} repeats. The crop "
        f"stream alone differs from both streams by {in_words(crop, 'difference')}, {crop['answer']}; in the second "
        f"series by {in_words(crop_again, 'difference')}, {crop_again['answer']}."
    )


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


def interventions(networks: Mapping[str, Sequence[Run]]) -> pd.DataFrame:
    """Compare trained networks with themselves under overridden gates, out of fold, as one family of comparisons.

    A network without runs is one that is planned: its comparisons count in Holm's correction (:func:`as_answers`).
    Columns as in :func:`answers`, and before them ``network`` and ``intervention``; ``experiment`` names both. Logits
    are averaged over draws.
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


def gated_networks(profile: Profile, repeats: Mapping[str, Sequence[Run]]) -> dict[str, Sequence[Run]]:
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

    Gates that are shut are left out: without its token blocks a network is another one.
    """
    shown = table[table["intervention"].isin(ROUTING)]
    unmoved = [name for name, own in shown.groupby("network", sort=False) if own["answer"].eq(EQUIVALENT).all()]
    names, total = ", ".join(f"`{name}`" for name in unmoved), shown["network"].nunique()
    said = (
        f"In {len(unmoved)} of {total} networks with learned gates the score is equivalent when gates are frozen at "
        f"their means, taken from another breast, or open: {names}."
    )
    for name, own in shown[~shown["network"].isin(unmoved)].groupby("network", sort=False):
        said += f" In `{name}`: {'; '.join(_said(row) for row in own.assign(shown=own['intervention']).itertuples())}."
    return said


def sentence(table: pd.DataFrame, reference: str, planned: int = 2, called: str = "") -> str:
    """Summarise a family of comparisons in one sentence, from the table of :func:`answers`.

    A variant with fewer repeats than the protocol plans is marked, and planned comparisons without a run are counted.
    ``called`` says what the reference is. An equivalence is told with its reach (:func:`answers`).

    >>> row = {"experiment": "a", "difference": 0.001, "answer": "equivalent", "reach": 0.01, "repeats": 2}
    >>> sentence(pd.DataFrame([row | {"difference_low": -0.01, "difference_high": 0.01}]), "crop")
    'Compared with `crop`: `a`: equivalent (reach 0.010).'
    """
    against = f"{called} (`{reference}`)" if called else f"`{reference}`"
    if table.empty:
        return f"No variant has been compared with {against} yet."
    shown = table.assign(
        shown=_told(table) + _few(table, planned), rank=table["answer"].map({DIFFERENT: 0, BOTH: 0, EQUIVALENT: 1})
    )
    said = [_said(row) for row in shown.sort_values("rank", kind="stable").itertuples()]
    return " ".join([f"Compared with {against}: {'; '.join(said)}.", *_not_run(table)])


def in_stages(profile: Profile, group: str, repeats: Mapping[str, Sequence[Run]]) -> str:
    """Summarise a group's answers (:func:`sentence`), then what the planned repeats said where others were added."""
    reference, planned = read_groups(profile)[group][0], len(profile.seeds)
    found = answers(profile, group, repeats)
    said = sentence(found, reference, planned)
    if found.empty or not (added := found["repeats"] > planned).any():
        return said
    first = answers(profile, group, {name: of_planned_seeds(profile, runs) for name, runs in repeats.items()})
    before = first[first["experiment"].isin(found.loc[added, "experiment"])]
    told = [_said(row) for row in before.assign(shown="`" + before["experiment"] + "`").itertuples()]
    both = _answers_at(found[added], (1 - LEVEL) / 2)
    stand = int((both == found.loc[added, "answer"]).sum())
    return (
        f"{said} After the {planned} planned repeats alone: {'; '.join(told)}. At 2.5 % instead of 5 %, to allow for "
        f"two stages, {stand} of {len(told)} answers are the same."
    )


def _answers_at(table: pd.DataFrame, level: float) -> pd.Series:
    """Return the answers of a table of comparisons at a level of significance."""
    pairs = zip(table["p_difference"], table["p_equivalence"], strict=True)
    return pd.Series([answer(*pair, level) for pair in pairs], index=table.index)


def _few(table: pd.DataFrame, planned: int) -> pd.Series:
    """Return a mark for each comparison with fewer repeats than planned, or with more, and "" for the others."""
    marks = table["repeats"].map(lambda n: f" [{n} of {planned} repeats]" if n < planned else f" [{n} repeats]")
    return marks.where(table["repeats"] != planned, "")


def _not_run(table: pd.DataFrame) -> list[str]:
    """Return the sentence that counts planned comparisons without a run, if there are any."""
    waiting = table.attrs.get("waiting", 0)
    return [f"Planned comparisons that have not been run: {waiting}."] if waiting else []


def _said(row) -> str:
    """Say one comparison."""
    estimate = f"{row.difference:+.3f} ({row.difference_low:+.3f} to {row.difference_high:+.3f})"
    return {
        DIFFERENT: f"{row.shown}: different, {estimate}",
        BOTH: f"{row.shown}: different, but by less than the bound, {estimate}",
        EQUIVALENT: f"{row.shown}: equivalent (reach {row.reach:.3f})",
        UNDECIDED: f"{row.shown}: undecided, {estimate}",
    }[row.answer]


def brief(table: pd.DataFrame, called: str, planned: int = 2) -> str:
    """Summarise a family of comparisons by answer: each difference with its interval, and how many are equivalent.

    Of several equivalent variants only the one that differs most is named. ``called`` says what the reference is; a
    variant with fewer repeats than ``planned`` is marked.

    >>> row = {"name": "no gates", "answer": "equivalent", "repeats": 2, "difference": 0.001}
    >>> row |= {"difference_low": -0.01, "difference_high": 0.01, "nb_low": -0.01, "nb_high": 0.01}
    >>> brief(pd.DataFrame([row]), "learned gates").split(" By the more")[0]
    'Equivalent to learned gates: no gates: +0.001 (-0.010 to +0.010).'
    """
    if table.empty:
        return " ".join([f"Nothing has been compared with {called} yet.", *_not_run(table)])
    said = []
    for answer, relation in RELATIONS.items():
        rows = table[table["answer"] == answer]
        one_by_one = [
            f"{as_text(row['name'])}{mark}: {in_words(row, 'difference')}"
            for row, mark in zip(rows.to_dict("records"), _few(rows, planned), strict=True)
        ]
        if answer == EQUIVALENT and len(rows) > 1:
            furthest = one_by_one[rows["difference"].abs().to_numpy().argmax()]
            count = f"{'all ' if len(rows) == len(table) else ''}{len(rows)} variants"
            one_by_one = [f"{count}, of which the largest difference is that of {furthest}"]
        if one_by_one:
            said.append(f"{relation} {called}: {'; '.join(one_by_one)}.")
    return " ".join([*said, *_not_run(table), caution(table, named=False)]).strip()


def caution(table: pd.DataFrame, bound: float = EQUIVALENCE, *, named: bool = True) -> str:
    """Say how many answers the more conservative interval of Nadeau and Bengio would leave undecided.

    It must exclude 0 for a difference, and lie within the bound for equivalence. Empty without an answer. A single
    repeat of few folds may have no such interval, and then counts as undecided.
    """
    decided = table[table["answer"] != UNDECIDED]
    if decided.empty:
        return ""
    doubtful = decided[undecided_by_nadeau_bengio(decided, bound)]
    every = {1: "the one decided answer" if len(table) > 1 else "this answer", 2: "both answers"}.get(
        len(decided), f"all {len(decided)} answers"
    )
    said = f"{len(doubtful)} of these {len(decided)} answers would be undecided"
    if doubtful.empty or len(doubtful) == len(decided):
        said = f"{every} would be {'the same' if doubtful.empty else 'undecided'}"
    names = f": {', '.join(_told(doubtful))}" if named and len(doubtful) else ""
    return f"By the more conservative interval of Nadeau and Bengio {said}{names}."


def undecided_by_nadeau_bengio(table: pd.DataFrame, bound: float = EQUIVALENCE) -> pd.Series:
    """Return which decided answers the interval of Nadeau and Bengio would leave undecided (:func:`caution`)."""
    holds_zero = (table["nb_low"] <= 0) & (table["nb_high"] >= 0)
    beyond = (table["nb_low"] < -bound) | (table["nb_high"] > bound)
    return holds_zero.where(table["answer"] != EQUIVALENT, beyond) | table["nb_low"].isna()


def collapsed_fits(profile: Profile, group: str, repeats: Mapping[str, Sequence[Run]]) -> str:
    """Name the fits of a group whose AUC lies :data:`COLLAPSE` below the median of their variant's fits.

    Such a fit counts in every table: nothing is fitted again because of its score. What the repeats without it would
    say is added, as a description after the fact. Empty where no fit collapsed.
    """
    first, *others = read_groups(profile)[group]
    said = []
    for name in (first, *others):
        runs = repeats.get(name, ())
        area = pd.Series({
            (number, fold): auc(own["label"].to_numpy(), own["logit"].to_numpy())
            for number, run in enumerate(runs) for fold, own in run.predictions.groupby("fold")
        }, dtype=float)  # fmt: skip
        fallen = area[area < area.median() - COLLAPSE]
        rest = area.drop(fallen.index)
        for (number, fold), value in fallen.items():
            said.append(
                f"One fit of `{name}` collapsed: in fold {fold + 1} of repeat {number + 1} its AUC is {value:.3f}, in "
                f"the other {len(rest)} fits {rest.min():.3f} to {rest.max():.3f}. It counts above."
            )
        whole = [run for number, run in enumerate(runs) if number not in fallen.index.get_level_values(0)]
        if len(fallen) and name != first and (without := compare_repeats(repeats.get(first, ()), whole)):
            said.append(
                f"Without its repeat the difference would be {without.value:+.3f} ({without.low:+.3f} to "
                f"{without.high:+.3f}), a description after the fact."
            )
    return " ".join(said)


def _told(table: pd.DataFrame) -> pd.Series:
    """Return what a sentence calls each variant: its name and its identifier, or the identifier alone."""
    keys = table["experiment"].map("`{}`".format)
    return table["name"] + " (" + keys + ")" if "name" in table else keys


def failure_signs(repeats: Mapping[str, Sequence[Run]]) -> pd.DataFrame:
    """Return ``experiment fits`` and the number of fits that show each failure of :mod:`..analysis.diagnostics`.

    Underfitting is judged by the training loss (networks of one target). The others are judged on the
    held-out breasts of each fit: overcalling, saturated gates (if gates are learned), and dominance of one stream (if
    two are fused).
    """
    rows = [
        {"experiment": name, "fits": len(fits)} | {sign: sum(fit.get(sign, False) for fit in fits) for sign in SIGNS}
        for name, runs in repeats.items()
        if (fits := [fit for run in runs if not run.config.baseline for fit in _signs_by_fold(run)])
    ]
    return pd.DataFrame(rows)


def _signs_by_fold(run: Run) -> list[dict[str, bool]]:
    """Return by fold which failures its network shows."""
    gates, gate, losses, found = run.gates, run.config.model.gate, last_losses(run), []
    for number, own in run.predictions.groupby("fold"):
        findings = [overcalling(own["label"].to_numpy(), own["probability"].to_numpy())]
        if number in losses:
            findings.append(underfitting(losses[number]))
        inside = gates[gates["fold"] == number] if gates is not None else pd.DataFrame(columns=["kind"])
        if gate.kind == "learned" and (inside["kind"] == "seqmoe").any():
            findings.append(gate_saturation(over_breasts(inside), gate.bias))
        if (fusion := inside[inside["kind"] == "fusion"]).size:
            findings.append(fusion_dominance(fusion["value"].to_numpy()))
        found.append({finding.name: finding.holds for finding in findings})
    return found


def common(ours: Sequence[Run], theirs: Sequence[Run]) -> tuple[list[Run], list[Run]]:
    """Return the runs of repeats that both sides have, by seed."""
    by_seed = [{run.config.seed: run for run in runs} for runs in (ours, theirs)]
    seeds = sorted(by_seed[0].keys() & by_seed[1].keys())
    return [by_seed[0][seed] for seed in seeds], [by_seed[1][seed] for seed in seeds]
