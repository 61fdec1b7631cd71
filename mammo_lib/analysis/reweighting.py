"""The AUC of one side's breasts if they had the other side's mix of readings, by weights or by strata.

A *cohort* has one row per breast: ``sample_id patient_id split label`` and the readings, ``split`` being train or test.
The AUC of several frames of predictions (seeds, repeats) is the mean over the frames, within folds if there are folds.

| symbol | meaning |
|---|---|
| w_i | weight of breast i: the odds that a breast with its readings lies on the other side |
| n_eff | effective number of breasts, (sum w)^2 / sum w^2 (Kish 1965) |

Intervals come from bootstrap samples of patients, drawn separately on each side. No torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ..errors import InputError
from ..statistics import mean_auc, patient_draws
from ..statistics.comparisons import normal_p
from ..statistics.fold_groups import FEW, with_interval
from ..statistics.intervals import N_RESAMPLES
from .assessment import CATEGORIES
from .official_split import GROUPS

BANDS = {"0 to 2": "0 to 3", "3": "0 to 3", "4": "4", "5": "5"}  # wide enough for an AUC in each
FORMS = ("readings within label", "readings alone", "strata of assessment and label")
NO_PENALTY = 1e3  # almost none: enough to keep the coefficient of a level that one side lacks finite
# From how often each breast counts, on its own side and on the other, to the weights of its own side.
Weigh = Callable[[np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Resamples:
    """How often each breast of the two sides counts, (1 + resamples, breasts): first as observed, then as drawn.

    ``train`` and ``test`` are as observed; ``train_as_test`` and ``test_as_train`` have the other side's mix.
    """

    train: np.ndarray
    test: np.ndarray
    train_as_test: np.ndarray
    test_as_train: np.ndarray


def readings(cohort: pd.DataFrame) -> pd.DataFrame:
    """Return what weights depend on: assessment in four levels, subtlety, density and the log share of the box.

    If there is a column ``suspicion`` (how malignant the readers' words sound), it is added.
    """
    levels = pd.get_dummies(cohort["assessment"].map(CATEGORIES), dtype=float).reindex(columns=["0 to 2", "3", "5"])
    names = ["subtlety", "density", *(["suspicion"] if "suspicion" in cohort else [])]
    numbers = cohort[names].astype(float).assign(log_share=np.log(cohort["box_share"]))
    return levels.fillna(0.0).join(numbers.fillna(numbers.median()))


def odds_weights(own: pd.DataFrame, other: pd.DataFrame, *, by_label: bool = True) -> Weigh:
    """Return a function that weights breasts of ``own`` by the odds that one with their readings lies in ``other``.

    Logistic regression, within each label or over both. Within a label, the weights add up to its number of breasts.
    """
    x, y = readings(own).to_numpy(), readings(other).to_numpy()
    centre, spread = x.mean(axis=0), np.where(x.std(axis=0) > 0, x.std(axis=0), 1.0)
    x, y, label = (x - centre) / spread, (y - centre) / spread, own["label"].to_numpy()
    parts = [
        (own["label"].isin(labels).to_numpy(), other["label"].isin(labels).to_numpy())
        for labels in ((0,), (1,))
    ] if by_label else [(np.ones(len(own), bool), np.ones(len(other), bool))]  # fmt: skip

    def weigh(count: np.ndarray, other_count: np.ndarray) -> np.ndarray:
        weight = np.zeros(len(own))
        for mine, theirs in parts:
            weight[mine] = count[mine] * _odds(x[mine], y[theirs], count[mine], other_count[theirs])
        return _scaled(weight, label, count) if by_label else weight

    return weigh


def _odds(own: np.ndarray, other: np.ndarray, count: np.ndarray, other_count: np.ndarray) -> np.ndarray:
    from sklearn.linear_model import LogisticRegression

    side = np.repeat([0, 1], [len(own), len(other)])
    model = LogisticRegression(C=NO_PENALTY, max_iter=500)
    model.fit(np.vstack([own, other]), side, sample_weight=np.concatenate([count, other_count]))
    return np.exp(model.decision_function(own))


def stratum_weights(own: pd.DataFrame, other: pd.DataFrame) -> Weigh:
    """Return a function that weights breasts of ``own`` by the ratio of their assessment's shares, within labels."""
    strata = [frame["label"].astype(str) + " " + frame["assessment"].map(CATEGORIES) for frame in (own, other)]
    names = sorted(set(strata[0]) | set(strata[1]))
    mine, theirs = (pd.Categorical(one, names).codes for one in strata)
    label = own["label"].to_numpy()

    def weigh(count: np.ndarray, other_count: np.ndarray) -> np.ndarray:
        here, there = (np.bincount(*one, len(names)) for one in ((mine, count), (theirs, other_count)))
        ratio = np.divide(there, here, out=np.zeros(len(names)), where=here > 0)
        return _scaled(count * ratio[mine], label, count)

    return weigh


def _scaled(weight: np.ndarray, label: np.ndarray, count: np.ndarray) -> np.ndarray:
    """Scale the weights of each label to add up to its number of breasts."""
    scaled = weight.copy()
    for one in np.unique(label):
        own = label == one
        scaled[own] *= count[own].sum() / max(weight[own].sum(), 1e-12)
    return scaled


def resample(train: pd.DataFrame, test: pd.DataFrame, form: str, *, seed: int = 0, n: int = N_RESAMPLES) -> Resamples:
    """Draw patients of both sides and weight each draw to the other side's mix; ``form`` is one of ``FORMS``."""
    counts = [patient_draws(side, seed=seed + number, n=n) for number, side in enumerate((train, test))]
    pairs = list(zip(*counts, strict=True))
    there, back = weigher(form, train, test), weigher(form, test, train)
    return Resamples(
        *counts,
        np.array([there(own, other) for own, other in pairs]),
        np.array([back(other, own) for own, other in pairs]),
    )


def weigher(form: str, own: pd.DataFrame, other: pd.DataFrame) -> Weigh:
    """Return a function that weights ``own`` to the mix of ``other``, in one of ``FORMS``."""
    if form not in FORMS:
        raise InputError(f"unknown form of weights {form!r}: choose one of {', '.join(FORMS)}")
    return stratum_weights(own, other) if form == FORMS[2] else odds_weights(own, other, by_label=form == FORMS[0])


def effective_size(weights: np.ndarray) -> float:
    """Return Kish's n_eff of one set of weights.

    >>> effective_size(np.array([1.0, 1.0, 0.0, 0.0]))
    2.0
    """
    return float(weights.sum() ** 2 / (weights**2).sum())


def both_sides(
    train: Sequence[pd.DataFrame], test: Sequence[pd.DataFrame], train_draws: np.ndarray, test_draws: np.ndarray
) -> dict[str, float]:
    """Return the AUC ``train`` and ``test`` and their ``difference`` with intervals, ``p`` and the numbers of breasts.

    p is two-sided and normal, with the standard error of the resamples.
    """
    one, other = mean_auc(train, train_draws), mean_auc(test, test_draws)
    gap = one - other
    spread = np.nanstd(gap[1:], ddof=1)
    return (
        with_interval("train", one) | with_interval("test", other) | with_interval("difference", gap)
        | {"p": normal_p(gap[0], spread), "n_train": len(train[0]), "n_test": len(test[0])}
    )  # fmt: skip


def on_the_other_mix(train: Sequence[pd.DataFrame], test: Sequence[pd.DataFrame], draws: Resamples) -> dict[str, float]:
    """Return the AUC of each side on the other's mix, what the mix explains of the difference, and n_eff by label.

    ``explained`` is the training AUC minus the training AUC on the test mix, ``left`` the latter minus the test AUC.
    ``explained_back`` and ``left_back`` start from the test side.
    """
    own, moved = mean_auc(train, draws.train), mean_auc(train, draws.train_as_test)
    other, back = mean_auc(test, draws.test), mean_auc(test, draws.test_as_train)
    sizes = {
        f"n_eff_{side}_{name}": effective_size(weights[0, frame["label"].to_numpy() == label])
        for side, frame, weights in (
            ("train", train[0], draws.train_as_test), ("test", test[0], draws.test_as_train),
        )
        for name, (label,) in list(GROUPS.items())[1:]
    }  # fmt: skip
    found = {
        "train_as_test": moved, "explained": own - moved, "left": moved - other,
        "test_as_train": back, "explained_back": back - other, "left_back": own - back,
    }  # fmt: skip
    return {key: value for name, drawn in found.items() for key, value in with_interval(name, drawn).items()} | sizes


def within_assessment(train: Sequence[pd.DataFrame], test: Sequence[pd.DataFrame], draws: Resamples) -> Iterator[dict]:
    """Yield :func:`both_sides` for the breasts of each band of the assessment, with the number of malignant ones.

    For a band with fewer than ten breasts of a class on a side, only the numbers are given.
    """
    for band in dict.fromkeys(BANDS.values()):
        inside = [frames[0]["assessment"].map(CATEGORIES).map(BANDS).eq(band).to_numpy() for frames in (train, test)]
        parts = [[frame[keep] for frame in frames] for frames, keep in zip((train, test), inside, strict=True)]
        sizes, malignant = [len(frames[0]) for frames in parts], [int(frames[0]["label"].sum()) for frames in parts]
        row = {"band": band, "malignant_train": malignant[0], "malignant_test": malignant[1]}
        if min(*malignant, *(n - k for n, k in zip(sizes, malignant, strict=True))) < FEW:
            yield row | {"n_train": sizes[0], "n_test": sizes[1]}
        else:
            yield row | both_sides(*parts, draws.train[:, inside[0]], draws.test[:, inside[1]])
