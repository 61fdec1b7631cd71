"""Batch normalisation folded into convolutions changes no output beyond rounding, and leaves the network as it was."""

import pytest
import torch
from torch import nn

from mammo_lib.config import RunConfig
from mammo_lib.models import build_model, create_mambavision, fold_batch_norm


def with_statistics(model: nn.Module) -> nn.Module:
    """Give every batch normalisation statistics, scales and shifts that matter."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
            with torch.no_grad():
                module.weight.uniform_(0.5, 2)
                module.bias.normal_(0, 0.1)
    return model.eval()


def norms(model: nn.Module) -> int:
    return sum(isinstance(module, nn.BatchNorm2d) for module in model.modules())


@torch.inference_mode()
def test_mambavision_keeps_its_logits_and_one_normalisation():
    torch.manual_seed(0)
    network, images = with_statistics(create_mambavision("nano", num_classes=3)), torch.rand(2, 3, 64, 96)
    expected, before = network(images), {name: value.clone() for name, value in network.state_dict().items()}
    folded = fold_batch_norm(network)
    torch.testing.assert_close(folded(images), expected, rtol=1e-5, atol=1e-5)
    assert norms(folded) == 1  # the last one follows a transformer block
    assert norms(network) > 1 and all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    torch.testing.assert_close(network(images), expected, rtol=0, atol=0)


@pytest.mark.parametrize("backbone, gate", [("nano", "learned"), ("lite", "learned"), ("resnet50", "none")])
@torch.inference_mode()
def test_mammo_mamba_keeps_its_logits(backbone, gate):
    torch.manual_seed(0)
    model = {"backbone": backbone, "streams": ["crop"], "gate": {"kind": gate}}
    network = with_statistics(build_model(RunConfig.model_validate({"data": {"image_size": 64}, "model": model})))
    present = torch.ones(2, 2, dtype=torch.bool)
    batch = {"images": {"crop": torch.rand(2, 2, 1, 64, 64)}, "present": {"crop": present}}
    expected, folded = network(batch).logits, fold_batch_norm(network)
    torch.testing.assert_close(folded(batch).logits, expected, rtol=1e-4, atol=1e-4)
    assert norms(folded) < norms(network) / 2


@pytest.mark.parametrize(
    "children",
    [
        [nn.Conv2d(1, 2, 1), nn.PixelShuffle(1), nn.BatchNorm2d(2)],
        [nn.Conv2d(1, 2, 1), nn.BatchNorm2d(3)],
        [nn.Linear(1, 2), nn.BatchNorm2d(2)],
    ],
    ids=["something between", "other channels", "no convolution"],
)
def test_a_normalisation_that_follows_no_convolution_stays(children):
    assert norms(fold_batch_norm(nn.Sequential(*children))) == 1


@torch.inference_mode()
def test_a_normalisation_that_also_activates_stays():
    from timm.layers import BatchNormAct2d

    network = with_statistics(nn.Sequential(nn.Conv2d(3, 4, 1), BatchNormAct2d(4)))
    images = torch.randn(2, 3, 8, 8)
    assert torch.equal(fold_batch_norm(network)(images), network(images))
