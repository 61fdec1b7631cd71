"""A project with small notebooks, and steps of a plan that need none."""

import nbformat
import pytest

from mammo_lib.report import execution, steps, summary


@pytest.fixture
def project(tmp_path, monkeypatch, write_notebook):
    """A project with two small notebooks, in which every module works."""
    for name, folder in (("SOURCE", "notebooks"), ("EXECUTED", "book/notebooks"), ("STATE", "_build/papermill")):
        (tmp_path / folder).mkdir(parents=True)
        monkeypatch.setattr(steps, name, tmp_path / folder)
    for module in (steps, execution, summary):
        monkeypatch.setattr(module, "ROOT", tmp_path)
    monkeypatch.setattr(summary, "SUMMARY", tmp_path / "_build/summary.json")
    (tmp_path / "mammo_lib").mkdir()
    write_notebook(tmp_path / "notebooks/00_first.ipynb", "print(profile)")
    write_notebook(tmp_path / "notebooks/05_second.ipynb", "1 + 1")
    return tmp_path


@pytest.fixture(scope="session")
def write_notebook():
    """A function of path and source that writes a notebook with a parameter and one cell."""
    return _write_notebook


@pytest.fixture(scope="session")
def step_of():
    """A function of number and folder that returns a step of a plan."""
    return _step_of


def _write_notebook(path, source):
    parameters = nbformat.v4.new_code_cell("profile = 'none'", metadata={"tags": ["parameters"]})
    notebook = nbformat.v4.new_notebook(cells=[parameters, nbformat.v4.new_code_cell(source)])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(notebook, path)


def _step_of(number, folder, **facts):
    path = folder / f"{number}_chapter.ipynb"
    return steps.Step(path, path, f"key {number}", **({"is_done": False, "parameters": {}} | facts))
