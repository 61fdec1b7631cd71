"""Protocol 8: its rules on records made by hand."""

import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from mammo_lib.analysis import fifth_look
from mammo_lib.config import get_profile
from mammo_lib.errors import InputError
from mammo_lib.files import write_json, write_parquet
from mammo_lib.runs import records
from mammo_lib.statistics import auc, over_seeds, seeds, shift_over_seeds

PROFILE = get_profile("mirror-final")
N = 120


@pytest.fixture(autouse=True)
def fewer_resamples(monkeypatch):
    monkeypatch.setattr(seeds, "N_RESAMPLES", 200)


def scores(separation, seed, n=N, split="test"):
    """Return breasts whose logits hold some of the label."""
    rng, label = np.random.default_rng([3, seed, int(100 * abs(separation))]), np.arange(n) % 2
    logit = separation * label + rng.normal(size=n)
    return pd.DataFrame({
        "split": split, "sample_id": [f"{split}{i:03d}" for i in range(n)], "patient_id": np.arange(n), "label": label,
        "logit": logit, "probability": 1 / (1 + np.exp(-logit)), "threshold": 0.5, "temperature": 1.0,
        "assessment": 3 + label, "has_CC": np.arange(n) < n // 3, "has_MLO": np.arange(n) >= n // 3,
        "lesion_type": np.where(np.arange(n) < n // 2, "mass", "calcification"),
    })  # fmt: skip


def record(streams, seed, strengths, outside=1.0):
    """Return a record with one table of hidden inputs; ``strengths`` maps (views, streams) to a separation."""
    tables = [scores(strength, seed).assign(views=views, streams=shown, fill="mask")
              for (views, shown), strength in strengths.items()]  # fmt: skip
    parts = {"one_film": 0.8, "external": outside, "internal_masked": 1.0}
    alone = pd.concat([scores(strength, seed, 60, split) for split, strength in parts.items()], ignore_index=True)
    return SimpleNamespace(hidden_inputs=pd.concat(tables, ignore_index=True), predictions=alone, folder=streams)


@pytest.fixture(scope="module")
def made():
    """The crop stream needs the MLO view and not the CC view; of both streams the crops say everything."""
    crop = {("CC+MLO", "crop"): 1.5, ("CC", "crop"): 0.1, ("MLO", "crop"): 1.5}
    dual = {("CC+MLO", "crop+whole"): 1.5, ("CC+MLO", "crop"): 1.5, ("CC+MLO", "whole"): 0.0}
    return {
        "final_dual": [record("dual", 10 + seed, dual) for seed in range(3)],
        "final_crop": [record("crop", seed, crop) for seed in range(3)],
    }


def test_what_is_planned_is_compared_as_one_family(made):
    table = fifth_look.hidden_compared(PROFILE, made).set_index("name")
    assert table.index.tolist() == [
        "crop stream: CC only", "crop stream: MLO only", "both streams: both views, crop only",
        "both streams: both views, whole only",
    ]  # fmt: skip
    different = table["answer"] == fifth_look.DIFFERENT
    assert different.tolist() == [True, False, False, True]
    assert (table["n"] == N).all() and (table["p"].diff().dropna() != 0).any()


def test_networks_that_saw_the_same_are_the_same(made):
    """Seeds are drawn in pairs: a network minus itself has no spread."""
    same = {name: [record("x", seed, dict.fromkeys([(fifth_look.BOTH, fifth_look.STREAMS[name]), *inputs], 1.0))
                   for seed in range(3)] for name, inputs in fifth_look.PLANNED.items()}  # fmt: skip
    table = fifth_look.hidden_compared(PROFILE, same)
    assert (table[["difference", "difference_low", "difference_high"]] == 0).all(axis=None)
    assert (table["answer"] == fifth_look.UNDECIDED).all()


def test_inputs_are_averaged_over_seeds(made):
    table = fifth_look.by_input(made["final_crop"]).set_index("name")
    own = [fifth_look.seen([run], "CC", "crop")[0] for run in made["final_crop"]]
    wanted = np.mean([auc(one["label"].to_numpy(), one["probability"].to_numpy()) for one in own])
    assert table.loc["CC only", "auc"] == pytest.approx(wanted) and table.index[0] == "both views"


def test_an_input_that_was_not_scored_is_named(made):
    with pytest.raises(InputError, match="no scores with views CC and streams whole"):
        fifth_look.seen(made["final_crop"], "CC", "whole")


def test_breasts_with_one_film_are_told_by_view(made):
    table = fifth_look.one_film(PROFILE, made).set_index("name")
    assert table.loc["crop stream", "n"] == 60 and table.loc["crop stream", "malignant"] == 30
    assert table[["all", "cc", "mlo"]].notna().all(axis=None)
    readers = fifth_look.readers_with_one_film(made)
    assert {key: one.n for key, one in readers.items()} == {"all": 60, "cc": 20, "mlo": 40}
    assert readers["all"].value == 1


def test_a_loss_elsewhere_is_shown_where_there_is_one(made):
    inputs = {("CC+MLO", "crop"): 1.0}
    lost = {name: [record(name, seed, inputs, outside=-2.0) for seed in range(3)] for name in made}
    table = fifth_look.elsewhere(PROFILE, lost)
    assert (table["shift_high"] < 0).all() and table["n"].tolist() == [30, 30, 60, 60]
    np.testing.assert_allclose(table["shift"], table["external"] - table["internal"])
    kept = fifth_look.elsewhere(PROFILE, made)
    assert (kept["shift_high"] > 0).all()


def test_two_collections_are_drawn_independently():
    """The standard error of the shift is the root of the sum of the squares."""
    outside, inside = ([scores(1.0, seed, 80, split) for seed in range(4)] for split in ("external", "internal"))
    found = shift_over_seeds(outside, inside, "auc")
    apart = [over_seeds(one, "auc") for one in (outside, inside)]
    wanted = np.hypot(*[one.high - one.low for one in apart])
    assert found.high - found.low == pytest.approx(wanted, rel=0.15)


def test_families_elsewhere_are_one_for_each_set_of_breasts(made):
    table = fifth_look.elsewhere_compared(PROFILE, made)
    assert table["breasts"].tolist() == ["masses", "all abnormal"] and set(table["name"]) == {"both streams"}


def test_records_are_found_by_the_network_that_they_score(run_homes):
    known = {
        "incomplete_final_crop/a": "final_crop/seed1-a", "incomplete_final_crop/b": "final_crop/seed0-b",
        "incomplete_final_dual/c": "final_dual/seed0-c", "incomplete_other/d": "other/seed0-d",
    }  # fmt: skip
    for folder, network in known.items():
        seed = int(network.partition("seed")[2][0])
        home = records.COMMITTED / folder
        home.mkdir(parents=True)
        write_json(home / "config.json", json.loads(PROFILE.run.model_copy(update={"seed": seed}).model_dump_json()))
        write_json(home / "environment.json", {"network": network})
        run = records.Run(home)
        write_parquet(home / "hidden_inputs.parquet", scores(1.0, 0))
        run.finish(scores(1.0, 0), {"one_film": {}})
    found = fifth_look.incomplete_records(PROFILE)
    assert list(found) == ["final_dual", "final_crop"]
    assert [run.config.seed for run in found["final_crop"]] == [0, 1]


def test_the_answer_is_two_sentences_with_the_best_network(made):
    hidden, alone = fifth_look.hidden_compared(PROFILE, made), fifth_look.one_film(PROFILE, made)
    said = fifth_look.in_short(hidden, alone, fifth_look.readers_with_one_film(made)["all"])
    assert said.count(". ") == 1 and ", different, when it sees the CC view alone" in said
    assert alone.loc[alone["all"].idxmax(), "name"] in said
