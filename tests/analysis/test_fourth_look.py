"""The fourth look: the rules of protocol 5 on records made by hand."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from mammo_lib.analysis import fourth_look, tables
from mammo_lib.config import get_profile
from mammo_lib.runs.experiments import experiment_configs, read_experiments
from mammo_lib.statistics import auc

PROFILE = get_profile("mirror-final")
N = 149


def scored(separation, seed, split="test"):
    """A record whose logits hold some of the label."""
    rng, label = np.random.default_rng([7, seed, int(100 * separation)]), np.arange(2 * N) % 2
    logit = separation * label + rng.normal(size=2 * N)
    frame = pd.DataFrame({
        "sample_id": [f"b{i:03d}" for i in range(2 * N)], "patient_id": np.arange(2 * N), "label": label,
        "logit": logit, "probability": 1 / (1 + np.exp(-logit)), "threshold": 0.5, "temperature": 1.0,
        "split": np.repeat(["validation", split], N), "fold": np.arange(2 * N) % 5,
    })  # fmt: skip
    return SimpleNamespace(predictions=frame, receipt={"profile": "mirror-final", "added_after": None}, folder=seed)


@pytest.fixture(scope="module")
def runs():
    strengths = {"final_crop": 1.5, "final_plain": 1.5, "final_whole": 0.1, "final_attention": 1.4, "final_birads": 1.3}
    return {name: [scored(strength, 10 * i + seed) for seed in range(3)]
            for i, (name, strength) in enumerate(strengths.items())}  # fmt: skip


def test_the_list_has_the_entries_and_seeds_of_the_protocol():
    asked = read_experiments(PROFILE)
    assert set(asked) == set(fourth_look.OUT_OF_FOLD) and fourth_look.REFERENCE in asked
    assert set(fourth_look.OUT_OF_FOLD.values()) <= set(read_experiments(get_profile("mirror-cv")))
    assert {config.protocol for config in experiment_configs(PROFILE, "all")} == {5}
    assert len(experiment_configs(PROFILE, "final_dual")) == 5


@pytest.mark.parametrize("name", sorted(fourth_look.OUT_OF_FOLD))
def test_an_entry_is_the_network_that_was_cross_validated(name):
    """Only the division of the training breasts may differ."""
    ours = experiment_configs(PROFILE, name)[0]
    theirs = experiment_configs(get_profile("mirror-cv"), fourth_look.OUT_OF_FOLD[name])[0]
    assert ours.train == theirs.train and ours.baseline == theirs.baseline
    assert ours.data.model_copy(update={"fold": "each"}) == theirs.data
    assert ours.model == theirs.model


def test_only_what_interval_and_p_both_show_is_different(runs):
    table = fourth_look.compared(PROFILE, runs).set_index("experiment")
    assert table.loc["final_whole", "answer"] == fourth_look.DIFFERENT
    assert table.loc["final_plain", "answer"] == fourth_look.UNDECIDED
    said = fourth_look.compared_in_words(table.reset_index())
    assert said.startswith("Different from the crop stream: whole stream -0.")
    assert "No difference shown: crop stream, no gates" in said


def test_a_clear_interval_alone_decides_nothing(runs, monkeypatch):
    table = tables.differences(runs, "final_crop").assign(p_auc=0.2)
    monkeypatch.setattr(tables, "differences", lambda *_: table)
    assert set(fourth_look.compared(PROFILE, runs)["answer"]) == {fourth_look.UNDECIDED}


def test_test_and_out_of_fold_stand_side_by_side(runs):
    rows = fourth_look.beside_out_of_fold(PROFILE, runs, {"crop": [scored(1.5, 3)]}).set_index("experiment")
    crop = rows.loc["final_crop"]
    parts = [run.predictions.query("split == 'test'") for run in runs["final_crop"]]
    assert crop["test"] == pytest.approx(np.mean([auc(one["label"], one["probability"]) for one in parts]))
    assert crop["lower"] == pytest.approx(crop["out"] - crop["test"]) and crop["n"] == N
    assert np.isnan(rows.loc["final_whole", "out"])


def test_the_aim_compares_ensembles(runs):
    difference, p = fourth_look.best_against_readers(runs)
    ours, readers = (tables.ensemble_predictions(runs[name]) for name in ("final_attention", "final_birads"))
    expected = auc(ours["label"], ours["logit"]) - auc(readers["label"], readers["logit"])
    assert difference.value == pytest.approx(expected) and 0 <= p <= 1
