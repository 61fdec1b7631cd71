"""The benchmarks: each script still finds the code that it measures."""

import runpy
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
SCRIPTS = sorted(BENCHMARKS.glob("*.py"))


@pytest.fixture
def neighbours(monkeypatch):
    """Scripts import each other by name; what they import so is forgotten afterwards."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    yield
    for path in SCRIPTS:
        sys.modules.pop(path.stem, None)


@pytest.mark.usefixtures("neighbours")
@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_a_benchmark_loads(path):
    """All that it imports exists; nothing is measured."""
    runpy.run_path(str(path), run_name="loaded")
