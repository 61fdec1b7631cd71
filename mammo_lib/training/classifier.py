"""The network as Lightning trains it: loss, optimiser, schedule and the measures of validation."""

from __future__ import annotations

import lightning
import numpy as np
import torch
from torch import nn
from torchmetrics.classification import BinaryAUROC

from ..config import RunConfig
from ..data.loader import UNKNOWN
from ..models import MammoMambaOutput, build_model, mean_log_odds, score_passes
from .hiding import hide
from .joint_loss import JointLoss
from .optimisation import cosine_schedule, parameter_groups


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
        self.seen: list[tuple[torch.Tensor, ...]] = []  # label, probability, crop weight of validation so far

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
        # After this hook Lightning starts the loader, which draws one number, except in the epoch that it resumes with.
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
        unknown = [name for name in others if (batch["targets"][name] == UNKNOWN).all()]
        main = self.loss(output.logits, self.target(batch))
        loss = self.joint_loss(main, others, [*output.embeddings.values()], unknown)
        how = {"on_step": False, "on_epoch": True, "batch_size": len(batch["label"]), "sync_dist": True}
        self.log("train_loss", loss, **how)
        self.log_dict({f"train_loss_{name}": one for name, one in others.items()}, **how)
        return loss

    def _target_loss(self, logits: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
        """Return the loss of a further target over the breasts whose class is known.

        If the batch has none, it is zero, but still depends on the head: distributed training waits for a gradient of
        every parameter.
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
            groups.append({"params": learned, "lr": train.learning_rate, "weight_decay": 0.0})
        optimizer = torch.optim.AdamW(groups)
        total = int(self.trainer.estimated_stepping_batches)
        schedule = cosine_schedule(total, round(total * train.warmup_epochs / train.epochs))
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, schedule)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}
