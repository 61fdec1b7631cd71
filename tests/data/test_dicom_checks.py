"""Checks of DICOM files: bad sizes, tags, damage and decompression bombs are refused in one line before any harm."""

import io
import os
import struct
import zlib

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom import uid
from pydicom.encaps import encapsulate

from mammo_lib.data import dicom, dicom_checks
from mammo_lib.data.images import read_image
from mammo_lib.errors import InputError

from .test_dicom import TWELVE, item, refused
from .test_images import STORED, compress, write_dicom


@pytest.fixture
def path(tmp_path):
    return tmp_path / "a.dcm"


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


def test_values_in_the_upper_bits_are_refused(path):
    write_dicom(path, STORED << 4, BitsStored=12, HighBit=15)
    refused(path, "HighBit 15 with BitsStored 12.*correct HighBit to 11")


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


@pytest.mark.parametrize("read", [read_image, lambda path: dicom.read_header(path, ["PatientID"])])
def test_a_deflate_bomb_is_refused_before_it_fills_the_memory(path, monkeypatch, read):
    write_dicom(path, np.zeros((2000, 2000), np.uint16))
    compress(path, path, "DeflatedExplicitVRLittleEndian")
    read(path)
    monkeypatch.setattr(dicom_checks, "MAX_BYTES", 4_000_000)  # it holds 8
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
