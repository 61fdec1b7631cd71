"""From records of cross-validation to answers."""

from types import SimpleNamespace

import pandas as pd
import pytest

from mammo_lib import figures
from mammo_lib.analysis import answers
from mammo_lib.config import get_profile
from mammo_lib.runs import records
from mammo_lib.runs.experiments import experiment_configs, read_groups
from mammo_lib.statistics import EQUIVALENCE

PROFILE = get_profile("mirror-cv")


def test_records_are_found_by_their_config_without_images(repeats):
    assert {name: [run.config.seed for run in runs] for name, runs in repeats.items()} == {
        "crop_plain": [0, 1], "crop_ssm": [0, 1], "crop_attention": [0], "crop_no_blocks": [0, 1],
    }  # fmt: skip


def test_what_is_missing_is_counted(repeats):
    table = answers.still_missing(PROFILE, repeats).set_index("question")["finished"]
    assert table["isolation"] == "7 of 12" and table["fusion"] == "0 of 8"


def test_each_variant_gets_the_protocols_word(repeats):
    table = answers.answers(PROFILE, "isolation", repeats).set_index("experiment")
    assert table["answer"].to_dict() == {
        "crop_ssm": "equivalent", "crop_attention": answers.BOTH, "crop_no_blocks": "different",
    }  # fmt: skip
    assert table.loc["crop_no_blocks", "difference"] < -0.1  # the variant minus the reference
    assert table.loc["crop_ssm", "reach"] == pytest.approx(0)
    assert table["repeats"].to_dict() == {"crop_ssm": 2, "crop_attention": 1, "crop_no_blocks": 2}


def test_comparisons_that_have_not_been_run_count_in_holms_correction(repeats):
    """Three of five planned ones: the smallest p is multiplied by five, whenever the other two come."""
    from mammo_lib.statistics import compare_folds

    pair = [[run.predictions for run in repeats[name]] for name in ("crop_no_blocks", "crop_plain")]
    alone = compare_folds(*pair)
    table = answers.answers(PROFILE, "isolation", repeats).set_index("experiment")
    assert table.loc["crop_no_blocks", "p_difference"] == pytest.approx(5 * alone.p)


def test_scores_come_with_their_question(repeats):
    table = answers.scores(PROFILE, "isolation", repeats)
    assert table["experiment"].tolist() == ["crop_plain", "crop_ssm", "crop_attention", "crop_no_blocks"]
    assert table["auc_low"].lt(table["auc"]).all() and table["auc"].lt(table["auc_high"]).all()


@pytest.mark.parametrize(("p", "p_equivalence", "word"), [
    (0.01, 0.9, "different"), (0.9, 0.01, "equivalent"), (0.9, 0.9, "undecided"),
    (0.01, 0.01, "different, but by less than the bound"),
])  # fmt: skip
def test_the_words_of_the_protocol(p, p_equivalence, word):
    assert answers.answer(p, p_equivalence) == word


def test_the_forest_shows_the_bound_and_the_words(repeats):
    table = answers.answers(PROFILE, "isolation", repeats)
    axes = figures.equivalence_forest(table, "crop_plain", EQUIVALENCE).axes[0]
    labels = [text.get_text() for text in axes.get_yticklabels()]
    assert labels[0] == "state-space mixers only: equivalent" and len(labels) == 3
    assert any("within ±0.02" in handle.get_label() for handle in axes.patches)


def test_every_group_begins_with_what_the_others_are_compared_with():
    asked = {name for names in read_groups(PROFILE).values() for name in names}
    assert asked == {config.experiment for config in experiment_configs(PROFILE, "all")}


def test_the_geometries_are_chosen_by_the_rule_once_all_have_run(monkeypatch):
    """`crop` has 36 tokens, `crop_224_32` 49, the others 144, 100 and 196."""
    profile = get_profile("mirror-cv")
    auc = {"crop": 0.86, "crop_96_8": 0.65, "crop_160_16": 0.80, "crop_224_16": 0.81, "crop_224_32": 0.82}
    table = pd.DataFrame({"experiment": [*auc], "auc": [*auc.values()]})
    repeats = {name: [SimpleNamespace(config=experiment_configs(profile, name)[0])] for name in auc}
    monkeypatch.setattr(answers, "scores", lambda *_: table)
    assert answers.geometries(profile, repeats) == {"best": "crop", "long": "crop_224_16"}
    monkeypatch.setattr(answers, "scores", lambda *_: table.head(4))
    assert answers.geometries(profile, repeats) == {}


def test_series_are_compared_network_by_network(run_homes, write_repeat):
    """The second minus the first, where both have a repeat; baselines have no encoder."""
    first, second = ({name: [write_repeat(records.FRESH / mode, name, 0, gain)] for name in names}
                     for mode, gain, names in (("a", 1.0, ("crop", "crop_plain", "baseline_birads")),
                                               ("b", 1.5, ("crop", "crop_ssm", "baseline_birads"))))  # fmt: skip
    [row] = answers.between_series(first, second).to_dict("records")
    assert row["experiment"] == "crop" and row["difference"] > 0
