"""The one exception that means: the input is wrong, and here is what to do."""


class InputError(ValueError):
    """Something the user gave cannot be used.

    The message is one line that names the thing, the value and the way out;
    the command line prints it without a traceback and exits with code 2.
    """

    def __str__(self) -> str:
        """Return the message in one line, whatever names of files and values of tags it holds."""
        return printable(super().__str__())


def printable(text: str) -> str:
    """Return text with line breaks, control characters and halves of characters written as escapes."""
    return "".join(one if one.isprintable() else ascii(one)[1:-1] for one in text)
