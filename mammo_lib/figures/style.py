"""The visual style of all figures: palette, canvas and shared elements."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from IPython import get_ipython
from matplotlib.figure import Figure

BLUE, ORANGE, GREEN, PURPLE, GREY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#6E6E6E"
PALETTE = [BLUE, ORANGE, GREEN, PURPLE, "#E69F00", "#56B4E9"]
LABEL_NAMES = {0: "benign", 1: "malignant"}
LABEL_COLOURS = {0: BLUE, 1: ORANGE}
MIN_FOR_HEADLINE = 10  # breasts below which a share is not worth a headline


def use_style() -> None:
    """Set the look of every figure and, in a notebook, show returned figures as pictures."""
    if (shell := get_ipython()) is not None:
        shell.run_line_magic("matplotlib", "inline")
    sns.set_theme(context="notebook", style="whitegrid", palette=PALETTE, font_scale=0.9)
    plt.rcParams.update(
        {
            "figure.dpi": 110, "figure.figsize": (6.4, 3.8), "savefig.bbox": "tight", "axes.titlelocation": "left",
            "axes.titlesize": 11, "axes.spines.top": False, "axes.spines.right": False, "grid.alpha": 0.4,
            "image.cmap": "gray", "legend.frameon": False,
        }
    )  # fmt: skip


def canvas(width: float = 6.4, height: float = 3.8, rows: int = 1, columns: int = 1, **options):
    """Return an empty figure, in inches, and its axes."""
    # Figures are returned, not shown: without pyplot nothing is drawn twice in a notebook, and nothing stays open.
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(rows, columns, **options)


def literal(text: object) -> str:
    """Return text that matplotlib draws literally: ids and names are never read as mathematics."""
    shown = (one if one.isprintable() or one == "\n" else "\N{REPLACEMENT CHARACTER}" for one in str(text))
    return "".join(shown).replace("$", r"\$")


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
