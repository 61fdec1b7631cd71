"""INbreast, on a synthetic folder: tables with extra rows around them, patients from file names, outlines."""

import os
import plistlib
import shutil

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from mammo_lib.data.external.detect import open_other
from mammo_lib.data.external.inbreast import open_inbreast
from mammo_lib.errors import InputError

HEADER = "Patient ID;Patient age;Laterality;View;Acquisition date;File Name;ACR;Bi-Rads"
ROWS = [
    "removed;removed;R;CC;201001;20586908;4;4a",
    "removed;removed;R;MLO;201001;20586934;4 ;4a",
    "removed;removed;L;CC;201001;20586960;    ;1",
    "removed;removed;L;CC;201203;20586999;3;2",  # the same view at the follow-up
    "removed;removed;R;CC;200802;22427705;1;6",  # no image
]
FILES = {
    "20586908": "6c613a14b80a8591_MG_R_CC", "20586934": "6c613a14b80a8591_MG_R_ML",
    "20586960": "6c613a14b80a8591_MG_L_CC", "20586999": "6c613a14b80a8591_MG_L_CC",
}  # fmt: skip


def write_outlines(root, number, *outlines):
    regions = [{"Name": name, "NumberOfPoints": len(points), "Point_px": [f"({x}, {y})" for x, y in points]}
               for name, points in outlines]  # fmt: skip
    (root / "AllXML").mkdir(exist_ok=True)
    (root / "AllXML" / f"{number}.xml").write_bytes(plistlib.dumps({"Images": [{"ROIs": regions}]}))


@pytest.fixture
def inbreast(tmp_path):
    (tmp_path / "INbreast.csv").write_text("\n".join([HEADER, *ROWS]))
    (tmp_path / "AllDICOMs").mkdir()
    for number, name in FILES.items():
        Image.fromarray(np.full((300, 200), 90, np.uint8)).save(tmp_path / "AllDICOMs" / f"{number}_{name}_ANON.png")
    write_outlines(tmp_path, "20586908", ("Mass", [(100.5, 50), (140, 90), (120, 110.5)]), ("Calcification", [(3, 4)]))
    write_outlines(tmp_path, "20586934", ("Cluster", [(100, 50), (120, 90)]))
    return tmp_path


def test_patients_come_from_the_names_of_files(inbreast):
    breasts = open_inbreast(inbreast).breasts.set_index("sample_id")
    right, left = "6c613a14b80a8591_RIGHT", "6c613a14b80a8591_LEFT"
    assert set(breasts.index) == {right, left}
    assert breasts["whole_MLO"].notna().to_dict() == {right: True, left: False}  # ML is called MLO
    assert breasts["assessment"].to_dict() == {right: 4, left: 1}
    assert breasts["density"].fillna(0).to_dict() == {right: 4, left: 0}
    assert breasts["lesion_type"].to_dict() == {right: "mass", left: "none"}
    assert breasts.loc[right, "finding"] == "Calcification and Cluster and Mass"


def test_a_picture_beside_its_dicom_is_not_used(inbreast):
    """Outlines are in pixels of the DICOM file; pictures are often smaller."""
    (inbreast / "PNG").mkdir()
    picture = next((inbreast / "AllDICOMs").glob("20586908*"))
    shutil.copy(picture, inbreast / "PNG" / picture.name)
    dicom = picture.with_suffix(".dcm")
    picture.unlink()
    dicom.write_bytes(b"\0" * 128 + b"DICM")
    table = open_inbreast(inbreast).table
    assert set(table.loc[table["finding"] == "Mass", "image_path"]) == {f"AllDICOMs/{dicom.name}"}


def test_views_of_two_examinations_are_not_one_breast(inbreast):
    rows = [ROWS[0], ROWS[1].replace("201001", "201201"), *ROWS[2:4]]
    (inbreast / "INbreast.csv").write_text("\n".join([HEADER, *rows]))
    collection = open_inbreast(inbreast)
    right = collection.breasts.set_index("laterality").loc["RIGHT"]
    assert right["whole_MLO"] is pd.NA and right["whole_CC"] is not pd.NA
    assert ("20586934", "of a later examination") in set(map(tuple, collection.left_out.to_numpy()))


def test_outlines_in_a_linked_folder_are_read(inbreast, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "AllXML"
    (inbreast / "AllXML").rename(elsewhere)
    (inbreast / "AllXML").symlink_to(elsewhere)
    assert open_inbreast(inbreast).breasts["has_box"].any()


def test_outlines_with_decimal_commas_are_refused(inbreast):
    write_outlines(inbreast, "20586908", ("Mass", [("370,5", "470,2"), ("430,1", "530,3")]))
    with pytest.raises(InputError, match=r"20586908\.xml: not the outlines of OsiriX"):
        open_inbreast(inbreast)


def test_there_is_no_biopsy_so_no_label(inbreast):
    breasts = open_inbreast(inbreast).breasts.set_index("laterality")
    assert breasts["label"].isna().all()
    assert breasts["is_suspicious"].to_dict() == {"RIGHT": 1, "LEFT": 0}


def test_a_crop_is_cut_around_the_outline(inbreast):
    collection = open_inbreast(inbreast)
    located = collection.locate(collection.breasts).query("stream == 'crop'").set_index(["sample_id", "view"])
    box = located.loc[("6c613a14b80a8591_RIGHT", "CC"), ["x0", "y0", "x1", "y1"]].tolist()
    assert box == [100.5 - 14, 50 - 14, 140 + 14, 110.5 + 14]


def test_what_does_not_match_is_told(inbreast):
    (inbreast / "INbreast.csv").write_text("\n".join([HEADER, *ROWS[:4], ROWS[0].replace("20586908", "22427705")]))
    stray = inbreast / "AllDICOMs" / "22427705_fe7d005dcbbfb46d_MG_L_CC_ANON.PNG"
    Image.fromarray(np.full((300, 200), 90, np.uint8)).save(stray, format="PNG")
    assert set(map(tuple, open_inbreast(inbreast).left_out.to_numpy())) == {
        ("20586999", "a second image of its view"),
        ("22427705", "the table says RIGHT CC, the file's name LEFT CC"),
    }


@pytest.mark.parametrize(
    "text",
    [
        "\n".join([HEADER, *ROWS]).replace(";", ","),
        "\n".join(["INbreast, anotações", "", HEADER, *ROWS, ";;;;;;;", "Total;;;;;410;;"]),
        "\r\n".join([HEADER + ";Findings Notes", *(row + ";cadeia de gânglios" for row in ROWS)]),
    ],
    ids=["commas", "title and sum", "notes in Latin-1"],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "latin-1"])
def test_what_stands_around_the_table_changes_nothing(inbreast, text, encoding):
    before = open_inbreast(inbreast).table
    (inbreast / "INbreast.csv").write_bytes(text.encode(encoding))
    pd.testing.assert_frame_equal(open_inbreast(inbreast).table, before)


def test_a_spreadsheet_is_read_as_the_csv_is(inbreast, monkeypatch):
    """What pandas reads of a sheet: titles above, numbers as text, a sum below. No reader of .xls comes with us."""
    before = open_inbreast(inbreast).table
    cells = [row.split(";") for row in [HEADER, *ROWS]]
    cells = [["INbreast", *[None] * 7], *cells, [None] * 8, [None, None, None, None, None, "410", None, None]]
    cells[2][5] += ".0"
    (inbreast / "INbreast.csv").rename(inbreast / "INbreast.xls")
    monkeypatch.setattr(pd, "read_excel", lambda *_, **__: pd.DataFrame(cells, dtype="string"))
    pd.testing.assert_frame_equal(open_inbreast(inbreast).table, before)


def test_a_spreadsheet_that_cannot_be_read_says_what_to_do(inbreast):
    (inbreast / "INbreast.csv").rename(inbreast / "INbreast.xls")
    with pytest.raises(InputError, match=r"INbreast.xls: .*save the sheet as CSV"):
        open_inbreast(inbreast)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("removed;removed;R;CC;201001;20586908;4;7", "row 2: Bi-Rads must be 0 to 6"),
        ("removed;removed;X;CC;201001;20586908;4;1", "row 2: Laterality must be L or R, got 'X'"),
        ("removed;removed;R;CC;201001;20586908;D;1", "row 2: ACR must be 1 to 4, or blank, got 'D'"),
        ("removed;removed;R;CC;201001;;4;1", "no row has a file number"),
    ],
)
def test_a_row_that_cannot_be_is_named(inbreast, row, message):
    (inbreast / "INbreast.csv").write_text(f"{HEADER}\n{row}")
    with pytest.raises(InputError, match=message):
        open_inbreast(inbreast)


@pytest.mark.parametrize("content", [b"", b"<plist", b'<?xml version="1.0"?><plist version="1.0"><dict/></plist>'])
def test_outlines_that_are_none_are_named(inbreast, content):
    (inbreast / "AllXML" / "20586908.xml").write_bytes(content)
    with pytest.raises(InputError, match=r"20586908.xml: not the outlines of OsiriX"):
        open_inbreast(inbreast)


def test_a_folder_whose_name_is_not_utf8_is_refused(inbreast, tmp_path_factory):
    folder = shutil.copytree(inbreast, tmp_path_factory.mktemp("named") / os.fsdecode(b"caf\xe9"))
    with pytest.raises(InputError, match=r"\\udce9.*: the name is not in UTF-8; rename the file, or the folder"):
        open_other(folder)
