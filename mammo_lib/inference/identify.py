"""Which breast, view and stream a file shows, by its tags and its name.

A name has the form ``<patient>_<LEFT|RIGHT>_<CC|MLO>[_crop].<ext>``. If tags and name are both given, they must agree.
A file that cannot be identified is refused; nothing is guessed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ..data.folders import is_dicom
from ..data.header_tags import EXAMINATION, SIDES, is_nobody, standard_tags
from ..data.views import VIEWS, is_binary
from ..errors import InputError, printable

NAMES = (
    re.compile(r"(?P<patient>.+?)_(?P<side>LEFT|RIGHT|L|R)_(?P<view>CC|MLO)(?P<crop>_crop)?$", re.IGNORECASE),
    # CBIS-DDSM numbers the lesions of a view: Mass-Training_P_00001_LEFT_CC_1.
    re.compile(r"(?P<patient>(Mass|Calc)-\w+?_P_\d+)_(?P<side>LEFT|RIGHT)_(?P<view>CC|MLO)(?P<crop>_\d+)$", re.I),
    # INbreast, which calls its MLO views ML: <image>_<patient>_MG_<L|R>_<CC|ML>_ANON.
    re.compile(r"\d+_(?P<patient>[0-9a-f]+)_MG_(?P<side>L|R)_(?P<view>CC|MLO|ML)_ANON$", re.IGNORECASE),
)
MASK, CROP, WHOLE = "ROI mask images", "cropped images", "full mammogram images"  # SeriesDescription in CBIS-DDSM


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


def identify(path: Path, stream: str = "") -> GivenImage | None:
    """Identify a file from its tags and name; None for a lesion mask of CBIS-DDSM.

    Raises
    ------
    InputError
        Tags and name contradict each other, the header cannot be read, or the image is not a standard view.
    """
    tags = standard_tags(path) if is_dicom(path) else {}
    # CBIS-DDSM labels some crops as masks, so the pixels decide.
    if tags.get("description") == MASK and is_binary(path):
        return None
    named, coded = _named(printable(path.stem)), _named(tags.get("patient", ""))
    side, seen = (
        _agreed(path, {"name": named.get(what), "PatientID": coded.get(what), "tags": tags.get(what)})
        for what in ("side", "view")
    )
    is_crop = bool(named.get("crop") or coded.get("crop")) or tags.get("description") in (CROP, MASK)
    shows = "crop" if is_crop else "whole" if tags.get("description") == WHOLE else ""
    if stream and shows and stream != shows:
        raise InputError(f"{path}: given as a {stream} image, but a {shows} image by its name or tags; exchange them")
    tagged = coded.get("patient", "") if coded else tags.get("patient", "")
    patient = _agreed_patient(path, named.get("patient", ""), tagged)
    # CBIS-DDSM (whose PatientID names a view) and INbreast put every image of a breast into a separate study.
    says = {"PatientID": tagged} if coded else dict(tags.get("says", {}))
    says |= dict.fromkeys(EXAMINATION, "") if named.get("archive") else {}
    exam = next((f"study {says[tag]}" for tag in ("StudyInstanceUID", "AccessionNumber") if says.get(tag)), "")
    return GivenImage(path, patient, side, seen, stream or shows or "whole", patient or exam, says)


def identify_surely(path: Path) -> GivenImage | None:
    """Identify a file whose view the user did not name (:func:`identify`); None for a mask.

    Raises
    ------
    InputError
        Neither tags nor name say the breast and the view, or the view is neither CC nor MLO.
    """
    image = identify(path)
    if image is not None and image.view and image.view not in VIEWS:
        raise InputError(f"{path}: a view {image.view}; networks read {' and '.join(VIEWS)}: leave it out")
    if image is not None and not (image.side and image.view):
        raise InputError(
            f"{path}: neither tags nor file name give breast and view; name it "
            f"<patient>_<LEFT|RIGHT>_<CC|MLO>[_crop]{path.suffix}, or use --cc, --mlo, --crop-cc, --crop-mlo"
        )
    return image


def _named(text: str) -> dict[str, str]:
    """Return patient, side, view and crop from a text of one of the forms ``NAMES``; empty for any other text."""
    found = next(((form, match) for form in NAMES if (match := form.search(text))), None)
    if found is None:
        return {}
    form, match = found
    said = {name: value or "" for name, value in match.groupdict().items()}
    side, view = said["side"].upper(), said["view"].upper()
    known = {"side": SIDES.get(side, side), "view": "MLO" if view == "ML" else view}
    archive = {"archive": "INbreast" if form is NAMES[-1] else ""}
    return said | known | archive | {"patient": "" if is_nobody(said["patient"]) else said["patient"]}


def _agreed(path: Path, said: Mapping[str, str | None]) -> str:
    """Return the one value on which name, PatientID and tags agree, or an empty text if none gives a value."""
    known = {source: value for source, value in said.items() if value}
    if len(set(known.values())) > 1:
        words = ", ".join(f"{value} by its {source}" for source, value in known.items())
        raise InputError(f"{path}: {words}; correct the one that is wrong")
    return next(iter(known.values()), "")


def _agreed_patient(path: Path, named: str, tagged: str) -> str:
    """Return the patient: the one in the file name, else the one in the tag. Two ids of the same form must agree."""
    tail = tagged if re.fullmatch(_kind(named), tagged) else tagged.partition("_")[2]  # Mass-Training_P_00001
    if named and named != tail and re.fullmatch(_kind(named), tail):
        return _agreed(path, {"name": named, "PatientID": tail})
    return named or tagged


def _kind(patient: str) -> str:
    """Return a pattern for ids that differ from this one in digits only."""
    return re.sub(r"\d", r"\\d", re.escape(patient))
