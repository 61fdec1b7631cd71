"""The short table of findings, from the committed records."""

import re

from mammo_lib.analysis.headlines import headlines
from mammo_lib.config import ROOT


def test_each_question_has_an_answer_with_an_interval_and_chapters_that_exist():
    table = headlines()
    assert table["question"].str.endswith("?").all() and table["question"].is_unique and table["key"].is_unique
    for row in table.itertuples():
        assert re.search(r"[+-]0\.\d{3} \([+-]0\.\d{3} to [+-]0\.\d{3}\)", row.answer), row.question
        assert all((ROOT / "notebooks" / f"{name}.ipynb").is_file() for name in row.chapters)
        assert "|" not in row.answer and "\n" not in row.answer  # one cell of a Markdown table


def test_the_answers_are_those_of_the_comparisons():
    from mammo_lib.analysis import answers
    from mammo_lib.analysis.wording import in_words
    from mammo_lib.config import get_profile

    told = headlines().set_index("question")["answer"]["Do SeqMoE's gates help?"]
    for name in ("mirror-cv", "mirror-cv-training"):
        profile = get_profile(name)
        plain = answers.answers(profile, "gates", answers.find_repeats(profile)).set_index("experiment")
        row = plain.loc["crop_plain"]
        assert f"{in_words(row, 'difference')}, {row['answer']}" in told


def test_the_front_page_claims_no_more_than_the_answers():
    """Its bold sentences: no benefit of gates and whole films, and the test set scores lower."""
    table = headlines().set_index("key")["answer"]
    assert "which leaves open which is better" in table["readers"]
    for key in ("gates", "films"):
        assert "different" not in table[key]
    assert re.search(r"is higher than on the \d+ test breasts by \+0", table["elsewhere"])
