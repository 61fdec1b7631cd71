"""The record of a reproduction: ``_build/summary.json`` and an RO-Crate."""

from __future__ import annotations

import datetime
import os
from pathlib import Path

from ..config import BUILD, RETRAIN, ROOT, Profile
from ..files import read_json, write_json
from ..runs import records
from ..runs.crate import add_reproduction, add_run, new_crate, write_crate
from ..runs.environment import describe_environment
from ..runs.experiments import experiment_configs
from .outcomes import StepOutcome
from .steps import Step

SUMMARY = BUILD / "summary.json"


def start_summary(profile: Profile, data_hash: dict, parameters: dict) -> dict:
    """Return the head of the machine-readable summary: profile, data, versions and machine."""
    environment = describe_environment()
    return {
        "command": environment["command"],
        "profile": profile.name,
        "parameters": parameters,
        "retrain": os.environ.get(RETRAIN) == "1",
        "data_hash": data_hash,
        "commit": environment["commit"],
        "is_dirty": environment["is_dirty"],
        "protocol_hash": environment["protocol_hash"],
        "versions": environment["packages"] | {"python": environment["python"]},
        "system": environment["system"],
        "device": environment["device"],
        "cpu_count": environment["cpu_count"],
        "started_at": _now(),
    }


def write_summary(head: dict, steps: list[Step], outcomes: list[StepOutcome], book: Path | None = None) -> None:
    """Write ``_build/summary.json``: the head, then per notebook its status, seconds, key and error."""
    by_source = {outcome.step.source: outcome for outcome in outcomes}
    notebooks = [_summarised(by_source.get(step.source, StepOutcome(step, "not run"))) for step in steps]
    SUMMARY.parent.mkdir(parents=True, exist_ok=True)
    shown = book.relative_to(ROOT).as_posix() if book else None
    write_json(SUMMARY, head | {"updated_at": _now(), "notebooks": notebooks, "book": shown})


def describe_as_crate(profile: Profile, steps: list[Step], book: Path) -> Path:
    """Write an RO-Crate of a finished reproduction, and of this machine's runs of its profile; return its path."""
    crate = new_crate(
        "Mammo-Mamba, reproduced: a reproduction", "The notebooks, executed, the book and the runs behind them."
    )
    add_reproduction(
        crate,
        read_json(SUMMARY),
        [step.source for step in steps],
        [*(step.output for step in steps), SUMMARY, book],
        ROOT,
    )
    wanted = {config.fingerprint for config in experiment_configs(profile, "all")}
    for run in records.all_runs(records.FRESH):
        if run.fingerprint in wanted:
            add_run(crate, run, ROOT)
    return write_crate(crate, ROOT)


def _summarised(outcome: StepOutcome) -> dict:
    error = outcome.error
    described = {"cell": error.cell, "message": str(error), "partial": error.partial.as_posix()} if error else None
    return {
        "notebook": outcome.step.source.stem,
        "status": outcome.status,
        "seconds": None if outcome.seconds is None else round(outcome.seconds, 2),
        "key": outcome.step.key,
        "error": described,
    }


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
