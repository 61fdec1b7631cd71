"""The phantom: same seed, same bytes; what was planted is what is found; harder as a whole than as a crop."""

import hashlib
import json

import numpy as np
import pytest

from mammo_lib.config import DataConfig
from mammo_lib.data import phantom
from mammo_lib.data.cohort import build_cohort, patients_on_both_sides
from mammo_lib.data.phantom_pixels import Mass, draw_film
from mammo_lib.data.prepare import load_pixels, prepare
from mammo_lib.data.sources import open_source
from mammo_lib.data.tables import read_tables
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
    assert official - paper == planted["breasts with conflicting labels"]
    assert any_view - official == planted["breasts with a single view"]
    assert len(patients_on_both_sides(table)) == planted["patients on both sides of the pooled split"]
    calc = table[table["lesion_type"] == "calcification"]
    assert calc[["patient_id", "laterality"]].drop_duplicates().shape[0] == planted["calcification breasts"]
    both_zero = table["crop_path"].str.endswith("000000.dcm") & table["mask_path"].str.endswith("000000.dcm")
    assert both_zero.sum() == planted["crop and mask both 000000.dcm in different series"]


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
    with pytest.raises(InputError, match="holds something other than this phantom"):
        phantom.write_phantom(phantom_root, n_breasts=24, seed=1)
    with pytest.raises(InputError, match="at least 12 breasts, got 3"):
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
def test_crops_tell_more_than_whole_films(tmp_path):
    """Ridge-like logistic regression on gradients: well above chance on crops, near chance on whole films."""
    from skimage.feature import hog
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    scores = {"crop": [], "whole": []}
    for seed in range(3):
        root = tmp_path / str(seed)
        phantom.write_phantom(root, n_breasts=240, seed=seed)
        table, source, features = read_tables(root), open_source(root), {}
        for split in ("train", "test"):
            cohort = build_cohort(table, "paper", split)
            one = prepare(
                cohort, source, DataConfig(image_size=64), ("CC", "MLO"), ("crop", "whole"), tmp_path / "cache"
            )
            keys = one.index.set_index(["breast_id", "view", "stream"])["key"]
            for stream in scores:
                views = [[keys[b, v, stream] for v in ("CC", "MLO")] for b in cohort["breast_id"]]
                X = [
                    np.concatenate([hog(load_pixels(one.path(k)), pixels_per_cell=(16, 16)) for k in pair])
                    for pair in views
                ]
                features[split, stream] = np.array(X), cohort["label"].to_numpy()
        for stream, values in scores.items():
            model = make_pipeline(StandardScaler(), LogisticRegression(C=1e-3, max_iter=500)).fit(
                *features["train", stream]
            )
            X, label = features["test", stream]
            values.append(roc_auc_score(label, model.predict_proba(X)[:, 1]))
    assert 0.70 < np.mean(scores["crop"]) < 0.95
    assert np.mean(scores["whole"]) < np.mean(scores["crop"]) - 0.05
