"""Shared parts of training: parameter groups, the schedule, and helpers for Lightning's messages."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import signal
import warnings
from pathlib import Path

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch import nn

from ..config import RunConfig
from ..errors import InputError


def parameter_groups(
    model: nn.Module, weight_decay: float, learning_rate: float, encoder_learning_rate: float
) -> list[dict]:
    """Split parameters by rate (backbones, the rest) and decay (matrices; vectors, ``A_log`` and ``D`` never decay)."""
    groups: dict[tuple[float, float], list] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            is_exempt = parameter.ndim <= 1 or name.endswith((".A_log", ".D"))
            rate = encoder_learning_rate if ".backbone." in name else learning_rate
            groups.setdefault((rate, 0.0 if is_exempt else weight_decay), []).append(parameter)
    return [{"params": own, "lr": rate, "weight_decay": decay} for (rate, decay), own in groups.items()]


def cosine_schedule(total_steps: int, warmup_steps: int):
    """Return step -> factor of the peak learning rate: linear warm-up, then half a cosine down to zero."""
    warmup = min(total_steps - 1, warmup_steps)

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / (warmup + 1)
        return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total_steps - warmup)))

    return factor


class WholeFiles(TorchCheckpointIO):
    """Write a checkpoint beside its place, and rename it when it is complete: a kill leaves no damaged one.

    It goes straight to the disk. Lightning's own way holds the whole file in memory first.
    """

    def save_checkpoint(self, checkpoint, path, storage_options=None):
        """Write a checkpoint, completely or not at all."""
        path = Path(path)
        partial = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            torch.save(checkpoint, partial)
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)


@contextlib.contextmanager
def sigterm_as_failure():
    """Leave with the code of a SIGTERM, 143; Lightning leaves with 0, which a queue takes for a finished job."""
    try:
        yield
    except SIGTERMException:
        raise SystemExit(128 + signal.SIGTERM) from None


@contextlib.contextmanager
def memory_advice(config: RunConfig):
    """Turn an out-of-memory error into one line that says what to reduce."""
    try:
        yield
    except RuntimeError as error:  # torch.OutOfMemoryError is one; the CPU's allocator has none of its own
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
