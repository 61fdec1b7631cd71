"""Run folders: equal work has an equal folder; a record is whole or absent."""

import json

import pandas as pd
import pytest

from mammo_lib.config import RunConfig
from mammo_lib.errors import InputError
from mammo_lib.runs import records as runs

CONFIG = RunConfig(seed=3)
FRAME = pd.DataFrame({"patient_id": ["P_00001"], "split": ["validation"], "label": [1], "probability": [0.75]})
METRICS = {"validation": {"auc": {"value": 0.75, "low": 0.5, "high": 0.9, "n": 10}}}


@pytest.fixture(autouse=True)
def homes(tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "FRESH", tmp_path / "fresh")
    monkeypatch.setattr(runs, "COMMITTED", tmp_path / "committed")


def finished_run(data_hash="d") -> runs.Run:
    run = runs.start_run(CONFIG, data_hash)
    run.finish(FRAME, METRICS)
    return run


def test_same_config_and_data_same_folder():
    assert runs.run_name(CONFIG, "d") == runs.run_name(RunConfig(seed=3), "d")
    assert runs.run_name(CONFIG, "d") != runs.run_name(CONFIG, "other data")
    assert runs.run_name(CONFIG, "d") != runs.run_name(RunConfig(seed=4), "d")


def test_an_unfinished_run_is_not_found():
    runs.start_run(CONFIG, "d")
    assert runs.find_run(CONFIG, "d") is None


def test_a_finished_run_reads_back():
    finished_run()
    run = runs.find_run(CONFIG, "d")
    assert run.config == CONFIG
    assert run.metrics == METRICS
    pd.testing.assert_frame_equal(run.predictions, FRAME)
    assert run.environment["data_hash"] == "d"
    assert {"commit", "is_dirty", "packages", "python", "command"} <= set(run.environment)
    assert not run.is_evaluated


def test_retraining_ignores_committed_records_and_keeps_this_machines(monkeypatch):
    fresh = finished_run()
    published = runs.publish(fresh)
    monkeypatch.setenv("MAMMO_RETRAIN", "1")
    assert runs.find_run(CONFIG, "d").folder == fresh.folder
    fresh.folder.rename(fresh.folder.with_name("gone"))
    assert runs.find_run(CONFIG, "d") is None
    monkeypatch.delenv("MAMMO_RETRAIN")
    assert runs.find_run(CONFIG, "d").folder == published


def test_the_committed_record_comes_first_and_has_no_checkpoint():
    fresh = finished_run()
    (fresh.folder / "best.ckpt").write_bytes(b"weights")
    (fresh.folder / ".lock").touch()
    published = runs.publish(fresh)
    assert runs.find_run(CONFIG, "d").folder == published
    assert sorted(path.name for path in published.iterdir()) == [
        "config.json", "environment.json", "metrics.json", "predictions.parquet",
    ]  # fmt: skip


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "value.json"
    runs.write_json(path, {"a": 1})
    with pytest.raises(ValueError, match="Out of range float"):
        runs.write_json(path, {"a": float("nan")})
    assert json.loads(path.read_text()) == {"a": 1}
    assert list(tmp_path.glob(".*")) == []


def test_a_damaged_record_names_the_file_and_the_way_out():
    run = finished_run()
    (run.folder / "config.json").write_text("{")
    with pytest.raises(InputError, match=r"config\.json: not JSON .* delete the run folder"):
        _ = run.config
    (run.folder / "predictions.parquet").unlink()
    with pytest.raises(InputError, match=r"predictions\.parquet: missing from the run record"):
        _ = run.predictions


def test_all_runs_lists_finished_ones_only():
    runs.start_run(RunConfig(seed=9), "d")
    finished = finished_run()
    assert [run.folder for run in runs.all_runs(runs.FRESH)] == [finished.folder]
