"""Lesions to breasts: every definition's size, and no patient on two sides."""

import json
import os
from pathlib import Path

import pandas as pd
import pytest

from mammo_lib.config import TARGETS, DataConfig
from mammo_lib.data import cohort as c
from mammo_lib.data.cbis_ddsm.tables import read_tables
from mammo_lib.data.loader import UNKNOWN, target_classes
from mammo_lib.data.sample import sample_folder
from mammo_lib.errors import InputError

MANIFEST = json.loads((Path(__file__).parents[2] / "data_manifest" / "cbis_ddsm.json").read_text())
REAL = os.environ.get("MAMMO_DATA")
needs_real_data = pytest.mark.skipif(not REAL, reason="MAMMO_DATA is not set: needs the real CBIS-DDSM tables")


@pytest.fixture(scope="module")
def real_table():
    return read_tables(REAL)


@pytest.fixture(scope="module")
def table(phantom_root):
    return read_tables(phantom_root)


def rows(**columns):
    """Lesion rows of the form that read_tables returns, with defaults for what a test does not care about."""
    frame = pd.DataFrame(columns)
    defaults = {
        "patient_id": "P_00001", "laterality": "LEFT", "view": "CC", "abnormality_id": 1, "lesion_type": "mass",
        "density": 2, "assessment": 4, "pathology": "BENIGN", "subtlety": 3, "split": "test", "image_path": "i",
        "crop_path": "c", "mask_path": "m",
    }  # fmt: skip
    return frame.assign(**{k: v for k, v in defaults.items() if k not in frame}).convert_dtypes()


@needs_real_data
@pytest.mark.parametrize("definition", MANIFEST["cohorts"])
@pytest.mark.parametrize("split", ["train", "test"])
def test_real_cohorts_have_the_manifests_sizes(real_table, definition, split):
    expected, cohort = MANIFEST["cohorts"][definition][split], c.build_cohort(real_table, definition, split)
    found = {"rows": len(cohort), "malignant": int(cohort["label"].sum()), "patients": cohort["patient_id"].nunique()}
    assert {name: found[name] for name in expected} == expected


@needs_real_data
def test_real_paper_cohort_drops_two_breasts_by_rule(real_table):
    official, paper = (c.build_cohort(real_table, name, "test") for name in ("official", "paper"))
    assert set(official["breast_id"]) - set(paper["breast_id"]) == {"P_00969_LEFT", "P_01623_RIGHT"}


@needs_real_data
def test_pooling_leaks_31_patients_and_our_rule_none(real_table):
    assert len(c.patients_on_both_sides(real_table)) == 31
    train, test = (c.build_cohort(real_table, "mass+calc", split) for split in ("train", "test"))
    assert not set(train["patient_id"]) & set(test["patient_id"])


@needs_real_data
def test_what_the_pooled_splits_share(real_table):
    shared = c.pooled_leak(real_table)
    assert shared == {"patients": 31, "breasts": 19, "films": 29, "test rows": 60, "of test rows": 704}


@needs_real_data
def test_the_second_reading_of_the_paper_has_the_same_size(real_table):
    a, b = (c.build_cohort(real_table, name, "test") for name in ("paper", "lesion-id"))
    assert (len(a), len(b), len(set(a["breast_id"]) & set(b["breast_id"]))) == (149, 149, 147)
    assert (a["label"].sum(), b["label"].sum()) == (59, 60)


@needs_real_data
def test_no_real_patient_straddles(real_table):
    check_nobody_straddles(real_table)


def test_no_phantom_patient_straddles(table):
    check_nobody_straddles(table)


def check_nobody_straddles(table):
    cohorts = c.build_cohorts(table)
    assert {name: set(cohort["split"]) for name, cohort in cohorts.items()} == {"train": {"train"}, "test": {"test"}}
    train, test = cohorts.values()
    folds = c.assign_folds(train, 4, seed=0)
    assert not set(train["patient_id"]) & set(test["patient_id"])
    assert train.groupby(folds)["patient_id"].unique().explode().is_unique
    share = train.groupby(folds)["label"].mean()
    assert (share - train["label"].mean()).abs().max() < 0.25
    assert folds.equals(c.assign_folds(train, 4, seed=0))
    assert not folds.equals(c.assign_folds(train, 4, seed=1))


def test_label_is_any_malignant_lesion():
    table = rows(
        view=["CC", "MLO", "CC", "MLO"], abnormality_id=[1, 1, 2, 2], pathology=["BENIGN"] * 2 + ["MALIGNANT"] * 2
    )
    assert c.build_cohort(table, "official", "test")["label"].tolist() == [1]
    with pytest.raises(InputError, match="no breast fits"):
        c.build_cohort(table, "paper", "test")  # the only breast has two labels


def test_without_callback_is_benign_and_no_conflict():
    table = rows(view=["CC", "MLO"], pathology=["BENIGN", "BENIGN_WITHOUT_CALLBACK"])
    assert c.build_cohort(table, "paper", "test")["label"].tolist() == [0]


def test_definitions_differ_where_they_should():
    one_view = rows(view=["CC"])
    assert len(c.build_cohort(one_view, "any-view", "test")) == 1
    with pytest.raises(InputError, match="no breast fits"):
        c.build_cohort(one_view, "official", "test")
    # Two lesions, each in one view only: both views of the breast exist, no lesion has both.
    crossed = rows(view=["CC", "MLO"], abnormality_id=[1, 2])
    assert len(c.build_cohort(crossed, "official", "test")) == 1
    with pytest.raises(InputError, match="no breast fits"):
        c.build_cohort(crossed, "lesion", "test")


def test_a_missing_view_has_no_image_and_no_crop():
    breast = c.build_cohort(rows(view=["CC"]), "any-view", "test").iloc[0]
    assert (breast["whole_CC"], breast["crops_CC"]) == ("i", ("c",))
    assert pd.isna(breast["whole_MLO"])
    assert breast["crops_MLO"] == ()


def test_funnel_ends_at_the_cohort(table):
    funnel = c.cohort_funnel(table, "train")
    assert funnel["breasts"].is_monotonic_decreasing
    cohort = c.build_cohort(table, "paper", "train")
    assert funnel[["breasts", "malignant"]].iloc[-1].tolist() == [len(cohort), cohort["label"].sum()]


def test_more_folds_than_patients():
    with pytest.raises(InputError, match="n_folds=5 exceeds the 1 patients"):
        c.assign_folds(rows(view=["CC"]).assign(label=0), 5, 0)


@pytest.mark.parametrize("n_folds", [1, 0, -1])
def test_fewer_than_two_folds(n_folds):
    with pytest.raises(InputError, match=f"n_folds={n_folds}: one fold is held out, .*; give 2 or more"):
        c.assign_folds(breasts([0, 1, 0, 1]), n_folds, 0)


def breasts(labels, patients=None):
    """A cohort of one breast per label, each of a patient of its own where ``patients`` does not say whose it is."""
    return pd.DataFrame({"patient_id": patients or [f"P_{i}" for i in range(len(labels))], "label": labels})


def test_more_folds_than_a_class_has_patients():
    """Five breasts of one label and four of the other: no eight folds, and no four of three patients."""
    cohort = breasts([0, 1, 0, 0, 0, 1, 0, 1, 1])
    with pytest.raises(InputError, match="n_folds=8 exceeds the 4 patients with label 1: lower"):
        c.assign_folds(cohort, 8, 0)
    shared = breasts([0, 1, 0, 0, 0, 1, 0, 1, 1], ["a", "b", "c", "d", "e", "f", "g", "h", "h"])
    with pytest.raises(InputError, match="n_folds=4 exceeds the 3 patients with label 1"):
        c.assign_folds(shared, 4, 0)
    assert cohort.groupby(c.assign_folds(cohort, 4, 0))["label"].nunique().tolist() == [2] * 4


def test_a_fold_with_one_label_is_told_before_training():
    one_label = breasts([0] * 9).assign(is_extra=False, split="train")
    with pytest.raises(InputError, match=r"data.fold=1 of data.n_folds=3: the 6 train breasts have only one label"):
        c.split_cohort(DataConfig(n_folds=3, fold=1), one_label)
    several = breasts([0, 0, 0, 1, 1, 1]).assign(is_extra=[False, False, False, True, True, True], split="train")
    with pytest.raises(InputError, match=r"the 1 validation breasts have only one label"):
        c.split_cohort(DataConfig(n_folds=3), several)


def test_a_share_of_the_patients_keeps_the_mix_and_holds_smaller_shares():
    n = 40
    patients = [f"P_{i:05d}" for i in range(n)]
    label = [int(i % 4 == 0) for i in range(n)]
    cohort = pd.DataFrame({"patient_id": patients * 2, "label": label + [0] * n})
    shares = {share: c.thinned(cohort, share, seed=1) for share in (0.25, 0.5, 1.0)}
    assert [one["patient_id"].nunique() for one in shares.values()] == [11, 20, 40]  # ceil(10 / 4) + ceil(30 / 4)
    assert [one.groupby("patient_id")["label"].max().sum() for one in shares.values()] == [3, 5, 10]
    quarter, half = ({*shares[share]["patient_id"]} for share in (0.25, 0.5))
    assert quarter < half and all(len(one) == 2 * one["patient_id"].nunique() for one in shares.values())
    assert {*c.thinned(cohort, 0.25, seed=2)["patient_id"]} != quarter


def test_a_share_thins_training_alone(table):
    cohort = c.build_cohort(table, "paper", "train").assign(is_extra=False)
    whole, half = (c.split_cohort(DataConfig(n_folds=2, training_share=share), cohort) for share in (1, 0.5))
    assert [*half["validation"]["sample_id"]] == [*whole["validation"]["sample_id"]]
    assert {*half["train"]["sample_id"]} < {*whole["train"]["sample_id"]}


@needs_real_data
def test_the_committed_folds_are_made_again_to_the_byte(real_table, tmp_path):
    from mammo_lib.data.cbis_ddsm.folds import write_folds

    committed = Path(__file__).parents[2] / "data_manifest" / "folds"
    record = write_folds(real_table, "paper", 5, 0, tmp_path)
    for path in tmp_path.iterdir():
        assert path.read_bytes() == (committed / path.name).read_bytes()
    assert record["rows"] == sum(record["breasts_per_fold"]) == 506


def test_a_breast_has_a_word_only_if_the_readers_agree():
    """Two lesions with the same word have it; different words, a word outside the classes and none do not."""
    in_cc = ["OVAL", "OVAL", "OVAL-LYMPH_NODE", None, "LYMPH_NODE", "IRREGULAR-ARCHITECTURAL_DISTORTION"]
    in_mlo = ["OVAL", "ROUND", "OVAL", None, "LYMPH_NODE", "IRREGULAR-ARCHITECTURAL_DISTORTION"]
    patients = [f"P_{number}" for number in range(1, 7)]
    table = rows(patient_id=patients * 2, view=["CC"] * 6 + ["MLO"] * 6, mass_shape=in_cc + in_mlo)
    found = c.build_cohort(table, "paper", "test").set_index("patient_id")["shape"]
    assert found[["P_1", "P_3"]].tolist() == ["OVAL", "OVAL"]
    assert found[["P_2", "P_4", "P_5", "P_6"]].isna().all()


def test_a_calcification_has_its_own_words_and_a_mass_has_none_of_them():
    """As for masses: the one word of the target's classes, and nothing without one; two spellings are one word."""
    types = ["PLEOMORPHIC", "LUCENT_CENTERED", "AMORPHOUS-PLEOMORPHIC", "SKIN", None]
    spread = ["CLUSTERED", "LINEAR", "CLUSTERED-LINEAR", None, None]
    kinds, shapes = ["calcification"] * 4 + ["mass"], [None] * 4 + ["OVAL"]
    patients = [f"P_{number}" for number in range(1, 6)]
    table = rows(patient_id=patients * 2, view=["CC"] * 5 + ["MLO"] * 5, lesion_type=kinds * 2, mass_shape=shapes * 2,
                 calc_type=types * 2, calc_distribution=spread * 2)  # fmt: skip
    found = c.build_cohort(table, "mass+calc", "test").set_index("patient_id")
    assert found["calc_type"].fillna("-").tolist() == ["PLEOMORPHIC", "LUCENT_CENTER", "-", "-", "-"]
    assert found["calc_distribution"].fillna("-").tolist() == ["CLUSTERED", "LINEAR", "-", "-", "-"]
    assert found["shape"].fillna("-").tolist() == ["-"] * 4 + ["OVAL"]
    masses = c.build_cohort(table, "paper", "test")
    assert target_classes(masses, "calc_type") == target_classes(masses, "calc_distribution") == [UNKNOWN]
    assert target_classes(masses, "shape") == [TARGETS["shape"].classes.index("OVAL")]


@pytest.mark.parametrize("name", ["calc_type", "calc_distribution"])
def test_the_official_tables_use_every_word_of_a_calcification(name):
    """The sample has the tables whole: most breasts have one word, and each word has eight of them or more."""
    cohort = c.build_cohort(read_tables(sample_folder()), "calc", "train")
    counts = cohort[name].value_counts()
    assert set(counts.index) == set(TARGETS[name].classes)
    assert counts.min() >= 8 and counts.sum() > 0.75 * len(cohort)


@needs_real_data
def test_real_words_are_known_for_most_breasts(real_table):
    cohort = c.build_cohort(real_table, "paper", "train")
    assert cohort["shape"].notna().sum() > 350 and cohort["margins"].notna().sum() > 350
    assert set(cohort["margins"].dropna()) == set(TARGETS["margins"].classes)
