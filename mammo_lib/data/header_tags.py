"""What the tags of a DICOM file say: patient, side and view, and whether the image is a standard mammogram."""

from __future__ import annotations

import re
from pathlib import Path

from pydicom import Dataset
from pydicom.multival import MultiValue
from pydicom.uid import UID

from ..errors import InputError, printable
from .dicom import read_header, refusing
from .views import VIEWS

SIDES = {"L": "LEFT", "R": "RIGHT"}
# ViewCodeSequence in SNOMED-RT and in SNOMED CT; ViewPosition says CC or MLO outright.
VIEW_CODES = {"R-10242": "CC", "399162004": "CC", "R-10226": "MLO", "399368009": "MLO"}
TAGS = (
    "PatientID", "PatientName", "PatientBirthDate", "StudyInstanceUID", "StudyDate", "AccessionNumber",
    "ImageLaterality", "Laterality", "ViewPosition", "ViewCodeSequence", "PatientOrientation",
    "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence", "Modality", "SeriesDescription",
    "PaddleDescription", "ImageType", "SamplesPerPixel", "NumberOfFrames", "PresentationIntentType", "PartialView",
    "QualityControlImage", "CalibrationImage", "EstimatedRadiographicMagnificationFactor", "SOPClassUID",
    "PartialViewCodeSequence", "ViewModifierCodeSequence", "ProtocolName", "IssuerOfPatientID", "AcquisitionDate",
    "SeriesDate", "ContentDate",
)  # fmt: skip
PATIENT_TAGS = ("PatientID", "IssuerOfPatientID", "PatientName", "PatientBirthDate")
DATES = ("StudyDate", "AcquisitionDate", "SeriesDate", "ContentDate")  # the first that is given is the examination's
EXAMINATION = ("StudyInstanceUID", "StudyDate", "AccessionNumber")
# Placeholders for an identity in de-identified files, compared by their letters and digits only.
NOBODY = re.compile(
    r"(anon(ym(ous|i[sz]ed)?)?|de-?identified|removed|deleted|hidden|unknown|unnamed|none|null|nan?|empty|blank|test)"
    r"(patient|id|name)?|patient(id|name)?|9{4,}"
)
# In ImageType: test images, images that steer a biopsy, slices of a tomosynthesis and differences after contrast.
NO_MAMMOGRAM = re.compile(
    r"LOCALIZER|SCOUT|PHANTOM|QC|CALIBRATION|SPECIMEN|STEREO\w*|TOMO|TOMO_PROJ\w*|TOMOSYNTHESIS|RECOMBINED|SUBTRACTION"
)
SYNTHETIC = {"GENERATED_2D", "TOMO_2D"}  # a 2-D view beside or out of a tomosynthesis
SPECIAL_WORDS = re.compile(
    r"\b(spot(mag\w*|comp\w*)?|coned?|mag|magn?if\w*|locali[sz]er|scout|specimen|phantom|qc|quality control|"
    r"flat[ -]?field)\b",
    re.IGNORECASE,
)
STORAGE = "1.2.840.10008.5.1.4.1.1."  # start of the identifiers of storage classes
RADIOGRAPH = re.compile(r"[17](\..+)?")  # computed and digital radiography, mammography; scanned films
FOR_PROCESSING = "FOR PROCESSING"  # in PresentationIntentType and in the names of classes: raw values
MAGNIFIED = 1.3  # magnification; in contact mammography the breast's distance from the detector gives about 1.1
LATERALITIES = ("ImageLaterality", "FrameLaterality")


def read_tags(path: Path) -> dict:
    """Return what a DICOM header says: ``patient side view says description modality intent frames samples special``.

    What it does not say is empty. ``says`` contains the tags of ``PATIENT_TAGS`` and ``EXAMINATION``. ``special`` says
    why the image is not a standard view of a breast.

    Raises
    ------
    InputError
        The header cannot be read, or contradicts itself.
    """
    with refusing(path, "the header cannot be read", "give the original file"):
        header = read_header(path, TAGS)
        frame, kind = _frame(header), UID(_text(header.get("SOPClassUID")))
        own = {_text(one.get(tag)) for one in (header, frame) for tag in LATERALITIES} & set(SIDES)
        # Laterality describes the series, which may contain both sides.
        sides = {SIDES[side] for side in own or {_text(header.get("Laterality"))} & set(SIDES)}
        views = {_view(one) for one in (header, frame)} - {""}
        tags = {
            "patient": _said(header.get("PatientID")),
            "side": "/".join(sorted(sides)),
            "view": "/".join(sorted(views)),
            "says": {tag: _said(header.get(tag)) for tag in (*PATIENT_TAGS, *EXAMINATION)}
            | {"StudyDate": next(filter(None, (_said(header.get(tag)) for tag in DATES)), "")},
            "description": _text(header.get("SeriesDescription")),
            "modality": _text(header.get("Modality")),
            "intent": _text(header.get("PresentationIntentType")) or _intent(kind),
            "frames": int(header.get("NumberOfFrames") or 1),
            "samples": int(header.get("SamplesPerPixel") or 1),
            "special": _special(kind, header, frame),
        }
    for what, tag in (("side", "laterality"), ("view", "view")):
        if "/" in tags[what]:
            raise InputError(f"{path}: its tags name more than one {tag}, {tags[what]}; correct the one that is wrong")
    return tags


def standard_tags(path: Path) -> dict:
    """Return what :func:`read_tags` does, for a standard view only.

    Raises
    ------
    InputError
        As :func:`read_tags`, or the image is a spot view, a slice, a specimen or a test image.
    """
    tags = read_tags(path)
    if tags["special"]:
        raise InputError(f"{path}: {tags['special']}, not a standard CC or MLO view; give the standard view")
    return tags


def _said(value: object) -> str:
    """Return a tag's text; empty if it is the placeholder of a de-identified file."""
    text = _text(value)
    return "" if is_nobody(text) or set(letters_of(text)) <= {"x"} or set(letters_of(text)) <= {"0"} else text


def is_nobody(text: str) -> bool:
    """Whether an id, a name or a date is absent: empty, or a placeholder of de-identified files."""
    return NOBODY.fullmatch(letters_of(text)) is not None


def letters_of(text: str) -> str:
    """Return only letters and digits, in lower case: ``DOE^JANE`` and ``Doe Jane`` become equal."""
    return re.sub(r"[\W_]", "", text).casefold()


def _text(value: object) -> str:
    """Return a tag's value as one line; several values are joined by a backslash, as in the file."""
    values = [] if value is None else value if isinstance(value, MultiValue) else [value]
    letters = "\\".join(map(str, values)).strip()
    return printable(letters)


def _frame(header: Dataset) -> Dataset:
    """Return laterality and view from the functional groups of a file; where frames differ, those of the first."""
    found = Dataset()
    for groups in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"):
        for element in (header.get(groups) or [Dataset()])[0].iterall():
            if element.keyword in (*LATERALITIES, "ViewPosition", "ViewCodeSequence"):
                found[element.tag] = element
    return found


def _view(header: Dataset) -> str:
    """Return the view that tags name: CC, MLO, or another one in their own words; several are separated by a slash."""
    position, orientation = _text(header.get("ViewPosition")).upper(), _text(header.get("PatientOrientation"))
    codes = {value for code in header.get("ViewCodeSequence") or () for value in _values(code)}
    named = {position, *(VIEW_CODES.get(value, "") for value in codes)} - {""}
    # CBIS-DDSM writes the view into PatientOrientation; a code that is not known is another view.
    return "/".join(sorted(named or {orientation} & set(VIEWS) or codes))


def _intent(kind: UID) -> str:
    """Return ``FOR PROCESSING`` if the class of the object says so; empty otherwise."""
    return FOR_PROCESSING if kind.name.upper().endswith(FOR_PROCESSING) else ""


def _values(code: Dataset) -> list[str]:
    return [_text(code.get(name)) for name in ("CodeValue", "LongCodeValue") if code.get(name)]


def _special(kind: UID, header: Dataset, frame: Dataset) -> str:
    """Say why an image, an object of this class, is not a standard view of a breast; empty if nothing says so."""
    if kind.startswith(STORAGE) and not RADIOGRAPH.fullmatch(kind.removeprefix(STORAGE)):
        return f"an object of the class {kind.name}"
    for code in (header, *(header.get("ViewCodeSequence") or ()), *(frame.get("ViewCodeSequence") or ())):
        for modifier in code.get("ViewModifierCodeSequence") or ():
            if says := " ".join([*_values(modifier), _text(modifier.get("CodeMeaning"))]).strip():
                return f"a view with the modifier {says}"
    if header.get("PartialViewCodeSequence"):
        return "a partial view"
    for tag in ("PartialView", "QualityControlImage", "CalibrationImage"):
        if _text(header.get(tag)).upper() in ("YES", "BOTH"):
            return f"{tag} {_text(header.get(tag)).upper()}"
    factor = float(header.get("EstimatedRadiographicMagnificationFactor") or 1)
    if not factor <= MAGNIFIED:
        return f"magnified {factor:g} times"
    kinds = {word.strip().upper() for word in _text(header.get("ImageType")).split("\\")}
    if not kinds & SYNTHETIC and (found := sorted(filter(NO_MAMMOGRAM.fullmatch, kinds))):
        return f"ImageType {', '.join(found)}"
    for tag in ("SeriesDescription", "ProtocolName", "PaddleDescription"):
        if SPECIAL_WORDS.search(_text(header.get(tag)).replace("_", " ")):
            return f"{tag} {_text(header.get(tag))!r}"
    return ""
