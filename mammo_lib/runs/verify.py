"""Do the records hold? A record is trained again from scratch, and its numbers are compared with the recorded ones.

| verdict | means |
|---|---|
| bitwise | every value of the predictions and every metric is equal to the last bit |
| within rounding | no probability and no metric differs by more than the tolerance |
| different | one of them does |
| other data | the available data are not those of the record, so nothing was trained |
| failed | the run could not be made again |

The test rows of a record whose test set was opened are compared too. A test set that is closed stays closed.
"""

from __future__ import annotations

import datetime
import shutil
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import filelock
import numpy as np
import pandas as pd

from ..config import BUILD, closest
from ..config.identity import flat
from ..data.collection import Collection
from ..data.prepare import Prepared
from ..errors import InputError, writing_to
from ..files import alone, read_json, safe_name, try_folder, writable_file, write_json
from .environment import describe_environment
from .records import INCOMPLETE, Run, all_runs, start_run, whole_records

SCRATCH = BUILD / "verify"  # contains the runs whose results differed
TOLERANCE = 1e-6
KEYS = ["split", "sample_id"]
REPRODUCED = ("bitwise", "within rounding")
CAUSES = {"system": "system", "python": "Python", "device": "processor", "threads": "threads"}


@dataclass(frozen=True)
class Verification:
    """The outcome for one record: differing columns of its predictions, and how much probabilities and metrics differ.

    A difference is None if rows or metrics of the record are missing. ``auc`` gives, by split, the AUC of the record
    and the one found here, ``made_on`` the processor of the record, and ``causes``, in words, what else differs.
    """

    record: str
    verdict: str
    rows: int = 0
    columns: tuple[str, ...] = ()
    probability: float | None = None
    metric: float | None = None
    auc: dict[str, tuple[float, float]] = field(default_factory=dict)
    made_on: str | None = None
    causes: tuple[str, ...] = ()
    seconds: float = 0.0

    @property
    def is_reproduced(self) -> bool:
        """Whether the record holds, to the last bit or within the tolerance."""
        return self.verdict in REPRODUCED


def choose_records(home: Path, names: list[str]) -> list[Run]:
    """Return the records below a folder that ``names`` select: experiments, or ``experiment/run``; without names, all.

    Records for which nothing was trained are left out; `mammo external` and `mammo evaluate --incomplete` repeat them.

    Raises
    ------
    InputError
        The folder holds no record, none of that name, or one for which nothing was trained.
    """
    held = whole_records(home)
    runs = [run for run in held if not run.is_scored_only]
    if not runs:
        raise InputError(f"{home}: only scores of networks trained elsewhere, which no training repeats; give results/")
    known, scored = _names(runs), _names(held)
    for name in names:
        if name in known:
            continue
        if name in scored:
            command = "evaluate --incomplete" if name.startswith(INCOMPLETE) else "external"
            what = "only scores by networks of other records, which no training repeats"
            raise InputError(f"{home}: {name!r} holds {what}; `mammo {command}` makes them again")
        raise InputError(f"{home}: no record {name!r}{closest(name, known)}; `mammo list` names the experiments")
    return [run for run in runs if not names or {run.name, run.folder.parent.name} & set(names)]


def _names(runs: list[Run]) -> list[str]:
    """Return the names of experiments and of their runs."""
    return [*dict.fromkeys(run.folder.parent.name for run in runs), *(run.name for run in runs)]


def verify(
    record: Run, collection: Collection, tolerance: float = TOLERANCE, *, progress: bool = False
) -> Verification:
    """Train a record again in a separate folder and compare; the module's docstring lists the verdicts.

    Raises
    ------
    InputError
        Another process is training this record again.
    """
    busy = f"{SCRATCH / record.name}: another mammo verify is training this record again; wait until it ends"
    SCRATCH.mkdir(parents=True, exist_ok=True)
    with alone(SCRATCH / f".{safe_name(record.name)}.lock", busy):
        return _verify(record, collection, tolerance, progress=progress)


def _verify(record: Run, collection: Collection, tolerance: float, *, progress: bool) -> Verification:
    started = time.perf_counter()
    try:
        prepared = collection.prepare("train", *record.config.inputs)
        if prepared.fingerprint != record.environment["data_hash"]:
            cause = f"data {record.environment['data_hash'][:12]}, here {prepared.fingerprint[:12]}"
            return Verification(record.name, "other data", causes=(cause,))
        again = retrain(record, collection, prepared, progress=progress)
        found = compare(record, again, tolerance)
    except InputError as error:
        return Verification(record.name, "failed", causes=(str(error),), seconds=time.perf_counter() - started)
    if found["verdict"] == "bitwise":
        shutil.rmtree(again.folder)
    else:
        found["causes"] = what_has_changed(record.environment, again.environment)
    made_on = record.environment.get("device")
    return Verification(record.name, **found, made_on=made_on, seconds=time.perf_counter() - started)


def retrain(record: Run, collection: Collection, prepared: Prepared, *, progress: bool = False) -> Run:
    """Repeat a record's run; nothing from an earlier attempt is used, except prepared pixels and frozen features."""
    from ..training.train import complete
    from .evaluate import open_test_set

    folder = SCRATCH / record.name
    shutil.rmtree(folder, ignore_errors=True)
    run = start_run(record.config, prepared.fingerprint, folder=folder)
    complete(run, collection, prepared, progress=progress)
    if record.is_evaluated:
        open_test_set(run, collection, {"opened_again": record.receipt["opened_at"]})
    return run


def compare(record: Run, again: Run, tolerance: float) -> dict:
    """Return ``verdict rows columns probability metric auc`` of a record and its repeated run."""
    columns, probability = compare_scores(record.predictions, again.predictions)
    metric = compare_metrics(record.metrics, again.metrics)
    largest = max(np.inf if one is None else one for one in (probability, metric))
    verdict = "different" if largest > tolerance else "within rounding" if columns or largest else "bitwise"
    rows, splits = len(record.predictions), record.predictions["split"].unique()
    auc = compare_auc(record.metrics, again.metrics, splits)
    return {
        "verdict": verdict, "rows": rows, "columns": columns, "probability": probability, "metric": metric, "auc": auc
    }  # fmt: skip


def compare_scores(recorded: pd.DataFrame, found: pd.DataFrame) -> tuple[tuple[str, ...], float | None]:
    """Return the columns that differ, and the largest difference of a probability.

    The difference is None if rows, labels or folds differ, or if a probability is missing.
    """
    left, right = (frame.set_index(KEYS).sort_index() for frame in (recorded, found))
    if not left.index.equals(right.index):
        return tuple(KEYS), None
    right = right.reindex(columns=left.columns)
    columns = tuple(name for name in left if not left[name].equals(right[name]))
    difference = (left["probability"] - right["probability"]).abs().max(skipna=False)
    if pd.isna(difference) or set(columns) & {"label", "fold"}:
        return columns, None  # missing scores, or scores of other breasts
    return columns, float(difference)


def compare_metrics(recorded: dict, found: dict) -> float | None:
    """Return the largest difference of a recorded number; None if one is missing. Newer metrics do not count."""
    left, right = flat(recorded), flat(found)
    pairs = [(value, right.get(name)) for name, value in left.items()]
    numbers = [pair for pair in pairs if all(isinstance(one, int | float) for one in pair)]
    words = [pair for pair in pairs if pair not in numbers]  # a reason, an absent interval
    if any(one != other for one, other in words):
        return None
    return max((abs(one - other) for one, other in numbers), default=0.0)


def compare_auc(recorded: dict, found: dict, splits: Iterable[str]) -> dict[str, tuple[float, float]]:
    """Return split -> (AUC of the record, AUC found) wherever both have one."""
    pairs = {
        split: tuple(metrics.get(split, {}).get("auc", {}).get("value") for metrics in (recorded, found))
        for split in splits
    }
    return {split: pair for split, pair in pairs.items() if None not in pair}


def what_has_changed(before: dict, now: dict) -> tuple[str, ...]:
    """Return in words what differs between the environment of a record and this one, or was not recorded."""
    pairs = [(CAUSES[name], before.get(name), now.get(name)) for name in CAUSES]
    packages = before.get("packages", {}), now.get("packages", {})
    pairs += [(name, *(one.get(name) for one in packages)) for name in sorted({*packages[0], *packages[1]})]
    pairs += [("code", *(f"{one.get('commit')!s:.7}" for one in (before, now)))]
    return tuple(f"{name} {was or 'not recorded'}, here {here}" for name, was, here in pairs if was != here)


def write_outcome(path: Path, one: Verification, tolerance: float) -> None:
    """Add a verification to a file of outcomes by processor and record; entries of other processes are kept."""
    here = describe_environment()
    entry = {name: value for name, value in asdict(one).items() if name != "record"}
    entry |= {"tolerance": tolerance, "seconds": round(one.seconds, 1)}
    entry |= {name: here[name] for name in ("commit", "is_dirty", "threads", "system", "python")}
    entry["verified_at"] = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    path.parent.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(path.with_name(f".{path.name}.lock")):
        known = read_outcomes(path)
        on_this = known.get(here["device"], {}) | {one.record: entry}
        write_json(path, known | {here["device"]: on_this})


def check_target(path: Path) -> None:
    """Refuse a file of outcomes that cannot be written, before hours of training.

    Raises
    ------
    InputError
        The file holds something else, or its folder takes no file.
    """
    with writing_to(path, "give another file with --json"):
        read_outcomes(path)
        try_folder(writable_file(path).parent)


def read_outcomes(path: Path) -> dict[str, dict[str, dict]]:
    """Return processor -> record -> outcome from a file; older entries, without a processor, are left out.

    Raises
    ------
    InputError
        The file is something else.
    """
    way_out = "give another file, or delete it"
    if path.exists() and not path.is_file():
        raise InputError(f"{path}: not a file of outcomes of mammo verify; {way_out}")
    held = read_json(path, way_out) if path.is_file() else {}
    known = {processor: found for processor, found in held.items() if not _is_outcome(found)}
    if not all(isinstance(found, dict) and all(map(_is_outcome, found.values())) for found in known.values()):
        raise InputError(f"{path}: contains something other than outcomes of mammo verify; {way_out}")
    return known


def _is_outcome(entry: object) -> bool:
    return isinstance(entry, dict) and "verdict" in entry


def records_badge(home: Path) -> dict:
    """Return how many records below a folder hold, by its ``verified.json``, as an endpoint badge of shields.io.

    It counts the records that were verified, and says how many there are. Red: at least one of them does not hold. An
    attempt on a processor other than the record's says nothing about the record and does not count. If a record does
    not name its processor, every attempt counts.
    """
    path, holds = home / "verified.json", {}
    for processor, outcomes in read_outcomes(path).items():
        for name, one in outcomes.items():
            if one["made_on"] in (None, processor):
                holds[name] = holds.get(name, True) and one["verdict"] in REPRODUCED
    held = sum(holds.values())
    color = "lightgrey" if not holds else "brightgreen" if held == len(holds) else "red"
    known = sum(not run.is_scored_only for run in all_runs(home))
    message = f"{held} of {len(holds)} tried, {known} in all"
    return {"schemaVersion": 1, "label": "records reproduced", "message": message, "color": color}
