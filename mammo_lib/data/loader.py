"""From prepared pixels to batches: augmentation, and the dictionary that models read.

A batch is ``{"images": {stream: float32 (batch, views, 1, height, width) in [0, 1]}, "present": {stream: bool
(batch, views)}, "label": int64 (batch,), "targets": {name: int64 (batch,)}, "row": int64 (batch,)}``. ``row`` is the
breast's position in its split's cohort. An unknown target is ``UNKNOWN``. A missing view is zeros with ``present``
False. With a cache of frozen parts, ``images`` is replaced by ``maps`` and, for scoring, ``turned_maps``: {stream:
float32 (batch, views, dim, rows, columns)} of the images and of the upside-down images.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from ..config import TARGETS, TrainConfig
from ..errors import InputError
from .frozen_maps import CLEAN, TURNED, FrozenMaps
from .prepare import Prepared, load_pixels

UNKNOWN = -1  # a target's class if the tables do not give it; such a breast adds no loss


class BreastDataset(Dataset):
    """Breasts of one cohort; with ``augment`` (strength), each item is augmented at random, reproducibly by seed."""

    def __init__(
        self, prepared: Prepared, cohort: pd.DataFrame, targets: Sequence[str] = ("malignancy",), *,
        augment: float = 0.0, seed: int = 0, maps: Mapping[str, FrozenMaps] | None = None,
    ):  # fmt: skip
        self.prepared, self.cohort, self.seed, self.maps = prepared, cohort, seed, maps
        index = prepared.index
        views = zip(index["sample_id"], index["view"], index["stream"], strict=True)
        self.keys = dict(zip(views, index["key"], strict=True))
        self.targets = {name: target_classes(cohort, name) for name in targets}
        self.augmentation = build_augmentation(augment) if augment else None

    def __len__(self) -> int:
        return len(self.cohort)

    def __getitem__(self, row: int) -> dict:
        sample = self.cohort["sample_id"].iloc[row]
        keys = {
            stream: [self.keys.get((sample, view, stream)) for view in self.prepared.views]
            for stream in self.prepared.streams
        }
        return {
            **(self._images(keys, row) if self.maps is None else self._maps(keys, row)),
            "present": {stream: torch.tensor([key is not None for key in views]) for stream, views in keys.items()},
            "label": torch.tensor(int(self.cohort["label"].iloc[row])),
            "targets": {name: torch.tensor(classes[row]) for name, classes in self.targets.items()},
            "row": torch.tensor(row),
        }

    def _images(self, keys: dict[str, list[str | None]], row: int) -> dict:
        images = {stream: torch.stack([self._load(key) for key in views]) for stream, views in keys.items()}
        return {"images": images if self.augmentation is None else self._augment(images, row)}

    def _maps(self, keys: dict[str, list[str | None]], row: int) -> dict:
        """Return the cached maps: in training of a variant drawn per view, else of the image and the turned image."""
        rng = np.random.default_rng([self.seed, row])
        read = {stream: self.maps[stream].read for stream in keys}
        if self.augmentation is not None:
            return {"maps": {
                stream: torch.stack([read[stream](key, self.maps[stream].draw(rng)) for key in views])
                for stream, views in keys.items()
            }}  # fmt: skip
        return {
            name: {stream: torch.stack([read[stream](key, variant) for key in views]) for stream, views in keys.items()}
            for name, variant in (("maps", CLEAN), ("turned_maps", TURNED))
        }

    def _load(self, key: str | None) -> torch.Tensor:
        pixels = np.zeros(self.prepared.size, np.float32) if key is None else load_pixels(self.prepared.path(key))
        return torch.from_numpy(pixels)[None]

    def _augment(self, images: dict, row: int) -> dict:
        seed = np.random.SeedSequence([self.seed, row]).generate_state(1)[0]
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(int(seed))  # the CPU's generator only: a GPU's noise is unaffected
            return {
                stream: torch.stack([self.augmentation(view) for view in views]) for stream, views in images.items()
            }


def target_classes(cohort: pd.DataFrame, name: str) -> list[int]:
    """Return the class of a target for every breast: its index in the target's classes, or ``UNKNOWN``."""
    target = TARGETS[name]
    if target.column not in cohort:
        raise InputError(f"target {name!r}: the cohort has no column {target.column!r}; leave it out of model.targets")
    values = cohort[target.column]
    if pd.api.types.is_numeric_dtype(values):
        classes = values.astype("Int64").fillna(UNKNOWN + target.lowest) - target.lowest
        return classes.where(classes.between(0, len(target.classes) - 1), UNKNOWN).tolist()
    return values.map({word: number for number, word in enumerate(target.classes)}).fillna(UNKNOWN).astype(int).tolist()


def build_augmentation(strength: float):
    """Return the random transform of one view.

    An upside-down flip keeps a mammogram plausible if all breasts face the same way. Shifts of 8 %, zooms of 10 % and
    contrast changes of 20 % stay within the variation of positioning and film.
    """
    from torchvision.transforms import v2

    s, bilinear = strength, v2.InterpolationMode.BILINEAR
    return v2.Compose(
        [
            v2.RandomVerticalFlip(0.5),
            v2.RandomAffine(10 * s, (0.08 * s, 0.08 * s), (1 - 0.1 * s, 1 + 0.1 * s), interpolation=bilinear),
            v2.ColorJitter(brightness=0.1 * s, contrast=0.2 * s),
        ]
    )


class SeededShuffle(Sampler):
    """A random order that does not depend on how often a pass was started: a resumed trainer starts fewer passes."""

    def __init__(self, n: int, seed: int):
        self.n, self.seed = n, seed

    def __len__(self) -> int:
        return self.n

    def __iter__(self):
        return iter(torch.randperm(self.n, generator=torch.Generator().manual_seed(self.seed)).tolist())


def in_cohort_order(prepared: Prepared, train: TrainConfig) -> DataLoader:
    """Return the batches of a prepared cohort that is scored and not trained on, in its order."""
    return in_batches(BreastDataset(prepared, prepared.cohort), train)


def in_batches(dataset: BreastDataset, train: TrainConfig, **options) -> DataLoader:
    """Return the batches of a dataset: in its order, unless ``options`` of torch's loader say otherwise."""
    return DataLoader(dataset, batch_size=train.batch_size, num_workers=0, **options)
