"""Discrimination, decisions and calibration of scores."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import cycle

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from sklearn.metrics import roc_curve as sk_roc_curve

from ..statistics import Confusion, Interval
from .forests import forest
from .style import BLUE, GREY, LABEL_NAMES, PALETTE, canvas, headline, legend_below


def auc_intervals(scores: Mapping[str, Interval]) -> Figure:
    """Draw the AUC of several scores with their intervals, the best on top; chance level is marked."""
    ordered = dict(sorted(scores.items(), key=lambda item: -item[1].value))
    informative = sum(one.low > 0.5 or one.high < 0.5 for one in scores.values())
    figure, axes = forest(
        pd.DataFrame(map(vars, ordered.values())), [f"{name} (n = {one.n})" for name, one in ordered.items()],
        np.zeros(len(ordered), bool), ("", "AUC"), "AUC, 95 % interval over patients (dotted line: chance)",
        f"{informative} of {len(scores)} scores differ from chance", at=0.5, row=0.42, rest=1.1,
    )  # fmt: skip
    axes.set(xlim=(0.3, 1.03), ylim=(len(ordered) - 0.5, -0.7))
    for y, one in enumerate(ordered.values()):
        place = {"xytext": (0, 7), "textcoords": "offset points", "ha": "center"}
        axes.annotate(f"{one.value:.2f}", (one.value, y), fontsize=8, **place)
    return figure


def roc_curve(label: np.ndarray, probability: np.ndarray, interval: Interval) -> Figure:
    """Draw the ROC curve with the AUC, its interval and the number of breasts in the title."""
    figure, axes = canvas(width=4.6, height=4.4)
    fpr, tpr, _ = sk_roc_curve(label, probability, drop_intermediate=False)
    axes.plot(100 * fpr, 100 * tpr, color=BLUE)
    axes.plot([0, 100], [0, 100], color=GREY, linestyle=":", label="chance")
    axes.set(xlabel="1 - specificity, % of benign breasts", ylabel="sensitivity, % of malignant breasts")
    axes.set_aspect("equal")
    span = f"{interval.low:.2f} to {interval.high:.2f}"
    axes.set_title(f"AUC {interval.value:.2f} (95 % interval {span}, n = {interval.n})")
    axes.legend(loc="lower right")
    return figure


def confusion_matrix(counts: Confusion) -> Figure:
    """Draw the four counts at the threshold."""
    figure, axes = canvas(width=4.6, height=3.4)
    table = np.array([[counts.tn, counts.fp], [counts.fn, counts.tp]])
    names = list(LABEL_NAMES.values())
    counted = {"annot": True, "fmt": "d", "annot_kws": {"size": 15}}
    sns.heatmap(table, **counted, cmap="Blues", cbar=False, vmin=0, xticklabels=names, yticklabels=names, ax=axes)
    axes.set(xlabel="decision", ylabel="pathology")
    found, called = f"{counts.tp} of {counts.tp + counts.fn}", f"{counts.fp} of {counts.tn + counts.fp}"
    axes.set_title(f"{found} malignant breasts found,\n{called} benign breasts called malignant")
    return figure


def reliability_diagram(curves: Mapping[str, pd.DataFrame]) -> Figure:
    """Draw the malignant share over the predicted probability, a panel per curve, over the breasts of each bin.

    Bins as in ``statistics.reliability``.
    """
    figure, axes = canvas(
        width=5, height=4.4, rows=2, columns=len(curves), sharex=True, sharey="row", height_ratios=[3, 1], squeeze=False
    )
    for (name, bins), upper, lower, colour in zip(curves.items(), *axes, cycle(PALETTE)):
        x, y = 100 * bins["mean"], 100 * bins["value"]
        spread = 100 * np.clip([bins["value"] - bins["low"], bins["high"] - bins["value"]], 0, None)
        upper.plot([0, 100], [0, 100], color=GREY, linestyle=":", label="perfect calibration")
        upper.errorbar(x, y, spread, fmt="o", color=colour, capsize=2)
        upper.set(title=f"{name}, n = {bins['n'].sum()}", xlim=(-2, 102), ylim=(-2, 102))
        lower.bar(x, bins["n"], width=5, color=colour)
        lower.set(xlabel="mean prediction of a bin, %")
    axes[0, 0].set_ylabel("malignant, %, 95 % interval")
    axes[1, 0].set_ylabel("breasts")
    gaps = [np.average((bins["mean"] - bins["value"]).abs(), weights=bins["n"]) for bins in curves.values()]
    told = ", ".join(f"{100 * gap:.0f} ({name})" for name, gap in zip(curves, gaps, strict=True))
    headline(figure, f"Mean calibration error in percentage points:\n{told}")
    legend_below(figure, axes[0, 0])
    return figure
