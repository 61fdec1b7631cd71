"""The visual style of all figures: palette, canvas and shared elements."""

from __future__ import annotations

import base64
import io
from functools import partial

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from IPython import get_ipython
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure

BLUE, ORANGE, GREEN, PURPLE, GREY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#6E6E6E"
PALETTE = [BLUE, ORANGE, GREEN, PURPLE, "#E69F00", "#56B4E9"]
LABEL_NAMES = {0: "benign", 1: "malignant"}
LABEL_COLOURS = {0: BLUE, 1: ORANGE}
MIN_FOR_HEADLINE = 10  # breasts below which a share is not worth a headline
INCH = 96  # pixels of an inch on a page
FILM = 32  # pixels: an image with two sides of that length is a film or a map, and no matrix
MANY = 2000  # points beyond which a scatter is drawn in pixels, because each is a path of the SVG


def use_style() -> None:
    """Set the look of every figure and, in a notebook, show returned figures as :func:`rendered`."""
    if (shell := get_ipython()) is not None:
        shell.run_line_magic("matplotlib", "inline")
        for kind, mime in (("svg", "image/svg+xml"), ("png", "image/png")):
            shell.display_formatter.formatters[mime].for_type(Figure, partial(rendered, kind=kind))
    sns.set_theme(context="notebook", style="whitegrid", palette=PALETTE, font_scale=0.9)
    plt.rcParams.update(
        {
            "figure.figsize": (6.4, 3.8), "savefig.bbox": "tight", "axes.titlelocation": "left",
            "axes.titlesize": 11, "axes.spines.top": False, "axes.spines.right": False, "grid.alpha": 0.4,
            "image.cmap": "gray", "legend.frameon": False, "svg.hashsalt": "mammo_lib",
        }
    )  # fmt: skip


def rendered(figure: Figure, kind: str) -> tuple[str, dict] | None:
    """Return a figure in the form that a notebook stores, with metadata; None unless ``kind`` suits the figure.

    A figure with films or maps is a ``png`` of twice the resolution of a page, any other an ``svg``. Its file's title
    is :func:`described`. The same figure gives the same file.
    """
    sides = [min(image.get_size()) for axes in figure.axes for image in axes.images]
    if kind != ("png" if max(sides, default=0) >= FILM else "svg"):
        return None
    for points in figure.findobj(PathCollection):
        points.set_rasterized(points.get_rasterized() or len(points.get_offsets()) > MANY)
    file, title = io.BytesIO(), described(figure)
    varies = {"png": "Software", "svg": "Date"}[kind]
    figure.savefig(file, format=kind, dpi=2 * INCH, metadata={"Title": title, varies: None})
    data = file.getvalue()
    if kind == "svg":
        return data.decode(), {"alt": title}
    width = int.from_bytes(data[16:20])  # the first field of a PNG
    return base64.b64encode(data).decode(), {"alt": title, "width": width // 2}


def described(figure: Figure) -> str:
    """Return what a figure says: its headline, or else the titles of its axes."""
    titles = (axes.get_title(place) for axes in figure.axes for place in ("left", "center", "right"))
    text = figure.get_suptitle() or "; ".join(filter(None, titles))
    return " ".join(text.replace(r"\$", "$").split())


def canvas(width: float = 6.4, height: float = 3.8, rows: int = 1, columns: int = 1, **options):
    """Return an empty figure, in inches, and its axes."""
    # Figures are returned, not shown: without pyplot nothing is drawn twice in a notebook, and nothing stays open.
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(rows, columns, **options)


def literal(text: object) -> str:
    """Return text that matplotlib draws literally: ids and names are never read as mathematics."""
    shown = (one if one.isprintable() or one == "\n" else "\N{REPLACEMENT CHARACTER}" for one in str(text))
    return "".join(shown).replace("$", r"\$")


def span(values: pd.Series) -> str:
    """Return the range of values in words, with signs.

    >>> span(pd.Series([-0.1, 0.2])), span(pd.Series([0.2]))
    ('between -0.100 and +0.200', '+0.200')
    """
    low, high = f"{values.min():+.3f}", f"{values.max():+.3f}"
    return low if low == high else f"between {low} and {high}"


def p_in_words(p: float) -> str:
    """Return a p value as figures print it.

    >>> p_in_words(0.03), p_in_words(1e-5)
    ('p = 0.030', 'p < 0.001')
    """
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def headline(figure: Figure, text: str) -> None:
    """Put the finding above the whole figure, left-aligned."""
    figure.suptitle(literal(text), x=0.01, ha="left", fontsize=11)


def legend_below(figure: Figure, axes, **options) -> None:
    """Put the legend below the axes, where it hides no data."""
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", **{"ncols": 3, **options})


def block_name(stage: int, block: int) -> str:
    """Return the name of a block, stage.block. Records count blocks from 0; names count from 1.

    >>> block_name(3, 0)
    '3.1'
    """
    return f"{stage}.{block + 1}"


def error_bars(axes, intervals: pd.DataFrame, y: np.ndarray, colour: str, name: str) -> None:
    """Draw ``value low high`` as points with horizontal bars."""
    value = intervals["value"].to_numpy(float)
    spread = [value - intervals["low"].to_numpy(float), intervals["high"].to_numpy(float) - value]
    axes.errorbar(value, y, xerr=spread, fmt="o", color=colour, capsize=3, label=name)
