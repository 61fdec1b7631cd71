"""The forest of all answers: one row per comparison, under its question."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from .style import BLUE, GREY, ORANGE, canvas, error_bars, headline, legend_below, literal

ROW, REST = 0.22, 1.0  # inches: the height of a row, and of everything above and below the rows
WIDTH = 5.2  # inches: narrow enough for legible text on a phone


def answer_forest(table: pd.DataFrame, bound: float) -> Figure:
    """Draw ``question compared answer`` and ``difference`` with its interval, the first row on top.

    The table is that of :func:`mammo_lib.analysis.headlines.headlines`. The colour gives the answer: less than the
    bound of equivalence, different, or undecided. The grey band is the bound.
    """
    bars = table.rename(columns={"difference": "value", "difference_low": "low", "difference_high": "high"})
    is_first = ~table["question"].duplicated().to_numpy()
    y = np.arange(len(table)) + is_first.cumsum()  # each question has a line of its own, above its comparisons
    figure, axes = canvas(WIDTH, ROW * (y.max() + 1) + REST)
    meaning = answer_meaning(table["answer"], bound)
    for name, colour in ((f"less than {bound:g}", BLUE), ("different", ORANGE), ("undecided", GREY)):
        if (part := (meaning == name).to_numpy()).any():
            error_bars(axes, bars[part], y[part], colour, name)
    axes.axvspan(-bound, bound, color=GREY, alpha=0.15, linewidth=0, zorder=0)
    axes.axvline(0, color=GREY, linestyle=":")
    axes.set(yticks=y, ylim=(y.max() + 0.6, -0.6), xticks=np.arange(-3, 2) / 10)
    axes.set_xlabel("difference in AUC, 95 % interval", fontsize=10)
    axes.set_yticklabels(list(map(literal, table["compared"])), fontsize=9)
    for line, question in zip(y[is_first] - 1, table["question"][is_first], strict=True):
        place = {"xycoords": ("figure fraction", "data"), "va": "center", "annotation_clip": False}
        axes.annotate(literal(question), (0.01, line), fontsize=10, fontweight="bold", **place)
    axes.grid(visible=False, axis="y")
    axes.spines["left"].set_visible(False)  # it would cross the questions
    counts = ", ".join(f"{count} {name}" for name, count in meaning.value_counts().items())
    headline(figure, f"{len(table)} comparisons: {counts}")
    legend_below(figure, axes)
    return figure


def answer_meaning(answers: pd.Series, bound: float) -> pd.Series:
    """Return what the colour of each answer means: ``less than`` the bound, ``different`` or ``undecided``."""
    is_small = answers.str.startswith("equivalent") | answers.str.contains("less than the bound")
    return answers.mask(is_small, f"less than {bound:g}")
