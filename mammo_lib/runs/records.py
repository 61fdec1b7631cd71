"""Run folders: one config, one seed, one data set, executed once into one folder.

A folder ``<experiment>/seed<seed>-<hash>`` holds ``config.json environment.json
history.csv predictions.parquet metrics.json``, and gates in ``gates.parquet gate_history.parquet
interventions.parquet``. The metrics are written last, so a run with metrics is finished.
``manifest.json`` contains the hashes of these files, which are verified whenever the record is
read. The hash in the folder's name covers config and data, so equal runs have equal folders: a
finished run is read, never repeated, and an unfinished run is resumed. Committed records of
real runs are in ``results/``, new ones in ``_build/runs/``; both have the same form.
"""

from __future__ import annotations

import math
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import filelock
import pandas as pd
from pydantic import ValidationError

from ..config import BUILD, RETRAIN, ROOT, RunConfig, completed, describe, fingerprint
from ..config.checkpoints import weights_hash
from ..errors import InputError
from ..files import file_state, read_json, read_table, with_numbers, write_bytes, write_json, write_parquet
from .environment import describe_environment
from .manifest import CHECKPOINT, MANIFEST, METRICS, RECORD, RELEASED, WAY_OUT, check_files, write_manifest
from .protocols import protocol_of

COMMITTED = ROOT / "results"
FRESH = BUILD / "runs"
EXTERNAL = "external_"  # how the name of a record begins that holds scores on another collection
INCOMPLETE = "incomplete_"  # or on test breasts with films missing
ONE_FILM = "one_film"  # the split of test breasts with a mass annotated in one view only
ENVIRONMENT = {"commit", "data_hash", "packages", "python", "system"}  # what every record says of its making
RECEIPT = ("opened_at", "profile", "runs", "protocol_hash")  # and "added_after", if a profile's list was opened


@dataclass(frozen=True)
class Run:
    """A run folder and its contents."""

    folder: Path

    @property
    def config(self) -> RunConfig:
        """The config of the run."""
        path = self._existing("config.json")
        return _read_config(path, file_state(path))

    @property
    def fingerprint(self) -> str:
        """The fingerprint of the run's config."""
        path = self._existing("config.json")
        return _fingerprint_of(path, file_state(path))

    @property
    def environment(self) -> dict:
        """Commit, versions, device, data and protocol hashes, command."""
        environment = self._json("environment.json")
        for name in sorted(ENVIRONMENT & environment.keys()):
            if not isinstance(environment[name], dict if name == "packages" else str | None):
                said = f"{name} is {environment[name]!r:.80}"
                raise InputError(f"{self.folder / 'environment.json'}: {said}, not what a run records; {WAY_OUT}")
        return environment

    @property
    def is_finished(self) -> bool:
        """Whether training and validation are complete."""
        return (self.folder / METRICS).is_file()

    @property
    def is_evaluated(self) -> bool:
        """Whether the test set has been opened for this run."""
        return self.is_finished and "test" in self.metrics

    @property
    def is_scored_only(self) -> bool:
        """Whether nothing was trained for the record: it holds scores of another run's network on other films."""
        return self.folder.parent.name.startswith((EXTERNAL, INCOMPLETE))

    @property
    def metrics(self) -> dict:
        """``metrics[split][name] = {value, low, high, n}``."""
        metrics = self._json(METRICS)
        if not metrics or not all(isinstance(one, dict) for one in metrics.values()):
            raise InputError(f"{self.folder / METRICS}: holds no metrics by split; {WAY_OUT}")
        for split, found in metrics.items():
            for name, one in found.items():
                if not _is_metric(one):
                    said = f"{name} of {split} is {one!r:.80}"
                    raise InputError(f"{self.folder / METRICS}: {said}, not a metric and its interval; {WAY_OUT}")
        return metrics

    @property
    def history(self) -> pd.DataFrame:
        """One row per epoch."""
        return self._table("history.csv", ("epoch",))

    @property
    def predictions(self) -> pd.DataFrame:
        """One row per breast and opened split."""
        path = self._existing("predictions.parquet")
        return _read_predictions(path, file_state(path)).copy()  # a caller's changes stay with the caller

    @property
    def choices(self) -> tuple[float, float]:
        """The decision threshold and the temperature, chosen on validation."""
        frame = self.predictions
        found = [frame[name].iloc[0] if name in frame and len(frame) else None for name in ("threshold", "temperature")]
        if None in found or not all(isinstance(one, float) and math.isfinite(one) for one in found) or found[1] <= 0:
            raise InputError(
                f"{self.folder / 'predictions.parquet'}: threshold and temperature must be finite numbers, the "
                f"temperature above 0, got {found[0]} and {found[1]}; {WAY_OUT}"
            )
        return float(found[0]), float(found[1])

    @property
    def receipt(self) -> dict | None:
        """The receipt of the opening of the test set for this run; None if it has not been opened."""
        if self._optional("receipt.json") is None:
            return None
        receipt = self._json("receipt.json")
        wanted = (*RECEIPT, "added_after") if receipt.get("profile") else RECEIPT
        if missing := [name for name in wanted if name not in receipt]:
            raise InputError(f"{self.folder / 'receipt.json'}: {', '.join(missing)} missing; {WAY_OUT}")
        return receipt

    @property
    def name(self) -> str:
        """``<experiment>/<folder>``, independent of the record's location."""
        return f"{self.folder.parent.name}/{self.folder.name}"

    @property
    def gates(self) -> pd.DataFrame | None:
        """One row per breast, opened split and gate of the kept weights; None if the network has no gates."""
        return self._optional_table("gates.parquet", ("split", "sample_id"))

    @property
    def gate_history(self) -> pd.DataFrame | None:
        """One row per epoch and gate, over the validation breasts; None if the network has no gates."""
        return self._optional_table("gate_history.parquet", ("epoch",))

    @property
    def interventions(self) -> pd.DataFrame | None:
        """One row per breast, opened split, intervention and draw: the logit; None for a baseline."""
        return self._optional_table("interventions.parquet", ("split", "sample_id"))

    @property
    def hidden_inputs(self) -> pd.DataFrame | None:
        """One row per held-out breast and combination of inputs: the logit; None for a network with one input."""
        return self._optional_table("hidden_inputs.parquet", ("split", "sample_id"))

    @property
    def targets(self) -> pd.DataFrame | None:
        """One row per held-out breast and class of a further target: its probability; None without further targets."""
        return self._optional_table("targets.parquet", ("split", "sample_id"))

    @property
    def checkpoint(self) -> Path:
        """The weights that the run kept: a released network's, else its checkpoint, absent from committed records."""
        released = self.folder / RELEASED
        return released if released.is_file() else self.folder / CHECKPOINT

    def finish(self, predictions: pd.DataFrame, metrics: dict) -> None:
        """Write the predictions, the manifest and, last, the metrics, whose presence marks the run as finished."""
        write_parquet(self.folder / "predictions.parquet", predictions)
        coming = self.folder / ".metrics.json"
        write_json(coming, metrics)
        write_manifest(self.folder, coming)
        os.replace(coming, self.folder / METRICS)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the run's lock, and remove incomplete files of killed processes."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(self.folder / ".lock"):
            for pattern in (*(f".{name}*" for name in (*RECORD, MANIFEST)), ".*.ckpt*"):
                for partial in self.folder.glob(pattern):
                    partial.unlink(missing_ok=True)
            yield

    def refuse_damage(self) -> None:
        """Raise an :class:`InputError` for a finished record that is damaged or rehearsed; none of it is read."""
        if self.is_finished and (faults := check_files(self.folder)):
            raise InputError(faults[0])

    def faults(self) -> list[str]:
        """Return the faults of the record, one line each: damaged, foreign, missing or unreadable files."""
        if found := check_files(self.folder):
            return found
        unproved = f"{self.folder / MANIFEST}: missing, so that no damage can be noticed; {WAY_OUT}"
        readings = ("config", "environment", "metrics", "predictions", "receipt", "gates", "gate_history",
                    "interventions", "hidden_inputs", "targets",
                    *(["history"] if (self.folder / "history.csv").is_file() else []))  # fmt: skip
        found = [] if (self.folder / MANIFEST).is_file() else [unproved]
        found += filter(None, map(self._fault_of, readings))
        return found or [*filter(None, [self._fault_of_environment() or self._fault_of_name()])]

    def _fault_of(self, reading: str) -> str | None:
        try:
            getattr(self, reading)
        except InputError as error:
            return str(error)
        return None

    def _fault_of_environment(self) -> str | None:
        if missing := sorted(ENVIRONMENT - self.environment.keys()):
            return f"{self.folder / 'environment.json'}: {', '.join(missing)} missing; {WAY_OUT}"
        return None

    def _fault_of_name(self) -> str | None:
        """Return a fault if the folder's generated name does not match config and data; other names are not checked."""
        wanted = run_name(self.config, self.environment["data_hash"])
        if self.folder.name == wanted or not re.fullmatch(r"seed\d+-[0-9a-f]{12}", self.folder.name):
            return None
        return f"{self.folder}: config and data are those of {wanted}, another run; {WAY_OUT}"

    def _optional_table(self, name: str, columns: tuple[str, ...]) -> pd.DataFrame | None:
        return self._table(name, columns) if self._optional(name) else None

    def _table(self, name: str, columns: tuple[str, ...]) -> pd.DataFrame:
        path = self._existing(name)
        if path.suffix == ".csv":
            table = read_table(path, columns, WAY_OUT)
            return with_numbers(path, table, table.columns)
        return _read_parquet(path, columns)

    def _existing(self, name: str) -> Path:
        path = self._optional(name)
        if path is None:
            raise InputError(f"{self.folder / name}: missing from the run record; {WAY_OUT}")
        return path

    def _optional(self, name: str) -> Path | None:
        self.refuse_damage()
        path = self.folder / name
        return path if path.is_file() else None

    def _json(self, name: str) -> dict:
        return read_json(self._existing(name), WAY_OUT)


def _is_metric(one: object) -> bool:
    """Whether it has a ``value``, and ``value``, ``low``, ``high`` and ``n``, where given, are numbers or null."""
    if not isinstance(one, dict) or "value" not in one:
        return False
    return all(type(one.get(name)) in (int, float, type(None)) for name in ("value", "low", "high", "n"))


@lru_cache(maxsize=1024)
def _read_config(path: Path, _state: tuple) -> RunConfig:
    """Return the config in a record, read once per state of its file: chapters ask for it thousands of times."""
    try:
        return RunConfig.model_validate(completed(read_json(path, WAY_OUT)))
    except ValidationError as error:
        raise InputError(f"{path}: {describe(error)}; {WAY_OUT}") from None


@lru_cache(maxsize=1024)
def _fingerprint_of(path: Path, state: tuple) -> str:
    return _read_config(path, state).fingerprint


@lru_cache(maxsize=1024)
def _read_predictions(path: Path, _state: tuple) -> pd.DataFrame:
    """Return the predictions of a record, read once per state of their file: each answer needs those of many runs."""
    frame = _read_parquet(path, ("split", "label", "probability"))
    if not frame["probability"].between(0, 1).all():
        raise InputError(f"{path}: probabilities outside [0, 1]; {WAY_OUT}")
    return frame


def _read_parquet(path: Path, columns: tuple[str, ...]) -> pd.DataFrame:
    try:
        frame = pd.read_parquet(path)
    except Exception as error:  # a damaged table can raise anything: of pandas, of pyarrow
        raise InputError(f"{path}: not a readable table ({type(error).__name__}); {WAY_OUT}") from None
    if missing := [column for column in columns if column not in frame]:
        raise InputError(f"{path}: the column {missing[0]!r} is missing; {WAY_OUT}")
    return frame


def run_name(config: RunConfig, data_hash: str) -> str:
    """Return ``seed<seed>-<hash>``, the same for the same config and data."""
    return f"seed{config.seed}-{fingerprint([config.fingerprint, data_hash])[:12]}"


def find_run(config: RunConfig, data_hash: str) -> Run | None:
    """Return the finished run of this config on this data, the committed record first; None if there is none.

    A damaged record is an :class:`InputError`.

    So is a run that started from a pretrained checkpoint other than the one that now has its name.

    With ``MAMMO_RETRAIN=1`` (``mammo reproduce --retrain``) committed records are ignored. Records made on this machine
    are not, so that a killed retraining resumes.
    """
    for home in (FRESH,) if os.environ.get(RETRAIN) == "1" else (COMMITTED, FRESH):
        run = Run(home / config.experiment / run_name(config, data_hash))
        if run.is_finished:
            run.refuse_damage()
            _refuse_other_weights(run, config)
            return run
    return None


def _refuse_other_weights(run: Run, config: RunConfig) -> None:
    known, found = run.environment.get("weights_hash"), weights_hash(config.model)
    if known and found and known != found:
        raise InputError(
            f"{run.folder}: it started from weights with SHA-256 {known[:12]}, and {config.model.weights!r} now has "
            f"{found[:12]}; give the new checkpoint another name (model.weights), or move the run's folder away"
        )


def fresh_run(config: RunConfig, data_hash: str) -> Run:
    """Return the run's folder on this machine, whether it has been started or not."""
    return Run(FRESH / config.experiment / run_name(config, data_hash))


def start_run(
    config: RunConfig,
    data_hash: str,
    folder: Path | None = None,
    data_set: str | None = None,
    protocol: Path | None = None,
    **facts: object,
) -> Run:
    """Make (or re-enter, after a kill) a run's folder, by default its fresh one; record config and environment.

    ``data_set`` is the name of what it is trained on, for people; ``facts`` are recorded beside it. ``protocol`` is
    by default the one that the config names, that of cross-validations where it is one, else the first.
    """
    run = Run(folder) if folder else fresh_run(config, data_hash)
    run.folder.mkdir(parents=True, exist_ok=True)
    if run.is_finished:  # by another process, since this one looked
        return run
    if (run.folder / "environment.json").is_file():
        _refuse_other_weights(run, config)
    write_json(run.folder / "config.json", config.model_dump(mode="json"))
    protocol = protocol or protocol_of(config, is_fold=folder is not None)
    described = describe_environment(protocol) | {"data_hash": data_hash, "data_set": data_set} | facts
    if found := weights_hash(config.model):
        described["weights_hash"] = found
    write_json(run.folder / "environment.json", described)
    return run


def all_runs(home: Path) -> Iterator[Run]:
    """Yield every finished run below ``home``, ordered by experiment and seed."""
    for path in sorted(home.glob(f"*/*/{METRICS}")):
        yield Run(path.parent)


def records_in(home: Path) -> list[Run]:
    """Return the finished records in or below a folder, ordered by path, damaged ones included.

    Raises
    ------
    InputError
        The folder is missing or contains no record.
    """
    folders = sorted({path.parent for name in ("config.json", METRICS) for path in home.rglob(name)})
    finished = [run for run in map(Run, folders) if run.is_finished or (run.folder / MANIFEST).is_file()]
    if not finished:
        raise InputError(f"{home}: no record of a finished run here or below; give a run's folder, or results/")
    return finished


def whole_records(home: Path) -> list[Run]:
    """Return what :func:`records_in` finds, without the folds of cross-validations, which are parts of a record."""
    return [run for run in records_in(home) if not (run.folder.parent / "config.json").is_file()]


def check_records(home: Path) -> tuple[int, list[str]]:
    """Return the number of finished records in or below a folder, and their faults, one line each.

    Raises
    ------
    InputError
        The folder is missing or contains no record.
    """
    finished = records_in(home)
    return len(finished), [fault for run in finished for fault in run.faults()]


def runs_by_config() -> dict[str, Run]:
    """Return every finished run by its config's fingerprint, of this machine or committed, the committed one first.

    Records are found by their config, whatever data they were made on.
    """
    return {run.fingerprint: run for home in (FRESH, COMMITTED) for run in all_runs(home)}


def finished_of(configs: Iterable[RunConfig], known: Mapping[str, Run] | None = None) -> list[Run]:
    """Return the finished runs of some configs, in their order; ``known`` is :func:`runs_by_config`, read once."""
    known = runs_by_config() if known is None else known
    return [known[config.fingerprint] for config in configs if config.fingerprint in known]


def part_of(predictions: pd.DataFrame, split: str) -> pd.DataFrame:
    """Return the rows of a split."""
    return predictions[predictions["split"] == split].reset_index(drop=True)


def publish(run: Run) -> Path:
    """Copy a finished run's record, without its checkpoints, to ``results/``, where records are committed."""
    target = COMMITTED / run.folder.parent.name / run.folder.name
    copy_record(run, target)
    return target


def copy_record(run: Run, target: Path) -> Run:
    """Copy a finished run's record without its checkpoints, and without its folds, whose content is in the run.

    The metrics, which make a run a finished one, come last: a killed copy is no record.
    """
    run.refuse_damage()
    left_out = shutil.ignore_patterns("*.ckpt", "*.lock", ".*", "fold[0-9]*", METRICS)
    shutil.copytree(run.folder, target, dirs_exist_ok=True, ignore=left_out)
    write_bytes(target / METRICS, (run.folder / METRICS).read_bytes())
    return Run(target)
