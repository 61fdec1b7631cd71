"""Sources of images: each layout is detected automatically, and each row of a cohort is located."""

import os
import shutil
from functools import partial
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from mammo_lib.data import views
from mammo_lib.data.cbis_ddsm import series, sources
from mammo_lib.data.cbis_ddsm.tables import read_tables
from mammo_lib.data.cohort import build_cohort
from mammo_lib.data.images import breast_mask, faces_right, read_image, resize
from mammo_lib.data.phantom.layouts import LAYOUTS
from mammo_lib.errors import InputError

REAL = os.environ.get("MAMMO_DATA")
needs_real_data = pytest.mark.skipif(not REAL, reason="MAMMO_DATA is not set: needs the real 800-px mammograms")


def one(frame, view, stream):
    return frame.query("view == @view and stream == @stream").iloc[0]


@pytest.fixture
def kaggle(phantom_of):
    """A phantom in the Kaggle mirror's form."""
    return phantom_of("kaggle")


@pytest.mark.parametrize("change", ["backslashes", "every row twice", "floats", "semicolons"])
def test_what_programs_change_in_dicom_info_does_not_matter(kaggle, tmp_path, change):
    shutil.copytree(kaggle / "csv", tmp_path / "csv")
    (tmp_path / "jpeg").symlink_to(kaggle / "jpeg")
    path, cohort = tmp_path / "csv" / "dicom_info.csv", build_cohort(read_tables(kaggle), "paper", "test")
    table = pd.read_csv(path, dtype="string")
    if change == "backslashes":
        table["image_path"] = "D:\\" + table["image_path"].str.replace("/", "\\")
    if change == "every row twice":
        table = pd.concat([table, table])
    if change == "floats":
        table["Rows"] += ".0"
    table.to_csv(path, index=False, sep=";" if change == "semicolons" else ",")
    located, expected = (sources.open_source(root).locate(cohort) for root in (tmp_path, kaggle))
    assert set(located["status"]) == {"found"}
    assert located.drop(columns="path").equals(expected.drop(columns="path"))


@pytest.mark.parametrize("value", ["abc", "-1", "inf", "1e30"])
def test_a_size_in_dicom_info_that_cannot_be_is_refused(kaggle, tmp_path, value):
    shutil.copytree(kaggle / "csv", tmp_path / "csv")
    (tmp_path / "jpeg").symlink_to(kaggle / "jpeg")
    path = tmp_path / "csv" / "dicom_info.csv"
    table = pd.read_csv(path, dtype="string")
    table.loc[3, "Rows"] = value
    table.to_csv(path, index=False)
    with pytest.raises(InputError, match=r"dicom_info\.csv, row 5: rows must be a number"):
        sources.open_source(tmp_path)


def test_dicom_tree_finds_every_view_of_the_phantom(phantom_root):
    source, table = sources.open_source(phantom_root), read_tables(phantom_root)
    assert source.kind == "classic"
    for split in ("train", "test"):
        located = source.locate(build_cohort(table, "paper", split))
        assert set(located["status"]) == {"found"}


def test_dicom_crops_are_crops_in_every_naming(phantom_root):
    """Crop and mask are told apart in one series or two, first or second, both types of lesion."""
    source, table = sources.open_source(phantom_root), read_tables(phantom_root)
    cohort = build_cohort(table, "mass+calc", "train")
    located = source.locate(cohort).query("stream == 'crop'")
    for row in located.itertuples():
        pixels = views.read_view(row)
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
        path = source.lesion_files(None, crop, mask)[0].path
        sizes[path] = read_image(path).size
    assert row.path == max(sizes, key=sizes.get)


def test_dicom_says_missing(phantom_root, tmp_path):
    root = shutil.copytree(phantom_root, tmp_path / "copy")
    cohort = build_cohort(read_tables(root), "paper", "test").head(1)
    shutil.rmtree((root / cohort["whole_CC"].iloc[0]).parent)
    located = sources.open_source(root).locate(cohort)
    assert one(located, "CC", "whole").status == "missing"
    assert one(located, "MLO", "whole").status == "found"


def test_a_missing_crop_is_derived_from_the_mask_not_replaced_by_it(phantom_root, tmp_path):
    """The official crop is the mask's box and 20 px a side, so both have the same pixels."""
    root = shutil.copytree(phantom_root, tmp_path / "copy")
    cohort = build_cohort(read_tables(root), "paper", "test")
    official = sources.open_source(root).locate(cohort).query("stream == 'crop'")
    expected = [views.read_view(row) for row in official.itertuples()]
    for path in official["path"]:
        os.unlink(path)
    derived = sources.open_source(root).locate(cohort).query("stream == 'crop'")
    assert set(derived["status"]) == {"found"}
    assert derived["derived"].all()
    for row, pixels in zip(derived.itertuples(), expected, strict=True):
        found = views.read_view(row)
        assert np.abs(np.subtract(found.shape, pixels.shape)).max() <= 2  # a mask of another size is resampled
        if found.shape == pixels.shape:
            np.testing.assert_allclose(found, pixels, atol=1e-4)


def test_without_crop_and_mask_a_view_is_missing(phantom_root, tmp_path):
    root = shutil.copytree(phantom_root, tmp_path / "copy")
    cohort = build_cohort(read_tables(root), "paper", "test").head(1)
    for path in (*cohort["crops_CC"].iloc[0], *cohort["masks_CC"].iloc[0]):
        shutil.rmtree((root / path).parent, ignore_errors=True)
    assert one(sources.open_source(root).locate(cohort), "CC", "crop").status == "missing"


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_is_recognised_and_gives_the_same_pictures(phantom_of, layout):
    cohort = build_cohort(read_tables(phantom_of(layout)), "paper", "test")
    source, classic = (sources.open_source(phantom_of(name)) for name in (layout, "classic"))
    assert source.kind == layout
    located, reference = source.locate(cohort), classic.locate(cohort)
    assert set(located["status"]) == {"found"}
    tolerance = {"kaggle": 0.03, "mirror-800": 0.06}.get(layout, 0)
    for row, expected in zip(located.itertuples(), reference.itertuples(), strict=True):
        a, b = (resize(views.read_view(one), 48, 32) for one in (row, expected))
        assert np.abs(a - b).mean() <= tolerance, (row.stream, row.view)


def test_lesions_as_samples(phantom_of):
    """Each lesion has its own crop; the 800-px mirror does not know which box of several is which."""
    cohort = build_cohort(read_tables(phantom_of("classic")), "lesion", "train")
    several = cohort[cohort["breast_id"].duplicated(keep=False)]
    assert len(several) > 1
    crops = sources.open_source(phantom_of("classic")).locate(several).query("stream == 'crop' and view == 'CC'")
    assert crops["path"].is_unique
    assert crops["sample_id"].is_unique
    mirrored = sources.open_source(phantom_of("mirror-800")).locate(several).query("stream == 'crop'")
    assert set(mirrored["status"]) == {"missing"}
    assert mirrored["problem"].str.contains("2 boxes in this film cannot be matched to lesions").all()


def test_two_kinds_of_copies_in_one_folder_are_refused(phantom_of, tmp_path):
    shutil.copytree(phantom_of("classic"), tmp_path / "data")
    shutil.copytree(phantom_of("kaggle"), tmp_path / "data", dirs_exist_ok=True)
    with pytest.raises(InputError, match=r"images in 2 layouts \(kaggle, DICOM\); give the folder of the one to use"):
        sources.open_source(tmp_path / "data")


def test_one_dicom_copy_in_two_layouts_is_one_copy(phantom_of, tmp_path):
    """Half of the films were downloaded again in another way: repeated files are named, none is used twice."""
    root = tmp_path / "data"
    shutil.copytree(phantom_of("classic"), root / "old")
    shutil.copytree(phantom_of("flat"), root / "new")
    source = sources.open_source(root)
    assert sorted(source.kind.split("+")) == ["classic", "flat"]
    n_files = len(list((root / "old").rglob("*.dcm")))
    assert source.files["problem"].str.startswith("duplicate of").sum() == n_files
    cohort = build_cohort(read_tables(phantom_of("classic")), "paper", "test")
    assert set(source.locate(cohort)["status"]) == {"found"}


def test_a_header_that_cannot_be_read_is_undecodable_before_training(phantom_of, tmp_path):
    root = shutil.copytree(phantom_of("classic"), tmp_path / "data")
    cohort = build_cohort(read_tables(root), "paper", "test").head(1)
    film = root / cohort["whole_CC"].iloc[0]
    for content, why in ((b"\xff\xd8\xff\xe0" + b"0" * 200, "a JPEG file under a DICOM name"), (b"", "an empty file")):
        film.write_bytes(content)
        row = one(sources.open_source(root).locate(cohort), "CC", "whole")
        assert row.status == "undecodable"
        assert why in row.problem


def test_a_name_that_is_not_utf8_is_refused_in_one_line(tmp_path):
    path = tmp_path / os.fsdecode(b"film\xe9.dcm")
    path.touch()
    with pytest.raises(InputError, match=r"film\\udce9\.dcm: the name is not in UTF-8; rename the file"):
        sources.open_source(tmp_path)


def refuse(*_):
    raise InputError("the network drive did not answer")


def test_a_header_that_could_not_be_read_is_read_again(tmp_path, monkeypatch):
    path = tmp_path / "a.dcm"
    path.touch()
    monkeypatch.setattr(series, "read_header", refuse)
    assert series.index_dicom(tmp_path, [path])["problem"].tolist() == ["the network drive did not answer"]
    monkeypatch.setattr(series, "read_header", lambda *_: {"Rows": 8, "Columns": 8})
    assert series.index_dicom(tmp_path, [path])["problem"].tolist() == [""]


def as_file(path):
    """Return a file of an index, a mask or a crop of the size of its film."""
    return SimpleNamespace(path=str(path), problem="", description="", rows=8, columns=8)


def test_a_mask_whose_pixels_could_not_be_read_is_read_again(tmp_path, monkeypatch):
    Image.fromarray(np.eye(8, dtype=np.uint8) * 255).save(tmp_path / "mask.png")
    is_mask = partial(sources.SeriesSource._is_mask, None, as_file(tmp_path / "mask.png"), None, [])
    with monkeypatch.context() as patch:
        patch.setattr(views, "read_image", refuse)
        assert is_mask() is False
    assert is_mask() is True


def test_what_pixels_said_is_asked_again_when_a_change_moves_pixels(tmp_path, monkeypatch):
    Image.fromarray(np.eye(8, dtype=np.uint8) * 255).save(tmp_path / "mask.png")
    mask = as_file(tmp_path / "mask.png")
    found = []
    for version, answer in ((1, True), (2, False)):
        monkeypatch.setattr(sources, "VERSION", version)
        monkeypatch.setattr(sources, "is_binary", lambda path, answer=answer: answer)
        monkeypatch.setattr(sources, "mask_box", lambda path, answer=answer: [0, 0, 8, 8] if answer else None)
        found.append((sources.SeriesSource._is_mask(None, mask, None, []), sources._box_in_film(mask, mask)))
    assert found == [(True, (0, 0, 8, 8)), (False, None)]


def test_links_are_followed_once(phantom_of, tmp_path):
    root = tmp_path / "données"  # and names beyond ASCII are names
    root.mkdir()
    (root / "bilder").symlink_to(phantom_of("classic"))
    (root / "loop").symlink_to(root)
    source = sources.open_source(root)
    assert len(source.files) == len(list(phantom_of("classic").rglob("*.dcm")))


def test_a_folder_without_permission_is_named(phantom_of, tmp_path, monkeypatch):
    root = shutil.copytree(phantom_of("flat"), tmp_path / "data")
    closed = next(path for path in root.iterdir() if path.is_dir())
    scan = os.scandir

    def refuse(path):
        if os.fspath(path) == str(closed):
            raise PermissionError(13, "Permission denied", str(closed))
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)  # root, who runs CI, may read everything
    with pytest.raises(InputError, match=r"cannot be read \(Permission denied\); give this user access"):
        sources.open_source(root)


def test_an_unknown_layout_says_what_was_expected(tmp_path):
    with pytest.raises(InputError, match=r"no images found; expected mass-800/ with lesion_boxes\.csv, DICOM files"):
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
