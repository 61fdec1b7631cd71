"""Whole films at working resolution, and the patches that pretraining draws from them.

A film is kept as uint8 (height, width) with square pixels, no side above ``FILM_SIDE``, everything beside the breast
blank where the config wants it so. Patches are squares of every size between a lesion and a film; labels play no part.

| share | patch |
|---|---|
| ``LESION_SHARE`` | around a lesion's box, 0.7 to 2.5 times its longer side, shifted by up to a quarter |
| ``FILM_SHARE`` | the whole film |
| the rest | anywhere in the breast, 40 to 400 px wide |
"""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch.nn import functional
from torch.utils.data import Dataset
from tqdm import tqdm

from ..config import DataConfig, fingerprint
from ..errors import InputError
from ..executor import as_done, open_executor
from ..runs import file_hash, write_json
from .images import read_image, resize
from .memo import remember
from .prepare import plain_rows, prepared_film
from .sources import ImageSource, film_box, read_view

VERSION = 1  # raise it when a change here moves pixels
FILM_SIDE = 1600
LESION_SHARE, FILM_SHARE = 0.5, 0.1
LESION_SCALE, LESION_SHIFT = (0.7, 2.5), 0.25
BREAST_SIDE = (40, 400)
TRIES = 8  # draws of a centre until one lies in the breast
GAMMA, CONTRAST = 0.3, 0.15


@dataclass(frozen=True)
class Film:
    """One film on disk and its lesion's box (x0, y0, x1, y1) in its pixels; None where that is not known."""

    path: Path
    box: tuple[float, float, float, float] | None

    def pixels(self) -> np.ndarray:
        """Return the film, uint8 (height, width), mapped into memory and not read."""
        return np.load(self.path, mmap_mode="r")


def prepare_films(cohort: pd.DataFrame, source: ImageSource, data: DataConfig, cache: Path) -> list[Film]:
    """Return a cohort's films, in its order, writing those that ``cache`` lacks; a killed preparation goes on.

    Raises
    ------
    InputError
        A film is missing or cannot be decoded.
    """
    cache.mkdir(parents=True, exist_ok=True)
    located = source.locate(cohort)
    wholes = located[(located["stream"] == "whole") & (located["status"] != "absent")]
    gone = wholes[wholes["status"] != "found"]
    if len(gone):
        raise InputError(f"{gone['path'].iloc[0]}: {gone['problem'].iloc[0]}; complete the data folder")
    hashes = remember("hashing", [Path(path) for path in wholes["path"]], file_hash)
    crops = {(row.sample_id, row.view): row for row in plain_rows(located[located["derived"].astype(bool)])}
    tasks = []
    for whole in plain_rows(wholes):
        crop = crops.get((whole.sample_id, whole.view))
        box = film_box(crop) if crop and crop.path == whole.path else None
        settings = [VERSION, FILM_SIDE, data.mask_breast, round(whole.aspect, 6), box]
        tasks.append((whole, box, data, cache / fingerprint([hashes[Path(whole.path)], settings])[:32]))
    waiting = [task for task in tasks if not task[-1].with_suffix(".json").is_file()]
    with open_executor() as (executor, workers):
        done = as_done(executor, workers, _write_film, waiting)
        for _ in tqdm(done, desc="films", unit="film", total=len(waiting), disable=not waiting, dynamic_ncols=True):
            pass
    return [_read_film(path) for *_, path in tasks]


def _write_film(task) -> None:
    """Decode one film and write ``<key>.npy``, then ``<key>.json``, whose presence says that it is done."""
    whole, box, data, path = task
    film = prepared_film(read_view(whole, read_image(whole.path)), data.model_copy(update={"orient": False}))
    scale = min(1.0, FILM_SIDE / max(film.shape))
    small = resize(film, *(max(1, round(n * scale)) for n in film.shape))
    partial = path.with_name(f".{path.name}.{os.getpid()}.npy")
    np.save(partial, np.round(small * 255).astype(np.uint8))
    os.replace(partial, path.with_suffix(".npy"))
    write_json(path.with_suffix(".json"), None if box is None else [value * scale for value in box])


def _read_film(path: Path) -> Film:
    box = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    return Film(path.with_suffix(".npy"), None if box is None else tuple(box))


class PatchDataset(Dataset):
    """Random patches, float32 (1, size, size) in [0, 1]; patch ``i`` of a seed is always the same."""

    def __init__(self, films: list[Film], size: int, n: int, seed: list[int]):
        self.films, self.size, self.n, self.seed = films, size, n, seed

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, i: int) -> torch.Tensor:
        rng = np.random.default_rng([*self.seed, i])
        film = self.films[rng.integers(len(self.films))]
        pixels = film.pixels()
        square = cut_square(pixels, *draw_square(rng, pixels, film.box))
        return _vary(rng, _resized(square, self.size))


def draw_square(rng: np.random.Generator, film: np.ndarray, box) -> tuple[float, float, float]:
    """Return centre x, centre y and side of a random square, in pixels of the film."""
    height, width = film.shape
    kind = rng.random()
    if kind < LESION_SHARE and box is not None:
        side = max(box[2] - box[0], box[3] - box[1]) * _log_uniform(rng, *LESION_SCALE)
        shift = rng.uniform(-LESION_SHIFT, LESION_SHIFT, 2) * side
        return (box[0] + box[2]) / 2 + shift[0], (box[1] + box[3]) / 2 + shift[1], side
    if kind > 1 - FILM_SHARE:
        return width / 2, height / 2, max(height, width)
    side = _log_uniform(rng, *BREAST_SIDE)
    for _ in range(TRIES):
        x, y = rng.integers(width), rng.integers(height)
        if film[y, x]:
            break
    return float(x), float(y), side


def cut_square(film: np.ndarray, x: float, y: float, side: float) -> np.ndarray:
    """Return the square around (x, y); what lies beyond the film is black."""
    side = max(8, round(side))
    left, top = round(x - side / 2), round(y - side / 2)
    inside = film[max(0, top) : max(0, top + side), max(0, left) : max(0, left + side)]
    square = np.zeros((side, side), film.dtype)
    y0, x0 = max(0, -top), max(0, -left)
    square[y0 : y0 + inside.shape[0], x0 : x0 + inside.shape[1]] = inside
    return square


def _resized(square: np.ndarray, size: int) -> torch.Tensor:
    pixels = torch.from_numpy(square)[None, None].float() / 255
    return functional.interpolate(pixels, (size, size), mode="bilinear", antialias=True, align_corners=False)[0]


def _vary(rng: np.random.Generator, patch: torch.Tensor) -> torch.Tensor:
    """Flip at random in both directions; change gamma and contrast."""
    patch = patch.flip([axis for axis in (1, 2) if rng.random() < 0.5])
    patch = patch.clamp(0, 1) ** math.exp(rng.uniform(-GAMMA, GAMMA))
    return (patch * rng.uniform(1 - CONTRAST, 1 + CONTRAST)).clamp(0, 1)


def _log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    return math.exp(rng.uniform(math.log(low), math.log(high)))
