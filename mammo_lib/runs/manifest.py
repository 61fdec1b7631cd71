"""The manifest of a record: the SHA-256 of every file, so that a damaged record is never read.

Opening the test set changes some files of a finished record, one after the other. A manifest therefore also contains
the hash of the metrics before the opening. A receipt that the manifest does not list means that the opening was
interrupted. The files that an opening changes are then not checked, and the opening can be repeated.
"""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path

from ..config import is_rehearsal
from ..errors import InputError
from ..files import file_hash, file_state, known_hash, read_json, write_json

MANIFEST = "manifest.json"
METRICS = "metrics.json"  # a run with this file is finished
CHECKPOINT = "best.ckpt"  # not published with a record
RELEASED = "weights.safetensors"  # a released network's, in half precision
CHANGED_BY_OPENING = ("gates.parquet", "interventions.parquet", "predictions.parquet", "receipt.json")
RECORD = (
    "config.json", "environment.json", "history.csv", "gate_history.parquet", METRICS, CHECKPOINT,
    RELEASED, "hidden_inputs.parquet", "targets.parquet",
    *CHANGED_BY_OPENING,
)  # fmt: skip
WATCHED = {MANIFEST, *RECORD}
REHEARSED = "rehearsal"  # true in the environment of a record that was made in a rehearsal
WAY_OUT = "restore the record, or delete its folder and run it again"


def write_manifest(folder: Path, metrics: Path) -> None:
    """Write the hashes of a record's files; for the metrics, the hashes of the current and of the new file."""
    files = {name: known_hash(folder / name) for name in RECORD if (folder / name).is_file()}
    before, files[METRICS] = files.get(METRICS), file_hash(metrics)
    write_json(folder / MANIFEST, {"files": files, "metrics_before": None if before == files[METRICS] else before})


def check_files(folder: Path) -> list[str]:
    """Return the faults of a record's files, one line each; none for a record without a manifest.

    Outside a rehearsal, a record that was made in one is a fault.
    """
    return list(_check(folder, _state_of(folder)))


def _state_of(folder: Path) -> tuple:
    """Return name and state of a record's files, from one listing: chapters ask thousands of times."""
    if not folder.is_dir():
        return ()
    with os.scandir(folder) as entries:
        return tuple(sorted((one.name, file_state(one)) for one in entries if one.name in WATCHED and one.is_file()))


@lru_cache(maxsize=1024)
def _check(folder: Path, _state: tuple) -> tuple[str, ...]:
    """Compare files with the manifest, once per state of the folder, since checkpoints are large."""
    if not is_rehearsal() and is_rehearsed(folder):
        return (f"{folder}: made in a rehearsal, on a phantom with random weights: not a result; give another record",)
    if not (folder / MANIFEST).is_file():
        return ()
    try:
        held = read_json(folder / MANIFEST, WAY_OUT)
    except InputError as error:
        return (str(error),)
    files, before = held.get("files"), held.get("metrics_before")
    if not isinstance(files, dict) or METRICS not in files:
        return (f"{folder / MANIFEST}: does not list the files of a record; {WAY_OUT}",)
    was_cut_short = "receipt.json" not in files and (folder / "receipt.json").is_file()
    names = [name for name in RECORD if not (was_cut_short and name in CHANGED_BY_OPENING)]
    found = {name: _fault(folder / name, files.get(name), before if name == METRICS else None) for name in names}
    return tuple(f"{folder / name}: {fault}; {WAY_OUT}" for name, fault in found.items() if fault)


def is_rehearsed(folder: Path) -> bool:
    """Whether a record says that it was made in a rehearsal; False for a record that cannot be read."""
    try:
        return bool(read_json(folder / "environment.json").get(REHEARSED))
    except InputError:
        return False


def _fault(path: Path, wanted: str | None, before: str | None) -> str | None:
    if not path.is_file():
        return "missing from the record" if wanted and path.name != CHECKPOINT else None
    if wanted is None:
        return None if path.name == CHECKPOINT else "not a file of this record: its manifest does not list it"
    return None if known_hash(path) in (wanted, before) else "damaged: it differs from the record's manifest"
