"""mini-MIAS: 322 films of the United Kingdom, one MLO film per breast, 200 micrometres a pixel (Suckling et al. 1994).

Assumed: a folder with ``Info.txt`` and images ``mdb001.pgm`` to ``mdb322.pgm``, as published. A line of ``Info.txt`` is

    mdb005 F CIRC B 477 133 30        image, tissue, class, severity, centre x and y, radius, in pixels

with these traps: the origin of a centre is the **bottom left** corner; an image with several lesions has several lines;
centre and radius are absent (or ``*NOTE 3*``) for calcifications all over the breast and for one mass; normal films
have no severity; other lines are prose. Even numbers are left breasts, odd ones right; the images 2k - 1 and 2k are
of one patient. Tissue (F fatty, G fatty-glandular, D dense-glandular) is MIAS's own grading, not BI-RADS density.
"""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd

from ...errors import InputError
from ...files import read_text
from ..folders import find_collection
from .adapter import About, OtherCollection, as_left_out, as_table, find_named, only_one

SIDE = 1024  # pixels of every image, in both directions
ABOUT = About(
    key="mini_mias",
    name="mini-MIAS",
    citation="Suckling J et al. (1994). The Mammographic Image Analysis Society Digital Mammogram Database. "
    "Exerpta Medica, International Congress Series 1069:375-378.",
    licence="research use only; no part may be rented, leased or sold (Licence.txt of the collection)",
    truth="pathology",
    margin=5,  # 1 mm
)
TABLE = r"info\.txt"
IMAGE = re.compile(r"mdb\d{3}")
TISSUES = ("F", "G", "D")
CLASSES = {
    "CIRC": "mass", "SPIC": "mass", "MISC": "mass", "CALC": "calcification", "ARCH": "other", "ASYM": "other",
    "NORM": "none",
}  # fmt: skip
SEVERITIES = {"B": "BENIGN", "M": "MALIGNANT"}


def open_mias(root: str | Path) -> OtherCollection:
    """Open a copy of mini-MIAS, complete or not.

    Raises
    ------
    InputError
        ``Info.txt`` is missing or has a line that cannot be read, or no image belongs to a line.
    """
    root = Path(root)
    path = only_one(root, find_mias(root), "Info.txt")
    lesions = read_info(path)
    images = {one.stem.lower(): one for one in find_collection(root, "picture") if IMAGE.fullmatch(one.stem.lower())}
    has_image = lesions["image"].isin(list(images))
    without = lesions.loc[~has_image].drop_duplicates("image")
    left_out = [(row.image, f"no image ({row.finding})") for row in without.itertuples()]
    left_out += [(name, "no line in Info.txt") for name in sorted(set(images) - set(lesions["image"]))]
    kept = lesions[has_image]
    if kept.empty:
        raise InputError(f"{root}: no image mdb001.pgm to mdb322.pgm belongs to a line of {path.name}; complete it")
    places = kept["image"].map({name: one.relative_to(root).as_posix() for name, one in images.items()})
    return OtherCollection(ABOUT, root, as_table(kept.assign(image_path=places)), as_left_out(left_out))


def find_mias(root: Path) -> list[Path]:
    """Return the files below a folder that may be the table of mini-MIAS; many programs have their own ``info.txt``."""
    return [path for path in find_named(root, TABLE) if _names_images(path)]


def read_info(path: Path) -> pd.DataFrame:
    """Return the lesions of ``Info.txt``, with boxes whose origin is the top left corner; one row per normal film.

    Raises
    ------
    InputError
        A line that starts like an image's has an unknown word, or a circle whose centre is outside of the image.
    """
    lines = enumerate(read_text(path, "latin-1").splitlines(), start=1)
    rows = [_read_line(path, number, line.split()) for number, line in lines if IMAGE.match(line.strip().lower())]
    if not rows:
        raise InputError(f"{path}: no line names an image (mdb001 ...); give the table as published")
    lesions = pd.DataFrame(rows)
    for image, own in lesions.groupby("image", sort=False):
        if (own["finding"] == "NORM").any() and len(own) > 1:
            raise InputError(f"{path}: {image} is NORM and has another line; correct the line that is wrong")
        if own.astype("string").duplicated().any():
            raise InputError(f"{path}: {image} has two equal lines; leave one out")
    return lesions


def _names_images(path: Path) -> bool:
    try:
        return IMAGE.search(read_text(path, "latin-1").lower()) is not None
    except InputError:  # not a text
        return False


def _read_line(path: Path, number: int, words: list[str]) -> dict:
    where = f"{path}, line {number}"
    image, (tissue, finding, severity), circle = words[0].lower(), [*words[1:4], "", "", ""][:3], words[4:]
    for word, known, what in ((tissue, TISSUES, "tissue"), (finding, CLASSES, "class")):
        if word not in known:
            raise InputError(f"{where}: {what} must be one of {', '.join(known)}, got {word!r}")
    if not IMAGE.fullmatch(image):
        raise InputError(f"{where}: an image is called mdb and three digits, got {words[0]!r}")
    order = int(image.removeprefix("mdb"))
    row = {
        "image": image, "patient_id": f"MIAS_{(order + 1) // 2:03d}", "laterality": "RIGHT" if order % 2 else "LEFT",
        "view": "MLO", "tissue": tissue, "finding": finding, "lesion_type": CLASSES[finding], "height": SIDE,
        "width": SIDE,
    }  # fmt: skip
    if finding == "NORM":
        return row | {"pathology": "NORMAL"}
    if severity not in SEVERITIES:
        raise InputError(f"{where}: severity must be one of B, M, got {severity!r}")
    return row | {"pathology": SEVERITIES[severity]} | _read_circle(where, circle)


def _read_circle(where: str, words: list[str]) -> dict[str, float]:
    """Return the box around a circle, with the origin at the top left; empty for a lesion without a position."""
    if not words or words[0].startswith("*"):
        return {}
    try:
        x, y, radius = map(float, words[:3])
    except ValueError:
        raise InputError(f"{where}: expected x, y and radius of a lesion or nothing, got {' '.join(words)!r}") from None
    if not (0 <= x <= SIDE and 0 <= y <= SIDE and 0 < radius <= SIDE):
        raise InputError(f"{where}: a circle at {x:g}, {y:g} of radius {radius:g}, outside of {SIDE} x {SIDE} pixels")
    return {"x0": x - radius, "y0": SIDE - y - radius, "x1": x + radius, "y1": SIDE - y + radius}
