"""The short table of findings, from the committed records."""

import re

from mammo_lib.analysis.headlines import headlines
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

    told, groups = headlines().set_index("key")["answer"], ("gates", "isolation", "isolation_long")
    first, second = (
        {group: answers.answers(profile, group, repeats).set_index("experiment") for group in groups}
        for profile in map(get_profile, ("mirror-cv", "mirror-cv-training"))
        for repeats in [answers.find_repeats(profile)]
    )
    for key, group, name in (("gates", "gates", "crop_plain"), ("scan", "isolation", "crop_no_blocks"),
                             ("scan", "isolation_long", "long_no_blocks")):  # fmt: skip
        row, early = second[group].loc[name], first[group].loc[name, "answer"]
        assert f"by {in_words(row, 'difference')}, {row['answer']}" in told[key]
        assert (early != row["answer"]) == (f"{row['answer']} (first series: {early})" in told[key])
    assert "first series: different)" in told["scan"]  # as told: a series may answer otherwise


def test_without_records_nothing_is_answered(tmp_path, monkeypatch):
    from mammo_lib.analysis import external_scores, official_split
    from mammo_lib.runs import records

    for module in (records, external_scores, official_split):
        for name in ("COMMITTED", "FRESH"):
            if hasattr(module, name):
                monkeypatch.setattr(module, name, tmp_path)
    assert set(headlines()["answer"]) == {NOT_YET}


def test_the_front_page_claims_no_more_than_the_answers():
    """Its bold sentences: gates change little, whole films bring nothing, and the test set scores lower."""
    table = headlines().set_index("key")["answer"]
    assert "which leaves open which is better" in table["readers"]
    few, many = table["gates"].split(";")
    assert few.endswith("), equivalent") and "), different, but by less than the bound" in many
    assert "), equivalent; without the crop" in table["films"]
    answered = re.findall(r"to [-+.\d]+\), (\w+)", table["scan"])  # convolution; no blocks, on 36 and 100 tokens
    assert answered == ["equivalent"] * 3
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
    long_mixers = answers.answers(profile, "isolation_long", repeats)
    assert set(long_mixers["answer"]) == {"equivalent"} and set(long_mixers["repeats"]) == {2}
    assert answers.undecided_by_nadeau_bengio(long_mixers).sum() == len(long_mixers) / 2
    longer = answers.answers(profile, "gates_long", repeats).set_index("experiment").loc["long_plain"]
    assert longer["answer"] == answers.BOTH and longer["difference"] < 0
    routed = answers.interventions(answers.gated_networks(profile, repeats)).set_index(["network", "intervention"])
    for network in ("crop", "crop_160_16"):
        assert set(routed["answer"][network][["frozen", "shuffled", "open"]]) == {"equivalent"}
