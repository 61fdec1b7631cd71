"""The backbone: golden parity with the official network, its laws, its variants."""

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch.nn import functional

from mammo_lib.models import create_mambavision
from mammo_lib.models.mambavision import DT_RANGE, MambaMixer, MambaVision, from_windows, to_windows

FIXTURES = Path(__file__).parents[1] / "fixtures"
PARAMETERS = {
    "T": 31_794_248, "T2": 35_104_008, "S": 50_140_584, "B": 97_685_288, "L": 227_961_048,
    "L2": 241_554_824, "L3": 739_570_472,
}  # fmt: skip
LOGITS_BOUND, STAGE_BOUND = 2e-6, 5e-6  # largest error over largest value, float32 against the official float64


def golden(name):
    """Return a network built from the fixture's numbers with its weights loaded strictly, and the fixture's tensors."""
    with safe_open(FIXTURES / f"mambavision_tiny_{name}.safetensors", "pt") as file:
        numbers = {key: json.loads(value) if value != "None" else None for key, value in file.metadata().items()}
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    network = MambaVision(
        dim=numbers["dim"], in_dim=numbers["in_dim"], depths=numbers["depths"], num_heads=numbers["heads"],
        window_sizes=numbers["windows"], layer_scale=numbers["layer_scale"], num_classes=numbers["num_classes"],
    )  # fmt: skip
    state = {key.removeprefix("state."): value for key, value in tensors.items() if key.startswith("state.")}
    network.load_state_dict(state, strict=True)
    return network.eval(), tensors


def error(ours, theirs):
    return ((ours.double() - theirs.double()).abs().max() / theirs.abs().max()).item()


@pytest.mark.parametrize("name", ["a", "b"])
@pytest.mark.parametrize("shape", ["square", "padded"])
@torch.inference_mode()
def test_golden_parity_in_float32(name, shape):
    network, tensors = golden(name)
    image = tensors[f"{shape}.input"].float()
    assert error(network.float()(image), tensors[f"{shape}.logits"]) < LOGITS_BOUND
    for i, stage in enumerate(network.forward_stages(image), start=1):
        assert error(stage, tensors[f"{shape}.stage{i}"]) < STAGE_BOUND


@pytest.mark.parametrize(("variant", "count"), PARAMETERS.items())
def test_parameter_counts_as_published(variant, count):
    with torch.device("meta"):
        network = create_mambavision(variant)
    assert sum(p.numel() for p in network.parameters()) == count


def test_state_dict_has_the_official_layout():
    with torch.device("meta"):
        state = create_mambavision("L").state_dict()
    assert len(state) == 356
    assert tuple(state["levels.2.blocks.0.mixer.x_proj.weight"].shape) == (65, 392)
    assert tuple(state["levels.3.blocks.4.mixer.qkv.weight"].shape) == (4704, 1568)
    assert tuple(state["patch_embed.conv_down.3.weight"].shape) == (196, 64, 3, 3)


@pytest.mark.parametrize("shape", [(2, 3, 8, 8), (1, 2, 7, 10), (2, 1, 4, 4)])
def test_windows_round_trip(shape):
    x = torch.arange(torch.Size(shape).numel(), dtype=torch.float32).reshape(shape)
    assert torch.equal(from_windows(to_windows(x, 4), 4, x.shape), x)


def test_windows_are_row_major():
    x = torch.arange(16.0).reshape(1, 1, 4, 4)
    assert to_windows(x, 2)[:, :, 0].tolist() == [[0, 1, 4, 5], [2, 3, 6, 7], [8, 9, 12, 13], [10, 11, 14, 15]]


def reaching_delta(mixer):
    """The step size that the scan works with when its input is zero: the bias counts twice."""
    u = torch.zeros(1, mixer.D.numel(), 1)
    delta, _, _ = mixer.step_and_maps(u)
    return functional.softplus(delta[0, :, 0] + mixer.dt_proj.bias)


def test_step_sizes_of_the_built_network():
    torch.manual_seed(0)
    for init in ("mamba", "official"):
        mixers = [m for m in create_mambavision("nano", init=init).modules() if isinstance(m, MambaMixer)]
        steps = torch.cat([reaching_delta(mixer) for mixer in mixers])
        if init == "mamba":
            assert steps.min() >= DT_RANGE[0] * 0.999
            assert steps.max() <= DT_RANGE[1] * 1.001
            assert steps.max() / steps.min() > 10
        else:
            assert torch.allclose(steps, torch.tensor(2.0).log().expand_as(steps))  # softplus(0)


@pytest.mark.parametrize("size", [(32, 32), (65, 47), (96, 160)])
def test_any_input_size(size):
    stages = create_mambavision("nano").eval().forward_stages(torch.rand(1, 3, *size))
    sizes, expected = size, []
    for _ in range(2):
        sizes = tuple(-(-n // 2) for n in sizes)
    for _ in range(4):
        expected.append(sizes)
        sizes = tuple(-(-n // 2) for n in sizes)
    assert [tuple(stage.shape[2:]) for stage in stages] == expected


def test_eval_twice_is_bitwise_equal_and_every_parameter_learns():
    torch.manual_seed(0)
    network, image = create_mambavision("nano", num_classes=3, drop_path=0.3), torch.rand(2, 3, 64, 64)
    network.eval()
    assert torch.equal(network(image), network(image))
    network(image).square().sum().backward()
    assert [name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


def test_an_empty_batch_passes():
    network = create_mambavision("nano", num_classes=3).eval()
    assert network(torch.rand(0, 3, 64, 64)).shape == (0, 3)


def test_drop_path_acts_in_training_only():
    torch.manual_seed(0)
    network, image = create_mambavision("nano", num_classes=3, drop_path=0.9), torch.rand(4, 3, 64, 64)
    assert not torch.equal(network(image), network(image))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: create_mambavision("XL"), "variant must be one of nano, lite, .*T, .*got 'XL'"),
        (lambda: create_mambavision("nano", init="mama"), "init must be 'mamba' or 'official', got 'mama'"),
        (lambda: create_mambavision("nano", mixer="conv"), "mixer must be one of selective, gated_conv, got 'conv'"),
        (
            lambda: create_mambavision("nano", token_blocks="nothing"),
            "token_blocks must be one of hybrid, .*got 'nothing'",
        ),
        (lambda: create_mambavision("nano", window_sizes=(7, 7)), r"window_sizes must be 4 numbers .*got \(7, 7\)"),
        (lambda: create_mambavision("nano", window_sizes=(8, 8, 0, 7)), "window_sizes must be 4 numbers of at least 1"),
    ],
)
def test_bad_arguments_name_the_choices(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_jit_trace_is_refused_with_the_way_out():
    with pytest.warns(DeprecationWarning), pytest.raises(RuntimeError, match=r"torch\.jit\.trace; use torch\.export"):
        torch.jit.trace(create_mambavision("nano").eval(), torch.rand(1, 3, 64, 64))


class Counted:
    """In the place of a compiler: counts the graphs that it is given."""

    graphs = 0

    def __call__(self, graph, _):
        self.graphs += 1
        return graph.forward


@pytest.mark.slow
@torch.inference_mode()
def test_torch_compile_makes_one_graph_for_many_sizes():
    """fullgraph: a break would be an error. Square images, few windows and full windows have graphs of their own."""
    network = MambaVision(
        dim=16, in_dim=16, depths=(1, 1, 2, 2), num_heads=(1, 2, 4, 8), window_sizes=(8, 8, 3, 2), num_classes=3
    ).eval()
    torch._dynamo.reset()
    counted = Counted()
    compiled = torch.compile(network, backend=counted, fullgraph=True, dynamic=True)
    for size in [(6, 70, 150), (5, 160, 80), (4, 200, 150), (7, 80, 220)]:
        image = torch.rand(size[0], 3, *size[1:])
        torch.testing.assert_close(compiled(image), network(image))
    assert counted.graphs == 1


def test_features_and_classifier_are_reached_as_in_timms_networks():
    torch.manual_seed(0)
    network, image = create_mambavision("nano", num_classes=3).eval(), torch.rand(2, 3, 64, 64)
    stages, last = network.forward_stages(image), network.forward_features(image)
    assert last.shape == (2, 128, 2, 2)
    assert torch.equal(network.forward_head(last), network(image))
    assert torch.equal(network.forward_head(last, pre_logits=True), network.pool(stages[-1]))
    widths = [(one["num_chs"], one["reduction"]) for one in network.feature_info]
    assert widths == [(16, 4), (32, 8), (64, 16), (128, 32)]
    final, kept = network.forward_intermediates(image, indices=[0, -1], norm=True)
    assert torch.equal(final, last)
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(kept, [stages[0], last], strict=True))
    [second] = network.forward_intermediates(image, indices=[1], stop_early=True, intermediates_only=True)
    assert torch.equal(second, stages[1])
    network.reset_classifier(7)
    assert network(image).shape == (2, 7) and network.get_classifier().out_features == network.num_classes == 7
    network.reset_classifier(0, "")
    assert torch.equal(network(image), last)
    with pytest.raises(ValueError, match="global_pool must be 'avg' or '', got 'max'"):
        network.reset_classifier(2, "max")
    with pytest.raises(ValueError, match="output_fmt must be 'NCHW', got 'NLC'"):
        network.forward_intermediates(image, output_fmt="NLC")


@pytest.mark.parametrize("prune_norm", [False, True])
def test_a_pruned_network_gives_the_maps_of_the_whole_one(prune_norm):
    torch.manual_seed(0)
    network, image = create_mambavision("nano").eval(), torch.rand(2, 3, 64, 64)
    stages = network.forward_stages(image)
    assert network.prune_intermediate_layers([0, 1], prune_norm=prune_norm) == [0, 1]
    final, kept = network.forward_intermediates(image, indices=[0, 1], norm=True)
    assert torch.equal(final, stages[1])
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(kept, stages[:2], strict=True))


def test_dropout_before_the_head_acts_in_training_only():
    network = create_mambavision("nano", num_classes=3, drop_rate=0.9)
    last = torch.rand(2, 128, 2, 2)
    assert not torch.equal(network.forward_head(last), network.forward_head(last))
    assert torch.equal(network.eval().forward_head(last), network.forward_head(last))
