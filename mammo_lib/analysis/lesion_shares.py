"""Does a map follow the lesion? Its share in the lesion's box, compared with the same box at random places.

A map that is brighter in the box than chance allows follows the lesion, or something that often lies with it; the test
does not tell the two apart. The maps are those of :mod:`mammo_lib.analysis.maps`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from torch.utils.data import Dataset, default_collate

from ..data.boxes import Box
from ..models.network import Network
from ..statistics import holm
from .maps import KINDS, forward_maps, saliency_maps

CHUNK = 8  # breasts that are explained together
FIT = 0.9  # a moved box must cover at least this share of the breast tissue that the lesion's box covers


@dataclass(frozen=True)
class LesionShare:
    """The share of a map in the lesion's box, compared with the same box at random places; means over ``n`` breasts.

    ``share`` is the box's share of the map's mass, ``area`` its share of the breast. ``value`` is the map's mean in the
    box over its mean in the breast. ``chance`` is the same ratio for boxes at random places, with ``low`` and ``high``
    as their central 95 %. ``p`` is two-sided.
    """

    value: float
    chance: float
    low: float
    high: float
    p: float
    n: int
    share: float
    area: float

    def __str__(self) -> str:
        return (
            f"{self.share:.1%} of the mass in {self.area:.1%} of the breast, {self.value:.3f} times its mean; "
            f"{self.low:.3f} to {self.high:.3f} expected by chance (p = {self.p:.2g}, n = {self.n} breasts)"
        )


def lesion_share(
    maps: Sequence[np.ndarray], breasts: Sequence[np.ndarray], boxes: Sequence[Box], names: Sequence[str], *,
    n_draws: int = 2000, seed: int = 0,
) -> LesionShare:  # fmt: skip
    """Test whether a map is brighter inside the lesion's box.

    The arguments have one entry per view: a non-negative map (height, width); a mask of the breast, bool (height,
    width); the box; the breast's name. Views of a breast are averaged. Under the null hypothesis, the box could lie
    anywhere in the breast where it covers about as much breast tissue. Places are drawn ``n_draws`` times for all views
    together. Means are compared instead of sums, so that an even map counts as even if the box reaches beyond the
    breast. Views in which the map is zero are left out.
    """
    rng, seen, here, drawn = np.random.default_rng(seed), [], [], []
    for values, breast, box, name in zip(maps, breasts, boxes, names, strict=True):
        mass = np.where(breast, values, 0.0)
        if not mass.sum() > 0:
            continue
        covered, inside = _sums(breast.astype(float), box), _sums(mass, box)
        y, x = _corner(box, covered.shape)
        places = covered >= max(1.0, FIT * covered[y, x])
        density = inside[places] / covered[places] * breast.sum() / mass.sum()
        own = inside[y, x] / max(1.0, covered[y, x]) * breast.sum() / mass.sum()
        here.append((own, inside[y, x] / mass.sum(), covered[y, x] / breast.sum()))
        drawn.append(rng.choice(density, n_draws))
        seen.append(name)
    if not seen:
        return LesionShare(*[math.nan] * 5, 0, math.nan, math.nan)
    groups, members = np.unique(seen, return_inverse=True)
    weights = 1 / np.bincount(members)[members] / len(groups)
    value, share, area = (weights @ np.array(here)).tolist()
    null = weights @ np.array(drawn)
    further = np.abs(null - null.mean()) >= abs(value - null.mean()) - 1e-9
    low, high = np.quantile(null, [0.025, 0.975]).tolist()
    p = (1 + int(further.sum())) / (1 + n_draws)
    return LesionShare(value, float(null.mean()), low, high, p, len(groups), share, area)


def shares_in_lesions(
    network: Network, dataset: Dataset, names: Sequence[str], boxes: Mapping[tuple[str, str], Box]
) -> dict[str, LesionShare]:
    """Test every kind of map over whole views against the lesions of a data set; p is Holm-corrected over maps.

    ``names`` are the breasts of ``dataset`` in its order, ``boxes`` their lesions by (breast, view). The result is
    keyed by the map's name in words.
    """
    gathered: dict[str, list[tuple]] = {}
    for start in range(0, len(dataset), CHUNK):
        rows = range(start, min(start + CHUNK, len(dataset)))
        batch = default_collate([dataset[row] for row in rows])
        for one in forward_maps(network, batch) + saliency_maps(network, batch):
            for i, row in enumerate(rows):
                if one.stream == "whole" and (names[row], one.view) in boxes and not np.isnan(one.values[i]).any():
                    image = batch["images"]["whole"][i, network.config.model.views.index(one.view), 0].numpy()
                    view = one.on_image(i, image.shape), image > 0, boxes[names[row], one.view], names[row]
                    gathered.setdefault(KINDS[one.kind] + one.place, []).append(view)
    shares = {name: lesion_share(*zip(*views, strict=True)) for name, views in gathered.items()}
    known = {name: share for name, share in shares.items() if share.n}
    adjusted = holm([share.p for share in known.values()])
    return {name: replace(share, p=float(p)) for (name, share), p in zip(known.items(), adjusted, strict=True)}


def _corner(box: Box, shape: tuple[int, int]) -> tuple[int, int]:
    """Return the lesion's box as an index into :func:`_sums`: its top-left corner, where it fits."""
    return int(np.clip(round(box[1]), 0, shape[0] - 1)), int(np.clip(round(box[0]), 0, shape[1] - 1))


def _sums(values: np.ndarray, box: Box) -> np.ndarray:
    """Return the sum of ``values`` over a box of this size at every place where it fits, by its top-left corner."""
    height, width = (
        int(np.clip(round(extent), 1, side))
        for extent, side in zip((box[3] - box[1], box[2] - box[0]), values.shape, strict=True)
    )
    total = np.pad(values, ((1, 0), (1, 0))).cumsum(axis=0).cumsum(axis=1)
    return total[height:, width:] - total[:-height, width:] - total[height:, :-width] + total[:-height, :-width]
