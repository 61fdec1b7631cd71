"""Images that a user gives for a prediction: which breast, view and stream each one is, and whether it can be one.

What a file is comes from its DICOM tags and from its name, ``<patient>_<LEFT|RIGHT>_<CC|MLO>[_crop].<ext>``. Where
both say something they must agree. A file that says nothing is refused: nothing is guessed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..data.dicom import SIDES, VIEW_CODES, read_header
from ..data.folders import find_images, is_dicom
from ..data.images import read_image
from ..data.views import VIEWS, is_binary
from ..errors import InputError

NAME = re.compile(r"(?P<patient>.+?)_(?P<side>LEFT|RIGHT|L|R)_(?P<view>CC|MLO)(?P<crop>_crop|_\d+)?$", re.IGNORECASE)
TAGS = (
    "PatientID", "ImageLaterality", "Laterality", "ViewPosition", "ViewCodeSequence", "PatientOrientation", "Modality",
    "SeriesDescription", "SamplesPerPixel", "NumberOfFrames", "PresentationIntentType",
)  # fmt: skip
MASK, CROP = "ROI mask images", "cropped images"  # SeriesDescription in CBIS-DDSM

MIN_SIDE = {"whole": 200, "crop": 16}  # pixels; the smallest of CBIS-DDSM: 1,743 and about 60
# Height over width in square pixels. Films of CBIS-DDSM: 1.18 to 3.03. Crops are any shape but a line.
ASPECT = {"whole": (1.05, 3.5), "crop": (0.1, 10.0)}
PADDED_ASPECT = (0.9, 3.5)  # where the user says how tall pixels are, a square may be one that was padded


@dataclass(frozen=True)
class GivenImage:
    """A file and what it is: ``view`` CC or MLO, ``stream`` whole or crop; ``side`` is empty where nothing says it."""

    path: Path
    patient: str
    side: str
    view: str
    stream: str


@dataclass(frozen=True)
class GivenBreast:
    """The images of one breast by (stream, view); ``side`` is LEFT, RIGHT or empty."""

    name: str
    side: str
    images: Mapping[tuple[str, str], Path]


def find_breasts(paths: Sequence[Path], refused: list[str]) -> list[GivenBreast]:
    """Return the breasts that files and folders hold, ordered by name; masks of CBIS-DDSM are passed over.

    A file that does not say which view of which breast it is, or contradicts itself, and a breast with two files for
    one view are left out, with the reason appended to ``refused``.

    Raises
    ------
    InputError
        A path is missing or holds no image.
    """
    held: dict[tuple[str, str], dict] = {}
    doubled: set[tuple[str, str]] = set()
    for path in _image_files(paths):
        try:
            image = _identified(path)
        except InputError as error:
            refused.append(str(error))
            continue
        if image is None:
            continue
        breast, key = (image.patient, image.side), (image.stream, image.view)
        images = held.setdefault(breast, {})
        if key in images:
            doubled.add(breast)
            refused.append(f"{path}: a second {' '.join(key)} of {'_'.join(breast)}, beside {images[key]}; keep one")
        images[key] = path
    if not held and not refused:
        raise InputError(f"{paths[0]}: only lesion masks here, no mammogram; give whole films or crops")
    return [
        GivenBreast("_".join(breast), breast[1], images)
        for breast, images in sorted(held.items())
        if breast not in doubled
    ]


def name_breast(images: Mapping[tuple[str, str], Path]) -> GivenBreast:
    """Return the breast whose images the user has named one by one.

    Raises
    ------
    InputError
        A file says that it is another view, or the files say that they are of several breasts.
    """
    known = {key: identify(path, *key) for key, path in images.items()}
    for (stream, view), image in known.items():
        if image is None:
            raise InputError(f"{images[stream, view]}: a lesion mask, not a mammogram; give the {stream} image")
        if image.view and image.view != view:
            raise InputError(f"{image.path}: given as {view}, but tags or name say {image.view}; mend what is wrong")
    for what in ("side", "patient"):
        said = {getattr(image, what) for image in known.values()} - {""}
        if len(said) > 1:
            raise InputError(
                f"{', '.join(map(str, images.values()))}: of several breasts ({what}: {', '.join(sorted(said))}); "
                "give the images of one breast"
            )
    first = next(iter(known.values()))
    side = next((image.side for image in known.values() if image.side), "")
    return GivenBreast(f"{first.patient or first.path.stem}_{side}".strip("_"), side, dict(images))


def identify(path: Path, stream: str = "", view: str = "") -> GivenImage | None:
    """Return what a file says that it is; None for a lesion mask of CBIS-DDSM.

    Raises
    ------
    InputError
        Tags and name contradict each other, or the header cannot be read.
    """
    tags = _read_tags(path) if is_dicom(path) else {}
    # CBIS-DDSM labels some crops as masks: the pixels decide.
    if tags.get("description") == MASK and is_binary(path):
        return None
    named = next((m.groupdict() for text in (path.stem, tags.get("patient", "")) if (m := NAME.search(text))), {})
    side = (named.get("side") or "").upper()
    said = {"side": SIDES.get(side, side), "view": (named.get("view") or "").upper()}
    for what, value in said.items():
        if value and tags.get(what) and value != tags[what]:
            raise InputError(f"{path}: {value} by its name, {tags[what]} by its tags; mend the one that is wrong")
        said[what] = value or tags.get(what, "")
    is_crop = bool(named.get("crop")) or tags.get("description") in (CROP, MASK)
    patient = named.get("patient") or tags.get("patient", "")
    return GivenImage(path, patient, said["side"], said["view"], stream or ("crop" if is_crop else "whole"))


def _identified(path: Path) -> GivenImage | None:
    """Return what a file says that it is, which must be enough to place it; None for a mask."""
    image = identify(path)
    if image is not None and not (image.side and image.view):
        raise InputError(
            f"{path}: neither tags nor name say which breast and view this is; call it "
            f"<patient>_<LEFT|RIGHT>_<CC|MLO>[_crop]{path.suffix}, or use --cc, --mlo, --crop-cc, --crop-mlo"
        )
    return image


def read_checked(path: Path, stream: str, aspect: float | None = None) -> np.ndarray:
    """Return the pixels of a file that can be a mammogram, float32 (height, width) in [0, 1].

    ``aspect`` is the height of a pixel over its width, None where nobody has said it.

    Raises
    ------
    InputError
        Another modality than MG, raw detector values, several frames, colour, too small, another shape, or empty.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such image; give a DICOM, PNG, JPEG or PGM file")
    if is_dicom(path):
        _check_tags(path)
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
    return pixels


def _check_shape(path: Path, stream: str, ratio: float, aspect: float | None) -> None:
    low, high = PADDED_ASPECT if aspect and stream == "whole" else ASPECT[stream]
    shape = ratio * (aspect or 1.0)
    if low <= shape <= high:
        return
    way_out = (
        "turn it upright, or say with --aspect how tall its pixels are for their width (1: padded to a square)"
        if stream == "whole"
        else "give the lesion's surroundings as one image"
    )
    raise InputError(f"{path}: {shape:.2f} times as tall as wide, a {stream} image lies in {low} to {high}; {way_out}")


def _check_tags(path: Path) -> None:
    tags = _read_tags(path)
    if tags["modality"] not in ("", "MG"):
        raise InputError(f"{path}: Modality {tags['modality']}, not MG: not a mammogram; give a mammogram")
    if tags["intent"] == "FOR PROCESSING":
        raise InputError(f"{path}: FOR PROCESSING, raw detector values; give the image FOR PRESENTATION")
    if tags["frames"] > 1:
        raise InputError(f"{path}: {tags['frames']} frames, a tomosynthesis or a film strip; give a single 2-D view")
    if tags["samples"] > 1:
        raise InputError(f"{path}: {tags['samples']} colour channels; a mammogram is grey: give the original")


def _read_tags(path: Path) -> dict:
    header = read_header(path, TAGS)
    codes = [str(code.get("CodeValue", "")) for code in header.get("ViewCodeSequence", ())]
    said = [str(header.get("ViewPosition", "")), *(VIEW_CODES.get(code, "") for code in codes)]
    views = [*said, str(header.get("PatientOrientation", ""))]
    return {
        "patient": str(header.get("PatientID", "")),
        "side": SIDES.get(str(header.get("ImageLaterality", header.get("Laterality", ""))), ""),
        "view": next((one for one in views if one in VIEWS), ""),
        "description": str(header.get("SeriesDescription", "")),
        "modality": str(header.get("Modality", "")),
        "intent": str(header.get("PresentationIntentType", "")),
        "frames": int(header.get("NumberOfFrames", 1)),
        "samples": int(header.get("SamplesPerPixel", 1)),
    }


def _image_files(paths: Iterable[Path]) -> list[Path]:
    found = []
    for path in map(Path, paths):
        if path.is_dir():
            images = find_images(path, "DICOM", "picture")
            if not images:
                raise InputError(f"{path}: no image here; a folder of *.dcm, *.png, *.jpg or *.pgm files is expected")
            found += images
        elif path.is_file():
            found.append(path)
        else:
            raise InputError(f"{path}: no such file or folder; give images or a folder of them")
    return found
