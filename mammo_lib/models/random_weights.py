"""Checkpoints in the official form with random weights, for a rehearsal of a profile that needs them.

They have the names, shapes and wrapper of official checkpoints and pass the same strict loader. Two marks keep them
apart: the name of the file begins with ``random-``, and the file says what it is. Outside a rehearsal,
:func:`mammo_lib.models.weights.read_checkpoint` refuses them.
"""

from __future__ import annotations

import os
from pathlib import Path

import timm
import torch
from safetensors.torch import save_file
from torch import Tensor

from .mambavision import VARIANTS, create_mambavision
from .weights import RANDOM_MARK

SAID = "random weights for a rehearsal; not those of the authors of this network"


def write_random_checkpoint(backbone: str, path: Path) -> None:
    """Write random weights of a MambaVision variant (``.pth.tar``) or of a timm network (``.safetensors``)."""
    partial = path.with_name(f".{os.getpid()}-{path.name}")
    path.parent.mkdir(parents=True, exist_ok=True)
    state = _random_state(backbone)
    if path.suffix == ".safetensors":
        save_file({key: one.contiguous() for key, one in state.items()}, partial, metadata={RANDOM_MARK: SAID})
    else:
        torch.save({"state_dict": state, RANDOM_MARK: SAID}, partial)
    os.replace(partial, path)


def _random_state(backbone: str) -> dict[str, Tensor]:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        return (create_mambavision(backbone) if backbone in VARIANTS else timm.create_model(backbone)).state_dict()
