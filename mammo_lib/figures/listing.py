"""The library's own source as a chapter shows it: a literal copy, so that text and code cannot diverge."""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Callable
from pathlib import Path

from IPython.display import Markdown

PACKAGE = Path(__file__).resolve().parents[1]


def source_listing(*functions: Callable) -> Markdown:
    """Return the source of functions or methods of the library, each under its file and line."""
    parts = []
    for function in functions:
        lines, first = inspect.getsourcelines(function)
        file = Path(inspect.getsourcefile(function)).resolve().relative_to(PACKAGE.parent).as_posix()
        parts.append(f"# {file}, line {first}\n{textwrap.dedent(''.join(lines)).rstrip()}")
    # Four backticks: a docstring may contain a fence of three.
    return Markdown("````python\n" + "\n\n\n".join(parts) + "\n````")
