"""Checks of a DICOM file before its pixels are decoded; anything but a single grey film is refused.

Sizes are checked first, so that no file, inflated file or image exceeds memory. Then come the header's statements about
the pixels, and then the agreement of a compressed stream with the header. An empty tag counts as absent.
"""

from __future__ import annotations

import struct
import zlib
from itertools import pairwise
from pathlib import Path

from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.encaps import generate_frames
from pydicom.filereader import _read_file_meta_info, read_preamble
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    JPEG2000TransferSyntaxes,
    JPEGLSTransferSyntaxes,
    JPEGTransferSyntaxes,
    RLELossless,
)

from ..errors import InputError

MAX_PIXELS = 100_000_000  # twice the largest films: 24 x 30 cm at 43 um
MAX_BYTES = 4 * MAX_PIXELS  # of a file, and of the content of a deflated file
CHUNK = 1 << 20


def has(dataset: Dataset, tag: str) -> bool:
    """Whether a tag is in a data set and not empty."""
    return tag in dataset and not is_empty(dataset[tag])


def is_empty(element: DataElement) -> bool:
    """Whether an element is empty: no value, only spaces, or a sequence without items."""
    value = element.value
    if isinstance(value, str):
        return not value.strip()
    return element.is_empty or (element.VR == "SQ" and not len(value))


def check_file_size(path: Path) -> None:
    """Refuse a file larger than any image, before it is read."""
    if path.stat().st_size > MAX_BYTES:
        raise InputError(f"{path}: {path.stat().st_size:,} bytes, an image has {MAX_BYTES:,} at most; leave it out")


def check_inflated(path: Path) -> None:
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


def check_declared(path: Path, dataset: Dataset) -> None:
    """Refuse anything that the header does not declare as a single grey image of integers, within the size limit."""
    for tag in ("FloatPixelData", "DoubleFloatPixelData"):
        if tag in dataset:
            raise InputError(f"{path}: {tag}, pixels that are not integers; give the image as stored by the device")
    for tag in ("PixelData", "Rows", "Columns", "BitsAllocated"):
        if not has(dataset, tag):
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
    if has(dataset, "HighBit") and int(dataset.HighBit) != int(dataset.BitsStored) - 1:
        raise InputError(
            f"{path}: HighBit {dataset.HighBit} with BitsStored {dataset.BitsStored}: values are read from the lowest "
            f"bits only; store them there, or correct HighBit to {int(dataset.BitsStored) - 1}"
        )


def check_size(path: Path, width: int, height: int) -> None:
    """Refuse an image that declares no pixels, or more pixels than any film."""
    if not 0 < width * height <= MAX_PIXELS:
        raise InputError(f"{path}: declares {width} x {height} pixels, a film has 1 to {MAX_PIXELS:,}; leave it out")


def check_stream(path: Path, dataset: Dataset, syntax) -> None:
    """Compare a compressed stream's own size and number of channels with the header's, before it is decoded."""
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
    """Check that each segment decodes to one plane; otherwise the decoder panics, with a page on stderr."""
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
