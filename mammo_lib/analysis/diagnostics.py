"""Findings from records: failures of gates and streams that a good score can hide, and whether routing adapts.

The inputs are the tables of a run folder (``gates``, ``interventions`` and ``predictions.parquet``); no network is
needed. A finding always states its number and its threshold. The thresholds are our choice.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import special, stats

from ..statistics import (
    LEVEL,
    Interval,
    auc,
    compare_folds,
    confusion,
    delong_test,
    holm,
    patient_weights,
    stratified_auc,
)
from ..statistics.comparisons import NO_SPREAD, normal_p
from ..statistics.intervals import N_RESAMPLES

CONSTANT_SD = 0.01  # a gate whose values over breasts have a smaller standard deviation is the same for every breast
MOVED = 0.05  # a gate whose mean is closer than this to its initial value has not moved
SATURATED_SHARE = 0.5  # of the gates, from which the network counts as saturated
DOMINANCE = 0.95  # a fusion gate that gives one stream this share effectively ignores the other
IGNORED_DROP = 0.01  # a stream counts as unused if swapping it between breasts costs less AUC than this
INFORMED = 0.60  # AUC below which no stream can be said to be used or ignored
OVERCALLING = {"sensitivity": 0.95, "specificity": 0.30}  # nearly everything malignant: typical of learning crop frames
BOTTLENECK = 0.5  # share of time or memory from which attention limits batch and resolution
CONSTANT_ANSWER = math.log(2)  # cross-entropy of a network that gives every breast one half, whatever the targets are
FITTED = 0.01  # a network whose training loss ends less than this below CONSTANT_ANSWER is underfitted
ROUNDING = 1e-3  # logits that differ by less than this count as the same score

GATE = ["stream", "stage", "block"]
PROPERTIES = {"lesion size": "log_area", "density": "density", "BI-RADS": "assessment", "malignancy": "label"}
AS_IS = "as_is"  # the network without an intervention
INTERVENTIONS = {
    "frozen": "gates frozen at their means",
    "shuffled": "gates of another breast",
    "open": "gates forced open (1)",
    "shut": "gates forced shut (0)",
    "crop_shuffled": "crop stream of another breast",
    "whole_shuffled": "whole stream of another breast",
}


@dataclass(frozen=True)
class Finding:
    """The result of a diagnosis: whether the failure is present, the number, its threshold, and a sentence."""

    name: str
    holds: bool
    value: float
    threshold: float
    sentence: str


def gate_saturation(gates: pd.DataFrame, gate_bias: float) -> Finding:
    """Judge whether gates have become constants: moved away from their start, and equal for every breast.

    Parameters
    ----------
    gates
        One row per gate, stream and view with its ``mean`` and ``sd`` over breasts, see :func:`over_breasts`.
    gate_bias
        The initial bias. Every gate starts at sigmoid(gate_bias), whatever the image. A gate that is still there has
        not saturated; it has not learned.
    """
    start = initial_gate(gate_bias)
    constant = gates["sd"] < CONSTANT_SD
    moved = (gates["mean"] - start).abs() >= MOVED
    share = float((constant & moved).mean())
    stuck, resting, n = int((constant & moved).sum()), int((constant & ~moved).sum()), len(gates)
    if constant.any():
        said = (
            f"{stuck} of {n} gates have moved from {start:.2f} and are stuck: they are the same for every breast (sd "
            f"below {CONSTANT_SD}); {resting} of {n} have not moved"
        )
    else:
        whole = f"all {n} have" if moved.all() else f"{int(moved.sum())} of {n} have"
        said = f"no gate is stuck: {whole} moved from {start:.2f}, and all vary between breasts"
    sentence = f"{said}; mean sd over breasts {gates['sd'].mean():.3f}"
    return Finding("gate saturation", share >= SATURATED_SHARE, share, SATURATED_SHARE, sentence)


def initial_gate(gate_bias: float) -> float:
    """Return sigmoid(gate_bias), the value of every learned gate before training."""
    return float(special.expit(gate_bias))


def over_breasts(gates: pd.DataFrame) -> pd.DataFrame:
    """Return one row per SeqMoE gate, stream and view: ``mean sd`` over breasts."""
    own = gates[gates["kind"] == "seqmoe"].groupby([*GATE, "view"])["value"]
    return pd.DataFrame({"mean": own.mean(), "sd": own.std(ddof=0)}).reset_index()


def variance_shares(gates: pd.DataFrame) -> dict[str, float]:
    """Split the variance of the SeqMoE gates' values by source, into shares that add to 1.

    ``block`` (which gate), ``view`` (CC or MLO, within a gate), ``breast`` (a breast's mean deviation, common to all
    its gates), ``breast x block`` (the rest: a breast's deviation in one gate and view). The network is deterministic,
    so the last two contain all adaptation to the breast. NaN if all values are equal.
    """
    own = gates[gates["kind"] == "seqmoe"]
    value = own["value"].astype(float)
    by_block = value.groupby([own[name] for name in GATE]).transform("mean")
    by_view = value.groupby([own[name] for name in [*GATE, "view"]]).transform("mean")
    common = (value - by_view).groupby(own["sample_id"]).transform("mean")
    parts = {
        "block": by_block - value.mean(),
        "view": by_view - by_block,
        "breast": common,
        "breast x block": value - by_view - common,
    }
    squares = {name: float((part**2).sum()) for name, part in parts.items()}
    total = sum(squares.values())
    return {name: square / total if total > 1e-12 else math.nan for name, square in squares.items()}


def fusion_dominance(crop_weight: np.ndarray) -> Finding:
    """Judge from the weight of the crop stream, per breast, whether the fusion gate uses only one stream."""
    weight = float(np.mean(crop_weight))
    ignored = "whole" if weight > 0.5 else "crop"
    heard = max(weight, 1 - weight)
    is_alone = heard > DOMINANCE
    return Finding(
        "fusion dominance", is_alone, heard, DOMINANCE,
        f"the fusion gate gives the crop stream a mean weight of {weight:.2f}"
        + (f": the {ignored} stream is ignored; compare with fusion='mean' or with one stream alone" if is_alone else
           ": the gate itself silences neither stream"),
    )  # fmt: skip


def stream_dominance(table: pd.DataFrame) -> list[Finding]:
    """Judge whether a stream is used, by the loss of AUC when breasts are given another breast's stream.

    ``table`` as :func:`intervention_table` returns it. One finding per stream; none for a single-stream network.
    A fusion weight measures how much of a stream enters, not whether it is informative. This test does.
    """
    findings = []
    for row in table[table["intervention"].isin(("crop_shuffled", "whole_shuffled"))].itertuples():
        stream, own = row.intervention.removesuffix("_shuffled"), row.auc - row.change
        drop = Interval(-row.change, -row.high, -row.low, row.n)
        shown = f"the {stream} stream is used" if drop.low > 0 else "inconclusive"
        what = f"no evidence that the {stream} stream is used" if drop.value < IGNORED_DROP else shown
        verdict = what if own >= INFORMED else f"cannot be judged, as the network itself has AUC {own:.2f}"
        cost = f"swapping the {stream} stream with another breast's lowers the AUC by {_signed(drop)}"
        findings.append(Finding(
            "stream dominance", own >= INFORMED and drop.value < IGNORED_DROP, drop.value, IGNORED_DROP,
            f"{cost}: {verdict}",
        ))  # fmt: skip
    return findings


def overcalling(label: np.ndarray, probability: np.ndarray, threshold: float = 0.5) -> Finding:
    """Judge whether nearly every breast is called malignant, a sign of overfitting the crop stream."""
    counts = confusion(label, probability, threshold)
    holds = counts.sensitivity >= OVERCALLING["sensitivity"] and counts.specificity <= OVERCALLING["specificity"]
    return Finding(
        "overcalling", bool(holds), counts.specificity, OVERCALLING["specificity"],
        f"sensitivity {counts.sensitivity:.2f} with specificity {counts.specificity:.2f}"
        + (": nearly every breast is called malignant, a sign of overfitting the crop stream; try more "
           "augmentation, fewer epochs or the whole stream" if holds else ""),
    )  # fmt: skip


def underfitting(train_loss: float) -> Finding:
    """Judge from the training loss of the last epoch whether the network hardly fits its own training breasts.

    The loss measures the level of the probabilities, not their order: an AUC somewhat above .5 is possible. The
    constant answer is one half. A network that has learned only the share of malignant breasts is not detected if that
    share is far from one half, because its loss is then lower than that of the constant answer.
    """
    least = CONSTANT_ANSWER - FITTED
    holds = train_loss > least
    return Finding(
        "underfitting", bool(holds), train_loss, least,
        f"the training loss ends at {train_loss:.3f}; a constant answer of one half has {CONSTANT_ANSWER:.3f}"
        + (": the network hardly fits its own training breasts, so that its score does not show what the images are "
           "worth; change train.learning_rate, and leave train.cached_encoder at 'training'" if holds else ""),
    )  # fmt: skip


def attention_bottleneck(measured: pd.DataFrame) -> Finding:
    """Judge whether attention in stages 3 and 4 limits batch and resolution.

    ``measured`` has one row per setting: ``image_size batch_size time_share memory_share``, shares of a training step's
    time and of the memory kept for the backward pass (written by ``benchmarks/attention.py``).
    """
    worst = measured.loc[measured[["time_share", "memory_share"]].max(axis=1).idxmax()]
    share = float(max(worst["time_share"], worst["memory_share"]))
    first = measured.sort_values(["image_size", "batch_size"]).iloc[0]
    return Finding(
        "attention bottleneck", share > BOTTLENECK, share, BOTTLENECK,
        f"attention takes at most {share:.0%} of a step's time or memory (at {worst['image_size']:.0f} px, batch "
        f"{worst['batch_size']:.0f}); at {first['image_size']:.0f} px and batch {first['batch_size']:.0f}, "
        f"{first['time_share']:.0%} of the time and {first['memory_share']:.0%} of the memory",
    )  # fmt: skip


def intervention_scores(interventions: pd.DataFrame, predictions: pd.DataFrame, split: str) -> pd.DataFrame:
    """Return a split's interventions with ``label patient_id``, sorted so that the draws of a kind are aligned."""
    own = interventions[interventions["split"] == split]
    who = predictions.loc[predictions["split"] == split, ["sample_id", "label", "patient_id"]]
    merged = own.merge(who, on="sample_id", validate="many_to_one")
    return merged.sort_values(["intervention", "draw", "sample_id"], ignore_index=True)


def intervention_table(scores: pd.DataFrame) -> pd.DataFrame:
    """Compare the unchanged network with each intervention on the same breasts.

    Returns
    -------
    DataFrame
        ``intervention what n auc change low high p p_holm moved``: ``change`` is AUC(intervention) - AUC(unchanged),
        averaged over draws, with DeLong's paired interval and p value; out-of-fold scores are compared within folds
        (:func:`mammo_lib.statistics.compare_folds`). ``p_holm`` is corrected over the table. ``moved`` is the mean
        absolute change of the logit.
    """
    compare = _compare_within_folds if "fold" in scores else _compare
    rows = []
    for name, what in INTERVENTIONS.items():
        if name in set(scores["intervention"]):
            rows.append({"intervention": name, "what": what} | compare(scores, name))
    table = pd.DataFrame(rows)
    return table.assign(p_holm=holm(table["p"]))


def _compare(scores: pd.DataFrame, name: str) -> dict[str, float]:
    label, as_is = _as_is(scores)
    draws = _draws(scores, name)
    drop, p = delong_test(label, as_is, draws)
    return {
        "n": drop.n, "auc": auc(label, as_is) - drop.value, "change": -drop.value, "low": -drop.high,
        "high": -drop.low, "p": p, "moved": float(np.abs(draws - as_is).mean()),
    }  # fmt: skip


def _compare_within_folds(scores: pd.DataFrame, name: str) -> dict[str, float]:
    own = scores[scores["intervention"] == AS_IS].reset_index(drop=True)
    draws = [own.assign(logit=logit) for logit in _draws(scores, name)]
    found = compare_folds(draws, [own] * len(draws))
    return {
        "n": found.n, "auc": stratified_auc([own]).value + found.value, "change": found.value, "low": found.low,
        "high": found.high, "p": found.p, "moved": float(np.abs(_draws(scores, name) - own["logit"].to_numpy()).mean()),
    }  # fmt: skip


def within_folds(gates: pd.DataFrame) -> pd.DataFrame:
    """Return the gates of a cross-validation on one scale: those of each fold's network moved to the common mean.

    Each fold's network has mean gates of its own, and differences between networks are not adaptation to the breast.
    Gates of one network are returned unchanged.
    """
    if "fold" not in gates:
        return gates
    names = ["kind", *GATE, "view"]
    moved = gates.groupby(names)["value"].transform("mean") - gates.groupby([*names, "fold"])["value"].transform("mean")
    return gates.assign(value=gates["value"] + moved)


def first_network(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of the first fold's network, or the table of a single network."""
    return table[table["fold"] == table["fold"].min()] if "fold" in table else table


def scoring_note(scores: pd.DataFrame, predictions: pd.DataFrame) -> str:
    """Say whether interventions were scored like the predictions of the same split; if not, give both AUCs.

    Runs of protocol 1 averaged flips for their predictions and not for their interventions.
    """
    both = scores[scores["intervention"] == AS_IS].merge(predictions[["sample_id", "logit"]], on="sample_id")
    if np.allclose(both["logit_x"], both["logit_y"], atol=ROUNDING):
        return "Interventions are scored in the same way as the predictions."
    here, there = (auc(both["label"].to_numpy(), both[name].to_numpy(float)) for name in ("logit_x", "logit_y"))
    return (
        "In this record, predictions average the scores of an image and its upside-down copy; interventions do not. "
        f"The unchanged network has an AUC of {there:.3f} in the headline and {here:.3f} here. Each intervention is "
        "compared with the latter."
    )


def _as_is(scores: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    own = scores[scores["intervention"] == AS_IS]
    return own["label"].to_numpy(), own["logit"].to_numpy(float)


def _draws(scores: pd.DataFrame, name: str) -> np.ndarray:
    own = scores[scores["intervention"] == name]
    return own["logit"].to_numpy(float).reshape(own["draw"].nunique(), -1)


def gate_correlations(gates: pd.DataFrame, predictions: pd.DataFrame, split: str, seed: int = 0) -> pd.DataFrame:
    """Correlate each breast's mean gate, per stream and stage, with known properties of the breast.

    Returns
    -------
    DataFrame
        ``stream stage property rho low high p p_holm n``: Spearman's rank correlation; interval and p value by Fisher's
        z with the standard error of the bootstrap over patients (on the ranks of the full sample); Holm over all rows.
        Unknown values (density 0, BI-RADS 0 = incomplete) are left out, and so is a property that no breast has. NaN if
        either variable is constant.
    """
    own = gates[(gates["kind"] == "seqmoe") & (gates["split"] == split)]
    area = own.groupby("sample_id")["log_area"].mean().rename("log_area")
    known = predictions[predictions["split"] == split].merge(area, on="sample_id", how="left")
    means = own.groupby(["stream", "stage", "sample_id"])["value"].mean()
    rows = []
    for stream, stage in means.index.droplevel("sample_id").unique():
        mine = known["sample_id"].map(means[stream, stage])
        for name, column in PROPERTIES.items():
            other = known[column].where(~((known[column] == 0) & (name in ("density", "BI-RADS"))))
            if other.isna().all():
                continue
            rows.append({"stream": stream, "stage": stage, "property": name,
                         **_rank_correlation(mine, other, known["patient_id"], seed)})  # fmt: skip
    table = pd.DataFrame(rows)
    return table.assign(p_holm=holm(table["p"]))


def _rank_correlation(one: pd.Series, other: pd.Series, patients: pd.Series, seed: int) -> dict[str, float]:
    usable = (one.notna() & other.notna()).to_numpy()
    x, y = (stats.rankdata(side[usable].to_numpy(float)) for side in (one, other))
    nothing = {"rho": math.nan, "low": math.nan, "high": math.nan, "p": math.nan, "n": int(usable.sum())}
    if usable.sum() < 4 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return nothing
    weights = patient_weights(patients[usable], N_RESAMPLES, seed)
    rho = _weighted_correlation(x, y, np.ones((1, len(x))))[0]
    z = np.arctanh(np.clip(rho, -1 + 1e-9, 1 - 1e-9))
    error = np.nanstd(np.arctanh(np.clip(_weighted_correlation(x, y, weights), -1 + 1e-9, 1 - 1e-9)))
    if error < NO_SPREAD:  # perfect correlation: no resample changes it; exact p: the share of orderings as extreme
        ties = np.unique(x, return_counts=True)[1]
        orders = special.gammaln(len(x) + 1) - special.gammaln(ties + 1).sum()
        return nothing | {"rho": rho, "p": float(min(1.0, 2 * np.exp(-orders)))}
    low, high = np.tanh(z + np.array([-1, 1]) * stats.norm.ppf(0.5 + LEVEL / 2) * error)
    return nothing | {"rho": rho, "low": low, "high": high, "p": normal_p(z, error)}


def _weighted_correlation(x: np.ndarray, y: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Pearson's correlation under each row of weights; NaN where a resample holds one value only."""
    w = weights / weights.sum(axis=1, keepdims=True)
    x, y = x - (w @ x)[:, None], y - (w @ y)[:, None]
    covariance, spread = (w * x * y).sum(axis=1), np.sqrt((w * x**2).sum(axis=1) * (w * y**2).sum(axis=1))
    return np.divide(covariance, spread, out=np.full(len(w), math.nan), where=spread > 0)


def routing_verdict(shares: dict[str, float], correlations: pd.DataFrame, table: pd.DataFrame) -> str:
    """Say whether the gates adapt to the breast and whether the score depends on that, with the numbers."""
    of_breast = shares["breast"] + shares["breast x block"]
    related = int((correlations["p_holm"] < 1 - LEVEL).sum())
    tests = table.set_index("intervention")
    changes = {name: tests.loc[name] for name in ("frozen", "shuffled")}
    matters = any(row["p_holm"] < 1 - LEVEL for row in changes.values())
    cost = " and ".join(
        f"{what} by {_signed(Interval(*changes[name][['change', 'low', 'high', 'n']]))}"
        for name, what in (
            ("frozen", "freezing the gates at their means"),
            ("shuffled", "taking those of another breast"),
        )
    )
    known = ", ".join(correlations["property"].unique())
    varies = "NaN" if math.isnan(of_breast) else f"{of_breast:.0%}"
    found = "The score depends on" if matters else "We found no evidence that the score depends on"
    return (
        f"{found} breast-specific gate values, after Holm's correction (n = {int(table['n'].iloc[0])}): the AUC "
        f"changes {cost}. Differences between breasts, alone or by block, make up {varies} of the gates' variance, "
        f"differences between blocks alone {shares['block']:.0%}. {related} of {len(correlations)} correlations with "
        f"{known} survive Holm's correction."
    )


def _signed(interval: Interval) -> str:
    value, low, high = (round(number, 3) + 0.0 for number in (interval.value, interval.low, interval.high))
    return f"{value:+.3f} ({low:+.3f} to {high:+.3f})"
