"""Code shared by the fuzz tests: inputs are given one after another, and their outcomes are counted."""

from __future__ import annotations

import os
import signal
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd

from mammo_lib.errors import LONGEST_MESSAGE, InputError

TAKEN = ("read as before", "read otherwise", "refused in one line")
FAULTS = ("tracebacks", "hangs", "writes outside", "other answers")
COLUMNS = ("inputs", *TAKEN, *FAULTS)
PATIENCE_S = 60  # for one input; on a busy machine the slowest takes a few seconds


class Counts:
    """How many inputs of each kind an entry point took in which way, and one text for each fault."""

    def __init__(self):
        self._rows: dict[tuple[str, str], dict[str, int]] = {}
        self.faults: list[str] = []

    def add(self, entry: str, kind: str, came: str, why: str = "") -> None:
        """Count one input; ``came`` is one of ``TAKEN`` or ``FAULTS``."""
        row = self._rows.setdefault((entry, kind), dict.fromkeys(COLUMNS, 0))
        row["inputs"] += 1
        row[came] += 1
        if came in FAULTS:
            self.faults.append(f"{entry}, {kind}: {came}: {why}")

    @property
    def table(self) -> pd.DataFrame:
        """One row per entry point and kind."""
        rows = [{"entry": entry, "kind": kind, **row} for (entry, kind), row in sorted(self._rows.items())]
        return pd.DataFrame(rows, columns=["entry", "kind", *COLUMNS])


def came_of(read: Callable[[], object], is_same: Callable[[object], bool]) -> tuple[str, str]:
    """Call ``read``; return what came of it and, where that is a fault, why.

    ``is_same`` says whether an answer is that of the undamaged input; an assertion that fails in it or in ``read``
    means an answer that nobody may get.
    """
    with alarm() as late:
        try:
            came, why = ("read as before" if is_same(read()) else "read otherwise"), ""
        except InputError as error:
            came, why = "refused in one line", str(error)
            if "\n" in why or len(why) > LONGEST_MESSAGE:
                came = "other answers"
        except AssertionError as error:
            came, why = "other answers", repr(error)
        except BaseException as error:  # decoders in Rust raise what is no Exception
            came, why = "tracebacks", "".join(traceback.format_exception(error))[-1500:]
    return ("hangs", f"more than {PATIENCE_S} s") if late else (came, why)


@contextmanager
def alarm() -> Iterator[list]:
    """Interrupt what takes longer than ``PATIENCE_S``; the list is then no longer empty, whoever caught the error."""
    late: list[bool] = []

    def ring(*_):
        late.append(True)
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(PATIENCE_S)
    try:
        yield late
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def state_of(*folders: Path) -> dict[str, tuple[int, int]]:
    """Return size and time of everything below the folders, which a write would change."""
    found = {}
    for top in folders:
        for folder, subfolders, names in os.walk(top):
            for path in (os.path.join(folder, name) for name in [*subfolders, *names]):
                status = os.lstat(path)
                found[path] = (status.st_size, status.st_mtime_ns)
    return found


def judge(counts: Counts, record_property: Callable[[str, object], None]) -> None:
    """Print the counts, leave them in the report for ``benchmarks/withstands.py``, and fail where there is a fault."""
    print(counts.table.to_string(index=False))
    record_property("counts", counts.table.to_dict("records"))
    assert counts.faults == [], "\n\n".join(counts.faults)
