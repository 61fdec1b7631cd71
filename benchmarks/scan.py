"""The CPU scan compared with a plain PyTorch loop, with mambapy's parallel scan, and with the processor's limits.

pip install mambapy && python benchmarks/scan.py
"""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import mammo_lib  # noqa: F401  (first: OpenMP reads the wait policy that this sets when torch is imported)

# isort: split
import torch
from baselines import indexing_loop, parallel_scan
from limits import PRODUCT, bytes_per_second, matrix_product
from timing import paired_medians, record

from mammo_lib.ops.scan import OPERATORS, scan_reference
from mammo_lib.ops.scan_cpu import CHUNK, LANES

SHAPES = [(8, 160, 196, 8), (8, 392, 196, 8), (8, 784, 49, 8), (2, 320, 3136, 8), (1, 320, 12544, 8)]
LENGTHS = [784, 1568, 3136, 6272, 12544]
REPEATS = 7
WARM_REPEATS = 25

# Vector instructions per 16 state updates, counted in the source of mammo_lib/ops/scan_cpu.py. An exponential has 18:
# 2 bounds, 4 for the power of two and its remainder, 8 for the polynomial, 4 that put both together.
FORWARD_INSTRUCTIONS = 18 + 4  # step A; step u B; the state; the output
BACKWARD_INSTRUCTIONS = 18 + 5 + 8  # the states again (step A; step u B, two; the state; dC); then the gradients


def compiled(*inputs):
    """Ours, as the library calls it."""
    keep = any(tensor.requires_grad for tensor in inputs) and torch.is_grad_enabled()
    return OPERATORS["numba"](*inputs, keep)


SIDES = {"ours": compiled, "loop": scan_reference, "indexing_loop": indexing_loop, "mambapy": parallel_scan}


def inputs(batch, dim, length, N):
    """Inputs after softplus, as every side takes them."""
    torch.manual_seed(0)
    sequences = [torch.randn(batch, dim, length), 0.1 * torch.rand(batch, dim, length)]
    maps = [torch.randn(batch, 1, N, length) for _ in range(2)]
    A = -torch.arange(1.0, N + 1).repeat(dim, 1)
    return [t.requires_grad_() for t in (*sequences, A, *maps, torch.ones(dim))]


def forward(side, tensors):
    """Run without gradients."""
    with torch.no_grad():
        SIDES[side](*tensors)


def forward_backward(side, tensors):
    """Run with the gradients of every input."""
    y = SIDES[side](*tensors)[0]
    torch.autograd.grad(y.sum(), tensors)


def extra_memory(side, shape) -> float:
    """Return the growth of peak memory over one forward and backward, MiB, in a process of its own."""
    command = [sys.executable, __file__, "--memory", side, *map(str, shape)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def measure_memory(side, shape):
    """Child process: warm up on a tiny input, then print how far the peak rises on the real one."""
    forward_backward(side, inputs(1, 16, 4, shape[3]))
    tensors = inputs(*shape)
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far (Linux)
    before = status("VmRSS")
    forward_backward(side, tensors)
    print((status("VmHWM") - before) / 1024)


def status(name: str) -> int:
    """Return a memory figure of this process, KiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name))


def floors(shape, rate: float, bandwidth: float) -> dict[str, tuple[float, float]]:
    """Return the shortest possible time of a pass, in seconds: for the vector units, and for the memory.

    Every array is read or written once: u, step and y forward; u, step, dy, du and dstep backward; B and C, and their
    gradients; the states at the start of every chunk of 32 steps, which the forward pass keeps for the backward pass.
    """
    batch, dim, length, states = shape
    updates, sequence, maps = math.prod(shape), 4 * batch * dim * length, 8 * batch * states * length
    kept = 4 * batch * dim * states * math.ceil(length / CHUNK)
    steps = {
        "forward": (FORWARD_INSTRUCTIONS, 3 * sequence + maps),
        "forward_backward": (FORWARD_INSTRUCTIONS + BACKWARD_INSTRUCTIONS, 8 * sequence + 3 * maps + 2 * kept),
    }
    return {
        step: (instructions * updates / LANES / rate, moved / bandwidth)
        for step, (instructions, moved) in steps.items()
    }


def shares(shape, seconds: dict[str, float], rate: float, bandwidth: float) -> dict:
    """Return which limit binds a pass, and the share of it that is reached."""
    found = {}
    for step, (vector, memory) in floors(shape, rate, bandwidth).items():
        found[f"{step}_limit"] = "vector units" if vector > memory else "memory"
        found[f"{step}_share_of_limit"] = max(vector, memory) / seconds[step]
    return found


def compare(shape) -> dict:
    """Time one shape, and the limits of the processor beside it: other users of a machine change its rates."""
    tensors = inputs(*shape)
    repeats = REPEATS if math.prod(shape) < 5e6 else 3
    fast = paired_medians({side: lambda side=side: forward(side, tensors) for side in SIDES}, repeats)
    full = paired_medians(
        {side: lambda side=side: forward_backward(side, tensors) for side in ("ours", "loop", "mambapy")}, repeats
    )
    warm, rate = warm_seconds(tensors)
    bandwidth = bytes_per_second()
    ours, theirs = (extra_memory(side, shape) for side in ("ours", "mambapy"))
    return {
        "shape": "x".join(map(str, shape)),
        "forward_ms": 1e3 * fast["ours"],
        "forward_speedup_over_better": min(fast["loop"], fast["mambapy"]) / fast["ours"],
        "forward_speedup_over_indexing_loop": fast["indexing_loop"] / fast["ours"],
        "forward_backward_ms": 1e3 * full["ours"],
        "forward_backward_speedup_over_mambapy": full["mambapy"] / full["ours"],
        "forward_backward_speedup_over_loop": full["loop"] / full["ours"],
        "extra_memory_mib": ours,
        "extra_memory_over_mambapy": ours / theirs,
        **{f"{step}_warm_ms": 1e3 * seconds for step, seconds in warm.items()},
        "vector_instructions_per_second": rate,
        "bytes_per_second": bandwidth,
        **shares(shape, warm, rate, bandwidth),
    }


def warm_seconds(tensors) -> tuple[dict[str, float], float]:
    """Return the times of our second of two calls, with warm memory, and the rate of vector instructions beside them.

    A matrix product is vector instructions and little else: each multiplies and adds in ``LANES`` lanes.
    """
    calls = {"forward": lambda: forward("ours", tensors), "forward_backward": lambda: forward_backward("ours", tensors)}
    sides = {"product": matrix_product(torch.float32)}
    for step, call in calls.items():
        sides |= {f"{step}, first": call, step: call}
    found = paired_medians(sides, WARM_REPEATS)
    return {step: found[step] for step in calls}, PRODUCT**3 / LANES / found["product"]


def growth_exponent() -> float:
    """Return the slope of log time over log length, forward and backward."""
    times = []
    for length in LENGTHS:
        tensors = inputs(1, 320, length, 8)
        times.append(
            paired_medians({"ours": lambda tensors=tensors: forward_backward("ours", tensors)}, REPEATS)["ours"]
        )
    x = torch.tensor([math.log(length) for length in LENGTHS])
    y = torch.tensor([math.log(t) for t in times])
    return float(((x - x.mean()) * (y - y.mean())).sum() / (x - x.mean()).square().sum())


def main():
    """Measure everything and record it."""
    rows = [compare(shape) for shape in SHAPES]
    over_mambapy = [row["forward_backward_speedup_over_mambapy"] for row in rows]
    summary = {
        "forward_speedup_over_better_min": min(row["forward_speedup_over_better"] for row in rows),
        "forward_backward_speedup_over_mambapy_geometric_mean": math.prod(over_mambapy) ** (1 / len(rows)),
        "forward_backward_speedup_over_mambapy_min": min(over_mambapy),
        "extra_memory_over_mambapy_max": max(row["extra_memory_over_mambapy"] for row in rows),
        "exponent_of_time_in_length": growth_exponent(),
        "forward_share_of_limit_min": min(row["forward_share_of_limit"] for row in rows),
        "forward_backward_share_of_limit_min": min(row["forward_backward_share_of_limit"] for row in rows),
    }
    record("scan", rows, summary)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--memory"]:
        measure_memory(sys.argv[2], tuple(map(int, sys.argv[3:])))
    else:
        main()
