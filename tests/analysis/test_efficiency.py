"""Chapter 10's record: it agrees with the counter, and growth is a slope."""

import json

import numpy as np
import pandas as pd
import pytest
import torch

from mammo_lib import figures
from mammo_lib.analysis import efficiency
from mammo_lib.errors import InputError
from mammo_lib.models import create_mambavision
from mammo_lib.models.cost import cost_of


def test_the_record_is_recounted():
    row = efficiency.counted().set_index(["network", "side"]).loc[("MambaVision-T", 448)]
    cost = cost_of(lambda: create_mambavision("T"), lambda network: network(torch.zeros(1, 3, 448, 448)))
    assert row["g"] == cost.total / 2e9 and row["million_parameters"] == cost.parameters / 1e6
    assert row["kept_gb"] == cost.kept_bytes / 1e9
    assert row["selective scan"] == cost.operations["selective scan"] / cost.total


def test_shares_are_of_the_whole():
    table = efficiency.counted()
    parts = table[["convolution", "matrix product", "attention", "selective scan"]]
    assert parts.sum(axis=1).to_numpy() == pytest.approx(1)


def test_growth_is_measured_with_its_noise(tmp_path):
    rng = np.random.default_rng(0)
    rows = [
        {"network": "a", "side": side, "step": "inference", "seconds": (side**2 * (1 + 0.02 * rng.random(9))).tolist()}
        for side in (224, 448, 672)
    ]
    (row,) = efficiency.measured_growth(pd.DataFrame(rows)).to_dict("records")
    assert row["exponent_low"] <= row["exponent"] <= row["exponent_high"]
    assert row["exponent"] == pytest.approx(1, abs=0.02)


def test_a_record_without_measurements_or_none_at_all(tmp_path):
    path = tmp_path / "efficiency.json"
    with pytest.raises(InputError, match=r"efficiency\.json"):
        efficiency.counted(path)
    path.write_text(json.dumps({"counted": []}))
    assert efficiency.measured(path).empty


def test_the_figures_of_costs_say_what_they_draw():
    table = efficiency.counted()
    drawn = figures.cost_growth(table[table["network"] == "ViT-S"], "g", "work", "it grows")
    (axes,) = drawn.axes
    assert [line.get_label() for line in axes.lines] == ["ViT-S", "proportional to pixels"]
    bars = figures.cost_parts(table.head(2), ["one", "two"], "parts").axes[0].patches
    assert sum(bar.get_width() for bar in bars) == pytest.approx(200)
