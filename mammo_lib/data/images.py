"""Pixels: decode a file, segment the breast, orient it, crop and resize. Arrays are float32 (height, width)."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageOps
from scipy import ndimage
from skimage.filters import threshold_otsu
from skimage.measure import label as connected_components

from ..errors import InputError
from .dicom import read_film, read_header, refusing
from .dicom_checks import check_size
from .folders import is_dicom

MASK_WIDTH = 200  # the breast is found on a copy this wide: ten times faster, as exact as a pixel of the input
FORMATS = ("PNG", "JPEG", "PPM")
MAX_OF_14_BITS = 2**14 - 1  # what detectors write at most
TURNED = (5, 6, 7, 8)  # orientations of EXIF that exchange width and height
GREY_TOLERANCE = 4 / 255  # between colour channels: JPEG rounds
EDGE_SHARE = 0.03  # rows at the top and at the bottom that belong to the film's edge

warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)  # check_size refuses in our words


def read_image(path: str | Path) -> np.ndarray:
    """Decode DICOM, PNG, JPEG or PGM to float32 (height, width) in [0, 1].

    The format is recognised by content, not by name. Images are not flipped, but turned as EXIF says.

    Raises
    ------
    InputError
        The file is missing, truncated, of an unknown format, declares too many pixels, or is not a single grey image.
    """
    path = Path(path)
    with refusing(path):
        return read_film(path) if is_dicom(path) else _read_picture(path)


def image_shape(path: str | Path) -> tuple[int, int]:
    """Return the height and width of an image from its header; no pixel is decoded.

    Raises
    ------
    InputError
        The file is missing, of an unknown format, or does not say its size.
    """
    path = Path(path)
    with refusing(path, "its size cannot be read"):
        if is_dicom(path):
            header = read_header(path, ("Rows", "Columns"))
            return int(header["Rows"].value), int(header["Columns"].value)
        with Image.open(path, formats=FORMATS) as image:
            size = image.height, image.width
            return size[::-1] if image.getexif().get(ExifTags.Base.Orientation, 1) in TURNED else size


def breast_mask(image: np.ndarray) -> np.ndarray:
    """Return a mask of the breast, bool (height, width): the largest bright region of a blurred copy, holes filled.

    Labels and markers are separate regions. Film edges lie in the outermost rows, which are left out, or are thin
    regions that the opening removes.
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
    """Resample bilinearly, with antialiasing when the image is reduced."""
    resized = Image.fromarray(np.ascontiguousarray(image, dtype=np.float32)).resize(
        (width, height), Image.Resampling.BILINEAR
    )
    return np.asarray(resized)


def unstretch(image: np.ndarray, aspect: float) -> np.ndarray:
    """Resample an image with pixels ``aspect`` times as tall as wide to square pixels, adding rows or columns."""
    height, width = image.shape
    if aspect >= 1:
        return resize(image, max(1, round(height * aspect)), width)
    return resize(image, height, max(1, round(width / aspect)))


def fit_into(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Scale an image to fit into (height, width), keep its aspect ratio, and pad with zeros at the right and bottom."""
    scale = fit_scale(image.shape, size)
    height, width = (max(1, round(n * scale)) for n in image.shape)
    padded = np.zeros(size, np.float32)
    padded[:height, :width] = resize(image, height, width)
    return padded


def fit_scale(shape: tuple[float, float], size: tuple[int, int]) -> float:
    """Return the factor by which :func:`fit_into` scales an image of this (height, width)."""
    return min(room / n for room, n in zip(size, shape, strict=True))


def _read_picture(path: Path) -> np.ndarray:
    with Image.open(path, formats=FORMATS) as image:
        check_size(path, *image.size)
        if image.mode == "F":
            raise InputError(f"{path}: floating-point pixels of unknown range; save it with 8 or 16 bits")
        is_wide = image.mode.startswith("I")
        if not (is_wide or image.mode in ("L", "1")):
            _check_is_grey(path, image)
        upright = ImageOps.exif_transpose(image)
        pixels = np.asarray(upright if is_wide else upright.convert("L"), dtype=np.float32)
    if is_wide and 0 < pixels.max() <= MAX_OF_14_BITS:
        raise InputError(
            f"{path}: the brightest of its 16-bit pixels is {pixels.max():.0f}, as if they were values of 14 bits or "
            "fewer: a dark film; scale them to 0 to 65535"
        )
    return pixels / (65535 if is_wide else 255)


def _check_is_grey(path: Path, image: Image.Image) -> None:
    """Refuse pictures whose colour channels differ; JPEG files of grey films may hold three equal ones."""
    colours = np.asarray(image.convert("RGB").resize((256, 256)), dtype=np.float32) / 255
    if (colours.max(axis=-1) - colours.min(axis=-1)).mean() > GREY_TOLERANCE:
        raise InputError(f"{path}: a colour picture; a mammogram is grey: give the original")
