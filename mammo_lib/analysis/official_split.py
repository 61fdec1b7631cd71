"""Why do the official test breasts score lower? Case mix, films, reweighting, and other divisions of the same breasts.

A *cohort* has one row per breast: ``sample_id patient_id split label`` and what is compared, ``split`` being train or
test. *Predictions* have ``sample_id patient_id label logit``, and ``fold`` where they are out of fold; the AUC of
several frames (seeds, repeats) is the mean of theirs, within folds where there are any.

| symbol | meaning |
|---|---|
| d | standardised difference, test minus training: means over the root of the mean variance (Austin 2009); of |
|   | several categories the Mahalanobis distance of their shares (Yang and Dalton 2012) |
| w_i | weight of breast i: the odds that a breast with its readings lies on the other side |
| n_eff | effective number of breasts, (sum w)^2 / sum w^2 (Kish 1965) |

Intervals come from bootstrap samples of patients, drawn on each side by itself. No torch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import ndimage, stats

from ..data.cohort import assign_folds
from ..data.images import breast_mask, cut, read_image
from ..errors import InputError
from ..files import read_json
from ..runs.records import COMMITTED, WAY_OUT
from ..statistics import holm, mean_auc, patient_draws
from ..statistics.fold_groups import FEW, with_interval
from ..statistics.intervals import N_RESAMPLES, percentiles
from .assessment import CATEGORIES

RECORD = "test_set_shift.json"
N_PERMUTATIONS = 9999
IMBALANCE = 0.1  # standardised difference beyond which groups are usually called imbalanced (Austin 2009)
BANDS = {"0 to 2": "0 to 3", "3": "0 to 3", "4": "4", "5": "5"}  # wide enough for an AUC in each
GROUPS = {"all": (0, 1), "benign": (0,), "malignant": (1,)}
FORMS = ("readings within label", "readings alone", "strata of assessment and label")
FOLDS = 5

NO_PENALTY = 1e3  # nearly: a level that one side lacks keeps its coefficient finite

# How often each breast counts, on the own side and on the other, in; weights of the own side out.
Weigh = Callable[[np.ndarray, np.ndarray], np.ndarray]
# Features and training breasts in, a fitted classifier with ``decision_function`` out.
Fit = Callable[[pd.DataFrame, pd.DataFrame, int], object]


def read_record(home: Path | None = None) -> dict:
    """Return what ``benchmarks/official_split.py`` computed, part by part; tables are lists of rows."""
    return read_json((home or COMMITTED) / RECORD, WAY_OUT)


# ---- who is on which side -------------------------------------------------------------------------------------------


def standardised_difference(train: pd.Series, test: pd.Series) -> float:
    """Return d of a number, or of a category; missing values are left out, no spread is no difference.

    >>> standardised_difference(pd.Series([0.0, 2.0]), pd.Series([1.0, 3.0]))  # means 1 and 2, both variances 2
    0.7071067811865475
    """
    train, test = train.dropna(), test.dropna()
    if pd.api.types.is_numeric_dtype(train):
        spread = math.sqrt((train.var() + test.var()) / 2)
        return float((test.mean() - train.mean()) / spread) if spread else 0.0
    levels = sorted(set(train) | set(test))
    p, q = (side.value_counts(normalize=True).reindex(levels, fill_value=0).to_numpy()[1:] for side in (train, test))
    covariance = np.mean([np.diag(one) - np.outer(one, one) for one in (p, q)], axis=0)
    return float(math.sqrt(max(0.0, (q - p) @ np.linalg.pinv(covariance) @ (q - p))))


def balance(cohort: pd.DataFrame, names: Mapping[str, str], *, seed: int = 0, n: int = N_PERMUTATIONS) -> pd.DataFrame:
    """Compare the two sides in each column of ``names``, over all breasts, the benign and the malignant.

    Returns ``name level group train test difference p p_holm n_train n_test``. Of a number: means and d. Of a category:
    one row without a level, with d over all its levels, and a row per level with shares and d of its share, without a
    p value. p: ``n`` permutations of patients; Holm's correction is over every p value of the table.
    """
    swapped = _permuted_sides(cohort, n, seed)
    rows = []
    for group, labels in GROUPS.items():
        inside = cohort["label"].isin(labels).to_numpy()
        for column, name in names.items():
            given = inside & cohort[column].notna().to_numpy()
            values, sides = cohort.loc[given, column], swapped[:, given]
            if len(set(values)) > 1:
                rows += [{"name": name, "group": group} | row for row in _compared_sides(values, sides)]
    table = pd.DataFrame(rows)
    tested = table["p"].notna()
    return table.assign(p_holm=pd.Series(holm(table.loc[tested, "p"]), table.index[tested]))


def _permuted_sides(cohort: pd.DataFrame, n: int, seed: int) -> np.ndarray:
    """Return who is a test breast, (1 + n, breasts): as it is, then with the patients of both sides exchanged."""
    patient, test = pd.factorize(cohort["patient_id"])[0], (cohort["split"] == "test").to_numpy()
    own = np.zeros(patient.max() + 1, bool)
    own[patient[test]] = True
    if not np.array_equal(own[patient], test):
        raise InputError("cohort: a patient has breasts on both sides, so patients cannot be exchanged")
    drawn = np.random.default_rng(seed).permuted(np.tile(own, (n, 1)), axis=1)
    return np.vstack([own, drawn])[:, patient]


def _compared_sides(values: pd.Series, sides: np.ndarray) -> Iterator[dict]:
    is_test = sides[0]
    train, test = values[~is_test], values[is_test]
    counts = {"n_train": len(train), "n_test": len(test)}
    if pd.api.types.is_numeric_dtype(values):
        value = values.to_numpy(float)
        seen = np.abs(_mean(sides, value) - _mean(~sides, value))
        yield {"level": "", "train": train.mean(), "test": test.mean(), **_tested(train, test, seen)} | counts
        return
    marks = pd.get_dummies(values, dtype=float).to_numpy()
    expected = np.outer(sides.sum(axis=1), marks.mean(axis=0))
    seen = ((sides @ marks - expected) ** 2 / np.where(expected, expected, 1)).sum(axis=1)
    yield {"level": "", "train": math.nan, "test": math.nan, **_tested(train, test, seen)} | counts
    for level in sorted(values.unique()):
        shares = [(side == level).astype(float) for side in (train, test)]
        difference = {"difference": standardised_difference(*shares), "p": math.nan}
        yield {"level": level, "train": shares[0].mean(), "test": shares[1].mean()} | difference | counts


def _mean(sides: np.ndarray, value: np.ndarray) -> np.ndarray:
    return sides @ value / np.maximum(sides.sum(axis=1), 1)  # a small group may lie on one side when exchanged


def _tested(train: pd.Series, test: pd.Series, seen: np.ndarray) -> dict[str, float]:
    """Return d, and how often a permutation is at least as far apart as the two sides are (``seen[0]``)."""
    at_least = seen[1:] >= seen[0] - 1e-12
    return {"difference": standardised_difference(train, test), "p": float((1 + at_least.sum()) / len(seen))}


# ---- what the films look like ---------------------------------------------------------------------------------------

FILM_MEASURES = {
    "rows": "film, rows", "columns": "film, columns", "aspect": "film, height over width",
    "box_height": "box, height in px", "box_width": "box, width in px", "box_share": "box, share of the film",
    "breast_share": "breast, share of the film", "breast_mean": "breast, mean brightness",
    "breast_sd": "breast, contrast (sd)", "breast_detail": "breast, sharpness",
    "beside": "beside the breast, share of all light",
    "crop_mean": "crop, mean brightness", "crop_sd": "crop, contrast (sd)", "crop_detail": "crop, sharpness",
    "crop_ahead": "crop brighter than the breast by",
}  # fmt: skip


def measure_films(located: pd.DataFrame, sizes: Mapping[str, tuple[float, float]]) -> pd.DataFrame:
    """Return the columns of ``FILM_MEASURES`` per ``sample_id``, means over its views.

    ``located`` are the rows of whole films and of crops cut out of them, ``sizes`` the rows and columns of the original
    film by the stem of its file. Pixels are those of the film as stored, brightness in [0, 1]; sharpness is the sd of
    the Laplacian over that of the pixels; boxes are in pixels of the original film and hold the crop's margin.
    """
    rows = []
    for (sample, _), pair in located.set_index("stream").groupby(["sample_id", "view"]):
        rows.append({"sample_id": sample} | _measure(pair.loc["whole"], pair.loc["crop"], sizes))
    return pd.DataFrame(rows).groupby("sample_id").mean()


def _measure(whole, crop, sizes: Mapping[str, tuple[float, float]]) -> dict[str, float]:
    image = read_image(whole["path"])
    inside = breast_mask(image)
    box = tuple(crop[name] for name in ("x0", "y0", "x1", "y1"))
    lesion = cut(image, box)
    height, width = sizes[Path(whole["path"]).stem]
    tall, wide = (box[3] - box[1]) / image.shape[0], (box[2] - box[0]) / image.shape[1]
    edges = ndimage.laplace(image)
    return {
        "rows": height, "columns": width, "aspect": height / width,
        "box_height": tall * height, "box_width": wide * width, "box_share": tall * wide,
        "breast_share": inside.mean(), "breast_mean": image[inside].mean(), "breast_sd": image[inside].std(),
        "breast_detail": edges[inside].std() / image[inside].std(), "beside": image[~inside].sum() / image.sum(),
        "crop_mean": lesion.mean(), "crop_sd": lesion.std(),
        "crop_detail": cut(edges, box).std() / max(lesion.std(), 1e-6),
        "crop_ahead": lesion.mean() - image[inside].mean(),
    }  # fmt: skip


# ---- can the sides be told apart? -----------------------------------------------------------------------------------


def tell_apart(features: pd.DataFrame, cohort: pd.DataFrame, fit: Fit, seed: int) -> pd.DataFrame:
    """Return out-of-fold predictions of *which side a breast is on*: ``label`` is 1 for a test breast.

    Five folds by patient, stratified by side; ``pathology`` keeps the breast's own label.
    """
    sides = cohort.assign(pathology=cohort["label"], label=(cohort["split"] == "test").astype(int))
    return out_of_fold(features, sides, fit, seed)


def out_of_fold(features: pd.DataFrame, cohort: pd.DataFrame, fit: Fit, seed: int) -> pd.DataFrame:
    """Return predictions of breasts by classifiers that were fitted on other patients: five folds, the seed's."""
    folds, logit = assign_folds(cohort, FOLDS, seed).to_numpy(), np.full(len(cohort), math.nan)
    for number in range(FOLDS):
        out = folds == number
        model = fit(features[~out], cohort[~out], seed)
        logit[out] = model.decision_function(features[out].to_numpy(float))
    return cohort.assign(fold=folds, logit=logit)


def among_equals(frame: pd.DataFrame) -> pd.DataFrame:
    """Return predictions of :func:`tell_apart` that are compared only among breasts of one pathology."""
    return frame.assign(fold=2 * frame["fold"] + frame["pathology"])


# ---- the same AUC on another mix ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Resamples:
    """How often each breast of the two sides counts, (1 + resamples, breasts): first as it is, then as drawn.

    ``train`` and ``test`` are as observed; ``train_as_test`` and ``test_as_train`` have the other side's mix.
    """

    train: np.ndarray
    test: np.ndarray
    train_as_test: np.ndarray
    test_as_train: np.ndarray


def readings(cohort: pd.DataFrame) -> pd.DataFrame:
    """Return what weights are made of: assessment in four levels, subtlety, density and the log share of the box.

    Where there is a column ``suspicion``, how malignant the readers' words sound, it is one more.
    """
    levels = pd.get_dummies(cohort["assessment"].map(CATEGORIES), dtype=float).reindex(columns=["0 to 2", "3", "5"])
    names = ["subtlety", "density", *(["suspicion"] if "suspicion" in cohort else [])]
    numbers = cohort[names].astype(float).assign(log_share=np.log(cohort["box_share"]))
    return levels.fillna(0.0).join(numbers.fillna(numbers.median()))


def odds_weights(own: pd.DataFrame, other: pd.DataFrame, *, by_label: bool = True) -> Weigh:
    """Return what weighs breasts of ``own`` by the odds that a breast with their readings lies in ``other``.

    Logistic regression, within each label or over both. Within a label the weights add up to its breasts.
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
    """Return what weighs breasts of ``own`` by the ratio of shares that their assessment has, within their label."""
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
    """Give the weights of each label the sum that its breasts have."""
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
    """Return what weighs ``own`` to the mix of ``other``, in one of ``FORMS``."""
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
    p = 2 * stats.norm.sf(abs(gap[0]) / spread) if spread > 0 else 1.0
    return (
        with_interval("train", one) | with_interval("test", other) | with_interval("difference", gap)
        | {"p": float(p), "n_train": len(train[0]), "n_test": len(test[0])}
    )  # fmt: skip


def on_the_other_mix(train: Sequence[pd.DataFrame], test: Sequence[pd.DataFrame], draws: Resamples) -> dict[str, float]:
    """Return the AUC of each side on the other's mix, what the mix explains of the difference, and n_eff by label.

    ``explained`` is the training AUC minus the same on the test mix, ``left`` what then remains to the test AUC;
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

    Of a band with fewer than ten breasts of a class on a side only the numbers are given.
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


# ---- other divisions of the same breasts ----------------------------------------------------------------------------


def divide(cohort: pd.DataFrame, number: int) -> np.ndarray:
    """Return who is a test breast in random division ``number``: as many test patients as the official one has."""
    from sklearn.model_selection import GroupShuffleSplit

    n_test = cohort.loc[cohort["split"] == "test", "patient_id"].nunique()
    splitter = GroupShuffleSplit(1, test_size=n_test, random_state=number)
    _, test = next(splitter.split(cohort, groups=cohort["patient_id"]))
    return np.isin(np.arange(len(cohort)), test)


def score_division(
    features: pd.DataFrame, cohort: pd.DataFrame, is_test: np.ndarray, fit: Fit | None
) -> dict[str, float]:
    """Return the AUC ``test`` of a baseline that was fitted on the other breasts, and ``out_of_fold`` among those.

    Without ``fit`` the only feature is the score itself.
    """
    train, test = cohort[~is_test], cohort[is_test]
    if fit is None:
        scored = cohort.assign(logit=features.iloc[:, 0].to_numpy(float))
        return {"test": _plain_auc(scored[is_test]), "out_of_fold": _plain_auc(scored[~is_test])}
    model = fit(features[~is_test], train, 0)
    scored = test.assign(logit=model.decision_function(features[is_test].to_numpy(float)))
    own = _plain_auc(out_of_fold(features[~is_test], train, fit, 0))
    return {"test": _plain_auc(scored), "out_of_fold": own}


def _plain_auc(frame: pd.DataFrame) -> float:
    return float(mean_auc([frame], np.ones((1, len(frame))))[0])


def place(value: float, drawn: np.ndarray) -> dict[str, float | bool]:
    """Say where a value lies among drawn ones: ``value share_below low high sd is_usual``.

    ``share_below`` counts ties half; the value is usual within the central 95 %.

    >>> place(2.0, np.array([1.0, 2.0, 3.0, 4.0]))["share_below"]
    0.375
    """
    drawn = np.asarray(drawn, float)
    low, high = percentiles(drawn)
    below = float(((drawn < value) + 0.5 * (drawn == value)).mean())
    return {
        "value": float(value), "share_below": below, "low": low, "high": high, "mean": float(drawn.mean()),
        "sd": float(drawn.std(ddof=1)), "is_usual": bool(low <= value <= high),
    }  # fmt: skip


# ---- what the record answers ----------------------------------------------------------------------------------------


def places(divisions: Mapping[str, Mapping]) -> pd.DataFrame:
    """Return where the official division lies among random ones: ``name what`` and the columns of :func:`place`.

    ``what`` is the test AUC, or the difference of the out-of-fold AUC to it.
    """
    rows = []
    for name, found in divisions.items():
        test, inner, own = np.array(found["test"]), np.array(found["out_of_fold"]), found["official"]
        gap = place(own["out_of_fold"] - own["test"], inner - test)
        rows.append({"name": name, "what": "test AUC"} | place(own["test"], test) | {"divisions": len(test)})
        rows.append({"name": name, "what": "difference"} | gap | {"divisions": len(test)})
    return pd.DataFrame(rows)


def findings(record: Mapping) -> dict[str, bool]:
    """Return which of the chapter's explanations hold, by the rules that were fixed beforehand.

    ``chance``: not excluded. ``cases``: reweighting explains a part of the network's difference. ``films``: features of
    the pixels tell the sides apart among breasts of one label, and better than the readings do.
    """
    network, mix = record["scores"][0], record["mixes"][0]
    told = {row["name"]: row for row in record["told_apart"] if row["among"] == "breasts of one label"}
    pixels, readers = told["features, both streams"], told["readings"]
    return {
        "chance": bool(
            network["difference_low"] <= 0 <= network["difference_high"]
            and places(record["divisions"])["is_usual"].all()
        ),
        "cases": mix["explained_low"] > 0,
        "films": pixels["auc_low"] > 0.5 and pixels["auc"] > readers["auc"],
    }


def short_answer(record: Mapping) -> str:
    """Say in two sentences how large the network's difference is, and which explanations hold."""
    network, mix, found = record["scores"][0], record["mixes"][0], findings(record)
    usual = places(record["divisions"]).groupby("name", sort=False)["is_usual"].all()
    unusual = ", ".join(usual[~usual].index)
    band = next(row for row in record["bands"] if row["band"] == "4")
    told = next(row for row in record["told_apart"] if row["among"] == "breasts of one label")
    look = "look different" if found["films"] else "do not look different"
    explains = "explains" if found["cases"] else "is not shown to explain"
    return (
        f"{difference_in_words(network)} Among random divisions the official one is ordinary for {usual.sum()} of "
        f"{len(usual)} baselines{' and unusual for ' + unusual if unusual else ''}; "
        f"the test films {look} (AUC of telling them apart {in_words(told, 'auc', '')}), the mix of the readings "
        f"{explains} a part ({in_words(mix, 'explained')}), and among breasts of BI-RADS 4 the network falls from "
        f"{in_words(band, 'train', '')} to {in_words(band, 'test', '')} (p = {band['p']:.3f}, one of several "
        "comparisons)."
    )


def difference_in_words(network: Mapping) -> str:
    """Say in one sentence how much lower a network scores on the test breasts."""
    holds_zero = network["difference_low"] <= 0 <= network["difference_high"]
    return (
        f"The crop network reaches an AUC of {network['train']:.3f} on the {network['n_train']} training breasts, "
        f"out of fold, and of {network['test']:.3f} on the {network['n_test']} test breasts, a difference of "
        f"{in_words(network, 'difference')}, which "
        f"{'may be due to chance' if holds_zero else 'is larger than chance alone makes likely'}."
    )


def shares_in_words(cases: pd.DataFrame, name: str, level: str, group: str) -> str:
    """Say the share of a level on both sides, within a group of breasts, from the table of :func:`balance`."""
    row = cases.set_index(["name", "level", "group"]).loc[(name, level, group)]
    return f"{row['train']:.0%} of the training and {row['test']:.0%} of the test breasts"


def in_words(row: Mapping, name: str, sign: str = "+") -> str:
    """Return an estimate with its interval.

    >>> in_words({"auc": 0.8, "auc_low": 0.7, "auc_high": 0.9}, "auc", "")
    '0.800 (0.700 to 0.900)'
    """
    return f"{row[name]:{sign}.3f} ({row[f'{name}_low']:{sign}.3f} to {row[f'{name}_high']:{sign}.3f})"
