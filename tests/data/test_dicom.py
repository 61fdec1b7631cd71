"""DICOM as others send it: each kind of odd tag, of damage and of bomb gives the right pixels or one line."""

import io
import os
import socket
import struct
import time
import zlib

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom import uid
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate

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


def test_tables_of_either_sort_have_any_depth_and_are_looked_up_one_after_the_other(path):
    write_dicom(path, STORED, **TWELVE, ModalityLUTSequence=[inverse_lut()], RescaleSlope=2, RescaleIntercept=5)
    np.testing.assert_allclose(read_image(path), 1 - PLAIN, atol=1e-5)
    write_dicom(path, STORED, **TWELVE, ModalityLUTSequence=[inverse_lut()], VOILUTSequence=[inverse_lut()])
    np.testing.assert_allclose(read_image(path), PLAIN, atol=1e-5)


def test_a_modality_table_stands_for_the_rescale_under_a_window_too(path):
    tags = {"RescaleSlope": -2, "RescaleIntercept": 5, "WindowCenter": 2048, "WindowWidth": 4096}
    write_dicom(path, STORED, **TWELVE, ModalityLUTSequence=[inverse_lut()], **tags)
    np.testing.assert_allclose(read_image(path), 1 - PLAIN, atol=1e-3)


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
def test_a_window_is_as_bright_above_where_the_slope_is_negative(path, function):
    """0, 1000, 2000 and 4095 become 4095, 3095, 2095 and 0: bright, bright, dark, dark, for a window at 2600."""
    window = {"WindowCenter": 2600, "WindowWidth": 100, "VOILUTFunction": function}
    write_dicom(path, STORED, **TWELVE, RescaleSlope=-1, RescaleIntercept=4095, **window)
    np.testing.assert_allclose(read_image(path), [[1, 1], [0, 0]], atol=1e-3)


@pytest.mark.parametrize(
    ("tags", "name"),
    [
        ({"RescaleSlope": "0"}, "RescaleSlope"),
        ({"RescaleSlope": "inf"}, "RescaleSlope"),
        ({"RescaleSlope": "NaN", "RescaleIntercept": "0"}, "RescaleSlope"),
        ({"RescaleIntercept": "-inf"}, "RescaleIntercept"),
        ({"WindowCenter": "NaN", "WindowWidth": "100"}, "WindowCenter"),
        ({"WindowCenter": "100", "WindowWidth": "inf"}, "WindowWidth"),
        ({"WindowCenter": "100", "WindowWidth": "-5"}, "WindowWidth is -5"),
        ({"WindowCenter": "100", "WindowWidth": "5", "VOILUTFunction": "CUBIC"}, "CUBIC"),
        ({"RescaleSlope": "1e300"}, "not numbers"),
        ({"VOILUTSequence": [item(LUTDescriptor=[2, 0, 0], LUTData=b"\0\0\1\0")]}, "cannot be decoded"),
        ({"BitsStored": 0}, "BitsStored"),
        ({"BitsStored": 17}, "BitsStored"),
        ({"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB", "PlanarConfiguration": 0}, "3 colour channels"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "PALETTE COLOR"),
        ({"NumberOfFrames": 12}, "12 frames"),
        ({"Rows": 1}, "2 frames"),  # of pixels for two rows
        ({"Columns": 1}, "2 frames"),
        ({"Rows": 65535, "Columns": 65535}, "65535 x 65535"),
        ({"Rows": 0}, "0 pixels|x 0"),
        ({"Rows": None}, "Rows"),
        ({"BitsAllocated": None}, "BitsAllocated"),
    ],
    ids=str,
)
@pytest.mark.filterwarnings("ignore")
def test_what_cannot_be_a_grey_film_is_refused_with_its_tag(path, tags, name):
    write_dicom(path, STORED, **TWELVE | tags)
    refused(path, name)


@pytest.mark.parametrize("keyword", ["FloatPixelData", "DoubleFloatPixelData"])
def test_pixels_that_are_no_integers_are_refused(path, keyword):
    write_dicom(path, STORED)
    dataset = pydicom.dcmread(path)
    del dataset.PixelData
    setattr(dataset, keyword, np.zeros(4, "f4" if keyword[0] == "F" else "f8").tobytes())
    dataset.save_as(path)
    refused(path, keyword)


def test_32_bits_are_read_by_their_range(path):
    """One half of the range is 0.5, whatever its bits."""
    write_dicom(
        path, np.array([[0, 2**31], [2**32 - 1, 2**30]], np.uint32), BitsAllocated=32, BitsStored=32, HighBit=31
    )
    np.testing.assert_allclose(read_image(path), [[0, 0.5], [1, 0.25]], atol=1e-6)


@pytest.mark.parametrize("kind", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("tags", [
    {"PixelPaddingValue": 0}, {"PixelPaddingValue": 4095},
    {"PixelPaddingValue": 4000, "PixelPaddingRangeLimit": 4095},
    {"PixelPaddingValue": 4095, "PixelPaddingRangeLimit": 4000},
], ids=str)  # fmt: skip
def test_padding_is_black(path, kind, tags):
    write_dicom(path, STORED, **TWELVE, PhotometricInterpretation=kind, **tags)
    ends = tags.values()
    padding = (min(ends) <= STORED) & (max(ends) >= STORED)
    expected = np.where(padding, 0, PLAIN if kind == "MONOCHROME2" else 1 - PLAIN)
    np.testing.assert_allclose(read_image(path), expected, atol=1e-5)


@pytest.mark.parametrize("value", [-2000, 63536])
def test_padding_of_signed_pixels_is_known_as_either_sign(path, value):
    """-2000 in 16 bits is 63536 read without its sign; the range of 12 signed bits is -2048 to 2047."""
    stored = np.array([[-2000, 0], [2047, 1000]], np.int16)
    write_dicom(path, stored, **TWELVE, PixelRepresentation=1)
    dataset = pydicom.dcmread(path)
    dataset.add_new("PixelPaddingValue", "SS" if value < 0 else "US", value)
    dataset.save_as(path)
    expected = np.where(stored == -2000, 0, (stored + 2048) / 4095)
    np.testing.assert_allclose(read_image(path), expected, atol=1e-5)


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


def test_an_interruption_is_none_of_a_decoders_errors(path, monkeypatch):
    write_dicom(path, STORED)

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(dicom, "_decode", interrupt)
    with pytest.raises(KeyboardInterrupt):
        read_image(path)


def test_a_damaged_rle_film_never_panics(path, capfd):
    """Bytes changed, lost and added in the compressed pixels; the decoder's own words would be on stderr."""
    write_dicom(path, (np.add.outer(np.arange(40), np.arange(30)) ** 2 % 4096).astype("<u2"), **TWELVE)
    dataset = pydicom.dcmread(path)
    dataset.compress(uid.RLELossless)
    dataset.save_as(path)
    whole, random = path.read_bytes(), np.random.default_rng(0)
    assert read_image(path).shape == (40, 30)
    start = whole.index(b"\xe0\x7f\x10\x00")
    for _ in range(150):
        at, n = int(random.integers(start, len(whole) - 20)), int(random.integers(1, 9))
        path.write_bytes(whole[:at] + random.bytes(int(random.integers(0, 9))) + whole[at + n :])
        try:
            assert np.isfinite(read_image(path)).all()
        except InputError as error:
            assert "\n" not in str(error)
    assert capfd.readouterr().err == ""


def test_a_jpeg_2000_stream_that_is_not_what_its_header_says(path):
    """Three channels in a grey film abort GDCM, and with it the process; more pixels than declared are a bomb."""
    for mode, size in (("RGB", (64, 96)), ("L", (9000, 9000))):
        write_dicom(path, np.zeros((96, 64), np.uint8))
        dataset, stream = pydicom.dcmread(path), io.BytesIO()
        Image.new(mode, size, (77, 80, 90) if mode == "RGB" else 7).save(stream, "JPEG2000")
        dataset.file_meta.TransferSyntaxUID = uid.JPEG2000Lossless
        dataset.PixelData = encapsulate([stream.getvalue()])
        dataset["PixelData"].is_undefined_length = True
        dataset.save_as(path)
        refused(path, r"the stream holds")


def test_gdcm_is_never_asked(tmp_path, monkeypatch):
    import pydicom.pixels.decoders.gdcm as plugin

    monkeypatch.setattr(plugin, "_decode_frame", lambda *_: pytest.fail("GDCM was asked"))
    write_dicom(tmp_path / "a.dcm", np.arange(96 * 64, dtype=np.uint16).reshape(96, 64))
    compress(tmp_path / "a.dcm", tmp_path / "b.dcm", "JPEG2000Lossless")
    np.testing.assert_array_equal(read_image(tmp_path / "b.dcm"), read_image(tmp_path / "a.dcm"))


@pytest.mark.parametrize("read", [read_image, lambda path: dicom.read_header(path, ["PatientID"])])
def test_a_deflate_bomb_is_refused_before_it_fills_the_memory(path, monkeypatch, read):
    write_dicom(path, np.zeros((2000, 2000), np.uint16))
    compress(path, path, "DeflatedExplicitVRLittleEndian")
    read(path)
    monkeypatch.setattr(dicom, "MAX_BYTES", 4_000_000)  # it holds 8
    with pytest.raises(InputError, match="inflates to more than"):
        read(path)


def png(width, height):
    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(99))) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    "content", [png(10**5, 10**5), png(12000, 12000), b"P5 99999999 99999999 255\n"], ids=["huge", "large", "pgm"]
)
def test_a_picture_bomb_is_refused(tmp_path, content):
    (tmp_path / "a.png").write_bytes(content)
    refused(tmp_path / "a.png", "pixels")


def test_a_sparse_file_is_refused(path):
    write_dicom(path, STORED)
    os.truncate(path, 10**11)
    refused(path, "bytes")


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
    ("tags", "what"),
    [
        ({"WindowCenter": 100, "WindowWidth": 0}, "WindowWidth is 0.*not a number to scale by; correct or remove"),
        ({"WindowCenter": 100, "WindowWidth": 9, "VOILUTFunction": "CUBIC"}, "VOILUTFunction CUBIC, expected one of"),
        ({"PixelPaddingValue": [0, 1]}, "PixelPaddingValue is .*, expected one whole number"),
    ],
)
def test_tags_that_cannot_be_used_are_named(path, tags, what):
    write_dicom(path, STORED, **TWELVE, **tags)
    refused(path, what)


@pytest.mark.parametrize("text", [b"abc ", b"1,0 "])
def test_a_number_that_is_none_is_named(path, text):
    write_dicom(path, STORED, RescaleSlope="1.00", RescaleIntercept="0", **TWELVE)
    path.write_bytes(path.read_bytes().replace(b"1.00", text))
    refused(path, f"RescaleSlope is {text.decode().strip()}, not a number to scale by; correct or remove the tag")


def test_values_above_the_stored_bits_are_refused_not_folded_into_them(path):
    """pydicom clears these bits, so that 5000 in a file of 12 bits would be read as 904."""
    stored = STORED.copy()
    stored[0, 0] = 5000
    write_dicom(path, stored, **TWELVE)
    refused(path, r"values from 1000 to 5000, which 12 bits \(BitsStored\) do not hold; correct the tag")


def test_a_compressed_stream_deeper_than_its_header_is_refused(path):
    stored = np.tile(STORED, (16, 16))
    stored[0, 0] = 60000
    write_dicom(path, stored)
    dataset = pydicom.dcmread(path)
    dataset.compress(uid.JPEG2000Lossless, encoding_plugin="pylibjpeg")
    dataset.BitsStored, dataset.HighBit = 12, 11
    dataset.save_as(path)
    refused(path, "values from 0 to 60000, which 12 bits")


def test_values_in_the_upper_bits_are_refused(path):
    write_dicom(path, STORED << 4, BitsStored=12, HighBit=15)
    refused(path, "HighBit 15 with BitsStored 12.*correct HighBit to 11")


def test_an_overlay_in_the_upper_bits_is_no_part_of_the_film(path):
    """Older files keep an overlay in bit 12 to 15 of each pixel."""
    drawn = STORED.copy()
    drawn[::2] |= 1 << 12
    write_dicom(path, drawn, **TWELVE)
    dataset = pydicom.dcmread(path)
    dataset.add_new(0x60000102, "US", 12)
    dataset.save_as(path)
    np.testing.assert_allclose(read_image(path), PLAIN)


def test_signed_values_may_leave_the_sign_out_of_unused_bits(path):
    signed = STORED.astype(np.int32) - 2048
    for made in (signed.astype(np.int16), signed.astype(np.int16) & 0x0FFF):
        write_dicom(path, made.view(np.uint16), PixelRepresentation=1, **TWELVE)
        np.testing.assert_allclose(read_image(path), PLAIN, atol=1e-6)


def test_negative_padding_without_its_sign_in_unused_bits_is_black(path):
    """-2000 of 12 bits is stored as 2096; the tag says -2000."""
    signed = STORED.astype(np.int32) - 2048
    signed[0, 0] = -2000
    write_dicom(path, (signed & 0x0FFF).astype(np.uint16), PixelRepresentation=1, PixelPaddingValue=-2000, **TWELVE)
    found = read_image(path)
    assert found[0, 0] == 0
    np.testing.assert_allclose(found[1:], PLAIN[1:], atol=1e-6)


def test_padding_beyond_the_stored_bits_is_black(path):
    padded = STORED.copy()
    padded[0, 0] = 65535
    write_dicom(path, padded, PixelPaddingValue=65535, **TWELVE)
    found = read_image(path)
    assert found[0, 0] == 0
    np.testing.assert_allclose(found[1:], PLAIN[1:])


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
