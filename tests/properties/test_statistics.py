"""Laws of the statistics, on any scores: ranks decide, intervals hold their estimate, tests agree with intervals."""

import dataclasses
import math
from unittest import mock

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.stats import norm, rankdata
from sklearn import metrics as sk
from statsmodels.stats.multitest import multipletests

from mammo_lib import statistics as s
from mammo_lib.statistics import metrics, out_of_fold
from mammo_lib.statistics.comparisons import holm, paired_differences
from mammo_lib.statistics.intervals import LEVEL, Z, patient_weights

SCORE = st.integers(-6, 6)  # few values: many ties
PROBABILITY = st.integers(0, 20).map(lambda k: k / 20)
SMALL = 1e-9


@st.composite
def scored(draw, score=SCORE, least=1, most=12, n_scores=1):
    """Draw labels, of both classes and in any order, with ``n_scores`` scores of each breast."""
    sizes = [draw(st.integers(least, most)) for _ in range(2)]
    label = draw(st.permutations([0] * sizes[0] + [1] * sizes[1]))
    scores = [draw(st.lists(score, min_size=len(label), max_size=len(label))) for _ in range(n_scores)]
    return np.array(label), *(np.array(one, float) for one in scores)


@st.composite
def repeats(draw, n_scores=1):
    """Draw predictions on the same folds, one frame per score; a patient has one breast or two."""
    parts = [draw(scored(least=2, most=4, n_scores=n_scores)) for _ in range(draw(st.integers(1, 3)))]
    label, *scores = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    fold = np.repeat(np.arange(len(parts)), [len(part[0]) for part in parts])
    twins = draw(st.integers(1, 2))
    return [pd.DataFrame({"sample_id": np.arange(len(label)), "patient_id": np.arange(len(label)) // twins,
                          "label": label, "fold": fold, "logit": one}) for one in scores]  # fmt: skip


def holds(interval, low=-math.inf, high=math.inf):
    """Whether an interval contains its estimate and lies in [low, high]; one without bounds says nothing."""
    if math.isnan(interval.low):
        return math.isnan(interval.high)
    return low - SMALL <= interval.low <= interval.value + SMALL and interval.value <= interval.high + SMALL <= high + 1


@given(scored())
def test_auc_is_the_share_of_midranks(breasts):
    label, score = breasts
    malignant = label.sum()
    ranks = rankdata(score)[label == 1].sum() - malignant * (malignant + 1) / 2
    assert s.auc(label, score) == pytest.approx(ranks / (malignant * (len(label) - malignant)))
    assert s.auc(label, score) == pytest.approx(sk.roc_auc_score(label, score))
    assert metrics.weighted_partial_auc(label, score, np.ones((1, len(label))))[0] == pytest.approx(
        sk.roc_auc_score(label, score, max_fpr=1 - metrics.PARTIAL)
    )


@given(scored(), st.sampled_from([np.exp, np.arctan, lambda x: 3 * x - 7, lambda x: x**3]), st.randoms())
def test_only_the_order_of_scores_counts(breasts, grow, random):
    label, score = breasts
    order = random.sample(range(len(label)), len(label))
    assert s.auc(label[order], grow(score[order])) == pytest.approx(s.auc(label, score))
    one, other = s.delong_interval(label, score), s.delong_interval(label[order], grow(score[order]))
    assert dataclasses.astuple(one) == pytest.approx(dataclasses.astuple(other), nan_ok=True)


@given(scored(), st.booleans())
def test_other_labels_or_other_signs_are_the_other_side_of_one_half(breasts, swap):
    label, score = breasts
    turned = (1 - label, score) if swap else (label, -score)
    one, other = s.delong_interval(label, score), s.delong_interval(*turned)
    assert other.value == pytest.approx(1 - one.value)
    assert (other.low, other.high) == pytest.approx((1 - one.high, 1 - one.low), nan_ok=True)


@given(scored(PROBABILITY), st.data())
def test_weights_are_repeated_breasts(breasts, data):
    label, probability = breasts
    weights = np.array(data.draw(st.lists(st.integers(0, 3), min_size=len(label), max_size=len(label))))
    often, likely = np.repeat(label, weights), np.repeat(probability, weights)
    assume(0 < often.sum() < len(often))
    for name, metric in metrics.SCORES.items():
        found = metric(label, probability, weights[None].astype(float))[0]
        assert found == pytest.approx(metric(often, likely, np.ones((1, len(often))))[0]), name
    whole = s.confusion(often, likely, 0.5)
    assert dataclasses.astuple(metrics.weighted_confusion(label, probability, weights, 0.5)) == dataclasses.astuple(
        whole
    )
    assert sk.average_precision_score(often, likely) == pytest.approx(
        metrics.weighted_average_precision(label, probability, weights[None].astype(float))[0]
    )


@given(scored(PROBABILITY), PROBABILITY)
def test_decisions_are_scikit_learns(breasts, threshold):
    label, probability = breasts
    counts, decision = s.confusion(label, probability, threshold), probability >= threshold
    assert (counts.n, counts.tp + counts.fp) == (len(label), decision.sum())
    assert counts.accuracy == pytest.approx(sk.accuracy_score(label, decision))
    assert counts.sensitivity == pytest.approx(sk.recall_score(label, decision))
    assert counts.specificity == pytest.approx(sk.recall_score(1 - label, ~decision))
    assert counts.f1 == pytest.approx(sk.f1_score(label, decision))
    if 0 < decision.sum() < len(label):
        assert counts.mcc == pytest.approx(sk.matthews_corrcoef(label, decision))


@given(scored(PROBABILITY))
def test_no_threshold_is_better_than_youdens_and_no_higher_one_as_good(breasts):
    label, probability = breasts

    def gain(threshold):
        counts = s.confusion(label, probability, threshold)
        return counts.sensitivity + counts.specificity

    best = s.youden_threshold(label, probability)
    others = {one: gain(one) for one in set(probability)}
    assert others[best] == pytest.approx(max(others.values()))
    assert all(value < others[best] - SMALL for one, value in others.items() if one > best)


@given(scored(st.floats(-4, 4), least=3), st.floats(0.5, 2))
def test_temperature_scales_with_the_logits_and_is_the_best(breasts, factor):
    label, logit = breasts
    found = s.fit_temperature(label, logit)
    assert 0.05 <= found <= 20

    def loss(temperature):
        return np.mean(np.logaddexp(0, logit / temperature) - label * logit / temperature)

    assert all(loss(found) <= loss(one) + 1e-4 for one in (*np.geomspace(0.05, 20, 30), max(0.05, found * 0.9)))
    if 0.2 < found < 5:
        assert s.fit_temperature(label, factor * logit) == pytest.approx(factor * found, rel=1e-2)


@given(st.integers(0, 300).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_a_share_lies_in_its_interval(counts):
    k, n = counts
    one, other = s.wilson_interval(k, n), s.wilson_interval(n - k, n)
    assert holds(one, 0, 1) and one.n == n
    assert (other.low, other.high) == pytest.approx((1 - one.high, 1 - one.low), nan_ok=True)


@given(st.floats(1e-6, 1 - 1e-6), st.integers(1, 500), st.integers(1, 500))
def test_a_published_auc_lies_in_its_interval(value, malignant, benign):
    assert holds(s.hanley_mcneil_interval(value, malignant, benign), 0, 1)


@given(scored(n_scores=2))
def test_paired_differences_are_antisymmetric_and_lie_in_their_intervals(breasts):
    label, one, other = breasts
    (found, p), (turned, p_turned) = s.delong_test(label, one, other), s.delong_test(label, other, one)
    assert holds(found) and holds(s.delong_interval(label, one), 0, 1)
    assert found.value == pytest.approx(s.auc(label, one) - s.auc(label, other))
    assert (turned.value, turned.low, turned.high) == pytest.approx(
        (-found.value, -found.high, -found.low), nan_ok=True
    )
    assert p == pytest.approx(p_turned, nan_ok=True)
    if not math.isnan(p) and abs(p - (1 - LEVEL)) > SMALL:
        assert (p < 1 - LEVEL) == (not found.low <= 0 <= found.high)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_is_that_of_statsmodels(p):
    with mock.patch("gc.collect"):  # statsmodels calls it each time
        expected = multipletests(p, method="holm")[1]
    np.testing.assert_allclose(holm(p), expected, atol=1e-15)


@given(scored(least=2, n_scores=5))
def test_holm_never_lowers_a_p_value_nor_changes_their_order(breasts):
    label, one, *others = breasts
    table = paired_differences(label, one, {str(number): other for number, other in enumerate(others)})
    p, raised = table.sort_values(["p", "p_holm"])[["p", "p_holm"]].to_numpy().T
    assert (raised >= p - SMALL).all() and (np.diff(raised) >= -SMALL).all()
    assert (raised <= np.minimum(1, p * len(p)) + SMALL).all()
    assert raised[0] == pytest.approx(min(1, p[0] * len(p)))


@given(scored(st.integers(0, 1), n_scores=2))
def test_mcnemar_is_the_sign_test_of_the_discordant(breasts):
    label, one, other = breasts
    gained, lost = ((one == label) & (other != label)).sum(), ((one != label) & (other == label)).sum()
    tail = sum(math.comb(gained + lost, k) for k in range(min(gained, lost) + 1)) / 2 ** (gained + lost)
    assert s.mcnemar(label, one, other) == pytest.approx(min(1, 2 * tail))
    assert s.mcnemar(label, one, other) == s.mcnemar(label, other, one)


@given(st.lists(st.integers(0, 5), min_size=1, max_size=15), st.integers(0, 9))
def test_the_breasts_of_a_patient_are_drawn_together(patients, seed):
    weights = patient_weights(np.array(patients), 20, seed)
    first = [patients.index(one) for one in patients]
    np.testing.assert_array_equal(weights, weights[:, first])
    assert (weights[:, sorted(set(first))].sum(axis=1) == len(set(patients))).all()


@given(repeats(), st.data())
def test_the_stratified_auc_is_that_of_each_fold_by_its_share(frames, data):
    [frame] = frames
    parts = [part for _, part in frame.groupby("fold")]
    by_fold = [sk.roc_auc_score(part["label"], part["logit"]) * len(part) / len(frame) for part in parts]
    found = s.stratified_auc([frame])
    assert found.value == pytest.approx(sum(by_fold)) and holds(found, 0, 1)
    scales = np.array(data.draw(st.lists(st.floats(0.5, 3), min_size=len(parts), max_size=len(parts))))
    moved = frame.assign(logit=frame["logit"] * scales[frame["fold"]] + 10 * scales[frame["fold"]])
    assert dataclasses.astuple(s.stratified_auc([moved])) == pytest.approx(dataclasses.astuple(found))


@given(repeats())
def test_placements_have_the_auc_as_the_mean_of_either_class(frames):
    [frame] = frames
    placements = out_of_fold._placements(frame)
    assert ((placements >= 0) & (placements <= 1)).all()
    for rows in frame.groupby("fold").groups.values():
        own, part = placements[rows], frame.loc[rows]
        expected = s.auc(part["label"], part["logit"])
        assert [own[part["label"] == one].mean() for one in (0, 1)] == pytest.approx([expected] * 2)
    assert out_of_fold._influence(frame, placements).sum() == pytest.approx(0, abs=SMALL)


@given(repeats(n_scores=4), st.floats(1e-4, 0.5))
def test_equivalence_agrees_with_the_interval(frames, bound):
    one, other = frames[:2], frames[2:]
    found, turned = s.compare_folds(one, other, bound), s.compare_folds(other, one, bound)
    assert holds(found.interval) and (found.low < found.high or abs(found.value) < SMALL or math.isnan(found.low))
    assert found.value == pytest.approx(s.stratified_auc(one).value - s.stratified_auc(other).value)
    assert (turned.value, turned.low, turned.high, turned.p, turned.p_equivalence) == pytest.approx(
        (-found.value, -found.high, -found.low, found.p, found.p_equivalence), nan_ok=True
    )
    if math.isnan(found.low):
        return
    if abs(found.p - (1 - LEVEL)) > SMALL:
        assert (found.p < 1 - LEVEL) == (not found.low <= 0 <= found.high)
    spread = (found.high - found.low) / (2 * Z)
    within = abs(found.value) + norm.ppf(LEVEL) * spread
    assert found.reach == pytest.approx(within, abs=SMALL)
    if abs(within - bound) > SMALL:
        assert found.is_equivalent == (within < bound)
    assert s.compare_folds(one, other, found.reach * 1.01 + 1e-6).is_equivalent


@given(st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), st.integers(1, 5))
def test_a_rounded_share_has_its_numerator_and_its_denominator(counts, decimals):
    k, n = counts
    value = round(k / n, decimals)
    found = s.numerators(value, n, decimals)
    assert k in found and all(0 <= one <= n for one in found)
    assert n in s.matching_denominators([value], decimals, n + 1)


@given(st.lists(st.integers(0, 9), min_size=4, max_size=4), st.integers(2, 4))
def test_a_confusion_matrix_is_among_those_that_match_its_rounded_metrics(cells, decimals):
    counts = s.Confusion(*cells)
    published = {name: getattr(counts, name) for name in ("accuracy", "sensitivity", "specificity", "f1", "mcc", "ppv")}
    known = {name: round(value, decimals) for name, value in published.items() if not math.isnan(value)}
    assert counts in s.matching_confusions(counts.tp + counts.fn, counts.tn + counts.fp, known, decimals)


@given(st.integers(1, 60), st.floats(0.05, 1), st.floats(0, 1), st.floats(0, 1))
def test_power_is_a_share_and_grows_with_the_gain(n, share, low, high):
    low, high = sorted((low * share, high * share))
    one, other = s.mcnemar_power(n, low, share), s.mcnemar_power(n, high, share)
    assert 0 <= one <= other + SMALL and other <= 1 + SMALL


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30), st.integers(1, 12))
def test_bins_of_a_calibration_curve_share_out_the_breasts(probability, n_bins):
    label = np.arange(len(probability)) % 2
    table = s.reliability(label, np.array(probability), n_bins)
    assert table["n"].sum() == len(label)
    assert (table["value"] * table["n"]).sum() == pytest.approx(label.sum())
    assert (table["mean"] * table["n"]).sum() == pytest.approx(sum(probability))


@given(scored(PROBABILITY, most=8))
def test_net_benefit_of_treating_all_needs_no_score(breasts):
    label, probability = breasts
    patients = np.arange(len(label))
    curve = s.decision_curve(label, probability, patients, n_resamples=20)
    at = curve["threshold"].to_numpy()
    share = label.mean()
    np.testing.assert_allclose(curve["treat_all"], share - (1 - share) * at / (1 - at), atol=SMALL)
    assert (curve["value"] <= share + SMALL).all()
    everybody = s.decision_curve(label, np.ones(len(label)), patients, n_resamples=20)
    np.testing.assert_allclose(everybody["value"], everybody["treat_all"])
