"""Encoders that start from ImageNet features: distillation on patches of the training films.

| code | meaning |
|---|---|
| teacher | EfficientNet-Lite0 trained on ImageNet, as it is |
| student | a plain MambaVision without gates and head |
| head | one linear map per position, student features -> teacher features; thrown away afterwards |

The student learns to predict the teacher's last map, (1280, size / 32, size / 32), and its mean over space, both
standardised per channel, under a smooth L1 loss (hints: Romero et al., FitNets, 2015). No label is used, no film of a
validation or test patient is seen. The paper starts from ImageNet weights of MambaVision, which a machine without a
network cannot have; this is our stand-in, and every table that rests on it says so.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path

import filelock
import lightning
import pandas as pd
import torch
from lightning.pytorch.callbacks import ModelCheckpoint, TQDMProgressBar
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader

from .callbacks import History
from .config import BUILD, RunConfig, fingerprint
from .data.collection import CACHE, Collection
from .data.films import Film, PatchDataset, prepare_films
from .data.loader import split_cohort
from .models import create_mambavision
from .models.mammo_mamba import fitting_windows
from .models.teacher import TEACHER_FEATURES, imagenet_features, load_teacher, normalise
from .optimisation import cosine_schedule, memory_advice, parameter_groups, quiet_lightning
from .runs import file_hash

HOME = BUILD / "pretrained"
FILMS = CACHE / "films"
ROUND = 4800  # patches between two checkpoints
CALIBRATION = 384  # patches from which the teacher's means and deviations are taken
CLIP = 5.0  # standard deviations a target may lie from its mean


class Distillation(lightning.LightningModule):
    """A student that learns to see what the teacher sees."""

    def __init__(self, config: RunConfig, calibration: torch.Tensor):
        super().__init__()
        model, self.config = config.model, config.pretrain
        self.student = create_mambavision(
            model.backbone, num_classes=0, mixer=model.mixer, token_blocks=model.token_blocks,
            window_sizes=fitting_windows(model.backbone, config.data.image_size),
        )  # fmt: skip
        self.head = nn.Conv2d(self.student.num_features, TEACHER_FEATURES, 1)
        self._teacher = [load_teacher()]  # in a list: not a part of the student, nor of its checkpoints
        for name, value in _statistics(self._teacher[0], calibration).items():
            self.register_buffer(name, value)

    def training_step(self, patches: torch.Tensor, _):
        """Return the loss of a batch of patches, (batch, 1, size, size)."""
        target = imagenet_features(self._teacher[0], patches).clone().float()
        found = self.head(self.student.norm(self.student.forward_stages(normalise(patches))[-1])).float()
        local = functional.smooth_l1_loss(found, _standardised(target, self.mean, self.deviation))
        # The head predicts the standardised map; its mean over space is put on the scale of the teacher's means.
        pooled = (found * self.deviation + self.mean).mean((2, 3), keepdim=True)
        pooled = _standardised(pooled, self.pooled_mean, self.pooled_deviation, clip=False)
        wanted = _standardised(target.mean((2, 3), keepdim=True), self.pooled_mean, self.pooled_deviation)
        overall = functional.smooth_l1_loss(pooled, wanted)
        self.log_dict({"map_loss": local, "pooled_loss": overall}, on_step=False, on_epoch=True, prog_bar=True)
        return local + overall

    def on_fit_start(self):
        """Put the teacher where the student is."""
        self._teacher[0].to(self.device)

    def configure_optimizers(self):
        """AdamW with a linear warm-up over 2 % of the steps and a cosine decay to zero, per step."""
        pretrain = self.config
        groups = parameter_groups(self, pretrain.weight_decay, pretrain.learning_rate, pretrain.learning_rate)
        optimizer = torch.optim.AdamW(groups)
        total = int(self.trainer.estimated_stepping_batches)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, cosine_schedule(total, round(0.02 * total)))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


class Patches(lightning.LightningDataModule):
    """Fresh patches for every round: those of a round depend on (seed, round) alone."""

    def __init__(self, films: list[Film], config: RunConfig):
        super().__init__()
        self.films, self.config = films, config

    def train_dataloader(self) -> DataLoader:
        """Return the patches of the current round."""
        pretrain, number = self.config.pretrain, self.trainer.current_epoch if self.trainer else 0
        n = min(ROUND, pretrain.patches - number * ROUND)
        patches = PatchDataset(self.films, self.config.data.image_size, n, [pretrain.seed, number])
        return DataLoader(patches, pretrain.batch_size, drop_last=True)


@dataclass(frozen=True)
class Encoder:
    """A distilled encoder on disk: weights in the official layout, and the losses of every round."""

    folder: Path

    @property
    def weights(self) -> Path:
        """The student's tensors, without the head."""
        return self.folder / "encoder.safetensors"

    @property
    def record(self) -> dict:
        """What a run that starts from it keeps in its ``environment.json``."""
        losses = pd.read_csv(self.folder / "history.csv").iloc[-1]
        return {
            "name": self.folder.name, "sha256": file_hash(self.weights),
            "map_loss": float(losses["map_loss"]), "pooled_loss": float(losses["pooled_loss"]),
        }  # fmt: skip


def distilled_encoder(config: RunConfig, collection: Collection, *, progress: bool = False) -> Encoder:
    """Return the encoder that a config starts from, distilling it first where it is not there yet.

    Runs that agree in backbone, image size, pretraining and training films share it. Interrupted, it goes on after its
    last whole round.
    """
    prepared = collection.prepare(config, "train")
    cohort = split_cohort(config, prepared.cohort)["train"]
    films = prepare_films(cohort, collection.source, config.data, FILMS)
    model = config.model
    key = [
        config.pretrain.model_dump(), model.backbone, model.mixer, model.token_blocks, config.data.image_size,
        [film.path.name for film in films],
    ]  # fmt: skip
    encoder = Encoder(HOME / f"{model.backbone}-{fingerprint(key)[:12]}")
    encoder.folder.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(encoder.folder / ".lock"):
        if not encoder.weights.is_file():
            _distil(encoder, films, config, progress=progress)
    return encoder


def _distil(encoder: Encoder, films: list[Film], config: RunConfig, *, progress: bool) -> None:
    lightning.seed_everything(config.pretrain.seed, verbose=False)
    pretrain, last = config.pretrain, encoder.folder / "last.ckpt"
    first = PatchDataset(films, config.data.image_size, min(CALIBRATION, pretrain.patches), [pretrain.seed])
    module = Distillation(config, torch.stack([first[i] for i in range(len(first))]))
    keep = ModelCheckpoint(
        encoder.folder, "last", save_top_k=1, save_on_train_epoch_end=True, enable_version_counter=False
    )
    callbacks = [History(encoder.folder), keep] + ([TQDMProgressBar()] if progress else [])
    with quiet_lightning(), memory_advice(config):
        trainer = lightning.Trainer(
            max_epochs=math.ceil(pretrain.patches / ROUND), precision=config.train.precision, devices=1,
            gradient_clip_val=1.0, callbacks=callbacks,
            logger=False, enable_progress_bar=progress, enable_model_summary=False,
            reload_dataloaders_every_n_epochs=1, default_root_dir=encoder.folder,
        )  # fmt: skip
        trainer.fit(module, datamodule=Patches(films, config), ckpt_path=last if last.is_file() else None)
    partial = encoder.weights.with_suffix(".partial")
    save_file({name: tensor.contiguous().cpu() for name, tensor in module.student.state_dict().items()}, partial)
    os.replace(partial, encoder.weights)


@torch.no_grad()
def _statistics(teacher: nn.Module, patches: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return mean and deviation per channel of the teacher's map and of its mean over space, (1, 1280, 1, 1) each."""
    maps = torch.cat([imagenet_features(teacher, part) for part in patches.split(64)]).clone()
    pooled = maps.mean((2, 3), keepdim=True)
    return {
        "mean": maps.mean((0, 2, 3), keepdim=True), "deviation": maps.std((0, 2, 3), keepdim=True) + 1e-3,
        "pooled_mean": pooled.mean(0, keepdim=True), "pooled_deviation": pooled.std(0, keepdim=True) + 1e-3,
    }  # fmt: skip


def _standardised(values: torch.Tensor, mean: torch.Tensor, deviation: torch.Tensor, *, clip: bool = True):
    scaled = (values - mean) / deviation
    return scaled.clamp(-CLIP, CLIP) if clip else scaled
