"""Opening the test set: all runs of the frozen experiment list together, once, with a receipt.

Threshold and temperature come from each run's validation predictions. A run whose test predictions
exist is read and never scored again. A committed record therefore needs no checkpoint, and torch is imported
only if a run has to be trained or scored. A run of the ``paper`` cohort is scored on all three definitions of the test
set: ``test`` (its own), ``test_official`` and ``test_lesion``.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
from tqdm import tqdm

from ..config import Profile, RunConfig
from ..data.boxes import log_areas
from ..data.collection import Collection
from ..data.prepare import Prepared
from ..errors import InputError
from ..files import file_hash, write_json
from ..statistics import evaluate_predictions
from .environment import describe_environment
from .executor import as_done, open_executor
from .experiments import BOOK, FROZEN, experiment_configs, list_hash
from .protocols import protocol_of
from .receipts import added_after, first_opening
from .records import Run, find_run, part_of, runs_by_config

ALSO = {"test_official": "official", "test_lesion": "lesion"}


@dataclass(frozen=True)
class Opened:
    """A run with test predictions, and whether they were made by this call."""

    run: Run
    is_new: bool


def run_and_evaluate(profile: Profile, collection: Collection, *, progress: bool = False) -> dict[str, list[Run]]:
    """Return the runs of the frozen list, test set opened: experiment -> runs, by seed.

    Missing runs are trained, and then the test set is opened for all. Nothing can be trained on a sample: then the
    finished records are read, whatever copy of the data they were made on.

    Raises
    ------
    InputError
        There are no images, and a run of the list has no evaluated record.
    """
    refuse_cross_validation(profile)
    runs = finished_runs(profile, "all", collection, progress=progress)
    if collection.is_sample:
        return runs
    return _by_experiment(opened.run for opened in evaluate_profile(profile, collection))


def finished_runs(
    profile: Profile, name: str, collection: Collection, *, progress: bool = False
) -> dict[str, list[Run]]:
    """Return the finished runs of an experiment or a group, training missing ones: experiment -> runs, by seed.

    Raises
    ------
    InputError
        The collection is a sample, and a run has no record with test scores.
    """
    configs = experiment_configs(profile, name)
    if collection.is_sample:
        known = runs_by_config()
        return _by_experiment(_recorded(config, known) for config in configs)
    runs = {config: _find(config, collection) for config in configs}
    for config in (config for config, run in runs.items() if run is None):
        from ..training.train import train_run

        runs[config] = train_run(config, collection, progress=progress)
    return _by_experiment(runs.values())


def _recorded(config: RunConfig, known: dict[str, Run]) -> Run:
    run = known.get(config.fingerprint)
    if run is None or not run.is_evaluated:
        raise InputError(
            f"{config.experiment}, seed {config.seed}: no record with test scores, and no images to make one from; "
            "give the folder of CBIS-DDSM with --data DIR (make: DATA=DIR) or MAMMO_DATA"
        )
    return run


def _by_experiment(runs: Iterable[Run]) -> dict[str, list[Run]]:
    found: dict[str, list[Run]] = {}
    for run in runs:
        found.setdefault(run.config.experiment, []).append(run)
    return found


def evaluate_profile(
    profile: Profile, collection: Collection, *, workers: int = 1, progress: bool = False
) -> list[Opened]:
    """Score every run of the frozen list on the test set, in ``workers`` processes, under one receipt.

    Raises
    ------
    InputError
        A run of the list is not finished. The test set is opened for all runs or for none.
    """
    refuse_cross_validation(profile)
    runs = [finished_run(config, collection, profile) for config in experiment_configs(profile, "all")]
    if all(run.is_evaluated for run in runs):
        return [Opened(run, is_new=False) for run in runs]
    opening, first = opening_of(profile, runs), first_opening(runs)
    opened_cohorts(runs[0].config, collection)  # decoded here, once, and not by every worker
    tasks = [(run, collection, opening | {"added_after": added_after(run, first)}) for run in runs]
    with open_executor(workers) as (executor, n):
        done = as_done(executor, n, _open, tasks)
        bar = tqdm(done, desc="opening", unit="run", total=len(tasks), disable=not progress, dynamic_ncols=True)
        opened = {one.run.folder: one for one in bar}
    return [opened[run.folder] for run in runs]


def opening_of(profile: Profile, runs: list[Run], protocol: Path | None = None) -> dict:
    """Return the receipt of an opening of the test set for all runs of a profile's list.

    ``protocol`` is by default the one that governs the runs.
    """
    return _opening(profile, runs, protocol) | {"list_hash": list_hash(profile)}


def _open(task: tuple) -> Opened:
    return open_test_set(*task)


def open_test_set(run: Run, collection: Collection, opening: dict | None = None) -> Opened:
    """Add test rows to a finished run's predictions and metrics, and write ``receipt.json``.

    Without an ``opening`` (that of a profile's list), the run is exploratory.
    """
    with nullcontext() if run.is_evaluated else run.held():
        return Opened(run, is_new=False) if run.is_evaluated else _open_here(run, collection, opening)


def _open_here(run: Run, collection: Collection, opening: dict | None) -> Opened:
    # A process that died between writing the two files of `finish` may have left test rows here already.
    validation = part_of(run.predictions, "validation")
    cohorts = opened_cohorts(run.config, collection)
    hashes = {split: prepared.fingerprint for split, prepared in cohorts.items()}
    receipt = (opening or _opening(None, [run])) | {"test_data_hashes": hashes}
    write_json(run.folder / "receipt.json", receipt)  # before any test row reaches the disk
    frames = _score(run, collection, cohorts, run.choices)
    run.finish(
        pd.concat([validation, *frames.values()], ignore_index=True),
        run.metrics | {split: evaluate_predictions(frame) for split, frame in frames.items()},
    )
    return Opened(run, is_new=True)


def opened_cohorts(config: RunConfig, collection: Collection) -> dict[str, Prepared]:
    """Return the test breasts of a run: ``test``, its own definition, and for the ``paper`` cohort also ``ALSO``.

    If boxes in a film cannot be matched to lesions (on the 800-px set), ``test_lesion`` leaves these lesions out.
    """
    data, *reads = config.inputs
    cohorts = {"test": collection.prepare("test", data, *reads)}
    if data.definition == "paper":
        for split, definition in ALSO.items():
            allowed = data.allow_missing or definition == "lesion"
            other = data.model_copy(update={"definition": definition, "allow_missing": allowed})
            prepared = collection.prepare("test", other, *reads)
            cohorts[split] = _complete(prepared, config) if definition == "lesion" else prepared
    return cohorts


def score_elsewhere(run: Run, collection: Collection) -> pd.DataFrame:
    """Return a trained run's predictions on another collection, at its own threshold and temperature.

    Nothing is written, so the run's record keeps the results of its own test set. An absent stream is masked.
    """
    from ..data.loader import in_cohort_order
    from ..models.network import load_best, predict
    from .predictions import with_choices

    prepared = collection.prepare("test", *run.config.inputs)
    frame = predict(
        load_best(run), in_cohort_order(prepared, run.config.train), prepared.cohort.assign(split="external")
    )
    return with_choices(frame, *run.choices)


def refuse_cross_validation(profile: Profile) -> None:
    """Raise an :class:`InputError` for a profile that cross-validates and therefore opens no test set."""
    if profile.run.data.fold == "each":
        raise InputError(
            f"profile {profile.name!r} cross-validates the training breasts and opens no test set; "
            f"run `mammo run --experiment all --profile {profile.name}`"
        )


def _find(config: RunConfig, collection: Collection) -> Run | None:
    return find_run(config, collection.data_hash("train", *config.inputs))


def finished_run(config: RunConfig, collection: Collection, profile: Profile) -> Run:
    """Return the finished run of a config on these data, or raise an :class:`InputError` with the command for it."""
    run = _find(config, collection)
    if run is None:
        raise InputError(
            f"{config.experiment}, seed {config.seed}: not trained yet, so the test set stays closed; "
            f"run `mammo run --experiment {config.experiment} --profile {profile.name}` first"
        )
    return run


def _score(
    run: Run, collection: Collection, cohorts: dict[str, Prepared], choices: tuple[float, float]
) -> dict[str, pd.DataFrame]:
    """Return each cohort's predictions, its split named by its key, beside what validation chose."""
    from ..analysis.gates import examine
    from ..data.loader import in_cohort_order
    from ..models.network import load_best, predict
    from ..training.baselines import baseline_of
    from .predictions import as_predictions, with_choices

    named = {split: prepared.cohort.assign(split=split) for split, prepared in cohorts.items()}
    if run.config.baseline:
        fitted = baseline_of(run.config, collection)
        frames = {split: as_predictions(cohort, fitted(cohorts[split], cohort)) for split, cohort in named.items()}
        return {split: with_choices(frame, *choices) for split, frame in frames.items()}
    network = load_best(run)
    if run.interventions is not None:  # absent from records older than interventions
        areas = log_areas(named["test"], collection.source, run.config.data)
        examine(run, network, in_cohort_order(cohorts["test"], run.config.train), named["test"], areas)
    return {
        split: with_choices(predict(network, in_cohort_order(cohorts[split], run.config.train), cohort), *choices)
        for split, cohort in named.items()
    }


def _complete(prepared: Prepared, config: RunConfig) -> Prepared:
    """Leave out the samples that lack one of the config's views."""
    return only(prepared, prepared.cohort[[f"whole_{view}" for view in config.model.views]].notna().all(axis=1))


def only(prepared: Prepared, chosen: pd.Series) -> Prepared:
    """Return the prepared pixels of the samples for which ``chosen`` is true."""
    kept = prepared.cohort[chosen].reset_index(drop=True)
    index = prepared.index[prepared.index["sample_id"].isin(kept["sample_id"])].reset_index(drop=True)
    return replace(prepared, cohort=kept, index=index)


def _opening(profile: Profile | None, runs: list[Run], protocol: Path | None = None) -> dict:
    """Return what all receipts of one opening share; ``protocol`` is by default that of the first run."""
    protocol = protocol or protocol_of(runs[0].config)
    return {
        "opened_at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "profile": profile.name if profile else None,
        "runs": [run.name for run in runs],
        "experiments_hash": file_hash(BOOK / profile.experiments if profile else FROZEN),
        "protocol_hash": file_hash(protocol),
        "environment": describe_environment(protocol),
    }
