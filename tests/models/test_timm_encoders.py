"""timm's encoders in two streams and two views: they train, load and freeze, and refuse what they cannot do."""

import pytest
import timm
import torch
from pydantic import ValidationError
from safetensors.torch import save_file

from mammo_lib.config import BACKBONES, DataConfig, ModelConfig, RunConfig, get_profile
from mammo_lib.errors import InputError
from mammo_lib.models import build_model
from mammo_lib.models.mammo_mamba import count_parameters
from mammo_lib.models.timm_encoders import create_timm_encoder
from mammo_lib.runs.experiments import experiment_configs, read_experiments

NAMES = [name for name, one in BACKBONES.items() if not one.is_mambavision]
SIZE = 64


def config(name, size=SIZE, **model):
    return RunConfig(data=DataConfig(image_size=size), model=ModelConfig(backbone=name, gate="none", **model))


def batch(n=2):
    generator = torch.Generator().manual_seed(0)
    images = {stream: torch.rand(n, 2, 1, SIZE, SIZE, generator=generator) for stream in ("crop", "whole")}
    return {"images": images, "present": {stream: torch.ones(n, 2, dtype=torch.bool) for stream in images}}


def without_gradient(model):
    for name, parameter in model.named_parameters():
        if name.endswith("bn3.weight"):  # ResNet's branches start at zero, and what is inside them has no gradient yet
            torch.nn.init.ones_(parameter)
    model(batch()).logits.square().sum().backward()
    return {name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0}


def checkpoint(tmp_path, name, suffix):
    """What timm would give: another image size than the tests', and a classifier."""
    torch.manual_seed(7)
    state = timm.create_model(name, num_classes=10).state_dict()
    for key in state:
        if key.endswith("relative_position_bias_table"):
            state[key].fill_(0.25)
    path = tmp_path / f"{name}{suffix}"
    if suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save({"state_dict": {f"module.{key}": value for key, value in state.items()}}, path)
    return str(path), state


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_gets_a_gradient(name):
    torch.manual_seed(0)
    model = build_model(config(name)).train()
    assert without_gradient(model) == set()
    out = model.eval()(batch())
    assert out.logits.shape == (2, 2)
    assert out.logits.isfinite().all()
    assert out.gates == {"crop": {}, "whole": {}}


@pytest.mark.parametrize(("name", "suffix"), list(zip(NAMES, (".pth", ".safetensors") * 2, strict=True)))
def test_a_checkpoint_of_timm_fits_at_another_size_and_its_first_stages_stay(tmp_path, name, suffix):
    path, state = checkpoint(tmp_path, name, suffix)
    model = build_model(config(name, weights=path, freeze="stages12_and_stem", streams=("crop",))).train()
    own = model.encoders["crop"].network.backbone.state_dict()
    same = [key for key in own if own[key].shape == state[key].shape]
    assert all(torch.equal(own[key], state[key]) for key in same)
    # What was resampled: Swin's tables of relative positions, constant ones here, and ViT's position embedding.
    resampled = set(own) - set(same)
    assert {key.split(".")[-1] for key in resampled} <= {"relative_position_bias_table", "pos_embed"}
    assert all(torch.allclose(own[key], torch.tensor(0.25)) for key in resampled if key != "pos_embed")
    frozen = tuple(f"backbone.{part}." for part in (*BACKBONES[name].stem, *BACKBONES[name].stages12))
    before = {key: value.clone() for key, value in model.named_buffers() if "running_mean" in key}
    expected = {key for key, _ in model.named_parameters() if any(part in key for part in frozen)}
    assert without_gradient(model) == expected
    for key, value in model.named_buffers():
        if key in before:
            assert torch.equal(value, before[key]) == any(part in key for part in frozen), key


@pytest.mark.parametrize("name", ["resnet50", "vit_small_patch16_224"])
def test_the_encoder_is_timms_network_on_three_equal_normalised_channels(tmp_path, name):
    path, _ = checkpoint(tmp_path, name, ".pth")
    encoder = build_model(config(name, weights=path, streams=("crop",))).eval().encoders["crop"]
    reference = timm.create_model(name, num_classes=0, **({"img_size": SIZE} if "vit" in name else {})).eval()
    reference.load_state_dict(encoder.network.backbone.state_dict())
    grey = batch()["images"]["crop"]
    transform = timm.data.create_transform(**timm.data.resolve_data_config(model=reference)).transforms[-1]
    seen = torch.stack([transform(view.expand(3, -1, -1)) for view in grey.flatten(0, 1)])
    embedded, _ = encoder(grey, torch.ones(2, 2, dtype=torch.bool))
    torch.testing.assert_close(embedded.flatten(0, 1), reference(seen))


def test_a_checkpoint_of_another_network_is_refused(tmp_path):
    path, _ = checkpoint(tmp_path, "resnet50", ".pth")
    with pytest.raises(InputError, match=r"resnet50.pth: (does not fit|not a checkpoint of) swin_tiny"):
        build_model(config("swin_tiny_patch4_window7_224", weights=path))
    with pytest.raises(InputError, match=r"gone.pth: no such checkpoint; save resnet50's weights from timm there"):
        build_model(config("resnet50", weights="gone.pth"))


def test_a_reason_of_timms_stays_one_line(tmp_path, monkeypatch):
    def fail(*_):
        raise RuntimeError("Error(s) in loading:\n\tsize mismatch\x1b[0m")

    monkeypatch.setattr(timm.models.vision_transformer, "checkpoint_filter_fn", fail)
    path, _ = checkpoint(tmp_path, "vit_small_patch16_224", ".pth")
    with pytest.raises(InputError, match="not a checkpoint of vit_small_patch16_224") as caught:
        build_model(config("vit_small_patch16_224", weights=path))
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (
            {"gate": "learned"},
            "gate='learned' is a setting of MambaVision: with backbone='resnet50' set gate to 'none'",
        ),
        ({"mixer": "gated_conv"}, "mixer='gated_conv' is a setting of MambaVision"),
        ({"token_blocks": "ssm"}, "set token_blocks to 'hybrid'"),
        ({"stem": "fold"}, "set stem to 'repeat'"),
    ],
)
def test_switches_that_would_change_nothing_are_refused(wrong, message):
    with pytest.raises(ValidationError, match=message):
        ModelConfig(**({"backbone": "resnet50", "gate": "none"} | wrong))


def test_what_a_backbone_cannot_do_is_refused():
    with pytest.raises(ValidationError, match=r"multiple of vit_small.*'s 16-pixel patches, got \[100, 100\]"):
        config("vit_small_patch16_224", size=100)


# Size is the question of these: half a network, or another backbone.
OTHER_SIZES = ("crop_only", "whole_only", "backbone_", "timm_", "baseline_")
# These differ by what they isolate: a mixer, an attention block and a convolution are not equally large.
UNMATCHED = {
    "ssm_only": -6.6, "ssm_seqmoe": -6.6, "attention_only": 8.6, "attention_seqmoe": 8.6, "gated_conv": 4.2,
}  # fmt: skip


def test_ablations_compare_networks_of_one_size():
    """Within 2 % of dual_stream, or listed with its difference in percent."""
    paper = get_profile("paper")
    names = [name for name in read_experiments(paper) if not name.startswith(OTHER_SIZES)]
    sizes = {name: count_parameters(experiment_configs(paper, name)[0]) for name in names}
    differences = {name: 100 * (size / sizes["dual_stream"] - 1) for name, size in sizes.items()}
    large = {name: round(percent, 1) for name, percent in differences.items() if abs(percent) > 2}
    assert large == UNMATCHED


def test_counting_equals_building():
    for one in (RunConfig(model=ModelConfig(backbone="nano")), config("resnet50")):
        assert count_parameters(one) == sum(p.numel() for p in build_model(one).parameters())


@pytest.mark.parametrize("name", ["resnet50", "convnext_tiny", "swin_tiny_patch4_window7_224"])
def test_a_network_entered_midway_ends_where_the_whole_one_does(name):
    torch.manual_seed(0)
    encoder = create_timm_encoder(name, (64, 64)).eval()
    x = torch.rand(2, 3, 64, 64)
    with torch.inference_mode():
        whole = encoder(x)[0]
        for n in range(1, len(encoder.steps) + 1):
            torch.testing.assert_close(encoder(encoder.first_steps(x, n), start=n)[0], whole)


def test_vit_cannot_be_entered_midway():
    assert create_timm_encoder("vit_small_patch16_224", (64, 64)).steps == []
