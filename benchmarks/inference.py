"""Inference of MambaVision-T: batch normalisation folded into convolutions, and images stored channels last.

OMP_NUM_THREADS=1 python benchmarks/inference.py
"""

from __future__ import annotations

import torch
from timing import paired_medians, record

import mammo_lib  # noqa: F401  (sets the OpenMP wait policy before torch)
from mammo_lib.models import create_mambavision, fold_batch_norm

SIZE, BATCHES, REPEATS = 224, (1, 8), 11


def main() -> None:
    torch.manual_seed(0)
    network = create_mambavision("T", num_classes=2).eval()
    folded = fold_batch_norm(network)
    last = fold_batch_norm(network).to(memory_format=torch.channels_last)
    rows = []
    for batch in BATCHES:
        images = torch.rand(batch, 3, SIZE, SIZE)
        turned = images.to(memory_format=torch.channels_last)
        with torch.inference_mode():
            expected = network(images)
            error = max((expected - folded(images)).abs().max(), (expected - last(turned)).abs().max())
            seconds = paired_medians(
                {
                    "as trained": lambda images=images: network(images),
                    "folded": lambda images=images: folded(images),
                    "folded, channels last": lambda images=turned: last(images),
                },
                REPEATS,
            )
        rows += [
            {"batch": batch, "form": form, "seconds": value, "speed": seconds["as trained"] / value}
            for form, value in seconds.items()
        ]
        rows[-1]["largest_difference"] = float(error)
    fastest = {str(b): max((r for r in rows if r["batch"] == b), key=lambda r: r["speed"])["form"] for b in BATCHES}
    record("inference", rows, {"size": SIZE, "precision": "float32", "fastest": fastest})


if __name__ == "__main__":
    main()
