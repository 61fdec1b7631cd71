"""What a reproduction says of itself."""

import json

import pandas as pd

from mammo_lib.config import get_profile
from mammo_lib.report import execution, steps, summary
from mammo_lib.report.outcomes import NotebookFailed, StepOutcome
from mammo_lib.runs import records
from mammo_lib.runs.experiments import experiment_configs

SMOKE = get_profile("smoke")


def test_the_summary_says_what_became_of_each_notebook(project):
    first, second = steps.plan(SMOKE)
    execution.execute(first, SMOKE)
    assert steps.plan(SMOKE)[0].expected > 0
    error = NotebookFailed(second.source, 2, "ValueError", "no", "1 / 0", project / "partial.ipynb")
    outcomes = [StepOutcome(first, "done", 1.5), StepOutcome(second, "failed", error=error)]
    summary.write_summary(summary.start_summary(SMOKE, {"train": "a"}, {}), [first, second], outcomes)
    written = json.loads((project / "_build/summary.json").read_text())
    done, failed = written["notebooks"]
    assert done == {"notebook": "00_first", "status": "done", "seconds": 1.5, "key": first.key, "error": None}
    assert failed["error"]["message"] == "05_second.ipynb, cell 2: ValueError: no"
    assert (written["profile"], written["data_hash"], written["book"]) == ("smoke", {"train": "a"}, None)
    assert {"commit", "versions", "is_dirty", "started_at", "updated_at"} <= set(written)


def test_a_finished_reproduction_is_an_ro_crate(project, run_homes, collection, monkeypatch):
    from rocrate.rocrate import ROCrate

    monkeypatch.setattr(records, "FRESH", project / "_build" / "runs")
    config = next(one for one in experiment_configs(SMOKE, "all") if one.baseline == "birads")
    runs = [records.start_run(one, "d") for one in (config, config.model_copy(update={"experiment": "of_nobody"}))]
    for run in runs:
        frame = pd.DataFrame({"split": ["validation"], "label": [1], "probability": [0.5]})
        run.finish(frame, {"validation": {"auc": {"value": 0.5}}})
    chosen = steps.plan(SMOKE)
    outcomes = [StepOutcome(step, "done", execution.execute(step, SMOKE)) for step in chosen]
    book = project / "_build" / "html" / "index.html"
    book.parent.mkdir()
    book.write_text("<p>the book")
    head = summary.start_summary(SMOKE, {"train": "a", "test": "b"}, {})
    summary.write_summary(head, chosen, outcomes, book)
    assert summary.describe_as_crate(SMOKE, chosen, book) == project / "ro-crate-metadata.json"
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
