"""Callbacks of a training run: history, gates, a stop at a loss that is not finite, and warnings of hidden failures."""

from __future__ import annotations

import contextlib
import time
import warnings
from pathlib import Path

import lightning
import numpy as np
import pandas as pd
import torch
from lightning.pytorch.callbacks import Callback

from ..analysis.diagnostics import Finding, fusion_dominance, gate_saturation, overcalling, underfitting
from ..analysis.gates import GateValues, TokenGates, captured_token_gates, gate_values, join, summarise
from ..errors import InputError
from ..files import write_csv, write_parquet

QUIET_EPOCHS = 2  # epochs before the first warning: at the start every network shows these signs
JUDGED_EPOCHS = 8  # epochs after which a network should have left a constant answer


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


class WarnOfFailures(Callback):
    """Warn once, with the number, if validation shows a failure of :mod:`mammo_lib.analysis.diagnostics`.

    ``recorder``, which must precede this callback, has the epoch's gates; ``gate_bias`` is their initial bias.
    """

    def __init__(self, recorder: RecordGates | None = None, gate_bias: float = 0.0):
        self.recorder, self.gate_bias = recorder, gate_bias
        self.told: set[str] = set()

    def on_validation_epoch_end(self, trainer: lightning.Trainer, module):
        """Judge the validation breasts that the module collected in this epoch."""
        if trainer.current_epoch < QUIET_EPOCHS or not module.seen:
            return
        label, probability, crop_weight = (
            torch.cat(column).float().cpu().numpy() for column in zip(*module.seen, strict=True)
        )
        findings = [overcalling(label, probability), fusion_dominance(crop_weight)]
        gates = self.recorder.of_epoch(trainer.current_epoch) if self.recorder else pd.DataFrame()
        if len(gates):
            findings.append(gate_saturation(gates, self.gate_bias))
        for finding in findings:
            self._tell(finding, f"epoch {trainer.current_epoch}, validation")

    def on_train_end(self, trainer: lightning.Trainer, module):
        """Judge the last epoch's training loss; with several targets it is a sum, which cannot be judged."""
        loss, epoch = trainer.callback_metrics.get("train_loss"), trainer.current_epoch
        if loss is not None and epoch >= JUDGED_EPOCHS and len(module.config.model.targets) == 1:
            self._tell(underfitting(float(loss)), f"after {epoch} epochs of training")

    def _tell(self, finding: Finding, when: str) -> None:
        if finding.holds and finding.name not in self.told:
            self.told.add(finding.name)
            warnings.warn(f"{when}: {finding.sentence}", RuntimeWarning, stacklevel=2)

    def state_dict(self):
        """Return the warnings so far, so that a resumed run does not repeat them."""
        return {"told": sorted(self.told)}

    def load_state_dict(self, state):
        """Restore the warnings so far."""
        self.told = set(state["told"])
