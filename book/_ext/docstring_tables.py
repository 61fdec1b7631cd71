"""Let docstrings hold the pipe tables that read well in a terminal: the API page gets them as tables.

Indented lines behind a table are the source equations, and are shown as they stand.
"""

from __future__ import annotations


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def convert(lines: list[str]) -> list[str]:
    """Return a docstring's lines with each pipe table as a list-table, and indented lines behind it as they stand."""
    converted, in_table = [], False
    for i, line in enumerate(lines):
        is_row = line.lstrip().startswith("|")
        if is_row and not in_table:
            converted += ["", ".. list-table::", "   :header-rows: 1", ""]
        if is_row and set(line) - set("|-: "):
            first, *others = _cells(line)
            converted += [f"   * - {first}", *(f"     - {cell}" for cell in others)]
        if not is_row:
            if in_table:
                after = next((text for text in lines[i:] if text.strip()), "")
                converted += ["", "::", ""] if after.startswith(" ") else [""]
            converted.append(line)
        in_table = is_row
    return converted


def _process(app, what, name, obj, options, lines):
    lines[:] = convert(lines)


def setup(app):
    """Register with Sphinx, ahead of napoleon."""
    app.connect("autodoc-process-docstring", _process, priority=100)
    return {"parallel_read_safe": True}
