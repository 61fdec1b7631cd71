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
from pathlib import Path

import lightning
import numpy as np
import pandas as pd
import torch
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint, TQDMProgressBar, WeightAveraging
from safetensors.torch import load_file
from torch import nn
from torchmetrics.classification import BinaryAUROC

from ..analysis.gates import Observation, examine, observe
from ..analysis.heads import score_heads
from ..analysis.hidden_inputs import mean_embeddings, score_as_taken, score_hidden
from ..config import RANKS, RunConfig, process_number
from ..data.boxes import log_areas
from ..data.cohort import split_cohort
from ..data.collection import Collection
from ..data.frozen_maps import FrozenMaps
from ..data.loader import UNKNOWN, MammogramData
from ..data.prepare import Prepared
from ..errors import InputError
from ..files import write_csv, write_parquet
from ..models import MammoMambaOutput, build_model, mean_log_odds, score, score_passes
from ..models.mambavision import VARIANTS
from ..models.mammo_mamba import without_weights
from ..models.weights import list_differences, read_torch
from ..runs.executor import end_with
from ..runs.manifest import WAY_OUT
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
from .frozen import freeze_maps
from .hiding import hide
from .joint_loss import JointLoss
from .optimisation import (
    WholeFiles,
    cosine_schedule,
    memory_advice,
    parameter_groups,
    quiet_lightning,
    sigterm_as_failure,
)
from .readers import reader_probability

SMALL = 100_000_000  # bytes of a last epoch; those of the paper's network fill gigabytes


class Classifier(lightning.LightningModule):
    """Mammo-Mamba with the paper's loss and optimiser, and the options of the config."""

    def __init__(self, config: RunConfig, reader_probability: np.ndarray | None = None):
        super().__init__()
        self.config = config
        readers = None if reader_probability is None else torch.tensor(reader_probability, dtype=torch.float32)
        self.register_buffer("reader_probability", readers, persistent=False)  # one per training breast
        self.model = build_model(config)
        train = config.train
        self.loss = nn.CrossEntropyLoss(label_smoothing=train.label_smoothing, ignore_index=UNKNOWN)
        self.joint_loss = JointLoss(config.model.targets[1:], train.target_weight, train.target_weighting)
        self.validation_auc = BinaryAUROC()
        self.seen: list[tuple[torch.Tensor, ...]] = []  # label, probability, crop weight of the validation so far

    def forward(self, batch: dict):
        """Return the model's output for a batch."""
        return self.model(batch)

    def passes(self, batch: dict, overrides=None) -> list[MammoMambaOutput]:
        """Return the output for the unchanged images and, if the config averages flips, for the upside-down images."""
        return score_passes(self.model, batch, flip_averaging=self.config.train.flip_averaging, overrides=overrides)

    def score(self, batch: dict, overrides=None) -> tuple[torch.Tensor, MammoMambaOutput]:
        """Return a batch's logits of malignancy, (batch,), and the output for the unchanged images."""
        return score(self.model, batch, flip_averaging=self.config.train.flip_averaging, overrides=overrides)

    def target(self, batch: dict) -> torch.Tensor:
        """Return the target probabilities of benign and malignant, (batch, 2): the label, mixed with the readers'."""
        malignant = batch["label"].float()
        if self.reader_probability is not None:
            share = self.config.train.reader_labels
            malignant = (1 - share) * malignant + share * self.reader_probability[batch["row"]]
        return torch.stack([1 - malignant, malignant], dim=1)

    def on_train_epoch_start(self):
        """Seed each epoch's noise by (seed, epoch, rank), so that an interruption does not change it."""
        torch.manual_seed(
            np.random.SeedSequence([self.config.seed, self.current_epoch, self.global_rank]).generate_state(1)[0]
        )
        # After this hook Lightning starts the loader, which draws one number, but not in the epoch it resumes with.
        if self.trainer.fit_loop.is_resuming:
            torch.empty((), dtype=torch.int64).random_()

    def on_validation_epoch_start(self):
        """Clear the validation of the previous epoch."""
        self.seen.clear()

    def training_step(self, batch: dict, _):
        """Return the smoothed cross-entropy of a batch, joined with the losses of further targets."""
        train = self.config.train
        present = hide(batch["present"], view_dropout=train.view_dropout, stream_dropout=train.stream_dropout)
        output = self.model(batch | {"present": present})
        others = {
            name: self._target_loss(output.target_logits[name], batch["targets"][name])
            for name in self.config.model.targets[1:]
        }
        loss = self.joint_loss(self.loss(output.logits, self.target(batch)), others, [*output.embeddings.values()])
        how = {"on_step": False, "on_epoch": True, "batch_size": len(batch["label"]), "sync_dist": True}
        self.log("train_loss", loss, **how)
        self.log_dict({f"train_loss_{name}": one for name, one in others.items()}, **how)
        return loss

    def _target_loss(self, logits: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
        """Return the loss of a further target over the breasts whose class is known.

        Of a batch without any the head gets a gradient of 0: processes that share a run wait for each parameter's.
        """
        return self.loss(logits, classes) if (classes != UNKNOWN).any() else 0 * logits.sum()

    def validation_step(self, batch: dict, _) -> MammoMambaOutput:
        """Accumulate the loss of the unchanged images, and the AUC; return the output, which callbacks read."""
        train = self.config.train
        is_averaged = train.flip_averaging and train.best_epoch == "as_scored"
        passes = score_passes(self.model, batch, flip_averaging=is_averaged)
        output, probability = passes[0], mean_log_odds(passes).sigmoid()
        self.validation_auc.update(probability, batch["label"])
        loss = self.loss(output.logits, batch["label"])
        half = torch.full_like(probability, 0.5)
        weight = half if output.stream_gate is None else output.stream_gate.float().mean(dim=1)
        self.seen.append((batch["label"], probability, weight))
        if output.stream_gate is not None:
            self.log("crop_weight", weight.mean(), batch_size=len(weight), sync_dist=True)
        self.log("validation_loss", loss, batch_size=len(batch["label"]), sync_dist=True, prog_bar=True)
        self.log("validation_auc", self.validation_auc, prog_bar=True)
        return output

    def configure_optimizers(self):
        """AdamW with a linear warm-up and a cosine decay to zero, per step."""
        train = self.config.train
        slower = train.encoder_rate if self.config.model.is_pretrained else 1.0
        groups = parameter_groups(self.model, train.weight_decay, train.learning_rate, slower * train.learning_rate)
        if learned := [*self.joint_loss.parameters()]:
            groups.append({"params": learned, "weight_decay": 0.0})
        optimizer = torch.optim.AdamW(groups)
        total = int(self.trainer.estimated_stepping_batches)
        schedule = cosine_schedule(total, round(total * train.warmup_epochs / train.epochs))
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, schedule)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


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


def score_parts(run: Run, classifier: Classifier, seen: Observation, data: MammogramData) -> None:
    """Add to the run's record the validation breasts scored with inputs hidden, and what further heads say of them."""
    model, settings, validation = classifier.model, run.config.model, data.cohort("validation")
    views, extra = settings.views, data.cohort("extra")
    if len(views) * len(model.streams) > 1:
        training = mean_embeddings(observe(classifier, data.unchanged("train")))
        parts = [score_hidden(model, seen, validation, views, training)]
        if len(extra):
            parts.append(score_as_taken(observe(classifier, data.unchanged("extra")), extra, views, model.streams))
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


def load_best(run: Run) -> Classifier:
    """Return the run's network with its best weights on validation, in eval mode.

    Raises
    ------
    InputError
        The checkpoint is missing or damaged, belongs to another network, or contains weights that are not finite.
    """
    model = run.config.model
    is_whole = model.backbone in VARIANTS and not model.encoder.has_weights and run.checkpoint.suffix == ".ckpt"
    with torch.device("meta") if is_whole else contextlib.nullcontext():  # nothing is drawn that the file holds
        classifier = Classifier(without_weights(run.config))
    own = classifier.state_dict()
    frozen = frozen_prefixes(classifier) if run.checkpoint.suffix == ".safetensors" else ()  # of a release: left out
    kept = {key: one for key, one in own.items() if key.startswith(frozen)}
    found = read_weights(run.checkpoint, {key: one for key, one in own.items() if key not in kept})
    classifier.load_state_dict(found | kept, assign=is_whole)
    classifier.validation_auc = BinaryAUROC()  # which has no weights, but a device
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return classifier.eval().to(device)


def frozen_prefixes(classifier: Classifier) -> tuple[str, ...]:
    """Return how the names of weights begin that belong to frozen ImageNet stages, which are built with a network."""
    return tuple(
        f"model.encoders.{stream}.network.{name}."
        for stream, encoder in classifier.model.encoders.items()
        if classifier.config.model.encoder.has_weights
        for name in encoder.frozen
    )


def read_weights(path: Path, wanted: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the weights of a run's checkpoint if they are finite and have the names and shapes of ``wanted``."""
    try:
        if path.suffix == ".safetensors":  # a released network's, in half precision
            found = {key: one.float() for key, one in load_file(path).items()}
        else:
            found = read_torch(path)["state_dict"]
        faults = list_differences(wanted, found) or [key for key, one in found.items() if not torch.isfinite(one).all()]
    except Exception as error:  # a damaged file can raise anything: of zip, of pickle, of torch
        raise InputError(f"{path}: not a readable checkpoint of a run ({type(error).__name__}); {WAY_OUT}") from None
    if faults:
        raise InputError(f"{path}: not the finite weights of this run's network: {faults[0]}; {WAY_OUT}")
    return found


@torch.inference_mode()
def predict(classifier: Classifier, loader, cohort: pd.DataFrame) -> pd.DataFrame:
    """Return one row per breast of ``cohort``: identifiers, label, logit and probability of malignancy."""
    logits = np.full(len(cohort), np.nan)
    for batch in loader:
        batch = classifier.transfer_batch_to_device(batch, classifier.device, 0)
        logits[batch["row"].cpu().numpy()] = classifier.score(batch)[0].cpu().numpy()
    return as_predictions(cohort, logits)


def as_predictions(cohort: pd.DataFrame, logits: np.ndarray) -> pd.DataFrame:
    """Add logits of malignancy to the identifiers of a cohort's breasts."""
    known = cohort[
        ["sample_id", "patient_id", "laterality", "split", "label", "density", "assessment", "subtlety"]
    ].reset_index(drop=True)
    has = {f"has_{view}": cohort[f"whole_{view}"].notna().to_numpy() for view in ("CC", "MLO")}
    return known.assign(logit=logits, probability=1 / (1 + np.exp(-logits)), **has)


def with_choices(frame: pd.DataFrame, threshold: float, temperature: float) -> pd.DataFrame:
    """Add the decision threshold and the temperature, chosen on validation, to every row."""
    return frame.assign(threshold=float(threshold), temperature=float(temperature))
