"""From the values that a DICOM file stores to grey levels in [0, 1]: rescale, windows, tables, padding, unused bits.

The order is the standard's: the modality table or the rescale, then the table or the window for display. The result is
scaled from the possible range of values, MONOCHROME1 is inverted, and padding is black.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset
from pydicom.pixels import apply_modality_lut, apply_voi, apply_windowing

from ..errors import InputError

NUMBERS = ("RescaleSlope", "RescaleIntercept", "WindowCenter", "WindowWidth")
LUTS = ("ModalityLUTSequence", "VOILUTSequence")
PADDING = ("PixelPaddingValue", "PixelPaddingRangeLimit")
FUNCTIONS = ("LINEAR", "LINEAR_EXACT", "SIGMOID")  # of VOILUTFunction
OVERLAY_BIT = 0x0102  # element of the groups 0x6000 to 0x60FF: the bit of a pixel that holds an overlay
EXACT = 2**24  # up to here float32 represents every integer


def complete_numbers(path: Path, dataset: Dataset) -> None:
    """Keep the first number of each tag, complete a rescale that has only one half, and refuse non-numbers."""
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


def to_unit_range(path: Path, dataset: Dataset, stored: np.ndarray) -> np.ndarray:
    """Return stored values as float32 in [0, 1]: table or rescale, then table or window, over their possible range."""
    low, high = _stored_range(dataset)
    padding = _is_padding(dataset, stored)
    stored = _clear_unused_bits(path, dataset, stored, padding)
    if padding is not None:  # a negative value may be stored without its sign in the unused bits
        padding |= _is_padding(dataset, stored)
    with np.errstate(all="ignore"):
        if "ModalityLUTSequence" in dataset:
            _drop(dataset, "RescaleSlope", "RescaleIntercept")  # the table replaces both
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
            if slope < 0:  # pydicom would then spread the window over the reversed range
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


def _drop(dataset: Dataset, *tags: str) -> None:
    for tag in tags:
        dataset.pop(tag, None)


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
    if dataset.PixelRepresentation:  # -2000 may be stored as 63536
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
    """Look values up in a table of either sort, clipped to its range first: pydicom overflows outside it."""
    n_entries, first = int(lut.LUTDescriptor[0]) or 2**16, int(lut.LUTDescriptor[1])
    alone = Dataset()
    alone.file_meta, alone.VOILUTSequence = dataset.file_meta, [lut]
    return apply_voi(np.clip(np.rint(values), first, first + n_entries - 1).astype(np.int64), alone)


def _lut_range(lut: Dataset) -> tuple[float, float]:
    return 0, 2 ** int(lut.LUTDescriptor[2]) - 1
