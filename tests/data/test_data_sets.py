"""A user's own data set: registered, opened, trained on and scored without a change to the library."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from mammo_lib.config import Profile
from mammo_lib.data import Collection, open_collection
from mammo_lib.data.boxes import lesion_boxes
from mammo_lib.data.data_sets import DATA_SETS, data_folder, register_data_set, suited_profile
from mammo_lib.errors import InputError
from mammo_lib.runs.evaluate import open_test_set
from mammo_lib.training.train import train_run

from ..own_files import OwnFiles


def open_own(root):
    table = pd.read_csv(root / "breasts.csv", dtype={"patient_id": "string"})
    table = table.loc[table.index.repeat(2)].assign(view=["CC", "MLO"] * len(table)).reset_index(drop=True)
    path = table["patient_id"] + "_" + table["laterality"] + "_" + table["view"] + ".png"
    unknown = dict.fromkeys(("density", "assessment", "subtlety"), pd.array([pd.NA] * len(table), dtype="Int64"))
    table = table.assign(abnormality_id=1, lesion_type="mass", image_path=path, crop_path="", mask_path="", **unknown)
    return Collection(root, table, OwnFiles(root, "{}_{}.png", (10.0, 20.0, 40.0, 60.0)))


@pytest.fixture
def own_root(tmp_path):
    rng, rows = np.random.default_rng(0), []
    for i in range(16):
        patient, pathology = f"W{i:03d}", ("BENIGN", "MALIGNANT")[i % 2]
        rows.append({"patient_id": patient, "laterality": "LEFT", "split": "train" if i < 12 else "test",
                     "pathology": pathology})  # fmt: skip
        for view in ("CC", "MLO"):
            film = rng.integers(60, 90, (120, 80), dtype=np.uint8) + (60 if i % 2 else 0)
            film[:, 60:] = 0
            Image.fromarray(film.astype(np.uint8)).save(tmp_path / f"{patient}_LEFT_{view}.png")
    pd.DataFrame(rows).to_csv(tmp_path / "breasts.csv", index=False)
    return tmp_path


@pytest.fixture
def own_profile(tiny_profile, monkeypatch):
    monkeypatch.setitem(DATA_SETS, "own", open_own)
    return Profile(name="own", data_set="own", run=tiny_profile.run)


def test_a_data_set_of_ones_own_trains_and_is_scored(own_root, own_profile, run_homes):
    collection = open_collection(own_profile, own_root)
    run = train_run(own_profile.run, collection)
    assert len(run.predictions) == 6 and set(run.predictions["split"]) == {"validation"}
    assert run.gates["log_area"].notna().all()
    opened = open_test_set(run, collection).run
    assert (opened.predictions["split"] == "test").sum() == 4
    boxes = lesion_boxes(collection.cohort(own_profile.run.data, "test"), collection.source, own_profile.run.data)
    assert len(boxes) == 8


def test_registering_is_one_call(monkeypatch):
    monkeypatch.setattr("mammo_lib.data.data_sets.DATA_SETS", {})
    register_data_set("mine", open_own)
    from mammo_lib.data import data_sets

    assert {"mine": open_own} == data_sets.DATA_SETS


def test_an_unknown_data_set_is_named(tiny_profile):
    profile = tiny_profile.model_copy(update={"data_set": "cbis-dsm"})
    with pytest.raises(InputError, match=r"unknown data_set 'cbis-dsm': choose one of .*; did you mean cbis-ddsm\?"):
        open_collection(profile)


def test_real_images_never_meet_the_phantoms_profile(tiny_profile, phantom_root, tmp_path):
    (tmp_path / "mass-800").mkdir()
    with pytest.raises(InputError, match="reads a synthetic phantom, not your images; choose --profile mirror"):
        open_collection(tiny_profile, tmp_path)
    assert open_collection(tiny_profile, phantom_root).root == phantom_root
    assert [suited_profile(path) for path in (tmp_path, phantom_root, tmp_path / "mass-800")] == [
        "mirror", "smoke", "paper",
    ]  # fmt: skip


@pytest.mark.parametrize("given", ["loop", "~nobody-of-this-name/x"])
def test_a_folder_that_cannot_be_found_is_one_line(tmp_path, monkeypatch, given):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(InputError, match="no such folder"):
        data_folder(given)
