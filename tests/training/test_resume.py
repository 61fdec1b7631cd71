"""Killed runs: whatever the moment of the kill, they resume and end as if nothing had happened."""

import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from unittest import mock

import numpy as np
import pandas as pd
import pytest
import torch

from mammo_lib.cli.start import leave
from mammo_lib.config import RunConfig, merged
from mammo_lib.errors import InputError
from mammo_lib.runs import records as runs
from mammo_lib.runs.records import Run
from mammo_lib.training import train, trainer
from mammo_lib.training.resume import RESUMED, generator_states, resume_point, set_generator_states

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


NOISE = {"dropout": 0.2, "drop_path": 0.1, "augment": 1.0, "gradient_clip": 1.0}


def noisy(config, epochs=6, **fields):
    """Everything that draws at random: dropout, stochastic depth, random gates, augmentation; no early stop."""
    config = changed(small(config), epochs=epochs, patience=epochs, **NOISE, **fields)
    return RunConfig.model_validate(merged(config.model_dump(), {"model": {"gate": "random"}}))


def weights(run: Run, name: str, part: str = "state_dict") -> dict:
    return torch.load(run.folder / name, map_location="cpu", weights_only=True)[part]


def kill_at_random(command, root, rng, chain: int, sent=signal.SIGKILL) -> None:
    """Start the command ``chain`` times and end it each time, up to a second after one more epoch was finished."""
    env = os.environ | {"MAMMO_ROOT": str(root)}
    for rows in rng.integers(1, 3, chain).cumsum():
        process = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while process.poll() is None and len(finished_epochs(root)) < rows:
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 0.3))
        process.send_signal(sent)
        assert process.wait(timeout=60) in (-sent, 128 + sent)  # a queue takes 0 for a finished job


def finished_epochs(root) -> pd.DataFrame:
    found = list(root.glob("_build/runs/*/*/history.csv"))
    return pd.read_csv(found[0]) if found else pd.DataFrame()


@pytest.mark.parametrize(
    ("chain", "extras", "sent"),
    [
        (1, {"ema_decay": 0.9}, signal.SIGKILL),
        pytest.param(5, {}, signal.SIGKILL, marks=pytest.mark.slow),
        pytest.param(5, {"ema_decay": 0.9}, signal.SIGKILL, marks=pytest.mark.slow),
        pytest.param(3, {"ema_decay": 0.9}, signal.SIGTERM, marks=pytest.mark.slow),
    ],
)
def test_signals_at_random_moments_change_nothing(config, collection, tmp_path, monkeypatch, chain, extras, sent):
    monkeypatch.setattr(train, "forget_epochs", lambda *_, **__: None)  # their last epochs are compared, too
    config = noisy(config, epochs=2 * chain + 8, **extras)  # more than a fast machine finishes before the last signal
    (tmp_path / "config.json").write_text(config.model_dump_json())
    command = [sys.executable, "-m", "mammo_lib.cli", "run", str(tmp_path / "config.json"), "--profile", "mirror"]
    kill_at_random([*command, "--data", str(collection.root)], tmp_path, np.random.default_rng(chain), chain, sent)
    assert 0 < len(finished_epochs(tmp_path)) < config.train.epochs

    whole = train.train_run(config, collection)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runs, "FRESH", tmp_path / "_build" / "runs")
        resumed = train.train_run(config, collection)
    assert_same(resumed, whole)
    torch.testing.assert_close(weights(resumed, "last.ckpt"), weights(whole, "last.ckpt"), rtol=0, atol=0)
    torch.testing.assert_close(weights(resumed, "best.ckpt"), weights(whole, "best.ckpt"), rtol=0, atol=0)
    optimisers = [weights(run, "last.ckpt", "optimizer_states") for run in (resumed, whole)]
    torch.testing.assert_close(*optimisers, rtol=0, atol=0)


class Killed(RuntimeError):
    pass


def killed_run(config, collection, monkeypatch, epoch) -> Run:
    """Train until ``epoch`` begins."""

    class Module(train.Classifier):
        def on_train_epoch_start(self):
            if self.current_epoch == epoch:
                raise Killed
            super().on_train_epoch_start()

    with monkeypatch.context() as patch:
        patch.setattr(train, "Classifier", Module)
        with pytest.raises(Killed):
            train.train_run(config, collection)
    (folder,) = (runs.FRESH / config.experiment).iterdir()
    return Run(folder)


@pytest.fixture(params=[signal.SIG_DFL, leave], ids=["library", "command"])
def handler(request):
    """What a SIGTERM meets where a training begins: nothing, or the handler of the command line."""
    before = signal.signal(signal.SIGTERM, request.param)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.mark.usefixtures("handler")
@pytest.mark.parametrize("where", ["on_train_epoch_start", "on_validation_epoch_end"])
def test_sigterm_ends_a_run_as_a_failure_that_resumes(config, collection, monkeypatch, tmp_path, where):
    """Lightning stops at the next batch and would leave with 0, which a queue takes for a finished job."""
    config, went_on = noisy(config, epochs=3), []
    whole = train.train_run(config, collection)
    monkeypatch.setattr(runs, "FRESH", tmp_path / "again")
    classifier = train.Classifier

    def terminate(self, *arguments):
        if self.current_epoch == 1:
            os.kill(os.getpid(), signal.SIGTERM)
            went_on.append(where)
        getattr(classifier, where)(self, *arguments)

    with monkeypatch.context() as patch, pytest.raises(SystemExit) as ended:
        patch.setattr(train, "Classifier", type("Module", (classifier,), {where: terminate}))
        train.train_run(config, collection)
    (folder,) = (runs.FRESH / config.experiment).iterdir()
    assert ended.value.code == 128 + signal.SIGTERM and went_on
    assert weights(Run(folder), "last.ckpt", "epoch") in (0, 1) and not Run(folder).is_finished
    assert_same(train.train_run(config, collection), whole)


def test_an_interrupt_is_no_failure_of_a_run(config, collection, monkeypatch):
    """Lightning leaves with 1, by which `mammo verify` says that a record was not reproduced."""
    interrupt = mock.Mock(side_effect=KeyboardInterrupt)
    before = signal.getsignal(signal.SIGINT)  # which Lightning replaces for good
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(train.Classifier, "on_train_epoch_start", interrupt)
        train.train_run(config, collection)
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("extras", [{}, {"ema_decay": 0.9, "gradient_clip": 1.0, "augment": True}])
def test_a_killed_run_ends_as_an_uninterrupted_one(config, collection, monkeypatch, tmp_path, extras):
    config = changed(config, **extras)
    whole = train.train_run(config, collection)
    monkeypatch.setattr(runs, "FRESH", tmp_path / "again")
    killed_run(config, collection, monkeypatch, 1)
    resumed = train.train_run(config, collection)
    assert_same(resumed, whole)
    for table in ("gate_history", "gates", "interventions"):
        pd.testing.assert_frame_equal(getattr(resumed, table), getattr(whole, table), rtol=1e-5)


def test_a_killed_run_goes_on_after_its_last_whole_epoch(config, collection, monkeypatch):
    """At a rate of 1e-9 no epoch is better than the first, and the last whole epoch counts all the same."""
    config = changed(small(config), epochs=4, learning_rate=1e-9)
    run = killed_run(config, collection, monkeypatch, 3)
    assert weights(run, "best.ckpt", "epoch") == 0
    assert weights(run, "last.ckpt", "epoch") == 2
    assert weights(run, "previous.ckpt", "epoch") == 1


def test_a_kill_between_two_renamings_costs_one_epoch(config, collection, monkeypatch, tmp_path):
    config = noisy(config)
    whole = train.train_run(config, collection)
    monkeypatch.setattr(runs, "FRESH", tmp_path / "again")
    (killed_run(config, collection, monkeypatch, 3).folder / "last.ckpt").unlink()
    assert_same(train.train_run(config, collection), whole)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\x80\x04N.", "cut", "other"])
def test_a_damaged_checkpoint_is_named_with_the_way_out(config, collection, monkeypatch, content):
    config = small(config).model_copy(update={"train": changed(config, epochs=3).train})
    run = killed_run(config, collection, monkeypatch, 2)
    last = run.folder / "last.ckpt"
    if content == "other":
        torch.save(torch.load(last, weights_only=True) | {"run": "other/seed0"}, last)
    else:
        last.write_bytes(last.read_bytes()[:30000] if content == "cut" else content)
    with pytest.raises(InputError, match=r"last\.ckpt: .*delete it, and the run resumes from previous\.ckpt"):
        train.train_run(config, collection)
    last.unlink()
    assert train.train_run(config, collection).is_finished


@pytest.mark.parametrize("part", ["generators", "loops", "optimizer_states"])
def test_a_checkpoint_without_a_part_is_named_with_the_way_out(tmp_path, part):
    weights = {"a": torch.zeros(2)}
    whole = {"run": "a/seed0", "state_dict": weights} | dict.fromkeys(set(RESUMED) - {"state_dict"}, 0)
    torch.save(whole, tmp_path / "last.ckpt")
    assert resume_point(tmp_path, "a/seed0", weights) == tmp_path / "last.ckpt"
    del whole[part]
    torch.save(whole, tmp_path / "last.ckpt")
    with pytest.raises(InputError, match=rf"last\.ckpt: from another version \(without {part}\); delete it"):
        resume_point(tmp_path, "a/seed0", weights)


@pytest.mark.parametrize(
    "weights, difference",
    [
        ({"a": torch.zeros(3)}, "other shape: a (network (3,), file (2,))"),
        ({"a": torch.zeros(2), "b": torch.zeros(1)}, "missing: b"),
        ({}, "unexpected: a"),
    ],
)
def test_a_checkpoint_of_other_weights_is_named_with_the_way_out(tmp_path, weights, difference):
    held = {"run": "a/seed0", "state_dict": {"a": torch.zeros(2)}} | dict.fromkeys(set(RESUMED) - {"state_dict"}, 0)
    torch.save(held, tmp_path / "last.ckpt")
    with pytest.raises(InputError, match=re.escape(f"from another version ({difference}); delete it, and the run")):
        resume_point(tmp_path, "a/seed0", weights)


def test_training_meets_a_checkpoint_of_other_weights(config, collection, monkeypatch):
    config = small(config).model_copy(update={"train": changed(config, epochs=3).train})
    last = killed_run(config, collection, monkeypatch, 2).folder / "last.ckpt"
    held = torch.load(last, weights_only=True)
    held["state_dict"].popitem()
    torch.save(held, last)
    with pytest.raises(InputError, match=r"last\.ckpt: from another version \(missing: .*\); delete it"):
        train.train_run(config, collection)


def test_every_generator_goes_on_where_it_was():
    def draw():
        return random.random(), np.random.rand(), torch.rand(1).item()  # noqa: NPY002

    states = generator_states()
    first = draw()
    set_generator_states(states)
    assert draw() == first


def test_averaging_leaves_constants_as_they_are():
    constant = torch.tensor([0.485, 0.456, 0.406])
    update = trainer.averaged_weights(0.9)._kwargs["avg_fn"]
    assert torch.equal(update(constant, constant, 1), constant)
    assert update(torch.tensor(1.0), torch.tensor(2.0), 1).item() == pytest.approx(1.1)  # 0.9 * 1 + 0.1 * 2


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
    moved, move = [], os.replace
    monkeypatch.setattr(os, "replace", lambda source, target: moved.append((source, target)) or move(source, target))
    run = train.train_run(changed(small(config), epochs=1), collection)
    named = {Path(target).name: Path(source) for source, target in moved if str(target).endswith(".ckpt")}
    assert {"best.ckpt", "last.ckpt"} < set(named)
    assert {path.parent for path in named.values()} == {run.folder}
    assert list(run.folder.glob(".*ckpt*")) == []


def test_only_what_is_resumed_from_holds_the_optimiser_and_a_finished_run_keeps_none_that_is_large(
    config, collection, monkeypatch
):
    config = changed(small(config), epochs=2)
    killed = killed_run(config, collection, monkeypatch, 1)
    assert len(weights(killed, "last.ckpt", "optimizer_states")) == 1
    assert weights(killed, "best.ckpt", "optimizer_states") == []
    monkeypatch.setattr(train, "SMALL", 1000)
    run = train.train_run(config, collection)
    assert sorted(path.name for path in run.folder.glob("*.ckpt")) == ["best.ckpt"]


def test_a_small_finished_run_that_lost_its_metrics_trains_no_further(config, collection, monkeypatch):
    config = changed(small(config), epochs=1)
    run = train.train_run(config, collection)
    before = run.predictions
    (run.folder / "metrics.json").unlink()
    monkeypatch.setattr(train.Classifier, "training_step", lambda *_: pytest.fail("a step was trained"))
    assert train.train_run(config, collection).predictions.equals(before)


def test_what_a_killed_run_left_half_written_is_removed(config):
    run = runs.fresh_run(config, "d")
    with run.held():
        for name in (".best.ckpt.1", "..last.ckpt.1", ".last.ckpt"):
            (run.folder / name).write_bytes(b"half")
    with run.held():
        assert list(run.folder.glob(".*ckpt*")) == []
