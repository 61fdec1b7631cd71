"""SeqMoE's laws: G = 1 is MambaVision, G = 0 is the identity; scopes, controls, gradients."""

import pytest
import torch
from torch import nn

from mammo_lib.models import SeqMoE, create_mambavision
from mammo_lib.models.mambavision import Attention, MambaMixer
from mammo_lib.models.seqmoe import Gate, Grid, gate_name

IMAGE = (2, 3, 64, 48)


def network(**options):
    torch.manual_seed(0)
    backbone = create_mambavision("nano", num_classes=0, window_sizes=(8, 8, 3, 2))
    return SeqMoE(backbone, **options).eval()


def image(seed=0):
    return torch.rand(IMAGE, generator=torch.Generator().manual_seed(seed))


def force(moe, bias):
    """Make every gate sigmoid(bias), whatever the image."""
    for gate in moe.gates.values():
        nn.init.zeros_(gate.proj.weight)
        nn.init.constant_(gate.proj.bias, bias)


@pytest.mark.parametrize("stage", [0, 2, 5])
def test_a_stage_without_token_blocks_is_refused(stage):
    with pytest.raises(ValueError, match=rf"stages must be among those with token blocks, \[3, 4\], got {stage}"):
        network(stages=(stage,))


def test_an_override_of_another_batch_is_refused():
    for values in (torch.ones(3), torch.ones(2, 1), torch.tensor(1.0), 1.0):
        with pytest.raises(ValueError, match=r"overrides\['stage3_block0'\] must have the shape \(2,\) or .*, got \("):
            network()(torch.zeros(2, 3, 64, 64), {"stage3_block0": values})


@pytest.mark.parametrize("scope", ["image", "window", "token"])
def test_open_gates_are_mambavision_exactly(scope):
    moe = network(scope=scope)
    force(moe, 200.0)  # sigmoid(200) is 1 in float32
    features, gates = moe(image())
    assert all((gate == 1).all() for gate in gates.values())
    assert torch.equal(features, moe.backbone.pool(moe.backbone.forward_stages(image())[-1]))


def test_shut_gates_make_a_stage_the_identity():
    moe = network(stages=(3,))
    force(moe, -200.0)
    x = moe.backbone.patch_embed(image())
    for level in moe.backbone.levels[:2]:
        x = level.downsample(level.mix(x))
    assert torch.equal(moe._mix(moe.backbone.levels[2], 3, x, {}, {}), x)


def test_the_gate_is_the_equation():
    torch.manual_seed(1)
    gate = Gate(4)
    nn.init.normal_(gate.proj.weight)
    mixed, x = torch.randn(3, 9, 4), torch.randn(3, 9, 4)
    grid = Grid(torch.Size((3, 4, 3, 3)), 3)
    seen = torch.cat([mixed.mean(1), x.mean(1)], dim=1)
    expected = torch.sigmoid(seen @ gate.proj.weight[0] + gate.proj.bias)
    torch.testing.assert_close(gate(mixed, x, grid)[:, 0, 0], expected)


def test_shapes_by_scope():
    # 64 x 48: stage 3 is 4 x 3 with windows of 3 (2 x 1), stage 4 is 2 x 2 with windows of 2 (1 x 1).
    shapes = {scope: network(scope=scope)(image())[1][gate_name(3, 0)].shape for scope in ("image", "window", "token")}
    assert shapes == {"image": (2,), "window": (2, 2, 1), "token": (2, 4, 3)}


def test_padding_has_no_say_in_an_image_gate():
    gate, grid = Gate(4), Grid(torch.Size((1, 4, 2, 2)), 3)  # 2 x 2 in a window of 3 x 3: five padded tokens
    nn.init.normal_(gate.proj.weight)
    x = torch.randn(1, 9, 4)
    other = x.clone()
    other[:, [2, 5, 6, 7, 8]] = 100.0
    assert torch.equal(gate(x, x, grid), gate(other, other, grid))


def test_gates_start_near_mambavision_with_a_live_gradient():
    moe = network(bias=2.0)
    features, gates = moe(image())
    for gate in gates.values():
        torch.testing.assert_close(gate, torch.full_like(gate, 0.8808), atol=1e-4, rtol=0)
    features.square().sum().backward()
    assert all(gate.proj.weight.grad.abs().sum() > 0 for gate in moe.gates.values())


def test_a_saturated_gate_cannot_learn():
    gradients = {}
    for bias in (2.0, 12.0):
        moe = network()
        force(moe, bias)
        moe(image())[0].square().sum().backward()
        gradients[bias] = sum(gate.proj.weight.grad.abs().sum() for gate in moe.gates.values())
    assert gradients[12.0] < 1e-3 * gradients[2.0]


@pytest.mark.parametrize(("options", "expected"), [
    ({}, {"stage3_block0", "stage3_block1", "stage3_block2", "stage4_block0", "stage4_block1"}),
    ({"stages": (4,)}, {"stage4_block0", "stage4_block1"}),
    ({"mixers_only": True}, {"stage3_block0", "stage3_block1", "stage4_block0"}),
    ({"stages": ()}, set()),
])  # fmt: skip
def test_which_blocks_are_gated(options, expected):
    assert set(network(**options)(image())[1]) == expected


def test_fixed_and_random_gates():
    fixed, random = network(kind="fixed"), network(kind="random")
    assert not list(fixed.gates.parameters())
    assert all((gate == 0.5).all() for gate in fixed(image())[1].values())
    assert torch.equal(random(image())[0], random(image())[0])  # evaluation uses the mean
    random.train()
    first, second = (random(image())[1][gate_name(3, 0)] for _ in range(2))
    assert not torch.equal(first, second)
    assert ((first >= 0) & (first <= 1)).all()


@pytest.mark.parametrize(("options", "message"), [
    ({"kind": "learnt"}, "kind must be one of learned, fixed, random, got 'learnt'"),
    ({"scope": "img"}, "scope must be one of image, window, token, got 'img'"),
])  # fmt: skip
def test_unknown_kinds_and_scopes_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Gate(4, **options)


def test_a_batch_equals_one_by_one():
    moe = network(scope="token")
    features, gates = moe(image())
    for i in range(2):
        alone, own = moe(image()[i : i + 1])
        torch.testing.assert_close(alone, features[i : i + 1])
        torch.testing.assert_close(own[gate_name(3, 1)], gates[gate_name(3, 1)][i : i + 1])


@pytest.mark.parametrize(("token_blocks", "kind"), [("ssm", MambaMixer), ("attention", Attention)])
def test_isolated_stages_hold_one_kind_of_mixer(token_blocks, kind):
    backbone = create_mambavision("nano", token_blocks=token_blocks)
    assert {type(block.mixer) for level in backbone.levels[2:] for block in level.blocks} == {kind}


def test_a_binary_gate_is_0_or_1_and_learns():
    torch.manual_seed(0)
    moe = SeqMoE(create_mambavision("nano", num_classes=0), binary=True).train()
    for gate in moe.gates.values():
        torch.nn.init.normal_(gate.proj.weight, std=1.0)
        torch.nn.init.zeros_(gate.proj.bias)
    features, gates = moe(image())
    values = torch.cat([gate.flatten() for gate in gates.values()])
    assert set(values.unique().tolist()) <= {0.0, 1.0}
    features.square().sum().backward()
    assert all(gate.proj.weight.grad.abs().sum() > 0 for gate in moe.gates.values())


def test_a_network_entered_midway_ends_where_the_whole_one_does():
    moe = SeqMoE(create_mambavision("nano", num_classes=0)).eval()
    with torch.inference_mode():
        whole, gates = moe(image())
        for n in range(1, 6):  # the stem, then blocks and downsample of stages 1 and 2
            again, own = moe(moe.first_steps(image(), n), start=n)
            assert torch.equal(again, whole) and all(torch.equal(own[name], gates[name]) for name in gates)
