"""Pixels: decode a file, find the breast, face it left, cut, fit into a size. Arrays are float32 (height, width)."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pydicom
from PIL import Image, UnidentifiedImageError
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.pixels import apply_modality_lut, apply_voi_lut
from scipy import ndimage
from skimage.filters import threshold_otsu
from skimage.measure import label as connected_components

from ..errors import InputError

MASK_WIDTH = (
    200  # the breast is found on a copy this wide: ten times faster, the outline no worse than a pixel of the input
)
DECODING_ERRORS = (
    OSError, UnidentifiedImageError, InvalidDicomError, BytesLengthException, struct.error,
    ValueError, TypeError, RuntimeError, AttributeError, KeyError,
)  # fmt: skip
MAGIC = {b"\xff\xd8\xff": "a JPEG file", b"\x89PNG": "a PNG file", b"PK": "a ZIP archive", b"<": "a web page"}
# What a DICOM file means that lacks a tag; None: all bits that are allocated.
ABSENT_TAGS = {
    "BitsStored": None,
    "PixelRepresentation": 0,
    "SamplesPerPixel": 1,
    "PhotometricInterpretation": "MONOCHROME2",
}
EDGE_SHARE = 0.03  # rows at the top and at the bottom that belong to the film's edge


def read_image(path: str | Path) -> np.ndarray:
    """Decode DICOM, PNG, JPEG or PGM to float32 (height, width) in [0, 1].

    DICOM: rescale or modality LUT, then VOI LUT or window where the file has one, scaled from the range that these make
    possible, MONOCHROME1 inverted. No flip. Tags that are absent mean unsigned, all bits stored, MONOCHROME2.

    Raises
    ------
    InputError
        The file is missing, truncated, of an unknown format, or not a single grey image.
    """
    path = Path(path)
    try:
        pixels = _read_dicom(path) if path.suffix.lower() in (".dcm", ".dicom", "") else _read_raster(path)
    except FileNotFoundError:
        raise InputError(f"{path}: no such image; complete the data folder") from None
    except DECODING_ERRORS as error:
        raise InputError(
            f"{path}: cannot be decoded ({why_unreadable(path, error)}); download the file again"
        ) from None
    if pixels.ndim != 2 or not pixels.size:
        raise InputError(f"{path}: expected one grey image, got an array of shape {pixels.shape}")
    return pixels


def breast_mask(image: np.ndarray) -> np.ndarray:
    """Return where the breast is, bool (height, width): the largest bright region of a blurred copy, holes filled.

    Labels and markers are other regions; film edges lie in the outermost rows, which are left out, or are thin ones
    that the opening removes.
    """
    step = max(1, image.shape[1] // MASK_WIDTH)
    small = ndimage.gaussian_filter(image[::step, ::step], 2)
    if small.max() == small.min():
        return np.ones(image.shape, bool)
    # The square root brings fat and skin nearer to dense tissue than to the background.
    root = np.sqrt(np.clip(small, 0, np.quantile(small, 0.98)))
    bright = root > 0.6 * threshold_otsu(root)
    edge = max(1, round(EDGE_SHARE * len(bright)))
    bright[:edge] = bright[-edge:] = False
    regions = connected_components(ndimage.binary_opening(bright, iterations=4))
    if not regions.any():
        return np.ones(image.shape, bool)
    breast = ndimage.binary_fill_holes(regions == 1 + np.argmax(np.bincount(regions.ravel())[1:]))
    large = np.repeat(np.repeat(breast, step, axis=0), step, axis=1)[: image.shape[0], : image.shape[1]]
    return np.pad(large, [(0, n - m) for n, m in zip(image.shape, large.shape, strict=True)], mode="edge")


def faces_right(mask: np.ndarray) -> bool:
    """Whether the chest wall is on the right: more of the breast lies in the right half of the image."""
    half = mask.shape[1] // 2
    return int(mask[:, -half:].sum()) > int(mask[:, :half].sum())


def cut(image: np.ndarray, box: tuple[float, float, float, float]) -> np.ndarray:
    """Return the pixels inside (x0, y0, x1, y1), clipped to the image; at least one pixel."""
    height, width = image.shape
    x0, y0 = (int(np.clip(np.floor(v), 0, n - 1)) for v, n in ((box[0], width), (box[1], height)))
    x1, y1 = (int(np.clip(np.ceil(v), lo + 1, n)) for v, lo, n in ((box[2], x0, width), (box[3], y0, height)))
    return image[y0:y1, x0:x1]


def resize(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resample bilinearly, with antialiasing where it shrinks."""
    resized = Image.fromarray(np.ascontiguousarray(image, dtype=np.float32)).resize(
        (width, height), Image.Resampling.BILINEAR
    )
    return np.asarray(resized)


def unstretch(image: np.ndarray, aspect: float) -> np.ndarray:
    """Give an image whose pixels are ``aspect`` times as tall as wide square pixels, by adding rows (or columns)."""
    height, width = image.shape
    if aspect >= 1:
        return resize(image, max(1, round(height * aspect)), width)
    return resize(image, height, max(1, round(width / aspect)))


def fit_into(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Scale an image to fit into (height, width), its shape kept, and pad with zeros at the right and the bottom."""
    scale = fit_scale(image.shape, size)
    height, width = (max(1, round(n * scale)) for n in image.shape)
    padded = np.zeros(size, np.float32)
    padded[:height, :width] = resize(image, height, width)
    return padded


def fit_scale(shape: tuple[float, float], size: tuple[int, int]) -> float:
    """Return the factor by which :func:`fit_into` scales an image of this (height, width)."""
    return min(room / n for room, n in zip(size, shape, strict=True))


def _read_dicom(path: Path) -> np.ndarray:
    dataset = pydicom.dcmread(path)
    for tag, default in ABSENT_TAGS.items():
        if dataset.get(tag) is None:
            setattr(dataset, tag, dataset.BitsAllocated if default is None else default)
    stored = dataset.pixel_array
    low, high = _stored_range(dataset)
    pixels = apply_modality_lut(stored, dataset)
    if "ModalityLUTSequence" in dataset:
        low, high = _lut_range(dataset.ModalityLUTSequence[0])
    else:
        slope, intercept = float(dataset.get("RescaleSlope", 1)), float(dataset.get("RescaleIntercept", 0))
        low, high = sorted((low * slope + intercept, high * slope + intercept))
    if "VOILUTSequence" in dataset:
        low, high = _lut_range(dataset.VOILUTSequence[0])
    if "VOILUTSequence" in dataset or ("WindowCenter" in dataset and "WindowWidth" in dataset):
        pixels = apply_voi_lut(pixels, dataset)
    pixels = pixels.astype(np.float32)
    if low:
        pixels -= np.float32(low)
    pixels /= np.float32(high - low)
    if not _fills_its_type(dataset):
        np.clip(pixels, 0, 1, out=pixels)
    return 1 - pixels if dataset.PhotometricInterpretation == "MONOCHROME1" else pixels


def _stored_range(dataset) -> tuple[float, float]:
    bits = int(dataset.BitsStored)
    return (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if dataset.PixelRepresentation else (0, 2**bits - 1)


def _fills_its_type(dataset) -> bool:
    """Whether no stored value can lie outside the range: all bits are used, and nothing changes them."""
    changes = ("ModalityLUTSequence", "VOILUTSequence", "WindowCenter", "RescaleSlope")
    return dataset.BitsStored == dataset.BitsAllocated and not any(name in dataset for name in changes)


def _lut_range(lut) -> tuple[float, float]:
    return 0, 2 ** int(lut.LUTDescriptor[2]) - 1


def _read_raster(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        is_wide = image.mode.startswith("I")
        pixels = np.asarray(image if is_wide else image.convert("L"), dtype=np.float32)
    return pixels / (65535 if is_wide else 255)


def why_unreadable(path: Path, error: Exception) -> str:
    """Say what a file is that is not what its name says, else what the decoder said."""
    with open(path, "rb") as stream:
        start = stream.read(8)
    if not start:
        return "an empty file"
    known = next((kind for magic, kind in MAGIC.items() if start.startswith(magic)), None)
    return f"{known} under a DICOM name" if known and isinstance(error, InvalidDicomError) else first_line(error)


def first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0].strip()
