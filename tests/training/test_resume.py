"""Runs that are killed: whatever the moment, they end as if nothing had happened."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd
import pytest

from mammo_lib.runs import records as runs
from mammo_lib.runs.records import Run
from mammo_lib.training import train

pytestmark = pytest.mark.usefixtures("run_homes")


@pytest.fixture
def config(tiny_profile):
    return tiny_profile.configs()[0]


def small(config):
    """One stream and one view: what is tested does not depend on the network."""
    return config.model_copy(update={"model": config.model.model_copy(update={"streams": ("crop",), "views": ("CC",)})})


def changed(config, **fields):
    return config.model_copy(update={"train": config.train.model_copy(update=fields)})


def assert_same(one: Run, other: Run) -> None:
    """Bitwise the same predictions and the same history but for the seconds."""
    assert one.folder != other.folder
    pd.testing.assert_frame_equal(one.predictions, other.predictions, check_exact=True)
    histories = [run.history.drop(columns="seconds") for run in (one, other)]
    pd.testing.assert_frame_equal(*histories, check_exact=True)


@pytest.mark.slow
@pytest.mark.parametrize("extras", [{}, {"ema_decay": 0.9, "gradient_clip": 1.0}], ids=["plain", "averaged"])
def test_sigkill_in_the_middle_of_an_epoch_changes_nothing(config, collection, tmp_path, extras):
    config = changed(config, epochs=4, **extras)
    (tmp_path / "config.json").write_text(config.model_dump_json())
    command = [sys.executable, "-m", "mammo_lib.cli", "run", str(tmp_path / "config.json"), "--profile", "mirror"]
    env = os.environ | {"MAMMO_ROOT": str(tmp_path), "MAMMO_DATA": str(collection.root)}
    process = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not list(tmp_path.glob("_build/runs/*/*/history.csv")):
        assert process.poll() is None
        time.sleep(0.01)
    time.sleep(0.05)  # the second epoch has begun
    process.send_signal(signal.SIGKILL)
    process.wait()
    (history,) = tmp_path.glob("_build/runs/*/*/history.csv")
    assert not Run(history.parent).is_finished
    assert len(pd.read_csv(history)) < config.train.epochs

    whole = train.train_run(config, collection)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runs, "FRESH", tmp_path / "_build" / "runs")
        resumed = train.train_run(config, collection)
    assert resumed.folder == history.parent
    assert_same(resumed, whole)


def test_a_kill_between_training_and_record_trains_no_further(config, collection, monkeypatch, tmp_path):
    """At a rate of 1e-9 no epoch is better than the first: patience 1 ends the run at the second of five."""
    config = changed(small(config), epochs=5, patience=1, learning_rate=1e-9)
    whole = train.train_run(config, collection)
    assert len(whole.history) == 2
    monkeypatch.setattr(runs, "FRESH", tmp_path / "again")
    with monkeypatch.context() as patch:
        patch.setattr(train, "load_best", lambda *a: (_ for _ in ()).throw(RuntimeError("killed")))
        with pytest.raises(RuntimeError, match="killed"):
            train.train_run(config, collection)
    assert_same(train.train_run(config, collection), whole)


def test_checkpoints_get_their_name_when_they_are_whole(config, collection, monkeypatch):
    """Written on another file system, a checkpoint would be copied to its place, and a kill could cut it."""
    moved, move = [], shutil.move
    monkeypatch.setattr(shutil, "move", lambda source, target: moved.append((source, target)) or move(source, target))
    before = tempfile.gettempdir()
    run = train.train_run(changed(small(config), epochs=1), collection)
    assert {Path(target).name for _, target in moved} == {"best.ckpt", "last.ckpt"}
    assert {Path(source).parent.parent for source, _ in moved} == {run.folder}
    assert tempfile.gettempdir() == before
    assert not (run.folder / ".partial").exists()
