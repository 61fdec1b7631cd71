"""The benchmarks: each script still finds the code that it measures."""

import ast
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


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_a_script_that_times_torch_sets_the_wait_policy_first(path):
    """OpenMP reads the policy when torch is imported; later it has no effect, and idle threads spin."""
    source = path.read_text(encoding="utf-8")
    imports = [node for node in ast.parse(source).body if isinstance(node, ast.Import | ast.ImportFrom)]
    names = [getattr(node, "module", None) or node.names[0].name for node in imports]
    if "timing" in names and "torch" in names and "__main__" in source:
        assert names.index("mammo_lib") < min(names.index("torch"), names.index("timing"))
