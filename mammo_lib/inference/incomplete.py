"""The official test breasts with films missing: the networks of a list, scored together (protocol 8).

A record of a network holds, beside the receipt that all of them share:

| file | rows |
|---|---|
| ``hidden_inputs.parquet`` | split ``test``: breasts with both views, by every combination of views and streams |
| ``predictions.parquet`` | split ``one_film``: breasts with a mass annotated in one view only |

Nothing is tuned: threshold and temperature are those of the network's own record.
"""

from __future__ import annotations

import filelock
from tqdm import tqdm

from ..analysis.gates import observe
from ..analysis.hidden_inputs import score_hidden
from ..config import Profile, fingerprint
from ..data.collection import Collection
from ..data.loader import in_cohort_order
from ..data.prepare import Prepared
from ..errors import InputError
from ..files import file_hash, write_json, write_parquet
from ..models.network import load_best, predict
from ..runs import records as runs
from ..runs.evaluate import finished_run, only, opening_of, refuse_cross_validation
from ..runs.experiments import experiment_configs
from ..runs.predictions import with_choices
from ..runs.protocols import protocol_incomplete
from ..runs.receipts import added_after, first_opening
from ..runs.records import INCOMPLETE, ONE_FILM, Run, find_run, start_run
from ..statistics import evaluate_predictions
from .provenance import identity_of, same_network, training_set

ANY_VIEW = "any-view"  # the definition of a cohort that also has the breasts with one view


def score_incomplete(profile: Profile, collection: Collection, *, progress: bool = False) -> list[Run]:
    """Return one record per network of a profile's list; finished records are read, not made again.

    Raises
    ------
    InputError
        The collection has no test films; a network of the list is not trained, its test set has not been opened, its
        weights are not here, or are not those of its record; it reads one view, or another cohort than ``paper``; there
        is no breast with one view; an image is missing or cannot be decoded. In all these cases nothing is opened.
    """
    networks = [same_network(run) for run in opened_networks(profile, collection)]
    parts = [both_and_one(run, collection) for run in networks]
    records = [_record(run, collection, *films) for run, films in zip(networks, parts, strict=True)]
    if all(record.is_finished for record in records):
        return records
    with filelock.FileLock(runs.FRESH / f".{INCOMPLETE}{profile.name}.lock"):
        opening = opening_of(profile, records, protocol_incomplete(networks[0].config))
        first = first_opening([*records, *_earlier(profile)])
        together = list(zip(records, networks, parts, strict=True))
        for record, network, films in tqdm(together, "scoring", disable=not progress, unit="network"):
            if not record.is_finished:
                receipt = record.receipt or opening | {"added_after": added_after(record, first)}
                _fill(record, network, *films, receipt)
    return records


def opened_networks(profile: Profile, collection: Collection) -> list[Run]:
    """Return the records of a list's networks, all with an opened test set, in the order of the list."""
    refuse_cross_validation(profile)
    if collection.is_sample:
        raise InputError(
            "the films of the test set are needed: give the folder of CBIS-DDSM with --data DIR or MAMMO_DATA"
        )
    configs = [config for config in experiment_configs(profile, "all") if not config.baseline]
    found = [finished_run(config, collection, profile) for config in configs]
    if closed := [run for run in found if not run.is_evaluated]:
        raise InputError(
            f"{closed[0].name}: its test set is not opened yet, and scoring with films hidden would open it; "
            f"run `mammo evaluate --profile {profile.name}` first"
        )
    return found


def both_and_one(run: Run, collection: Collection) -> tuple[Prepared, Prepared]:
    """Return a run's official test breasts: those that it was scored on, with both views, and those with one view.

    Raises
    ------
    InputError
        The run reads one view or another cohort than ``paper``, or there is no breast with one view.
    """
    data, *reads = run.config.inputs
    views = run.config.model.views
    if data.definition != "paper" or len(views) < 2:
        raise InputError(
            f"{run.name}: films are hidden from networks of two views on the paper cohort; this one reads "
            f"{'+'.join(views)} of the cohort {data.definition!r}"
        )
    both = collection.prepare("test", *run.config.inputs)
    wide = collection.prepare("test", data.model_copy(update={"definition": ANY_VIEW, "extra_training": None}), *reads)
    one = only(wide, wide.cohort[[f"whole_{view}" for view in views]].notna().sum(axis=1) == 1)
    if one.cohort.empty:
        raise InputError(f"{collection.root}: no test breast has one view only, so that there is nothing to score")
    return both, one


def _earlier(profile: Profile) -> list[Run]:
    """Return the finished records of a profile's earlier openings, committed or made here."""
    known = [run for home in (runs.COMMITTED, runs.FRESH) for run in runs.all_runs(home)]
    known = [run for run in known if run.folder.parent.name.startswith(INCOMPLETE)]
    return [run for run in known if (run.receipt or {}).get("profile") == profile.name]


def _record(run: Run, collection: Collection, both: Prepared, one: Prepared) -> Run:
    """Return the record of a network: the finished one, else a started one."""
    config = run.config.model_copy(update={"experiment": f"{INCOMPLETE}{run.config.experiment}"})
    data_hash = fingerprint([both.fingerprint, one.fingerprint, identity_of(run)])
    facts = {"network": run.name, "trained_on": training_set(run), "checkpoint": file_hash(run.checkpoint)}
    found = find_run(config, data_hash)
    return found or start_run(
        config, data_hash, data_set=collection.name, protocol=protocol_incomplete(run.config), **facts
    )


def _fill(record: Run, run: Run, both: Prepared, one: Prepared, receipt: dict) -> None:
    """Score the test breasts with a network, and finish its record; the receipt is written before any score."""
    with record.held():
        hashes = {"test": both.fingerprint, ONE_FILM: one.fingerprint}
        write_json(record.folder / "receipt.json", receipt | {"test_data_hashes": hashes})
        network, views = load_best(run), run.config.model.views
        seen = observe(network, in_cohort_order(both, run.config.train))
        hidden = score_hidden(network.model, seen, both.cohort.assign(split="test"), views, None)
        write_parquet(record.folder / "hidden_inputs.parquet", hidden)
        alone = predict(network, in_cohort_order(one, run.config.train), one.cohort.assign(split=ONE_FILM))
        alone = with_choices(alone, *run.choices)
        record.finish(alone, {ONE_FILM: evaluate_predictions(alone)})
