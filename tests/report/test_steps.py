"""What makes a notebook stale, and which notebooks are chosen."""

import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from mammo_lib.config import get_profile
from mammo_lib.errors import InputError
from mammo_lib.report import execution, steps

SMOKE = get_profile("smoke")


@pytest.mark.parametrize(
    "content", [b"", b"\xff\xfe", b"[]", b"{}", b'{"nbformat": 4, "nbformat_minor": 5, "cells": 1}']
)
def test_a_damaged_notebook_is_one_line(project, content):
    path = project / "notebooks/05_second.ipynb"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"05_second.ipynb: not a readable notebook \(\w+: .*\); restore it") as caught:
        steps.plan(SMOKE)
    assert "\n" not in str(caught.value)


def test_source_library_profile_and_data_each_make_a_notebook_stale(project):
    execution.execute(steps.plan(SMOKE)[0], SMOKE)
    assert not steps.plan(get_profile("mirror"))[0].is_done
    assert not steps.plan(SMOKE, project)[0].is_done
    (project / "mammo_lib/new.py").write_text("x = 1")
    assert not steps.plan(SMOKE)[0].is_done


def test_another_profile_makes_a_notebook_stale_since_chapters_compare_with_it(project):
    execution.execute(steps.plan(SMOKE)[0], SMOKE)
    (project / "book/profiles").mkdir()
    (project / "book/profiles/paper.yaml").write_text("seeds: [0]")
    assert not steps.plan(SMOKE)[0].is_done


def test_only_and_from_choose_chapters(project, write_notebook):
    assert [s.source.name for s in steps.plan(SMOKE, only=["05"])] == ["05_second.ipynb"]
    assert [s.source.name for s in steps.plan(SMOKE, start="05")] == ["05_second.ipynb"]
    for wrong in ("07", "", "05_", "second"):
        with pytest.raises(InputError, match=rf"^--only '{wrong}': no such chapter; choose from 00, 05$"):
            steps.plan(SMOKE, only=["00", wrong])
        with pytest.raises(InputError, match=rf"^--from '{wrong}': no such chapter; choose from 00, 05$"):
            steps.plan(SMOKE, start=wrong)
    with pytest.raises(
        InputError, match=r"^--only 00 with --from 05: no chapter is left; with this --from, choose --only from 05$"
    ):
        steps.plan(SMOKE, only=["00"], start="05")
    write_notebook(project / "notebooks/05a_more.ipynb", "2 + 2")
    assert [s.source.name for s in steps.plan(SMOKE, start="05a")] == ["05a_more.ipynb"]
    assert [s.source.name for s in steps.plan(SMOKE, start="05")] == ["05_second.ipynb", "05a_more.ipynb"]


def test_a_parameter_goes_to_the_notebooks_that_have_it_and_an_unknown_one_is_refused(project):
    unknown = "--parameter epoch: no chosen notebook has this parameter; "
    with pytest.raises(InputError, match=f"{unknown}they have none but profile, which --profile sets"):
        steps.plan(SMOKE, parameters={"epoch": 3})
    path = project / "notebooks/05_second.ipynb"
    notebook = nbformat.read(path, as_version=4)
    notebook.cells[0].source += "\nseeds = 5"
    nbformat.write(notebook, path)
    before = steps.plan(SMOKE)
    with pytest.raises(InputError, match=f"{unknown}choose from seeds"):
        steps.plan(SMOKE, parameters={"epoch": 3})
    first, second = steps.plan(SMOKE, parameters={"seeds": 2})
    assert first.parameters == {"profile": "smoke"}
    assert second.parameters == {"profile": "smoke", "seeds": 2}
    assert (first.key == before[0].key, second.key == before[1].key) == (True, False)


@pytest.mark.parametrize(
    "name", ["benchmarks/efficiency.json", "results/what_did_not_help.csv", "released/dual/metrics.json"]
)
def test_what_a_chapter_shows_makes_it_stale(project, name):
    before = steps.plan(SMOKE)[0].key
    (project / name).parent.mkdir(parents=True, exist_ok=True)
    (project / name).write_text("{}")
    assert steps.plan(SMOKE)[0].key != before


def test_retraining_makes_every_page_stale(project, monkeypatch):
    execution.execute(steps.plan(SMOKE)[0], SMOKE)
    monkeypatch.setitem(os.environ, "MAMMO_RETRAIN", "1")
    assert not steps.plan(SMOKE)[0].is_done


@pytest.mark.slow
@pytest.mark.parametrize("where", ["the root", "another folder"])
def test_plain_papermill_works_from(where, tmp_path):
    root = Path(__file__).resolve().parents[2]
    notebook = root / "notebooks" / "00_the_paper_and_its_numbers.ipynb"
    given = notebook.relative_to(root) if where == "the root" else notebook
    command = [sys.executable, "-m", "papermill", str(given), str(tmp_path / "out.ipynb"), "-p", "profile", "smoke"]
    done = subprocess.run(command, cwd=root if where == "the root" else tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    cells = nbformat.read(tmp_path / "out.ipynb", as_version=4).cells
    assert all(cell.execution_count for cell in cells if cell.cell_type == "code")
