"""Families of comparisons in sentences."""

from types import SimpleNamespace

import pandas as pd

from mammo_lib.analysis import answers, sentences
from mammo_lib.config import get_profile
from mammo_lib.runs import records

PROFILE = get_profile("mirror-cv")


def test_each_answer_is_said_with_its_numbers(repeats):
    said = sentences.sentence(answers.answers(PROFILE, "isolation", repeats), "crop_plain")
    assert "no token blocks (`crop_no_blocks`): different, -0." in said
    assert "attention only (`crop_attention`) [1 of 2 repeats]: different, but by less than the bound, +0.0" in said
    assert "state-space mixers only (`crop_ssm`): equivalent (reach 0.000)" in said
    assert said.endswith(" Planned comparisons that have not been run: 2.")


def in_stages(repeats):
    return sentences.in_stages(answers.answers(PROFILE, "isolation", repeats), PROFILE, "isolation", repeats)


def test_added_repeats_count_once_all_have_run_and_the_first_stage_is_told(tmp_path, monkeypatch, write_repeat):
    monkeypatch.setattr(records, "COMMITTED", tmp_path / "committed")
    monkeypatch.setattr(records, "FRESH", tmp_path / "fresh")
    added = PROFILE.further_seeds
    assert not set(added) & set(PROFILE.seeds) and len(PROFILE.seeds) + len(added) == 5  # protocol 2: "up to five"
    for seed in (*PROFILE.seeds, *added[:-1]):
        write_repeat(tmp_path / "committed", "crop_plain", seed, 1.5)
        write_repeat(tmp_path / "committed", "crop_ssm", seed, 1.5)
    for seed in PROFILE.seeds:
        write_repeat(tmp_path / "committed", "crop_attention", seed, 1.5)
    said = in_stages(answers.find_repeats(PROFILE))
    assert "repeats" not in said  # one is missing: all that were added wait

    for name in ("crop_plain", "crop_ssm"):
        write_repeat(tmp_path / "committed", name, added[-1], 1.5)
    repeats = answers.find_repeats(PROFILE)
    table = answers.answers(PROFILE, "isolation", repeats).set_index("experiment")["repeats"]
    assert table.to_dict() == {"crop_ssm": 5, "crop_attention": 2}
    said, first = in_stages(repeats).split(" After the 2 planned repeats alone: ")
    assert "(`crop_ssm`) [5 repeats]: equivalent" in said and "(`crop_attention`): equivalent" in said
    assert first == (
        "`crop_ssm`: equivalent (reach 0.000). At 2.5 % instead of 5 %, to allow for two stages, 1 of 1 answers are "
        "the same."
    )
    assert answers.still_missing(PROFILE, repeats).set_index("question")["finished"]["isolation"] == "6 of 12"


def test_the_conservative_interval_is_read_out():
    rows = pd.DataFrame({
        "experiment": ["a", "b", "c", "d"], "answer": ["different", "different", "equivalent", "undecided"],
        "nb_low": [-0.2, -0.2, -0.03, -1.0], "nb_high": [0.01, -0.1, 0.01, 1.0],
    })  # fmt: skip
    assert sentences.caution(rows).endswith("2 of these 3 answers would be undecided: `a`, `c`.")
    assert sentences.caution(rows.iloc[1:2]).endswith("this answer would be the same.")
    assert sentences.caution(rows.assign(answer=answers.UNDECIDED)) == ""


def test_a_fit_that_collapsed_is_named_and_kept(repeats):
    assert sentences.collapsed_fits(PROFILE, "isolation", repeats) == ""
    before = answers.answers(PROFILE, "isolation", repeats)
    run = repeats["crop_ssm"][0]
    frame = run.predictions
    bad = frame.assign(logit=frame["logit"].mask(frame["fold"] == 2, -frame["logit"]))
    fallen = SimpleNamespace(config=run.config, predictions=bad)
    changed = repeats | {"crop_ssm": [fallen, *repeats["crop_ssm"][1:]]}
    said = sentences.collapsed_fits(PROFILE, "isolation", changed)
    assert said.startswith("One fit of `crop_ssm` collapsed: in fold 3 of repeat 1 its AUC is 0.1")
    assert "in the other 9 fits 0.8" in said
    row = answers.answers(PROFILE, "isolation", changed).set_index("experiment").loc["crop_ssm"]
    assert row["difference"] < before.set_index("experiment").loc["crop_ssm", "difference"] - 0.05
    alone = answers.compare_repeats(repeats["crop_plain"], repeats["crop_ssm"][1:])
    assert f"Without its repeat the difference would be {alone.value:+.3f}" in said


def test_nothing_is_said_where_nothing_was_run(repeats):
    table = answers.answers(PROFILE, "fusion", repeats)
    assert table.empty
    assert sentences.sentence(table, "dual") == "No variant has been compared with `dual` yet."
