"""Gates over epochs and over breasts, and the effects of interventions on them."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from .forests import forest
from .style import GREY, LABEL_COLOURS, LABEL_NAMES, block_name, canvas, headline, legend_below, p_in_words

DEPTH_COLOURS = "cividis"  # early blocks dark, late blocks light, also in grey print
DEVIATION_COLOURS = "PuOr"  # purple below, orange above; distinct under colour-vision deficiency
BLOCK = ["stage", "block"]
AFTER_HOLM = ("p below 0.05 after Holm", "p not below 0.05")


def gate_trajectories(history: pd.DataFrame, start: float) -> Figure:
    """Draw each SeqMoE gate over epochs, averaged over views, with the range over validation breasts.

    ``history`` as in ``Run.gate_history``. The dotted line is the initial gate.
    """
    own = history[history["kind"] == "seqmoe"]
    streams, blocks = sorted(own["stream"].unique()), _blocks(own)
    figure, axes = canvas(7, 3.6, columns=len(streams), sharey=True, squeeze=False)
    for ax, stream in zip(axes.flat, streams, strict=True):
        for block, colour in zip(blocks, colormaps[DEPTH_COLOURS](np.linspace(0.05, 0.9, len(blocks))), strict=True):
            line = own[(own["stream"] == stream) & own[BLOCK].eq(list(block)).all(axis=1)]
            line = line.groupby("epoch").agg(mean=("mean", "mean"), low=("low", "min"), high=("high", "max"))
            ax.plot(line.index + 1, line["mean"], color=colour, label=block_name(*block), marker=".")
            ax.fill_between(line.index + 1, line["low"], line["high"], color=colour, alpha=0.13, linewidth=0)
        ax.axhline(start, color=GREY, linestyle=":")
        ax.set(title=f"{stream} stream", xlabel="epoch")
    axes[0, 0].set_ylabel("gate G; band: range over breasts")
    legend_below(figure, axes[0, 0], ncols=8, fontsize=8, title="stage.block", title_fontsize=8)
    last = own[own["epoch"] == own["epoch"].max()]
    span = f"{last['mean'].min():.2f} to {last['mean'].max():.2f}"
    sd = last["sd"].max()
    headline(figure, f"Gates start at {start:.2f} and end at {span}; largest sd over breasts {sd:.3f}")
    return figure


def gate_heatmap(gates: pd.DataFrame, predictions: pd.DataFrame, moved: pd.DataFrame | None = None) -> Figure:
    """Draw gates by depth and breast, and their deviation from the block's mean; breasts are sorted by label and score.

    ``gates`` are the rows of one split; views are averaged. A pattern along a row shows the influence of the breast.
    ``moved``: gates on one scale (``diagnostics.within_folds``), whose deviations are drawn.
    """
    own = gates[gates["kind"] == "seqmoe"]
    streams, blocks = sorted(own["stream"].unique()), _blocks(own)
    order = predictions.sort_values(["label", "logit"])
    figure, axes = canvas(7, 0.3 * len(blocks) * len(streams) + 2.3, rows=len(streams), columns=2, squeeze=False)
    tables, centred = (
        {stream: rows.query("stream == @stream").pivot_table("value", BLOCK, "sample_id")[order["sample_id"]]
         for stream in streams}
        for rows in (own, own if moved is None else moved[moved["kind"] == "seqmoe"])
    )  # fmt: skip
    deviations = {stream: table.sub(table.mean(axis=1), axis=0) for stream, table in centred.items()}
    widest = max(float(np.abs(one).max(axis=None)) for one in deviations.values()) or 1e-6
    low, high = (float(getattr(own["value"], end)()) for end in ("min", "max"))
    for row, stream in zip(axes, streams, strict=True):
        scale = {"cmap": DEPTH_COLOURS, "vmin": low, "vmax": max(high, low + 1e-6)}
        left = row[0].imshow(tables[stream], aspect="auto", interpolation="nearest", **scale)
        scale = {"cmap": DEVIATION_COLOURS, "vmin": -widest, "vmax": widest}
        right = row[1].imshow(deviations[stream], aspect="auto", interpolation="nearest", **scale)
        for ax in row:
            ax.set_yticks(range(len(blocks)), [block_name(*one) for one in blocks], fontsize=7)
            ax.axvline((order["label"] == 0).sum() - 0.5, color="black", linewidth=1)
            ax.set_xticks([])
            ax.grid(visible=False)
        row[0].set_title(f"{stream}: gate", fontsize=9)
        row[1].set_title(f"{stream}: deviation from the block's mean", fontsize=9)
    n_benign, n_malignant = ((order["label"] == label).sum() for label in (0, 1))
    for ax in axes[-1]:
        ax.set_xlabel(f"{n_benign} benign | {n_malignant} malignant, each sorted by score", fontsize=8)
    for ax_column, image in ((axes[:, 0], left), (axes[:, 1], right)):
        bar = figure.colorbar(image, ax=list(ax_column), location="bottom", shrink=0.8, pad=0.02, ticks=MaxNLocator(5))
        bar.ax.tick_params(labelsize=7)
    spread = np.mean([one.std(axis=1).mean() for one in deviations.values()])
    headline(figure, f"Gates range from {low:.2f} to {high:.2f}; over breasts a gate varies by {spread:.3f} (mean sd)")
    return figure


def gate_views(gates: pd.DataFrame, predictions: pd.DataFrame) -> Figure:
    """Draw the mean gate of the MLO view over that of the CC view: a point per breast, a panel per stream."""
    own = gates[gates["kind"] == "seqmoe"].pivot_table("value", ["stream", "sample_id"], "view")
    streams = sorted(own.index.get_level_values("stream").unique())
    figure, axes = canvas(7, 3.7, columns=len(streams), squeeze=False)
    label, correlations = predictions.set_index("sample_id")["label"], []
    for ax, stream in zip(axes.flat, streams, strict=True):
        both = own.loc[stream].dropna()
        for value, colour in LABEL_COLOURS.items():
            points = both[label.reindex(both.index) == value]
            marker = "o" if value == 0 else "^"
            ax.scatter(points["CC"], points["MLO"], s=14, color=colour, marker=marker, label=LABEL_NAMES[value])
        ends = [both.min(axis=None), both.max(axis=None)]
        ax.plot(ends, ends, color=GREY, linestyle=":")
        correlations.append(f"{stream} {both['CC'].corr(both['MLO'], method='spearman'):.2f}")
        ax.set(title=f"{stream} stream, n = {len(both)}", xlabel="mean gate, CC", aspect="equal")
        ax.tick_params(labelsize=8)
        ax.tick_params(axis="x", rotation=30)
        ax.locator_params(nbins=5)
    axes[0, 0].set_ylabel("mean gate, MLO")
    legend_below(figure, axes[0, 0])
    headline(figure, f"Rank correlation of the two views' gates: {', '.join(correlations)}")
    return figure


def intervention_forest(table: pd.DataFrame) -> Figure:
    """Draw the change of AUC by each intervention, as ``diagnostics.intervention_table`` returns it.

    Each row also states the remaining AUC, Holm's p value and the mean absolute change of the logit.
    """
    differs = (table["p_holm"] < 0.05).to_numpy()
    found = f"{differs.sum()} of {len(table)} interventions change{'s' if differs.sum() == 1 else ''} the AUC"
    none = f"None of {len(table)} interventions was shown to change the AUC"
    figure, axes = forest(
        table.rename(columns={"change": "value"}), table["what"], differs, AFTER_HOLM,
        f"change of AUC, 95 % interval, n = {table['n'].iloc[0]}", found if differs.any() else none,
    )  # fmt: skip
    for y, row in enumerate(table.itertuples()):
        axes.annotate(f"AUC {row.auc:.3f}, {p_in_words(row.p_holm)}, logit moved {row.moved:.2f}", (1.01, y),
                      xycoords=("axes fraction", "data"), va="center", fontsize=8)  # fmt: skip
    legend_below(figure, axes)
    return figure


def correlation_forest(table: pd.DataFrame) -> Figure:
    """Draw rank correlations of gates with properties of the breast, from ``diagnostics.gate_correlations``."""
    ordered = table.sort_values(["property", "stream", "stage"], ignore_index=True).rename(columns={"rho": "value"})
    survives = (ordered["p_holm"] < 0.05).to_numpy()
    verb = "survives" if survives.sum() == 1 else "survive"
    figure, axes = forest(
        ordered, [f"{row.property}: {row.stream}, stage {row.stage}" for row in ordered.itertuples()], survives,
        AFTER_HOLM, f"Spearman's correlation, 95 % interval over patients (n up to {ordered['n'].max()})",
        f"{survives.sum() or 'None'} of {len(table)} correlations {verb} Holm's correction", row=0.26, rest=1.4,
    )  # fmt: skip
    axes.tick_params(axis="y", labelsize=8)
    axes.set_xlim(-1, 1)
    legend_below(figure, axes)
    return figure


def _blocks(gates: pd.DataFrame) -> list[tuple[int, int]]:
    return sorted(set(zip(gates["stage"], gates["block"], strict=True)))
