"""Repeated cross-validation: AUC within folds, paired differences, equivalence."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from mammo_lib.errors import InputError
from mammo_lib.statistics import (
    auc,
    compare_folds,
    delong_interval,
    evaluate_out_of_fold,
    join_folds,
    stratified_auc,
)  # fmt: skip


def repeat(logit, label, fold=None, patient=None):
    n = len(label)
    logit = np.asarray(logit, float)
    return pd.DataFrame({
        "sample_id": [f"b{i}" for i in range(n)], "patient_id": patient if patient is not None else np.arange(n),
        "label": label, "fold": np.zeros(n, int) if fold is None else fold, "logit": logit,
        "probability": 1 / (1 + np.exp(-logit)), "threshold": 0.5, "temperature": 1.0,
    })  # fmt: skip


def simulated(seed, n=400, gain=1.0, folds=5):
    rng = np.random.default_rng(seed)
    label = np.tile([0, 1], n // 2)
    return repeat(gain * label + rng.normal(size=n), label, np.arange(n) // 2 % folds)


def test_breasts_are_compared_within_their_fold_only():
    # Fold 0: 1 of 1 pairs in order. Fold 1, on another scale: 1 of 2. Shares 2/5 and 3/5: 0.4 * 1 + 0.6 * 0.5 = 0.7.
    frame = repeat([0, 1, 100, 101, 102], [0, 1, 0, 1, 0], [0, 0, 1, 1, 1])
    assert stratified_auc([frame]).value == pytest.approx(0.7)
    assert auc(frame["label"], frame["logit"]) != pytest.approx(0.7)


def test_a_logit_that_is_no_number_is_refused():
    frame = simulated(0)
    frame.loc[3, "logit"] = np.nan
    for measure in (lambda: stratified_auc([frame]), lambda: compare_folds([frame], [frame])):
        with pytest.raises(InputError, match="scores must be numbers, got 1 NaN"):
            measure()


def test_one_fold_of_single_breasts_is_nearly_delong():
    frame = simulated(0, folds=1)
    ours, delong = stratified_auc([frame]), delong_interval(frame["label"].to_numpy(), frame["logit"].to_numpy())
    assert ours.value == pytest.approx(delong.value)
    # DeLong divides by n - 1 within each class, the sum over patients by n - 1 over all: 1 part in 400.
    assert ours.low == pytest.approx(delong.low, abs=2e-3) and ours.high == pytest.approx(delong.high, abs=2e-3)


def test_breasts_of_one_patient_count_as_one():
    frame = simulated(1, folds=1)
    twice = pd.concat([frame, frame.assign(sample_id=frame["sample_id"] + "r")], ignore_index=True)
    once, single, double = (stratified_auc([f]) for f in (frame, twice.assign(patient_id=range(len(twice))), twice))
    assert single.high - single.low < 0.8 * (once.high - once.low)
    assert double.high - double.low == pytest.approx(once.high - once.low, rel=0.01)


def test_the_same_scores_do_not_differ_and_are_equivalent():
    frames = [simulated(2), simulated(2).sample(frac=1, random_state=0).sort_index()]
    found = compare_folds(frames, frames)
    assert (found.value, found.low, found.high) == pytest.approx((0, 0, 0))
    assert found.p == 1 and found.is_equivalent and found.reach == pytest.approx(0)


def test_a_difference_is_found_and_has_a_sign():
    one, other = [simulated(3, gain=2.0), simulated(4, gain=2.0)], [simulated(5, gain=0.5), simulated(6, gain=0.5)]
    found, turned = compare_folds(one, other), compare_folds(other, one)
    assert found.low > 0.05 and found.p < 1e-6 and not found.is_equivalent
    assert found.low <= found.value <= found.high
    assert (turned.value, turned.low, turned.high) == pytest.approx((-found.value, -found.high, -found.low))
    assert str(replace(found, value=0.1, low=-0.2, high=0.4)) == "+0.100 (-0.200 to +0.400)"
    assert found.low_nb < found.value < found.high_nb and (found.repeats, found.folds, found.n) == (2, 10, 400)


def test_reach_is_where_tost_succeeds_at_5_percent():
    one, other = [simulated(3)], [simulated(5)]
    found = compare_folds(one, other)
    assert compare_folds(one, other, bound=found.reach + 1e-9).is_equivalent
    assert not compare_folds(one, other, bound=found.reach - 1e-9).is_equivalent


def test_one_fold_of_all_breasts_has_no_training_part_for_nadeau_and_bengio():
    found = compare_folds([simulated(3, folds=1)] * 2, [simulated(5, folds=1)] * 2)
    assert np.isnan([found.low_nb, found.high_nb]).all()
    assert found.low < found.value < found.high


def test_no_variance_is_no_certainty():
    right, wrong = repeat([0, 0, 1, 1], [0, 0, 1, 1]), repeat([1, 1, 0, 0], [0, 0, 1, 1])
    found = compare_folds([right], [wrong])
    assert (found.value, found.p, found.p_equivalence) == (1, 1, 1)
    assert np.isnan([found.low, found.high, found.reach]).all()


def test_more_repeats_narrow_the_interval():
    def width(repeats):
        found = compare_folds([simulated(10 + i) for i in range(repeats)], [simulated(90 + i) for i in range(repeats)])
        return found.high - found.low

    assert width(8) < 0.6 * width(1)


def test_fits_that_vary_widen_the_interval():
    """A fold whose network failed is no news about patients, but it is about fits."""
    rng = np.random.default_rng(0)
    good, bad = simulated(7, n=1000, gain=2.0), simulated(8, n=1000, gain=2.0)
    failed = bad.assign(logit=bad["logit"].where(bad["fold"] > 0, rng.normal(size=len(bad))))
    even, uneven = compare_folds([good], [bad]), compare_folds([good], [failed])
    assert uneven.high - uneven.low > 3 * (even.high - even.low)


@pytest.mark.parametrize(("one", "other", "message"), [
    ([], [], "no repeat is given"),
    ([simulated(0)], [simulated(0), simulated(1)], "1 and 2 repeats"),
    ([simulated(0)], [simulated(0).iloc[::-1]], "repeat 0 has other breasts"),
    ([simulated(0)], [simulated(0, folds=4)], "repeat 0 has other folds"),
    ([simulated(0).assign(label=1)], [simulated(0).assign(label=1)], "a fold of repeat 0 has only one class"),
    *[([one], [one], "fold 1 of repeat 0 has one patient")
      for one in [repeat([0, 1, 0, 1], [0, 1, 0, 1], [0, 0, 1, 1], [0, 1, 2, 2])]],
])  # fmt: skip
def test_what_cannot_be_compared_is_refused(one, other, message):
    with pytest.raises(InputError, match=message):
        compare_folds(one, other)


def test_a_fold_takes_its_threshold_from_the_others():
    label, fold = np.tile([0, 1], 30), np.arange(60) // 20
    logit = np.where(label, 2.0, -2.0) + 0.01 * np.arange(60) + 10.0 * fold
    frame = repeat(logit, label, fold)
    joined = join_folds({n: part.reset_index(drop=True) for n, part in frame.groupby("fold")})
    other = frame.loc[(frame["fold"] != 0) & (frame["label"] == 1), "probability"]
    assert (joined.loc[joined["fold"] == 0, "threshold"] >= other.min()).all()
    assert joined["sample_id"].is_monotonic_increasing and set(joined["split"]) == {"out_of_fold"}


def test_decisions_are_made_at_each_folds_own_threshold():
    frame = repeat([-1, 1, 4, 6], [0, 1, 0, 1], [0, 0, 1, 1]).assign(threshold=[0.5, 0.5, *[1 / (1 + np.exp(-5))] * 2])
    found = evaluate_out_of_fold(frame)
    assert found["accuracy"]["value"] == found["sensitivity"]["value"] == 1.0
    assert found["auc"]["value"] == 1.0 and found["auc_pooled"]["value"] == 0.75


def test_a_threshold_that_rounds_to_1_still_decides():
    frame = repeat([-45, 45, -45, 45], [0, 1, 0, 1], [0, 0, 1, 1]).assign(threshold=1.0)
    assert evaluate_out_of_fold(frame)["sensitivity"]["value"] == 1.0
