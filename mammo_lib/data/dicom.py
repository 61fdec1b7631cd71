"""Reading DICOM files: tags (empty ones count as absent) or pixels in [0, 1]. Every failure is a one-line error.

Files are decoded with pydicom only here. ``refusing`` turns any exception of a reader or decoder into an
:class:`InputError`; ``read_header`` returns tags, ``read_film`` pixels. What a file declares is checked first
(:mod:`mammo_lib.data.dicom_checks`); what its values mean is in :mod:`mammo_lib.data.grey_levels`.
"""

from __future__ import annotations

import os
import stat
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.pixels import get_decoder

from ..errors import InputError
from .dicom_checks import check_declared, check_file_size, check_inflated, check_stream, has, is_empty
from .grey_levels import LUTS, NUMBERS, PADDING, complete_numbers, to_unit_range

# First bytes of files that are not DICOM: what they are, and what to do with them.
AGAIN, CONVERT, UNPACK = "download the file again", "convert it to PNG without reducing its bits", "unpack it first"
MAGIC = {
    b"\xff\xd8\xff": ("a JPEG file", AGAIN), b"\x89PNG": ("a PNG file", AGAIN), b"<": ("a web page", AGAIN),
    b"II*\0": ("a TIFF file", CONVERT), b"MM\0*": ("a TIFF file", CONVERT), b"BM": ("a BMP file", CONVERT),
    b"GIF8": ("a GIF file", CONVERT), b"RIFF": ("a WebP file", CONVERT), b"\x93NUMPY": ("a NumPy array", CONVERT),
    b"\0\0\0\x0cjP": ("a JPEG 2000 file outside DICOM", CONVERT), b"\x5c\x01\0\0": ("a NIfTI file", CONVERT),
    b"%PDF": ("a PDF file", "give the image itself"), b"PK": ("a ZIP archive", UNPACK),
    b"\x1f\x8b": ("a gzip archive", UNPACK), b"7z\xbc": ("a 7-Zip archive", UNPACK), b"Rar!": ("a RAR archive", UNPACK),
}  # fmt: skip
READABLE = ("a JPEG file", "a PNG file")  # by their content, whatever their name
COUNTS = ("Rows", "Columns", "NumberOfFrames", "SamplesPerPixel")
# Values that apply to a DICOM file without the tag; None: all allocated bits.
DEFAULTS = {
    "BitsStored": None,
    "PixelRepresentation": 0,
    "SamplesPerPixel": 1,
    "PhotometricInterpretation": "MONOCHROME2",
}
PLACE = ("ImageLaterality", "Laterality", "FrameLaterality", "ViewPosition", "ViewCodeSequence", "PatientOrientation")
GROUPS = ("PerFrameFunctionalGroupsSequence", "SharedFunctionalGroupsSequence")
IN_GROUPS = {*NUMBERS, *LUTS, "VOILUTFunction", *PADDING, *PLACE}

# pydicom's warnings would be printed beside our one-line error.
warnings.filterwarnings("ignore", module="pydicom")


@contextmanager
def refusing(path: Path, what: str = "cannot be decoded", remedy: str = AGAIN) -> Iterator[None]:
    """Raise an :class:`InputError` for anything that the block raises, even what is not an ``Exception`` (from Rust).

    A path that is not a regular file is refused before it is opened, because reading a pipe would block.
    """
    try:
        mode = os.stat(path).st_mode
        if not stat.S_ISREG(mode):
            kind = "a folder" if stat.S_ISDIR(mode) else "a pipe, a socket or a device"
            raise InputError(f"{path}: {kind}, not an image file; leave it out")
        yield
    except (InputError, KeyboardInterrupt, GeneratorExit, SystemExit):
        raise
    except FileNotFoundError:
        raise InputError(f"{path}: no such image; complete the data folder") from None
    except BaseException as error:
        reason, own_remedy = why_unreadable(path, error)
        raise InputError(f"{path}: {what} ({reason}); {own_remedy or remedy}") from None


def read_header(path: Path, tags: Sequence[str]) -> Dataset:
    """Return these tags of a file, without empty ones; functional groups of a single frame are included.

    Raises
    ------
    InputError
        The file is missing or not a DICOM file, or its header cannot be read.
    """
    with refusing(path, "the header cannot be read"):
        wanted = [*tags, *GROUPS] if set(tags) & IN_GROUPS else list(tags)
        check_inflated(path)
        header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=wanted)
        _lift_groups(header)
        _drop_empty(header, tags)
        for tag in tags:  # a malformed value raises here, not later where it is used
            value = header.get(tag)
            if tag in COUNTS and value is not None:
                int(value)
            if tag.endswith("Sequence"):
                [item.get("CodeValue") for item in value or ()]
        return header


def read_film(path: Path) -> np.ndarray:
    """Return the pixels of a DICOM file as float32 (height, width) in [0, 1], MONOCHROME1 inverted, padding black.

    The rescale or modality LUT is applied, then the VOI LUT or window if the file has one. The result is scaled from
    the possible range of values. A missing slope is 1, a missing intercept 0.

    Raises
    ------
    InputError
        The file is not a single grey image of integers, declares more pixels than a film has, or cannot be decoded.
    """
    with refusing(path):
        check_file_size(path)
        check_inflated(path)
        dataset = pydicom.dcmread(path)
        for tag, default in DEFAULTS.items():
            if not has(dataset, tag):
                setattr(dataset, tag, dataset.BitsAllocated if default is None else default)
        _lift_groups(dataset)
        _drop_empty(dataset, IN_GROUPS)
        check_declared(path, dataset)
        complete_numbers(path, dataset)
        return to_unit_range(path, dataset, _decode(path, dataset))


def why_unreadable(path: Path, error: BaseException) -> tuple[str, str]:
    """Return what a file is instead of an image, else the decoder's message, in one line; and the remedy, if known."""
    try:
        with open(path, "rb") as stream:
            start = stream.read(8)
    except OSError as refused:
        return refused.strerror or "cannot be opened", ""
    if not start:
        return "an empty file", ""
    kind, remedy = next((known for magic, known in MAGIC.items() if start.startswith(magic)), ("", ""))
    is_named_dicom = Path(path).suffix.lower() in (".dcm", ".dicom")
    if kind and (is_named_dicom or kind not in READABLE):
        return kind + (" under a DICOM name" if is_named_dicom else ""), remedy
    if isinstance(error, InvalidDicomError):
        return "neither DICOM nor PNG, JPEG or PGM", "" if is_named_dicom else "give a file in one of these formats"
    said = " ".join(str(error).split()) or type(error).__name__
    return "".join(c if c.isprintable() else "?" for c in said)[:200], ""


def _lift_groups(dataset: Dataset) -> None:
    """Copy tags from the functional groups of an enhanced file to where a classic file has them."""
    for group in GROUPS:
        for item in list(dataset.get(group) or ())[:1]:
            for inner in (one for element in item if element.VR == "SQ" for one in list(element.value)[:1]):
                for element in inner:
                    name = {"FrameLaterality": "ImageLaterality"}.get(element.keyword, element.keyword)
                    if element.keyword in IN_GROUPS and not has(dataset, name) and not is_empty(element):
                        setattr(dataset, name, element.value)


def _drop_empty(dataset: Dataset, tags: Iterable[str]) -> None:
    for tag in tags:
        if tag in LUTS and tag in dataset:  # items without a table count as empty too
            dataset[tag].value = [i for i in dataset[tag].value or () if has(i, "LUTDescriptor") and has(i, "LUTData")]
        if not has(dataset, tag):
            dataset.pop(tag, None)


def _decode(path: Path, dataset: Dataset) -> np.ndarray:
    """Return stored values with their unused bits. GDCM is never used: it aborts if stream and header disagree."""
    syntax = dataset.file_meta.TransferSyntaxUID
    if syntax.is_encapsulated:
        check_stream(path, dataset, syntax)
    plugin = "pylibjpeg" if syntax.is_encapsulated else ""
    stored = get_decoder(syntax).as_array(dataset, decoding_plugin=plugin, correct_unused_bits=False)[0]
    if stored.ndim != 2:  # more pixels than are declared become frames
        raise InputError(
            f"{path}: contains {len(stored)} frames of the {dataset.Columns} x {dataset.Rows} pixels that it declares; "
            "correct Rows and Columns, or give a single 2-D view"
        )
    return stored
