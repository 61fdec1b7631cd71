"""Laws of reading DICOM, for any header: pixels follow the standard's equations; damage is harmless or refused."""

import numpy as np
import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import uid
from scipy.special import expit

from mammo_lib.data.images import image_shape, read_image
from mammo_lib.errors import InputError

from ..data.test_images import write_dicom

PLAIN = ("ExplicitVRLittleEndian", "ImplicitVRLittleEndian", "DeflatedExplicitVRLittleEndian", "RLELossless")
NUMBERS = st.integers(-400, 400).map(lambda n: n / 8)  # exact as a decimal string of DICOM


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("films")


@st.composite
def films(draw, syntaxes=PLAIN):
    """Draw stored values with any number of bits and the tags that say what they mean."""
    syntax, allocated, signed = draw(st.sampled_from(syntaxes)), draw(st.sampled_from((8, 16))), draw(st.booleans())
    # pydicom's encoder leaves out the upper byte that has no stored bit.
    bits = draw(st.integers(9 if syntax == "RLELossless" and allocated == 16 else 1, allocated))
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    rows, columns = draw(st.integers(1, 5)), draw(st.integers(1, 5))
    values = draw(st.lists(st.integers(low, high), min_size=rows * columns, max_size=rows * columns))
    stored = np.array(values, f"{'i' if signed else 'u'}{allocated // 8}").reshape(rows, columns)
    tags = {"BitsStored": bits, "HighBit": bits - 1, "PixelRepresentation": int(signed),
            "PhotometricInterpretation": draw(st.sampled_from(("MONOCHROME1", "MONOCHROME2")))}  # fmt: skip
    slope = NUMBERS.filter(bool)
    tags |= draw(st.fixed_dictionaries({}, optional={"RescaleSlope": slope, "RescaleIntercept": NUMBERS}))
    if draw(st.booleans()):
        tags |= {"WindowCenter": draw(NUMBERS), "WindowWidth": draw(st.integers(2, 500))}
        tags |= {"VOILUTFunction": draw(st.sampled_from(("LINEAR", "LINEAR_EXACT", "SIGMOID")))}
    return stored, tags, syntax


def write(path, stored, tags, syntax):
    write_dicom(path, stored, SOPInstanceUID="1.2.3", **tags)  # of a fixed length, as hypothesis repeats examples
    dataset = pydicom.dcmread(path)
    if syntax == "RLELossless":
        dataset.compress(uid.RLELossless, encoding_plugin="pydicom", generate_instance_uid=False)
    dataset.file_meta.TransferSyntaxUID = getattr(uid, syntax)
    dataset.save_as(path, implicit_vr=syntax.startswith("Implicit"), little_endian=True)


def by_the_standard(stored, tags):
    """Return the pixels by PS3.3 C.11.1.1 (rescale) and C.11.2.1 (window), then from their possible range to [0, 1]."""
    bits, signed = tags["BitsStored"], tags["PixelRepresentation"]
    low, high = (-(2.0 ** (bits - 1)), 2.0 ** (bits - 1) - 1) if signed else (0.0, 2.0**bits - 1)
    slope, intercept = tags.get("RescaleSlope", 1), tags.get("RescaleIntercept", 0)
    x = stored.astype(float) * slope + intercept
    low, high = sorted((low * slope + intercept, high * slope + intercept))
    if "WindowCenter" in tags:
        center, width = tags["WindowCenter"], tags["WindowWidth"]
        shown = {
            "LINEAR": lambda: np.clip((x - (center - 0.5)) / (width - 1) + 0.5, 0, 1),
            "LINEAR_EXACT": lambda: np.clip((x - center) / width + 0.5, 0, 1),
            "SIGMOID": lambda: expit(4 * (x - center) / width),
        }[tags["VOILUTFunction"]]()
    else:
        shown = (x - low) / (high - low)
    return 1 - shown if tags["PhotometricInterpretation"] == "MONOCHROME1" else shown


@given(film=films())
def test_pixels_are_the_standards(folder, film):
    stored, tags, syntax = film
    write(folder / "a.dcm", stored, tags, syntax)
    pixels = read_image(folder / "a.dcm")
    assert (pixels.dtype, pixels.shape) == (np.float32, stored.shape) == (np.float32, image_shape(folder / "a.dcm"))
    np.testing.assert_allclose(pixels, by_the_standard(stored, tags), atol=2e-5)


@given(film=films(), data=st.data())
def test_padding_is_black_and_changes_no_other_pixel(folder, film, data):
    stored, tags, syntax = film
    ends = sorted(data.draw(st.lists(st.sampled_from(stored.ravel().tolist()), min_size=1, max_size=2)))
    padding = dict(zip(("PixelPaddingValue", "PixelPaddingRangeLimit"), ends, strict=False))
    write(folder / "plain.dcm", stored, tags, syntax)
    write_padded(folder / "padded.dcm", folder / "plain.dcm", padding, tags["PixelRepresentation"])
    pixels, is_padding = read_image(folder / "padded.dcm"), (stored >= ends[0]) & (stored <= ends[-1])
    assert (pixels[is_padding] == 0).all()
    np.testing.assert_array_equal(pixels[~is_padding], read_image(folder / "plain.dcm")[~is_padding])


def write_padded(path, source, padding, signed):
    dataset = pydicom.dcmread(source)
    for name, value in padding.items():
        dataset.add_new(name, "SS" if signed else "US", value)
    dataset.save_as(path)


@given(film=films(), share=st.floats(0, 1))
def test_a_file_cut_anywhere_is_refused_in_one_line_or_read_as_it_was(folder, film, share):
    path = folder / "cut.dcm"
    write(path, *film)
    whole, content = read_image(path), path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    try:
        pixels = read_image(path)
    except InputError as error:
        assert str(error).startswith(f"{path}: ") and "\n" not in str(error)
    else:
        np.testing.assert_array_equal(pixels, whole)


@given(film=films(), data=st.data())
def test_a_damaged_byte_gives_one_line_or_pixels_in_range(folder, film, data):
    path = folder / "damaged.dcm"
    write(path, *film)
    content = bytearray(path.read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    try:
        pixels = read_image(path)
    except InputError as error:
        assert str(error).startswith(f"{path}: ") and "\n" not in str(error)
    else:
        assert pixels.dtype == np.float32 and pixels.ndim == 2
        assert pixels.min() >= 0 and pixels.max() <= 1
