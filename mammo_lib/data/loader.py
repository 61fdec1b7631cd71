"""From prepared pixels to batches: folds, augmentation, and the dictionary that models read.

A batch is ``{"images": {stream: float32 (batch, views, 1, height, width) in [0, 1]}, "present": {stream: bool
(batch, views)}, "label": int64 (batch,), "lesion_type": int64 (batch,), "row": int64 (batch,)}``. ``row`` is the
breast's position in its split's cohort, ``lesion_type`` an index into ``LESION_TYPES``. A view that a breast lacks is
zeros with ``present`` False.
"""

from __future__ import annotations

import lightning
import numpy as np
import pandas as pd
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from ..config import RunConfig
from ..errors import InputError
from .cohort import assign_folds
from .prepare import Prepared, load_pixels

LESION_TYPES = ("mass", "calcification")


class BreastDataset(Dataset):
    """The breasts of one split; with ``augment_seed`` each item is changed at random, the same for the same seed."""

    def __init__(self, config: RunConfig, prepared: Prepared, cohort: pd.DataFrame, augment_seed: int | None = None):
        self.config, self.prepared, self.cohort, self.augment_seed = config, prepared, cohort, augment_seed
        keys = prepared.index
        self.keys = dict(
            zip(zip(keys["sample_id"], keys["view"], keys["stream"], strict=True), keys["key"], strict=True)
        )
        self.augmentation = build_augmentation(config) if augment_seed is not None else None

    def __len__(self) -> int:
        return len(self.cohort)

    def __getitem__(self, row: int) -> dict:
        breast = self.cohort.iloc[row]
        model = self.config.model
        keys = {
            stream: [self.keys.get((breast["sample_id"], view, stream)) for view in model.views]
            for stream in model.streams
        }
        images = {stream: torch.stack([self._load(key) for key in views]) for stream, views in keys.items()}
        if self.augmentation is not None:
            images = self._augment(images, row)
        return {
            "images": images,
            "present": {stream: torch.tensor([key is not None for key in views]) for stream, views in keys.items()},
            "label": torch.tensor(int(breast["label"])),
            "lesion_type": torch.tensor(LESION_TYPES.index(breast["lesion_type"])),
            "row": torch.tensor(row),
        }

    def _load(self, key: str | None) -> torch.Tensor:
        size = self.config.data.image_size
        pixels = np.zeros((size, size), np.float32) if key is None else load_pixels(self.prepared.path(key))
        return torch.from_numpy(pixels)[None]

    def _augment(self, images: dict, row: int) -> dict:
        seed = np.random.SeedSequence([self.augment_seed, row]).generate_state(1)[0]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(seed))
            return {
                stream: torch.stack([self.augmentation(view) for view in views]) for stream, views in images.items()
            }


def build_augmentation(config: RunConfig):
    """Return the random transform of one view, or None where the config wants none.

    A flip upside down keeps a mammogram plausible once every breast faces the same way; shifts of 8 %, zooms of 10 %
    and contrast of 20 % stay within what positioning and film vary by.
    """
    from torchvision.transforms import v2

    if not config.train.augment:
        return None
    s = config.train.augment_strength
    bilinear = v2.InterpolationMode.BILINEAR
    return v2.Compose(
        [
            v2.RandomVerticalFlip(0.5),
            v2.RandomAffine(10 * s, (0.08 * s, 0.08 * s), (1 - 0.1 * s, 1 + 0.1 * s), interpolation=bilinear),
            v2.ColorJitter(brightness=0.1 * s, contrast=0.2 * s),
        ]
    )


class SeededShuffle(Sampler):
    """The same random order at every pass: a trainer may start a pass more than once, a resumed one fewer times."""

    def __init__(self, n: int, seed: int):
        self.n, self.seed = n, seed

    def __len__(self) -> int:
        return self.n

    def __iter__(self):
        return iter(torch.randperm(self.n, generator=torch.Generator().manual_seed(self.seed)).tolist())


class MammogramData(lightning.LightningDataModule):
    """Training and validation breasts: patient-level folds of the training cohort. The test set is not in here."""

    def __init__(self, config: RunConfig, prepared: Prepared):
        super().__init__()
        self.config, self.prepared = config, prepared
        self.cohorts = split_cohort(config, prepared.cohort)
        n_train, batch_size = len(self.cohorts["train"]), config.train.batch_size
        if n_train < batch_size:
            raise InputError(f"train.batch_size={batch_size} exceeds the {n_train} training breasts: lower it")

    def cohort(self, split: str) -> pd.DataFrame:
        """Return the breasts of ``train`` or ``validation``."""
        return self.cohorts[split]

    def train_dataloader(self) -> DataLoader:
        """Return shuffled, augmented batches of the current epoch; order and noise depend on (seed, epoch) alone."""
        epoch = self.trainer.current_epoch if self.trainer else 0
        seed = int(np.random.SeedSequence([self.config.seed, epoch]).generate_state(1)[0])
        dataset = BreastDataset(self.config, self.prepared, self.cohort("train"), augment_seed=seed)
        return _loader(self.config, dataset, sampler=SeededShuffle(len(dataset), seed), drop_last=True)

    def val_dataloader(self) -> DataLoader:
        """Return validation batches in cohort order."""
        return _loader(self.config, BreastDataset(self.config, self.prepared, self.cohort("validation")))


def split_cohort(config: RunConfig, cohort: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Return the breasts of ``train`` and ``validation``: one fold of the cohort validates.

    Folds are those of the cohort proper: extra breasts move nobody, only train, and only where their patient does not
    validate.
    """
    proper = cohort[~cohort["is_extra"]]
    folds = assign_folds(proper, config.data.n_folds, config.data.fold_seed)
    validation = proper[folds == config.data.fold]
    train = cohort[~cohort["patient_id"].isin(validation["patient_id"])]
    return {
        "train": train.reset_index(drop=True),
        "validation": validation.assign(split="validation").reset_index(drop=True),
    }


def test_loader(config: RunConfig, prepared: Prepared) -> DataLoader:
    """Return the batches of a prepared test cohort, in its order. Only :mod:`mammo_lib.evaluate` calls this."""
    return _loader(config, BreastDataset(config, prepared, prepared.cohort))


def _loader(config: RunConfig, dataset: BreastDataset, **options) -> DataLoader:
    return DataLoader(dataset, batch_size=config.train.batch_size, num_workers=0, **options)
