"""A network prepared for inference keeps its outputs up to rounding, and leaves the original as it was."""

import copy

import pytest
import torch
from torch import nn

from mammo_lib.config import RunConfig
from mammo_lib.data.sample import sample_folder
from mammo_lib.inference.inputs import find_breasts
from mammo_lib.inference.predict import as_batch, prepare_breast, with_weights
from mammo_lib.inference.release import released_run
from mammo_lib.models import build_model, create_mambavision, fold_batch_norm, for_inference, load_best, score


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


@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 1e-4), (torch.bfloat16, 0.03)], ids=["32", "16"])
@pytest.mark.parametrize(
    "backbone, gate, mixer",
    [
        ("nano", "learned", "selective"),
        ("nano", "random", "gated_conv"),
        ("lite", "learned", "selective"),
        ("resnet50", "none", "selective"),
    ],
)
@torch.inference_mode()
def test_mammo_mamba_keeps_its_logits(backbone, gate, mixer, dtype, tolerance):
    torch.manual_seed(0)
    model = {"backbone": backbone, "streams": ["crop"], "gate": {"kind": gate}, "mixer": mixer}
    network = with_statistics(build_model(RunConfig.model_validate({"data": {"image_size": 64}, "model": model})))
    present = torch.tensor([[True, True], [True, False], [False, True]])
    batch = {"images": {"crop": torch.rand(3, 2, 1, 64, 64)}, "present": {"crop": present}}
    expected, fast = network(batch).logits, for_inference(network, dtype)
    found = fast(batch).logits
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)
    assert norms(fast) < norms(network) / 2


@torch.inference_mode()
def test_the_released_network_scores_the_sample_nearly_alike_in_16_bits(tmp_path):
    """Autocast, which also rounds pixels and logits, changes a log-odds by 0.11; rounding all weights by 0.18."""
    run = with_weights(released_run())
    network = load_best(run).cpu()
    breasts = [prepare_breast(one, run.config) for one in find_breasts([sample_folder() / "mass-800"], [], tmp_path)]
    batch = as_batch(breasts, run.config)
    expected, low = network.score(batch)[0], for_inference(network.model, torch.bfloat16)
    found, _ = score(low, batch, flip_averaging=run.config.train.flip_averaging)
    assert len(expected) == 8 and 0 < (found - expected).abs().max() < 0.06


def test_weights_in_16_bits_are_those_between_the_first_and_the_last_layer():
    """Conversely the original stays trainable, in 32 bits, and shares no memory with the copy."""
    network = create_mambavision("nano")
    with torch.inference_mode():  # where a careless copy could never be differentiated by its input
        low = for_inference(network, torch.bfloat16)
    wide = {name for name, p in low.named_parameters() if p.dtype == torch.float32}
    assert wide == {f"{name}.{part}" for name in ("patch_embed.conv_down.0", "head") for part in ("weight", "bias")}
    assert not low.training and not any(p.requires_grad for p in low.parameters())
    assert all(p.dtype == torch.float32 and p.requires_grad for p in network.parameters())
    assert not {p.data_ptr() for p in network.parameters()} & {p.data_ptr() for p in low.parameters()}
    convolution = low.patch_embed.conv_down[3].weight
    assert convolution.is_contiguous(memory_format=torch.channels_last) and not convolution.is_contiguous()
    images = torch.rand(1, 3, 64, 64, requires_grad=True)
    low(images).sum().backward()
    assert images.grad.abs().sum() > 0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_a_network_of_another_type_is_widened_before_it_is_folded(dtype):
    torch.manual_seed(0)
    network, images = with_statistics(create_mambavision("nano", num_classes=3)).to(dtype), torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        expected = copy.deepcopy(network).float()(images)
        torch.testing.assert_close(for_inference(network)(images), expected, rtol=1e-5, atol=1e-5)


def test_a_copy_in_16_bits_can_be_copied_and_saved(tmp_path):
    low, images = for_inference(create_mambavision("nano"), torch.bfloat16), torch.rand(1, 3, 64, 64)
    torch.save(low, tmp_path / "low.pt")
    for other in (copy.deepcopy(low), torch.load(tmp_path / "low.pt", weights_only=False)):
        assert torch.equal(other(images), low(images))


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64, torch.int8, "bfloat16"])
def test_other_types_are_refused(dtype):
    with pytest.raises(ValueError, match=f"must be torch.float32 or torch.bfloat16, got {dtype!r}"):
        for_inference(create_mambavision("nano"), dtype)


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
