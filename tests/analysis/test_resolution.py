"""Sizes of the input: one row per classifier and side; networks that are not comparable are left out."""

import re

from mammo_lib.analysis import resolution
from mammo_lib.analysis.answers import against, find_repeats
from mammo_lib.analysis.sentences import brief
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
    assert len(re.findall("Planned comparisons with .*? that have not been run", resolution.films_in_short({}))) == 3
    assert resolution.again_in_short({}, {}).count("that have not been run: ") == 3
    said = resolution.larger_in_short({})
    assert [int(n) for n in re.findall(r"not been run: (\d)", said)] == [2, 1, 1] and "Fits" not in said


def test_networks_of_protocol_10_are_compared_with_those_of_the_second_series():
    again = {name: resolution.in_training_mode()[name] for name in ("crop", "crop_160_16", "whole", "whole_128")}
    made_up = {"crop_384_16": again["crop_160_16"], "whole_384": again["whole_128"]}
    said = resolution.larger_in_short(again | made_up)
    profile = get_profile("mirror-resolution-training")
    table = against(profile, ["crop_224_16", "crop_384_16"], again["crop"], again | made_up)
    assert brief(table, "crops of 96 px") in said and len(table) == 1
    assert "; 160 px: none of 10" in said and "128 px" not in said and "whole films, 384 px: " in said


def test_a_network_without_token_blocks_is_no_size():
    own = find_repeats(get_profile("mirror-cv-training"))
    assert resolution.by_side({name: own[name] for name in ("crop", "crop_no_blocks")})["side"].tolist() == [96]


def test_the_mode_of_the_encoder_is_told_and_compared_within_itself():
    """The networks of protocol 9 are compared with the second series' network on 96 px, not with the first's."""
    again, sizes = resolution.in_training_mode(), resolution.every_side()
    assert {run.config.train.cached_encoder for runs in again.values() for run in runs} == {"training"}
    table = resolution.by_side(again)
    assert set(table["classifier"]) == {"trained network, stride 16, training mode"}
    said = resolution.again_in_short(again, sizes)
    assert "; 128 px: 2 of 10" in said and "the network trained on them" in said
