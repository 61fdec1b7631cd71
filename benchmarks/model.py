"""MambaVision on a CPU with our scan against the same network with two plain PyTorch scans: training and inference.

    pip install mambapy && python benchmarks/model.py

Batch 8 at 224 px. The other two run eager float32. Ours runs in float32 and, for speed, under bfloat16 autocast with
channels-last images; the record gives the resulting change of logits and gradients beside the speed.
"""

from __future__ import annotations

import contextlib

import torch
from baselines import indexing_loop, parallel_scan
from timing import paired_medians, record

import mammo_lib  # noqa: F401  (sets the OpenMP wait policy before torch)
from mammo_lib.models import create_mambavision
from mammo_lib.ops import scan

BATCH, SIZE, REPEATS = 8, 224, 3
OURS = scan._run_compiled


@contextlib.contextmanager
def scanning_with(side: str):
    """Let every mixer use another scan; the rest of the network stays as it is."""
    others = {"indexing_loop": indexing_loop, "mambapy": parallel_scan}
    if side in others:
        scan._run_compiled = lambda _, inputs: others[side](*inputs)
    try:
        yield
    finally:
        scan._run_compiled = OURS


def run(network, images, side: str, *, is_training: bool):
    """One pass of a side: ``indexing_loop``, ``mambapy``, ``float32`` or ``bfloat16``."""
    is_low = side == "bfloat16"
    x = images.contiguous(memory_format=torch.channels_last) if is_low else images
    with (
        scanning_with(side),
        torch.autocast("cpu", torch.bfloat16, enabled=is_low),
        torch.set_grad_enabled(is_training),
    ):
        logits = network(x)
    if is_training:
        network.zero_grad(set_to_none=True)
        torch.nn.functional.cross_entropy(logits.float(), torch.arange(BATCH)).backward()
    return logits


def networks(variant: str) -> dict:
    """Return two copies of one random network, the second in channels-last layout for low precision."""
    torch.manual_seed(0)
    plain = create_mambavision(variant, drop_path=0.0)
    low = create_mambavision(variant, drop_path=0.0).to(memory_format=torch.channels_last)
    low.load_state_dict(plain.state_dict())
    return {"bfloat16": low, "float32": plain, "indexing_loop": plain, "mambapy": plain}


def compare(variant: str, sides: list[str], *, is_training: bool) -> dict:
    """Time the sides in turn; return speeds of ours over the others."""
    own, images = networks(variant), torch.randn(BATCH, 3, SIZE, SIZE)
    for network in own.values():
        network.train(is_training)
    calls = {side: lambda side=side: run(own[side], images, side, is_training=is_training) for side in sides}
    seconds = paired_medians(calls, REPEATS)
    row = {"variant": variant, "task": "training step" if is_training else "inference"}
    row |= {f"{side}_seconds": value for side, value in seconds.items()}
    for ours in ("bfloat16", "float32"):
        for other in ("indexing_loop", "mambapy"):
            if ours in seconds and other in seconds:
                row[f"{ours}_over_{other}"] = seconds[other] / seconds[ours]
    return row


def operator_shares(variant: str, side: str, *, is_training: bool, most: int = 6) -> dict:
    """Return the shares of processor time of the operators that take most of it and so limit the speed."""
    network, images = networks(variant)[side].train(is_training), torch.randn(BATCH, 3, SIZE, SIZE)
    run(network, images, side, is_training=is_training)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        run(network, images, side, is_training=is_training)
    seconds = {event.key: event.self_cpu_time_total for event in profile.key_averages()}
    total = sum(seconds.values())
    ordered = sorted(seconds, key=seconds.get, reverse=True)[:most]
    scan_time = sum(value for key, value in seconds.items() if "scan_cpu" in key)
    return {key: seconds[key] / total for key in ordered} | {"selective scan, all of it": scan_time / total}


def change_by_low_precision(variant: str) -> dict:
    """Return the relative change of logits and of all gradients from float32 to bfloat16, in norm."""
    own, images = networks(variant), torch.randn(BATCH, 3, SIZE, SIZE)
    results = {}
    for side in ("float32", "bfloat16"):
        logits = run(own[side].train(), images, side, is_training=True).detach().float()
        slopes = torch.cat([p.grad.float().flatten() for p in own[side].parameters()])
        results[side] = logits, slopes
    pairs = zip(*results.values(), strict=True)
    logits, slopes = (((low - full).norm() / full.norm()).item() for full, low in pairs)
    return {"bfloat16_relative_change_of_logits": logits, "bfloat16_relative_change_of_gradients": slopes}


def main():
    """Measure everything and record it."""
    everything = ["float32", "bfloat16", "indexing_loop", "mambapy"]
    rows = [
        compare("T", everything, is_training=True),
        compare("T", everything, is_training=False),
        compare("L", ["bfloat16", "float32", "indexing_loop"], is_training=False),
    ]
    train, inference, large = rows
    summary = {
        "T_training_bfloat16_over_indexing_loop": train["bfloat16_over_indexing_loop"],
        "T_training_float32_over_indexing_loop": train["float32_over_indexing_loop"],
        "T_training_float32_over_mambapy": train["float32_over_mambapy"],
        "T_inference_bfloat16_over_indexing_loop": inference["bfloat16_over_indexing_loop"],
        "T_inference_float32_over_indexing_loop": inference["float32_over_indexing_loop"],
        "L_inference_bfloat16_over_indexing_loop": large["bfloat16_over_indexing_loop"],
        **change_by_low_precision("T"),
    }
    rows += [
        {"variant": "T", "task": "profile of a training step", "side": side}
        | operator_shares("T", side, is_training=True)
        for side in ("float32", "bfloat16")
    ]
    rows.append(
        {"variant": "L", "task": "profile of inference", "side": "bfloat16"}
        | operator_shares("L", "bfloat16", is_training=False)
    )
    record("model", rows, summary)


if __name__ == "__main__":
    main()
