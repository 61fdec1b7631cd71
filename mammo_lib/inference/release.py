"""A trained network in a few megabytes: a run's record with its weights in half precision, ready for ``mammo predict``.

Matrices and kernels are stored in 16 bits. Vectors (biases, scales, running statistics) keep 32 bits: they are few,
and small variances would be lost. Frozen parts are left out: they come with the package that they were taken from.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd
from safetensors.torch import save
from torch import zeros_like
from torch.utils.data import DataLoader

from ..config import MATERIAL
from ..data.collection import Collection
from ..data.loader import BreastDataset
from ..data.prepare import Prepared
from ..errors import InputError
from ..files import write_bytes, write_json
from ..models.network import Network, frozen_prefixes, load_best, predict
from ..runs.manifest import RELEASED
from ..runs.predictions import with_choices
from ..runs.records import Run
from ..statistics import evaluate_predictions

COPIED = ("config.json", "history.csv", "gates.parquet", "gate_history.parquet")
WITHOUT = {"crop": "without_crops", "whole": "without_whole_films"}  # metrics of the network with a stream hidden


def released_run() -> Run:
    """Return the network that ships with the project.

    Raises
    ------
    InputError
        The released network is missing.
    """
    run = Run(MATERIAL / "released" / "dual")
    if not run.is_finished:
        raise InputError(f"{run.folder}: the released network is not there; restore it, or give --run FOLDER")
    return run


def write_release(run: Run, folder: Path, collection: Collection, predictions: pd.DataFrame | None = None) -> Run:
    """Write a finished run with its weights to a new folder, and return it.

    The breasts of its predictions are scored again with the weights as stored and each stream hidden. ``predictions``
    replace the run's own: for one fold of a cross-validation those of the joined record, whose
    threshold and temperature come from the other folds.

    Raises
    ------
    InputError
        The folder exists, or the run has no checkpoint here.
    """
    if folder.exists():
        raise InputError(f"{folder}: exists; give a new folder, or remove this one")
    network = load_best(run).cpu()
    frozen, state = frozen_prefixes(network), network.state_dict()
    folder.mkdir(parents=True)
    halved = {
        key: one.half() if one.is_floating_point() and one.ndim > 1 else one
        for key, one in state.items()
        if not key.startswith(frozen)
    }
    write_bytes(folder / RELEASED, save({key: one.contiguous() for key, one in halved.items()}))
    for name in COPIED:
        if (run.folder / name).is_file():
            shutil.copyfile(run.folder / name, folder / name)
    write_json(folder / "environment.json", run.environment | {"data_set": collection.name})
    frame, released = run.predictions if predictions is None else predictions, Run(folder)
    metrics = {str(frame["split"].iloc[0]): evaluate_predictions(frame)}
    if len(run.config.model.streams) > 1:
        network, prepared = load_best(released), collection.prepare("train", *run.config.inputs)
        for stream in run.config.model.streams:
            metrics[WITHOUT[stream]] = evaluate_predictions(_hidden(network, prepared, frame, stream))
    released.finish(frame, metrics)
    return released


def _hidden(network: Network, prepared: Prepared, frame: pd.DataFrame, stream: str) -> pd.DataFrame:
    """Return the predictions for the same breasts, in their order, with one stream masked."""
    cohort = prepared.cohort.set_index("sample_id").loc[frame["sample_id"]].reset_index()
    loader = DataLoader(BreastDataset(prepared, cohort), batch_size=network.config.train.batch_size)
    hidden = (_without(batch, stream) for batch in loader)
    scored = predict(network, hidden, cohort.assign(split=frame["split"].to_numpy()))
    return with_choices(scored, frame["threshold"].iloc[0], frame["temperature"].iloc[0])


def _without(batch: dict, stream: str) -> dict:
    return batch | {"present": batch["present"] | {stream: zeros_like(batch["present"][stream])}}
