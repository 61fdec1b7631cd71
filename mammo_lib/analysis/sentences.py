"""Sentences about families of comparisons, from the tables of :mod:`mammo_lib.analysis.answers`."""

from __future__ import annotations

import pandas as pd

from ..config import Profile
from ..runs.experiments import read_groups
from ..statistics import EQUIVALENCE, LEVEL, auc
from . import answers
from .answers import BOTH, DIFFERENT, EQUIVALENT, UNDECIDED, Repeats
from .wording import as_text, in_words

RELATIONS = {  # how a summary names an answer
    DIFFERENT: "Different from", BOTH: "Different by less than the bound from", EQUIVALENT: "Equivalent to",
    UNDECIDED: "Undecided against",
}  # fmt: skip
COLLAPSE = 0.2  # of AUC, some five standard errors of a fold of a hundred breasts


def sentence(table: pd.DataFrame, reference: str, planned: int = 2, called: str = "") -> str:
    """Summarise a family of comparisons in one sentence, from a table of :mod:`mammo_lib.analysis.answers`.

    A variant with fewer repeats than the protocol plans is marked, and planned comparisons without a run are counted.
    ``called`` says what the reference is. An equivalence is given with its reach.

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
    said = [one_in_words(row) for row in shown.sort_values("rank", kind="stable").itertuples()]
    return " ".join([f"Compared with {against}: {'; '.join(said)}.", *_not_run(table)])


def in_stages(found: pd.DataFrame, profile: Profile, group: str, repeats: Repeats) -> str:
    """Summarise a group's answers (:func:`sentence`), then what the planned repeats said where others were added.

    ``found`` are the answers of all ``repeats``.
    """
    reference, planned = read_groups(profile)[group][0], len(profile.seeds)
    said = sentence(found, reference, planned)
    if found.empty or not (added := found["repeats"] > planned).any():
        return said
    early = {name: answers.of_planned_seeds(profile, runs) for name, runs in repeats.items()}
    first = answers.answers(profile, group, early)
    before = first[first["experiment"].isin(found.loc[added, "experiment"])]
    told = [one_in_words(row) for row in before.assign(shown="`" + before["experiment"] + "`").itertuples()]
    both = _answers_at(found[added], (1 - LEVEL) / 2)
    stand = int((both == found.loc[added, "answer"]).sum())
    return (
        f"{said} After the {planned} planned repeats alone: {'; '.join(told)}. At 2.5 % instead of 5 %, to allow for "
        f"two stages, {stand} of {len(told)} answers are the same."
    )


def of_series(profile: Profile, group: str, repeats: Repeats) -> tuple[str, pd.DataFrame, pd.DataFrame]:
    """Return a group's answers in sentences, and the tables of its differences and its AUC values."""
    found, scored = answers.answers(profile, group, repeats), answers.scores(profile, group, repeats)
    said = [
        in_stages(found, profile, group, repeats),
        caution(found) if len(found) else "",
        collapsed_fits(profile, group, repeats),
    ]
    return " ".join(filter(None, said)), found, scored


def _answers_at(table: pd.DataFrame, level: float) -> pd.Series:
    """Return the answers of a table of comparisons at a level of significance."""
    pairs = zip(table["p_difference"], table["p_equivalence"], strict=True)
    return pd.Series([answers.answer(*pair, level) for pair in pairs], index=table.index)


def _few(table: pd.DataFrame, planned: int) -> pd.Series:
    """Return a mark for each comparison with fewer repeats than planned, or with more, and "" for the others."""
    marks = table["repeats"].map(lambda n: f" [{n} of {planned} repeats]" if n < planned else f" [{n} repeats]")
    return marks.where(table["repeats"] != planned, "")


def _not_run(table: pd.DataFrame, reference: str = "") -> list[str]:
    """Return the sentence that counts planned comparisons without a run, if there are any."""
    waiting = table.attrs.get("waiting", 0)
    return [f"Planned comparisons {reference}that have not been run: {waiting}."] if waiting else []


def one_in_words(row) -> str:
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
        [said] = _not_run(table, f"with {called} ") or [f"Nothing has been compared with {called} yet."]
        return said
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
    names = f": {', '.join(_told(doubtful))}" if named and 0 < len(doubtful) < len(decided) else ""
    return f"By the more conservative interval of Nadeau and Bengio {said}{names}."


def undecided_by_nadeau_bengio(table: pd.DataFrame, bound: float = EQUIVALENCE) -> pd.Series:
    """Return which decided answers the interval of Nadeau and Bengio would leave undecided (:func:`caution`)."""
    holds_zero = (table["nb_low"] <= 0) & (table["nb_high"] >= 0)
    beyond = (table["nb_low"] < -bound) | (table["nb_high"] > bound)
    return holds_zero.where(table["answer"] != EQUIVALENT, beyond) | table["nb_low"].isna()


def collapsed_fits(profile: Profile, group: str, repeats: Repeats) -> str:
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
        if len(fallen) and name != first and (without := answers.compare_repeats(repeats.get(first, ()), whole)):
            said.append(
                f"Without its repeat the difference would be {without.value:+.3f} ({without.low:+.3f} to "
                f"{without.high:+.3f}), a description after the fact."
            )
    return " ".join(said)


def _told(table: pd.DataFrame) -> pd.Series:
    """Return what a sentence calls each variant: its name and its identifier, or the identifier alone."""
    keys = table["experiment"].map("`{}`".format)
    return table["name"] + " (" + keys + ")" if "name" in table else keys


def gates_and_streams(profile: Profile, repeats: Repeats) -> str:
    """Say in two sentences what gates and the whole stream bring."""
    plain, crop = (
        answers.answers(profile, group, repeats).set_index("experiment").loc[name]
        for group, name in (("gates", "crop_plain"), ("streams", "crop"))
    )
    return (
        f"Leaving out SeqMoE's gates changes the AUC of the crop network by {in_words(plain, 'difference')}, "
        f"{plain['answer']} over {plain['repeats']} repeats, out of fold on {plain['n']} training breasts. The crop "
        f"stream alone differs from both streams by {in_words(crop, 'difference')}, {crop['answer']}."
    )


def modes_in_words(first: Repeats, second: Repeats) -> str:
    """Say what training mode changes in each network: second minus first series."""
    changes = [f"`{row['experiment']}` {in_words(row, 'difference')}"
               for row in answers.between_series(first, second).to_dict("records")]  # fmt: skip
    return f"What training mode changes, second minus first series: {'; '.join(changes)}."


def coverage_in_words(rows: pd.DataFrame) -> str:
    """Say how often simulated intervals hold the truth and TOST errs, from ``benchmarks/interval_coverage.json``."""
    held = rows.groupby("repeats")["coverage_placements"].agg(["min", "max"])
    covered = "; ".join(f"{n}: {low:.1%} to {high:.1%}" for n, low, high in held.itertuples())
    errors = {
        case: "; ".join(f"{row.repeats}: {row.false_equivalence:.1%}" for row in own.itertuples())
        for case, own in rows.groupby("case")
    }
    return (
        f"Share of {rows['sets'].min()} simulated data sets in which the interval holds the truth, by repeats: "
        f"{covered}; 93 to 97 % was the aim. The intervals of Nadeau and Bengio hold it in "
        f"{rows['coverage_nadeau_bengio'].min():.1%} or more. The share that is called equivalent by mistake is, by "
        f"repeats, {errors['inputs at the bound']} near the bound of {EQUIVALENCE:g}, and {errors['other size']} where "
        "one classifier is far worse; 5 % was the aim."
    )
