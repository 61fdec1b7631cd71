"""Run folders: one config, one seed, one data set, executed once into one folder.

A folder ``<experiment>/seed<seed>-<hash>`` holds ``config.json environment.json
history.csv predictions.parquet metrics.json``, and what the gates did in ``gates.parquet
gate_history.parquet interventions.parquet``; the metrics are written last, so a run
with metrics is a finished run. The hash covers the config and the data, so equal
work has an equal folder: a finished run is read, never redone, and an unfinished one
is resumed. Committed records of real runs live in ``results/``, new ones in
``_build/runs/``; both have the same form.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pandas as pd

from ..config import BUILD, MATERIAL, RETRAIN, ROOT, RunConfig, completed, fingerprint
from ..errors import InputError
from ..files import file_hash, read_json, read_table, with_numbers, write_json, write_parquet

COMMITTED = ROOT / "results"
FRESH = BUILD / "runs"
PROTOCOL = MATERIAL / "book" / "protocol.md"
PROTOCOL_2 = MATERIAL / "book" / "protocol-2.md"  # of cross-validations
RECORDED_PACKAGES = ("mammo-lib", "torch", "lightning", "timm", "numpy", "pandas", "scikit-learn", "pydicom", "numba")


@dataclass(frozen=True)
class Run:
    """A run folder and what can be read from it."""

    folder: Path

    @property
    def config(self) -> RunConfig:
        """The config the run was made with."""
        return RunConfig.model_validate(completed(self._json("config.json")))

    @property
    def environment(self) -> dict:
        """Commit, versions, device, data and protocol hashes, command."""
        return self._json("environment.json")

    @property
    def is_finished(self) -> bool:
        """Whether training and validation are complete."""
        return (self.folder / "metrics.json").is_file()

    @property
    def is_evaluated(self) -> bool:
        """Whether the test set has been opened for this run."""
        return self.is_finished and "test" in self.metrics

    @property
    def metrics(self) -> dict:
        """``metrics[split][name] = {value, low, high, n}``."""
        return self._json("metrics.json")

    @property
    def history(self) -> pd.DataFrame:
        """One row per epoch."""
        path = self._existing("history.csv")
        table = read_table(path, ["epoch"], "delete the run folder and run it again")
        return with_numbers(path, table, table.columns)

    @property
    def predictions(self) -> pd.DataFrame:
        """One row per breast and opened split."""
        return pd.read_parquet(self._existing("predictions.parquet"))

    @property
    def receipt(self) -> dict | None:
        """What was known when the test set was opened for this run; None where it was not."""
        return self._json("receipt.json") if (self.folder / "receipt.json").is_file() else None

    @property
    def name(self) -> str:
        """``<experiment>/<folder>``, the same wherever the record lies."""
        return f"{self.folder.parent.name}/{self.folder.name}"

    @property
    def gates(self) -> pd.DataFrame | None:
        """One row per breast, opened split and gate of the kept weights; None where the network has no gate."""
        return self._table("gates.parquet")

    @property
    def gate_history(self) -> pd.DataFrame | None:
        """One row per epoch and gate, over the validation breasts; None where the network has no gate."""
        return self._table("gate_history.parquet")

    @property
    def interventions(self) -> pd.DataFrame | None:
        """One row per breast, opened split, intervention and draw: the logit; None for a baseline."""
        return self._table("interventions.parquet")

    @property
    def checkpoint(self) -> Path:
        """The weights that were best on validation; absent from committed records."""
        return self.folder / "best.ckpt"

    def finish(self, predictions: pd.DataFrame, metrics: dict) -> None:
        """Write the predictions, then the metrics whose presence marks the run as finished."""
        write_parquet(self.folder / "predictions.parquet", predictions)
        write_json(self.folder / "metrics.json", metrics)

    def _table(self, name: str) -> pd.DataFrame | None:
        path = self.folder / name
        return pd.read_parquet(path) if path.is_file() else None

    def _existing(self, name: str) -> Path:
        path = self.folder / name
        if not path.is_file():
            raise InputError(f"{path}: missing from the run record; delete the folder and run it again")
        return path

    def _json(self, name: str) -> dict:
        return read_json(self._existing(name), "delete the run folder and run it again")


def run_name(config: RunConfig, data_hash: str) -> str:
    """Return ``seed<seed>-<hash>``, the same for the same config and data."""
    return f"seed{config.seed}-{fingerprint([config.fingerprint, data_hash])[:12]}"


def find_run(config: RunConfig, data_hash: str) -> Run | None:
    """Return the finished run of this config on this data, the committed record first; None if there is none.

    With ``MAMMO_RETRAIN=1`` (``mammo reproduce --retrain``) committed records do not count; this machine's own do, so
    that a killed retraining resumes.
    """
    for home in (FRESH,) if os.environ.get(RETRAIN) == "1" else (COMMITTED, FRESH):
        run = Run(home / config.experiment / run_name(config, data_hash))
        if run.is_finished:
            return run
    return None


def start_run(config: RunConfig, data_hash: str, folder: Path | None = None) -> Run:
    """Make (or re-enter, after a kill) a run's folder, by default its fresh one; record config and environment."""
    run = Run(folder or FRESH / config.experiment / run_name(config, data_hash))
    run.folder.mkdir(parents=True, exist_ok=True)
    write_json(run.folder / "config.json", config.model_dump(mode="json"))
    protocol = PROTOCOL_2 if folder or config.data.fold == "each" else PROTOCOL
    write_json(run.folder / "environment.json", describe_environment(protocol) | {"data_hash": data_hash})
    return run


def all_runs(home: Path) -> Iterator[Run]:
    """Yield every finished run below ``home``, ordered by experiment and seed."""
    for path in sorted(home.glob("*/*/metrics.json")):
        yield Run(path.parent)


def part_of(predictions: pd.DataFrame, split: str) -> pd.DataFrame:
    """Return the rows of a split."""
    return predictions[predictions["split"] == split].reset_index(drop=True)


def publish(run: Run) -> Path:
    """Copy a finished run's record, without its checkpoints, to where records are committed."""
    target = COMMITTED / run.folder.parent.name / run.folder.name
    left_out = shutil.ignore_patterns("*.ckpt", "*.lock", ".*", "fold[0-9]*")  # what the folds say stands in the run
    shutil.copytree(run.folder, target, dirs_exist_ok=True, ignore=left_out)
    return target


def describe_environment(protocol: Path = PROTOCOL) -> dict:
    """Say what a result depends on besides config and data."""
    return {
        "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]) if "ipykernel" not in sys.argv[0] else "notebook",
        "commit": _git("rev-parse", "HEAD"),
        "is_dirty": bool(_git("status", "--porcelain", "--untracked-files=no")),
        "protocol_hash": file_hash(protocol) if protocol.is_file() else None,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cpu_count": os.cpu_count(),
        "device": _device(),
        "packages": {name: _version(name) for name in RECORDED_PACKAGES},
    }


def _device() -> str:
    """Name the GPU where torch is in use and has one, else the processor."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        return torch.cuda.get_device_name()
    from llvmlite import binding  # numba's: knows the processor's family on every system

    return binding.get_host_cpu_name()


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
