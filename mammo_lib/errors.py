"""The exception for errors in a user's input."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator

LONGEST_MESSAGE = 1500  # characters
CUT = " ... "


class InputError(ValueError):
    """An input of the user cannot be used.

    The message is one line that names the item, the value and the remedy.
    The command line prints it without a traceback and exits with code 2.
    """

    def __str__(self) -> str:
        """Return the message in one line of bounded length, whatever file names and tag values it contains."""
        text = printable(super().__str__())
        if len(text) <= LONGEST_MESSAGE:
            return text
        half = (LONGEST_MESSAGE - len(CUT)) // 2  # the item is named at the start, the remedy at the end
        return text[: LONGEST_MESSAGE - len(CUT) - half] + CUT + text[-half:]


@contextlib.contextmanager
def writing_to(path: object, remedy: str = "give another place") -> Iterator[None]:
    """Turn a system error while ``path`` is written (a file in place of a folder, a full disk) into one line."""
    try:
        yield
    except OSError as error:
        # Of a copied folder there is a list of (source, target, reason).
        nested = isinstance(error, shutil.Error) and error.args and isinstance(error.args[0], list)
        reason = error.args[0][0][2] if nested else error.strerror or error
        raise InputError(f"{path}: cannot be written ({reason}); {remedy}") from None


def printable(text: str) -> str:
    """Return text with line breaks, control characters and incomplete characters written as escapes."""
    return "".join(one if one.isprintable() else ascii(one)[1:-1] for one in text)
