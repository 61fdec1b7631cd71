"""Answers one command line of ``mammo`` after another in one process, a line of JSON in and a line of JSON out.

It is a separate process because ``MAMMO_ROOT`` is read at import, and because a process that hangs or dies can be
replaced.
"""

import json
import os
import sys
import traceback
from pathlib import Path

from mammo_lib.cli import main


def answer(arguments: list[str], environment: dict[str, str]) -> tuple[int | str | None, str]:
    """Return the exit code of a command, and what was raised where that is no exit."""
    before = dict(os.environ)
    os.environ.update(environment)
    sys.argv = ["mammo", *arguments]
    try:
        main()
        return 0, ""
    except SystemExit as exit:
        return exit.code or 0, ""
    except BaseException:
        return None, traceback.format_exc()
    finally:
        os.environ.clear()
        os.environ.update(before)


def caught(call, folder: Path) -> tuple[object, list[str]]:
    """Return what a call returns and what it said on stdout and stderr, libraries in C included."""
    paths = [folder / name for name in ("stdout", "stderr")]
    kept = [os.dup(number) for number in (1, 2)]
    for number, path in enumerate(paths, start=1):
        with open(path, "wb") as stream:
            os.dup2(stream.fileno(), number)
    try:
        result = call()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for number, copy in enumerate(kept, start=1):
            os.dup2(copy, number)
            os.close(copy)
    return result, [path.read_text("utf-8", errors="backslashreplace") for path in paths]


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    for line in sys.stdin:
        given = json.loads(line)
        (code, raised), said = caught(lambda given=given: answer(**given), folder)
        print(json.dumps({"code": code, "raised": raised, "stdout": said[0], "stderr": said[1]}), flush=True)
