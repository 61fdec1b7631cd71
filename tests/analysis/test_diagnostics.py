"""Findings on constructed records: each failure is found where it was built in, and nowhere else."""

import math

import numpy as np
import pandas as pd
import pytest

from mammo_lib.analysis import diagnostics as d

RNG = np.random.default_rng(0)
N = 40
LABEL = np.arange(N) % 2
WHO = pd.DataFrame({
    "split": "validation", "sample_id": [f"b{i:02d}" for i in range(N)],
    "patient_id": [f"p{i // 4}{i % 2}" for i in range(N)],
    "label": LABEL, "density": 1 + np.arange(N) // 2 % 4, "assessment": 3 + LABEL, "probability": 0.2 + 0.6 * LABEL,
})  # fmt: skip


@pytest.fixture(autouse=True)
def few_resamples(monkeypatch):
    """Correlations here are 0 or near 1; 200 resamples tell them apart."""
    monkeypatch.setattr(d, "N_RESAMPLES", 200)


def gates(value) -> pd.DataFrame:
    """Rows of two streams, two views, two blocks: ``value(breast, stream, view, block)``."""
    return pd.DataFrame([
        {"split": "validation", "sample_id": who, "kind": "seqmoe", "stream": stream, "view": view, "stage": 3,
         "block": block, "value": value(i, stream, view, block), "spread": 0.0, "log_area": -5 + i / N}
        for i, who in enumerate(WHO["sample_id"]) for stream in ("crop", "whole") for view in ("CC", "MLO")
        for block in (0, 1)
    ])  # fmt: skip


@pytest.mark.parametrize(("name", "value", "holds"), [
    ("constant away from the start", lambda *_: 0.6, True),
    ("constant and open", lambda *_: 0.999, True),
    ("still at the start", lambda *_: d.initial_gate(2.0) + 0.002, False),
    ("different for every breast", lambda i, *_: 0.5 + 0.01 * i, False),
    ("one of two blocks constant", lambda i, s, v, block: 0.6 if block else 0.5 + 0.01 * i, True),
])  # fmt: skip
def test_saturation_is_constancy_away_from_the_start(name, value, holds):
    finding = d.gate_saturation(d.over_breasts(gates(value)), gate_bias=2.0)
    assert finding.holds == holds, name
    assert "moved from 0.88" in finding.sentence


def test_saturation_names_the_shares():
    # Half of the gates never left sigmoid(2); the other half is the same for every breast at 0.3.
    found = d.gate_saturation(
        d.over_breasts(gates(lambda i, s, v, block: d.initial_gate(2.0) if block else 0.3)), gate_bias=2.0
    )
    assert found.value == 0.5
    assert "4 of 8 gates have moved from 0.88 and are stuck" in found.sentence
    assert "4 of 8 have not moved" in found.sentence


@pytest.mark.parametrize(("value", "explains"), [
    (lambda i, stream, view, block: 0.2 + 0.5 * block, "block"),
    (lambda i, stream, view, block: 0.2 + 0.5 * (view == "CC"), "view"),
    (lambda i, stream, view, block: 0.2 + 0.01 * i, "breast"),
    (lambda i, stream, view, block: 0.5 + 0.01 * (i - (N - 1) / 2) * (2 * block - 1), "breast x block"),
])  # fmt: skip
def test_the_variance_goes_to_what_made_it(value, explains):
    shares = d.variance_shares(gates(value))
    assert shares[explains] == pytest.approx(1.0)
    assert sum(shares.values()) == pytest.approx(1.0)


def test_constant_gates_have_no_variance_to_explain():
    assert all(math.isnan(share) for share in d.variance_shares(gates(lambda *_: 0.5)).values())


@pytest.mark.parametrize(("weight", "holds", "said"), [
    (0.99, True, "0.99: the whole stream is ignored"),
    (0.01, True, "0.01: the crop stream is ignored"),
    (0.60, False, "silences neither stream"),
])  # fmt: skip
def test_fusion_dominance(weight, holds, said):
    finding = d.fusion_dominance(np.full(8, weight))
    assert finding.holds == holds
    assert said in finding.sentence


def test_overcalling():
    everything = d.overcalling(LABEL, np.full(N, 0.9))
    assert everything.holds
    assert everything.value == 0.0
    assert not d.overcalling(LABEL, 0.2 + 0.6 * LABEL).holds


def interventions(**logits) -> pd.DataFrame:
    """Each keyword an intervention: (breasts,) or (draws, breasts)."""
    return d.intervention_scores(pd.concat([
        pd.DataFrame({"split": "validation", "sample_id": WHO["sample_id"], "intervention": name, "draw": draw,
                      "logit": logit})
        for name, draws in logits.items() for draw, logit in enumerate(np.atleast_2d(draws))
    ]), WHO, "validation")  # fmt: skip


SIGNAL = LABEL + RNG.normal(0, 0.5, N)
NOISE = RNG.normal(0, 0.5, (5, N))


def test_a_stream_that_says_nothing_is_found_by_exchange():
    scores = interventions(as_is=SIGNAL, crop_shuffled=NOISE, whole_shuffled=SIGNAL + 1e-9 * NOISE)
    crop, whole = d.stream_dominance(d.intervention_table(scores))
    assert (crop.holds, whole.holds) == (False, True)
    assert crop.value > 0.3
    assert "no evidence that the whole stream is used" in whole.sentence


def test_a_network_that_guesses_uses_no_stream_that_could_be_ignored():
    (crop,) = d.stream_dominance(d.intervention_table(interventions(as_is=NOISE[0] - SIGNAL, crop_shuffled=NOISE)))
    assert not crop.holds
    assert "cannot be judged" in crop.sentence


def test_interventions_that_change_nothing_and_that_change_all():
    table = d.intervention_table(interventions(as_is=SIGNAL, frozen=SIGNAL, shuffled=NOISE)).set_index("intervention")
    assert table.loc["frozen", ["change", "p", "moved"]].tolist() == [0.0, 1.0, 0.0]
    assert table.loc["shuffled", "change"] < -0.3
    assert table.loc["shuffled", "p_holm"] < 0.01
    assert table.loc["shuffled", "p_holm"] == pytest.approx(2 * table.loc["shuffled", "p"])


def test_interventions_out_of_fold_are_compared_within_folds():
    """Networks of two folds on two scales: exchanging nothing costs nothing, and the scales do not count."""
    fold = np.arange(N) % 4 // 2
    scores = interventions(as_is=SIGNAL + 10 * fold, frozen=2 * SIGNAL + 20 * fold, shuffled=NOISE).assign(
        fold=lambda rows: rows["sample_id"].map(dict(zip(WHO["sample_id"], fold, strict=True)))
    )
    table = d.intervention_table(scores).set_index("intervention")
    assert table.loc["frozen", "change"] == 0 and table.loc["frozen", "p_holm"] == 1
    assert table.loc["shuffled", "change"] < -0.2 and table.loc["shuffled", "high"] < 0
    assert table.loc["frozen", "auc"] > 0.85  # pooled over folds it would be near 0.5


def test_what_differs_between_networks_is_no_adaptation():
    """Gates that are constant within each fold's network: all variance lies between blocks and views."""
    fold = np.arange(N) % 2
    own = gates(lambda i, s, v, b: 0.2 + 0.1 * b + 0.5 * fold[i]).assign(
        fold=lambda rows: rows["sample_id"].map(dict(zip(WHO["sample_id"], fold, strict=True)))
    )
    assert d.variance_shares(own)["breast"] > 0.5
    shares = d.variance_shares(d.within_folds(own))
    assert shares["breast"] + shares["breast x block"] == pytest.approx(0, abs=1e-9)
    assert set(d.first_network(own)["fold"]) == {0}
    alone = own.drop(columns="fold")
    assert d.within_folds(alone) is alone and d.first_network(alone) is alone


def test_correlations_find_what_the_gates_follow():
    table = d.gate_correlations(gates(lambda i, s, v, b: 0.5 + 0.3 * LABEL[i] + 0.001 * i), WHO, "validation")
    rho = table.set_index(["stream", "property"])["rho"]
    assert len(table) == 2 * 4
    assert rho["crop", "malignancy"] == pytest.approx(0.866, abs=0.01)  # 20 below, 20 above: sqrt(3)/2 of the ranks
    assert (table.query("property in ('malignancy', 'BI-RADS')")["p_holm"] < 0.05).all()
    noise = RNG.uniform(size=N)
    random = d.gate_correlations(gates(lambda i, *_: noise[i]), WHO, "validation")
    assert (random["p_holm"] > 0.05).all()


def test_a_perfect_correlation_has_no_interval():
    who = WHO.assign(density=np.arange(N), assessment=0, subtlety=0)
    table = d.gate_correlations(gates(lambda i, *_: i / N), who, "validation").set_index("property")
    assert table.loc["density", "rho"].tolist() == pytest.approx([1, 1])
    assert table.loc["density", ["low", "high"]].isna().all(axis=None)
    few = d._rank_correlation(*[pd.Series([1.0, 2.0, 2.0, 3.0])] * 2, pd.Series(range(4)), 0)
    assert few["p"] == pytest.approx(2 / 12)  # 4! / 2! orders


def test_unknown_densities_are_left_out_and_constants_have_no_rank():
    who = WHO.assign(density=[0] * 10 + [1, 2, 3] * 10, assessment=4)
    table = d.gate_correlations(gates(lambda i, *_: i / N), who, "validation").set_index("property")
    assert set(table.loc["density", "n"]) == {30}
    assert table.loc["BI-RADS", "rho"].isna().all()


def test_a_property_that_no_breast_has_is_left_out():
    table = d.gate_correlations(gates(lambda i, *_: i / N).assign(log_area=np.nan), WHO, "validation")
    assert "lesion size" not in set(table["property"]) and set(table["property"]) == {
        "density",
        "BI-RADS",
        "malignancy",
    }


def test_the_verdict_follows_the_interventions():
    own = gates(lambda i, s, v, b: 0.5 + 0.3 * LABEL[i])
    facts = d.variance_shares(own), d.gate_correlations(own, WHO, "validation")
    unused = d.intervention_table(interventions(as_is=SIGNAL, frozen=SIGNAL, shuffled=np.stack([SIGNAL] * 3)))
    used = d.intervention_table(interventions(as_is=SIGNAL, frozen=NOISE[0], shuffled=NOISE))
    assert d.routing_verdict(*facts, unused).startswith("We found no evidence that the score depends on")
    assert d.routing_verdict(*facts, used).startswith("The score depends on breast-specific gate values")
    said = "by block, make up 100% of the gates' variance, differences between blocks alone 0%. 4 of 8"
    assert said in d.routing_verdict(*facts, used)


def test_attention_is_a_bottleneck_where_it_takes_most():
    small = {"image_size": 224, "batch_size": 8, "time_share": 0.1, "memory_share": 0.2}
    large = {"image_size": 1024, "batch_size": 8, "time_share": 0.3, "memory_share": 0.6}
    finding = d.attention_bottleneck(pd.DataFrame([small, large]))
    assert (finding.holds, finding.value) == (True, 0.6)
    assert "at 1024 px, batch 8" in finding.sentence
    assert not d.attention_bottleneck(pd.DataFrame([small])).holds


def test_interventions_that_are_scored_otherwise_than_the_headline_are_said():
    who = {"sample_id": list("abcd"), "label": [0, 1, 0, 1], "patient_id": list("abcd")}
    scores = pd.DataFrame({"intervention": "as_is", "draw": 0, "logit": [0.0, 1.0, 2.0, 3.0], **who})
    same = pd.DataFrame({**who, "logit": [0.0, 1.0, 2.0, 3.0]})
    assert d.scoring_note(scores, same) == "Interventions are scored in the same way as the predictions."
    # As it is 3 of 4 pairs are in order; in the headline all of them.
    note = d.scoring_note(scores, same.assign(logit=[0.0, 2.5, 2.0, 3.0]))
    assert "an AUC of 1.000 in the headline and 0.750 here" in note


def test_a_gate_that_starts_shut_starts_at_0():
    assert d.initial_gate(-800) == 0.0
