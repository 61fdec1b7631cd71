"""A cache of facts about files, valid until a file is replaced or changed.

Size and modification time are not sufficient: `cp -p`, `rsync -t` and `unzip` restore them, and films of one scanner
have the same size. We use the time of the last status change, which no program can set, and the content for small files
and in the seconds after a change.

Hashing and opening thousands of large files takes minutes on a network drive; a small SQLite file stores the answers.
If it cannot be written, everything is computed again.
"""

from __future__ import annotations

import json
import os
import sqlite3
import stat
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

from tqdm import tqdm

from ..config import BUILD
from ..errors import printable
from ..files import file_hash

MEMO = BUILD / "files.sqlite"
SMALL = 1 << 20  # bytes: reading such a file takes no longer than asking for its status
YOUNG_S = 3.0  # two writes may get the same time stamp: file system clocks tick every 4 ms, or every 2 s
MANY = 300  # number of files from which a progress bar is shown
BATCH = 64  # answers between two writes


def remember(
    what: str, paths: Iterable[Path], compute: Callable[[Path], object], keep: Callable[[object], bool] = lambda _: True
) -> dict[Path, object]:
    """Return ``{path: compute(path)}``, in threads. Answers are JSON values.

    Each file is processed once per ``what``. A killed call keeps the answers that it wrote. Errors are not kept, nor
    are answers that ``keep`` refuses because they describe an error.
    """
    paths = list(dict.fromkeys(paths))
    stamps = {path: printable(f"{what}|{path}|{_stamp(path)}") for path in paths}
    with closing(_connect()) as memo:
        known = {path: answer for path, answer in _look_up(memo, stamps).items() if keep(answer)}
        waiting = [path for path in paths if path not in known]
        bar = tqdm(total=len(waiting), desc=what, unit="file", disable=len(waiting) < MANY, dynamic_ncols=True)
        with ThreadPoolExecutor() as pool, bar:
            for start in range(0, len(waiting), BATCH):
                batch = waiting[start : start + BATCH]
                answers = dict(zip(batch, pool.map(compute, batch), strict=True))
                known |= answers
                _write(memo, {stamps[path]: answer for path, answer in answers.items() if keep(answer)})
                bar.update(len(batch))
    return known


def _stamp(path: Path) -> str:
    """Return a stamp that changes whenever the content of the file changes."""
    try:
        status = os.stat(path)
        if stat.S_ISREG(status.st_mode) and (status.st_size <= SMALL or time.time() - status.st_ctime < YOUNG_S):
            return file_hash(path)
    except OSError:
        return "gone"
    return f"{status.st_dev}|{status.st_ino}|{status.st_size}|{status.st_mtime_ns}|{status.st_ctime_ns}"


def _connect() -> sqlite3.Connection:
    try:
        MEMO.parent.mkdir(parents=True, exist_ok=True)
        memo = sqlite3.connect(MEMO, timeout=30)
        memo.execute("CREATE TABLE IF NOT EXISTS memo (stamp TEXT PRIMARY KEY, answer TEXT)")
    except (OSError, sqlite3.Error):
        memo = sqlite3.connect(":memory:")
        memo.execute("CREATE TABLE memo (stamp TEXT PRIMARY KEY, answer TEXT)")
    return memo


def _look_up(memo: sqlite3.Connection, stamps: dict[Path, str]) -> dict[Path, object]:
    found = {}
    try:
        for path, stamp in stamps.items():
            row = memo.execute("SELECT answer FROM memo WHERE stamp = ?", (stamp,)).fetchone()
            if row:
                found[path] = json.loads(row[0])
    except (sqlite3.Error, ValueError):
        return found  # a damaged or locked file: the other answers are computed again
    return found


def _write(memo: sqlite3.Connection, answers: dict[str, object]) -> None:
    rows = [(stamp, json.dumps(answer)) for stamp, answer in answers.items()]
    try:
        with memo:
            memo.executemany("INSERT OR REPLACE INTO memo VALUES (?, ?)", rows)
    except sqlite3.Error:
        return  # a full disk or a lost drive: the answers are used, only not kept
