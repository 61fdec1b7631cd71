"""Chapter 08 from records: what views and streams are worth, training for missing ones, and groups of breasts.

These functions read only run records and do not import torch. An *input* is a combination of views and streams as
``hidden_inputs.parquet`` names it (:mod:`mammo_lib.analysis.hidden_inputs`); *frames* are out-of-fold predictions, one
per repeat. Comparisons have the columns of :func:`mammo_lib.analysis.answers.answers`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from scipy.special import expit
from sklearn.linear_model import LogisticRegression

from ..runs.records import Run
from ..statistics import (
    OUT_OF_FOLD,
    FoldDifference,
    compare_folds,
    group_difference,
    group_scores,
    mean_auc,
    patient_draws,
    stratified_auc,
    youden_gain,
)
from ..statistics.fold_groups import with_interval
from .answers import as_answers, common
from .tables import ensemble_predictions
from .wording import estimate, in_words

MASK = "mask"
BOTH = "CC+MLO"
DENSITIES = {"density 1": (1,), "density 2": (2,), "density 3": (3,), "density 4": (4,)}
HALVES = {"density 1-2": (1, 2), "density 3-4": (3, 4)}
SUBTLETIES = {"subtlety 1-3": (1, 2, 3), "subtlety 4": (4,), "subtlety 5": (5,)}
ASSESSMENTS = {"BI-RADS 0-3": (0, 1, 2, 3), "of these, 0": (0,), "BI-RADS 4": (4,), "BI-RADS 5": (5,)}
GROUPS = {"density": DENSITIES | HALVES, "subtlety": SUBTLETIES, "assessment": ASSESSMENTS}
NO_PENALTY = 1e6


def frames_of(runs: Sequence[Run], views: str, streams: str, fill: str = MASK) -> list[pd.DataFrame]:
    """Return each run's predictions with the scores from one input; breasts without such a score are left out."""
    return [_rescored(run.predictions, _rows(run, views, streams, fill)) for run in runs]


def inputs_of(runs: Sequence[Run]) -> list[tuple[str, str]]:
    """Return the inputs, views and streams, that were scored with masks, the complete input first."""
    table = runs[0].hidden_inputs
    rows = table[(table["split"] == OUT_OF_FOLD) & (table["fill"] == MASK)]
    return list(rows[["views", "streams"]].drop_duplicates().itertuples(index=False, name=None))


def input_name(views: str, streams: str, everything: str) -> str:
    """Return the name of an input; ``everything`` names all streams of the network.

    >>> input_name("CC", "crop", "crop"), input_name("CC+MLO", "crop", "crop+whole")
    ('CC only', 'both views, crop only')
    """
    seen = "both views" if views == BOTH else f"{views} only"
    if "+" not in everything:
        return seen
    return f"{seen}, {'both streams' if streams == everything else f'{streams} only'}"


def worth(runs: Sequence[Run]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the AUC of every input, and the comparison of every incomplete input with the complete one.

    The first table has ``name auc auc_low auc_high n``.
    """
    inputs = inputs_of(runs)
    frames = {input_name(*one, inputs[0][1]): frames_of(runs, *one) for one in inputs}
    rows = [{"name": name} | _auc("auc", own) | {"n": len(own[0])} for name, own in frames.items()]
    first, *others = frames
    return pd.DataFrame(rows), as_answers({name: compare_folds(frames[name], frames[first]) for name in others})


def fills(runs: Sequence[Run], streams: str) -> pd.DataFrame:
    """Return the AUC with one view, by what replaces the other: ``name``, and an estimate per fill."""
    rows = []
    for views in ("CC", "MLO"):
        row = {"name": f"{views} only"}
        for fill in (MASK, "other_view", "mean"):
            frames = frames_of(runs, views, streams, fill)
            row |= _auc(fill, frames) | {"n": len(frames[0])}
        rows.append(row)
    return pd.DataFrame(rows)


def compare_inputs(ours: Sequence[Run], reference: Sequence[Run]) -> dict[str, FoldDifference]:
    """Compare two networks on every input that both were scored with, by name, in the repeats that both have."""
    ours, reference = common(ours, reference)
    shared = [one for one in inputs_of(reference) if one in inputs_of(ours)]
    return {
        input_name(*one, shared[0][1]): compare_folds(frames_of(ours, *one), frames_of(reference, *one))
        for one in shared
    }


def by_training(reference: Sequence[Run], trained: Sequence[Run], singles: Mapping[str, Sequence[Run]]) -> pd.DataFrame:
    """Return the AUC of every input by how the network was trained: ``name`` and three estimates, or NaN.

    ``reference`` saw every view in training, ``hidden`` (``trained``) saw views hidden at random, and ``single`` are
    networks of one view, by view.
    """
    rows, inputs = [], inputs_of(reference)
    for views, streams in inputs:
        alone = [run.predictions for run in singles.get(views, ())]
        frames = {
            "reference": frames_of(reference, views, streams), "hidden": frames_of(trained, views, streams),
            "single": alone,
        }  # fmt: skip
        row = {"name": input_name(views, streams, inputs[0][1])}
        for key, own in frames.items():
            row |= _auc(key, own)
        rows.append(row)
    return pd.DataFrame(rows)


def compare_single(ours: Sequence[Run], reference: Sequence[Run], views: str, streams: str) -> FoldDifference:
    """Compare a single-view network with a two-view network whose other view is hidden, in the repeats of both."""
    ours, reference = common(ours, reference)
    return compare_folds([run.predictions for run in ours], frames_of(reference, views, streams))


def single_view_breasts(runs: Sequence[Run], streams: str) -> pd.DataFrame:
    """Return, by view, the AUC of breasts with only this view, beside that of complete breasts scored with it alone.

    Columns: ``name n malignant``, and the estimates ``only`` and ``hidden``, with intervals over patients.
    """
    rows = []
    for views in ("CC", "MLO"):
        tables = [run.hidden_inputs for run in runs]
        alone = [table[(table["split"] == "extra") & (table["views"] == views)] for table in tables]
        alone = [one.sort_values("sample_id", ignore_index=True) for one in alone]
        rows.append(
            {"name": f"{views} only", "n": len(alone[0]), "malignant": int(alone[0]["label"].sum())}
            | with_interval("only", mean_auc(alone, patient_draws(alone[0])))
            | _auc("hidden", frames_of(runs, views, streams))
        )
    return pd.DataFrame(rows)


def describe_groups(runs: Sequence[Run], by: str) -> pd.DataFrame:
    """Describe groups of breasts by ``density``, ``subtlety`` or ``assessment``: see ``statistics.group_scores``."""
    frames = [run.predictions for run in runs]
    return group_scores(frames, {name: _inside(frames[0][by], levels) for name, levels in GROUPS[by].items()})


def density_difference(runs: Sequence[Run]) -> dict[str, float]:
    """Return the AUC in density 1-2 minus that in density 3-4, and the smallest detectable difference."""
    return _difference([run.predictions for run in runs], "density", *HALVES.values())


def density_on_test(runs: Sequence[Run]) -> str:
    """Say the same of the official test breasts, by the mean logit of all seeds of a network of both streams.

    Empty without runs, or with too few breasts.
    """
    if not runs:
        return ""
    test = ensemble_predictions(runs)
    found = _difference([test], "density", *HALVES.values())
    if np.isnan(found["difference"]):
        return ""
    sizes = [int(_inside(test["density"], levels).sum()) for levels in HALVES.values()]
    return (
        f"On the test breasts the AUC of the network of both streams in density 1-2 (n = {sizes[0]}) minus that in "
        f"density 3-4 (n = {sizes[1]}) is "
        f"{in_words(found, 'difference')}, a comparison that was not planned."
    )


def subtlety_difference(runs: Sequence[Run]) -> dict[str, float]:
    """Return the AUC in subtlety 1-3 minus that in subtlety 4-5, and the smallest detectable difference."""
    return _difference([run.predictions for run in runs], "subtlety", (1, 2, 3), (4, 5))


def _difference(frames: Sequence[pd.DataFrame], by: str, one: Sequence[int], other: Sequence[int]) -> dict[str, float]:
    return group_difference(frames, *(_inside(frames[0][by], levels) for levels in (one, other)))


def density_thresholds(runs: Sequence[Run]) -> dict[str, float]:
    """Return what a threshold per density half adds to Youden's index over a common threshold."""
    frames = [run.predictions[run.predictions["density"].between(1, 4)].reset_index(drop=True) for run in runs]
    return youden_gain(frames, frames[0]["density"].le(2).map({True: "1-2", False: "3-4"}))


def beyond_assessment(runs: Sequence[Run]) -> tuple[FoldDifference, FoldDifference]:
    """Compare a logistic regression on assessment and network with one on the assessment alone, and on the network.

    Both regressions are fitted on the other folds.
    """
    own = [run.predictions for run in runs]
    alone = [_regressed(frame, ["assessment"]) for frame in own]
    both = [_regressed(frame, ["assessment", "logit"]) for frame in own]
    return compare_folds(both, alone), compare_folds(both, own)


def in_short(
    hidden: pd.DataFrame, prepared: pd.DataFrame, halves: Mapping, added: FoldDifference, four: Mapping
) -> str:
    """Answer the chapter's question in a few sentences.

    ``hidden`` is the second table of :func:`worth`; ``prepared`` compares training with hidden inputs, complete ones
    first; ``halves`` is :func:`density_difference`; ``added`` the first of :func:`beyond_assessment`; ``four`` the row
    of BI-RADS 4 of :func:`describe_groups`.
    """
    lost = hidden.set_index("experiment")
    mlo, cc = (in_words(lost.loc[seen], "difference") for seen in ("CC only", "MLO only"))
    return (
        f"Out of fold on {added.n} training breasts, hiding the MLO view changes the AUC of the crop network by {mlo}, "
        f"hiding the CC view by {cc}. Training with hidden views and streams changes the AUC of the network of both "
        f"streams by {in_words(prepared.iloc[0], 'difference')} when nothing is missing. The AUC in breasts of density "
        f"1-2 minus that in density 3-4 is {in_words(halves, 'difference')}; a true difference of "
        f"{halves['detectable']:.2f} would have been found with 80 % power. The crop network, half of whose training "
        f"target is predicted from the readers' notes, adds {added} to the AUC of their BI-RADS assessment. Within "
        f"BI-RADS 4 its own AUC is {in_words(four, 'auc', '')}; this was not confirmed on the test breasts."
    )


def _auc(name: str, frames: Sequence[pd.DataFrame]) -> dict[str, float]:
    """Return the three columns of an AUC out of fold; NaN without frames."""
    if not frames:
        return dict.fromkeys((name, f"{name}_low", f"{name}_high"), np.nan)
    return estimate(name, stratified_auc(frames))


def _rows(run: Run, views: str, streams: str, fill: str) -> pd.Series:
    """Return the logits by breast of one input of a run."""
    table = run.hidden_inputs
    chosen = (table["views"] == views) & (table["streams"] == streams) & (table["fill"] == fill)
    return table[chosen & (table["split"] == OUT_OF_FOLD)].set_index("sample_id")["logit"].astype(float)


def _rescored(predictions: pd.DataFrame, logit: pd.Series) -> pd.DataFrame:
    own = predictions[predictions["sample_id"].isin(logit.index)].reset_index(drop=True)
    scores = logit[own["sample_id"]].to_numpy()
    return own.assign(logit=scores, probability=expit(scores))


def _inside(values: pd.Series, levels: Sequence[int]) -> np.ndarray:
    return values.isin(levels).fillna(False).to_numpy(bool)


def _regressed(frame: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    """Return predictions by logistic regression; the model for each fold is fitted on the other folds."""
    x, scores = frame[list(columns)].astype(float).to_numpy(), np.empty(len(frame))
    for fold in np.unique(frame["fold"]):
        held_out = (frame["fold"] == fold).to_numpy()
        model = LogisticRegression(C=NO_PENALTY, max_iter=1000).fit(x[~held_out], frame.loc[~held_out, "label"])
        scores[held_out] = model.decision_function(x[held_out])
    return frame.assign(logit=scores, probability=expit(scores))
