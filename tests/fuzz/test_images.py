"""Damaged and hostile image files: each gives pixels in [0, 1], or is refused in one line.

Random damage leaves some files intact, which shows that harmless changes do no harm.
"""

import contextlib
import io
import os
import random
import shutil
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom import uid
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate

from mammo_lib.data import read_image
from mammo_lib.errors import InputError
from mammo_lib.files import safe_name
from mammo_lib.inference.inputs import find_breasts

from .counts import Counts, came_of, judge, state_of

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom")  # as the library has it

HEIGHT, WIDTH = 260, 220
PIXELS = np.random.default_rng(0).integers(0, 4096, (HEIGHT, WIDTH), dtype=np.uint16)
NAME = "P_00001_LEFT_CC"
TEXTS = (
    "", " ", "abc", "-1", "0", "1e400", "nan", "inf", "..", "../../evil", "/etc/passwd", "a\nb", "a\r\nb\tc", "\x1b[2J",
    "\x00", "<img src=x onerror=alert(1)>", "$\\frac{1}{0}$", "`rm -rf`", "\u202e", "\u4e73", "CON", "x" * 70_000,
    "a\\b", "P_00001_RIGHT_MLO", "{x}", "%s%n",
)  # fmt: skip


def film(**tags) -> Dataset:
    """Return a film as an archive sends it, with these tags instead of its own."""
    made = Dataset()
    made.preamble, made.file_meta = bytes(128), FileMetaDataset()
    made.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    made.file_meta.MediaStorageSOPClassUID = made.SOPClassUID = uid.DigitalMammographyXRayImageStorageForPresentation
    made.file_meta.MediaStorageSOPInstanceUID = made.SOPInstanceUID = "1.2.3.4"
    own = {
        "SpecificCharacterSet": "ISO_IR 192", "PatientID": "P_00001", "PatientName": "Doe^Jane", "Modality": "MG",
        "PatientBirthDate": "19500101", "StudyInstanceUID": "1.2.3", "StudyDate": "20200101", "ImageLaterality": "L",
        "ViewPosition": "CC", "SeriesDescription": "full mammogram images", "ImageType": ["ORIGINAL", "PRIMARY"],
        "Rows": HEIGHT, "Columns": WIDTH, "SamplesPerPixel": 1, "PhotometricInterpretation": "MONOCHROME2",
        "BitsAllocated": 16, "BitsStored": 12, "HighBit": 11, "PixelRepresentation": 0, "RescaleSlope": "1",
        "RescaleIntercept": "0", "WindowCenter": "2048", "WindowWidth": "4096", "PixelData": PIXELS.tobytes(),
    }  # fmt: skip
    for tag, value in (own | tags).items():
        setattr(made, tag, value)
    made["PixelData"].VR = "OW"
    return made


def as_bytes(dataset: Dataset) -> bytes:
    stream = io.BytesIO()
    pydicom.dcmwrite(stream, dataset)
    return stream.getvalue()


def picture(pixels: np.ndarray, form: str, **options) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, form, **options)
    return stream.getvalue()


def whole_files() -> dict[str, bytes]:
    """Return one undamaged file of each form, by its ending."""
    grey = (PIXELS >> 4).astype(np.uint8)
    compressed = film()
    compressed.compress(uid.RLELossless, encoding_plugin="pydicom", generate_instance_uid=False)
    deflated = film()
    deflated.file_meta.TransferSyntaxUID = uid.DeflatedExplicitVRLittleEndian
    return {
        ".dcm": as_bytes(film()), ".dicom": as_bytes(compressed), ".DCM": as_bytes(deflated),
        ".png": picture(16 * PIXELS, "PNG"), ".jpg": picture(grey, "JPEG"), ".pgm": picture(grey, "PPM"),
    }  # fmt: skip


def changed_bytes(draw: random.Random, content: bytes, start: int = 0, end: int | None = None) -> bytes:
    damaged = bytearray(content)
    for _ in range(draw.randint(1, 12)):
        damaged[draw.randrange(start, end or len(damaged))] = draw.randrange(256)
    return bytes(damaged)


def zeroed(draw: random.Random, content: bytes) -> bytes:
    place = draw.randrange(len(content))
    return content[:place] + bytes(min(512, len(content) - place)) + content[place + 512 :]


# Kinds of damage to the bytes of any file.
BYTES: dict[str, Callable[[random.Random, bytes], bytes]] = {
    "undamaged": lambda draw, content: content,
    "changed bytes": changed_bytes,
    "changed bytes in the header": lambda draw, content: changed_bytes(draw, content, end=min(1200, len(content))),
    "cut": lambda draw, content: content[: draw.randrange(len(content))],
    "cut in the header": lambda draw, content: content[: draw.randrange(min(1200, len(content)))],
    "start missing": lambda draw, content: content[draw.randint(1, 200) :],
    "zeros inside": zeroed,
    "bytes behind": lambda draw, content: content + draw.randbytes(draw.randint(1, 5000)),
    "twice in one file": lambda draw, content: content + content,
    "random bytes": lambda draw, content: draw.randbytes(draw.randint(1, 5000)),
    "random bytes after the start": lambda draw, content: content[:132] + draw.randbytes(3000),
    "empty": lambda draw, content: b"",
}


def remove_tag(draw, dataset):
    del dataset[draw.choice([element.tag for element in dataset])]


def empty_tag(draw, dataset):
    dataset[draw.choice([element.tag for element in dataset])].value = None


def strange_tag(draw, dataset):
    """Give a tag a text, and a type that holds texts."""
    kept = ("PixelData", "SpecificCharacterSet")  # without the second the text could not be written
    tag = draw.choice([element.tag for element in dataset if element.keyword not in kept])
    dataset[tag] = DataElement(tag, "LT", draw.choice(TEXTS))


def strange_number(draw, dataset):
    tag = draw.choice(("RescaleSlope", "RescaleIntercept", "WindowCenter", "WindowWidth"))
    dataset[tag].value = draw.choice(("0", "-1", "1e300", "-1e300", "1e-300", ["1", "2"], ["1"] * 9))
    dataset.VOILUTFunction = draw.choice(("LINEAR", "LINEAR_EXACT", "SIGMOID", "ODD", ""))


def strange_size(draw, dataset):
    tag = draw.choice(("Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "SamplesPerPixel",
                       "PixelRepresentation"))  # fmt: skip
    dataset[tag].value = draw.choice((0, 1, 2, 7, 8, 13, 32, 64, HEIGHT + 1, 65535))


def other_syntax(draw, dataset):
    """Say that the pixels are written as they are not."""
    known = [one for one in uid.AllTransferSyntaxes if one not in (uid.ImplicitVRLittleEndian,)]
    said = draw.choice((*known, uid.UID("1.2.840.10008.1.2.4.999"), uid.UID("1.2.3"), uid.UID("")))
    return as_bytes(dataset).replace(b"1.2.840.10008.1.2.1\0", said.encode().ljust(20, b"\0")[:20])


def encapsulated_garbage(draw, dataset):
    rle = struct.pack("<16I", draw.choice((1, 2, 15, 2**31)), *[draw.randrange(200) for _ in range(15)])
    start = draw.choice((b"", b"\xff\xd8\xff\xe0", b"\0\0\0\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51", rle))
    dataset.PixelData = encapsulate([start + draw.randbytes(draw.choice((2, 800)))])
    dataset["PixelData"].is_undefined_length = True
    dataset.file_meta.TransferSyntaxUID = draw.choice(
        (uid.RLELossless, uid.JPEGBaseline8Bit, uid.JPEGLosslessSV1, uid.JPEGLSLossless, uid.JPEG2000Lossless)
    )


def short_or_long_pixels(draw, dataset):
    length = draw.choice((0, 2, 1000, len(dataset.PixelData) - 2, len(dataset.PixelData) + 1000, 10**6))
    dataset.PixelData = (dataset.PixelData * 12)[:length]


def other_photometric(draw, dataset):
    said = (
        "MONOCHROME1",
        "RGB",
        "PALETTE COLOR",
        "YBR_FULL_422",
        "monochrome2 ",
        "XYZ",
        "",
        "M" * 64,
        "MONOCHROME2\\RGB",
    )
    dataset.PhotometricInterpretation = draw.choice(said)
    dataset.SamplesPerPixel = draw.choice((1, 1, 3))
    dataset.PlanarConfiguration = draw.choice((0, 1, 7))


def float_pixels(draw, dataset):
    tag, kind = draw.choice((("FloatPixelData", "<f4"), ("DoubleFloatPixelData", "<f8")))
    setattr(dataset, tag, np.full((HEIGHT, WIDTH), draw.choice((0.5, np.nan, np.inf)), kind).tobytes())
    if draw.random() < 0.5:
        del dataset.PixelData


def several_frames(draw, dataset):
    dataset.NumberOfFrames = draw.choice(("0", "1", "2", "1000000", "-1", "", "2.5"))


def strange_lut(draw, dataset):
    item = Dataset()
    item.LUTDescriptor = draw.choice(([4096, 0, 12], [0, 0, 16], [1, 0, 8], [4096, 65535, 0], [4096, 0, 999], [4096]))
    item["LUTDescriptor"].VR = "US"
    length = draw.choice((0, 2, 8191, 8192))
    item.add_new("LUTData", "OW", bytes(length))
    setattr(dataset, draw.choice(("ModalityLUTSequence", "VOILUTSequence")), [item] * draw.choice((1, 3)))


def functional_groups(draw, dataset):
    inner, outer = film(), Dataset()
    strange_tag(draw, inner)
    del inner.PixelData, inner.file_meta
    outer.FrameAnatomySequence = [inner, inner]
    outer.FrameVOILUTSequence = [inner]
    setattr(dataset, draw.choice(("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")), [outer] * 3)
    del dataset[draw.choice(("ImageLaterality", "ViewPosition", "WindowCenter", "RescaleSlope"))]


def nested(draw, dataset):
    item = Dataset()
    for _ in range(draw.choice((3, 100))):
        outer = Dataset()
        outer.ViewCodeSequence = [item]
        item = outer
    dataset.ViewCodeSequence = [item]


def strange_patient(draw, dataset):
    for tag in draw.sample(("PatientID", "PatientName", "StudyInstanceUID", "AccessionNumber", "SeriesDescription"), 2):
        texts = [text for text in TEXTS if text.isascii() or tag != "StudyInstanceUID"]  # which cannot hold others
        setattr(dataset, tag, draw.choice(texts))


def strange_letters(draw, dataset):
    dataset.SpecificCharacterSet = draw.choice(("ISO_IR 999", "", "ISO 2022 IR 87", ["ISO_IR 100", "x"], "GB18030"))
    dataset.PatientID = "\u00e4\u4e73"[: draw.choice((0, 1))]


def other_place(draw, dataset):
    dataset.ImageLaterality = draw.choice(("R", "B", "U", "", "LEFT", "L\\R"))
    dataset.ViewPosition = draw.choice(("MLO", "XCCL", "", "cc", "CC\\MLO", "x" * 99))


# Kinds of damage to what a DICOM file says; a mutation may return the bytes to write.
TAGS: dict[str, Callable] = {
    "tag removed": remove_tag,
    "tag emptied": empty_tag,
    "tag of a strange text": strange_tag,
    "scaling of strange numbers": strange_number,
    "sizes that the pixels have not": strange_size,
    "another transfer syntax": other_syntax,
    "compressed stream of random bytes": encapsulated_garbage,
    "pixels short or long": short_or_long_pixels,
    "colours": other_photometric,
    "floating-point pixels": float_pixels,
    "several frames": several_frames,
    "strange tables of grey values": strange_lut,
    "functional groups": functional_groups,
    "sequences in sequences": nested,
    "strange patient": strange_patient,
    "strange character set": strange_letters,
    "another side or view": other_place,
}


def other_type(draw: random.Random, content: bytes) -> bytes:
    """Give one element another value representation, or a length that the file has not."""
    starts = [i for i in range(132, 1200) if content[i + 4 : i + 6].isalpha() and content[i + 4 : i + 6].isupper()]
    place = draw.choice(starts)
    if draw.random() < 0.5:
        kind = draw.choice((b"US", b"FD", b"SQ", b"UN", b"DS", b"PN", b"AT", b"OB", b"UT", b"ZZ"))
        return content[: place + 4] + kind + content[place + 6 :]
    length = draw.choice((b"\xff\xff", b"\0\0", b"\xfe\xff", b"\x01\0"))
    return content[: place + 6] + length + content[place + 8 :]


def long_pixels(draw: random.Random, content: bytes) -> bytes:
    place = content.index(b"\xe0\x7f\x10\0OW\0\0") + 8
    length = draw.choice((0xFFFFFFFF, 0xFFFFFFFE, 0x7FFFFFFE, 0, 1))
    return content[:place] + struct.pack("<I", length) + content[place + 4 :]


def png_of_declared_size(draw: random.Random, _: bytes) -> bytes:
    """Declare many pixels and hold hardly any."""
    size = struct.pack(">II5B", draw.choice((0, 1, 50_000, 2**31 - 1)), draw.choice((1, 50_000)), 8, 0, 0, 0, 0)
    parts = [(b"IHDR", size), (b"IDAT", zlib.compress(bytes(1000))), (b"IEND", b"")]
    chunks = [struct.pack(">I", len(d)) + t + d + struct.pack(">I", zlib.crc32(t + d)) for t, d in parts]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def deflate_bomb(draw: random.Random, content: bytes) -> bytes:
    return content[:-2] + zlib.compressobj(9, zlib.DEFLATED, -15).compress(bytes(10**6)) * draw.choice((1, 30))


def another_picture(draw: random.Random, _: bytes) -> bytes:
    """Return a picture that is no grey one of 8 or 16 bits."""
    colours = np.random.default_rng(draw.randrange(9)).integers(0, 255, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    grey = (PIXELS >> 4).astype(np.uint8)
    made = draw.choice((
        lambda: picture(colours, "PNG"), lambda: picture(colours, "JPEG"), lambda: picture(grey, "GIF"),
        lambda: picture(grey, "TIFF"), lambda: picture(grey, "BMP"), lambda: picture(PIXELS.astype(np.float32), "TIFF"),
        lambda: picture(np.dstack([grey] * 4), "PNG"), lambda: picture(grey > 9, "PNG"),
        lambda: picture(grey, "PNG", save_all=True, append_images=[Image.fromarray(colours[..., 0])]),
    ))  # fmt: skip
    return made()


NO_PICTURES = (
    b"<html>404</html>", b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"#!/bin/sh\n", b"\x80\x05.", b"P5 -1 5 255\n",
    b"P2 2 2 255\n1 2 3", b"P5 9999999 9999999 255\n", b"P5 2 2 0\n1234", b"P5 2 2 99999999\n1234",
)  # fmt: skip


def no_picture(draw: random.Random, _: bytes) -> bytes:
    """Return another kind of file."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("../evil.txt", "x")
    arrays = [io.BytesIO(), io.BytesIO()]
    np.save(arrays[0], PIXELS)
    np.save(arrays[1], np.array([Path("evil")]), allow_pickle=True)
    return draw.choice((stream.getvalue(), *(array.getvalue() for array in arrays), *NO_PICTURES))


# Kinds for one form of file each.
OF_FORM = {
    "tag of another type or length": (".dcm", other_type),
    "pixels of another length": (".dcm", long_pixels),
    "much from little, deflated": (".DCM", deflate_bomb),
    "declared size": (".png", png_of_declared_size),
    "another picture": (".png", another_picture),
    "no picture under a picture's name": (".jpg", no_picture),
    "no image under a DICOM name": (".dcm", no_picture),
    "an array of numpy": (".npy", no_picture),
}


def socket_at(path: Path) -> None:
    import socket

    with contextlib.chdir(path.parent), socket.socket(socket.AF_UNIX) as one:
        one.bind(path.name)


IN_THE_WAY: dict[str, Callable[[Path], None]] = {
    "a folder": Path.mkdir,
    "a pipe": os.mkfifo,
    "a socket": socket_at,
    "a link to nothing": lambda path: path.symlink_to("nowhere"),
    "a link to itself": lambda path: path.symlink_to(path.name),
    "a device that never ends": lambda path: path.symlink_to("/dev/zero"),
    "nothing": lambda path: None,
}
STRANGE_NAMES = (
    "a\nb_LEFT_CC", "<img src=x onerror=alert(1)>_LEFT_CC", "...._LEFT_CC", "-rf_LEFT_CC", " _LEFT_CC", "x" * 240,
    "\u202e_LEFT_CC", "CON_LEFT_CC", "a_LEFT_CC_RIGHT_MLO", "_LEFT_CC", os.fsdecode(b"\xff\xfe_LEFT_CC"),
    "a\x1b[2J_LEFT_CC", "P_00001_RIGHT_CC", "$HOME_LEFT_CC", "a%2f..%2fb_LEFT_CC", "._P_00001_LEFT_CC",
    "P_00001_LEFT_XYZ",
)  # fmt: skip


@contextlib.contextmanager
def anything_can_be_written():
    """Let pydicom write values that it would refuse or warn of."""
    with pydicom.config.disable_value_validation(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def write_one(kind: str, folder: Path, draw: random.Random, whole: dict[str, bytes]) -> tuple[Path, str]:
    """Write one input of a kind; return its path and the ending of the whole file that it was made from."""
    form, path = ".dcm", folder / f"{NAME}.dcm"
    if kind in BYTES:
        form = draw.choice([*whole])
        content = BYTES[kind](draw, whole[form])
    elif kind in TAGS:
        dataset = film()
        content = TAGS[kind](draw, dataset) or as_bytes(dataset)
    elif kind in OF_FORM:
        form, damage = OF_FORM[kind]
        content = damage(draw, whole.get(form, b""))
    elif kind == "a strange name":
        form = draw.choice([*whole])
        content, path = whole[form], folder / draw.choice(STRANGE_NAMES)
    else:
        path = path.with_suffix(draw.choice([*whole]))
        IN_THE_WAY[kind](path)
        return path, form
    path = path.with_name(path.name.removesuffix(".dcm") + form)
    path.write_bytes(content)
    return path, form


KINDS = (*BYTES, *TAGS, *OF_FORM, "a strange name", *IN_THE_WAY)


def pixels_of(path: Path) -> np.ndarray:
    pixels = read_image(path)
    assert pixels.ndim == 2 and pixels.dtype == np.float32
    assert pixels.min() >= 0 and pixels.max() <= 1  # so none is NaN
    return pixels


def breasts_of(path: Path) -> list:
    """Return the breasts that ``mammo predict`` would find; the names of their predictions hold no folder."""
    refused: list[str] = []
    breasts = find_breasts([path], refused)
    assert all(line.isprintable() for line in refused)
    assert all(os.path.basename(safe_name(breast.name)) == safe_name(breast.name) for breast in breasts)
    if refused:
        raise InputError(refused[0])
    return [(breast.side, [*breast.images]) for breast in breasts]


def readings(path: Path, is_folder_given: bool, before: tuple) -> dict[str, tuple[str, str]]:
    """Return what comes of a file at each entry point; ``before`` holds the answers for the undamaged one."""
    given = path.parent if is_folder_given else path
    return {
        "read_image": came_of(lambda: pixels_of(path), lambda one: np.array_equal(one, before[0])),
        "find_breasts": came_of(lambda: breasts_of(given), lambda one: one == before[1]),
    }


def answers(home: Path, whole: dict[str, bytes]) -> dict[str, tuple]:
    """Return, by ending, what the entry points say of the undamaged files."""
    found = {}
    for form, content in whole.items():
        path = home / f"{NAME}{form}"
        path.write_bytes(content)
        found[form] = pixels_of(path), breasts_of(path)
        path.unlink()
    return found


def fuzz(home: Path, n: int, seed: int) -> Counts:
    """Give ``n`` files, as many of each kind, each of them to both entry points; return what came of them."""
    draw, counts, whole = random.Random(seed), Counts(), whole_files()
    folder, elsewhere = home / "given", home / "elsewhere"
    elsewhere.mkdir(parents=True)
    before = answers(home, whole)
    for number in range(n):
        kind = KINDS[number % len(KINDS)]
        folder.mkdir()
        with anything_can_be_written():
            path, form = write_one(kind, folder, draw, whole)
        state = state_of(home)
        with contextlib.chdir(elsewhere):
            found = readings(path, draw.random() < 0.5, before.get(form, (None, None)))
        has_changed = state_of(home) != state
        for entry, (came, why) in found.items():
            came = "writes outside" if has_changed else came
            came = "other answers" if kind == "undamaged" and came != "read as before" else came
            counts.add(entry, kind, came, f"input {number} of seed {seed}: {why}")
        shutil.rmtree(folder)
    return counts


def test_damaged_images_are_read_or_refused(tmp_path, record_property):
    counts = fuzz(tmp_path, 3 * len(KINDS), seed=0)
    judge(counts, record_property)
    assert counts.table["inputs"].sum() == 6 * len(KINDS)
    assert (counts.table[["read as before", "refused in one line"]].sum() > len(KINDS)).all()


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_many_damaged_images_are_read_or_refused(tmp_path, record_property, seed):
    judge(fuzz(tmp_path, 10 * len(KINDS), seed), record_property)
