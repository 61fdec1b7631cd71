"""Training: one run config and one collection in, one finished run folder out.

Lightning owns the loop, the checkpoints, the progress bar and the devices. What is
ours: the parameter groups, the schedule, the reseeding that makes a resumed run equal
to an uninterrupted one, and the record that is left behind. Only training breasts are
read here; the test set is opened by :mod:`mammo_lib.evaluate`.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import warnings

import filelock
import lightning
import numpy as np
import pandas as pd
import torch
from lightning.pytorch.callbacks import EarlyStopping, EMAWeightAveraging, ModelCheckpoint, TQDMProgressBar
from torch import nn
from torchmetrics.classification import BinaryAUROC

from .baselines import predict_baseline
from .callbacks import History, StopAtNaN, WatchFailures
from .config import RunConfig, TrainConfig
from .data.collection import Collection
from .data.loader import MammogramData
from .errors import InputError
from .models import build_model
from .runs import Run, find_run, start_run
from .statistics import evaluate_predictions, fit_temperature, youden_threshold


class Classifier(lightning.LightningModule):
    """Mammo-Mamba under the paper's loss and optimiser."""

    def __init__(self, config: RunConfig):
        super().__init__()
        self.config = config
        self.model = build_model(config)
        self.loss = nn.CrossEntropyLoss(label_smoothing=config.train.label_smoothing)
        self.validation_auc = BinaryAUROC()
        self.seen: list[tuple[torch.Tensor, ...]] = []  # label, probability, crop weight of the validation so far

    def forward(self, batch: dict):
        """Return the model's output for a batch."""
        return self.model(batch)

    def on_train_epoch_start(self):
        """Draw each epoch's noise from (seed, epoch, rank), so that it does not matter where a run was interrupted."""
        torch.manual_seed(
            np.random.SeedSequence([self.config.seed, self.current_epoch, self.global_rank]).generate_state(1)[0]
        )

    def on_validation_epoch_start(self):
        """Forget the validation of the epoch before."""
        self.seen.clear()

    def training_step(self, batch: dict, _):
        """Return the smoothed cross-entropy of a batch."""
        output = self.model(batch)
        loss = self.loss(output.logits, batch["label"])
        if output.lesion_type_logits is not None:
            loss = loss + self.loss(output.lesion_type_logits, batch["lesion_type"])
        self.log("train_loss", loss, on_step=False, on_epoch=True, batch_size=len(batch["label"]), sync_dist=True)
        return loss

    def validation_step(self, batch: dict, _):
        """Accumulate validation loss and AUC."""
        output = self.model(batch)
        logits, probability = output.logits, log_odds(output.logits).sigmoid()
        self.validation_auc.update(probability, batch["label"])
        loss = self.loss(logits, batch["label"])
        half = torch.full_like(probability, 0.5)
        weight = half if output.stream_gate is None else output.stream_gate.float().mean(dim=1)
        self.seen.append((batch["label"], probability, weight))
        if output.stream_gate is not None:
            self.log("crop_weight", weight.mean(), batch_size=len(weight), sync_dist=True)
        self.log("validation_loss", loss, batch_size=len(batch["label"]), sync_dist=True, prog_bar=True)
        self.log("validation_auc", self.validation_auc, prog_bar=True)

    def configure_optimizers(self):
        """AdamW with a linear warm-up and a cosine decay to zero, per step."""
        train = self.config.train
        optimizer = torch.optim.AdamW(parameter_groups(self.model, train.weight_decay), lr=train.learning_rate)
        schedule = cosine_schedule(train, int(self.trainer.estimated_stepping_batches))
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, schedule)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict]:
    """Split parameters into decayed matrices and undecayed vectors; ``A_log`` and ``D`` of the scan never decay."""
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    exempt = {name for name, p in named if p.ndim <= 1 or name.endswith((".A_log", ".D"))}
    return [
        {"params": [p for name, p in named if name not in exempt], "weight_decay": weight_decay},
        {"params": [p for name, p in named if name in exempt], "weight_decay": 0.0},
    ]


def cosine_schedule(train: TrainConfig, total_steps: int):
    """Return step -> factor of the peak learning rate: linear warm-up, then half a cosine down to zero."""
    warmup = min(total_steps - 1, round(total_steps * train.warmup_epochs / train.epochs))

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / (warmup + 1)
        return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total_steps - warmup)))

    return factor


def log_odds(logits: torch.Tensor) -> torch.Tensor:
    """Return the logit of malignancy, (batch,), from two class logits, (batch, 2)."""
    return (logits[:, 1] - logits[:, 0]).float()


def train_run(config: RunConfig, collection: Collection, *, progress: bool = False) -> Run:
    """Train one run, or return it if it is finished; an interrupted one goes on after its last whole epoch.

    The weights kept are those of the best validation AUC; the decision threshold is the Youden point of the validation
    predictions, and the temperature minimises their log loss.

    Raises
    ------
    InputError
        The loss became no number, or memory ran out: the message says which setting to change.
    """
    prepared = collection.prepare(config, "train")
    finished = find_run(config, prepared.fingerprint)
    if finished:
        return finished
    run = start_run(config, prepared.fingerprint)
    with one_process_per_run(run):
        if run.is_finished:
            return run
        if config.baseline:
            frame = as_predictions(*predict_baseline(config, collection, "validation"))
        else:
            data = MammogramData(config, prepared)
            fit(run, config, data, progress=progress)
            frame = predict(load_best(run), data.val_dataloader(), data.cohort("validation"))
        label, logit = frame["label"].to_numpy(), frame["logit"].to_numpy()
        threshold = youden_threshold(label, frame["probability"].to_numpy())
        frame = with_choices(frame, threshold, fit_temperature(label, logit))
        run.finish(frame, {"validation": evaluate_predictions(frame)})
    return run


def one_process_per_run(run: Run):
    """Hold the run's lock: a notebook and a command never train the same run; the processes of one run share it."""
    is_helper = int(os.environ.get("LOCAL_RANK", 0)) > 0
    return contextlib.nullcontext() if is_helper else filelock.FileLock(run.folder / ".lock")


def fit(run: Run, config: RunConfig, data: MammogramData, *, progress: bool) -> None:
    """Run Lightning's loop, from ``last.ckpt`` if there is one."""
    lightning.seed_everything(config.seed, verbose=False)
    best = ModelCheckpoint(
        run.folder, "best", "validation_auc", mode="max", save_last=True, enable_version_counter=False
    )
    patience = EarlyStopping("validation_auc", mode="max", patience=config.train.patience)
    breasts = data.cohort("train")["sample_id"].tolist()
    callbacks = [History(run), best, patience, StopAtNaN(breasts, config), WatchFailures()]
    if config.train.ema_decay:
        callbacks.append(EMAWeightAveraging(decay=config.train.ema_decay))
    if progress:
        callbacks.append(TQDMProgressBar())
    last = run.folder / "last.ckpt"
    with quiet_lightning(), memory_advice(config):
        trainer = lightning.Trainer(
            max_epochs=config.train.epochs, devices=config.train.devices, precision=config.train.precision,
            strategy="ddp" if config.train.devices > 1 else "auto", gradient_clip_val=config.train.gradient_clip,
            callbacks=callbacks, logger=False,
            enable_progress_bar=progress, enable_model_summary=False, num_sanity_val_steps=0,
            reload_dataloaders_every_n_epochs=1, default_root_dir=run.folder,
        )  # fmt: skip
        trainer.fit(Classifier(config), datamodule=data, ckpt_path=last if last.exists() else None)


@contextlib.contextmanager
def memory_advice(config: RunConfig):
    """Turn running out of memory into a line that says what to lower."""
    try:
        yield
    except RuntimeError as error:  # torch.OutOfMemoryError is one; the CPU's allocator has none of its own
        if not isinstance(error, torch.OutOfMemoryError) and "can't allocate memory" not in str(error):
            raise
        train = config.train
        advice = "" if "bf16" in train.precision else ", or set train.precision to 'bf16-mixed'"
        raise InputError(
            f"out of memory: lower train.batch_size ({train.batch_size}) or data.image_size "
            f"({config.data.image_size}){advice}; the run goes on after its last whole epoch when it is given again"
        ) from error


def load_best(run: Run) -> Classifier:
    """Return the run's network with the weights that were best on validation, in eval mode."""
    classifier = Classifier(run.config)
    classifier.load_state_dict(torch.load(run.checkpoint, map_location="cpu", weights_only=True)["state_dict"])
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return classifier.eval().to(device)


@torch.inference_mode()
def predict(classifier: Classifier, loader, cohort: pd.DataFrame) -> pd.DataFrame:
    """Return one row per breast of ``cohort``: who it is, its label, the logit and the probability of malignancy."""
    logits = np.full(len(cohort), np.nan)
    for batch in loader:
        batch = classifier.transfer_batch_to_device(batch, classifier.device, 0)
        logits[batch["row"].cpu().numpy()] = log_odds(classifier(batch).logits).cpu().numpy()
    return as_predictions(cohort, logits)


def as_predictions(cohort: pd.DataFrame, logits: np.ndarray) -> pd.DataFrame:
    """Put logits of malignancy beside who the breasts of a cohort are."""
    known = cohort[
        ["sample_id", "patient_id", "laterality", "split", "label", "density", "assessment", "subtlety"]
    ].reset_index(drop=True)
    has = {f"has_{view}": cohort[f"whole_{view}"].notna().to_numpy() for view in ("CC", "MLO")}
    return known.assign(logit=logits, probability=1 / (1 + np.exp(-logits)), **has)


def with_choices(frame: pd.DataFrame, threshold: float, temperature: float) -> pd.DataFrame:
    """Record what validation chose, the decision threshold and the temperature, beside every probability."""
    return frame.assign(threshold=float(threshold), temperature=float(temperature))


class quiet_lightning(warnings.catch_warnings):  # noqa: N801  (a context manager, used like a function)
    """Silence Lightning's start-up lines and its advice on worker counts; real warnings pass."""

    def __enter__(self):
        super().__enter__()
        warnings.filterwarnings("ignore", ".*does not have many workers.*")
        warnings.filterwarnings("ignore", ".*Checkpoint directory .* exists and is not empty.*")
        warnings.filterwarnings("ignore", ".*`isinstance\\(treespec, LeafSpec\\)` is deprecated.*")
        for name in ("lightning.pytorch", "lightning.fabric"):
            logging.getLogger(name).setLevel(logging.WARNING)
