"""mini-MIAS, on a synthetic folder: the pitfalls of its table, its circles, and incomplete copies."""

import codecs
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mammo_lib.data.external import open_other
from mammo_lib.data.external.mias import open_mias
from mammo_lib.errors import InputError

INFO = """\
              MAMMOGRAPHIC IMAGE ANALYSIS SOCIETY
1st column: MIAS database reference number.
mdb001 G CIRC B 535 425 197\x20
mdb002 G NORM\x20
mdb003 F MISC B 233 994 29
mdb003 F MISC M 313 540 27
mdb004 D CALC M *NOTE 3*
mdb005 D CIRC B
mdb006 F SPIC M 600 100 40
mdb007 D NORM
"""


def write_film(path, bright=(), side=1024):
    """Write a film with a breast at the left and a bright square around (x, y) in pixels from the top left."""
    pixels = np.zeros((side, side), np.uint8)
    pixels[100:900, 20:700] = 90
    for x, y in bright:
        pixels[y - 20 : y + 20, x - 20 : x + 20] = 250
    Image.fromarray(pixels).save(path, format="PPM")


@pytest.fixture
def mias(tmp_path):
    """Six films of a table of seven; one with a capital extension, and what macOS leaves beside a file."""
    (tmp_path / "Info.txt").write_text(INFO)
    for number in (1, 2, 3, 4, 5):
        write_film(tmp_path / f"mdb{number:03d}.pgm")
    write_film(tmp_path / "MDB006.PGM", [(600, 1024 - 100)])
    (tmp_path / "._mdb001.pgm").write_bytes(b"\0" * 64)
    return tmp_path


def breasts_of(root):
    return open_mias(root).breasts.set_index("sample_id")


def test_odd_images_are_right_and_a_pair_is_a_patient(mias):
    breasts = breasts_of(mias)
    assert breasts["whole_MLO"].to_dict() == {
        "MIAS_001_RIGHT": "mdb001.pgm", "MIAS_001_LEFT": "mdb002.pgm", "MIAS_002_RIGHT": "mdb003.pgm",
        "MIAS_002_LEFT": "mdb004.pgm", "MIAS_003_RIGHT": "mdb005.pgm", "MIAS_003_LEFT": "MDB006.PGM",
    }  # fmt: skip
    assert breasts["whole_CC"].isna().all()


def test_an_image_takes_its_worst_lesion_and_tissue_is_no_density(mias):
    breasts = breasts_of(mias)
    assert breasts["label"].to_dict() == {
        "MIAS_001_RIGHT": 0, "MIAS_001_LEFT": 0, "MIAS_002_RIGHT": 1, "MIAS_002_LEFT": 1, "MIAS_003_RIGHT": 0,
        "MIAS_003_LEFT": 1,
    }  # fmt: skip
    assert breasts.loc["MIAS_002_RIGHT", ["n_lesions", "tissue", "lesion_type"]].tolist() == [2, "F", "mass"]
    assert breasts.loc["MIAS_001_LEFT", "lesion_type"] == "none"
    assert breasts["density"].isna().all() and breasts["assessment"].isna().all()


def test_the_origin_of_a_circle_is_the_bottom_left(mias, tiny_profile):
    """The bright square is drawn where the table puts it, 100 px above the bottom; the crop must hold it."""
    from mammo_lib.data.prepare import load_pixels

    collection = open_mias(mias)
    cohort = collection.breasts.query("sample_id == 'MIAS_003_LEFT'").reset_index(drop=True)
    [crop] = [row for row in collection.locate(cohort).itertuples() if row.stream == "crop" and row.view == "MLO"]
    assert (crop.x0, crop.y0, crop.x1, crop.y1) == (600 - 45, 924 - 45, 600 + 45, 924 + 45)  # radius 40, margin 5
    prepared = collection.prepare(cohort, *tiny_profile.run.inputs)
    key = prepared.index.set_index("stream").loc["crop", "key"]
    assert load_pixels(prepared.path(key)).max() > 0.9


def test_the_crop_shows_the_largest_lesion_whatever_its_label_and_ends_with_the_image(mias):
    collection = open_mias(mias)
    located = collection.locate(collection.breasts).query("stream == 'crop' and view == 'MLO'").set_index("sample_id")
    box = located.loc["MIAS_002_RIGHT", ["x0", "y0", "x1", "y1"]].tolist()
    assert box == [233 - 34, 0, 233 + 34, 30 + 34]  # centre 30 px below the top, radius 29 and margin 5: cut at 0


def test_a_lesion_without_a_place_has_no_crop(mias):
    collection = open_mias(mias)
    status = collection.locate(collection.breasts).set_index(["sample_id", "view", "stream"])["status"]
    for name in ("MIAS_002_LEFT", "MIAS_003_RIGHT", "MIAS_001_LEFT"):
        assert status[name, "MLO", "crop"] == "absent" and status[name, "MLO", "whole"] == "found"
        assert status[name, "CC", "whole"] == "absent"
    assert collection.breasts.set_index("sample_id")["has_box"].sum() == 3


def test_what_is_missing_is_told(mias):
    write_film(mias / "mdb300.pgm")
    told = set(map(tuple, open_mias(mias).left_out.to_numpy()))
    assert told == {("mdb007", "no image (NORM)"), ("mdb300", "no line in Info.txt")}


@pytest.mark.parametrize(
    "encode",
    [
        lambda text: codecs.BOM_UTF8 + text.encode(),
        lambda text: text.replace("SOCIETY", "SOCIÉTÉ").encode("latin-1"),
        lambda text: text.replace("\n", "\r\n").encode(),
        lambda text: text.replace("mdb00", "MDB00").encode(),
    ],
    ids=["byte order mark", "latin-1", "line ends", "capitals"],
)
def test_encodings_change_nothing(mias, encode):
    before = open_mias(mias).table
    (mias / "Info.txt").write_bytes(encode(INFO))
    assert open_mias(mias).table.equals(before)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("mdb001 G CIRC B 1300 425 20", "line 1: a circle at 1300, 425 of radius 20, outside of 1024 x 1024"),
        ("mdb001 G CIRC B 500 425 0", "a circle at 500, 425 of radius 0"),
        ("mdb001 G CIRC B 500 425", "line 1: expected x, y and radius of a lesion or nothing, got '500 425'"),
        ("mdb001 G CIRC B 500 nan 3", "a circle at 500, nan"),
        ("mdb001 X CIRC B 500 425 20", "tissue must be one of F, G, D, got 'X'"),
        ("mdb001 G CYST B 500 425 20", "class must be one of CIRC, .* got 'CYST'"),
        ("mdb001 G NORM\nmdb001 G CIRC B 500 425 20", "mdb001 is NORM and has another line"),
        ("mdb001 G CIRC B 500 425 20\nmdb001 G CIRC B 500 425 20", "mdb001 has two equal lines; leave one out"),
        ("mdb001 G CIRC", "severity must be one of B, M, got ''"),
        ("mdb0011 G CIRC B", "an image is called mdb and three digits, got 'mdb0011'"),
    ],
)
def test_a_line_that_cannot_be_is_named(mias, line, message):
    (mias / "Info.txt").write_text(line)
    with pytest.raises(InputError, match=message):
        open_mias(mias)


def test_an_image_of_another_size_is_refused_with_its_name(mias, tiny_profile):
    write_film(mias / "mdb001.pgm", side=512)
    collection = open_mias(mias)
    with pytest.raises(InputError, match=r"mdb001.pgm: 512 x 512 px, but its lesions are marked in 1024 x 1024 px"):
        collection.prepare(collection.breasts, *tiny_profile.run.inputs)


def test_a_broken_image_is_refused_with_its_name_or_left_out(mias, tiny_profile):
    (mias / "mdb001.pgm").write_bytes(b"P5 1024 1024 255\n\0\0")
    collection, (data, *reads) = open_mias(mias), tiny_profile.run.inputs
    with pytest.raises(InputError, match=r"mdb001.pgm: .*complete the data folder, or leave them out"):
        collection.prepare(collection.breasts, data, *reads)
    allowed = collection.prepare(collection.breasts, data.model_copy(update={"allow_missing": True}), *reads)
    assert "MIAS_001_RIGHT" not in set(allowed.cohort["sample_id"]) and len(allowed.cohort) == 5


def test_a_table_without_its_images_is_refused(tmp_path):
    (tmp_path / "info.TXT").write_text(INFO)
    with pytest.raises(InputError, match=r"no image mdb001.pgm to mdb322.pgm belongs to a line of info.TXT"):
        open_other(tmp_path)


REAL = Path(os.environ.get("MAMMO_DATA", "nowhere")).parent / "mini-mias"


@pytest.mark.skipif(not (REAL / "Info.txt").is_file(), reason="no mini-MIAS beside MAMMO_DATA: needs the real films")
def test_the_real_collection_has_the_breasts_of_the_protocol():
    from mammo_lib.inference.transfer import scored_breasts

    collection = open_mias(REAL)
    abnormal = collection.table[collection.table["lesion_type"] != "none"]
    assert (len(abnormal), abnormal["image_path"].nunique()) == (123, 115)
    scored = scored_breasts(collection)
    masses = scored[scored["lesion_type"] == "mass"]
    assert [(len(one), one["label"].sum(), one["patient_id"].nunique()) for one in (masses, scored)] == [
        (55, 20, 53), (111, 49, 104),
    ]  # fmt: skip
    assert (collection.locate(scored).query("view == 'MLO'")["status"] == "found").all()


def test_a_folder_whose_name_is_not_utf8_is_refused(mias, tmp_path_factory):
    folder = shutil.copytree(mias, tmp_path_factory.mktemp("named") / os.fsdecode(b"caf\xe9"))
    with pytest.raises(InputError, match=r"\\udce9.*: the name is not in UTF-8; rename the file, or the folder"):
        open_other(folder)
