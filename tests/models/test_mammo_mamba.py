"""Mammo-Mamba's laws: masks, views, streams, fusion."""

import itertools

import pytest
import torch
from pydantic import ValidationError

from mammo_lib.config import BACKBONES, TARGETS, Backbone, DataConfig, ModelConfig, RunConfig, Target, TrainConfig
from mammo_lib.models import ViewEncoder, build_model, log_odds, score, score_passes
from mammo_lib.models.encoders import fitting_windows
from mammo_lib.models.mammo_mamba import build_fusion

SIZE = 32


def network(backbone="nano", data=None, **model):
    torch.manual_seed(0)
    config = RunConfig(
        data=data or DataConfig(), model=ModelConfig(backbone=backbone, **model), train=TrainConfig(drop_path=0.1)
    )
    return build_model(config).eval()


def batch(n=3, views=2, streams=("crop", "whole"), seed=0):
    generator = torch.Generator().manual_seed(seed)
    images = {stream: torch.rand(n, views, 1, SIZE, SIZE, generator=generator) for stream in streams}
    return {"images": images, "present": {stream: torch.ones(n, views, dtype=torch.bool) for stream in streams}}


def without(one, stream, view):
    """Mark a view as missing for the first breast."""
    present = {name: mask.clone() for name, mask in one["present"].items()}
    present[stream][0, view] = False
    return {"images": one["images"], "present": present}


SUBSETS = [
    (streams, views)
    for streams in [("crop",), ("whole",), ("crop", "whole")]
    for views in [("CC",), ("MLO",), ("CC", "MLO")]
]


@pytest.mark.parametrize(("streams", "views"), SUBSETS)
def test_any_subset_of_streams_and_views_is_a_network(streams, views):
    out = network(streams=streams, views=views)(batch(views=len(views), streams=streams))
    assert out.logits.shape == (3, 2)
    assert set(out.embeddings) == set(streams)
    assert (out.stream_gate is not None) == (len(streams) == 2)


def test_eval_twice_is_bitwise_equal():
    model, one = network(), batch()
    assert torch.equal(model(one).logits, model(one).logits)


def test_a_batch_equals_one_by_one():
    model, one = network(), without(batch(), "whole", 1)
    together = model(one).logits
    for i in range(3):
        alone = {part: {s: t[i : i + 1] for s, t in one[part].items()} for part in ("images", "present")}
        torch.testing.assert_close(model(alone).logits, together[i : i + 1])


@pytest.mark.parametrize("scope", ["image", "window", "token"])
def test_gates_come_one_by_one_as_in_a_batch_also_without_a_stream(scope):
    model, one = network(gate={"scope": scope}), without(without(batch(), "whole", 0), "whole", 1)
    together = model(one).gates
    alone = {part: {s: t[:1] for s, t in one[part].items()} for part in ("images", "present")}
    for stream, gates in model(alone).gates.items():
        assert set(gates) == set(together[stream])
        for name, gate in gates.items():
            torch.testing.assert_close(gate, together[stream][name][:1], equal_nan=True)
            assert gate.isnan().all() == (stream == "whole")


def test_swapping_the_views_swaps_their_embeddings():
    model, one = network(), batch()
    swapped = {part: {s: t.flip(1) for s, t in one[part].items()} for part in ("images", "present")}
    for stream, embedding in model(one).embeddings.items():
        torch.testing.assert_close(model(swapped).embeddings[stream], embedding.flip(1))


@pytest.mark.parametrize(("stream", "view"), list(itertools.product(("crop", "whole"), (0, 1))))
@pytest.mark.parametrize("is_training", [False, True])
def test_pixels_of_a_missing_view_cannot_matter(stream, view, is_training):
    model, one = network().train(is_training), without(batch(), stream, view)
    one["images"][stream].requires_grad_()
    model(one).logits.square().sum().backward()
    gradient = one["images"][stream].grad
    assert gradient[0, view].abs().max() == 0
    assert gradient[0, 1 - view].abs().max() > 0


def test_a_missing_view_stays_out_of_the_batch_statistics():
    """Whatever stands in its place, NaN included: same logits, same running statistics, bit for bit."""
    results = []
    for pixels in (0.0, torch.nan):
        torch.manual_seed(0)
        model, one = network().train(), without(batch(), "whole", 1)
        one["images"]["whole"][0, 1] = pixels
        torch.manual_seed(1)
        results.append((model(one).logits, [b for name, b in model.named_buffers() if "running" in name]))
    assert torch.equal(results[0][0], results[1][0])
    assert all(torch.equal(a, b) for a, b in zip(results[0][1], results[1][1], strict=True))


def test_training_goes_on_where_a_batch_lacks_a_stream():
    model, one = network().train(), batch()
    one["present"]["whole"][:] = False
    out = model(one)
    assert out.logits.isfinite().all()
    assert out.gates["whole"] == {}


@pytest.mark.parametrize("fusion", ["gate", "scalar_gate", "concat", "mean"])
def test_a_missing_stream_leaves_the_other_in_charge(fusion):
    model = network(fusion=fusion)
    one = without(without(batch(), "whole", 0), "whole", 1)
    other = {**one, "images": {**one["images"], "whole": torch.rand_like(one["images"]["whole"])}}
    out = model(one)
    torch.testing.assert_close(out.logits[0], model(other).logits[0])
    assert not torch.equal(out.logits[1], model(other).logits[1])
    if out.stream_gate is not None:
        assert (out.stream_gate[0] == 1).all()
        assert ((out.stream_gate[1:] > 0) & (out.stream_gate[1:] < 1)).all()


def test_a_second_head_tells_the_lesion_type():
    assert set(network()(batch()).target_logits) == {"malignancy"}
    out = network(targets=("malignancy", "lesion_type"))(batch())
    assert out.target_logits["malignancy"] is out.logits
    assert out.target_logits["lesion_type"].shape == (3, 2)
    assert not torch.equal(out.target_logits["lesion_type"], out.logits)


def test_a_head_that_is_registered_here_is_built(monkeypatch):
    monkeypatch.setitem(TARGETS, "shape", Target("shape", "mass_shape", ("ROUND", "OVAL", "IRREGULAR")))
    out = network(targets=("malignancy", "shape"))(batch())
    assert out.target_logits["shape"].shape == (3, 3)


class Averages(torch.nn.Module):
    """The smallest encoder: grey levels in, features out, no gate."""

    num_features = 4

    def __init__(self):
        super().__init__()
        self.backbone = torch.nn.Linear(1, 4)

    def forward(self, x):
        return self.backbone(x.mean(dim=(1, 2, 3))[:, None]), {}


def test_a_backbone_that_is_registered_here_is_built(monkeypatch):
    monkeypatch.setitem(
        BACKBONES, "averages", Backbone("averages", lambda config: ViewEncoder(Averages()), is_mambavision=False)
    )
    model = network(backbone="averages", gate="none")
    assert model(batch()).logits.shape == (3, 2)
    with pytest.raises(ValidationError, match="is a setting of MambaVision"):
        network(backbone="averages")


def test_an_unknown_fusion_is_refused():
    with pytest.raises(ValueError, match="fusion must be one of gate, scalar_gate, concat, mean, got 'gaet'"):
        build_fusion("gaet", 8)


def test_fusions_are_different_networks():
    sizes = {
        name: sum(p.numel() for p in network(fusion=name).parameters())
        for name in ("gate", "scalar_gate", "concat", "mean")
    }
    assert len(set(sizes.values())) == 4


@pytest.mark.parametrize("fusion", ["gate", "scalar_gate", "concat", "mean"])
def test_every_parameter_gets_a_gradient(fusion):
    model = network(fusion=fusion).train()
    model(batch()).logits.square().sum().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


def test_the_network_is_deterministic_in_its_seed():
    assert all(torch.equal(a, b) for a, b in zip(network().parameters(), network().parameters(), strict=True))


SWITCHES = [
    {"mixer": "gated_conv"}, {"token_blocks": "ssm"}, {"token_blocks": "attention"}, {"gate": "none"},
    {"gate": "fixed"}, {"gate": "random"}, {"gate": {"scope": "window"}}, {"gate": {"scope": "token"}},
    {"gate": {"blocks": "mixer"}}, {"gate": {"stages": "3"}}, {"gate": {"stages": "4"}}, {"gate": {"bias": 0.0}},
    {"stem": "fold"}, {"fusion": "mean"}, {"view_fusion": "mean"}, {"mlp_ratio": 2.0},
    {"token_blocks": "none", "gate": "none"}, {"gate": {"binary": True}},
]  # fmt: skip
# Each has a test of its own: subsets of streams and views, other backbones, weights, what is frozen.
TESTED_ABOVE_OR_BELOW = {"backbone", "streams", "views", "weights", "freeze", "targets", "frozen_stride"}


def test_no_field_of_the_model_is_left_out():
    assert {field for switch in SWITCHES for field in switch} | TESTED_ABOVE_OR_BELOW == set(ModelConfig.model_fields)


@pytest.mark.parametrize("switch", SWITCHES, ids=lambda s: "-".join(str(part) for item in s.items() for part in item))
def test_every_switch_changes_the_network(switch):
    """The two networks share every weight that both have, so that what differs is the switch."""
    base, other = network().eval(), network(**switch).eval()
    for gate in base.modules():
        if type(gate).__name__ == "Gate":
            torch.nn.init.normal_(gate.proj.weight, generator=torch.Generator().manual_seed(0))
    shared, own = base.state_dict(), other.state_dict()
    is_bias = "bias" in (switch["gate"] if isinstance(switch.get("gate"), dict) else ())
    kept = {
        name: value
        for name, value in shared.items()
        if name in own and own[name].shape == value.shape and not (is_bias and name.endswith("proj.bias"))
    }
    other.load_state_dict(own | kept)
    if switch == {
        "gate": "random"
    }:  # 0.5 in evaluation, as the fixed gate; only gates train, or drop path would differ
        for module in other.modules():
            module.training = type(module).__name__ == "Gate"
    assert not torch.allclose(base(batch()).logits, other(batch()).logits, atol=1e-5)


def test_gates_come_back_by_stream_block_and_view():
    out = network()(without(batch(), "whole", 1))
    assert set(out.gates) == {"crop", "whole"}
    gate = out.gates["whole"]["stage3_block0"]
    assert gate.shape == (3, 2)
    assert gate.isnan().nonzero().tolist() == [[0, 1]]
    assert network(gate="none")(batch()).gates == {"crop": {}, "whole": {}}


def checkpoint(tmp_path):
    from mammo_lib.models import create_mambavision

    torch.manual_seed(9)
    path = tmp_path / "nano.pth"
    torch.save(create_mambavision("nano").state_dict(), path)
    return str(path)


@pytest.mark.parametrize(("freeze", "frozen"), [
    ("auto", ("levels.0.", "levels.1.")), ("stages12", ("levels.0.", "levels.1.")), ("none", ()),
    ("stages12_and_stem", ("patch_embed.", "levels.0.", "levels.1.")),
])  # fmt: skip
def test_frozen_parts_stay_and_the_rest_learns(tmp_path, freeze, frozen):
    model = network(weights=checkpoint(tmp_path), freeze=freeze).train()
    before = {name: value.clone() for name, value in model.named_buffers()}
    model(batch()).logits.square().sum().backward()
    for name, parameter in model.named_parameters():
        is_frozen = any(f".backbone.{part}" in name for part in frozen)
        assert (parameter.grad is None) == is_frozen, name
    for name, value in model.named_buffers():
        if "running_mean" in name and "encoders" in name:
            assert torch.equal(value, before[name]) == any(f".backbone.{part}" in name for part in frozen), name


def test_both_streams_start_from_the_checkpoint(tmp_path):
    path = checkpoint(tmp_path)
    model, official = network(weights=path), torch.load(path, weights_only=True)
    for stream in ("crop", "whole"):
        backbone = model.encoders[stream].network.backbone
        assert torch.equal(backbone.levels[2].blocks[0].mixer.A_log, official["levels.2.blocks.0.mixer.A_log"])
        assert torch.equal(backbone.patch_embed.conv_down[0].weight, official["patch_embed.conv_down.0.weight"])


def test_freezing_random_weights_is_refused():
    with pytest.raises(ValueError, match="freeze='stages12' would freeze random weights"):
        RunConfig(model=ModelConfig(freeze="stages12"))


def test_open_gates_equal_the_ungated_network():
    gated, plain = network(), network(gate="none")
    state = {name: value for name, value in gated.state_dict().items() if ".gates." not in name}
    plain.load_state_dict(state)
    for module in gated.modules():
        if type(module).__name__ == "Gate":
            torch.nn.init.constant_(module.proj.bias, 200.0)
    assert torch.equal(gated(batch()).logits, plain(batch()).logits)


@pytest.mark.parametrize("backbone", ["nano", "lite", "resnet50"])
def test_a_training_batch_of_one_view_learns(backbone):
    """At 32 px the last stage holds one number per channel: no batch statistics, so the running ones are used."""
    if backbone == "lite":
        pytest.importorskip("efficientnet_lite_pytorch")
    gate = "none" if backbone == "resnet50" else "learned"
    model = network(backbone=backbone, gate=gate, streams=("crop",), views=("CC",)).train()
    modes = [module.training for module in model.modules()]
    loss = model(batch(n=1, views=1, streams=("crop",))).logits.square().sum()
    loss.backward()
    assert torch.isfinite(loss)
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)
    assert modes == [module.training for module in model.modules()]


def test_a_stream_that_a_whole_batch_lacks_leaves_no_parameter_out():
    """Processes that share a run wait for each parameter's gradient, also where a batch has nothing of a stream."""
    model, one = network().train(), batch()
    one["present"]["whole"][:] = False
    model(one).logits.square().sum().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []
    whole = [p.grad for name, p in model.named_parameters() if name.startswith("encoders.whole")]
    assert whole and not any(grad.any() for grad in whole)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda b: b["images"].pop("whole"), r"the batch has no images\['whole'\]: this network reads crop, whole"),
        (lambda b: b["present"].pop("crop"), r"the batch has no present\['crop'\]"),
        (lambda b: b.pop("present"), "the batch must hold 'present'"),
        (
            lambda b: b["present"].update(crop=b["present"]["crop"].float()),
            r"present\['crop'\] must be torch.bool \(3, 2\), got torch.float32",
        ),
        (
            lambda b: b["images"].update(crop=torch.rand(3, 3, 1, 32, 32)),
            r"must be \(batch=3, views=2, 1, height, width\), got \(3, 3, 1, 32, 32\)",
        ),
        (lambda b: b["images"].update(crop=torch.rand(3, 2, 3, 32, 32)), r"got \(3, 2, 3, 32, 32\)"),
        (lambda b: b["present"].update(crop=b["present"]["crop"].tolist()), r"present\['crop'\] must be .*, got list"),
        (
            lambda b: b["present"].update(crop=b["present"]["crop"].numpy()),
            r"present\['crop'\] must be .*, got ndarray",
        ),
        (lambda b: b["images"].update(crop=None), r"images\['crop'\] must be .*, got NoneType"),
        (
            lambda b: [b[part].update(whole=b[part]["whole"][:1]) for part in b],
            r"images\['whole'\] must be \(batch=3, views=2, 1, height, width\), got \(1, 2, 1, 32, 32\)",
        ),
    ],
)
def test_a_batch_that_cannot_be_read_is_refused(spoil, message):
    one = batch()
    spoil(one)
    with pytest.raises(ValueError, match=message):
        network()(one)


def turned(one):
    return one | {"images": {stream: images.flip(-2) for stream, images in one["images"].items()}}


@torch.inference_mode()
def test_a_score_is_the_mean_logit_of_an_image_and_its_upside_down_copy():
    model, one = network(), without(batch(), "crop", 0)
    upright, flipped = (log_odds(model(seen).logits) for seen in (one, turned(one)))
    assert not torch.equal(upright, flipped)
    for is_averaged, expected in ((False, upright), (True, (upright + flipped) / 2)):
        logits, output = score(model, one, flip_averaging=is_averaged)
        assert torch.equal(logits, expected)
        assert torch.equal(output.logits, model(one).logits)
    logits, _ = score(model.bfloat16(), {**one, "images": {s: v.bfloat16() for s, v in one["images"].items()}},
                      flip_averaging=True)  # fmt: skip
    assert logits.dtype == torch.float32


@pytest.mark.parametrize(("scope", "form"), [("image", ()), ("window", (2, 1)), ("token", (4, 2))])
@torch.inference_mode()
def test_forced_gates_turn_with_the_image(scope, form):
    """At 32 pixels stage 3 has windows of 2 x 2 tokens; the images are 64 x 32, so its map is 4 x 2."""
    model, one = network(data=DataConfig(image_size=SIZE), gate={"scope": scope}), batch()
    one["images"] = {stream: torch.rand(3, 2, 1, 64, 32) for stream in one["images"]}
    forced = torch.rand(3, 2, *form)
    passes = score_passes(model, one, flip_averaging=True, overrides={"crop": {"stage3_block0": forced}})
    upright, flipped = (output.gates["crop"]["stage3_block0"] for output in passes)
    assert torch.equal(upright, forced)
    assert torch.equal(flipped, forced.flip(2) if form else forced)


@pytest.mark.parametrize(
    ("size", "windows"),
    [
        ((224, 224), (8, 8, 14, 7)), ((32, 32), (8, 4, 2, 1)), ((40, 40), (8, 5, 3, 2)),  # squares: no side is padded
        ((224, 112), (8, 8, 14, 7)), ((32, 64), (8, 8, 4, 2)),  # the shorter side is
    ],
)  # fmt: skip
def test_windows_are_no_larger_than_the_longer_side_of_a_map(size, windows):
    assert fitting_windows("nano", size) == windows
    plain = network(data=DataConfig(image_size=size), gate="none")
    assert [level.window for level in plain.encoders["crop"].network.backbone.levels[2:]] == list(windows[2:])
