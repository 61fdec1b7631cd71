"""The book's figures: plain frames and arrays in, a matplotlib figure out, one visual language.

Titles say the finding, computed from the numbers drawn; axes carry units; n and intervals are shown. Colours are
the Okabe-Ito set, told apart by readers with colour-vision deficiency. Mammograms are never tinted.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import cycle

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from IPython import get_ipython
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator
from sklearn.metrics import roc_curve as sk_roc_curve

from .statistics import SPECIFICITIES, Confusion, Interval, sensitivity_at

BLUE, ORANGE, GREEN, PURPLE, GREY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#6E6E6E"
PALETTE = [BLUE, ORANGE, GREEN, PURPLE, "#E69F00", "#56B4E9"]
LABEL_NAMES = {0: "benign", 1: "malignant"}
LABEL_COLOURS = {0: BLUE, 1: ORANGE}
FEW = 10  # breasts below which a share is not worth a headline


def use_style() -> None:
    """Set the look of every figure and, in a notebook, show returned figures as pictures."""
    if (shell := get_ipython()) is not None:
        shell.run_line_magic("matplotlib", "inline")
    sns.set_theme(context="notebook", style="whitegrid", palette=PALETTE, font_scale=0.9)
    plt.rcParams.update(
        {
            "figure.dpi": 110, "figure.figsize": (6.4, 3.8), "savefig.bbox": "tight", "axes.titlelocation": "left",
            "axes.titlesize": 11, "axes.spines.top": False, "axes.spines.right": False, "grid.alpha": 0.4,
            "image.cmap": "gray", "legend.frameon": False,
        }
    )  # fmt: skip


def _canvas(width: float = 6.4, height: float = 3.8, rows: int = 1, columns: int = 1, **options):
    # Figures are returned, not shown: without pyplot nothing is drawn twice in a notebook, and nothing stays open.
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(rows, columns, **options)


def _legend_below(figure: Figure, axes) -> None:
    """Put the legend where it hides no data."""
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=3)


def funnel(counts: pd.DataFrame) -> Figure:
    """Draw how table rows become the cohort: ``step rows breasts patients malignant``, one bar per step."""
    figure, axes = _canvas(height=0.55 * len(counts) + 1.1)
    benign = counts["breasts"] - counts["malignant"]
    axes.barh(counts["step"], benign, color=BLUE, label="benign")
    axes.barh(counts["step"], counts["malignant"], left=benign, color=ORANGE, label="malignant")
    for y, row in enumerate(counts.itertuples()):
        axes.annotate(
            f" {row.breasts} breasts, {row.patients} patients, {row.rows} rows",
            (row.breasts, y),
            va="center",
            fontsize=9,
        )
    axes.set(xlim=(0, counts["breasts"].max() * 1.75), xlabel="breasts")
    axes.grid(visible=False, axis="y")
    axes.invert_yaxis()
    _legend_below(figure, axes)
    last = counts.iloc[-1]
    axes.set_title(
        f"{counts['rows'].iloc[0]} rows become {last['breasts']} breasts, {last['malignant']} of them malignant"
    )
    return figure


def cohort_composition(cohort: pd.DataFrame, by: str, name: str) -> Figure:
    """Draw how many breasts, benign and malignant, have each value of a column, per split."""
    splits = list(dict.fromkeys(cohort["split"]))
    figure, axes = _canvas(columns=len(splits), sharey=True, squeeze=False)
    for ax, split in zip(axes[0], splits, strict=True):
        part = cohort[cohort["split"] == split]
        counts = pd.crosstab(part[by].astype("string").fillna("unknown"), part["label"])
        bottom = np.zeros(len(counts))
        for label, colour in LABEL_COLOURS.items():
            heights = counts.get(label, pd.Series(0, counts.index)).to_numpy()
            ax.bar(counts.index.tolist(), heights, bottom=bottom, color=colour, label=LABEL_NAMES[label])
            bottom += heights
        ax.set(title=f"{split}: {part['label'].mean():.0%} of {len(part)} malignant", xlabel=name)
    axes[0, 0].set_ylabel("breasts")
    _legend_below(figure, axes[0, 0])
    return figure


def malignant_shares(shares: pd.DataFrame) -> Figure:
    """Draw the share of malignant breasts per level, a panel per name: ``name level value low high n``."""
    names = list(dict.fromkeys(shares["name"]))
    figure, axes = _canvas(width=7, height=3.0, columns=len(names), sharey=True, squeeze=False)
    for ax, name in zip(axes[0], names, strict=True):
        part = shares[shares["name"] == name]
        x = np.arange(len(part))
        spread = 100 * np.clip([part["value"] - part["low"], part["high"] - part["value"]], 0, None)
        ax.errorbar(x, 100 * part["value"], spread, fmt="o", color=BLUE, capsize=3)
        ax.set_xticks(x, [f"{level}\n({n})" for level, n in zip(part["level"], part["n"], strict=True)], fontsize=8)
        ax.set(xlabel=name, ylim=(0, 100), xlim=(-0.5, len(part) - 0.5))
    axes[0, 0].set_ylabel("malignant breasts, % (n below)")
    spans = shares[shares["n"] >= FEW].groupby("name", sort=False)["value"].agg(["min", "max"])
    widest = (spans["max"] - spans["min"]).idxmax()
    low, high = 100 * spans.loc[widest, "min"], 100 * spans.loc[widest, "max"]
    figure.suptitle(
        f"From {low:.0f} to {high:.0f} % malignant across {widest} (levels with n of {FEW} or more)",
        x=0.01,
        ha="left",
        fontsize=11,
    )
    return figure


def auc_intervals(scores: Mapping[str, Interval]) -> Figure:
    """Draw the AUC of several scores with their intervals, the best on top; guessing is marked."""
    ordered = sorted(scores.items(), key=lambda item: item[1].value)
    figure, axes = _canvas(height=0.42 * len(ordered) + 1.1)
    for y, (name, one) in enumerate(ordered):
        axes.errorbar(
            one.value, y, xerr=[[one.value - one.low], [one.high - one.value]], fmt="o", color=BLUE, capsize=3
        )
        axes.annotate(
            f"{one.value:.2f}", (one.value, y), xytext=(0, 7), textcoords="offset points", ha="center", fontsize=8
        )
        ordered[y] = f"{name} (n = {one.n})"
    axes.axvline(0.5, color=GREY, linestyle=":")
    axes.set(
        xlim=(0.3, 1.03), xlabel="AUC, 95 % interval over patients; dotted: guessing", ylim=(-0.5, len(ordered) - 0.3)
    )
    axes.set_yticks(range(len(ordered)), ordered)
    axes.grid(visible=False, axis="y")
    informative = sum(one.low > 0.5 or one.high < 0.5 for one in scores.values())
    figure.suptitle(f"{informative} of {len(scores)} scores differ from guessing", x=0.01, ha="left", fontsize=11)
    return figure


def crop_sizes(longest: np.ndarray, side: int) -> Figure:
    """Draw the longest sides of crops, in pixels of their files, against the side of the network's input."""
    figure, axes = _canvas(height=3.0)
    axes.hist(longest, bins=30, color=BLUE)
    axes.axvline(side, color="black", linestyle="--", label=f"network input, {side} px")
    axes.set(xlabel="longest side of the crop, pixels of the file", ylabel="crops")
    enlarged = np.mean(np.asarray(longest) < side)
    axes.set_title(
        f"Half of the crops are below {np.median(longest):.0f} px; {enlarged:.0%} are enlarged for the network"
    )
    _legend_below(figure, axes)
    return figure


def learning_curves(histories: Mapping[str, pd.DataFrame]) -> Figure:
    """Draw loss and validation AUC over epochs, one colour per run; the kept epoch is marked."""
    figure, (left, right) = _canvas(width=7, height=3.4, columns=2)
    for (name, history), colour in zip(histories.items(), cycle(PALETTE), strict=False):
        epochs = history["epoch"] + 1
        left.plot(epochs, history["train_loss"], color=colour)
        left.plot(epochs, history["validation_loss"], color=colour, linestyle="--")
        right.plot(epochs, history["validation_auc"], color=colour, label=name)
        best = history["validation_auc"].idxmax()
        right.plot(epochs[best], history["validation_auc"][best], "o", color=colour)
    left.set(xlabel="epoch", ylabel="cross-entropy, smoothed labels", title=_loss_finding(histories.values()))
    left.legend([Line2D([], [], color=GREY, linestyle=style) for style in ("-", "--")], ["training", "validation"])
    right.axhline(0.5, color=GREY, linewidth=1)
    best = [history["validation_auc"].max() for history in histories.values()]
    found = f"{best[0]:.2f}" if len(best) == 1 else f"{min(best):.2f} to {max(best):.2f}, {len(best)} runs"
    right.set(xlabel="epoch", ylabel="validation AUC", title=f"Best validation AUC {found}")
    right.legend()
    for ax in (left, right):
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure


def _loss_finding(histories: Iterable[pd.DataFrame]) -> str:
    lowest = sorted({int(history.loc[history["validation_loss"].idxmin(), "epoch"]) + 1 for history in histories})
    epochs = f"epoch {lowest[0]}" if len(lowest) == 1 else f"epochs {lowest[0]} to {lowest[-1]}"
    return f"Validation loss lowest at {epochs}"


def roc_curve(label: np.ndarray, probability: np.ndarray, interval: Interval) -> Figure:
    """Draw the ROC curve with the AUC, its interval and the number of breasts in the title."""
    figure, axes = _canvas(width=4.6, height=4.4)
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
    figure, axes = _canvas(width=4.6, height=3.4)
    table = np.array([[counts.tn, counts.fp], [counts.fn, counts.tp]])
    names = list(LABEL_NAMES.values())
    counted = {"annot": True, "fmt": "d", "annot_kws": {"size": 15}}
    sns.heatmap(table, **counted, cmap="Blues", cbar=False, vmin=0, xticklabels=names, yticklabels=names, ax=axes)
    axes.set(xlabel="decision", ylabel="pathology")
    axes.set_title(
        f"{counts.tp} of {counts.tp + counts.fn} malignant found, {counts.fp} of {counts.tn + counts.fp} benign called"
    )
    return figure


def operating_points(predictions: pd.DataFrame) -> Figure:
    """Draw the probabilities of both classes, the threshold, and the sensitivity at fixed specificities."""
    figure, axes = _canvas(height=3.2)
    label, probability = predictions["label"].to_numpy(), predictions["probability"].to_numpy()
    bins = np.linspace(0, 1, 21)
    for value, colour in LABEL_COLOURS.items():
        axes.hist(
            probability[label == value],
            bins,
            color=colour,
            alpha=0.55,
            label=f"{LABEL_NAMES[value]}, n = {(label == value).sum()}",
        )
    threshold = predictions["threshold"].iloc[0]
    axes.axvline(threshold, color="black", linestyle="--", label=f"threshold {threshold:.2f}, from validation")
    axes.set(xlabel="predicted probability of malignancy", ylabel="breasts")
    points = [f"{sensitivity_at(label, probability, s):.0%} at {s:.0%}" for s in SPECIFICITIES]
    axes.set_title("Sensitivity at fixed specificity: " + ", ".join(points))
    _legend_below(figure, axes)
    return figure


def reliability(curves: Mapping[str, pd.DataFrame]) -> Figure:
    """Draw probability against the malignant share, a colour per curve; bins as ``statistics.reliability`` has them."""
    figure, axes = _canvas(width=4.8, height=4.6)
    axes.plot([0, 100], [0, 100], color=GREY, linestyle=":", label="calibrated")
    for i, ((name, bins), colour) in enumerate(zip(curves.items(), cycle(PALETTE))):
        spread = 100 * np.clip([bins["value"] - bins["low"], bins["high"] - bins["value"]], 0, None)
        x, y = 100 * bins["mean"] + i, 100 * bins["value"]  # one percent aside, so that bars do not hide each other
        axes.errorbar(x, y, spread, fmt="os^"[i % 3], color=colour, capsize=2, label=name)
    axes.set(xlabel="mean predicted probability, %", ylabel="malignant breasts, %", xlim=(-2, 102), ylim=(-2, 102))
    gaps = [f"{100 * _mean_gap(bins):.0f}" for bins in curves.values()]
    axes.set_title(f"Mean gap of {', then '.join(gaps)} percentage points")
    _legend_below(figure, axes)
    return figure


def _mean_gap(bins: pd.DataFrame) -> float:
    return float(((bins["mean"] - bins["value"]).abs() * bins["n"]).sum() / bins["n"].sum())


def mammogram_grid(
    images: Sequence[np.ndarray], titles: Sequence[str], title: str, boxes: Sequence | None = None, columns: int = 4
) -> Figure:
    """Draw mammograms side by side in grey; ``boxes`` holds (x0, y0, x1, y1) in pixels of each image, or None."""
    rows = -(-len(images) // columns)
    figure, axes = _canvas(width=7, height=2.6 * rows + 0.4, rows=rows, columns=columns, squeeze=False)
    for i, ax in enumerate(axes.flat):
        ax.set_axis_off()
        if i >= len(images):
            continue
        ax.imshow(images[i], cmap="gray", vmin=0, vmax=max(1e-6, float(np.quantile(images[i], 0.999))))
        ax.set_title(titles[i], fontsize=9, loc="center")
        if boxes is not None and boxes[i] is not None:
            x0, y0, x1, y1 = boxes[i]
            ax.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, edgecolor=ORANGE, linewidth=1.2))
    figure.suptitle(title, x=0.01, ha="left", fontsize=11)
    return figure


def published_intervals(published: pd.DataFrame, ours: Mapping[str, Interval]) -> Figure:
    """Draw published values (``name value low high n``) and, beside them, ours of the same name."""
    figure, axes = _canvas(width=7, height=0.42 * len(published) + 1.5)
    y = np.arange(len(published))
    mine = pd.DataFrame({name: vars(ours[name]) for name in published["name"] if name in ours}).T
    apart = 0.12 if len(mine) else 0.0
    _error_bars(axes, published, y - apart, BLUE, "published, with the interval of its test size")
    if len(mine):
        _error_bars(axes, mine, y[published["name"].isin(mine.index)] + apart, ORANGE, "this profile")
    names = [f"{name}, n = {n}" for name, n in zip(published["name"], published["n"], strict=True)]
    axes.set(yticks=y, yticklabels=names, ylim=(len(y) - 0.5, -0.5), xlabel="value, with 95 % interval")
    _legend_below(figure, axes)
    widths = published["high"] - published["low"]
    axes.set_title(f"The test size leaves each value open by {widths.min():.2f} to {widths.max():.2f}")
    return figure


def denominators(matches: Mapping[str, Sequence[int]], common: Sequence[int], n_max: int) -> Figure:
    """Draw, per published accuracy, the test sizes at which it is a whole number of breasts; common ones are marked."""
    figure, axes = _canvas(height=0.5 * len(matches) + 1.3)
    for y, sizes in enumerate(matches.values()):
        axes.plot(sizes, np.full(len(sizes), y), "|", color=BLUE, markersize=13)
    for n in common:
        axes.axvline(n, color=ORANGE, linewidth=1.5, zorder=0)
        axes.annotate(f" {n}", (n, -0.65), color=ORANGE)
    axes.set(
        yticks=range(len(matches)), yticklabels=list(matches), xlim=(0, n_max), xlabel="size of the test set, breasts"
    )
    axes.set_ylim(len(matches) - 0.5, -0.9)
    axes.set_title(
        f"Only {' and '.join(map(str, common))} breasts fit all {len(matches)} accuracies, of sizes below {n_max}"
    )
    return figure


def _error_bars(axes, intervals: pd.DataFrame, y: np.ndarray, colour: str, name: str) -> None:
    value = intervals["value"].to_numpy(float)
    spread = [value - intervals["low"].to_numpy(float), intervals["high"].to_numpy(float) - value]
    axes.errorbar(value, y, xerr=spread, fmt="o", color=colour, capsize=3, label=name)


def kernel_curves(kernels: Mapping[str, np.ndarray], title: str | None = None) -> Figure:
    """Draw convolution kernels (or impulse responses) over lag; by default the title says how far each reaches."""
    figure, axes = _canvas(height=3.2)
    halves = {}
    for name, kernel in kernels.items():
        values = np.asarray(kernel)
        axes.plot(np.arange(len(values)), values, label=name)
        halves[name] = int(np.argmax(np.cumsum(np.abs(values)) >= 0.5 * np.abs(values).sum()))
    axes.set(xlabel="lag, tokens", ylabel="weight, per unit of step")
    reach = ", ".join(f"{lag} at {name}" for name, lag in halves.items())
    axes.set_title(title or f"Half of the kernel's weight lies within lag {reach}")
    axes.legend()
    return figure


def cost_curves(lengths: Sequence[int], seconds: Mapping[str, Sequence[float]]) -> Figure:
    """Draw time against sequence length, both on logarithmic axes; the title gives each growth from end to end."""
    figure, axes = _canvas()
    for name, times in seconds.items():
        axes.loglog(lengths, 1e3 * np.asarray(times), "o-", label=name)
    axes.set(xlabel="sequence length, tokens", ylabel="milliseconds")
    axes.set_xticks(list(lengths), [str(n) for n in lengths], minor=False)
    axes.minorticks_off()
    growth = ", ".join(f"{times[-1] / times[0]:.0f}" for times in seconds.values())
    axes.set_title(
        f"{lengths[-1] // lengths[0]} times the tokens cost {growth} times the time (in the order of the legend)"
    )
    axes.legend()
    return figure


def gate_opening(biases: np.ndarray, opening: np.ndarray, marked: float) -> Figure:
    """Draw a gate's opening and its slope G (1 - G) over its bias, one bias marked."""
    biases, opening = np.asarray(biases), np.asarray(opening)
    figure, axes = _canvas(height=3.2)
    axes.plot(biases, opening, label="opening G")
    axes.plot(biases, opening * (1 - opening), label="slope G (1 - G)")
    at = int(np.argmin(np.abs(biases - marked)))
    axes.axvline(marked, color=GREY, linestyle=":", label=f"start, b = {marked:g}")
    axes.set(xlabel="bias of the gate", ylabel="opening, slope")
    axes.set_title(
        f"At b = {marked:g} a gate is {opening[at]:.0%} open and keeps a slope of {opening[at] * (1 - opening[at]):.2f}"
    )
    axes.legend()
    return figure
