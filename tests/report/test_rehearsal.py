"""The rehearsal: it changes only quantities, collects failures, resumes, and none of its output passes for a result."""

import json
import os
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import torch
import yaml

from mammo_lib.config import REHEARSAL, get_profile, paths
from mammo_lib.config.identity import flat
from mammo_lib.data import collection as collections
from mammo_lib.errors import InputError
from mammo_lib.files import read_json, write_json
from mammo_lib.models import create_mambavision
from mammo_lib.models.random_weights import write_random_checkpoint
from mammo_lib.models.weights import load_checkpoint, read_checkpoint
from mammo_lib.report import book as pages
from mammo_lib.report import rehearsal, summary
from mammo_lib.runs import records
from mammo_lib.runs.experiments import experiment_configs
from mammo_lib.runs.manifest import check_files

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def home(tmp_path, monkeypatch, work_in):
    """A project folder that is marked as a rehearsal's, and that every module takes for its own."""
    write_json(tmp_path / REHEARSAL, {"profile": "tiny"})
    work_in(tmp_path)
    for module, name, place in (
        (paths, "ROOT", ""), (records, "COMMITTED", "results"), (records, "FRESH", "_build/runs"),
        (collections, "CACHE", "_build/cache"),
    ):  # fmt: skip
        monkeypatch.setattr(module, name, tmp_path / place)
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "_build").mkdir()
    return tmp_path


def finished_run(config):
    """Make the record of a baseline, without data."""
    import pandas as pd

    run = records.start_run(config, "d")
    run.finish(
        pd.DataFrame({"split": ["validation"], "label": [1], "probability": [0.5]}),
        {"validation": {"auc": {"value": 0.5}}},
    )
    return run


@pytest.mark.parametrize("name", ["smoke", "mirror", "mirror-cv", "paper"])
def test_a_rehearsal_changes_quantities_only(name):
    profile = get_profile(name)
    for has_gpu, allowed in (
        (True, {"train.epochs"}),
        (False, {"train.epochs", "train.batch_size", "data.image_size"}),
    ):
        cut = rehearsal.shortened(profile, has_gpu=has_gpu)
        assert (cut.name, cut.experiments, len(cut.seeds)) == (profile.name, profile.experiments, 1)
        before = experiment_configs(profile.model_copy(update={"seeds": cut.seeds}), "all")
        for old, new in zip(before, experiment_configs(cut, "all"), strict=True):
            left, right = (flat(one.model_dump(mode="json")) for one in (old, new))
            assert {key for key in left if left[key] != right[key]} <= allowed


def test_the_cut_profile_is_one_step():
    train = rehearsal.shortened(get_profile("paper"), has_gpu=False).run
    assert (train.train.epochs, train.train.batch_size, train.data.image_size) == (1, 8, (64, 64))
    in_folds = rehearsal.BREASTS * 2 / 3 * (1 - 1 / train.data.n_folds)  # two thirds are for training
    assert in_folds // train.train.batch_size == 1


def test_a_staged_folder_is_marked_on_every_page_and_keeps_what_was_done_there(tmp_path, monkeypatch):
    monkeypatch.setattr(rehearsal, "HOME", tmp_path)
    home = rehearsal.stage(get_profile("paper"))
    assert read_json(home / REHEARSAL)["about"] == rehearsal.BANNER
    for path in (home / "notebooks").glob("*.ipynb"):
        notebook = nbformat.read(path, as_version=4)
        nbformat.validate(notebook)
        assert rehearsal.BANNER in notebook.cells[1].source, path
    assert yaml.safe_load((home / "_config.yml").read_text())["html"]["announcement"] == rehearsal.BANNER
    profile = get_profile(home / "book" / "profiles" / "paper.yaml")
    assert (profile.run.model, len(profile.seeds)) == (get_profile("paper").run.model, 1)
    assert (home / "results" / "README.md").is_file()
    book = runpy.run_path(str(rehearsal.ROOT / "book" / "_ext" / "stage_notebooks.py"))
    assert book["binder_button"](home / "book") == book["binder_button"](rehearsal.ROOT / "book")  # its files are there
    weights = read_json(home / "data_manifest" / "weights.json")
    names = {weights[name]["file"] for name in ("T", "S", "B", "L", "resnet50")}
    assert {"random-mambavision_large_1k.pth.tar", "random-resnet50.safetensors"} < names
    assert all(name.startswith("random-") for name in names)

    for stays in ("book/notebooks/00.ipynb", "_build/runs/a", "weights/random"):
        (home / stays).parent.mkdir(parents=True, exist_ok=True)
        (home / stays).write_text("kept")
    (home / "notebooks" / "99_gone.ipynb").write_text("not in the project any more")
    rehearsal.stage(get_profile("paper"))
    assert all((home / one).is_file() for one in ("book/notebooks/00.ipynb", "_build/runs/a", "weights/random"))
    assert not (home / "notebooks" / "99_gone.ipynb").exists()
    rehearsal.stage(get_profile("paper"), is_new=True)
    assert not (home / "weights").exists()


def test_a_random_checkpoint_passes_the_strict_loader_and_is_refused_elsewhere(home, monkeypatch):
    path = home / "random-nano.pth.tar"
    write_random_checkpoint("nano", path)
    network = load_checkpoint(create_mambavision("nano"), path)
    assert torch.equal(network.head.weight, read_checkpoint(path)["head.weight"])
    other = home / "random-test.safetensors"
    write_random_checkpoint("test_resnet", other)
    assert read_checkpoint(other)
    monkeypatch.setattr(paths, "ROOT", home / "elsewhere")
    for one in (path, other):
        with pytest.raises(InputError, match=rf"{one.name}: random weights of a rehearsal"):
            read_checkpoint(one)


def test_a_rehearsed_record_is_refused_outside_its_rehearsal(home, monkeypatch, tiny_profile):
    config = tiny_profile.run.model_copy(update={"baseline": "birads"})
    run = finished_run(config)
    assert run.environment["rehearsal"] is True and run.faults() == []
    monkeypatch.setattr(paths, "ROOT", home / "elsewhere")
    check_files.__globals__["_check"].cache_clear()
    says = "made in a rehearsal, on a phantom with random weights: not a result"
    assert len(run.faults()) == 1 and says in run.faults()[0]
    for read in (lambda: run.config, lambda: run.metrics, lambda: records.publish(run),
                 lambda: records.find_run(config, "d"), records.runs_by_config):  # fmt: skip
        with pytest.raises(InputError, match=says):
            read()


@pytest.mark.parametrize(
    "command",
    [["results", "publish", "dual_stream"], ["results", "check", "RUN"], ["predict", "--sample", "--run", "RUN"],
     ["results", "export", "OUT", "--records", "RUNS"], ["export", "RUN"]],
    ids=" ".join,
)  # fmt: skip
def test_a_command_refuses_a_rehearsed_record_in_one_line(
    command, run_homes, tiny_profile, monkeypatch, tmp_path, capsys
):
    from mammo_lib import cli

    run = finished_run(tiny_profile.run)
    path = run.folder / "environment.json"
    write_json(path, read_json(path) | {"rehearsal": True})
    places = {"RUNS": str(records.FRESH), "RUN": str(run.folder), "OUT": str(tmp_path / "out")}
    monkeypatch.setattr(sys, "argv", ["mammo", *(places.get(word, word) for word in command)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2
    told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("mammo: ")]
    assert len(told) == 1 and "made in a rehearsal" in told[0]


def write_list(path, **overrides):
    """Write a list of experiments that a profile can name."""
    content = {name: {"question": "?", "overrides": one} for name, one in overrides.items()}
    write_json(path, {"experiments": content})


def write_chapter(path, source):
    parameters = nbformat.v4.new_code_cell("profile = 'none'", metadata={"tags": ["parameters"]})
    notebook = nbformat.v4.new_notebook(cells=[parameters, nbformat.v4.new_code_cell(source)])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(notebook, path)


@pytest.mark.slow
def test_a_rehearsal_collects_failures_and_goes_on_where_it_stopped(home, tiny_profile, monkeypatch, phantom_of):
    monkeypatch.setattr(rehearsal, "_images", lambda profile: phantom_of(n_breasts=24))
    monkeypatch.setattr(pages, "build_book", lambda: (home / "_build" / "html").mkdir(exist_ok=True))
    monkeypatch.setattr(summary, "describe_as_crate", lambda *_: None)
    for name in ("MAMMO_DATA", "OMP_NUM_THREADS"):
        monkeypatch.setenv(name, os.environ.get(name, "1"))  # restored afterwards
    one_stream, experiments = {"model": {"streams": ["crop"]}}, home / "experiments.json"
    write_list(experiments, dual_stream=one_stream, crop_again=one_stream, broken={"model": {"weights": "nowhere.pth"}})
    profile = rehearsal.shortened(tiny_profile, has_gpu=False).model_copy(
        update={"phantom_breasts": None, "experiments": str(experiments)}
    )
    write_chapter(home / "notebooks" / "00_first.ipynb", "1 / 0")
    write_chapter(home / "notebooks" / "05_second.ipynb", "1 + 1")

    first = {one.step: one for one in rehearsal.rehearse(profile, 1)}
    bad = {name: one.reason for name, one in first.items() if one.outcome in ("failed", "not run")}
    assert list(bad) == ["train broken", "open the list", "chapter 00_first"]
    assert "nowhere.pth: no such checkpoint" in bad["train broken"]
    assert "ZeroDivisionError" in bad["chapter 00_first"]
    assert first["chapter 05_second"].outcome == "done"
    [alone] = records.FRESH.glob("crop_again/*")
    assert not (alone / "best.ckpt").exists() and records.Run(alone).is_evaluated

    write_list(experiments, dual_stream=one_stream, crop_again=one_stream)
    write_chapter(home / "notebooks" / "00_first.ipynb", "1 + 1")
    second = {one.step: one for one in rehearsal.rehearse(profile, 1)}
    assert {one.outcome for one in second.values()} == {"done", "finished before"}
    again = ("train dual_stream", "train crop_again", "open crop_again", "chapter 05_second")
    assert {name: second[name].seconds for name in again} == {name: first[name].seconds for name in again}
    assert all(second[name].outcome == "finished before" for name in again)
    runs = [run for run in records.all_runs(records.FRESH) if not run.is_scored_only]
    assert {run.receipt["profile"] for run in runs} == {"tiny"}
    assert all(run.environment["rehearsal"] for run in records.all_runs(records.FRESH))
    assert "mini-MIAS, network" in second and list(home.glob("_build/runs/external_mini_mias/*/metrics.json"))


def test_an_unmarked_folder_rehearses_nothing():
    with pytest.raises(InputError, match="not the folder of a rehearsal"):
        next(rehearsal.rehearse(get_profile("smoke"), 1))


@pytest.mark.slow
def test_the_command_rehearses_a_small_profile_to_its_book(tmp_path):
    profile = tmp_path / "tiny.yaml"
    profile.write_text((ROOT / "book" / "profiles" / "smoke.yaml").read_text(encoding="utf-8"))
    project = tmp_path / "project"
    ignored = ("_build", ".git", "tests", ".venv")
    shutil.copytree(ROOT, project, ignore=shutil.ignore_patterns(*ignored))
    command = [sys.executable, "-m", "mammo_lib.cli", "reproduce", "--rehearse", "--profile", str(profile)]
    env = os.environ | {"MAMMO_ROOT": str(project), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
    home = project / "_build" / "rehearsal" / "tiny"
    assert {one["outcome"] for one in read_json(home / "_build" / "rehearsed.json")["steps"]} == {"done"}
    chapters = list((home / "_build" / "html" / "notebooks").glob("*.html"))
    assert len(chapters) == len(list((ROOT / "notebooks").glob("*.ipynb")))
    assert all(path.read_text(encoding="utf-8").count(rehearsal.BANNER) >= 2 for path in chapters)
    assert not list((project / "results").glob("*/*/environment.json.new"))
    assert json.loads((home / REHEARSAL).read_text())["profile"] == "tiny"
