"""Inference of MambaVision-T: folded batch normalisation, images stored channels last, torch.compile.

OMP_NUM_THREADS=1 python benchmarks/inference.py
"""

from __future__ import annotations

import torch
from limits import multiply_adds_per_second
from timing import paired_medians, record

import mammo_lib  # noqa: F401  (sets the OpenMP wait policy before torch)
from mammo_lib.models import create_mambavision, fold_batch_norm
from mammo_lib.models.cost import cost_of

SIZE, BATCHES, REPEATS = 224, (1, 8), 11


def main() -> None:
    torch.manual_seed(0)
    network = create_mambavision("T", num_classes=2).eval()
    folded = fold_batch_norm(network)
    last = fold_batch_norm(network).to(memory_format=torch.channels_last)
    compiled = torch.compile(last, dynamic=False)
    operations = cost_of(
        lambda: create_mambavision("T", num_classes=2), lambda model: model(torch.zeros(1, 3, SIZE, SIZE))
    ).total
    rate, rows = 2 * multiply_adds_per_second(), []
    for batch in BATCHES:
        images = torch.rand(batch, 3, SIZE, SIZE)
        turned = images.to(memory_format=torch.channels_last)
        with torch.inference_mode():
            expected = network(images)
            others = (folded(images), last(turned), compiled(turned))
            error = max(float((expected - other).abs().max()) for other in others)
            seconds = paired_medians(
                {
                    "as trained": lambda images=images: network(images),
                    "folded": lambda images=images: folded(images),
                    "folded, channels last": lambda images=turned: last(images),
                    "folded, channels last, compiled": lambda images=turned: compiled(images),
                },
                REPEATS,
            )
        rows += [
            {
                "batch": batch,
                "form": form,
                "seconds": value,
                "speed": seconds["as trained"] / value,
                "share_of_matrix_product_rate": batch * operations / value / rate,
            }
            for form, value in seconds.items()
        ]
        rows[-1]["largest_difference"] = error
    fastest = {str(b): max((r for r in rows if r["batch"] == b), key=lambda r: r["speed"])["form"] for b in BATCHES}
    summary = {"size": SIZE, "precision": "float32", "fastest": fastest, "operations": operations}
    record("inference", rows, summary | {"matrix_product_operations_per_second": rate})


if __name__ == "__main__":
    main()
