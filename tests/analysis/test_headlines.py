"""The short table of findings, from the committed records."""

import re

from mammo_lib.analysis.headlines import front_page, headlines
from mammo_lib.analysis.open_questions import NOT_YET
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

    told = headlines().set_index("key")["answer"]["gates"]
    first, second = (
        answers.answers(profile, "gates", answers.find_repeats(profile)).set_index("experiment")
        for profile in map(get_profile, ("mirror-cv", "mirror-cv-training"))
    )
    row = second.loc["crop_plain"]
    assert f"{in_words(row, 'difference')}, {row['answer']} over 5 repeats" in told
    assert "after 2: equivalent" in told and f"first series: {first.loc['crop_plain', 'answer']})" in told
    is_doubtful = answers.undecided_by_nadeau_bengio(second)["crop_plain"]
    assert is_doubtful == ("by Nadeau and Bengio: undecided" in told)


def test_the_front_page_says_in_short_what_the_table_says():
    told, short = headlines().set_index("key")["answer"], front_page()
    assert short["readers"] == told["readers"] and short["elsewhere"] == told["elsewhere"]
    for key, n in (("gates", 2), ("films", 1)):
        answered = re.findall(r"by ([^;]+?\)), ([^;.]+)", short[key])
        assert len(answered) == n and len(short[key]) < len(told[key]) / 2
        assert all(f"by {number}, {answer} over" in told[key] for number, answer in answered)


def test_without_records_nothing_is_answered(tmp_path, monkeypatch):
    from mammo_lib.analysis import external_scores, official_split
    from mammo_lib.runs import records

    for module in (records, external_scores, official_split):
        for name in ("COMMITTED", "FRESH"):
            if hasattr(module, name):
                monkeypatch.setattr(module, name, tmp_path)
    assert set(headlines()["answer"]) == {NOT_YET} == set(front_page().values())


def test_the_front_page_claims_no_more_than_the_answers():
    """Its bold sentences: gates change little, whole films bring nothing, and the test set scores lower."""
    table = headlines().set_index("key")["answer"]
    assert "which leaves open which is better" in table["readers"]
    gates = re.findall(r"(\w[^,()]*(?:, but by less than the bound)?) over \d repeats", table["gates"])
    assert gates == ["equivalent", "different, but by less than the bound"]
    assert "equivalent over 2 repeats" in table["films"].split("Without the crop")[0]
    assert re.search(r"is higher than on the \d+ test breasts by \+0", table["elsewhere"])


def test_what_chapter_06a_says_of_the_second_series_in_its_closing():
    """Its last cell is text: gates, mixers and no token blocks are equivalent, each over five repeats."""
    from mammo_lib.analysis import answers
    from mammo_lib.config import get_profile

    profile = get_profile("mirror-cv-training")
    repeats = answers.find_repeats(profile)
    mixers = answers.answers(profile, "isolation", repeats).set_index("experiment")
    gates = answers.answers(profile, "gates", repeats).set_index("experiment")
    extended = mixers.loc[["crop_ssm", "crop_attention", "crop_gated_conv", "crop_no_blocks"]]
    assert set(extended["answer"]) == {"equivalent"} and set(extended["repeats"]) == {5}
    assert ((extended["nb_low"] < -0.02) | (extended["nb_high"] > 0.02)).all()
    assert gates.loc["crop_plain", ["answer", "repeats"]].tolist() == ["equivalent", 5]
    longer = answers.answers(profile, "gates_long", repeats).set_index("experiment").loc["long_plain"]
    assert longer["answer"] == answers.BOTH and longer["difference"] < 0
    routed = answers.interventions(answers.gated_networks(profile, repeats)).set_index(["network", "intervention"])
    for network in ("crop", "crop_160_16"):
        assert set(routed["answer"][network][["frozen", "shuffled", "open"]]) == {"equivalent"}
