"""Statistics against scikit-learn, against slow references, and by hand."""

import json
import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn import metrics as sk

from mammo_lib import statistics as s
from mammo_lib.errors import InputError
from mammo_lib.statistics import metrics
from mammo_lib.statistics.comparisons import decide


@pytest.fixture
def scores():
    generator = np.random.default_rng(0)
    label = generator.integers(0, 2, 200)
    return label, 1 / (1 + np.exp(-(generator.normal(size=200) + label)))


def value_of(name, label, probability):
    """The metric of a name on all breasts once."""
    return metrics.SCORES[name](np.asarray(label), np.asarray(probability), np.ones((1, len(label))))[0]


def test_confusion_by_hand():
    # p >= .5: breasts 1, 2, 5 are called malignant; 1 and 5 are.
    c = s.confusion(np.array([1, 0, 1, 0, 1]), np.array([0.9, 0.5, 0.2, 0.1, 0.7]), 0.5)
    assert (c.tp, c.fn, c.tn, c.fp) == (2, 1, 1, 1)
    assert c.accuracy == 3 / 5
    assert c.sensitivity == 2 / 3
    assert c.specificity == 1 / 2
    assert c.f1 == 4 / 6  # 2*2 / (2*2 + 1 + 1)


def test_confusion_metrics_equal_scikit_learn(scores):
    label, probability = scores
    c, decision = s.confusion(label, probability, 0.6), probability >= 0.6
    assert c.accuracy == pytest.approx(sk.accuracy_score(label, decision))
    assert c.f1 == pytest.approx(sk.f1_score(label, decision))
    assert c.mcc == pytest.approx(sk.matthews_corrcoef(label, decision))
    assert c.ppv == pytest.approx(sk.precision_score(label, decision))
    assert value_of("brier", label, probability) == pytest.approx(sk.brier_score_loss(label, probability))


def test_weighted_metrics_equal_scikit_learn_on_the_repeated_breasts(scores):
    label, probability = scores
    probability = probability.round(1)  # many ties
    weights = s.patient_weights(np.arange(200), 3, seed=0)
    for row, weight in enumerate(weights.astype(int)):
        drawn, guess = np.repeat(label, weight), np.repeat(probability, weight)
        assert metrics.weighted_auc(label, probability, weights)[row] == pytest.approx(sk.roc_auc_score(drawn, guess))
        expected = sk.average_precision_score(drawn, guess)
        assert metrics.weighted_average_precision(label, probability, weights)[row] == pytest.approx(expected)
        assert metrics.weighted_brier(label, probability, weights)[row] == pytest.approx(
            sk.brier_score_loss(drawn, guess)
        )
        f1 = sk.f1_score(drawn, guess >= 0.6)
        assert metrics.weighted_at_threshold("f1", 0.6)(label, probability, weights)[row] == pytest.approx(f1)


def test_delong_by_hand():
    # malignant .8 .4, benign .6 .2. Pairs won: .8>.6 .8>.2 .4<.6 .4>.2 -> AUC 3/4.
    # Placements: malignant (1, 1/2), benign (1/2, 1): both variances 1/8, sum of var/2 = 1/8.
    # Logit scale: centre log 3, standard error sqrt(1/8) / (3/4 * 1/4).
    interval = s.delong_interval(np.array([1, 1, 0, 0]), np.array([0.8, 0.4, 0.6, 0.2]))
    z = 1.959963984540054
    half = z * math.sqrt(1 / 8) / (3 / 16)
    assert interval.value == 0.75
    assert interval.low == pytest.approx(1 / (1 + math.exp(-(math.log(3) - half))))
    assert interval.high == pytest.approx(1 / (1 + math.exp(-(math.log(3) + half))))


def slow_delong(label, one, other):
    """Variance of AUC(one) - AUC(other), the slow O(mn) way: DeLong's S10/m + S01/n, pair by pair."""
    malignant, benign = np.flatnonzero(label == 1), np.flatnonzero(label == 0)
    wins = np.empty((2, len(malignant), len(benign)))
    for k, score in enumerate((one, other)):
        for i, x in enumerate(malignant):
            for j, y in enumerate(benign):
                wins[k, i, j] = 1.0 if score[x] > score[y] else 0.5 if score[x] == score[y] else 0.0
    covariance = np.cov(wins.mean(axis=2)) / len(malignant) + np.cov(wins.mean(axis=1)) / len(benign)
    return covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1]


def test_delong_test_equals_the_slow_covariances(scores):
    label, one = scores
    one = one.round(1)  # many ties
    other = np.random.default_rng(4).uniform(size=200) / 2 + one / 2
    difference, p = s.delong_test(label, one, other)
    error = math.sqrt(slow_delong(label, one, other))
    assert difference.value == pytest.approx(sk.roc_auc_score(label, one) - sk.roc_auc_score(label, other))
    assert difference.high - difference.value == pytest.approx(1.959963984540054 * error)
    assert p == pytest.approx(2 * stats.norm.sf(abs(difference.value) / error))


def test_delong_test_of_draws_is_that_of_their_mean_auc(scores):
    label, one = scores
    draws = np.random.default_rng(5).uniform(size=(3, 200))
    assert s.delong_test(label, one, np.stack([draws[0]] * 4)) == s.delong_test(label, one, draws[0])
    mean = np.mean([s.auc(label, draw) for draw in draws])
    assert s.delong_test(label, one, draws)[0].value == pytest.approx(s.auc(label, one) - mean)


def test_delong_with_too_few_breasts_has_no_interval():
    label, score = np.array([0, 0, 1]), np.array([0.1, 0.2, 0.3])
    assert math.isnan(s.delong_interval(label, score).low)
    difference, p = s.delong_test(label, score, score[::-1])
    assert math.isnan(difference.low)
    assert math.isnan(p)


def test_separated_classes_do_not_give_certainty():
    # 3 malignant above 5 benign: 3 disjoint pairs, all in order. At AUC = a that happens with chance a^3;
    # a^3 = .025 at a = .2924.
    label, score = np.array([1, 1, 1, 0, 0, 0, 0, 0]), np.arange(8, 0, -1) / 10
    above, below = s.delong_interval(label, score), s.delong_interval(label, -score)
    assert (above.value, above.low, above.high) == (1.0, pytest.approx(0.2924, abs=1e-4), 1.0)
    assert (below.value, below.low, below.high) == (0.0, 0.0, pytest.approx(1 - 0.2924, abs=1e-4))
    # By patients: two of the three malignant breasts are of one, so a^2 = .025 at a = .1581.
    boot = s.auc_bootstrap_interval(label, score, np.array([0, 0, 1, 2, 3, 4, 5, 6]))
    assert (boot.value, boot.low, boot.high) == (1.0, pytest.approx(0.1581, abs=1e-4), 1.0)


def test_hanley_mcneil_by_hand():
    # A = .8, 3 malignant, 2 benign: Q1 = .8/1.2 = 2/3, Q2 = 1.28/1.8 = .7111;
    # variance = (.16 + 2 (2/3 - .64) + (.7111 - .64)) / 6 = .284444 / 6; its root over .16 on the logit scale.
    interval = s.hanley_mcneil_interval(0.8, 3, 2)
    half = 1.959963984540054 * math.sqrt(0.2844444444 / 6) / 0.16
    assert interval.low == pytest.approx(1 / (1 + math.exp(-(math.log(4) - half))))
    assert interval.high == pytest.approx(1 / (1 + math.exp(-(math.log(4) + half))))
    assert interval.n == 5


def test_hanley_mcneil_is_close_to_delong(scores):
    label, probability = scores
    delong = s.delong_interval(label, probability)
    from_value = s.hanley_mcneil_interval(delong.value, label.sum(), (1 - label).sum())
    assert from_value.low == pytest.approx(delong.low, abs=0.02)
    assert from_value.high == pytest.approx(delong.high, abs=0.02)


def test_delong_agrees_with_the_bootstrap(scores):
    label, probability = scores
    delong = s.delong_interval(label, probability)
    boot = s.auc_bootstrap_interval(label, probability, np.arange(len(label)))
    assert delong.value == boot.value == pytest.approx(sk.roc_auc_score(label, probability))
    assert delong.low == pytest.approx(boot.low, abs=0.01)
    assert delong.high == pytest.approx(boot.high, abs=0.01)


def test_delong_test_of_a_score_with_itself_and_with_noise(scores):
    label, probability = scores
    assert s.delong_test(label, probability, probability) == (s.Interval(0.0, 0.0, 0.0, 200), 1.0)
    noise = np.random.default_rng(1).uniform(size=200)
    difference, p = s.delong_test(label, probability, noise)
    assert difference.low > 0
    assert p < 0.001


def test_bootstrap_is_seeded_and_moves_with_the_seed(scores):
    label, probability = scores
    patients = np.arange(200) // 2
    one = s.auc_bootstrap_interval(label, probability, patients, n_resamples=200)
    assert one == s.auc_bootstrap_interval(label, probability, patients, n_resamples=200)
    assert one != s.auc_bootstrap_interval(label, probability, patients, n_resamples=200, seed=1)


def test_resamples_keep_a_patient_together():
    patients = np.array(["b", "a", "b", "c"])
    for counts in s.patient_weights(patients, 50, 0):
        assert counts[0] == counts[2]  # both breasts of patient b, equally often
        assert counts[0] + counts[1] + counts[3] == 3  # three patients drawn


def test_copies_of_a_patient_widen_the_interval_by_root_two():
    generator = np.random.default_rng(2)
    label = generator.integers(0, 2, 150)
    probability = 1 / (1 + np.exp(-(generator.normal(size=150) + label)))
    twice = np.repeat(label, 2), np.repeat(probability, 2)
    clustered = s.auc_bootstrap_interval(*twice, np.repeat(np.arange(150), 2))
    ignored = s.auc_bootstrap_interval(*twice, np.arange(300))
    ratio = (clustered.high - clustered.low) / (ignored.high - ignored.low)
    assert ratio == pytest.approx(math.sqrt(2), rel=0.1)


@pytest.mark.slow
def test_clustered_intervals_cover():
    generator, hits = np.random.default_rng(3), 0
    truth = stats.norm.cdf(math.sqrt(0.5))  # P(N(1, 1) > N(0, 1))
    for trial in range(200):
        label = np.repeat(generator.integers(0, 2, 60), 2)
        shared = np.repeat(generator.normal(size=60), 2) * math.sqrt(0.5)
        score = shared + generator.normal(size=120) * math.sqrt(0.5) + label
        interval = s.auc_bootstrap_interval(label, score, np.arange(120) // 2, n_resamples=400, seed=trial)
        hits += interval.low <= truth <= interval.high
    assert hits / 200 >= 0.90


def test_wilson_by_hand():
    # 0.8658 at n = 149, as in the protocol's arithmetic: about .80 to .91.
    interval = s.wilson_interval(129, 149)
    assert (round(interval.low, 2), round(interval.high, 2)) == (0.80, 0.91)
    assert math.isnan(s.wilson_interval(0, 0).value)


def test_youden_by_hand():
    # thresholds .9: 1/2 - 0; .6: 1 - 1/3 <- best; .5: 1 - 2/3.
    assert s.youden_threshold(np.array([1, 1, 0, 0, 0]), np.array([0.9, 0.6, 0.7, 0.5, 0.1])) == 0.6


def test_youden_takes_the_highest_of_equals():
    # .9: 1/2 - 0; .6: 1/2 - 1/2; .5: 1 - 1/2; .4: 1 - 1. The first and the third are equal.
    assert s.youden_threshold(np.array([1, 0, 1, 0]), np.array([0.9, 0.6, 0.5, 0.4])) == 0.9


def test_youden_needs_both_classes():
    with pytest.raises(InputError, match="all 3 breasts have label 0"):
        s.youden_threshold(np.zeros(3, int), np.array([0.1, 0.2, 0.3]))


def test_sensitivity_at_specificity_by_hand():
    label = np.array([1, 1, 0, 0, 0, 0, 0])
    probability = np.array([0.9, 0.5, 0.6, 0.4, 0.3, 0.2, 0.1])
    assert value_of("sensitivity_at_95", label, probability) == 0.5  # one false positive already costs 1/5
    assert value_of("sensitivity_at_80", label, probability) == 1.0


def test_calibration_error_by_hand():
    # bin [.2,.3): mean .25, share 0 -> gap .25 on 2 of 4; bin [.7,.8): mean .75, share 1/2 -> gap .25 on 2 of 4.
    value = value_of("ece", np.array([0, 0, 1, 0]), np.array([0.25, 0.25, 0.75, 0.75]))
    assert value == pytest.approx(0.25)


def test_mcnemar_by_hand():
    # 5 discordant pairs, all for one side: exact two-sided p = 2 * (1/2)^5.
    label = np.ones(10, int)
    one, other = np.ones(10, int), np.array([0] * 5 + [1] * 5)
    assert s.mcnemar(label, one, other) == pytest.approx(2 / 32)


def test_evaluate_predictions_names_and_one_class(scores):
    label, probability = scores
    frame = pd.DataFrame({"patient_id": np.arange(200), "label": label, "probability": probability, "threshold": 0.6})
    result = s.evaluate_predictions(frame)
    assert {"auc", "accuracy", "sensitivity", "specificity", "f1", "sensitivity_at_90", "brier"} <= set(result)
    for value in result.values():
        assert value["low"] <= value["value"] <= value["high"]
        assert value["n"] in (200, label.sum(), (1 - label).sum())


@pytest.mark.parametrize(
    ("change", "undefined", "reason"),
    [
        ({"label": 0}, {"auc", "auc_bootstrap", "auprc", "sensitivity", "sensitivity_at_90"}, "no malignant breast"),
        ({"label": 1}, {"auc", "auc_bootstrap", "specificity", "sensitivity_at_90"}, "no benign breast"),
        ({"probability": 0.1}, {"ppv", "mcc"}, "every breast got the same decision"),
    ],
)
def test_an_undefined_metric_is_null_with_a_reason(scores, change, undefined, reason):
    label, probability = scores
    frame = pd.DataFrame({"patient_id": np.arange(200), "label": label, "probability": probability, "threshold": 0.6})
    result = s.evaluate_predictions(frame.assign(**change))
    json.dumps(result, allow_nan=False)
    for name, record in result.items():
        assert (record["value"] is None) == ("reason" in record)
        if name in undefined:
            assert record["reason"] == reason


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        ("probability", [0.1, math.nan], r"must lie in \[0, 1\], got nan in 1 rows"),
        ("probability", [0.1, 1.5], r"must lie in \[0, 1\], got 1.5 in 1 rows"),
        ("label", [0, 2], r"labels must be 0 or 1, got \[2\]"),
        ("threshold", [0.5, 0.6], "one split has one threshold"),
        ("threshold", [math.nan, math.nan], "one split has one threshold"),
    ],
)
def test_predictions_that_cannot_be_evaluated(column, values, message):
    frame = pd.DataFrame({"patient_id": [1, 2], "label": [0, 1], "probability": [0.2, 0.8], "threshold": 0.5})
    with pytest.raises(InputError, match=message):
        s.evaluate_predictions(frame.assign(**{column: values}))
    with pytest.raises(InputError, match="no row"):
        s.evaluate_predictions(frame.iloc[:0])


def test_the_papers_denominators():
    assert s.matching_denominators([0.8322, 0.7517, 0.7383], 4, 400) == [149, 298]
    assert [s.numerators(v, 149, 4) for v in (0.8322, 0.7517, 0.7383)] == [[124], [112], [110]]


@pytest.mark.parametrize(("value", "n", "decimals"), [(0.87, 400, 2), (0.8322, 149, 4), (0.5, 1000, 2), (1.0, 7, 1)])
def test_numerators_are_all_there(value, n, decimals):
    everything = [k for k in range(n + 1) if abs(k / n - value) <= 0.5 * 10**-decimals + 1e-12]
    assert s.numerators(value, n, decimals) == everything


def test_five_breasts_cannot_be_significant_at_any_size():
    # Of breasts on which one of two is right, 5 of 5 for one side: p = 2/2^5 = .0625; 6 of 6: p = 2/2^6 = .03125.
    label = np.ones(149, int)
    for gain, p in ((5, 0.0625), (6, 0.03125)):
        assert s.mcnemar(label, label, np.arange(149) >= gain) == pytest.approx(p)
    # So with no breast lost, power is the chance of at least 6 among 149, each with probability 5/149.
    expected = stats.binom.sf(5, 149, 5 / 149)
    assert s.mcnemar_power(149, 5 / 149, 5 / 149) == pytest.approx(expected)


def test_the_papers_only_confusion_matrix():
    published = {"accuracy": 0.87, "sensitivity": 0.86, "specificity": 0.87, "f1": 0.84}
    assert s.matching_confusions(59, 90, published, 2) == [s.Confusion(tp=51, fn=8, tn=78, fp=12)]


def test_power_is_what_simulation_finds():
    generator = np.random.default_rng(0)
    wins, losses, _ = generator.multinomial(149, [0.15, 0.05, 0.8], size=1000).T
    label = np.ones(1, int)
    assert s.mcnemar(label, label, label) == 1.0
    rejected = [stats.binomtest(int(w), int(w + l)).pvalue < 0.05 for w, l in zip(wins, losses, strict=True)]
    assert s.mcnemar_power(149, gain=0.10, discordant_share=0.20) == pytest.approx(np.mean(rejected), abs=0.04)


def test_power_of_no_gain_is_at_most_the_level():
    assert s.mcnemar_power(149, gain=0.0, discordant_share=0.2) <= 0.05


def test_temperature_finds_the_scale_that_made_the_labels():
    """Labels drawn from sigmoid(x); logits stated three times too sure: the temperature is three."""
    generator = np.random.default_rng(0)
    x = generator.normal(0, 2, 20_000)
    label = (generator.random(x.size) < 1 / (1 + np.exp(-x))).astype(int)
    assert s.fit_temperature(label, 3 * x) == pytest.approx(3, rel=0.05)
    assert s.fit_temperature(label, x) == pytest.approx(1, rel=0.05)


def test_temperature_stays_bounded_where_the_classes_separate():
    assert s.fit_temperature(np.array([0, 1]), np.array([-1.0, 1.0])) == pytest.approx(0.05, rel=0.01)
    assert s.fit_temperature(np.array([1, 0]), np.array([-1.0, 1.0])) == pytest.approx(20, rel=0.01)


def test_scaled_calibration_stands_beside_the_raw_one():
    generator = np.random.default_rng(1)
    x = generator.normal(0, 2, 400)
    label = (generator.random(x.size) < 1 / (1 + np.exp(-x))).astype(int)
    frame = pd.DataFrame({"patient_id": np.arange(400), "label": label, "logit": 4 * x, "threshold": 0.5})
    frame = frame.assign(probability=1 / (1 + np.exp(-frame["logit"])), temperature=4.0)
    metrics = s.evaluate_predictions(frame)
    assert metrics["ece_scaled"]["value"] < metrics["ece"]["value"] / 2
    assert metrics["brier_scaled"]["value"] < metrics["brier"]["value"]
    assert "ece_scaled" not in s.evaluate_predictions(frame.drop(columns="temperature"))


def test_reliability_by_hand():
    bins = s.reliability(np.array([0, 1, 1, 1]), np.array([0.05, 0.07, 0.95, 1.0]))
    assert bins["mean"].tolist() == pytest.approx([0.06, 0.975])
    assert bins["value"].tolist() == [0.5, 1.0]
    assert bins["n"].tolist() == [2, 2]


def test_paired_differences_are_delongs_with_holm():
    generator = np.random.default_rng(0)
    label = generator.integers(0, 2, 200)
    good, fair, none = (label * strength + generator.normal(size=200) for strength in (2.0, 1.0, 0.0))
    frame = s.paired_differences(label, good, {"fair": fair, "none": none}).set_index("name")
    difference, p = s.delong_test(label, good, fair)
    assert frame.loc["fair", "value"] == pytest.approx(difference.value)
    assert frame.loc["fair", "p"] == pytest.approx(p)
    assert frame.loc["none", "p_holm"] == pytest.approx(min(1, 2 * frame.loc["none", "p"]))
    assert (frame["p_holm"] >= frame["p"]).all()


def test_partial_auc_is_scikit_learns(scores):
    label, probability = scores
    for score in (probability, probability.round(1), 1 - probability, label * 1.0):
        assert value_of("partial_auc", label, score) == pytest.approx(sk.roc_auc_score(label, score, max_fpr=0.2))
    assert value_of("partial_auc", label, np.full(200, 0.5)) == pytest.approx(0.5)  # a constant guesses


def test_net_benefit_by_hand():
    # Five breasts, two malignant. At .5 one cancer and one benign breast are called: 1/5 - 1/5 * 1 = 0.
    # At .2 both cancers and two benign ones: 2/5 - 2/5 * 1/4 = .3; everybody: 2/5 - 3/5 * 1/4 = .25.
    label, probability = np.array([1, 1, 0, 0, 0]), np.array([0.9, 0.3, 0.6, 0.2, 0.1])
    curve = s.decision_curve(label, probability, np.arange(5), thresholds=np.array([0.2, 0.5]), n_resamples=50)
    assert curve["value"].tolist() == pytest.approx([0.3, 0.0])
    assert curve["treat_all"].tolist() == pytest.approx([0.25, -0.2])
    assert (curve["low"] <= curve["value"]).all()
    assert (curve["value"] <= curve["high"]).all()


def test_the_gain_in_net_benefit_is_paired():
    """A score that calls everybody adds nothing to calling everybody, whoever is drawn."""
    label, patients = np.array([1, 0] * 20), np.arange(40)
    everybody = s.decision_curve(label, np.full(40, 0.9), patients, thresholds=np.array([0.2]))
    assert everybody["gain_low"].tolist() == [0.0]
    assert everybody["low"].iloc[0] < everybody["value"].iloc[0]
    perfect = s.decision_curve(label, label * 1.0, patients, thresholds=np.array([0.2]))
    assert perfect["gain_low"].iloc[0] > 0


def test_subgroups_count_every_breast_once(scores):
    label, probability = scores
    frame = pd.DataFrame({"label": label, "probability": probability, "density": pd.array([1, 2, None, 2] * 50)})
    rows = s.subgroups(frame.assign(constant=1), {"density": "density", "constant": "same", "absent": "absent"})
    assert rows["name"].tolist() == ["all breasts", "density", "density", "density"]
    assert rows["level"].tolist() == ["", "1", "2", "unknown"]
    assert rows["n"].tolist() == [200, 50, 100, 50]
    assert rows["malignant"].iloc[1:].sum() == label.sum()
    assert rows["value"].iloc[2] == pytest.approx(sk.roc_auc_score(label[1::2], probability[1::2]))


def test_a_subgroup_with_fewer_than_ten_of_a_class_has_no_auc():
    """Level 1 has ten of each class, level 2 nine malignant, level 3 none."""
    label = [0] * 10 + [1] * 10 + [0] * 20 + [1] * 9 + [0] * 5
    frame = pd.DataFrame(
        {"label": label, "probability": 0.8 * np.array(label) + 0.1, "density": [1] * 20 + [2] * 29 + [3] * 5}
    )
    rows = s.subgroups(frame, {"density": "density"}).set_index("level")
    assert rows.loc["1", "value"] == 1.0 and rows.loc["", "value"] == 1.0
    assert rows.loc[["2", "3"], "value"].isna().all() and rows.loc["2", "malignant"] == 9


def seed_frames(n=60, seeds=3, strength=1.0):
    """Predictions of several seeds on one validation and one test set: shared signal, noise of their own."""
    generator = np.random.default_rng(5)
    label = np.tile([0, 1, 1, 0, 1], 2 * n // 5)
    signal = strength * label + generator.normal(size=2 * n)
    known = pd.DataFrame({"sample_id": np.arange(2 * n), "patient_id": np.arange(2 * n) // 2, "label": label})
    known["split"] = np.repeat(["validation", "test"], n)
    logits = [signal + generator.normal(size=2 * n) for _ in range(seeds)]
    return [known.assign(logit=x, probability=1 / (1 + np.exp(-x)), threshold=0.5, temperature=1.0) for x in logits]


def test_over_seeds_is_the_mean_with_the_spread_of_seeds():
    tests = [frame.query("split == 'test'") for frame in seed_frames()]
    single = [s.auc(frame["label"], frame["probability"].to_numpy()) for frame in tests]
    found = s.over_seeds(tests, "auc")
    assert (found.value, found.seeds, found.n) == (pytest.approx(np.mean(single)), 3, 60)
    assert found.sd == pytest.approx(np.std(single, ddof=1))
    accuracy = [s.confusion(f["label"], f["probability"], 0.5).accuracy for f in tests]
    assert s.over_seeds(tests, "accuracy").value == pytest.approx(np.mean(accuracy))


def test_the_auc_of_a_column_leaves_out_breasts_without_a_value():
    test = seed_frames(seeds=1)[0].query("split == 'test'").reset_index(drop=True)
    whole, known = s.auc_of(test), test.iloc[5:]
    assert whole == s.auc_bootstrap_interval(test["label"], test["probability"].to_numpy(), test["patient_id"])
    assert whole != s.auc_of(known) == s.auc_of(test.assign(partly=known["probability"]), "partly")


def test_one_seed_is_the_bootstrap_over_patients():
    test = seed_frames(seeds=1)[0].query("split == 'test'")
    found = s.over_seeds([test], "auc")
    boot = s.auc_bootstrap_interval(test["label"], test["probability"].to_numpy(), test["patient_id"])
    assert found.interval == boot
    assert math.isnan(found.sd)


def test_seeds_that_differ_widen_the_interval():
    test = seed_frames()[0].query("split == 'test'")
    bad = test.assign(probability=1 - test["probability"])
    alike, apart = s.over_seeds([test, test], "auc"), s.over_seeds([test, bad], "auc")
    assert apart.high - apart.low > 1.5 * (alike.high - alike.low)


def test_difference_over_seeds_is_antisymmetric_and_zero_for_itself():
    good = [frame.query("split == 'test'") for frame in seed_frames(strength=2.0)]
    poor = [frame.query("split == 'test'") for frame in seed_frames(strength=0.5)]
    difference = s.difference_over_seeds(good, poor, "auc")
    assert difference.value == pytest.approx(s.over_seeds(good, "auc").value - s.over_seeds(poor, "auc").value)
    assert difference.low > 0
    assert s.difference_over_seeds(poor, good, "auc").value == -difference.value
    assert s.difference_over_seeds(good[:1], good[:1], "auc") == s.Interval(0.0, 0.0, 0.0, 60)
    again = s.difference_over_seeds(good, good, "auc")  # other seeds of the same network: no difference, some noise
    assert again.low < again.value == 0 < again.high


def test_an_ensemble_is_the_mean_logit_with_choices_of_its_own():
    frames = seed_frames()
    both = s.ensemble(frames)
    assert both["logit"].iloc[7] == pytest.approx(np.mean([frame["logit"].iloc[7] for frame in frames]))
    validation = both.query("split == 'validation'")
    assert set(both["threshold"]) == {s.youden_threshold(validation["label"], validation["probability"])}
    merged = s.auc(both["label"], both["probability"].to_numpy())
    assert merged > np.mean([s.auc(f["label"], f["probability"].to_numpy()) for f in frames])  # noise cancels


def test_seeds_on_other_breasts_are_refused():
    one, other, _ = seed_frames()
    with pytest.raises(InputError, match="not the same breasts in the same order"):
        s.ensemble([one, other.iloc[::-1]])


def test_compare_predictions_by_hand():
    # Of five malignant breasts at .5 the one is right about 1-4, the others about 1 and 5, and about 1-4.
    frame = pd.DataFrame({"sample_id": list("abcdef"), "label": [1, 1, 1, 1, 1, 0], "threshold": 0.5})
    one = frame.assign(probability=[0.9, 0.8, 0.7, 0.6, 0.4, 0.1])
    other = frame.assign(probability=[0.9, 0.1, 0.2, 0.3, 0.8, 0.1])
    table = s.compare_predictions(one, {"other": other, "itself": one}).set_index("name")
    assert table.loc["other", ["gained", "lost"]].tolist() == [3, 1]
    assert table.loc["other", "p_mcnemar"] == pytest.approx(2 * 5 / 16)  # at most 1 of 4: (1 + 4) / 2^4
    assert table.loc["other", "p_mcnemar_holm"] == 1.0  # twice, and at most 1
    assert table.loc["itself", ["auc", "gained", "lost", "p_mcnemar"]].tolist() == [0, 0, 0, 1]
    with pytest.raises(InputError, match="other: not the same breasts"):
        s.compare_predictions(one, {"other": other.iloc[::-1]})


@pytest.mark.parametrize(("gain", "share"), [(0.10, 0.20), (0.05, 0.15)])
def test_breasts_for_a_power_give_about_that_power(gain, share):
    n = s.mcnemar_breasts(gain, share, power=0.8)
    assert s.mcnemar_power(n, gain, share) == pytest.approx(0.8, abs=0.04)  # exact against approximate


FRAME = pd.DataFrame(
    {
        "sample_id": list("abcde"), "patient_id": list("abcde"), "split": "test", "label": [0, 0, 0, 1, 1],
        "logit": [-1.0, 0.5, -2.0, 1.0, 0.2], "probability": [0.3, 0.6, 0.1, 0.7, 0.55], "threshold": 0.5,
        "temperature": 1.0,
    }
)  # fmt: skip


def test_no_variance_is_no_certainty():
    """Separated classes: DeLong's variance is zero, and neither the interval nor p may follow it."""
    label = np.array([0] * 6 + [1] * 5)
    right, wrong = np.linspace(0, 1, 11), np.linspace(1, 0, 11)
    interval, p = s.delong_test(label, right, wrong)
    bound = 0.025 ** (1 / 5)  # the smallest AUC that five pairs in order do not refute
    assert (interval.value, interval.low, interval.high) == pytest.approx((1, 1 - 2 * (1 - bound), 1))
    assert p == pytest.approx(2 * 0.5**5)
    other = right + 0.3 * (label == 1) * np.array([0] * 6 + [3, 1, 2, 0, 4])  # separated as well, in another order
    interval, p = s.delong_test(label, right, other)
    assert (interval.value, p) == (0, 1)
    assert (interval.low, interval.high) == pytest.approx((bound - 1, 1 - bound))
    interval, p = s.delong_test(label, right, 2 * right)
    assert (interval.low, interval.high, p) == (0, 0, 1)


def test_no_variance_with_ties_is_no_certainty():
    # A score that separates 5 from 6 beside a constant one: every pair is won by 1/2, AUC 1 - 1/2.
    # A mean of 0 with d = 1/2 or more in a share q of pairs and at least -1 in the rest needs q/2 <= 1 - q, q <= 2/3:
    # p = 2 (2/3)^5 = .263. Five of five refute q < b = .025^(1/5) = .478: the mean is at least .478/2 - .522 = -.283.
    label, right = np.array([0] * 6 + [1] * 5), np.linspace(0, 1, 11)
    interval, p = s.delong_test(label, right, np.full(11, 0.3))
    assert (interval.value, interval.low, interval.high) == pytest.approx((0.5, -0.2828, 0.7609), abs=1e-4)
    assert p == pytest.approx(2 * (2 / 3) ** 5)
    mirrored, p = s.delong_test(label, np.full(11, 0.3), right)
    assert (mirrored.value, mirrored.low, mirrored.high) == pytest.approx((-0.5, -0.7609, 0.2828), abs=1e-4)
    assert p == pytest.approx(2 * (2 / 3) ** 5)


@pytest.mark.parametrize("pairs", range(2, 30))
def test_interval_and_p_value_agree_without_variance(pairs):
    label = np.repeat([0, 1], pairs)
    for other in (1.0 - label, np.full(2 * pairs, 0.5)):
        interval, p = s.delong_test(label, label * 1.0, other)
        assert interval.low <= interval.value <= interval.high
        assert (p < 0.05) == (interval.low > 0)


def test_rounding_is_no_variance():
    # Of 3 malignant and 3 benign breasts one score wins 9 pairs, the other ties them in thirds: all differences are 1/3
    # or 2/3 up to rounding, whose "variance" of 1e-34 would give p = 0.
    label = np.array([1, 1, 1, 0, 0, 0])
    draws = np.stack([np.array([1, 1, 1, 0, 0, 0]), np.array([1, 1, 1, 0, 0, 0]), np.array([0, 0, 0, 1, 1, 1])])
    interval, p = s.delong_test(label, label * 1.0, draws)
    assert interval.value == pytest.approx(1 / 3)
    assert p > 0.05
    assert interval.low < 0 < interval.high


GOOD = ([0, 0, 0, 1, 1], [0.3, 0.6, 0.1, 0.7, 0.55])
SCORED = {  # every public function of labels and scores
    "confusion": lambda label, score: s.confusion(label, score, 0.5),
    "auc": s.auc,
    "reliability": s.reliability,
    "auc_bootstrap_interval": lambda label, score: s.auc_bootstrap_interval(label, score, np.arange(len(label))),
    "delong_interval": s.delong_interval,
    "delong_test": lambda label, score: s.delong_test(label, score, score),
    "paired_differences": lambda label, score: s.paired_differences(label, score, {"other": score}),
    "mcnemar": lambda label, score: s.mcnemar(label, score, score),
    "decision_curve": lambda label, score: s.decision_curve(label, score, np.arange(len(label)), n_resamples=5),
    "youden_threshold": s.youden_threshold,
    "fit_temperature": s.fit_temperature,
    "evaluate_predictions": lambda label, score: s.evaluate_predictions(seeded(label, score)),
    "subgroups": lambda label, score: s.subgroups(seeded(label, score), {}),
    "over_seeds": lambda label, score: s.over_seeds([seeded(label, score)], "auc"),
    "difference_over_seeds": lambda label, score: s.difference_over_seeds(*[[seeded(label, score)]] * 2, "brier"),
    "ensemble": lambda label, score: s.ensemble([seeded(label, score, split="validation")]),
    "compare_predictions": lambda label, score: s.compare_predictions(
        seeded(label, score), {"o": seeded(label, score)}
    ),
}
ONE_CLASS_IS_DEFINED = {"confusion", "reliability", "mcnemar",
                        "decision_curve", "evaluate_predictions", "subgroups", "difference_over_seeds"}  # fmt: skip


def seeded(label, score, split="test"):
    who = pd.Series(np.arange(len(label)).astype(str))
    columns = {"patient_id": who, "label": label, "logit": score, "probability": score, "threshold": 0.5}
    return pd.DataFrame({"sample_id": who, "split": split, **columns, "temperature": 1.0})


@pytest.mark.parametrize("name", SCORED)
def test_what_cannot_be_scored_is_named(name):
    """No breast, a label that is none, a score that is no number, one class where two are needed."""
    score, (label, good) = SCORED[name], GOOD
    score(np.array(label), np.array(good))
    bad = {
        "per breast|no row": (np.array([], int), np.array([])),
        r"labels must be 0 or 1, got \[2\]": (np.array([0, 0, 2, 1, 1]), np.array(good)),
        "(?i)nan": (np.array(label), np.array([0.3, np.nan, 0.1, 0.7, 0.55])),
    }
    if name not in ONE_CLASS_IS_DEFINED:
        bad["all 5 breasts have label 0: both classes"] = (np.zeros(5, int), np.array(good))
    for message, arguments in bad.items():
        with pytest.raises(InputError, match=message):
            score(*arguments)


FRAMED = {"evaluate_predictions", "subgroups", "over_seeds", "difference_over_seeds", "ensemble", "compare_predictions"}


@pytest.mark.parametrize("name", sorted(set(SCORED) - FRAMED))
def test_lengths_that_differ_are_named(name):
    with pytest.raises(InputError, match=r"got shapes? \(5,\) and \(4,\)"):
        SCORED[name](np.array(GOOD[0]), np.array(GOOD[1][:4]))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: s.over_seeds([], "auc"), "no run is given"),
        (lambda: s.over_seeds([FRAME.iloc[:0]], "auc"), "no row to evaluate"),
        (lambda: s.over_seeds([FRAME], "auk"), "unknown metric 'auk': choose one of auc,"),
        (lambda: s.over_seeds([FRAME[FRAME["label"] == 0]], "sensitivity"), "all 3 breasts have label 0"),
        (lambda: s.difference_over_seeds([FRAME], [], "auc"), "no run"),
        (lambda: s.difference_over_seeds([FRAME], [FRAME], "auk"), "unknown metric 'auk'"),
        (lambda: s.ensemble([]), "no run is given"),
        (lambda: s.matching_confusions(2, 3, {"auk": 0.5}, 2), "unknown metric 'auk': choose one of accuracy,"),
        (lambda: s.matching_denominators([], 4, 30), "no published value"),
        (lambda: s.numerators(math.nan, 10, 2), r"value must lie in \[0, 1\], got nan"),
        (lambda: s.numerators(0.5, 0, 2), "n must be at least 1, got 0"),
        (lambda: s.mcnemar_power(10, 0.0, 0.0), r"gain must lie in \[0, discordant_share=0.0\]"),
        (lambda: s.mcnemar_breasts(0.0, 0.2), r"gain must lie in \(0, discordant_share=0.2\]"),
        (lambda: s.wilson_interval(6, 5), r"successes must lie in \[0, n=5\], got 6"),
        (lambda: s.wilson_interval(math.nan, 5), r"successes must lie in \[0, n=5\], got nan"),
        (lambda: s.hanley_mcneil_interval(1.0, 3, 2), r"AUC must lie in \(0, 1\), got 1.0"),
        (lambda: s.hanley_mcneil_interval(0.8, 0, 2), "at least one breast of each class, got 0 and 2"),
        (lambda: s.decision_curve(*GOOD, range(5), thresholds=np.array([0.5, 1])), r"thresholds must lie in \[0, 1\)"),
        (lambda: s.decision_curve(*GOOD, range(4)), "patients: one per breast, got 4 for 5 breasts"),
        (lambda: s.auc_bootstrap_interval(*GOOD, range(4)), "patients: one per breast, got 4 for 5 breasts"),
        (lambda: s.patient_weights([], 5, 0), "an identifier per breast, got 0"),
        (lambda: s.patient_weights(["a", None], 5, 0), "an identifier per breast, got 2, 1 missing"),
        (lambda: s.delong_test(*GOOD, [0.3, 0.6, np.nan, 0.7, 0.5]), "scores must be numbers, got 1 NaN"),
        (lambda: s.delong_test(*GOOD, GOOD[1][:4]), r"got shapes \(5,\) and \(4,\)"),
        (lambda: s.paired_differences(*GOOD, {}), "no score to compare with"),
        (lambda: s.compare_predictions(FRAME, {}), "no score to compare with"),
        (lambda: decide(FRAME.assign(threshold=math.nan)), "threshold is missing .NaN."),
        (lambda: s.scaled_probability(FRAME.assign(temperature=math.nan)), "temperature is missing .NaN."),
    ],
)
def test_what_cannot_be_asked_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_a_share_of_malignant_breasts_says_how_many_these_are():
    assert s.over_seeds([FRAME], "sensitivity").n == s.over_seeds([FRAME], "sensitivity_at_90").n == 2
    assert s.over_seeds([FRAME], "specificity").n == 3
    assert s.over_seeds([FRAME], "auc").n == 5
    other = [FRAME.assign(probability=FRAME["probability"].to_numpy()[::-1])]
    assert s.difference_over_seeds([FRAME], other, "sensitivity").n == 2
    assert s.difference_over_seeds([FRAME], other, "accuracy").n == 5
