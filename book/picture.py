"""Draw the pictures of the README and of the front page: `python book/picture.py`.

`book/_static/result.svg`: on top the four images that the network sees of a breast of the sample, below them the AUC of
the networks and baselines of protocol 5 on the official test breasts, from the committed records of `mirror-final`.
`book/_static/answers.svg`: every comparison of the findings.
"""

from __future__ import annotations

import sys

import pandas as pd
from matplotlib.figure import Figure

from mammo_lib import figures
from mammo_lib.analysis.fourth_look import beside_out_of_fold
from mammo_lib.analysis.headlines import headlines
from mammo_lib.analysis.wording import in_words
from mammo_lib.config import ROOT, get_profile
from mammo_lib.data.data_sets import open_sample
from mammo_lib.data.prepare import load_pixels
from mammo_lib.errors import InputError
from mammo_lib.figures.style import BLUE, GREY, ORANGE, error_bars
from mammo_lib.runs.evaluate import finished_runs
from mammo_lib.runs.records import COMMITTED
from mammo_lib.statistics import EQUIVALENCE

STATIC = ROOT / "book" / "_static"
BREAST = "P_00009_RIGHT"  # the first malignant one of the sample


def images(collection, config) -> dict[str, object]:
    """Return what the network sees of a breast, whole films first."""
    prepared = collection.prepare("train", *config.inputs)
    rows = prepared.index.query("sample_id == @BREAST").sort_values(["stream", "view"], ascending=[False, True])
    return {f"{row.stream}, {row.view}": load_pixels(prepared.path(row.key)) for row in rows.itertuples()}


def scores(profile, collection) -> pd.DataFrame:
    """Return one row per entry of the list, the best first: mean AUC over seeds, interval over patients and seeds."""
    runs = finished_runs(profile, "fourth_look", collection)
    table = beside_out_of_fold(profile, runs, {})
    table["is_network"] = [runs[name][0].config.baseline is None for name in table["experiment"]]
    return table.sort_values("test", ascending=False, ignore_index=True)


def draw(views: dict, rows: pd.DataFrame) -> Figure:
    """Return the figure: narrow, so that a phone shows its letters at a size that can be read."""
    figure = Figure(figsize=(5.2, 5.4), layout="constrained")
    top, bottom = figure.subfigures(2, 1, height_ratios=[1, 2.3])
    for axes, (name, pixels) in zip(top.subplots(1, len(views)), views.items(), strict=True):
        axes.imshow(pixels, cmap="gray", vmin=0, vmax=1)
        axes.set_axis_off()
        axes.set_title(name, fontsize=10)
    axes = bottom.subplots()
    for is_network, colour, label in ((True, ORANGE, "networks"), (False, BLUE, "baselines")):
        part = rows[rows["is_network"] == is_network]
        intervals = part[["test", "test_low", "test_high"]].set_axis(["value", "low", "high"], axis=1)
        error_bars(axes, intervals, part.index.to_numpy(), colour, label)
    axes.axvline(0.5, color=GREY, linestyle=":")
    axes.set_yticks(range(len(rows)), rows["name"], fontsize=10)
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    axes.legend(loc="center left", bbox_to_anchor=(0.1, 0.5), fontsize=10)
    axes.set_xlabel("AUC, 95 % interval", fontsize=10)
    axes.set_title(f"AUC on the {rows['n'].max()} official test breasts", fontsize=11)
    return figure


def main() -> None:
    """Write the pictures."""
    figures.use_style()
    profile, collection, table = get_profile("mirror-final"), open_sample(), headlines()
    if table.empty:
        raise InputError(f"{COMMITTED}: no records of these comparisons; restore the folder (git checkout results)")
    pictures = {
        "result": (draw(images(collection, profile.run), scores(profile, collection)), ""),
        "answers": (figures.answer_forest(table, EQUIVALENCE), described(table)),
    }
    for name, (figure, description) in pictures.items():
        path = STATIC / f"{name}.svg"
        figure.savefig(path, metadata={"Date": None, "Description": description or None})
        print(f"{path}: {path.stat().st_size / 1000:.0f} kB", file=sys.stderr)


def described(table: pd.DataFrame) -> str:
    """Return the rows of the findings in words: kept in the picture, so that a test sees when it is out of date."""
    rows = table.to_dict("records")
    return "; ".join(
        f"{row['question']} {row['compared']} {in_words(row, 'difference')}, {row['answer']}" for row in rows
    )


if __name__ == "__main__":
    main()
