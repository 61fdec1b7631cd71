"""Many runs: one after another, in a pool of processes with a GPU each, or on a Dask cluster.

A finished run is read, an interrupted run resumes after its last complete epoch, and a run that fails does not stop the
others. Every worker must see the project folder and the data under the same paths.
"""

from __future__ import annotations

import os
import socket
import threading
import time
import traceback
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, wait
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import filelock
from tqdm import tqdm

from ..config import BUILD, RunConfig
from ..data.collection import Collection
from ..errors import InputError
from . import records as runs
from .executor import is_death, open_executor
from .records import Run, find_run, run_name

ERROR_FILE = "error.txt"  # in a run's folder: the traceback of the error that ended it
DEATHS = 2  # a run is given up when its process has died this often; a single death may be due to another run
POLL_S = 1.0
LOCKS = BUILD / "devices"
_one_run = threading.Lock()  # seeding affects a whole process, so the threads of a Dask worker take turns
_held: list[filelock.FileLock] = []  # the GPU of this process, until the process ends


@dataclass(frozen=True)
class Place:
    """How a machine is shared: the number of worker processes, and the GPUs among which they choose."""

    workers: int
    devices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Job:
    """The input of a worker for one run."""

    config: RunConfig
    collection: Collection
    folder: Path
    place: Place
    has_bar: bool = False


@dataclass(frozen=True)
class RunOutcome:
    """How one run of a sweep ended: with a finished ``run``, or with an ``error`` in one line."""

    config: RunConfig
    run: Run | None = None
    error: str = ""
    seconds: float = 0.0
    was_finished: bool = False


def run_sweep(
    configs: Iterable[RunConfig], collection: Collection, *, workers: int | None = None, cluster: str | None = None,
    progress: bool = False,
) -> Iterator[RunOutcome]:  # fmt: skip
    """Train every run of ``configs`` and yield the outcomes: finished runs first, the others as they end.

    ``workers`` is the number of processes: by default one per GPU, or one without GPUs; never more than GPUs or cores.
    On a Dask ``cluster`` (an address), the set-up of the workers assigns the GPUs. A sweep that was interrupted resumes
    with the same call.

    Raises
    ------
    InputError
        No scheduler answers at ``cluster``, or workers were asked for while a run has several processes itself.
    """
    configs = list(dict.fromkeys(configs))
    place = share_machine(configs, workers, cluster)
    ended, jobs = _look_for_work(configs, collection, place, progress=progress)
    yield from ended
    with watch(jobs) if progress and len(jobs) > 1 else _watch_nothing() as close:
        for outcome in _run_all(jobs, place, cluster):
            close(outcome)
            yield outcome


def share_machine(configs: list[RunConfig], workers: int | None, cluster: str | None) -> Place:
    """Return the number of worker processes and the GPUs that they share."""
    own = max((config.train.devices for config in configs), default=1)
    if own > 1:
        if cluster or (workers or 1) > 1:
            raise InputError(
                f"train.devices={own}: a run with several processes leaves no room for --workers, --cluster"
            )
        return Place(1)
    if cluster:
        return Place(1)
    devices = visible_devices()
    return Place(min(workers or max(1, len(devices)), len(devices) or os.cpu_count() or 1), devices)


def visible_devices() -> tuple[str, ...]:
    """Return the names of the GPUs that this process may use, from the driver, without initialising one."""
    import torch

    n = torch.cuda.device_count()
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    return tuple(named.split(",")[:n]) if named else tuple(map(str, range(n)))


def _look_for_work(
    configs: list[RunConfig], collection: Collection, place: Place, *, progress: bool
) -> tuple[list[RunOutcome], list[Job]]:
    """Separate finished runs, and runs without their data, from the work to do; fill the cache for the latter once."""
    ended, jobs = [], []
    for config in configs:
        try:
            run = find_run(config, collection.data_hash("train", *config.inputs))
            prepared = None if run else collection.prepare("train", *config.inputs)
        except InputError as error:
            ended.append(RunOutcome(config, error=str(error)))
            continue
        if prepared is None:
            ended.append(RunOutcome(config, run, was_finished=True))
        else:
            folder = runs.FRESH / config.experiment / run_name(config, prepared.fingerprint)
            jobs.append(Job(config, collection, folder, place, has_bar=progress and len(configs) == 1))
    return ended, jobs


def _run_all(jobs: list[Job], place: Place, cluster: str | None) -> Iterator[RunOutcome]:
    """Run until every job has an outcome; after the death of a worker, in a new pool."""
    left, deaths = {job.folder: job for job in jobs}, dict.fromkeys([job.folder for job in jobs], 0)
    while left:
        with open_executor(place.workers, cluster) as (executor, n):
            for job, outcome in _as_done(executor, n, list(left.values())):
                if outcome is None:
                    deaths[job.folder] += 1
                    if deaths[job.folder] < DEATHS:
                        continue
                    outcome = RunOutcome(job.config, error="its process died, most often because memory ran out")
                left.pop(job.folder)
                yield outcome


def _as_done(executor: Executor, n: int, jobs: list[Job]) -> Iterator[tuple[Job, RunOutcome | None]]:
    """Yield jobs and their outcomes as they end; the outcome is None if the worker died.

    A dead worker breaks a local pool: all running jobs are then yielded with None, and the iterator ends.
    """
    waiting, running = iter(jobs), {}
    while True:
        for job in islice(waiting, n - len(running)):
            running[executor.submit(attempt, job)] = job
        if not running:
            return
        done, _ = wait(running, return_when=FIRST_COMPLETED)
        yield from [(running.pop(future), _outcome(future)) for future in done]
        if any(isinstance(future.exception(), BrokenExecutor) for future in done):
            yield from ((job, None) for job in running.values())
            return


def _outcome(future: Future) -> RunOutcome | None:
    return None if is_death(future.exception()) else future.result()


def attempt(job: Job) -> RunOutcome:
    """Train one run in this process; an exception becomes an outcome, and its traceback a file in the run's folder."""
    started = time.perf_counter()
    if job.place.workers > 1:
        take_share(job.place)
    from ..training.train import train_run  # imports torch, which reads the share

    try:
        with _one_run:
            run = train_run(job.config, job.collection, progress=job.has_bar)
    except Exception as error:
        return RunOutcome(job.config, error=describe_failure(error, job.folder), seconds=time.perf_counter() - started)
    (run.folder / ERROR_FILE).unlink(missing_ok=True)
    return RunOutcome(job.config, run, seconds=time.perf_counter() - started)


def describe_failure(error: Exception, folder: Path) -> str:
    """Return an exception in one line; unless it is an InputError, its traceback goes to a file in ``folder``."""
    if isinstance(error, InputError):
        return str(error)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / ERROR_FILE).write_text("".join(traceback.format_exception(error)), encoding="utf-8")
    first = (str(error) or "no message").splitlines()[0]
    return f"{type(error).__name__}: {first}; traceback: {folder / ERROR_FILE}"


def take_share(place: Place) -> None:
    """Give this worker process its part of the cores and a GPU of its own; call it before torch is imported."""
    cores = max(1, (os.cpu_count() or 1) // place.workers)
    for name in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS"):
        os.environ.setdefault(name, str(cores))
    if _held:
        return
    LOCKS.mkdir(parents=True, exist_ok=True)
    for device in place.devices:
        lock = filelock.FileLock(LOCKS / f"{socket.gethostname()}-{device.replace('/', '_')}.lock")
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            continue
        _held.append(lock)
        os.environ["CUDA_VISIBLE_DEVICES"] = device
        return


@contextmanager
def watch(jobs: list[Job]) -> Iterator:
    """Show a progress bar per active run, in epochs, and one for all; yield a function that closes an outcome's bar.

    The bars follow the ``history.csv`` of the runs, so they work wherever the runs are. There are no bars if the output
    is not a terminal.
    """
    started, is_over, lock = time.time(), threading.Event(), threading.Lock()
    total = tqdm(total=len(jobs), desc="runs", unit="run", position=0, dynamic_ncols=True, disable=None)
    bars: dict[RunConfig, tqdm | None] = {job.config: None for job in jobs}

    def follow():
        while not is_over.wait(POLL_S):
            with lock:
                for job in jobs:
                    if job.config in bars and _has_started(job, started):
                        bars[job.config] = _move(bars[job.config], job)
                total.refresh()

    def close(outcome: RunOutcome):
        with lock:
            bar = bars.pop(outcome.config, None)
            if bar is not None:
                bar.close()
            total.update()

    thread = threading.Thread(target=follow, daemon=True)
    if not total.disable:
        thread.start()
    try:
        yield close
    finally:
        is_over.set()
        for bar in (*bars.values(), total):
            if bar is not None:
                bar.close()


@contextmanager
def _watch_nothing() -> Iterator:
    yield lambda _: None


def _has_started(job: Job, since: float) -> bool:
    record = job.folder / "environment.json"
    return record.is_file() and record.stat().st_mtime >= since


def _move(bar: tqdm | None, job: Job) -> tqdm:
    """Bring a run's bar, a new one at first, to the number of epochs in its history."""
    history = job.folder / "history.csv"
    epochs = max(0, len(history.read_text(encoding="utf-8").splitlines()) - 1) if history.is_file() else 0
    if bar is None:
        name = f"{job.config.experiment}, seed {job.config.seed}"
        bar = tqdm(
            total=job.config.train.epochs, initial=epochs, desc=name, unit="epoch", leave=False, dynamic_ncols=True
        )
    bar.update(epochs - bar.n)
    return bar
