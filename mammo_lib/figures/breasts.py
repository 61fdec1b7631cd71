"""Figures of the cohort and of its images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from .overlays import draw_image, draw_scale
from .style import BLUE, LABEL_COLOURS, LABEL_NAMES, MIN_FOR_HEADLINE, ORANGE, canvas, headline, legend_below, literal


def funnel(counts: pd.DataFrame) -> Figure:
    """Draw the selection of the cohort from table rows: ``step rows breasts patients malignant``, one bar per step."""
    figure, axes = canvas(height=0.55 * len(counts) + 1.1)
    benign = counts["breasts"] - counts["malignant"]
    axes.barh(counts["step"], benign, color=BLUE, label="benign")
    axes.barh(counts["step"], counts["malignant"], left=benign, color=ORANGE, label="malignant")
    for y, row in enumerate(counts.itertuples()):
        sizes = f" {row.breasts} breasts, {row.patients} patients, {row.rows} rows"
        axes.annotate(sizes, (row.breasts, y), va="center", fontsize=9)
    axes.set(xlim=(0, counts["breasts"].max() * 1.75), xlabel="breasts")
    axes.grid(visible=False, axis="y")
    axes.invert_yaxis()
    legend_below(figure, axes)
    first, last = counts.iloc[0], counts.iloc[-1]
    axes.set_title(f"{first['rows']} rows give {last['breasts']} breasts, {last['malignant']} of them malignant")
    return figure


def cohort_composition(cohort: pd.DataFrame, by: str, name: str) -> Figure:
    """Draw the number of benign and malignant breasts per value of a column and per split."""
    splits = list(dict.fromkeys(cohort["split"]))
    figure, axes = canvas(columns=len(splits), sharey=True, squeeze=False)
    for ax, split in zip(axes[0], splits, strict=True):
        part = cohort[cohort["split"] == split]
        counts = pd.crosstab(part[by].astype("string").fillna("unknown"), part["label"])
        bottom = np.zeros(len(counts))
        for label, colour in LABEL_COLOURS.items():
            heights = counts.get(label, pd.Series(0, counts.index)).to_numpy()
            ax.bar(counts.index.map(literal), heights, bottom=bottom, color=colour, label=LABEL_NAMES[label])
            bottom += heights
        ax.set(title=f"{split}: {part['label'].mean():.0%} of {len(part)} malignant", xlabel=name)
    axes[0, 0].set_ylabel("breasts")
    legend_below(figure, axes[0, 0])
    return figure


def malignant_shares(shares: pd.DataFrame) -> Figure:
    """Draw the share of malignant breasts per level, a panel per name: ``name level value low high n``."""
    names = list(dict.fromkeys(shares["name"]))
    figure, axes = canvas(width=7, height=3.0, columns=len(names), sharey=True, squeeze=False)
    for ax, name in zip(axes[0], names, strict=True):
        part = shares[shares["name"] == name]
        x = np.arange(len(part))
        spread = 100 * np.clip([part["value"] - part["low"], part["high"] - part["value"]], 0, None)
        ax.errorbar(x, 100 * part["value"], spread, fmt="o", color=BLUE, capsize=3)
        levels = [literal(f"{level}\n({n})") for level, n in zip(part["level"], part["n"], strict=True)]
        ax.set_xticks(x, levels, fontsize=8)
        ax.set(xlabel=name, ylim=(0, 100), xlim=(-0.5, len(part) - 0.5))
    axes[0, 0].set_ylabel("malignant, % (n below)")
    spans = shares[shares["n"] >= MIN_FOR_HEADLINE].groupby("name", sort=False)["value"].agg(["min", "max"])
    if spans.empty:
        headline(figure, f"No level has at least {MIN_FOR_HEADLINE} breasts")
        return figure
    widest = (spans["max"] - spans["min"]).idxmax()
    low, high = 100 * spans.loc[widest, "min"], 100 * spans.loc[widest, "max"]
    headline(
        figure, f"{low:.0f} to {high:.0f} % malignant, by {widest} (levels with at least {MIN_FOR_HEADLINE} breasts)"
    )
    return figure


def crop_sizes(longest: np.ndarray, side: int) -> Figure:
    """Draw the longest sides of crops, in pixels of their files, compared with the side of the network's input."""
    figure, axes = canvas(height=3.0)
    axes.hist(longest, bins=30, color=BLUE)
    axes.axvline(side, color="black", linestyle="--", label=f"network input, {side} px")
    axes.set(xlabel="longest side of the crop, pixels of the file", ylabel="crops")
    enlarged = np.mean(np.asarray(longest) < side)
    half = f"Half of the crops are smaller than {np.median(longest):.0f} px"
    axes.set_title(f"{half}; {enlarged:.0%} are enlarged for the network")
    legend_below(figure, axes)
    return figure


def mammogram_grid(
    images: Sequence[np.ndarray], titles: Sequence[str], title: str, boxes: Sequence | None = None, columns: int = 4,
    pixel_mm: Sequence[float | None] | None = None,
) -> Figure:  # fmt: skip
    """Draw mammograms side by side in grey; ``boxes`` holds (x0, y0, x1, y1) in pixels of each image, or None.

    Where ``pixel_mm`` gives the side of an image's pixels in mm, a bar shows its scale.
    """
    rows = -(-len(images) // columns)
    figure, axes = canvas(width=7, height=2.6 * rows + 0.4, rows=rows, columns=columns, squeeze=False)
    for ax in axes.flat:
        ax.set_axis_off()
    nothing = [None] * len(images)
    for ax, image, name, box, side in zip(
        axes.flat, images, titles, boxes or nothing, pixel_mm or nothing, strict=False
    ):
        draw_image(ax, image, box)
        if side is not None:
            draw_scale(ax, image.shape[1], side)
        ax.set_title(literal(name), fontsize=9, loc="center")
    headline(figure, title)
    return figure
