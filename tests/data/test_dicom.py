"""DICOM in the wild: empty tags, functional groups, headers, decoders, other formats, and paths that are not files."""

import os
import socket
import time

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.dataset import Dataset

from mammo_lib.data import dicom
from mammo_lib.data.folders import find_collection, find_images
from mammo_lib.data.images import read_image
from mammo_lib.errors import InputError

from .test_images import STORED, compress, write_dicom

TWELVE = {"BitsStored": 12, "HighBit": 11}
PLAIN = STORED / 4095


@pytest.fixture
def path(tmp_path):
    return tmp_path / "a.dcm"


def item(**tags):
    made = Dataset()
    for name, value in tags.items():
        setattr(made, name, value)
    return made


def inverse_lut():
    return item(LUTDescriptor=[4096, 0, 12], LUTData=np.arange(4095, -1, -1, dtype="<u2").tobytes())


def refused(path, what):
    """Read a file that must be refused in one line that names it."""
    with pytest.raises(InputError, match=what) as caught:
        read_image(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "tags",
    [
        {"VOILUTSequence": []},
        {"VOILUTSequence": [item()]},
        {"VOILUTSequence": [item(LUTDescriptor=[4096, 0, 12])]},
        {"ModalityLUTSequence": []},
        {"ModalityLUTSequence": [item(ModalityLUTType="US")]},
        {"RescaleSlope": None, "RescaleIntercept": None},
        {"RescaleSlope": "", "RescaleIntercept": "-7"},
        {"RescaleSlope": "2"},
        {"RescaleIntercept": "1e10"},
        {"WindowCenter": None, "WindowWidth": 100},
        {"WindowCenter": 100},
        {"VOILUTFunction": "", "WindowCenter": 2048, "WindowWidth": 4096},
        {"VOILUTFunction": " ", "WindowCenter": ["", 2048], "WindowWidth": [4096, ""]},
        {"PhotometricInterpretation": ""},
        {"PhotometricInterpretation": "monochrome2 "},
        {"SamplesPerPixel": None, "PixelRepresentation": None},
        {"NumberOfFrames": None},
        {"PixelPaddingValue": None},
        {"PixelPaddingRangeLimit": 4095},
        {"SharedFunctionalGroupsSequence": [], "PerFrameFunctionalGroupsSequence": [item()]},
    ],
    ids=str,
)
@pytest.mark.filterwarnings("ignore::UserWarning:pydicom")
def test_what_says_nothing_changes_nothing(path, tags):
    write_dicom(path, STORED, **TWELVE | tags)
    np.testing.assert_allclose(read_image(path), PLAIN, atol=2e-3)


def test_an_empty_item_hides_no_full_one(path):
    write_dicom(path, STORED, **TWELVE, VOILUTSequence=[item(), inverse_lut()])
    np.testing.assert_allclose(read_image(path), 1 - PLAIN, atol=1e-5)


@pytest.mark.parametrize("group", ["SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"])
def test_functional_groups_are_read_like_the_file_itself(tmp_path, group):
    lut, window = {"VOILUTSequence": [inverse_lut()]}, {"WindowCenter": 2000, "WindowWidth": 2000}
    for name, tags in (("lut", lut), ("window", window)):
        groups = item(FrameVOILUTSequence=[item(**tags)], FrameAnatomySequence=[item(FrameLaterality="R")],
                      PixelValueTransformationSequence=[item(RescaleSlope=1, RescaleIntercept=-100)])  # fmt: skip
        write_dicom(tmp_path / "new.dcm", STORED, **TWELVE, NumberOfFrames=1, **{group: [groups]})
        write_dicom(tmp_path / "old.dcm", STORED, **TWELVE, RescaleSlope=1, RescaleIntercept=-100, **tags)
        new, old = read_image(tmp_path / "new.dcm"), read_image(tmp_path / "old.dcm")
        np.testing.assert_array_equal(new, old, err_msg=name)
        assert dicom.read_header(tmp_path / "new.dcm", ["ImageLaterality"]).ImageLaterality == "R"


def test_a_header_lacks_what_is_empty(path):
    write_dicom(path, STORED, PatientID="", Laterality=None, ImageLaterality="L", ViewCodeSequence=[])
    header = dicom.read_header(path, ["PatientID", "Laterality", "ImageLaterality", "ViewCodeSequence"])
    assert [element.keyword for element in header] == ["ImageLaterality"]


@pytest.mark.parametrize(("tag", "vr", "value"), [
    ("Rows", "US", [2, 3]), ("NumberOfFrames", "LO", "two"), ("ViewCodeSequence", "US", [7, 8]),
])  # fmt: skip
def test_a_tag_of_another_kind_is_refused_where_it_is_read(path, tag, vr, value):
    write_dicom(path, STORED)
    dataset = pydicom.dcmread(path)
    dataset[tag] = pydicom.DataElement(pydicom.datadict.tag_for_keyword(tag), vr, value)
    dataset.save_as(path)
    with pytest.raises(InputError, match="the header cannot be read"):
        dicom.read_header(path, [tag])


class Panic(BaseException):
    """What a decoder in Rust raises: no ``Exception``."""


def test_whatever_a_decoder_raises_is_one_line(path, monkeypatch):
    write_dicom(path, STORED)

    def panic(*_):
        raise Panic("index out of bounds\nstack\x1b[31m backtrace")

    monkeypatch.setattr(dicom, "_decode", panic)
    refused(path, r"index out of bounds stack\?\[31m backtrace")


@pytest.mark.parametrize("end", [KeyboardInterrupt, SystemExit])
def test_an_interruption_is_none_of_a_decoders_errors(path, monkeypatch, end):
    write_dicom(path, STORED)

    def interrupt(*_):
        raise end

    monkeypatch.setattr(dicom, "_decode", interrupt)
    with pytest.raises(end):
        read_image(path)


def test_gdcm_is_never_asked(tmp_path, monkeypatch):
    import pydicom.pixels.decoders.gdcm as plugin

    monkeypatch.setattr(plugin, "_decode_frame", lambda *_: pytest.fail("GDCM was asked"))
    write_dicom(tmp_path / "a.dcm", np.arange(96 * 64, dtype=np.uint16).reshape(96, 64))
    compress(tmp_path / "a.dcm", tmp_path / "b.dcm", "JPEG2000Lossless")
    np.testing.assert_array_equal(read_image(tmp_path / "b.dcm"), read_image(tmp_path / "a.dcm"))


def test_pictures_in_colour_and_of_floating_point_are_refused(tmp_path):
    Image.new("RGB", (9, 9), (200, 10, 10)).save(tmp_path / "rgb.png")
    Image.new("RGB", (9, 9), (200, 10, 10)).quantize(4).save(tmp_path / "palette.png")
    (tmp_path / "float.pgm").write_bytes(b"Pf\n1 1\n-1.0\n" + np.float32(3).tobytes())
    Image.new("F", (9, 9), 0.5).save(tmp_path / "float.tif")
    for name, what in {
        "rgb.png": "colour",
        "palette.png": "colour",
        "float.pgm": "float",
        "float.tif": "decoded",
    }.items():
        refused(tmp_path / name, what)
    Image.new("RGB", (9, 9), (51, 51, 51)).save(tmp_path / "grey.png")
    np.testing.assert_allclose(read_image(tmp_path / "grey.png"), 0.2, rtol=1e-6)


def test_content_decides_singly_and_in_folders(tmp_path):
    for name in ("a.dcm", "IM0001", "b.png", "c.IMA", "._a.dcm", "DICOMDIR"):
        write_dicom(tmp_path / name, STORED, **TWELVE)
    Image.fromarray(np.full((9, 9), 51, np.uint8)).save(tmp_path / "d.png")
    (tmp_path / "d.png").rename(tmp_path / "d.dcm")
    (tmp_path / "e.csv").write_text("a,b\n")
    (tmp_path / "folder.dcm").mkdir()
    assert [path.name for path in find_collection(tmp_path, "DICOM")] == ["IM0001", "a.dcm", "b.png", "c.IMA", "d.dcm"]
    assert find_images(tmp_path, "DICOM", "picture") == find_collection(tmp_path, "DICOM")
    for name in ("IM0001", "b.png", "c.IMA"):
        np.testing.assert_array_equal(read_image(tmp_path / name), read_image(tmp_path / "a.dcm"))
    np.testing.assert_allclose(read_image(tmp_path / "d.dcm"), 0.2, rtol=1e-6)
    refused(tmp_path / "folder.dcm", "a folder")


@pytest.mark.parametrize("kind", ["pipe", "socket", "dead link", "loop", "folder"])
def test_what_is_no_file_is_refused_at_once(tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)  # a socket's name is short
    path = tmp_path / "x.dcm"
    if kind == "socket":
        with socket.socket(socket.AF_UNIX) as one:
            one.bind("x.dcm")
    else:
        {"pipe": os.mkfifo, "folder": os.mkdir, "loop": lambda p: p.symlink_to(p),
         "dead link": lambda p: p.symlink_to("/nowhere/x.dcm")}[kind](path)  # fmt: skip
    began = time.monotonic()
    refused(path, "no such image|not an image file|symbolic links")
    with pytest.raises(InputError):
        dicom.read_header(path, ["PatientID"])
    assert find_collection(tmp_path, "DICOM") == ([] if kind == "folder" else [path])
    assert time.monotonic() - began < 5


@pytest.mark.parametrize(
    ("start", "kind", "remedy"),
    [
        (b"II*\0", "a TIFF file", "convert it to PNG"),
        (b"MM\0*", "a TIFF file", "convert it to PNG"),
        (b"BM" + bytes(6), "a BMP file", "convert it to PNG"),
        (b"GIF89a", "a GIF file", "convert it to PNG"),
        (b"\0\0\0\x0cjP  ", "a JPEG 2000 file outside DICOM", "convert it to PNG"),
        (b"\x93NUMPY", "a NumPy array", "convert it to PNG"),
        (b"%PDF-1.4", "a PDF file", "give the image itself"),
        (b"PK\3\4", "a ZIP archive", "unpack it first"),
        (b"\x1f\x8b\x08", "a gzip archive", "unpack it first"),
        (b"<html>", "a web page", "download the file again"),
    ],
)
@pytest.mark.parametrize("name", ["a.tif", "a.png", "a.dcm", "a"])
def test_another_format_is_named_with_what_to_do_about_it(tmp_path, name, start, kind, remedy):
    path = tmp_path / name
    path.write_bytes(start + bytes(200))
    refused(path, f"{kind}{' under a DICOM name' if name == 'a.dcm' else ''}.*; {remedy}")


def test_a_file_of_no_known_format_is_told_which_ones_are_read(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("hello")
    refused(path, "neither DICOM nor PNG, JPEG or PGM.*; give a file in one of these formats")
