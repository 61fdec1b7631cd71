"""Inference from published numbers: possible test sizes, possible confusion matrices, power."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
from scipy import stats

from ..errors import InputError
from .intervals import LEVEL, Z
from .metrics import DECISIONS, Confusion, known


def matching_denominators(published: list[float], decimals: int, n_max: int) -> list[int]:
    """Return every n below ``n_max`` for which each published proportion equals some k / n, rounded to ``decimals``.

    >>> matching_denominators([0.8322, 0.7517, 0.7383], decimals=4, n_max=400)
    [149, 298]
    """
    if not published:
        raise InputError("no published value is given: every denominator would match")
    return [n for n in range(1, n_max) if all(numerators(value, n, decimals) for value in published)]


def numerators(value: float, n: int, decimals: int) -> list[int]:
    """Return every k for which k / n rounds to ``value``.

    >>> numerators(0.8322, 149, decimals=4)
    [124]
    """
    if not 0 <= value <= 1:
        raise InputError(f"value must lie in [0, 1], got {value}")
    if n < 1:
        raise InputError(f"n must be at least 1, got {n}")
    reach = 0.5 * 10**-decimals * n + 1
    near = range(max(0, math.floor(value * n - reach)), min(n, math.ceil(value * n + reach)) + 1)
    return [k for k in near if _rounds_to(k / n, value, decimals)]


def matching_confusions(n_malignant: int, n_benign: int, published: dict[str, float], decimals: int) -> list[Confusion]:
    """Return every confusion matrix of this size whose metrics round to all published values."""
    for name in published:
        known(name, DECISIONS)
    cells = product(range(n_malignant + 1), range(n_benign + 1))
    candidates = (Confusion(tp, n_malignant - tp, tn, n_benign - tn) for tp, tn in cells)
    return [
        c for c in candidates if all(_rounds_to(getattr(c, name), value, decimals) for name, value in published.items())
    ]


def _rounds_to(value: float, published: float, decimals: int) -> bool:
    # Half-up and half-even both count: nobody knows which one a publication used.
    return abs(value - published) <= 0.5 * 10**-decimals + 1e-12


def mcnemar_power(n: int, gain: float, discordant_share: float) -> float:
    """Return the power of McNemar's exact test to detect an accuracy gain between two classifiers on ``n`` breasts.

    ``discordant_share`` is the expected share of breasts on which exactly one of the two is correct; it cannot be less
    than ``gain``. Exact: summed over the number of discordant breasts and their division.

    >>> round(mcnemar_power(149, gain=5 / 149, discordant_share=15 / 149), 2)  # 10 breasts gained, 5 lost
    0.18
    """
    if not 0 <= gain <= discordant_share <= 1 or not discordant_share:
        raise InputError(f"gain must lie in [0, discordant_share={discordant_share}], got {gain}")
    favoured = 0.5 * (1 + gain / discordant_share)
    power = 0.0
    for discordant in range(1, n + 1):
        wins = np.arange(discordant + 1)
        p_values = np.minimum(1, 2 * stats.binom.cdf(np.minimum(wins, discordant - wins), discordant, 0.5))
        rejected = stats.binom.pmf(wins, discordant, favoured)[p_values < 1 - LEVEL].sum()
        power += stats.binom.pmf(discordant, n, discordant_share) * rejected
    return float(power)


def mcnemar_breasts(gain: float, discordant_share: float, power: float = 0.8) -> int:
    """Return the approximate number of breasts for which McNemar's test has the given power (Connor 1987).

    >>> mcnemar_breasts(gain=0.05, discordant_share=0.15)
    469
    """
    if not 0 < gain <= discordant_share <= 1:
        raise InputError(f"gain must lie in (0, discordant_share={discordant_share}], got {gain}")
    reach = Z * math.sqrt(discordant_share) + stats.norm.ppf(power) * math.sqrt(discordant_share - gain**2)
    return math.ceil((reach / gain) ** 2)
