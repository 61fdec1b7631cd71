"""The cache: each image is written once, completely or not at all, under a key of everything it was made from."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mammo_lib.config import DataConfig
from mammo_lib.data import collection as collections
from mammo_lib.data import prepare as p
from mammo_lib.data.cbis_ddsm.sources import open_source
from mammo_lib.data.cbis_ddsm.tables import read_tables
from mammo_lib.data.cohort import build_cohort
from mammo_lib.errors import InputError
from mammo_lib.runs.executor import CRASHED

DATA = DataConfig(image_size=32)
VIEWS, STREAMS = ("CC", "MLO"), ("crop", "whole")


def prepared(root, cache, data=DATA, streams=STREAMS):
    cohort = build_cohort(read_tables(root), "paper", "test")
    return p.prepare(cohort, open_source(root), data, VIEWS, streams, cache=cache)


@pytest.fixture
def copy(phantom_root, tmp_path):
    return shutil.copytree(phantom_root, tmp_path / "copy")


def files(cache):
    return {path.name: path.stat().st_mtime_ns for path in cache.iterdir()}


def test_every_view_is_there_once(phantom_root, tmp_path):
    one = prepared(phantom_root, tmp_path)
    assert len(one.index) == len(one.cohort) * 4 == len(files(tmp_path))
    for key in one.index["key"]:
        pixels = p.load_pixels(one.path(key))
        assert (pixels.shape, pixels.dtype) == ((32, 32), np.float32)
        assert 0 <= pixels.min() < pixels.max() <= 1


def test_a_second_call_decodes_nothing(phantom_root, tmp_path, monkeypatch):
    before = prepared(phantom_root, tmp_path)
    monkeypatch.setattr(p, "prepare_view", lambda *a: pytest.fail("decoded again"))
    assert prepared(phantom_root, tmp_path).fingerprint == before.fingerprint


@pytest.mark.parametrize("allow_missing", [False, True])
@pytest.mark.parametrize("state", ["whole", "missing", "damaged"])
def test_the_hash_of_data_is_that_of_the_prepared(copy, tmp_path, monkeypatch, state, allow_missing):
    cohort = build_cohort(read_tables(copy), "paper", "test")
    film = next(path for path in sorted(copy.rglob("*.dcm")) if cohort["patient_id"].iloc[0] in path.as_posix())
    if state == "missing":
        film.unlink()
    elif state == "damaged":
        film.write_bytes(film.read_bytes()[:1000])
    data = DATA.model_copy(update={"allow_missing": allow_missing})
    arguments = ("test", data, VIEWS, STREAMS)
    monkeypatch.setattr(collections, "CACHE", tmp_path)

    def opened():
        return collections.Collection(copy, read_tables(copy), open_source(copy))

    if state == "missing" and not allow_missing:
        with pytest.raises(InputError, match="complete the data folder"):
            opened().data_hash(*arguments)
    elif state == "damaged" and not allow_missing:  # nothing is prepared, so no record has its hash
        assert len(opened().data_hash(*arguments)) == 64
        with pytest.raises(InputError, match="complete the data folder"):
            prepared(copy, tmp_path)
    else:
        wanted = opened().prepare(*arguments).fingerprint
        if not allow_missing:
            monkeypatch.setattr(p, "prepare_view", lambda *a: pytest.fail("decoded"))
        monkeypatch.setattr(collections, "CACHE", tmp_path / "other")
        assert opened().data_hash(*arguments) == wanted


def test_a_killed_preparation_goes_on_and_ends_the_same(phantom_root, tmp_path, monkeypatch):
    whole = prepared(phantom_root, tmp_path / "whole")
    original, calls = p.prepare_view, []

    def killed_after_three(*arguments):
        calls.append(1)
        if len(calls) > 3:
            raise KeyboardInterrupt
        return original(*arguments)

    monkeypatch.setattr(p, "prepare_view", killed_after_three)
    with pytest.raises(KeyboardInterrupt):
        prepared(phantom_root, tmp_path / "killed")
    left = files(tmp_path / "killed")
    assert 0 < len(left) < len(whole.index)
    assert not [name for name in left if name.startswith(".")]
    monkeypatch.setattr(p, "prepare_view", original)
    prepared(phantom_root, tmp_path / "killed")
    assert left.items() <= files(tmp_path / "killed").items()
    for key in whole.index["key"]:
        assert (tmp_path / "killed" / f"{key}.npy").read_bytes() == whole.path(key).read_bytes()


KILLED = """
import sys, time
from pathlib import Path
from mammo_lib.config import DataConfig
from mammo_lib.data import prepare as p, build_cohort, open_source, read_tables
original = p.prepare_view
p.prepare_view = lambda *a: time.sleep(0.05) or original(*a)
root, cache = map(Path, sys.argv[1:])
p.prepare(build_cohort(read_tables(root), "paper", "test"), open_source(root), DataConfig(image_size=32), cache=cache)
"""


def test_kill_9_leaves_whole_files_only(phantom_root, tmp_path):
    whole, cache = prepared(phantom_root, tmp_path / "whole"), tmp_path / "killed"
    child = subprocess.Popen([sys.executable, "-c", KILLED, phantom_root, cache], stderr=subprocess.DEVNULL)
    while len(list(cache.glob("[!.]*.npy"))) < 6:
        assert child.poll() is None
        time.sleep(0.01)
    child.kill()
    child.wait()
    left = list(cache.glob("[!.]*.npy"))
    assert len(left) < len(whole.index)
    for path in left:
        assert path.read_bytes() == whole.path(path.stem).read_bytes()
    assert prepared(phantom_root, cache).fingerprint == whole.fingerprint
    assert {path.name for path in cache.glob("[!.]*")} == {f"{key}.npy" for key in whole.index["key"]}


@pytest.mark.parametrize("change", [{"image_size": (48, 48)}, {"mask_breast": False}, {"orient": False}])
def test_settings_are_part_of_the_key(phantom_root, tmp_path, change):
    one, other = prepared(phantom_root, tmp_path), prepared(phantom_root, tmp_path, DATA.model_copy(update=change))
    assert not set(one.index["key"]) & set(other.index["key"])
    assert one.fingerprint != other.fingerprint


def test_content_is_part_of_the_key(phantom_root, copy, tmp_path):
    cohort = build_cohort(read_tables(copy), "paper", "test")
    film = copy / cohort["whole_CC"].iloc[0]
    content = bytearray(film.read_bytes())
    content[-1000] ^= 0xFF
    film.write_bytes(bytes(content))
    assert prepared(copy, tmp_path / "cache").fingerprint != prepared(phantom_root, tmp_path / "cache").fingerprint


def test_the_folder_is_not_part_of_the_key(phantom_root, copy, tmp_path):
    assert prepared(copy, tmp_path / "a").fingerprint == prepared(phantom_root, tmp_path / "b").fingerprint


def test_one_stream_alone(phantom_root, tmp_path):
    assert set(prepared(phantom_root, tmp_path, streams=("crop",)).index["stream"]) == {"crop"}


def test_right_breasts_are_turned_and_labels_blanked(phantom_root, tmp_path):
    one = prepared(phantom_root, tmp_path)
    for row in one.index.query("stream == 'whole'").itertuples():
        pixels = p.load_pixels(one.path(row.key))
        assert pixels[:, :10].mean() > pixels[:, -10:].mean()
        assert pixels[:4, 12:20].max() < 0.05  # the film label lies here, before masking, in the padded square


@pytest.mark.parametrize(
    ("damage", "message"), [("truncate", "cannot be decoded"), ("remove", "missing, .*complete the data folder")]
)
def test_a_bad_image_is_named_and_leaves_no_half_file(copy, tmp_path, damage, message):
    cohort = build_cohort(read_tables(copy), "paper", "test")
    film = copy / cohort["whole_MLO"].iloc[0]
    if damage == "truncate":
        film.write_bytes(film.read_bytes()[:-5000])
    else:
        film.unlink()
    with pytest.raises(InputError, match=message) as caught:
        prepared(copy, tmp_path / "cache")
    assert film.name in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not list((tmp_path / "cache").glob(".*")) if (tmp_path / "cache").exists() else True


def test_a_full_disk_is_one_line_and_leaves_no_half_file(phantom_root, tmp_path, monkeypatch):
    def full(path, content):
        with path.open("wb") as file:
            file.write(content[: len(content) // 2])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(InputError, match=r"cannot be written \(.*No space left on device\); free some space"):
        prepared(phantom_root, tmp_path / "cache")
    assert not list((tmp_path / "cache").iterdir())


def test_a_cache_that_is_a_file_is_refused(phantom_root, tmp_path):
    (tmp_path / "cache").write_text("")
    with pytest.raises(InputError, match=r"cache: cannot be written \(File exists\)"):
        prepared(phantom_root, tmp_path / "cache")


def test_lesions_are_samples_with_crops_of_their_own(phantom_root, tmp_path):
    cohort = build_cohort(read_tables(phantom_root), "lesion", "train")
    one = p.prepare(cohort, open_source(phantom_root), DATA, VIEWS, STREAMS, cache=tmp_path)
    twins = cohort.loc[cohort["breast_id"].duplicated(keep=False), "sample_id"]
    keys = (
        one.index[one.index["sample_id"].isin(twins) & (one.index["view"] == "CC")].groupby("stream")["key"].nunique()
    )
    assert keys["crop"] == 2 * keys["whole"] == len(twins)


def test_what_is_missing_is_listed_and_left_out_when_allowed(copy, tmp_path):
    cohort = build_cohort(read_tables(copy), "paper", "test")
    gone, broken = copy / cohort["whole_CC"].iloc[0], copy / cohort["whole_MLO"].iloc[1]
    gone.unlink()
    broken.write_bytes(broken.read_bytes()[:-5000])
    with pytest.raises(InputError, match=r"2 of 32 images in all, listed in .*problems\.csv\); .*--allow-missing"):
        prepared(copy, tmp_path / "cache")
    report = pd.read_csv(tmp_path / "cache" / "problems.csv")
    assert sorted(report["status"]) == ["missing", "undecodable"]
    assert set(report["path"]) == {str(gone), str(broken)}
    one = prepared(copy, tmp_path / "cache", DATA.model_copy(update={"allow_missing": True}))
    assert len(one.index) == len(cohort) * 4 - 4  # a view goes with both of its streams
    assert len(one.cohort) == len(cohort)
    assert one.cohort[["whole_CC", "whole_MLO"]].isna().sum().sum() == 2
    assert len(one.problems) == 2


@pytest.mark.slow
def test_a_process_pool_and_a_cluster_write_the_same_bytes(phantom_root, tmp_path):
    from distributed import LocalCluster

    cohort = build_cohort(read_tables(phantom_root), "paper", "train")
    source = open_source(phantom_root)
    alone = p.prepare(cohort, source, DATA, cache=tmp_path / "alone", workers=1)
    p.prepare(cohort, source, DATA, cache=tmp_path / "pool", workers=2)
    with LocalCluster(n_workers=1, threads_per_worker=2, processes=False, dashboard_address=":0") as cluster:
        p.prepare(cohort, source, DATA, cache=tmp_path / "cluster", cluster=cluster.scheduler_address)
    assert len(alone.index) == 4 * len(cohort)
    for key in alone.index["key"]:
        content = alone.path(key).read_bytes()
        assert (tmp_path / "pool" / f"{key}.npy").read_bytes() == content
        assert (tmp_path / "cluster" / f"{key}.npy").read_bytes() == content


def test_an_address_without_a_scheduler(phantom_root, tmp_path, monkeypatch):
    import distributed

    monkeypatch.setattr(distributed, "Client", lambda *a, **k: (_ for _ in ()).throw(OSError("timed out")))
    cohort = build_cohort(read_tables(phantom_root), "paper", "test")
    with pytest.raises(InputError, match=r"--cluster tcp://nowhere:1: no Dask scheduler answers at this address"):
        p.prepare(cohort, open_source(phantom_root), DATA, cache=tmp_path, cluster="tcp://nowhere:1")


def test_a_read_only_cache_is_one_line(phantom_root, tmp_path, monkeypatch):
    def refuse(self, *a, **k):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(p.Path, "touch", refuse)  # root, who runs CI, may write everywhere
    with pytest.raises(InputError, match=r"cannot be written \(Permission denied\); the cache needs a folder"):
        prepared(phantom_root, tmp_path / "cache")


def test_a_partial_file_that_its_process_moves_in_meanwhile_is_no_error(tmp_path):
    (tmp_path / ".a.npy.1").symlink_to("gone")  # listed, and not there when it is asked for its age
    p._make_folder(tmp_path)


@pytest.mark.parametrize("content", [b"", b"x"])
def test_a_damaged_prepared_file_is_one_line(tmp_path, content):
    (tmp_path / "a.npy").write_bytes(content)
    with pytest.raises(InputError, match=r"a\.npy: cannot be read .*; delete the file and run the command again"):
        p.load_pixels(tmp_path / "a.npy")


def test_a_prepared_file_is_not_hashed_again(phantom_root, tmp_path, monkeypatch):
    before = prepared(phantom_root, tmp_path)
    monkeypatch.setattr(p, "file_hash", lambda path: pytest.fail("hashed again"))
    assert prepared(phantom_root, tmp_path).fingerprint == before.fingerprint


def test_both_views_of_both_sides_face_one_way_and_tags_are_compared(phantom_root):
    cohort = build_cohort(read_tables(phantom_root), "paper", "test")
    films = open_source(phantom_root).locate(cohort).query("stream == 'whole'")
    facing = p.chest_walls(films)
    right = [name.endswith("RIGHT") for name in films["breast_id"]]
    assert (facing == np.where(right, "right", "left")).all()


def test_chest_walls_are_asked_again_when_a_change_moves_pixels(tmp_path, monkeypatch):
    (tmp_path / "a.png").write_text("asked, never read")
    films = pd.DataFrame({"path": [str(tmp_path / "a.png")]})
    for version, side in ((1, "left"), (2, "right")):
        monkeypatch.setattr(p, "VERSION", version)
        monkeypatch.setattr(p, "_chest_wall", lambda path, side=side: side)
        assert p.chest_walls(films).tolist() == [side]


def test_a_film_that_may_not_be_read_is_one_line(tmp_path, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied")

    (tmp_path / "a.jpg").write_text("x")
    monkeypatch.setattr(p, "file_hash", refuse)
    with pytest.raises(InputError, match=r"a\.jpg: cannot be read \(.*Permission denied.*\); give this user access"):
        p._content_hash(tmp_path / "a.jpg")


class Crashes:
    """A located film whose decoder ends the process that reads it, unless that is the test's own."""

    def __init__(self, row):
        self.row, self.owner = row, os.getpid()

    def __getattr__(self, name):
        if name in ("row", "owner"):
            raise AttributeError(name)
        if name == "path" and os.getpid() != self.owner:
            os._exit(11)
        return getattr(self.row, name)


@pytest.mark.slow
def test_a_decoder_that_crashes_takes_nothing_along(phantom_root, tmp_path):
    cohort, source = build_cohort(read_tables(phantom_root), "paper", "test"), open_source(phantom_root)
    located = p._with_keys(source.locate(cohort.head(6)), DATA)
    tasks = p._tasks(located[located["status"] == "found"], DATA, tmp_path)
    victim = tasks[3]
    tasks[3] = p.ViewTask(Crashes(victim.whole), victim.crop, victim.data, victim.folder)
    problems = {}
    for failed in p._in_pool(tasks, 2, None):
        problems |= failed
    assert problems == {victim.whole.path: CRASHED}
    written = [task for task in tasks if all(task.target(stream).is_file() for stream in task.streams)]
    assert len(written) == len(tasks) - 1


def test_files_are_known_by_their_content_however_their_paths_are_written(phantom_root, tmp_path, monkeypatch):
    source = open_source(phantom_root)
    locate = type(source).locate
    monkeypatch.setattr(
        type(source), "locate", lambda *a: (t := locate(*a)).assign(path=t["path"].str.replace("/", "//"))
    )
    keys = prepared(phantom_root, tmp_path).index["key"]
    assert keys.is_unique
