"""The sample that ships: its content, its integrity, and chapters that run without other images."""

import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from mammo_lib.config import get_profile
from mammo_lib.data import open_collection, sample, views
from mammo_lib.data.cbis_ddsm.audit import audit_copy
from mammo_lib.data.cohort import split_cohort
from mammo_lib.data.collection import PHANTOM
from mammo_lib.data.films import COLUMNS, measure_surroundings, read_films
from mammo_lib.errors import InputError
from mammo_lib.runs.evaluate import finished_runs, run_and_evaluate

MIRROR = get_profile("mirror")


@pytest.fixture
def opened(monkeypatch):
    monkeypatch.delenv("MAMMO_DATA", raising=False)
    return open_collection(MIRROR, sample=True)


def test_the_tables_are_whole_and_eight_breasts_have_films(opened):
    assert opened.is_sample
    assert [len(opened.cohort(get_profile("paper").run.data, split)) for split in ("train", "test")] == [506, 149]
    prepared = opened.prepare("train", *MIRROR.run.inputs)
    assert prepared.cohort["breast_id"].tolist() == sample.sample_breasts()
    assert len(prepared.index) == 8 * 2 * 2  # breasts, views, streams
    assert not prepared.problems.size


def test_the_sample_contradicts_no_statement_of_the_manifest():
    verdicts = {check.what: check.verdict for check in audit_copy(sample.sample_folder())}
    assert verdicts["hash of the canonical table"] == "ok"
    assert "mismatch" not in verdicts.values()


def test_the_breasts_follow_the_rule_and_the_released_network_never_saw_their_patients(opened):
    held_out = split_cohort(MIRROR.run.data, opened.cohort(MIRROR.run.data, "train"))["validation"]
    chosen = held_out[held_out["n_lesions"] == 1].groupby(["density", "label"])["breast_id"].first()
    assert sorted(chosen) == sample.sample_breasts()
    assert len(chosen) == 4 * 2  # densities, labels


def test_a_pixel_of_a_film_as_read_has_about_the_size_of_the_digitisers(opened):
    cohort = opened.cohort(get_profile("mirror").run.data, "train")
    cohort = cohort[cohort["breast_id"].isin(opened.only)]
    located = opened.source.locate(cohort).query("stream == 'whole'")
    for row in located.itertuples():
        rows, columns = opened.source.sizes[Path(row.path).stem]
        height, width = views.read_view(row).shape
        side = opened.pixel_mm(row)
        assert (height * side, width * side) == pytest.approx((0.046 * rows, 0.046 * columns), rel=0.002)
    assert opened.pixel_mm(row._replace(path="99999_LEFT_CC.jpg")) is None


def test_a_phantom_has_no_millimetres(opened, monkeypatch):
    row = SimpleNamespace(path="00009_RIGHT_CC.jpg")
    assert opened.pixel_mm(row) == pytest.approx(0.15, abs=0.1)
    assert replace(opened, name=PHANTOM).pixel_mm(row) is None
    assert replace(opened, source=object()).pixel_mm(row) is None


def test_a_changed_file_is_refused(tmp_path, monkeypatch):
    copy = shutil.copytree(sample.SAMPLE, tmp_path / "sample")
    monkeypatch.setattr(sample, "SAMPLE", copy)
    assert sample.sample_folder() == copy
    film = next(copy.rglob("*.jpg"))
    film.write_bytes(film.read_bytes() + b"\0")
    with pytest.raises(InputError, match=rf"{film.name}: missing or changed; restore sample/"):
        sample.sample_folder()


def test_a_command_that_trains_still_asks_for_images(monkeypatch):
    monkeypatch.delenv("MAMMO_DATA", raising=False)
    with pytest.raises(InputError, match="profile 'mirror' needs real images"):
        open_collection(MIRROR)
    with pytest.raises(InputError, match="needs real images"):  # the sample is of CBIS-DDSM, and of nothing else
        open_collection(MIRROR.model_copy(update={"data_set": "cmmd"}), sample=True)


def test_without_images_chapters_read_the_committed_records(opened):
    runs = run_and_evaluate(MIRROR, opened)
    assert all(len(seeds) == len(MIRROR.seeds) and all(run.is_evaluated for run in seeds) for seeds in runs.values())
    assert set(finished_runs(MIRROR, "baselines", opened)) < set(runs)


def test_a_missing_record_is_named(opened, run_homes):
    with pytest.raises(InputError, match="dual_stream, seed 0: no record with test scores, and no images"):
        run_and_evaluate(MIRROR, opened)


def test_films_are_measured_as_the_committed_measurements_were(opened):
    located = opened.source.locate(opened.cohort(MIRROR.run.data, "train"))
    measured = measure_surroundings(located)
    assert tuple(measured) == COLUMNS
    assert len(measured) == 16
    assert measured["beside"].between(0, 1).all()
    # P_00175, whose box is 81.5 x 43.6 px of a film 1.525 times as tall as wide, 20 px a side at full resolution more.
    one = measured.set_index(["sample_id", "view"]).loc[("P_00175_RIGHT", "CC")]
    assert (one["height"], one["width"]) == (pytest.approx(77, abs=2), pytest.approx(92, abs=2))
    committed = read_films(sample.SAMPLE / "films.csv")
    assert len(committed) == 149 * 2
    assert set(committed["chest_wall"]) == {"left", "right"}


def test_a_table_plain_and_packed_is_one_too_many(tmp_path):
    tables = shutil.copytree(sample.SAMPLE / "tables", tmp_path / "tables")
    (tables / "mass_case_description_test_set.csv").write_text("patient_id\n")
    with pytest.raises(InputError, match=r"mass_case_description_test_set\.csv: present twice, plain and packed"):
        audit_copy(tmp_path)
