"""The overview of runs: counts from records, and an estimate of the remaining time."""

import pandas as pd

from mammo_lib.config import get_profile
from mammo_lib.runs.overview import overview


def test_the_committed_records_are_counted():
    table = overview(get_profile("mirror")).set_index("experiment")
    assert len(table) == 14
    assert (table["finished"] == table["runs"]).all() and (table["seconds"] == 0).all()


def test_what_is_left_costs_what_the_finished_ones_cost(run_homes, tiny_profile, collection):
    from mammo_lib.runs.experiments import experiment_configs
    from mammo_lib.training.train import train_run

    before = overview(tiny_profile).set_index("experiment")
    assert before["finished"].sum() == 0 and before["seconds"].isna().all()
    [config] = experiment_configs(tiny_profile, "dual_stream")
    took = train_run(config, collection).history["seconds"].sum()
    after = overview(tiny_profile.model_copy(update={"seeds": (0, 1, 2)})).set_index("experiment")
    assert after.loc["dual_stream", ["runs", "finished"]].tolist() == [3, 1]
    assert after.loc["dual_stream", "seconds"] == pd.Series(2 * took).iloc[0]
