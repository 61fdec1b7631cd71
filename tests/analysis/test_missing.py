"""Chapter 08 from records: the right inputs are compared."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit

from mammo_lib.analysis import missing

N = 300


class Scored:
    """A stand-in for a record: predictions, and the scores of hidden inputs."""

    def __init__(self, seed, loss):
        rng, self.config = np.random.default_rng(seed), SimpleNamespace(seed=seed)
        label = np.tile([0, 1], N // 2)
        signal = 2.0 * label
        names, patients = [f"b{i:03d}" for i in range(N)], np.arange(N)
        fold = rng.permutation(np.repeat(np.arange(5), N // 10)).repeat(2)
        logit = signal + rng.normal(size=N)
        self.predictions = pd.DataFrame({
            "sample_id": names, "patient_id": patients, "label": label, "logit": logit, "probability": expit(logit),
            "fold": fold, "threshold": 0.5, "temperature": 1.0, "split": "out_of_fold",
            "density": np.tile([1, 2, 3, 4, 0], N // 5), "assessment": np.where(label == 1, 4, 3),
        })  # fmt: skip
        inputs = {("CC+MLO", "crop", "mask"): logit, ("CC", "crop", "mask"): logit - loss * label}
        inputs |= {("MLO", "crop", "mask"): logit - 0.01 * rng.normal(size=N)}
        inputs |= {
            (view, "crop", fill): logit - loss * label for view in ("CC", "MLO") for fill in ("other_view", "mean")
        }
        parts = [
            pd.DataFrame({"split": "out_of_fold", "sample_id": names, "patient_id": patients, "label": label,
                          "views": views, "streams": streams, "fill": fill, "logit": scores, "fold": fold})
            for (views, streams, fill), scores in inputs.items()
        ]  # fmt: skip
        few = rng.permutation(40)
        alone = pd.DataFrame({
            "split": "extra", "sample_id": [f"e{i:02d}" for i in few], "patient_id": few + 1000, "label": few % 2,
            "views": np.where(few < 24, "CC", "MLO"), "streams": "crop", "fill": "mask",
            "logit": few % 2 + 0.5 * rng.normal(size=40), "fold": rng.integers(0, 2, 40),
        })  # fmt: skip
        self.hidden_inputs = pd.concat([*parts, alone], ignore_index=True)


@pytest.fixture(scope="module")
def runs():
    return [Scored(seed, loss=1.5) for seed in (0, 1)]


def test_the_worth_of_an_input_is_what_hiding_it_costs(runs):
    scores, found = missing.worth(runs)
    assert scores["name"].tolist() == ["both views", "CC only", "MLO only"]
    found = found.set_index("experiment")
    assert found.loc["CC only", "difference"] < -0.1 and found.loc["CC only", "answer"] == "different"
    assert found.loc["MLO only", "answer"] == "equivalent"
    gap = scores.set_index("name")["auc"]
    assert found.loc["CC only", "difference"] == pytest.approx(gap["CC only"] - gap["both views"])


def test_networks_are_compared_input_by_input(runs):
    better = [Scored(seed, loss=0.0) for seed in (0, 1)]
    found = missing.compare_inputs(better, runs)
    assert [*found] == ["both views", "CC only", "MLO only"]
    assert found["both views"].value == 0 and found["CC only"].value > 0.1


def test_only_repeats_that_both_have_are_compared(runs):
    better = [Scored(seed, loss=0.0) for seed in (1, 2)]
    (found,) = {one.repeats for one in missing.compare_inputs(better, runs).values()}
    assert found == missing.compare_single(better, runs, "CC", "crop").repeats == 1


def test_a_network_of_one_view_meets_the_hidden_view(runs):
    assert missing.compare_single(runs, runs, "CC", "crop").value > 0.1  # complete scores against hidden ones


def test_breasts_of_one_view_stand_beside_hidden_ones(runs):
    found = missing.single_view_breasts(runs, "crop")
    assert found["n"].tolist() == [24, 16] and found["malignant"].tolist() == [12, 8]
    assert (found["only_low"] <= found["only"]).all() and (found["only"] <= found["only_high"]).all()
    hidden = missing.fills(runs, "crop")["mask"]
    assert found["hidden"].tolist() == hidden.tolist()


def test_breasts_of_unknown_density_are_in_no_group(runs):
    rows = missing.describe_groups(runs, "density").set_index("name")
    assert rows.loc["density 1-2", "n"] == rows.loc["density 1", "n"] + rows.loc["density 2", "n"] == 2 * N // 5
    assert rows.loc["density 3-4", "n"] == 2 * N // 5
    gain = missing.density_thresholds(runs)
    assert gain["gain_low"] <= gain["gain"] <= gain["gain_high"]


def test_the_network_adds_to_an_assessment_that_knows_nothing(runs):
    """Assessments at random are worth nothing; with the network's score the regression is the network."""
    rng = np.random.default_rng(0)
    blind = [Scored(seed, 1.0) for seed in (0, 1)]
    for run in blind:
        run.predictions["assessment"] = rng.integers(1, 6, N)
    over_reader, over_network = missing.beyond_assessment(blind)
    assert over_reader.value > 0.3 and abs(over_network.value) < 0.01


def test_trainings_stand_side_by_side_input_by_input(runs):
    better = [Scored(seed, loss=0.0) for seed in (0, 1)]
    found = missing.by_training(runs, better, {"CC": runs}).set_index("name")
    assert found["single"].notna().tolist() == [False, True, False]
    assert found.loc["CC only", "reference"] < found.loc["CC only", "hidden"]
    assert found.loc["CC only", "single"] == found.loc["both views", "reference"]
