"""Run folders: equal runs have the same folder; a record is complete or absent."""

import json
import os
import re
import shutil

import pandas as pd
import pytest

from mammo_lib.config import ROOT, ModelConfig, RunConfig
from mammo_lib.errors import InputError
from mammo_lib.runs import environment
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


def test_what_a_caller_changes_in_predictions_stays_with_the_caller():
    run = finished_run()
    mine = run.predictions
    mine.loc[:, "probability"] = 0.125
    mine["more"] = 1
    assert "more" not in run.predictions and not (run.predictions["probability"] == 0.125).any()


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
        "config.json", "environment.json", "manifest.json", "metrics.json", "predictions.parquet",
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
    with pytest.raises(InputError, match=r"config\.json: damaged: .*; restore the record, or delete its folder"):
        _ = run.config
    (run.folder / "config.json").unlink()
    with pytest.raises(InputError, match=r"config\.json: missing from the record"):
        _ = run.metrics


def cut(path):
    path.write_bytes(path.read_bytes()[:-9])


def empty(path):
    path.write_bytes(b"")


def foreign(path):
    path.write_text(json.dumps({"made_by": "another program"}))


def a_list(path):
    path.write_text("[]")


def utf16(path):
    path.write_bytes("{}".encode("utf-16"))


FILES = ["config.json", "environment.json", "metrics.json", "predictions.parquet", "receipt.json", "history.csv",
         "gates.parquet", "gate_history.parquet", "interventions.parquet"]  # fmt: skip
READ = ["config", "environment", "metrics", "predictions", "receipt", "history", "gates", "gate_history",
        "interventions"]  # fmt: skip


def whole_record() -> runs.Run:
    """A record with every file that a record can have."""
    run = runs.start_run(CONFIG, "d")
    per_breast = FRAME.assign(sample_id="P_00001_LEFT")
    runs.write_parquet(run.folder / "gates.parquet", per_breast)
    runs.write_parquet(run.folder / "interventions.parquet", per_breast)
    runs.write_parquet(run.folder / "gate_history.parquet", pd.DataFrame({"epoch": [0]}))
    (run.folder / "history.csv").write_text("epoch,train_loss\n0,0.5\n")
    runs.write_json(run.folder / "receipt.json", dict.fromkeys(runs.RECEIPT))
    run.finish(FRAME, METRICS)
    assert run.faults() == []
    return run


@pytest.mark.parametrize("damage", [cut, empty, foreign, a_list, utf16, os.remove])
@pytest.mark.parametrize("name", FILES)
def test_no_file_of_a_damaged_finished_run_is_read(name, damage):
    run = whole_record()
    damage(run.folder / name)
    if name == "metrics.json" and damage is os.remove:
        assert runs.find_run(CONFIG, "d") is None
        return
    for reading in READ:
        with pytest.raises(InputError, match=rf"{re.escape(name)}: (damaged|missing)"):
            getattr(run, reading)
    assert len(run.faults()) == 1
    with pytest.raises(InputError, match=re.escape(name)):
        runs.find_run(CONFIG, "d")


@pytest.mark.parametrize("damage", [cut, empty, foreign, a_list, utf16])
@pytest.mark.parametrize("name", FILES)
def test_files_of_a_record_older_than_manifests_are_read_guarded(name, damage):
    run = whole_record()
    (run.folder / "manifest.json").unlink()
    damage(run.folder / name)
    if (name, damage) in {("history.csv", cut), ("environment.json", foreign)} or (
        damage is utf16 and name in FILES[:2]
    ):
        return
    reading = READ[FILES.index(name)]
    with pytest.raises(InputError, match=re.escape(name)) as caught:
        getattr(run, reading)
    assert "restore the record, or delete its folder and run it again" in str(caught.value)
    assert str(caught.value) in run.faults()


def test_a_file_of_another_record_is_noticed():
    run, other = whole_record(), runs.start_run(RunConfig(seed=4), "d")
    other.finish(FRAME.assign(probability=0.5), METRICS)
    shutil.copy(other.folder / "predictions.parquet", run.folder)
    assert "predictions.parquet: damaged" in run.faults()[0]
    shutil.copy(run.folder / "gates.parquet", other.folder)
    assert "gates.parquet: not a file of this record" in other.faults()[0]


def test_a_record_in_the_folder_of_another_is_noticed():
    run, other = whole_record(), runs.start_run(RunConfig(seed=4), "d")
    shutil.copytree(run.folder, other.folder, dirs_exist_ok=True)
    assert f"config and data are those of {run.folder.name}, another run" in other.faults()[0]


@pytest.mark.parametrize("manifest", ["", "{}", "[]", '{"files": []}', '{"files": {}}'])
def test_a_damaged_manifest_vouches_for_nothing(manifest):
    run = whole_record()
    (run.folder / "manifest.json").write_text(manifest)
    with pytest.raises(InputError, match=r"manifest\.json: "):
        _ = run.metrics


def test_a_record_without_a_manifest_is_a_finding():
    run = whole_record()
    (run.folder / "manifest.json").unlink()
    assert run.faults() == [
        f"{run.folder}/manifest.json: missing, so that no damage can be noticed; restore the record, or delete its "
        "folder and run it again"
    ]


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("metrics", {"validation": {"auc": 3}}, "auc of validation is 3, not a metric and its interval"),
        ("metrics", {"test": {"auc": {"value": True}}}, "auc of test is {'value': True}, not a metric and its"),
        ("metrics", {"test": {"auc": {"value": "high"}}}, "auc of test is {'value': 'high'}, not a metric and its"),
        ("metrics", {"test": {"auc": {"low": 0.5}}}, "auc of test is {'low': 0.5}, not a metric and its interval"),
        ("metrics", {"test": [0.5]}, "holds no metrics by split"),
        ("environment", {"packages": ["torch"]}, "packages is ['torch'], not what a run records"),
        ("environment", {"data_hash": 5}, "data_hash is 5, not what a run records"),
    ],
)
def test_a_value_of_another_type_is_a_finding_also_where_the_manifest_vouches_for_it(name, change, said):
    run = whole_record()
    path = run.folder / f"{name}.json"
    runs.write_json(path, json.loads(path.read_text()) | change)
    runs.write_manifest(run.folder, run.folder / "metrics.json")
    with pytest.raises(InputError, match=re.escape(f"{path}: {said}")) as caught:
        getattr(run, name)
    assert run.faults() == [str(caught.value)]


def test_an_environment_that_lacks_what_others_have_is_a_finding():
    run = whole_record()
    path = run.folder / "environment.json"
    runs.write_json(path, {"data_hash": "d", "commit": None})
    runs.write_manifest(run.folder, run.folder / "metrics.json")
    (fault,) = run.faults()
    assert fault.startswith(f"{path}: packages, python, system missing; restore the record")


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan"), None, "warm"])
def test_a_temperature_that_cannot_be_is_refused(temperature):
    run = runs.start_run(CONFIG, "d")
    run.finish(FRAME.assign(threshold=0.5, temperature=temperature), METRICS)
    with pytest.raises(InputError, match=r"predictions\.parquet: threshold and temperature must be finite"):
        _ = run.choices


def test_an_opening_that_was_cut_short_is_no_damage():
    """The files of an opening are written one after the other: a kill leaves new ones beside old ones."""
    run = finished_run()
    opened = pd.concat([FRAME, FRAME.assign(split="test")])
    runs.write_json(run.folder / "receipt.json", dict.fromkeys(runs.RECEIPT))
    assert not run.is_evaluated
    runs.write_parquet(run.folder / "predictions.parquet", opened)
    assert not run.is_evaluated
    metrics = (run.folder / "metrics.json").read_bytes()
    run.finish(opened, METRICS | {"test": METRICS["validation"]})
    assert run.is_evaluated
    (run.folder / "metrics.json").write_bytes(metrics)  # a kill between the manifest and the metrics
    assert not run.is_evaluated
    assert run.faults() == []


def test_a_published_record_is_whole_without_its_checkpoint():
    run = runs.start_run(CONFIG, "d")
    run.checkpoint.write_bytes(b"weights")
    run.finish(FRAME, METRICS)
    assert runs.Run(runs.publish(run)).faults() == []
    run.checkpoint.write_bytes(b"other weights")
    assert "best.ckpt: damaged" in run.faults()[0]


@pytest.mark.parametrize("is_finished", [True, False])
def test_a_run_is_not_taken_for_that_of_other_weights_of_the_same_name(tmp_path, is_finished):
    path = tmp_path / "stem.pth"
    path.write_bytes(b"first")
    config = CONFIG.model_copy(update={"model": ModelConfig(weights=str(path))})
    run = runs.start_run(config, "d")
    if is_finished:
        run.finish(FRAME, METRICS)
    path.write_bytes(b"second")
    with pytest.raises(InputError, match=r"started from weights with SHA-256 \w{12}, and '.*stem.pth' now has \w{12}"):
        runs.find_run(config, "d") if is_finished else runs.start_run(config, "d")
    path.unlink()  # a record is read where its weights are not at hand
    assert (runs.find_run(config, "d") if is_finished else runs.start_run(config, "d")).folder == run.folder


def test_a_killed_publication_is_no_record(monkeypatch):
    def killed(*_):
        raise KeyboardInterrupt

    run = finished_run()
    monkeypatch.setattr(runs, "write_bytes", killed, raising=False)
    with pytest.raises(KeyboardInterrupt):
        runs.publish(run)
    assert list(runs.all_runs(runs.COMMITTED)) == []


def test_every_committed_record_is_whole():
    n, faults = runs.check_records(ROOT / "results")
    assert n >= 42 and faults == []


def test_all_runs_lists_finished_ones_only():
    runs.start_run(RunConfig(seed=9), "d")
    finished = finished_run()
    assert [run.folder for run in runs.all_runs(runs.FRESH)] == [finished.folder]


def test_a_record_names_no_folder_of_one_machine():
    command = environment._command(
        ["/usr/bin/mammo", "run", "--data", "/home/somebody/cbis", "--profile", "my/own.yaml"]
    )
    assert command == "mammo run --data cbis --profile my/own.yaml"
    assert environment._command(["mammo", "run", "--data=/home/a/cbis", "--set", "x=/home/a/w.pth"]) == (
        "mammo run --data=cbis --set x=w.pth"
    )
    assert environment._command(["/x/ipykernel_launcher.py", "-f", "/tmp/k.json"]) == "notebook"
    committed = [run.environment.get("command") or "" for run in runs.all_runs(ROOT / "results")]
    assert [one for one in committed if " /" in one] == []
