"""What is known so far, in a table of a few rows: for README, front page and chapter 12, from committed records.

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
    first, second = (get_profile(name) for name in ("mirror-cv", "mirror-cv-training"))
    held_out = answers.find_repeats(get_profile("mirror-open"))
    series = _Series(first, answers.find_repeats(first), second, answers.find_repeats(second))
    rows: list[tuple[str, str, Callable[[], str], tuple[str, ...]]] = [
        ("readers", "Does a network reach the readers?", lambda: _readers(held_out),
         ("05b_the_fourth_look", "08_missing_views_and_density")),
        ("gates", "Do SeqMoE's gates help?", lambda: _gates(series), CROSS_VALIDATED),
        ("scan", "Does the selective scan help?", lambda: _scan(series), CROSS_VALIDATED),
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
        f"BI-RADS assessment, is {aim.value:+.3f} ({aim.low:+.3f} to {aim.high:+.3f}){is_open}. Out of fold "
        f"(first series), adding the crop network to the assessment changes the AUC by {added}."
    )


def _changes_of(series: _Series, group: str, *names: str) -> list[str]:
    """Say what experiments of a group change in the second series, and the first series' answer where it differs."""
    table = answers.answers(series.second, group, series.of_second).set_index("experiment")
    early = answers.answers(series.first, group, series.of_first).set_index("experiment")["answer"]
    said = []
    for name in names:
        row, before = table.loc[name], early.get(name)
        aside = "" if before in (None, row["answer"]) else f" (first series: {before})"
        said.append(f"{in_words(row, 'difference')}, {row['answer']}{aside}")
    return said


def _gates(series: _Series) -> str:
    [few], [many] = _changes_of(series, "gates", "crop_plain"), _changes_of(series, "gates_long", "long_plain")
    return f"Without the gates the AUC changes by {few}; on 100 tokens instead of 36 by {many}."


def _scan(series: _Series) -> str:
    convolution, nothing = _changes_of(series, "isolation", "crop_gated_conv", "crop_no_blocks")
    [longer] = _changes_of(series, "isolation_long", "long_no_blocks")
    return (
        f"With a gated convolution in place of the selective scan the AUC changes by {convolution}; without any token "
        f"blocks by {nothing}, and on 100 tokens instead of 36 by {longer}."
    )


def _films(series: _Series) -> str:
    """Say what is lost without the whole film and without the crop, and how far that is what whole films are worth."""
    crop, whole = _changes_of(series, "streams", "crop", "whole")
    gap = answers.compare_repeats(resolution.every_side()["stages_whole_96"], series.of_second["whole"])
    return (
        f"Without the whole film the AUC changes by {crop}; without the crop by {whole}, but networks on whole films "
        f"alone differ by {gap} from a logistic regression on their own frozen stages."
    )


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
