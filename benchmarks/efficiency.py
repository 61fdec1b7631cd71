"""What Mammo-Mamba costs, compared with its parts and with other networks: counted at every size, timed on a CPU.

    python benchmarks/efficiency.py --count      operations, parameters, memory of activations: seconds, no weights
    python benchmarks/efficiency.py --measure    time and peak memory on this machine, one process per network

Each call replaces its half of ``efficiency.json``. Chapter 10 shows the record.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import mammo_lib  # noqa: F401  (first: OpenMP reads the wait policy that this sets when torch is imported)

# isort: split
import numpy as np
import torch
from timing import HERE, machine

from mammo_lib.config import RunConfig, with_changes
from mammo_lib.models import build_model, create_mambavision
from mammo_lib.models.cost import cost_of

RECORD = HERE / "efficiency.json"
SIDES = (224, 448, 896, 1792)
VARIANTS = ("T", "S", "B", "L")
TIMM = {
    "Swin-T": "swin_tiny_patch4_window7_224", "ViT-S": "vit_small_patch16_224", "ConvNeXt-T": "convnext_tiny",
    "ResNet-50": "resnet50",
}  # fmt: skip
TWINS = {"T, state-space only": "ssm", "T, attention only": "attention"}
MEASURED = ("MambaVision-T", "T, state-space only", "T, attention only", "Swin-T", "ViT-S", "ConvNeXt-T", "ResNet-50")
MEASURED_SIDES = (224, 448, 672)
REPEATS = 5


def image_networks() -> dict:
    """Return, by name, a function that builds a network of one image for a side in pixels."""
    own = {f"MambaVision-{name}": lambda side, name=name: create_mambavision(name) for name in VARIANTS}
    own |= {name: lambda side, kind=kind: create_mambavision("T", token_blocks=kind) for name, kind in TWINS.items()}
    own["T, one window"] = lambda side: create_mambavision("T", window_sizes=(8, 8, side // 16, side // 32))
    return own | {name: lambda side, name=name: _timm(name, side) for name in TIMM}


def breast_config(variant: str, side: int, streams: tuple[str, ...], gate: str) -> RunConfig:
    """Return the config of a Mammo-Mamba."""
    named = "[" + ", ".join(streams) + "]"
    changes = [f"model.backbone={variant}", f"model.gate={gate}", f"model.streams={named}", f"data.image_size={side}"]
    return with_changes(RunConfig(), changes)


def count() -> list[dict]:
    """Return a row per network and side: operations by part, parameters, bytes kept for the backward pass."""
    rows = []
    for name, build in image_networks().items():
        for side in SIDES:
            cost = cost_of(lambda b=build, s=side: b(s), lambda network, s=side: network(torch.zeros(1, 3, s, s)))
            rows.append(_row(name, "image", side, cost))
    for variant in VARIANTS:
        for streams, gate in ((("crop", "whole"), "learned"), (("crop", "whole"), "none"), (("crop",), "learned")):
            for side in SIDES:
                config = breast_config(variant, side, streams, gate)
                cost = cost_of(lambda c=config: build_model(c), lambda network, s=side: _breast(network, s))
                gated = "" if gate == "learned" else ", no gates"
                name = f"Mammo-Mamba-{variant}, {'two streams' if len(streams) > 1 else 'one stream'}{gated}"
                rows.append(_row(name, "breast", side, cost))
    return rows


def measure() -> list[dict]:
    """Return a row per network and side: seconds of inference and of a training step, peak memory; one process each."""
    rows = []
    for side in MEASURED_SIDES:
        for name in MEASURED:
            for step in ("inference", "training"):
                command = [sys.executable, __file__, "--one", name, str(side), step]
                done = subprocess.run(command, capture_output=True, text=True, check=True)
                rows.append(json.loads(done.stdout.splitlines()[-1]))
                print(rows[-1], flush=True)
    return rows


def one(name: str, side: int, step: str) -> dict:
    """Time one network in this process: a warm-up, then the median of ``REPEATS`` passes over one image."""
    torch.manual_seed(0)
    before = _peak()
    network = image_networks()[name](side)
    network.train(step == "training")
    image, label = torch.rand(1 if step == "inference" else 2, 3, side, side), torch.tensor([0, 1])
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-5)

    def call():
        if step == "inference":
            with torch.inference_mode():
                return network(image)
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(network(image), label).backward()
        return optimizer.step()

    seconds = []
    for number in range(REPEATS + 1):
        started = time.perf_counter()
        call()
        if number:
            seconds.append((time.perf_counter() - started) / len(image))
    return {
        "network": name, "side": side, "step": step, "seconds_per_image": float(np.median(seconds)),
        "seconds": seconds, "peak_megabytes": (_peak() - before) / 1e6,
    }  # fmt: skip


def _row(name: str, unit: str, side: int, cost) -> dict:
    return {
        "network": name, "per": unit, "side": side, "operations": cost.operations, "total": cost.total,
        "parameters": cost.parameters, "kept_bytes": cost.kept_bytes,
    }  # fmt: skip


def _timm(name: str, side: int):
    import timm  # after mammo_lib, whose import hook keeps torchvision importable beside a CPU torch

    has_size = name in ("Swin-T", "ViT-S")
    return timm.create_model(TIMM[name], **({"img_size": side} if has_size else {}))


def _breast(network, side: int):
    """Pass one breast of two views through a Mammo-Mamba; its own forward selects views by value, not by shape."""
    embedded = {
        stream: encoder.network(torch.zeros(2, 3, side, side))[0][None] for stream, encoder in network.encoders.items()
    }
    return network.decide(embedded, {stream: torch.ones(1, 2, dtype=torch.bool) for stream in embedded})


def _peak() -> float:
    """Return the largest resident set of this process so far, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0


def main() -> None:
    """Count or measure, and leave the other half of the record unchanged."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", action="store_true")
    parser.add_argument("--measure", action="store_true")
    parser.add_argument("--one", nargs=3, metavar=("NETWORK", "SIDE", "STEP"), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.one:
        print(json.dumps(one(asked.one[0], int(asked.one[1]), asked.one[2])))
        return
    record = json.loads(RECORD.read_text()) if RECORD.is_file() else {}
    record["command"] = "python benchmarks/efficiency.py --count --measure"
    if asked.count:
        record["counted"] = count()
    if asked.measure:
        record |= {"machine": machine(), "measured": measure()}
    Path(RECORD).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
