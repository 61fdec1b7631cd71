"""Training curves."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import cycle

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from .style import GREY, PALETTE, canvas, legend_below


def seed_bands(histories: Mapping[str, Sequence[pd.DataFrame]]) -> Figure:
    """Draw loss and validation AUC over epochs, one colour per experiment: the mean of its seeds and their range.

    Seeds may stop at different epochs. Mean and range are over those still training; the line ends with the last.
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


def _band(axes, seeds: Sequence[pd.DataFrame], column: str, colour: str, **style) -> None:
    """Draw the mean over seeds of a column and fill between the lowest and the highest."""
    by_epoch = pd.concat(seeds).groupby("epoch")[column].agg(["mean", "min", "max"])
    axes.plot(by_epoch.index + 1, by_epoch["mean"], color=colour, **style)
    axes.fill_between(by_epoch.index + 1, by_epoch["min"], by_epoch["max"], color=colour, alpha=0.2, linewidth=0)


def _loss_finding(histories: Iterable[pd.DataFrame]) -> str:
    lowest = sorted({int(history.loc[history["validation_loss"].idxmin(), "epoch"]) + 1 for history in histories})
    epochs = f"epoch {lowest[0]}" if len(lowest) == 1 else f"epochs {lowest[0]} to {lowest[-1]}"
    return f"Validation loss lowest at {epochs}"
