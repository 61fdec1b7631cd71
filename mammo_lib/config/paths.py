"""Location of the project and of its material, and the number of this process within a run."""

from __future__ import annotations

import os
from pathlib import Path

from ..errors import InputError

REHEARSAL = "rehearsal.json"  # marks a project folder as a rehearsal, in which nothing is a result
RANKS = ("RANK", "LOCAL_RANK", "SLURM_PROCID")  # above 0 in a run's second and later processes, whoever started them
PACKAGE = Path(__file__).resolve().parents[1]


def find_root() -> Path:
    """Return the project folder: ``MAMMO_ROOT``, or the nearest parent with ``_config.yml`` and ``notebooks/``.

    Notebooks are started from several folders (JupyterLab and nbmake use ``notebooks/``, papermill the folder in which
    it was called), so no path may be relative to the working folder. Outside a checkout (the installed wheel), the
    project folder is the working folder.
    """
    if os.environ.get("MAMMO_ROOT"):
        return Path(os.path.realpath(os.environ["MAMMO_ROOT"]))
    for start in (Path.cwd(), PACKAGE):
        for folder in (start, *start.parents):
            if (folder / "_config.yml").is_file() and (folder / "notebooks").is_dir():
                return folder
    return Path.cwd()


def is_rehearsal() -> bool:
    """Whether this project folder is that of a rehearsal (:mod:`mammo_lib.report.rehearsal`)."""
    return (ROOT / REHEARSAL).is_file()


def process_number(variable: str) -> int:
    """Return the number that a launcher set for this process in an environment variable; 0 without a launcher."""
    text = os.environ.get(variable, "0")
    try:
        return int(text)
    except ValueError:
        raise InputError(f"{variable}={text}: not the number of a process; unset {variable}") from None


def find_material(root: Path) -> Path:
    """Return the folder that contains ``data_manifest/`` and ``book/``: ``root``, the checkout or the wheel."""
    for folder in (root, PACKAGE.parent):
        if (folder / "data_manifest").is_dir() and (folder / "book" / "protocol.md").is_file():
            return folder
    return PACKAGE / "material"


ROOT = find_root()
MATERIAL = find_material(ROOT)
BUILD = ROOT / "_build"
