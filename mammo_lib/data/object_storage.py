"""Copy files from object storage (``s3://bucket/folder``, or any other address that fsspec reads) into a folder.

Everything else reads the folder, so only this copy needs the network. A copied file keeps the size and the time of its
object, by which a later copy recognises it. Files are moved into place when complete, so a killed copy resumes.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from pathlib import Path

from tqdm import tqdm

from ..errors import InputError, writing_to
from ..files import alone

ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/+(.*)", re.DOTALL)  # at least two letters: one is a Windows drive
BATCH = 8  # objects that are requested at once
PARTIAL, LOCK = ".partial", ".fetch.lock"  # in the folder: files being copied, and the lock of the process that copies


@dataclass(frozen=True)
class Stored:
    """The objects below an address: ``{name from the address on: (bytes, time of the last change)}``."""

    address: str
    objects: dict[str, tuple[int, float]]

    def size(self, names: Iterable[str]) -> int:
        """Return the bytes of some objects."""
        return sum(self.objects[name][0] for name in names)


def as_address(text: object) -> str | None:
    """Return ``text`` as an address (``s3://...``), also if it was converted to a path; None for a local path.

    >>> as_address(Path("s3://bucket/cbis-ddsm")), as_address(Path("C:/cbis-ddsm"))
    ('s3://bucket/cbis-ddsm', None)
    """
    found = ADDRESS.fullmatch(str(text))
    return f"{found[1]}://{found[2]}" if found else None


@contextmanager
def fetching(folder: Path) -> Iterator[None]:
    """Let only one download at a time write into a folder, because unfinished files have the same names in each.

    Raises
    ------
    InputError
        Another download is running, or the folder cannot be written.
    """
    with writing_to(folder):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / LOCK).touch()
    refusal = f"{folder}: another mammo data fetch is writing here; wait until it ends, or give another folder"
    with alone(folder / LOCK, refusal):
        yield


def list_objects(address: str) -> Stored:
    """Return what lies below an address.

    Raises
    ------
    InputError
        The address cannot be read (a driver is not installed, no such bucket, no permission, no connection), or
        nothing lies below it.
    """
    with _reaching(address):
        filesystem, prefix = _open(address)
        filesystem.invalidate_cache()
        found = filesystem.find(prefix, detail=True)
        names = {path.removeprefix(prefix).lstrip("/"): info for path, info in found.items() if not path.endswith("/")}
        objects = {name: (info["size"], _seconds(filesystem.modified(info["name"]))) for name, info in names.items()}
    if not objects:
        raise InputError(f"{address}: nothing lies below this address; give that of the folder with the tables")
    return Stored(address, objects)


def copy_objects(stored: Stored, names: Iterable[str], folder: Path) -> None:
    """Copy the objects that ``folder`` lacks, with a progress bar; files of other sizes or times are replaced.

    Raises
    ------
    InputError
        An object's name leads out of the folder, the address cannot be read, or an object does not arrive whole.
    """
    names = list(names)
    for name in names:
        if not (folder / name).resolve().is_relative_to(folder.resolve()):
            raise InputError(f"{stored.address}: the object {name!r} would be written outside {folder}; rename it")
    waiting = [name for name in names if not _is_copied(folder / name, *stored.objects[name])]
    partial = folder / PARTIAL
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)  # not every driver creates the folder that it copies into
    total, done = stored.size(names), stored.size(names) - stored.size(waiting)
    with tqdm(total=total, initial=done, desc="copying", unit="B", unit_scale=True, disable=not waiting) as bar:
        for batch in _batches(waiting):
            _copy(stored, batch, partial, folder)
            bar.update(stored.size(batch))
    shutil.rmtree(partial, ignore_errors=True)


def _copy(stored: Stored, names: list[str], partial: Path, folder: Path) -> None:
    arrived = [partial / str(number) for number, _ in enumerate(names)]
    with _reaching(stored.address):
        filesystem, prefix = _open(stored.address)
        filesystem.get([f"{prefix}/{name}" for name in names], [str(path) for path in arrived])
    for name, path in zip(names, arrived, strict=True):
        size, seconds = stored.objects[name]
        if not path.is_file() or path.stat().st_size != size:
            raise InputError(f"{stored.address}: {name} did not arrive whole; run the same command again")
        os.utime(path, (seconds, seconds))
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        os.replace(path, folder / name)


def _open(address: str):
    from fsspec.core import url_to_fs

    filesystem, prefix = url_to_fs(address)
    return filesystem, prefix.rstrip("/")


def _is_copied(path: Path, size: int, seconds: float) -> bool:
    try:
        status = path.stat()
    except OSError:
        return False
    return status.st_size == size and abs(status.st_mtime - seconds) < 1  # file systems round times


def _seconds(time: datetime | float) -> float:
    return time.timestamp() if isinstance(time, datetime) else float(time)


def _batches(names: list[str]) -> Iterator[list[str]]:
    rest = iter(names)
    while batch := list(islice(rest, BATCH)):
        yield batch


@contextmanager
def _reaching(address: str) -> Iterator[None]:
    """Turn any exception of a driver into a one-line error; every driver has its own exceptions."""
    try:
        yield
    except ImportError as error:
        raise InputError(
            f"{address}: {error}; for s3:// install the extra 'cloud': pip install -c constraints.txt -e '.[cloud]'"
        ) from None
    except Exception as error:
        raise InputError(
            f"{address}: cannot be read ({error or type(error).__name__}); check the address, the credentials and the "
            "connection, then run the same command again"
        ) from None
