"""Breasts to look at."""

from mammo_lib.data.cohort import build_cohort
from mammo_lib.data.examples import examples
from mammo_lib.data.views import read_view


def test_examples_are_the_first_of_each_label_with_film_and_crop(collection):
    cohort = build_cohort(collection.table, "paper", "train")
    located = collection.source.locate(cohort)
    shown = examples(cohort, located)
    expected = cohort.groupby("label").head(2)
    assert [(one.breast_id, one.label) for one in shown] == [
        *zip(expected["breast_id"], expected["label"], strict=True)
    ]
    rows = located.set_index(["sample_id", "view", "stream"])
    film = read_view(rows.loc[(expected["sample_id"].iloc[0], "MLO", "whole")])
    assert (shown[0].film == film).all() and shown[0].crop.shape != film.shape


def test_a_breast_without_its_crop_is_no_example(collection):
    cohort = build_cohort(collection.table, "paper", "train")
    located = collection.source.locate(cohort)
    first = cohort["sample_id"].iloc[0]
    lost = (located["sample_id"] == first) & (located["stream"] == "crop") & (located["view"] == "MLO")
    located = located.assign(status=located["status"].mask(lost, "missing"))
    assert cohort["breast_id"].iloc[0] not in [one.breast_id for one in examples(cohort, located)]
