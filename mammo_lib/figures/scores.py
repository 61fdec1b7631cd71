"""What a score is worth: discrimination, decisions, calibration."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import cycle

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from sklearn.metrics import roc_curve as sk_roc_curve

from ..statistics import Confusion, Interval
from .style import BLUE, GREY, LABEL_NAMES, PALETTE, canvas, headline, legend_below, literal


def auc_intervals(scores: Mapping[str, Interval]) -> Figure:
    """Draw the AUC of several scores with their intervals, the best on top; guessing is marked."""
    ordered = sorted(scores.items(), key=lambda item: item[1].value)
    figure, axes = canvas(height=0.42 * len(ordered) + 1.1)
    for y, (name, one) in enumerate(ordered):
        axes.errorbar(
            one.value, y, xerr=[[one.value - one.low], [one.high - one.value]], fmt="o", color=BLUE, capsize=3
        )
        axes.annotate(
            f"{one.value:.2f}", (one.value, y), xytext=(0, 7), textcoords="offset points", ha="center", fontsize=8
        )
        ordered[y] = literal(f"{name} (n = {one.n})")
    axes.axvline(0.5, color=GREY, linestyle=":")
    axes.set(
        xlim=(0.3, 1.03), xlabel="AUC, 95 % interval over patients; dotted: guessing", ylim=(-0.5, len(ordered) - 0.3)
    )
    axes.set_yticks(range(len(ordered)), ordered)
    axes.grid(visible=False, axis="y")
    informative = sum(one.low > 0.5 or one.high < 0.5 for one in scores.values())
    headline(figure, f"{informative} of {len(scores)} scores differ from guessing")
    return figure


def roc_curve(label: np.ndarray, probability: np.ndarray, interval: Interval) -> Figure:
    """Draw the ROC curve with the AUC, its interval and the number of breasts in the title."""
    figure, axes = canvas(width=4.6, height=4.4)
    fpr, tpr, _ = sk_roc_curve(label, probability, drop_intermediate=False)
    axes.plot(100 * fpr, 100 * tpr, color=BLUE)
    axes.plot([0, 100], [0, 100], color=GREY, linestyle=":", label="guessing")
    axes.set(
        xlabel="1 - specificity, % of benign breasts", ylabel="sensitivity, % of malignant breasts", aspect="equal"
    )
    axes.set_title(
        f"AUC {interval.value:.2f} (95 % interval {interval.low:.2f} to {interval.high:.2f}, n = {interval.n})"
    )
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
    axes.set_title(
        f"{counts.tp} of {counts.tp + counts.fn} malignant found, {counts.fp} of {counts.tn + counts.fp} benign called"
    )
    return figure


def reliability(curves: Mapping[str, pd.DataFrame]) -> Figure:
    """Draw probability against the malignant share, a colour per curve; bins as ``statistics.reliability`` has them."""
    figure, axes = canvas(width=4.8, height=4.6)
    axes.plot([0, 100], [0, 100], color=GREY, linestyle=":", label="calibrated")
    for i, ((name, bins), colour) in enumerate(zip(curves.items(), cycle(PALETTE))):
        spread = 100 * np.clip([bins["value"] - bins["low"], bins["high"] - bins["value"]], 0, None)
        x, y = 100 * bins["mean"] + i, 100 * bins["value"]  # one percent aside, so that bars do not hide each other
        axes.errorbar(x, y, spread, fmt="os^"[i % 3], color=colour, capsize=2, label=name)
    axes.set(xlabel="mean predicted probability, %", ylabel="malignant breasts, %", xlim=(-2, 102), ylim=(-2, 102))
    gaps = [f"{100 * _mean_gap(bins):.0f}" for bins in curves.values()]
    axes.set_title(f"Mean gap of {', then '.join(gaps)} percentage points")
    legend_below(figure, axes)
    return figure


def _mean_gap(bins: pd.DataFrame) -> float:
    return float(((bins["mean"] - bins["value"]).abs() * bins["n"]).sum() / bins["n"].sum())
