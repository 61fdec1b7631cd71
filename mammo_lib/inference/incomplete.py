"""The official test breasts with films missing: the networks of a list, scored under one receipt (protocol 8).

A record of a network holds, beside its receipt:

| file | rows |
|---|---|
| ``hidden_inputs.parquet`` | split ``test``: breasts with both views, by every combination of views and streams |
| ``predictions.parquet`` | split ``one_film``: breasts whose lesion was annotated in one view only |

Nothing is tuned: threshold and temperature are those of the network's own record.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pandas as pd
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
from ..runs.evaluate import opening_of
from ..runs.predictions import with_choices
from ..runs.protocols import PROTOCOL_8
from ..runs.receipts import added_after, first_opening
from ..runs.records import INCOMPLETE, Run, find_run, start_run
from ..statistics import evaluate_predictions

ONE_FILM = "one_film"
ANY_VIEW = "any-view"  # the definition of a cohort that also has the breasts with one view


def score_incomplete(
    networks: Sequence[Run], profile: Profile, collection: Collection, *, progress: bool = False
) -> list[Run]:
    """Return one record per network of a profile's list; finished records are read, not made again.

    ``networks`` have their checkpoints here (:func:`mammo_lib.inference.provenance.listed_networks`).

    Raises
    ------
    InputError
        There is no breast with one view, or an image is missing or cannot be decoded. Then nothing is opened.
    """
    parts = [test_parts(run, collection) for run in networks]
    records = [_record(run, *films) for run, films in zip(networks, parts, strict=True)]
    opening = opening_of(profile, records) | {"protocol_hash": file_hash(PROTOCOL_8)}
    first = first_opening(records)
    together = list(zip(networks, records, parts, strict=True))
    for network, record, films in tqdm(together, "scoring", disable=not progress, unit="network", dynamic_ncols=True):
        with record.held():
            if not record.is_finished:
                _fill(record, network, *films, opening | {"added_after": added_after(record, first)})
    return records


def test_parts(run: Run, collection: Collection) -> tuple[Prepared, Prepared]:
    """Return a run's official test breasts: those that it was scored on, with both views, and those with one view.

    Raises
    ------
    InputError
        One of the two parts is empty.
    """
    data, *reads = run.config.inputs
    proper = collection.cohort(data, "test")["sample_id"]
    wide = collection.prepare("test", data.model_copy(update={"definition": ANY_VIEW, "extra_training": None}), *reads)
    n_views = wide.cohort[[f"whole_{view}" for view in run.config.model.views]].notna().sum(axis=1)
    both = _only(wide, wide.cohort["sample_id"].isin(proper) & (n_views > 1))
    one = _only(wide, n_views == 1)
    for part, what in ((both, "both views"), (one, "one view only")):
        if part.cohort.empty:
            raise InputError(f"{collection.root}: no test breast has {what}, so that there is nothing to score")
    return both, one


def _only(prepared: Prepared, chosen: pd.Series) -> Prepared:
    """Return the prepared pixels of some breasts."""
    cohort = prepared.cohort[chosen].reset_index(drop=True)
    index = prepared.index[prepared.index["sample_id"].isin(cohort["sample_id"])].reset_index(drop=True)
    return replace(prepared, cohort=cohort, index=index)


def _record(run: Run, both: Prepared, one: Prepared) -> Run:
    """Return the record of a network: the finished one, else a started one."""
    config = run.config.model_copy(update={"experiment": f"{INCOMPLETE}{run.config.experiment}"})
    checkpoint = file_hash(run.checkpoint)
    data_hash = fingerprint([both.fingerprint, one.fingerprint, checkpoint])
    facts = {"data_set": "CBIS-DDSM", "network": run.name, "checkpoint": checkpoint}
    return find_run(config, data_hash) or start_run(config, data_hash, protocol=PROTOCOL_8, **facts)


def _fill(record: Run, run: Run, both: Prepared, one: Prepared, receipt: dict) -> None:
    """Score the test breasts with a network, and finish its record; the receipt is written before any score."""
    hashes = {"test": both.fingerprint, ONE_FILM: one.fingerprint}
    write_json(record.folder / "receipt.json", receipt | {"test_data_hashes": hashes})
    network, views = load_best(run), run.config.model.views
    seen = observe(network, in_cohort_order(both, run.config.train))
    hidden = score_hidden(network.model, seen, both.cohort.assign(split="test"), views, None)
    write_parquet(record.folder / "hidden_inputs.parquet", hidden)
    alone = predict(network, in_cohort_order(one, run.config.train), one.cohort.assign(split=ONE_FILM))
    alone = with_choices(alone, *run.choices)
    record.finish(alone, {ONE_FILM: evaluate_predictions(alone)})
