"""The whole report by one command: data, every notebook in order with papermill, then the book.

Finished notebooks are kept in ``book/notebooks``. A notebook runs again only if its
source, its parameters, the library, the protocol, the profile or the data have changed, so a
killed reproduction resumes. A failed notebook never replaces a good page.
"""

from __future__ import annotations

import datetime
import functools
import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from .config import BUILD, RETRAIN, ROOT, Profile
from .errors import InputError
from .files import alone, read_json, write_json
from .runs import records
from .runs.crate import add_reproduction, add_run, new_crate, write_crate
from .runs.environment import describe_environment
from .runs.executor import open_executor
from .runs.experiments import experiment_configs

SOURCE = ROOT / "notebooks"
EXECUTED = ROOT / "book" / "notebooks"
STATE = BUILD / "papermill"
SUMMARY = BUILD / "summary.json"
DEFAULT_BOOK = "mirror"  # the profile whose records the book shows if no images are given
SHOWN = (  # folder and name of what every chapter may show or say, whatever its profile
    ("mammo_lib", "*.py"),
    ("book", "*.json"), ("book", "*.csv"), ("book", "protocol*.md"), ("book/profiles", "*.yaml"),
    ("results", "metrics.json"), ("results", "receipt.json"), ("results", "what_did_not_help.csv"),
    ("results", "test_set_shift.json"), ("results", "calcification_baselines.json"),
    ("benchmarks", "*.json"), ("released", "*"), ("sample", "*.csv"),
)  # fmt: skip
QUIET_KERNEL = ["--IPKernelApp.log_level=50"]  # else it may log its own shutdown as an error, amid the progress

# Chapters that train the profile's runs and open its test set. Later chapters read these runs and wait only for them;
# these chapters are the longest path and start first.
TRAINING = {"04", "05"}


class NotebookFailed(RuntimeError):  # noqa: N818  (an event, reported as one)
    """A notebook stopped with an error; ``partial`` is its copy, executed up to the error."""

    def __init__(self, notebook: Path, cell: int, name: str, message: str, source: str, partial: Path):
        super().__init__(notebook, cell, name, message, source, partial)
        self.notebook, self.cell, self.source, self.partial = notebook, cell, source, partial
        self.text = f"{notebook.name}, cell {cell}: {name}: {message}"

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class Step:
    """One notebook of the plan; ``expected`` is the seconds that its last run in this profile took."""

    source: Path
    output: Path
    key: str
    is_done: bool
    parameters: dict[str, object]
    expected: float | None = None

    @property
    def number(self) -> str:
        """The chapter's number, e.g. "05" or "06a"."""
        return chapter_number(self.source)

    @property
    def mark(self) -> Path:
        """The file that records the inputs of this notebook's last execution."""
        return STATE / f"{self.source.stem}.json"


@dataclass(frozen=True)
class StepOutcome:
    """The outcome of a step."""

    step: Step
    status: Literal["done", "up to date", "failed", "not run"]
    seconds: float | None = None
    error: NotebookFailed | None = None


def chapter_number(notebook: Path) -> str:
    """Return the number at the start of a notebook's name, "05" or "06a"."""
    return notebook.name.partition("_")[0]


def find_notebooks() -> list[Path]:
    """Return the numbered notebooks, in order.

    Raises
    ------
    InputError
        There are none, because this is an installed library without a checkout.
    """
    notebooks = sorted(SOURCE.glob("[0-9][0-9]*_*.ipynb"))
    if not notebooks:
        raise InputError(f"{SOURCE}: no notebooks; run this in a checkout of the project, or set MAMMO_ROOT to one")
    return notebooks


def plan(
    profile: Profile,
    data: Path | None = None,
    *,
    data_hash: dict | None = None,
    only=(),
    start=None,
    force=False,
    parameters: dict | None = None,
) -> list[Step]:
    """Return the notebooks of a reproduction, and whether each is up to date.

    ``only`` and ``start`` take chapter numbers ("05"). Each notebook receives the ``parameters`` that it declares.

    Raises
    ------
    InputError
        No notebook has a number, or no chosen notebook declares a parameter.
    """
    notebooks = find_notebooks()
    for number in [*only, *([start] if start else [])]:
        if not any(path.name.startswith(number) for path in notebooks):
            have = ", ".join(map(chapter_number, notebooks))
            raise InputError(f"no notebook starts with {number!r}: choose from {have}")
    chosen = [path for path in notebooks if not start or path.name >= start]
    chosen = [path for path in chosen if not only or path.name.startswith(tuple(only))]
    given = assign_parameters(chosen, {"profile": profile.name} | (parameters or {}))
    shared = _shared_key(profile, data, data_hash)
    return [_step(path, given[path], shared, profile, force) for path in chosen]


def assign_parameters(notebooks: list[Path], parameters: dict) -> dict[Path, dict]:
    """Return for each notebook the parameters that its parameter cell declares.

    Raises
    ------
    InputError
        A notebook cannot be read, or none declares a parameter. (papermill would only warn.)
    """
    declared = {path: _declared(path) for path in notebooks}
    known = set().union(*declared.values())
    for name in parameters:
        if name not in known:
            raise InputError(f"no notebook has a parameter {name!r}: choose from {', '.join(sorted(known)) or 'none'}")
    return {path: {k: v for k, v in parameters.items() if k in names} for path, names in declared.items()}


def _declared(path: Path) -> set[str]:
    import papermill

    try:
        return set(papermill.inspect_notebook(path))
    except Exception as error:  # many types: errors of the file, of JSON or of the notebook's format
        reason = f"{type(error).__name__}: {error}".splitlines()[0][:200]
        raise InputError(f"{path}: not a readable notebook ({reason}); restore it (git checkout {path.name})") from None


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

    STATE.mkdir(parents=True, exist_ok=True)
    EXECUTED.mkdir(parents=True, exist_ok=True)
    partial = STATE / f"{step.source.stem}.partial.ipynb"
    bar = {"desc": f"  {step.source.stem}", "leave": False, "disable": None if show_cells else True}
    started = time.perf_counter()
    try:
        papermill.execute_notebook(
            step.source, partial, parameters=step.parameters, cwd=SOURCE, kernel_name="python3", progress_bar=bar,
            start_timeout=120, extra_arguments=QUIET_KERNEL,  # no limit for a cell: one may train a profile for days
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
    STATE.mkdir(parents=True, exist_ok=True)
    refusal = f"{STATE}: another mammo reproduce is running in this checkout; wait until it ends, or use another one"
    # Processes, not threads: an interrupt ends them together with their kernels.
    with alone(STATE / ".lock", refusal), open_executor(jobs) as (pool, _):
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


def seconds_left(steps: list[Step], outcomes: list[StepOutcome], jobs: int = 1) -> float | None:
    """Estimate the seconds that the remaining steps take; None if nothing is known.

    A step that ran before is expected to take as long again; any other step, the mean of the known times.
    """
    finished = {outcome.step.source for outcome in outcomes}
    rest = [step for step in steps if step.source not in finished and not step.is_done]
    known = [step.expected for step in rest if step.expected is not None]
    known += [outcome.seconds for outcome in outcomes if outcome.seconds is not None]
    if not known and rest:
        return None
    return sum(sum(known) / len(known) if step.expected is None else step.expected for step in rest) / jobs


def progress_line(steps: list[Step], outcomes: list[StepOutcome], jobs: int = 1) -> str:
    """Return one line about the step that finished last: its number, its time, and the time that remains."""
    outcome = outcomes[-1]
    took = outcome.status if outcome.seconds is None else f"{outcome.seconds:.1f} s"
    line = f"[{len(outcomes):>2}/{len(steps)}] {outcome.step.source.stem:<32} {took:>10}"
    left = seconds_left(steps, outcomes, jobs)
    if outcome.status != "done" or not left:
        return line
    return f"{line}   about {left:.0f} s left" if left < 100 else f"{line}   about {left / 60:.0f} min left"


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
        if run.config.fingerprint in wanted:
            add_run(crate, run, ROOT)
    return write_crate(crate, ROOT)


def build_book(*, strict: bool = False) -> Path:
    """Build the HTML book from the executed notebooks and return its front page."""
    options = ["-W", "--keep-going"] if strict else []
    run_cli = "from jupyter_book.cli.main import main; main()"
    command = [sys.executable, "-c", run_cli, "build", "--all", "--quiet", *options, "book/"]
    done = subprocess.run(command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    if done.returncode:
        print(done.stdout.strip(), file=sys.stderr)
        raise InputError("book/: the book did not build; fix the errors that its builder reports above")
    return BUILD / "html" / "index.html"


def _shared_key(profile: Profile, data: Path | None, data_hash: dict | None) -> bytes:
    switches = [profile.model_dump_json(), str(data), data_hash, os.environ.get(RETRAIN) == "1"]
    digest = hashlib.sha256(json.dumps(switches, sort_keys=True).encode())
    for folder, pattern in SHOWN:
        for path in filter(Path.is_file, sorted((ROOT / folder).rglob(pattern))):
            digest.update(path.read_bytes())
    return digest.digest()


def _step(notebook: Path, parameters: dict, shared: bytes, profile: Profile, force: bool) -> Step:
    cells = read_json(notebook)["cells"]
    content = [[cell["cell_type"], cell["metadata"], "".join(cell["source"])] for cell in cells]
    key = hashlib.sha256(shared + json.dumps([parameters, content], sort_keys=True).encode()).hexdigest()
    step = Step(notebook, EXECUTED / notebook.name, key, False, parameters)
    mark = read_json(step.mark) if step.mark.exists() else {}
    is_done = not force and step.output.exists() and mark.get("key") == key
    expected = mark.get("seconds") if mark.get("profile") == profile.name else None
    return Step(notebook, step.output, key, is_done, parameters, expected)


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


def _cell_at_work(partial: Path) -> tuple[int, str]:
    """Return the index and source of the first code cell that the kernel never answered."""
    cells = read_json(partial)["cells"] if partial.exists() else []
    for index, cell in enumerate(cells):
        if cell["cell_type"] == "code" and "shell.execute_reply" not in cell["metadata"].get("execution", {}):
            return index, "".join(cell["source"])
    return 0, ""


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


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
