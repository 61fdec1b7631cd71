"""The readers' assessment."""

import pandas as pd

from mammo_lib.analysis.assessment import never_called_back
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


def test_none_of_them_is_malignant_in_the_official_tables():
    table = read_tables(sample_folder())
    cohort = build_cohort(table, "paper", "train")
    left_out = cohort["sample_id"].isin(never_called_back(table))
    assert left_out.any() and cohort.loc[left_out, "label"].sum() == 0
