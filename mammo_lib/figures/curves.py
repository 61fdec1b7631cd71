"""Learning curves: over epochs, over the number of breasts, and over the side of the input."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import cycle

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from .style import BLUE, GREY, ORANGE, PALETTE, canvas, headline, legend_below


def seed_bands(histories: Mapping[str, Sequence[pd.DataFrame]]) -> Figure:
    """Draw loss and validation AUC over epochs, one colour per experiment: the mean of its seeds and their range.

    Seeds may stop at different epochs. Mean and range cover the seeds still training; the line ends with the last one.
    """
    figure, (left, right) = canvas(width=7, height=3.7, columns=2)
    for (name, seeds), colour in zip(histories.items(), cycle(PALETTE), strict=False):
        _band(left, seeds, "train_loss", colour, linestyle="-")
        _band(left, seeds, "validation_loss", colour, linestyle="--")
        label = f"{name}, {len(seeds)} seed{'s' if len(seeds) > 1 else ''}"
        _band(right, seeds, "validation_auc", colour, label=label)
    everything = [history for seeds in histories.values() for history in seeds]
    left.set(xlabel="epoch", ylabel="cross-entropy, smoothed labels", title=_loss_finding(everything))
    left.legend([Line2D([], [], color=GREY, linestyle=style) for style in ("-", "--")], ["training", "validation"])
    right.axhline(0.5, color=GREY, linewidth=1)
    best = [history["validation_auc"].max() for history in everything]
    found = f"{best[0]:.2f}" if len(best) == 1 else f"{min(best):.2f} to {max(best):.2f}, {len(best)} runs"
    right.set(xlabel="epoch", ylabel="validation AUC", title=f"Best validation AUC {found}")
    for ax in (left, right):
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    legend_below(figure, right)
    return figure


def training_losses(histories: Mapping[str, Sequence[pd.DataFrame]], constant: float, finding: str) -> Figure:
    """Draw the training loss over epochs, one colour per network: the mean of its fits and their range.

    The dotted line is the loss of a constant answer; a network that ends there hardly fits its training breasts.
    """
    figure, axes = canvas(width=7)
    for (name, fits), colour in zip(histories.items(), cycle(PALETTE), strict=False):
        _band(axes, fits, "train_loss", colour, label=f"{name}, {len(fits)} fits")
    axes.axhline(constant, color=GREY, linestyle=":", label="a constant answer")
    axes.set(xlabel="epoch", ylabel="training loss (cross-entropy)")
    legend_below(figure, axes, ncols=2)
    headline(figure, finding)
    return figure


def auc_by_breasts(points: pd.DataFrame, ahead: pd.DataFrame) -> Figure:
    """Draw the AUC over the number of training breasts, and what is extrapolated from it.

    ``points``: ``breasts n`` and ``auc`` with its interval; ``ahead``: ``form breasts`` and ``auc`` likewise
    (:class:`mammo_lib.analysis.limits.LearningCurve`).
    """
    figure, axes = canvas()
    _points(axes, points, BLUE, "measured")
    for (form, own), colour, style in zip(ahead.groupby("form"), (GREY, ORANGE), ("--", ":"), strict=False):
        last = points.iloc[[-1]]
        axes.plot([*last["breasts"], *own["breasts"]], [*last["auc"], *own["auc"]], color=colour, linestyle=style)
        axes.fill_between(own["breasts"], own["auc_low"], own["auc_high"], color=colour, alpha=0.2, linewidth=0)
        _points(axes, own, colour, f"extrapolated: {form}", marker="s", fill="none")
    ticks = sorted({*points["breasts"].round(), *ahead.get("breasts", [])})
    axes.set(xscale="log", xlabel="training breasts of a fold", ylabel="AUC out of fold, 95 % interval")
    axes.set_xticks(ticks, [f"{tick:.0f}" for tick in ticks])
    axes.minorticks_off()
    first, last = points.iloc[0], points.iloc[-1]
    grown = f"From {first['breasts']:.0f} to {last['breasts']:.0f} breasts the AUC goes from {first['auc']:.3f}"
    headline(figure, f"{grown} to {last['auc']:.3f} (n = {last['n']:.0f})")
    legend_below(figure, axes)
    return figure


def auc_by_side(table: pd.DataFrame) -> Figure:
    """Draw the AUC over the side of the input, a panel for each kind of image and a line for each classifier.

    ``table``: ``images classifier side n`` and ``auc`` with its interval (``mammo_lib.analysis.resolution.by_side``).
    """
    kinds = table["images"].unique()
    figure, panels = canvas(width=7, height=3.7, columns=len(kinds), sharey=True, squeeze=False)
    classifiers = dict(zip(sorted(table["classifier"].unique()), zip(PALETTE, "osD^vP", strict=False), strict=False))
    for axes, kind in zip(panels[0], kinds, strict=True):
        own = table[table["images"] == kind]
        for place, (name, (colour, marker)) in enumerate(classifiers.items()):
            rows = own[own["classifier"] == name]
            if len(rows):
                moved = rows.assign(side=rows["side"] * 1.03 ** (place - 1))
                axes.plot(moved["side"], moved["auc"], color=colour, linewidth=1)
                _points(axes, moved, colour, name, marker=marker, by="side")
        ticks = sorted(own["side"].unique())
        axes.axhline(0.5, color=GREY, linestyle=":", linewidth=1)
        axes.set(xscale="log", xlabel="side of the input, pixels", title=f"{kind}, n = {own['n'].iloc[0]}")
        axes.set_xticks(ticks, [str(tick) for tick in ticks])
        axes.minorticks_off()
    panels[0][0].set_ylabel("AUC out of fold, 95 % interval")
    drawn = {name: handle for axes in panels[0] for handle, name in zip(*axes.get_legend_handles_labels(), strict=True)}
    figure.legend(drawn.values(), drawn.keys(), loc="outside lower center", ncols=2)
    best = table.loc[table.groupby("images", sort=False)["auc"].idxmax()]
    said = [f"{one.images}: highest AUC {one.auc:.2f}, {one.side} px, {one.classifier}" for one in best.itertuples()]
    headline(figure, "\n".join(said))
    return figure


def _points(
    axes, rows: pd.DataFrame, colour: str, name: str, marker: str = "o", fill: str = "full", by: str = "breasts"
) -> None:
    spread = [rows["auc"] - rows["auc_low"], rows["auc_high"] - rows["auc"]]
    style = {"fmt": marker, "color": colour, "fillstyle": fill, "capsize": 3, "label": name}
    axes.errorbar(rows[by], rows["auc"], yerr=spread, **style)


def _band(axes, seeds: Sequence[pd.DataFrame], column: str, colour: str, **style) -> None:
    """Draw the mean over seeds of a column and fill between the lowest and the highest."""
    by_epoch = pd.concat(seeds).groupby("epoch")[column].agg(["mean", "min", "max"])
    axes.plot(by_epoch.index + 1, by_epoch["mean"], color=colour, **style)
    axes.fill_between(by_epoch.index + 1, by_epoch["min"], by_epoch["max"], color=colour, alpha=0.2, linewidth=0)


def _loss_finding(histories: Iterable[pd.DataFrame]) -> str:
    lowest = sorted({int(history.loc[history["validation_loss"].idxmin(), "epoch"]) + 1 for history in histories})
    epochs = f"epoch {lowest[0]}" if len(lowest) == 1 else f"epochs {lowest[0]} to {lowest[-1]}"
    return f"Validation loss lowest at {epochs}"
