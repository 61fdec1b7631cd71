"""Inference of MambaVision on a CPU, in the forms that a user can choose, against plain PyTorch scans.

    pip install mambapy && python benchmarks/inference.py

The two other scans run in the network as trained, in 32-bit floats. With our scan, the network runs as trained, under
autocast, and prepared by ``for_inference`` in both precisions, with and without ``torch.compile``.
"""

from __future__ import annotations

import os
import statistics

import mammo_lib  # noqa: F401  (first: OpenMP reads the wait policy that this sets when torch is imported)

# isort: split
import torch
from baselines import scanning_with
from limits import PRODUCT, matrix_product
from timing import paired_seconds, quartiles_of_speed, record

from mammo_lib.models import create_mambavision, for_inference
from mammo_lib.models.cost import cost_of

SIZE, BATCHES, REPEATS = 224, (1, 8), {"T": 15, "L": 7}
MAMBAPY, INDEXING = "mambapy's scan", "indexing loop"
FLOAT32, BFLOAT16 = "for inference", "for inference, bfloat16"
TARGETS = {FLOAT32: 1.25, BFLOAT16: 3.5}  # speeds over the network with mambapy's scan


def forms(network, images) -> dict:
    """Return every form as a call without arguments."""
    last = images.to(memory_format=torch.channels_last)
    fast, low = for_inference(network), for_inference(network, torch.bfloat16)
    networks = {FLOAT32: fast, BFLOAT16: low}
    networks |= {f"{name}, compiled": torch.compile(one, dynamic=False) for name, one in networks.items()}
    return {
        MAMBAPY: lambda: _scanned(network, images, "mambapy"),
        INDEXING: lambda: _scanned(network, images, "indexing_loop"),
        "as trained": lambda: network(images),
        "bfloat16 by autocast": lambda: _autocast(network, last),
        "for inference, bfloat16 by autocast": lambda: _autocast(fast, last),
        **{name: lambda one=one: one(last) for name, one in networks.items()},
    }


def _scanned(network, images, side: str):
    with scanning_with(side):
        return network(images)


def _autocast(network, images):
    with torch.autocast("cpu", torch.bfloat16):
        return network(images)


def measure(variant: str, batch: int) -> list[dict]:
    """Time one network at one batch, and a large matrix product in the same rounds: a row for each form."""
    torch.manual_seed(0)
    network, images = create_mambavision(variant, num_classes=2).eval(), torch.rand(batch, 3, SIZE, SIZE)
    operations = batch * operations_of(variant)
    with torch.inference_mode():
        sides = forms(network, images)
        expected = network(images)
        changes = {form: float((call().float() - expected).norm() / expected.norm()) for form, call in sides.items()}
        products = {"float32": matrix_product(torch.float32), "bfloat16": matrix_product(torch.bfloat16)}
        seconds = paired_seconds(sides | products, REPEATS[variant])
    rows = []
    for form in sides:
        precision = "bfloat16" if "bfloat16" in form else "float32"
        own, product = seconds[form], seconds[precision]
        low, speed, high = quartiles_of_speed(own, seconds[MAMBAPY])
        rows.append(
            {
                "variant": variant,
                "batch": batch,
                "form": form,
                "seconds": statistics.median(own),
                "speed_over_mambapy": speed,
                "quartiles_of_speed": [low, high],
                "speed_over_indexing_loop": quartiles_of_speed(own, seconds[INDEXING])[1],
                "matrix_product_seconds": statistics.median(product),
                "share_of_matrix_product_rate": operations / (2 * PRODUCT**3) * quartiles_of_speed(own, product)[1],
                "relative_change_of_logits": changes[form],
            }
        )
    return rows


def operations_of(variant: str) -> int:
    """Return the operations of a forward pass over one image; a multiply-add counts as two."""
    return cost_of(
        lambda: create_mambavision(variant, num_classes=2), lambda model: model(torch.zeros(1, 3, SIZE, SIZE))
    ).total


def main() -> None:
    """Measure everything and record it."""
    others = os.getloadavg()[0]
    rows = [row for variant in REPEATS for batch in BATCHES for row in measure(variant, batch)]
    reached = {
        f"{row['variant']}, batch {row['batch']}, {row['form']}": row["speed_over_mambapy"] / TARGETS[row["form"]]
        for row in rows
        if row["form"] in TARGETS
    }
    summary = {
        "size": SIZE,
        "other_processes": others,
        "operations_per_image": {variant: operations_of(variant) for variant in REPEATS},
        "operations_per_product": 2 * PRODUCT**3,
        "targets_over_mambapy": TARGETS,
        "speed_over_target": reached,
    }
    record("inference", rows, summary)


if __name__ == "__main__":
    main()
