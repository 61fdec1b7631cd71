"""Cross-validation: every breast is scored once, by a network that has not seen its patient."""

import shutil

import numpy as np
import pandas as pd
import pytest

from mammo_lib.config import as_repeats
from mammo_lib.data.cohort import split_cohort
from mammo_lib.errors import InputError
from mammo_lib.files import file_hash
from mammo_lib.runs import records
from mammo_lib.runs.evaluate import evaluate_profile
from mammo_lib.runs.protocols import PROTOCOL_2
from mammo_lib.statistics import fit_temperature, youden_threshold
from mammo_lib.training import train

pytestmark = pytest.mark.usefixtures("run_homes")


@pytest.fixture(scope="module")
def config(tiny_profile):
    """One repeat of a small crop stream in three folds, one epoch."""
    run = tiny_profile.run
    fields = {
        "data": run.data.model_copy(update={"n_folds": 3}),
        "model": run.model.model_copy(update={"streams": ("crop",)}),
        "train": run.train.model_copy(update={"epochs": 1}),
    }
    return as_repeats([run.model_copy(update=fields)], 1)[0]


@pytest.fixture(scope="module")
def trained(config, collection, tmp_path_factory):
    """The finished cross-validation, trained once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(records, "FRESH", tmp_path_factory.mktemp("fresh"))
        patch.setattr(records, "COMMITTED", tmp_path_factory.mktemp("committed"))
        return train.train_run(config, collection)


@pytest.fixture
def run(trained, run_homes):
    """A copy of the finished cross-validation where a test's own runs lie."""
    folder = trained.folder
    return records.Run(shutil.copytree(folder, records.FRESH / folder.parent.name / folder.name))


def test_every_breast_is_scored_once_by_a_stranger(run, config, collection):
    frame = run.predictions
    prepared = collection.prepare("train", *config.inputs)
    assert sorted(frame["sample_id"]) == sorted(prepared.cohort["sample_id"])
    assert set(frame["split"]) == {"out_of_fold"} and frame["logit"].notna().all()
    for number in range(3):
        fold = records.Run(run.folder / f"fold{number}")
        seen = set(split_cohort(fold.config.data, prepared.cohort)["train"]["patient_id"])
        assert not seen & set(frame.loc[frame["fold"] == number, "patient_id"])
    assert frame.groupby("patient_id")["fold"].nunique().max() == 1


def test_threshold_and_temperature_come_from_the_other_folds(run):
    frame = run.predictions
    for number, own in frame.groupby("fold"):
        others = frame[frame["fold"] != number]
        label = others["label"].to_numpy()
        assert own["threshold"].unique() == pytest.approx([youden_threshold(label, others["probability"].to_numpy())])
        assert own["temperature"].unique() == pytest.approx([fit_temperature(label, others["logit"].to_numpy())])


def test_the_last_epoch_is_kept(config, collection):
    longer = config.model_copy(update={"train": config.train.model_copy(update={"epochs": 2})})
    run = train.train_run(longer, collection)
    import torch

    for number in range(3):
        state = torch.load(run.folder / f"fold{number}" / "best.ckpt", map_location="cpu", weights_only=False)
        assert state["epoch"] == 1


def test_a_killed_one_goes_on_with_the_fold_at_hand(run, config, collection):
    before, third = run.predictions, run.folder / "fold2"
    stamps = {n: (run.folder / f"fold{n}" / "metrics.json").stat().st_mtime_ns for n in (0, 1)}
    for name in ("metrics.json", "predictions.parquet", "gates.parquet"):
        (run.folder / name).unlink()
    shutil.rmtree(third)
    again = train.train_run(config, collection)
    pd.testing.assert_frame_equal(again.predictions, before)
    assert stamps == {n: (run.folder / f"fold{n}" / "metrics.json").stat().st_mtime_ns for n in (0, 1)}


def test_the_record_holds_what_the_folds_hold(run, tmp_path, monkeypatch):
    assert set(run.history["fold"]) == {0, 1, 2}
    for table in (run.gates, run.interventions):
        assert set(table["split"]) == {"out_of_fold"} and set(table["fold"]) == {0, 1, 2}
        assert set(table["sample_id"]) == set(run.predictions["sample_id"])
    assert {"auc", "auc_pooled", "accuracy", "sensitivity", "brier"} <= set(run.metrics["out_of_fold"])
    monkeypatch.setattr(records, "COMMITTED", tmp_path)
    assert not [path for path in records.publish(run).rglob("*") if path.name.startswith("fold")]


def test_repeats_divide_and_start_anew(config):
    one, two = as_repeats([config], 2)
    folds = [c.of_fold(f) for c in (one, two) for f in range(3)]
    assert len({c.seed for c in folds}) == 6
    assert [c.data.fold_seed for c in folds] == [0, 0, 0, 1, 1, 1]
    assert one.fingerprint != two.fingerprint


def test_its_protocol_is_the_second(run):
    assert run.environment["protocol_hash"] == file_hash(PROTOCOL_2)
    assert records.Run(run.folder / "fold0").environment["protocol_hash"] == file_hash(PROTOCOL_2)


def test_the_test_set_stays_closed(tiny_profile, config, collection):
    profile = tiny_profile.model_copy(update={"run": config})
    with pytest.raises(InputError, match="cross-validates the training breasts and opens no test set"):
        evaluate_profile(profile, collection)


def test_a_baseline_is_cross_validated_too(config, collection):
    run = train.train_run(config.model_copy(update={"baseline": "birads"}), collection)
    assert np.isfinite(run.metrics["out_of_fold"]["auc"]["value"])
