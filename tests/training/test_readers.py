"""The readers' descriptions: the words of a breast come from the tables of its own split."""

import numpy as np
import pandas as pd
import pytest
from pandas.testing import assert_frame_equal

from mammo_lib.config import DataConfig
from mammo_lib.errors import InputError
from mammo_lib.training.readers import fit_logistic, metadata, reader_probability


def test_words_of_test_tables_do_not_reach_training_breasts(collection):
    """Whatever the test tables say, a training breast is described by the training tables alone."""
    cohort, table = collection.cohort(DataConfig(), "train"), collection.table
    breast = cohort.iloc[0]
    said = table[table["lesion_type"] == "calcification"].head(1)
    said = said.assign(patient_id=breast["patient_id"], laterality=breast["laterality"], calc_type="ELSEWHERE-PUNCTATE")
    test, train = (pd.concat([table, said.assign(split=split)]) for split in ("test", "train"))
    assert_frame_equal(metadata(test, cohort), metadata(table, cohort))
    assert_frame_equal(metadata(test, cohort.assign(split="validation")), metadata(table, cohort))
    only_first = [1.0] + [0.0] * (len(cohort) - 1)
    assert metadata(train, cohort)["calc_type_ELSEWHERE"].tolist() == only_first
    assert metadata(test, cohort, "all_tables")["calc_type_ELSEWHERE"].tolist() == only_first  # as protocol 1 had it


def test_a_table_without_words_leaves_the_readings(collection):
    table = collection.table.drop(columns=["mass_shape", "mass_margins", "calc_type", "calc_distribution"])
    cohort = collection.cohort(DataConfig(), "test")
    assert list(metadata(table, cohort)) == ["assessment", "subtlety", "density"]


def test_readers_judge_a_small_cohort_over_as_many_folds_as_it_has_patients(collection):
    cohort = collection.cohort(DataConfig(), "train")
    kept = pd.concat([part.drop_duplicates("patient_id").head(4) for _, part in cohort.groupby("label")])
    probability = reader_probability(collection.table, kept, 0)
    assert np.isfinite(probability).all()
    with pytest.raises(InputError, match=r"label \d has 1 of the training patients"):
        fit_logistic(metadata(collection.table, cohort)[:3], cohort[:3].assign(label=[0, 0, 1]), 0)
