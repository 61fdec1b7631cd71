"""What networks cost: growth with resolution, and the share of each part of the work."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from .style import BLUE, GREEN, GREY, ORANGE, PALETTE, canvas, headline, legend_below

PARTS = {"convolution": BLUE, "matrix product": GREEN, "attention": ORANGE, "selective scan": "black"}
MARKERS = "osD^vP*X<"


def cost_growth(table: pd.DataFrame, column: str, ylabel: str, finding: str) -> Figure:
    """Draw a cost over the side of the image, in logarithms, one line per network: ``network side`` and ``column``.

    The grey line grows in proportion to the number of pixels.
    """
    figure, axes = canvas(7, 4.4)
    styles = zip(cycle(PALETTE), cycle(MARKERS))
    for (name, own), (colour, marker) in zip(table.groupby("network", sort=False), styles, strict=False):
        axes.plot(own["side"], own[column], color=colour, marker=marker, label=name)
    sides = np.sort(table["side"].unique())
    linear = table[column].min() * (sides / sides[0]) ** 2
    axes.plot(sides, linear, color=GREY, linestyle=":", label="proportional to pixels")
    axes.set(xscale="log", yscale="log", xlabel="side of the image, pixels", ylabel=ylabel)
    axes.set_xticks(sides, [str(side) for side in sides])
    axes.minorticks_off()
    headline(figure, finding)
    legend_below(figure, axes)
    return figure


def cost_parts(rows: pd.DataFrame, names: Sequence[str], finding: str) -> Figure:
    """Draw the share of each part of the operations, one bar per row, labelled with ``names``."""
    figure, axes = canvas(7, 0.42 * len(rows) + 1.4)
    left = np.zeros(len(rows))
    for part, colour in PARTS.items():
        share = 100 * rows[part].to_numpy()
        axes.barh(np.arange(len(rows)), share, left=left, color=colour, label=part)
        left += share
    axes.set(yticks=np.arange(len(rows)), yticklabels=names, ylim=(len(rows) - 0.5, -0.5), xlim=(0, 100))
    axes.set_xlabel("share of the operations of a forward pass, %")
    axes.grid(visible=False, axis="y")
    headline(figure, finding)
    legend_below(figure, axes, ncols=4)
    return figure
