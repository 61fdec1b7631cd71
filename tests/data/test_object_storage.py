"""Images in object storage, from a local S3 server: what arrives, what is requested, what goes wrong."""

import itertools
import os
import shutil
import sys
from pathlib import Path

import fsspec
import pytest
from moto import settings
from moto.server import ThreadedMotoServer

from mammo_lib.cli import data_commands
from mammo_lib.config import DataConfig
from mammo_lib.data import collection as collections
from mammo_lib.data import object_storage as storage
from mammo_lib.data.cbis_ddsm import fetch
from mammo_lib.data.cbis_ddsm.tables import read_tables
from mammo_lib.data.data_sets import data_folder, open_cbis_ddsm
from mammo_lib.errors import InputError

from ..test_cli import mammo, one_line

QUICK = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_DEFAULT_REGION": "us-east-1",
         "AWS_MAX_ATTEMPTS": "1"}  # fmt: skip
BUCKETS = (f"films-{number}" for number in itertools.count())


@pytest.fixture(scope="module")
def s3():
    """Files of a server of S3, which fsspec finds by the environment, as it would any other."""
    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**QUICK, "AWS_ENDPOINT_URL": "http://{}:{}".format(*server.get_host_and_port())}.items():
            patch.setenv(name, value)
        patch.setattr("s3fs.core.S3FileSystem.retries", 1)
        yield fsspec.filesystem("s3")
    fsspec.filesystem("s3").clear_instance_cache()
    server.stop()


@pytest.fixture(scope="module")
def stocked(s3, phantom_of, tmp_path_factory):
    """The address of a phantom with a series of no lesion and a file of no series, and its local folder."""
    root = shutil.copytree(phantom_of("flat"), tmp_path_factory.mktemp("stock") / "local")
    (root / "1.2.840.999.1").mkdir()
    (root / "1.2.840.999.1" / "1.dcm").write_bytes(b"of no lesion")
    (root / "readme.txt").write_text("of no series")
    s3.mkdir("stock")
    s3.put(f"{root}/", "stock/cbis-ddsm/", recursive=True, batch_size=2)
    return "s3://stock/cbis-ddsm", root


@pytest.fixture
def place(s3):
    """The address of an empty bucket."""
    name = next(BUCKETS)
    s3.mkdir(name)
    return f"s3://{name}/cbis-ddsm"


def pixels(root, cache, monkeypatch):
    """Prepare a folder into a cache of its own; return the bytes of every file in it, and the fingerprints."""
    monkeypatch.setattr(collections, "CACHE", cache)
    opened = open_cbis_ddsm(root)
    prepared = [opened.prepare(split, DataConfig(image_size=32), workers=1) for split in ("train", "test")]
    return {path.name: path.read_bytes() for path in cache.glob("*.npy")}, [one.fingerprint for one in prepared]


def test_prepared_pixels_are_those_of_the_local_folder(stocked, tmp_path, monkeypatch):
    address, root = stocked
    folder = tmp_path / "copy"
    done = mammo("data", "fetch", folder, "--from", address)
    assert done.returncode == 0 and f"complete; next: mammo data audit --data {folder}" in done.stdout
    assert not (folder / storage.PARTIAL).exists()
    ours, theirs = (pixels(one, tmp_path / f"{i}", monkeypatch) for i, one in enumerate((folder, root)))
    assert len(ours[0]) > 20 and ours == theirs


def test_only_the_series_of_the_cohort_are_copied(stocked, tmp_path):
    address, root = stocked
    told = mammo("data", "fetch", tmp_path, "--from", address, "--dry-run")
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != storage.LOCK) == sorted(
        path.name for path in root.iterdir() if path.name.endswith(fetch.LISTS)
    )
    stored = storage.list_objects(address)
    names = fetch.objects_of_cohort(stored, read_tables(tmp_path), "paper")
    assert told.stdout.startswith(f"cohort paper: {len(names)} files, ")
    series = {Path(name).parts[0] for name in names if "/" in name}
    assert series == set(fetch.series_of_cohort(read_tables(root), "paper")["series"])
    assert "readme.txt" in names and len(names) < len(stored.objects)


@pytest.mark.parametrize("layout", ["classic", "nbia", "idc", "kaggle", "mirror-800"])
def test_every_file_of_the_cohort_is_copied_from_any_layout(phantom_of, layout):
    root = phantom_of(layout)
    names = {path.relative_to(root).as_posix(): (1, 0.0) for path in root.rglob("*") if path.is_file()}
    chosen = fetch.objects_of_cohort(storage.Stored("s3://x", names), read_tables(root), "paper")
    opened = open_cbis_ddsm(root)
    located = [opened.source.locate(opened.cohort(DataConfig(), split)) for split in ("train", "test")]
    needed = {Path(path).relative_to(root).as_posix() for one in located for path in one["path"] if path}
    assert needed and needed <= set(chosen)


def test_what_is_there_is_not_copied_again_but_what_changed_is(s3, place, tmp_path, monkeypatch):
    for name in "ab":
        s3.pipe(f"{place}/{name}", b"old")
    storage.copy_objects(storage.list_objects(place), "ab", tmp_path)
    os.utime(tmp_path / "b", (0, 0))  # as if the object had changed since, to as many bytes
    asked = []
    get = s3.get
    monkeypatch.setattr(s3, "get", lambda names, targets: asked.extend(names) or get(names, targets))
    storage.copy_objects(storage.list_objects(place), "ab", tmp_path)
    assert asked == [f"{place}/b".removeprefix("s3://")]
    storage.copy_objects(storage.list_objects(place), "ab", tmp_path)
    assert asked == [f"{place}/b".removeprefix("s3://")]


def test_a_copy_that_is_interrupted_leaves_whole_files_and_resumes(s3, place, tmp_path, monkeypatch):
    for number in range(6):
        s3.pipe(f"{place}/{number}", bytes(1000 + number))
    stored, get = storage.list_objects(place), s3.get
    monkeypatch.setattr(storage, "BATCH", 2)

    def fail_at_the_second(names, targets):
        if names[0].endswith("2"):
            Path(targets[0]).parent.mkdir(exist_ok=True)
            Path(targets[0]).write_bytes(b"half")
            raise KeyboardInterrupt
        return get(names, targets)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(s3, "get", fail_at_the_second)
        storage.copy_objects(stored, stored.objects, tmp_path)
    assert {path.name: path.stat().st_size for path in tmp_path.iterdir() if path.is_file()} == {"0": 1000, "1": 1001}
    storage.copy_objects(stored, stored.objects, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == list("012345")


def test_a_second_fetch_into_a_folder_is_refused_while_the_first_is_at_work(tmp_path, monkeypatch):
    def second(folder, definition):
        data_commands.fetch(folder)

    monkeypatch.setattr(data_commands, "_archive", second)
    with pytest.raises(InputError, match=r"copy: another mammo data fetch is writing here; wait until it ends, or"):
        data_commands.fetch(tmp_path / "copy")
    monkeypatch.setattr(data_commands, "_archive", lambda *_: ("nothing", lambda: None))
    data_commands.fetch(tmp_path / "copy")


def test_a_folder_of_this_machine_is_an_address_too(tmp_path):
    (tmp_path / "from").mkdir()
    (tmp_path / "from" / "a").write_bytes(b"film")
    storage.copy_objects(storage.list_objects((tmp_path / "from").as_uri()), ["a"], tmp_path / "to")
    assert [(path.name, path.read_bytes()) for path in (tmp_path / "to").iterdir()] == [("a", b"film")]


def test_an_object_that_does_not_arrive_whole_is_refused(s3, place, tmp_path):
    s3.pipe(f"{place}/a", b"of ten bytes")
    stored = storage.list_objects(place)
    s3.pipe(f"{place}/a", b"shorter")
    with pytest.raises(InputError, match="a did not arrive whole; run the same command again"):
        storage.copy_objects(stored, "a", tmp_path)
    assert not (tmp_path / "a").exists()


def test_a_name_that_leads_out_of_the_folder_is_refused(tmp_path):
    stored = storage.Stored("s3://films/x", {"../evil": (1, 0.0)})
    with pytest.raises(InputError, match=r"'\.\./evil' would be written outside"):
        storage.copy_objects(stored, stored.objects, tmp_path / "copy")


def test_a_bucket_that_is_not_there_or_empty(place, tmp_path):
    line = one_line(mammo("data", "fetch", tmp_path, "--from", "s3://no-such-bucket/cbis-ddsm"))
    assert "s3://no-such-bucket/cbis-ddsm: cannot be read (" in line and "check the address" in line
    line = one_line(mammo("data", "fetch", tmp_path, "--from", place))
    assert f"{place}: nothing lies below this address" in line


def test_no_permission(s3, place, tmp_path, monkeypatch):
    s3.pipe(f"{place}/a", b"x")
    monkeypatch.setattr(settings, "INITIAL_NO_AUTH_ACTION_COUNT", 0)
    line = one_line(mammo("data", "fetch", tmp_path, "--from", place))
    assert f"{place}: cannot be read (" in line and "check the address, the credentials" in line


def test_a_connection_that_is_lost(s3, place, tmp_path, monkeypatch):
    s3.pipe(f"{place}/a", b"x")
    stored = storage.list_objects(place)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setattr(type(s3), "_cache", {})  # a filesystem that is open keeps its connection
    for call in (lambda: storage.list_objects(place), lambda: storage.copy_objects(stored, "a", tmp_path)):
        with pytest.raises(InputError, match=rf"^{place}: cannot be read \(.*\); check the address") as caught:
            call()
        assert "\n" not in str(caught.value)
    assert list(tmp_path.rglob("a")) == []


def test_a_driver_that_is_not_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "s3fs", None)
    monkeypatch.delitem(sys.modules["fsspec.registry"]._registry, "s3", raising=False)
    with pytest.raises(InputError, match=r"s3fs.*'cloud': pip install -c constraints.txt -e '\.\[cloud\]'"):
        storage.list_objects("s3://films/x")
    with pytest.raises(InputError, match=r"nonsense://x: cannot be read .*nonsense"):
        storage.list_objects("nonsense://x")


ADDRESS = "s3://films/cbis-ddsm"


def test_an_address_in_place_of_a_folder_names_the_command():
    for given in (ADDRESS, Path(ADDRESS)):  # the command line makes a path of it
        with pytest.raises(InputError, match=f"^{ADDRESS}: not a folder; .* mammo data fetch FOLDER --from {ADDRESS}$"):
            data_folder(given)
