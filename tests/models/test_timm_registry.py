"""MambaVision in timm's registry: built, adapted and read out as timm's own networks."""

import os
import subprocess
import sys

import pytest
import timm
import torch

from mammo_lib.models import create_mambavision, timm_registry

NAMES = [*timm_registry.NAMES]
# `import mammo_lib` comes first: only then does torchvision load beside a CPU build of torch, and timm needs it.
ORDERS = {
    "timm last": "import importlib.util, mammo_lib.models; importlib.util.find_spec('timm'); import timm.layers",
    "timm first": "import mammo_lib, timm; import mammo_lib.models",
}


@pytest.mark.parametrize("imports", ORDERS.values(), ids=ORDERS)
def test_timm_knows_the_names_once_both_are_imported(imports):
    """In a process of its own, as this one has imported the registry by name; looking for timm is not importing it."""
    code = f"{imports}; print(*timm.list_models('mambavision*'))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ)
    assert (done.stdout.split(), done.stderr) == (sorted(NAMES), "")


@pytest.mark.parametrize("name", NAMES)
def test_every_name_is_the_variant_with_the_official_keys(name):
    assert timm.list_models(name) == [name]
    with torch.device("meta"):
        ours, theirs = create_mambavision(timm_registry.NAMES[name][0]), timm.create_model(name)
    shapes = [{key: tuple(one.shape) for key, one in network.state_dict().items()} for network in (ours, theirs)]
    assert shapes[0] == shapes[1]
    assert [level.window for level in ours.levels] == [level.window for level in theirs.levels]
    config = theirs.pretrained_cfg
    assert config["hf_hub_id"].startswith("nvidia/MambaVision-") and config["license"] == "cc-by-nc-sa-4.0"
    assert (config["num_classes"], config["classifier"]) == (1000, "head")
    assert theirs.get_submodule(config["first_conv"]).in_channels == config["input_size"][0] == 3


def test_stages_alone():
    network = timm.create_model("mambavision_tiny", features_only=True, in_chans=1, out_indices=(1, 2)).eval()
    assert (network.feature_info.channels(), network.feature_info.reduction()) == ([160, 320], [8, 16])
    with torch.no_grad():
        assert [tuple(one.shape) for one in network(torch.rand(1, 1, 64, 96))] == [(1, 160, 8, 12), (1, 320, 4, 6)]
    assert not any(name.startswith(("model.levels.3", "model.head", "model.norm")) for name in network.state_dict())


def test_a_file_of_weights_is_adapted_by_timm(tmp_path, capsys):
    torch.manual_seed(0)
    source = create_mambavision("T").eval()
    wrapped = {"state_dict": {f"module.{key}": one for key, one in source.state_dict().items()}}
    torch.save(wrapped, tmp_path / "a.pth.tar")
    own = {"pretrained": True, "pretrained_cfg_overlay": {"file": str(tmp_path / "a.pth.tar")}}
    network = timm.create_model("mambavision_tiny", **own, in_chans=1, num_classes=2, drop_path_rate=0.1).eval()
    assert "CC-BY-NC-SA-4.0" in capsys.readouterr().out
    assert network.head.out_features == 2
    grey = torch.rand(1, 1, 64, 64)
    with torch.no_grad():  # timm sums the stem's weights over the channels
        torch.testing.assert_close(network.forward_features(grey), source.forward_features(grey.expand(-1, 3, -1, -1)))
        whole = timm.create_model("mambavision_tiny", **own).eval()
        assert torch.equal(whole(grey.expand(-1, 3, -1, -1)), source(grey.expand(-1, 3, -1, -1)))


def test_weights_of_another_network_are_refused(tmp_path):
    torch.save(create_mambavision("nano").state_dict(), tmp_path / "a.pth")
    with pytest.raises(RuntimeError, match=r"Error\(s\) in loading state_dict"):
        timm.create_model("mambavision_tiny", pretrained=True, pretrained_cfg_overlay={"file": str(tmp_path / "a.pth")})
