"""Configs: immutable, strict, and equal exactly when their fingerprints are."""

import json

import pytest
from pydantic import ValidationError

from mammo_lib.config import RunConfig, fingerprint, get_profile, load_config
from mammo_lib.errors import InputError


def test_json_round_trip_keeps_the_fingerprint(tmp_path):
    config = get_profile("smoke").run
    path = tmp_path / "config.json"
    path.write_text(config.model_dump_json())
    assert load_config(path) == config
    assert load_config(path).fingerprint == config.fingerprint


def test_every_seed_has_a_fingerprint_of_its_own():
    prints = {config.fingerprint for config in get_profile("paper").configs()}
    assert len(prints) == len(get_profile("paper").seeds) == 5


def test_fingerprint_ignores_key_order_only():
    assert fingerprint({"a": 1, "b": [1, 2]}) == fingerprint({"b": [1, 2], "a": 1})
    assert fingerprint({"a": 1, "b": [1, 2]}) != fingerprint({"a": 1, "b": [2, 1]})


def test_configs_are_frozen():
    with pytest.raises(ValidationError, match="frozen"):
        RunConfig().seed = 3


def test_view_order_does_not_make_another_run():
    one = RunConfig.model_validate({"model": {"views": ["MLO", "CC"]}})
    assert one.fingerprint == RunConfig.model_validate({"model": {"views": ["CC", "MLO"]}}).fingerprint


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"sead": 1}, "sead: unknown key"),
        ({"train": {"epochs": 0}}, "train.epochs: .*greater than or equal to 1, got 0"),
        ({"data": {"fold": 7}}, r"fold must lie in \[0, n_folds=5\), got 7"),
        ({"model": {"views": ["CC", "CC"]}}, "entries must differ"),
        ({"model": {"streams": []}}, "at least 1 item"),
    ],
)
def test_bad_config_is_one_clear_line(tmp_path, content, message):
    path = tmp_path / "bad.json"
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match=message) as caught:
        load_config(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_config_that_is_not_json_or_not_there(tmp_path):
    path = tmp_path / "bad.json"
    with pytest.raises(InputError, match="cannot be read"):
        load_config(path)
    path.write_text("{not json")
    with pytest.raises(InputError, match="neither JSON nor YAML"):
        load_config(path)


@pytest.mark.parametrize("name", ["somke", "/", "../profiles/smoke", "/tmp/smoke"])
def test_unknown_profile_names_the_choices(name):
    with pytest.raises(
        InputError,
        match=f"unknown profile '{name}': choose one of smoke, mirror, mirror-cv, mirror-cv-training, mirror-open, "
        "mirror-limits, mirror-final, mirror-whole, mirror-resolution, mirror-whole-training, "
        "mirror-resolution-training, mirror-long-gates, paper",
    ):
        get_profile(name)


def test_every_fold_of_a_cross_validation_has_a_seed():
    data = {"fold": "each"}
    with pytest.raises(ValidationError, match="too large for a cross-validation"):
        RunConfig(seed=1_234_567_890, data=data)
    assert RunConfig(seed=1_234_567_890).seed and RunConfig(seed=1000, data=data).seed
