"""Draw the picture of the README and of the front page, book/_static/result.svg: `python book/picture.py`.

On top the four images that the network sees of a breast of the sample, below them the AUC of networks and baselines
from the committed records of `mirror`.
"""

from __future__ import annotations

import sys

import pandas as pd
from matplotlib.figure import Figure

from mammo_lib import figures
from mammo_lib.analysis.tables import summary
from mammo_lib.config import ROOT, get_profile
from mammo_lib.data.data_sets import open_sample
from mammo_lib.data.prepare import load_pixels
from mammo_lib.figures.style import BLUE, GREY, ORANGE, error_bars
from mammo_lib.runs.evaluate import run_and_evaluate

TARGET = ROOT / "book" / "_static" / "result.svg"
NAMES = {
    "dual_stream": "both streams", "crop_only": "crops only", "whole_only": "whole films only",
    "no_seqmoe": "without SeqMoE", "baseline_birads": "readers' BI-RADS", "baseline_metadata": "readers' words",
    "baseline_crop_geometry": "size of the crop", "baseline_frozen_features": "ImageNet features",
    "baseline_frozen_stages": "ImageNet stages",
}  # fmt: skip
BREAST = "P_00009_RIGHT"  # the first malignant one of the sample


def images(collection, config) -> dict[str, object]:
    """Return what the network sees of a breast, whole films first."""
    prepared = collection.prepare("train", *config.inputs)
    rows = prepared.index.query("sample_id == @BREAST").sort_values(["stream", "view"], ascending=[False, True])
    return {f"{row.stream}, {row.view}": load_pixels(prepared.path(row.key)) for row in rows.itertuples()}


def scores(runs) -> pd.DataFrame:
    """Return one row per experiment, the best first: mean AUC over seeds, interval over patients and seeds."""
    table = summary({name: seeds for name, seeds in runs.items() if name in NAMES})
    table["name"] = table["experiment"].map(NAMES)
    table["is_network"] = ~table["experiment"].str.startswith("baseline")
    return table.sort_values("mean", ascending=False, ignore_index=True)


def draw(views: dict, rows: pd.DataFrame) -> Figure:
    """Return the figure: narrow, so that a phone shows its letters at a size that can be read."""
    figure = Figure(figsize=(5.2, 5.4), layout="constrained")
    top, bottom = figure.subfigures(2, 1, height_ratios=[1, 2.3])
    for axes, (name, pixels) in zip(top.subplots(1, len(views)), views.items(), strict=True):
        axes.imshow(pixels, cmap="gray", vmin=0, vmax=1)
        axes.set_axis_off()
        axes.set_title(name, fontsize=10)
    axes = bottom.subplots()
    for is_network, colour, label in ((True, ORANGE, "networks"), (False, BLUE, "no network")):
        part = rows[rows["is_network"] == is_network]
        intervals = part[["mean", "mean_low", "mean_high"]].set_axis(["value", "low", "high"], axis=1)
        error_bars(axes, intervals, part.index.to_numpy(), colour, label)
    axes.axvline(0.5, color=GREY, linestyle=":")
    axes.set_yticks(range(len(rows)), rows["name"], fontsize=10)
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    axes.legend(loc="center left", fontsize=10)
    axes.set_xlabel(f"AUC on {rows['n'].max()} test breasts, 95 % interval", fontsize=10)
    axes.set_title("The readers' category is hard to beat", fontsize=11)
    return figure


def main() -> None:
    """Write the picture."""
    figures.use_style()
    profile, collection = get_profile("mirror"), open_sample()
    figure = draw(images(collection, profile.run), scores(run_and_evaluate(profile, collection)))
    figure.savefig(TARGET, metadata={"Date": None})
    print(f"{TARGET}: {TARGET.stat().st_size / 1000:.0f} kB", file=sys.stderr)


if __name__ == "__main__":
    main()
