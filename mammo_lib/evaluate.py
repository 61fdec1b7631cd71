"""Opening the test set: all runs of the frozen experiment list together, once, with a receipt.

Threshold and temperature come from each run's validation predictions. A run whose test predictions
exist is read, never scored again.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass

import pandas as pd

from .baselines import predict_baseline
from .config import Profile, RunConfig
from .data.collection import Collection
from .data.loader import test_loader
from .errors import InputError
from .experiments import FROZEN, experiment_configs
from .runs import PROTOCOL, Run, describe_environment, file_hash, find_run, write_json
from .statistics import evaluate_predictions
from .train import as_predictions, load_best, predict, train_run, with_choices


@dataclass(frozen=True)
class Opened:
    """A run whose test predictions exist, and whether they were made just now."""

    run: Run
    is_new: bool


def run_and_evaluate(profile: Profile, collection: Collection, *, progress: bool = False) -> dict[str, list[Run]]:
    """Train what is missing of the frozen list, then open the test set for all of it: experiment -> runs, by seed."""
    configs = experiment_configs(profile, "all")
    for config in configs:
        train_run(config, collection, progress=progress)
    runs: dict[str, list[Run]] = {}
    for opened in evaluate_profile(profile, collection):
        runs.setdefault(opened.run.config.experiment, []).append(opened.run)
    return runs


def evaluate_profile(profile: Profile, collection: Collection) -> list[Opened]:
    """Score every run of the frozen list on the test set.

    Raises
    ------
    InputError
        A run of the list is not finished: the test set is opened for all of them or for none.
    """
    runs = [_finished(config, collection, profile) for config in experiment_configs(profile, "all")]
    return [open_test_set(run, collection) for run in runs]


def open_test_set(run: Run, collection: Collection) -> Opened:
    """Add the test rows to a finished run's predictions and metrics, and leave ``receipt.json``."""
    if run.is_evaluated:
        return Opened(run, is_new=False)
    config, validation = run.config, run.predictions
    prepared = collection.prepare(config, "test")
    if config.baseline:
        frame = as_predictions(*predict_baseline(config, collection, "test"))
    else:
        frame = predict(load_best(run), test_loader(config, prepared), prepared.cohort.assign(split="test"))
    frame = with_choices(frame, *validation[["threshold", "temperature"]].iloc[0])
    write_json(run.folder / "receipt.json", _receipt(prepared.fingerprint))
    run.finish(pd.concat([validation, frame], ignore_index=True), run.metrics | {"test": evaluate_predictions(frame)})
    return Opened(run, is_new=True)


def score_elsewhere(run: Run, collection: Collection) -> pd.DataFrame:
    """Return a trained run's predictions on another collection, at its own threshold and temperature.

    Nothing is written: the run's record stays what its own test set said. A stream that the collection lacks is masked.
    """
    prepared = collection.prepare(run.config, "test")
    frame = predict(load_best(run), test_loader(run.config, prepared), prepared.cohort.assign(split="external"))
    return with_choices(frame, *run.predictions[["threshold", "temperature"]].iloc[0])


def _finished(config: RunConfig, collection: Collection, profile: Profile) -> Run:
    run = find_run(config, collection.prepare(config, "train").fingerprint)
    if run is None:
        raise InputError(
            f"{config.experiment}, seed {config.seed}: not trained yet, so the test set stays closed; "
            f"run `mammo run --experiment {config.experiment} --profile {profile.name}` first"
        )
    return run


def _receipt(test_hash: str) -> dict:
    return {
        "opened_at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "experiments_hash": file_hash(FROZEN),
        "protocol_hash": file_hash(PROTOCOL),
        "test_data_hash": test_hash,
        "environment": describe_environment(),
    }
