"""A project with small notebooks, and steps of a plan that need none."""

import nbformat
import pytest

from mammo_lib.report import book, execution, rehearsal, steps, summary

PLACES = {  # of the project, which the modules name
    steps: {"ROOT": "", "SOURCE": "notebooks", "EXECUTED": "book/notebooks", "STATE": "_build/papermill"},
    execution: {"ROOT": ""},
    summary: {"ROOT": "", "SUMMARY": "_build/summary.json"},
    book: {"ROOT": "", "BUILD": "_build"},
    rehearsal: {"ROOT": "", "BUILD": "_build", "STEPS": "_build/rehearsed.json"},
}


@pytest.fixture
def work_in(monkeypatch):
    """A function that makes every module of the report take a folder for the project's."""

    def patch(folder):
        for module, names in PLACES.items():
            for name, place in names.items():
                monkeypatch.setattr(module, name, folder / place)

    return patch


@pytest.fixture
def project(tmp_path, work_in, write_notebook):
    """A project with two small notebooks, in which every module works."""
    work_in(tmp_path)
    for folder in ("notebooks", "book/notebooks", "_build/papermill", "mammo_lib"):
        (tmp_path / folder).mkdir(parents=True)
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
