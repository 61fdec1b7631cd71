"""Records of a few variants of a cross-validation, which tests of answers, sentences and failure counts read."""

import numpy as np
import pandas as pd
import pytest

from mammo_lib.analysis.answers import find_repeats
from mammo_lib.config import get_profile
from mammo_lib.runs import records
from mammo_lib.runs.experiments import experiment_configs
from mammo_lib.statistics import evaluate_out_of_fold

PROFILE = get_profile("mirror-cv")
N = 400


@pytest.fixture(scope="session")
def write_repeat():
    """A function of folder, experiment, seed and quality that writes the record of one repeat."""
    return _written


@pytest.fixture(scope="module")
def repeats(tmp_path_factory):
    """Records of a few variants, in both homes, written once for all tests: none changes them."""
    tmp_path = tmp_path_factory.mktemp("records")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(records, "COMMITTED", tmp_path / "committed")
        patch.setattr(records, "FRESH", tmp_path / "fresh")
        yield _made(tmp_path)


def _made(tmp_path):
    for seed in (0, 1):
        _written(tmp_path / "committed", "crop_plain", seed, 1.5)
        _written(tmp_path / "fresh", "crop_ssm", seed, 1.5)
        _written(tmp_path / "fresh", "crop_no_blocks", seed, 0.5)
    _written(tmp_path / "fresh", "crop_attention", 0, 1.52)
    return find_repeats(PROFILE)


def _written(folder, name, seed, gain):
    """Write the record of one repeat: the same breasts and folds for every experiment, scores of a given quality."""
    config = next(c for c in experiment_configs(PROFILE.extended, name) if c.seed == seed)
    rng = np.random.default_rng(seed)
    label = np.tile([0, 1], N // 2)
    logit = gain * label + rng.normal(size=N)  # the same noise for every experiment of a seed
    frame = pd.DataFrame({
        "sample_id": [f"b{i:03d}" for i in range(N)], "patient_id": np.arange(N), "label": label, "logit": logit,
        "probability": 1 / (1 + np.exp(-logit)), "fold": rng.permutation(np.repeat(np.arange(5), N // 10)).repeat(2),
        "threshold": 0.5, "temperature": 1.0, "split": "out_of_fold",
    })  # fmt: skip
    run = records.Run(folder / name / f"seed{seed}-made")
    run.folder.mkdir(parents=True)
    records.write_json(run.folder / "config.json", config.model_dump(mode="json"))
    records.write_json(run.folder / "environment.json", {})
    off = frame.assign(intervention="shut", draw=0, logit=rng.normal(size=N))
    same = frame.assign(intervention="as_is", draw=0)
    pd.concat([same, off])[["split", "sample_id", "intervention", "draw", "logit", "fold"]].to_parquet(
        run.folder / "interventions.parquet"
    )
    losses = [0.692 if name == "crop_ssm" else 0.6] + 4 * [0.6]  # one fold of this network learned nothing
    history = pd.DataFrame({"epoch": 13, "train_loss": losses, "fold": range(5)})
    history.to_csv(run.folder / "history.csv", index=False)
    run.finish(frame, {"out_of_fold": evaluate_out_of_fold(frame)})
    return run
