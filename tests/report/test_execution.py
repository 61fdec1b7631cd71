"""Executed notebooks: a failed one never replaces a page, and chapters that share runs wait."""

import json
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import nbformat
import pytest

from mammo_lib.config import get_profile
from mammo_lib.errors import InputError
from mammo_lib.report import execution, outcomes, steps
from mammo_lib.runs.executor import InProcess

SMOKE = get_profile("smoke")


def test_executed_once_then_up_to_date(project):
    step = steps.plan(SMOKE)[0]
    assert not step.is_done
    execution.execute(step, SMOKE)
    page = nbformat.read(project / "book/notebooks/00_first.ipynb", as_version=4)
    assert page.cells[-1].outputs[0].text == "smoke\n"
    assert str(project) not in json.dumps(page)
    assert [s.is_done for s in steps.plan(SMOKE)] == [True, False]
    assert not steps.plan(SMOKE, force=True)[0].is_done


def test_a_failure_names_the_cell_and_keeps_the_old_page(project, write_notebook):
    execution.execute(steps.plan(SMOKE)[0], SMOKE)
    page = project / "book/notebooks/00_first.ipynb"
    before = page.read_bytes()
    write_notebook(project / "notebooks/00_first.ipynb", "1 / 0")
    with pytest.raises(
        outcomes.NotebookFailed, match=r"00_first\.ipynb, cell 2: ZeroDivisionError: division by zero"
    ) as caught:
        execution.execute(steps.plan(SMOKE)[0], SMOKE)
    assert page.read_bytes() == before
    assert caught.value.partial.is_file()


def test_a_kernel_that_dies_is_a_failure_with_its_cell(project, write_notebook):
    write_notebook(project / "notebooks/00_first.ipynb", "import os; os._exit(1)")
    step = steps.plan(SMOKE, only=["00"])[0]
    with pytest.raises(outcomes.NotebookFailed, match=r"00_first\.ipynb, cell \d: DeadKernelError") as caught:
        execution.execute(step, SMOKE)
    assert caught.value.source == "import os; os._exit(1)"


def toy(step, log, slow=()):
    """Log when a step starts and ends; 06 fails."""
    with open(log / step.number, "w") as file:
        file.write(f"{time.time()} ")
        time.sleep(0.5 if step.number in slow else 0)
        if step.number == "06":
            raise outcomes.NotebookFailed(step.source, 3, "ValueError", "no", "1 / 0", step.output)
        file.write(f"{time.time()}")
    return 2.0


def test_after_a_failure_nothing_new_starts(tmp_path, step_of):
    steps = [step_of("04", tmp_path, is_done=True), *(step_of(n, tmp_path) for n in ("05", "06", "07", "12"))]
    outcomes = list(execution.run_steps(steps, partial(toy, log=tmp_path), InProcess(), 1))
    assert [o.status for o in outcomes] == ["up to date", "done", "failed", "not run", "not run"]
    assert "06_chapter.ipynb, cell 3: ValueError: no" in str(outcomes[2].error)
    assert not (tmp_path / "07").exists()


def test_chapters_that_share_runs_wait_for_each_other_and_the_others_do_not(tmp_path, step_of):
    steps = [step_of(n, tmp_path) for n in ("00", "04", "05", "07")]
    work = partial(toy, log=tmp_path, slow=("00", "04", "05"))
    with ThreadPoolExecutor(2) as pool:
        outcomes = list(execution.run_steps(steps, work, pool, 2))
    span = {o.step.number: [float(t) for t in (tmp_path / o.step.number).read_text().split()] for o in outcomes}
    assert span["04"][1] <= span["05"][0] < span["05"][1] <= span["07"][0]
    assert span["00"][0] < span["04"][1]
    assert span["04"][0] < span["00"][1]


def test_a_second_reproduction_in_a_checkout_is_refused_while_the_first_is_at_work(project, monkeypatch):
    monkeypatch.setattr(execution, "execute", lambda step, profile, show_cells: 1.0)
    chosen = steps.plan(SMOKE)
    first = execution.run_chapters(chosen, SMOKE, {}, 1)
    next(first)
    with pytest.raises(InputError, match=r"papermill: another mammo reproduce is running in this checkout; wait"):
        next(execution.run_chapters(chosen, SMOKE, {}, 1))
    first.close()
    assert len(list(execution.run_chapters(chosen, SMOKE, {}, 1))) == len(chosen)
