"""Hidden inputs: the scores are those that the network gives a breast for which these images were never taken."""

import numpy as np
import pandas as pd
import pytest
import torch

from mammo_lib.analysis import gates, hidden_inputs
from mammo_lib.data.cohort import split_cohort
from mammo_lib.models.network import load_best
from mammo_lib.training import train


@pytest.fixture(scope="module", params=["concat", "mean"])
def network(request, untrained_run, collection):
    """An untrained dual network over the phantom's validation breasts, observed."""
    run = untrained_run(view_fusion=request.param)
    network, prepared = load_best(run), collection.prepare("train", *run.config.inputs)
    data = train.data_of(run.config, prepared)
    return run.config, network, data, gates.observe(network, data.val_dataloader())


@pytest.fixture(scope="module")
def table(network):
    config, network, data, seen = network
    training = hidden_inputs.mean_embeddings(seen)
    return hidden_inputs.score_hidden(network.model, seen, data.cohort("validation"), config.model.views, training)


def logits(table, views, streams, fill="mask"):
    rows = table[(table["views"] == views) & (table["streams"] == streams) & (table["fill"] == fill)]
    return rows["logit"].to_numpy()


def test_every_combination_is_there_once_per_breast(table, network):
    n = len(network[2].cohort("validation"))
    counts = table.groupby(["views", "streams", "fill"]).size()
    assert (counts == n).all() and len(counts) == 3 * (1 + 2 * 3)


def test_complete_input_is_the_score_of_the_run(table, network):
    np.testing.assert_allclose(logits(table, "CC+MLO", "crop+whole"), network[3].logit, rtol=1e-5)


@pytest.mark.parametrize(
    ("views", "streams"), [("CC", "crop+whole"), ("MLO", "crop+whole"), ("CC+MLO", "whole"), ("MLO", "crop")]
)
def test_a_mask_is_a_film_that_was_never_taken(table, network, views, streams):
    """The network run anew on batches that lack the input gives the same scores."""
    config, network, data, _ = network
    found = []
    with torch.inference_mode():
        for batch in data.val_dataloader():
            kept = torch.tensor([view in views for view in config.model.views])
            present = {s: p & kept & (s in streams.split("+")) for s, p in batch["present"].items()}
            found.append(network.score(batch | {"present": present})[0])
    np.testing.assert_allclose(logits(table, views, streams), torch.cat(found).numpy(), rtol=1e-4, atol=1e-5)


def test_the_other_view_fills_like_a_mask_where_views_are_averaged(table, network):
    filled, masked = (logits(table, "CC", "crop+whole", fill) for fill in ("other_view", "mask"))
    if network[0].model.view_fusion == "mean":
        np.testing.assert_allclose(filled, masked, rtol=1e-4, atol=1e-5)
    else:
        assert not np.allclose(filled, masked)


def test_a_mean_embedding_does_not_depend_on_the_hidden_view(network):
    """Two breasts with the same CC view and different MLO views get one score when the MLO view is filled."""
    config, network, data, seen = network
    training = hidden_inputs.mean_embeddings(seen)
    twin = {s: torch.cat([e[:1], torch.stack([e[0, 0], e[1, 1]])[None]]) for s, e in seen.embeddings[0].items()}
    two = gates.Observation(seen.logit[:2], seen.numbers, {}, [twin], {s: p[:2] for s, p in seen.present.items()})
    cohort = data.cohort("validation").iloc[:2]
    one = hidden_inputs.score_hidden(network.model, two, cohort, config.model.views, training)
    for fill in ("mask", "other_view", "mean"):
        first, second = logits(one, "CC", "crop+whole", fill)
        assert first == pytest.approx(second)
    first, second = logits(one, "CC+MLO", "crop+whole")
    assert first != pytest.approx(second)


def test_the_mean_embedding_is_over_breasts_that_have_the_view(network):
    seen = network[3]
    embeddings = {s: e.clone() for s, e in seen.embeddings[0].items()}
    present = {s: p.clone() for s, p in seen.present.items()}
    embeddings["crop"][0, 1], present["crop"][0, 1] = 0, False
    changed = gates.Observation(seen.logit, seen.numbers, {}, [embeddings], present)
    mean = hidden_inputs.mean_embeddings(changed)["crop"][1]
    torch.testing.assert_close(mean, seen.embeddings[0]["crop"][1:, 1].mean(dim=0))


def test_breasts_of_one_view_are_named_by_it(network):
    config, _, data, seen = network
    present = {s: p.clone() for s, p in seen.present.items()}
    for one in present.values():
        one[0, 0] = False
    changed = gates.Observation(seen.logit, seen.numbers, {}, seen.embeddings, present)
    rows = hidden_inputs.score_as_taken(changed, data.cohort("validation"), config.model.views, ("crop", "whole"))
    assert rows["views"].tolist() == ["MLO", *["CC+MLO"] * (len(rows) - 1)]
    np.testing.assert_array_equal(rows["logit"], seen.logit.astype(np.float32))


def test_extra_breasts_are_each_held_out_once_and_change_no_fold(network):
    """A phantom has no breast of one view, so the cohort here is made of names."""
    config = network[0]
    rng = np.random.default_rng(0)
    proper = pd.DataFrame({"sample_id": [f"b{i}" for i in range(40)], "patient_id": [f"p{i}" for i in range(40)]})
    extra = pd.DataFrame(
        {
            "sample_id": [f"e{i}" for i in range(24)],
            "patient_id": [f"p{i}" if i < 6 else f"q{i // 2}" for i in range(24)],
        }
    )
    cohort = pd.concat([proper.assign(is_extra=False), extra.assign(is_extra=True)], ignore_index=True)
    cohort["label"], cohort["split"] = rng.integers(0, 2, len(cohort)), "train"
    seen = []
    for fold in range(4):
        data = config.data.model_copy(update={"n_folds": 4, "fold": fold, "hold_out_extra": True})
        parts, plain = (
            split_cohort(data, cohort),
            split_cohort(data.model_copy(update={"hold_out_extra": False}), cohort),
        )
        pd.testing.assert_frame_equal(parts["validation"], plain["validation"])
        assert not {*parts["train"]["patient_id"]} & {*parts["validation"]["patient_id"], *parts["extra"]["patient_id"]}
        assert len(plain["extra"]) == 0
        seen += parts["extra"]["sample_id"].tolist()
    assert sorted(seen) == sorted(extra["sample_id"])
