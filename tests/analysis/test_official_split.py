"""Why the official test breasts score lower: each statistic on breasts with a known answer."""

import json

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from mammo_lib.analysis import official_split as split
from mammo_lib.analysis import reweighting as weighing
from mammo_lib.errors import InputError
from mammo_lib.statistics import mean_auc
from mammo_lib.training.readers import fit_logistic

N = 400


def breasts(n=N, seed=0, **columns):
    """Breasts of which one in four lies on the test side, each of a patient of its own; nothing differs by side."""
    rng = np.random.default_rng(seed)
    return pd.DataFrame({
        "sample_id": [f"b{i}" for i in range(n)], "patient_id": [f"p{i}" for i in range(n)],
        "split": np.where(np.arange(n) % 4 == 0, "test", "train"), "label": (np.arange(n) // 4) % 2,
        "assessment": rng.choice([0, 2, 3, 4, 5], n), "subtlety": rng.integers(1, 6, n),
        "density": rng.integers(1, 5, n), "box_share": rng.uniform(0.01, 0.1, n),
    }).assign(**columns)  # fmt: skip


def sides(cohort):
    return [cohort[cohort["split"] == side].reset_index(drop=True) for side in ("train", "test")]


# ---- standardised differences and their tests


def test_the_difference_of_a_share_is_that_of_its_formula():
    one, other = pd.Series(["a"] * 6 + ["b"] * 4), pd.Series(["a"] * 2 + ["b"] * 8)
    # |0.8 - 0.4| over the root of (0.4 0.6 + 0.8 0.2) / 2 = 0.2
    assert split.standardised_difference(one, other) == pytest.approx(0.4 / np.sqrt(0.2))


def test_the_difference_of_several_categories_does_not_depend_on_their_names():
    one, other = pd.Series(list("aaabbc")), pd.Series(list("abbbcc"))
    renamed = [side.map({"a": "z", "b": "a", "c": "m"}) for side in (one, other)]
    assert split.standardised_difference(one, other) == pytest.approx(split.standardised_difference(*renamed))


def test_what_differs_by_side_is_found_and_what_does_not_is_not():
    cohort = breasts()
    cohort["larger"] = np.random.default_rng(1).normal(size=N) + (cohort["split"] == "test")
    cohort["kind"] = np.where(cohort["split"] == "test", "round", np.where(np.arange(N) % 2, "round", "oval"))
    table = split.balance(cohort, {"larger": "larger", "kind": "kind", "subtlety": "subtlety"}, n=999)
    tested = table[table["p"].notna()].set_index(["name", "group"])
    assert (tested.loc[["larger", "kind"], "p_holm"] <= 0.01).all()
    assert (tested.loc["subtlety", "p_holm"] > 0.05).all()
    assert tested.loc[("larger", "all"), "difference"] == pytest.approx(1, abs=0.25)
    assert (table.query("name == 'kind' and level == 'oval' and group == 'all'")["test"] == 0).all()
    assert split.shares_in_words(table, "kind", "oval", "all") == "33% of the training and 0% of the test breasts"


def test_permutation_p_values_are_uniform_where_nothing_differs():
    found = [
        split.balance(breasts(60, seed), {"box_share": "share"}, seed=seed, n=99).query("group == 'all'")["p"].iloc[0]
        for seed in range(20)
    ]
    assert 0.3 < np.mean(found) < 0.7
    assert np.mean(np.array(found) <= 0.2) < 0.45


def test_patients_are_exchanged_whole():
    cohort = breasts(40, patient_id=[f"p{i // 8}" for i in range(40)], split=np.repeat(["train", "test"], [32, 8]))
    drawn = split._permuted_sides(cohort, 50, 0)
    assert (drawn.reshape(51, 5, 8).std(axis=2) == 0).all()
    assert (drawn.sum(axis=1) == 8).all()


def test_a_patient_on_both_sides_is_refused():
    with pytest.raises(InputError, match="both sides"):
        split.balance(breasts(patient_id="p"), {"subtlety": "subtlety"}, n=9)


# ---- weights


def test_equal_mixes_need_no_weights():
    train, _ = sides(breasts())
    one = np.ones(len(train))
    for form in weighing.FORMS:
        assert weighing.weigher(form, train, train)(one, one) == pytest.approx(one, abs=1e-3)


def test_strata_weights_are_ratios_of_shares():
    train = breasts(4, label=0, assessment=[3, 3, 3, 4])
    test = breasts(4, label=0, assessment=[3, 4, 4, 4])
    # share of 3: 3/4 against 1/4, weight 1/3; of 4: 1/4 against 3/4, weight 3
    weights = weighing.stratum_weights(train, test)(np.ones(4), np.ones(4))
    assert weights == pytest.approx([1 / 3, 1 / 3, 1 / 3, 3])


@pytest.mark.parametrize("by_label", [True, False])
def test_weighted_readings_have_the_other_sides_means(by_label):
    """A logistic propensity with weights of odds balances the means of its features."""
    cohort = breasts(4000)
    harder = cohort["split"].eq("test") & (np.random.default_rng(2).random(4000) < 0.5)
    cohort.loc[harder, "subtlety"] = 1
    train, test = sides(cohort)
    weights = weighing.odds_weights(train, test, by_label=by_label)(np.ones(len(train)), np.ones(len(test)))
    assert abs(train["subtlety"].mean() - test["subtlety"].mean()) > 0.5
    assert np.average(train["subtlety"], weights=weights) == pytest.approx(test["subtlety"].mean(), abs=0.1)


def test_an_unknown_form_is_refused():
    with pytest.raises(InputError, match="choose one of readings within label"):
        weighing.weigher("by eye", *sides(breasts()))


def test_effective_size():
    assert weighing.effective_size(np.ones(7)) == 7
    assert weighing.effective_size(np.array([3.0, 1.0])) == pytest.approx(16 / 10)


# ---- AUC on the other mix


def scored(cohort, strength):
    """Predictions that order breasts well where ``strength`` is large."""
    noise = np.random.default_rng(5).normal(size=len(cohort))
    return cohort.assign(logit=strength * cohort["label"] + noise)


def test_harder_cases_explain_the_difference_and_only_they():
    """Assessment 4 is hard to score and is common on the test side; within one assessment both sides are alike."""
    cohort = breasts(2000, seed=3)
    rng = np.random.default_rng(4)
    hard = rng.random(2000) < np.where(cohort["split"] == "test", 0.9, 0.2)
    cohort = scored(cohort.assign(assessment=np.where(hard, 4, 5)), np.where(hard, 0.3, 3.0))
    train, test = sides(cohort)
    for form in weighing.FORMS:
        draws = weighing.resample(train, test, form, n=40)
        found = weighing.on_the_other_mix([train], [test], draws) | weighing.both_sides(
            [train], [test], draws.train, draws.test
        )
        assert found["difference"] > 0.1 and found["p"] < 0.001
        assert found["explained_low"] > 0.1 and found["explained_back_low"] > 0.1
        assert found["left_low"] < 0 < found["left_high"] and found["left_back_low"] < 0 < found["left_back_high"]


def test_a_score_that_is_worse_within_every_assessment_is_not_explained_by_the_mix():
    cohort = scored(breasts(2000), np.where(np.arange(2000) % 4 == 0, 0.5, 2.5))
    train, test = sides(cohort)
    draws = weighing.resample(train, test, weighing.FORMS[0], n=40)
    found = weighing.on_the_other_mix([train], [test], draws)
    assert found["explained_low"] < 0 < found["explained_high"]
    assert found["left_low"] > 0.1


def test_what_the_words_say_is_one_more_reading():
    """Test breasts sound more suspicious; weighted by that, training breasts do, too."""
    cohort = breasts(2000)
    sound = np.random.default_rng(9).normal(size=2000) + 0.8 * (cohort["split"] == "test")
    train, test = sides(cohort.assign(suspicion=sound))
    one = np.ones(len(train)), np.ones(len(test))
    weights = weighing.odds_weights(train, test)(*one)
    assert np.average(train["suspicion"], weights=weights) == pytest.approx(test["suspicion"].mean(), abs=0.1)
    plain = weighing.odds_weights(train.drop(columns="suspicion"), test.drop(columns="suspicion"))(*one)
    assert np.average(train["suspicion"], weights=plain) < test["suspicion"].mean() - 0.5


def test_a_score_that_never_varies_has_no_difference():
    train, test = sides(breasts().assign(logit=0.0))
    draws = weighing.resample(train, test, weighing.FORMS[2], n=20)
    assert weighing.both_sides([train], [test], draws.train, draws.test)["p"] == 1.0


def test_bands_that_are_too_small_give_numbers_only():
    cohort = scored(breasts(assessment=np.where(np.arange(N) % 8 < 6, 4, 3)), 1.0)
    cohort.loc[:3, "assessment"] = 5
    train, test = sides(cohort)
    rows = {
        row["band"]: row
        for row in weighing.within_assessment([train], [test], weighing.resample(train, test, weighing.FORMS[2], n=50))
    }
    assert set(rows) == {"0 to 3", "4", "5"}
    assert "train" not in rows["5"] and rows["5"]["n_test"] == 1
    assert rows["4"]["n_train"] + rows["0 to 3"]["n_train"] + rows["5"]["n_train"] == len(train)
    assert rows["4"]["train_low"] < rows["4"]["train"] < rows["4"]["train_high"]


# ---- telling apart, and dividing anew


def test_sides_are_told_apart_by_what_differs_and_not_by_noise():
    cohort, rng = breasts(), np.random.default_rng(6)
    noise = pd.DataFrame(rng.normal(size=(N, 3)))
    mark = noise.assign(mark=(cohort["split"] == "test") + 0.3 * rng.normal(size=N))
    aucs = [
        mean_auc([split.among_equals(split.tell_apart(x, cohort, fit_logistic, 0))], np.ones((1, N)))[0]
        for x in (noise, mark)
    ]
    assert 0.35 < aucs[0] < 0.65 and aucs[1] > 0.95


def test_a_label_is_no_mark_of_a_side_among_equals():
    """Test breasts are mostly malignant: the label tells the sides apart, until labels are equal."""
    rng = np.random.default_rng(7)
    cohort = breasts(label=np.where(rng.random(N) < np.where(np.arange(N) % 4 == 0, 0.9, 0.1), 1, 0))
    frame = split.tell_apart(cohort[["label"]].astype(float), cohort, fit_logistic, 0)
    assert mean_auc([frame], np.ones((1, N)))[0] > 0.8
    assert mean_auc([split.among_equals(frame)], np.ones((1, N)))[0] == pytest.approx(0.5)


def test_divisions_keep_patients_together_and_are_the_same_again():
    cohort = breasts(patient_id=[f"p{i // 2}" for i in range(N)], split=np.where(np.arange(N) < 80, "test", "train"))
    first, again, other = (split.divide(cohort, number) for number in (3, 3, 4))
    assert first.tolist() == again.tolist() != other.tolist()
    assert cohort.loc[first, "patient_id"].nunique() == 40
    assert not set(cohort.loc[first, "patient_id"]) & set(cohort.loc[~first, "patient_id"])


def test_a_division_is_scored_by_what_was_fitted_on_the_other_side():
    cohort = breasts()
    x = pd.DataFrame({"x": cohort["label"] + 0.5 * np.random.default_rng(8).normal(size=N)})
    is_test = split.divide(cohort, 0)
    fitted = split.score_division(x, cohort, is_test, fit_logistic)
    plain = split.score_division(x, cohort, is_test, None)
    assert fitted["test"] == pytest.approx(plain["test"]) and fitted["test"] > 0.8
    assert fitted["out_of_fold"] == pytest.approx(plain["out_of_fold"], abs=0.05)


def test_the_place_of_a_value():
    drawn = np.linspace(0, 1, 1001)
    assert split.place(0.5, drawn)["is_usual"] and not split.place(0.99, drawn)["is_usual"]
    assert split.place(0.1, drawn)["share_below"] == pytest.approx(0.1, abs=0.001)


# ---- films and the record


def test_films_are_measured_in_pixels_of_the_original(tmp_path):
    image = np.zeros((100, 100), np.uint8)
    image[10:90, :60] = 100
    image[40:60, 20:40] = 200  # the lesion, twice as bright
    Image.fromarray(image).save(tmp_path / "film.png")
    located = pd.DataFrame({
        "sample_id": "b", "view": "CC", "stream": ["whole", "crop"], "path": str(tmp_path / "film.png"), "aspect": 2.0,
        "x0": [np.nan, 20], "y0": [np.nan, 40], "x1": [np.nan, 40], "y1": [np.nan, 60],
    })  # fmt: skip
    row = split.measure_films(located, {"film": (4000, 2000)}).loc["b"]
    assert (row["box_height"], row["box_width"]) == pytest.approx((800, 400))  # 20 of 100 px of 4000 and of 2000
    assert row["box_share"] == pytest.approx(0.04) and row["aspect"] == 2
    assert row["crop_mean"] == pytest.approx(200 / 255) and row["crop_sd"] == pytest.approx(0, abs=1e-6)
    assert row["crop_ahead"] > 0.3
    assert set(row.index) == set(split.FILM_MEASURES)


def test_the_record_is_read_and_its_absence_is_said(tmp_path):
    (tmp_path / split.RECORD).write_text(json.dumps({"case_mix": []}))
    assert split.read_record(tmp_path) == {"case_mix": []}
    with pytest.raises(InputError):
        split.read_record(tmp_path / "nowhere")


def made_record(**changes):
    """A record in which the difference is chance, with the entries of one part changed."""
    network = {"train": 0.85, "test": 0.79, "difference": 0.06, "difference_low": -0.02, "difference_high": 0.14}
    network |= {"p_holm": 0.45}
    parts = {
        "scores": network | {"n_train": 506, "n_test": 149},
        "mixes": {"explained": 0.01, "explained_low": -0.01, "explained_high": 0.03},
        "pixels": {"auc": 0.55, "auc_low": 0.49, "auc_high": 0.6},
        "official": {"test": 0.5, "out_of_fold": 0.5},
    }  # fmt: skip
    parts = {name: part | changes.get(name, {}) for name, part in parts.items()}
    same = {"among": "breasts of one label"}
    pixels = {"name": "features, both streams"} | same | parts["pixels"]
    band = {"band": "4", "train": 0.8, "test": 0.6}
    band |= {f"{side}_{end}": 0.5 for side in ("train", "test") for end in ("low", "high")}
    random = {"test": np.linspace(0.4, 0.6, 101).tolist(), "out_of_fold": [0.5] * 101, "official": parts["official"]}
    return {
        "scores": [parts["scores"]], "mixes": [parts["mixes"]], "divisions": {"readers": random},
        "bands": [band | {"p": 0.004}],
        "told_apart": [pixels, {"name": "readings", "auc": 0.52} | same],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, {"chance": True, "cases": False, "films": False}),
        ({"scores": {"difference_low": 0.01}}, {"chance": False, "cases": False, "films": False}),
        ({"official": {"test": 0.3}}, {"chance": False, "cases": False, "films": False}),
        ({"mixes": {"explained_low": 0.001}}, {"chance": True, "cases": True, "films": False}),
        ({"pixels": {"auc": 0.7, "auc_low": 0.6}}, {"chance": True, "cases": False, "films": True}),
        ({"pixels": {"auc": 0.51, "auc_low": 0.505}}, {"chance": True, "cases": False, "films": False}),
    ],
)
def test_the_answer_follows_the_rules_that_were_fixed(changes, expected):
    record = made_record(**changes)
    assert split.findings(record) == expected
    words = split.short_answer(record)
    assert ("chance is not excluded" in words and "unusual" not in words) == expected["chance"]
    assert ("readings explains" in words) == expected["cases"]
    assert ("films look different" in words) == expected["films"]
    assert words.count(". ") == 2 and words.endswith(".")
    opening = split.opening(made_record(**changes))
    assert opening.count(". ") == 2 and opening.endswith(".")
    assert ("chance is not excluded" in opening) == expected["chance"]
    assert ("mix of cases explains" in opening) == expected["cases"]
    assert ("look of the films explains" in opening) == expected["films"]


def test_the_difference_of_the_official_division_is_placed_too():
    table = split.places(made_record()["divisions"]).set_index("what")
    assert table.loc["test AUC", "share_below"] == pytest.approx(0.5)
    assert table.loc["difference", "value"] == 0
    assert table.loc["difference", ["low", "high"]].tolist() == pytest.approx([-0.095, 0.095])
