"""What is known so far, in a table of a few rows: for the README and the opening of chapter 12, from committed records.

:mod:`mammo_lib.analysis.open_questions` gives the long answers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import pandas as pd

from ..config import Profile, get_profile
from ..errors import InputError
from ..runs.records import Run
from . import answers, external_scores, fourth_look, limits, missing, official_split, resolution
from .open_questions import NOT_YET
from .wording import in_words

Repeats = Mapping[str, Sequence[Run]]
Series = tuple[tuple[Profile, Repeats], tuple[Profile, Repeats]]
CROSS_VALIDATED = ("06a_answers_by_cross_validation",)


def headlines() -> pd.DataFrame:
    """Return ``key question answer chapters``; ``chapters`` are file names of the chapters that show the numbers.

    A question whose records are not at hand is answered by :data:`~mammo_lib.analysis.open_questions.NOT_YET`.
    """
    first, second = (get_profile(name) for name in ("mirror-cv", "mirror-cv-training"))
    series = (first, answers.find_repeats(first)), (second, answers.find_repeats(second))
    rows: list[tuple[str, str, Callable[[], str], tuple[str, ...]]] = [
        ("readers", "Does a network reach the readers?", _readers,
         ("05b_the_fourth_look", "08_missing_views_and_density")),
        ("gates", "Do SeqMoE's gates help?", lambda: _gates(series), CROSS_VALIDATED),
        ("scan", "Does the selective scan help, on 36 tokens?", lambda: _scan(series), CROSS_VALIDATED),
        ("films", "Does the whole film add to the crop?", lambda: _films(series), CROSS_VALIDATED),
        ("changes", "What changes the AUC?", _changes, ("08_missing_views_and_density", "06b_what_limits_the_network")),
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


def _readers() -> str:
    final = answers.find_repeats(get_profile("mirror-final"))
    aim, _ = fourth_look.best_against_readers(final)
    held_out = answers.find_repeats(get_profile("mirror-open"))["crop_held_out"]
    added, _ = missing.beyond_assessment(held_out)
    is_open = ", which leaves open which is better" if aim.low < 0 < aim.high else ""
    return (
        f"On {aim.n} test breasts the AUC of the network that cross-validation had chosen, minus that of the readers' "
        f"BI-RADS assessment, is "
        f"{aim.value:+.3f} ({aim.low:+.3f} to {aim.high:+.3f}){is_open}. Out of fold, adding the crop network to the "
        f"assessment changes the AUC by {added}."
    )


def _in_both(group: str, name: str, changed: str, series: Series) -> str:
    """Say what a change does in the second series, and what is answered otherwise.

    Otherwise: by the interval of Nadeau and Bengio, by the planned repeats alone, and in the first series.
    """
    (first, of_first), (second, of_second) = series
    table = answers.answers(second, group, of_second).set_index("experiment")
    row = table.loc[name]
    others = [f"first series: {answers.answers(first, group, of_first).set_index('experiment').loc[name, 'answer']}"]
    if row["repeats"] > (planned := len(second.seeds)):
        alone = {key: answers.of_planned_seeds(second, runs) for key, runs in of_second.items()}
        early = answers.answers(second, group, alone).set_index("experiment").loc[name, "answer"]
        others.insert(0, f"after {planned}: {early}")
    if answers.undecided_by_nadeau_bengio(table)[name] and row["answer"] != answers.UNDECIDED:
        others.insert(0, "by Nadeau and Bengio: undecided")
    return (
        f"{changed} the AUC changes by {in_words(row, 'difference')}, {row['answer']} over {row['repeats']} repeats "
        f"({'; '.join(others)})."
    )


def _gates(series: Series) -> str:
    """Say what gates bring, and what a trained network loses when every breast gets the same gates."""
    _, repeats = series[1]
    said = _in_both("gates", "crop_plain", "Without the gates", series)
    longer = _in_both("gates_long", "long_plain", "On 100 tokens instead of 36, without the gates", series)
    row = answers.interventions({"crop": repeats["crop"]}).set_index("intervention").loc["frozen"]
    return (
        f"{said} {longer} With the gates of trained networks of that series frozen at their means it changes by "
        f"{in_words(row, 'difference')}, {row['answer']}."
    )


def _scan(series: Series) -> str:
    said = _in_both("isolation", "crop_gated_conv", "With a gated convolution in its place", series)
    return f"{said} {_in_both('isolation', 'crop_no_blocks', 'Without any token blocks', series)}"


def _films(series: Series) -> str:
    """Say what is lost without the whole film and without the crop, and how far that is what whole films are worth."""
    profile, repeats = series[1]
    said = _in_both("streams", "crop", "Without the whole film", series)
    row = answers.answers(profile, "streams", repeats).set_index("experiment").loc["whole"]
    gap = answers.compare_repeats(resolution.every_side()["stages_whole_96"], repeats["whole"])
    return (
        f"{said} Without the crop: {in_words(row, 'difference')}, {row['answer']}; but these networks also differ from "
        f"a logistic regression on their own frozen stages, by {gap}, and those of the first series hardly fitted "
        "their training breasts."
    )


def _changes() -> str:
    views, deeper = get_profile("mirror-open"), get_profile("mirror-limits")
    one_view = answers.answers(views, "view_training", answers.find_repeats(views)).set_index("experiment")
    reference = answers.find_repeats(get_profile("mirror-cv"))[limits.REFERENCE]
    stages = limits.against_reference(deeper, "stages", reference, answers.find_repeats(deeper))
    stages = stages.set_index("experiment")
    cc, mlo = (in_words(one_view.loc[name], "difference") for name in ("crop_cc", "crop_mlo"))
    lite2, lite1 = (in_words(stages.loc[name], "difference") for name in ("crop_lite2", "crop_lite1"))
    return (
        f"First series. One view instead of two: {cc} with CC alone, {mlo} with MLO alone. Frozen stages of another "
        f"network instead of EfficientNet-Lite0: {lite2} with Lite2, {lite1} with Lite1."
    )


def _elsewhere() -> str:
    return (
        f"{official_split.difference_in_short(official_split.read_record())} "
        f"{external_scores.transfer_in_short(external_scores.external_records('mini_mias'))}"
    )
