"""Prediction: the same numbers as in training, for one breast or many, whatever is missing; and images it refuses."""

import json
import shutil
from pathlib import Path

import numpy as np
import pydicom
import pytest
from matplotlib.text import Text
from PIL import Image
from typer.testing import CliRunner

from mammo_lib.cli import app
from mammo_lib.config import get_profile, load_config
from mammo_lib.data import prepare, sample, views
from mammo_lib.data.images import read_image
from mammo_lib.errors import InputError
from mammo_lib.inference import checked_images, predict, provenance
from mammo_lib.inference.checked_images import read_checked
from mammo_lib.inference.identify import identify
from mammo_lib.inference.inputs import GivenBreast, find_breasts, name_breast
from mammo_lib.models.network import load_best
from mammo_lib.models.network import predict as predict_as_in_training
from mammo_lib.runs import records as runs
from mammo_lib.runs.experiments import experiment_configs
from mammo_lib.training import train


@pytest.fixture(scope="module")
def run(untrained_run):
    return untrained_run()


@pytest.fixture(scope="module")
def data(run, collection):
    return train.data_of(run.config, collection.prepare("train", *run.config.inputs))


@pytest.fixture(scope="module")
def breasts(data, collection):
    """The validation breasts as a user would give them: files by stream and view."""
    located = collection.source.locate(data.cohort("validation"))
    return [
        GivenBreast(
            name, name.rsplit("_", 1)[1],
            {(row.stream, row.view): Path(row.path) for row in rows.itertuples() if row.status == "found"},
        )
        for name, rows in located.groupby("sample_id", sort=False)
    ]  # fmt: skip


def only(breast, *keys):
    return GivenBreast(breast.name, breast.side, {key: breast.images[key] for key in keys})


def assert_said(prediction):
    """Every note stands on the console and in the picture, where lines are broken."""
    texts = " ".join(text.get_text() for text in predict.draw_prediction(prediction).findobj(Text))
    assert prediction.record["notes"]
    assert all(note in prediction.line and note in texts for note in prediction.record["notes"])


def a_film(collection):
    return next(path for path in sorted(collection.root.rglob("*.dcm")) if "LEFT_CC/" in path.as_posix())


def test_each_file_is_decoded_once(run, breasts, tmp_path, monkeypatch):
    path = tmp_path / "x_LEFT_CC.png"
    film = Image.fromarray((read_image(breasts[0].images["whole", "CC"]) * 255).astype(np.uint8))
    film.save(path)
    box = {"CC": (film.width / 4, film.height / 4, film.width / 2, film.height / 2)}
    decoded = []
    for module in (checked_images, prepare, views):
        monkeypatch.setattr(module, "read_image", lambda path: decoded.append(str(path)) or read_image(path))
    pixels = predict.prepare_breast(name_breast({("whole", "CC"): path}, box), run.config)
    assert {*pixels} == {("whole", "CC"), ("crop", "CC")}
    assert decoded == [str(path)]
    crop = breasts[0].images["crop", "CC"]
    predict.prepare_breast(GivenBreast("x", "LEFT", {("crop", "CC"): crop}), run.config)
    assert len(decoded) == 1  # a DICOM file is decoded in another process


def test_a_box_beside_the_breast_is_refused(run, breasts, tmp_path):
    """A box on black background was scored, as malignant."""
    pixels = read_image(breasts[0].images["whole", "CC"])
    pixels[:, -100:] = 0
    Image.fromarray((pixels * 255).astype(np.uint8)).save(tmp_path / "x_LEFT_CC.png")
    margin, (height, width) = views.CROP_MARGIN, pixels.shape
    given = name_breast(
        {("whole", "CC"): tmp_path / "x_LEFT_CC.png"}, {"CC": (width - 75, 150, width - 25, height - 150)}
    )
    lesion = rf"{width - 75 + margin},{150 + margin},{width - 25 - margin},{height - 150 - margin}"
    with pytest.raises(InputError, match=rf"the lesion's box {lesion} lies beside the breast; give it in pixels of"):
        predict.prepare_breast(given, run.config)


def test_a_breast_gets_the_probability_that_training_gives_it(run, data, breasts):
    expected = predict_as_in_training(load_best(run), data.val_dataloader(), data.cohort("validation"))
    found = [one.record for one in predict.predict_breasts(run, breasts)]
    assert [one["breast"] for one in found] == expected["sample_id"].tolist()
    np.testing.assert_allclose([one["probability"] for one in found], expected["probability"], rtol=1e-6)
    assert len({round(one["probability"], 6) for one in found}) > 1


def test_many_at_once_equal_one_by_one(run, breasts):
    some = [breasts[0], only(breasts[1], ("crop", "CC")), breasts[2], only(breasts[3], ("whole", "MLO"))]
    together = list(predict.predict_breasts(run, some))
    for breast, one in zip(some, together, strict=True):
        (alone,) = predict.predict_breasts(run, [breast])
        assert alone.record["logit"] == pytest.approx(one.record["logit"], abs=1e-5)
        assert alone.record["missing"] == one.record["missing"]
        assert alone.maps.keys() == one.maps.keys()
        for key in alone.maps:
            np.testing.assert_allclose(alone.maps[key], one.maps[key], rtol=1e-3, atol=1e-6)


def test_what_is_missing_is_masked_and_said(run, breasts):
    (found,) = predict.predict_breasts(run, [only(breasts[0], ("whole", "CC"), ("crop", "MLO"))])
    record = found.record
    assert record["missing"] == ["crop CC", "whole MLO"]
    assert "not given: crop CC, whole MLO" in found.line
    assert set(record["gates"]) == {"crop MLO", "whole CC"}
    assert set(found.pixels) == {("crop", "MLO"), ("whole", "CC")}
    how = f"assumed to lie as a {breasts[0].side} breast is displayed"
    assert record["notes"] == [f"crop MLO: given without its film, {how}"]
    assert_said(found)
    (crop_only,) = predict.predict_breasts(run, [only(breasts[0], ("crop", "CC"))])
    assert crop_only.record["stream_gate"] == {"crop": 1, "whole": 0}


def test_a_crop_alone_lies_as_with_its_film(run, breasts):
    # The phantom, like displayed mammograms, has the chest wall of right breasts on the right.
    for side in ("LEFT", "RIGHT"):
        breast = next(one for one in breasts if one.side == side)
        with_film = predict.prepare_breast(breast, run.config)
        alone = predict.prepare_breast(only(breast, ("crop", "CC")), run.config)
        np.testing.assert_array_equal(alone["crop", "CC"], with_film["crop", "CC"])


def test_the_record_says_what_it_rests_on(run, breasts, tmp_path):
    (found,) = predict.predict_breasts(run, breasts[:1])
    record_path, picture = predict.write_prediction(found, tmp_path / "out")
    record = json.loads(record_path.read_text())
    assert record["research_use_only"] == provenance.NOTICE
    assert (record["threshold"], record["temperature"]) == (0.5, 2.0)
    assert record["decision"] == ("malignant" if record["probability"] >= 0.5 else "benign")
    # A temperature of 2 halves the logit.
    assert record["probability_after_temperature"] == pytest.approx(1 / (1 + np.exp(-record["logit"] / 2)))
    assert record["run"]["config"] == run.config.fingerprint
    assert set(record["gates"]["whole CC"]) == {"3.1", "3.2", "3.3", "4.1", "4.2"}  # as figures name them
    assert set(record["images"]) == {"crop CC", "crop MLO", "whole CC", "whole MLO"}
    with Image.open(picture) as image:
        assert image.width > 900


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ({"gate": {"scope": "token"}}, "SeqMoE gate, stage 3, block 3, one value per token"),
        ({"gate": "none"}, "Grad-CAM"),
    ],
)
def test_the_picture_shows_gates_that_have_a_place_else_grad_cam(
    untrained_run, breasts, tmp_path, model, name, monkeypatch
):
    monkeypatch.setattr(predict, "MIN_GRID", 1)
    (found,) = predict.predict_breasts(untrained_run(**model), breasts[:1])
    assert found.map_name.startswith(name)
    assert all(found.maps[key].shape == image.shape for key, image in found.pixels.items())
    assert predict.write_prediction(found, tmp_path)[1].is_file()


def test_maps_of_few_cells_are_passed_over(untrained_run, breasts):
    # At 32 px stage 3 has 2 x 2 tokens, and Grad-CAM one cell.
    (found,) = predict.predict_breasts(untrained_run(gate={"scope": "token"}), breasts[:1])
    assert found.map_name.startswith("integrated gradients")


def test_a_network_of_one_stream_says_what_it_reads(untrained_run, breasts):
    run = untrained_run(streams=("crop",))
    with pytest.raises(InputError, match=r"none of its images \(whole CC\).*it reads crop CC, crop MLO"):
        list(predict.predict_breasts(run, [only(breasts[0], ("whole", "CC"))]))
    (found,) = predict.predict_breasts(run, [only(breasts[0], ("whole", "CC"), ("crop", "CC"))])
    assert found.record["notes"] == ["not read by this network: whole CC"]
    assert_said(found)


def test_a_record_without_weights_says_how_to_make_them(run, tmp_path):
    shutil.copytree(run.folder, tmp_path / "record", ignore=shutil.ignore_patterns("*.ckpt"))
    record = type(run)(tmp_path / "record")
    config = tmp_path / "record" / "config.json"
    with pytest.raises(InputError, match=r"best\.ckpt: missing.*MAMMO_RETRAIN=1 mammo run") as caught:
        provenance.with_weights(record)
    assert f"{config} --data DIR` recreates it" in str(caught.value)  # of no profile: what suits the data is chosen
    assert load_config(config) == run.config  # the file that the command names is what `mammo run` reads


def test_a_cross_validation_is_not_one_network():
    folder = next((runs.COMMITTED / "dual").glob("seed0-*"))
    again = rf"give one of them, such as _build/runs/dual/{folder.name}/fold0; `MAMMO_RETRAIN=1 mammo run results/dual/"
    with pytest.raises(InputError, match=f"a cross-validation, which trains one network for each fold; {again}"):
        provenance.with_weights(runs.Run(folder))


def test_a_run_that_was_trained_again_stands_in_for_its_record(run, tmp_path, monkeypatch):
    record = tmp_path / "results" / "dual_stream" / run.folder.name
    shutil.copytree(run.folder, record, ignore=shutil.ignore_patterns("*.ckpt"))
    monkeypatch.setattr(runs, "FRESH", tmp_path / "fresh")
    shutil.copytree(run.folder, tmp_path / "fresh" / "dual_stream" / run.folder.name)
    assert provenance.with_weights(type(run)(record)).folder == tmp_path / "fresh" / "dual_stream" / run.folder.name


def test_commands_can_be_given_as_they_stand(tiny_profile, tmp_path, monkeypatch):
    monkeypatch.setattr(provenance, "BUILD", tmp_path)
    listed = experiment_configs(get_profile("mirror"), "dual_stream")[0]
    assert provenance.run_command(listed, "mirror") == "mammo run --experiment dual_stream --profile mirror --data DIR"
    words = provenance.run_command(tiny_profile.run, "smoke").split()
    assert (words[:2], words[3:]) == (["mammo", "run"], ["--profile", "smoke"])
    assert load_config(words[2]) == tiny_profile.run


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("P_00001_LEFT_CC.png", ("P_00001", "LEFT", "CC", "whole")),
        ("P_00001_RIGHT_MLO_crop.jpg", ("P_00001", "RIGHT", "MLO", "crop")),
        ("anna_l_cc.pgm", ("anna", "LEFT", "CC", "whole")),
        ("a_film.png", ("", "", "", "whole")),
    ],
)
def test_names_say_what_a_file_is(name, expected):
    image = identify(Path(name))
    assert (image.patient, image.side, image.view, image.stream) == expected


def edited(collection, path, **tags):
    """Write a film of the phantom with other tags."""
    dataset = pydicom.dcmread(a_film(collection))
    for name, value in tags.items():
        setattr(dataset, name, value)
    dataset.save_as(path)
    return path


def test_tags_say_what_a_file_is_and_must_agree_with_its_name(collection, tmp_path):
    path = edited(collection, tmp_path / "1-1.dcm", PatientID="42", ViewPosition="MLO", ImageLaterality="R")
    image = identify(path)
    assert (image.patient, image.side, image.view) == ("42", "RIGHT", "MLO")
    with pytest.raises(InputError, match="LEFT by its name, RIGHT by its tags"):
        identify(shutil.copy(path, tmp_path / "P_1_LEFT_MLO.dcm"))
    with pytest.raises(InputError, match="given as CC, but tags or name say MLO"):
        name_breast({("whole", "CC"): path})


@pytest.mark.parametrize(
    ("tags", "reason"),
    [
        ({"Modality": "CT"}, "Modality CT, not MG: not a mammogram"),
        ({"PresentationIntentType": "FOR PROCESSING"}, "raw detector values; give the image FOR PRESENTATION"),
        ({"NumberOfFrames": 3}, "3 frames"),
        ({"SamplesPerPixel": 3}, "3 colour channels"),
    ],
)
def test_dicom_that_is_no_mammogram(collection, tmp_path, tags, reason):
    path = edited(collection, tmp_path / "film.dcm", **tags)
    with pytest.raises(InputError, match=reason) as caught:
        read_checked(path, "whole")
    assert str(caught.value).startswith(str(path))


NOISE = np.random.default_rng(0).integers(0, 255, (400, 256), dtype=np.uint8)


@pytest.mark.parametrize(
    ("pixels", "stream", "reason"),
    [
        (np.dstack([NOISE, NOISE // 2, NOISE // 3]), "whole", "a colour picture"),
        (NOISE[:150, :100], "whole", "100 x 150 pixels, a whole image has 200 a side or more"),
        (NOISE[:12, :12], "crop", "12 x 12 pixels, a crop image has 16"),
        (NOISE.T, "whole", "0.64 times as tall as wide.*turn it upright"),
        (NOISE[:256], "whole", "1.00 times as tall as wide.*--aspect"),
        (NOISE * 0 + 7, "whole", "empty, every pixel is 0.0275"),
        (NOISE > 99, "whole", "only 2 grey levels, where a whole image has more than 16; this is a mask, a drawing"),
        (NOISE // 16 * 17, "whole", "only 16 grey levels, where a whole image has more than 16"),
        (NOISE[:32, :32] > 99, "crop", "only 2 grey levels, where a crop image has more than 3"),
    ],
)
def test_pictures_that_are_no_mammogram(tmp_path, pixels, stream, reason):
    path = tmp_path / "P_1_LEFT_CC.png"
    Image.fromarray(pixels).save(path)
    with pytest.raises(InputError, match=reason) as caught:
        read_checked(path, stream)
    assert str(caught.value).startswith(str(path))


def test_pictures_that_can_be_one(tmp_path):
    path = tmp_path / "P_1_LEFT_CC.png"
    Image.fromarray(np.dstack([NOISE] * 3)).save(path)  # grey, in three equal channels
    assert read_checked(path, "whole").shape == (400, 256)
    Image.fromarray(NOISE[:256]).save(path)
    assert read_checked(path, "whole", 1.0).shape == (256, 256)  # the user says that it was padded
    Image.fromarray(NOISE // 15 * 15).save(path)
    assert read_checked(path, "whole").shape == (400, 256)  # 17 levels


def test_a_stretched_film_is_made_square_again(run, tmp_path):
    tall, square = tmp_path / "P_1_LEFT_CC.png", tmp_path / "P_2_LEFT_CC.png"
    film = Image.fromarray(NOISE[:, ::-1]).resize((256, 512))
    film.save(tall)
    film.resize((256, 256)).save(square)
    upright, stretched = (
        predict.prepare_breast(GivenBreast("x", "LEFT", {("whole", "CC"): path}), run.config, aspect)["whole", "CC"]
        for path, aspect in ((tall, None), (square, 2.0))
    )
    np.testing.assert_array_equal(upright > 0, stretched > 0)
    with pytest.raises(InputError, match="--aspect"):
        predict.prepare_breast(GivenBreast("x", "LEFT", {("whole", "CC"): square}), run.config)


def test_a_folder_in_the_form_of_the_archive(phantom_of):
    # Crops that are labelled as masks are crops; masks are passed over; two lesions in one view are not chosen between.
    refused = []
    found = {one.name: one for one in find_breasts([phantom_of()], refused)}
    assert len(found) > 10
    assert all(set(one.images) <= {(s, v) for s in ("crop", "whole") for v in ("CC", "MLO")} for one in found.values())
    complete = [one for one in found.values() if len(one.images) == 4]
    assert len(complete) >= 10
    assert refused
    assert all("a second crop" in line and "keep one" in line for line in refused)
    assert not any(one.name in line.split(" of ")[1] for line in refused for one in found.values())


def test_the_command_takes_a_folder_and_names_what_it_refuses(run, breasts, tmp_path):
    given = tmp_path / "given"
    given.mkdir()
    for (stream, view), path in breasts[0].images.items():
        shutil.copy(path, given / f"{breasts[0].name}_{view}{'_crop' if stream == 'crop' else ''}.dcm")
    Image.fromarray(NOISE.T).save(given / "P_9_LEFT_CC.png")
    done = CliRunner().invoke(app, ["predict", str(given), "--run", str(run.folder), "--out", str(tmp_path / "out")])
    lines = done.stdout.splitlines()
    assert lines[0] == provenance.NOTICE
    assert lines[1].startswith("trained on ")
    assert lines[2] == "missing crops: what that costs was not measured for this network"
    assert lines[3].startswith(f"{breasts[0].name}: probability 0.")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        f"{breasts[0].name}.json",
        f"{breasts[0].name}.png",
    ]
    assert "P_9_LEFT_CC.png: 0.64 times as tall as wide" in done.stderr
    assert done.exit_code == 2


def test_the_command_wants_files_or_views_not_both(run, tmp_path):
    for arguments in ([], [str(tmp_path), "--cc", "a.dcm"]):
        done = CliRunner().invoke(app, ["predict", *arguments, "--run", str(run.folder)])
        assert isinstance(done.exception, InputError)
        assert "give one of: images or folders; one breast" in str(done.exception)


@pytest.mark.parametrize(
    ("patient", "name"), [("../evil", "_evil_LEFT"), ("12/345", "12_345_LEFT"), ("$x^{1$", "_x_1__LEFT")]
)
def test_a_patient_id_decides_no_path(run, collection, tmp_path, patient, name):
    # No value of a tag is refused for its looks, and none leaves the output folder.
    (tmp_path / "given").mkdir()
    edited(collection, tmp_path / "given" / "a.dcm", PatientID=patient, ViewPosition="CC", ImageLaterality="L")
    before = set(tmp_path.rglob("*"))
    out = tmp_path / "out"
    done = CliRunner().invoke(app, ["predict", str(tmp_path / "given"), "--run", str(run.folder), "--out", str(out)])
    assert done.exit_code == 0, done.output
    assert set(tmp_path.rglob("*")) - before == {out, out / f"{name}.json", out / f"{name}.png"}


def test_a_prediction_from_another_image_of_the_same_name_is_not_written_over(run, tmp_path):
    """Without a patient's number a breast has the name of its file: two patients' ``cc.png`` are two breasts."""
    for folder, noise in (("a", NOISE), ("b", NOISE[::-1])):
        (tmp_path / folder).mkdir()
        Image.fromarray(noise.copy()).save(tmp_path / folder / "cc.png")
    command = ["predict", "--run", str(run.folder), "--out", str(tmp_path / "out"), "--cc"]
    for _ in range(2):  # the same image again is welcome
        done = CliRunner().invoke(app, [*command, str(tmp_path / "a" / "cc.png")])
        assert done.exit_code == 0, done.output
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    done = CliRunner().invoke(app, [*command, str(tmp_path / "b" / "cc.png")])
    assert isinstance(done.exception, InputError)
    assert "cc.json: holds the prediction of other images under this name; delete it, or give" in str(done.exception)
    done = CliRunner().invoke(app, [*command[:-1], "--mlo", str(tmp_path / "b" / "cc.png")])  # none in common
    assert "holds the prediction of other images under this name" in str(done.exception)
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before


def test_a_film_is_not_written_over_by_the_picture_of_its_prediction(run, tmp_path):
    Image.fromarray(NOISE.copy()).save(tmp_path / "cc.png")
    film = (tmp_path / "cc.png").read_bytes()
    command = ["predict", "--run", str(run.folder), "--out", str(tmp_path), "--cc", str(tmp_path / "cc.png")]
    done = CliRunner().invoke(app, command)
    assert "cc.png: exists and is not the picture of an earlier prediction; give another folder" in str(done.exception)
    assert [path.name for path in tmp_path.iterdir()] == ["cc.png"] and (tmp_path / "cc.png").read_bytes() == film


def test_a_prediction_of_another_breast_is_not_written_over(run, breasts, tmp_path):
    (found,) = predict.predict_breasts(run, breasts[:1])
    for name in ("a/b", "a/b"):  # the same breast again is welcome
        found.record["breast"] = name
        predict.write_prediction(found, tmp_path)
    found.record["breast"] = "a:b"
    with pytest.raises(InputError, match=r"a_b\.json: holds 'a/b', not 'a:b'"):
        predict.write_prediction(found, tmp_path)


def test_a_prediction_is_written_whole_or_not_at_all(run, breasts, tmp_path, monkeypatch):
    (found,) = predict.predict_breasts(run, breasts[:1])
    monkeypatch.setattr(predict, "draw_prediction", lambda prediction: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        predict.write_prediction(found, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    monkeypatch.undo()
    found.record["logit"] = float("nan")
    with pytest.raises(ValueError, match="JSON"):
        predict.write_prediction(found, tmp_path / "out")
    assert not any((tmp_path / "out").iterdir())


@pytest.mark.parametrize("depth", [1, 15])
def test_a_black_film_is_refused(tmp_path, depth):
    pixels = np.linspace(0, depth, 300 * 250).astype(np.uint8).reshape(300, 250)
    Image.fromarray(pixels).save(tmp_path / "film.png")
    with pytest.raises(InputError, match=r"its brightest pixel is at .* of the range, a dark film"):
        read_checked(tmp_path / "film.png", "whole")


def test_a_file_in_the_way_stops_one_breast_only(tmp_path):
    """The others are scored; a record that cannot be replaced stays as it was."""
    films = sample.SAMPLE / "mass-800" / "train"
    out = tmp_path / "out"
    given = [str(films / f"{name}_CC.jpg") for name in ("00009_RIGHT", "00023_RIGHT")]
    assert CliRunner().invoke(app, ["predict", *given, "--out", str(out)]).exit_code == 0
    earlier = (out / "00009_RIGHT.json").read_bytes()
    (out / "00009_RIGHT.png").unlink()
    (out / "00009_RIGHT.png").mkdir()
    (out / "00023_RIGHT.json").write_text("no JSON")
    (out / "00023_RIGHT.png").unlink()
    done = CliRunner().invoke(app, ["predict", *given, str(films / "00061_RIGHT_CC.jpg"), "--out", str(out)])
    assert done.exit_code == 2 and (out / "00061_RIGHT.png").is_file()
    assert "cannot be written (Is a directory)" in done.stderr
    assert "00023_RIGHT.json: not JSON" in done.stderr and "delete it, or give another folder with --out" in done.stderr
    assert (out / "00009_RIGHT.json").read_bytes() == earlier
