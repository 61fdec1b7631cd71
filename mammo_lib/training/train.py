"""One run, or every fold of a cross-validation: trained, scored on its validation breasts, and written as a record.

Only training breasts are read here; :mod:`mammo_lib.runs.evaluate` opens the test set. Lightning's loop is
:mod:`mammo_lib.training.trainer`, the loss and the optimiser are :mod:`mammo_lib.training.classifier`.
"""

from __future__ import annotations

import contextlib
import gc
import os
from collections.abc import Mapping

import lightning
import numpy as np
import pandas as pd

from ..analysis.gates import Observation, examine, observe
from ..analysis.heads import score_heads
from ..analysis.hidden_inputs import mean_embeddings, score_as_taken, score_hidden
from ..config import RANKS, RunConfig, process_number
from ..data.boxes import log_areas
from ..data.cohort import split_cohort
from ..data.collection import Collection
from ..data.frozen_maps import FrozenMaps
from ..data.prepare import Prepared
from ..files import write_csv, write_parquet
from ..models.network import Network, load_best, predict
from ..runs.executor import end_with
from ..runs.predictions import as_predictions, with_choices
from ..runs.records import Run, find_run, fresh_run, start_run
from ..statistics import (
    OUT_OF_FOLD,
    evaluate_out_of_fold,
    evaluate_predictions,
    fit_temperature,
    join_folds,
    youden_threshold,
)
from .baselines import baseline_of
from .classifier import Classifier
from .data_module import MammogramData
from .frozen import freeze_maps
from .readers import reader_probability
from .resume import LAST, PREVIOUS
from .trainer import first_process_alone, fit

SMALL = 100_000_000  # bytes of a last epoch's checkpoint; for the paper's network it has gigabytes


def train_run(config: RunConfig, collection: Collection, *, progress: bool = False) -> Run:
    """Train one run, or return it if it is finished; an interrupted run resumes after its last complete epoch.

    The weights kept are those of the best validation AUC; the decision threshold is the Youden point of the validation
    predictions, and the temperature minimises their log loss.

    Raises
    ------
    InputError
        The loss is not finite, or memory ran out. The message says which setting to change.
    """
    finished = find_run(config, collection.data_hash("train", *config.inputs))
    if finished:
        return finished
    prepared = collection.prepare("train", *config.inputs)
    run = fresh_run(config, prepared.fingerprint)
    with one_process_per_run(run):
        if start_run(config, prepared.fingerprint, data_set=collection.name).is_finished:
            return run  # finished by another process, which held the lock
        complete(run, collection, prepared, progress=progress)
    return run


def complete(run: Run, collection: Collection, prepared: Prepared, *, progress: bool) -> None:
    """Train a started run to its end: for a cross-validation every fold in turn, else the fold of its config."""
    if run.config.data.fold == "each":
        cross_validate(run, collection, prepared, progress=progress)
    else:
        train_fold(run, collection, prepared, progress=progress)
        forget_epochs(run, spared=SMALL)


def train_fold(run: Run, collection: Collection, prepared: Prepared, *, progress: bool) -> None:
    """Train a started run on its training folds, score the validation fold, and finish the run.

    Processes that share a run train together; then the first alone scores and writes.
    """
    config = run.config
    if config.baseline:
        validation = split_cohort(config.data, prepared.cohort)["validation"]
        finish_fold(run, as_predictions(validation, baseline_of(config, collection)(prepared, validation)))
        return
    data = train_network(run, collection, prepared, progress=progress)
    with first_process_alone() as is_first:
        if is_first:
            finish_fold(run, score_validation(run, data, collection))


def train_network(run: Run, collection: Collection, prepared: Prepared, *, progress: bool) -> MammogramData:
    """Train the network of a started run; its weights are left in the run's folder, its data are returned."""
    config, readers = run.config, None
    lightning.seed_everything(config.seed, verbose=False)
    if config.train.reader_labels:
        train = split_cohort(config.data, prepared.cohort)["train"]
        readers = reader_probability(collection.table, train, config.seed, config.data.reader_words)
    classifier = Classifier(config, readers)
    is_cached = config.train.frozen_cache is not None
    maps = freeze_maps(config, prepared, classifier.model, progress=progress) if is_cached else None
    data = data_of(config, prepared, maps)
    fit(run, classifier, data, progress=progress)
    del classifier  # and its optimiser, before the kept weights are read
    gc.collect()
    return data


def score_validation(run: Run, data: MammogramData, collection: Collection) -> pd.DataFrame:
    """Return the validation breasts' predictions by the kept weights; add gates and interventions to the record."""
    network, validation = load_best(run), data.cohort("validation")
    frame = predict(network, data.val_dataloader(), validation)
    seen = examine(
        run, network, data.val_dataloader(), validation, log_areas(validation, collection.source, run.config.data)
    )
    score_parts(run, network, seen, data)
    return frame


def finish_fold(run: Run, frame: pd.DataFrame) -> None:
    """Choose the threshold and the temperature on the validation breasts, and finish the run."""
    label, logit = frame["label"].to_numpy(), frame["logit"].to_numpy()
    threshold = youden_threshold(label, frame["probability"].to_numpy())
    frame = with_choices(frame, threshold, fit_temperature(label, logit))
    run.finish(frame, {"validation": evaluate_predictions(frame)})


def score_parts(run: Run, network: Network, seen: Observation, data: MammogramData) -> None:
    """Add to the run's record the validation breasts scored with hidden inputs, and the output of further heads."""
    model, settings, validation = network.model, run.config.model, data.cohort("validation")
    views, extra = settings.views, data.cohort("extra")
    if len(views) * len(model.streams) > 1:
        training = mean_embeddings(observe(network, data.evaluation_loader("train")))
        parts = [score_hidden(model, seen, validation, views, training)]
        if len(extra):
            parts.append(score_as_taken(observe(network, data.evaluation_loader("extra")), extra, views, model.streams))
        write_parquet(run.folder / "hidden_inputs.parquet", pd.concat(parts, ignore_index=True))
    if len(settings.targets) > 1:
        write_parquet(run.folder / "targets.parquet", score_heads(model, seen, validation, settings.targets))


def cross_validate(run: Run, collection: Collection, prepared: Prepared, *, progress: bool) -> None:
    """Train every fold's network in a separate folder inside the run's, then join the out-of-fold predictions.

    Finished folds are read, so an interrupted cross-validation resumes. Nothing is chosen on a fold's held-out breasts:
    threshold and temperature of its rows come from the other folds' predictions, and ``train.keep="last"`` keeps the
    weights of the last epoch.
    """
    folds = []
    for number in range(run.config.data.n_folds):
        config = run.config.of_fold(number)
        folder = run.folder / f"fold{number}"
        fold = start_run(config, prepared.fingerprint, folder=folder, data_set=collection.name)
        if not fold.is_finished:
            train_fold(fold, collection, prepared, progress=progress)
            forget_epochs(fold)
        folds.append(fold)
    with first_process_alone() as is_first:
        if is_first:
            frame = join_folds({number: fold.predictions for number, fold in enumerate(folds)})
            join_tables(run, folds)
            run.finish(frame, {OUT_OF_FOLD: evaluate_out_of_fold(frame)})


def forget_epochs(run: Run, spared: int = 0) -> None:
    """Remove a finished run's epoch checkpoints, which with the optimiser's state are three times its weights.

    A last epoch of at most ``spared`` bytes is kept, so that a run that loses its metrics can be scored again.
    """
    with first_process_alone() as is_first:
        if is_first:
            (run.folder / PREVIOUS).unlink(missing_ok=True)
            last = run.folder / LAST
            if last.is_file() and last.stat().st_size > spared:
                last.unlink()


def join_tables(run: Run, folds: list[Run]) -> None:
    """Write the history, the gates and the interventions of all folds to the run's folder, with a column ``fold``."""
    numbered = list(enumerate(folds))
    if all((fold.folder / "history.csv").is_file() for fold in folds):
        write_csv(run.folder / "history.csv", pd.concat([one.history.assign(fold=n) for n, one in numbered]))
    for name in ("gates", "gate_history", "interventions", "hidden_inputs", "targets"):
        tables = [table.assign(fold=np.int8(n)) for n, one in numbered if (table := getattr(one, name)) is not None]
        if tables:
            joined = pd.concat(tables, ignore_index=True)
            split = {"split": joined["split"].replace("validation", OUT_OF_FOLD)} if "split" in joined else {}
            write_parquet(run.folder / f"{name}.parquet", joined.assign(**split))


def data_of(config: RunConfig, prepared: Prepared, maps: Mapping[str, FrozenMaps] | None = None) -> MammogramData:
    """Return the training and validation breasts of a run; with ``maps``, as outputs of the frozen part."""
    return MammogramData(prepared, config.data, config.train, config.model.targets, config.seed, maps)


def one_process_per_run(run: Run):
    """Hold the run's lock, so that a notebook and a command never train the same run; a run's processes share it."""
    if any(process_number(name) > 0 for name in RANKS):
        end_with(os.getppid())
        return contextlib.nullcontext()
    return run.held()
