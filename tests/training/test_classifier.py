"""The network as Lightning trains it: its optimiser's groups."""

from types import SimpleNamespace

import pytest

from mammo_lib.config import RunConfig
from mammo_lib.training.classifier import Classifier


def groups_of(**changes):
    """Return {learning rate: weight decays} of a small classifier's optimiser."""
    config = RunConfig.model_validate({
        "data": {"image_size": 32},
        "model": {"backbone": "nano", "targets": ["malignancy", "shape"]},
        "train": {"learning_rate": 3e-5, "target_weighting": "uncertainty"} | changes,
    })  # fmt: skip
    classifier = Classifier(config)
    classifier.trainer = None
    classifier._trainer = SimpleNamespace(estimated_stepping_batches=10)
    (optimizer, _) = classifier.configure_optimizers().values()
    rates = {}
    for group in optimizer.param_groups:
        rates.setdefault(group["initial_lr"], set()).add(group["weight_decay"])
    return rates, [one for group in optimizer.param_groups for one in group["params"]], classifier


@pytest.mark.parametrize("rate", [3e-5, 1e-2])
def test_every_parameter_learns_at_the_configured_rate(rate):
    """Those of the loss, which is learned too, included."""
    rates, parameters, classifier = groups_of(learning_rate=rate, weight_decay=0.05)
    assert rates == {rate: {0.0, 0.05}}
    learned = [one for one in classifier.parameters() if one.requires_grad]
    assert {id(one) for one in parameters} == {id(one) for one in learned} and len(parameters) == len(learned)
