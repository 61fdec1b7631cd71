"""Which file a config's ``model.weights`` means, where it lies, and its hash."""

from __future__ import annotations

import os
from pathlib import Path

from ..errors import InputError
from ..files import known_hash, read_json
from .paths import MATERIAL, ROOT
from .registry import BACKBONES
from .run import ModelConfig

WEIGHTS_FOLDER = "MAMMO_WEIGHTS"
OFFICIAL = MATERIAL / "data_manifest" / "weights.json"  # the released checkpoints, by variant


def weights_folder() -> Path:
    """Return where official checkpoints are kept: ``MAMMO_WEIGHTS``, else ``weights/`` in the project."""
    return Path(os.environ.get(WEIGHTS_FOLDER) or ROOT / "weights")


def find_checkpoint(backbone: str, weights: str) -> Path:
    """Return the checkpoint file of ``model.weights`` for a backbone: the given path, or the ``official`` one.

    Official checkpoints keep their names (``mammo weights VARIANT`` fetches them); those of timm's networks are
    ``<name>.safetensors``.

    Raises
    ------
    InputError
        The backbone has no official checkpoint, or it is not in the folder; or the path is that of a folder, a pipe or
        a device.
    """
    if weights != "official":
        return regular_file(Path(weights))
    record = read_json(OFFICIAL)
    if backbone not in record and BACKBONES[backbone].is_mambavision:
        raise InputError(f"weights official: {_no_official_weights(backbone, record)}")
    name = record[backbone]["file"] if backbone in record else f"{backbone}.safetensors"
    path = weights_folder() / name
    if not path.is_file():
        fetch = f"`mammo weights {backbone}` downloads it" if backbone in record else "save timm's weights there"
        raise InputError(f"{path}: no such checkpoint; {fetch}, or name its folder in {WEIGHTS_FOLDER}")
    return path


def _no_official_weights(backbone: str, record: dict) -> str:
    """Return in words which variants have official weights, and what to give for one that has none of its name."""
    have = f"{backbone} has none; {', '.join(name for name in record if name in BACKBONES)} have"
    if larger := [name for name in record if name.startswith(f"{backbone}_")]:
        return f"{have}. `mammo weights {larger[0]}` downloads a checkpoint for {backbone}; give its path"
    return f"{have}. Choose one of these, or give the path of a checkpoint"


def regular_file(path: Path) -> Path:
    """Return ``path`` if a regular file is there, or nothing yet.

    Raises
    ------
    InputError
        Something else is there: reading a pipe or a device would never end.
    """
    if path.exists() and not path.is_file():
        kind = "a folder" if path.is_dir() else "a pipe or a device"
        raise InputError(f"{path}: {kind}, not a checkpoint; give a file")
    return path


def weights_hash(model: ModelConfig) -> str | None:
    """Return the SHA-256 of the checkpoint that a network starts from; None without one, or if it is not here."""
    if model.weights is None:
        return None
    try:
        return known_hash(find_checkpoint(model.backbone, model.weights))
    except (InputError, OSError):
        return None
