"""Repeated records: equal to the last bit on this machine, and every kind of difference is reported."""

import json
import shutil
import subprocess
import sys
import threading
from types import SimpleNamespace

import filelock
import pandas as pd
import pytest

from mammo_lib.cli import app
from mammo_lib.config import as_repeats
from mammo_lib.errors import InputError
from mammo_lib.files import safe_name
from mammo_lib.runs import records, verify
from mammo_lib.runs.evaluate import open_test_set
from mammo_lib.runs.records import Run
from mammo_lib.training import train

pytestmark = pytest.mark.usefixtures("run_homes")


@pytest.fixture(autouse=True)
def scratch(tmp_path, monkeypatch):
    monkeypatch.setattr(verify, "SCRATCH", tmp_path / "scratch")
    return tmp_path / "scratch"


@pytest.fixture
def small(tiny_profile):
    """A network of one stream and one view, one epoch."""
    run = tiny_profile.run
    model = run.model.model_copy(update={"streams": ("crop",), "views": ("CC",)})
    return run.model_copy(update={"model": model, "train": run.train.model_copy(update={"epochs": 1})})


def tampered(run: Run, folder, change) -> Run:
    """Copy a record, change its predictions, and give it the manifest of an honest one."""
    copy = Run(shutil.copytree(run.folder, folder / run.folder.parent.name / run.folder.name))
    copy.finish(change(copy.predictions), copy.metrics)
    assert copy.faults() == []
    return copy


def moved(by: float):
    return lambda frame: frame.assign(probability=frame["probability"] + by * (frame.index == 0))


def test_a_network_is_made_again_bit_by_bit_and_its_opened_test_rows_too(small, collection, scratch):
    run = train.train_run(small, collection)
    open_test_set(run, collection)
    found = verify.verify(run, collection)
    assert (found.verdict, found.columns, found.probability, found.metric) == ("bitwise", (), 0.0, 0.0)
    assert found.made_on == run.environment["device"]
    assert found.auc == {
        split: 2 * (run.metrics[split]["auc"]["value"],) for split in run.predictions["split"].unique()
    }
    assert found.is_reproduced and found.causes == ()
    assert found.rows == len(run.predictions) > (run.predictions["split"] == "validation").sum()
    assert not list(scratch.rglob("*.json"))


def test_a_closed_test_set_stays_closed(small, collection, monkeypatch):
    run = train.train_run(small, collection)
    original, asked = type(collection).prepare, []
    monkeypatch.setattr(
        type(collection), "prepare", lambda self, *a, **k: asked.append(a[0]) or original(self, *a, **k)
    )
    assert verify.verify(run, collection).verdict == "bitwise"
    assert set(asked) == {"train"}


def test_a_cross_validation_is_made_again(small, collection):
    [config] = as_repeats([small.model_copy(update={"baseline": "birads"})], 1)
    found = verify.verify(train.train_run(config, collection), collection)
    assert (found.verdict, found.rows) == ("bitwise", len(collection.prepare("train", *config.inputs).cohort))


@pytest.mark.parametrize(
    "change, verdict, columns",
    [
        (moved(1e-9), "within rounding", ("probability",)),
        (moved(1e-3), "different", ("probability",)),
        (lambda frame: frame.assign(threshold=0.123), "within rounding", ("threshold",)),
        (lambda frame: frame.iloc[1:], "different", ("split", "sample_id")),
        (lambda frame: frame.assign(label=1 - frame["label"]), "different", ("label",)),
    ],
)
def test_a_tampered_record_is_found(small, collection, tmp_path, scratch, change, verdict, columns):
    run = train.train_run(small.model_copy(update={"baseline": "birads"}), collection)
    found = verify.verify(tampered(run, tmp_path / "tampered", change), collection)
    assert (found.verdict, found.columns) == (verdict, columns)
    assert list(scratch.rglob("predictions.parquet")), "what came out otherwise is kept"


@pytest.mark.parametrize(
    "change, verdict",
    [
        ({}, "bitwise"),
        ({"value": 0.51}, "different"),
        ({"value": 0.5 + 1e-9}, "within rounding"),
        ({"n": None}, "different"),
        ({"newer": 1.0}, "different"),
        ({"why": "one class"}, "bitwise"),
        ({"why": "no reason"}, "different"),
    ],
)
def test_metrics_are_compared(change, verdict, tmp_path):
    frame = pd.DataFrame({"split": ["validation"], "sample_id": ["a"], "label": [1], "probability": [0.5]})
    one, two = Run(tmp_path / "one"), Run(tmp_path / "two")
    for run, values in ((one, {"value": 0.5, "n": 1} | change), (two, {"value": 0.5, "n": 1, "why": "one class"})):
        run.folder.mkdir()
        run.finish(frame, {"validation": {"auc": values}})
    assert verify.compare(one, two, 1e-6)["verdict"] == verdict


def test_a_missing_probability_is_no_rounding():
    frame = pd.DataFrame({"split": "test", "sample_id": ["a", "b"], "probability": [0.2, 0.7]})
    lost = frame.assign(probability=[0.2, float("nan")])
    assert verify.compare_scores(frame, frame) == ((), 0.0)
    assert verify.compare_scores(frame, lost) == (("probability",), None)


def test_other_data_are_told_before_anything_is_trained(small, collection, tmp_path, monkeypatch):
    run = train.train_run(small.model_copy(update={"baseline": "birads"}), collection)
    environment = run.environment | {"data_hash": "0" * 64}
    records.write_json(run.folder / "environment.json", environment)
    (run.folder / "manifest.json").unlink()
    monkeypatch.setattr(train, "train_fold", lambda *a, **k: pytest.fail("trained"))
    found = verify.verify(run, collection)
    assert found.verdict == "other data" and not found.is_reproduced
    assert found.causes[0].startswith("data 000000000000, here ")


def test_a_record_whose_predictions_cannot_be_read_has_failed_and_ends_nothing(small, tmp_path, monkeypatch):
    run = Run(tmp_path / "dual_stream" / "seed0-damaged")
    run.folder.mkdir(parents=True)
    records.write_json(run.folder / "config.json", small.model_dump(mode="json"))
    records.write_json(run.folder / "environment.json", {"data_hash": "same"})
    (run.folder / "predictions.parquet").write_bytes(b"PAR1")
    monkeypatch.setattr(verify, "retrain", lambda *a, **k: run)
    found = verify.verify(run, SimpleNamespace(prepare=lambda *_: SimpleNamespace(fingerprint="same")))
    assert found.verdict == "failed" and "predictions.parquet" in found.causes[0]


def test_two_processes_that_add_an_outcome_at_once_keep_both(tmp_path, monkeypatch):
    path = tmp_path / "verified.json"
    path.write_text("{}")
    add = lambda name: verify.write_outcome(path, verify.Verification(name, "bitwise"), 0.0)  # noqa: E731
    other = threading.Thread(target=add, args=["b"])

    def read_while_another_writes(path, way_out, original=verify.read_json):
        content = original(path, way_out)
        if threading.current_thread() is not other:
            other.start()
            other.join(0.2)  # without a lock it has written by now
        return content

    here = dict.fromkeys(("commit", "is_dirty", "threads", "system", "python")) | {"device": "zen5"}
    monkeypatch.setattr(verify, "describe_environment", lambda: here)
    monkeypatch.setattr(verify, "read_json", read_while_another_writes)
    add("a")
    other.join()
    assert set(json.loads(path.read_text())["zen5"]) == {"a", "b"}


def test_causes_are_named():
    before = {"device": "znver3", "python": "3.11.7", "packages": {"torch": "2.12", "numba": "1"}, "commit": "a" * 40}
    now = {"device": "zen5", "python": "3.11.7", "threads": 2, "packages": {"torch": "2.13", "numba": "1"}}
    assert verify.what_has_changed(before, now | {"commit": "b" * 40}) == (
        "processor znver3, here zen5", "threads not recorded, here 2", "torch 2.12, here 2.13",
        "code aaaaaaa, here bbbbbbb",
    )  # fmt: skip
    assert verify.what_has_changed(before, before) == ()


def test_threads_stand_in_the_record(small, collection):
    import torch

    assert train.train_run(small, collection).environment["threads"] == torch.get_num_threads()


def test_records_are_chosen_by_name(small, collection):
    run = train.train_run(small.model_copy(update={"baseline": "birads"}), collection)
    home = run.folder.parents[1]
    for names in ([], ["dual_stream"], [run.name]):
        assert verify.choose_records(home, names) == [run]
    with pytest.raises(InputError, match=r"no record 'dual_steam'; did you mean dual_stream\?"):
        verify.choose_records(home, ["dual_steam"])
    with pytest.raises(InputError, match=r": no record 'x'; `mammo list` names the experiments$"):
        verify.choose_records(home, ["x"])
    for experiment, command in (("external_mini_mias", "external"), ("incomplete_dual", "evaluate --incomplete")):
        shutil.copytree(run.folder, home / experiment / "seed0")
        for name in (experiment, f"{experiment}/seed0"):
            said = f": '{name}' holds only scores by networks of other records, .*; `mammo {command}` makes them again$"
            with pytest.raises(InputError, match=said):
                verify.choose_records(home, [name])


def test_the_command_prints_a_table_adds_to_its_outcomes_and_fails_where_a_record_does_not_hold(
    small, collection, tmp_path
):
    from typer.testing import CliRunner

    run = train.train_run(small.model_copy(update={"baseline": "birads"}), collection)
    tampered(run, tmp_path / "tampered", moved(1e-3))
    outcomes = tmp_path / "new" / "verified.json"
    call = ["verify", "--data", str(collection.root), "--json", str(outcomes), "--records"]
    good = CliRunner().invoke(app, [*call, str(run.folder.parents[1])])
    assert good.exit_code == 0, good.output
    assert "bitwise" in good.output and "1 of 1 records reproduced" in good.output
    without = [one for one in call if one not in ("--data", str(collection.root))]
    named = CliRunner().invoke(app, [*without, str(run.folder.parents[1])], env={"MAMMO_DATA": str(collection.root)})
    assert "1 of 1 records reproduced" in named.output  # the images that MAMMO_DATA names, not a phantom
    here = run.environment["device"]
    known = {"another": {run.name: {"verdict": "bitwise"}}, here: {"other/seed0": {"verdict": "bitwise"}}}
    older = {"older/seed0": {"verdict": "bitwise", "device": here}}  # before outcomes were kept by processor
    outcomes.write_text(json.dumps(known | older))
    bad = CliRunner().invoke(app, [*call, str(tmp_path / "tampered")])
    assert bad.exit_code == 1 and "0 of 1 records reproduced" in bad.output
    found = json.loads(outcomes.read_text())
    assert set(found) == {"another", here} and found["another"] == known["another"]
    assert found[here]["other/seed0"] == known[here]["other/seed0"]
    entry = found[here][run.name]
    assert (entry["verdict"], entry["columns"], entry["tolerance"]) == ("different", ["probability"], 1e-6)
    assert {"commit", "made_on", "threads", "verified_at"} <= set(entry)


def test_a_folder_without_records_is_refused(tmp_path):
    command = [sys.executable, "-m", "mammo_lib.cli", "verify", "--records", str(tmp_path / "none")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2 and "no record of a finished run here or below" in done.stderr


def test_a_record_or_the_folder_of_its_experiment_is_found_without_its_folds(small, collection):
    run = train.train_run(small, collection)
    shutil.copytree(run.folder, run.folder / "fold0")
    for home in (run.folder, run.folder.parent, run.folder.parents[1]):
        assert [one.folder for one in verify.choose_records(home, [])] == [run.folder]


def test_two_processes_do_not_train_one_record_again_at_the_same_time(scratch):
    """They shared a folder, and a sound record was called different."""
    record = SimpleNamespace(name="crop/seed0")
    scratch.mkdir()
    with filelock.FileLock(scratch / f".{safe_name(record.name)}.lock"):
        other = threading.Thread(target=lambda: said.append(refusal(record)))
        said = []
        other.start()
        other.join()
    assert said == [f"{scratch / record.name}: another mammo verify is training this record again; wait until it ends"]


def refusal(record) -> str:
    with pytest.raises(InputError) as error:
        verify.verify(record, None)
    return str(error.value)


@pytest.mark.parametrize("name", ["no/folder.txt/v.json", "x" * 300 + ".json"], ids=["a file for a folder", "too long"])
def test_a_target_that_takes_no_file_is_refused_before_training(name, tmp_path):
    (tmp_path / "no").mkdir()
    (tmp_path / "no" / "folder.txt").touch()
    with pytest.raises(InputError, match=r"[vx]\.json: cannot be written \(.+\); give another file with --json"):
        verify.check_target(tmp_path / name)


@pytest.mark.parametrize(
    "tries, message, color",
    [
        ([("zen5", "bitwise"), (None, "within rounding")], "2 of 2 tried, 3 in all", "brightgreen"),
        ([("zen5", "bitwise"), ("zen5", "different")], "1 of 2 tried, 3 in all", "red"),
        ([("zen5", "other data")], "0 of 1 tried, 3 in all", "red"),  # nothing was made again
        (
            [("zen5", "bitwise"), ("an older one", "different")],
            "1 of 1 tried, 3 in all",
            "brightgreen",
        ),
        ([], "0 of 0 tried, 3 in all", "lightgrey"),
    ],
)
def test_the_badge_counts_what_was_tried_and_what_there_is(tries, message, color, tmp_path, monkeypatch):
    """Three records of training, and one of scores on another collection, which nobody trains again."""
    runs = [SimpleNamespace(is_scored_only=one) for one in (False, False, False, True)]
    monkeypatch.setattr(verify, "all_runs", lambda home: runs)
    monkeypatch.setattr(verify, "describe_environment", lambda original=verify.describe_environment: (
        original() | {"device": "zen5"}
    ))  # fmt: skip
    for number, (made_on, verdict) in enumerate(tries):
        one = verify.Verification(f"record/{number}", verdict, made_on=made_on)
        verify.write_outcome(tmp_path / "verified.json", one, 1e-6)
    badge = {"schemaVersion": 1, "label": "records reproduced", "message": message, "color": color}
    assert verify.records_badge(tmp_path) == badge


def test_a_record_that_fails_on_one_of_two_processors_does_not_hold(tmp_path, monkeypatch):
    monkeypatch.setattr(verify, "all_runs", lambda home: [SimpleNamespace(is_scored_only=False)])
    entry = {"made_on": None, "verdict": "bitwise"}
    tried = {"zen4": {"a/0": entry}, "zen5": {"a/0": entry | {"verdict": "different"}}, "zen6": {"a/0": entry}}
    (tmp_path / "verified.json").write_text(json.dumps(tried))
    assert verify.records_badge(tmp_path)["message"] == "0 of 1 tried, 1 in all"
