"""The cache of frozen parts: the same network, computed once."""

import shutil

import numpy as np
import pytest
import torch

from mammo_lib.config import RunConfig
from mammo_lib.data.frozen_maps import CLEAN, N_PLAIN, TURNED
from mammo_lib.data.loader import BreastDataset
from mammo_lib.errors import InputError
from mammo_lib.models import create_mambavision, score
from mammo_lib.training import frozen, train


def changed(config: RunConfig, **fields) -> RunConfig:
    """Return a config with fields changed, each named section__field."""
    content = config.model_dump()
    for name, value in fields.items():
        section, field = name.split("__")
        content[section][field] = value
    return RunConfig.model_validate(content)


@pytest.fixture(scope="module")
def cached(tiny_profile, tmp_path_factory):
    """A MambaVision whose stem and stages 1-2 are frozen, and a cache of two variants."""
    path = tmp_path_factory.mktemp("weights") / "nano.pth"
    torch.manual_seed(3)
    torch.save(create_mambavision("nano").state_dict(), path)
    return changed(
        tiny_profile.run, model__weights=str(path), model__freeze="stages12_and_stem", train__frozen_cache=2,
        train__augment=1.0, model__streams=("crop",),
        train__flip_averaging=True,
    )  # fmt: skip


def frozen_in(folder, config, collection):
    """The config, its prepared pixels in a folder, its network and its cache; what is there is not made again."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mammo_lib.data.collection.CACHE", folder)
        prepared = collection.prepare("train", *config.inputs)
    torch.manual_seed(0)
    classifier = train.Classifier(config).eval()
    return config, prepared, classifier, frozen.freeze_maps(config, prepared, classifier.model, progress=False)


@pytest.fixture(scope="module")
def kept(cached, collection, tmp_path_factory):
    """A folder of pixels and maps, made once."""
    folder = tmp_path_factory.mktemp("kept")
    frozen_in(folder, cached, collection)
    return folder


@pytest.fixture
def made(cached, kept, collection, tmp_path):
    """The config, a copy of its prepared pixels and of its cache, and its network."""
    return frozen_in(shutil.copytree(kept, tmp_path / "cache"), cached, collection)


def batches(dataset, n=4):
    return torch.utils.data.default_collate([dataset[row] for row in range(n)])


def test_logits_are_those_of_the_network_without_a_cache(made, monkeypatch):
    config, prepared, classifier, maps = made
    from_maps = batches(BreastDataset(prepared, prepared.cohort, maps=maps))
    from_pixels = batches(BreastDataset(prepared, prepared.cohort))
    assert "images" not in from_maps and from_maps["maps"]["crop"].shape[2:] == maps["crop"].shape
    with torch.inference_mode():
        expected, ours = (score(classifier.model, b, flip_averaging=True)[0] for b in (from_pixels, from_maps))
    # Half precision keeps 11 bits: the maps are off by at most 1 part in 2048.
    torch.testing.assert_close(ours, expected, rtol=2e-3, atol=2e-3)
    assert not torch.equal(ours, expected)

    monkeypatch.setattr(torch, "float16", torch.float32)  # kept exactly, they give the same logits
    for path in prepared.folder.glob("*.frozen-*.npy"):
        path.unlink()
    exact = frozen.freeze_maps(config, prepared, classifier.model, progress=False)
    with torch.inference_mode():
        ours = score(classifier.model, batches(BreastDataset(prepared, prepared.cohort, maps=exact)),
                     flip_averaging=True)[0]  # fmt: skip
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-6)


def test_a_view_has_its_variants_and_they_differ(made):
    _, prepared, classifier, maps = made
    row = prepared.index[prepared.index["stream"] == "crop"].iloc[0]
    views = [maps["crop"].read(row["key"], variant) for variant in range(N_PLAIN + 2)]
    assert not any(torch.equal(a, b) for i, a in enumerate(views) for b in views[:i])
    image = torch.from_numpy(frozen.load_pixels(prepared.path(row["key"])))[None, None]
    with torch.inference_mode():
        for variant, seen in ((CLEAN, image), (TURNED, image.flip(-2))):
            expected = classifier.model.encoders["crop"].first_part(seen)[0]
            torch.testing.assert_close(views[variant], expected, rtol=1e-3, atol=1e-3)
    assert torch.equal(maps["crop"].read(None, CLEAN), torch.zeros(maps["crop"].shape))


def test_training_draws_among_the_variants_by_seed(made):
    _, prepared, _, maps = made
    draws = [BreastDataset(prepared, prepared.cohort, augment=1.0, seed=s, maps=maps)[0]["maps"]["crop"]
             for s in (0, 0, 1, 2, 3)]  # fmt: skip
    assert torch.equal(draws[0], draws[1])
    assert any(not torch.equal(draws[0], other) for other in draws[2:])


def test_what_is_there_is_not_computed_again(made):
    config, prepared, classifier, _ = made
    written = {path: path.stat().st_mtime_ns for path in prepared.folder.glob("*.frozen-*.npy")}
    one = sorted(written)[0]
    before = one.read_bytes()
    one.unlink()
    frozen.freeze_maps(config, prepared, classifier.model, progress=False)
    again = {path: path.stat().st_mtime_ns for path in prepared.folder.glob("*.frozen-*.npy")}
    assert {path for path in written if again[path] != written[path]} == {one}
    assert one.read_bytes() == before


@pytest.mark.parametrize("changes", [{"train__augment": 2.0}, {"train__frozen_cache": 3}, {"weights": True}])
def test_other_settings_have_files_of_their_own(made, changes):
    config, prepared, classifier, maps = made
    if changes.pop("weights", False):
        with torch.no_grad():
            next(classifier.model.encoders["crop"].network.backbone.patch_embed.parameters()).add_(1)
    other = frozen.freeze_maps(changed(config, **changes), prepared, classifier.model, progress=False)
    assert other["crop"].part != maps["crop"].part


def test_a_network_whose_front_learns_has_nothing_to_keep(made):
    config, prepared, *_ = made
    open_front = changed(config, model__freeze="stages12")
    model = train.Classifier(open_front).model
    with pytest.raises(InputError, match=r"train.frozen_cache=2: nothing at the front of backbone 'nano' is frozen"):
        frozen.freeze_maps(open_front, prepared, model, progress=False)


@pytest.mark.parametrize("damage", [lambda p: p.unlink(), lambda p: p.write_bytes(p.read_bytes()[:150]),
                                    lambda p: p.write_bytes(b""),
                                    lambda p: np.save(p, np.zeros((1, 2, 3, 3), np.float16))])  # fmt: skip
def test_a_damaged_file_is_named(made, damage):
    _, prepared, _, maps = made
    key = prepared.index.loc[prepared.index["stream"] == "crop", "key"].iloc[0]
    damage(maps["crop"].path(key))
    with pytest.raises(InputError, match=f"{key}.*cannot be read .*; delete the file and start the run again"):
        maps["crop"].read(key, N_PLAIN)


def test_maps_larger_than_the_disk_are_refused_before_they_are_written(made, monkeypatch):
    config, prepared, classifier, _ = made
    more = changed(config, train__frozen_cache=4)
    monkeypatch.setattr(frozen.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 1000}))
    with pytest.raises(InputError, match=r"need \S+ MB and 0 MB are free"):
        frozen.freeze_maps(more, prepared, classifier.model, progress=False)


def test_a_run_trains_on_its_cache(cached, collection, run_homes, tmp_path, monkeypatch):
    monkeypatch.setattr("mammo_lib.data.collection.CACHE", tmp_path / "cache")
    run = train.train_run(changed(cached, train__epochs=1), collection)
    assert run.is_finished and run.predictions["logit"].notna().all()
    assert list((tmp_path / "cache").glob("*.frozen-*.npy"))


def test_filling_the_cache_leaves_the_mode_as_it_was(made):
    config, prepared, classifier, _ = made
    for mode in (True, False):
        frozen.freeze_maps(config, prepared, classifier.train(mode).model, progress=False)
        assert classifier.model.encoders["crop"].training is mode


@pytest.mark.slow
def test_random_gates_are_random_while_a_network_trains_on_a_cache(made, collection, run_homes):
    """They were not: filling the cache left the encoder in evaluation mode, where they are 0.5, as fixed gates are."""
    config, *_ = made
    logits = {}
    for kind in ("fixed", "random"):
        for mode in ("training", "evaluation"):
            gate = {"kind": kind, "stages": "3+4", "blocks": "all"}
            one = changed(config, model__gate=gate, train__cached_encoder=mode, train__epochs=1, train__keep="last")
            logits[kind, mode] = train.train_run(one, collection).predictions["logit"].to_numpy()
    assert np.array_equal(logits["fixed", "evaluation"], logits["random", "evaluation"])
    assert not np.allclose(logits["fixed", "training"], logits["random", "training"])
