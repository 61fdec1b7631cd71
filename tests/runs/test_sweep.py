"""A sweep: finished runs are read, a failure is reported and stops no other run, and runs are independent."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from concurrent.futures import BrokenExecutor, Future
from contextlib import contextmanager
from types import SimpleNamespace

import filelock
import pandas as pd
import pytest
import torch

from mammo_lib.config import ROOT, get_profile
from mammo_lib.errors import InputError
from mammo_lib.runs import sweep
from mammo_lib.runs.executor import InProcess
from mammo_lib.runs.records import Run, all_runs
from mammo_lib.runs.sweep import Place, run_sweep, take_share
from mammo_lib.training import train

pytestmark = pytest.mark.usefixtures("run_homes")


@pytest.fixture
def configs(tiny_profile):
    """Two good runs around one whose loss overflows at once."""
    one = tiny_profile.configs()[0]
    small = {"model": one.model.model_copy(update={"streams": ("crop",), "views": ("CC",)})}
    quick = one.model_copy(update=small | {"train": one.train.model_copy(update={"epochs": 1})})
    wild = {"train": quick.train.model_copy(update={"learning_rate": 1e30, "warmup_epochs": 0}), "experiment": "wild"}
    return [quick, quick.model_copy(update=wild), quick.model_copy(update={"seed": 1})]


def test_a_failing_run_does_not_stop_the_others_and_is_tried_again(configs, collection, monkeypatch):
    good, wild, other = run_sweep(configs, collection, workers=1)
    assert [one.config for one in (good, wild, other)] == configs
    assert good.run.is_finished
    assert other.run.is_finished
    assert wild.run is None
    assert wild.error.startswith("the loss is ")

    asked, original = [], train.train_run
    monkeypatch.setattr(train, "train_run", lambda config, *a, **k: asked.append(config) or original(config, *a, **k))
    again = list(run_sweep(configs, collection, workers=1))
    assert [one.was_finished for one in again] == [True, True, False]
    assert again[2].error == wild.error
    assert asked == [configs[1]]

    alone = original(configs[2].model_copy(update={"experiment": "alone"}), collection)
    pd.testing.assert_frame_equal(other.run.predictions, alone.predictions, check_exact=True)


def test_an_unforeseen_error_leaves_its_traceback_until_the_run_is_finished(configs, collection, monkeypatch):
    def broken(*a, **k):
        raise ZeroDivisionError("a mistake of ours")

    with monkeypatch.context() as patch:
        patch.setattr(train, "fit", broken)
        (outcome,) = run_sweep(configs[:1], collection)
    message, _, path = outcome.error.partition("; traceback: ")
    assert message == "ZeroDivisionError: a mistake of ours"
    with open(path, encoding="utf-8") as file:
        assert "in broken" in file.read()
    (outcome,) = run_sweep(configs[:1], collection)
    assert outcome.run.is_finished
    assert not os.path.exists(path)


class Mortal(InProcess):
    """Workers of which one dies at a given experiment, and takes the pool with it, as a real pool does."""

    def __init__(self, deadly, deaths):
        self.deadly, self.deaths = deadly, deaths

    def submit(self, function, job):
        if job.config.experiment == self.deadly and self.deaths:
            self.deaths.pop()
            future = Future()
            future.set_exception(BrokenExecutor("killed"))
            return future
        return super().submit(function, job)


@pytest.mark.parametrize("n_deaths", [1, 2])
def test_a_dead_worker_costs_its_own_run_at_most(configs, collection, monkeypatch, n_deaths):
    configs, deaths, pools = [configs[1], configs[0], configs[2]], [None] * n_deaths, []

    @contextmanager
    def mortal(*a):
        pools.append(Mortal("wild", deaths))
        yield pools[-1], 1

    monkeypatch.setattr(sweep, "open_executor", mortal)
    monkeypatch.setattr(train, "fit", lambda *a, **k: (_ for _ in ()).throw(InputError("trained")))
    outcomes = {one.config: one.error for one in run_sweep(configs, collection)}
    died = "its process died, most often because memory ran out"
    assert outcomes == dict(zip(configs, ["trained" if n_deaths == 1 else died, "trained", "trained"], strict=True))
    assert len(pools) == n_deaths + 1


@pytest.mark.parametrize("n_deaths", [1, 2])
def test_a_run_that_kills_workers_of_a_cluster_costs_itself_at_most(monkeypatch, n_deaths):
    from distributed import KilledWorker

    deaths, asked = [None] * n_deaths, []

    def attempt(job):
        asked.append(job.config)
        if job.config == "wild" and deaths:
            deaths.pop()
            raise KilledWorker("task", SimpleNamespace(address="tcp://10.0.0.1:1"), 3)
        return sweep.RunOutcome(job.config)

    monkeypatch.setattr(sweep, "attempt", attempt)
    jobs = [SimpleNamespace(config=name, folder=name) for name in ("wild", "good", "other")]
    errors = {one.config: one.error for one in sweep._run_all(jobs, Place(1), None)}
    died = "its process died, most often because memory ran out"
    assert errors == {"good": "", "other": "", "wild": "" if n_deaths == 1 else died}
    assert asked == ["wild", "good", "other", "wild"]


def test_runs_without_their_data_fail_alone(configs, collection, monkeypatch):
    original = type(collection).prepare

    def prepare(self, split, data, *reads, **where):
        if data.image_size == (64, 64):
            raise InputError("film.dcm: cannot be decoded")
        return original(self, split, data, *reads, **where)

    monkeypatch.setattr(type(collection), "prepare", prepare)
    large = configs[0].model_copy(update={"data": configs[0].data.model_copy(update={"image_size": (64, 64)})})
    outcomes = list(run_sweep([large, configs[0]], collection))
    assert [one.error for one in outcomes] == ["film.dcm: cannot be decoded", ""]


def test_a_run_with_processes_of_its_own_wants_no_workers(configs, collection):
    two = configs[0].model_copy(update={"train": configs[0].train.model_copy(update={"devices": 2})})
    with pytest.raises(InputError, match=r"train.devices=2: .* leaves no room for --workers"):
        list(run_sweep([two], collection, workers=2))


@pytest.mark.parametrize(("workers", "devices", "expected"), [
    (None, ("0", "1", "2"), 3), (2, ("0", "1", "2"), 2), (8, ("0", "1"), 2), (None, (), 1),
])  # fmt: skip
def test_one_process_per_device(configs, monkeypatch, workers, devices, expected):
    monkeypatch.setattr(sweep, "visible_devices", lambda: devices)
    assert sweep.share_machine(configs, workers, None) == Place(expected, devices)


def test_a_worker_takes_a_device_that_nobody_has(tmp_path, monkeypatch):
    monkeypatch.setattr(sweep, "LOCKS", tmp_path)
    monkeypatch.setattr(sweep, "_held", [])
    for name in ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "NUMBA_NUM_THREADS"):
        monkeypatch.setenv(name, "")  # restored after the test
        monkeypatch.delenv(name)
    place = Place(2, ("0", "1"))
    take_share(place)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "0"
    assert int(os.environ["OMP_NUM_THREADS"]) == max(1, os.cpu_count() // 2)
    first, sweep._held = sweep._held, []  # as another process sees it
    monkeypatch.setattr(filelock.FileLock, "is_singleton", False, raising=False)
    take_share(place)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "1"
    for lock in (*first, *sweep._held):
        lock.release()


SEEDS = get_profile("mirror").seeds


@pytest.fixture
def project(configs, collection, tmp_path):
    """A project folder with a list of the three runs, and how to start the command on it."""
    entries = {
        name: {
            "question": "-",
            "overrides": {part: getattr(one, part).model_dump() for part in ("data", "model", "train")},
        }
        for name, one in zip(("good", "wild", "other"), configs, strict=True)
    }
    (tmp_path / "data_manifest").symlink_to(ROOT / "data_manifest")
    (tmp_path / "book").mkdir()
    (tmp_path / "book" / "protocol.md").write_text("none")
    (tmp_path / "book" / "profiles").symlink_to(ROOT / "book" / "profiles")
    (tmp_path / "book" / "experiments.json").write_text(json.dumps({"experiments": entries}))
    command = [sys.executable, "-m", "mammo_lib.cli", "run", "--profile", "mirror", "--data", str(collection.root)]
    env = os.environ | {"MAMMO_ROOT": str(tmp_path), "OMP_NUM_THREADS": "1"}
    options = {"cwd": tmp_path, "env": env, "text": True, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return SimpleNamespace(root=tmp_path, start=lambda *more: subprocess.Popen([*command, *more], **options))


@pytest.mark.slow
def test_two_processes_list_what_failed_and_make_the_same_runs_as_one(project, configs, collection):
    process = project.start("--experiment", "all", "--workers", "2")
    told, complained = process.communicate(timeout=300)
    assert process.returncode == 1, complained
    assert len(re.findall(r"good, seed 0: validation auc \d.\d{3}, \d+ s", told)) == 1
    n = len(SEEDS)
    _, *listed, last = complained[complained.index(f"mammo: {n} of {3 * n} runs failed:") :].splitlines()
    assert sorted(line.partition(": the loss is ")[0] for line in listed) == [f"  wild, seed {seed}" for seed in SEEDS]
    assert last == "run the same command again: finished runs are read, the others resume"
    threads = torch.get_num_threads()  # sums run in another order with another number of threads
    torch.set_num_threads(max(1, os.cpu_count() // 2))  # what each of the two workers has
    ours = next(run_sweep([configs[0].model_copy(update={"experiment": "good"})], collection)).run
    torch.set_num_threads(threads)
    (theirs,) = (run for run in all_runs(project.root / "_build" / "runs") if run.config == ours.config)
    pd.testing.assert_frame_equal(theirs.predictions, ours.predictions)

    process = project.start("--experiment", "good")
    told, complained = process.communicate(timeout=300)
    assert process.returncode == 0, complained
    assert told.count("finished before" if n > 1 else "good/seed0-") == n


@pytest.mark.slow
@pytest.mark.parametrize("workers", ["1", "2"])
def test_interrupted_it_says_so_and_goes_on(project, configs, workers):
    listed = json.loads((project.root / "book" / "experiments.json").read_text())
    del listed["experiments"]["wild"]
    for one in listed["experiments"].values():
        one["overrides"]["train"] |= {"epochs": 6, "patience": 6}
    (project.root / "book" / "experiments.json").write_text(json.dumps(listed))
    process = project.start("--experiment", "all", "--workers", workers)
    while not list(project.root.glob("_build/runs/*/*/history.csv")):
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, complained = process.communicate(timeout=60)
    assert process.returncode == 130, complained
    assert "interrupted; the same command resumes" in complained
    assert len(list(all_runs(project.root / "_build" / "runs"))) < 2 * len(SEEDS)

    process = project.start("--experiment", "all", "--workers", workers)
    _, complained = process.communicate(timeout=300)
    assert process.returncode == 0, complained
    assert [len(run.history) for run in all_runs(project.root / "_build" / "runs")] == [6] * 2 * len(SEEDS)


def test_threads_of_a_cluster_worker_take_turns(configs, collection, monkeypatch, tmp_path):
    """Random numbers belong to the process: two runs at once would draw from one another's."""
    from distributed import LocalCluster

    at_once, most = [], []

    def train_run(config, *a, **k):
        at_once.append(config)
        time.sleep(0.4)
        most.append(len(at_once))
        at_once.remove(config)
        return Run(tmp_path)

    monkeypatch.setattr(train, "train_run", train_run)
    with LocalCluster(n_workers=1, threads_per_worker=2, processes=False, dashboard_address=":0") as cluster:
        outcomes = list(run_sweep(configs, collection, cluster=cluster.scheduler_address))
    assert {one.config for one in outcomes} == set(configs)
    assert {one.error for one in outcomes} == {""}
    assert most == [1, 1, 1]
