"""Training: the files that it leaves, the cost of a kill, and the data that it must not touch."""

import contextlib
import dataclasses
import os
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from sklearn.metrics import roc_auc_score
from torch import nn

from mammo_lib.config import with_changes
from mammo_lib.data import Collection
from mammo_lib.data.cohort import split_cohort
from mammo_lib.errors import InputError
from mammo_lib.models.network import load_best
from mammo_lib.models.weights import read_torch
from mammo_lib.statistics import evaluate_predictions
from mammo_lib.training import train, trainer
from mammo_lib.training.optimisation import cosine_schedule, parameter_groups

from ..own_files import OwnFiles

pytestmark = pytest.mark.usefixtures("run_homes")


@pytest.fixture
def config(tiny_profile):
    return tiny_profile.configs()[0]


def test_a_run_leaves_a_whole_record(config, collection):
    run = train.train_run(config, collection)
    assert {path.name for path in run.folder.iterdir()} >= {
        "config.json", "environment.json", "history.csv", "predictions.parquet", "metrics.json", "best.ckpt",
    }  # fmt: skip
    assert list(run.history["epoch"]) == [0, 1]
    assert run.history[["train_loss", "validation_loss", "validation_auc", "learning_rate"]].notna().all(axis=None)
    assert run.predictions["probability"].between(0, 1).all()
    assert run.metrics["validation"] == evaluate_predictions(run.predictions)


def test_training_never_touches_the_test_set(config, collection, monkeypatch):
    asked = []
    original = type(collection).cohort
    monkeypatch.setattr(
        type(collection), "cohort", lambda self, c, split: asked.append(split) or original(self, c, split)
    )
    run = train.train_run(config, dataclasses.replace(collection, ready={}))
    assert set(asked) == {"train"}
    assert set(run.predictions["split"]) == {"validation"}
    assert not set(run.predictions["patient_id"]) & set(original(collection, config.data, "test")["patient_id"])


def test_a_finished_run_is_read_not_redone(config, collection, monkeypatch):
    first = train.train_run(config, collection)
    monkeypatch.setattr(train, "fit", lambda *a, **k: pytest.fail("trained again"))
    assert train.train_run(config, collection).folder == first.folder


def test_averaged_weights_are_the_ones_that_are_kept(config, collection):
    averaged = config.model_copy(update={"train": config.train.model_copy(update={"ema_decay": 0.999})})
    plain, slow = (load_best(train.train_run(one, collection)).state_dict() for one in (config, averaged))
    name = next(name for name in plain if name.endswith("heads.malignancy.3.weight"))
    train.lightning.seed_everything(config.seed, verbose=False)
    start = train.Classifier(config).state_dict()[name]
    # The average begins at the first step and hardly moves at a decay of 0.999; the trained weights go on.
    assert (slow[name].cpu() - start).norm() < 0.7 * (plain[name].cpu() - start).norm()


def test_memory_that_runs_out_says_what_to_lower(config, collection, monkeypatch):
    def exhausted(*a, **k):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")

    monkeypatch.setattr(train.Classifier, "training_step", exhausted)
    with pytest.raises(
        InputError, match=r"out of memory: lower train.batch_size \(4\) or data.image_size \(\[32, 32\]\)"
    ):
        train.train_run(config, collection)


def test_another_seed_gives_another_network(config, collection):
    one = train.train_run(config, collection).predictions["logit"]
    other = train.train_run(config.model_copy(update={"seed": 1}), collection).predictions["logit"]
    assert not one.equals(other)


def draw_lesion(rng, word, is_malignant):
    """A disc, or specks of the size that the word says, on noise that is brighter where the breast is malignant."""
    film = rng.integers(40, 70, (64, 64)) + (15 if is_malignant else 0)
    if word is pd.NA:
        y, x = np.mgrid[:64, :64] - rng.integers(24, 40, (2, 1, 1))
        return film + 40 * (np.hypot(y, x) < 20)
    side, n = {"PUNCTATE": (2, 20), "COARSE": (8, 5)}[word]
    for top, left in rng.integers(8, 56 - side, (n, 2)):
        film[top : top + side, left : left + side] = 255
    return film


@pytest.fixture(scope="module")
def two_kinds(tmp_path_factory):
    """48 breasts with every combination of label and lesion: a mass, punctate or coarse calcifications.

    The phantom does not do: it draws its few calcifications as it draws masses, so nothing tells them apart.
    """
    root, rng, rows = tmp_path_factory.mktemp("two_kinds"), np.random.default_rng(0), []
    for i in range(48):
        word = (pd.NA, pd.NA, "PUNCTATE", "COARSE")[i // 2 % 4]
        who = {"patient_id": f"P_{i:05d}", "pathology": ("BENIGN", "MALIGNANT")[i % 2], "calc_type": word,
               "lesion_type": "mass" if word is pd.NA else "calcification"}  # fmt: skip
        rows += [who | {"view": view, "image_path": f"{view}.png"} for view in ("CC", "MLO")]
        Image.fromarray(draw_lesion(rng, word, i % 2).astype(np.uint8)).save(root / f"P_{i:05d}_LEFT.png")
    unknown = dict.fromkeys(("density", "assessment", "subtlety"), pd.array([pd.NA] * len(rows), dtype="Int64"))
    table = pd.DataFrame(rows).assign(laterality="LEFT", split="train", abnormality_id=1, crop_path="", mask_path="")
    return Collection(root, table.assign(**unknown), OwnFiles(root, "{0}.png", (0.0, 0.0, 64.0, 64.0)))


@pytest.fixture
def several_targets(config):
    """A crop network of one view with heads for malignancy, the lesion and the type of calcifications."""
    changes = ["model.targets=[malignancy, lesion_type, calc_type]", "model.streams=[crop]", "model.views=[CC]",
               "data.definition=mass+calc", "train.epochs=8", "train.batch_size=6", "train.learning_rate=0.003",
               "train.keep=last"]  # fmt: skip
    return with_changes(config, changes)


def auc_by_head(run):
    """Return the validation AUC of calcification against mass, and of coarse calcifications against punctate ones."""
    rows = run.targets[run.targets["word"].isin(["calcification", "COARSE"])]
    return {name: roc_auc_score(one["is_true"], one["probability"]) for name, one in rows.groupby("target")}


def test_further_heads_learn_their_targets(several_targets, two_kinds):
    """Out of sample. A mass has no type of calcification, and is masked there."""
    run = train.train_run(several_targets, two_kinds)
    auc = auc_by_head(run)
    assert set(auc) == {"lesion_type", "calc_type"} and min(auc.values()) > 0.9, auc
    is_calcification = run.targets.query("word == 'calcification'").set_index("sample_id")["is_true"]
    typed = set(run.targets.query("target == 'calc_type'")["sample_id"])
    assert typed == set(is_calcification.index[is_calcification]) != set(is_calcification.index)


def test_heads_without_weight_learn_nothing(several_targets, two_kinds):
    """Weight decay shrinks a matrix and keeps its direction; vectors do not decay."""
    config = with_changes(several_targets, ["train.target_weight=0", "train.epochs=2"])
    run = train.train_run(config, two_kinds)
    train.lightning.seed_everything(config.seed, verbose=False)
    drawn, kept = train.Classifier(config).state_dict(), load_best(run).state_dict()
    heads = [name for name in kept if "heads." in name]
    has_moved = {name: not torch.allclose(kept[name] / kept[name].norm(), drawn[name] / drawn[name].norm(), atol=1e-6)
                 for name in heads if kept[name].norm() > 0}  # fmt: skip
    assert {name for name, moved in has_moved.items() if moved} == {name for name in heads if "malignancy" in name}


def with_words(config, **train_fields):
    """The config with a head for the phantom's mass shapes."""
    fields = {
        "model": config.model.model_copy(update={"targets": ("malignancy", "shape")}),
        "train": config.train.model_copy(update=train_fields),
    }
    return config.model_copy(update=fields)


def test_a_further_head_without_weight_changes_nothing(config, collection):
    """Bit by bit: neither the start of the network, nor its noise, nor its gradient depends on the second head."""
    alone = train.train_run(config, collection)
    beside = train.train_run(with_words(config, target_weight=0.0), collection)
    np.testing.assert_array_equal(alone.predictions["logit"], beside.predictions["logit"])
    assert beside.folder != alone.folder and alone.targets is None
    rows = beside.targets
    assert rows.groupby(["sample_id", "target"])["probability"].sum().to_numpy() == pytest.approx(1, abs=1e-5)
    assert (rows.groupby(["sample_id", "target"])["is_true"].sum() == 1).all()


@pytest.mark.parametrize("weighting", ["fixed", "uncertainty", "gradient"])
def test_every_weighting_of_a_further_head_trains(config, collection, weighting):
    run = train.train_run(with_words(config, target_weighting=weighting, epochs=1), collection)
    assert np.isfinite(run.history["train_loss_shape"]).all()
    kept = {key: one for key, one in read_torch(run.checkpoint)["state_dict"].items() if "log_variance" in key}
    assert [key.rpartition(".")[2] for key in kept] == (["main", "shape"] if weighting == "uncertainty" else [])
    assert all(one != 0 for one in kept.values())  # learned, and kept with the network
    load_best(run)  # which needs none of them


def test_a_record_says_what_each_input_is_worth(config, collection):
    run = train.train_run(config, collection)
    hidden, own = run.hidden_inputs, run.predictions.set_index("sample_id")["logit"]
    complete = hidden.query("views == 'CC+MLO' and streams == 'crop+whole'").set_index("sample_id")["logit"]
    np.testing.assert_allclose(complete, own[complete.index], rtol=1e-5)
    assert set(hidden["fill"]) == {"mask", "other_view", "mean"}


@pytest.mark.parametrize("field", ["view_dropout", "stream_dropout"])
def test_hiding_inputs_in_training_makes_another_network(config, collection, field):
    plain = train.train_run(config, collection).predictions["logit"]
    fields = {"train": config.train.model_copy(update={field: 0.5})}
    assert not plain.equals(train.train_run(config.model_copy(update=fields), collection).predictions["logit"])


def validation_breasts(config, collection):
    cohort = split_cohort(config.data, collection.prepare("train", *config.inputs).cohort)["validation"]
    return cohort["sample_id"].tolist()


@pytest.mark.slow
def test_two_processes_train_one_run(config, collection, tmp_path):
    """Lightning's ddp over gloo: as `devices=2` on one machine, from the command line."""
    two = config.model_copy(update={"train": config.train.model_copy(update={"devices": 2})})
    (tmp_path / "config.json").write_text(two.model_dump_json())
    command = [sys.executable, "-m", "mammo_lib.cli", "run", str(tmp_path / "config.json"), "--profile", "paper"]
    root = tmp_path / "root"
    (root / "book").mkdir(parents=True)
    env = os.environ | {"MAMMO_ROOT": str(root), "MAMMO_DATA": str(collection.root), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=env, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    (metrics,) = root.glob("_build/runs/*/*/metrics.json")
    history = pd.read_csv(metrics.parent / "history.csv")
    assert len(history) == two.train.epochs
    assert np.isfinite(history[["train_loss", "validation_loss"]]).all(axis=None)
    # Two processes pad the validation breasts to equal shares; one scores them and writes the record.
    predictions = pd.read_parquet(metrics.parent / "predictions.parquet")
    assert sorted(predictions["sample_id"]) == sorted(validation_breasts(two, collection))
    assert np.isfinite(predictions["logit"]).all()


def test_the_second_process_of_a_run_writes_no_record(config, collection, monkeypatch):
    monkeypatch.setattr(train, "first_process_alone", lambda: contextlib.nullcontext(False))
    run = train.train_run(config, collection)
    assert run.checkpoint.is_file()  # it trained
    assert not run.is_finished and not (run.folder / "predictions.parquet").exists()


@pytest.mark.parametrize("rank", [0, 1])
def test_a_process_waits_for_the_first(monkeypatch, rank):
    waits = []
    for name, answer in (("is_initialized", True), ("get_rank", rank)):
        monkeypatch.setattr(torch.distributed, name, lambda answer=answer: answer)
    monkeypatch.setattr(torch.distributed, "barrier", lambda: waits.append(True))
    with trainer.first_process_alone() as is_first:
        assert is_first == (rank == 0) and not waits
    assert waits == [True]


def test_schedule_warms_up_then_falls_to_zero():
    # 10 steps in 10 epochs, 2 of warm-up: 1/3, 2/3, then half a cosine over 8 steps from 1 to 0.
    factor = cosine_schedule(total_steps=10, warmup_steps=2)
    assert [factor(0), factor(1), factor(2)] == pytest.approx([1 / 3, 2 / 3, 1.0])
    assert factor(6) == pytest.approx(0.5)
    assert factor(10) == pytest.approx(0.0)


def test_vectors_and_scan_parameters_do_not_decay():
    module = nn.Module()
    module.linear = nn.Linear(3, 2)
    module.mixer = nn.Module()
    module.mixer.A_log = nn.Parameter(torch.zeros(2, 2))
    module.mixer.D = nn.Parameter(torch.zeros(2))
    decayed, exempt = parameter_groups(module, 0.05, 1e-3, 1e-4)
    assert [tuple(p.shape) for p in decayed["params"]] == [(2, 3)]
    assert len(exempt["params"]) == 3
    assert (decayed["weight_decay"], exempt["weight_decay"]) == (0.05, 0.0)


def test_encoders_learn_at_their_own_rate():
    module = nn.ModuleDict({"backbone": nn.Linear(3, 2), "classifier": nn.Linear(2, 2)})
    outer = nn.ModuleDict({"encoder": module})
    rates = {name: group["lr"] for group in parameter_groups(outer, 0.05, 1e-3, 1e-4) for name, p in
             outer.named_parameters() if any(p is one for one in group["params"])}  # fmt: skip
    assert rates == {
        "encoder.backbone.weight": 1e-4, "encoder.backbone.bias": 1e-4,
        "encoder.classifier.weight": 1e-3, "encoder.classifier.bias": 1e-3,
    }  # fmt: skip
