"""Forest plots of experiments and subgroups with intervals, and curves of net benefit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ..statistics.fold_groups import FEW
from .style import BLUE, GREY, ORANGE, PALETTE, canvas, error_bars, headline, legend_below, literal, span

ROW = 0.36  # inches of height that a row of a forest needs


def forest(
    rows: pd.DataFrame, names: Sequence[str], is_clear: np.ndarray, meaning: tuple[str, str], xlabel: str,
    finding: str, *, at: float = 0.0, row: float = ROW, rest: float = 1.5,
) -> tuple[Figure, Axes]:  # fmt: skip
    """Draw one row per ``value low high``, the first on top, orange if ``is_clear``, with a dotted reference line.

    ``meaning`` gives the legend of orange and blue; ``row`` and ``rest`` are inches of height.
    """
    figure, axes = canvas(7, row * len(rows) + rest)
    y = np.arange(len(rows))
    for part, colour, name in ((is_clear, ORANGE, meaning[0]), (~is_clear, BLUE, meaning[1])):
        if part.any():
            error_bars(axes, rows[part], y[part], colour, name)
    axes.axvline(at, color=GREY, linestyle=":")
    axes.set(yticks=y, yticklabels=list(map(literal, names)), ylim=(len(y) - 0.5, -0.5), xlabel=xlabel)
    axes.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))  # beside long names the axis is short
    axes.grid(visible=False, axis="y")
    headline(figure, finding)
    return figure, axes


def difference_forest(table: pd.DataFrame, reference: str, metric: str = "AUC") -> Figure:
    """Draw each experiment's difference from a reference: ``experiment difference difference_low difference_high n``.

    The colour shows whether the interval excludes 0, the dotted line.
    """
    bars = table.rename(columns={"difference": "value", "difference_low": "low", "difference_high": "high"})
    excludes = ((bars["low"] > 0) | (bars["high"] < 0)).to_numpy()
    reference = reference.replace("_", " ")
    names = [f"{name.replace('_', ' ')}, n = {n}" for name, n in zip(table["experiment"], table["n"], strict=True)]
    found = f"{excludes.sum()} of {len(table)} differ{'s' if excludes.sum() == 1 else ''} from {reference} in {metric}"
    none = f"No difference in {metric} from {reference} was shown for any of {len(table)}"
    figure, axes = forest(
        bars, names, excludes, ("interval excludes 0", "interval includes 0"),
        f"difference in {metric} from {reference}, 95 % interval", found if excludes.any() else none,
    )  # fmt: skip
    legend_below(figure, axes)
    return figure


def equivalence_forest(table: pd.DataFrame, reference: str, bound: float) -> Figure:
    """Draw each variant's AUC difference from a reference, with the band of equivalence.

    ``table``: ``experiment`` or ``name``, and ``difference difference_low difference_high answer n``
    (:mod:`mammo_lib.analysis.answers`).
    """
    bars = table.rename(columns={"difference": "value", "difference_low": "low", "difference_high": "high"})
    differs = table["answer"].str.startswith("different").to_numpy()
    told = table["name"] if "name" in table else table["experiment"].str.replace("_", " ")
    names = (told + ": " + table["answer"]).tolist()
    words = [f"{len(own)} {word}{_ends(word, own['difference'])}" for word, own in table.groupby("answer")]
    finding = f"Compared with {reference.replace('_', ' ')}:\n{'; '.join(words)}"
    figure, axes = forest(
        bars, names, differs, ("different", "no difference shown"),
        f"difference in AUC from {reference.replace('_', ' ')}, 95 % interval, n = {table['n'].iloc[0]}", finding,
    )  # fmt: skip
    axes.axvspan(-bound, bound, color=GREY, alpha=0.15, linewidth=0, zorder=0, label=f"within ±{bound:g}")
    legend_below(figure, axes)
    return figure


def _ends(answer: str, differences: pd.Series) -> str:
    """Return the range of the point estimates if the answer is "different", else an empty text."""
    return f" ({span(differences)})" if answer.startswith("different") else ""


def subgroup_forest(rows: pd.DataFrame) -> Figure:
    """Draw the AUC per subgroup: ``name level value low high n malignant``. The first row, all breasts, gives the line.

    Levels without an interval (too few breasts of a class) keep their row and are labelled.
    """
    is_drawn, overall = rows["low"].notna(), rows["value"].iloc[0]
    names = (rows["name"] + " " + rows["level"]).str.strip()
    sizes = zip(names, rows["malignant"], rows["n"], strict=True)
    figure, axes = forest(
        rows.where(is_drawn), [f"{name}   {some} of {n}" for name, some, n in sizes], np.zeros(len(rows), bool),
        ("", "AUC"), "AUC, 95 % interval (dotted line: all breasts)", _subgroup_finding(rows.iloc[1:], overall),
        at=overall, rest=max(1.1, 3.2 - ROW * len(rows)),  # the label of the axis needs three inches
    )  # fmt: skip
    axes.set(xlim=(0, 1.02), ylabel="subgroup, malignant of all breasts")
    for y in np.flatnonzero(~is_drawn):
        axes.annotate("too few breasts of one class", (0.02, y), va="center", color=GREY, fontsize=8)
    return figure


def _subgroup_finding(levels: pd.DataFrame, overall: float) -> str:
    large = levels[levels["low"].notna()]
    if large.empty:
        return f"No subgroup has {FEW} breasts of each class"
    outside = int(((large["low"] > overall) | (large["high"] < overall)).sum())
    spread = (
        f"AUC {large['value'].min():.2f} to {large['value'].max():.2f} in subgroups with {FEW} or more of each class"
    )
    return f"{spread}; {outside or 'no'} interval{'s exclude' if outside > 1 else ' excludes'} {overall:.2f}"


def decision_curves(curves: Mapping[str, pd.DataFrame]) -> Figure:
    """Draw net benefit over the threshold, one colour per score, as ``statistics.decision_curve`` gives it.

    The first curve has an interval band. The two simple rules, work up every breast or none, are drawn in grey.
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
    axes.set_title("\n".join([_decision_finding(first, name), *_beside(curves, first, name)]))
    legend_below(figure, axes)
    return figure


def _decision_finding(curve: pd.DataFrame, name: str) -> str:
    """Say for which thresholds the interval of the gain over both simple rules excludes 0."""
    better = curve[curve["gain_low"] > 0]["threshold"]
    if better.empty:
        return f"{name[0].upper()}{name[1:]}: no threshold at which net benefit is shown to exceed both simple rules"
    low, high = 100 * better.min(), 100 * better.max()
    span = f"{low:.0f}" if len(better) == 1 else f"{low:.0f}-{high:.0f}"
    return f"{name[0].upper()}{name[1:]}: net benefit exceeds both simple rules for thresholds of {span} %"


def _beside(curves: Mapping[str, pd.DataFrame], first: pd.DataFrame, name: str) -> list[str]:
    """Say of each other curve at how many thresholds it lies at least as high as the first."""
    return [
        f"{other[0].upper()}{other[1:]}: at least as high as {name} at "
        f"{(curve['value'].to_numpy() >= first['value'].to_numpy()).sum()} of {len(first)} thresholds"
        for other, curve in curves.items()
        if other != name
    ]
