"""What a result depends on besides config and data: command, commit, versions, machine."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from ..config import ROOT, is_rehearsal
from ..files import file_hash
from .manifest import REHEARSED
from .protocols import PROTOCOL

RECORDED_PACKAGES = ("mammo-lib", "torch", "lightning", "timm", "numpy", "pandas", "scikit-learn", "pydicom", "numba")


def describe_environment(protocol: Path = PROTOCOL) -> dict:
    """Return what a result depends on besides config and data: commit, versions, machine, protocol, a rehearsal."""
    return {
        "command": _command(sys.argv),
        "commit": _git("rev-parse", "HEAD"),
        "is_dirty": bool(_git("status", "--porcelain", "--untracked-files=no")),
        "protocol_hash": file_hash(protocol) if protocol.is_file() else None,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cpu_count": os.cpu_count(),
        "threads": _threads(),
        "device": _device(),
        "packages": {name: _version(name) for name in RECORDED_PACKAGES},
    } | ({REHEARSED: True} if is_rehearsal() else {})


def _command(arguments: list[str]) -> str:
    """Return a command line without folders of this machine: absolute paths are cut to their last part."""
    program, *rest = arguments
    if "ipykernel" in program:
        return "notebook"
    return " ".join([Path(program).name, *map(_without_folders, rest)])


def _without_folders(argument: str) -> str:
    """Shorten ``/home/anna/cbis`` to ``cbis``, and ``--data=/home/anna/cbis`` to ``--data=cbis``."""
    head, equals, value = argument.rpartition("=")
    return head + equals + (Path(value).name if Path(value).is_absolute() else value)


def _device() -> str:
    """Name the GPU where torch is in use and has one, else the processor."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        return torch.cuda.get_device_name()
    from llvmlite import binding  # numba's: knows the processor's family on every system

    return binding.get_host_cpu_name()


def _threads() -> int | None:
    """Return how many threads torch uses, which determines the order of its sums; None without torch."""
    torch = sys.modules.get("torch")
    return None if torch is None else torch.get_num_threads()


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
