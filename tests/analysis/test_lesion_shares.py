"""Maps and lesions: the permutation test agrees with arithmetic by hand and holds its level; its figure is right."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from mammo_lib import figures
from mammo_lib.analysis import lesion_shares

from .test_maps import drawn, network_of

FULL = np.ones((4, 4), bool)
CORNER = np.pad(np.ones((2, 2)), ((0, 2), (0, 2)))
SHARE = lesion_shares.LesionShare(value=1.5, chance=1.0, low=0.9, high=1.1, p=0.01, n=25, share=0.15, area=0.1)


def test_lesion_share_by_hand():
    # A 2 x 2 box has 9 places in 4 x 4; of the corner's mass they hold 1, 1/2, 1/2, 1/4 and five times nothing, on
    # average a quarter, as much as of the area.
    found = lesion_shares.lesion_share([CORNER] * 9, [FULL] * 9, [(0, 0, 2, 2)] * 9, "abcdefghi", n_draws=20_000)
    assert (found.share, found.area, found.value) == pytest.approx((1.0, 0.25, 4.0))
    assert found.chance == pytest.approx(1.0, abs=0.02)
    assert found.n == 9
    assert found.p < 0.001


def test_an_even_map_says_nothing():
    # The lesion lies inside a round breast, where the box covers more of it than at the rim.
    y, x = np.mgrid[:20, :20]
    breast = (y - 10) ** 2 + (x - 10) ** 2 < 80
    found = lesion_shares.lesion_share([breast * 0.88] * 3, [breast] * 3, [(8, 8, 13, 13)] * 3, "abc")
    assert (found.value, found.chance, found.p) == (pytest.approx(1), pytest.approx(1), 1.0)
    assert found.share == pytest.approx(25 / breast.sum())


def test_views_of_a_breast_count_once_and_empty_maps_not_at_all():
    ones = [CORNER, 1 - CORNER, CORNER * 0]
    found = lesion_shares.lesion_share(ones, [FULL] * 3, [(0, 0, 2, 2)] * 3, ["a", "a", "b"])
    assert (found.share, found.n) == (0.5, 1)


def test_the_box_stays_in_the_breast():
    # The breast is the left half: of nine places only the three at the left edge cover as much of it.
    breast = np.repeat([[True, True, False, False]], 4, axis=0)
    values = np.arange(16.0).reshape(4, 4)
    found = lesion_shares.lesion_share([values], [breast], [(0, 0, 2, 2)], ["a"], n_draws=20_000)
    # Mass in the breast: 0+1+4+5+8+9+12+13 = 52 on 8 pixels; the three places hold 10, 26 and 42 on 4.
    assert found.value == pytest.approx(10 / 4 / (52 / 8))
    assert found.chance == pytest.approx(26 / 4 / (52 / 8), abs=0.02)


def test_the_p_value_holds_under_chance():
    rng = np.random.default_rng(0)
    p = []
    for _ in range(200):
        values = [rng.random((12, 12)) for _ in range(6)]
        boxes = [(x, y, x + 3, y + 3) for x, y in rng.integers(0, 10, (6, 2))]
        p.append(lesion_shares.lesion_share(values, [np.ones((12, 12), bool)] * 6, boxes, "abcdef", n_draws=200).p)
    assert np.mean(np.array(p) <= 0.05) < 0.1
    assert 0.4 < np.mean(p) < 0.6


def test_maps_that_follow_the_lesion_are_told_from_those_that_do_not(tiny_profile):
    # Gates are made to be one number everywhere; integrated gradients of any network follow bright pixels.
    network = network_of(tiny_profile, gate={"scope": "token"})
    for name, parameter in network.named_parameters():
        if ".gates." in name and name.endswith("weight"):
            torch.nn.init.zeros_(parameter)
    items, boxes = [], {}
    for i in range(6):
        images = torch.full((2, 1, 64, 64), 0.1)
        x, y = 4 + 8 * i, 40 - 6 * i
        images[:, :, y : y + 8, x : x + 8] = 1.0
        boxes |= {(str(i), view): (x, y, x + 8, y + 8) for view in ("CC", "MLO")}
        present = dict.fromkeys(("crop", "whole"), torch.tensor([True, True]))
        items.append({"images": {"crop": images, "whole": images}, "present": present})
    found = lesion_shares.shares_in_lesions(network, items, [str(i) for i in range(6)], boxes)
    assert found["SeqMoE gate, stage 3, block 1"].p == 1
    assert found["integrated gradients"].p < 0.05
    assert found["integrated gradients"].value > 1
    assert len(found) == 5 + 2 + 2


@pytest.mark.parametrize(
    ("p", "title"),
    [
        ((0.01, 0.5), "1 of 2 maps differs from chance in the lesion"),
        ((0.01, 0.02), "2 of 2 maps differ from chance in the lesion"),
        ((0.2, 0.5), "None of 2 maps differs from chance in the lesion"),
    ],
)
def test_the_title_counts_the_maps_beyond_chance(p, title):
    shares = {name: replace(SHARE, p=one) for name, one in zip("ab", p, strict=True)}
    text = drawn(figures.lesion_shares(shares))
    assert title in text
    assert f"p = {p[0]:.3f}, n = 25" in text
