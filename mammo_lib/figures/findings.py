"""The forest of all answers: one row per comparison, under its question."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MultipleLocator

from .style import BLUE, GREY, ORANGE, canvas, error_bars, headline, legend_below, literal

SMALL = "within the bound"
MEANING = {  # of each answer of a comparison
    "equivalent": SMALL, "different, but by less than the bound": SMALL, "different": "different",
    "undecided": "undecided",
}  # fmt: skip
COLOURS = {SMALL: BLUE, "different": ORANGE, "undecided": GREY}
ROW, REST = 0.22, 1.0  # inches: the height of a row, and of everything above and below the rows
WIDTH = 5.2  # inches: narrow enough for legible text on a phone


def answer_forest(table: pd.DataFrame, bound: float) -> Figure:
    """Draw ``question compared answer`` and ``difference`` with its interval, the first row on top.

    The table is that of :func:`mammo_lib.analysis.headlines.headlines`, and has a row. The colour gives the answer:
    within the bound of equivalence, different, or undecided. The grey band is the bound.
    """
    bars = table.rename(columns={"difference": "value", "difference_low": "low", "difference_high": "high"})
    is_first = ~table["question"].duplicated().to_numpy()
    y = np.arange(len(table)) + is_first.cumsum()  # each question has a line of its own, above its comparisons
    figure, axes = canvas(WIDTH, ROW * (y.max() + 1) + REST)
    meaning = pd.Series([MEANING[answer] for answer in table["answer"]])
    for name, colour in COLOURS.items():
        if (part := (meaning == name).to_numpy()).any():
            error_bars(axes, bars[part], y[part], colour, name)
    axes.axvspan(-bound, bound, color=GREY, alpha=0.15, linewidth=0, zorder=0, label=f"±{bound:g}")
    axes.axvline(0, color=GREY, linestyle=":")
    axes.set(yticks=y, ylim=(y.max() + 0.6, -0.6))
    axes.xaxis.set_major_locator(MultipleLocator(0.1))
    axes.set_xlabel("difference in AUC, 95 % interval", fontsize=10)
    axes.set_yticklabels(list(map(literal, table["compared"])), fontsize=9)
    for line, question in zip(y[is_first] - 1, table["question"][is_first], strict=True):
        place = {"xycoords": ("figure fraction", "data"), "va": "center", "annotation_clip": False}
        axes.annotate(literal(question), (0.01, line), fontsize=10, fontweight="bold", **place)
    axes.grid(visible=False, axis="y")
    axes.spines["left"].set_visible(False)  # it would cross the questions
    counts = ", ".join(f"{count} {name}" for name, count in meaning.value_counts().items())
    headline(figure, f"{len(table)} comparisons: {counts}")
    legend_below(figure, axes, ncols=4, columnspacing=1.0, handletextpad=0.4)
    return figure
