"""The exported results: CSV tables with the content of the records, a data package, and an RO-Crate of all actions."""

import json
import shutil
import subprocess

import pandas as pd
import pytest

from mammo_lib.config import RunConfig
from mammo_lib.errors import InputError
from mammo_lib.files import file_hash, write_csv
from mammo_lib.runs import crate, export, records
from mammo_lib.runs.records import Run

pytestmark = pytest.mark.usefixtures("run_homes")
PARSED = {"integer": "Int64", "number": "float64", "boolean": "boolean", "string": "string"}


@pytest.fixture
def runs() -> list[Run]:
    """A baseline, and a network with a history, both with breasts of unknown density."""
    made = []
    for seed, name in ((0, "baseline_birads"), (1, "dual_stream")):
        baseline = "birads" if seed == 0 else None
        run = records.start_run(RunConfig(experiment=name, seed=seed, baseline=baseline), f"data{seed}")
        frame = pd.DataFrame({
            "sample_id": ["a", "b"], "split": "validation", "label": [0, 1], "density": pd.array([None, 2], "Int64"),
            "probability": [0.1 + seed / 7, 1 / 3], "has_CC": [True, False],
        })  # fmt: skip
        if seed:
            write_csv(run.folder / "history.csv", pd.DataFrame({"epoch": [0, 1], "train_loss": [0.7, 1 / 3]}))
        run.finish(frame, {"validation": {"auc": {"value": 1 / 7, "low": 0.0, "high": 0.5, "n": 2}}})
        made.append(run)
    return made


@pytest.fixture
def folder(runs, tmp_path):
    """The export of both."""
    (runs[1].folder / "best.ckpt").write_bytes(b"weights")
    assert export.export_records(records.FRESH, tmp_path / "out") == 2
    return tmp_path / "out"


def test_the_tables_hold_what_the_records_hold(folder, runs):
    table = pd.read_csv(folder / "tables" / "predictions.csv")
    for run in runs:
        own = table[table["run"] == run.folder.name].drop(columns=["experiment", "run"]).reset_index(drop=True)
        wanted = run.predictions
        pd.testing.assert_frame_equal(own, wanted, check_dtype=False, check_exact=True)
    history = pd.read_csv(folder / "tables" / "history.csv")
    assert history["run"].unique().tolist() == [runs[1].folder.name] and history["train_loss"].iloc[1] == 1 / 3
    [metric, _] = pd.read_csv(folder / "tables" / "metrics.csv").to_dict("records")
    assert metric == {
        "experiment": "baseline_birads", "run": runs[0].folder.name, "split": "validation", "metric": "auc",
        "value": 1 / 7, "low": 0.0, "high": 0.5, "n": 2,
    }  # fmt: skip
    listed = pd.read_csv(folder / "tables" / "runs.csv")
    assert listed["seed"].tolist() == [0, 1] and listed["data_hash"].tolist() == ["data0", "data1"]
    assert listed["data.image_size"].unique().tolist() == ["224 224"]


def test_the_data_package_describes_every_table(folder):
    package = json.loads((folder / "datapackage.json").read_text())
    assert {one["path"] for one in package["resources"]} == {
        path.relative_to(folder).as_posix() for path in (folder / "tables").iterdir()
    }
    for one in package["resources"]:
        path = folder / one["path"]
        assert (one["bytes"], one["hash"]) == (path.stat().st_size, f"sha256:{file_hash(path)}")
        kinds = {field["name"]: PARSED[field["type"]] for field in one["schema"]["fields"]}
        assert list(pd.read_csv(path, dtype=kinds).columns) == list(kinds)  # raises where a cell is of another type
    [predictions] = [one for one in package["resources"] if one["name"] == "predictions"]
    kinds = {field["name"]: field["type"] for field in predictions["schema"]["fields"]}
    assert {name: kinds[name] for name in ("density", "probability", "has_CC", "run")} == {
        "density": "integer", "probability": "number", "has_CC": "boolean", "run": "string",
    }  # fmt: skip


def test_the_crate_names_inputs_tool_and_outputs_of_every_run(folder, runs):
    from rocrate.rocrate import ROCrate

    whole = ROCrate(folder)
    assert whole.root_dataset["conformsTo"].id == crate.PROFILE
    assert {one.id for one in whole.root_dataset["mentions"]} == {f"#{run.name}" for run in runs}
    for run, action in zip(runs, whole.root_dataset["mentions"], strict=True):
        home = f"records/{run.name}"
        assert action.type == "CreateAction" and action["description"] == run.environment["command"]
        assert [one.id for one in action["object"]] == [
            f"{home}/config.json", f"{home}/environment.json", f"#data-{run.environment['data_hash']}",
        ]  # fmt: skip
        assert {f"{home}/predictions.parquet", f"{home}/metrics.json"} <= {one.id for one in action["result"]}
        assert str(run.environment["commit"]) in action["instrument"]["softwareVersion"]
        assert f"numpy {run.environment['packages']['numpy']}" in action["instrument"]["softwareRequirements"]
    described = {one.id: one for one in whole.data_entities if one.type == "File"}
    on_disk = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert set(described) == on_disk - {"ro-crate-metadata.json"}
    assert not [name for name in on_disk if name.endswith(".ckpt")]
    assert {name: one["sha256"] for name, one in described.items()} == {
        name: file_hash(folder / name) for name in described
    }


VALIDATOR = shutil.which("rocrate-validator")


@pytest.mark.skipif(VALIDATOR is None, reason="no rocrate-validator: uv tool install roc-validator")
def test_the_crate_is_valid(folder):
    """All that the profile Process Run Crate requires; contexts are fetched, so that this needs a network."""
    command = [VALIDATOR, "-y", "validate", "-p", "process-run-crate-0.5", "-l", "required", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_what_cannot_be_exported_is_refused_and_leaves_nothing(runs, tmp_path):
    with pytest.raises(InputError, match="no record of a finished run"):
        export.export_records(tmp_path / "none", tmp_path / "out")
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "mine.txt").touch()
    with pytest.raises(InputError, match="used: in use; give a new folder"):
        export.export_records(records.FRESH, tmp_path / "used")
    (runs[0].folder / "predictions.parquet").write_bytes(b"damaged")
    with pytest.raises(InputError, match="damaged: it differs from the record's manifest"):
        export.export_records(records.FRESH, tmp_path / "out")
    (runs[0].folder / "metrics.json").unlink()  # was left out without a word
    with pytest.raises(InputError, match=r"metrics\.json: missing"):
        export.export_records(records.FRESH, tmp_path / "out")
    assert [path.name for path in (tmp_path).iterdir() if "out" in path.name] == []
