"""Tables from run records: every number is traceable to the hand-made records."""

import numpy as np
import pandas as pd
import pytest

from mammo_lib.analysis import tables as results
from mammo_lib.config import RunConfig, get_profile
from mammo_lib.errors import InputError
from mammo_lib.runs.records import Run, write_json
from mammo_lib.statistics import auc, mcnemar

PAPER = get_profile("paper")
RECEIPT = {"opened_at": "2026-01-01", "profile": "paper", "runs": [], "protocol_hash": "p", "added_after": None}


def write_run(home, experiment, seed, strength=1.0, n=40, **receipt):
    """A record as training and opening leave it: validation and test rows whose scores hold some of the label."""
    generator = np.random.default_rng([seed, int(10 * strength)])
    label = np.tile([0, 1, 1, 0, 1], 2 * n // 5)
    logit = strength * (2 * label - 1) + generator.normal(size=2 * n)
    frame = pd.DataFrame({"sample_id": [f"b{i}" for i in range(2 * n)], "patient_id": np.arange(2 * n) // 2})
    frame = frame.assign(label=label, split=np.repeat(["validation", "test"], n), logit=logit)
    frame = frame.assign(probability=1 / (1 + np.exp(-logit)), threshold=0.5, temperature=1.0)
    run = Run(home / experiment / f"seed{seed}")
    run.folder.mkdir(parents=True)
    write_json(run.folder / "config.json", RunConfig(experiment=experiment, seed=seed).model_dump(mode="json"))
    write_json(run.folder / "receipt.json", RECEIPT | receipt)
    run.finish(frame, {"validation": {}, "test": {}})
    return run


def write_runs(home):
    """Three experiments with three seeds each; their scores hold much of the label, a little less, and next to none."""
    return {
        name: [write_run(home, name, seed, strength) for seed in range(3)]
        for name, strength in (("dual_stream", 1.0), ("no_seqmoe", 0.9), ("crop_only", 0.1))
    }


@pytest.fixture
def runs(tmp_path):
    return write_runs(tmp_path)


def test_the_summary_is_the_mean_of_the_records(runs):
    table = results.summary(runs).set_index("experiment")
    single = [auc(f["label"], f["probability"].to_numpy()) for f in results.predictions_per_seed(runs["dual_stream"])]
    row = table.loc["dual_stream"]
    assert row["mean"] == pytest.approx(np.mean(single))
    assert row["sd"] == pytest.approx(np.std(single, ddof=1))
    assert row["mean_low"] < row["mean"] < row["mean_high"]
    assert (row["seeds"], row["n"], row["status"]) == (3, 40, "frozen list")
    merged = results.ensemble_predictions(runs["dual_stream"])
    assert row["ensemble"] == auc(merged["label"], merged["probability"].to_numpy())


def test_size_is_the_share_of_the_first_and_matched_within_five_percent(runs):
    table = results.summary(runs, parameters={"dual_stream": 100, "no_seqmoe": 96, "crop_only": 50})
    assert table["size"].tolist() == [1.0, 0.96, 0.5]
    assert table["matched"].tolist() == [True, True, False]


def test_differences_count_from_the_others_side(runs):
    table = results.differences(runs, "dual_stream").set_index("experiment")
    crop = table.loc["crop_only"]
    assert crop["difference"] < 0
    assert crop["difference_high"] < 0
    full, other = (results.ensemble_predictions(runs[name]) for name in ("dual_stream", "crop_only"))
    right = [(f["probability"] >= f["threshold"]) == f["label"] for f in (full, other)]
    assert (crop["gained"], crop["lost"]) == ((right[1] & ~right[0]).sum(), (right[0] & ~right[1]).sum())
    decisions = [(f["probability"] >= f["threshold"]).astype(int) for f in (full, other)]
    assert crop["p_decisions"] >= mcnemar(full["label"], *decisions)  # Holm never lowers a p value
    assert results.differences({"dual_stream": runs["dual_stream"]}, "dual_stream").empty


def test_one_late_seed_marks_the_whole_experiment(runs, tmp_path):
    late = write_run(tmp_path, "late", 0, added_after="2026-01-02")
    alone = write_run(tmp_path, "alone", 0, profile=None)
    assert [results.is_exploratory(run) for run in (runs["dual_stream"][0], late, alone)] == [False, True, True]
    table = results.summary({**runs, "mixed": [*runs["no_seqmoe"][:2], late]}).set_index("experiment")
    assert table.loc["mixed", "status"] == "exploratory"
    assert table.loc["no_seqmoe", "status"] == "frozen list"


def test_openings_tell_whether_the_list_is_still_the_same(tmp_path):
    kept = write_run(tmp_path, "dual_stream", 0, list_hash=results.list_hash(PAPER))
    moved = write_run(tmp_path, "dual_stream", 1, list_hash="another", opened_at="2026-01-02")
    table = results.openings({"dual_stream": [kept, moved]}, PAPER)
    assert table["same_list"].tolist() == [True, False]
    assert table["same_protocol"].tolist() == [False, False]  # these receipts name no protocol of ours


def test_without_receipts_nothing_was_opened():
    assert results.openings({}, PAPER).empty and "opened_at" in results.openings({}, PAPER)


def test_a_closed_split_is_an_error_that_says_what_to_run(runs):
    with pytest.raises(InputError, match=r"no 'test_lesion' predictions \(it has validation, test\); run `mammo eval"):
        results.predictions_per_seed(runs["dual_stream"], "test_lesion")


def test_the_record_of_what_did_not_help_is_checked(tmp_path):
    assert results.did_not_help(tmp_path).empty
    path = tmp_path / results.DID_NOT_HELP
    path.write_text("tried,measured_on,value,reference,verdict\nlarger,validation,0.7,0.71,no\n")
    assert results.did_not_help(tmp_path)["tried"].tolist() == ["larger"]
    path.write_text("tried,value\nlarger,0.7\n")
    with pytest.raises(InputError, match="column 'measured_on' is missing"):
        results.did_not_help(tmp_path)


def test_whether_two_scores_can_be_told_apart_is_said_from_the_reference():
    table = pd.DataFrame(
        {"experiment": ["worse", "open", "behind"], "difference": [-0.12, 0.01, -0.01],
         "difference_low": [-0.2, -0.03, -0.05], "difference_high": [-0.03, 0.05, 0.03], "n": 149}
    )  # fmt: skip
    # The reference minus the other is the table's difference with its sign and its bounds exchanged.
    assert results.told_apart(table, "worse", "it") == (
        "better than it (AUC difference +0.120, 95 % CI +0.030 to +0.200)"
    )
    assert results.told_apart(table, "open", "it") == (
        "not shown to differ from it (AUC difference -0.010, 95 % CI -0.050 to +0.030)"
    )
    assert results.told_apart(table, "behind", "it") == (
        "not shown to differ from it (AUC difference +0.010, 95 % CI -0.030 to +0.050)"
    )
