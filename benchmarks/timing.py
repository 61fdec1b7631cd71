"""Code shared by the benchmarks: paired medians, and a table that names the command and the machine."""

from __future__ import annotations

import json
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

HERE = Path(__file__).resolve().parent


def paired_medians(sides: dict[str, Callable], repeats: int) -> dict[str, float]:
    """Run the sides in turn, ``repeats`` times after a warm-up; return the median seconds of each."""
    return {name: statistics.median(values) for name, values in paired_seconds(sides, repeats).items()}


def paired_seconds(sides: dict[str, Callable], repeats: int) -> dict[str, list[float]]:
    """Run the sides in turn, ``repeats`` times after a warm-up; return the seconds of each, in order."""
    seconds = {name: [] for name in sides}
    for run in range(repeats + 1):
        for name, call in sides.items():
            started = time.perf_counter()
            call()
            if run:
                seconds[name].append(time.perf_counter() - started)
    return seconds


def quartiles_of_speed(own: list[float], other: list[float]) -> list[float]:
    """Return the quartiles of the speed of one side over another, from times measured in turn."""
    return statistics.quantiles([b / a for a, b in zip(own, other, strict=True)], n=4, method="inclusive")


def record(name: str, rows: list[dict], summary: dict) -> None:
    """Write ``<name>.json`` beside the scripts and print it as a table."""
    command = " ".join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *sys.argv[1:]])
    content = {"command": command, "machine": machine(), "summary": summary, "rows": rows}
    (HERE / f"{name}.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    for row in rows:
        print(
            "  ".join(
                f"{key}={value:.4g}" if isinstance(value, float) else f"{key}={value}" for key, value in row.items()
            )
        )
    print(json.dumps(summary, indent=1))


def machine() -> dict:
    """Return the facts about this machine on which times depend."""
    return {
        "processor": _processor(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
    }


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor()
