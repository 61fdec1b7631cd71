"""Protocol 8: its rules on records made by hand."""

import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from mammo_lib.analysis import answers, fifth_look
from mammo_lib.config import get_profile
from mammo_lib.errors import InputError
from mammo_lib.files import write_json, write_parquet
from mammo_lib.runs import records
from mammo_lib.statistics import auc, difference_over_seeds, over_seeds, seeds, shift_over_seeds

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
        "tissue": np.array(list("FGD"))[np.arange(n) % 3], "finding": np.where(np.arange(n) < n // 2, "CIRC", "CALC"),
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
    different = table["answer"] == answers.DIFFERENT
    assert different.tolist() == [True, False, False, True]
    assert (table["n"] == N).all() and (table["p"].diff().dropna() != 0).any()


def test_networks_that_saw_the_same_are_the_same():
    """Seeds are drawn in pairs: a network minus itself has no spread."""
    same = {name: [record("x", seed, dict.fromkeys([(fifth_look.BOTH, fifth_look.STREAMS[name]), *inputs], 1.0))
                   for seed in range(3)] for name, inputs in fifth_look.PLANNED.items()}  # fmt: skip
    table = fifth_look.hidden_compared(PROFILE, same)
    assert (table[["difference", "difference_low", "difference_high"]] == 0).all(axis=None)
    assert (table["answer"] == answers.UNDECIDED).all()


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


def test_seeds_of_the_same_networks_are_drawn_in_pairs():
    """Networks that differ much from each other, and little between two inputs: pairing removes the larger part."""
    complete = [scores(0.5 * seed, seed) for seed in range(4)]
    rng = np.random.default_rng(0)
    hidden = [one.assign(logit=one["logit"] + 0.1 * rng.normal(size=N)) for one in complete]
    hidden = [one.assign(probability=1 / (1 + np.exp(-one["logit"]))) for one in hidden]
    apart, paired = (difference_over_seeds(hidden, complete, "auc", same_networks=is_same) for is_same in (False, True))
    assert paired.value == apart.value and paired.high - paired.low < 0.5 * (apart.high - apart.low)


def test_two_collections_are_drawn_independently():
    """The standard error of the shift is the root of the sum of the squares."""
    outside, inside = ([scores(1.0, seed, 80, split) for seed in range(4)] for split in ("external", "internal"))
    found = shift_over_seeds(outside, inside, "auc")
    apart = [over_seeds(one, "auc") for one in (outside, inside)]
    wanted = np.hypot(*[one.high - one.low for one in apart])
    assert found.high - found.low == pytest.approx(wanted, rel=0.15)


def test_decisions_elsewhere_are_those_of_each_seed_and_calibration_is_of_the_mean_logit(made):
    table = fifth_look.decisions_elsewhere(PROFILE, made).set_index(["name", "breasts"])
    one = table.loc[("crop stream", "all abnormal")]
    frames = [fifth_look.scored(run, "external") for run in made["final_crop"]]
    called = [frame.loc[frame["label"] == 1, "probability"].ge(0.5).mean() for frame in frames]
    assert one["sensitivity"] == pytest.approx(np.mean(called)) and one["n"] == 60 and one["malignant"] == 30
    logit = np.mean([frame["logit"] for frame in frames], axis=0)
    assert one["calibration"] == pytest.approx((1 / (1 + np.exp(-logit))).mean() - 0.5)
    assert table.loc[("crop stream", "masses"), "n"] == 30


def test_kinds_elsewhere_have_a_column_for_each_network(made):
    table = fifth_look.kinds_elsewhere(PROFILE, made)
    assert table["level"].tolist()[:4] == ["", "F", "G", "D"] and table["n"].iloc[0] == 60
    label, logit = (
        np.mean([fifth_look.scored(run, "external")[name] for run in made["final_dual"]], axis=0)
        for name in ("label", "logit")
    )
    assert table["both streams"].iloc[0] == pytest.approx(auc(label.astype(int), 1 / (1 + np.exp(-logit))))


def test_families_elsewhere_are_one_for_each_set_of_breasts(made):
    table = fifth_look.elsewhere_compared(PROFILE, made)
    assert table["breasts"].tolist() == ["masses", "all abnormal"] and set(table["name"]) == {"both streams"}


def write_seed(folder, network):
    """Write the record of one network, as `mammo evaluate --incomplete` does."""
    seed, home = int(network.partition("seed")[2][0]), records.COMMITTED / folder
    home.mkdir(parents=True)
    config = PROFILE.run.model_copy(update={"seed": seed})
    write_json(home / "config.json", json.loads(config.model_dump_json()))
    write_json(home / "environment.json", {"network": network})
    write_parquet(home / "hidden_inputs.parquet", scores(1.0, 0))
    records.Run(home).finish(scores(1.0, 0), {"one_film": {}})


def test_records_are_found_by_the_network_that_they_score(run_homes):
    """Networks of which a seed is missing are left out; those of a planned comparison are needed."""
    for name in ("final_dual", "final_crop"):
        for seed in reversed(PROFILE.seeds):
            write_seed(f"incomplete_{name}/{seed}", f"{name}/seed{seed}-x")
    write_seed("incomplete_final_whole/0", "final_whole/seed0-x")
    write_seed("incomplete_other/0", "other/seed0-x")
    found = fifth_look.incomplete_records(PROFILE)
    assert list(found) == ["final_dual", "final_crop"]
    assert [run.config.seed for run in found["final_crop"]] == sorted(PROFILE.seeds)
    write_seed("incomplete_final_crop/again", "final_crop/seed0-y")
    with pytest.raises(InputError, match="a second record of final_crop, seed 0; remove one of them"):
        fifth_look.incomplete_records(PROFILE)


def test_what_is_planned_and_missing_is_named(run_homes):
    write_seed("incomplete_final_crop/0", "final_crop/seed0-x")
    with pytest.raises(InputError, match="no records of final_crop with the seeds 0 to 4; make them with `mammo eval"):
        fifth_look.incomplete_records(PROFILE)
    with pytest.raises(InputError, match="make them with `mammo external --experiment final_crop"):
        fifth_look.records_elsewhere(PROFILE)


def test_the_answer_is_two_sentences_with_the_best_network(made):
    hidden, alone = fifth_look.hidden_compared(PROFILE, made), fifth_look.one_film(PROFILE, made)
    said = fifth_look.answer_in_words(hidden, alone, fifth_look.readers_with_one_film(made)["all"])
    assert said.count(". ") == 1 and ", different, when it sees the CC view alone" in said
    assert "the 2 networks with crops reach" in said
