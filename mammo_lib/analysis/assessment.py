"""The readers' assessment: the risk that goes with a BI-RADS category, and where the assessment is itself the label."""

from __future__ import annotations

import pandas as pd

from ..statistics import auc_of
from .wording import estimate

# BI-RADS 0 is incomplete: further imaging is needed. Orders of the categories, from the least to the most suspicious.
ORDERS = {"lowest, as stored": (0, 1, 2, 3, 4, 5), "between 3 and 4": (1, 2, 3, 0, 4, 5), "left out": (1, 2, 3, 4, 5)}
CATEGORIES = {0: "0 to 2", 1: "0 to 2", 2: "0 to 2", 3: "3", 4: "4", 5: "5"}


def risk_by_category(training: pd.DataFrame, assessment: pd.Series) -> pd.Series:
    """Return for each assessment the share of malignant training breasts of its category, shrunk by Laplace's rule.

    ``training`` has ``assessment`` and ``label``. With k of n malignant the share is (k + 1) / (n + 2), so that no
    category is certain. A logistic regression with a penalty chosen by AUC ranks as well and says nothing about risk.

    >>> seen = pd.DataFrame({"assessment": [4, 4, 5, 5], "label": [0, 1, 1, 1]})
    >>> risk_by_category(seen, pd.Series([4, 5])).tolist()
    [0.5, 0.75]
    """
    known = training.groupby(training["assessment"].map(CATEGORIES))["label"].agg(["sum", "size"])
    risk = (known["sum"] + 1) / (known["size"] + 2)
    return assessment.map(CATEGORIES).map(risk).fillna(0.5).astype(float)


def rank_incomplete(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the AUC of the assessment alone for each place that BI-RADS 0 can have among the categories.

    ``frame`` has ``assessment label patient_id``. The result has the columns ``BI-RADS 0 auc auc_low auc_high n``.
    """
    rows = []
    for place, order in ORDERS.items():
        ranks = frame["assessment"].map({category: rank for rank, category in enumerate(order)})
        found = auc_of(frame.assign(rank=ranks), "rank")
        rows.append({"BI-RADS 0": place, **estimate("auc", found), "n": found.n})
    return pd.DataFrame(rows)


def never_called_back(table: pd.DataFrame) -> set[str]:
    """Return the breasts whose masses are all ``BENIGN_WITHOUT_CALLBACK`` in a lesion table, as "P_00001_LEFT".

    Nobody took a biopsy there: that the readers called them benign is their label.
    """
    masses = table[table["lesion_type"] == "mass"]
    breasts = masses["patient_id"] + "_" + masses["laterality"]
    alone = masses["pathology"].eq("BENIGN_WITHOUT_CALLBACK").groupby(breasts).all()
    return {*alone.index[alone]}
