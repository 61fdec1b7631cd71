"""The reproduction: what is up to date is not run again, a failed notebook never replaces a page."""

import json

import nbformat
import pytest

from mammo_lib import reproduce
from mammo_lib.config import PROFILES
from mammo_lib.errors import InputError

SMOKE = PROFILES["smoke"]


@pytest.fixture
def project(tmp_path, monkeypatch):
    """Three folders of a project, with two small notebooks."""
    for name, folder in (("SOURCE", "notebooks"), ("EXECUTED", "book/notebooks"), ("STATE", "_build/papermill")):
        (tmp_path / folder).mkdir(parents=True)
        monkeypatch.setattr(reproduce, name, tmp_path / folder)
    monkeypatch.setattr(reproduce, "ROOT", tmp_path)
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


def test_source_library_profile_and_data_each_make_a_notebook_stale(project):
    reproduce.execute(reproduce.plan(SMOKE)[0], SMOKE)
    assert not reproduce.plan(PROFILES["mirror"])[0].is_done
    assert not reproduce.plan(SMOKE, project)[0].is_done
    (project / "mammo_lib/new.py").write_text("x = 1")
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
