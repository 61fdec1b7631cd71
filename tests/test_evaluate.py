"""The test set: opened for the whole frozen list or not at all, once, with a receipt."""

import json

import pytest

from mammo_lib import evaluate, train
from mammo_lib.config import PROFILES
from mammo_lib.errors import InputError
from mammo_lib.experiments import FROZEN, experiment_configs, read_experiments
from mammo_lib.statistics import evaluate_predictions

pytestmark = pytest.mark.usefixtures("run_homes")


def train_all(profile, collection):
    for config in experiment_configs(profile, "all"):
        train.train_run(config, collection)


def test_nothing_opens_before_every_run_is_finished(tiny_profile, collection):
    with pytest.raises(InputError, match=r"not trained yet, so the test set stays closed; run `mammo run --experiment"):
        evaluate.evaluate_profile(tiny_profile, collection)


def test_opening_adds_test_rows_and_a_receipt(tiny_profile, collection):
    train_all(tiny_profile, collection)
    opened = evaluate.evaluate_profile(tiny_profile, collection)
    run = opened[0].run
    assert all(one.is_new for one in opened)
    test = run.predictions.query("split == 'test'")
    cohort = collection.cohort(run.config, "test")
    assert len(test) == len(cohort)
    assert list(test["label"]) == list(cohort["label"])
    validation = run.predictions.query("split == 'validation'")
    assert set(test["threshold"]) == set(validation["threshold"])
    assert not set(test["patient_id"]) & set(validation["patient_id"])
    receipt = json.loads((run.folder / "receipt.json").read_text())
    assert {"opened_at", "experiments_hash", "protocol_hash", "test_data_hash"} <= set(receipt)


def test_metrics_are_a_function_of_the_predictions(tiny_profile, collection):
    train_all(tiny_profile, collection)
    run = evaluate.evaluate_profile(tiny_profile, collection)[0].run
    for split, rows in run.predictions.groupby("split"):
        assert run.metrics[split] == evaluate_predictions(rows)


def test_a_second_opening_reads_and_does_not_score(tiny_profile, collection, monkeypatch):
    train_all(tiny_profile, collection)
    evaluate.evaluate_profile(tiny_profile, collection)
    monkeypatch.setattr(evaluate, "predict", lambda *a: pytest.fail("scored again"))
    assert not any(one.is_new for one in evaluate.evaluate_profile(tiny_profile, collection))


@pytest.mark.parametrize("name", PROFILES)
def test_every_frozen_experiment_is_a_valid_config_and_differs_from_the_others(name):
    profile = PROFILES[name]
    configs = experiment_configs(profile, "all")
    assert len(configs) == len(profile.seeds) * len(read_experiments(profile))
    contents = [config.model_dump_json(exclude={"experiment"}) for config in configs]
    assert len(set(contents)) == len(contents)


def test_groups_name_experiments_that_exist():
    frozen = json.loads(FROZEN.read_text())
    assert all(set(members) <= set(frozen["experiments"]) for members in frozen["groups"].values())
    streams = experiment_configs(PROFILES["paper"], "ablation_streams")
    assert {config.experiment for config in streams} == {"dual_stream", "crop_only", "whole_only"}


def test_unknown_experiment_names_the_choices(tiny_profile):
    with pytest.raises(InputError, match=r"unknown experiment 'dual' in profile 'tiny': choose one of dual_stream"):
        experiment_configs(tiny_profile, "dual")
