"""The table of findings, from the committed records."""

import re
import runpy

import pytest

from mammo_lib.analysis import answers, limits, overridden_gates, sentences
from mammo_lib.analysis.answers import BOTH, DIFFERENT, EQUIVALENT, UNDECIDED
from mammo_lib.analysis.headlines import COLUMNS, headlines
from mammo_lib.config import ROOT, get_profile


@pytest.fixture(scope="module")
def table():
    return headlines()


def test_each_comparison_has_an_answer_with_an_interval_and_a_chapter_that_exists(table):
    assert tuple(table.columns) == COLUMNS and table["key"].is_unique and table["compared"].is_unique
    assert table["question"].str.endswith("?").all()
    assert table["difference"].between(table["difference_low"], table["difference_high"]).all()
    assert set(table["answer"]) <= {EQUIVALENT, DIFFERENT, BOTH, UNDECIDED}
    assert all((ROOT / "notebooks" / f"{name}.ipynb").is_file() for name in table["chapter"])
    assert not table[["compared", "remark"]].apply(lambda text: text.str.contains(r"[|\n]")).any(axis=None)


def test_the_answers_are_those_of_the_comparisons(table):
    told, groups = table.set_index("key"), ("gates", "isolation", "isolation_long")
    first, second = (
        {group: answers.answers(profile, group, repeats).set_index("experiment") for group in groups}
        for profile in map(get_profile, ("mirror-cv", "mirror-cv-training"))
        for repeats in [answers.find_repeats(profile)]
    )
    for key, group, name in (("gates", "gates", "crop_plain"), ("blocks", "isolation", "crop_no_blocks"),
                             ("blocks_long", "isolation_long", "long_no_blocks")):  # fmt: skip
        row, early, found = second[group].loc[name], first[group].loc[name, "answer"], told.loc[key]
        estimate = ["difference", "difference_low", "difference_high", "answer"]
        assert found[estimate].tolist() == row[estimate].tolist()
        assert (early != row["answer"]) == (f"first series: {early}" in found["remark"])
    assert told.loc["blocks", "remark"] == "first series: different"  # as told: a series may answer otherwise


def test_without_records_nothing_is_answered(tmp_path, monkeypatch):
    from mammo_lib.analysis import external_scores, official_split
    from mammo_lib.runs import records

    for module, name in ((records, "COMMITTED"), (records, "FRESH"), (external_scores, "COMMITTED"),
                         (official_split, "COMMITTED")):  # fmt: skip
        monkeypatch.setattr(module, name, tmp_path)
    assert headlines().empty


def test_front_page_and_readme_claim_no_more_than_the_answers(table):
    """Their bold sentences: open against the readers, gates and scan small, films nothing, two views and Lite2 more."""
    answer, change = table.set_index("key")["answer"], table.set_index("key")["difference"]
    assert answer["readers"] == UNDECIDED and answer["assessment"] == DIFFERENT and change["assessment"] > 0
    assert set(answer[["fixed", "fixed_long"]]) == {EQUIVALENT}
    assert set(answer[["gates", "gates_long", "scan", "scan_long", "blocks", "blocks_long"]]) <= {EQUIVALENT, BOTH}
    assert answer["crop"] == EQUIVALENT and answer["whole"] == DIFFERENT
    assert set(answer[["cc", "mlo", "lite2"]]) == {DIFFERENT} and change["lite2"] > 0 > change[["cc", "mlo"]].max()
    assert set(answer[["test_set", "mini_mias"]]) == {UNDECIDED} and change["test_set"] > 0


def test_what_the_readme_says_of_the_conservative_interval_and_of_a_p_value():
    profile = get_profile("mirror-cv-training")
    repeats = answers.find_repeats(profile)
    for group, name in (("gates", "crop_plain"), ("isolation", "crop_gated_conv"), ("streams", "crop")):
        table = answers.answers(profile, group, repeats).set_index("experiment")
        assert sentences.undecided_by_nadeau_bengio(table)[name], name
    [longer] = answers.answers(profile, "gates_long", repeats)["p_difference"]
    assert 0.04 < longer < 0.05  # "only just significantly"; a family of one comparison


def test_what_chapter_06b_says_in_its_closing():
    """Lite2 raises the AUC, Lite1 is equivalent, both undecided by Nadeau and Bengio; three quarters of breasts do."""
    profile = get_profile("mirror-limits")
    repeats, reference = answers.find_repeats(profile), answers.find_repeats(get_profile("mirror-cv"))["crop"]
    stages = limits.against_reference(profile, "stages", reference, repeats)
    assert stages.set_index("experiment")["answer"].to_dict() == {"crop_lite1": EQUIVALENT, "crop_lite2": DIFFERENT}
    assert sentences.undecided_by_nadeau_bengio(stages).all()
    fewer = limits.against_reference(profile, "breasts", reference, repeats).set_index("experiment")
    assert fewer.loc["crop_three_quarters", "answer"] == EQUIVALENT


def test_the_picture_of_the_front_page_shows_these_answers(table):
    """It is drawn by hand (`python book/picture.py`), and keeps its rows as a description."""
    picture = (ROOT / "book" / "_static" / "answers.svg").read_text(encoding="utf-8")
    drawn = re.search(r"<dc:description>(.*?)</dc:description>", picture, re.DOTALL)[1]
    assert drawn == runpy.run_path(str(ROOT / "book" / "picture.py"))["described"](table)


def test_what_chapter_06a_says_of_the_second_series_in_its_closing():
    """Its last cell is text: gates, mixers, no token blocks, fusions and the label alone as target are equivalent."""
    profile = get_profile("mirror-cv-training")
    repeats = answers.find_repeats(profile)
    mixers = answers.answers(profile, "isolation", repeats).set_index("experiment")
    gates = answers.answers(profile, "gates", repeats).set_index("experiment")
    extended = mixers.loc[["crop_ssm", "crop_attention", "crop_gated_conv", "crop_no_blocks"]]
    assert set(extended["answer"]) == {"equivalent"} and set(extended["repeats"]) == {5}
    assert ((extended["nb_low"] < -0.02) | (extended["nb_high"] > 0.02)).all()
    assert gates.loc["crop_plain", ["answer", "repeats"]].tolist() == ["equivalent", 5]
    fusion, additions = (answers.answers(profile, group, repeats) for group in ("fusion", "additions"))
    assert len(gates) == 9 and len(fusion) == 3 and {*gates["answer"], *fusion["answer"]} == {EQUIVALENT}
    assert additions.set_index("experiment").loc["crop_labels_only", "answer"] == EQUIVALENT
    few = (sentences.undecided_by_nadeau_bengio(table) for table in (gates, mixers, fusion))
    assert [int(doubtful.sum()) for doubtful in few] == [9, 5, 2]
    long_mixers = answers.answers(profile, "isolation_long", repeats)
    assert set(long_mixers["answer"]) == {"equivalent"} and set(long_mixers["repeats"]) == {2}
    assert sentences.undecided_by_nadeau_bengio(long_mixers).sum() == len(long_mixers) / 2
    longer = answers.answers(profile, "gates_long", repeats).set_index("experiment").loc["long_plain"]
    assert longer["answer"] == answers.BOTH and longer["difference"] < 0
    routed = overridden_gates.interventions(overridden_gates.gated_networks(profile, repeats)).set_index(
        ["network", "intervention"]
    )
    for network in ("crop", "crop_160_16"):
        assert set(routed["answer"][network][["frozen", "shuffled", "open"]]) == {"equivalent"}


def test_what_chapter_06a_says_of_gates_on_100_tokens_in_its_closing():
    """All eight other kinds of gates are equivalent to learned ones, and so are overridden gates that are not shut."""
    found, repeats = answers.gates_on_100_tokens(answers.find_repeats(get_profile("mirror-cv-training")))
    assert len(found) == 8 and set(found["answer"]) == {EQUIVALENT} and set(found["repeats"]) == {2}
    profile = get_profile(answers.LONG_GATES)
    routed = overridden_gates.interventions(overridden_gates.gated_networks(profile, repeats))
    assert set(routed.loc[routed["intervention"] != "shut", "answer"]) == {EQUIVALENT}
    assert routed["network"].nunique() == 6
