"""What a profile will cost before anything is run: runs, parameters, memory, hours and disk.

Operations, parameters and memory are counted (:mod:`mammo_lib.models.cost`). Hours are *estimates*: counted operations
over a sustained rate, which is measured here by one training step, or given.

| symbol | meaning |
|---|---|
| F, F_0 | operations of a forward pass of one view through an encoder, and through its frozen first part |
| V | views of a breast in all streams |
| n, m | training and validation breasts |
| work | of an epoch: V (n (3 F - 2 F_0) + m F), since a backward pass costs two forward passes |

A cached frozen part (``train.frozen_cache``) is computed once per variant and leaves F - F_0.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import cache

import pandas as pd
import torch

from ..config import DataConfig, Profile, RunConfig
from ..data.cohort import select_cohort
from ..models.cost import Cost, cost_of
from ..models.mammo_mamba import build_model, count_parameters, without_weights
from ..runs.experiments import experiment_configs, read_experiments
from ..runs.records import finished_of, runs_by_config

BYTES_PER_WEIGHT = 16  # a weight, its gradient and AdamW's two moments, 32 bits each
PIXEL_BYTES, MAP_BYTES = 2, 2  # of a prepared pixel; of a number in a cached map


@dataclass(frozen=True)
class RunCost:
    """One run: parameters, bytes of memory, operations of its training, bytes on disk."""

    parameters: int
    memory: float
    operations: float
    cache: float


def planned_runs(profile: Profile, table: pd.DataFrame, rate: float, devices: int = 1) -> pd.DataFrame:
    """Return a row per experiment of a profile: the finished runs, and the cost of the remaining ones.

    ``rate``: operations a second of one device. A run uses one device; ``devices`` share the runs.

    Columns: ``experiment runs finished parameters memory_gb hours_each hours_left``. Baselines take seconds and have
    no network. ``table`` has the lesions of the data set, from which the cohort is counted.
    """
    known, rows = runs_by_config(), []
    for name in read_experiments(profile):
        configs = experiment_configs(profile, name)
        finished = len(finished_of(configs, known))
        row = {"experiment": name, "runs": len(configs), "finished": finished}
        if configs[0].baseline is None:
            cost = run_cost(configs[0], table)
            hours = cost.operations / rate / 3600
            row |= {
                "parameters": cost.parameters, "memory_gb": cost.memory / 1e9, "hours_each": hours,
                "hours_left": hours * (len(configs) - finished) / devices,
            }  # fmt: skip
        rows.append(row)
    return pd.DataFrame(rows)


def run_cost(config: RunConfig, table: pd.DataFrame) -> RunCost:
    """Count one run of a network on the official training breasts of a table."""
    whole, first = encoder_costs(config)
    data, train, streams = config.data, config.train, len(config.model.streams)
    cohort = select_cohort(table, data, "train")
    proper = int((~cohort["is_extra"]).sum())
    fits = data.n_folds if data.fold == "each" else 1
    held_out = proper / data.n_folds
    n, views = len(cohort) - held_out, streams * len(config.model.views)
    passes = 2 if train.flip_averaging else 1
    cached = train.frozen_cache
    own, skipped = (whole.total - first.total, 0) if cached else (whole.total, first.total)
    epoch = views * (n * (3 * own - 2 * skipped) + passes * held_out * own)
    maps = len(cohort) * views * (cached + 2 if cached else 0)
    network = count_parameters(config)
    side = data.image_size[0] * data.image_size[1]
    return RunCost(
        network,
        BYTES_PER_WEIGHT * network + train.batch_size * views * (whole.kept_bytes - first.kept_bytes),
        fits * train.epochs * epoch + maps * first.total,
        len(cohort) * views * side * PIXEL_BYTES + maps * _map_size(config) * MAP_BYTES,
    )


def encoder_costs(config: RunConfig) -> tuple[Cost, Cost]:
    """Return the cost of one view through an encoder, and through its frozen first part."""
    alike = {"streams": ("crop",), "views": ("CC",), "fusion": "gate", "view_fusion": "concat", "weights": None}
    data = DataConfig(image_size=config.data.image_size)
    return _counted(RunConfig(data=data).model_copy(update={"model": config.model.model_copy(update=alike)}))


@cache
def _counted(config: RunConfig) -> tuple[Cost, Cost]:
    shape = (2, 1 if config.model.stem == "fold" else 3, *config.data.image_size)  # one image can be too few to train

    def build():
        return next(iter(build_model(config).encoders.values()))

    return (
        cost_of(build, lambda encoder: encoder.network(torch.zeros(shape))).per_image(2),
        cost_of(build, lambda encoder: encoder.network.first_steps(torch.zeros(shape), encoder.n_frozen)).per_image(2),
    )


def measured_rate(config: RunConfig, device: str | None = None) -> float:
    """Return operations a second of one training step of a run's network on one breast, measured on this machine."""
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    network = build_model(without_weights(config)).train().to(device)
    streams, views, size = config.model.streams, len(config.model.views), config.data.image_size
    batch = {
        "images": {stream: torch.rand(2, views, 1, *size, device=device) for stream in streams},
        "present": {stream: torch.ones(2, views, dtype=torch.bool, device=device) for stream in streams},
    }
    whole, first = encoder_costs(config)
    work = 2 * len(streams) * views * (3 * whole.total - 2 * first.total)
    for _ in range(2):  # the first step compiles
        started = time.perf_counter()
        network(batch).logits.sum().backward()
        if device == "cuda":
            torch.cuda.synchronize()
        took = time.perf_counter() - started
    return work / took


def _map_size(config: RunConfig) -> int:
    """Return how many numbers the frozen first part gives for a view."""
    with torch.device("meta"), torch.no_grad():
        encoder = next(iter(build_model(without_weights(config)).encoders.values())).eval()
        return encoder.network.first_steps(torch.zeros(1, 3, *config.data.image_size), encoder.n_frozen).numel()
