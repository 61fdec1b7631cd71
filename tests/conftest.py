"""Fixtures shared by the tests that train: a small phantom and a config that finishes in seconds."""

import pytest

from mammo_lib import runs
from mammo_lib.config import DataConfig, ModelConfig, Profile, RunConfig, TrainConfig


@pytest.fixture(scope="session")
def phantom_root(tmp_path_factory):
    """A phantom of 24 breasts, written once per session."""
    from mammo_lib.data.phantom import write_phantom

    root = tmp_path_factory.mktemp("phantom") / "cbis"
    write_phantom(root, n_breasts=24, seed=0)
    return root


@pytest.fixture(scope="session")
def collection(phantom_root):
    """The phantom, opened."""
    from mammo_lib.data.collection import Collection
    from mammo_lib.data.sources import open_source
    from mammo_lib.data.tables import read_tables

    return Collection(phantom_root, read_tables(phantom_root), open_source(phantom_root))


@pytest.fixture(scope="session")
def tiny_profile():
    """Two epochs of nano at 32 pixels."""
    return Profile(
        name="tiny",
        phantom_breasts=24,
        run=RunConfig(
            data=DataConfig(image_size=32, n_folds=2),
            model=ModelConfig(backbone="nano"),
            train=TrainConfig(epochs=2, batch_size=4, learning_rate=1e-3),
        ),
    )


@pytest.fixture
def run_homes(tmp_path, monkeypatch):
    """Keep run folders and records of a test out of the project."""
    monkeypatch.setattr(runs, "FRESH", tmp_path / "fresh")
    monkeypatch.setattr(runs, "COMMITTED", tmp_path / "committed")


@pytest.fixture(scope="session", autouse=True)
def cache_home(tmp_path_factory):
    """Keep what tests prepare and remember out of the project, shared by all tests of a session."""
    from mammo_lib.data import collection, memo

    before = collection.CACHE, memo.MEMO
    collection.CACHE = tmp_path_factory.mktemp("cache")
    memo.MEMO = collection.CACHE.with_name("files.sqlite")
    yield
    collection.CACHE, memo.MEMO = before
