"""The cache: each image once, whole or not at all, keyed by what it was made from."""

import shutil

import numpy as np
import pytest

from mammo_lib.config import DataConfig
from mammo_lib.data import prepare as p
from mammo_lib.data.cohort import build_cohort, read_tables
from mammo_lib.data.sources import open_source
from mammo_lib.errors import InputError

DATA = DataConfig(image_size=32)
VIEWS, STREAMS = ("CC", "MLO"), ("crop", "whole")


def prepared(root, cache, data=DATA, streams=STREAMS):
    cohort = build_cohort(read_tables(root), "paper", "test")
    return p.prepare(cohort, open_source(root), data, VIEWS, streams, cache)


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


@pytest.mark.parametrize("change", [{"image_size": 48}, {"mask_breast": False}, {"orient": False}])
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
    ("damage", "message"), [("truncate", "cannot be decoded"), ("remove", "missing .*complete the data folder")]
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
    def full(path, pixels):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(p.np, "save", full)
    with pytest.raises(InputError, match=r"cannot be written \(.*No space left on device\); free some space"):
        prepared(phantom_root, tmp_path / "cache")
    assert not list((tmp_path / "cache").iterdir())


def test_a_cache_that_is_a_file_is_refused(phantom_root, tmp_path):
    (tmp_path / "cache").write_text("")
    with pytest.raises(InputError, match=r"cache: cannot be made \(File exists\)"):
        prepared(phantom_root, tmp_path / "cache")


def test_lesion_rows_are_refused(phantom_root, tmp_path):
    cohort = build_cohort(read_tables(phantom_root), "lesion", "train")
    with pytest.raises(InputError, match=r"several rows of breast P_\d+_\w+, .* other than 'lesion'"):
        p.prepare(cohort, open_source(phantom_root), DATA, VIEWS, STREAMS, tmp_path)
