"""The readers' assessment."""

import pandas as pd
import pytest

from mammo_lib.analysis.assessment import never_called_back, rank_incomplete
from mammo_lib.data.cbis_ddsm.tables import read_tables
from mammo_lib.data.cohort import build_cohort
from mammo_lib.data.sample import sample_folder


def test_one_lesion_that_was_called_back_is_enough():
    rows = [
        ("P_1", "LEFT", "mass", "BENIGN_WITHOUT_CALLBACK"),
        ("P_1", "LEFT", "calcification", "MALIGNANT"),  # not a mass
        ("P_2", "LEFT", "mass", "BENIGN_WITHOUT_CALLBACK"),
        ("P_2", "LEFT", "mass", "BENIGN"),
        ("P_2", "RIGHT", "mass", "BENIGN_WITHOUT_CALLBACK"),
        ("P_3", "LEFT", "mass", "MALIGNANT"),
    ]
    table = pd.DataFrame(rows, columns=["patient_id", "laterality", "lesion_type", "pathology"])
    assert never_called_back(table) == {"P_1_LEFT", "P_2_RIGHT"}


def test_an_incomplete_assessment_changes_the_auc_by_its_place():
    # Pairs of a malignant and a benign breast, 2 x 3: with 0 lowest, both malignant ones are above the benign 0 and
    # the benign 2, and one ties with the benign 4: (3 + 2.5) / 6. Above 3, the 0 is still below 4 and 5.
    categories, labels = [4, 5, 0, 2, 4], [1, 1, 0, 0, 0]
    frame = pd.DataFrame({"assessment": categories, "label": labels, "patient_id": list("abcde")})
    found = rank_incomplete(frame).set_index("BI-RADS 0")
    assert found["auc"].tolist() == pytest.approx([5.5 / 6, 5.5 / 6, 3.5 / 4])
    assert found["n"].tolist() == [5, 5, 4]
    swapped = rank_incomplete(frame.assign(assessment=[0, 5, 3, 2, 4]))["auc"]  # a malignant 0: 0 or 2 pairs of 3 won
    assert swapped.tolist() == pytest.approx([3 / 6, 5 / 6, 3 / 3])


def test_none_of_them_is_malignant_in_the_official_tables():
    table = read_tables(sample_folder())
    cohort = build_cohort(table, "paper", "train")
    left_out = cohort["sample_id"].isin(never_called_back(table))
    assert left_out.any() and cohort.loc[left_out, "label"].sum() == 0
