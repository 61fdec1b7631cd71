"""Files: read what somebody else wrote, guarded; write whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import re
import unicodedata
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import InputError

if TYPE_CHECKING:
    import pandas as pd

LONGEST_NAME = 200  # bytes: a PatientID of 64 letters of any script, and an ending, below the 255 of file systems
WINDOWS_DEVICES = re.compile(r"(con|prn|aux|nul|conin|conout|(com|lpt)\d)(\.|$)", re.IGNORECASE)
BYTE_ORDER_MARKS = {b"\xef\xbb\xbf": "utf-8-sig", b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}


def read_text(path: Path) -> str:
    """Return a text file, UTF-8 or as its byte order mark says (PowerShell writes UTF-16, Notepad a mark).

    Raises
    ------
    InputError
        The file is missing, cannot be read or is in another encoding.
    """
    try:
        content = Path(path).read_bytes()
        encoding = next((name for mark, name in BYTE_ORDER_MARKS.items() if content.startswith(mark)), "utf-8")
        return content.decode(encoding)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); give the path of a text file") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8") from None


def read_json(path: Path, way_out: str = "restore the file") -> dict:
    """Return the mapping that a JSON file holds; ``way_out`` ends the message where it does not.

    Raises
    ------
    InputError
        The file cannot be read, is not JSON, or holds no mapping.
    """
    text = read_text(path)
    try:
        content = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise InputError(f"{path}: not JSON ({error}); {way_out}") from None
    if not isinstance(content, dict):
        raise InputError(f"{path}: JSON, but a {type(content).__name__} where a mapping belongs; {way_out}")
    return content


def safe_name(text: str) -> str:
    """Return ``text`` as the name of a file, without an ending; a safe name stays as it is.

    Whatever comes from tags, tables and file names passes through here before it becomes part of a path. Letters,
    digits and ``_ - . + = @`` stay, anything else becomes ``_``. Two texts can get the same name: the caller tells.
    """
    # Compatibility forms first: a full-width slash becomes a slash, which goes.
    plain = re.sub(r"[^\w.+=@-]+", "_", unicodedata.normalize("NFKC", str(text)))
    short = plain.lstrip(".-").encode()[:LONGEST_NAME].decode(errors="ignore").rstrip(".")
    return f"_{short}" if not short or WINDOWS_DEVICES.match(short) else short


def file_hash(path: Path) -> str:
    """Return the SHA-256 of a file's bytes."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def write_json(path: Path, value: object) -> None:
    """Write ``value`` as JSON, whole or not at all."""
    write_bytes(path, (json.dumps(value, indent=1, sort_keys=True, allow_nan=False) + "\n").encode())


def write_csv(path: Path, frame: pd.DataFrame) -> None:
    """Write ``frame`` as CSV, whole or not at all."""
    write_bytes(path, frame.to_csv(index=False).encode())


def write_parquet(path: Path, frame: pd.DataFrame) -> None:
    """Write ``frame`` as Parquet, whole or not at all."""
    write_bytes(path, frame.to_parquet(None, index=False, compression="zstd"))


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file, whole or not at all."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        partial.write_bytes(content)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
