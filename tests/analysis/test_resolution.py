"""Sizes of the input: one row per classifier and side; what cannot be set side by side is left out."""

import re

from mammo_lib.analysis import resolution
from mammo_lib.analysis.answers import find_repeats
from mammo_lib.config import get_profile


def test_only_square_inputs_of_one_stream_stand_side_by_side():
    repeats = resolution.every_side() | find_repeats(get_profile("mirror-cv"))
    table = resolution.by_side({name: repeats[name] for name in ("dual", "crop_96_8", "whole", "whole_tall", "crop")})
    assert table["images"].tolist() == ["crops", "whole films"] and table["side"].tolist() == [96, 96]
    assert set(table["classifier"]) == {"trained network, stride 16"}
    assert (table["auc_low"] < table["auc"]).all() and (table["auc"] < table["auc_high"]).all()


def test_frozen_stages_have_every_planned_side_of_both_images():
    rows = resolution.by_side(resolution.every_side()).query("classifier == @resolution.FROZEN")
    assert rows.groupby("images")["side"].apply(list).to_dict() == {
        "crops": [96, 160, 224, 384], "whole films": [96, 160, 224, 384, 512],
    }  # fmt: skip
    assert set(rows["repeats"]) == {5}


def test_a_network_below_its_own_frozen_stages_is_told():
    said = resolution.training_in_short(resolution.every_side())
    gap = float(re.search(r"differs by ([-+.0-9]+)", said)[1])
    assert gap < 0 and "not planned" in said and "10 of its 10 fits are stuck" in said
    assert resolution.training_in_short({}) == "" and resolution.by_side({}).empty


def test_what_has_not_been_run_is_counted():
    assert resolution.films_in_short({}).count("Planned comparisons that have not been run") == 4
    assert resolution.again_in_short({}, {}).count("Nothing has been compared with") == 3


def test_the_mode_of_the_encoder_is_told_and_compared_within_itself():
    """The networks of protocol 9 are compared with the second series' network on 96 px, not with the first's."""
    again, sizes = resolution.in_training_mode(), resolution.every_side()
    assert {run.config.train.cached_encoder for runs in again.values() for run in runs} == {"training"}
    table = resolution.by_side(again)
    assert set(table["classifier"]) == {"trained network, stride 16, training mode"}
    said = resolution.again_in_short(again, sizes)
    assert "; whole 128: " in said and "the network trained on them" in said
