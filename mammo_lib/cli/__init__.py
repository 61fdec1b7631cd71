"""The command line, ``mammo``: thin wrappers that print, one file per subject.

:mod:`mammo_lib.cli.mammo` lists the commands. A user's error is one line, with exit code 2.
"""

from .mammo import app, main

__all__ = ["app", "main"]
