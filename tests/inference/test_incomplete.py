"""The official test breasts with films missing: all networks of a list under one receipt, or none."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from mammo_lib.errors import InputError
from mammo_lib.inference import incomplete, provenance
from mammo_lib.runs import evaluate, protocols, records


@pytest.fixture
def networks(untrained_run, monkeypatch):
    """A list of two networks, whose test set has been opened."""
    own = [untrained_run(), untrained_run(streams=["crop"])]
    monkeypatch.setattr(incomplete, "opened_networks", lambda profile, collection: own)
    return own


@pytest.fixture
def score(networks, tiny_profile, collection, run_homes):
    return lambda: incomplete.score_incomplete(tiny_profile, collection)


@pytest.fixture
def scored(score):
    return score()


def times_of(runs):
    return [(run.folder / "metrics.json").stat().st_mtime_ns for run in runs]


def test_the_complete_input_scores_as_the_opened_test_set_does(scored, networks, collection):
    from mammo_lib.data.loader import in_cohort_order
    from mammo_lib.models.network import load_best, predict

    for record, network in zip(scored, networks, strict=True):
        test = collection.prepare("test", *network.config.inputs)
        usual = predict(load_best(network), in_cohort_order(test, network.config.train), test.cohort)
        streams, hidden = "+".join(network.config.model.streams), record.hidden_inputs
        complete = hidden[(hidden["views"] == "CC+MLO") & (hidden["streams"] == streams)].set_index("sample_id")
        assert set(complete.index) == set(usual["sample_id"]) and set(hidden["split"]) == {"test"}
        same = complete.loc[usual["sample_id"], "logit"]
        np.testing.assert_allclose(same, usual["logit"], rtol=1e-5, atol=1e-6)
        assert set(hidden["fill"]) == {"mask"}
        n_inputs = 9 if len(network.config.model.streams) > 1 else 3
        assert hidden.groupby(["views", "streams"]).ngroups == n_inputs


def test_breasts_with_one_view_are_scored_apart(scored, networks, collection):
    both, one = incomplete.both_and_one(networks[0], collection)
    alone = scored[0].predictions
    assert set(alone["split"]) == {records.ONE_FILM}
    assert not set(one.cohort["sample_id"]) & set(both.cohort["sample_id"])
    assert alone["sample_id"].tolist() == one.cohort["sample_id"].tolist()
    assert (alone["has_CC"] ^ alone["has_MLO"]).all()
    assert (alone[["threshold", "temperature"]] == [*networks[0].choices]).all(axis=None)


def test_a_record_says_what_it_is_and_has_a_receipt_of_the_whole_list(scored, collection):
    for record in scored:
        assert record.faults() == [] and record.is_scored_only and not record.is_evaluated
        assert record.environment["data_set"] == collection.name and "trained_on" in record.environment
        assert record.receipt["protocol_hash"] == record.receipt["environment"]["protocol_hash"]
        assert record.environment["protocol_hash"] == record.receipt["protocol_hash"]
        assert record.receipt["runs"] == [one.name for one in scored] and record.receipt["added_after"] is None
        assert record.config.experiment.startswith("incomplete_")


def test_only_the_list_of_protocol_5_is_under_protocol_8(networks):
    own = networks[0].config
    listed = own.model_copy(update={"protocol": 5})
    assert protocols.protocol_elsewhere(listed, "mini_mias") == protocols.PROTOCOL_8
    assert protocols.protocol_elsewhere(own, "mini_mias") == protocols.PROTOCOL_EXTERNAL
    assert protocols.protocol_elsewhere(listed, "cmmd") == protocols.PROTOCOL_EXTERNAL
    assert protocols.protocol_incomplete(listed) == protocols.PROTOCOL_8
    assert protocols.protocol_incomplete(own) == protocols.protocol_of(own)


def test_the_same_network_trained_again_finds_its_record(scored, score, networks):
    """A checkpoint has other bytes whenever a network is trained: times, paths. Its weights are the same."""
    before = times_of(scored)
    for network in networks:
        kept = torch.load(network.checkpoint, weights_only=True)
        torch.save(kept | {"seconds": 1.0}, network.checkpoint)
        (network.folder / "manifest.json").unlink()
    again = score()
    assert [run.folder for run in again] == [run.folder for run in scored] and times_of(again) == before


def test_a_later_network_counts_as_added(scored, score, networks, untrained_run):
    before = times_of(scored)
    networks.append(untrained_run(streams=["whole"]))
    again = score()
    assert times_of(again[:2]) == before
    assert again[2].receipt["added_after"] == scored[0].receipt["opened_at"]


def test_a_killed_opening_is_continued_under_its_receipt(scored, score):
    first = scored[1].receipt
    (scored[1].folder / "metrics.json").unlink()
    assert score()[1].receipt == first


def test_a_published_record_is_not_touched(scored, score):
    for record in scored:
        records.publish(record)
    shutil.rmtree(records.FRESH)
    again = score()
    assert all(records.COMMITTED in run.folder.parents for run in again)
    assert not list(records.COMMITTED.rglob(".lock")) and not records.FRESH.exists()


def test_without_a_breast_of_one_view_nothing_is_opened(score, monkeypatch):
    monkeypatch.setattr(incomplete, "ANY_VIEW", "paper")
    with pytest.raises(InputError, match="no test breast has one view only"):
        score()
    assert not list(records.FRESH.glob("*/*/receipt.json"))


def test_networks_of_one_view_are_refused(score, networks, untrained_run):
    networks.append(untrained_run(views=["CC"]))
    with pytest.raises(InputError, match="networks of two views on the paper cohort; this one reads CC of the cohort"):
        score()


def test_a_list_that_was_never_opened_stays_closed(tiny_profile, collection, untrained_run, run_homes, monkeypatch):
    """With every film shown among the combinations, hiding films would open the test set."""
    opened_networks = incomplete.opened_networks
    with pytest.raises(InputError, match="not trained yet, so the test set stays closed"):
        opened_networks(tiny_profile, collection)
    monkeypatch.setattr(incomplete, "finished_run", lambda *_: untrained_run())
    with pytest.raises(InputError, match="its test set is not opened yet, and scoring with films hidden would open it"):
        opened_networks(tiny_profile, collection)
    with pytest.raises(InputError, match="the films of the test set are needed: give the folder"):
        opened_networks(tiny_profile, replace(collection, only=frozenset()))


def test_the_networks_of_a_list_are_found_without_its_baselines(tiny_profile, collection, untrained_run, monkeypatch):
    run = untrained_run()
    run.finish(run.predictions, {"validation": {}, "test": {}})
    monkeypatch.setattr(incomplete, "finished_run", lambda *_: run)
    asked = [config for config in evaluate.experiment_configs(tiny_profile, "all") if not config.baseline]
    assert incomplete.opened_networks(tiny_profile, collection) == [run] * len(asked)


@pytest.fixture
def retrained(untrained_run, run_homes):
    """A record without weights, and its network trained again."""
    record = untrained_run()
    again = records.Run(records.FRESH / record.name)
    shutil.copytree(record.folder, again.folder)
    record.checkpoint.unlink()
    (record.folder / "manifest.json").unlink()
    return record, again


def test_a_network_that_is_that_of_its_record_is_used(retrained):
    record, again = retrained
    assert provenance.same_network(record).folder == again.folder


def test_a_network_that_differs_from_its_record_is_refused(retrained):
    record, again = retrained
    again.finish(record.predictions.assign(probability=lambda rows: rows["probability"] + 0.002), {"validation": {}})
    with pytest.raises(InputError, match=r"differs by up to 0\.002 .* \(allowed: 0\.001\); move .* away"):
        provenance.same_network(record)


@pytest.mark.parametrize("split", ["validation", "out_of_fold"])
def test_a_network_that_scored_other_breasts_is_refused(retrained, split):
    record, again = retrained
    record.finish(record.predictions.assign(split=split), {split: {}})
    again.finish(record.predictions.iloc[1:], {split: {}})
    with pytest.raises(InputError, match="it did not score the held-out breasts of its record"):
        provenance.same_network(record)
