"""The learning curve: known laws are recovered, and nothing is extrapolated from two points."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from mammo_lib.analysis import limits
from mammo_lib.config import get_profile
from mammo_lib.data.cbis_ddsm.tables import read_tables
from mammo_lib.data.sample import sample_folder

N = 400


def scored(share, separation, seed=0):
    """A run whose logits separate the labels by a number of standard deviations."""
    rng = np.random.default_rng(7)
    label = np.arange(N) % 2
    frame = pd.DataFrame({
        "sample_id": [f"b{i:03d}" for i in range(N)], "patient_id": np.arange(N) // 2, "label": label,
        "logit": separation * label + rng.normal(size=N), "fold": np.arange(N) // 2 % 5,
    })  # fmt: skip
    config = get_profile("mirror-limits").run
    data = config.data.model_copy(update={"training_share": share})
    return SimpleNamespace(predictions=frame, config=config.model_copy(update={"data": data, "seed": seed}))


@pytest.fixture(scope="module")
def table():
    return read_tables(sample_folder())


def test_shares_are_counted_in_breasts_of_a_fold(table):
    """506 breasts and 216 of one view: four fifths of the former train, and all of the latter whose patient is free."""
    whole, half = (limits.training_breasts(scored(share, 1).config, table) for share in (1.0, 0.5))
    assert 0.8 * 506 < whole < 0.8 * 506 + 216
    assert half == pytest.approx(whole / 2, rel=0.05)


def test_more_breasts_and_a_better_score_give_a_slope_and_both_extrapolations(table):
    shares = limits.by_share([scored(1.0, 1.4)], {"a": [scored(0.25, 0.8)], "b": [scored(0.5, 1.1)]})
    assert [*shares] == [0.25, 0.5, 1.0]
    curve = limits.learning_curve(shares, table)
    auc = curve.points["auc"].to_numpy()
    assert (np.diff(auc) > 0).all() and (curve.points["auc_low"] < auc).all()
    assert curve.per_doubling["slope_low"] > 0
    assert curve.per_doubling["slope"] == pytest.approx((auc[2] - auc[0]) / 2, abs=0.005)  # two doublings
    ahead = curve.ahead.set_index(["form", "breasts"])["auc"]
    breasts = curve.points["breasts"].max()
    assert auc[2] < ahead["power law", 2 * breasts] < ahead["line", 2 * breasts] < ahead["line", 4 * breasts]


def test_laws_are_found_again():
    breasts, later = np.array([100.0, 200.0, 400.0, 800.0]), np.array([1600.0])
    power = (0.9 - 2 * breasts**-0.5)[:, None]
    assert limits._power_law(breasts, power, later) == pytest.approx(0.9 - 2 * 1600**-0.5, abs=1e-9)
    values, slope = limits._line(breasts, (0.5 + 0.03 * np.log2(breasts))[:, None], later)
    assert (values[0, 0], slope[0]) == pytest.approx((0.5 + 0.03 * np.log2(1600), 0.03), abs=1e-9)


def test_two_points_are_not_extrapolated(table):
    curve = limits.learning_curve({0.5: [scored(0.5, 1)], 1.0: [scored(1.0, 1)]}, table)
    assert len(curve.points) == 2 and curve.per_doubling == {} and curve.ahead.empty


def test_variants_are_compared_with_the_repeats_that_both_have():
    reference = [scored(1.0, 1.4, seed) for seed in (0, 1)]
    profile = get_profile("mirror-limits")
    table = limits.against_reference(profile, "breasts", reference, {"crop_quarter": [scored(0.25, 0.8)]})
    [row] = table.to_dict("records")
    assert (row["experiment"], row["name"], row["repeats"]) == ("crop_quarter", "a quarter of the patients", 1)
    assert row["difference"] < 0 and table.attrs["waiting"] == 2


def test_the_mean_of_repeats_beats_each_where_their_errors_differ():
    runs = [scored(1.0, 1.0, seed) for seed in (0, 1)]
    rng = np.random.default_rng(0)
    for run in runs:
        run.predictions["logit"] = run.predictions["label"] + rng.normal(size=N)
    found = limits.mean_of_repeats(runs)
    assert [*found] == ["repeat 1", "repeat 2", "mean of all"]
    assert found["mean of all"].value > max(found["repeat 1"].value, found["repeat 2"].value)


def test_a_second_network_helps_where_its_errors_are_its_own():
    """The mean with a network of other errors beats the reference; the mean with a copy of it changes nothing."""
    reference, other = scored(1.0, 1.0, 0), scored(1.0, 1.0, 0)
    other.predictions["logit"] = other.predictions["label"] + np.random.default_rng(0).normal(size=N)
    other.predictions = other.predictions.sample(frac=1, random_state=0)  # another order of the same breasts
    profile, names = get_profile("mirror-cv"), ["crop_160_16", "crop_plain", "crop_attention"]
    repeats = {"crop_160_16": [other], "crop_plain": [reference]}
    table = limits.with_another(profile, names, [reference], repeats).set_index("experiment")
    assert table.loc["crop_160_16", "difference"] > 0.02 and table.loc["crop_plain", "difference"] == 0
    assert len(table) == 2 and table.attrs["waiting"] == 1
