"""Where the images are: each layout recognised by looking, each cohort row answered for."""

import os
import shutil

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from mammo_lib.data import sources
from mammo_lib.data.cohort import build_cohort, read_tables
from mammo_lib.data.images import breast_mask, faces_right, read_image
from mammo_lib.errors import InputError

REAL = os.environ.get("MAMMO_DATA")
needs_real_data = pytest.mark.skipif(not REAL, reason="MAMMO_DATA is not set: needs the real 800-px mammograms")


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
        "breast_id": ["P_00001_LEFT"], "patient_id": ["P_00001"], "laterality": ["LEFT"], "split": ["test"],
        "label": [1], "whole_CC": ["a"], "whole_MLO": ["b"], "crops_CC": [("c",)], "crops_MLO": [("d",)],
    }
)  # fmt: skip


def one(frame, view, stream):
    return frame.query("view == @view and stream == @stream").iloc[0]


def test_mirror_takes_the_largest_lesion_with_20_film_pixels_around(mirror):
    source = sources.open_source(mirror)
    assert source.kind == "mirror-800"
    crop = one(source.locate(COHORT), "CC", "crop")
    # 20 px at full resolution: 20 * 800 / 2000 = 8 columns and 20 * 800 / 4000 = 4 rows.
    assert (crop.x0, crop.y0, crop.x1, crop.y1) == (92, 196, 188, 304)
    assert crop.derived
    # (188 - 92) columns; (304 - 196) rows, each twice as tall as wide.
    assert source.read(crop).shape == (216, 96)


def test_mirror_undoes_the_stretch_and_fills_unknown_widths(mirror):
    source = sources.open_source(mirror)
    located = source.locate(COHORT)
    assert source.read(one(located, "CC", "whole")).shape == (1600, 800)
    assert one(located, "MLO", "whole").aspect == 2  # the median of the known films


def test_film_box_is_in_pixels_of_the_film_as_read(mirror):
    crop = one(sources.open_source(mirror).locate(COHORT), "CC", "crop")
    assert sources.film_box(crop) == (92, 392, 188, 608)


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


def test_dicom_tree_finds_every_view_of_the_phantom(phantom_root):
    source, table = sources.open_source(phantom_root), read_tables(phantom_root)
    assert source.kind == "dicom-classic"
    for split in ("train", "test"):
        located = source.locate(build_cohort(table, "paper", split))
        assert set(located["status"]) == {"found"}


def test_dicom_crops_are_crops_in_every_naming(phantom_root):
    """Crop and mask are told apart in one series or two, first or second, both types of lesion."""
    source, table = sources.open_source(phantom_root), read_tables(phantom_root)
    cohort = build_cohort(table, "mass+calc", "train")
    located = source.locate(cohort).query("stream == 'crop'")
    for row in located.itertuples():
        pixels = source.read(row)
        assert len(np.unique(pixels)) > 10, row.path  # a mask has two values
        assert max(pixels.shape) < 256


def test_dicom_takes_the_largest_of_several_lesions(phantom_root):
    source, table = sources.open_source(phantom_root), read_tables(phantom_root)
    cohort = build_cohort(table, "paper", "train")
    several = cohort[cohort["crops_CC"].map(len) > 1]
    assert len(several)
    row = one(source.locate(several.head(1)), "CC", "crop")
    sizes = {}
    for crop, mask in zip(several["crops_CC"].iloc[0], several["masks_CC"].iloc[0], strict=True):
        path = source._crop_of(crop, mask)
        sizes[str(path)] = sources.read_image(path).size
    assert row.path == max(sizes, key=sizes.get)


def test_dicom_says_missing(phantom_root, tmp_path):
    root = shutil.copytree(phantom_root, tmp_path / "copy")
    cohort = build_cohort(read_tables(root), "paper", "test").head(1)
    shutil.rmtree((root / cohort["whole_CC"].iloc[0]).parent)
    located = sources.open_source(root).locate(cohort)
    assert one(located, "CC", "whole").status == "missing"
    assert one(located, "MLO", "whole").status == "found"


def test_a_mask_is_not_taken_for_the_crop_that_is_missing(phantom_root, tmp_path):
    root = shutil.copytree(phantom_root, tmp_path / "copy")
    cohort = build_cohort(read_tables(root), "paper", "test")
    crops = sources.open_source(root).locate(cohort).query("stream == 'crop'")
    for path in crops["path"]:
        os.unlink(path)
    assert set(sources.open_source(root).locate(cohort).query("stream == 'crop'")["status"]) == {"missing"}


def test_an_unknown_layout_says_what_was_expected(tmp_path):
    with pytest.raises(InputError, match=r"no images found; expected mass-800/ with lesion_boxes\.csv, or DICOM"):
        sources.open_source(tmp_path)


@needs_real_data
@pytest.mark.parametrize("split", ["train", "test"])
def test_every_real_view_is_found(split):
    located = sources.open_source(REAL).locate(build_cohort(read_tables(REAL), "paper", split))
    assert set(located["status"]) == {"found"}
    assert located["aspect"].between(1.1, 3.1).all()


@needs_real_data
def test_both_real_views_of_a_breast_face_the_same_way():
    """A film is scanned either way round, the laterality does not tell; but a breast's two films go together."""
    source = sources.open_source(REAL)
    films = source.locate(build_cohort(read_tables(REAL), "paper", "test")).query("stream == 'whole'").head(100)
    faces = pd.Series([faces_right(breast_mask(read_image(path))) for path in films["path"]], index=films["breast_id"])
    assert faces.groupby(level=0).nunique().eq(1).all()
    assert 0 < faces.mean() < 1
