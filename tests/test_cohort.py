"""Tables to breasts: every repair named, every definition's size, no patient on two sides, and what is refused."""

import json
import os
import shutil
from pathlib import Path

import pandas as pd
import pytest

from mammo_lib.data import cohort as c
from mammo_lib.errors import InputError

MANIFEST = json.loads((Path(__file__).parents[1] / "data_manifest" / "cbis_ddsm.json").read_text())
REAL = os.environ.get("MAMMO_DATA")
needs_real_data = pytest.mark.skipif(not REAL, reason="MAMMO_DATA is not set: needs the real CBIS-DDSM tables")


@pytest.fixture(scope="module")
def real_table():
    return c.read_tables(REAL)


@pytest.fixture(scope="module")
def table(phantom_root):
    return c.read_tables(phantom_root)


@pytest.fixture
def copy(phantom_root, tmp_path):
    """A copy of the phantom's tables that a test may damage."""
    for path in phantom_root.glob(c.TABLE_PATTERN):
        shutil.copy(path, tmp_path)
    return tmp_path


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
def test_real_tables_have_the_manifests_rows(real_table):
    for name, expected in MANIFEST["tables"].items():
        part = real_table[real_table["table"] == Path(name).stem]
        assert (len(part), part["patient_id"].nunique()) == (expected["rows"], expected["patients"])
        assert part["pathology"].value_counts().sort_index().to_dict() == expected["pathology"]


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
def test_no_real_patient_straddles(real_table):
    check_nobody_straddles(real_table)


def test_no_phantom_patient_straddles(table):
    check_nobody_straddles(table)


def check_nobody_straddles(table):
    train, test = (c.build_cohort(table, "paper", split) for split in ("train", "test"))
    folds = c.assign_folds(train, 4, seed=0)
    assert not set(train["patient_id"]) & set(test["patient_id"])
    assert train.groupby(folds)["patient_id"].unique().explode().is_unique
    share = train.groupby(folds)["label"].mean()
    assert (share - train["label"].mean()).abs().max() < 0.25
    assert folds.equals(c.assign_folds(train, 4, seed=0))
    assert not folds.equals(c.assign_folds(train, 4, seed=1))


def test_repairs_are_named_and_counted(table, phantom_root):
    planted = json.loads((phantom_root / "phantom.json").read_text())["planted"]
    repairs = table["repairs"].str.split(",").explode().value_counts()
    assert repairs[["newline in crop_path", "newline in mask_path"]].sum() == planted["rows with a newline in a path"]
    assert repairs["density 0 is unknown"] == planted["rows with density 0"] == table["density"].isna().sum()
    assert not table[["image_path", "crop_path", "mask_path"]].melt()["value"].str.contains("\n").any()


def test_other_line_ends_and_na_spelling_are_the_same_table(table, copy):
    for path in copy.glob(c.TABLE_PATTERN):
        text = path.read_text().replace("breast density", "breast_density")
        path.write_bytes(text.replace("\n", "\r\n").encode())
    assert c.table_fingerprint(c.read_tables(copy)) == c.table_fingerprint(table)
    changed = table.assign(pathology="BENIGN")
    assert c.table_fingerprint(changed) != c.table_fingerprint(table)


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


def damage_column(folder):
    path = folder / "mass_case_description_test_set.csv"
    path.write_text(path.read_text().replace("pathology", "diagnosis", 1))


def damage_value(folder):
    path = folder / "mass_case_description_test_set.csv"
    path.write_text(path.read_text().replace(",LEFT,", ",LINKS,", 1))


def damage_number(folder):
    path = folder / "calc_case_description_test_set.csv"
    path.write_text(path.read_text().replace(",CC,1,", ",CC,one,", 1))


def damage_share(folder):
    path = folder / "mass_case_description_test_set.csv"
    path.write_text(path.read_text().replace(",CC,1,", ",CC,1.5,", 1))


def empty_patient(folder):
    path = folder / "mass_case_description_test_set.csv"
    header, first, *rest = path.read_text().split("\n")
    path.write_text("\n".join([header, "," + first.split(",", 1)[1], *rest]))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: [p.unlink() for p in f.iterdir()], r"no \*_case_description_\*_set\.csv here"),
        (
            lambda f: (f / "mass_case_description_test_set.csv").unlink(),
            r"mass_case_description_test_set\.csv: missing, while",
        ),
        (lambda f: [p.unlink() for p in f.glob("mass_*")], r"mass_case_description_train_set\.csv: missing"),
        (damage_column, r"mass_case_description_test_set\.csv: column 'pathology' is missing"),
        (damage_value, r"mass_case_.*row \d+: laterality must be one of LEFT, RIGHT, got 'LINKS'"),
        (damage_number, r"calc_case_.*row \d+: abnormality_id must be a whole number, got 'one'"),
        (damage_share, r"mass_case_.*row \d+: abnormality_id must be a whole number, got '1\.5'"),
        (empty_patient, r"mass_case_.*row 2: 'patient_id' is empty"),
        (lambda f: (f / "mass_case_description_test_set.csv").write_text(""), r"mass_case_.*not a readable CSV"),
    ],
)
def test_damaged_tables_are_one_clear_line(copy, damage, message):
    damage(copy)
    with pytest.raises(InputError, match=message) as caught:
        c.read_tables(copy)
    assert "\n" not in str(caught.value)


def test_more_folds_than_patients():
    with pytest.raises(InputError, match="n_folds=5 exceeds the 1 patients"):
        c.assign_folds(rows(view=["CC"]).assign(label=0), 5, 0)
