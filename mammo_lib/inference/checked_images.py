"""Pixels of a file that a user gave, if they can be those of a mammogram."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..data.folders import is_dicom
from ..data.header_tags import FOR_PROCESSING, standard_tags
from ..data.images import read_image
from ..errors import InputError
from ..runs.executor import CRASHED, WorkerDied, in_child

MIN_SIDE = {"whole": 200, "crop": 16}  # pixels; the smallest of CBIS-DDSM: 1,743 and about 60
# Height over width in square pixels. Films of CBIS-DDSM: 1.18 to 3.03. Crops are any shape but a line.
ASPECT = {"whole": (1.05, 3.5), "crop": (0.1, 10.0)}
DARKEST = 1 / 4  # values of 14 bits among those of 16; real films and crops reach .7
# Distinct grey levels: 4 bits have 16. CBIS-DDSM at 800 px, 8 bits, has 149 or more in each of 1,592 films, and 20 or
# more in each of 1,696 boxes of lesions; 2,880 windows of 16 to 60 px, placed at random in the breast, had 4 or more.
TOO_FEW_LEVELS = {"whole": 16, "crop": 3}
PADDED_ASPECT = (0.9, 3.5)  # where the user says how tall pixels are, a square may be one that was padded


def read_checked(path: Path, stream: str, aspect: float | None = None) -> np.ndarray:
    """Return the pixels of a plausible mammogram, float32 (height, width) in [0, 1].

    ``aspect`` is the height of a pixel over its width, None if unknown.

    Raises
    ------
    InputError
        Another modality than MG, raw detector values, several frames, colour, too small, another shape, empty, or with
        too few grey levels.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such image; give a DICOM, PNG, JPEG or PGM file")
    if is_dicom(path):
        _check_tags(path)
        # The decoders of compressed DICOM are foreign code that can end the process: another one runs them.
        try:
            pixels = in_child(read_image, path)
        except WorkerDied:
            raise InputError(f"{path}: {CRASHED}") from None
    else:
        pixels = read_image(path)
    height, width = pixels.shape
    if min(height, width) < MIN_SIDE[stream]:
        raise InputError(
            f"{path}: {width} x {height} pixels, a {stream} image has {MIN_SIDE[stream]} a side or more; "
            "give the original"
        )
    _check_shape(path, stream, height / width, aspect)
    if pixels.max() - pixels.min() < 1e-6:
        raise InputError(f"{path}: empty, every pixel is {pixels.max():.3g}; give an image of a breast")
    if pixels.max() <= DARKEST:
        raise InputError(
            f"{path}: its brightest pixel is at {pixels.max():.1%} of the range, a dark film: the pixels have fewer "
            "bits than the file says; correct BitsStored, add a window, or scale them"
        )
    levels = np.count_nonzero(np.bincount(np.round(pixels * 65535).astype(np.uint16).ravel()))
    if levels <= TOO_FEW_LEVELS[stream]:
        raise InputError(
            f"{path}: only {levels} grey levels, where a {stream} image has more than {TOO_FEW_LEVELS[stream]}; this "
            "is a mask, a drawing or a picture of few bits a pixel; give the original"
        )
    return pixels


def _check_shape(path: Path, stream: str, ratio: float, aspect: float | None) -> None:
    low, high = PADDED_ASPECT if aspect and stream == "whole" else ASPECT[stream]
    shape = ratio * (aspect or 1.0)
    if low <= shape <= high:
        return
    remedy = (
        "turn it upright, or give the height of a pixel over its width with --aspect (1: padded to a square)"
        if stream == "whole"
        else "give the lesion's surroundings as one image"
    )
    raise InputError(f"{path}: {shape:.2f} times as tall as wide, a {stream} image lies in {low} to {high}; {remedy}")


def _check_tags(path: Path) -> None:
    tags = standard_tags(path)
    if tags["modality"] not in ("", "MG"):
        raise InputError(f"{path}: Modality {tags['modality']}, not MG: not a mammogram; give a mammogram")
    if tags["intent"] == FOR_PROCESSING:
        raise InputError(f"{path}: FOR PROCESSING, raw detector values; give the image FOR PRESENTATION")
    if tags["frames"] > 1:
        raise InputError(f"{path}: {tags['frames']} frames, a tomosynthesis or a film strip; give a single 2-D view")
    if tags["samples"] > 1:
        raise InputError(f"{path}: {tags['samples']} colour channels; a mammogram is grey: give the original")
