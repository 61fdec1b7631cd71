"""What may limit the network, from records of protocols 2 and 4: number of breasts, frozen stages, a single network.

These functions read records and the official tables, and do not import torch. In every table, an estimate ``x``
occupies the columns ``x x_low x_high``; :func:`mammo_lib.analysis.wording.readable` merges them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ..config import Profile, RunConfig
from ..data.cohort import select_cohort, split_cohort
from ..runs.experiments import read_groups
from ..runs.records import Run
from ..statistics import Interval, auc_bootstrap_interval, compare_folds, mean_auc, patient_draws
from ..statistics.fold_groups import with_interval
from . import answers

REFERENCE = "crop"  # of protocol 2: what all variants of protocol 4 are compared with
POWERS = np.linspace(0.1, 1, 10)  # the exponents that the power law may have
AHEAD = (2, 4)  # multiples of the available training breasts to which the curve is extrapolated
ENOUGH = 3  # a curve with fewer points is not extrapolated


@dataclass(frozen=True)
class LearningCurve:
    """The AUC out of fold against the number of training breasts.

    ``points``: ``share breasts auc repeats n``, a row per share that has been run. ``per_doubling``: ``slope``, the
    change of the AUC when the number of breasts doubles, from a straight line over its logarithm. ``ahead``: ``form
    breasts auc``, extrapolated by that line and by a power law. The last two are empty for fewer than ``ENOUGH``
    points.
    """

    points: pd.DataFrame
    per_doubling: dict[str, float]
    ahead: pd.DataFrame


def by_share(reference: Sequence[Run], repeats: Mapping[str, Sequence[Run]]) -> dict[float, list[Run]]:
    """Return the runs of each share of the training patients, the smallest first; the reference has all of them.

    Only repeats that every share has are returned, because the same repeat has the same folds.
    """
    shares = {runs[0].config.data.training_share: [*runs] for runs in repeats.values()}
    shares = {share: runs for share, runs in shares.items() if share < 1} | {1.0: [*reference]}
    seeds = set.intersection(*({run.config.seed for run in runs} for runs in shares.values()))
    return {share: [run for run in runs if run.config.seed in seeds] for share, runs in sorted(shares.items())}


def learning_curve(shares: Mapping[float, Sequence[Run]], table: pd.DataFrame) -> LearningCurve:
    """Describe the AUC by number of training breasts, with intervals over patients, the same draws for every share."""
    weights = patient_draws(_ordered(next(iter(shares.values()))[0]))
    breasts = np.array([training_breasts(runs[0].config, table) for runs in shares.values()])
    # (points, draws)
    drawn = np.array([mean_auc([_ordered(run) for run in runs], weights) for runs in shares.values()])
    points = pd.DataFrame([
        {"share": share, "breasts": n, **with_interval("auc", own), "repeats": len(runs), "n": weights.shape[1]}
        for (share, runs), n, own in zip(shares.items(), breasts, drawn, strict=True)
    ])  # fmt: skip
    if len(points) < ENOUGH:
        return LearningCurve(points, {}, pd.DataFrame(columns=["form", "breasts", "auc", "auc_low", "auc_high"]))
    later = breasts.max() * np.array(AHEAD)
    line, slope = _line(breasts, drawn, later)
    rows = [
        {"form": form, "breasts": n, **with_interval("auc", own)}
        for form, values in {"line": line, "power law": _power_law(breasts, drawn, later)}.items()
        for n, own in zip(later, values, strict=True)
    ]
    return LearningCurve(points, with_interval("slope", slope), pd.DataFrame(rows))


def training_breasts(config: RunConfig, table: pd.DataFrame) -> float:
    """Return the number of training breasts of a cross-validation, mean over the folds."""
    cohort = select_cohort(table, config.data, "train")
    folds = map(config.of_fold, range(config.data.n_folds))
    return float(np.mean([len(split_cohort(fold.data, cohort)["train"]) for fold in folds]))


def against_reference(
    profile: Profile, group: str, reference: Sequence[Run], repeats: Mapping[str, Sequence[Run]]
) -> pd.DataFrame:
    """Compare the variants of a question with the crop stream of protocol 2; columns as in ``answers.answers``."""
    return answers.against(profile, read_groups(profile)[group], reference, repeats)


def mean_of_repeats(runs: Sequence[Run]) -> dict[str, Interval]:
    """Return the pooled AUC of the mean logit of all repeats, beside that of each repeat.

    The folds of two repeats differ, so a mean over repeats cannot be scored within folds.
    """
    tables = [_ordered(run) for run in runs]
    logits = {f"repeat {i + 1}": one["logit"].to_numpy(float) for i, one in enumerate(tables)}
    logits["mean of all"] = np.mean([*logits.values()], axis=0)
    label, patients = (tables[0][name].to_numpy() for name in ("label", "patient_id"))
    return {name: auc_bootstrap_interval(label, logit, patients) for name, logit in logits.items()}


def with_another(
    profile: Profile, names: Sequence[str], reference: Sequence[Run], repeats: Mapping[str, Sequence[Run]]
) -> pd.DataFrame:
    """Compare the mean logit of the reference and one more network with the reference alone; see ``answers.answers``.

    ``names`` are variants of the profile; each is joined with the reference repeat by repeat, on the same folds.
    """
    found = {}
    for name in names:
        ours, theirs = answers.common(reference, repeats.get(name, ()))
        joined = [_mean_logit(*pair) for pair in zip(ours, theirs, strict=True)]
        found[name] = compare_folds(joined, [run.predictions for run in ours]) if joined else None
    return answers.named(found, profile)


def _mean_logit(one: Run, other: Run) -> pd.DataFrame:
    own = one.predictions
    theirs = other.predictions.set_index("sample_id")["logit"].reindex(own["sample_id"]).to_numpy()
    return own.assign(logit=(own["logit"].to_numpy() + theirs) / 2)


def _ordered(run: Run) -> pd.DataFrame:
    return run.predictions.sort_values("sample_id", ignore_index=True)


def _line(breasts: np.ndarray, drawn: np.ndarray, later: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return a straight line over log2 of the breasts, at ``later`` (later, draws), and its slope (draws,)."""
    design = np.column_stack([np.ones(len(breasts)), np.log2(breasts)])
    (start, slope), *_ = np.linalg.lstsq(design, drawn, rcond=None)
    return start + np.log2(later)[:, None] * slope, slope


def _power_law(breasts: np.ndarray, drawn: np.ndarray, later: np.ndarray) -> np.ndarray:
    """Return a - b n^-c at ``later``, (later, draws), with the exponent of :data:`POWERS` that fits each draw best."""
    fits, errors = [], []
    for power in POWERS:
        design = np.column_stack([np.ones(len(breasts)), -(breasts**-power)])
        found, *_ = np.linalg.lstsq(design, drawn, rcond=None)
        errors.append(((design @ found - drawn) ** 2).sum(axis=0))
        fits.append(np.column_stack([np.ones(len(later)), -(later**-power)]) @ found)
    best = np.argmin(errors, axis=0)
    return np.take_along_axis(np.array(fits), best[None, None, :], axis=0)[0]
