"""Finding image files below a folder by their content."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from ..errors import InputError

DICOM = (".dcm", ".dicom")
PICTURES = (".png", ".jpg", ".jpeg", ".pgm")
PICTURE_START = re.compile(rb"\xff\xd8\xff|\x89PNG|P[25]\s")  # JPEG, PNG, PGM


def find_collection(root: Path, *kinds: str) -> list[Path]:
    """Return the files of a collection below ``root`` (:func:`find_images`), whose names a table can hold.

    Raises
    ------
    InputError
        A folder cannot be read, or a name is not in UTF-8.
    """
    found = find_images(root, *kinds)
    for path in (root, *found):
        try:
            str(path).encode()
        except UnicodeEncodeError:
            raise InputError(f"{path}: the name is not in UTF-8; rename the file, or the folder it is in") from None
    return found


def find_images(root: Path, *kinds: str) -> list[Path]:
    """Return every file below ``root`` that is ``DICOM`` or ``picture`` by its content or by its extension.

    Links are followed, and each folder is entered once. A file that matches only by its extension is refused later,
    when it is read. Files of macOS (``._name``) and the archive's own list (``DICOMDIR``) are ignored.

    Raises
    ------
    InputError
        A folder cannot be read.
    """
    endings = (*(DICOM if "DICOM" in kinds else ()), *(PICTURES if "picture" in kinds else ()))
    named = (path for path in walk_files(root) if not path.name.startswith("._") and path.name.upper() != "DICOMDIR")
    return [path for path in named if path.suffix.lower() in endings or kind_of(path) in kinds]


def walk_files(root: Path) -> Iterator[Path]:
    """Yield every file below a folder, by folder and name. Links are followed, and each folder is entered once.

    Raises
    ------
    InputError
        A folder cannot be read.
    """
    entered = set()

    def refuse(error: OSError):
        raise InputError(f"{error.filename}: cannot be read ({error.strerror}); give this user access") from None

    for folder, subfolders, names in os.walk(root, onerror=refuse, followlinks=True):
        status = os.stat(folder)
        if (status.st_dev, status.st_ino) in entered:  # a link that leads back
            subfolders.clear()
            continue
        entered.add((status.st_dev, status.st_ino))
        subfolders.sort()
        yield from (Path(folder) / name for name in sorted(names))


def kind_of(path: Path) -> str:
    """Return ``DICOM`` or ``picture`` by a file's first bytes; empty for other and for unreadable files."""
    try:
        if not path.is_file():  # reading a pipe would block
            return ""
        with open(path, "rb") as stream:
            start = stream.read(132)
    except OSError:
        return ""
    if start[128:] == b"DICM":
        return "DICOM"
    return "picture" if PICTURE_START.match(start) else ""


def is_dicom(path: Path) -> bool:
    """Whether to read a file as DICOM: by its content or, if that is inconclusive, by its extension."""
    return (kind_of(path) or ("picture" if path.suffix.lower() in PICTURES else "DICOM")) == "DICOM"
