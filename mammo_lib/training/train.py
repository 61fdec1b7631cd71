"""Training: turns a run config and a collection into a finished run folder.

Lightning provides the loop, the checkpoints, the progress bar and the devices. This module
adds the parameter groups, the schedule, the reseeding that makes a resumed run equal to an
uninterrupted one, and the record. Only training breasts are read here;
:mod:`mammo_lib.runs.evaluate` opens the test set.
"""

from __future__ import annotations

import contextlib
import gc
import os
from collections.abc import Mapping

import lightning
import numpy as np
import pandas as pd
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint, TQDMProgressBar, WeightAveraging

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
from .callbacks import LAST, PREVIOUS, History, KeepWholeEpochs, RecordGates, StopAtNaN, WatchFailures, resume_point
from .classifier import Classifier
from .data_module import MammogramData
from .frozen import freeze_maps
from .optimisation import WholeFiles, memory_advice, quiet_lightning, sigterm_as_failure
from .readers import reader_probability

SMALL = 100_000_000  # bytes of a last epoch; those of the paper's network fill gigabytes


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
    """Train a started run to its end: every fold in turn for a cross-validation, else the one of its config."""
    if run.config.data.fold == "each":
        cross_validate(run, collection, prepared, progress=progress)
    else:
        train_fold(run, collection, prepared, progress=progress)
        forget_epochs(run, spared=SMALL)


def train_fold(run: Run, collection: Collection, prepared: Prepared, *, progress: bool) -> None:
    """Train a started run on its training folds, score the validation fold, and finish the run."""
    config = run.config
    if config.baseline:
        validation = split_cohort(config.data, prepared.cohort)["validation"]
        frame = as_predictions(validation, baseline_of(config, collection)(prepared, validation))
    else:
        lightning.seed_everything(config.seed, verbose=False)
        train = split_cohort(config.data, prepared.cohort)["train"]
        readers = None
        if config.train.reader_labels:
            readers = reader_probability(collection.table, train, config.seed, config.data.reader_words)
        classifier = Classifier(config, readers)
        is_cached = config.train.frozen_cache is not None
        maps = freeze_maps(config, prepared, classifier.model, progress=progress) if is_cached else None
        data = data_of(config, prepared, maps)
        fit(run, classifier, data, progress=progress)
        del classifier  # and its optimiser, before the kept weights are read
        gc.collect()
        kept, validation = load_best(run), data.cohort("validation")
        frame = predict(kept, data.val_dataloader(), validation)
        areas = log_areas(validation, collection.source, config.data)
        seen = examine(run, kept, data.val_dataloader(), validation, areas)
        score_parts(run, kept, seen, data)
    label, logit = frame["label"].to_numpy(), frame["logit"].to_numpy()
    threshold = youden_threshold(label, frame["probability"].to_numpy())
    frame = with_choices(frame, threshold, fit_temperature(label, logit))
    run.finish(frame, {"validation": evaluate_predictions(frame)})


def score_parts(run: Run, network: Network, seen: Observation, data: MammogramData) -> None:
    """Add to the run's record the validation breasts scored with inputs hidden, and what further heads say of them."""
    model, settings, validation = network.model, run.config.model, data.cohort("validation")
    views, extra = settings.views, data.cohort("extra")
    if len(views) * len(model.streams) > 1:
        training = mean_embeddings(observe(network, data.unchanged("train")))
        parts = [score_hidden(model, seen, validation, views, training)]
        if len(extra):
            parts.append(score_as_taken(observe(network, data.unchanged("extra")), extra, views, model.streams))
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
    frames = {number: fold.predictions for number, fold in enumerate(folds)}
    frame = join_folds(frames)
    join_tables(run, folds)
    run.finish(frame, {OUT_OF_FOLD: evaluate_out_of_fold(frame)})


def forget_epochs(run: Run, spared: int = 0) -> None:
    """Remove a finished run's epochs: with the optimiser's state, three times its weights.

    A last epoch of at most ``spared`` bytes is kept: should the run lose its metrics, nothing is trained again.
    """
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


def fit(run: Run, classifier: Classifier, data: MammogramData, *, progress: bool) -> None:
    """Run Lightning's loop, from the last complete epoch if there is one."""
    config = classifier.config
    classifier.train()  # Lightning trains each module in the mode in which it finds it
    if config.train.frozen_cache is not None and config.train.cached_encoder == "evaluation":
        classifier.model.encoders.eval()
    has_choice = config.train.keep == "best"  # else the file holds the latest epoch
    best = ModelCheckpoint(
        run.folder, "best", "validation_auc" if has_choice else None, mode="max", enable_version_counter=False
    )
    breasts = data.cohort("train")["sample_id"].tolist()
    recorder = RecordGates(run.folder, config.model.views)
    gate = config.model.gate
    watch = WatchFailures(recorder, gate.bias) if gate.kind == "learned" else WatchFailures()
    patience = [EarlyStopping("validation_auc", mode="max", patience=config.train.patience)] if has_choice else []
    whole = KeepWholeEpochs(run.folder, run.name)
    callbacks = [History(run.folder), recorder, *patience, StopAtNaN(breasts, config), watch, best, whole]
    if config.train.ema_decay:
        callbacks.append(averaged_weights(config.train.ema_decay))
    if progress:
        callbacks.append(TQDMProgressBar())
    with quiet_lightning(), sigterm_as_failure(), memory_advice(config):
        trainer = lightning.Trainer(
            max_epochs=config.train.epochs, devices=config.train.devices, precision=config.train.precision,
            strategy="ddp" if config.train.devices > 1 else "auto", gradient_clip_val=config.train.gradient_clip,
            callbacks=callbacks, logger=False, plugins=[WholeFiles()],
            enable_progress_bar=progress, enable_model_summary=False, num_sanity_val_steps=0,
            reload_dataloaders_every_n_epochs=1, default_root_dir=run.folder,
        )  # fmt: skip
        last = resume_point(run.folder, run.name)
        trainer.fit(classifier, datamodule=data, ckpt_path=last, weights_only=True)


def averaged_weights(decay: float) -> WeightAveraging:
    """Return the callback that validates and keeps the exponential moving average of the weights.

    This form of the average leaves constants unchanged, bit by bit. In Lightning's own form, decay * a + (1 - decay)
    * b, the constants of the input normalisation drift by rounding, and a resumed run would start without the drift.
    """
    return WeightAveraging(avg_fn=lambda average, new, _: average + (1 - decay) * (new - average))
