"""Batches: folds of patients, seeded augmentation, and the same numbers one by one."""

import pandas as pd
import pytest
import torch
from torch.utils.data import default_collate

from mammo_lib.data import loader
from mammo_lib.errors import InputError


@pytest.fixture(scope="module")
def config(tiny_profile):
    return tiny_profile.run


@pytest.fixture(scope="module")
def data(config, collection):
    return loader.MammogramData(config, collection.prepare(config, "train"))


def test_form_of_a_batch(data, config):
    batch = next(iter(data.train_dataloader()))
    size = config.data.image_size
    assert set(batch["images"]) == set(batch["present"]) == {"crop", "whole"}
    for stream in batch["images"]:
        assert batch["images"][stream].shape == (4, 2, 1, size, size)
        assert batch["present"][stream].all()
    assert batch["label"].dtype == batch["row"].dtype == torch.int64


def test_train_and_validation_are_all_breasts_and_share_no_patient(data, collection, config):
    train, validation = data.cohort("train"), data.cohort("validation")
    both = pd.concat([train, validation])
    assert sorted(both["breast_id"]) == sorted(collection.cohort(config, "train")["breast_id"])
    assert not set(train["patient_id"]) & set(validation["patient_id"])
    assert not set(both["patient_id"]) & set(collection.cohort(config, "test")["patient_id"])


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
    one, same, other = (loader.BreastDataset(config, data.prepared, cohort, augment_seed=seed)[0] for seed in (1, 1, 2))
    assert torch.equal(one["images"]["crop"], same["images"]["crop"])
    assert not torch.equal(one["images"]["crop"], other["images"]["crop"])
    state = torch.random.get_rng_state()
    _ = loader.BreastDataset(config, data.prepared, cohort, augment_seed=3)[0]
    assert torch.equal(state, torch.random.get_rng_state())


def test_augmentation_can_be_switched_off_and_never_touches_validation(data, config):
    plain = config.model_copy(update={"train": config.train.model_copy(update={"augment": False})})
    cohort = data.cohort("train")
    a, b = (loader.BreastDataset(plain, data.prepared, cohort, augment_seed=seed)[0] for seed in (1, 2))
    assert torch.equal(a["images"]["whole"], b["images"]["whole"])
    first, second = (next(iter(data.val_dataloader()))["images"]["whole"] for _ in range(2))
    assert torch.equal(first, second)


def test_a_missing_view_is_zeros_and_marked(data, config):
    index = data.prepared.index
    breast = data.cohort("train")["sample_id"].iloc[0]
    dropped = index[~((index["sample_id"] == breast) & (index["view"] == "MLO"))]
    prepared = type(data.prepared)(data.prepared.folder, data.prepared.cohort, dropped, data.prepared.problems)
    item = loader.BreastDataset(config, prepared, data.cohort("train"))[0]
    for stream in ("crop", "whole"):
        assert item["present"][stream].tolist() == [True, False]
        assert item["images"][stream][1].abs().max() == 0
        assert item["images"][stream][0].abs().max() > 0


def test_fewer_breasts_than_a_batch(data, config):
    large = config.model_copy(update={"train": config.train.model_copy(update={"batch_size": 999})})
    with pytest.raises(InputError, match=r"train\.batch_size=999 exceeds the \d+ training breasts: lower it"):
        loader.MammogramData(large, data.prepared)
