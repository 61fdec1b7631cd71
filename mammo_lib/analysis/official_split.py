"""Why do the official test breasts score lower? Case mix, films, and other divisions of the same breasts.

:mod:`mammo_lib.analysis.reweighting` computes what another mix of cases would change.

A *cohort* has one row per breast: ``sample_id patient_id split label`` and the columns to compare; ``split`` is train
or test. *Predictions* have ``sample_id patient_id label logit``, and ``fold`` if they are out of fold. The AUC of
several frames (seeds, repeats) is the mean over the frames, within folds if there are folds.

| symbol | meaning |
|---|---|
| d | standardised difference, test minus training: means over the root of the mean variance (Austin 2009); for |
|   | several categories, the Mahalanobis distance of their shares (Yang and Dalton 2012) |

Intervals come from bootstrap samples of patients, drawn separately on each side. No torch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import ndimage

from ..data.cohort import assign_folds
from ..data.images import breast_mask, cut, read_image
from ..errors import InputError
from ..files import read_json
from ..runs.records import COMMITTED, WAY_OUT
from ..statistics import holm, mean_auc
from ..statistics.intervals import percentiles
from .wording import in_words, includes_zero

RECORD = "test_set_shift.json"
N_PERMUTATIONS = 9999
IMBALANCE = 0.1  # standardised difference beyond which groups are usually called imbalanced (Austin 2009)
GROUPS = {"all": (0, 1), "benign": (0,), "malignant": (1,)}
FOLDS = 5

# From features, training breasts and a seed to a fitted classifier with ``decision_function``.
Fit = Callable[[pd.DataFrame, pd.DataFrame, int], object]


def read_record(home: Path | None = None) -> dict:
    """Return what ``benchmarks/official_split.py`` computed, part by part; tables are lists of rows."""
    return read_json((home or COMMITTED) / RECORD, WAY_OUT)


def standardised_difference(train: pd.Series, test: pd.Series) -> float:
    """Return d of a number or a category, 0 if there is no spread; missing values are left out.

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
    """Compare the two sides in each column of ``names``, for all breasts, for the benign and for the malignant ones.

    Returns ``name level group train test difference p p_holm n_train n_test``. For a number: means and d. For a
    category: one row without a level, with d over all its levels, and a row per level with shares and d of its share,
    without a p value. p: ``n`` permutations of patients; Holm's correction covers every p value of the table.
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
    """Return which breasts are test breasts, (1 + n, breasts): as observed, then with patients permuted."""
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
    return sides @ value / np.maximum(sides.sum(axis=1), 1)  # a permutation may put a small group on one side


def _tested(train: pd.Series, test: pd.Series, seen: np.ndarray) -> dict[str, float]:
    """Return d and its permutation p value: how often ``seen`` is at least as large as for the sides as observed."""
    at_least = seen[1:] >= seen[0] - 1e-12
    return {"difference": standardised_difference(train, test), "p": float((1 + at_least.sum()) / len(seen))}


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
    the Laplacian over that of the pixels; boxes are in pixels of the original film and include the crop's margin.
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


def tell_apart(features: pd.DataFrame, cohort: pd.DataFrame, fit: Fit, seed: int) -> pd.DataFrame:
    """Return out-of-fold predictions of *which side a breast is on*: ``label`` is 1 for a test breast.

    Five folds by patient, stratified by side; ``pathology`` keeps the breast's own label.
    """
    sides = cohort.assign(pathology=cohort["label"], label=(cohort["split"] == "test").astype(int))
    return out_of_fold(features, sides, fit, seed)


def out_of_fold(features: pd.DataFrame, cohort: pd.DataFrame, fit: Fit, seed: int) -> pd.DataFrame:
    """Return predictions of breasts by classifiers that were fitted on other patients, in five folds drawn by seed."""
    folds, logit = assign_folds(cohort, FOLDS, seed).to_numpy(), np.full(len(cohort), math.nan)
    for number in range(FOLDS):
        out = folds == number
        model = fit(features[~out], cohort[~out], seed)
        logit[out] = model.decision_function(features[out].to_numpy(float))
    return cohort.assign(fold=folds, logit=logit)


def among_equals(frame: pd.DataFrame) -> pd.DataFrame:
    """Return predictions of :func:`tell_apart` that are compared only among breasts of one pathology."""
    return frame.assign(fold=2 * frame["fold"] + frame["pathology"])


def divide(cohort: pd.DataFrame, number: int) -> np.ndarray:
    """Return the test breasts of random division ``number``, which has as many test patients as the official one."""
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

    ``share_below`` counts a tie as one half; a value within the central 95 % is usual.

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


def places(divisions: Mapping[str, Mapping]) -> pd.DataFrame:
    """Return where the official division lies among random ones: ``name what`` and the columns of :func:`place`.

    ``what`` is the test AUC, or the out-of-fold AUC minus it.
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
        "chance": bool(includes_zero(network, "difference") and places(record["divisions"])["is_usual"].all()),
        "cases": mix["explained_low"] > 0,
        "films": pixels["auc_low"] > 0.5 and pixels["auc"] > readers["auc"],
    }


def short_answer(record: Mapping) -> str:
    """Say in three sentences how large the network's difference is, and which explanations hold."""
    mix, found = record["mixes"][0], findings(record)
    usual, unusual, count = _usual_for(record)
    band = next(row for row in record["bands"] if row["band"] == "4")
    told = next(row for row in record["told_apart"] if row["among"] == "breasts of one label")
    look = "the test films look different" if found["films"] else "no difference of the test films was found"
    explains = "explains" if found["cases"] else "is not shown to explain"
    return (
        f"{difference_in_words(record)} Among random divisions the official one is ordinary for {usual} of {count} "
        f"baselines{' and unusual for ' + ', '.join(unusual) if unusual else ''}; "
        f"{look} (AUC for separating the two sides {in_words(told, 'auc', '')}), the mix of the readings "
        f"{explains} a part ({in_words(mix, 'explained')}), and among breasts of BI-RADS 4 the network falls from "
        f"{in_words(band, 'train', '')} to {in_words(band, 'test', '')} (p = {band['p']:.3f}, one of several "
        "comparisons)."
    )


def opening(record: Mapping) -> str:
    """Say in three sentences how large the network's difference is, and what is shown to explain it."""
    network, found = record["scores"][0], findings(record)
    band = next(row for row in record["bands"] if row["band"] == "4")
    shown = [
        name for name, is_shown in (("the look of the films", found["films"]), ("the mix of cases", found["cases"]))
        if is_shown
    ]  # fmt: skip
    explained = f"{' and '.join(shown)} {'explain' if len(shown) > 1 else 'explains'} a part of it" if shown else (
        "neither the look of the films nor the mix of cases is shown to explain it"
    )  # fmt: skip
    return (
        f"The crop network's AUC is {network['train']:.3f} out of fold on {network['n_train']} training breasts and "
        f"{network['test']:.3f} on {network['n_test']} test breasts, a difference of "
        f"{in_words(network, 'difference')}, p = {network['p_holm']:.2f} after Holm; {rule_in_words(record)}. "
        f"{explained[0].upper()}{explained[1:]}. Within BI-RADS 4 the AUC falls from {in_words(band, 'train', '')} to "
        f"{in_words(band, 'test', '')} (p = {band['p']:.3f}, one of several comparisons)."
    )


def division_in_words(record: Mapping) -> str:
    """Say how much a published network's scores in five folds and on the official division differ."""
    five, official = (record["published"][name] for name in ("five_folds", "official_split"))
    return (
        f"A published network reaches {five:.3f} in five folds and {official:.3f} on the official division: a paper "
        "that does not name its division can report a number that is higher by this much without a better network."
    )


def difference_in_words(record: Mapping) -> str:
    """Say how much lower the network scores on the test breasts, and whether chance is excluded by the rule."""
    network = record["scores"][0]
    return (
        f"The crop network reaches an AUC of {network['train']:.3f} on the {network['n_train']} training breasts, "
        f"out of fold in the first repeat, and of {network['test']:.3f} on the {network['n_test']} test breasts, a "
        f"difference of {in_words(network, 'difference')}. {_chance_in_words(record)}."
    )


def _chance_in_words(record: Mapping) -> str:
    """Say whether the interval of the difference and the rule fixed beforehand exclude chance; no full stop."""
    network = record["scores"][0]
    does = "includes" if includes_zero(network, "difference") else "excludes"
    return f"The interval {does} 0 (p = {network['p_holm']:.2f} after Holm); {rule_in_words(record)}"


def rule_in_words(record: Mapping) -> str:
    """Say whether the rule fixed beforehand excludes chance, and why if the interval alone would suggest otherwise."""
    _, unusual, count = _usual_for(record)
    is_chance = findings(record)["chance"]
    said = "chance is not excluded" if is_chance else "chance is not accepted as the explanation"
    why = "" if is_chance or not includes_zero(record["scores"][0], "difference") else (
        f", because the official division is unusual among random ones for {len(unusual)} of {count} baselines "
        f"({', '.join(CALLED.get(name, name) for name in unusual)}; without a correction for {2 * count} ranks)"
    )  # fmt: skip
    return f"by the rule fixed beforehand, {said}{why}"


CALLED = {"metadata": "the readers' words"}  # names of baselines that a sentence spells out


def _usual_for(record: Mapping) -> tuple[int, list[str], int]:
    """Return for how many baselines the official division is ordinary, the others' names, and how many there are."""
    usual = places(record["divisions"]).groupby("name", sort=False)["is_usual"].all()
    return int(usual.sum()), [*usual[~usual].index], len(usual)


def largest_in_words(cases: pd.DataFrame, group: str, n: int = 4) -> str:
    """Name the largest standardised differences of a group of breasts, from the table of :func:`balance`."""
    own = cases[cases["group"] == group]
    own = own.loc[own["difference"].abs().sort_values(ascending=False).index].head(n)
    said = [
        f"{row.name} {row.difference:+.2f} (mean {row.test:.2f} in test, {row.train:.2f} in training)"
        if np.isfinite(row.test) else f"{row.name} {abs(row.difference):.2f}" for row in own.itertuples(index=False)
    ]  # fmt: skip
    return f"Among {group} breasts the largest standardised differences are in {', '.join(said)}."


def both_directions(forms: pd.DataFrame) -> pd.DataFrame:
    """Return one score's rows of the record's mixes, as text: what each weighting explains, in either direction."""
    rows = forms.to_dict("records")
    return pd.DataFrame({
        "weights": [row["form"] for row in rows],
        "training breasts on the test mix": [in_words(row, "explained") for row in rows],
        "test breasts on the training mix": [in_words(row, "explained_back") for row in rows],
    })  # fmt: skip


def explained_in_words(forms: pd.DataFrame) -> str:
    """Say how much of the difference the mix explains in either direction, over all forms of weights."""
    ahead, back = forms["explained"], forms["explained_back"]
    beyond = sum(int((forms[f"{name}_low"] > 0).sum()) for name in ("explained", "explained_back"))
    return (
        f"For the {forms['name'].iloc[0]} the mix explains {ahead.min():+.3f} to {ahead.max():+.3f} of the difference "
        "when training breasts are weighted to the test mix (the direction on which the rule decides), and "
        f"{back.min():+.3f} to {back.max():+.3f} the other way round. {beyond or 'None'} of these {2 * len(forms)} "
        f"intervals exclude{'' if beyond > 1 else 's'} 0 (uncorrected), and the two directions differ: the share of "
        "the mix is not determined."
    )


def shares_in_words(cases: pd.DataFrame, name: str, level: str, group: str) -> str:
    """Say the share of a level on both sides, within a group of breasts, from the table of :func:`balance`."""
    row = cases.set_index(["name", "level", "group"]).loc[(name, level, group)]
    return f"{row['train']:.0%} of the training and {row['test']:.0%} of the test breasts"
