"""Why do the official test breasts score lower than the training breasts? Chapter 05a shows the record.

    python benchmarks/official_split.py --data DIR [--divisions 200]

No network is trained, and none scores a test breast: only the committed records of networks are used. Baselines without
a network are fitted again, also on random divisions of all breasts by patient; these fits see test labels. Every part
is kept in ``_build/official_split/`` when it is finished, so that a killed computation resumes; remove that folder to
start again. ``--part NAME`` makes one part and stops, so that several processes can share the work.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.base import clone
from sklearn.decomposition import KernelPCA
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedGroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from tqdm import tqdm

from mammo_lib.analysis import official_split as split
from mammo_lib.analysis import reweighting as weighing
from mammo_lib.analysis.assessment import CATEGORIES
from mammo_lib.config import BUILD, get_profile
from mammo_lib.data import open_collection
from mammo_lib.data.cbis_ddsm.mirror import Mirror800
from mammo_lib.data.collection import Collection
from mammo_lib.errors import InputError
from mammo_lib.files import read_json, read_table, with_numbers, write_csv, write_json, write_parquet
from mammo_lib.runs.environment import describe_environment
from mammo_lib.runs.experiments import experiment_configs
from mammo_lib.runs.protocols import PROTOCOL_2
from mammo_lib.runs.records import COMMITTED, all_runs, part_of
from mammo_lib.statistics import holm, stratified_auc
from mammo_lib.training.baselines import FEATURES
from mammo_lib.training.readers import PENALTIES, fit_logistic, metadata

HOME = BUILD / "official_split"
READERS = "readers' BI-RADS"
SCORED = {
    "frozen_stages": "frozen stages",
    "birads": READERS,
    "metadata": "metadata",
    "frozen_features": "frozen features",
}
WIDE = {"frozen_features"}  # more features than breasts
NETWORK = "crop network"
SAME_FITS = ("crop_only", "dual_stream")
REPEATS = (0, 1)
ROTATED = "rotated"
WITH_WORDS = "readings and words within label (exploratory)"
KINDS = ("features, both streams", "features, films", "features, crops", "film measurements", "readings")
PUBLISHED = {
    "source": "arXiv 2110.01606, abstract", "network": "two-view EfficientNet, CBIS-DDSM",
    "five_folds": 0.9344, "official_split": 0.8483,
}  # fmt: skip
NUMBERS = {
    "label": "malignant", "subtlety": "subtlety", "density": "density", "n_lesions": "number of lesions",
    "log_share": "log share of the film", "without_callback": "benign without callback",
}  # fmt: skip
WORDS = {"level": "BI-RADS", "shape": "shape", "margins": "margins"}
RARE = 0.05  # words of a smaller share of breasts are counted as "other"


class Breasts:
    """Both official sides: one row per breast, with the features of each baseline and the measurements of the films."""

    def __init__(self, data: Path):
        self.collection: Collection = open_collection(get_profile("mirror"), data)
        if not isinstance(self.collection.source, Mirror800):
            raise InputError(f"{data}: the record is made on the 800-px films; expected mass-800/ in it")
        config = experiment_configs(get_profile("mirror"), "baseline_frozen_stages")[0]
        self.prepared = {side: self.collection.prepare(side, *config.inputs) for side in ("train", "test")}
        proper = [one.cohort[~one.cohort["is_extra"]] for one in self.prepared.values()]
        self.official = pd.concat(proper, ignore_index=True)

    @cached_property
    def films(self) -> pd.DataFrame:
        """The measurements of the films, in the cohort's order."""
        path = HOME / "measured.parquet"
        if not path.is_file():
            found = split.measure_films(self.collection.source.locate(self.official), self._sizes())
            HOME.mkdir(parents=True, exist_ok=True)
            write_parquet(path, found.loc[self.official["sample_id"]].reset_index(drop=True))
        return pd.read_parquet(path)

    @cached_property
    def cohort(self) -> pd.DataFrame:
        """The breasts with their words and the size of their lesions."""
        located = self.collection.source.locate(self.official).query("stream == 'crop'")
        area = (located["x1"] - located["x0"]) * (located["y1"] - located["y0"]) / Mirror800.side**2
        share = area.groupby(located["sample_id"]).mean().loc[self.official["sample_id"]].to_numpy()
        return self._with_words(self.official.assign(box_share=share, log_share=np.log(share)))

    def features(self, name: str, *, as_they_are: bool = False) -> pd.DataFrame:
        """Return a baseline's features of all breasts, in cohort order; wide ones rotated unless ``as_they_are``."""
        table, parts = self.collection.table, []
        for side, prepared in self.prepared.items():
            own = self.official[self.official["split"] == side]
            parts.append(metadata(table, own) if name == "metadata" else FEATURES[name](table, prepared, own))
        found = pd.concat(parts, ignore_index=True)
        return rotate(found) if name in WIDE and not as_they_are else found

    def _sizes(self) -> dict[str, tuple[float, float]]:
        path = self.collection.source.folder / "original_size_estimate.csv"
        table = with_numbers(path, read_table(path, ("image", "rows", "cols_est")), ["rows", "cols_est"])
        return {row.image: (row.rows, row.cols_est) for row in table.itertuples()}

    def _with_words(self, cohort: pd.DataFrame) -> pd.DataFrame:
        """Add the words of a breast's masses, the level of its assessment, and benign masses without callback."""
        mass = self.collection.table.query("lesion_type == 'mass'")
        mass = mass.assign(breast_id=mass["patient_id"] + "_" + mass["laterality"]).groupby("breast_id")
        for column, name in (("mass_shape", "shape"), ("mass_margins", "margins")):
            said = mass[column].agg(lambda words: " + ".join(sorted(set(words.dropna()))) or "none")
            said = cohort["breast_id"].map(said)
            common = said.value_counts(normalize=True)
            cohort[name] = said.where(said.map(common) >= RARE, "OTHER").astype(object)
        spared = mass["pathology"].agg(lambda found: set(found) == {"BENIGN_WITHOUT_CALLBACK"})
        spared = cohort["breast_id"].map(spared).astype(float)
        levels = cohort["assessment"].map(CATEGORIES).astype(object)
        return cohort.assign(level=levels, without_callback=spared.where(cohort["label"] == 0))


def rows_of(table: pd.DataFrame) -> list[dict]:
    """Return a table as JSON rows: NaN is None, numbers have six digits."""
    return [
        {key: None if pd.isna(one) else round(float(one), 6) if isinstance(one, float) else one
         for key, one in row.items()}
        for row in table.astype(object).to_dict("records")
    ]  # fmt: skip


def rotate(features: pd.DataFrame) -> pd.DataFrame:
    """Return standardised features rotated into fewer columns than breasts, which changes no ridge-penalised solution.

    They are standardised once over all breasts, not again in every fit; this uses no label.
    """
    rotated = make_pipeline(StandardScaler(), KernelPCA(kernel="linear")).fit_transform(features.to_numpy(float))
    return pd.DataFrame(rotated).add_prefix(ROTATED)


def fit_rotated(features: pd.DataFrame, train: pd.DataFrame, seed: int) -> GridSearchCV:
    """Fit the regression of ``fit_logistic`` to features of :func:`rotate`, which keep their scale."""
    folds = StratifiedGroupKFold(split.FOLDS, shuffle=True, random_state=seed)
    search = GridSearchCV(LogisticRegression(max_iter=2000), {"C": PENALTIES}, scoring="roc_auc", cv=folds)
    return search.fit(features.to_numpy(float), train["label"].to_numpy(), groups=train["patient_id"].to_numpy())


def fit_of(features: pd.DataFrame) -> split.Fit:
    """Return the function that fits a regression on these features."""
    return fit_rotated if str(features.columns[0]).startswith(ROTATED) else fit_logistic


def with_chosen_penalty(features: pd.DataFrame, cohort: pd.DataFrame) -> split.Fit:
    """Return a fit with the penalty that cross-validation on the official training breasts chooses."""
    train = (cohort["split"] == "train").to_numpy()
    chosen = fit_of(features)(features[train], cohort[train], 0).best_estimator_

    def fit(own: pd.DataFrame, breasts: pd.DataFrame, seed: int):
        return clone(chosen).fit(own.to_numpy(float), breasts["label"].to_numpy())

    return fit


def divisions(breasts: Breasts, name: str, n: int) -> dict:
    """Return the AUCs of one baseline in ``n`` random divisions, made where missing, and in the official one."""
    path, columns = HOME / f"{name}.csv", ("number", "test", "out_of_fold")
    done = with_numbers(path, read_table(path, columns), columns) if path.is_file() else pd.DataFrame(columns=columns)
    features, cohort = breasts.features(name), breasts.official
    fit = None if name == "birads" else with_chosen_penalty(features, cohort)
    for number in tqdm(range(len(done), n), desc=f"divisions, {name}", unit="division", dynamic_ncols=True):
        found = split.score_division(features, cohort, split.divide(cohort, number), fit)
        row = pd.DataFrame([{"number": number} | found])
        done = pd.concat([done, row], ignore_index=True) if len(done) else row
        HOME.mkdir(parents=True, exist_ok=True)
        write_csv(path, done)
    drawn = done.iloc[:n].round(4)
    official = split.score_division(features, cohort, (cohort["split"] == "test").to_numpy(), fit)
    return {"test": drawn["test"].tolist(), "out_of_fold": drawn["out_of_fold"].tolist(),
            "official": {key: round(value, 4) for key, value in official.items()}}  # fmt: skip


def baseline_scores(breasts: Breasts, name: str) -> tuple[list[pd.DataFrame], list[pd.DataFrame]]:
    """Return a baseline's out-of-fold predictions of the training breasts, and those of the test breasts."""
    is_test = (breasts.cohort["split"] == "test").to_numpy()
    features, train, test = breasts.features(name), breasts.cohort[~is_test], breasts.cohort[is_test]
    if name == "birads":
        scored = breasts.cohort.assign(logit=features.to_numpy(float))
        return [scored[~is_test]], [scored[is_test]]
    fit = fit_of(features)
    scored = test.assign(logit=fit(features[~is_test], train, 0).decision_function(features[is_test].to_numpy(float)))
    return [split.out_of_fold(features[~is_test], train, fit, seed) for seed in REPEATS], [scored]


def committed(breasts: Breasts, experiment: str, part: str) -> list[pd.DataFrame]:
    """Return the committed predictions of an experiment's runs in one part, with the cohort's columns."""
    known = breasts.cohort.set_index("sample_id")
    found = []
    for run in all_runs(COMMITTED):
        frame = part_of(run.predictions, part)
        if run.config.experiment == experiment and len(frame):
            kept = [name for name in ("sample_id", "logit", "fold") if name in frame]
            found.append(frame[kept].join(known, on="sample_id"))
    return found


def in_order(frames: list[pd.DataFrame], cohort: pd.DataFrame) -> list[pd.DataFrame]:
    """Return frames in the order of a cohort, because weights are given in that order."""
    return [frame.set_index("sample_id").loc[cohort["sample_id"]].reset_index() for frame in frames]


def kind_of_features(breasts: Breasts, kind: str) -> pd.DataFrame:
    """Return the features by which a classifier may distinguish the two sides."""
    if kind == "film measurements":
        return breasts.films
    if kind == "readings":
        return weighing.readings(breasts.cohort)
    both = breasts.features("frozen_features", as_they_are=True)
    half = both.shape[1] // 2  # streams in alphabetical order: crop, whole
    return rotate({KINDS[0]: both, KINDS[1]: both.iloc[:, half:], KINDS[2]: both.iloc[:, :half]}[kind])


def tell_apart(breasts: Breasts, kind: str) -> list[dict]:
    """Return the AUC of test against training breasts by one kind of features, over all and among equal labels."""
    features, rows = kind_of_features(breasts, kind), []
    frames = [split.tell_apart(features, breasts.official, fit_of(features), seed) for seed in REPEATS]
    equal = [split.among_equals(frame) for frame in frames]
    for among, chosen in (("all breasts", frames), ("breasts of one label", equal)):
        one = stratified_auc(chosen)
        found = {"auc": one.value, "auc_low": one.low, "auc_high": one.high, "n": one.n}
        rows.append({"name": kind, "among": among} | found)
    return rows_of(pd.DataFrame(rows))


def compare(breasts: Breasts) -> dict[str, list[dict]]:
    """Return what each score reaches on both sides, on the other side's mix, and within bands of the assessment."""
    train, test = (breasts.cohort[breasts.cohort["split"] == side].reset_index(drop=True) for side in ("train", "test"))
    draws = {
        form: weighing.resample(train, test, form) for form in tqdm(weighing.FORMS, desc="weights", dynamic_ncols=True)
    }
    plain = draws[weighing.FORMS[0]]
    network_test = committed(breasts, "crop_only", "test")
    scores = {NETWORK: (committed(breasts, "crop", "out_of_fold"), network_test)}
    scores |= {SCORED[name]: baseline_scores(breasts, name) for name in SCORED}
    scores = {name: (in_order(one, train), in_order(other, test)) for name, (one, other) in scores.items()}
    sides = [
        {"name": name, "kind": "out of fold"} | weighing.both_sides(*both, plain.train, plain.test)
        for name, both in scores.items()
    ]
    for row, p in zip(sides, holm([row["p"] for row in sides]), strict=True):
        row["p_holm"] = float(p)
    for name in SAME_FITS:
        sides += [{"name": name, "kind": "validation, same fits"} | same_fits(breasts, name, test, plain)]
    mixes, bands = [], []
    for name, both in scores.items():
        mixes += [{"name": name, "form": form} | weighing.on_the_other_mix(*both, one) for form, one in draws.items()]
        own = [{"name": name} | row for row in weighing.within_assessment(*both, plain)]
        tested = [row for row in own if "p" in row]
        for row, p in zip(tested, holm([row["p"] for row in tested]), strict=True):
            row["p_holm"] = float(p)
        bands += own
    return {key: rows_of(pd.DataFrame(rows)) for key, rows in (("scores", sides), ("mixes", mixes), ("bands", bands))}


def with_words(breasts: Breasts) -> list[dict]:
    """Return the mixes of scores from pixels when weights also hold what the readers' words sound like.

    ``suspicion`` is the logit of the metadata baseline, out of fold on the training side.
    """
    cohort = breasts.cohort
    train, test = (cohort[cohort["split"] == side].reset_index(drop=True) for side in ("train", "test"))
    said = [
        in_order(frames, side) for frames, side in zip(baseline_scores(breasts, "metadata"), (train, test), strict=True)
    ]
    sounds = [np.mean([frame["logit"] for frame in frames], axis=0) for frames in said]
    draws = weighing.resample(train.assign(suspicion=sounds[0]), test.assign(suspicion=sounds[1]), weighing.FORMS[0])
    scores = {NETWORK: (committed(breasts, "crop", "out_of_fold"), committed(breasts, "crop_only", "test"))}
    scores |= {SCORED[name]: baseline_scores(breasts, name) for name in ("frozen_stages", "frozen_features")}
    ordered = {name: (in_order(one, train), in_order(other, test)) for name, (one, other) in scores.items()}
    rows = [
        {"name": name, "form": WITH_WORDS} | weighing.on_the_other_mix(*both, draws) for name, both in ordered.items()
    ]
    return rows_of(pd.DataFrame(rows))


def same_fits(breasts: Breasts, name: str, test: pd.DataFrame, plain: weighing.Resamples) -> dict:
    """Compare validation and test breasts of the same fits (protocol 1)."""
    held_out = committed(breasts, name, "validation")
    own = breasts.cohort[breasts.cohort["sample_id"].isin(held_out[0]["sample_id"])].reset_index(drop=True)
    draws = weighing.resample(own, test, weighing.FORMS[2])
    return weighing.both_sides(
        in_order(held_out, own), in_order(committed(breasts, name, "test"), test), draws.train, plain.test
    )


def sizes(breasts: Breasts) -> list[dict]:
    """Return breasts, patients and malignant breasts by side."""
    counted = breasts.official.groupby("split", sort=False).agg(
        breasts=("label", "size"), patients=("patient_id", "nunique"), malignant=("label", "sum")
    )
    return counted.reset_index().to_dict("records")


def measurements(breasts: Breasts) -> list[dict]:
    """Return the comparison of the films."""
    measured = breasts.cohort[["patient_id", "split", "label"]].join(breasts.films)
    return rows_of(split.balance(measured, split.FILM_MEASURES))


def parts(n: int) -> dict[str, Callable[[Breasts], object]]:
    """Return, by name, the function that makes each part of the record."""
    return {
        "breasts": sizes,
        "case_mix": lambda breasts: rows_of(split.balance(breasts.cohort, NUMBERS | WORDS)),
        "films": measurements,
        "compared": compare,
        "with_words": with_words,
        **{f"divisions_{name}": partial(divisions, name=name, n=n) for name in SCORED},
        **{f"told_apart_{number}": partial(tell_apart, kind=kind) for number, kind in enumerate(KINDS)},
    }


def main() -> None:
    """Compute the missing parts, and write the record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=os.environ.get("MAMMO_DATA"))
    parser.add_argument("--divisions", type=int, default=200)
    parser.add_argument("--part", choices=parts(0), action="append")
    arguments = parser.parse_args()
    if arguments.data is None:
        parser.error("give the folder of CBIS-DDSM with --data, or set MAMMO_DATA")
    breasts, made, commits = Breasts(Path(arguments.data)), {}, {}
    for name, make in parts(arguments.divisions).items():
        path = HOME / f"{name}.json"
        if arguments.part and name not in arguments.part:
            continue
        if not path.is_file():
            HOME.mkdir(parents=True, exist_ok=True)
            write_json(path, {"made": make(breasts), "commit": describe_environment(PROTOCOL_2)["commit"]})
        kept = read_json(path)
        made[name], commits[name] = kept["made"], kept["commit"]
    if arguments.part:
        return
    record = {
        "command": f"python benchmarks/official_split.py --data DIR --divisions {arguments.divisions}",
        "environment": describe_environment(PROTOCOL_2),
        "commits": commits,
        "data_hash": {side: one.fingerprint for side, one in breasts.prepared.items()},
        **{name: made[name] for name in ("breasts", "case_mix", "films")},
        "told_apart": [row for number in range(len(KINDS)) for row in made[f"told_apart_{number}"]],
        **made["compared"],
        "mixes_with_words": made["with_words"],
        "divisions": {shown: made[f"divisions_{name}"] for name, shown in SCORED.items()},
        "published": PUBLISHED,
    }
    write_json(COMMITTED / split.RECORD, record)


if __name__ == "__main__":
    main()
