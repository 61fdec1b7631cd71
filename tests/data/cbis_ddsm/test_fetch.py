"""The download, from an archive simulated by local files: it resumes, checks, and fails with a clear message."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest

from mammo_lib.data.cbis_ddsm import fetch
from mammo_lib.data.cbis_ddsm.sources import open_source
from mammo_lib.data.cbis_ddsm.tables import read_tables, table_fingerprint
from mammo_lib.data.cohort import build_cohort
from mammo_lib.errors import InputError


@pytest.fixture
def archive(phantom_of, tmp_path, monkeypatch):
    """A phantom in flat folders, with a manifest and a list of series of its own; the archive hands out copies."""
    root = shutil.copytree(phantom_of("flat"), tmp_path / "archive")
    urls = {path.name: path.as_uri() for path in root.glob("*.csv")}
    manifest = {"table_urls": urls, "canonical_sha256": table_fingerprint(read_tables(root))}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    rows = [(p.name, "", len(list(p.iterdir())), 0.1) for p in root.iterdir() if p.is_dir()]
    pd.DataFrame(rows, columns=["series", "description", "images", "megabytes"]).to_csv(tmp_path / "s.csv", index=False)
    monkeypatch.setattr(fetch, "MANIFEST", tmp_path / "manifest.json")
    monkeypatch.setattr(fetch, "SERIES", tmp_path / "s.csv")
    state = SimpleNamespace(root=root, asked=[], broken=set(), limit=None)

    def download(series, *, input_type, path):
        for uid in series:
            if state.limit is not None and len(state.asked) >= state.limit:
                raise KeyboardInterrupt
            state.asked.append(uid)
            if uid not in state.broken:
                shutil.copytree(root / uid, Path(path) / uid)

    monkeypatch.setattr(fetch, "_nbia", lambda: SimpleNamespace(downloadSeries=download))
    return state


def test_a_cohort_is_downloaded_and_complete(archive, tmp_path):
    folder = tmp_path / "data"
    table = fetch.fetch_tables(folder)
    series = fetch.series_of_cohort(table, "paper")
    fetch.fetch_series(series, folder)
    assert set(archive.asked) == set(series["series"])
    for split in ("train", "test"):
        located = open_source(folder).locate(build_cohort(table, "paper", split))
        assert set(located["status"]) == {"found"}
    assert not list(folder.glob(".*"))
    fetch.fetch_series(series, folder)
    assert len(archive.asked) == len(series)  # nothing is asked for twice


def test_a_killed_download_goes_on(archive, tmp_path):
    folder = tmp_path / "data"
    series = fetch.series_of_cohort(fetch.fetch_tables(folder), "paper")
    archive.limit = 20
    with pytest.raises(KeyboardInterrupt):
        fetch.fetch_series(series, folder)
    archive.limit = None
    fetch.fetch_series(series, folder)
    assert {path.name for path in folder.iterdir() if path.is_dir()} == {*series["series"], "tables"}
    assert len(archive.asked) <= len(series) + fetch.BATCH


def test_an_incomplete_series_is_not_moved_in(archive, tmp_path):
    folder = tmp_path / "data"
    series = fetch.series_of_cohort(fetch.fetch_tables(folder), "paper")
    uid = series["series"].iloc[0]
    next((archive.root / uid).iterdir()).unlink()
    with pytest.raises(InputError, match=rf"1 series are incomplete, the first is {uid}; run the same command again"):
        fetch.fetch_series(series, folder)
    assert not (folder / uid).exists()


@pytest.mark.parametrize("name", ["..", "../evil", "/tmp/evil", "", "1.2\\3"])
def test_the_name_of_a_series_stays_in_the_folder(archive, tmp_path, name):
    series = pd.DataFrame({"series": ["1.2.3", name], "images": 1})
    with pytest.raises(InputError, match="is not the name of a series"):
        fetch.fetch_series(series, tmp_path / "data")
    assert archive.asked == []


def test_without_a_connection(archive, tmp_path, monkeypatch):
    folder = tmp_path / "data"
    series = fetch.series_of_cohort(fetch.fetch_tables(folder), "paper")
    archive.broken = set(series["series"])
    with pytest.raises(InputError, match=r"cannot be reached or refused .* \(0 of \d+ series are complete\)"):
        fetch.fetch_series(series, folder)
    shutil.rmtree(archive.root)
    with pytest.raises(InputError, match=r"_set\.csv: cannot be downloaded \(.*\); try again with a connection") as e:
        fetch.fetch_tables(tmp_path / "other")
    assert "\n" not in str(e.value)
    assert not list((tmp_path / "other" / "tables").iterdir())


def test_other_tables_are_refused(archive, tmp_path):
    path = archive.root / "mass_case_description_test_set.csv"
    path.write_text(path.read_text().replace("BENIGN", "MALIGNANT"))
    with pytest.raises(InputError, match="not the published tables; run `mammo data audit"):
        fetch.fetch_tables(tmp_path / "data")


def test_the_committed_list_is_the_archives():
    """6,775 series and 10,239 images, as the archive states."""
    series = pd.read_csv(Path(__file__).parents[3] / "data_manifest" / "cbis_ddsm_series.csv.gz")
    assert (len(series), series["images"].sum()) == (6775, 10239)
    assert series["series"].is_unique
