"""An overview of experiments: finished runs, and the time that the rest takes."""

from __future__ import annotations

import pandas as pd

from ..config import Profile
from .experiments import experiment_configs, read_experiments
from .records import Run, finished_of, runs_by_config


def overview(profile: Profile) -> pd.DataFrame:
    """Return ``experiment question runs finished seconds`` of a profile's frozen list.

    ``finished`` counts records of these configs, committed or on this machine, whatever data they were made on.
    ``seconds`` estimates the remaining time from the epochs of finished runs, if possible of the same experiment. NaN
    if nothing is known.
    """
    known = runs_by_config()
    rows = []
    for name, experiment in read_experiments(profile).items():
        configs = experiment_configs(profile, name)
        found = finished_of(configs, known)
        took = [_seconds(run) for run in found]
        rows.append({
            "experiment": name, "question": experiment["question"], "runs": len(configs), "finished": len(found),
            "each": sum(took) / len(took) if took else float("nan"), "is_baseline": configs[0].baseline is not None,
        })  # fmt: skip
    table = pd.DataFrame(rows)
    typical = table.groupby("is_baseline")["each"].transform("mean")
    left = table["runs"] - table["finished"]
    return table.assign(seconds=(left * table["each"].fillna(typical)).where(left > 0, 0.0)).drop(
        columns=["each", "is_baseline"]
    )


def _seconds(run: Run) -> float:
    """Return the training time of a finished run; baselines keep no history and take seconds."""
    return float(run.history["seconds"].sum()) if (run.folder / "history.csv").is_file() else 0.0
