"""The test set: opened for the whole frozen list or not at all, once, with a receipt."""

import json

import pytest

from mammo_lib.analysis.tables import is_exploratory
from mammo_lib.config import get_profile, profile_names
from mammo_lib.data.cbis_ddsm.sources import open_source
from mammo_lib.data.cbis_ddsm.tables import read_tables
from mammo_lib.data.cohort import build_cohort
from mammo_lib.data.collection import Collection
from mammo_lib.errors import InputError
from mammo_lib.files import file_hash
from mammo_lib.runs import evaluate
from mammo_lib.runs import records as runs
from mammo_lib.runs.experiments import FROZEN, experiment_configs, read_experiments
from mammo_lib.runs.protocols import PROTOCOL_5
from mammo_lib.statistics import evaluate_predictions
from mammo_lib.training import train

pytestmark = pytest.mark.usefixtures("run_homes")


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Where the records of this module's one full opening lie."""
    return tmp_path_factory.mktemp("opened")


@pytest.fixture(scope="module")
def opened(home, tiny_profile, collection):
    """The whole frozen list of the tiny profile, trained and opened once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runs, "FRESH", home / "fresh")
        patch.setattr(runs, "COMMITTED", home / "committed")
        for config in experiment_configs(tiny_profile, "all"):
            train.train_run(config, collection)
        return evaluate.evaluate_profile(tiny_profile, collection)


def test_nothing_opens_before_every_run_is_finished(tiny_profile, collection):
    with pytest.raises(InputError, match=r"not trained yet, so the test set stays closed; run `mammo run --experiment"):
        evaluate.evaluate_profile(tiny_profile, collection)


def test_opening_adds_test_rows_and_a_receipt(opened, collection):
    run = opened[0].run
    assert all(one.is_new for one in opened)
    test = run.predictions.query("split == 'test'")
    cohort = collection.cohort(run.config.data, "test")
    assert len(test) == len(cohort)
    assert list(test["label"]) == list(cohort["label"])
    validation = run.predictions.query("split == 'validation'")
    assert set(test["threshold"]) == set(validation["threshold"])
    assert not set(test["patient_id"]) & set(validation["patient_id"])
    receipt = json.loads((run.folder / "receipt.json").read_text())
    assert {"opened_at", "experiments_hash", "protocol_hash", "list_hash", "test_data_hashes"} <= set(receipt)
    assert receipt["runs"] == [one.run.name for one in opened]
    assert {one.run.receipt["opened_at"] for one in opened} == {receipt["opened_at"]}  # one opening, not one a run


def test_metrics_are_a_function_of_the_predictions(opened):
    run = opened[0].run
    assert set(run.metrics) == {"validation", "test", "test_official", "test_lesion"} == set(run.predictions["split"])
    for split, rows in run.predictions.groupby("split"):
        assert run.metrics[split] == evaluate_predictions(rows)
        assert "partial_auc" in run.metrics[split]


def test_all_three_definitions_are_scored_by_the_same_network(tiny_profile, collection):
    run = evaluate.open_test_set(baseline(tiny_profile, collection, "birads"), collection).run
    parts = dict(list(run.predictions.groupby("split")))
    for split, definition in {"test": "paper", "test_official": "official", "test_lesion": "lesion"}.items():
        expected = build_cohort(collection.table, definition, "test")
        assert parts[split]["sample_id"].tolist() == expected["sample_id"].tolist()
        assert parts[split]["label"].tolist() == expected["label"].tolist()
    own, official = (parts[split].set_index("sample_id")["logit"] for split in ("test", "test_official"))
    assert len(official) > len(own)  # breasts with lesions of both labels
    assert official[own.index].tolist() == own.tolist()


def test_lesions_without_a_crop_of_their_own_are_left_out(phantom_of, tiny_profile):
    """The 800-px set does not say which box of a film is which lesion: such lesions are no half-blind samples."""
    root = phantom_of("mirror-800", n_breasts=24)
    mirror = Collection(root, read_tables(root), open_source(root))
    config = tiny_profile.run
    lesions = build_cohort(mirror.table, "lesion", "test")
    films = {row.sample_id: [film_of(row, view) for view in ("CC", "MLO")] for row in lesions.itertuples()}
    boxes = mirror.source.lesions
    several = {name for name, both in films.items() if any(len(boxes[film]) > 1 for film in both)}
    one_sided = min(several)
    boxes[films[one_sided][0]] = boxes[films[one_sided][0]][-1:]  # its crop is known in CC and not in MLO
    kept = evaluate.opened_cohorts(config, mirror)["test_lesion"]
    assert set(kept.cohort["sample_id"]) == set(films) - several == set(kept.index["sample_id"])


def film_of(row, view):
    return f"{row.patient_id.removeprefix('P_')}_{row.laterality}_{view}"


def baseline(profile, collection, name, **fields):
    (config,) = experiment_configs(profile, f"baseline_{name}")
    return train.train_run(config.model_copy(update=fields), collection)


def test_what_joins_an_opened_list_is_exploratory(tiny_profile, collection, monkeypatch):
    """An opening that was cut short goes on; a run that was not on its list is marked, with the time it came after."""
    names = ["baseline_birads", "baseline_majority", "baseline_metadata"]
    listed = [experiment_configs(tiny_profile, name)[0] for name in names]
    first, second, late = (train.train_run(config, collection) for config in listed)
    monkeypatch.setattr(evaluate, "experiment_configs", lambda *_: listed[:2])
    scored = evaluate.evaluate_predictions
    monkeypatch.setattr(evaluate, "evaluate_predictions", stop_after(3, scored))
    with pytest.raises(KeyboardInterrupt):
        evaluate.evaluate_profile(tiny_profile, collection)
    assert (first.is_evaluated, second.is_evaluated) == (True, False)
    monkeypatch.setattr(evaluate, "evaluate_predictions", scored)
    evaluate.evaluate_profile(tiny_profile, collection)
    assert not is_exploratory(second)
    monkeypatch.setattr(evaluate, "experiment_configs", lambda *_: listed)
    evaluate.evaluate_profile(tiny_profile, collection)
    assert [is_exploratory(run) for run in (first, second, late)] == [False, False, True]
    assert late.receipt["added_after"] == first.receipt["opened_at"]


def stop_after(calls, function):
    """Return ``function``, killed at the call after so many."""
    left = iter(range(calls))

    def once(*arguments):
        if next(left, None) is None:
            raise KeyboardInterrupt
        return function(*arguments)

    return once


def test_a_run_opened_by_itself_is_exploratory(tiny_profile, collection):
    run = baseline(tiny_profile, collection, "majority")
    assert is_exploratory(evaluate.open_test_set(run, collection).run)


def test_a_second_opening_reads_the_records_and_needs_no_checkpoint(
    opened, home, tiny_profile, collection, monkeypatch
):
    monkeypatch.setattr(runs, "COMMITTED", home / "fresh")
    for one in opened:
        one.run.checkpoint.unlink(missing_ok=True)
    assert not any(one.is_new for one in evaluate.evaluate_profile(tiny_profile, collection))
    again = evaluate.run_and_evaluate(tiny_profile, collection)
    assert [run.name for seeds in again.values() for run in seeds] == [one.run.name for one in opened]


@pytest.mark.parametrize("name", profile_names())
def test_every_frozen_experiment_is_a_valid_config_and_differs_from_the_others(name):
    profile = get_profile(name)
    configs = experiment_configs(profile, "all")
    assert len(configs) == len(profile.seeds) * len(read_experiments(profile))
    contents = [config.model_dump_json(exclude={"experiment"}) for config in configs]
    assert len(set(contents)) == len(contents)


def test_groups_name_experiments_that_exist():
    frozen = json.loads(FROZEN.read_text())
    assert all(set(members) <= set(frozen["experiments"]) for members in frozen["groups"].values())
    streams = experiment_configs(get_profile("paper"), "ablation_streams")
    assert {config.experiment for config in streams} == {"dual_stream", "crop_only", "whole_only"}


def test_unknown_experiment_names_the_choices(tiny_profile):
    with pytest.raises(InputError, match=r"unknown experiment 'dual' in profile 'tiny': choose one of dual_stream"):
        experiment_configs(tiny_profile, "dual")


@pytest.mark.parametrize(("content", "problem"), [
    ({"a": {"question": "?", "overrides": "x"}}, "experiments.a.overrides: Input should be a valid dictionary"),
    ({"a": {"question": "?", "overrides": [1]}}, "experiments.a.overrides: Input should be a valid dictionary"),
    ({"a": {"overrides": {}}}, "experiments.a.question: Field required"),
    ({"a": {"question": "?", "override": {}}}, r"experiments.a.override: unknown key; did you mean .*overrides\?"),
    ({"a": []}, "experiments.a: Input should be"),
    ([], "experiments: Input should be a valid dictionary"),
])  # fmt: skip
def test_an_entry_of_a_list_of_ones_own_that_cannot_be_is_one_line(tiny_profile, tmp_path, content, problem):
    path = tmp_path / "own.json"
    path.write_text(json.dumps({"experiments": content}))
    for read in (lambda: read_experiments(tiny_profile, path), lambda: experiment_configs(tiny_profile, "a", path)):
        with pytest.raises(InputError, match=rf"own\.json: {problem}.*; correct the entry, or restore") as caught:
            read()
        assert "\n" not in str(caught.value)


def test_an_opening_killed_between_its_two_files_counts_no_breast_twice(tiny_profile, collection, monkeypatch):
    from mammo_lib.runs import records as runs

    run = baseline(tiny_profile, collection, "birads")
    with monkeypatch.context() as patch:
        patch.setattr(runs, "write_json", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            evaluate.open_test_set(run, collection)
    assert not run.is_evaluated
    assert run.receipt is not None  # the look left its trace before any score did
    evaluate.open_test_set(run, collection)
    predictions = run.predictions
    assert not predictions.duplicated(["split", "sample_id"]).any()
    assert len(predictions.query("split == 'test'")) == run.metrics["test"]["auc"]["n"]


def test_a_receipt_names_the_protocol_and_the_list_of_its_profile(tiny_profile, collection):
    profile = get_profile("mirror-final")
    run = baseline(tiny_profile, collection, "birads", protocol=5)
    receipt = evaluate.opening_of(profile, [run])
    assert receipt["protocol_hash"] == file_hash(PROTOCOL_5) == run.environment["protocol_hash"]
    assert receipt["experiments_hash"] == file_hash(FROZEN.with_name(profile.experiments))
    assert evaluate.open_test_set(run, collection).run.receipt["protocol_hash"] == file_hash(PROTOCOL_5)
