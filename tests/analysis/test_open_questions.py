"""The list of open questions: every chapter exists, every answer carries a number, and none is invented."""

import re
from pathlib import Path

from mammo_lib.analysis import open_questions
from mammo_lib.analysis.open_questions import NOT_YET
from mammo_lib.runs import records

ROOT = Path(__file__).parents[2]


def test_every_question_has_a_chapter_and_an_answer_with_a_number():
    table = open_questions.open_questions()
    assert table["question"].is_unique and len(table) >= 12
    for row in table.itertuples():
        assert (ROOT / "notebooks" / f"{row.chapter}.ipynb").is_file(), row.chapter
        assert row.answer == NOT_YET or re.search(r"\d\.\d", row.answer) or "yet" in row.answer, row.question


def test_without_records_nothing_is_claimed(run_homes):
    """With empty homes of records the compared networks are said not to have been run."""
    assert not [*records.all_runs(records.COMMITTED)]
    assert open_questions._views({}) == NOT_YET
    said = (open_questions._films({}), open_questions._stages({}), open_questions._group("mirror-cv", "gates", {}))
    assert all("that have not been run: " in one for one in said)
