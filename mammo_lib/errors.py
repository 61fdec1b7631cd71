"""The one exception that means: the input is wrong, and here is what to do."""


class InputError(ValueError):
    """Something the user gave cannot be used.

    The message is one line that names the thing, the value and the way out;
    the command line prints it without a traceback and exits with code 2.
    """
