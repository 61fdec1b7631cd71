"""Work in this process and in a pool: same results, errors are passed on, and a worker's death is reported."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from mammo_lib.errors import InputError
from mammo_lib.runs.executor import InProcess, WorkerDied, as_done, in_child, open_executor


def square(x):
    return x * x


def fail(x):
    raise InputError(f"{x}: cannot be read")


def die(x):
    os._exit(1)


@pytest.mark.parametrize("workers", [1, 2])
def test_results_of_every_task(workers):
    with open_executor(workers) as (executor, n):
        assert sorted(as_done(executor, n, square, range(30))) == [x * x for x in range(30)]


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_comes_through(workers):
    with pytest.raises(InputError, match="7: cannot be read"), open_executor(workers) as (executor, n):
        list(as_done(executor, n, fail, [7]))


def test_a_dead_worker_is_one_line():
    message = r"a worker process died .* lower --workers"
    with pytest.raises(InputError, match=message) as caught, open_executor(2) as (executor, n):
        list(as_done(executor, n, die, [1, 2]))
    assert "\n" not in str(caught.value)


def test_a_task_that_kills_workers_of_a_cluster_is_the_same_line():
    from distributed import KilledWorker

    def killed(x):
        raise KilledWorker("task", SimpleNamespace(address="tcp://10.0.0.1:1"), 3)

    with pytest.raises(WorkerDied, match=r"a worker process died \(KilledWorker\)"):
        list(as_done(InProcess(), 1, killed, [1]))


def test_few_tasks_are_in_flight(monkeypatch):
    """Memory does not grow with the list: tasks are taken from it as others finish."""
    taken = []

    def tasks():
        for x in range(1000):
            taken.append(x)
            yield x

    with open_executor(1) as (executor, n):
        next(as_done(executor, n, square, tasks()))
    assert len(taken) <= 8


def test_no_scheduler(monkeypatch):
    with pytest.raises(InputError, match="no Dask scheduler answers at"), open_executor(cluster="not an address"):
        pass


PARENT = """
import time
from mammo_lib.runs.executor import open_executor
with open_executor(2) as (pool, n):
    futures = [pool.submit(time.sleep, 60) for _ in range(2)]
    print(*pool._processes, flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_workers_end_with_their_parent(number):
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True)
    workers = [int(word) for word in parent.stdout.readline().split()]
    assert len(workers) == 2
    time.sleep(1)  # they have begun their work
    parent.send_signal(number)
    parent.wait()
    parent.stdout.close()
    ends = time.monotonic() + 10
    while any(map(is_alive, workers)) and time.monotonic() < ends:
        time.sleep(0.1)
    assert [pid for pid in workers if is_alive(pid)] == []


def is_alive(pid: int) -> bool:
    try:
        return " Z " not in Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_too_many_workers_are_refused():
    with pytest.raises(InputError, match="100000 worker processes: at most"), open_executor(100_000):
        pass


def test_a_child_that_dies_is_told_and_the_next_one_works():
    assert in_child(square, 3) == 9
    with pytest.raises(WorkerDied, match="a worker process died"):
        in_child(die, 1)
    assert in_child(square, 4) == 16
    with pytest.raises(InputError, match="7: cannot be read"):
        in_child(fail, 7)


WAITS = """
import signal, sys, time
from mammo_lib.runs.executor import in_child
signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
in_child(abs, 1)
print("ready", flush=True)
in_child(time.sleep, 40)
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, -signal.SIGINT)])
def test_who_waits_for_a_child_can_be_ended(number, code):
    with subprocess.Popen([sys.executable, "-c", WAITS], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as parent:
        assert parent.stdout.readline() == b"ready\n"
        time.sleep(1)  # the task has begun
        parent.send_signal(number)
        began = time.monotonic()
        assert parent.wait() == code and time.monotonic() - began < 15
