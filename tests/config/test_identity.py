"""The identity of a run survives new fields, and contains no setting without effect."""

import json

import pytest
from pydantic import create_model

from mammo_lib.config import (
    ModelConfig,
    RunConfig,
    TrainConfig,
    completed,
    fingerprint,
    get_profile,
    identity,
    load_config,
    merged,
)
from mammo_lib.config.identity import NEUTRAL, flat
from mammo_lib.config.run import SetGate
from mammo_lib.runs.records import COMMITTED, all_runs, run_name

RECORDS = list(all_runs(COMMITTED))


def config_of(**sections) -> RunConfig:
    return RunConfig.model_validate(merged(RunConfig().model_dump(), sections))


def test_every_field_has_a_neutral_value():
    fields = flat(RunConfig().model_dump(mode="json")) | {f"model.gate.{name}": None for name in SetGate.model_fields}
    assert set(fields) == set(NEUTRAL)


def test_a_neutral_run_is_empty_and_only_differences_count():
    neutral = config_of(train={"flip_averaging": False})
    assert identity(neutral) == {}
    assert identity(config_of(train={"epochs": 3}, seed=2)) == {"train.epochs": 3, "seed": 2}
    assert identity(config_of(model={"gate": "none"})) == {"model.gate.kind": "none"}


def test_records_are_found_under_their_names():
    assert len(RECORDS) >= 42
    for run in RECORDS:
        assert run.folder.name == run_name(run.config, run.environment["data_hash"]), run.name


def test_a_new_field_orphans_no_record():
    """A field that is added tomorrow: in the training section, in the model, with a default of any kind."""
    model = create_model("Model", __base__=ModelConfig, attention_sinks=(int, 4))
    train = create_model("Train", __base__=TrainConfig, lookahead=(int | None, None))
    grown = create_model("Run", __base__=RunConfig, model=(model, model()), train=(train, train()), note=(str, ""))
    for run in RECORDS:
        config = grown.model_validate(completed(json.loads((run.folder / "config.json").read_text())))
        assert config.train.lookahead is None
        assert run_name(config, run.environment["data_hash"]) == run.folder.name
    other = grown.model_validate({"train": {"lookahead": 8}})
    assert identity(other)["train.lookahead"] == 8


def test_a_changed_default_moves_no_run(monkeypatch):
    """A record holds every field: what the default is today does not matter."""
    train = create_model("Train", __base__=TrainConfig, patience=(int, 99))
    moved = create_model("Run", __base__=RunConfig, train=(train, train()))
    run = RECORDS[0]
    config = moved.model_validate(completed(json.loads((run.folder / "config.json").read_text())))
    assert run_name(config, run.environment["data_hash"]) == run.folder.name


def test_a_record_that_is_older_than_a_field_was_made_by_the_old_rule():
    """Records of protocol 1 say nothing of ``data.reader_words``; the profile that made them names the old rule."""
    rules = set()
    for run in RECORDS:
        fields = json.loads((run.folder / "config.json").read_text())
        assert completed(completed(fields)) == completed(fields)
        assert load_config(run.folder / "config.json") == run.config  # as `mammo run RECORD/config.json` reads it
        if "reader_words" not in fields["data"]:
            rules.add(run.config.data.reader_words)
    assert rules == {get_profile("mirror").run.data.reader_words} == {"all_tables"}
    assert RunConfig().data.reader_words == "own_split"


@pytest.mark.parametrize(
    ("base", "change"),
    [
        ({"model": {"streams": ["crop"]}}, {"model": {"fusion": "concat"}}),
        ({"model": {"views": ["CC"]}}, {"model": {"view_fusion": "mean"}}),
        ({"model": {"streams": ["whole"]}}, {"data": {"crop_context": 2.0}}),
        ({"model": {"token_blocks": "attention"}}, {"model": {"mixer": "gated_conv"}}),
        ({"model": {"backbone": "lite"}}, {"model": {"freeze": "stages12"}}),
        ({"model": {"backbone": "nano"}}, {"model": {"freeze": "none"}}),
        ({"model": {"backbone": "nano"}}, {"train": {"encoder_rate": 0.1}}),
        ({}, {"train": {"best_epoch": "single_image"}}),
        ({}, {"data": {"allow_missing": True}}),
        ({}, {"data": {"reader_words": "all_tables"}}),
        ({"baseline": "birads", "train": {"reader_labels": 0.5}}, {"data": {"reader_words": "all_tables"}}),
        ({"baseline": "birads"}, {"train": {"epochs": 3}, "model": {"backbone": "nano", "gate": "none"}}),
    ],
)
def test_what_cannot_matter_is_left_out(base, change):
    assert config_of(**base).fingerprint == config_of(**merged(base, change)).fingerprint


@pytest.mark.parametrize(
    ("base", "change"),
    [
        ({}, {"model": {"fusion": "concat"}}),
        ({}, {"model": {"gate": {"scope": "token"}}}),
        ({"model": {"backbone": "lite"}}, {"model": {"freeze": "none"}}),
        ({"model": {"backbone": "lite"}}, {"train": {"encoder_rate": 0.1}}),
        ({"train": {"flip_averaging": True}}, {"train": {"best_epoch": "single_image"}}),
        ({"baseline": "birads"}, {"model": {"streams": ["crop"]}}),
        ({"baseline": "metadata"}, {"data": {"reader_words": "all_tables"}}),
        ({"train": {"reader_labels": 0.5}}, {"data": {"reader_words": "all_tables"}}),
        ({"baseline": "birads"}, {"data": {"fold": 1}}),
    ],
)
def test_what_matters_is_kept(base, change):
    assert config_of(**base).fingerprint != config_of(**merged(base, change)).fingerprint


def test_a_field_without_meaning_is_refused():
    with pytest.raises(ValueError, match="Extra inputs"):
        config_of(model={"gate": {"kind": "none", "scope": "token"}})
    with pytest.raises(ValueError, match="gates nothing"):
        config_of(model={"token_blocks": "attention", "gate": {"blocks": "mixer"}})


def test_the_fingerprint_is_the_canonical_form():
    assert fingerprint({"a": 1, "b": [1, 2]}) == fingerprint({"b": [1, 2], "a": 1})
    assert fingerprint({"a": 1, "b": [1, 2]}) != fingerprint({"a": 1, "b": [2, 1]})
