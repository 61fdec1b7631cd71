"""Executors for independent tasks: this process, a pool of processes, or a Dask cluster.

All have the interface of ``concurrent.futures``, so tasks do not depend on where they run.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, wait
from contextlib import contextmanager, suppress
from itertools import islice

from ..errors import InputError

MAX_WORKERS = 64
POLL_S = 0.5
CRASHED = "its decoder crashed; convert the file to uncompressed DICOM or to PNG"
IDLE_S = 60  # a process that waits longer than this for the next call ends
PATIENCE_S = 10  # for a program to end by itself after Ctrl-C, which a terminal sends to it too
IN_FLIGHT = 4  # tasks handed out per worker: enough that none waits, few enough that memory does not grow with the list


class WorkerDied(InputError):  # noqa: N818  (an event, reported as one)
    """A worker process ended in the middle of a task."""


class InProcess(Executor):
    """Runs each task when it is submitted."""

    def submit(self, function, /, *arguments, **options) -> Future:
        """Run a task and return its finished future."""
        future = Future()
        try:
            future.set_result(function(*arguments, **options))
        except Exception as error:
            future.set_exception(error)
        return future


@contextmanager
def open_executor(workers: int | None = None, cluster: str | None = None) -> Iterator[tuple[Executor, int]]:
    """Yield an executor and its number of workers: a Dask ``cluster`` (an address), else local processes.

    Raises
    ------
    InputError
        No scheduler answers at the address, the extra ``cluster`` is not installed, or there are too many workers.
    """
    if cluster:
        with _dask_client(cluster) as client:
            yield client.get_executor(), max(1, sum(client.nthreads().values()))
        return
    cores = os.cpu_count() or 1
    workers = workers or cores
    if workers > (most := max(MAX_WORKERS, cores)):
        raise InputError(f"{workers} worker processes: at most {most} on this machine of {cores} cores; ask for fewer")
    if workers == 1:
        yield InProcess(), 1
        return
    # Its workers do not import the caller's main module, and a dead one is noticed.
    from loky import ProcessPoolExecutor

    pool = ProcessPoolExecutor(workers, initializer=end_with, initargs=(os.getpid(),))
    try:
        yield pool, workers
        pool.shutdown(wait=True)
    except BaseException:
        pool.shutdown(wait=True, kill_workers=True)
        raise


def end_with(parent: int) -> None:
    """End this process soon after its ``parent`` ends, so that no worker remains if the parent is killed."""

    def watch():
        while os.getppid() == parent:
            time.sleep(POLL_S)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def in_child(function: Callable, *arguments):
    """Return the result of a function that runs in a separate process, which is kept for the next call.

    Raises
    ------
    WorkerDied
        The function ended its process: foreign code crashed, or memory ran out.
    """
    from loky import get_reusable_executor

    pool = get_reusable_executor(1, timeout=IDLE_S, initializer=end_with, initargs=(os.getpid(),))
    try:
        return _result(pool.submit(function, *arguments))
    except (KeyboardInterrupt, SystemExit):  # else the interpreter would wait for the task before it ends
        pool.shutdown(wait=False, kill_workers=True)
        raise


def run_program(command: Sequence[str], **options) -> int:
    """Run a program to its end and return its exit code; ``options`` are those of ``subprocess.Popen``.

    If this process is ended by Ctrl-C or SIGTERM meanwhile, the program is ended by SIGTERM, not killed, and waited
    for, so that it can undo what is half done.
    """
    with subprocess.Popen(command, **options) as program:
        try:
            return program.wait()
        except KeyboardInterrupt:  # a second signal would break the clean-up that the program may have begun
            with suppress(subprocess.TimeoutExpired):
                program.wait(PATIENCE_S)
            _end(program)
            raise
        except SystemExit:
            _end(program)
            raise


def as_done(executor: Executor, workers: int, function: Callable, tasks: Iterable) -> Iterator:
    """Yield the result of ``function(task)`` of each task, in the order in which they finish.

    Raises
    ------
    WorkerDied
        A worker process died.
    """
    tasks, pending = iter(tasks), set()
    while True:
        pending |= {executor.submit(function, task) for task in islice(tasks, IN_FLIGHT * workers - len(pending))}
        if not pending:
            return
        done, pending = wait(pending, return_when=FIRST_COMPLETED)
        for future in done:
            yield _result(future)


def is_death(error: Exception | None) -> bool:
    """Whether a task ended with this error because its worker died; a Dask cluster has its own exception for that."""
    distributed = sys.modules.get("distributed")  # not loaded: no cluster is in use
    kinds = (BrokenExecutor,) if distributed is None else (BrokenExecutor, distributed.KilledWorker)
    return isinstance(error, kinds)


def _end(program: subprocess.Popen) -> None:
    program.terminate()  # does nothing to one that has ended
    program.wait()


def _result(future: Future):
    try:
        return future.result()
    except Exception as error:
        if not is_death(error):
            raise
        raise WorkerDied(
            f"a worker process died ({type(error).__name__}), most often because memory ran out; lower --workers and "
            "run the command again"
        ) from None


def _dask_client(address: str):
    try:
        from distributed import Client
    except ImportError:
        raise InputError("--cluster needs the extra 'cluster': pip install -e '.[cluster]'") from None
    try:
        return Client(address, timeout=10)
    except (OSError, ValueError) as error:
        raise InputError(f"--cluster {address}: no Dask scheduler answers at this address ({error})") from None
