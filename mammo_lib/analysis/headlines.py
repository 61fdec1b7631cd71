"""What is known so far, in a table of a few rows: for the README and the opening of chapter 12, from committed records.

:mod:`mammo_lib.analysis.open_questions` gives the long answers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from ..config import Profile, get_profile
from ..runs.records import Run
from . import answers, external_scores, fourth_look, limits, missing, official_split
from .wording import in_words

Repeats = Mapping[str, Sequence[Run]]
CROSS_VALIDATED = ("06a_answers_by_cross_validation",)


def headlines() -> pd.DataFrame:
    """Return ``key question answer chapters``; ``chapters`` are file names of the chapters that show the numbers."""
    first, second = (get_profile(name) for name in ("mirror-cv", "mirror-cv-training"))
    series = (first, answers.find_repeats(first)), (second, answers.find_repeats(second))
    rows = [
        ("readers", "Does a network reach the readers?", _readers(),
         ("05b_the_fourth_look", "08_missing_views_and_density")),
        ("gates", "Do SeqMoE's gates help?",
         _in_both("gates", "crop_plain", "Without the gates", series) + _routing(*series[1]), CROSS_VALIDATED),
        ("scan", "Does the selective scan help?",
         _in_both("isolation", "crop_attention", "With attention in its place", series), CROSS_VALIDATED),
        ("films", "Does the whole film add to the crop?",
         _in_both("streams", "crop", "Without the whole film", series) + _alone(*series[1]), CROSS_VALIDATED),
        ("gains", "What raises the AUC?", _raised(),
         ("08_missing_views_and_density", "06b_what_limits_the_network")),
        ("elsewhere", "Does it hold on other breasts?", _elsewhere(),
         ("05a_why_the_test_set_scores_lower", "11_another_collection")),
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=["key", "question", "answer", "chapters"])


def _readers() -> str:
    final = answers.find_repeats(get_profile("mirror-final"))
    aim, _ = fourth_look.best_against_readers(final)
    held_out = answers.find_repeats(get_profile("mirror-open"))["crop_held_out"]
    added, _ = missing.beyond_assessment(held_out)
    is_open = ", which leaves open which is better" if aim.low < 0 < aim.high else ""
    return (
        f"On {aim.n} test breasts the AUC of the best network minus that of the readers' BI-RADS assessment is "
        f"{aim.value:+.3f} ({aim.low:+.3f} to {aim.high:+.3f}){is_open}. Out of fold, adding the crop network to the "
        f"assessment changes the AUC by {added}."
    )


def _in_both(group: str, name: str, changed: str, series: Sequence[tuple[Profile, Repeats]]) -> str:
    """Say what a change does in the second series, on how many repeats, and what the first series answers."""
    first, second = (
        answers.answers(profile, group, repeats).set_index("experiment").loc[name] for profile, repeats in series
    )
    return (
        f"{changed} the AUC changes by {in_words(second, 'difference')}, {second['answer']} over {second['repeats']} "
        f"repeats (first series: {first['answer']})."
    )


def _routing(profile: Profile, repeats: Repeats) -> str:
    """Say what a trained network loses when every breast gets the same gates."""
    table = answers.interventions({"crop": repeats["crop"]}).set_index("intervention")
    return f" With trained gates frozen at their means: {in_words(table.loc['frozen'], 'difference')}."


def _alone(profile: Profile, repeats: Repeats) -> str:
    """Say what is lost without the crop."""
    row = answers.answers(profile, "streams", repeats).set_index("experiment").loc["whole"]
    return f" Without the crop: {in_words(row, 'difference')}, {row['answer']}."


def _raised() -> str:
    views, deeper = get_profile("mirror-open"), get_profile("mirror-limits")
    one_view = answers.answers(views, "view_training", answers.find_repeats(views)).set_index("experiment")
    reference = answers.find_repeats(get_profile("mirror-cv"))[limits.REFERENCE]
    stages = limits.against_reference(deeper, "stages", reference, answers.find_repeats(deeper))
    lite2 = stages.set_index("experiment").loc["crop_lite2"]
    cc, mlo = (in_words(one_view.loc[name], "difference") for name in ("crop_cc", "crop_mlo"))
    return (
        f"A second view: networks trained on CC alone differ from those trained on both by {cc}, networks trained on "
        f"MLO alone by {mlo}. Larger frozen stages, EfficientNet-Lite2 in place of -Lite0: "
        f"{in_words(lite2, 'difference')}, {lite2['answer']}."
    )


def _elsewhere() -> str:
    return (
        f"{official_split.difference_in_short(official_split.read_record())} "
        f"{external_scores.transfer_in_short(external_scores.external_records('mini_mias'))}"
    )
