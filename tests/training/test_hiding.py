"""Hidden inputs in training: the rules of hiding, and proof that a hidden view is not read."""

import pytest
import torch

from mammo_lib.training.hiding import hide


def present(n=4000):
    crop = torch.ones(n, 2, dtype=torch.bool)
    crop[::7, 0] = False
    whole = torch.ones(n, 2, dtype=torch.bool)
    whole[::7, 0] = False
    return {"crop": crop, "whole": whole}


def test_without_dropout_nothing_is_hidden_and_nothing_drawn():
    before, state = present(), torch.get_rng_state()
    after = hide(before, view_dropout=0.0, stream_dropout=0.0)
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize(("view", "stream"), [(0.3, 0.0), (0.0, 0.3), (0.3, 0.3), (0.99, 0.99)])
def test_something_is_left_and_nothing_appears(view, stream):
    torch.manual_seed(0)
    before = present()
    after = hide(before, view_dropout=view, stream_dropout=stream)
    assert not any((after[name] & ~before[name]).any() for name in before)
    left = torch.stack([after["crop"], after["whole"]], dim=1)
    assert left.flatten(1).any(dim=1).all()


def test_a_view_is_hidden_in_both_streams_at_the_given_rate():
    """P(CC hidden, MLO shown) = .3 x .7 = .21; both hidden, .09, shows all. sd of a share of 4000 is below .008."""
    torch.manual_seed(0)
    before = {name: torch.ones_like(one) for name, one in present().items()}
    after = hide(before, view_dropout=0.3, stream_dropout=0.0)
    assert torch.equal(after["crop"], after["whole"])
    only_mlo = (~after["crop"][:, 0] & after["crop"][:, 1]).float().mean()
    assert only_mlo == pytest.approx(0.21, abs=0.03)
    assert after["crop"].all(dim=1).float().mean() == pytest.approx(0.49 + 0.09, abs=0.03)


def test_a_stream_is_hidden_in_both_views_at_the_given_rate():
    torch.manual_seed(0)
    before = {name: torch.ones_like(one) for name, one in present().items()}
    after = hide(before, view_dropout=0.0, stream_dropout=0.3)
    assert (after["crop"][:, 0] == after["crop"][:, 1]).all()
    assert (~after["crop"][:, 0]).float().mean() == pytest.approx(0.21, abs=0.03)
    assert not torch.equal(after["crop"], after["whole"])
