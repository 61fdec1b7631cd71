"""Batches: folds by patient, seeded augmentation, and the same numbers in a batch as one by one."""

import dataclasses

import pandas as pd
import pytest
import torch
from torch.utils.data import default_collate

from mammo_lib.data import loader
from mammo_lib.errors import InputError
from mammo_lib.training import train


@pytest.fixture(scope="module")
def config(tiny_profile):
    return tiny_profile.run


@pytest.fixture(scope="module")
def data(config, collection):
    return train.data_of(config, collection.prepare("train", *config.inputs))


def test_form_of_a_batch(data, config):
    batch = next(iter(data.train_dataloader()))
    size = config.data.image_size
    assert set(batch["images"]) == set(batch["present"]) == {"crop", "whole"}
    for stream in batch["images"]:
        assert batch["images"][stream].shape == (4, 2, 1, *size)
        assert batch["present"][stream].all()
    assert batch["label"].dtype == batch["row"].dtype == torch.int64


def test_train_and_validation_are_all_breasts_and_share_no_patient(data, collection, config):
    train, validation = data.cohort("train"), data.cohort("validation")
    both = pd.concat([train, validation])
    assert sorted(both["breast_id"]) == sorted(collection.cohort(config.data, "train")["breast_id"])
    assert not set(train["patient_id"]) & set(validation["patient_id"])
    assert not set(both["patient_id"]) & set(collection.cohort(config.data, "test")["patient_id"])


def test_rows_lead_back_to_the_cohort(data):
    for batch in data.val_dataloader():
        cohort = data.cohort("validation").iloc[batch["row"].numpy()]
        assert cohort["label"].tolist() == batch["label"].tolist()


def test_a_batch_is_its_items(data):
    batch = next(iter(data.val_dataloader()))
    dataset = data.val_dataloader().dataset
    again = default_collate([dataset[i] for i in range(len(batch["row"]))])
    assert all(torch.equal(batch["images"][s], again["images"][s]) for s in batch["images"])


def test_augmentation_is_seeded_and_leaves_the_global_generator_alone(data, config):
    cohort = data.cohort("train")
    one, same, other = (loader.BreastDataset(data.prepared, cohort, augment=1.0, seed=seed)[0] for seed in (1, 1, 2))
    assert torch.equal(one["images"]["crop"], same["images"]["crop"])
    assert not torch.equal(one["images"]["crop"], other["images"]["crop"])
    state = torch.random.get_rng_state()
    _ = loader.BreastDataset(data.prepared, cohort, augment=1.0, seed=3)[0]
    assert torch.equal(state, torch.random.get_rng_state())


def test_augmentation_can_be_switched_off_and_never_touches_validation(data, config):
    cohort = data.cohort("train")
    a, b = (loader.BreastDataset(data.prepared, cohort, augment=0.0, seed=seed)[0] for seed in (1, 2))
    assert torch.equal(a["images"]["whole"], b["images"]["whole"])
    first, second = (next(iter(data.val_dataloader()))["images"]["whole"] for _ in range(2))
    assert torch.equal(first, second)


def test_a_missing_view_is_zeros_and_marked(data, config):
    index = data.prepared.index
    breast = data.cohort("train")["sample_id"].iloc[0]
    dropped = index[~((index["sample_id"] == breast) & (index["view"] == "MLO"))]
    prepared = dataclasses.replace(data.prepared, index=dropped)
    item = loader.BreastDataset(prepared, data.cohort("train"))[0]
    for stream in ("crop", "whole"):
        assert item["present"][stream].tolist() == [True, False]
        assert item["images"][stream][1].abs().max() == 0
        assert item["images"][stream][0].abs().max() > 0


def test_fewer_breasts_than_a_batch(data, config):
    large = config.model_copy(update={"train": config.train.model_copy(update={"batch_size": 999})})
    with pytest.raises(InputError, match=r"train\.batch_size=999 exceeds the \d+ training breasts: lower it"):
        train.data_of(large, data.prepared)


def test_targets_are_classes_and_unknown_where_the_tables_say_nothing(data):
    cohort = data.cohort("train").assign(
        lesion_type=["mass", None, *["calcification"] * (len(data.cohort("train")) - 2)]
    )
    assert loader.target_classes(cohort, "lesion_type")[:3] == [0, loader.UNKNOWN, 1]
    assert loader.target_classes(cohort, "malignancy") == cohort["label"].tolist()
    item = loader.BreastDataset(data.prepared, cohort, ("malignancy", "lesion_type"))[1]
    assert {name: int(value) for name, value in item["targets"].items()} == {
        "malignancy": int(cohort["label"].iloc[1]), "lesion_type": loader.UNKNOWN,
    }  # fmt: skip
    with pytest.raises(InputError, match=r"target 'lesion_type': the cohort has no column 'lesion_type'"):
        loader.target_classes(cohort.drop(columns="lesion_type"), "lesion_type")


def test_a_numbered_target_counts_from_its_lowest_value():
    """Subtlety 1 to 5 are the classes 0 to 4; 0 means that the readers gave none."""
    cohort = pd.DataFrame({"subtlety": pd.array([1, 5, 3, 0, None], dtype="Int64")})
    assert loader.target_classes(cohort, "subtlety") == [0, 4, 2, loader.UNKNOWN, loader.UNKNOWN]
    assert loader.target_classes(pd.DataFrame({"label": [0, 1]}), "malignancy") == [0, 1]
