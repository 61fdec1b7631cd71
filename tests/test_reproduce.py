"""The reproduction: an up-to-date notebook is not run again, and a failed one never replaces a page."""

import json
import os
import pickle
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import nbformat
import pandas as pd
import pytest

from mammo_lib import reproduce
from mammo_lib.config import get_profile
from mammo_lib.errors import InputError
from mammo_lib.runs import records
from mammo_lib.runs.executor import InProcess
from mammo_lib.runs.experiments import experiment_configs

SMOKE = get_profile("smoke")


@pytest.fixture
def project(tmp_path, monkeypatch):
    """Three folders of a project, with two small notebooks."""
    for name, folder in (("SOURCE", "notebooks"), ("EXECUTED", "book/notebooks"), ("STATE", "_build/papermill")):
        (tmp_path / folder).mkdir(parents=True)
        monkeypatch.setattr(reproduce, name, tmp_path / folder)
    monkeypatch.setattr(reproduce, "ROOT", tmp_path)
    monkeypatch.setattr(reproduce, "SUMMARY", tmp_path / "_build/summary.json")
    (tmp_path / "mammo_lib").mkdir()
    write_notebook(tmp_path / "notebooks/00_first.ipynb", "print(profile)")
    write_notebook(tmp_path / "notebooks/05_second.ipynb", "1 + 1")
    return tmp_path


def write_notebook(path, source):
    parameters = nbformat.v4.new_code_cell("profile = 'none'", metadata={"tags": ["parameters"]})
    notebook = nbformat.v4.new_notebook(cells=[parameters, nbformat.v4.new_code_cell(source)])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(notebook, path)


def test_executed_once_then_up_to_date(project):
    step = reproduce.plan(SMOKE)[0]
    assert not step.is_done
    reproduce.execute(step, SMOKE)
    page = nbformat.read(project / "book/notebooks/00_first.ipynb", as_version=4)
    assert page.cells[-1].outputs[0].text == "smoke\n"
    assert str(project) not in json.dumps(page)
    assert [s.is_done for s in reproduce.plan(SMOKE)] == [True, False]
    assert not reproduce.plan(SMOKE, force=True)[0].is_done


@pytest.mark.parametrize(
    "content", [b"", b"\xff\xfe", b"[]", b"{}", b'{"nbformat": 4, "nbformat_minor": 5, "cells": 1}']
)
def test_a_damaged_notebook_is_one_line(project, content):
    path = project / "notebooks/05_second.ipynb"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"05_second.ipynb: not a readable notebook \(\w+: .*\); restore it") as caught:
        reproduce.plan(SMOKE)
    assert "\n" not in str(caught.value)


def test_source_library_profile_and_data_each_make_a_notebook_stale(project):
    reproduce.execute(reproduce.plan(SMOKE)[0], SMOKE)
    assert not reproduce.plan(get_profile("mirror"))[0].is_done
    assert not reproduce.plan(SMOKE, project)[0].is_done
    (project / "mammo_lib/new.py").write_text("x = 1")
    assert not reproduce.plan(SMOKE)[0].is_done


def test_another_profile_makes_a_notebook_stale_since_chapters_compare_with_it(project):
    reproduce.execute(reproduce.plan(SMOKE)[0], SMOKE)
    (project / "book/profiles").mkdir()
    (project / "book/profiles/paper.yaml").write_text("seeds: [0]")
    assert not reproduce.plan(SMOKE)[0].is_done


def test_a_failure_names_the_cell_and_keeps_the_old_page(project):
    reproduce.execute(reproduce.plan(SMOKE)[0], SMOKE)
    page = project / "book/notebooks/00_first.ipynb"
    before = page.read_bytes()
    write_notebook(project / "notebooks/00_first.ipynb", "1 / 0")
    with pytest.raises(
        reproduce.NotebookFailed, match=r"00_first\.ipynb, cell 2: ZeroDivisionError: division by zero"
    ) as caught:
        reproduce.execute(reproduce.plan(SMOKE)[0], SMOKE)
    assert page.read_bytes() == before
    assert caught.value.partial.is_file()


def test_only_and_from_choose_chapters(project):
    assert [s.source.name for s in reproduce.plan(SMOKE, only=["05"])] == ["05_second.ipynb"]
    assert [s.source.name for s in reproduce.plan(SMOKE, start="05")] == ["05_second.ipynb"]
    with pytest.raises(InputError, match=r"no notebook starts with '07': choose from 00, 05"):
        reproduce.plan(SMOKE, only=["07"])
    write_notebook(project / "notebooks/05a_more.ipynb", "2 + 2")
    assert [s.source.name for s in reproduce.plan(SMOKE, start="05a")] == ["05a_more.ipynb"]
    assert [s.source.name for s in reproduce.plan(SMOKE, start="05")] == ["05_second.ipynb", "05a_more.ipynb"]


def test_a_parameter_goes_to_the_notebooks_that_have_it_and_an_unknown_one_is_refused(project):
    with pytest.raises(InputError, match="no notebook has a parameter 'epoch': choose from profile"):
        reproduce.plan(SMOKE, parameters={"epoch": 3})
    path = project / "notebooks/05_second.ipynb"
    notebook = nbformat.read(path, as_version=4)
    notebook.cells[0].source += "\nseeds = 5"
    nbformat.write(notebook, path)
    before = reproduce.plan(SMOKE)
    first, second = reproduce.plan(SMOKE, parameters={"seeds": 2})
    assert first.parameters == {"profile": "smoke"}
    assert second.parameters == {"profile": "smoke", "seeds": 2}
    assert (first.key == before[0].key, second.key == before[1].key) == (True, False)


@pytest.mark.parametrize(
    "name", ["benchmarks/efficiency.json", "results/what_did_not_help.csv", "released/dual/metrics.json"]
)
def test_what_a_chapter_shows_makes_it_stale(project, name):
    before = reproduce.plan(SMOKE)[0].key
    (project / name).parent.mkdir(parents=True, exist_ok=True)
    (project / name).write_text("{}")
    assert reproduce.plan(SMOKE)[0].key != before


def test_a_kernel_that_dies_is_a_failure_with_its_cell(project):
    write_notebook(project / "notebooks/00_first.ipynb", "import os; os._exit(1)")
    step = reproduce.plan(SMOKE, only=["00"])[0]
    with pytest.raises(reproduce.NotebookFailed, match=r"00_first\.ipynb, cell \d: DeadKernelError") as caught:
        reproduce.execute(step, SMOKE)
    assert caught.value.source == "import os; os._exit(1)"


def step_of(number, folder, **facts):
    path = folder / f"{number}_chapter.ipynb"
    return reproduce.Step(path, path, f"key {number}", **({"is_done": False, "parameters": {}} | facts))


def toy(step, log, slow=()):
    """Log when a step starts and ends; 06 fails."""
    with open(log / step.number, "w") as file:
        file.write(f"{time.time()} ")
        time.sleep(0.5 if step.number in slow else 0)
        if step.number == "06":
            raise reproduce.NotebookFailed(step.source, 3, "ValueError", "no", "1 / 0", step.output)
        file.write(f"{time.time()}")
    return 2.0


def test_after_a_failure_nothing_new_starts(tmp_path):
    steps = [step_of("04", tmp_path, is_done=True), *(step_of(n, tmp_path) for n in ("05", "06", "07", "12"))]
    outcomes = list(reproduce.run_steps(steps, partial(toy, log=tmp_path), InProcess(), 1))
    assert [o.status for o in outcomes] == ["up to date", "done", "failed", "not run", "not run"]
    assert "06_chapter.ipynb, cell 3: ValueError: no" in str(outcomes[2].error)
    assert not (tmp_path / "07").exists()


def test_chapters_that_share_runs_wait_for_each_other_and_the_others_do_not(tmp_path):
    steps = [step_of(n, tmp_path) for n in ("00", "04", "05", "07")]
    work = partial(toy, log=tmp_path, slow=("00", "04", "05"))
    with ThreadPoolExecutor(2) as pool:
        outcomes = list(reproduce.run_steps(steps, work, pool, 2))
    span = {o.step.number: [float(t) for t in (tmp_path / o.step.number).read_text().split()] for o in outcomes}
    assert span["04"][1] <= span["05"][0] < span["05"][1] <= span["07"][0]
    assert span["00"][0] < span["04"][1]
    assert span["04"][0] < span["00"][1]


def test_time_left_is_what_it_took_before_and_the_mean_where_that_is_unknown(tmp_path):
    steps = [step_of("00", tmp_path), step_of("01", tmp_path, expected=30.0), step_of("02", tmp_path)]
    done = reproduce.StepOutcome(steps[0], "done", 10.0)
    assert reproduce.seconds_left(steps, [done]) == 30 + (30 + 10) / 2
    assert reproduce.seconds_left(steps, [done], jobs=2) == 25
    assert reproduce.seconds_left([steps[0], steps[2]], []) is None
    assert "about 50 s left" in reproduce.progress_line(steps, [done])


def test_the_summary_says_what_became_of_each_notebook(project):
    steps = reproduce.plan(SMOKE)
    reproduce.execute(steps[0], SMOKE)
    assert reproduce.plan(SMOKE)[0].expected > 0
    error = reproduce.NotebookFailed(steps[1].source, 2, "ValueError", "no", "1 / 0", project / "partial.ipynb")
    outcomes = [reproduce.StepOutcome(steps[0], "done", 1.5), reproduce.StepOutcome(steps[1], "failed", error=error)]
    reproduce.write_summary(reproduce.start_summary(SMOKE, {"train": "a"}, {}), steps, outcomes)
    summary = json.loads((project / "_build/summary.json").read_text())
    first, second = summary["notebooks"]
    assert first == {"notebook": "00_first", "status": "done", "seconds": 1.5, "key": steps[0].key, "error": None}
    assert second["error"]["message"] == "05_second.ipynb, cell 2: ValueError: no"
    assert (summary["profile"], summary["data_hash"], summary["book"]) == ("smoke", {"train": "a"}, None)
    assert {"commit", "versions", "is_dirty", "started_at", "updated_at"} <= set(summary)


def test_a_second_reproduction_in_a_checkout_is_refused_while_the_first_is_at_work(project, monkeypatch):
    monkeypatch.setattr(reproduce, "execute", lambda step, profile, show_cells: 1.0)
    steps = reproduce.plan(SMOKE)
    first = reproduce.run_chapters(steps, SMOKE, {}, 1)
    next(first)
    with pytest.raises(InputError, match=r"papermill: another mammo reproduce is running in this checkout; wait"):
        next(reproduce.run_chapters(steps, SMOKE, {}, 1))
    first.close()
    assert len(list(reproduce.run_chapters(steps, SMOKE, {}, 1))) == len(steps)


def test_a_finished_reproduction_is_an_ro_crate(project, run_homes, collection, monkeypatch):
    from rocrate.rocrate import ROCrate

    monkeypatch.setattr(records, "FRESH", project / "_build" / "runs")
    config = next(one for one in experiment_configs(SMOKE, "all") if one.baseline == "birads")
    runs = [records.start_run(one, "d") for one in (config, config.model_copy(update={"experiment": "of_nobody"}))]
    for run in runs:
        frame = pd.DataFrame({"split": ["validation"], "label": [1], "probability": [0.5]})
        run.finish(frame, {"validation": {"auc": {"value": 0.5}}})
    steps = reproduce.plan(SMOKE)
    outcomes = [reproduce.StepOutcome(step, "done", reproduce.execute(step, SMOKE)) for step in steps]
    book = project / "_build" / "html" / "index.html"
    book.parent.mkdir()
    book.write_text("<p>the book")
    head = reproduce.start_summary(SMOKE, {"train": "a", "test": "b"}, {})
    reproduce.write_summary(head, steps, outcomes, book)
    assert reproduce.describe_as_crate(SMOKE, steps, book) == project / "ro-crate-metadata.json"
    crate = ROCrate(project)  # refuses a crate whose files are missing
    made, trained = (crate.get(name) for name in ("#reproduction", f"#{runs[0].name}"))
    assert crate.get(f"#{runs[1].name}") is None
    names = ("00_first.ipynb", "05_second.ipynb")
    assert [one.id for one in made["object"]] == [*(f"notebooks/{name}" for name in names), "#data-b", "#data-a"]
    written = [*(f"book/notebooks/{name}" for name in names), "_build/summary.json", "_build/html/index.html"]
    assert [one.id for one in made["result"]] == written
    assert (made["description"], made["startTime"]) == (head["command"], head["started_at"])
    assert trained["instrument"] == made["instrument"]
    assert head["commit"] is None or head["commit"] in made["instrument"]["softwareVersion"]


def test_retraining_makes_every_page_stale(project, monkeypatch):
    reproduce.execute(reproduce.plan(SMOKE)[0], SMOKE)
    monkeypatch.setitem(os.environ, "MAMMO_RETRAIN", "1")
    assert not reproduce.plan(SMOKE)[0].is_done


def test_a_failure_can_come_from_another_process(tmp_path):
    error = reproduce.NotebookFailed(tmp_path / "06.ipynb", 3, "ValueError", "no", "1 / 0", tmp_path)
    copy = pickle.loads(pickle.dumps(error))
    assert (str(copy), copy.source, copy.partial) == (str(error), "1 / 0", tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("where", ["the root", "another folder"])
def test_plain_papermill_works_from(where, tmp_path):
    root = Path(__file__).resolve().parents[1]
    notebook = root / "notebooks" / "00_the_paper_and_its_numbers.ipynb"
    given = notebook.relative_to(root) if where == "the root" else notebook
    command = [sys.executable, "-m", "papermill", str(given), str(tmp_path / "out.ipynb"), "-p", "profile", "smoke"]
    done = subprocess.run(command, cwd=root if where == "the root" else tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    cells = nbformat.read(tmp_path / "out.ipynb", as_version=4).cells
    assert all(cell.execution_count for cell in cells if cell.cell_type == "code")
