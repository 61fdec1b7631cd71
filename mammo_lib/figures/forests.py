"""Experiments, subgroups and decisions side by side: forests with intervals, and net benefit."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import cycle

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from .style import BLUE, FEW, GREY, ORANGE, PALETTE, canvas, error_bars, headline, legend_below, literal

ROW = 0.36  # inches of height that a row of a forest needs


def difference_forest(table: pd.DataFrame, reference: str, metric: str = "AUC") -> Figure:
    """Draw each experiment's difference to a reference: ``experiment difference difference_low difference_high n``.

    Colour says whether the interval excludes 0, the dotted line.
    """
    figure, axes = canvas(width=7, height=ROW * len(table) + 1.5)
    y = np.arange(len(table))
    bars = table.rename(columns={f"difference{end}": f"value{end}" for end in ("", "_low", "_high")})
    bars = bars.rename(columns={"value_low": "low", "value_high": "high"})
    excludes = ((bars["low"] > 0) | (bars["high"] < 0)).to_numpy()
    for is_clear, colour, name in ((True, ORANGE, "interval excludes 0"), (False, BLUE, "interval holds 0")):
        if (excludes == is_clear).any():
            error_bars(axes, bars[excludes == is_clear], y[excludes == is_clear], colour, name)
    axes.axvline(0, color=GREY, linestyle=":")
    names = [f"{name.replace('_', ' ')}, n = {n}" for name, n in zip(table["experiment"], table["n"], strict=True)]
    axes.set(yticks=y, yticklabels=names, ylim=(len(y) - 0.5, -0.5))
    axes.set_xlabel(f"difference in {metric} to {reference.replace('_', ' ')}, 95 % interval")
    axes.grid(visible=False, axis="y")
    legend_below(figure, axes)
    headline(figure, _forest_finding(excludes, reference, metric))
    return figure


def _forest_finding(excludes: np.ndarray, reference: str, metric: str) -> str:
    name = reference.replace("_", " ")
    if not excludes.any():
        return f"None of {len(excludes)} can be told from {name} by {metric}"
    return f"{excludes.sum()} of {len(excludes)} differ{'s' if excludes.sum() == 1 else ''} from {name} in {metric}"


def subgroup_forest(rows: pd.DataFrame) -> Figure:
    """Draw the AUC per subgroup, ``name level value low high n malignant``; the first row is all breasts, the line.

    Levels without an interval (fewer than two breasts of a class) keep their row, and say so.
    """
    figure, axes = canvas(width=7, height=ROW * len(rows) + 1.1)
    y = np.arange(len(rows))
    drawn = rows["low"].notna().to_numpy()
    error_bars(axes, rows[drawn], y[drawn], BLUE, "AUC")
    overall = rows["value"].iloc[0]
    axes.axvline(overall, color=GREY, linestyle=":")
    names = [f"{row.name} {row.level}".strip() for row in rows.itertuples(index=False)]
    sizes = [f"{row.malignant} of {row.n}" for row in rows.itertuples(index=False)]
    labels = [literal(f"{name}   {size}") for name, size in zip(names, sizes, strict=True)]
    axes.set(yticks=y, yticklabels=labels, ylim=(len(y) - 0.5, -0.5), xlim=(0, 1.02))
    for height in y[~drawn]:
        axes.annotate("too few of a class", (0.02, height), va="center", color=GREY, fontsize=8)
    axes.set_xlabel("AUC, 95 % interval (dotted: all breasts)")
    axes.set_ylabel("subgroup, malignant of all breasts")
    axes.grid(visible=False, axis="y")
    headline(figure, _subgroup_finding(rows.iloc[1:], overall))
    return figure


def _subgroup_finding(levels: pd.DataFrame, overall: float) -> str:
    large = levels[levels["low"].notna() & (levels["n"] >= FEW)]
    if large.empty:
        return f"No subgroup has {FEW} breasts and two of each class"
    outside = int(((large["low"] > overall) | (large["high"] < overall)).sum())
    spread = f"AUC {large['value'].min():.2f} to {large['value'].max():.2f} in subgroups of {FEW} and more"
    return f"{spread}; {outside or 'no'} interval{'s exclude' if outside > 1 else ' excludes'} {overall:.2f}"


def decision_curves(curves: Mapping[str, pd.DataFrame]) -> Figure:
    """Draw net benefit over the threshold, one colour per score, as ``statistics.decision_curve`` gives it.

    The first curve has its band; working up every breast and none are drawn in grey.
    """
    figure, axes = canvas(width=7, height=4.0)
    name, first = next(iter(curves.items()))
    percent = 100 * first["threshold"]
    for (label, curve), colour in zip(curves.items(), cycle(PALETTE), strict=False):
        axes.plot(percent, curve["value"], color=colour, label=label, zorder=3)
    axes.fill_between(percent, first["low"], first["high"], color=PALETTE[0], alpha=0.18, linewidth=0)
    axes.plot(percent, first["treat_all"], color=GREY, linestyle="--", label="work up every breast")
    axes.axhline(0, color=GREY, linestyle=":", label="work up none")
    axes.set_xlabel("threshold, % probability of malignancy")
    axes.set_ylabel(f"net benefit per breast, n = {first['n'].iloc[0]}")
    axes.set_ylim(-0.1, 1.1 * max(0.1, *(curve["high"].max() for curve in curves.values())))
    axes.set_title(_decision_finding(first, name))
    legend_below(figure, axes)
    return figure


def _decision_finding(curve: pd.DataFrame, name: str) -> str:
    """Say between which thresholds the interval of the gain over both simple rules excludes 0."""
    better = curve[curve["gain_low"] > 0]["threshold"]
    if better.empty:
        return f"At no threshold is {name} surely better than all or none"
    low, high = 100 * better.min(), 100 * better.max()
    span = f"{low:.0f}" if len(better) == 1 else f"{low:.0f} to {high:.0f}"
    return f"{name[0].upper()}{name[1:]}: surely better than all or none at {span} %"
