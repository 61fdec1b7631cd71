"""Where a command begins and ends: Ctrl-C and SIGTERM are ordinary ends, from the first import on.

Nothing but the standard library is imported here, because what a command needs takes seconds.
"""

import os
import signal
import sys

INTERRUPTED, TERMINATED = 130, 143  # 128 and the number of the signal, as shells and queues expect
TOLD_BY_CALLER = "MAMMO_TOLD_BY_CALLER"  # where it is set, the command that started this process tells of its end
TOLD = "interrupted; the same command resumes (a training after its last complete epoch) or starts again"


def main() -> None:
    """Run the command line. After Ctrl-C or SIGTERM half-done work is undone, and the exit code names the signal.

    One line tells it; of a rehearsal, the command that waits for its process does. Where the caller ignores or handles
    SIGTERM, as after ``trap '' TERM``, that stays.
    """
    is_told = os.environ.pop(TOLD_BY_CALLER, None) is None  # not for the processes of this one
    is_default = signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    if is_default:
        signal.signal(signal.SIGTERM, leave)
    try:
        from . import mammo

        mammo.run_command_line()
    except (KeyboardInterrupt, SystemExit) as end:
        code = INTERRUPTED if isinstance(end, KeyboardInterrupt) else end.code
        if is_told and code in (INTERRUPTED, TERMINATED):
            print(TOLD, file=sys.stderr)
        sys.exit(code)
    finally:
        if is_default:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


def leave(number: int, _frame: object) -> None:
    """End as by ``sys.exit``, so that temporary files are removed; a second signal does not break that off.

    Lightning puts a handler of its own in this one's place, which calls it too, and ends a training after the batch.
    """
    if signal.getsignal(number) is leave:
        signal.signal(number, signal.SIG_IGN)
        sys.exit(128 + number)
