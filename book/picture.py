"""Draw the picture of the README and of the front page, book/_static/result.png: `python book/picture.py`.

On the left what the network is shown of one synthetic breast. On the right the AUC of runs whose test set is open: the
records in results/ where there are any, else the runs on the phantom, made here if need be.
"""

from __future__ import annotations

import sys

import numpy as np
import pandas as pd

from mammo_lib import figures
from mammo_lib.analysis.tables import summary
from mammo_lib.config import ROOT, get_profile
from mammo_lib.data import open_collection
from mammo_lib.data.images import fit_into
from mammo_lib.data.prepare import prepared_film
from mammo_lib.data.views import read_view
from mammo_lib.figures.style import BLUE, GREY, ORANGE, canvas, error_bars
from mammo_lib.runs.records import COMMITTED, Run, all_runs

TARGET = ROOT / "book" / "_static" / "result.png"
NAMES = {
    "dual_stream": "both streams", "crop_only": "crops alone", "whole_only": "whole films alone",
    "no_seqmoe": "without SeqMoE", "baseline_birads": "readers' BI-RADS", "baseline_metadata": "words of the tables",
    "baseline_crop_geometry": "size of the crop", "baseline_frozen_features": "ImageNet features",
    "baseline_frozen_stages": "ImageNet stages", "baseline_majority": "guessing",
}  # fmt: skip
SIZE = 160  # pixels of a view


def phantom_views(collection, config) -> list[tuple[str, np.ndarray]]:
    """Return the four images of the first malignant test breast, named."""
    cohort = collection.cohort(config, "test")
    located = collection.source.locate(cohort[cohort["label"] == 1].head(1)).sort_values(["stream", "view"])
    views = []
    for row in located[::-1].itertuples():
        pixels = read_view(row)
        shown = prepared_film(pixels, config.data) if row.stream == "whole" else pixels
        views.append((f"{row.stream}, {row.view}", fit_into(shown, (SIZE, SIZE))))
    return views


def opened_runs(profile, collection) -> tuple[dict[str, list[Run]], str]:
    """Return experiment -> runs with an open test set, by seed, and what they were made on."""
    committed: dict[str, list[Run]] = {}
    for run in all_runs(COMMITTED):
        if run.is_evaluated:
            committed.setdefault(run.config.experiment, []).append(run)
    if committed:
        return committed, "CBIS-DDSM, 800-px films"
    from mammo_lib.runs.evaluate import run_and_evaluate

    return run_and_evaluate(profile, collection), "synthetic phantom"


def scores(runs: dict[str, list[Run]]) -> pd.DataFrame:
    """Return one row per experiment, the best first: mean AUC over seeds, interval over patients and seeds."""
    table = summary({name: seeds for name, seeds in runs.items() if name in NAMES})
    table["name"] = table["experiment"].map(NAMES)
    table["is_network"] = ~table["experiment"].str.startswith("baseline")
    return table.sort_values("mean", ascending=False, ignore_index=True)


def draw(views, rows: pd.DataFrame, what: str):
    """Return the figure."""
    figure, axes = canvas(8.6, 3.0, 1, 2, width_ratios=[1, 1.25])
    gap = np.ones((SIZE, 6))
    tiles = [np.hstack([views[i][1], gap, views[i + 1][1]]) for i in (0, 2)]
    axes[0].imshow(np.vstack([tiles[0], np.ones((6, tiles[0].shape[1])), tiles[1]]), cmap="gray", vmin=0, vmax=1)
    for i, (name, _) in enumerate(views):
        x, y = (i % 2) * (SIZE + 6) + SIZE - 4, (i // 2) * (SIZE + 6) + 16
        axes[0].text(x, y, name, color="white", fontsize=8, ha="right")
    axes[0].set_axis_off()
    axes[0].set_title("One breast, seen four times (synthetic)")
    for kind, colour in ((True, ORANGE), (False, BLUE)):
        part = rows[rows["is_network"] == kind]
        intervals = part[["mean", "mean_low", "mean_high"]].set_axis(["value", "low", "high"], axis=1)
        error_bars(axes[1], intervals, part.index.to_numpy(), colour, "")
    axes[1].axvline(0.5, color=GREY, linestyle=":")
    axes[1].set_yticks(range(len(rows)), rows["name"])
    axes[1].invert_yaxis()
    axes[1].set_xlabel(f"AUC, 95 % interval, {rows['n'].max()} test breasts ({what})")
    network, baseline = (rows.loc[rows["is_network"] == kind, "mean"].max() for kind in (True, False))
    axes[1].set_title(f"Best network (orange) {network:.2f}, best baseline (blue) {baseline:.2f}")
    return figure


def main() -> None:
    """Write the picture."""
    figures.use_style()
    profile = get_profile("smoke")
    collection = open_collection(profile)
    runs, what = opened_runs(profile, collection)
    draw(phantom_views(collection, profile.run), scores(runs), what).savefig(TARGET, dpi=110)
    print(f"{TARGET}: {TARGET.stat().st_size / 1000:.0f} kB", file=sys.stderr)


if __name__ == "__main__":
    main()
