"""Where a command begins and ends: Ctrl-C is an ordinary end, from the first import on.

Nothing but the standard library is imported here, because what a command needs takes seconds.
"""

import sys

INTERRUPTED = 130  # 128 and the number of the signal, as shells expect
TOLD = "interrupted; the same command resumes (a training after its last complete epoch) or starts again"


def main() -> None:
    """Run the command line; Ctrl-C undoes what is half done, says so in one line, and is the exit code."""
    try:
        from . import mammo

        mammo.main()
    except (KeyboardInterrupt, SystemExit) as end:
        code = INTERRUPTED if isinstance(end, KeyboardInterrupt) else end.code
        if code == INTERRUPTED:
            print(TOLD, file=sys.stderr)
        sys.exit(code)
