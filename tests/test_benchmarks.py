"""The benchmarks: each script still finds what it measures."""

import runpy
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.mark.parametrize("path", sorted(BENCHMARKS.glob("*.py")), ids=lambda path: path.stem)
def test_a_benchmark_loads(path, monkeypatch):
    """All that it imports exists; nothing is measured."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    runpy.run_path(str(path), run_name="loaded")
