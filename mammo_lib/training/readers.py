"""The readers' assessment, subtlety, density and descriptions of the films, as features and as targets."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd

from ..config import ReaderWords
from ..data.cohort import assign_folds, rarest_label
from ..data.views import official_side
from ..errors import InputError

WORDS = ("mass_shape", "mass_margins", "calc_type", "calc_distribution")
READINGS = ("assessment", "subtlety", "density")
PENALTIES = np.logspace(-5, 1, 4)
FOLDS = 5


def metadata(table: pd.DataFrame, cohort: pd.DataFrame, words: ReaderWords = "own_split") -> pd.DataFrame:
    """Return the readings, and one column per descriptive word: 1 if any lesion of the breast has it.

    The columns are the words of the training tables, and a breast's words are those of its own split's tables. The rule
    ``all_tables`` pools the tables: a training breast then also has the words of calcifications that are described only
    in a test table. Records of protocol 1 were made with it.
    """
    keys = ["breast_id", "split"] if words == "own_split" else ["breast_id"]
    said = table.assign(breast_id=table["patient_id"] + "_" + table["laterality"]).set_index(keys)
    marks = [_marks(said[name]) for name in WORDS if name in table]
    has = pd.concat([pd.DataFrame(index=said.index.unique()), *marks], axis=1)
    if words == "own_split":
        has = has.loc[:, has[has.index.get_level_values("split") == "train"].any()]
    breasts = cohort.assign(split=cohort["split"].map(official_side))[keys]
    found = breasts.merge(has, how="left", left_on=keys, right_index=True)[has.columns].fillna(0.0)
    return cohort[list(READINGS)].astype(float).reset_index(drop=True).join(found.reset_index(drop=True))


def reader_probability(
    table: pd.DataFrame, cohort: pd.DataFrame, seed: int, words: ReaderWords = "own_split"
) -> np.ndarray:
    """Return each training breast's probability of malignancy, predicted out of fold from the readers' descriptions.

    Generalised distillation (Lopez-Paz et al. 2016): information that is available only in training teaches a network
    that will not have it. Each breast is scored by a model that was fitted on other patients.
    """
    n_folds = min(FOLDS, max(2, rarest_label(cohort)[1]))
    features, folds = metadata(table, cohort, words), assign_folds(cohort, n_folds, seed).to_numpy()
    probability = np.full(len(cohort), np.nan)
    for fold in range(n_folds):
        held_out = folds == fold
        model = fit_logistic(features[~held_out], cohort[~held_out], seed)
        probability[held_out] = model.predict_proba(features[held_out].to_numpy(float))[:, 1]
    return probability


def fit_logistic(features: pd.DataFrame, train: pd.DataFrame, seed: int) -> Callable:
    """Return a logistic regression on standardised features, its penalty chosen over folds of training patients."""
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV, StratifiedGroupKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    impute = SimpleImputer(strategy="median", keep_empty_features=True)
    pipeline = make_pipeline(impute, StandardScaler(), LogisticRegression(max_iter=2000))
    label, n_patients = rarest_label(train)
    if n_patients < 2 or train["label"].nunique() < 2:
        raise InputError(
            f"label {label} has {n_patients} of the training patients; choosing a penalty over patients needs 2 "
            "of each label: add breasts, or choose other folds"
        )
    folds = StratifiedGroupKFold(min(FOLDS, n_patients), shuffle=True, random_state=seed)
    search = GridSearchCV(pipeline, {"logisticregression__C": PENALTIES}, scoring="roc_auc", cv=folds)
    return search.fit(features.to_numpy(float), train["label"].to_numpy(), groups=train["patient_id"].to_numpy())


def _marks(said: pd.Series) -> pd.DataFrame:
    """Return one row per breast of the index and one column per word: 1 if any of its lesions has the word."""
    words = said.str.split("-").explode()
    return pd.get_dummies(words, prefix=said.name, dtype=float).groupby(level=said.index.names).max()
