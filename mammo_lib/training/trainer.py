"""Lightning's loop as a run uses it: callbacks, checkpoints, processes, and the handling of errors and warnings."""

from __future__ import annotations

import contextlib
import logging
import signal
import warnings
from collections.abc import Iterator

import lightning
import torch
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint, TQDMProgressBar, WeightAveraging
from lightning.pytorch.utilities.exceptions import SIGTERMException

from ..config import RunConfig
from ..errors import InputError
from ..runs.records import Run
from .callbacks import History, RecordGates, StopAtNaN, WarnOfFailures
from .classifier import Classifier
from .data_module import MammogramData
from .resume import AtomicCheckpoints, ResumeCheckpoint, resume_point


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
    watch = WarnOfFailures(recorder, gate.bias) if gate.kind == "learned" else WarnOfFailures()
    patience = [EarlyStopping("validation_auc", mode="max", patience=config.train.patience)] if has_choice else []
    whole = ResumeCheckpoint(run.folder, run.name)
    callbacks = [History(run.folder), recorder, *patience, StopAtNaN(breasts, config), watch, best, whole]
    if config.train.ema_decay:
        callbacks.append(averaged_weights(config.train.ema_decay))
    if progress:
        callbacks.append(TQDMProgressBar())
    with quiet_lightning(), signals_as_failures(), memory_advice(config):
        trainer = lightning.Trainer(
            max_epochs=config.train.epochs, devices=config.train.devices, precision=config.train.precision,
            strategy="ddp" if config.train.devices > 1 else "auto", gradient_clip_val=config.train.gradient_clip,
            callbacks=callbacks, logger=False, plugins=[AtomicCheckpoints()],
            enable_progress_bar=progress, enable_model_summary=False, num_sanity_val_steps=0,
            reload_dataloaders_every_n_epochs=1, default_root_dir=run.folder,
        )  # fmt: skip
        last = resume_point(run.folder, run.name, classifier.state_dict())
        trainer.fit(classifier, datamodule=data, ckpt_path=last, weights_only=True)


def averaged_weights(decay: float) -> WeightAveraging:
    """Return the callback that validates and keeps the exponential moving average of the weights.

    This form of the average leaves constants unchanged, bit by bit. In Lightning's own form, decay * a + (1 - decay)
    * b, the constants of the input normalisation drift by rounding, and a resumed run would start without the drift.
    """
    return WeightAveraging(avg_fn=lambda average, new, _: average + (1 - decay) * (new - average))


@contextlib.contextmanager
def first_process_alone() -> Iterator[bool]:
    """Yield whether this is the first process of a run; the others wait at the end of the block until it is done."""
    is_shared = torch.distributed.is_available() and torch.distributed.is_initialized()
    yield not is_shared or torch.distributed.get_rank() == 0
    if is_shared:
        torch.distributed.barrier()


@contextlib.contextmanager
def signals_as_failures():
    """Exit with the code of a SIGTERM, 143, and let Ctrl-C raise KeyboardInterrupt.

    Lightning exits with 0 after a SIGTERM, which a queue takes for a finished job. After Ctrl-C it exits with 1, which
    stands for failed runs and for records that were not reproduced.
    """
    try:
        yield
    except SIGTERMException:
        raise SystemExit(128 + signal.SIGTERM) from None
    except SystemExit as error:
        raise (error.__context__ if isinstance(error.__context__, KeyboardInterrupt) else error) from None


@contextlib.contextmanager
def memory_advice(config: RunConfig):
    """Turn an out-of-memory error into one line that says what to reduce."""
    try:
        yield
    except RuntimeError as error:  # torch.OutOfMemoryError is a RuntimeError; the CPU's allocator raises a plain one
        if not isinstance(error, torch.OutOfMemoryError) and "can't allocate memory" not in str(error):
            raise
        train = config.train
        advice = "" if "bf16" in train.precision else ", or set train.precision to 'bf16-mixed'"
        raise InputError(
            f"out of memory: lower train.batch_size ({train.batch_size}) or data.image_size "
            f"({list(config.data.image_size)}){advice}; run again, it resumes after its last complete epoch"
        ) from error


class quiet_lightning(warnings.catch_warnings):  # noqa: N801  (a context manager, used like a function)
    """Silence Lightning's start-up lines and its advice on worker counts; real warnings pass."""

    def __enter__(self):
        super().__enter__()
        warnings.filterwarnings("ignore", ".*does not have many workers.*")
        warnings.filterwarnings("ignore", ".*module\\(s\\) in eval mode at the start of training.*")  # frozen stages
        warnings.filterwarnings("ignore", ".*Checkpoint directory .* exists and is not empty.*")
        warnings.filterwarnings("ignore", ".*`isinstance\\(treespec, LeafSpec\\)` is deprecated.*")
        for name in ("lightning.pytorch", "lightning.fabric"):
            logging.getLogger(name).setLevel(logging.WARNING)
