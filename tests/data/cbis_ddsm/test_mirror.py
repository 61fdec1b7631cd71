"""The 800-px mirror: the position of boxes and films, the shape of pixels, and impossible tables."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from mammo_lib.config import DataConfig
from mammo_lib.data import views
from mammo_lib.data.boxes import log_areas
from mammo_lib.data.cbis_ddsm import sources
from mammo_lib.errors import InputError

from .test_sources import one


@pytest.fixture
def mirror(tmp_path):
    """One breast as an 800-px mirror: a film of 4000 x 2000, two lesions, the smaller one first."""
    folder = tmp_path / "mass-800"
    (folder / "test").mkdir(parents=True)
    for view in ("CC", "MLO"):
        Image.fromarray(np.full((800, 800), 100, np.uint8)).save(folder / "test" / f"00001_LEFT_{view}.jpg")
    boxes = [
        ["test", "P_00001", "LEFT", view, "", *box]
        for view in ("CC", "MLO")
        for box in ((10, 10, 20, 20), (100, 200, 180, 300))
    ]
    columns = ["split", "patient_id", "laterality", "view", "abnormality_id", "x0", "y0", "x1", "y1"]
    pd.DataFrame(boxes, columns=columns).to_csv(folder / "lesion_boxes.csv", index=False)
    sizes = pd.DataFrame(
        {"split": "test", "image": ["00001_LEFT_CC", "00001_LEFT_MLO"], "rows": 4000, "cols_est": [2000, None]}
    )
    sizes.to_csv(folder / "original_size_estimate.csv", index=False)
    return tmp_path


COHORT = pd.DataFrame(
    {
        "sample_id": ["P_00001_LEFT"], "breast_id": ["P_00001_LEFT"],
        "patient_id": ["P_00001"], "laterality": ["LEFT"], "split": ["test"],
        "label": [1], "whole_CC": ["a"], "whole_MLO": ["b"], "crops_CC": [("c",)], "crops_MLO": [("d",)],
    }
)  # fmt: skip


def test_mirror_takes_the_largest_lesion_with_20_film_pixels_around(mirror):
    source = sources.open_source(mirror)
    assert source.kind == "mirror-800"
    crop = one(source.locate(COHORT), "CC", "crop")
    # 20 px at full resolution: 20 * 800 / 2000 = 8 columns and 20 * 800 / 4000 = 4 rows.
    assert (crop.x0, crop.y0, crop.x1, crop.y1) == (92, 196, 188, 304)
    assert crop.derived
    # (188 - 92) columns; (304 - 196) rows, each twice as tall as wide.
    assert views.read_view(crop).shape == (216, 96)


def test_mirror_undoes_the_stretch_and_fills_unknown_widths(mirror):
    source = sources.open_source(mirror)
    located = source.locate(COHORT)
    assert views.read_view(one(located, "CC", "whole")).shape == (1600, 800)
    assert one(located, "MLO", "whole").aspect == 2  # the median of the known films


def test_film_box_is_in_pixels_of_the_film_as_read(mirror):
    crop = one(sources.open_source(mirror).locate(COHORT), "CC", "crop")
    assert views.film_box(crop) == (92, 392, 188, 608)


@pytest.mark.parametrize("part", ["train", "validation", "extra", "out_of_fold"])
def test_every_part_of_the_training_breasts_lies_with_them(mirror, part):
    """Validation breasts were once looked for in a folder of that name, and lost the size of their lesions."""
    (mirror / "mass-800" / "test").rename(mirror / "mass-800" / "train")
    source = sources.open_source(mirror)
    located = source.locate(COHORT.assign(split=part))
    assert set(located["status"]) == {"found"}
    assert set(log_areas(COHORT.assign(split=part), source, DataConfig())) == {
        ("P_00001_LEFT", v) for v in ("CC", "MLO")
    }


def test_mirror_says_missing_and_absent(mirror):
    (mirror / "mass-800/test/00001_LEFT_CC.jpg").unlink()
    located = sources.open_source(mirror).locate(COHORT.assign(whole_MLO=pd.NA))
    assert set(located.query("view == 'CC'")["status"]) == {"missing"}
    assert set(located.query("view == 'MLO'")["status"]) == {"absent"}


@pytest.mark.parametrize(("name", "column"), [("lesion_boxes.csv", "x0"), ("original_size_estimate.csv", "rows")])
def test_mirror_with_a_damaged_table(mirror, name, column):
    path = mirror / "mass-800" / name
    pd.read_csv(path).drop(columns=column).to_csv(path, index=False)
    with pytest.raises(InputError, match=rf"{name}: column '{column}' is missing"):
        sources.open_source(mirror)


@pytest.mark.parametrize(
    ("name", "column", "value", "message"),
    [
        ("lesion_boxes.csv", "x0", "abc", "x0 must be a number, written with a point, got 'abc'"),
        ("lesion_boxes.csv", "x0", "1,5", "x0 must be a number, written with a point, got '1,5'"),
        ("lesion_boxes.csv", "x1", "inf", "x1 must be a place in a film of 800 px, got inf"),
        ("lesion_boxes.csv", "y0", "-40", "y0 must be a place in a film of 800 px, got -40"),
        ("lesion_boxes.csv", "y1", "", "y1 must be a place in a film of 800 px, got nothing"),
        ("lesion_boxes.csv", "x1", "10", "x1 must be larger than x0, got 10"),
        ("lesion_boxes.csv", "patient_id", "1", "patient_id must be P_ and five digits, got '1'"),
        ("lesion_boxes.csv", "laterality", "left", "laterality must be LEFT or RIGHT, got 'left'"),
        ("lesion_boxes.csv", "view", "LM", "view must be CC or MLO, got 'LM'"),
        ("original_size_estimate.csv", "rows", "0", "rows must be a number of pixels from 1 to 65536, got 0"),
        ("original_size_estimate.csv", "rows", "", "rows must be a number of pixels from 1 to 65536, got nothing"),
        ("original_size_estimate.csv", "cols_est", "-3", "cols_est must be a number of pixels from 1 to 65536, got -3"),
        ("original_size_estimate.csv", "cols_est", "inf", "cols_est must be a number of pixels"),
        (
            "original_size_estimate.csv",
            "image",
            "../../etc",
            "image must be a name like 00001_LEFT_CC, got '../../etc'",
        ),
        ("original_size_estimate.csv", "image", "00001_LEFT_MLO", "image must be named in one row only"),
    ],
)
def test_a_number_or_a_name_that_cannot_be_is_refused(mirror, name, column, value, message):
    path = mirror / "mass-800" / name
    table = pd.read_csv(path, dtype=object)
    table.loc[0, column] = value
    table.to_csv(path, index=False)
    with pytest.raises(InputError, match=rf"{name}, row [23]: {message}"):
        sources.open_source(mirror)


def test_a_repeated_box_and_widths_that_are_all_unknown_are_refused(mirror):
    path = mirror / "mass-800" / "lesion_boxes.csv"
    content = path.read_text()
    path.write_text(content + content.splitlines()[1] + "\n")
    with pytest.raises(
        InputError, match=r"lesion_boxes\.csv, row 6: patient_id must be of a box that no earlier row has"
    ):
        sources.open_source(mirror)
    path.write_text(content)
    path = mirror / "mass-800" / "original_size_estimate.csv"
    path.write_text(path.read_text().replace("2000.0", ""))
    with pytest.raises(InputError, match="cols_est is empty in every row"):
        sources.open_source(mirror)


def test_boxes_in_shares_of_the_film_are_refused(mirror):
    path = mirror / "mass-800" / "lesion_boxes.csv"
    boxes = pd.read_csv(path)
    corners = ["x0", "y0", "x1", "y1"]
    boxes[corners] = boxes[corners] / 800
    boxes.to_csv(path, index=False)
    with pytest.raises(InputError, match=r"row 2: x1 must be in pixels of a film of 800 px, not a share of it"):
        sources.open_source(mirror)


def test_exchanged_sides_of_films_are_refused(mirror):
    path = mirror / "mass-800" / "original_size_estimate.csv"
    sizes = pd.read_csv(path)
    sizes.assign(rows=2000, cols_est=4000).to_csv(path, index=False)
    with pytest.raises(InputError, match=r"most films are wider than tall .*; exchange the two columns"):
        sources.open_source(mirror)
