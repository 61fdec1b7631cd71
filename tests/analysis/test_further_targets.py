"""Chapter 09 from records: the scores of words, and baselines that anybody can recompute from the shipped tables."""

import importlib.util
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mammo_lib.analysis import further_targets
from mammo_lib.data import read_tables
from mammo_lib.data.sample import sample_folder
from mammo_lib.errors import InputError

ROOT = Path(__file__).parents[2]


class Scored:
    """A stand-in for a record with one further head of three words, the third of them rare."""

    def __init__(self, seed):
        rng = np.random.default_rng(seed)
        n, words = 120, np.array(["ROUND", "OVAL", "IRREGULAR"])
        truth = np.where(np.arange(n) < 6, 2, np.arange(n) % 2)
        names = [f"b{i:03d}" for i in range(n)]
        self.predictions = pd.DataFrame({"sample_id": names, "patient_id": np.arange(n) // 2})
        parts = [
            pd.DataFrame({"sample_id": names, "target": "shape", "word": word, "is_true": truth == k,
                          "probability": (truth == k) * (k == 0) + rng.random(n), "fold": np.arange(n) // 2 % 3})
            for k, word in enumerate(words)
        ]  # fmt: skip
        self.targets = pd.concat(parts, ignore_index=True)


def test_every_word_is_ranked_against_the_others():
    found = further_targets.head_scores([Scored(0), Scored(1)]).set_index("word")
    assert [*found.index] == ["ROUND", "OVAL"]  # six breasts are too few
    assert found.loc["ROUND", "level"] == f"round, {found.loc['ROUND', 'positive']}"
    assert found.loc["ROUND", "auc"] > 0.99 and found.loc["OVAL", "auc_low"] < 0.5 < found.loc["OVAL", "auc_high"]
    assert found.loc["ROUND", "positive"] == 57 and (found["n"] == 120).all()


@pytest.mark.slow
def test_a_baseline_of_calcifications_is_recomputed_from_the_sample():
    spec = importlib.util.spec_from_file_location("calcifications", ROOT / "benchmarks" / "calcifications.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    made = script.score(read_tables(sample_folder()), "calc", "birads")
    recorded = further_targets.calcification_baselines().set_index(["definition", "baseline"]).loc[("calc", "birads")]
    for name, value in made.items():
        if isinstance(value, float):
            assert recorded[name] == pytest.approx(value, abs=1e-9), name


def test_a_missing_record_is_named(tmp_path):
    with pytest.raises(InputError, match=r"calcification_baselines\.json"):
        further_targets.calcification_baselines(tmp_path)
