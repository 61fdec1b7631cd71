"""The cost estimate before a run: counted from the config; the rate turns operations into hours."""

import pytest

from mammo_lib.config import ROOT, get_profile
from mammo_lib.data import read_tables
from mammo_lib.data.sample import sample_folder
from mammo_lib.files import read_json
from mammo_lib.runs import experiment_configs, read_experiments
from mammo_lib.training import plan


@pytest.fixture(scope="module")
def table():
    return read_tables(sample_folder())


def test_training_work_by_hand(table):
    """One stream, two views, 14 epochs, 5 folds; 506 breasts, 216 more for training; 8 + 2 cached variants."""
    config = get_profile("mirror-cv").run.model_copy(update={"experiment": "crop"})
    config = config.model_copy(update={"model": config.model.model_copy(update={"streams": ("crop",)})})
    whole, first = plan.encoder_costs(config)
    own = whole.total - first.total
    held_out = 506 / 5
    epoch = 2 * (3 * (722 - held_out) + 2 * held_out) * own
    expected = 5 * 14 * epoch + 722 * 2 * 10 * first.total
    assert plan.run_cost(config, table).operations == pytest.approx(expected)


def test_a_frozen_cache_trades_disk_for_work(table):
    cached = get_profile("mirror-cv").run
    fresh = cached.model_copy(update={"train": cached.train.model_copy(update={"frozen_cache": None})})
    assert plan.run_cost(cached, table).operations < 0.7 * plan.run_cost(fresh, table).operations
    assert plan.run_cost(cached, table).cache > 4 * plan.run_cost(fresh, table).cache


def test_finished_runs_are_not_planned_and_the_rate_divides(table):
    slow, fast = (plan.planned_runs(get_profile("smoke"), table, rate).set_index("experiment") for rate in (1e9, 2e9))
    assert (slow["hours_each"] / fast["hours_each"]).dropna().tolist() == pytest.approx([2.0] * 3)
    assert slow.loc["baseline_birads", "parameters"] != slow.loc["baseline_birads", "parameters"]  # no network
    shared = (
        plan.planned_runs(get_profile("smoke"), table, 1e9, 4),
        plan.planned_runs(get_profile("smoke"), table, 1e9),
    )
    assert shared[0]["hours_left"].sum() == pytest.approx(shared[1]["hours_left"].sum() / 4)
    assert shared[0]["hours_each"].equals(shared[1]["hours_each"])  # one run is not faster on four devices
    done = plan.planned_runs(get_profile("mirror"), table, 1e9).set_index("experiment")
    assert (done["finished"] == done["runs"]).all() and done["hours_left"].sum() == 0


def test_the_papers_profile_is_planned_without_its_weights(table):
    config = get_profile("paper").run
    cost = plan.run_cost(config, table)
    assert 460e6 < cost.parameters < 480e6
    assert cost.memory > 16 * cost.parameters


def test_the_plan_that_the_book_shows_is_the_plan_of_its_profile(table):
    """Its first experiment; the others take the script a minute."""
    held = read_json(ROOT / "benchmarks" / "plan.json")
    profile, row = get_profile(held["profile"]), held["rows"][0]
    configs = experiment_configs(profile, row["experiment"])
    cost = plan.run_cost(configs[0], table)
    found = {
        "experiment": row["experiment"], "runs": len(configs), "parameters": cost.parameters,
        "memory_gb": cost.memory / 1e9, "hours_each": cost.operations / (held["tflops"] * 1e12) / 3600,
    }  # fmt: skip
    assert found == pytest.approx(row), "python benchmarks/plan.py"
    networks = [name for name in read_experiments(profile) if experiment_configs(profile, name)[0].baseline is None]
    assert [one["experiment"] for one in held["rows"]] == networks


def test_the_rate_of_this_machine_is_a_rate(tiny_profile):
    assert 1e7 < plan.measured_rate(tiny_profile.run, "cpu") < 1e15
