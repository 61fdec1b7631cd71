"""Files: guarded reading of foreign files, and atomic writing."""

from __future__ import annotations

import contextlib
import csv
import errno
import gzip
import hashlib
import io
import json
import os
import re
import tempfile
import unicodedata
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import filelock

from .errors import InputError

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

LONGEST_NAME = 200  # bytes: a PatientID of 64 letters in any script and a suffix fit into a file system's 255
WINDOWS_DEVICES = re.compile(r"(con|prn|aux|nul|conin|conout|(com|lpt)\d)(\.|$)", re.IGNORECASE)
BYTE_ORDER_MARKS = {b"\xef\xbb\xbf": "utf-8-sig", b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}
LARGEST_TEXT = 2**25  # bytes: several times the largest known table, that of the Kaggle mirror
SEPARATORS = ",;\t"
UNKNOWN = ("", "N/A", "NA")  # cells without a value


def read_text(path: Path, fallback: str | None = None) -> str:
    """Return a text file in UTF-8, or in the encoding of its byte order mark (PowerShell writes UTF-16).

    ``fallback`` is the encoding of a file that is not in UTF-8; without it, such a file is refused.

    Raises
    ------
    InputError
        The file is missing, not regular, larger than ``LARGEST_TEXT``, unreadable or in another encoding.
    """
    return _decoded(Path(path), _content(Path(path)), fallback)


def read_json(path: Path, remedy: str = "restore the file") -> dict:
    """Return the mapping in a JSON file; an error message ends with ``remedy``.

    Raises
    ------
    InputError
        The file cannot be read, is not JSON, contains no mapping, or has a key twice in one.
    """
    text = read_text(path)
    try:
        content = json.loads(text, object_pairs_hook=_without_repeats)
    except (ValueError, RecursionError) as error:  # ValueError: also a number of thousands of digits
        raise InputError(f"{path}: not JSON ({error}); {remedy}") from None
    if not isinstance(content, dict):
        raise InputError(f"{path}: JSON, but a {type(content).__name__} instead of a mapping; {remedy}")
    return content


def _without_repeats(pairs: list[tuple[str, object]]) -> dict:
    content = dict(pairs)
    if len(content) < len(pairs):
        (key, _), *_ = Counter(key for key, _ in pairs).most_common(1)
        raise ValueError(f"the key {key!r:.80} occurs twice")
    return content


def read_table(
    path: Path,
    columns: Iterable[str] = (),
    remedy: str = "restore the file",
    unknown: Sequence[str] = UNKNOWN,
    fallback: str | None = None,
    header: str = "",
) -> pd.DataFrame:
    """Return a CSV file as text, one column per name of its header; ``unknown`` cells are NA.

    Cells are separated by a comma, a semicolon, a tab, or the separator of a first line ``sep=``. Empty rows are left
    out. The index plus 2 is the row number in a spreadsheet. ``fallback`` is passed to :func:`read_text`; lines above
    the first one that contains ``header`` are left out.

    Raises
    ------
    InputError
        The file cannot be read, is in UTF-16, or is not CSV; a row has more or fewer cells than the header; two
        columns have the same name; one of ``columns`` is missing.
    """
    import pandas as pd

    first, (names, *rows) = _cells(Path(path), remedy, fallback, header)
    header = [name.strip() for name in names]
    _check_header(path, header, columns, remedy)
    filled = {number: row for number, row in enumerate(rows, first) if any(cell.strip() for cell in row)}
    for number, row in filled.items():
        if len(row) != len(header):
            raise InputError(f"{path}, row {number + 2}: {len(row)} cells under {len(header)} names; {remedy}")
    frame = pd.DataFrame(filled.values(), index=[*filled], columns=header, dtype="string")
    named = frame[[name for name in header if name]]  # pandas writes an unnamed column, spreadsheets write empty ones
    return named.mask(named.apply(lambda column: column.str.strip()).isin([*unknown]))


def with_numbers(path: Path, table: pd.DataFrame, columns: Iterable[str]) -> pd.DataFrame:
    """Return a table of :func:`read_table` with columns as numbers: integers if all are whole, NaN for unknown.

    Raises
    ------
    InputError
        A cell is not a number.
    """
    import pandas as pd

    numbers = {name: pd.to_numeric(table[name].astype(object), errors="coerce") for name in columns}
    for name, values in numbers.items():
        require(path, table[name], values.notna() | table[name].isna(), "a number, written with a point")
    return table.assign(**numbers)


def require(path: Path, column: pd.Series, is_right: pd.Series, must_be: str, remedy: str = "") -> None:
    """Raise InputError for the first invalid cell of a table's column; an unknown result counts as invalid."""
    import pandas as pd

    for row in column.index[~is_right.fillna(False).astype(bool)]:
        value = column[row]
        found = "nothing" if pd.isna(value) else f"{value!r:.80}" if isinstance(value, str) else value
        raise InputError(
            f"{path}, row {row + 2}: {column.name} must be {must_be}, got {found}{remedy and '; '}{remedy}"
        )


def _content(path: Path) -> bytes:
    """Return the bytes of a regular file of bounded size, unpacked if its name ends in ``.gz``."""
    if os.path.exists(path) and not os.path.isfile(path):  # reading a pipe would block
        raise InputError(f"{path}: cannot be read (a folder, a pipe or a device); give the path of a text file")
    try:
        with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as stream:
            content = stream.read(LARGEST_TEXT + 1)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{path}: cannot be read ({reason}); give the path of a text file") from None
    if len(content) > LARGEST_TEXT:
        raise InputError(
            f"{path}: larger than {LARGEST_TEXT >> 20} MiB, the largest size of a text file here; give another one"
        )
    return content


def _decoded(path: Path, content: bytes, fallback: str | None = None) -> str:
    encoding = next((name for mark, name in BYTE_ORDER_MARKS.items() if content.startswith(mark)), "utf-8")
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        if fallback:
            return _decoded(path, content.decode(fallback, errors="replace").encode())
        guess = "" if encoding == "utf-16" else ", perhaps Latin-1 or Windows-1252"
        why = f"{error.reason} at byte {error.start}"
        raise InputError(f"{path}: not UTF-8 text{guess} ({why}); save it as UTF-8") from None
    if (place := text.find("\0")) >= 0:
        raise InputError(f"{path}: not a text file, a NUL at character {place}; give a text file in UTF-8")
    return text


def _cells(path: Path, remedy: str, fallback: str | None = None, header: str = "") -> tuple[int, list[list[str]]]:
    """Return the rows of a CSV file, the header first, and the number of lines above it."""
    content = _content(path)
    if BYTE_ORDER_MARKS.get(content[:2]):  # a spreadsheet's "Unicode text" export: never the published file
        raise InputError(f"{path}: UTF-16; save it as CSV in UTF-8, or {remedy}")
    text = _decoded(path, content, fallback).lstrip("\r\n")
    declared = re.match(r'"?sep=([^\w\s"]|\t)"?\r?\n', text)
    text = text[declared.end() :] if declared else text
    above = text[: text.rfind("\n", 0, max(0, text.find(header))) + 1]
    text = text.removeprefix(above)
    separator = declared[1] if declared else max(SEPARATORS, key=text.partition("\n")[0].count)
    try:
        rows = [*csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)]
    except csv.Error as error:
        raise InputError(f"{path}: not a readable CSV ({error}); {remedy}") from None
    if not rows:
        raise InputError(f"{path}: not a readable CSV (it is empty); {remedy}")
    return above.count("\n"), rows


def _check_header(path: Path, header: list[str], columns: Iterable[str], remedy: str) -> None:
    for name, times in Counter(header).items():
        if name and times > 1:
            raise InputError(f"{path}: column {name!r:.80} occurs {times} times; {remedy}")
    missing = [name for name in columns if name not in header]
    if missing:
        raise InputError(f"{path}: column {missing[0]!r} is missing (found: {', '.join(header):.300}); {remedy}")


def read_array(
    path: Path, remedy: str = "delete the file and run the command again", part: int | None = None
) -> np.ndarray:
    """Return the array in a ``.npy`` file, or one ``part`` of it along its first axis, without reading the rest.

    Raises
    ------
    InputError
        The file is missing or damaged, or has no such part.
    """
    import numpy as np

    try:
        return np.load(path) if part is None else np.load(path, mmap_mode="r")[part]
    except Exception as error:  # numpy raises six kinds for a damaged header
        raise InputError(f"{path}: cannot be read ({type(error).__name__}); {remedy}") from None


def safe_name(text: str) -> str:
    """Return ``text`` as a file name without an extension; a safe name is unchanged.

    All text from tags, tables and file names passes through here before it becomes part of a path. Letters, digits and
    ``_ - . + = @`` are kept; anything else becomes ``_``. Two texts can get the same name; the caller must check.
    """
    # Normalise first: a full-width slash becomes a plain slash, which is then replaced.
    plain = re.sub(r"[^\w.+=@-]+", "_", unicodedata.normalize("NFKC", str(text)))
    short = plain.lstrip(".-").encode()[:LONGEST_NAME].decode(errors="ignore").rstrip(".")
    return f"_{short}" if not short or WINDOWS_DEVICES.match(short) else short


def file_hash(path: Path) -> str:
    """Return the SHA-256 of a file's bytes."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def known_hash(path: Path) -> str:
    """Return the SHA-256 of a file, computed once per state of the file: large weights take seconds."""
    return _hash_of(path, file_state(path))


def file_state(path: Path | os.DirEntry) -> tuple[int, int, int]:
    """Return size, modification time and inode: anything derived from a file is valid while these are unchanged."""
    state = path.stat()
    return state.st_size, state.st_mtime_ns, state.st_ino


@lru_cache(maxsize=1024)
def _hash_of(path: Path, _state: tuple) -> str:
    return file_hash(path)


@contextlib.contextmanager
def alone(lock: Path, refusal: str) -> Iterator[None]:
    """Hold a lock file, in an existing folder, for as long as the block runs.

    Raises
    ------
    InputError
        Another process holds it; the message is ``refusal``.
    """
    try:
        held = filelock.FileLock(lock).acquire(timeout=0)
    except filelock.Timeout:
        raise InputError(refusal) from None
    with held:
        yield


def write_json(path: Path, value: object) -> None:
    """Write ``value`` as JSON, atomically."""
    write_bytes(path, (json.dumps(value, indent=1, sort_keys=True, allow_nan=False) + "\n").encode())


def write_csv(path: Path, frame: pd.DataFrame) -> None:
    """Write ``frame`` as CSV, atomically."""
    write_bytes(path, frame.to_csv(index=False).encode())


def write_parquet(path: Path, frame: pd.DataFrame) -> None:
    """Write ``frame`` as Parquet, atomically."""
    write_bytes(path, frame.to_parquet(None, index=False, compression="zstd"))


def write_array(path: Path, array: np.ndarray) -> None:
    """Write ``array`` as ``.npy``, atomically."""
    import numpy as np

    content = io.BytesIO()
    np.save(content, array)
    write_bytes(path, content.getvalue())


def new_folder(folder: str | Path) -> Path:
    """Return the absolute path of a folder that will be moved to its place as a whole; a link to a folder is followed.

    Raises
    ------
    InputError
        It is the current folder, and a process that works there would be left in a folder that no longer exists; or it
        is a link that leads nowhere.
    """
    if os.path.realpath(folder) == os.path.realpath("."):
        raise InputError(f"{folder}: is the current folder; give a new one")
    if not os.path.islink(folder):
        return Path(os.path.abspath(folder))
    if not os.path.exists(folder):
        raise InputError(f"{folder}: a link to {os.readlink(folder)}, which is not there; remove it, or give a new one")
    return Path(os.path.realpath(folder))


def try_folder(folder: Path) -> None:
    """Make a folder, unless it is there, and try a file in it: before long work whose result belongs into it.

    Raises
    ------
    OSError
        It takes no file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tempfile.TemporaryFile(dir=folder).close()


def writable_file(path: Path) -> Path:
    """Return the place to which a link leads, if a regular file can be put there.

    Raises
    ------
    OSError
        A pipe, a socket or a device is there, and renaming a file over it would destroy it.
    """
    path = Path(os.path.realpath(path))
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise OSError(errno.EEXIST, "a pipe, a socket or a device is there", str(path))
    return path


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file atomically: completely or not at all. A link is followed; a pipe or a device is not replaced.

    Raises
    ------
    OSError
        The place cannot be written.
    """
    path = writable_file(path)
    partial = path.parent / f".{path.name}.{os.getpid()}"
    try:
        partial.write_bytes(content)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
