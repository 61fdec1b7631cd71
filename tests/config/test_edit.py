"""Settings that people change without Python: files, single fields, commented YAML, suggestions for misspelt names."""

import pytest
import yaml

from mammo_lib.config import (
    Backbone,
    ModelConfig,
    RunConfig,
    as_repeats,
    as_yaml,
    get_profile,
    load_config,
    profile_names,
    read_mapping,
    register_backbone,
    with_changes,
    with_seed,
)  # fmt: skip
from mammo_lib.config.edit import MERGE
from mammo_lib.config.registry import BACKBONES
from mammo_lib.errors import InputError


def test_changes_are_typed_and_validated():
    config = with_changes(
        RunConfig(), ["train.epochs=3", "model.gate=none", "train.learning_rate=1e-3", "data.image_size=[96, 128]"]
    )
    assert (config.train.epochs, config.model.gate.kind, config.train.learning_rate) == (3, "none", 1e-3)
    assert config.data.image_size == (96, 128)
    assert with_changes(RunConfig(), ["model.gate.scope=token"]).model.gate.scope == "token"
    assert with_changes(RunConfig(), ["train.gradient_clip=null"]).train.gradient_clip is None
    assert with_changes(config, ["model.gate=learned"]).model.gate.bias == 2.0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("train.epoch=3", r"train\.epoch: unknown key.*did you mean train\.epochs\?"),
        ("epochs=3", r"epochs: unknown key.*did you mean train\.epochs\?"),
        ("train.epochs=many", r"train\.epochs: .*valid integer.*'many'"),
        ("train.epochs", "write FIELD=VALUE"),
        ("=3", "write FIELD=VALUE"),
        ("model.gate=no", r"model\.gate"),
        ("model.gate=nun", r"model\.gate: .*'none', 'fixed', 'random', 'learned'"),
        ("model.gate.scope=pixel", r"model\.gate\.scope: .*'image', 'window' or 'token'.*'pixel'"),
        ("model.backbone=XL", r"model\.backbone: must be one of nano, T,"),
        ("train.epochs=[", "is not a valid value"),
        ("train=3", r"train: "),
        ("train.epochs.more=3", r"train\.epochs"),
        ("seed=-1", "greater than or equal to 0"),
    ],
)
def test_a_wrong_change_is_one_line_that_says_what_was_meant(change, message):
    with pytest.raises(InputError, match=message) as caught:
        with_changes(RunConfig(), [change])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("text", "epochs"), [("010", 10), ("+7", 7), ("3", 3)])
def test_a_whole_number_is_decimal(text, epochs):
    assert with_changes(RunConfig(), [f"train.epochs={text}"]).train.epochs == epochs


@pytest.mark.parametrize("text", ["yes", "true", "1:30", "0x10", "off"])
def test_what_is_no_number_is_none(text):
    for change in (f"train.epochs={text}", f"seed={text}"):
        with pytest.raises(InputError, match="--set"):
            with_changes(RunConfig(), [change])


@pytest.mark.parametrize("name", profile_names())
def test_commented_yaml_reads_back(tmp_path, name):
    config = get_profile(name).run
    text = as_yaml(config)
    (tmp_path / "run.yaml").write_text(text)
    assert load_config(tmp_path / "run.yaml") == config
    assert sum("#" in line for line in text.splitlines()) > 40
    assert yaml.safe_load(text) == config.model_dump(mode="json")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_config_in_the_encodings_that_editors_write(tmp_path, encoding):
    path = tmp_path / "run.json"
    path.write_text('{"seed": 3}', encoding=encoding)
    assert load_config(path).seed == 3


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"run.yaml: is empty; write FIELD: VALUE, as `mammo config` prints them"),
        (b"[1, 2]", r"run.yaml: contains \[1, 2\], not fields and their values; write FIELD: VALUE"),
        (b"seed: 1\nseed: 2\n", r"line 2: .*the key 'seed' occurs twice"),
        (b"x:\n  1: 2\n  a: 3\n  1: 4\n", r"line 4: .*the key 1 occurs twice"),
        (b"a: &a {x: 1}\nb: &b {x: 2}\ntrain:\n  <<: *a\n  <<: *b\n", r"line 5: .*the key '<<' occurs twice"),
        (b"seed: [", "line 1: neither JSON nor YAML"),
        (b"\xff\xfe\x00", "not UTF-8|neither"),
        (b"caf\xe9: 1", "not UTF-8 text"),
        (b"seed: !!python/object:os.system x", "neither JSON nor YAML"),
        (b"&a [*a, *a]", r"neither|contains \[\[\.\.\.\], \[\.\.\.\]\]"),
    ],
)
def test_a_file_that_is_no_config(tmp_path, content, message):
    path = tmp_path / "run.yaml"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        load_config(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_a_quoted_key_is_no_merge_key(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text('a: &a {x: 1}\nb: {"<<": 3, <<: *a}\n')
    assert read_mapping(path) == {"a": {"x": 1}, "b": {"<<": 3, "x": 1}}
    path.write_text(f'a: &a {{x: 1}}\nb: {{"{MERGE}": 3, <<: *a}}\n')
    assert read_mapping(path)["b"] == {MERGE: 3, "x": 1}


def test_a_profile_of_ones_own(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("seeds: [4, 5]\nrun:\n  train: {epochs: 2}\n")
    profile = get_profile(path)
    assert (profile.name, profile.run.train.epochs, profile.seeds) == ("mine", 2, (4, 5))
    path.write_text("sedes: [4]\n")
    with pytest.raises(InputError, match=r"mine\.yaml: sedes: unknown key.*did you mean seeds\?"):
        get_profile(path)


def test_every_profile_is_a_file_with_a_purpose():
    assert profile_names()[0] == "smoke" and profile_names()[-1] == "paper"
    assert all(profile.about for profile in map(get_profile, profile_names()))


def test_a_registered_backbone_is_a_valid_choice(monkeypatch):
    monkeypatch.setattr("mammo_lib.config.registry.BACKBONES", dict(BACKBONES))
    with pytest.raises(ValueError, match="must be one of"):
        ModelConfig(backbone="mine")
    monkeypatch.setitem(BACKBONES, "mine", Backbone("mine", lambda config: None, patch=7))
    assert ModelConfig(backbone="mine").encoder.patch == 7
    with pytest.raises(ValueError, match=r"multiple of mine's 7-pixel patches, got \[224, 225\]"):
        RunConfig.model_validate({"model": {"backbone": "mine"}, "data": {"image_size": [224, 225]}})
    assert register_backbone is not None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("data.fold=true", "fold must be a number, got true"),
        ("data.image_size=[true, 64]", "image_size must be a number"),
    ],
)
def test_true_is_no_number_wherever_numbers_stand(change, message):
    with pytest.raises(InputError, match=message):
        with_changes(RunConfig(), [change])


def test_a_seed_is_validated_however_it_is_given():
    config = with_changes(RunConfig(), ["data.fold=each", "train.keep=last"])
    last = 2**32 - 1
    with pytest.raises(
        InputError, match=rf"^--seed: seed {last} or data.fold_seed 0 is too large for a cross-validation"
    ):
        with_seed(config, last)
    with pytest.raises(InputError, match=rf"^--cv: seed 1 or data.fold_seed {last} is too large"):
        as_repeats([with_changes(RunConfig(), [f"data.fold_seed={last}"])], 2)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ("seeds: [0, 1, 0]", "seeds and further_seeds must differ, 0 is given twice"),
        ("seeds: [0]\nfurther_seeds: [0, 1]", "seeds and further_seeds must differ, 0 is given twice"),
        ("run: {data: {fold: each}, train: {keep: last}}\nfurther_seeds: [4294967295]", "seed 4294967295 or"),
        ("seeds: [true, 3]", "seeds must be a number, got true"),
        (
            "run: {data: {fold: each}, train: {keep: last}}\nseeds: [4294967295]",
            "seed 4294967295 or data.fold_seed 0 is",
        ),
    ],
)
def test_seeds_of_a_profile_differ_and_fit_its_run(tmp_path, fields, message):
    (tmp_path / "own.yaml").write_text(fields)
    with pytest.raises(InputError, match=rf"own\.yaml: {message}"):
        get_profile(tmp_path / "own.yaml")


def test_yaml_takes_over_the_fields_of_another_mapping(tmp_path):
    (tmp_path / "own.yaml").write_text("train: {<<: {epochs: 3, batch_size: 2}, batch_size: 4}")
    train = load_config(tmp_path / "own.yaml").train
    assert (train.epochs, train.batch_size) == (3, 4)


def test_a_mapping_that_takes_over_fields_may_be_taken_over_itself(tmp_path):
    text = "a:\n  base: &base {x: 1, y: 2}\n  deep: &deep {<<: *base, x: 5}\nb: {<<: *deep}\n"
    (tmp_path / "own.yaml").write_text(text)
    assert read_mapping(tmp_path / "own.yaml")["b"] == {"x": 5, "y": 2}
