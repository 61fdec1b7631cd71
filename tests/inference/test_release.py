"""The released network: it scores the sample as in the committed record, and states what missing crops cost."""

import json

import numpy as np
import pandas as pd
import pytest
from matplotlib.text import Text
from PIL import Image
from typer.testing import CliRunner

from mammo_lib.analysis.answers import find_repeats
from mammo_lib.cli import app
from mammo_lib.config import get_profile
from mammo_lib.data import sample
from mammo_lib.data.data_sets import open_cbis_ddsm
from mammo_lib.errors import InputError
from mammo_lib.inference import predict, provenance, release
from mammo_lib.inference.inputs import find_breasts, name_breast, parse_box
from mammo_lib.runs.records import Run

HALF_PRECISION = 2e-3  # of a probability


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
    """What `mammo predict --sample` prints and writes."""
    out = tmp_path_factory.mktemp("sample")
    done = CliRunner().invoke(app, ["predict", "--sample", "--out", str(out)])
    assert done.exit_code == 0, done.output
    return done.stdout, {path.stem: json.loads(path.read_text()) for path in out.glob("*.json")}, out


def test_the_sample_is_scored_at_once_as_the_committed_record_says(scored):
    printed, found, out = scored
    assert printed.splitlines()[0] == provenance.NOTICE
    assert printed.splitlines()[1].startswith("trained on CBIS-DDSM")
    assert {f"P_{name}" for name in found} == set(sample.sample_breasts())
    record = find_repeats(get_profile("mirror-cv"))["dual"][0]  # these breasts were held out of the released fold
    known = record.predictions.set_index("sample_id")
    for name, one in found.items():
        row = known.loc[f"P_{name}"]
        assert row["fold"] == 0
        assert one["probability"] == pytest.approx(row["probability"], abs=HALF_PRECISION)
        assert one["threshold"] == row["threshold"]
        assert (one["missing"], one["notes"]) == ([], [])
        assert (out / f"{name}.png").is_file()


def test_without_crops_the_cost_is_said_from_the_record():
    (breast,) = find_breasts([sample.SAMPLE / "mass-800/train/00009_RIGHT_CC.jpg"], [])
    whole = name_breast({("whole", "CC"): breast.images["whole", "CC"]})
    alone = type(whole)(whole.name, whole.side, whole.images, {}, whole.aspects)
    (found,) = predict.predict_breasts(release.released_run(), [alone])
    metrics = release.released_run().metrics
    costs = f"from {metrics['out_of_fold']['auc']['value']:.2f} to {metrics['without_crops']['auc']['value']:.2f}"
    assert any(costs in note and "--box-cc" in note for note in found.record["notes"])
    assert costs in found.line
    texts = [text.get_text() for text in predict.draw_prediction(found).findobj(Text)]
    assert costs in " ".join(texts)


def test_a_box_in_the_film_makes_the_crop_of_the_collection():
    film = sample.SAMPLE / "mass-800/train/00175_RIGHT_CC.jpg"
    given = name_breast({("whole", "CC"): film})
    box = given.boxes["CC"]  # the collection's own, CROP_MARGIN wider
    drawn = name_breast({("whole", "CC"): film}, {"CC": box})
    config = release.released_run().config
    pixels = [predict.prepare_breast(one, config) for one in (given, drawn)]
    np.testing.assert_array_equal(pixels[0]["crop", "CC"], pixels[1]["crop", "CC"])
    shifted = name_breast({("whole", "CC"): film}, {"CC": tuple(edge - 30 for edge in box)})
    assert not np.array_equal(predict.prepare_breast(shifted, config)["crop", "CC"], pixels[0]["crop", "CC"])


@pytest.mark.parametrize(
    "text", ["1,2,3", "1,2,3,x", "5,0,5,9", "0,9,5,3", "-1,0,5,5", "0,0,inf,5", "nan,0,5,5", "", "0.1,0.2,0.5,1"]
)
def test_what_is_no_box(text):
    with pytest.raises(InputError, match=r"--box-cc .*: give x0,y0,x1,y1 in pixels"):
        parse_box(text, "--box-cc")


def test_a_box_is_widened_as_official_crops_are():
    assert parse_box("30,10,50,60", "--box-cc") == (10, 0, 70, 80)


def test_boxes_that_fit_no_film():
    film = sample.SAMPLE / "mass-800/train/00175_RIGHT_CC.jpg"
    with pytest.raises(InputError, match="--box-mlo: a box in the MLO film, which is not given"):
        name_breast({("whole", "CC"): film}, {"MLO": (0, 0, 5, 5)})
    with pytest.raises(InputError, match="--box-cc and --crop-cc: two crops of one view"):
        name_breast({("whole", "CC"): film, ("crop", "CC"): film}, {"CC": (0, 0, 5, 5)})


@pytest.mark.parametrize(
    "text", ["900,0,950,50", "815,300,900,500", "700,700,821,790", "10,700,90,5000", "799,0,800,9e9"]
)
def test_a_box_that_reaches_out_of_its_film(text):
    film = sample.SAMPLE / "mass-800/train/00175_RIGHT_CC.jpg"
    outside = name_breast({("whole", "CC"): film}, {"CC": parse_box(text, "--box-cc")})
    with pytest.raises(InputError, match=r"the lesion's box .* reaches out of the film's 800 x 800 pixels"):
        predict.prepare_breast(outside, release.released_run().config)


@pytest.mark.parametrize("text", ["0,0,50,50", "700,800,800,900", "750,0,815,60"])
def test_a_box_at_the_edge_of_its_film(text, tmp_path):
    """An outline may reach over the edge by less than the margin of a crop. Here the breast fills the film."""
    film = tmp_path / "00175_RIGHT_CC.png"
    Image.fromarray(np.random.default_rng(0).integers(80, 220, (900, 800), np.uint8)).save(film)
    inside = name_breast({("whole", "CC"): film}, {"CC": parse_box(text, "--box-cc")})
    assert ("crop", "CC") in predict.prepare_breast(inside, release.released_run().config)


def test_a_release_keeps_the_scores(untrained_run, collection, tmp_path):
    run, collection = untrained_run(), open_cbis_ddsm(collection.root)
    prepared = collection.prepare("train", *run.config.inputs)
    frame = run.predictions.head(6).assign(sample_id=prepared.cohort["sample_id"].head(6), label=[0, 1, 0, 1, 0, 1])
    released = release.write_release(run, tmp_path / "released", collection, frame)
    assert released.faults() == []
    assert released.environment["data_set"] == "synthetic phantom"
    assert set(released.metrics) == {"validation", "without_crops", "without_whole_films"}
    pd.testing.assert_frame_equal(released.predictions, frame)
    breasts = find_breasts([collection.root], [])[:2]
    pairs = [list(predict.predict_breasts(one, breasts)) for one in (run, released)]
    for full, half in zip(*pairs, strict=True):
        assert half.record["probability"] == pytest.approx(full.record["probability"], abs=HALF_PRECISION)
    # Trained on a phantom, as its record says: no decision.
    assert pairs[1][0].record["decision"] is None
    assert "no decision" in pairs[1][0].line
    with pytest.raises(InputError, match="exists; give a new folder"):
        release.write_release(run, tmp_path / "released", collection)
    weights = tmp_path / "released" / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(InputError, match="damaged"):
        next(predict.predict_breasts(Run(tmp_path / "released"), breasts))


def test_the_released_network_is_small_and_whole():
    run = release.released_run()
    assert run.faults() == []
    assert run.checkpoint.stat().st_size < 10e6
    assert provenance.trained_on(run).startswith("CBIS-DDSM, layout mirror-800, 96 x 96 px")
