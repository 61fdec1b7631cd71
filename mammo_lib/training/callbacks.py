"""Callbacks of a training run: its history, gates, a loss that is not finite, and failures that a good score can hide.

:class:`KeepWholeEpochs` writes the checkpoint from which a killed run resumes; :func:`resume_point` finds it.
"""

from __future__ import annotations

import contextlib
import os
import random
import time
import warnings
from collections.abc import Mapping
from pathlib import Path

import lightning
import numpy as np
import pandas as pd
import torch
from lightning.pytorch.callbacks import Callback, Checkpoint

from ..analysis.diagnostics import Finding, fusion_dominance, gate_saturation, overcalling
from ..analysis.gates import GateValues, TokenGates, captured_token_gates, gate_values, join, summarise
from ..errors import InputError
from ..files import write_csv, write_parquet
from ..models.weights import read_torch

LAST, PREVIOUS = "last.ckpt", "previous.ckpt"  # of the last whole epoch, and of the one before it
# What training goes on from: Lightning's parts of a checkpoint, and ours.
RESUMED = (
    "epoch", "global_step", "state_dict", "optimizer_states", "lr_schedulers", "loops", "callbacks",
    "should_stop", "generators",
)  # fmt: skip
PATIENCE = 2  # epochs before the first warning: at the start every network does so


class History(Callback):
    """Write one row per epoch to ``history.csv``; the rows are part of the checkpoint."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.rows: list[dict] = []
        self.started = 0.0

    def on_train_epoch_start(self, trainer, module):
        """Start the epoch's clock."""
        self.started = time.perf_counter()

    def on_validation_end(self, trainer, module):
        """Close the epoch's row before the checkpoint of this epoch is written."""
        values = {name: float(value) for name, value in trainer.callback_metrics.items()}
        rate = max(group["lr"] for group in trainer.optimizers[0].param_groups)  # encoders may have a lower one
        row = {"epoch": trainer.current_epoch, "learning_rate": rate, **values}
        self.rows.append(row | {"seconds": round(time.perf_counter() - self.started, 2)})

    def on_train_epoch_end(self, trainer, module):
        """Complete the row with the training loss, also of each further target, and write the table."""
        losses = {k: float(v) for k, v in trainer.callback_metrics.items() if k.startswith("train_loss")}
        self.rows[-1].update(losses)
        if trainer.is_global_zero:
            write_csv(self.folder / "history.csv", pd.DataFrame(self.rows))

    def state_dict(self):
        """Return the rows so far."""
        return {"rows": self.rows}

    def load_state_dict(self, state):
        """Take up the rows of an interrupted run."""
        self.rows = state["rows"]


class RecordGates(Callback):
    """Write the gates on validation breasts in every epoch; the rows are part of the checkpoint.

    ``gate_history.parquet`` has one row per epoch and gate (``kind stream view stage block`` as in
    :mod:`mammo_lib.analysis.gates`): ``mean sd low high`` over ``n`` breasts, and the mean ``spread`` within a view.
    For the weights that are kept, per-breast values are written as well, see :func:`mammo_lib.analysis.gates.examine`.
    """

    def __init__(self, folder: Path, views: tuple[str, ...]):
        self.folder, self.views = folder, views
        self.rows: list[dict] = []
        self.breasts: list[torch.Tensor] = []
        self.seen: list[GateValues] = []
        self.capturing = contextlib.ExitStack()
        self.captured: TokenGates = {}

    def on_validation_epoch_start(self, trainer, module):
        """Clear the previous epoch and register hooks on the mixers."""
        self.breasts, self.seen = [], []
        self.captured = self.capturing.enter_context(captured_token_gates(module.model))

    def on_validation_batch_end(self, trainer, module, outputs, batch, batch_index, dataloader_index=0):
        """Reduce the batch's gates to two numbers per view, still on the device."""
        self.breasts.append(batch["row"])
        self.seen.append(gate_values(outputs, self.captured, batch["present"]))
        for passes in (passes for blocks in self.captured.values() for passes in blocks.values()):
            passes.clear()

    def on_validation_epoch_end(self, trainer, module):
        """Add the epoch's rows and write the table."""
        self.capturing.close()
        numbers = join(self.seen)
        if trainer.world_size > 1:
            numbers = self._of_all_processes(module, numbers)
        epoch = summarise(numbers, self.views)
        self.rows += [{"epoch": trainer.current_epoch, **row} for row in epoch]
        if self.rows and trainer.is_global_zero:
            write_parquet(self.folder / "gate_history.parquet", pd.DataFrame(self.rows))

    def of_epoch(self, epoch: int) -> pd.DataFrame:
        """Return the rows of an epoch's SeqMoE gates."""
        return pd.DataFrame([row for row in self.rows if row["epoch"] == epoch and row["kind"] == "seqmoe"])

    def _of_all_processes(self, module, numbers: GateValues) -> GateValues:
        """Gather every process's breasts; the sampler repeats some, so that all processes have equally many."""
        rows = module.all_gather(torch.cat(self.breasts)).flatten().cpu().numpy()
        first = np.unique(rows, return_index=True)[1]
        fusion = None if numbers.fusion is None else module.all_gather(numbers.fusion).flatten(0, 1)[first]
        return GateValues(numbers.keys, module.all_gather(numbers.values).flatten(0, 1)[first], fusion)

    def state_dict(self):
        """Return the rows so far."""
        return {"rows": self.rows}

    def load_state_dict(self, state):
        """Take up the rows of an interrupted run."""
        self.rows = state["rows"]


class StopAtNaN(Callback):
    """Stop a run whose loss is not finite, and say where and why.

    Raises
    ------
    InputError
        With the epoch, the step, the breasts of the batch and the likely cause.
    """

    def __init__(self, breasts: list[str], config):
        self.breasts, self.config = breasts, config

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_index):
        """Check the loss of the batch."""
        loss = outputs["loss"] if isinstance(outputs, dict) else outputs
        if torch.isfinite(loss):
            return
        names = ", ".join(self.breasts[row] for row in batch["row"].tolist())
        inputs = batch.get("maps", batch.get("images"))
        broken = [stream for stream, values in inputs.items() if not torch.isfinite(values).all()]
        train = self.config.train
        if broken:
            cause = f"pixels of the {' and '.join(broken)} stream are not finite: prepare the data again"
        elif train.precision == "16-mixed":
            cause = "16-bit floats overflow: set train.precision to 'bf16-mixed' or '32-true'"
        else:
            clip = "" if train.gradient_clip else ", or set train.gradient_clip to 1"
            cause = f"steps too large: lower train.learning_rate ({train.learning_rate:g}){clip}"
        raise InputError(
            f"the loss is {float(loss)} at epoch {trainer.current_epoch}, step {trainer.global_step} "
            f"(breasts {names}); {cause}"
        )


class WatchFailures(Callback):
    """Warn once, with the number, if validation shows a failure of :mod:`mammo_lib.analysis.diagnostics`.

    ``recorder``, which must precede this callback, has the epoch's gates; ``gate_bias`` is their initial bias.
    """

    def __init__(self, recorder: RecordGates | None = None, gate_bias: float = 0.0):
        self.recorder, self.gate_bias = recorder, gate_bias
        self.told: set[str] = set()

    def on_validation_epoch_end(self, trainer: lightning.Trainer, module):
        """Judge the validation breasts that the module collected in this epoch."""
        if trainer.current_epoch < PATIENCE or not module.seen:
            return
        label, probability, crop_weight = (
            torch.cat(column).float().cpu().numpy() for column in zip(*module.seen, strict=True)
        )
        findings = [overcalling(label, probability), fusion_dominance(crop_weight)]
        gates = self.recorder.of_epoch(trainer.current_epoch) if self.recorder else pd.DataFrame()
        if len(gates):
            findings.append(gate_saturation(gates, self.gate_bias))
        for finding in findings:
            self._tell(finding, trainer.current_epoch)

    def _tell(self, finding: Finding, epoch: int) -> None:
        if finding.holds and finding.name not in self.told:
            self.told.add(finding.name)
            warnings.warn(f"epoch {epoch}, validation: {finding.sentence}", RuntimeWarning, stacklevel=2)

    def state_dict(self):
        """Return the warnings so far, so that a resumed run does not repeat them."""
        return {"told": sorted(self.told)}

    def load_state_dict(self, state):
        """Restore the warnings so far."""
        self.told = set(state["told"])


class KeepWholeEpochs(Checkpoint):
    """Write ``last.ckpt`` after every complete epoch, and keep the one before it as ``previous.ckpt``.

    Lightning writes its own "last" checkpoint only after an epoch that was the best so far. The trainer calls
    checkpoint callbacks after all others, so that every state in the file is that of the finished epoch. Lightning
    stores weights, optimiser, schedule, averaged weights and callbacks; we add the generators and an early stop. From
    other checkpoints, which nothing is resumed from, the optimiser is left out: two thirds of the bytes.
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
        """Add the run's name, whether it ends here, and the generators; to other checkpoints no optimiser."""
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
    except Exception as error:  # a damaged file can raise anything: of zip, of pickle, of torch
        raise InputError(f"{found[0]}: the checkpoint is damaged ({type(error).__name__}); {remedy}") from None
    if not isinstance(held, dict) or held.get("run") != run_name:
        raise InputError(f"{found[0]}: not a checkpoint of run {run_name}; {remedy}")
    if (difference := _difference(held, weights)) is not None:
        raise InputError(f"{found[0]}: not of this version ({difference}); {remedy}")
    return found[0]


def _difference(checkpoint: dict, weights: Mapping[str, torch.Tensor]) -> str | None:
    """Name the first thing in which a checkpoint differs from one that this network would write; None if nothing."""
    for part in RESUMED:
        if part not in checkpoint:
            return f"{part} is missing"
    held = checkpoint["state_dict"]
    for name in sorted({*held, *weights}):
        if name not in held or name not in weights:
            return f"weight {name} is {'missing' if name not in held else 'unknown'}"
        if held[name].shape != weights[name].shape:
            return f"weight {name} has shape {tuple(held[name].shape)} instead of {tuple(weights[name].shape)}"
    return None
