"""From records to findings: ways for gates and streams to fail that a good score hides, and whether routing adapts.

Input are the tables of a run folder (``gates``, ``interventions`` and ``predictions.parquet``); nothing here needs a
network. A finding states its number and its threshold, whichever way it falls. The thresholds are ours.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats
from statsmodels.stats.multitest import multipletests

from ..statistics import LEVEL, Interval, auc, confusion, delong_test, patient_weights

CONSTANT_SD = 0.01  # a gate whose values over breasts have a smaller standard deviation is the same for every breast
MOVED = 0.05  # a gate whose mean is nearer to its initial value has not left its start
EXTREME = 0.05  # a gate nearer to 0 or 1 than this is shut or open
SATURATED_SHARE = 0.5  # of the gates, from which the network counts as saturated
DOMINANCE = 0.95  # a stream that gets this share of the fusion gate is the only one that is heard
IGNORED_DROP = 0.01  # a stream whose exchange between breasts costs less AUC is not used
INFORMED = 0.60  # AUC below which no stream can be said to be used or ignored
OVERCALLING = {"sensitivity": 0.95, "specificity": 0.30}  # nearly everything malignant: typical of learning crop frames
BOTTLENECK = 0.5  # share of time or memory from which attention limits batch and resolution
N_BOOTSTRAP = 2000
ROUNDING = 1e-3  # two logits that differ by less are the same score

GATE = ["stream", "stage", "block"]
PROPERTIES = {"lesion size": "log_area", "density": "density", "BI-RADS": "assessment", "malignancy": "label"}
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
    """What a diagnosis says: whether the failure is there, the number, its threshold, and a sentence with both."""

    name: str
    holds: bool
    value: float
    threshold: float
    sentence: str


def gate_saturation(gates: pd.DataFrame, gate_bias: float) -> Finding:
    """Judge whether gates have become constants: away from their start, and the same for every breast.

    Parameters
    ----------
    gates
        One row per gate, stream and view with its ``mean`` and ``sd`` over breasts, see :func:`over_breasts`.
    gate_bias
        The initial bias: every gate starts at sigmoid(gate_bias) whatever the image, so that a gate which is still
        there has not saturated; it has not learned.
    """
    start = initial_gate(gate_bias)
    constant = gates["sd"] < CONSTANT_SD
    moved = (gates["mean"] - start).abs() >= MOVED
    share, resting = float((constant & moved).mean()), float((constant & ~moved).mean())
    return Finding(
        "gate saturation", share >= SATURATED_SHARE, share, SATURATED_SHARE,
        f"{share:.0%} of {len(gates)} gates have left their start ({start:.2f}) and are the same for every breast (sd "
        f"below {CONSTANT_SD}); {resting:.0%} are the same because they have not left it; mean sd over breasts "
        f"{gates['sd'].mean():.3f}",
    )  # fmt: skip


def initial_gate(gate_bias: float) -> float:
    """Return sigmoid(gate_bias), what every learned gate is before training."""
    return 1 / (1 + math.exp(-gate_bias))


def over_breasts(gates: pd.DataFrame) -> pd.DataFrame:
    """Return one row per SeqMoE gate, stream and view: ``mean sd`` over breasts."""
    own = gates[gates["kind"] == "seqmoe"].groupby([*GATE, "view"])["value"]
    return own.agg(mean="mean", sd=lambda values: values.std(ddof=0)).reset_index()


def gate_profile(gates: pd.DataFrame) -> pd.DataFrame:
    """Return per SeqMoE gate ``mean sd low high shut open entropy`` over breasts and views.

    ``shut`` and ``open`` are shares of values nearer than ``EXTREME`` to 0 and to 1; ``entropy`` is the mean of
    -G log2 G - (1 - G) log2(1 - G), in bits: 1 at a half, 0 at both ends.
    """
    own = gates[gates["kind"] == "seqmoe"]
    g = own["value"].astype(float).clip(1e-7, 1 - 1e-7)
    facts = own.assign(
        shut=own["value"] < EXTREME, open=own["value"] > 1 - EXTREME, entropy=-g * np.log2(g) - (1 - g) * np.log2(1 - g)
    )
    grouped = facts.groupby(GATE)
    numbers = grouped["value"].agg(mean="mean", sd=lambda values: values.std(ddof=0), low="min", high="max")
    return numbers.join(grouped[["shut", "open", "entropy"]].mean()).reset_index()


def variance_shares(gates: pd.DataFrame) -> dict[str, float]:
    """Split the variance of the SeqMoE gates' values into what explains it, shares that add to 1.

    ``block`` (which gate), ``view`` (CC or MLO, within a gate), ``breast`` (a breast's mean deviation, common to all
    its gates), ``breast x block`` (the rest: a breast's deviation in one gate and view). The network is deterministic,
    so the last two are all that a breast can do. NaN where every value is the same.
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
    """Judge from the weight of the crop stream, per breast, whether the fusion gate hears one stream only."""
    weight = float(np.mean(crop_weight))
    ignored = "whole" if weight > 0.5 else "crop"
    heard = max(weight, 1 - weight)
    is_alone = heard > DOMINANCE
    return Finding(
        "fusion dominance", is_alone, heard, DOMINANCE,
        f"the fusion gate gives the crop stream a mean weight of {weight:.2f}"
        + (f": the {ignored} stream is ignored; compare with fusion='mean' or with one stream alone" if is_alone else
           ": both streams are heard"),
    )  # fmt: skip


def stream_dominance(scores: pd.DataFrame) -> list[Finding]:
    """Judge by exchange whether a stream is used: what does the AUC lose when breasts get that stream of another?

    ``scores`` as :func:`intervention_scores` returns them. One finding per stream; none for a network of one stream.
    A weight says how loud a stream is, not whether it says anything: this does.
    """
    label, as_is = _as_is(scores)
    findings = []
    for name in ("crop_shuffled", "whole_shuffled"):
        if name in set(scores["intervention"]):
            drop, _ = delong_test(label, as_is, _draws(scores, name))
            stream, informed = name.removesuffix("_shuffled"), auc(label, as_is) >= INFORMED
            shown = "is used" if drop.low > 0 else "seems to be used, which so few breasts do not prove"
            what = "is not seen to be used" if drop.value < IGNORED_DROP else shown
            verdict = what if informed else f"cannot be judged, as the network itself has AUC {auc(label, as_is):.2f}"
            cost = f"exchanging the {stream} stream between breasts costs {_signed(drop)} AUC"
            findings.append(Finding(
                "stream dominance", informed and drop.value < IGNORED_DROP, drop.value, IGNORED_DROP,
                f"{cost}: the {stream} stream {verdict}",
            ))  # fmt: skip
    return findings


def overcalling(label: np.ndarray, probability: np.ndarray, threshold: float = 0.5) -> Finding:
    """Judge whether nearly every breast is called malignant, the signature of overfitting the crop stream."""
    counts = confusion(label, probability, threshold)
    holds = counts.sensitivity >= OVERCALLING["sensitivity"] and counts.specificity <= OVERCALLING["specificity"]
    return Finding(
        "overcalling", bool(holds), counts.specificity, OVERCALLING["specificity"],
        f"sensitivity {counts.sensitivity:.2f} with specificity {counts.specificity:.2f}"
        + (": nearly every breast is called malignant, as networks do that overfit the crop stream; look at more "
           "augmentation, fewer epochs or the whole stream" if holds else ""),
    )  # fmt: skip


def attention_bottleneck(measured: pd.DataFrame) -> Finding:
    """Judge whether attention in stages 3 and 4 limits batch and resolution.

    ``measured`` has one row per setting: ``image_size batch_size time_share memory_share``, shares of a training step's
    time and of what it keeps for the backward pass (``benchmarks/attention.py`` makes it).
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
    """Return a split's interventions with ``label patient_id``, ordered so that draws of one kind line up."""
    own = interventions[interventions["split"] == split]
    who = predictions.loc[predictions["split"] == split, ["sample_id", "label", "patient_id"]]
    merged = own.merge(who, on="sample_id", validate="many_to_one")
    return merged.sort_values(["intervention", "draw", "sample_id"], ignore_index=True)


def intervention_table(scores: pd.DataFrame) -> pd.DataFrame:
    """Compare the network as it is with each intervention, on the same breasts.

    Returns
    -------
    DataFrame
        ``intervention what n auc change low high p p_holm moved``: ``change`` is AUC(intervention) - AUC(as it is),
        over draws the mean, with DeLong's paired interval and p value, corrected after Holm over the table; ``moved``
        is the mean absolute change of the logit.
    """
    label, as_is = _as_is(scores)
    rows = []
    for name, what in INTERVENTIONS.items():
        if name in set(scores["intervention"]):
            draws = _draws(scores, name)
            drop, p = delong_test(label, as_is, draws)
            rows.append({
                "intervention": name, "what": what, "n": drop.n, "auc": auc(label, as_is) - drop.value,
                "change": -drop.value, "low": -drop.high, "high": -drop.low, "p": p,
                "moved": float(np.abs(draws - as_is).mean()),
            })  # fmt: skip
    table = pd.DataFrame(rows)
    return table.assign(p_holm=multipletests(table["p"].fillna(1.0), method="holm")[1])


def scoring_note(scores: pd.DataFrame, predictions: pd.DataFrame) -> str:
    """Say whether interventions were scored as the predictions of the same split were, and what the AUC of each is.

    Runs of protocol 1 averaged flips for their predictions and not for their interventions.
    """
    both = scores[scores["intervention"] == "as_is"].merge(predictions[["sample_id", "logit"]], on="sample_id")
    if np.allclose(both["logit_x"], both["logit_y"], atol=ROUNDING):
        return "Interventions are scored as the predictions are."
    here, there = (auc(both["label"].to_numpy(), both[name].to_numpy(float)) for name in ("logit_x", "logit_y"))
    return (
        "In this record interventions are scored without averaging an image and its upside-down copy, and predictions "
        f"with it: the unchanged network has an AUC of {here:.3f} here and {there:.3f} in the headline. Each "
        "intervention is compared with the former."
    )


def _as_is(scores: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    own = scores[scores["intervention"] == "as_is"]
    return own["label"].to_numpy(), own["logit"].to_numpy(float)


def _draws(scores: pd.DataFrame, name: str) -> np.ndarray:
    own = scores[scores["intervention"] == name]
    return own["logit"].to_numpy(float).reshape(own["draw"].nunique(), -1)


def gate_correlations(gates: pd.DataFrame, predictions: pd.DataFrame, split: str, seed: int = 0) -> pd.DataFrame:
    """Correlate each breast's mean gate, per stream and stage, with what is known of the breast.

    Returns
    -------
    DataFrame
        ``stream stage property rho low high p p_holm n``: Spearman's rank correlation; interval and p value by Fisher's
        z with the standard error of the bootstrap over patients (on the ranks of the full sample); Holm over all rows.
        Unknown values (density 0, BI-RADS 0 = incomplete) are left out; NaN where either side is constant.
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
            rows.append({"stream": stream, "stage": stage, "property": name,
                         **_rank_correlation(mine, other, known["patient_id"], seed)})  # fmt: skip
    table = pd.DataFrame(rows)
    return table.assign(p_holm=multipletests(table["p"].fillna(1.0), method="holm")[1])


def _rank_correlation(one: pd.Series, other: pd.Series, patients: pd.Series, seed: int) -> dict[str, float]:
    usable = (one.notna() & other.notna()).to_numpy()
    x, y = (stats.rankdata(side[usable].to_numpy(float)) for side in (one, other))
    nothing = {"rho": math.nan, "low": math.nan, "high": math.nan, "p": math.nan, "n": int(usable.sum())}
    if usable.sum() < 4 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return nothing
    weights = patient_weights(patients[usable], N_BOOTSTRAP, seed)
    rho = _weighted_correlation(x, y, np.ones((1, len(x))))[0]
    z = np.arctanh(np.clip(rho, -1 + 1e-9, 1 - 1e-9))
    error = np.nanstd(np.arctanh(np.clip(_weighted_correlation(x, y, weights), -1 + 1e-9, 1 - 1e-9)))
    low, high = np.tanh(z + np.array([-1, 1]) * stats.norm.ppf(0.5 + LEVEL / 2) * error)
    return nothing | {"rho": rho, "low": low, "high": high, "p": float(2 * stats.norm.sf(abs(z) / error))}


def _weighted_correlation(x: np.ndarray, y: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Pearson's correlation under each row of weights; NaN where a resample holds one value only."""
    w = weights / weights.sum(axis=1, keepdims=True)
    x, y = x - (w @ x)[:, None], y - (w @ y)[:, None]
    covariance, spread = (w * x * y).sum(axis=1), np.sqrt((w * x**2).sum(axis=1) * (w * y**2).sum(axis=1))
    return np.divide(covariance, spread, out=np.full(len(w), math.nan), where=spread > 0)


def exemplary_cases(predictions: pd.DataFrame) -> pd.DataFrame:
    """Return the most confident true positive, false negative and false positive at the threshold, by ``kind``.

    One split's predictions; a kind that does not occur is left out.
    """
    called = predictions["probability"] >= predictions["threshold"]
    malignant = predictions["label"] == 1
    kinds = {
        "true positive": (malignant & called, False),
        "false negative": (malignant & ~called, True),
        "false positive": (~malignant & called, False),
    }
    found = [
        predictions[mask].sort_values("probability", ascending=ascending).head(1).assign(kind=kind)
        for kind, (mask, ascending) in kinds.items()
    ]
    return pd.concat(found, ignore_index=True)


def routing_verdict(shares: dict[str, float], correlations: pd.DataFrame, table: pd.DataFrame) -> str:
    """Say in one sentence whether the routing adapts to the breast and whether the score uses it, with the numbers."""
    of_breast = shares["breast"] + shares["breast x block"]
    related = int((correlations["p_holm"] < 1 - LEVEL).sum())
    tests = table.set_index("intervention")
    changes = {name: tests.loc[name] for name in ("frozen", "shuffled")}
    matters = any(row["p_holm"] < 1 - LEVEL for row in changes.values())
    cost = ", ".join(
        f"{what} {_signed(Interval(*changes[name][['change', 'low', 'high', 'n']]))}"
        for name, what in (("frozen", "freezing them at their means"), ("shuffled", "taking another breast's"))
    )
    varies = "NaN" if math.isnan(of_breast) else f"{of_breast:.0%}"
    return (
        f"The breast explains {varies} of the gates' variance, the block {shares['block']:.0%}; {related} of "
        f"{len(correlations)} correlations with lesion size, density, BI-RADS and malignancy survive Holm's correction."
        f" Change of AUC: {cost} (n = {int(table['n'].iloc[0])}): "
        + ("after Holm's correction the score uses what the gates know of a breast." if matters else
           "that the score uses what the gates know of a breast is not shown after Holm's correction.")
    )  # fmt: skip


def _signed(interval: Interval) -> str:
    value, low, high = (round(number, 3) + 0.0 for number in (interval.value, interval.low, interval.high))
    return f"{value:+.3f} ({low:+.3f} to {high:+.3f})"
