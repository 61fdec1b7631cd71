"""Reading DICOM files: empty tags count as absent, sizes are checked before decoding, and any failure is one line.

Files are read with pydicom only here. ``refusing`` turns any exception of a reader or decoder into an
:class:`InputError`; ``read_header`` returns tags, ``read_film`` pixels in [0, 1].
"""

from __future__ import annotations

import math
import os
import stat
import struct
import warnings
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import Dataset
from pydicom.encaps import generate_frames
from pydicom.errors import InvalidDicomError
from pydicom.filereader import _read_file_meta_info, read_preamble
from pydicom.pixels import apply_modality_lut, apply_voi, apply_windowing, get_decoder
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    JPEG2000TransferSyntaxes,
    JPEGLSTransferSyntaxes,
    JPEGTransferSyntaxes,
    RLELossless,
)

from ..errors import InputError

SIDES = {"L": "LEFT", "R": "RIGHT"}
# ViewCodeSequence in SNOMED-RT and in SNOMED CT; ViewPosition says CC or MLO outright.
VIEW_CODES = {"R-10242": "CC", "399162004": "CC", "R-10226": "MLO", "399368009": "MLO"}
MAX_PIXELS = 100_000_000  # the largest films have half of that: 24 x 30 cm at 43 um
MAX_BYTES = 4 * MAX_PIXELS  # of a file, and of what a deflated one holds
CHUNK = 1 << 20
EXACT = 2**24  # up to here float32 tells one integer from the next
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
NUMBERS = ("RescaleSlope", "RescaleIntercept", "WindowCenter", "WindowWidth")
COUNTS = ("Rows", "Columns", "NumberOfFrames", "SamplesPerPixel")
FUNCTIONS = ("LINEAR", "LINEAR_EXACT", "SIGMOID")  # of VOILUTFunction
LUTS = ("ModalityLUTSequence", "VOILUTSequence")
# What a DICOM file means that lacks a tag; None: all bits that are allocated.
DEFAULTS = {
    "BitsStored": None,
    "PixelRepresentation": 0,
    "SamplesPerPixel": 1,
    "PhotometricInterpretation": "MONOCHROME2",
}
OVERLAY_BIT = 0x0102  # element of the groups 0x6000 to 0x60FF: the bit of a pixel that holds an overlay
PADDING = ("PixelPaddingValue", "PixelPaddingRangeLimit")
PLACE = ("ImageLaterality", "Laterality", "FrameLaterality", "ViewPosition", "ViewCodeSequence", "PatientOrientation")
GROUPS = ("PerFrameFunctionalGroupsSequence", "SharedFunctionalGroupsSequence")
IN_GROUPS = {*NUMBERS, *LUTS, "VOILUTFunction", *PADDING, *PLACE}

# pydicom's warnings would be printed beside our one-line error.
warnings.filterwarnings("ignore", module="pydicom")


@contextmanager
def refusing(path: Path, what: str = "cannot be decoded", remedy: str = AGAIN) -> Iterator[None]:
    """Raise an :class:`InputError` for anything that the block raises; decoders in Rust do not raise ``Exception``.

    A path that is not a regular file is refused before it is opened, because reading a pipe would block.
    """
    try:
        mode = os.stat(path).st_mode
        if not stat.S_ISREG(mode):
            kind = "a folder" if stat.S_ISDIR(mode) else "a pipe, a socket or a device"
            raise InputError(f"{path}: {kind}, not an image file; leave it out")
        yield
    except (InputError, KeyboardInterrupt, GeneratorExit):
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
        _check_inflated(path)
        header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=wanted)
        _lift_groups(header)
        _drop_empty(header, tags)
        for tag in tags:  # a value of another kind is found here, not where it is used
            value = header.get(tag)
            if tag in COUNTS and value is not None:
                int(value)
            if tag.endswith("Sequence"):
                [item.get("CodeValue") for item in value or ()]
        return header


def read_film(path: Path) -> np.ndarray:
    """Return the pixels of a DICOM file as float32 (height, width) in [0, 1], MONOCHROME1 inverted, padding black.

    The rescale or modality LUT is applied, then the VOI LUT or window if the file has one. The result is scaled from
    the possible range of values. If one of slope and intercept is missing, it is 1 or 0.

    Raises
    ------
    InputError
        The file is not a single grey image of integers, declares more pixels than a film has, or cannot be decoded.
    """
    with refusing(path):
        if path.stat().st_size > MAX_BYTES:
            raise InputError(f"{path}: {path.stat().st_size:,} bytes, an image has {MAX_BYTES:,} at most; leave it out")
        _check_inflated(path)
        dataset = pydicom.dcmread(path)
        for tag, default in DEFAULTS.items():
            if not _has(dataset, tag):
                setattr(dataset, tag, dataset.BitsAllocated if default is None else default)
        _lift_groups(dataset)
        _drop_empty(dataset, IN_GROUPS)
        _check_declared(path, dataset)
        _complete_numbers(path, dataset)
        return _to_unit_range(path, dataset, _decode(path, dataset))


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
    """Copy what an enhanced file says in its functional groups to where a classic one says it."""
    for group in GROUPS:
        for item in list(dataset.get(group) or ())[:1]:
            for inner in (one for element in item if element.VR == "SQ" for one in list(element.value)[:1]):
                for element in inner:
                    name = {"FrameLaterality": "ImageLaterality"}.get(element.keyword, element.keyword)
                    if element.keyword in IN_GROUPS and not _has(dataset, name) and not _is_empty(element):
                        setattr(dataset, name, element.value)


def _drop_empty(dataset: Dataset, tags: Iterable[str]) -> None:
    for tag in tags:
        if tag in LUTS and tag in dataset:  # items without a table say nothing either
            dataset[tag].value = [
                i for i in dataset[tag].value or () if _has(i, "LUTDescriptor") and _has(i, "LUTData")
            ]
        if not _has(dataset, tag):
            _drop(dataset, tag)


def _drop(dataset: Dataset, *tags: str) -> None:
    for tag in tags:
        dataset.pop(tag, None)


def _has(dataset: Dataset, tag: str) -> bool:
    return tag in dataset and not _is_empty(dataset[tag])


def _is_empty(element) -> bool:
    value = element.value
    if isinstance(value, str):
        return not value.strip()
    return element.is_empty or (element.VR == "SQ" and not len(value))


def _check_inflated(path: Path) -> None:
    """Refuse a deflated file that would not fit into memory; pydicom inflates all at once, for a header too."""
    with open(path, "rb") as stream:
        read_preamble(stream, force=False)
        if _read_file_meta_info(stream).get("TransferSyntaxUID") != DeflatedExplicitVRLittleEndian:
            return
        inflate, size = zlib.decompressobj(-zlib.MAX_WBITS), 0
        while not inflate.eof and (packed := inflate.unconsumed_tail or stream.read(CHUNK)):
            size += len(inflate.decompress(packed, CHUNK))
            if size > MAX_BYTES:
                raise InputError(
                    f"{path}: inflates to more than {MAX_BYTES:,} bytes, the limit for an image; leave it out"
                )


def _check_declared(path: Path, dataset: Dataset) -> None:
    """Refuse what is no single grey image of integers, or too large, by what the header says."""
    for tag in ("FloatPixelData", "DoubleFloatPixelData"):
        if tag in dataset:
            raise InputError(f"{path}: {tag}, pixels that are not integers; give the image as stored by the device")
    for tag in ("PixelData", "Rows", "Columns", "BitsAllocated"):
        if not _has(dataset, tag):
            raise InputError(f"{path}: cannot be decoded (no {tag}: not an image); download the file again")
    kind = str(dataset.PhotometricInterpretation).strip().upper()
    if dataset.SamplesPerPixel != 1:
        raise InputError(f"{path}: {dataset.SamplesPerPixel} colour channels ({kind}), expected one grey image")
    if kind not in ("MONOCHROME1", "MONOCHROME2"):
        raise InputError(f"{path}: PhotometricInterpretation {kind}, expected one grey image (MONOCHROME1 or 2)")
    dataset.PhotometricInterpretation = kind
    frames = int(dataset.get("NumberOfFrames") or 1)
    if frames > 1:
        raise InputError(f"{path}: {frames} frames, expected one grey image; give a single 2-D view")
    check_size(path, int(dataset.Columns), int(dataset.Rows))
    if not 1 <= int(dataset.BitsStored) <= int(dataset.BitsAllocated):
        raise InputError(
            f"{path}: BitsStored must lie in 1 to BitsAllocated ({dataset.BitsAllocated}), got {dataset.BitsStored}; "
            "correct the tag"
        )
    if _has(dataset, "HighBit") and int(dataset.HighBit) != int(dataset.BitsStored) - 1:
        raise InputError(
            f"{path}: HighBit {dataset.HighBit} with BitsStored {dataset.BitsStored}: values are read from the lowest "
            f"bits only; store them there, or correct HighBit to {int(dataset.BitsStored) - 1}"
        )


def check_size(path: Path, width: int, height: int) -> None:
    """Refuse an image that declares no pixels, or more pixels than any film."""
    if not 0 < width * height <= MAX_PIXELS:
        raise InputError(f"{path}: declares {width} x {height} pixels, a film has 1 to {MAX_PIXELS:,}; leave it out")


def _complete_numbers(path: Path, dataset: Dataset) -> None:
    """Keep the first number of each tag, give half a rescale its other half, and refuse what is no number."""
    for tag in NUMBERS:
        if tag in dataset:
            said = dataset[tag].value
            values = [said] if isinstance(said, (str, float, int)) else list(said)
            first = next(one for one in values if str(one).strip())
            try:
                value = float(first)
            except ValueError:
                value = math.nan
            is_scale = value != 0 if tag == "RescaleSlope" else value > 0 if tag == "WindowWidth" else True
            if not math.isfinite(value) or not is_scale:
                raise InputError(f"{path}: {tag} is {first}, not a number to scale by; correct or remove the tag")
            dataset[tag].value = value
    if "RescaleSlope" in dataset or "RescaleIntercept" in dataset:
        dataset.RescaleSlope = dataset.get("RescaleSlope", 1)
        dataset.RescaleIntercept = dataset.get("RescaleIntercept", 0)
    if "WindowCenter" not in dataset or "WindowWidth" not in dataset:
        _drop(dataset, "WindowCenter", "WindowWidth")
    function = str(dataset.get("VOILUTFunction", "LINEAR")).strip().upper()
    if function not in FUNCTIONS:
        raise InputError(f"{path}: VOILUTFunction {function}, expected one of {', '.join(FUNCTIONS)}; correct the tag")
    for tag in PADDING:
        if tag in dataset and not isinstance(dataset[tag].value, int):
            raise InputError(f"{path}: {tag} is {dataset[tag].value}, expected one whole number; correct or remove it")


def _decode(path: Path, dataset: Dataset) -> np.ndarray:
    """Return stored values with their unused bits. Never with GDCM, which aborts where stream and header disagree."""
    syntax = dataset.file_meta.TransferSyntaxUID
    if syntax.is_encapsulated:
        _check_stream(path, dataset, syntax)
    plugin = "pylibjpeg" if syntax.is_encapsulated else ""
    stored = get_decoder(syntax).as_array(dataset, decoding_plugin=plugin, correct_unused_bits=False)[0]
    if stored.ndim != 2:  # more pixels than are declared become frames
        raise InputError(
            f"{path}: contains {len(stored)} frames of the {dataset.Columns} x {dataset.Rows} pixels that it declares; "
            "correct Rows and Columns, or give a single 2-D view"
        )
    return stored


def _check_stream(path: Path, dataset: Dataset, syntax) -> None:
    """Hold a compressed stream's own size and number of channels against the header's, before it is decoded."""
    frame = next(generate_frames(dataset.PixelData, number_of_frames=1))
    if syntax == RLELossless:
        return _check_rle(frame, dataset)
    if syntax in JPEG2000TransferSyntaxes:
        from openjpeg.utils import get_parameters
    elif syntax in (*JPEGTransferSyntaxes, *JPEGLSTransferSyntaxes):
        from libjpeg.utils import get_parameters
    else:
        return
    said = get_parameters(frame)
    found = (said["rows"], said["columns"], said.get("samples_per_pixel", said.get("nr_components")))
    if found != (dataset.Rows, dataset.Columns, 1):
        raise InputError(
            f"{path}: cannot be decoded (the stream holds {found[1]} x {found[0]} pixels in {found[2]} channels, the "
            f"header says {dataset.Columns} x {dataset.Rows} in one); download the file again"
        )


def _check_rle(frame: bytes, dataset: Dataset) -> None:
    """Count what each segment decodes to; the decoder panics, with a page on stderr, where that is not one plane."""
    n_segments, *starts = struct.unpack("<16I", frame[:64])
    n_planes, size = int(dataset.BitsAllocated) // 8, int(dataset.Rows) * int(dataset.Columns)
    if n_segments != n_planes:
        raise ValueError(f"{n_segments} segments, expected {n_planes}")
    for start, end in pairwise([*starts[:n_segments], len(frame)]):
        segment, length, at = frame[start:end], 0, 0
        while at < len(segment):
            code = segment[at]  # below 128: so many bytes and one follow; above: one byte, repeated
            length += code + 1 if code < 128 else (257 - code) * (code > 128)
            at += code + 2 if code < 128 else 1 + (code > 128)
        if length - (at - len(segment)) != size:
            raise ValueError(f"a segment of {length} bytes for {size} pixels")


def _to_unit_range(path: Path, dataset: Dataset, stored: np.ndarray) -> np.ndarray:
    low, high = _stored_range(dataset)
    padding = _is_padding(dataset, stored)
    stored = _clear_unused_bits(path, dataset, stored, padding)
    if padding is not None:  # a negative value may be stored without its sign in the unused bits
        padding |= _is_padding(dataset, stored)
    with np.errstate(all="ignore"):
        if "ModalityLUTSequence" in dataset:
            _drop(dataset, "RescaleSlope", "RescaleIntercept")  # the table stands for both
            low, high = _lut_range(dataset.ModalityLUTSequence[0])
            pixels = _look_up(dataset, dataset.ModalityLUTSequence[0], stored)
        else:
            pixels = apply_modality_lut(stored, dataset)
        slope, intercept = float(dataset.get("RescaleSlope", 1)), float(dataset.get("RescaleIntercept", 0))
        low, high = sorted((low * slope + intercept, high * slope + intercept))
        if "VOILUTSequence" in dataset:
            low, high = _lut_range(dataset.VOILUTSequence[0])
            pixels = _look_up(dataset, dataset.VOILUTSequence[0], pixels)
        elif "WindowCenter" in dataset:
            pixels = apply_windowing(pixels, dataset)
            if slope < 0:  # pydicom then spreads the window over the range from its end to its start
                pixels = low + high - pixels
        if abs(low) > EXACT:
            pixels, low, high = pixels - low, 0, high - low
        pixels = pixels.astype(np.float32)
        if low:
            pixels -= np.float32(low)
        pixels /= np.float32(high - low)
    if not _fills_its_type(dataset):
        if not np.isfinite(pixels).all():
            raise InputError(
                f"{path}: its rescale, window or table gives values that are not numbers; correct the tags"
            )
        np.clip(pixels, 0, 1, out=pixels)
    if dataset.PhotometricInterpretation == "MONOCHROME1":
        pixels = 1 - pixels
    if padding is not None:
        pixels[padding] = 0
    return pixels


def _stored_range(dataset: Dataset) -> tuple[float, float]:
    bits = int(dataset.BitsStored)
    return (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if dataset.PixelRepresentation else (0, 2**bits - 1)


def _clear_unused_bits(path: Path, dataset: Dataset, stored: np.ndarray, padding: np.ndarray | None) -> np.ndarray:
    """Return values without the bits above BitsStored, which hold the sign, an overlay of old files, or nothing.

    Anything else in them contradicts BitsStored: without these bits, bright pixels would become dark ones.
    """
    bits, spare = int(dataset.BitsStored), 8 * stored.itemsize - int(dataset.BitsStored)
    if spare <= 0:
        return stored
    shown = stored if padding is None else stored[~padding]
    lowest, highest = (int(shown.min()), int(shown.max())) if shown.size else (0, 0)
    if not ((_stored_range(dataset)[0] <= lowest and highest < 2**bits) or _has_overlay(dataset, bits)):
        raise InputError(
            f"{path}: values from {lowest} to {highest}, which {bits} bits (BitsStored) do not hold; correct the tag"
        )
    return stored << spare >> spare


def _has_overlay(dataset: Dataset, bits: int) -> bool:
    """Whether an overlay is stored in the bits of the pixels that lie above the first ``bits``."""
    tags = dataset.keys()
    places = [tag for tag in tags if tag.group >> 8 == 0x60 and tag.elem == OVERLAY_BIT]
    return any(int(dataset[tag].value or 0) >= bits for tag in places)


def _is_padding(dataset: Dataset, stored: np.ndarray) -> np.ndarray | None:
    """Return which stored values are PixelPaddingValue, or lie between it and PixelPaddingRangeLimit; None: no tag."""
    if "PixelPaddingValue" not in dataset:
        return None
    ends = [int(dataset[tag].value) for tag in PADDING if tag in dataset]
    if dataset.PixelRepresentation:  # -2000 may stand there as 63536
        half = 2 ** (int(dataset.BitsAllocated) - 1)
        ends = [(end + half) % (2 * half) - half for end in ends]
    else:
        ends = [end % 2 ** int(dataset.BitsAllocated) for end in ends]
    return (stored >= min(ends)) & (stored <= max(ends))


def _fills_its_type(dataset: Dataset) -> bool:
    """Whether no stored value can lie outside the range: all bits are used, and nothing changes them."""
    changes = (*LUTS, "WindowCenter", "RescaleSlope")
    return dataset.BitsStored == dataset.BitsAllocated and not any(name in dataset for name in changes)


def _look_up(dataset: Dataset, lut: Dataset, values: np.ndarray) -> np.ndarray:
    """Return what a table of either sort says for values, brought into it first: pydicom overflows outside."""
    n_entries, first = int(lut.LUTDescriptor[0]) or 2**16, int(lut.LUTDescriptor[1])
    alone = Dataset()
    alone.file_meta, alone.VOILUTSequence = dataset.file_meta, [lut]
    return apply_voi(np.clip(np.rint(values), first, first + n_entries - 1).astype(np.int64), alone)


def _lut_range(lut: Dataset) -> tuple[float, float]:
    return 0, 2 ** int(lut.LUTDescriptor[2]) - 1
