"""Figures: titles are computed from what is drawn, axes are labelled, and no figure stays open."""

import re
import textwrap
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

import mammo_lib
from mammo_lib import figures
from mammo_lib.models import SeqMoE
from mammo_lib.ops import selective_scan
from mammo_lib.statistics import Confusion, Interval, delong_interval, reliability

LABEL = np.array([0, 1, 0, 1, 1, 0])
PROBABILITY = np.array([0.2, 0.8, 0.6, 0.4, 0.9, 0.1])
FITTED = pd.DataFrame({
    "breasts": [150.0, 300, 600], "n": 506,
    "auc": [0.7, 0.75, 0.8], "auc_low": [0.6, 0.7, 0.75], "auc_high": [0.8, 0.8, 0.85],
})  # fmt: skip
BY_SIDE = pd.DataFrame({
    "images": ["crops", "crops", "films"], "classifier": ["a", "a", "b"], "side": [96, 384, 96], "n": 9,
    "auc": [0.8, 0.7, 0.6], "auc_low": 0.5, "auc_high": 0.9,
})  # fmt: skip
AHEAD = FITTED.tail(1).assign(breasts=1200.0, form="line")
HISTORY = pd.DataFrame(
    {"epoch": [0, 1], "train_loss": [0.7, 0.6], "validation_loss": [0.7, 0.65], "validation_auc": [0.5, 0.75]}
)
COHORT = pd.DataFrame(
    {"split": ["train"] * 3 + ["test"], "label": [0, 1, 1, 0], "density": pd.array([1, None, 2, 1], dtype="Int64")}
)
FUNNEL = pd.DataFrame(
    {"step": ["all", "some"], "rows": [20, 9], "breasts": [10, 4], "patients": [9, 4], "malignant": [5, 1]}
)
PUBLISHED = pd.DataFrame({"name": ["auc", "f1"], "value": [0.9, 0.8], "low": [0.85, 0.7], "high": [0.95, 0.9]})
PUBLISHED["n"] = [100, 40]
SHARES = pd.DataFrame(
    {
        "name": ["density", "density", "BI-RADS", "BI-RADS", "BI-RADS"], "level": [1, 2, 1, 4, 5],
        "value": [0.4, 0.5, 1.0, 0.1, 0.6], "low": [0.3, 0.4, 0.2, 0.0, 0.5], "high": [0.5, 0.6, 1.0, 0.2, 0.7],
        "n": [50, 60, 1, 40, 60],
    }
)  # fmt: skip

DIFFERENCES = pd.DataFrame(
    {
        "experiment": ["no_seqmoe", "crop_only"], "difference": [0.01, -0.1], "difference_low": [-0.02, -0.2],
        "difference_high": [0.04, -0.01], "n": [149, 149],
    }
)  # fmt: skip
ANSWERS = pd.DataFrame({
    "experiment": ["cc_only", "mlo_only", "shuffled"], "answer": ["different", "different", "equivalent"], "n": 149,
    "difference": [-0.05, -0.1, 0.001], "difference_low": [-0.08, -0.2, -0.01], "difference_high": [-0.01, -0.02, 0.01],
})  # fmt: skip
ALL_ANSWERS = pd.DataFrame({
    "question": ["gates?", "gates?", "films?", "films?"], "compared": ["few", "many", "crops", "films"],
    "answer": ["equivalent", "different, but by less than the bound", "different", "undecided"],
    "difference": [0.0, -0.01, -0.1, 0.0], "difference_low": [-0.01, -0.015, -0.2, -0.1],
    "difference_high": [0.01, -0.005, -0.05, 0.1],
})  # fmt: skip
SUBGROUPS = pd.DataFrame(
    {
        "name": ["all breasts", "density", "density", "density"], "level": ["", "1", "2", "3"],
        "value": [0.8, 0.6, 0.9, 1.0], "low": [0.7, 0.4, 0.85, np.nan], "high": [0.9, 0.8, 0.95, np.nan],
        "n": [60, 30, 28, 2], "malignant": [20, 10, 9, 1],
    }
)  # fmt: skip
CURVE = pd.DataFrame(
    {
        "threshold": [0.1, 0.2, 0.3, 0.4], "value": [0.4, 0.35, 0.3, 0.1], "low": [0.2, 0.3, 0.2, -0.1],
        "high": [0.5, 0.4, 0.4, 0.2], "treat_all": [0.3, 0.2, 0.1, 0.0],
        "gain_low": [-0.1, 0.1, 0.1, -0.1], "n": 60,
    }
)  # fmt: skip

CASES = {
    "funnel": (lambda: figures.funnel(FUNNEL), "20 rows give 4 breasts, 1 of them malignant"),
    "composition": (lambda: figures.cohort_composition(COHORT, "density", "density"), "train: 67% of 3 malignant"),
    "roc": (lambda: figures.roc_curve(LABEL, PROBABILITY, delong_interval(LABEL, PROBABILITY)), "AUC 0.89 .*n = 6"),
    "confusion": (
        lambda: figures.confusion_matrix(Confusion(2, 1, 3, 4)),
        "2 of 3 malignant breasts found,\n4 of 7 benign breasts called",
    ),
    "published": (
        lambda: figures.published_forest(PUBLISHED, {"auc": Interval(0.7, 0.6, 0.8, 9)}),
        "0.10 to 0.20 wide",
    ),
    "kernels": (lambda: figures.kernel_curves({"dt": np.array([2.0, 1.0, 1.0])}), "within lag 0 "),
    "no overflow": (lambda: figures.precision_curves({"b": np.zeros(4)}), "No overflow in 4 tokens"),
    "cost": (lambda: figures.cost_curves([10, 20], {"a": [1.0, 4.0], "b": [1.0, 2.0]}), "2 times the tokens take 4, 2"),
    "gate": (
        lambda: figures.gate_opening(np.array([0.0, 2.0]), np.array([0.5, 0.88]), 2.0),
        "88% open .* slope of 0.11",
    ),
    "steps": (
        lambda: figures.step_responses({0.5: {"held": np.zeros(2), "Euler": np.array([0.5, 1.0])}}, np.zeros_like),
        "error at dt = 0.5:\nheld 0.00; Euler 1.00",
    ),
    # Window of 2 x 2, token (1, 0): the token above it is two steps back and weighs 1/4 of it.
    "memory": (lambda: figures.memory_maps({"dt": np.array([8.0, 4.0, 2.0, 1.0])}, 2, 1, 0), "2 steps back .* 25% of"),
    "chunks": (lambda: figures.scan_chunks(np.ones((70, 2)), 32), "Of 70 states the forward pass keeps 3"),
    "precision": (
        lambda: figures.precision_curves({"a": np.array([0.0, 1e-7, np.inf, np.nan]), "b": np.zeros(4)}),
        r"Overflow after 2 tokens \(a\)$",
    ),
    "plans": (
        lambda: figures.routing_plans(np.eye(3), {"3.1": 0.5, "3.2": 0.25}),
        "decides 9 times, once per token;\nSeqMoE 2 times",
    ),
    "learning": (
        lambda: figures.gate_learning(
            {"learned": np.array([[0.9, 0.9], [0.9, 0.1]]), "binary": np.array([[1.0, 1.0], [1.0, 1.0]])},
            np.array([True, False]),
        ),
        r"After 2 steps the gate is right for 2 of 2 \(learned\), 1 of 2 \(binary\)",
    ),
    "shares": (
        lambda: figures.malignant_shares(SHARES),
        r"10 to 60 % malignant, by BI-RADS \(levels with at least 10 breasts\)",
    ),
    "shares of few breasts": (lambda: figures.malignant_shares(SHARES.assign(n=9)), "No level has at least 10 breasts"),
    "reliability": (
        lambda: figures.reliability_diagram(
            {"raw": reliability(LABEL, PROBABILITY), "scaled": reliability(LABEL, LABEL * 1.0)}
        ),
        r"Mean calibration error in percentage points:\n30 \(raw\), 0 \(scaled\)",
    ),
    "scores": (
        lambda: figures.auc_intervals({"age": Interval(0.5, 0.4, 0.6, 9), "size": Interval(0.8, 0.7, 0.9, 9)}),
        "1 of 2 scores differ from chance",
    ),
    "learning curve": (
        lambda: figures.auc_by_breasts(FITTED, AHEAD),
        r"From 150 to 600 breasts the AUC goes from 0\.700 to 0\.800 \(n = 506\)",
    ),
    "one point": (
        lambda: figures.auc_by_breasts(FITTED.tail(1), AHEAD.head(0)),
        "From 600 to 600 breasts",
    ),
    "input sizes": (
        lambda: figures.auc_by_side(BY_SIDE),
        "crops: highest AUC 0.80, 96 px, a\nfilms: highest AUC 0.60, 96 px, b",
    ),
    "one input size": (lambda: figures.auc_by_side(BY_SIDE.head(1)), "crops: highest AUC 0.80, 96 px, a"),
    "bands": (
        lambda: figures.seed_bands({"dual": [HISTORY, HISTORY.assign(validation_auc=[0.6, 0.5])], "crop": [HISTORY]}),
        "lowest at epoch 2 .*Best validation AUC 0.60 to 0.75, 3 runs",
    ),
    "differences": (
        lambda: figures.difference_forest(DIFFERENCES, "dual_stream"),
        "1 of 2 differs from dual stream in AUC",
    ),
    "no differences": (
        lambda: figures.difference_forest(DIFFERENCES.iloc[:1], "dual_stream"),
        "No difference in AUC from dual stream was shown for any of 1",
    ),
    "answers": (
        lambda: figures.equivalence_forest(ANSWERS, "both_views", 0.02),
        r"Compared with both views:\n2 different \(between -0\.100 and -0\.050\); 1 equivalent",
    ),
    "all answers": (
        lambda: figures.answer_forest(ALL_ANSWERS, 0.02),
        "4 comparisons: 2 within the bound, 1 different, 1 undecided",
    ),
    "subgroups": (
        lambda: figures.subgroup_forest(SUBGROUPS),
        "AUC 0.60 to 0.90 in subgroups with 10 or more of each class; 1 interval excludes 0.80",
    ),
    "decisions": (
        lambda: figures.decision_curves({"the network": CURVE, "readers": CURVE}),
        "The network: net benefit exceeds both simple rules for thresholds of 20-30 %",
    ),
    "crops": (lambda: figures.crop_sizes(np.array([10, 20, 300]), 64), "smaller than 20 px; 67% are enlarged"),
    "denominators": (
        lambda: figures.denominators({"0.5": [2, 4], "0.25": [4]}, [4], 10),
        "Only test sets of 4 breasts fit all 2",
    ),
}

IMBALANCES = pd.DataFrame({
    "name": ["density", "density", "BI-RADS", "BI-RADS"], "level": ["", "", "", "4"], "p_holm": [0.5, 0.01, 0.2, None],
    "group": ["all", "benign", "all", "all"], "difference": [0.1, -0.4, 0.05, 0.3],
})  # fmt: skip
SIDES = pd.DataFrame({
    "name": ["network", "readers"], "train": [0.9, 0.8], "train_low": [0.85, 0.75], "train_high": [0.95, 0.85],
    "test": [0.8, np.nan], "test_low": [0.7, np.nan], "test_high": [0.9, np.nan],
})  # fmt: skip
CASES |= {
    "imbalances": (lambda: figures.imbalances(IMBALANCES, 0.1), "1 of 3 comparisons differs after Holm"),
    # 0.8 - 0.9 in the only row that has both
    "sides unexplained": (
        lambda: figures.side_by_side(SIDES, {"train": "training", "test": "test"}, "AUC"),
        'Point estimates, difference from "training":\ntest: -0.100',
    ),
    "sides": (lambda: figures.side_by_side(SIDES, {"train": "training", "test": "test"}, "AUC", "lower"), "lower"),
    "divisions": (lambda: figures.drawn_divisions({"BI-RADS": (LABEL * 1.0, 0.5)}, "AUC", "usual"), "usual"),
}


@pytest.mark.parametrize("name", CASES)
def test_title_says_the_finding_and_axes_are_named(name):
    draw, title = CASES[name]
    figure = draw()
    assert isinstance(figure, Figure)
    titles = " ".join(ax.get_title(loc) for ax in figure.axes for loc in ("left", "center"))
    titles += figure.get_suptitle()
    assert re.search(title, titles), titles
    assert all(ax.get_xlabel() for ax in figure.axes if ax.xaxis.get_tick_params().get("labelbottom", True))
    assert figure.axes[0].get_ylabel() or all(tick.get_text() for tick in figure.axes[0].get_yticklabels())
    assert max(figure.get_size_inches()) <= 7
    assert plt.get_fignums() == []


def test_each_answer_stands_below_its_question_in_the_colour_of_its_meaning():
    axes = figures.answer_forest(ALL_ANSWERS, 0.02).axes[0]
    rows = {bars.get_label(): bars[0].get_ydata().tolist() for bars in axes.containers}
    assert rows == {"within the bound": [1, 2], "different": [4], "undecided": [5]}
    questions = {text.get_text(): text.xyann[1] for text in axes.texts}
    assert questions == {"gates?": 0, "films?": 3}


def test_published_and_ours_stand_on_their_own_rows():
    axes = figures.published_forest(PUBLISHED, {"f1": Interval(0.7, 0.6, 0.8, 9)}).axes[0]
    published, ours = (container[0].get_xydata() for container in axes.containers)
    assert published.tolist() == [[0.9, -0.12], [0.8, 0.88]]
    assert ours.tolist() == [[0.7, 1.12]]  # f1 is the second row
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["auc, n = 100", "f1, n = 40"]


def test_imbalances_are_drawn_by_size_and_filled_where_they_are_clear():
    axes = figures.imbalances(IMBALANCES, 0.1).axes[0]
    points = {dots.get_label(): dots for dots in axes.collections}
    assert points["benign"].get_offsets()[0].tolist() == [0.4, 0.0]  # the size, in the row of density
    assert len(points["all"].get_offsets()) == 2  # the row of one level is left out
    assert points["all"].get_facecolors()[0].tolist() == [1, 1, 1, 1] != points["benign"].get_facecolors()[0].tolist()


def test_a_division_is_drawn_with_its_place():
    axes = figures.drawn_divisions({"a": (np.arange(10.0), 3.0)}, "AUC", "usual").axes[0]
    assert axes.get_yticklabels()[0].get_text() == "a\n30% of 10 below"
    official = next(dots for dots in axes.collections if dots.get_label() == "official division")
    assert official.get_offsets().tolist() == [[3.0, 0.0]]


def test_mammograms_are_grey_and_boxed():
    images = [np.random.default_rng(0).random((20, 10))] * 3
    figure = figures.mammogram_grid(images, ["a", "b", "c"], "three", boxes=[(1, 2, 3, 4), None, None])
    drawn = [ax for ax in figure.axes if ax.images]
    assert len(drawn) == 3
    assert all(ax.images[0].get_cmap().name == "gray" for ax in drawn)
    assert [len(ax.patches) for ax in drawn] == [1, 0, 0]


@pytest.mark.parametrize(
    ("width", "pixel_mm", "length"), [(100, 0.1, "2 mm"), (800, 0.2, "50 mm"), (20, 0.1, "1 mm"), (125, 0.1, "5 mm")]
)
def test_a_bar_is_a_round_number_of_millimetres_long(width, pixel_mm, length):
    image = np.ones((150, width))
    figure = figures.mammogram_grid([image, image], ["a", "b"], "two", pixel_mm=[pixel_mm, None])
    bars = [ax.artists for ax in figure.axes if ax.images]
    assert [len(one) for one in bars] == [1, 0]
    [bar] = bars[0]
    assert bar.txt_label.get_text() == length
    [drawn] = bar.size_bar.get_children()
    assert drawn.get_width() * pixel_mm == pytest.approx(float(length.split()[0]))


def ticks(axes):
    return [tick.get_text() for tick in axes.get_xticklabels()]


def test_blocks_count_from_one_in_every_figure():
    """As the text does: stage 3, block 1 is 3.1. Records count from 0."""
    image, gates = np.eye(8), {"crop CC": {"3.1": 0.9, "3.2": 0.8, "4.1": 0.7}}
    view = figures.gate_view(image, image, "gate", None, gates, "crop CC", "3.2", "title")
    sheet = figures.prediction_sheet({("crop", "CC"): image}, {}, "gate", gates, 0.7, 0.5, ["a", "b"], [], "notice")
    rows = pd.DataFrame({"stage": [3, 3, 4], "block": [0, 1, 0], "value": [0.9, 0.8, 0.7]})
    rows = rows.assign(kind="seqmoe", stream="crop", view="CC", sample_id="a", epoch=0)
    history = rows.assign(mean=rows["value"], low=rows["value"], high=rows["value"], sd=0.0)
    legend = figures.gate_trajectories(history, 0.88).legends[0]
    label = pd.DataFrame({"sample_id": ["a"], "label": [0], "logit": [0.0]})
    heatmap = figures.gate_heatmap(rows, label).axes[0]
    named = ["3.1", "3.2", "4.1"]
    assert ticks(view.axes[-1]) == ticks(sheet.axes[-1]) == named
    assert len(view.axes[-1].patches) == 1  # the block of the map is marked
    assert [text.get_text() for text in legend.get_texts()] == named
    assert [tick.get_text() for tick in heatmap.get_yticklabels()] == named


LONG = "a-very-long-name-of-a-patient-in-a-hospital-with-many-departments/accession-number-1234567890_LEFT: below"


@pytest.mark.parametrize("n_given", [0, 1, 4])
@pytest.mark.parametrize("notes", [[], [LONG, LONG * 2]])
def test_a_sheet_prints_nothing_over_anything_else(n_given, notes):
    image, keys = np.ones((8, 8)), [(stream, view) for stream in ("whole", "crop") for view in ("CC", "MLO")]
    images = {key: image if i < n_given else None for i, key in enumerate(keys)}
    gates = {" ".join(key): {"3.1": 0.1, "3.2": 0.0, "4.1": 1.0} for key in keys[:n_given]}
    maps = dict.fromkeys(keys[:n_given], image)
    figure = figures.prediction_sheet(images, maps, "a map", gates, 0.4, 0.5, [LONG, LONG, LONG * 2], notes, "notice")
    figure.draw_without_rendering()
    texts = [text.get_window_extent() for text in figure.texts]
    everything = texts + [axes.get_tightbbox() for axes in figure.axes]
    assert all(box.x0 >= 0 and box.y0 >= 0 and box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1 for box in texts)
    assert not [
        (i, j) for i, one in enumerate(texts) for j, other in enumerate(everything) if i < j and one.overlaps(other)
    ]
    legends = [(axes, axes.get_legend()) for axes in figure.axes if axes.get_legend()]
    assert len(legends) == (n_given > 0)
    assert not any(legend.get_window_extent().overlaps(axes.get_window_extent()) for axes, legend in legends)


MATHEMATICS = r"P$\frac{1$"  # what matplotlib would try to typeset, and fail
IMAGE = np.tile(np.linspace(0, 1, 20), (30, 1))


@pytest.mark.parametrize(
    "draw",
    [
        lambda name: figures.mammogram_grid([IMAGE], [name], name),
        lambda name: figures.map_cases([IMAGE], [{"gate": IMAGE}], [name], name),
        lambda name: figures.gate_view(IMAGE, None, "gate", None, {}, "whole CC", "", name),
        lambda name: figures.prediction_sheet({("whole", "CC"): IMAGE}, {}, "", {}, 0.5, 0.5, [name] * 3, [name], ""),
        lambda name: figures.cohort_composition(COHORT.assign(density=name), "density", "density"),
        lambda name: figures.malignant_shares(SHARES.assign(level=name)),
        lambda name: figures.auc_intervals({name: Interval(0.7, 0.6, 0.8, 10)}),
        lambda name: figures.subgroup_forest(SHARES.assign(level=name, malignant=1)),
    ],
)
def test_names_from_data_are_drawn_as_they_stand(draw):
    figure = draw(MATHEMATICS)
    figure.draw_without_rendering()
    texts = [text for text in figure.findobj(Text) if "frac" in text.get_text()]
    assert texts
    assert all(MATHEMATICS in text._preprocess_math(text.get_text())[0] for text in texts)
    assert not any(text._preprocess_math(text.get_text())[1] for text in texts)


def test_a_reliability_diagram_has_a_panel_per_curve_and_counts_the_breasts_of_each_bin():
    bins = {"raw": reliability(LABEL, PROBABILITY), "scaled": reliability(LABEL, PROBABILITY / 2)}
    raw, scaled, *below = figures.reliability_diagram(bins).axes
    titles = [ax.get_title("left") + ax.get_title("center") for ax in (raw, scaled)]  # where a style puts them
    assert titles == ["raw, n = 6", "scaled, n = 6"]
    assert [[bar.get_height() for bar in ax.patches] for ax in below] == [list(one["n"]) for one in bins.values()]
    assert raw.get_xlim() == scaled.get_xlim() == below[0].get_xlim()
    assert raw.get_ylim() == scaled.get_ylim()


def test_the_cells_of_a_matrix_do_not_bleed_into_each_other():
    gates = pd.DataFrame({"stage": [3, 3], "block": [0, 1], "value": [0.9, 0.8]})
    gates = gates.assign(kind="seqmoe", stream="crop", view="CC", sample_id="a")
    drawn = (
        figures.gate_heatmap(gates, pd.DataFrame({"sample_id": ["a"], "label": [0], "logit": [0.0]})),
        figures.memory_maps({"dt": np.ones(4)}, 2, 1, 0),
        figures.routing_plans(np.eye(3), {"3.1": 0.5}),
    )
    images = [image for figure in drawn for ax in figure.axes for image in ax.images]
    assert [image.get_interpolation() for image in images] == ["nearest"] * 4


def test_a_map_of_memory_hides_what_comes_later():
    [shown] = figures.memory_maps({"dt": np.array([8.0, 4.0, 2.0, 1.0])}, 2, 1, 0).axes[0].images
    weights = np.ma.filled(shown.get_array(), np.nan)
    np.testing.assert_array_equal(weights, [[0.25, 0.5], [1.0, np.nan]])  # read row by row: 2 / 8, 4 / 8, 8 / 8


def test_an_error_is_drawn_up_to_the_overflow():
    curve, cross = figures.precision_curves({"a": np.array([1e-6, 1e-7, np.inf, 0.0])}).axes[0].lines
    assert curve.get_xydata().tolist() == [[0, 1e-6], [1, 1e-6]]  # the largest so far
    assert cross.get_xydata().tolist() == [[1, 1e-6]]


def test_the_last_chunk_is_as_long_as_what_is_left():
    bars = figures.scan_chunks(np.ones((70, 2)), 32).axes[1].collections
    spans = [tuple(bar.get_paths()[0].get_extents().intervalx) for bar in bars]
    assert spans == [(0, 32), (32, 64), (64, 70), (64, 70), (32, 64), (0, 32)]  # there, and back


def test_a_listing_is_what_stands_in_the_file():
    text = figures.source_listing(selective_scan, SeqMoE.forward).data
    parts = re.findall(r"# (mammo_lib/\S+), line (\d+)\n(.*?)(?=\n\n\n# mammo_lib|\n````$)", text, re.S)
    assert [file for file, *_ in parts] == ["mammo_lib/ops/scan.py", "mammo_lib/models/seqmoe.py"]
    for file, first, shown in parts:
        lines = (Path(mammo_lib.__file__).parents[1] / file).read_text(encoding="utf-8").splitlines()
        there = lines[int(first) - 1 :][: len(shown.splitlines())]
        assert shown.splitlines() == textwrap.dedent("\n".join(there)).splitlines()
        assert re.match(r"def (selective_scan|forward)\(", shown)


def test_a_slope_has_a_point_per_score_and_stage_and_says_how_many_breasts():
    rows = pd.DataFrame({
        "name": ["network", "network", "other", "other"], "stage": ["home", "away"] * 2, "value": [0.8, 0.7, 0.75, 0.6],
        "low": [0.7, 0.6, 0.7, 0.5], "high": [0.9, 0.8, 0.8, 0.7], "n": [101, 55, 506, 55],
    })  # fmt: skip
    figure = figures.slope_chart(rows, "something was found")
    [axes] = figure.axes
    assert [one.get_text() for one in axes.get_xticklabels()] == ["home\nn = 101 to 506", "away\nn = 55"]
    lines = [one for one in axes.lines if len(one.get_ydata()) == 2 and one.get_marker() == "o"]
    assert [list(one.get_ydata()) for one in lines] == [[0.8, 0.7], [0.75, 0.6]]
    assert figure.get_suptitle() == "something was found"


def test_strips_count_what_is_called_malignant():
    parts = {"home": pd.DataFrame({"label": LABEL, "probability": PROBABILITY})}
    figure = figures.score_strips(parts, 0.6, "x")
    names = [one.get_text() for one in figure.axes[0].get_yticklabels()]
    assert names == ["home\n33 % of 3 benign called malignant", "67 % of 3 malignant called malignant"]


def test_estimates_side_by_side_have_colours_of_their_own():
    rows = pd.DataFrame(
        {"name": ["a"]} | {f"{k}{end}": [0.5] for k in ("x", "y", "z") for end in ("", "_low", "_high")}
    )
    (axes,) = figures.side_by_side(rows, {"x": "one", "y": "two", "z": "three"}, "AUC", "finding").axes
    assert len({bars.lines[0].get_color() for bars in axes.containers}) == 3
