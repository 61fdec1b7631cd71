"""The network of a run: read from its checkpoint and applied to batches."""

import shutil

import numpy as np
import pytest
import torch

from mammo_lib.data.loader import BreastDataset, in_batches
from mammo_lib.errors import InputError
from mammo_lib.models.network import Network, load_best, predict, to_device
from mammo_lib.runs.predictions import as_predictions
from mammo_lib.runs.records import Run


@pytest.fixture(scope="module")
def run(untrained_run):
    return untrained_run()


@pytest.fixture(scope="module")
def validation(run, collection):
    """Batches of the phantom's training breasts, and their cohort."""
    prepared = collection.prepare("train", *run.config.inputs)
    return in_batches(BreastDataset(prepared, prepared.cohort), run.config.train), prepared.cohort


def with_checkpoint(run, folder, change):
    """Copy a run and change what its checkpoint holds; the manifest is left out, so that the file is what is judged."""
    shutil.copytree(run.folder, folder / "copy", ignore=shutil.ignore_patterns("manifest.json"))
    copy = Run(folder / "copy")
    held = torch.load(run.checkpoint, weights_only=True)
    change(held["state_dict"])
    torch.save(held, copy.checkpoint)
    return copy


def test_every_breast_is_scored_in_its_row(run, validation):
    batches, cohort = validation
    found, network = predict(load_best(run), batches, cohort), load_best(run)
    assert found["sample_id"].tolist() == cohort["sample_id"].tolist()
    first = to_device(next(iter(batches)), network.device)
    with torch.inference_mode():
        np.testing.assert_array_equal(found["logit"][: len(first["row"])], network.score(first)[0].cpu().numpy())


def test_a_breast_that_no_batch_holds_is_named(run, validation):
    batches, cohort = validation
    with pytest.raises(ValueError, match=rf"hold 4 of {len(cohort)} breasts; the first without is {cohort.iloc[4, 0]}"):
        predict(load_best(run), [next(iter(batches))], cohort)


def test_a_checkpoint_in_half_precision_is_read_in_full(run, validation, tmp_path):
    def halve(state):
        state.update({key: one.half() if one.is_floating_point() else one for key, one in state.items()})

    batches, cohort = validation
    network = load_best(with_checkpoint(run, tmp_path, halve))
    assert {one.dtype for one in network.parameters()} == {torch.float32}
    np.testing.assert_allclose(
        predict(network, batches, cohort)["logit"], predict(load_best(run), batches, cohort)["logit"], atol=0.05
    )


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda state: state.popitem(), "missing"),
        (lambda state: state.update({next(iter(state)): torch.zeros(3)}), "model"),
        (lambda state: next(iter(state.values())).fill_(torch.nan), "model"),
        (lambda state: state.update({"model.other": torch.zeros(1)}), "model.other"),
    ],
)
def test_weights_of_another_network_are_refused(run, tmp_path, change, says):
    with pytest.raises(InputError, match=f"not the finite weights of this run's network: .*{says}"):
        load_best(with_checkpoint(run, tmp_path, change))


def test_weights_of_the_loss_are_not_the_networks(run, tmp_path):
    learned = {"joint_loss.log_variance.main": torch.ones(())}
    load_best(with_checkpoint(run, tmp_path, lambda state: state.update(learned)))


def test_a_network_is_scored_as_its_config_says(run, validation):
    batch = next(iter(validation[0]))
    train = run.config.train.model_copy(update={"flip_averaging": not run.config.train.flip_averaging})
    torch.manual_seed(0)
    one = Network(run.config).eval()
    torch.manual_seed(0)
    other = Network(run.config.model_copy(update={"train": train})).eval()
    assert {len(one.passes(batch)), len(other.passes(batch))} == {1, 2}


def test_extreme_logits_are_probabilities_without_a_warning(validation):
    cohort = validation[1]
    logits = np.where(np.arange(len(cohort)) % 2, 800.0, -800.0)
    assert as_predictions(cohort, logits)["probability"].tolist() == [0.0, 1.0] * (len(cohort) // 2)
