"""What is known so far, from committed records: a table of a few rows for the README and the opening of chapter 12.

:func:`front_page` cuts four of its answers down to a sentence or two.

:mod:`mammo_lib.analysis.open_questions` gives the long answers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import pandas as pd

from ..config import Profile, get_profile
from ..errors import InputError
from ..runs.records import Run
from . import answers, external_scores, fourth_look, limits, missing, official_split, resolution
from .open_questions import NOT_YET
from .wording import in_words

Repeats = Mapping[str, Sequence[Run]]
CROSS_VALIDATED = ("06a_answers_by_cross_validation",)


class _Series(NamedTuple):
    """Both series of runs."""

    first: Profile
    of_first: Repeats
    second: Profile
    of_second: Repeats


def headlines() -> pd.DataFrame:
    """Return ``key question answer chapters``; ``chapters`` are file names of the chapters that show the numbers.

    A question whose records are not at hand is answered by :data:`~mammo_lib.analysis.open_questions.NOT_YET`.
    """
    series, held_out = _both_series(), _held_out()
    rows: list[tuple[str, str, Callable[[], str], tuple[str, ...]]] = [
        ("readers", "Does a network reach the readers?", lambda: _readers(held_out),
         ("05b_the_fourth_look", "08_missing_views_and_density")),
        ("gates", "Do SeqMoE's gates help?", lambda: _gates(series), CROSS_VALIDATED),
        ("scan", "Does the selective scan help, on 36 tokens?", lambda: _scan(series), CROSS_VALIDATED),
        ("films", "Does the whole film add to the crop?", lambda: _films(series), CROSS_VALIDATED),
        ("changes", "What changes the AUC?", lambda: _changes(series.of_first, held_out),
         ("08_missing_views_and_density", "06b_what_limits_the_network")),
        ("elsewhere", "Does it hold on other breasts?", _elsewhere,
         ("05a_why_the_test_set_scores_lower", "11_another_collection")),
    ]  # fmt: skip
    return pd.DataFrame([
        {"key": key, "question": question, "answer": _answer(say), "chapters": chapters}
        for key, question, say, chapters in rows
    ])  # fmt: skip


def front_page() -> dict[str, str]:
    """Return the answers on readers, gates, films and other breasts, in short, by key; see :func:`headlines`."""
    series, held_out = _both_series(), _held_out()
    said: dict[str, Callable[[], str]] = {
        "readers": lambda: _readers(held_out), "gates": lambda: _gates_in_short(series),
        "films": lambda: _films_in_short(series), "elsewhere": _elsewhere,
    }  # fmt: skip
    return {key: _answer(say) for key, say in said.items()}


def _both_series() -> _Series:
    first, second = (get_profile(name) for name in ("mirror-cv", "mirror-cv-training"))
    return _Series(first, answers.find_repeats(first), second, answers.find_repeats(second))


def _held_out() -> Repeats:
    return answers.find_repeats(get_profile("mirror-open"))


def _answer(say: Callable[[], str]) -> str:
    """Return an answer, if its experiments have records: not so in a copy without them, or in a rehearsal."""
    try:
        return say()
    except (KeyError, InputError):
        return NOT_YET


def _readers(held_out: Repeats) -> str:
    aim, _ = fourth_look.best_against_readers(answers.find_repeats(get_profile("mirror-final")))
    added, _ = missing.beyond_assessment(held_out["crop_held_out"])
    is_open = ", which leaves open which is better" if aim.low < 0 < aim.high else ""
    return (
        f"On {aim.n} test breasts the AUC of the network that cross-validation had chosen, minus that of the readers' "
        f"BI-RADS assessment, is {aim.value:+.3f} ({aim.low:+.3f} to {aim.high:+.3f}){is_open}. Out of fold, adding "
        f"the crop network to the assessment changes the AUC by {added}."
    )


def _in_both(series: _Series, group: str, changes: Mapping[str, str]) -> str:
    """Say what changes do in the second series, one sentence each; ``changes`` are said by experiment of a group."""
    table = _of_second(series, group)
    asides = _asides(series, group, table)
    return " ".join(
        f"{changed} the AUC changes by {in_words(table.loc[name], 'difference')}, {table.loc[name, 'answer']} over "
        f"{table.loc[name, 'repeats']} repeats{asides.get(name, '')}."
        for name, changed in changes.items()
    )


def _of_second(series: _Series, group: str) -> pd.DataFrame:
    return answers.answers(series.second, group, series.of_second).set_index("experiment")


def _asides(series: _Series, group: str, table: pd.DataFrame) -> dict[str, str]:
    """Say by experiment what Nadeau and Bengio, the planned repeats alone, and the first series answer."""
    planned, doubtful = len(series.second.seeds), answers.undecided_by_nadeau_bengio(table)
    first, early = (
        compared.set_index("experiment")["answer"]
        for compared in (
            answers.answers(series.first, group, series.of_first),
            answers.first_stage(series.second, group, series.of_second),
        )
    )
    said = {}
    for name, row in table[table.index.isin(first.index)].iterrows():
        parts = ["by Nadeau and Bengio: undecided"] if doubtful[name] and row["answer"] != answers.UNDECIDED else []
        parts += [f"after {planned}: {early[name]}"] if row["repeats"] > planned else []
        said[name] = f" ({'; '.join([*parts, f'first series: {first[name]}'])})"
    return said


def _gates(series: _Series) -> str:
    """Say what gates bring, and what a trained network loses when every breast gets the same gates."""
    said = _in_both(series, "gates", {"crop_plain": "Without the gates"})
    longer = _in_both(series, "gates_long", {"long_plain": "On 100 tokens instead of 36, without the gates"})
    frozen = answers.interventions({"crop": series.of_second["crop"]}).set_index("intervention").loc["frozen"]
    return (
        f"Second series. {said} {longer} With the gates of the trained networks on 36 tokens frozen at their means it "
        f"changes by {in_words(frozen, 'difference')}, {frozen['answer']}."
    )


def _gates_in_short(series: _Series) -> str:
    few, many = _of_second(series, "gates").loc["crop_plain"], _of_second(series, "gates_long").loc["long_plain"]
    return (
        f"Without the gates the AUC changes by {in_words(few, 'difference')}, {few['answer']}; on 100 tokens instead "
        f"of 36 by {in_words(many, 'difference')}, {many['answer']}."
    )


def _scan(series: _Series) -> str:
    changes = {
        "crop_gated_conv": "With a gated convolution in its place", "crop_no_blocks": "Without any token blocks"
    }  # fmt: skip
    return f"Second series. {_in_both(series, 'isolation', changes)}"


def _films(series: _Series) -> str:
    """Say what is lost without the whole film and without the crop, and how far that is what whole films are worth."""
    said = _in_both(series, "streams", {"crop": "Without the whole film"})
    alone = _of_second(series, "streams").loc["whole"]
    gap = answers.compare_repeats(resolution.every_side()["stages_whole_96"], series.of_second["whole"])
    return (
        f"Second series. {said} Without the crop: {in_words(alone, 'difference')}, {alone['answer']}; but these "
        f"networks also differ from a logistic regression on their own frozen stages, by {gap}, and those of the first "
        "series hardly fitted their training breasts."
    )


def _films_in_short(series: _Series) -> str:
    crop = _of_second(series, "streams").loc["crop"]
    return f"Without the whole film it changes by {in_words(crop, 'difference')}, {crop['answer']}."


def _changes(first: Repeats, held_out: Repeats) -> str:
    views, deeper = get_profile("mirror-open"), get_profile("mirror-limits")
    one_view = answers.answers(views, "view_training", held_out).set_index("experiment")
    stages = limits.against_reference(
        deeper, "stages", first[limits.REFERENCE], answers.find_repeats(deeper)
    ).set_index("experiment")
    cc, mlo = (in_words(one_view.loc[name], "difference") for name in ("crop_cc", "crop_mlo"))
    lite2, lite1 = (in_words(stages.loc[name], "difference") for name in ("crop_lite2", "crop_lite1"))
    return (
        f"First series. Trained on one view instead of two: {cc} with CC, {mlo} with MLO. Frozen stages of another "
        f"network instead of EfficientNet-Lite0: {lite2} with Lite2, {lite1} with Lite1."
    )


def _elsewhere() -> str:
    return (
        f"{official_split.difference_in_short(official_split.read_record())} "
        f"{external_scores.transfer_in_short(external_scores.external_records('mini_mias'))}"
    )
