"""Set-up of all tests: compile the scan once, keep tests with a shared fixture in one worker, skip GPU tests."""

import gc
import os
import shutil
import subprocess
import sys

import pytest

# Without a GPU the Triton kernels run under Triton's interpreter, which checks their arithmetic. Read at import.
if shutil.which("nvidia-smi") is None:
    os.environ.setdefault("TRITON_INTERPRET", "1")

# Two workers with two OpenMP threads each fight over two cores (measured: six times slower).
if os.environ.get("PYTEST_XDIST_WORKER"):
    os.environ.setdefault("OMP_NUM_THREADS", "1")


COMPILE = """
import torch
from mammo_lib.ops.scan_cpu import compile_kernel
for dtype in (torch.float32, torch.float64):
    for name in ("forward", "backward"):
        compile_kernel(name, dtype)
"""


def pytest_configure(config):
    """Compile the scan once, while the workers start; otherwise each of them would compile it, slowly with coverage."""
    if getattr(config.option, "numprocesses", None) and not hasattr(config, "workerinput"):
        config.compiler = subprocess.Popen([sys.executable, "-c", COMPILE])


def pytest_collection_finish():
    """Freeze what has been imported so far, so that the garbage collector does not scan it again and again."""
    gc.freeze()


def pytest_unconfigure(config):
    if hasattr(config, "compiler"):
        config.compiler.wait()


def pytest_itemcollected(item):
    """Send notebooks, which share run folders, to one worker; likewise the tests of a file with a shared fixture."""
    if item.path.suffix == ".ipynb":
        item.add_marker(pytest.mark.xdist_group("notebooks"))
    elif any(found[-1].scope == "module" for found in item._fixtureinfo.name2fixturedefs.values() if found):
        item.add_marker(pytest.mark.xdist_group(item.nodeid.partition("::")[0]))


def pytest_collection_modifyitems(items):
    """Skip GPU tests where there is no GPU, and say so."""
    gpu_items = [item for item in items if item.get_closest_marker("gpu")]
    if not gpu_items:
        return
    import torch

    if not torch.cuda.is_available():
        for item in gpu_items:
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))
