"""The two sides of a division, training and test: how they are composed, and what scores reach on each."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from .forests import ROW
from .style import BLUE, GREEN, GREY, ORANGE, PALETTE, canvas, error_bars, headline, legend_below, literal, span

GROUP_STYLE = {"all": (GREY, "D"), "benign": (BLUE, "o"), "malignant": (ORANGE, "s")}
SIDE_COLOURS = {"train": BLUE, "train_as_test": GREEN, "test": ORANGE}  # others: the palette, in order
CLEAR = 0.05  # Holm-corrected p below which a marker is filled


def side_by_side(
    rows: pd.DataFrame, sides: Mapping[str, str], xlabel: str, finding: str = "", *, at: float | None = None
) -> Figure:
    """Draw several estimates a row, one below the other: ``name`` and, per key of ``sides``, ``key key_low key_high``.

    ``sides`` maps a key to what the legend calls it; ``at`` is a dotted line. Rows without a value keep their place; a
    side without any value is not named. Without a ``finding`` the headline gives the differences from the first side.
    """
    figure, axes = canvas(7, (0.17 * len(sides) + 0.25) * len(rows) + 1.4)
    y = np.arange(len(rows))
    offsets = np.linspace(-0.27, 0.27, len(sides)) if len(sides) > 1 else np.zeros(1)
    for (key, shown), offset, colour in zip(sides.items(), offsets, PALETTE, strict=False):
        if rows[key].isna().all():
            continue  # nothing to draw, nothing to name
        own = rows[[key, f"{key}_low", f"{key}_high"]].set_axis(["value", "low", "high"], axis=1).astype(float)
        error_bars(axes, own, y + offset, SIDE_COLOURS.get(key, colour), shown)
    if at is not None:
        axes.axvline(at, color=GREY, linestyle=":")
    axes.set(yticks=y, yticklabels=list(map(literal, rows["name"])), ylim=(len(y) - 0.5, -0.5), xlabel=xlabel)
    axes.grid(visible=False, axis="y")
    headline(figure, finding or _differences(rows, sides))
    legend_below(figure, axes)
    return figure


def _differences(rows: pd.DataFrame, sides: Mapping[str, str]) -> str:
    first, *others = sides
    gaps = {sides[key]: (rows[key] - rows[first]).dropna() for key in others}
    told = [f"{name}: {span(gap)}" for name, gap in gaps.items() if len(gap)]
    return "\n".join([f'Point estimates, difference from "{sides[first]}":', *told])


def imbalances(table: pd.DataFrame, bound: float) -> Figure:
    """Draw the size of standardised differences, a row per variable: ``name level group difference p_holm``.

    Only rows without a level are drawn. Filled: Holm-corrected p below 5 %. Within the grey band differences are small.
    """
    own = table[table["level"] == ""]
    names = list(dict.fromkeys(own["name"]))
    figure, axes = canvas(7, ROW * len(names) + 1.5)
    for (group, (colour, marker)), offset in zip(GROUP_STYLE.items(), (-0.2, 0, 0.2), strict=True):
        part = own[own["group"] == group]
        y = np.array([names.index(name) for name in part["name"]]) + offset
        is_clear = (part["p_holm"].astype(float) < CLEAR).to_numpy()
        size, fill = part["difference"].astype(float).abs(), np.where(is_clear, colour, "white")
        axes.scatter(size, y, c=fill, edgecolors=colour, marker=marker, label=group, zorder=3)
    axes.axvspan(0, bound, color=GREY, alpha=0.15, linewidth=0, label=f"below {bound:g}")
    axes.set(yticks=np.arange(len(names)), yticklabels=list(map(literal, names)), ylim=(len(names) - 0.5, -0.5))
    axes.set(xlabel="size of the standardised difference, test against training (filled: Holm p < .05)")
    axes.set_xlim(left=0)
    axes.grid(visible=False, axis="y")
    clear = int((own["p_holm"].astype(float) < CLEAR).sum())
    headline(
        figure, f"{clear or 'None'} of {len(own)} comparisons differ{'s' if clear == 1 else ''} after Holm's correction"
    )
    legend_below(figure, axes, ncols=4)
    return figure


def drawn_divisions(drawn: Mapping[str, tuple[np.ndarray, float]], xlabel: str, finding: str) -> Figure:
    """Draw where the official value of each name lies among those of random divisions, a row per name.

    A dot is a random division; the bar holds the central 95 % of them.
    """
    figure, axes = canvas(7, 0.75 * len(drawn) + 1.5)
    names, jitter = [], np.random.default_rng(0)
    for y, (name, (values, official)) in enumerate(drawn.items()):
        dots, bar, mark = ("random division", "central 95 %", "official division") if y == 0 else (None,) * 3
        axes.scatter(values, y + jitter.uniform(-0.28, 0.28, len(values)), s=7, color=BLUE, alpha=0.45, label=dots)
        axes.hlines(y, *np.quantile(values, [0.025, 0.975]), color="black", linewidth=2, label=bar)
        axes.scatter([official], [y], marker="D", s=55, color=ORANGE, zorder=4, label=mark)
        names.append(f"{literal(name)}\n{(np.asarray(values) < official).mean():.0%} of {len(values)} below")
    axes.set(yticks=np.arange(len(names)), yticklabels=names, ylim=(len(names) - 0.4, -0.6), xlabel=xlabel)
    axes.grid(visible=False, axis="y")
    headline(figure, finding)
    legend_below(figure, axes)
    return figure
