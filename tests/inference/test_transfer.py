"""A network on another collection: nothing is tuned, missing views are masked, a finished record is read."""

from contextlib import nullcontext

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from mammo_lib.data.collection import PHANTOM
from mammo_lib.data.data_sets import open_cbis_ddsm
from mammo_lib.data.external import open_other
from mammo_lib.errors import InputError
from mammo_lib.files import file_hash, write_json
from mammo_lib.inference import provenance, transfer
from mammo_lib.runs import records
from mammo_lib.runs.protocols import PROTOCOL_EXTERNAL

CLASSES = ["CIRC B", "SPIC M", "CALC M", "ASYM B", "MISC B", "CIRC M", "NORM", "SPIC B"]


def write_mias(root, classes=CLASSES):
    """Write a film per class, its lesion brighter than the breast, and their table."""
    lines, random = [], np.random.default_rng(0)
    for number, one in enumerate(classes, start=1):
        film = np.zeros((1024, 1024), np.uint8)
        film[100:900, 20:700] = random.integers(60, 110, (800, 680))
        film[400 : 460 + 5 * number, 300:380] = 150 + 10 * number
        Image.fromarray(film).save(root / f"mdb{number:03d}.pgm", format="PPM")
        lines.append(f"mdb{number:03d} {'FGD'[number % 3]} {one} {'' if one == 'NORM' else f'340 {1024 - 430} 40'}")
    (root / "Info.txt").write_text("\n".join(lines))
    return root


@pytest.fixture
def mias(tmp_path):
    (tmp_path / "mias").mkdir()
    return write_mias(tmp_path / "mias")


@pytest.fixture
def network(untrained_run):
    return untrained_run()


def test_the_record_holds_scores_by_image_at_the_old_threshold(mias, network, run_homes):
    record = transfer.score_network(network, open_other(mias))
    scores = records.part_of(record.predictions, "external")
    assert scores["image_MLO"].tolist() == [f"mdb{n:03d}" for n in (2, 1, 4, 3, 6, 5, 8)]  # by patient, left first
    assert (scores[["threshold", "temperature"]] == [*network.choices]).all(axis=None)
    assert scores["has_MLO"].all() and not scores["has_CC"].any()
    assert record.metrics["external"]["auc"]["n"] == 7 and record.metrics["external_masses"]["auc"]["n"] == 5
    assert {"calibration", "calibration_scaled"} <= set(record.metrics["external"])
    assert record.environment["protocol_hash"] == file_hash(PROTOCOL_EXTERNAL)
    assert record.is_scored_only and record.faults() == []
    assert {path.suffix for path in record.folder.iterdir() if path.name != ".lock"} == {".json", ".parquet"}


def test_a_finished_record_is_read(mias, network, run_homes, monkeypatch):
    first = transfer.score_network(network, open_other(mias))
    monkeypatch.setattr(transfer, "load_best", None)  # what is read needs no network
    assert transfer.score_network(network, open_other(mias)).folder == first.folder


def test_other_pixels_are_another_record(mias, network, run_homes):
    first = transfer.score_network(network, open_other(mias))
    film = np.asarray(Image.open(mias / "mdb001.pgm")).copy()
    film[500, 300] ^= 1
    Image.fromarray(film).save(mias / "mdb001.pgm", format="PPM")
    assert transfer.score_network(network, open_other(mias)).folder != first.folder


def test_a_hidden_view_is_as_if_it_had_never_been_there(mias, network, collection, run_homes):
    record = transfer.score_network(network, open_other(mias), collection)
    masked = records.part_of(record.predictions, "internal_masked")
    own = network.config.model_copy(update={"model": network.config.model.model_copy(update={"views": ("MLO",)})})
    prepared = collection.prepare("train", *own.inputs)
    cohort = prepared.cohort.set_index("sample_id").loc[masked["sample_id"]].reset_index()
    full = collection.prepare("train", *network.config.inputs)
    only_mlo = full.index[full.index["view"] == "MLO"]
    from dataclasses import replace

    alone = transfer._score(transfer.load_best(network), replace(full, index=only_mlo), cohort)
    np.testing.assert_allclose(masked["logit"], alone["logit"], rtol=1e-5)
    whole = transfer._score(transfer.load_best(network), full, cohort)
    assert not np.allclose(masked["logit"], whole["logit"])
    assert records.part_of(record.predictions, "internal")["logit"].tolist() == network.predictions["logit"].tolist()


def test_the_test_set_of_a_network_is_not_read(mias, network, collection, run_homes):
    """A record whose test set was opened has rows of it, and its metrics stand first in their file."""
    rows = network.predictions.assign(split="test")
    network.finish(pd.concat([network.predictions, rows], ignore_index=True), {"test": {}, "validation": {}})
    record = transfer.score_network(network, open_other(mias), collection)
    assert len(records.part_of(record.predictions, "internal")) == len(rows)
    assert len(records.part_of(record.predictions, "internal_masked")) == len(rows)


@pytest.mark.slow
def test_a_baseline_sees_no_label_of_the_collection(mias, network, collection, run_homes):
    first = transfer.score_baseline("frozen_stages", network.config, open_other(mias), collection)
    scores = records.part_of(first.predictions, "external")
    write_mias(mias, [one[:-1] + {"B": "M", "M": "B"}[one[-1]] for one in CLASSES[:6]])
    again = transfer.score_baseline("frozen_stages", network.config, open_other(mias), collection)
    flipped = records.part_of(again.predictions, "external").set_index("image_MLO")
    kept = scores.set_index("image_MLO").loc[flipped.index]
    assert (kept["label"] != flipped["label"]).all()
    np.testing.assert_allclose(kept["logit"], flipped["logit"])
    assert first.config.model.views == ("MLO",) and first.config.baseline == "frozen_stages"
    internal = records.part_of(first.predictions, "internal_masked")
    assert len(internal) == internal["sample_id"].nunique() and set(internal["has_MLO"]) == {True}


@pytest.mark.parametrize("said", ["CBIS-DDSM, layout mirror-800", PHANTOM])
def test_a_record_says_what_its_network_was_trained_on(mias, network, run_homes, said):
    frame, metrics, environment = network.predictions, network.metrics, network.environment
    write_json(network.folder / "environment.json", environment | {"data_set": said})
    network.finish(frame, metrics)
    record = transfer.score_network(network, open_other(mias))
    assert record.environment["trained_on"] == said
    with pytest.raises(InputError, match="made on the synthetic phantom") if said == PHANTOM else nullcontext():
        provenance.refuse_phantom(record)


def test_a_baseline_that_was_fitted_on_the_phantom_is_refused(mias, network, collection, run_homes, monkeypatch):
    monkeypatch.setattr(transfer, "_out_of_fold", lambda *_: pd.DataFrame({"label": [0, 1], "logit": [-1.0, 1.0]}))
    monkeypatch.setattr(transfer, "fit_baseline", lambda *_: lambda _, cohort: np.zeros(len(cohort)))
    monkeypatch.setattr(transfer, "_choices", lambda _: (0.5, 1.0))
    monkeypatch.setattr(transfer, "_sized", lambda frame, _: frame)
    monkeypatch.setattr(transfer, "_finish", lambda record, *_: record)
    phantom = open_cbis_ddsm(collection.root)
    record = transfer.score_baseline("frozen_features", network.config, open_other(mias), phantom)
    assert record.environment["trained_on"] == phantom.name == PHANTOM
    with pytest.raises(InputError, match="made on the synthetic phantom"):
        provenance.refuse_phantom(record)


def test_where_readers_are_all_that_is_known_nothing_is_said_of_malignancy(mias, network, run_homes):
    from dataclasses import replace

    other = open_other(mias)
    birads = [4, 2, 5, 1, 3, 4, 1, 2]
    table = other.table.assign(pathology=pd.NA, assessment=pd.array(birads, "Int64"))
    readers = replace(other, table=table, about=replace(other.about, truth="readers"))
    record = transfer.score_network(network, readers)
    assert set(record.metrics) == {"internal", "agreement_with_readers"}
    assert record.metrics["agreement_with_readers"]["sensitivity"]["n"] == 3  # breasts of BI-RADS 4 and 5
    assert records.part_of(record.predictions, "external")["label"].isna().all()


def test_the_networks_of_an_experiment_are_those_that_are_finished(tiny_profile, untrained_run, run_homes, monkeypatch):
    run = untrained_run()
    others = [run.config.model_copy(update={"seed": seed}) for seed in (1, 0)]
    monkeypatch.setattr(provenance, "experiment_configs", lambda profile, name: others)
    monkeypatch.setattr(records, "runs_by_config", lambda: {run.config.fingerprint: run})
    assert provenance.networks_of(tiny_profile, "dual") == [run]
    monkeypatch.setattr(records, "runs_by_config", dict)
    with pytest.raises(InputError, match="no finished run with profile tiny; `mammo run --experiment dual"):
        provenance.networks_of(tiny_profile, "dual")


def test_a_collection_without_labels_is_refused(mias, network, run_homes):
    write_mias(mias, ["NORM"] * 8)
    with pytest.raises(InputError, match=r"no breast of mini-MIAS has a (lesion|label)"):
        transfer.score_network(network, open_other(mias))


def test_the_lesion_size_is_that_of_the_box_that_is_shown(mias, tiny_profile):
    other = open_other(mias)
    prepared = other.prepare(transfer.scored_breasts(other), *tiny_profile.run.inputs)
    assert transfer.lesion_sizes(prepared).tolist() == [(2 * 40 + 2 * 5) / 1024] * 7


def test_a_reference_without_the_networks_breasts_is_named(mias, network, phantom_of, run_homes):
    from mammo_lib.data.data_sets import open_cbis_ddsm

    other_phantom = open_cbis_ddsm(phantom_of("flat"))  # 12 breasts instead of 24
    with pytest.raises(InputError, match="breasts that this network held out are not here, such as P_"):
        transfer.score_network(network, open_other(mias), other_phantom)


def test_external_records_are_not_trained_again(mias, network, run_homes):
    from mammo_lib.runs.verify import choose_records

    record = transfer.score_network(network, open_other(mias))
    with pytest.raises(InputError, match="only scores of networks trained elsewhere"):
        choose_records(record.folder.parent.parent, [])
