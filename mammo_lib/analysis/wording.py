"""How a table or an estimate is worded for a reader: rounded numbers, names as words, text without markup.

An estimate ``x`` occupies the columns ``x x_low x_high`` (:func:`estimate`); :func:`readable` merges them for the page,
and :func:`in_words` for a sentence.
"""

from __future__ import annotations

import html
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ..statistics import Interval

if TYPE_CHECKING:
    from IPython.display import HTML
    from pandas.io.formats.style import Styler  # needs Jinja

DECISIVE = ("verdict", "answer")  # columns that a page must show without scrolling
MARKUP = re.compile(r"[\\`*_{}\[\]$|~^#]")  # what Markdown and MyST read within a line


def estimate(name: str, interval: Interval) -> dict:
    """Return the three columns of an estimate."""
    return {name: interval.value, f"{name}_low": interval.low, f"{name}_high": interval.high}


def includes_zero(row: Mapping, name: str) -> bool:
    """Whether the interval of an estimate of a row includes 0.

    >>> includes_zero({"gain": 0.1, "gain_low": -0.1, "gain_high": 0.3}, "gain")
    True
    """
    return bool(row[f"{name}_low"] <= 0 <= row[f"{name}_high"])


def readable(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table as text: ``x x_low x_high`` become one column, numbers are rounded, names become words.

    A column of verdicts or answers moves to the third place, after the columns that name a row, so that a phone shows
    it.
    """
    shown = pd.DataFrame(index=table.index)
    for name in table.columns:
        if name.removesuffix("_low").removesuffix("_high") != name and name.rpartition("_")[0] in table:
            continue
        if f"{name}_low" in table:
            bounds = zip(table[name], table[f"{name}_low"], table[f"{name}_high"], strict=True)
            sign = "+" if "difference" in name else ""
            shown[name] = [_estimate_text(*one, sign) for one in bounds]
        else:
            shown[name] = [_text(name, value) for value in table[name]]
    for name in reversed(shown.columns.intersection(DECISIVE)):
        shown.insert(min(2, shown.columns.get_loc(name)), name, shown.pop(name))
    return shown.rename(columns=_title)


def _title(column: str) -> str:
    return column.replace("_", " ")


def shown(table: pd.DataFrame) -> Styler:
    """Return a table as a chapter shows it: :func:`readable`, no index, text on the left, and every cell escaped."""
    texts = table.select_dtypes(exclude="number").columns.map(_title)
    left = {name: [{"selector": "", "props": "text-align: left"}] for name in texts}
    return readable(table).style.hide(axis="index").set_table_styles(left).format(escape="html")


def folded(summary: str, *parts: pd.DataFrame | str) -> HTML:
    """Return tables and paragraphs below a line that opens them, for what a sentence and a figure have said before."""
    from IPython.display import HTML

    inside = "".join(
        f"<p>{html.escape(part).replace('`', '')}</p>" if isinstance(part, str) else shown(part).to_html()
        for part in parts
    )
    return HTML(f"<details><summary>{html.escape(summary)}</summary>{inside}</details>")


def as_text(value: object) -> str:
    """Return Markdown that shows ``value`` literally in one line: no HTML, links, mathematics or table cells."""
    line = " ".join(str(value).split())
    return MARKUP.sub(r"\\\g<0>", html.escape(line, quote=False))


def in_words(row: Mapping, name: str, sign: str = "+") -> str:
    """Return an estimate of a row with its interval, as sentences say it.

    >>> in_words({"auc": 0.8, "auc_low": 0.7, "auc_high": 0.9}, "auc", "")
    '0.800 (0.700 to 0.900)'
    """
    return _with_bounds(row[name], row[f"{name}_low"], row[f"{name}_high"], sign)


def _estimate_text(value: float, low: float, high: float, sign: str) -> str:
    return "" if pd.isna(value) else _with_bounds(value, low, high, sign)


def _with_bounds(value: float, low: float, high: float, sign: str) -> str:
    return f"{value:{sign}.3f} ({low:{sign}.3f} to {high:{sign}.3f})"


def _text(name: str, value) -> str:
    if isinstance(value, str):
        return value.replace("_", " ") if name in ("experiment", "our_experiment") else value
    if isinstance(value, (bool, np.bool_)):
        return "yes" if value else "no"
    if value is None or pd.isna(value):
        return ""
    if name == "p" or name.startswith("p_"):
        return "< 0.001" if value < 0.001 else f"{value:.3f}"
    if name == "published":
        return f"{value:g}"
    if name == "parameters":
        return f"{value / 1e6:.2f} M"
    if name == "size":
        return f"{value:.2f} x"
    return f"{value:.3f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)
