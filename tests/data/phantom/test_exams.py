"""The phantom: same seed, same bytes; planted defects are found; whole films are harder than crops."""

import hashlib
import itertools
import json

import numpy as np
import pytest
import torch

from mammo_lib.config import DataConfig
from mammo_lib.data.cbis_ddsm import defects
from mammo_lib.data.cbis_ddsm.sources import open_source
from mammo_lib.data.cbis_ddsm.tables import read_tables
from mammo_lib.data.cohort import build_cohort, patients_on_both_sides
from mammo_lib.data.phantom import exams as phantom
from mammo_lib.data.phantom.pixels import Mass, draw_film
from mammo_lib.data.prepare import load_pixels, prepare
from mammo_lib.data.views import VIEWS
from mammo_lib.errors import InputError


def digest(root):
    parts = [
        (path.relative_to(root).as_posix(), hashlib.sha256(path.read_bytes()).hexdigest())
        for path in root.rglob("*.*")
        if path.is_file()
    ]
    return sorted(parts)


def test_same_seed_same_bytes(tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        phantom.write_phantom(tmp_path / name, n_breasts=12, seed=seed)
    assert digest(tmp_path / "a") == digest(tmp_path / "b")
    assert digest(tmp_path / "a") != digest(tmp_path / "c")


def test_what_was_planted_is_found(phantom_root):
    planted, table = json.loads((phantom_root / "phantom.json").read_text())["planted"], read_tables(phantom_root)
    cohorts = {
        (d, s): len(build_cohort(table, d, s)) for d in ("paper", "official", "any-view") for s in ("train", "test")
    }
    paper, official, any_view = (
        sum(cohorts[d, s] for s in ("train", "test")) for d in ("paper", "official", "any-view")
    )
    assert paper == 24
    assert official - paper == planted[defects.CONFLICT]
    assert any_view - official == planted[defects.SINGLE_VIEW]
    assert len(patients_on_both_sides(table)) == planted[defects.SHARED_PATIENTS]
    calc = table[table["lesion_type"] == "calcification"]
    assert calc[["patient_id", "laterality"]].drop_duplicates().shape[0] == planted["calcification breasts"]
    both_zero = table["crop_path"].str.endswith("000000.dcm") & table["mask_path"].str.endswith("000000.dcm")
    assert both_zero.sum() == planted[defects.SAME_NAME]


def test_written_once(phantom_root):
    before = {path: path.stat().st_mtime_ns for path in phantom_root.rglob("*")}
    phantom.write_phantom(phantom_root, n_breasts=24, seed=0)
    assert before == {path: path.stat().st_mtime_ns for path in phantom_root.rglob("*")}


def test_a_killed_call_leaves_nothing(tmp_path, monkeypatch):
    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(phantom, "_write_table", killed)
    with pytest.raises(KeyboardInterrupt):
        phantom.write_phantom(tmp_path / "a", n_breasts=12, seed=0)
    assert list(tmp_path.iterdir()) == []


def test_refuses_a_folder_in_use_and_too_few_breasts(phantom_root, tmp_path):
    with pytest.raises(InputError, match="contains something other than this phantom"):
        phantom.write_phantom(phantom_root, n_breasts=24, seed=1)
    with pytest.raises(InputError, match="12 to 10000 breasts, got 3"):
        phantom.write_phantom(tmp_path, n_breasts=3, seed=0)


def test_a_mass_has_the_same_size_and_nipple_distance_in_both_views():
    mass = Mass(
        radius=14, raggedness=0.1, spiculation=0.3, contrast=0.3, from_nipple=80, angle={"CC": 0.1, "MLO": -0.4}, seed=5
    )
    areas = []
    for view in ("CC", "MLO"):
        _, masks = draw_film(view, 2, [mass], np.random.default_rng(0))
        areas.append(masks[0].sum())
    assert areas[0] == pytest.approx(areas[1], rel=0.02)


@pytest.mark.slow
def test_a_small_cnn_reads_crops_and_hardly_whole_films(tmp_path):
    """512 breasts, three seeds: the label is in the crops, with overlap, and hard to find in whole films."""
    scores = {"crop": [], "whole": []}
    for seed in range(3):
        root = tmp_path / str(seed)
        phantom.write_phantom(root, n_breasts=512, seed=seed)
        table, source, sets = read_tables(root), open_source(root), {}
        for split in ("train", "test"):
            cohort = build_cohort(table, "paper", split)
            one = prepare(cohort, source, DataConfig(image_size=64), cache=tmp_path / "cache")
            keys = one.index.set_index(["sample_id", "view", "stream"])["key"]
            for stream in scores:
                paths = [[one.path(keys[name, view, stream]) for view in VIEWS] for name in cohort["sample_id"]]
                pixels = np.array([[load_pixels(path) for path in pair] for pair in paths])
                sets[split, stream] = torch.tensor(pixels), torch.tensor(cohort["label"].tolist())
        for stream, values in scores.items():
            values.append(cnn_auc(sets["train", stream], sets["test", stream], seed))
    print(scores)
    assert 0.80 < np.mean(scores["crop"]) < 0.92, scores
    assert np.mean(scores["whole"]) < np.mean(scores["crop"]) - 0.05, scores


def cnn_auc(train, test, seed, epochs=30, batch=32):
    """Train four convolutions on single views (breasts, 2, side, side); the test score is the mean of both views."""
    from sklearn.metrics import roc_auc_score
    from torch import nn

    torch.manual_seed(seed)
    widths = itertools.pairwise((1, 16, 32, 64, 64))
    blocks = [
        layer
        for a, b in widths
        for layer in (nn.Conv2d(a, b, 3, padding=1), nn.BatchNorm2d(b), nn.ReLU(), nn.MaxPool2d(2))
    ]
    cnn = nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.3), nn.Linear(64, 1))
    images, unseen = (standardise(part[0].flatten(0, 1)[:, None]) for part in (train, test))
    labels = train[1].repeat_interleave(2).float()
    steps = len(images) // batch
    optimizer = torch.optim.AdamW(cnn.parameters(), weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=epochs * steps)
    for _ in range(epochs):
        for chosen in torch.randperm(len(images)).split(batch)[:steps]:
            x = images[chosen]
            for turn in (lambda x: x.flip(-2), lambda x: x.flip(-1), lambda x: x.transpose(-1, -2)):
                x = turn(x) if torch.rand(()) < 0.5 else x
            loss = nn.functional.binary_cross_entropy_with_logits(cnn(x)[:, 0], labels[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    with torch.no_grad():
        scores = cnn.eval()(unseen).view(-1, 2).mean(1)
    return roc_auc_score(test[1], scores)


def standardise(images):
    """Give every image mean 0 and standard deviation 1."""
    return (images - images.mean((-2, -1), keepdim=True)) / (images.std((-2, -1), keepdim=True) + 1e-3)


def test_what_a_killed_process_left_is_removed_and_what_a_living_one_writes_is_not(tmp_path):
    root = tmp_path / "cbis"
    abandoned, living = tmp_path / ".cbis.123", tmp_path / ".cbis.124"
    for folder in (abandoned, living):
        (folder / "csv").mkdir(parents=True)
    with phantom._lock_of(living):
        phantom.remove_abandoned(root)
        assert not abandoned.exists()
        assert living.exists()
    phantom.remove_abandoned(root)
    assert list(tmp_path.iterdir()) == []
