"""No dead settings: changing any training field changes the trained network or its scores."""

import numpy as np
import pytest
import torch

from mammo_lib.config import TrainConfig
from mammo_lib.models import create_mambavision
from mammo_lib.models.network import load_best, predict
from mammo_lib.runs.records import Run
from mammo_lib.training import train

# field -> another value, and what both sides need for it to matter
CHANGES = {
    "epochs": (2, {}),
    "batch_size": (3, {}),
    "learning_rate": (2e-3, {}),
    "weight_decay": (0.5, {}),
    "warmup_epochs": (0.0, {}),
    "label_smoothing": (0.0, {}),
    "reader_labels": (0.5, {}),
    "encoder_rate": (0.1, {"weights": True}),
    "dropout": (0.5, {}),
    "flip_averaging": (True, {}),
    # One image or two: the AUC by which epochs are compared is another.
    "best_epoch": ("single_image", {"flip_averaging": True, "epochs": 4}),
    "drop_path": (0.5, {}),
    "gradient_clip": (0.01, {}),
    "ema_decay": (0.5, {}),
    "augment": (2.0, {}),
    # At a rate of 1e-9 no epoch is better than the first: patience 1 ends at the second of three.
    "patience": (1, {"learning_rate": 1e-9, "epochs": 3}),
    "precision": ("bf16-mixed", {}),
    # At a rate of 1e-9 no epoch is better than the first.
    "keep": ("last", {"learning_rate": 1e-9, "epochs": 2}),
}
# devices: test_train.py, two processes train one run; frozen_cache and cached_encoder: test_frozen.py, which needs
# frozen stages; inputs are hidden and further targets weighed in test_train.py, where there are two views, two streams
# and two heads.
ELSEWHERE = {
    "devices",
    "frozen_cache",
    "cached_encoder",
    "view_dropout",
    "stream_dropout",
    "target_weight",
    "target_weighting",
}


@pytest.fixture
def base(tiny_profile):
    """One stream, one view, one epoch."""
    one = tiny_profile.configs()[0]
    model = one.model.model_copy(update={"streams": ("crop",), "views": ("CC",)})
    return one.model_copy(update={"model": model, "train": one.train.model_copy(update={"epochs": 1})})


def trained(config, collection, folder):
    """Return what a run leaves behind, without the seconds: its history and its validation logits."""
    folder.mkdir()
    data = train.data_of(config, collection.prepare("train", *config.inputs))
    torch.manual_seed(config.seed)
    readers = np.linspace(0.1, 0.9, len(data.cohort("train"))) if config.train.reader_labels else None
    classifier = train.Classifier(config, readers)
    run = Run(folder)
    (folder / "config.json").write_text(config.model_dump_json())
    train.fit(run, classifier, data, progress=False)
    logits = predict(load_best(run), data.val_dataloader(), data.cohort("validation"))["logit"]
    return run.history.drop(columns="seconds"), logits


@pytest.fixture
def plain(base, collection, tmp_path):
    """The base run for a set of needs, trained once for each."""
    made = {}

    def get(config):
        if config not in made:
            made[config] = trained(config, collection, tmp_path / f"plain{len(made)}")
        return made[config]

    return get


def test_every_field_is_looked_at():
    assert CHANGES.keys() | ELSEWHERE == TrainConfig.model_fields.keys()


@pytest.mark.slow
def test_every_field_of_the_training_changes_something(base, collection, plain, tmp_path):
    torch.manual_seed(1)
    torch.save(create_mambavision("nano").state_dict(), tmp_path / "nano.pth")
    unchanged = []
    for field, (value, needs) in CHANGES.items():
        start = base.model_copy(
            update={
                "train": base.train.model_copy(update={key: v for key, v in needs.items() if key != "weights"}),
                "model": base.model.model_copy(
                    update={"weights": str(tmp_path / "nano.pth"), "freeze": "none"} if "weights" in needs else {}
                ),
            }
        )
        other = start.model_copy(update={"train": start.train.model_copy(update={field: value})})
        history, logits = plain(start)
        changed_history, changed_logits = trained(other, collection, tmp_path / field)
        if history.equals(changed_history) and logits.equals(changed_logits):
            unchanged.append(field)
    assert unchanged == []
