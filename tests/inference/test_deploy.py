"""`mammo export`: runs and variants by name, and one line for whatever does not fit."""

import os
import sys

import pytest
import torch
from typer.testing import CliRunner

from mammo_lib.cli import app
from mammo_lib.config import BUILD
from mammo_lib.errors import InputError
from mammo_lib.inference import deploy
from mammo_lib.inference.release import released_run
from mammo_lib.models import create_mambavision
from mammo_lib.models.network import load_best
from mammo_lib.runs.records import COMMITTED

onnxruntime = pytest.importorskip("onnxruntime", reason="the extra `export` is not installed")
pytest.importorskip("onnxscript", reason="the extra `export` is not installed")

BOUND = 1e-5


def mammo(*arguments):
    return CliRunner().invoke(app, ["export", *map(str, arguments)])


def refusal(*arguments) -> str:
    """Return the one line that the command line would print."""
    done = mammo(*arguments)
    assert isinstance(done.exception, InputError), done.output
    return str(done.exception)


def breasts(size, n, streams=("crop", "whole")):
    """Breasts of which none, one view, or one view and the whole film are missing, in turn."""
    g = torch.Generator().manual_seed(n)
    patterns = {s: torch.tensor([[True, True], [True, False], [s == "crop", False]]) for s in streams}
    present = {stream: one[torch.arange(n) % 3] for stream, one in patterns.items()}
    return {"images": {s: torch.rand(n, 2, 1, *size, generator=g) for s in streams}, "present": present}


def difference(session, network, batch):
    named = batch["images"] | {f"{stream}_present": one for stream, one in batch["present"].items()}
    [found] = session.run(None, {name: one.numpy() for name, one in named.items()})
    with torch.inference_mode():
        expected, _ = network.score(batch)
    return ((torch.from_numpy(found) - expected).abs().max() / expected.abs().max()).item()


def test_a_finished_network_is_built_without_what_only_training_needs():
    run = released_run()
    assert run.config.train.drop_path > 0
    assert not [module for module in load_best(run).modules() if type(module).__module__.startswith("timm")]


def open_session(path):
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


@pytest.mark.slow
def test_a_run_scores_in_onnxruntime_as_mammo_predict_does(untrained_run, tmp_path):
    run, path = untrained_run(token_blocks="attention"), tmp_path / "a.onnx"
    done = mammo(run.folder, "--out", path)
    assert (done.exit_code, done.stdout) == (0, f"{path}\n"), done.output
    session, network = open_session(path), load_best(run)
    for n in (1, 2, 9):
        assert difference(session, network, breasts((32, 32), n)) < BOUND
    facts = session.get_modelmeta().custom_metadata_map
    assert facts["config"] == run.config.fingerprint and "Not a medical device" in facts["notice"]
    assert (float(facts["threshold"]), float(facts["temperature"])) == run.choices


@pytest.mark.slow
def test_the_released_network_scores_in_onnxruntime_as_here(tmp_path):
    path = deploy.export("released/dual", tmp_path / "a.onnx")
    assert difference(open_session(path), load_best(released_run()), breasts((96, 96), 3)) < BOUND


def test_a_variant_is_written_with_its_own_weights(tmp_path, monkeypatch):
    torch.manual_seed(0)
    network = create_mambavision("nano", num_classes=2, in_chans=1).eval()
    torch.save(network.state_dict(), tmp_path / "mine.pth")
    given = []
    monkeypatch.setattr(deploy, "export_backbone", lambda *args, **options: given.append((args, options)))
    done = mammo("nano", "--weights", tmp_path / "mine.pth", "--size", 64, "--dynamic", "--to", "torch-export")
    assert done.exit_code == 0, done.output
    [((written, path), options)] = given
    assert str(path) == "nano.pt2"
    assert options == {"to": "torch-export", "opset": deploy.OPSET, "size": (64, 64), "is_dynamic": True}
    with torch.no_grad():
        assert torch.equal(written(torch.ones(1, 1, 64, 64)), network(torch.ones(1, 1, 64, 64)))


WRONG = [
    (("nobody",), "nobody: neither the folder of a run nor a variant; variants are nano, "),
    (("nano",), "nano: name its weights with --weights: a file, official, or random to try it out"),
    (("lite", "--weights", "random"), "lite: not a backbone by itself"),
    (("nano", "--weights", "none.pth"), "none.pth: no such checkpoint"),
    (("T", "--weights", "{nano}"), "holds the weights of nano, not of T"),
    (("nano", "--weights", "random", "--size", "9"), "--size 9: must lie in [32, 4096] pixels"),
    (("nano", "--weights", "random", "--to", "tflite"), "--to 'tflite': choose one of onnx, torch-export"),
    (("nano", "--weights", "random", "--opset", "11"), "--opset 11: must lie in [18, 23]"),
    (("nano", "--weights", "random", "--out", "{nano}"), "nano.pth: exists, and its ending is not .onnx; give another"),
    (
        ("results/external_mini_mias/seed0-0d6f020f60ca",),
        "scores of another run's network on other films; give the run",
    ),
    (("nano", "--weights", "random", "--out", "{here}"), "a folder; give the name of a file with --out"),
    (("nano", "--weights", "random", "--out", "{here}/none/a.onnx"), "cannot be written (No such file or directory)"),
    (("released/dual", "--dynamic"), "--weights, --size and --dynamic are for variants"),
    (("{here}",), "not a finished run (metrics.json is missing)"),
]


@pytest.mark.parametrize(("arguments", "message"), WRONG, ids=lambda one: " ".join(one) if len(one) < 7 else "")
def test_what_does_not_fit_is_one_line(arguments, message, tmp_path):
    torch.save(create_mambavision("nano").state_dict(), tmp_path / "nano.pth")
    places = {"here": tmp_path, "nano": tmp_path / "nano.pth"}
    assert message in refusal(*(one.format(**places) for one in arguments))


def test_a_record_without_its_checkpoint_says_how_to_make_it(monkeypatch):
    [record, *_] = sorted((COMMITTED / "dual_stream").glob("seed0-*"))
    monkeypatch.setattr("mammo_lib.runs.records.FRESH", BUILD / "none")
    said = refusal(record)
    assert "missing, because records are kept without weights; `MAMMO_RETRAIN=1 mammo run" in said


def test_without_the_extra_it_says_so(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    said = refusal("nano", "--weights", "random", "--out", tmp_path / "a.onnx")
    assert "onnxscript is not installed: pip install -c constraints.txt -e '.[export]'" in said


def test_the_ending_of_another_format_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"a\.onnx: that is the ending of another format"):
        deploy.export("nano", tmp_path / "a.onnx", to="torch-export", weights="random")


def test_a_size_of_nothing_is_refused(tmp_path):
    with pytest.raises(InputError, match="--size 0: must lie in"):
        deploy.export("nano", tmp_path / "a.onnx", weights="random", size=0)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names on this system")
def test_a_pipe_is_not_replaced_by_an_export(tmp_path):
    os.mkfifo(tmp_path / "pipe.onnx")
    with pytest.raises(InputError, match="a pipe, a socket or a device is there"):
        deploy.export("nano", tmp_path / "pipe.onnx", weights="random", size=32)
    assert (tmp_path / "pipe.onnx").is_fifo()
