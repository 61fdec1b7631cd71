"""Groups of breasts out of fold: arithmetic by hand, and intervals over patients."""

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit

from mammo_lib.statistics import fold_groups
from mammo_lib.statistics.fold_groups import mean_auc


def predictions(n=200, seed=0, gain=1.5):
    rng = np.random.default_rng(seed)
    label = np.tile([0, 1], n // 2)
    logit = gain * label - gain / 2 + rng.normal(size=n)
    return pd.DataFrame({
        "patient_id": np.arange(n) // 2, "label": label, "logit": logit, "probability": expit(logit),
        "threshold": 0.5, "temperature": 1.0, "fold": (np.arange(n) // 2) % 5,
    })  # fmt: skip


def test_the_mean_auc_stays_within_folds():
    frame = pd.DataFrame({"label": [1, 0, 1, 0], "logit": [5.0, 4.0, 1.0, 0.0], "fold": [0, 0, 1, 1]})
    assert mean_auc([frame], np.ones((1, 4))) == 1.0
    assert mean_auc([frame.drop(columns="fold")], np.ones((1, 4))) == 0.75
    one_class = np.array([[1.0, 0.0, 1.0, 1.0]])  # nothing to compare in the first fold
    assert mean_auc([frame], one_class) == 1.0


def by_hand(times):
    """Four malignant and four benign breasts, repeated: three of four found, two of four spared."""
    probability = np.tile([0.9, 0.8, 0.7, 0.2, 0.9, 0.7, 0.4, 0.2], times)
    n = len(probability)
    return pd.DataFrame({
        "patient_id": range(n), "label": np.tile([1] * 4 + [0] * 4, times), "probability": probability,
        "logit": np.log(probability / (1 - probability)), "threshold": 0.5, "temperature": 1.0, "fold": 0,
    })  # fmt: skip


def test_scores_of_a_group_by_hand():
    """Mean probability .6, share .5; of 16 pairs 3.5 + 3 + 2.5 + .5 are in order."""
    frame = by_hand(3)
    (row,) = fold_groups.group_scores([frame], {"all": np.ones(24, bool)}).to_dict("records")
    assert (row["n"], row["malignant"], row["sensitivity"], row["specificity"]) == (24, 12, 0.75, 0.5)
    assert row["calibration"] == pytest.approx(0.6 - 0.5)
    assert row["auc"] == pytest.approx(9.5 / 16)


def test_fewer_than_ten_of_a_class_have_no_score():
    frame = pd.concat([by_hand(2), by_hand(1).query("label == 1")], ignore_index=True)  # 12 malignant, 8 benign
    (row,) = fold_groups.group_scores([frame], {"all": np.ones(20, bool)}).to_dict("records")
    assert row["sensitivity"] == 0.75 and np.isnan(row["specificity"]) and np.isnan(row["auc"])
    assert np.isfinite(row["calibration"])


def test_a_group_is_scored_as_if_alone():
    frame = predictions()
    inside = np.arange(200) < 120
    rows = fold_groups.group_scores([frame], {"some": inside, "all": np.ones(200, bool)})
    alone = mean_auc([frame[inside]], np.ones((1, 120)))[0]
    assert rows.loc[0, "auc"] == pytest.approx(alone)
    assert (rows["auc_low"] < rows["auc"]).all() and (rows["auc"] < rows["auc_high"]).all()
    assert rows.loc[0, "auc_high"] - rows.loc[0, "auc_low"] > rows.loc[1, "auc_high"] - rows.loc[1, "auc_low"]


def test_patients_are_drawn_not_breasts():
    """Every breast twice under one patient is as much information as once: the interval must not shrink."""
    frame = predictions(seed=3)
    one_each = frame.assign(patient_id=np.arange(200))
    doubled = pd.concat([one_each, one_each], ignore_index=True)
    narrow = fold_groups.group_scores([one_each], {"all": np.ones(200, bool)}).iloc[0]
    wide = fold_groups.group_scores([doubled], {"all": np.ones(400, bool)}).iloc[0]
    assert wide["auc_high"] - wide["auc_low"] == pytest.approx(narrow["auc_high"] - narrow["auc_low"], rel=0.1)


def test_the_difference_of_groups_finds_a_harder_group():
    easy, hard = predictions(400, 1, gain=3.0), predictions(400, 2, gain=0.5)
    frame = pd.concat([easy, hard.assign(patient_id=hard["patient_id"] + 1000)], ignore_index=True)
    first = np.arange(800) < 400
    found = fold_groups.group_difference([frame], first, ~first)
    assert found["difference"] > 0.2 and found["p"] < 1e-6
    assert 0 < found["detectable"] < found["difference"]
    nothing = fold_groups.group_difference([frame], np.arange(800) % 4 < 2, np.arange(800) % 4 >= 2)
    assert nothing["p"] > 0.01


def test_a_group_that_is_too_small_has_no_difference():
    frame, rows = predictions(), np.arange(200)
    found = fold_groups.group_difference([frame], rows < 10, rows >= 10)
    assert np.isnan([*found.values()]).all()


def test_a_groups_threshold_comes_from_its_other_folds():
    frame = predictions()
    group = pd.Series(np.where(np.arange(200) < 100, "a", "b"))
    before = fold_groups.thresholds_by_group(frame, group)
    own = (frame["fold"] == 0).to_numpy() & (group == "a").to_numpy()
    changed = frame.assign(probability=np.where(own, 1 - frame["probability"], frame["probability"]))
    after = fold_groups.thresholds_by_group(changed, group)
    np.testing.assert_array_equal(before[own], after[own])
    assert (before != after).any()  # other folds of the group see the change
    np.testing.assert_array_equal(before[(group == "b").to_numpy()], after[(group == "b").to_numpy()])


def test_groups_on_shifted_scales_gain_from_thresholds_of_their_own():
    frame = predictions(400)
    group = pd.Series(np.where(np.arange(400) % 4 < 2, "a", "b"))
    shifted = frame["logit"] + np.where(group == "a", 4.0, 0.0)
    moved = frame.assign(logit=shifted, probability=expit(shifted))
    found = fold_groups.youden_gain([moved], group)
    assert found["gain_low"] > 0.1 and found["own"] - found["common"] == pytest.approx(found["gain"])
