"""What published numbers allow: test sizes, confusion matrices, power."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
from scipy import stats

from .intervals import LEVEL, Z
from .metrics import Confusion


def matching_denominators(published: list[float], decimals: int, n_max: int) -> list[int]:
    """Return every n below ``n_max`` for which each published proportion is some k / n, rounded to ``decimals``."""
    return [n for n in range(1, n_max) if all(numerators(value, n, decimals) for value in published)]


def numerators(value: float, n: int, decimals: int) -> list[int]:
    """Return every k for which k / n rounds to ``value``."""
    reach = 0.5 * 10**-decimals * n + 1
    near = range(max(0, math.floor(value * n - reach)), min(n, math.ceil(value * n + reach)) + 1)
    return [k for k in near if _rounds_to(k / n, value, decimals)]


def matching_confusions(n_malignant: int, n_benign: int, published: dict[str, float], decimals: int) -> list[Confusion]:
    """Return every confusion matrix of this size whose metrics round to all published values."""
    cells = product(range(n_malignant + 1), range(n_benign + 1))
    candidates = (Confusion(tp, n_malignant - tp, tn, n_benign - tn) for tp, tn in cells)
    return [
        c for c in candidates if all(_rounds_to(getattr(c, name), value, decimals) for name, value in published.items())
    ]


def _rounds_to(value: float, published: float, decimals: int) -> bool:
    # Half-up and half-even both count: nobody knows which one a publication used.
    return abs(value - published) <= 0.5 * 10**-decimals + 1e-12


def mcnemar_power(n: int, gain: float, discordant_share: float) -> float:
    """Return the chance that McNemar's exact test sees an accuracy gain between two classifiers on ``n`` breasts.

    ``discordant_share`` is the expected share of breasts on which exactly one of the two is right; it cannot be less
    than ``gain``. Exact: summed over the number of discordant breasts and their division.
    """
    if not 0 <= gain <= discordant_share <= 1:
        raise ValueError(f"gain must lie in [0, discordant_share={discordant_share}], got {gain}")
    favoured = 0.5 * (1 + gain / discordant_share)
    power = 0.0
    for discordant in range(1, n + 1):
        wins = np.arange(discordant + 1)
        p_values = np.minimum(1, 2 * stats.binom.cdf(np.minimum(wins, discordant - wins), discordant, 0.5))
        rejected = stats.binom.pmf(wins, discordant, favoured)[p_values < 1 - LEVEL].sum()
        power += stats.binom.pmf(discordant, n, discordant_share) * rejected
    return float(power)


def mcnemar_breasts(gain: float, discordant_share: float, power: float = 0.8) -> int:
    """Return about how many breasts McNemar's test needs to see an accuracy gain with the given power (Connor 1987)."""
    if not 0 < gain <= discordant_share <= 1:
        raise ValueError(f"gain must lie in (0, discordant_share={discordant_share}], got {gain}")
    reach = Z * math.sqrt(discordant_share) + stats.norm.ppf(power) * math.sqrt(discordant_share - gain**2)
    return math.ceil((reach / gain) ** 2)
