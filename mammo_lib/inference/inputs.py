"""The breasts that a user gave: files joined by patient or examination, with the box of a lesion.

Images are joined into one breast only if they share a patient or an examination and no tag contradicts this.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path

from ..data.cbis_ddsm.mirror import Mirror800
from ..data.folders import find_images
from ..data.header_tags import EXAMINATION, PATIENT_TAGS, letters_of
from ..data.views import CROP_MARGIN, Box
from ..errors import InputError, printable
from ..files import read_json, safe_name
from .identify import GivenImage, identify, identify_surely


@dataclass(frozen=True)
class GivenBreast:
    """The images of one breast by (stream, view); ``side`` is LEFT, RIGHT or empty.

    ``boxes`` has, by view, the lesion's box in pixels of the whole film, from which a crop is cut if none is given.
    ``aspects`` has the height of the film's pixels over their width if it is known not to be 1.
    """

    name: str
    side: str
    images: Mapping[tuple[str, str], Path]
    boxes: Mapping[str, Box] = field(default_factory=dict)
    aspects: Mapping[str, float] = field(default_factory=dict)

    @property
    def streams(self) -> set[tuple[str, str]]:
        """The (stream, view) that are given, as files or by the box in a film."""
        cut = {("crop", view) for view in self.boxes if ("whole", view) in self.images}
        return {*self.images, *cut}


def find_breasts(paths: Sequence[Path], refused: list[str], beside: Path | None = None) -> list[GivenBreast]:
    """Return the breasts found in files and folders, ordered by name; masks of CBIS-DDSM are ignored.

    A file that cannot be identified, contradicts itself or is not a standard view is left out, and the reason is
    appended to ``refused``. The same holds for images that cannot be joined or that come from several patients or
    examinations, breasts with two files for one view, and breasts whose predictions would share a file name.

    Pictures of earlier predictions in the folder ``beside`` are skipped.

    Raises
    ------
    InputError
        A path is missing or contains no image.
    """
    held: dict[tuple[str, str], list[GivenImage]] = {}
    for path in _image_files(paths, beside):
        try:
            image = identify_surely(path)
        except InputError as error:
            refused.append(str(error))
            continue
        if image is not None:
            held.setdefault((image.owner, image.side), []).append(image)
    if not held and not refused:
        raise InputError(f"{paths[0]}: only lesion masks here, no mammograms; give whole films or crops")
    breasts = []
    for _, images in sorted(held.items()):
        try:
            breasts.append(_joined(images))
        except InputError as error:
            refused.append(str(error))
    return _uniquely_named(breasts, refused)


def _joined(images: Sequence[GivenImage]) -> GivenBreast:
    """Join the images of one owner and side into a breast.

    Raises
    ------
    InputError
        Nothing joins them, they are of several patients or examinations, or two are of one view.
    """
    first = images[0]
    name = f"{first.owner or printable(first.path.stem)}_{first.side}"
    if not first.owner and len(images) > 1:
        raise InputError(
            f"{_listed(images)}: no PatientID and no examination, so they cannot be joined into one breast; name "
            "them <patient>_<LEFT|RIGHT>_<CC|MLO>, or use --cc, --mlo, --crop-cc, --crop-mlo"
        )
    _require_one_patient(images, (*PATIENT_TAGS, *EXAMINATION))
    held: dict[tuple[str, str], Path] = {}
    for image in images:
        key = (image.stream, image.view)
        if key in held:
            raise InputError(f"{image.path}: a second {' '.join(key)} of {name}, beside {held[key]}; keep one")
        held[key] = image.path
    return with_collection(GivenBreast(name, first.side, held))


def with_collection(breast: GivenBreast) -> GivenBreast:
    """Add what CBIS-DDSM's 800-px set states about its films: the shape of their pixels, and the lesion's box."""
    boxes, aspects = dict(breast.boxes), dict(breast.aspects)
    for (stream, view), path in breast.images.items():
        folder = Path(os.path.realpath(path)).parent.parent  # mass-800, above train or test
        films = _films_in(folder) if stream == "whole" else None
        if films is None:
            continue
        if aspect := films.pixel_aspect(path.stem):
            aspects.setdefault(view, aspect)
        if box := films.crop_box(path.stem):
            boxes.setdefault(view, box)
    return replace(breast, boxes=boxes, aspects=aspects)


@lru_cache(maxsize=8)
def _films_in(folder: Path) -> Mirror800 | None:
    """Return the 800-px set in a folder; None if the folder is not such a set."""
    is_one = folder.name == "mass-800" and (folder / "original_size_estimate.csv").is_file()
    return Mirror800(folder.parent) if is_one else None


def parse_box(text: str, option: str) -> Box:
    """Return the box that a user wrote as x0,y0,x1,y1, widened by ``CROP_MARGIN`` a side as official crops are.

    Raises
    ------
    InputError
        These are not four numbers with x0 < x1 and y0 < y1.
    """
    try:
        x0, y0, x1, y1 = (float(part) for part in text.split(","))
        is_box = 0 <= x0 < x1 < math.inf and 0 <= y0 < y1 < math.inf and max(x1, y1) > 1  # refuses shares of the film
    except ValueError:
        is_box = False
    if not is_box:
        wanted = "x0,y0,x1,y1 in pixels of the film, with 0 <= x0 < x1 and 0 <= y0 < y1"
        raise InputError(f"{option} {text!r}: give {wanted}")
    return max(0.0, x0 - CROP_MARGIN), max(0.0, y0 - CROP_MARGIN), x1 + CROP_MARGIN, y1 + CROP_MARGIN


def _require_one_patient(images: Iterable[GivenImage], tags: Sequence[str]) -> None:
    """Require that images agree in the given tags: that they are of one patient and one examination."""
    for tag in tags:
        said = {image.says.get(tag, "") for image in images} - {""}
        values = sorted({letters_of(value): value for value in said}.values() if tag == "PatientName" else said)
        if len(values) > 1:
            what = "patients" if tag in PATIENT_TAGS else "examinations"
            raise InputError(
                f"{_listed(images)}: of several {what} ({tag} {', '.join(values)}); give the images of one breast "
                "and one examination"
            )


def _listed(images: Iterable[GivenImage]) -> str:
    paths = [str(image.path) for image in images]
    return ", ".join(paths[:3]) + (f" and {len(paths) - 3} more" if len(paths) > 3 else "")


def _uniquely_named(breasts: Sequence[GivenBreast], refused: list[str]) -> list[GivenBreast]:
    """Return the breasts whose predictions get files of their own; the others are refused, a line per name."""
    by_name: dict[str, list[GivenBreast]] = {}
    for breast in breasts:
        by_name.setdefault(safe_name(breast.name).casefold(), []).append(breast)
    for name, alike in by_name.items():
        if len(alike) > 1:
            files = ", ".join(str(next(iter(breast.images.values()))) for breast in alike)
            error = InputError(
                f"{files}: of {len(alike)} breasts whose predictions would have the same file name, {name}.json; "
                "give them one by one, with a separate --out"
            )
            refused.append(str(error))
    return [breast for breast in breasts if len(by_name[safe_name(breast.name).casefold()]) == 1]


def name_breast(images: Mapping[tuple[str, str], Path], boxes: Mapping[str, Box] | None = None) -> GivenBreast:
    """Return the breast whose images the user has named one by one, with the lesion's box by view.

    Raises
    ------
    InputError
        A box has no film, or a crop beside it; a file is given twice, or says that it is another view; the files say
        that they are of several breasts.
    """
    for view in boxes or {}:
        option = view.lower()
        if ("whole", view) not in images:
            raise InputError(f"--box-{option}: a box in the {view} film, which is not given; add --{option} FILE")
        if ("crop", view) in images:
            raise InputError(f"--box-{option} and --crop-{option}: two crops of one view; give one of them")
    known = {(stream, view): identify(path, stream) for (stream, view), path in images.items()}
    if len(set(map(os.path.realpath, images.values()))) < len(images):
        raise InputError(
            f"{', '.join(map(str, images.values()))}: one file for two images; give a separate file for each"
        )
    for (stream, view), image in known.items():
        if image is None:
            raise InputError(f"{images[stream, view]}: a lesion mask, not a mammogram; give the {stream} image")
        if image.view and image.view != view:
            raise InputError(f"{image.path}: given as {view}, but tags or name say {image.view}; correct what is wrong")
    for what in ("side", "patient"):
        said = {getattr(image, what) for image in known.values()} - {""}
        if len(said) > 1:
            raise InputError(
                f"{', '.join(map(str, images.values()))}: of several breasts ({what}: {', '.join(sorted(said))}); "
                "give the images of one breast"
            )
    # An archive may have cut an examination into studies: here the user says what belongs together.
    _require_one_patient(known.values(), (*PATIENT_TAGS, "StudyDate"))
    first = next(iter(known.values()))
    side = next((image.side for image in known.values() if image.side), "")
    name = f"{first.patient or printable(first.path.stem)}_{side}".strip("_")
    return with_collection(GivenBreast(name, side, dict(images), dict(boxes or {})))


def _image_files(paths: Iterable[Path], beside: Path | None = None) -> list[Path]:
    """Return every image once, in order; the ``._`` files that macOS leaves beside others are not images."""
    found = {}
    for path in map(Path, paths):
        if path.is_dir():
            images = find_images(path, "DICOM", "picture")
            if beside is not None:
                images = [image for image in images if not _is_prediction(image, beside.resolve())]
            if not images:
                raise InputError(f"{path}: no image here; a folder of *.dcm, *.png, *.jpg or *.pgm files is expected")
        elif path.is_file():
            images = [path]
        else:
            raise InputError(f"{path}: no such file or folder; give images or a folder of them")
        for image in images:
            found.setdefault(os.path.realpath(image), image)
    return list(found.values())


def _is_prediction(image: Path, folder: Path) -> bool:
    """Whether an image in a folder of predictions is the picture of one, which has its record beside it."""
    if image.suffix != ".png" or image.resolve().parent != folder:
        return False
    try:
        return "research_use_only" in read_json(image.with_suffix(".json"))
    except InputError:  # no such file, or another one
        return False
