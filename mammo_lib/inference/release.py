"""A trained network in a few megabytes: a run's record with its weights in half precision, ready for ``mammo predict``.

Matrices and kernels are stored in 16 bits. Vectors (biases, scales, running statistics) keep 32 bits: they are few,
and small variances would be lost.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd
from safetensors.torch import save_file

from ..errors import InputError
from ..files import write_json, write_parquet
from ..runs.manifest import RELEASED, write_manifest
from ..runs.records import Run
from ..statistics import evaluate_predictions
from ..training.train import load_best

COPIED = ("config.json", "environment.json", "history.csv", "gates.parquet", "gate_history.parquet")


def write_release(run: Run, folder: Path, predictions: pd.DataFrame | None = None) -> Run:
    """Write a finished run with its weights to a new folder, and return it.

    ``predictions`` replace the run's own: for one fold of a cross-validation those of the joined record, whose threshold
    and temperature come from the other folds.

    Raises
    ------
    InputError
        The folder exists, or the run has no checkpoint here.
    """
    if folder.exists():
        raise InputError(f"{folder}: exists; give a new folder, or remove this one")
    state = load_best(run).cpu().state_dict()
    folder.mkdir(parents=True)
    halved = {key: one.half() if one.is_floating_point() and one.ndim > 1 else one for key, one in state.items()}
    save_file({key: one.contiguous() for key, one in halved.items()}, folder / RELEASED)
    for name in COPIED:
        if (run.folder / name).is_file():
            shutil.copyfile(run.folder / name, folder / name)
    frame = run.predictions if predictions is None else predictions
    write_parquet(folder / "predictions.parquet", frame)
    write_json(folder / ".metrics.json", {str(frame["split"].iloc[0]): evaluate_predictions(frame)})
    write_manifest(folder, folder / ".metrics.json")
    (folder / ".metrics.json").rename(folder / "metrics.json")
    return Run(folder)
