"""Monitoring of a run: a loss that is not finite stops it and names the cause, and failures are reported once."""

from types import SimpleNamespace

import pytest
import torch

from mammo_lib.errors import InputError
from mammo_lib.training import train
from mammo_lib.training.callbacks import StopAtNaN, WarnOfFailures


def batch(pixel=0.0):
    images = {"crop": torch.full((2, 2, 1, 4, 4), pixel), "whole": torch.zeros(2, 2, 1, 4, 4)}
    return {"images": images, "row": torch.tensor([2, 0])}


def config(**settings):
    defaults = {"precision": "32-true", "gradient_clip": None, "learning_rate": 0.5}
    return SimpleNamespace(train=SimpleNamespace(**(defaults | settings)))


TRAINER = SimpleNamespace(current_epoch=3, global_step=77)


@pytest.mark.parametrize(
    ("settings", "pixel", "cause"),
    [
        ({}, 0.0, r"lower train.learning_rate \(0.5\), or set train.gradient_clip to 1"),
        ({"gradient_clip": 1.0}, 0.0, r"lower train.learning_rate \(0.5\)$"),
        ({"precision": "16-mixed"}, 0.0, "set train.precision to 'bf16-mixed'"),
        ({}, float("nan"), "pixels of the crop stream are not finite"),
    ],
)
def test_a_loss_that_is_no_number_says_where_and_why(settings, pixel, cause):
    stop = StopAtNaN(["a", "b", "c"], config(**settings))
    stop.on_train_batch_end(TRAINER, None, {"loss": torch.tensor(0.7)}, batch(), 0)
    with pytest.raises(InputError, match=rf"the loss is nan at epoch 3, step 77 \(breasts c, a\); .*{cause}"):
        stop.on_train_batch_end(TRAINER, None, {"loss": torch.tensor(torch.nan)}, batch(pixel), 0)


@pytest.mark.usefixtures("run_homes")
def test_a_run_with_an_absurd_learning_rate_stops(tiny_profile, collection):
    base = tiny_profile.configs()[0]
    wild = base.model_copy(update={"train": base.train.model_copy(update={"learning_rate": 1e30, "warmup_epochs": 0})})
    with pytest.raises(InputError, match=r"the loss is (nan|inf) at epoch 0, step \d+ \(breasts P_"):
        train.train_run(wild, collection)


def seen(label, probability, weight):
    return SimpleNamespace(
        seen=[tuple(torch.tensor(values, dtype=torch.float) for values in (label, probability, weight))]
    )


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_a_healthy_validation_is_silent():
    watch = WarnOfFailures()
    watch.on_validation_epoch_end(TRAINER, seen([0, 1, 0, 1], [0.2, 0.7, 0.6, 0.4], [0.5, 0.6, 0.4, 0.5]))
    watch.on_validation_epoch_end(SimpleNamespace(current_epoch=0), seen([0, 1], [0.9, 0.9], [1, 1]))  # too early


def test_overcalling_is_told_once_with_the_numbers():
    watch, bad = WarnOfFailures(), seen([0, 0, 1, 1], [0.8, 0.9, 0.9, 0.8], [0.5] * 4)
    with pytest.warns(RuntimeWarning, match=r"epoch 3, validation: sensitivity 1.00 with specificity 0.00"):
        watch.on_validation_epoch_end(TRAINER, bad)
    resumed = WarnOfFailures()
    resumed.load_state_dict(watch.state_dict())
    resumed.on_validation_epoch_end(TRAINER, bad)  # warnings are errors here: silent


def ended(loss, epoch=14, targets=("malignancy",)):
    """Return a trainer whose last epoch had this training loss, and its module."""
    model = SimpleNamespace(targets=targets)
    metrics = {} if loss is None else {"train_loss": torch.tensor(loss)}
    trainer = SimpleNamespace(current_epoch=epoch, callback_metrics=metrics)
    return trainer, SimpleNamespace(config=SimpleNamespace(model=model))


def test_a_network_that_learned_nothing_is_told():
    with pytest.warns(
        RuntimeWarning,
        match=r"after 14 epochs of training: the training loss ends at 0.692; a constant answer of one half",
    ):
        WarnOfFailures().on_train_end(*ended(0.692))


@pytest.mark.filterwarnings("error::RuntimeWarning")
@pytest.mark.parametrize("what", [(0.66,), (None,), (0.692, 7), (1.4, 14, ("malignancy", "shape"))])
def test_what_learned_or_cannot_be_judged_is_silent(what):
    """A loss well below that of a constant answer, none, one of the first epochs, a sum over targets."""
    WarnOfFailures().on_train_end(*ended(*what))


@pytest.mark.parametrize(("weight", "ignored"), [(0.99, "whole"), (0.01, "crop")])
def test_an_ignored_stream_is_told(weight, ignored):
    with pytest.warns(RuntimeWarning, match=rf"mean weight of {weight:.2f}: the {ignored} stream is ignored"):
        WarnOfFailures().on_validation_epoch_end(TRAINER, seen([0, 1, 0, 1], [0.2, 0.7, 0.6, 0.4], [weight] * 4))
