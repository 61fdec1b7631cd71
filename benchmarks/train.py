"""A training step of Mammo-Mamba on a CPU, as a run makes it: what bfloat16 and a smaller backbone gain.

    python benchmarks/train.py

Two streams of two views at 224 px, batch 4, so 16 images a step: forward, loss, backward, AdamW. Under ``bfloat16`` the
forward pass runs under autocast, as Lightning's ``bf16-mixed`` does.
"""

from __future__ import annotations

import mammo_lib  # noqa: F401  (first: OpenMP reads the wait policy that this sets when torch is imported)

# isort: split
import torch
from timing import paired_medians, record

from mammo_lib.config import ModelConfig, RunConfig
from mammo_lib.models import build_model
from mammo_lib.models.mammo_mamba import count_parameters

BATCH, REPEATS = 4, 3
IMAGES = 4 * BATCH  # two streams, two views


def training_step(config: RunConfig, *, is_low: bool):
    """Return a function that makes one step of a network of its own."""
    torch.manual_seed(0)
    network = build_model(config).train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4)
    size, streams = config.data.image_size, config.model.streams
    images = {stream: torch.rand(BATCH, 2, 1, *size) for stream in streams}
    batch = {"images": images, "present": {stream: torch.ones(BATCH, 2, dtype=torch.bool) for stream in streams}}
    label = torch.arange(BATCH) % 2

    def step():
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=is_low):
            loss = torch.nn.functional.cross_entropy(network(batch).logits, label)
        loss.backward()
        optimizer.step()

    return step


def measure(backbone: str) -> dict:
    """Time the two precisions in turn."""
    config = RunConfig(model=ModelConfig(backbone=backbone))
    sides = {"float32": training_step(config, is_low=False), "bfloat16": training_step(config, is_low=True)}
    rates = {side: IMAGES / seconds for side, seconds in paired_medians(sides, REPEATS).items()}
    row = {"backbone": backbone, "million_parameters": count_parameters(config) / 1e6}
    row |= {f"{side}_images_per_second": rate for side, rate in rates.items()}
    return row | {"bfloat16_over_float32": rates["bfloat16"] / rates["float32"]}


def main():
    """Measure both backbones and record them."""
    nano, tiny = rows = [measure("nano"), measure("T")]
    summary = {
        "nano_bfloat16_over_float32": nano["bfloat16_over_float32"],
        "T_bfloat16_over_float32": tiny["bfloat16_over_float32"],
        "nano_over_T_float32": nano["float32_images_per_second"] / tiny["float32_images_per_second"],
    }
    record("train", rows, summary)


if __name__ == "__main__":
    main()
