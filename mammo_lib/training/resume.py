"""The state from which a killed run resumes: the checkpoint of the last complete epoch, how it is written and found."""

from __future__ import annotations

import os
import random
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO

from ..errors import InputError
from ..models.weights import list_differences, read_torch

LAST, PREVIOUS = "last.ckpt", "previous.ckpt"  # of the last whole epoch, and of the one before it
# The parts of a checkpoint from which training continues: Lightning's, and ours.
RESUMED = (
    "epoch", "global_step", "state_dict", "optimizer_states", "lr_schedulers", "loops", "callbacks",
    "should_stop", "generators",
)  # fmt: skip


class ResumeCheckpoint(Checkpoint):
    """Write ``last.ckpt`` after every complete epoch, and keep the one before it as ``previous.ckpt``.

    Lightning writes its own "last" checkpoint only after an epoch that was the best so far. The trainer calls
    checkpoint callbacks after all others, so that every state in the file is that of the finished epoch. Lightning
    stores weights, optimiser, schedule, averaged weights and callbacks; we add the generators and an early stop. Other
    checkpoints are never resumed from, so their optimiser state, two thirds of the bytes, is left out.
    """

    def __init__(self, folder: Path, run_name: str):
        self.folder, self.run_name, self.is_writing = folder, run_name, False

    def on_train_epoch_end(self, trainer, module):
        """Write the checkpoint under another name and rename it when it is complete."""
        last, coming = self.folder / LAST, self.folder / f".{LAST}"
        self.is_writing = True
        trainer.save_checkpoint(coming)
        self.is_writing = False
        if trainer.is_global_zero:
            if last.exists():
                os.replace(last, self.folder / PREVIOUS)
            os.replace(coming, last)

    def on_save_checkpoint(self, trainer, module, checkpoint):
        """Add the run's name, the early-stop flag and the generators; drop the optimiser from other checkpoints."""
        if not self.is_writing:
            checkpoint["optimizer_states"] = []
        checkpoint |= {"run": self.run_name, "should_stop": trainer.should_stop, "generators": generator_states()}

    def on_load_checkpoint(self, trainer, module, checkpoint):
        """Restore the generators, and an early stop that a kill prevented."""
        trainer.should_stop = checkpoint["should_stop"]
        set_generator_states(checkpoint["generators"])


def generator_states() -> dict:
    """Return the states of the global generators as tensors and plain numbers."""
    name, keys, *rest = np.random.get_state()  # noqa: NPY002  (libraries may use it)
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_available() else None,  # of this process's device
        "numpy": (name, keys.tolist(), *rest),
        "python": random.getstate(),
    }


def set_generator_states(states: dict) -> None:
    """Set the global generators to what :func:`generator_states` returned."""
    torch.set_rng_state(states["torch"])
    if torch.cuda.is_available() and states["cuda"] is not None:
        torch.cuda.set_rng_state(states["cuda"])
    np.random.set_state(states["numpy"])  # noqa: NPY002
    random.setstate(states["python"])


def resume_point(folder: Path, run_name: str, weights: Mapping[str, torch.Tensor]) -> Path | None:
    """Return the checkpoint of the last complete epoch of a run whose network has ``weights``; None before the first.

    After a kill between the renaming of two checkpoints, only ``previous.ckpt`` exists and is returned.

    Raises
    ------
    InputError
        The checkpoint is damaged, belongs to another run, or was written by another version of this library or of
        Lightning: a part of it is missing, or a weight has another shape. A kill does not cause this.
    """
    found = [folder / name for name in (LAST, PREVIOUS) if (folder / name).is_file()]
    if not found:
        return None
    remedy = f"delete it, and the run resumes {f'from {found[1].name}' if len(found) > 1 else 'from its start'}"
    try:
        held = read_torch(found[0])
    except Exception as error:  # a damaged file can raise anything: errors of zip, pickle or torch
        raise InputError(f"{found[0]}: the checkpoint is damaged ({type(error).__name__}); {remedy}") from None
    if not isinstance(held, dict) or held.get("run") != run_name:
        raise InputError(f"{found[0]}: not a checkpoint of run {run_name}; {remedy}")
    if lacking := [part for part in RESUMED if part not in held]:
        raise InputError(f"{found[0]}: from another version (without {', '.join(lacking)}); {remedy}")
    if differences := list_differences(weights, held["state_dict"]):
        raise InputError(f"{found[0]}: from another version ({'; '.join(differences)}); {remedy}")
    return found[0]


class AtomicCheckpoints(TorchCheckpointIO):
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
