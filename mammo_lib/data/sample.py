"""The sample that ships: eight breasts of CBIS-DDSM with their films and boxes, and the complete official tables.

It is read like any copy of the 800-px films. Whatever needs more films reads committed records instead.
"""

from __future__ import annotations

from pathlib import Path

from ..config import MATERIAL
from ..errors import InputError
from ..files import file_hash, read_json

SAMPLE = MATERIAL / "sample"


def sample_folder() -> Path:
    """Return the sample's folder after comparing every file with the manifest.

    Raises
    ------
    InputError
        A file is missing or has changed.
    """
    manifest = SAMPLE / "manifest.json"
    for name, wanted in read_json(manifest, "restore sample/ from the repository").items():
        path = SAMPLE / name
        if not path.is_file() or file_hash(path) != wanted:
            raise InputError(f"{path}: missing or changed; restore sample/ from the repository")
    return SAMPLE


def sample_breasts() -> list[str]:
    """Return the ids of the sample's breasts, "P_00009_RIGHT" first."""
    films = sorted((SAMPLE / "mass-800" / "train").glob("*_CC.jpg"))
    return [f"P_{path.stem.removesuffix('_CC')}" for path in films]
