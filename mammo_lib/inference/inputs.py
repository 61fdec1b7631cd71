"""Input images for a prediction: their breast, view and stream, and whether they are usable.

A file is identified by its DICOM tags and its name, ``<patient>_<LEFT|RIGHT>_<CC|MLO>[_crop].<ext>``. If both are
given, they must agree. A file that cannot be identified is refused; nothing is guessed. Images are joined into one
breast only if they share a patient or an examination and no tag contradicts this.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
from pydicom import Dataset
from pydicom.multival import MultiValue

from ..data.cbis_ddsm.sources import Mirror800
from ..data.dicom import SIDES, VIEW_CODES, read_header, refusing
from ..data.folders import find_images, is_dicom
from ..data.images import read_image
from ..data.views import CROP_MARGIN, VIEWS, Box, is_binary
from ..errors import InputError, printable
from ..files import safe_name
from ..runs.executor import CRASHED, WorkerDied, in_child

NAMES = (
    re.compile(r"(?P<patient>.+?)_(?P<side>LEFT|RIGHT|L|R)_(?P<view>CC|MLO)(?P<crop>_crop|_\d+)?$", re.IGNORECASE),
    # INbreast, which calls its MLO views ML: <image>_<patient>_MG_<L|R>_<CC|ML>_ANON.
    re.compile(r"\d+_(?P<patient>[0-9a-f]+)_MG_(?P<side>L|R)_(?P<view>CC|MLO|ML)_ANON$", re.IGNORECASE),
)
TAGS = (
    "PatientID", "PatientName", "PatientBirthDate", "StudyInstanceUID", "StudyDate", "AccessionNumber",
    "ImageLaterality", "Laterality", "ViewPosition", "ViewCodeSequence", "PatientOrientation",
    "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence", "Modality", "SeriesDescription",
    "PaddleDescription", "ImageType", "SamplesPerPixel", "NumberOfFrames", "PresentationIntentType", "PartialView",
    "QualityControlImage", "CalibrationImage", "EstimatedRadiographicMagnificationFactor",
)  # fmt: skip
WOMAN = ("PatientID", "PatientName", "PatientBirthDate")
EXAMINATION = ("StudyInstanceUID", "StudyDate", "AccessionNumber")
# What stands in the tags of de-identified files for "nobody says", letters and digits alone.
NOBODY = re.compile(
    r"(anon(ym(ous|i[sz]ed)?)?|de-?identified|removed|deleted|hidden|unknown|unnamed|none|null|nan?|empty|blank)"
    r"(patient|id|name)?"
)
NO_MAMMOGRAM = {"LOCALIZER", "SCOUT", "PHANTOM", "QC", "CALIBRATION"}  # in ImageType
SPECIAL_WORDS = re.compile(
    r"\b(spot|mag|magn?if\w*|locali[sz]er|scout|specimen|phantom|qc|quality control|flat[ -]?field)\b", re.IGNORECASE
)
MAGNIFIED = 1.3  # times; in contact mammography the breast's distance from the detector makes about 1.1
LATERALITIES = ("ImageLaterality", "FrameLaterality")
MASK, CROP = "ROI mask images", "cropped images"  # SeriesDescription in CBIS-DDSM

MIN_SIDE = {"whole": 200, "crop": 16}  # pixels; the smallest of CBIS-DDSM: 1,743 and about 60
# Height over width in square pixels. Films of CBIS-DDSM: 1.18 to 3.03. Crops are any shape but a line.
ASPECT = {"whole": (1.05, 3.5), "crop": (0.1, 10.0)}
PADDED_ASPECT = (0.9, 3.5)  # where the user says how tall pixels are, a square may be one that was padded


@dataclass(frozen=True)
class GivenImage:
    """An identified file: ``view`` CC or MLO, ``stream`` whole or crop; ``side`` is empty if unknown.

    ``patient`` is empty if unknown. ``owner`` is shared by the images of one breast: the patient, else the examination,
    else empty. ``says`` contains the tags of patient and examination.
    """

    path: Path
    patient: str
    side: str
    view: str
    stream: str
    owner: str = ""
    says: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class GivenBreast:
    """The images of one breast by (stream, view); ``side`` is LEFT, RIGHT or empty.

    ``boxes`` holds by view the box of the lesion in pixels of the whole film, from which a crop is cut where none is
    given, and ``shapes`` the height of the film's pixels over their width where it is known not to be 1.
    """

    name: str
    side: str
    images: Mapping[tuple[str, str], Path]
    boxes: Mapping[str, Box] = field(default_factory=dict)
    shapes: Mapping[str, float] = field(default_factory=dict)

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

    Images below the folder ``beside``, where earlier predictions lie, are passed over.

    Raises
    ------
    InputError
        A path is missing or contains no image.
    """
    held: dict[tuple[str, str], list[GivenImage]] = {}
    for path in _image_files(paths, beside):
        try:
            image = _identified(path)
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
    return _told_apart(breasts, refused)


def _joined(images: Sequence[GivenImage]) -> GivenBreast:
    """Return the breast that images of one owner and side make.

    Raises
    ------
    InputError
        Nothing joins them, they are of several women or examinations, or two are of one view.
    """
    first = images[0]
    name = f"{first.owner or printable(first.path.stem)}_{first.side}"
    if not first.owner and len(images) > 1:
        raise InputError(
            f"{_listed(images)}: no PatientID and no examination, so they cannot be joined into one breast; name "
            "them <patient>_<LEFT|RIGHT>_<CC|MLO>, or use --cc, --mlo, --crop-cc, --crop-mlo"
        )
    _refuse_strangers(images, (*WOMAN, *EXAMINATION))
    held: dict[tuple[str, str], Path] = {}
    for image in images:
        key = (image.stream, image.view)
        if key in held:
            raise InputError(f"{image.path}: a second {' '.join(key)} of {name}, beside {held[key]}; keep one")
        held[key] = image.path
    return with_collection(GivenBreast(name, first.side, held))


def with_collection(breast: GivenBreast) -> GivenBreast:
    """Add what CBIS-DDSM's 800-px set says of its films: the shape of their pixels, and the lesion's box."""
    boxes, shapes = dict(breast.boxes), dict(breast.shapes)
    for (stream, view), path in breast.images.items():
        folder = Path(os.path.realpath(path)).parent.parent  # mass-800, above train or test
        films = _films_in(folder) if stream == "whole" else None
        if films is None:
            continue
        if shape := films.film_shape(path.stem):
            shapes.setdefault(view, shape)
        if box := films.crop_box(path.stem):
            boxes.setdefault(view, box)
    return replace(breast, boxes=boxes, shapes=shapes)


@lru_cache(maxsize=8)
def _films_in(folder: Path) -> Mirror800 | None:
    """Return the 800-px set that a folder is; None where it is none."""
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
        is_box = 0 <= x0 < x1 < math.inf and 0 <= y0 < y1 < math.inf
    except ValueError:
        is_box = False
    if not is_box:
        wanted = "x0,y0,x1,y1 in pixels of the film, with 0 <= x0 < x1 and 0 <= y0 < y1"
        raise InputError(f"{option} {text!r}: give {wanted}")
    return max(0.0, x0 - CROP_MARGIN), max(0.0, y0 - CROP_MARGIN), x1 + CROP_MARGIN, y1 + CROP_MARGIN


def _refuse_strangers(images: Iterable[GivenImage], tags: Sequence[str]) -> None:
    """Refuse images whose tags say that they are of several women or of several examinations."""
    for tag in tags:
        said = {image.says.get(tag, "") for image in images} - {""}
        values = sorted({_letters(value): value for value in said}.values() if tag == "PatientName" else said)
        if len(values) > 1:
            what = "women" if tag in WOMAN else "examinations"
            raise InputError(
                f"{_listed(images)}: of several {what} ({tag} {', '.join(values)}); give the images of one breast "
                "and one examination"
            )


def _listed(images: Iterable[GivenImage]) -> str:
    paths = [str(image.path) for image in images]
    return ", ".join(paths[:3]) + (f" and {len(paths) - 3} more" if len(paths) > 3 else "")


def _told_apart(breasts: Sequence[GivenBreast], refused: list[str]) -> list[GivenBreast]:
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
    _refuse_strangers(known.values(), (*WOMAN, "StudyDate"))
    first = next(iter(known.values()))
    side = next((image.side for image in known.values() if image.side), "")
    name = f"{first.patient or printable(first.path.stem)}_{side}".strip("_")
    return with_collection(GivenBreast(name, side, dict(images), dict(boxes or {})))


def identify(path: Path, stream: str = "") -> GivenImage | None:
    """Identify a file from its tags and name; None for a lesion mask of CBIS-DDSM.

    Raises
    ------
    InputError
        Tags and name contradict each other, the header cannot be read, or the image is not a standard view.
    """
    tags = _read_tags(path) if is_dicom(path) else {}
    # CBIS-DDSM labels some crops as masks: the pixels decide.
    if tags.get("description") == MASK and is_binary(path):
        return None
    named, coded = _named(printable(path.stem)), _named(tags.get("patient", ""))
    side, seen = (
        _agreed(path, {"name": named.get(what), "PatientID": coded.get(what), "tags": tags.get(what)})
        for what in ("side", "view")
    )
    is_crop = bool(named.get("crop") or coded.get("crop")) or tags.get("description") in (CROP, MASK)
    tagged = coded.get("patient", "") if coded else tags.get("patient", "")
    patient = _agreed_patient(path, named.get("patient", ""), tagged)
    # CBIS-DDSM, whose PatientID is a view's, and INbreast give images of one breast a study each.
    says = {"PatientID": tagged} if coded else dict(tags.get("says", {}))
    says |= dict.fromkeys(EXAMINATION, "") if named.get("archive") else {}
    exam = next((f"study {says[tag]}" for tag in ("StudyInstanceUID", "AccessionNumber") if says.get(tag)), "")
    return GivenImage(path, patient, side, seen, stream or ("crop" if is_crop else "whole"), patient or exam, says)


def _named(text: str) -> dict[str, str]:
    """Return what a text of one of the forms ``NAMES`` says: patient, side, view, crop; empty for another text."""
    found = next(((form, match) for form in NAMES if (match := form.search(text))), None)
    if found is None:
        return {}
    form, match = found
    said = {name: value or "" for name, value in match.groupdict().items()}
    side, view = said["side"].upper(), said["view"].upper()
    known = {"side": SIDES.get(side, side), "view": "MLO" if view == "ML" else view}
    archive = {"archive": "" if form is NAMES[0] else "INbreast"}
    return said | known | archive | {"patient": "" if _is_nobody(said["patient"]) else said["patient"]}


def _agreed(path: Path, said: Mapping[str, str | None]) -> str:
    """Return the one value that name, PatientID and tags say, or the empty text where none says any."""
    known = {source: value for source, value in said.items() if value}
    if len(set(known.values())) > 1:
        words = ", ".join(f"{value} by its {source}" for source, value in known.items())
        raise InputError(f"{path}: {words}; correct the one that is wrong")
    return next(iter(known.values()), "")


def _agreed_patient(path: Path, named: str, tagged: str) -> str:
    """Return whose image it is: a name that the user chose comes first, unless it is another of the tag's kind."""
    tail = tagged if re.fullmatch(_kind(named), tagged) else tagged.partition("_")[2]  # Mass-Training_P_00001
    if named and named != tail and re.fullmatch(_kind(named), tail):
        return _agreed(path, {"name": named, "PatientID": tail})
    return named or tagged


def _kind(patient: str) -> str:
    """Return a pattern for ids that differ from this one in digits only."""
    return re.sub(r"\d", r"\\d", re.escape(patient))


def _is_nobody(text: str) -> bool:
    """Whether an id, a name or a date is none: empty, or a word that stands for that in de-identified files."""
    return NOBODY.fullmatch(_letters(text)) is not None


def _letters(text: str) -> str:
    """Return letters and digits alone, in lower case: ``DOE^JANE`` and ``Doe Jane`` are one."""
    return re.sub(r"[\W_]", "", text).casefold()


def _identified(path: Path) -> GivenImage | None:
    """Return what a file says that it is, which must be enough to place it; None for a mask."""
    image = identify(path)
    if image is not None and image.view and image.view not in VIEWS:
        raise InputError(f"{path}: a view {image.view}; networks read {' and '.join(VIEWS)}: leave it out")
    if image is not None and not (image.side and image.view):
        raise InputError(
            f"{path}: neither tags nor file name give breast and view; name it "
            f"<patient>_<LEFT|RIGHT>_<CC|MLO>[_crop]{path.suffix}, or use --cc, --mlo, --crop-cc, --crop-mlo"
        )
    return image


def read_checked(path: Path, stream: str, aspect: float | None = None) -> np.ndarray:
    """Return the pixels of a plausible mammogram, float32 (height, width) in [0, 1].

    ``aspect`` is the height of a pixel over its width, None if unknown.

    Raises
    ------
    InputError
        Another modality than MG, raw detector values, several frames, colour, too small, another shape, or empty.
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
    return pixels


def _check_shape(path: Path, stream: str, ratio: float, aspect: float | None) -> None:
    low, high = PADDED_ASPECT if aspect and stream == "whole" else ASPECT[stream]
    shape = ratio * (aspect or 1.0)
    if low <= shape <= high:
        return
    way_out = (
        "turn it upright, or give the height of a pixel over its width with --aspect (1: padded to a square)"
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
    with refusing(path, "the header cannot be read", "give the original file"):
        header = read_header(path, TAGS)
        frame = _frame(header)
        own = {_text(one.get(tag)) for one in (header, frame) for tag in LATERALITIES} & set(SIDES)
        # Laterality is the series', which may hold both sides.
        sides = {SIDES[side] for side in own or {_text(header.get("Laterality"))} & set(SIDES)}
        views = {_view(one) for one in (header, frame)} - {""}
        tags = {
            "patient": _said(header.get("PatientID")),
            "side": "/".join(sorted(sides)),
            "view": "/".join(sorted(views)),
            "says": {tag: _said(header.get(tag)) for tag in (*WOMAN, *EXAMINATION)},
            "description": _text(header.get("SeriesDescription")),
            "modality": _text(header.get("Modality")),
            "intent": _text(header.get("PresentationIntentType")),
            "frames": int(header.get("NumberOfFrames") or 1),
            "samples": int(header.get("SamplesPerPixel") or 1),
        }
        special = _special(header, frame)
    if special:
        raise InputError(f"{path}: {special}, no standard CC or MLO view; give the standard view")
    for what, tag in (("side", "laterality"), ("view", "view")):
        if "/" in tags[what]:
            raise InputError(f"{path}: its tags name more than one {tag}, {tags[what]}; correct the one that is wrong")
    return tags


def _text(value: object) -> str:
    """Return a tag's value as one line; several values are joined by the backslash that parted them in the file."""
    values = [] if value is None else value if isinstance(value, MultiValue) else [value]
    letters = "\\".join(map(str, values)).strip()
    return printable(letters)


def _said(value: object) -> str:
    """Return what a tag says of woman or examination; empty where it holds a word or a filling for nobody."""
    text = _text(value)
    return "" if _is_nobody(text) or set(_letters(text)) <= {"x"} or set(_letters(text)) <= {"0"} else text


def _frame(header: Dataset) -> Dataset:
    """Return what the functional groups of a file say of laterality and view, of its first frame where they differ."""
    found = Dataset()
    for groups in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"):
        for element in (header.get(groups) or [Dataset()])[0].iterall():
            if element.keyword in (*LATERALITIES, "ViewPosition", "ViewCodeSequence"):
                found[element.tag] = element
    return found


def _view(header: Dataset) -> str:
    """Return the view that tags name: CC, MLO, or another one as they call it; several are parted by a slash."""
    position, orientation = _text(header.get("ViewPosition")).upper(), _text(header.get("PatientOrientation"))
    codes = {value for code in header.get("ViewCodeSequence") or () for value in _values(code)}
    named = {position, *(VIEW_CODES.get(value, "") for value in codes)} - {""}
    # CBIS-DDSM writes the view into PatientOrientation; a code that is not known is another view.
    return "/".join(sorted(named or {orientation} & set(VIEWS) or codes))


def _values(code: Dataset) -> list[str]:
    return [_text(code.get(name)) for name in ("CodeValue", "LongCodeValue") if code.get(name)]


def _special(header: Dataset, frame: Dataset) -> str:
    """Say why an image is no standard view of a breast; empty where nothing says so."""
    for code in (*(header.get("ViewCodeSequence") or ()), *(frame.get("ViewCodeSequence") or ())):
        for modifier in code.get("ViewModifierCodeSequence") or ():
            meaning = _text(modifier.get("CodeMeaning"))
            return f"a view with the modifier {' '.join([*_values(modifier), meaning]).strip() or 'of no name'}"
    for tag in ("PartialView", "QualityControlImage", "CalibrationImage"):
        if _text(header.get(tag)).upper() in ("YES", "BOTH"):
            return f"{tag} {_text(header.get(tag)).upper()}"
    factor = float(header.get("EstimatedRadiographicMagnificationFactor") or 1)
    if not factor <= MAGNIFIED:
        return f"magnified {factor:g} times"
    kinds = NO_MAMMOGRAM & {word.strip().upper() for word in _text(header.get("ImageType")).split("\\")}
    if kinds:
        return f"ImageType {', '.join(sorted(kinds))}"
    for tag in ("SeriesDescription", "PaddleDescription"):
        if SPECIAL_WORDS.search(_text(header.get(tag)).replace("_", " ")):
            return f"{tag} {_text(header.get(tag))!r}"
    return ""


def _image_files(paths: Iterable[Path], beside: Path | None = None) -> list[Path]:
    """Return every image once, in order; the ``._`` files that macOS leaves beside others are none."""
    found = {}
    for path in map(Path, paths):
        if path.is_dir():
            images = find_images(path, "DICOM", "picture")
            if beside is not None:
                earlier = beside.resolve()
                images = [image for image in images if earlier not in image.resolve().parents]
            if not images:
                raise InputError(f"{path}: no image here; a folder of *.dcm, *.png, *.jpg or *.pgm files is expected")
        elif path.is_file():
            images = [path]
        else:
            raise InputError(f"{path}: no such file or folder; give images or a folder of them")
        for image in images:
            found.setdefault(os.path.realpath(image), image)
    return list(found.values())
