"""Checkpoints: strict about content, tolerant about wrappers; grey stems; a missing connection gives one clear line."""

import argparse
import hashlib
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from mammo_lib.config import DataConfig, ModelConfig, RunConfig, checkpoints
from mammo_lib.errors import InputError
from mammo_lib.models import build_model, create_mambavision, fold_grey_stem, load_checkpoint, weights
from mammo_lib.models.encoders import build_mambavision
from mammo_lib.models.mambavision import LITE, VARIANTS, MambaVision
from mammo_lib.models.weights import IMAGENET_MEAN, IMAGENET_STD


@pytest.fixture(scope="module")
def source():
    torch.manual_seed(3)
    network = create_mambavision("nano", num_classes=5)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.running_mean, -0.5, 0.5)
            torch.nn.init.uniform_(module.running_var, 0.5, 2)
    return network.eval()


def prefixed(state, prefix):
    return {prefix + key: value for key, value in state.items()}


@pytest.mark.parametrize(
    ("name", "wrap"),
    [
        ("a.pth.tar", lambda s: {"state_dict": s, "epoch": 3}),
        ("a.pth", lambda s: {"model": s}),
        ("b.pth", lambda s: s),
        ("c.pth", lambda s: {"state_dict": prefixed(s, "module.")}),
        ("d.pth", lambda s: prefixed(s, "encoder.") | {"decoder.weight": torch.zeros(1)}),
        ("e.safetensors", lambda s: prefixed(s, "model.")),
    ],
)
def test_every_wrapper_and_prefix_loads_bitwise(source, tmp_path, name, wrap):
    path, held = tmp_path / name, wrap(source.state_dict())
    save_file(held, path) if name.endswith("safetensors") else torch.save(held, path)
    loaded = load_checkpoint(create_mambavision("nano", num_classes=5), path)
    assert all(torch.equal(loaded.state_dict()[key], value) for key, value in source.state_dict().items())


def test_a_network_without_head_leaves_the_head_out(source, tmp_path):
    torch.save(source.state_dict(), tmp_path / "a.pth")
    headless = load_checkpoint(create_mambavision("nano", num_classes=0), tmp_path / "a.pth").eval()
    x = torch.rand(1, 3, 64, 64)
    torch.testing.assert_close(source.head(headless(x)), source(x))


def test_every_difference_is_listed(source, tmp_path):
    state = dict(source.state_dict()) | {"extra.weight": torch.zeros(1)}
    del state["norm.bias"]
    torch.save(state, tmp_path / "a.pth")
    with pytest.raises(InputError) as caught:
        load_checkpoint(create_mambavision("nano", num_classes=2), tmp_path / "a.pth")
    message = str(caught.value)
    assert "missing: norm.bias" in message
    assert "unexpected: extra.weight" in message
    assert "head.weight (network (2, 128), file (5, 128))" in message


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none.pth", None, "no such checkpoint; `mammo weights VARIANT` downloads one"),
        ("a.pth", b"rubbish", "not a readable checkpoint"),
        ("a.safetensors", b"rubbish", "not a readable checkpoint"),
    ],
)
def test_unreadable_files_are_one_line(tmp_path, name, content, message):
    if content:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        load_checkpoint(create_mambavision("nano"), tmp_path / name)


def test_a_pickle_that_would_run_code_is_refused(tmp_path):
    torch.save({"state_dict": {}, "args": argparse.Namespace(lr=1)}, tmp_path / "a.pth")
    with pytest.raises(InputError, match="not a readable checkpoint"):
        load_checkpoint(create_mambavision("nano"), tmp_path / "a.pth")


def test_a_folded_stem_equals_three_channels_inside_the_border(source):
    grey = torch.rand(2, 1, 96, 96)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
    with torch.inference_mode():
        ours = fold_grey_stem(source).patch_embed(grey)
        theirs = source.patch_embed((grey - mean) / std)
    torch.testing.assert_close(ours[..., 2:-2, 2:-2], theirs[..., 2:-2, 2:-2], atol=1e-5, rtol=1e-5)
    assert not torch.allclose(ours[..., 0, :], theirs[..., 0, :], atol=1e-5)  # the zero-padded border differs


@pytest.fixture
def record(tmp_path, monkeypatch):
    path = tmp_path / "weights.json"
    path.write_text(json.dumps({"T": {"repository": "nvidia/x", "file": "t.pth", "licence": "l", "sha256": None}}))
    monkeypatch.setattr(weights, "OFFICIAL", path)
    return path


@pytest.fixture
def hub(monkeypatch):
    """A stand-in for the hub; the test sets what it serves."""
    import huggingface_hub

    served = {}

    def local(repository, file, local_dir):
        Path(local_dir).mkdir(parents=True, exist_ok=True)
        (Path(local_dir) / file).write_bytes(served[file])
        return str(Path(local_dir) / file)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", local)
    return served


def test_a_checksum_is_recorded_once_and_then_checked(record, hub, tmp_path):
    hub["t.pth"] = b"one"
    path = weights.fetch_weights("T", tmp_path)
    assert (tmp_path / "t.pth.sha256").read_text().strip() == hashlib.sha256(b"one").hexdigest()
    assert json.loads(record.read_text())["T"]["sha256"] is None  # the installation stays as it is
    weights.fetch_weights("T", tmp_path)
    hub["t.pth"] = b"two"
    with pytest.raises(InputError, match="recorded is"):
        weights.fetch_weights("T", tmp_path)
    assert path.read_bytes() == b"one"


def test_a_refused_download_is_not_found_later(record, hub, tmp_path, monkeypatch):
    known = json.loads(record.read_text())
    known["T"]["sha256"] = hashlib.sha256(b"official").hexdigest()
    record.write_text(json.dumps(known))
    monkeypatch.setattr(checkpoints, "OFFICIAL", record)
    monkeypatch.setenv("MAMMO_WEIGHTS", str(tmp_path))
    hub["t.pth"] = b"corrupt"
    for _ in range(2):
        with pytest.raises(InputError, match="recorded is"):
            weights.find_pretrained("nvidia/x")
    with pytest.raises(InputError, match="no such checkpoint"):
        checkpoints.find_checkpoint("T", "official")
    hub["t.pth"] = b"official"
    assert weights.find_pretrained("nvidia/x") == checkpoints.find_checkpoint("T", "official") == tmp_path / "t.pth"


def test_a_folded_stem_is_not_folded_again():
    grey = fold_grey_stem(create_mambavision("nano"))
    with pytest.raises(ValueError, match="a stem of 3 channels is folded, this one has 1"):
        fold_grey_stem(grey)


def test_without_a_network_the_way_out_is_named(record, tmp_path, monkeypatch, capsys):
    def offline(*_, **__):
        raise ConnectionError("no route")

    import huggingface_hub

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", offline)
    with pytest.raises(
        InputError, match=r"nvidia/x: could not be downloaded \(ConnectionError\); without a connection, put t\.pth"
    ):
        weights.fetch_weights("T", tmp_path)
    assert "CC-BY-NC-SA-4.0" in capsys.readouterr().out


def test_fetching_shows_the_licence_and_records_the_file(record, hub, tmp_path, capsys):
    hub["t.pth"] = b"weights"
    assert weights.fetch_weights("T", tmp_path) == tmp_path / "t.pth"
    assert (tmp_path / "t.pth.sha256").is_file()
    with pytest.raises(InputError, match="no official weights for 'nano': choose one of T"):
        weights.fetch_weights("nano", tmp_path)


@pytest.mark.parametrize("change", [{"token_blocks": "ssm"}, {"token_blocks": "attention"}, {"mixer": "gated_conv"}])
def test_mixers_of_another_kind_start_new_and_the_rest_is_loaded(tmp_path, change):
    path = tmp_path / "nano.pth"
    torch.save(create_mambavision("nano").state_dict(), path)
    model = ModelConfig(backbone="nano", streams=("crop",), weights=str(path), **change)
    built = build_model(RunConfig(data=DataConfig(image_size=64), model=model))
    state, held = built.encoders["crop"].network.backbone.state_dict(), torch.load(path)
    shared = [name for name in state if name in held and ".mixer." not in name]
    assert all(torch.equal(state[name], held[name]) for name in shared)
    # nano: 3 blocks in stage 3 (2 mixers, 1 attention), 2 in stage 4 (1, 1).
    kept = {name for name in state if ".mixer." in name and name in held and torch.equal(state[name], held[name])}
    blocks = {tuple(name.split(".")[1:4:2]) for name in kept}
    expected = {
        "ssm": {("2", "0"), ("2", "1"), ("3", "0")}, "attention": {("2", "2"), ("3", "1")},
        "gated_conv": {("2", "2"), ("3", "1")},
    }  # fmt: skip
    assert blocks == expected[next(iter(change.values()))]


def test_a_network_from_a_checkpoint_draws_nothing_that_the_file_holds(source, tmp_path):
    torch.save({"state_dict": source.state_dict()}, tmp_path / "nano.pth")
    model = ModelConfig(backbone="nano", weights=str(tmp_path / "nano.pth"), streams=("crop",), gate="none")
    state = torch.get_rng_state()
    encoder = build_mambavision(RunConfig(model=model))
    assert torch.equal(torch.get_rng_state(), state)
    assert not any(one.is_meta for one in (*encoder.parameters(), *encoder.buffers()))
    held = source.state_dict()
    for name, one in encoder.network.backbone.state_dict().items():
        assert torch.equal(one, held[name]), name


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: {f"_orig_mod.{key}": value for key, value in state.items()},
        lambda state: {"state_dict": {f"model.module.{key}": value for key, value in state.items()}},
        lambda state: {"state_dict_ema": state, "state_dict": {key: 0 * value for key, value in state.items()}},
        lambda state: {"model_ema": state, "model": {key: 0 * value for key, value in state.items()}},
        lambda state: {"model": {f"module._orig_mod.encoder.{key}": value for key, value in state.items()}},
    ],
)
def test_checkpoints_of_other_trainers_load(tmp_path, wrap):
    torch.manual_seed(3)
    state = create_mambavision("nano").state_dict()
    torch.save(wrap(state), tmp_path / "a.pth")
    loaded = load_checkpoint(create_mambavision("nano"), tmp_path / "a.pth").state_dict()
    assert all(torch.equal(loaded[key], state[key]) for key in state)


def test_a_long_list_of_keys_is_cut_and_stays_one_line(tmp_path):
    torch.save({f"other\n{i}": torch.zeros(1) for i in range(40)}, tmp_path / "a.pth")
    with pytest.raises(InputError, match=r"unexpected: other\\n0, .* and 35 more") as caught:
        load_checkpoint(create_mambavision("nano"), tmp_path / "a.pth")
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 600


@pytest.mark.parametrize("held", [[torch.zeros(1)], torch.zeros(1), {1: torch.zeros(1)}, {"state_dict": {}}])
def test_a_file_without_named_weights_is_refused(tmp_path, held):
    torch.save(held, tmp_path / "a.pth")
    with pytest.raises(InputError, match=r"a.pth: not a readable checkpoint \(it contains no named tensors\)"):
        load_checkpoint(create_mambavision("nano"), tmp_path / "a.pth")


def test_a_reason_from_elsewhere_stays_one_line(tmp_path, monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("\x1b[31mone\ntwo\r\x07three")

    monkeypatch.setattr(weights.torch, "load", fail)
    with pytest.raises(InputError) as caught:
        load_checkpoint(create_mambavision("nano"), tmp_path / "a\n.pth")
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("name", ["a.pth.tar", "a.safetensors"])
def test_from_pretrained_reads_variant_channels_and_classes_from_the_file(tmp_path, name):
    torch.manual_seed(4)
    source, path = create_mambavision("nano", num_classes=5, in_chans=1).eval(), tmp_path / name
    save_file(source.state_dict(), path) if name.endswith("safetensors") else torch.save(source.state_dict(), path)
    loaded, image = MambaVision.from_pretrained(path), torch.rand(1, 1, 64, 64)
    assert not loaded.training
    with torch.no_grad():
        assert torch.equal(loaded(image), source(image))
    wide = MambaVision.from_pretrained(path, window_sizes=(8, 8, 2, 1))
    assert [level.window for level in wide.levels] == [None, None, 2, 1]


@pytest.mark.parametrize("variant", sorted({*VARIANTS} - {*LITE}))
def test_every_variant_is_recognised_by_its_tensors(variant):
    with torch.device("meta"):
        state = create_mambavision(variant).state_dict()
    assert weights.variant_of(state) == variant
    shorter = {key: one for key, one in state.items() if not key.startswith("levels.3.blocks.1.")}
    assert weights.variant_of(shorter) is None
    assert weights.variant_of({"a": torch.zeros(1)}) is None


def test_a_repository_of_the_hub_is_downloaded_and_an_official_one_kept(record, tmp_path, monkeypatch):
    import huggingface_hub

    asked = []

    def local(repository, file, **options):
        asked.append((repository, file, options))
        path = options.get("local_dir", tmp_path / "cache") / "t.pth"
        path.parent.mkdir(exist_ok=True)
        torch.save(create_mambavision("nano", num_classes=0).state_dict(), path)
        return str(path)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", local)
    monkeypatch.setenv(checkpoints.WEIGHTS_FOLDER, str(tmp_path))
    for _ in range(2):  # the second time it is there
        assert MambaVision.from_pretrained("nvidia/x").num_classes == 0
    MambaVision.from_pretrained("someone/else")
    assert asked == [
        ("nvidia/x", "t.pth", {"local_dir": tmp_path / ".incoming"}),
        ("someone/else", "model.safetensors", {}),
    ]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("weights/none.pth.tar", r"none.pth.tar: no such checkpoint; give a file \(.pth.tar, .pth, .safetensors\)"),
        ("no name", "no name: no such checkpoint; give a file .* or a repository of the Hugging Face hub"),
    ],
)
def test_from_pretrained_refuses_what_is_neither_file_nor_repository(source, message):
    with pytest.raises(InputError, match=message):
        MambaVision.from_pretrained(source)


def test_from_pretrained_refuses_another_network(tmp_path):
    torch.save({"head.weight": torch.zeros(2, 3)}, tmp_path / "a.pth")
    with pytest.raises(InputError, match=r"a\.pth: not a MambaVision; widths and depths must be those of nano, "):
        MambaVision.from_pretrained(tmp_path / "a.pth")
