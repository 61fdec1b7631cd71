"""What computing the frozen stages once gains in time, and what it costs in AUC.

    OMP_NUM_THREADS=1 python benchmarks/frozen.py

Time: one training epoch of the crop stream of profile ``mirror-cv-training`` (loader, forward, loss, backward, AdamW),
alternately with new augmentation in every epoch and with a cache of eight augmented variants per view, on a phantom.
AUC: the committed records of ``crop``, repeat 0, with and without the cache, paired out of fold; empty if the record
without the cache is missing.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import mammo_lib  # noqa: F401  (first: OpenMP reads the wait policy that this sets when torch is imported)

# isort: split
import torch
from timing import paired_medians, record

from mammo_lib.config import RunConfig, get_profile, merged
from mammo_lib.data.data_sets import open_cbis_ddsm
from mammo_lib.data.phantom import write_phantom
from mammo_lib.data.prepare import Prepared, prepare
from mammo_lib.runs.experiments import experiment_configs
from mammo_lib.runs.records import runs_by_config
from mammo_lib.statistics import compare_folds
from mammo_lib.training.classifier import Classifier
from mammo_lib.training.data_module import MammogramData
from mammo_lib.training.frozen import freeze_maps, megabytes

BREASTS, REPEATS = 60, 3
SIDES = (96, 224)


def main() -> None:
    """Time both sizes, compare the two records, and write ``frozen.json``."""
    profile = get_profile("mirror-cv-training")
    crop = experiment_configs(profile, "crop")[0]
    with tempfile.TemporaryDirectory() as folder:
        write_phantom(root := Path(folder) / "phantom", n_breasts=BREASTS, seed=0)
        rows = [measure(sized(crop, side), root, Path(folder) / "cache") for side in SIDES]
    gains = {f"gain_{row['side']}_px": row["gain"] for row in rows}
    record("frozen", rows, gains | {"auc_cache_minus_new_augmentation": cost(crop)})


def sized(config: RunConfig, side: int) -> RunConfig:
    """Return a config of one fold of a phantom, at another size; its labels are not mixed with readers' words."""
    changes = {"data": {"image_size": side, "fold": 0}, "train": {"reader_labels": 0.0}, "protocol": None}
    return RunConfig.model_validate(merged(config.model_dump(), changes))


def measure(config: RunConfig, root: Path, cache: Path) -> dict:
    """Time an epoch with and without the cache, alternately, and the making of the cache."""
    collection, (data, *reads) = open_cbis_ddsm(root), config.inputs
    prepared = prepare(collection.cohort(data, "train"), collection.source, data, *reads, cache=cache)
    torch.manual_seed(0)
    started = time.perf_counter()
    maps = freeze_maps(config, prepared, Classifier(config).model, progress=False)
    spent = time.perf_counter() - started
    seconds = paired_medians({"new": epoch(config, prepared, None), "cached": epoch(config, prepared, maps)}, REPEATS)
    [one] = maps.values()
    return {
        "side": config.data.image_size[0], "variants": config.train.frozen_cache,
        "breasts": len(MammogramData(prepared, config.data, config.train).cohort("train")),
        "seconds_per_epoch_new": seconds["new"], "seconds_per_epoch_cached": seconds["cached"],
        "gain": seconds["new"] / seconds["cached"], "seconds_to_fill": spent, "megabytes_per_view": megabytes(one, 1),
    }  # fmt: skip


def epoch(config: RunConfig, prepared: Prepared, maps: dict | None):
    """Return a function that trains a network of its own for one epoch."""
    classifier = Classifier(config).train()
    data = MammogramData(prepared, config.data, config.train, maps=maps)
    trained = [parameter for parameter in classifier.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=config.train.learning_rate)

    def step_through():
        for batch in data.train_dataloader():
            optimizer.zero_grad()
            classifier.loss(classifier(batch).logits, classifier.target(batch)).backward()
            optimizer.step()

    return step_through


def cost(crop: RunConfig) -> dict | None:
    """Return the AUC with the cache minus that with new augmentation, repeat 0, paired out of fold."""
    known = runs_by_config()
    fresh = crop.model_copy(update={"train": crop.train.model_copy(update={"frozen_cache": None})})
    pair = [known.get(config.fingerprint) for config in (crop, fresh)]
    if None in pair:
        return None
    found = compare_folds(*([run.predictions] for run in pair))
    return {"difference": found.value, "low": found.low, "high": found.high, "reach": found.reach, "n": found.n}


if __name__ == "__main__":
    main()
