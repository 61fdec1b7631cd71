"""Grey levels: windows, tables, padding and unused bits of stored values, whatever their depth and sign."""

import numpy as np
import pydicom
import pytest
from pydicom import uid

from mammo_lib.data.images import read_image

from .test_dicom import PLAIN, TWELVE, inverse_lut, refused
from .test_images import STORED, write_dicom


@pytest.fixture
def path(tmp_path):
    return tmp_path / "a.dcm"


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
