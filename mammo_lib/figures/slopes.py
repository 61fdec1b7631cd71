"""From one collection to another: how the AUC of several scores changes, and where their probabilities lie."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import cycle, product

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from .style import GREY, LABEL_COLOURS, LABEL_NAMES, PALETTE, canvas, headline, legend_below, literal


def slope_chart(rows: pd.DataFrame, finding: str) -> Figure:
    """Draw a line per score through its stages, with intervals: ``name stage value low high n``, in order.

    The dotted line is chance; n is written below each stage (the least and the most of its scores).
    """
    steps = list(dict.fromkeys(rows["stage"]))
    scores = list(dict.fromkeys(rows["name"]))
    figure, axes = canvas(7, 4.2)
    offsets = np.linspace(-0.07, 0.07, len(scores)) if len(scores) > 1 else [0.0]
    for name, colour, offset in zip(scores, cycle(PALETTE), offsets, strict=False):
        own = rows[rows["name"] == name].set_index("stage").loc[steps]
        x = np.arange(len(steps)) + offset
        spread = [own["value"] - own["low"], own["high"] - own["value"]]
        axes.errorbar(
            x, own["value"], yerr=spread, color=colour, marker="o", capsize=3, linewidth=2, label=literal(name)
        )
    axes.axhline(0.5, color=GREY, linestyle=":", label="chance")
    sizes = rows.groupby("stage")["n"].agg(["min", "max"]).loc[steps]
    counted = [f"n = {low}" if low == high else f"n = {low} to {high}" for low, high in sizes.to_numpy()]
    axes.set_xticks(np.arange(len(steps)), [f"{literal(step)}\n{n}" for step, n in zip(steps, counted, strict=True)])
    axes.set(ylabel="AUC, 95 % interval", ylim=(min(0.4, rows["low"].min() - 0.02), 1.0))
    axes.grid(visible=False, axis="x")
    headline(figure, finding)
    legend_below(figure, axes, ncols=4)
    return figure


def score_strips(parts: Mapping[str, pd.DataFrame], threshold: float, finding: str) -> Figure:
    """Draw the probability of every breast as a dot, a row per set and label, with the decision threshold as a line.

    ``parts`` maps the name of a set to its ``label probability``.
    """
    jitter, names = np.random.default_rng(0), []
    figure, axes = canvas(7, 1.1 * len(parts) + 1.5)
    for (name, frame), (label, word) in product(parts.items(), LABEL_NAMES.items()):
        own = frame.loc[frame["label"] == label, "probability"].to_numpy()
        y = len(names) + jitter.uniform(-0.25, 0.25, len(own))
        shown = {"s": 16, "color": LABEL_COLOURS[label], "alpha": 0.6, "label": word if len(names) < 2 else None}
        axes.scatter(100 * own, y, **shown)
        called = f"{100 * (own >= threshold).mean():.0f} % of {len(own)} {word} called malignant"
        names.append(f"{literal(name)}\n{called}" if label == 0 else called)
    axes.axvline(100 * threshold, color="black", linewidth=1, label="threshold")
    for row in range(1, len(parts)):
        axes.axhline(2 * row - 0.5, color=GREY, linewidth=0.5)
    axes.set(yticks=np.arange(len(names)), yticklabels=names, ylim=(len(names) - 0.5, -0.5), xlim=(0, 100))
    axes.set_xlabel("probability of malignancy, %")
    axes.grid(visible=False, axis="y")
    headline(figure, finding)
    legend_below(figure, axes)
    return figure
