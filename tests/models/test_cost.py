"""Costs: they agree with arithmetic by hand, and with the memory that a real forward pass keeps."""

import pytest
import timm
import torch
from torch import nn

from mammo_lib.models import create_mambavision
from mammo_lib.models.cost import SCAN, _kept_bytes, cost_of, scan_operations
from mammo_lib.models.mambavision import VARIANTS


def test_a_layer_by_hand():
    """A 3x3 convolution of 2 to 4 channels on 8x8: 8*8*4*2*9 products; a linear layer of 256 to 10 after it."""
    cost = cost_of(
        lambda: nn.Sequential(nn.Conv2d(2, 4, 3, padding=1, bias=False), nn.Flatten(), nn.Linear(256, 10, bias=False)),
        lambda network: network(torch.zeros(3, 2, 8, 8)),
    )
    assert cost.operations == {"convolution": 2 * 3 * 8 * 8 * 4 * 2 * 9, "matrix product": 2 * 3 * 256 * 10}
    assert cost.parameters == 4 * 2 * 9 + 256 * 10 and cost.total == sum(cost.operations.values())


def test_the_scan_of_a_network_is_that_of_its_mixers():
    """T at 224 px: 4 mixers of stage 3 over 14x14 tokens, 2 of stage 4 over 7x7, half of d_inner = dim, 8 states."""
    cost = cost_of(lambda: create_mambavision("T"), lambda network: network(torch.zeros(1, 3, 224, 224)))
    variant = VARIANTS["T"]
    mixers = [(variant.depths[2] // 2, 14 * 14, 4 * variant.dim), (variant.depths[3] // 2, 7 * 7, 8 * variant.dim)]
    assert cost.operations[SCAN] == sum(n * scan_operations((1, dim // 2, tokens), 8) for n, tokens, dim in mixers)


def test_published_counts_are_met():
    """ResNet-50: 4.09 G multiply-adds and 25.6 M parameters (torchvision's page says 4.09)."""
    cost = cost_of(lambda: timm.create_model("resnet50"), lambda network: network(torch.zeros(1, 3, 224, 224)))
    assert cost.total / 2e9 == pytest.approx(4.09, abs=0.01)
    assert cost.parameters == 25_557_032


def test_attention_is_counted_on_a_cpu():
    """Two products of 196+1 tokens, 12 blocks of 6 heads of 64: 12 * 2 * 2 * 197^2 * 384."""
    cost = cost_of(
        lambda: timm.create_model("vit_small_patch16_224"), lambda network: network(torch.zeros(1, 3, 224, 224))
    )
    assert cost.operations["attention"] == 12 * 2 * 2 * 197**2 * 384


def test_the_memory_is_what_a_real_pass_keeps():
    def run(network):
        return network(torch.zeros(2, 3, 64, 64))

    counted = cost_of(lambda: create_mambavision("nano"), run).kept_bytes
    assert counted == _kept_bytes(create_mambavision("nano").train(), run) > 1e5


def test_four_times_the_pixels_are_four_times_the_work_inside_windows():
    small, large = (
        cost_of(lambda: create_mambavision("nano"), lambda network, s=side: network(torch.zeros(1, 3, s, s)))
        for side in (224, 448)
    )
    for part in ("convolution", SCAN, "attention"):
        assert large.operations[part] / small.operations[part] == pytest.approx(4, rel=0.02), part
