"""The training and validation breasts of a run, as Lightning asks for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import lightning
import numpy as np
import pandas as pd
from torch.utils.data import DataLoader

from ..config import DataConfig, TrainConfig
from ..data.cohort import split_cohort
from ..data.frozen_maps import FrozenMaps
from ..data.loader import BreastDataset, SeededShuffle, in_batches
from ..data.prepare import Prepared
from ..errors import InputError


class MammogramData(lightning.LightningDataModule):
    """Training and validation breasts of a run: patient-level folds of the training cohort, without test breasts."""

    def __init__(
        self, prepared: Prepared, data: DataConfig, train: TrainConfig, targets: Sequence[str] = ("malignancy",),
        seed: int = 0, maps: Mapping[str, FrozenMaps] | None = None,
    ):  # fmt: skip
        super().__init__()
        self.prepared, self.train, self.targets, self.seed, self.maps = prepared, train, targets, seed, maps
        self.cohorts = split_cohort(data, prepared.cohort)
        if (n_train := len(self.cohorts["train"])) < train.batch_size:
            raise InputError(f"train.batch_size={train.batch_size} exceeds the {n_train} training breasts: lower it")

    def cohort(self, split: str) -> pd.DataFrame:
        """Return the breasts of ``train``, ``validation`` or ``extra``."""
        return self.cohorts[split]

    def train_dataloader(self) -> DataLoader:
        """Return shuffled, augmented batches of the current epoch; order and noise depend only on (seed, epoch)."""
        epoch = self.trainer.current_epoch if self.trainer else 0
        seed = int(np.random.SeedSequence([self.seed, epoch]).generate_state(1)[0])
        dataset = BreastDataset(
            self.prepared, self.cohort("train"), self.targets, augment=self.train.augment, seed=seed, maps=self.maps
        )
        return in_batches(dataset, self.train, sampler=SeededShuffle(len(dataset), seed), drop_last=True)

    def val_dataloader(self) -> DataLoader:
        """Return validation batches in cohort order."""
        return self.evaluation_loader("validation")

    def evaluation_loader(self, part: str) -> DataLoader:
        """Return batches of a part in cohort order, without augmentation."""
        return in_batches(BreastDataset(self.prepared, self.cohort(part), self.targets, maps=self.maps), self.train)
