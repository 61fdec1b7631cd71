"""Finding image files below a folder."""

from __future__ import annotations

import os
from pathlib import Path

from ..errors import InputError


def find_dicom(root: Path) -> list[Path]:
    """Return every ``*.dcm`` file below ``root``, links followed, each folder entered once.

    Raises
    ------
    InputError
        A folder cannot be read.
    """
    found, entered = [], set()

    def refuse(error: OSError):
        raise InputError(f"{error.filename}: cannot be read ({error.strerror}); give this user access") from None

    for folder, subfolders, names in os.walk(root, onerror=refuse, followlinks=True):
        status = os.stat(folder)
        if (status.st_dev, status.st_ino) in entered:  # a link that leads back
            subfolders.clear()
            continue
        entered.add((status.st_dev, status.st_ino))
        subfolders.sort()
        found += [Path(folder) / name for name in sorted(names) if name.lower().endswith(".dcm")]
    return found
