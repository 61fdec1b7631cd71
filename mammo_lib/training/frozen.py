"""The output of frozen parts, computed once: ``train.frozen_cache`` writes it to files that training reads.

A run with frozen stages spends most of its time recomputing constant outputs. Here every view is augmented K times,
the frozen part at the encoder's front is run on each variant, and training draws from the K results. With K variants
instead of new ones in every epoch, the network sees fewer different images; benchmarks/frozen.py measures the gain in
time and the cost in AUC.
"""

from __future__ import annotations

import hashlib
import shutil

import numpy as np
import torch
from tqdm import tqdm

from ..config import RunConfig, fingerprint
from ..data.frozen_maps import FrozenMaps
from ..data.loader import build_augmentation
from ..data.prepare import Prepared, load_pixels
from ..errors import InputError, writing_to
from ..files import write_array
from ..models.encoders import ViewEncoder
from ..models.mammo_mamba import MammoMamba

VERSION = 1  # raise it when a change here moves maps
BATCH = 64  # images per pass


def freeze_maps(config: RunConfig, prepared: Prepared, model: MammoMamba, *, progress: bool) -> dict[str, FrozenMaps]:
    """Compute the maps of a run's views that are not in the cache; return the maps of each stream.

    Raises
    ------
    InputError
        Nothing at the encoder's front is frozen, or the disk has no room for the maps.
    """
    encoders, was_training = model.encoders, model.encoders.training
    encoders.eval()
    caches = {stream: _cache_of(config, prepared, encoder) for stream, encoder in encoders.items()}
    index = prepared.index
    waiting = [
        (stream, key)
        for stream, cache in caches.items()
        for key in index.loc[index["stream"] == stream, "key"].unique()
        if not cache.path(key).is_file()
    ]
    _check_room(waiting, caches, prepared)
    augmentation = build_augmentation(config.train.augment) if config.train.augment else None
    for stream, key in tqdm(
        waiting, desc="frozen part", unit="view", dynamic_ncols=True, disable=None if progress else True
    ):
        cache = caches[stream]
        maps = _maps_of(model.encoders[stream], prepared, key, cache, augmentation)
        with writing_to(cache.path(key), "free space there"):
            write_array(cache.path(key), maps)
    encoders.train(was_training)
    return caches


def megabytes(cache: FrozenMaps, n_views: int) -> float:
    """Return the size on disk of a number of views."""
    return n_views * (2 + cache.variants) * 2 * float(np.prod(cache.shape)) / 1e6


def _cache_of(config: RunConfig, prepared: Prepared, encoder: ViewEncoder) -> FrozenMaps:
    """Name the cache of an encoder's frozen part by everything that its maps depend on, except the pixels."""
    if not encoder.n_frozen:
        raise InputError(
            f"train.frozen_cache={config.train.frozen_cache}: nothing at the front of backbone "
            f"{config.model.backbone!r} is frozen (model.freeze={config.model.freeze!r}); set train.frozen_cache=null, "
            "or freeze stages 1-2 and the stem"
        )
    weights = hashlib.sha256()
    for step in encoder.network.steps[: encoder.n_frozen]:
        weights.update(repr(step).encode())
        for tensor in step.state_dict().values():
            weights.update(tensor.cpu().contiguous().numpy().tobytes())
    plain = [encoder.is_folded, encoder.mean.flatten().tolist(), encoder.std.flatten().tolist()]
    train = config.train
    settings = [VERSION, weights.hexdigest(), plain, train.frozen_cache, train.augment]
    with torch.inference_mode():
        shape = encoder.first_part(torch.zeros(1, 1, *prepared.size)).shape[1:]
    return FrozenMaps(prepared.folder, f"frozen-{fingerprint(settings)[:12]}", tuple(shape), train.frozen_cache)


def _check_room(waiting: list, caches: dict[str, FrozenMaps], prepared: Prepared) -> None:
    """Say how large the maps will be before the first is written."""
    if not waiting:
        return
    needed = sum(megabytes(caches[stream], 1) for stream, _ in waiting)
    free = shutil.disk_usage(prepared.folder).free / 1e6
    if needed > free:
        raise InputError(
            f"{prepared.folder}: the maps of the frozen part need {needed:,.0f} MB and {free:,.0f} MB are free; free "
            "space there, or lower train.frozen_cache"
        )
    tqdm.write(f"frozen part: {len(waiting)} views, {needed:,.0f} MB in {prepared.folder}")


@torch.inference_mode()
def _maps_of(encoder: ViewEncoder, prepared: Prepared, key: str, cache: FrozenMaps, augmentation) -> np.ndarray:
    """Return (variants, dim, rows, columns) of a view: unchanged, turned, then augmented; its key seeds the noise."""
    image = torch.from_numpy(load_pixels(prepared.path(key)))[None]
    variants = [image, image.flip(-2)]
    with torch.random.fork_rng(devices=[]):
        for number in range(cache.variants):
            # torch keeps 32 bits of a seed
            torch.default_generator.manual_seed(
                int(np.random.SeedSequence([int(key, 16), number]).generate_state(1)[0])
            )
            variants.append(image if augmentation is None else augmentation(image))
    device = encoder.mean.device
    parts = [encoder.first_part(part.to(device)).cpu() for part in torch.stack(variants).split(BATCH)]
    return torch.cat(parts).to(torch.float16).numpy()
