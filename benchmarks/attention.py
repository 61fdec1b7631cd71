"""The share of attention in stages 3 and 4 in the cost of a training step, as batch and resolution grow.

    python benchmarks/attention.py

MambaVision-T under SeqMoE, the encoder of one stream, forward and backward. Attention's share of the time is
1 - t(without) / t(with), where *without* has the attention mixers replaced by the identity. Its share of the memory is
its share of the bytes that autograd keeps for the backward pass. Attention runs inside windows of 14 x 14 and 7 x 7
tokens, so from 224 px on its cost per token does not grow. The rows *whole map* widen the windows to the map, to show
what attention without windows would cost.
"""

from __future__ import annotations

import copy

import mammo_lib  # noqa: F401  (first: OpenMP reads the wait policy that this sets when torch is imported)

# isort: split
import torch
from timing import paired_medians, record
from torch import nn

from mammo_lib.models import SeqMoE, create_mambavision
from mammo_lib.models.mambavision import Attention

REPEATS = 3
SETTINGS = (  # side in pixels, images, windows over the whole map
    (224, 1, False),
    (224, 4, False),
    (448, 1, False),
    (672, 1, False),
    (448, 1, True),
    (672, 1, True),
)


def without_attention(network: SeqMoE) -> SeqMoE:
    """Return a copy whose attention mixers let their tokens through."""
    bare = copy.deepcopy(network)
    for level in bare.backbone.levels[2:]:
        for block in level.blocks:
            if isinstance(block.mixer, Attention):
                block.mixer = nn.Identity()
    return bare


def kept_bytes(network: SeqMoE, images: torch.Tensor) -> int:
    """Return the bytes that a forward pass keeps for the backward pass, counting each storage once and no weights."""
    storages = {}
    own = {parameter.untyped_storage().data_ptr() for parameter in network.parameters()}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        network(images)[0].sum()
        return sum(storages.values())


def measure(image_size: int, batch_size: int, *, is_whole: bool) -> dict:
    """Measure one setting."""
    torch.manual_seed(0)
    windows = (8, 8, image_size // 16, image_size // 32) if is_whole else None
    network = SeqMoE(create_mambavision("T", num_classes=0, window_sizes=windows)).train()
    images, bare = torch.rand(batch_size, 3, image_size, image_size), without_attention(network)

    def step(one: SeqMoE):
        return lambda: one(images)[0].square().sum().backward()

    seconds = paired_medians({"with": step(network), "without": step(bare)}, REPEATS)
    kept = {"with": kept_bytes(network, images), "without": kept_bytes(bare, images)}
    return {
        "image_size": image_size, "batch_size": batch_size, "windows": "whole map" if is_whole else "14 and 7",
        "seconds": seconds["with"], "kept_megabytes": kept["with"] / 1e6,
        "time_share": max(0.0, 1 - seconds["without"] / seconds["with"]),
        "memory_share": max(0.0, 1 - kept["without"] / kept["with"]),
    }  # fmt: skip


def main():
    """Measure every setting and record them."""
    rows = [measure(size, batch, is_whole=is_whole) for size, batch, is_whole in SETTINGS]
    windowed = [row for row in rows if row["windows"] != "whole map"]
    record("attention", rows, {
        "largest_time_share": max(row["time_share"] for row in windowed),
        "largest_memory_share": max(row["memory_share"] for row in windowed),
        "largest_time_share_without_windows": max(row["time_share"] for row in rows),
    })  # fmt: skip


if __name__ == "__main__":
    main()
