"""Exported networks: the same logits in onnxruntime and from torch.export, at sizes not used for the export."""

import errno
import subprocess
import sys

import pytest
import torch

from mammo_lib.config import DataConfig, ModelConfig, RunConfig
from mammo_lib.errors import InputError
from mammo_lib.models import build_model, create_mambavision, export_backbone, export_mammo_mamba, portable, score
from mammo_lib.models.mambavision import MambaMixer, MambaVision
from mammo_lib.models.portable import Scoring

onnx = pytest.importorskip("onnx", reason="the extra `export` is not installed")
onnxruntime = pytest.importorskip("onnxruntime", reason="the extra `export` is not installed")

BOUND = 1e-5  # largest difference over the largest logit
SIZES = [(1, 64, 64), (3, 64, 96), (2, 97, 33), (1, 128, 160), (1, 16, 16), (0, 64, 64)]


def small_network(**options):
    """One mixer and one attention block in each stage of tokens; windows of 9 and 4 tokens, which maps do not fill."""
    torch.manual_seed(0)
    numbers = {"dim": 16, "in_dim": 16, "depths": (1, 1, 2, 2), "num_heads": (1, 2, 4, 8), "window_sizes": (8, 8, 3, 2)}
    return MambaVision(**numbers, num_classes=5, **options).eval()


def images(batch, height, width, channels=3):
    return torch.randn(batch, channels, height, width, generator=torch.Generator().manual_seed(height))


def run(path, *tensors):
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    feed = {one.name: tensor.numpy() for one, tensor in zip(session.get_inputs(), tensors, strict=True)}
    return torch.from_numpy(session.run(None, feed)[0])


def difference(ours, theirs):
    assert ours.shape == theirs.shape
    return ((ours - theirs).abs().max() / theirs.abs().max()).item() if theirs.numel() else 0.0


@pytest.fixture(scope="module")
def network():
    return small_network()


@pytest.fixture(scope="module")
def onnx_file(network, tmp_path_factory):
    return export_backbone(network, tmp_path_factory.mktemp("onnx") / "a.onnx", size=(64, 64), is_dynamic=True)


@pytest.fixture(scope="module")
def program_file(network, tmp_path_factory):
    path = tmp_path_factory.mktemp("program") / "a.pt2"
    return export_backbone(network, path, to="torch-export", size=(64, 64), is_dynamic=True)


@pytest.mark.parametrize("size", SIZES, ids=str)
@torch.inference_mode()
def test_onnxruntime_gives_the_same_logits_at_any_size(network, onnx_file, size):
    assert difference(run(onnx_file, images(*size)), network(images(*size))) < BOUND


def test_the_file_holds_standard_operators_and_names_its_axes(onnx_file):
    model = onnx.load(onnx_file)
    onnx.checker.check_model(model, full_check=True)
    assert [(one.domain, one.version) for one in model.opset_import] == [("", portable.OPSET)]
    assert ({node.domain for node in model.graph.node}, len(model.functions)) == ({""}, 0)
    [one], [out] = model.graph.input, model.graph.output
    axes = [axis.dim_param or axis.dim_value for axis in one.type.tensor_type.shape.dim]
    assert (one.name, axes) == ("images", ["batch", 3, "height", "width"])
    assert (out.name, out.type.tensor_type.shape.dim[0].dim_param) == ("logits", "batch")


ALONE = """
import sys, torch
program = torch.export.load(sys.argv[1])
assert not [node for node in program.graph.nodes if "mammo" in str(node.target)]
for path in sys.argv[2:]:
    images, logits = torch.load(path)
    torch.testing.assert_close(program.module()(images), logits)
print("mammo_lib" in sys.modules)
"""


@pytest.mark.slow
def test_a_program_runs_without_this_library_at_any_size(network, program_file, tmp_path):
    cases = []
    for number, size in enumerate(SIZES):
        with torch.no_grad():
            torch.save((images(*size), network(images(*size))), tmp_path / f"{number}.pt")
        cases.append(tmp_path / f"{number}.pt")
    done = subprocess.run([sys.executable, "-c", ALONE, program_file, *cases], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "False\n"), done.stderr


def test_an_export_leaves_the_network_as_it_was(network, onnx_file):
    mixers = [one for one in network.modules() if isinstance(one, MambaMixer)]
    assert mixers and {one.backend for one in mixers} == {"auto"}
    assert not network.training


@pytest.mark.slow
@pytest.mark.parametrize("opset", [portable.OPSETS[0], portable.OPSETS[-1]])
def test_a_fixed_size_in_the_oldest_and_the_newest_opset(tmp_path, opset):
    """Grey images of one size; any batch, no other size."""
    network = small_network(in_chans=1, token_blocks="attention")
    path = export_backbone(network, tmp_path / "a.onnx", size=(64, 64), opset=opset)
    assert [one.version for one in onnx.load(path).opset_import] == [opset]
    with torch.inference_mode():
        assert difference(run(path, images(3, 64, 64, 1)), network(images(3, 64, 64, 1))) < BOUND
    with pytest.raises(Exception, match="Got invalid dimensions for input"):
        run(path, images(1, 96, 64, 1))


def breast_network(**model):
    torch.manual_seed(0)
    config = RunConfig(data=DataConfig(image_size=32), model=ModelConfig(backbone="nano", **model))
    network = build_model(config).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))  # gates and fusion away from where they start
    return network


def breasts(n, streams=("crop", "whole")):
    """Breasts with every pattern of views that are missing; what stands in their place is not a number."""
    g = torch.Generator().manual_seed(n)
    present = {stream: torch.rand(n, 2, generator=g) > 0.4 for stream in streams}
    present["crop"][0] = True
    present[streams[-1]][0, 1] = False
    tensors = {stream: torch.rand(n, 2, 1, 32, 32, generator=g) for stream in streams}
    for stream in streams:
        tensors[stream][~present[stream]] = torch.nan
    return {"images": tensors, "present": present}


@pytest.fixture(scope="module")
def breast_file(tmp_path_factory):
    path, facts = tmp_path_factory.mktemp("breast") / "a.onnx", {"threshold": 0.4, "views": ["CC", "MLO"]}
    options = {"image_size": (32, 32), "flip_averaging": True, "facts": facts}
    return export_mammo_mamba(breast_network(), path, **options)


@pytest.mark.slow  # the quick test of a whole network is that of the command, in tests/inference/test_deploy.py
@pytest.mark.parametrize("n", [1, 2, 9])
@torch.inference_mode()
def test_missing_views_are_masked_in_onnxruntime_too(breast_file, n):
    batch = breasts(n)
    expected, _ = score(breast_network(), batch, flip_averaging=True)
    found = run(breast_file, *batch["images"].values(), *batch["present"].values())
    assert difference(found, expected) < BOUND
    assert n == 1 or expected.std() > 1e-3  # the breasts differ


@pytest.mark.slow
def test_what_reads_the_logit_is_in_the_file(breast_file):
    facts = {one.key: one.value for one in onnx.load(breast_file).metadata_props}
    assert facts == {"threshold": "0.4", "views": '["CC", "MLO"]'}


@pytest.mark.slow
def test_one_stream_with_another_encoder_as_a_program_also_inside_inference_mode(tmp_path):
    network = breast_network(streams=("crop",), gate={"kind": "none"}, mixer="gated_conv", token_blocks="ssm")
    batch, facts = breasts(5, ("crop",)), {"seed": ""}
    options = {"image_size": (32, 32), "flip_averaging": False, "to": "torch-export", "facts": {"seed": 1}}
    with torch.inference_mode():
        path = export_mammo_mamba(network, tmp_path / "a.pt2", **options)
        expected, _ = score(network, batch, flip_averaging=False)
    found = torch.export.load(path, extra_files=facts).module()(batch["images"]["crop"], batch["present"]["crop"])
    assert difference(found, expected) < BOUND
    assert facts == {"seed": "1"}
    assert not any(one.training for one in network.modules())


@pytest.mark.slow
def test_the_tiny_variant_at_its_own_size(tmp_path):
    torch.manual_seed(0)
    network = create_mambavision("T").eval()
    path = export_backbone(network, tmp_path / "T.onnx")
    with torch.inference_mode():
        for batch in (1, 3):
            assert difference(run(path, images(batch, 224, 224)), network(images(batch, 224, 224))) < BOUND


@torch.inference_mode()
def test_a_breast_without_any_view_has_no_logit():
    """`mammo predict` refuses it; a file of tensors can only answer NaN."""
    batch = breasts(3)
    for present in batch["present"].values():
        present[1] = False
    for flip_averaging in (True, False):
        scoring = Scoring(breast_network(), flip_averaging=flip_averaging)
        found = scoring(*(x.nan_to_num() for x in batch["images"].values()), *batch["present"].values())
        assert found.isnan().tolist() == [False, True, False]


def test_a_program_for_which_there_is_no_space_is_refused_in_one_line(tmp_path, monkeypatch):
    """PyTorch's own writer would end the process."""

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_bytes", full)
    network = create_mambavision("nano", token_blocks="none")
    with pytest.raises(InputError, match=r"a.pt2: cannot be written \(No space left on device\); give another file"):
        export_backbone(network, tmp_path / "a.pt2", to="torch-export", size=(32, 32))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"to": "tflite"}, "--to 'tflite': choose one of onnx, torch-export"),
        ({"opset": 17}, r"--opset 17: must lie in \[18, 23\]"),
        ({"opset": 99}, r"--opset 99: must lie in \[18, 23\]"),
    ],
)
def test_what_is_not_offered_is_refused(network, tmp_path, change, message):
    with pytest.raises(InputError, match=message):
        export_backbone(network, tmp_path / "a.onnx", **change)


@pytest.mark.parametrize("missing", ["onnx", "onnxscript"])
def test_without_the_extra_the_way_out_is_named(network, tmp_path, monkeypatch, missing):
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(InputError, match=rf"^{missing} is not installed: pip install .*\[export\]"):
        export_backbone(network, tmp_path / "a.onnx")


def test_a_place_that_cannot_be_written_is_refused_before_the_work(network, tmp_path, monkeypatch):
    monkeypatch.setattr(portable, "capture", None)
    (tmp_path / "file").touch()
    for path, message in (
        (tmp_path / "none" / "a.onnx", "cannot be written .*; give another file with --out"),
        (tmp_path / "file" / "a.onnx", "cannot be written .*; give another file with --out"),
        (tmp_path, "a folder; give the name of a file with --out"),
    ):
        with pytest.raises(InputError, match=message):
            export_backbone(network, path)
    assert [one.name for one in tmp_path.iterdir()] == ["file"]
