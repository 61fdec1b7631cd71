"""Maps: the position of each cell, and its value."""

import numpy as np
import pytest
import torch
from matplotlib.text import Text

from mammo_lib import figures
from mammo_lib.analysis import maps
from mammo_lib.config import RunConfig, merged
from mammo_lib.models import log_odds
from mammo_lib.models.mambavision import Attention
from mammo_lib.models.network import Network


def network_of(tiny_profile, size=64, **model):
    torch.manual_seed(0)
    config = RunConfig.model_validate(
        merged(tiny_profile.run.model_dump(), {"model": model, "data": {"image_size": (size, size)}})
    )
    network = Network(config).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return network


def batch_of(n=3, size=64):
    """Random images; the first breast lacks its whole MLO view."""
    generator = torch.Generator().manual_seed(1)
    images = {stream: torch.rand(n, 2, 1, size, size, generator=generator) for stream in ("crop", "whole")}
    present = {stream: torch.ones(n, 2, dtype=torch.bool) for stream in images}
    present["whole"][0, 1] = False
    return {"images": images, "present": present}


def test_a_cell_is_drawn_as_the_square_that_it_covers():
    one = maps.SpatialMap("gate", "whole", "CC", "stage3_block0", np.array([[[1.0, 2.0], [3.0, 4.0]]]), 2)
    assert one.on_image(0, (3, 3)).tolist() == [[1, 1, 2], [1, 1, 2], [3, 3, 4]]


def test_attention_received_weighs_the_values():
    # With one head, V = I and no projection, the mean output over queries is sum_k received_k x_k.
    torch.manual_seed(0)
    attention = Attention(8, 1).double()
    with torch.no_grad():
        attention.qkv.weight[16:] = torch.eye(8)
        attention.proj.weight.copy_(torch.eye(8))
        attention.qkv.bias.zero_()
        attention.proj.bias.zero_()
        attention.qkv.weight[:16] *= 50
    x = torch.randn(3, 5, 8, dtype=torch.float64)
    received = maps.attention_received(attention, x)
    torch.testing.assert_close(torch.einsum("wk,wkd->wd", received, x), attention(x).mean(dim=1))
    assert received.std() > 0.01  # not uniform, so that the law above says something


@pytest.mark.parametrize(
    ("scope", "stride"), [("token", {"stage3": 16, "stage4": 32}), ("window", {"stage3": 64, "stage4": 64})]
)
def test_gates_lie_where_the_network_says(tiny_profile, scope, stride):
    network, batch = network_of(tiny_profile, gate={"scope": scope}), batch_of()
    found = [one for one in maps.forward_maps(network, batch) if one.kind == "gate"]
    gates = network(batch).gates
    assert {one.block for one in found} == set(gates["crop"])
    for one in found:
        expected = gates[one.stream][one.block][:, ("CC", "MLO").index(one.view)]
        np.testing.assert_allclose(one.values, expected.detach().numpy(), rtol=1e-5)
        assert one.stride == stride[one.block[:6]]
        assert one.on_image(1, (64, 64)).shape == (64, 64)
        assert np.isnan(one.values[0]).all() == ((one.stream, one.view) == ("whole", "MLO"))


def test_one_gate_per_image_has_no_place(tiny_profile):
    assert {one.kind for one in maps.forward_maps(network_of(tiny_profile), batch_of())} == {"attention"}


def test_the_gate_of_the_convolution_is_recomputed_from_its_input(tiny_profile):
    network = network_of(tiny_profile, mixer="gated_conv")
    for module in network.modules():
        if isinstance(module, maps.GatedConvMixer):
            torch.nn.init.zeros_(module.gate.weight)
            torch.nn.init.constant_(module.gate.bias, 1.0)
    found = [one for one in maps.forward_maps(network, batch_of()) if one.kind == "mixer_gate"]
    assert len(found) == 2 * 2 * 3  # streams, views, blocks with a mixer: two in stage 3, one in stage 4
    for one in found:
        np.testing.assert_allclose(one.values[1:], 1 / (1 + np.exp(-1)), rtol=1e-5)


def test_token_maps_keep_rows_and_columns_apart(tiny_profile):
    # 80 px: stage 3 has 5 x 5 tokens in windows of 5. A gate that opens with the first channel of its input shows
    # that channel, row by row.
    network = network_of(tiny_profile, size=80, mixer="gated_conv")
    encoder = network.model.encoders["whole"]
    mixer = encoder.network.backbone.levels[2].blocks[0].mixer
    with torch.no_grad():
        mixer.gate.weight.zero_()
        mixer.gate.weight[:, 0] = 1
        mixer.gate.bias.zero_()
    batch = batch_of(size=80)
    found = next(
        one for one in maps.forward_maps(network, batch)
        if (one.kind, one.stream, one.view, one.block) == ("mixer_gate", "whole", "CC", "stage3_block0")
    )  # fmt: skip
    stem = encoder.network.backbone
    with torch.no_grad():
        x = (batch["images"]["whole"][2, :1] - encoder.mean) / encoder.std
        x = stem.patch_embed(x)
        for level in stem.levels[:2]:
            x = level.downsample(level.mix(x))
        channel = stem.levels[2].blocks[0].norm1(x.permute(0, 2, 3, 1))[0, :, :, 0]
    np.testing.assert_allclose(found.values[2], channel.sigmoid().numpy(), rtol=1e-4)


def test_nothing_stays_on_the_modules(tiny_profile):
    network = network_of(tiny_profile, gate={"scope": "token"})
    before = {name: set(vars(module)) for name, module in network.named_modules()}
    maps.forward_maps(network, batch_of())
    maps.saliency_maps(network, batch_of(), steps=2)
    assert {name: set(vars(module)) for name, module in network.named_modules()} == before
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in network.modules())


def test_integrated_gradients_add_up_to_the_change_of_the_log_odds(tiny_profile):
    network, batch = network_of(tiny_profile), batch_of()
    found = maps.integrated_gradients(network, batch, steps=64)
    black = batch | {"images": {stream: torch.zeros_like(one) for stream, one in batch["images"].items()}}
    with torch.no_grad():
        change = log_odds(network(batch).logits) - log_odds(network(black).logits)
    total = sum(one.sum(dim=(1, 2, 3)) for one in found.values())
    # 64 points of quadrature leave some per cent of a path that bends at every ReLU.
    torch.testing.assert_close(total, change, rtol=0.05, atol=1e-3)
    assert change.abs().min() > 0.02
    assert (found["whole"][0, 1] == 0).all()  # a missing view moves nothing


def test_integrated_gradients_are_those_of_the_network_itself(tiny_profile):
    # They are computed on a folded copy, in other batches, in another order of the axes in memory.
    network, batch = network_of(tiny_profile), batch_of()
    inputs, present = ([batch[name][stream] for stream in network.model.streams] for name in ("images", "present"))

    def score(*images):
        named = [dict(zip(network.model.streams, group, strict=True)) for group in (images, present)]
        return log_odds(network({"images": named[0], "present": named[1]}).logits).sum()

    points, weights = np.polynomial.legendre.leggauss(maps.IG_STEPS)
    slopes = [torch.zeros_like(one) for one in inputs]
    for point, weight in zip((points + 1) / 2, weights / 2, strict=True):
        at = [(one * point).float().requires_grad_() for one in inputs]
        for total, slope in zip(slopes, torch.autograd.grad(score(*at), at), strict=True):
            total += weight * slope
    found = maps.integrated_gradients(network, batch)
    for stream, image, slope in zip(network.model.streams, inputs, slopes, strict=True):
        torch.testing.assert_close(found[stream], (image * slope)[:, :, 0], rtol=1e-3, atol=1e-5)


def test_grad_cam_is_the_linearised_decision(tiny_profile):
    network, batch = network_of(tiny_profile), batch_of()
    seen = {}
    norm = network.model.encoders["whole"].network.backbone.norm
    handle = norm.register_forward_hook(lambda *a: seen.update(map=a[2]))
    score = log_odds(network(batch).logits).sum()
    handle.remove()
    slope = torch.autograd.grad(score, seen["map"])[0]
    cells = (slope.mean(dim=(2, 3), keepdim=True) * seen["map"]).sum(dim=1).clamp(min=0).detach().numpy()
    found = {one.view: one.values for one in maps.grad_cam(network, batch) if one.stream == "whole"}
    np.testing.assert_allclose(
        np.stack([found["CC"][0], found["CC"][1], found["MLO"][1]]), cells[:3], rtol=1e-4, atol=1e-7
    )
    assert np.isnan(found["MLO"][0]).all()


IMAGE = np.pad(np.full((6, 4), 0.5), ((1, 1), (0, 4)))  # 8 x 8, the breast at the left


def drawn(figure) -> str:
    """Draw a figure and return everything that is written on it."""
    figure.canvas.draw()
    return "\n".join(text.get_text() for text in figure.findobj(Text) if text.get_visible())


def test_a_map_covers_the_breast_alone_and_says_its_range():
    values = np.arange(64.0).reshape(8, 8)  # 8 to 51 inside the breast: rows 1 to 6, columns 0 to 3
    figure = figures.map_cases([IMAGE], [{"gate": values, "nothing": values * 0}], ["one"], "title", [(1, 1, 3, 3)])
    text = drawn(figure)
    assert "gate\n8.0 to 51.0" in text
    assert "nothing\nzero everywhere" in text
    plain, covered = figure.axes[:2]
    assert len(plain.images) == 1  # the mammogram stands uncovered beside its map
    mask = covered.images[1].get_array().mask
    np.testing.assert_array_equal(mask, IMAGE == 0)
