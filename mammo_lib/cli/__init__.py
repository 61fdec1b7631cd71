"""The command line, ``mammo``: thin wrappers that print, one file per subject.

:mod:`mammo_lib.cli.mammo` lists the commands. A user's error is one line, with exit code 2.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submod_attrs={"mammo": ["app"], "start": ["main"]})
