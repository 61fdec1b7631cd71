"""The paper's numbers beside ours: each has a verdict by the protocol, and a reason."""

import math

import pytest

from mammo_lib.analysis import published as results
from mammo_lib.config import DataConfig, RunConfig, get_profile
from mammo_lib.runs.experiments import read_experiments
from mammo_lib.statistics import Interval

from .test_tables import write_runs

PAPER, SMOKE = get_profile("paper"), get_profile("smoke")


@pytest.fixture
def runs(tmp_path):
    return write_runs(tmp_path)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (-0.03, 0.03, "reproduced"),
        (-0.01, 0.02, "reproduced"),
        (-0.2, -0.031, "not reproduced"),
        (0.04, 0.1, "not reproduced"),
        (-0.031, 0.01, "undecidable"),
        (-0.1, 0.1, "undecidable"),
        (-0.04, -0.03, "undecidable"),
    ],
)
def test_verdicts_follow_the_protocol(low, high, expected):
    difference = Interval((low + high) / 2, low, high, 149)
    assert results.verdict(0.87, difference, "paper", seeds=5) == expected
    assert results.verdict(0.87, difference, "paper", seeds=4) == "not tested"
    assert results.verdict(0.87, difference, "mirror", seeds=5) == "not tested"


def test_beside_the_paper_every_row_has_a_verdict_and_a_reason(runs):
    published = results.read_published()
    table = results.beside_paper(published, runs, SMOKE)
    assert len(table) == len(published)
    assert set(table["verdict"]) == {"not tested"}
    assert table["why"].str.len().gt(0).all()
    head = table.iloc[0]
    assert head["ours"] - head["difference"] == pytest.approx(head["published"])
    missing = table[table["our_experiment"] == "whole_only"].iloc[0]
    assert math.isnan(missing["ours"])
    assert missing["why"] == "not run in this profile"


def test_a_copy_with_gaps_tests_nothing(runs, monkeypatch):
    """Even the paper profile, with seeds enough, says nothing about the paper where views were left out."""
    monkeypatch.setattr(results, "MIN_SEEDS", 1)
    paper = get_profile("paper")
    published = results.read_published().query("ours == 'dual_stream'")
    assert "not tested" not in set(results.beside_paper(published, runs, paper)["verdict"])
    data = paper.run.data.model_copy(update={"allow_missing": True})
    gaps = paper.model_copy(update={"run": paper.run.model_copy(update={"data": data})})
    table = results.beside_paper(published, runs, gaps)
    assert set(table["verdict"]) == {"not tested"}
    assert table["why"].str.contains("unreadable views left out").all()


def test_every_published_number_is_held_against_an_experiment_of_the_paper_profile():
    published = results.read_published()
    assert set(published["ours"]) <= set(read_experiments(PAPER))


def test_the_published_gain_is_five_breasts():
    assert results.published_gain(results.read_published()) == (5, 149)


def test_what_a_published_number_leaves_open():
    # accuracy .87 at 149: Wilson's half width is .054; 149 (.054 / .03)^2 is about 480 breasts.
    table = results.published_intervals(results.read_published()).set_index("name")
    row = table.loc["headline, accuracy"]
    assert row["half_width"] == pytest.approx(0.054, abs=5e-4)
    assert row["n_to_confirm"] == pytest.approx(480, abs=10)
    assert row["shift_to_refute"] == pytest.approx(0.084, abs=5e-4)
    assert "headline, f1" not in table.index


def test_what_differs_names_the_departures():
    assert results.what_differs(PAPER) == "nothing"
    assert "no ImageNet weights" in results.what_differs(SMOKE)
    assert results.what_differs(SMOKE).startswith(
        "a synthetic phantom instead of mammograms, 64-px images instead of 224, 4 folds instead of 5, "
        "the nano backbone instead of L"
    )
    wider = PAPER.model_copy(update={"run": RunConfig(data=DataConfig(crop_context=1.5))})
    assert "squares, 1.5 times the longer side of the lesion" in results.what_differs(wider)
