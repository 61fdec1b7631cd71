"""The identity of a run: a fingerprint that does not change when fields are added.

A run's identity contains only the settings that differ from ``NEUTRAL``, in canonical form. The table is frozen. A new
field is added with the value that older runs used, whatever its default is, so that no record is orphaned. A record
without the field is read with that value. Settings that have no effect in a config (``fusion`` with one stream, the
model of a baseline) are left out.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator

from .run import RunConfig

NEUTRAL: dict[str, object] = {
    "experiment": "dual_stream",
    "baseline": None,
    "seed": 0,
    "protocol": None,
    "data.definition": "paper",
    "data.image_size": [224, 224],
    "data.mask_breast": True,
    "data.orient": True,
    "data.crop_context": None,
    "data.extra_training": None,
    "data.hold_out_extra": False,
    "data.allow_missing": False,
    "data.reader_words": "all_tables",
    "data.n_folds": 5,
    "data.fold": 0,
    "data.fold_seed": 0,
    "data.training_share": 1.0,
    "model.backbone": "L",
    "model.streams": ["crop", "whole"],
    "model.views": ["CC", "MLO"],
    "model.mixer": "selective",
    "model.token_blocks": "hybrid",
    "model.mlp_ratio": 4.0,
    "model.frozen_stride": 16,
    "model.gate.kind": "learned",
    "model.gate.stages": "3+4",
    "model.gate.blocks": "all",
    "model.gate.scope": "image",
    "model.gate.bias": 2.0,
    "model.gate.binary": False,
    "model.weights": None,
    "model.stem": "repeat",
    "model.freeze": "auto",
    "model.targets": ["malignancy"],
    "model.view_fusion": "concat",
    "model.fusion": "gate",
    "train.epochs": 30,
    "train.batch_size": 8,
    "train.learning_rate": 1e-4,
    "train.weight_decay": 0.05,
    "train.warmup_epochs": 1.0,
    "train.label_smoothing": 0.1,
    "train.reader_labels": 0.0,
    "train.encoder_rate": 1.0,
    "train.dropout": 0.0,
    "train.view_dropout": 0.0,
    "train.stream_dropout": 0.0,
    "train.target_weight": 1.0,
    "train.target_weighting": "fixed",
    "train.flip_averaging": False,
    "train.best_epoch": "single_image",
    "train.drop_path": 0.0,
    "train.gradient_clip": None,
    "train.ema_decay": None,
    "train.augment": 1.0,
    "train.frozen_cache": None,
    "train.cached_encoder": "evaluation",
    "train.keep": "best",
    "train.patience": 10,
    "train.precision": "32-true",
    "train.devices": 1,
}
SEEN_BY_BASELINES = ("model.streams", "model.views")


def identity(config: RunConfig) -> dict[str, object]:
    """Return the settings in which a run differs from a neutral one: ``{"train.epochs": 14, ...}``."""
    fields = flat(config.model_dump(mode="json"))
    without = set(_cannot_matter(config, fields))
    newer = flat(type(config)().model_dump(mode="json"))  # a field that is not in the table yet
    return {
        name: value
        for name, value in fields.items()
        if name not in without and value != NEUTRAL.get(name, newer.get(name))
    }


def completed(fields: dict) -> dict:
    """Return the settings of a record, completed by newer fields with the values that older runs used."""
    added = {}
    for name, value in NEUTRAL.items():
        section, _, field = name.partition(".")
        if isinstance(fields.get(section), dict) and "." not in field and field not in fields[section]:
            added.setdefault(section, {})[field] = value
    return {name: value | added[name] if name in added else value for name, value in fields.items()}


def fingerprint(value: object) -> str:
    """Return the SHA-256 of ``value`` written as canonical JSON (sorted keys, no spaces)."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def flat(nested: dict, prefix: str = "") -> dict[str, object]:
    """Return ``{"train.epochs": 14, ...}`` of nested mappings."""
    found = {}
    for name, value in nested.items():
        found |= flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return found


def _cannot_matter(config: RunConfig, fields: dict) -> Iterator[str]:
    """Name the fields that change nothing in this config."""
    model, train = config.model, config.train
    yield "data.allow_missing"  # the hash of the data already depends on which views exist
    if config.baseline != "metadata" and (config.baseline or not train.reader_labels):
        yield "data.reader_words"
    if "crop" not in model.streams:
        yield "data.crop_context"
    if not config.data.extra_training:
        yield "data.hold_out_extra"
    if config.baseline:
        yield from (name for name in fields if name.startswith(("model.", "train.")) and name not in SEEN_BY_BASELINES)
        return
    if len(model.streams) == 1:
        yield from ("model.fusion", "train.stream_dropout")
    if len(model.views) == 1:
        yield from ("model.view_fusion", "train.view_dropout")
    if len(model.targets) == 1:
        yield from ("train.target_weight", "train.target_weighting")
    if model.token_blocks in ("attention", "none"):
        yield "model.mixer"
    if model.token_blocks == "none":
        yield "model.mlp_ratio"
    if model.freeze == ("stages12" if model.is_pretrained else "none"):  # what 'auto' resolves to
        yield "model.freeze"
    if not model.is_pretrained:
        yield "train.encoder_rate"
    if not train.flip_averaging or train.keep == "last":
        yield "train.best_epoch"
    if train.frozen_cache is None:
        yield "train.cached_encoder"
    if train.keep == "last":
        yield "train.patience"
