"""The viewer: a static picture if no user is present, and controls that never offer what does not exist."""

import io
import json
import shutil
from dataclasses import replace

import pytest
from PIL import Image

from mammo_lib.config import get_profile
from mammo_lib.errors import InputError
from mammo_lib.inference import viewer
from mammo_lib.inference.viewer import explore, lens_of, open_lens


@pytest.fixture(scope="module")
def run(untrained_run):
    return untrained_run(gate={"scope": "token"})


def test_without_a_front_end_it_is_a_picture(run, collection, monkeypatch):
    monkeypatch.delenv("JPY_SESSION_NAME", raising=False)
    bundle = explore(run, collection)._repr_mimebundle_()
    assert set(bundle) == {"image/png", "text/plain"}
    assert len(json.dumps(bundle)) < 200_000  # as a notebook stores it


def test_in_jupyterlab_it_has_controls_and_the_picture_beside_them(run, collection, monkeypatch):
    monkeypatch.setenv("JPY_SESSION_NAME", "a.ipynb")
    bundle = explore(run, collection)._repr_mimebundle_()
    assert {"image/png", "application/vnd.jupyter.widget-view+json"} <= set(bundle)


def test_every_control_changes_the_picture_and_offers_only_what_is_there(run, untrained_run, collection):
    viewer = explore([run, untrained_run()], collection, is_live=True)
    row, picture = viewer.box.children
    menus = {menu.description: menu for menu in row.children}
    assert list(menus) == ["gate scope", "breast", "stream", "view", "map", "stage", "block"]
    assert (menus["map"].value, menus["stage"].value) == ("gate", 3)  # the finest gate that has a place
    before = picture.value
    for name in ("breast", "stream", "view", "block"):
        menu = menus[name]
        menu.value = next(value for _, value in map(_pair, menu.options) if value != menu.value)
        assert picture.value != before, name
        before = picture.value
    assert {value for _, value in map(_pair, menus["map"].options)} == {
        "gate", "attention", "grad_cam", "integrated_gradients",
    }  # fmt: skip
    menus["map"].value = "grad_cam"
    assert menus["stage"].disabled and menus["block"].disabled  # it belongs to no block
    menus["gate scope"].value = "image"
    assert "gate" not in {value for _, value in map(_pair, menus["map"].options)}  # one value per image has no place
    assert menus["map"].value == "grad_cam"
    Image.open(io.BytesIO(picture.value)).verify()


def _pair(option):
    return option if isinstance(option, tuple) else (option, option)


def test_a_chapter_gets_a_sentence_where_there_are_no_weights(collection, run_homes):
    config = get_profile("smoke").run
    lens, why_not = lens_of(config, collection, "smoke")
    assert lens is None
    command = "mammo run --experiment dual_stream --profile smoke"
    assert why_not == f"dual_stream, seed 0: not trained here; run `{command}`"


def test_cases_are_the_most_certain_of_each_outcome(run, collection, monkeypatch):
    lens = open_lens(run, collection)
    cohort = lens.cohort.set_index("sample_id")
    assert lens.cohort["probability"].is_monotonic_decreasing
    expected = {"true positive": (1, True), "false negative": (1, False), "false positive": (0, True)}
    for outcome, name in lens.cases().items():
        row = cohort.loc[name]
        called = row["probability"] >= row["threshold"]
        assert (row["label"], called) == expected[outcome]
    seen = lens.breast(name)
    # At 32 px stage 3 has 2 x 2 tokens, and Grad-CAM one cell: both say too little about places.
    assert list(seen.kinds("whole", "CC")) == ["integrated gradients"]
    monkeypatch.setattr("mammo_lib.inference.predict.MIN_GRID", 1)
    kinds = seen.kinds("whole", "CC")
    assert list(kinds) == ["SeqMoE gate", "attention received", "Grad-CAM", "integrated gradients"]
    assert {one.shape for one in kinds.values()} == {(32, 32)}


@pytest.mark.parametrize("hidden", [(), (("crop", "CC"),), (("crop", "CC"), ("crop", "MLO"))])
def test_it_says_what_missing_crops_cost(run, collection, monkeypatch, hidden):
    lens = open_lens(run, collection)
    lenses, breast = {"token": lens}, lens.breast(lens.cohort["sample_id"].iloc[0])
    images = {key: image * (key not in hidden) for key, image in breast.images.items()}
    seen = replace(breast, images=images)
    monkeypatch.setattr(viewer, "cost_of_crops", lambda run: "its cost")
    figure = viewer._draw(lenses, lambda *_: seen, viewer.first_choice(lenses, lambda *_: seen))
    assert ("no crop of the lesion: its cost" in figure.get_suptitle()) == (len(hidden) == 2)


def test_lesions_are_looked_for_where_the_official_split_lies(run, collection, monkeypatch):
    asked = []
    monkeypatch.setattr(viewer, "lesion_boxes", lambda cohort, *_: asked.extend(cohort["split"]) or {})
    lens = open_lens(run, collection)
    assert set(lens.cohort["split"]) == {"validation"}
    assert asked == ["train"] * len(lens.cohort)  # the folders of the 800-px set are called train and test


def test_what_it_needs_is_said(run, collection, tmp_path):
    with pytest.raises(InputError, match="no predictions of split 'out_of_fold'; it has validation: give split="):
        open_lens(run, collection, "out_of_fold")
    with pytest.raises(InputError, match="test set has not been opened"):
        explore(run, collection, split="test")
    shutil.copytree(run.folder, tmp_path / "record", ignore=shutil.ignore_patterns("*.ckpt"))
    with pytest.raises(InputError, match="MAMMO_RETRAIN=1 mammo run"):
        explore(type(run)(tmp_path / "record"), collection)
