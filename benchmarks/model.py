"""Training MambaVision-T on a CPU with our scan against the same network with two plain PyTorch scans.

    pip install mambapy && python benchmarks/model.py

Batch 8 at 224 px. The other two run eager float32. Ours runs in float32 and, for speed, under bfloat16 autocast with
channels-last images; the record gives the resulting change of logits and gradients beside the speed. Profiles show what
takes the time. Inference is measured by ``inference.py``.
"""

from __future__ import annotations

import contextlib

import mammo_lib  # noqa: F401  (first: OpenMP reads the wait policy that this sets when torch is imported)

# isort: split
import torch
from baselines import scanning_with
from timing import paired_medians, record

from mammo_lib.models import create_mambavision, for_inference

BATCH, SIZE, REPEATS = 8, 224, 7
SIDES = ("float32", "bfloat16", "indexing_loop", "mambapy")


def training_step(network, images, side: str):
    """Run a side forwards and backwards, and return the logits."""
    is_low, is_other = side == "bfloat16", side in ("indexing_loop", "mambapy")
    x = images.contiguous(memory_format=torch.channels_last) if is_low else images
    with (
        scanning_with(side) if is_other else contextlib.nullcontext(),
        torch.autocast("cpu", torch.bfloat16, enabled=is_low),
    ):
        logits = network(x)
    network.zero_grad(set_to_none=True)
    torch.nn.functional.cross_entropy(logits.float(), torch.arange(BATCH)).backward()
    return logits


def networks() -> dict:
    """Return two copies of one random network in training mode, the second channels last for low precision."""
    torch.manual_seed(0)
    plain = create_mambavision("T", drop_path=0.0)
    low = create_mambavision("T", drop_path=0.0).to(memory_format=torch.channels_last)
    low.load_state_dict(plain.state_dict())
    return {side: (low if side == "bfloat16" else plain).train() for side in SIDES}


def compare() -> dict:
    """Time the sides in turn; return speeds of ours over the others."""
    own, images = networks(), torch.randn(BATCH, 3, SIZE, SIZE)
    seconds = paired_medians(
        {side: lambda side=side: training_step(own[side], images, side) for side in SIDES}, REPEATS
    )
    row = {"variant": "T", "task": "training step"} | {f"{side}_seconds": value for side, value in seconds.items()}
    for ours in ("bfloat16", "float32"):
        for other in ("indexing_loop", "mambapy"):
            row[f"{ours}_over_{other}"] = seconds[other] / seconds[ours]
    return row


def shares_of_training(side: str) -> dict:
    """Return what takes the time of a training step."""
    network, images = networks()[side], torch.randn(BATCH, 3, SIZE, SIZE)
    shares = operator_shares(lambda: training_step(network, images, side))
    return {"variant": "T", "task": "profile of a training step", "side": side, **shares}


def shares_of_inference(variant: str) -> dict:
    """Return what takes the time of inference in bfloat16, prepared by ``for_inference``."""
    network = for_inference(create_mambavision(variant), torch.bfloat16)
    images = torch.randn(BATCH, 3, SIZE, SIZE).to(memory_format=torch.channels_last)
    with torch.inference_mode():
        shares = operator_shares(lambda: network(images))
    return {"variant": variant, "task": "profile of inference", "side": "bfloat16", **shares}


def operator_shares(call, most: int = 6) -> dict:
    """Return the shares of processor time of the operators that take most of it and so limit the speed."""
    call()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        call()
    seconds = {event.key: event.self_cpu_time_total for event in profile.key_averages()}
    total = sum(seconds.values())
    ordered = sorted(seconds, key=seconds.get, reverse=True)[:most]
    scan_time = sum(value for key, value in seconds.items() if "scan_cpu" in key)
    return {key: seconds[key] / total for key in ordered} | {"selective scan, all of it": scan_time / total}


def change_by_low_precision() -> dict:
    """Return the relative change of logits and of all gradients from float32 to bfloat16, in norm."""
    own, images = networks(), torch.randn(BATCH, 3, SIZE, SIZE)
    results = {}
    for side in ("float32", "bfloat16"):
        logits = training_step(own[side], images, side).detach().float()
        slopes = torch.cat([p.grad.float().flatten() for p in own[side].parameters()])
        results[side] = logits, slopes
    pairs = zip(*results.values(), strict=True)
    logits, slopes = (((low - full).norm() / full.norm()).item() for full, low in pairs)
    return {"bfloat16_relative_change_of_logits": logits, "bfloat16_relative_change_of_gradients": slopes}


def main():
    """Measure everything and record it."""
    step = compare()
    summary = {f"T_training_{name}": value for name, value in step.items() if "_over_" in name}
    profiles = [shares_of_training(side) for side in ("float32", "bfloat16")]
    profiles += [shares_of_inference(variant) for variant in ("T", "L")]
    record("model", [step, *profiles], summary | change_by_low_precision())


if __name__ == "__main__":
    main()
