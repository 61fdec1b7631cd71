"""Gates: overriding them by their own values changes nothing, by 1 gives MambaVision; the record is faithful."""

import numpy as np
import pandas as pd
import pytest
import torch

from mammo_lib import figures
from mammo_lib.analysis import diagnostics, gates
from mammo_lib.config import RunConfig, merged
from mammo_lib.models import SeqMoE, build_model, create_mambavision, mean_log_odds
from mammo_lib.models.gated_conv import GatedConvMixer
from mammo_lib.models.network import Network, load_best, predict
from mammo_lib.runs import records as runs
from mammo_lib.training import train


def seqmoe(scope="image"):
    torch.manual_seed(0)
    moe = SeqMoE(create_mambavision("nano", num_classes=0, window_sizes=(8, 8, 3, 3)), scope=scope).eval()
    for gate in moe.gates.values():
        torch.nn.init.normal_(gate.proj.weight)
    return moe


# Maps of 6 x 6 in four windows of stage 3, of 3 x 3 in one of stage 4: no token only pads.
IMAGE = torch.rand(3, 3, 96, 96, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("scope", ["image", "window", "token"])
def test_own_gates_as_overrides_change_nothing(scope):
    moe = seqmoe(scope)
    features, own = moe(IMAGE)
    again, returned = moe(IMAGE, own)
    assert torch.equal(again, features)
    assert all(torch.equal(returned[name], own[name]) for name in own)


@pytest.mark.parametrize("scope", ["image", "window", "token"])
def test_gates_forced_open_are_mambavision(scope):
    moe = seqmoe(scope)
    features, _ = moe(IMAGE, {name: torch.ones(len(IMAGE)) for name in moe.gates})
    assert torch.equal(features, moe.backbone.pool(moe.backbone.forward_stages(IMAGE)[-1]))


def test_only_the_named_gate_is_overridden_and_only_for_its_image():
    moe = seqmoe()
    own = moe(IMAGE)[1]
    first = own["stage3_block0"].clone()
    first[1] = 0.0
    features, forced = moe(IMAGE, {"stage3_block0": first})
    assert forced["stage3_block0"].tolist() == first.tolist()
    changed = [not torch.equal(one, other) for one, other in zip(features, moe(IMAGE)[0], strict=True)]
    assert changed == [False, True, False]


def test_an_override_without_a_gate_is_refused():
    with pytest.raises(ValueError, match=r"overrides must name gates \(stage3_block0, .*got \{'stage1_block0'\}"):
        seqmoe()(IMAGE, {"stage1_block0": torch.ones(3)})


def test_donors_are_others_with_the_same_views():
    present = torch.tensor([[1, 1]] * 5 + [[1, 0]] * 2 + [[0, 1]], dtype=torch.bool)
    for seed in range(20):
        other = gates.donors(present, np.random.default_rng(seed))
        assert sorted(other) == list(range(8))
        assert torch.equal(present[other], present)
        assert all(other[i] != i for i in range(7))
        assert other[7] == 7  # nobody else has only the second view


@pytest.fixture
def batch():
    present = torch.tensor([[True, True], [True, False], [True, True]])
    return {"images": {s: torch.rand(3, 2, 1, 32, 32) for s in ("crop", "whole")},
            "present": {"crop": present, "whole": present}, "row": torch.arange(3)}  # fmt: skip


def changed(config, **model):
    return RunConfig.model_validate(merged(config.model_dump(), {"model": model}))


def test_token_gates_are_captured_and_nothing_stays(tiny_profile, batch):
    model = build_model(changed(tiny_profile.run, mixer="gated_conv")).eval()
    mixers = [module for module in model.modules() if isinstance(module, GatedConvMixer)]
    inputs = []
    spy = mixers[0].gate.register_forward_hook(lambda _m, args, _o: inputs.append(args[0]))
    with torch.inference_mode(), gates.captured_token_gates(model) as captured:
        output = model(batch)
    spy.remove()
    assert not any(mixer.gate._forward_hooks for mixer in mixers)
    seen = gates.gate_values(output, captured, batch["present"])
    (i,) = [i for i, key in enumerate(seen.keys) if key == ("token", "crop", 3, 0)]
    # One window a view at 32 px, and views in the order (0, CC), (0, MLO), (1, CC), (2, CC), (2, MLO).
    with torch.inference_mode():
        by_view = mixers[0].token_gate(inputs[0]).mean(dim=-1)
    torch.testing.assert_close(seen.values[2, i, 0, 0], by_view[3].mean())
    torch.testing.assert_close(seen.values[2, i, 0, 1], by_view[3].std(correction=0))
    assert seen.values[1, i, 1].isnan().all()


def test_a_summary_is_the_arithmetic_of_its_breasts():
    values = torch.tensor([[0.2, 0.01], [0.4, 0.03], [torch.nan, torch.nan]])[:, None, None]  # one gate, one view
    numbers = gates.GateValues((gates.GateKey("seqmoe", "crop", 3, 0),), values, torch.tensor([[0.5, 0.0]] * 3))
    one, fusion = gates.summarise(numbers, ("CC",))
    # mean (0.2 + 0.4) / 2, sd 0.1, mean spread 0.02; the third breast lacks the view.
    assert one == pytest.approx({"kind": "seqmoe", "stream": "crop", "stage": 3, "block": 0, "view": "CC", "n": 2,
                                 "mean": 0.3, "sd": 0.1, "low": 0.2, "high": 0.4, "spread": 0.02})  # fmt: skip
    assert (fusion["kind"], fusion["n"], fusion["sd"]) == ("fusion", 3, 0.0)


@pytest.fixture(scope="module")
def trained(tiny_profile, collection, tmp_path_factory):
    """A trained run in a home of its own; its score averages flips, and so must all that is compared with it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runs, "FRESH", tmp_path_factory.mktemp("fresh"))
        patch.setattr(runs, "COMMITTED", tmp_path_factory.mktemp("committed"))
        flips = tiny_profile.run.train.model_copy(update={"flip_averaging": True})
        return train.train_run(tiny_profile.run.model_copy(update={"train": flips}), collection)


def test_a_run_records_every_gate_of_every_breast(trained):
    rows, breasts = trained.gates, len(trained.predictions)
    # nano: three blocks in stage 3, two in stage 4; two streams, two views; and one fusion gate.
    assert rows.groupby("kind").size().to_dict() == {"seqmoe": breasts * 5 * 2 * 2, "fusion": breasts}
    assert rows["value"].between(0, 1).all()
    assert rows["log_area"].lt(0).all()
    history = trained.gate_history
    assert history.groupby("epoch").size().tolist() == [21] * trained.config.train.epochs
    kept = trained.history["validation_auc"].idxmax()
    key = ["kind", "stream", "view", "stage", "block"]
    mean = rows.groupby(key)["value"].mean()
    recorded = history[history["epoch"] == kept].set_index(key)["mean"].reindex(mean.index)
    np.testing.assert_allclose(mean, recorded, atol=1e-5)


def test_interventions_are_what_they_say(trained, collection):
    scores = trained.interventions.merge(trained.predictions[["sample_id", "logit"]], on="sample_id")
    logits = {name: part["logit_x"].to_numpy() for name, part in scores.groupby("intervention")}
    as_is = scores.query("intervention == 'as_is'")
    np.testing.assert_allclose(as_is["logit_x"], as_is["logit_y"], rtol=1e-5)
    assert {name: len(logit) // len(as_is) for name, logit in logits.items()} == {
        "as_is": 1, "frozen": 1, "shut": 1, "open": 1, "shuffled": gates.N_SHUFFLES,
        "crop_shuffled": gates.N_STREAM_SHUFFLES, "whole_shuffled": gates.N_STREAM_SHUFFLES,
    }  # fmt: skip
    plain = load_best(trained)
    open_gates = Network(changed(trained.config, gate="none"))
    open_gates.load_state_dict({name: value for name, value in plain.state_dict().items() if ".gates." not in name})
    data = train.data_of(trained.config, collection.prepare("train", *trained.config.inputs))
    expected = predict(open_gates.eval(), data.val_dataloader(), data.cohort("validation"))["logit"]
    np.testing.assert_allclose(logits["open"], expected, rtol=1e-4, atol=1e-5)


def test_the_record_is_small(trained):
    bytes_ = sum((trained.folder / f"{name}.parquet").stat().st_size for name in ("gates", "interventions"))
    assert bytes_ < 1e6 / 20  # 12 breasts; the paper's 250 with 15 blocks instead of 5 make 60 times as many rows


def test_a_second_split_stands_beside_the_first(trained):
    rows = pd.DataFrame({"split": ["validation", "test"], "value": [1.0, 2.0]})
    joined = gates._beside(rows, pd.DataFrame({"split": ["test"], "value": [3.0]}), "test")
    assert joined["value"].tolist() == [1.0, 3.0]


def test_fusing_again_gives_the_logits(trained, collection):
    network = load_best(trained)
    data = train.data_of(trained.config, collection.prepare("train", *trained.config.inputs))
    seen = gates.observe(network, data.val_dataloader())
    with torch.inference_mode():
        again = [network.model.decide(embeddings, seen.present) for embeddings in seen.embeddings]
    assert len(again) == 2
    np.testing.assert_allclose(mean_log_odds(again).cpu(), seen.logit, rtol=1e-4, atol=1e-5)


def test_figures_say_what_the_record_holds(trained):
    rows, predictions = trained.gates, trained.predictions
    own = diagnostics.over_breasts(rows)
    table = diagnostics.intervention_table(
        diagnostics.intervention_scores(trained.interventions, predictions, "validation")
    )
    related = diagnostics.gate_correlations(rows, predictions, "validation")
    drawn = {
        "trajectories": figures.gate_trajectories(trained.gate_history, 0.88),
        "heatmap": figures.gate_heatmap(rows, predictions),
        "views": figures.gate_views(rows, predictions),
        "interventions": figures.intervention_forest(table),
        "correlations": figures.correlation_forest(related),
    }
    title = {name: figure.get_suptitle() for name, figure in drawn.items()}
    assert f"Gates start at 0.88 and end at {own['mean'].min():.2f}" in title["trajectories"]
    assert "over breasts a gate varies by" in title["heatmap"]
    assert f"{(table['p_holm'] < 0.05).sum() or 'None'} of 6 interventions" in title["interventions"]
    assert f"{(related['p_holm'] < 0.05).sum() or 'None'} of 16 correlations" in title["correlations"]
    assert "crop" in title["views"]
    assert all(figure.get_size_inches()[0] <= 7 for figure in drawn.values())
