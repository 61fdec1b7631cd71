"""The official test breasts with films missing: all networks of a list under one receipt, or none."""

import shutil

import numpy as np
import pytest

from mammo_lib.errors import InputError
from mammo_lib.files import file_hash
from mammo_lib.inference import incomplete, provenance
from mammo_lib.runs import records
from mammo_lib.runs.protocols import PROTOCOL_8


@pytest.fixture
def networks(untrained_run):
    return [untrained_run(), untrained_run(streams=["crop"])]


@pytest.fixture
def scored(networks, tiny_profile, collection, run_homes):
    return incomplete.score_incomplete(networks, tiny_profile, collection)


def test_the_complete_input_scores_as_the_opened_test_set_does(scored, networks, collection):
    from mammo_lib.data.loader import in_cohort_order
    from mammo_lib.models.network import load_best, predict

    for record, network in zip(scored, networks, strict=True):
        test = collection.prepare("test", *network.config.inputs)
        usual = predict(load_best(network), in_cohort_order(test, network.config.train), test.cohort)
        streams = "+".join(network.config.model.streams)
        hidden = record.hidden_inputs
        complete = hidden[(hidden["views"] == "CC+MLO") & (hidden["streams"] == streams)].set_index("sample_id")
        assert set(complete.index) == set(usual["sample_id"]) and set(hidden["split"]) == {"test"}
        same = complete.loc[usual["sample_id"], "logit"]
        np.testing.assert_allclose(same, usual["logit"], rtol=1e-5, atol=1e-6)
        assert set(hidden["fill"]) == {"mask"} and hidden.groupby(["views", "streams"]).ngroups == 3 * (
            3 if len(network.config.model.streams) > 1 else 1
        )


def test_breasts_with_one_view_are_scored_apart(scored, networks, collection):
    both, one = incomplete.test_parts(networks[0], collection)
    alone = scored[0].predictions
    assert set(alone["split"]) == {incomplete.ONE_FILM} and not set(one.cohort["sample_id"]) & set(
        both.cohort["sample_id"]
    )
    assert alone["sample_id"].tolist() == one.cohort["sample_id"].tolist()
    assert (alone["has_CC"] ^ alone["has_MLO"]).all()
    assert (alone[["threshold", "temperature"]] == [*networks[0].choices]).all(axis=None)


def test_a_record_has_its_protocol_and_a_receipt_of_the_whole_list(scored):
    for record in scored:
        assert record.faults() == [] and record.is_scored_only and not record.is_evaluated
        assert record.environment["protocol_hash"] == record.receipt["protocol_hash"] == file_hash(PROTOCOL_8)
        assert record.receipt["runs"] == [one.name for one in scored] and record.receipt["added_after"] is None
        assert record.config.experiment.startswith("incomplete_")


def test_a_finished_record_is_read_and_a_later_network_counts_as_added(
    scored, networks, untrained_run, tiny_profile, collection
):
    times = [(record.folder / "metrics.json").stat().st_mtime_ns for record in scored]
    later = [*networks, untrained_run(streams=["whole"])]
    again = incomplete.score_incomplete(later, tiny_profile, collection)
    assert times == [(record.folder / "metrics.json").stat().st_mtime_ns for record in again[:2]]
    assert again[2].receipt["added_after"] == scored[0].receipt["opened_at"]


def test_without_a_breast_of_one_view_nothing_is_opened(networks, tiny_profile, collection, run_homes, monkeypatch):
    monkeypatch.setattr(incomplete, "ANY_VIEW", "paper")
    with pytest.raises(InputError, match="no test breast has one view only"):
        incomplete.score_incomplete(networks, tiny_profile, collection)
    assert not list(records.FRESH.glob("*/*/receipt.json"))


def test_a_network_that_differs_from_its_record_is_refused(networks, run_homes):
    """It was trained again elsewhere, and says something else of a held-out breast."""
    record, again = networks[0], records.Run(records.FRESH / networks[0].name)
    again.folder.parent.mkdir(parents=True)
    shutil.copytree(record.folder, again.folder)
    record.checkpoint.unlink()
    (record.folder / "manifest.json").unlink()
    assert provenance.same_network(record).folder == again.folder
    other = record.predictions.assign(probability=lambda rows: rows["probability"] + 0.002)
    again.finish(other, {"validation": {}})
    with pytest.raises(InputError, match=r"differs by up to 0\.002 .* \(allowed: 0\.001\)"):
        provenance.same_network(record)


def test_the_list_is_scored_together_or_not_at_all(tiny_profile, run_homes):
    with pytest.raises(InputError, match="not trained yet, and the list is scored together; run `mammo run"):
        provenance.listed_networks(tiny_profile)
