"""Fixtures shared by the tests that train: a small phantom and a config that finishes in seconds."""

import os

import filelock
import pytest
from hypothesis import settings

from mammo_lib.config import DataConfig, ModelConfig, Profile, RunConfig, TrainConfig, merged
from mammo_lib.runs import records as runs

# The same few examples at every run; `pytest --hypothesis-profile=many tests/properties` draws new ones.
settings.register_profile("few", derandomize=True, max_examples=12, deadline=None, database=None)
settings.register_profile("many", max_examples=300, deadline=None, print_blob=True)
settings.load_profile("few")


@pytest.fixture(scope="session")
def phantom_of(tmp_path_factory):
    """Return the phantom of a layout, written once for all workers of a session; a test that changes it copies it."""
    from mammo_lib.data.phantom.exams import write_phantom

    own = tmp_path_factory.getbasetemp()
    home = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "phantoms"
    home.mkdir(exist_ok=True)

    def written(layout="classic", n_breasts=12):
        root = home / f"{layout}-{n_breasts}"
        with filelock.FileLock(f"{root}.lock"):
            write_phantom(root, n_breasts=n_breasts, seed=0, layout=layout)
        return root

    return written


@pytest.fixture(scope="session")
def phantom_root(phantom_of):
    """A phantom of 24 breasts."""
    return phantom_of(n_breasts=24)


@pytest.fixture(scope="session")
def collection(phantom_root):
    """The phantom, opened."""
    from mammo_lib.data.cbis_ddsm.sources import open_source
    from mammo_lib.data.cbis_ddsm.tables import read_tables
    from mammo_lib.data.collection import Collection

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


@pytest.fixture(scope="session")
def untrained_run(tmp_path_factory, tiny_profile, collection):
    """Make a run folder in the form of a finished one, its weights drawn at random, gates included; nothing is trained.

    Call it with fields of the model that differ from the tiny profile's.
    """
    import torch

    from mammo_lib.data.cohort import split_cohort
    from mammo_lib.models.network import Network
    from mammo_lib.runs.predictions import as_predictions, with_choices

    def make(**model):
        config = RunConfig.model_validate(merged(tiny_profile.run.model_dump(), {"model": model}))
        run = runs.Run(tmp_path_factory.mktemp("untrained") / "seed0-untrained")
        run.folder.mkdir()
        torch.manual_seed(0)
        network = Network(config).eval()
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.add_(0.05 * torch.randn_like(parameter))
        torch.save({"state_dict": network.state_dict()}, run.checkpoint)
        runs.write_json(run.folder / "config.json", config.model_dump(mode="json"))
        runs.write_json(run.folder / "environment.json", dict.fromkeys(runs.ENVIRONMENT, "none") | {"packages": {}})
        cohort = split_cohort(config.data, collection.prepare("train", *config.inputs).cohort)["validation"]
        logits = torch.linspace(-1, 1, len(cohort)).numpy()
        run.finish(with_choices(as_predictions(cohort, logits), 0.5, 2.0), {"validation": {}})
        return run

    return make
