"""Let docstrings hold the pipe tables that read well in a terminal: the API page gets them as tables.

Indented lines behind a table are the source equations, and are shown as they stand. A config section gets a table of
its fields: name, default, and the description that the field carries.
"""

from __future__ import annotations

from pydantic import BaseModel


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


def fields_table(section: type[BaseModel]) -> list[str]:
    """Return the fields of a config section as a list-table."""
    lines = ["", ".. list-table::", "   :header-rows: 1", "   :widths: 25 20 55", "", "   * - field"]
    lines += ["     - default", "     - meaning"]
    for name, field in section.model_fields.items():
        default = "required" if field.is_required() else _shown(field.default)
        lines += [f"   * - ``{name}``", f"     - {default}", f"     - {field.description or ''}"]
    return [*lines, ""]


def _shown(default) -> str:
    return "its defaults" if isinstance(default, BaseModel) else f"``{default!r}``"


def _is_section(obj) -> bool:
    return isinstance(obj, type) and issubclass(obj, BaseModel)


def _process(app, what, name, obj, options, lines):
    lines[:] = convert(lines)
    if _is_section(obj):
        lines += fields_table(obj)


def _hide_signature(app, what, name, obj, options, signature, returns):
    """A config section's table says all that its signature would."""
    if _is_section(obj):
        app.env.temp_data.get("annotations", {}).pop(name, None)
        return "", None
    return None


def _skip(app, what, name, obj, skip, options):
    """Leave out what says nothing: pydantic's settings, and named tuples' "Alias for field number"."""
    return True if name == "model_config" or type(obj).__name__ == "_tuplegetter" else None


def setup(app):
    """Register with Sphinx, ahead of napoleon."""
    app.connect("autodoc-process-docstring", _process, priority=100)
    app.connect("autodoc-process-signature", _hide_signature, priority=900)
    app.connect("autodoc-skip-member", _skip)
    return {"parallel_read_safe": True}
