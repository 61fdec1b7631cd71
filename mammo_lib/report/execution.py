"""Executing notebooks: one after another or several at a time."""

from __future__ import annotations

import functools
import json
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, wait
from pathlib import Path

from ..config import ROOT, Profile
from ..files import alone, read_json, write_json
from ..runs.executor import open_executor
from . import steps as places
from .outcomes import NotebookFailed, StepOutcome
from .steps import Step
from .summary import write_summary

QUIET_KERNEL = ["--IPKernelApp.log_level=50"]  # else it may log its own shutdown as an error, amid the progress

# Chapters that train the profile's runs and open its test set. Later chapters read these runs and wait only for them;
# these chapters are the longest path and start first.
TRAINING = {"04", "05"}


def execute(step: Step, profile: Profile, *, show_cells: bool = True) -> float:
    """Execute one notebook and move it into the book when it is finished; return the seconds it took.

    ``show_cells`` draws a progress bar of the cells on a terminal.

    Raises
    ------
    NotebookFailed
        A cell raised an error, ran out of time, or ended the kernel.
    """
    import papermill
    from nbclient.exceptions import CellTimeoutError, DeadKernelError
    from papermill.exceptions import PapermillExecutionError

    places.STATE.mkdir(parents=True, exist_ok=True)
    places.EXECUTED.mkdir(parents=True, exist_ok=True)
    partial = places.STATE / f"{step.source.stem}.partial.ipynb"
    bar = {"desc": f"  {step.source.stem}", "leave": False, "disable": None if show_cells else True}
    started = time.perf_counter()
    try:
        papermill.execute_notebook(
            step.source, partial, parameters=step.parameters, cwd=places.SOURCE, kernel_name="python3",
            progress_bar=bar, start_timeout=120, extra_arguments=QUIET_KERNEL,
            # No limit for a cell: one may train a profile for days.
        )  # fmt: skip
    except PapermillExecutionError as error:
        raise NotebookFailed(step.source, error.cell_index, error.ename, error.evalue, error.source, partial) from error
    except (CellTimeoutError, DeadKernelError) as error:
        cell, source = _cell_at_work(partial)
        what = str(error).strip().splitlines()[0]
        if isinstance(error, DeadKernelError):
            what += " (most often because memory ran out)"
        raise NotebookFailed(step.source, cell, type(error).__name__, what, source, partial) from error
    _publish(partial, step)
    seconds = time.perf_counter() - started
    write_json(step.mark, {"key": step.key, "profile": profile.name, "seconds": round(seconds, 2)})
    return seconds


def run_chapters(
    steps: list[Step], profile: Profile, head: dict, jobs: int, *, keeps_going: bool = False
) -> Iterator[list[StepOutcome]]:
    """Execute the steps, ``jobs`` at a time; after each, update the summary and yield all outcomes so far.

    Raises
    ------
    InputError
        Another process is executing chapters of this checkout.
    """
    outcomes: list[StepOutcome] = []
    work = functools.partial(execute, profile=profile, show_cells=jobs == 1)
    places.STATE.mkdir(parents=True, exist_ok=True)
    refusal = (
        f"{places.STATE}: another mammo reproduce is running in this checkout; wait until it ends, or use another one"
    )
    # Processes, not threads: an interrupt ends them together with their kernels.
    with alone(places.STATE / ".lock", refusal), open_executor(jobs) as (pool, _):
        for outcome in run_steps(steps, work, pool, jobs, keeps_going=keeps_going):
            outcomes.append(outcome)
            write_summary(head, steps, outcomes)
            yield outcomes


def run_steps(
    steps: list[Step], work: Callable[[Step], float], pool: Executor, jobs: int, *, keeps_going: bool = False
) -> Iterator[StepOutcome]:
    """Yield the outcome of each step as it finishes, at most ``jobs`` at a time, each after the steps that it needs.

    ``work`` executes a step and returns the seconds. After a failure, running steps are finished, no new step starts,
    and the remaining steps are reported as not run. With ``keeps_going`` a failure stops nothing.
    """
    waiting, running, failed = list(steps), {}, False
    while running or (waiting and not failed):
        for step in _ready(waiting, running.values())[: 0 if failed else jobs - len(running)]:
            waiting.remove(step)
            if step.is_done:
                yield StepOutcome(step, "up to date")
            else:
                running[pool.submit(work, step)] = step
        for future in wait(running, return_when=FIRST_COMPLETED).done:
            outcome = _outcome(running.pop(future), future)
            failed |= outcome.status == "failed" and not keeps_going
            yield outcome
    yield from (StepOutcome(step, "not run") for step in waiting)


def _ready(waiting: list[Step], running) -> list[Step]:
    """Return the waiting steps whose requirements are done; first those that others wait for."""
    to_do = {step.number for step in [*waiting, *running]} & TRAINING
    ready = [step for step in waiting if not any(number < step.number for number in to_do)]
    return sorted(ready, key=lambda step: step.number not in TRAINING)


def _outcome(step: Step, future) -> StepOutcome:
    try:
        return StepOutcome(step, "done", future.result())
    except NotebookFailed as error:
        return StepOutcome(step, "failed", error=error)


def _cell_at_work(partial: Path) -> tuple[int, str]:
    """Return the index and source of the first code cell that the kernel never answered."""
    cells = read_json(partial)["cells"] if partial.exists() else []
    for index, cell in enumerate(cells):
        if cell["cell_type"] == "code" and "shell.execute_reply" not in cell["metadata"].get("execution", {}):
            return index, "".join(cell["source"])
    return 0, ""


def _publish(partial: Path, step: Step) -> None:
    """Move a finished notebook into the book, without paths of this machine and with one parameter cell."""
    notebook = read_json(partial)
    record = notebook["metadata"]["papermill"]
    record["input_path"] = step.source.relative_to(ROOT).as_posix()
    record["output_path"] = step.output.relative_to(ROOT).as_posix()
    for cell in notebook["cells"]:
        tags = cell["metadata"].get("tags", [])
        if "parameters" in tags and "remove-cell" not in tags:
            cell["metadata"]["tags"] = [*tags, "remove-cell"]  # the injected cell below it shows the values used
    partial.write_text(json.dumps(notebook, indent=1) + "\n", encoding="utf-8")
    os.replace(partial, step.output)
