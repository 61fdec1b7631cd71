"""Baselines: their inputs, that only training breasts are used for fitting, and that their runs are normal records."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest

from mammo_lib.errors import InputError
from mammo_lib.runs import evaluate
from mammo_lib.runs.experiments import experiment_configs
from mammo_lib.statistics import auc
from mammo_lib.training import baselines as b
from mammo_lib.training import train

pytestmark = pytest.mark.usefixtures("run_homes")


def on_test(config, collection):
    """The test breasts and their logits."""
    prepared = collection.prepare("test", *config.inputs)
    return prepared.cohort, b.baseline_of(config, collection)(prepared, prepared.cohort)


def config_of(profile, name):
    (config,) = experiment_configs(profile, f"baseline_{name}")
    return config


@pytest.mark.parametrize("name", [*b.FEATURES, "majority"])
def test_a_baseline_leaves_a_record_and_is_opened_like_a_run(name, tiny_profile, collection):
    run = train.train_run(config_of(tiny_profile, name), collection)
    assert set(run.predictions["split"]) == {"validation"}
    opened = evaluate.open_test_set(run, collection).run
    test = opened.predictions.query("split == 'test'")
    assert list(test["sample_id"]) == list(collection.cohort(run.config.data, "test")["sample_id"])
    assert test["logit"].notna().all()
    assert opened.metrics["test"]["auc"]["n"] == len(test)
    assert (test["logit"].nunique() == 1) == (name == "majority")


def test_a_stream_that_a_collection_lacks_is_missing_and_not_left_out(tiny_profile, collection):
    config = config_of(tiny_profile, "frozen_stages")
    prepared = collection.prepare("test", *config.inputs)
    whole = dataclasses.replace(prepared, index=prepared.index.query("stream == 'whole'"))
    assert np.isfinite(b.baseline_of(config, collection)(whole, whole.cohort)).all()


def test_the_readers_score_is_their_assessment(tiny_profile, collection):
    cohort, logits = on_test(config_of(tiny_profile, "birads"), collection)
    label, stored = cohort["label"].to_numpy(), cohort["assessment"].to_numpy(float)
    assert auc(label, 1 / (1 + np.exp(-logits))) == pytest.approx(auc(label, stored / 10))


def test_the_majority_is_the_share_of_the_training_part(tiny_profile, collection):
    config = config_of(tiny_profile, "majority")
    prepared = collection.prepare("train", *config.inputs)
    share = train.data_of(config, prepared).cohort("train")["label"].mean()
    _, logits = on_test(config, collection)
    assert 1 / (1 + np.exp(-logits)) == pytest.approx(share)


def test_geometry_is_known_for_training_and_validation(tiny_profile, collection):
    """Validation breasts lie in the training folders: their crops are found all the same."""
    config = config_of(tiny_profile, "crop_geometry")
    prepared = collection.prepare("train", *config.inputs)
    data = train.data_of(config, prepared)
    for split in ("train", "validation"):
        sides = b.crop_geometry(collection.table, prepared, data.cohort(split)).iloc[:, [0, 1, 4, 5]]
        assert sides.notna().all(axis=None)
        assert sides.nunique().gt(1).all()


def test_words_are_those_of_the_breasts_own_lesions(tiny_profile, collection):
    config = config_of(tiny_profile, "metadata")
    prepared = collection.prepare("train", *config.inputs)
    cohort, table = prepared.cohort, collection.table
    words = b.metadata(collection.table, cohort)
    one = cohort.iloc[0]
    rows = table[(table["patient_id"] == one["patient_id"]) & (table["laterality"] == one["laterality"])]
    expected = {f"mass_shape_{word}" for text in rows["mass_shape"].dropna() for word in text.split("-")}
    shapes = words.filter(like="mass_shape_").iloc[0]
    assert set(shapes[shapes == 1].index) == expected


def test_labels_of_other_breasts_do_not_reach_a_baseline(tiny_profile, collection, monkeypatch):
    """Turning every test label over changes no test score."""
    config = config_of(tiny_profile, "metadata")
    unturned, before = on_test(config, collection)
    original = type(collection).cohort

    def turned(self, data, split):
        cohort = original(self, data, split)
        return cohort.assign(label=1 - cohort["label"]) if split == "test" else cohort

    monkeypatch.setattr(type(collection), "cohort", turned)
    cohort, after = on_test(config, dataclasses.replace(collection, ready={}))
    assert not cohort["label"].equals(unturned["label"])
    np.testing.assert_array_equal(before, after)


def test_features_are_computed_once(tiny_profile, collection, monkeypatch):
    config = config_of(tiny_profile, "frozen_features")
    _, first = on_test(config, collection)
    monkeypatch.setattr(b, "load_lite", lambda: pytest.fail("computed again"))
    np.testing.assert_array_equal(on_test(config, collection)[1], first)


def test_a_damaged_file_of_features_is_one_line(tmp_path):
    prepared = SimpleNamespace(folder=tmp_path, index=b.pd.DataFrame({"sample_id": ["A"], "key": ["a"]}))
    (tmp_path / "a.lite0.npy").touch()
    with pytest.raises(InputError, match=r"a\.lite0\.npy: cannot be read \(EOFError\); delete the file"):
        b._pooled_maps(prepared, b.pd.DataFrame({"sample_id": ["A"]}), "lite0", None)


def test_every_baseline_is_in_the_frozen_list(tiny_profile):
    names = {config.baseline for config in experiment_configs(tiny_profile, "baselines")}
    assert names == {*b.FEATURES, "majority"}
