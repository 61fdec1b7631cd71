"""Trained networks with overridden gates."""

from types import SimpleNamespace

import pandas as pd
import pytest

from mammo_lib.analysis import answers, overridden_gates
from mammo_lib.config import get_profile

PROFILE = get_profile("mirror-cv")


def test_overridden_gates_are_compared_with_the_network_as_it_is(tmp_path, write_repeat):
    learned = [write_repeat(tmp_path, "crop", seed, 1.5) for seed in (0, 1)]
    table = overridden_gates.interventions({"crop": learned})
    assert table[["network", "intervention", "answer", "repeats"]].to_numpy().tolist() == [
        ["crop", "shut", "different", 2]
    ]
    waiting = overridden_gates.interventions({"crop": learned, "crop_gate_token": ()})
    assert waiting["network"].tolist() == ["crop"] and waiting.attrs["waiting"] == len(overridden_gates.OVERRIDDEN)
    single = answers.compare_repeats(learned, [run_with_shut_gates(run) for run in learned])
    assert waiting["p_difference"].iloc[0] == pytest.approx(min(1, 5 * single.p))  # Holm: of one and four planned


def run_with_shut_gates(run):
    shut = run.interventions.query("intervention == 'shut'").set_index("sample_id")["logit"]
    frame = run.predictions
    return SimpleNamespace(config=run.config, predictions=frame.assign(logit=frame["sample_id"].map(shut)))


def test_networks_without_learned_gates_have_nothing_to_override():
    networks = overridden_gates.gated_networks(PROFILE, {})
    assert {"crop", "crop_gate_token", "crop_160_16"} <= set(networks)
    assert not {"crop_plain", "crop_gate_fixed", "crop_gate_random", "long_plain"} & set(networks)


def test_routing_is_told_network_by_network():
    row = {"difference": -0.02, "difference_low": -0.03, "difference_high": -0.01, "reach": 0.01}
    told = [("a", "frozen", "equivalent"), ("a", "open", "equivalent"), ("a", "shut", "different")]
    told += [("b", "frozen", "different"), ("b", "shuffled", "equivalent")]
    table = pd.DataFrame([{"network": n, "intervention": i, "answer": a, **row} for n, i, a in told])
    said = overridden_gates.routing(table)
    assert said.startswith("In 1 of 2 networks with learned gates the score is equivalent")
    assert "or open: `a`. In `b`: frozen: different, -0.020 (-0.030 to -0.010); shuffled: equivalent" in said
    assert "shut" not in said
