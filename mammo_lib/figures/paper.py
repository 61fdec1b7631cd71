"""The paper's numbers: their intervals, and the test sizes that fit them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from ..statistics import Interval
from .style import BLUE, ORANGE, canvas, error_bars, legend_below


def published_forest(published: pd.DataFrame, ours: Mapping[str, Interval]) -> Figure:
    """Draw published values (``name value low high n``) next to our values of the same name."""
    figure, axes = canvas(width=7, height=0.42 * len(published) + 1.5)
    y = np.arange(len(published))
    mine = pd.DataFrame({name: vars(ours[name]) for name in published["name"] if name in ours}).T
    apart = 0.12 if len(mine) else 0.0
    error_bars(axes, published, y - apart, BLUE, "published; interval from the size of the test set")
    if len(mine):
        error_bars(axes, mine, y[published["name"].isin(mine.index)] + apart, ORANGE, "this profile")
    names = [f"{name}, n = {n}" for name, n in zip(published["name"], published["n"], strict=True)]
    axes.set(yticks=y, yticklabels=names, ylim=(len(y) - 0.5, -0.5), xlabel="value, with 95 % interval")
    legend_below(figure, axes)
    widths = published["high"] - published["low"]
    axes.set_title(f"The 95 % intervals of the published values are {widths.min():.2f} to {widths.max():.2f} wide")
    return figure


def denominators(matches: Mapping[str, Sequence[int]], common: Sequence[int], n_max: int) -> Figure:
    """Draw the test sizes at which each published accuracy is a whole number of breasts; common sizes are marked."""
    figure, axes = canvas(height=0.5 * len(matches) + 1.3)
    for y, sizes in enumerate(matches.values()):
        axes.plot(sizes, np.full(len(sizes), y), "|", color=BLUE, markersize=13)
    for n in common:
        axes.axvline(n, color=ORANGE, linewidth=1.5, zorder=0)
        axes.annotate(f" {n}", (n, -0.65), color=ORANGE)
    axes.set_yticks(range(len(matches)), list(matches))
    axes.set(xlim=(0, n_max), xlabel="size of the test set, breasts", ylim=(len(matches) - 0.5, -0.9))
    fitting = " and ".join(map(str, common))
    axes.set_title(f"Only test sets of {fitting} breasts fit all {len(matches)} accuracies (sizes below {n_max})")
    return figure
