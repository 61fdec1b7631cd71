"""What the readers' descriptions reach on calcifications, from the official tables alone. Chapter 09 shows the record.

    python benchmarks/calcifications.py [--data DIR]

No image is opened and no network scored (protocol 3). Without ``--data`` the tables are those of the sample, which are
the official ones. It takes some minutes.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd

from mammo_lib.analysis.official_split import out_of_fold
from mammo_lib.data import build_cohorts, read_tables
from mammo_lib.data.sample import sample_folder
from mammo_lib.files import write_json
from mammo_lib.runs.environment import describe_environment
from mammo_lib.runs.protocols import PROTOCOL_3
from mammo_lib.runs.records import COMMITTED
from mammo_lib.statistics import auc_bootstrap_interval, stratified_auc
from mammo_lib.training.baselines import FEATURES
from mammo_lib.training.readers import fit_logistic

RECORD = COMMITTED / "calcification_baselines.json"
COHORTS = {"calc": "calcifications", "mass+calc": "masses and calcifications, pooled", "official": "masses"}
REPEATS = (0, 1)


def score(table: pd.DataFrame, definition: str, name: str) -> dict:
    """Fit a baseline on a cohort's training breasts; score it out of fold and on the official test breasts."""
    train, test = build_cohorts(table, definition).values()
    features = FEATURES[name](table, None, train)
    model = fit_logistic(features, train, seed=0)
    scored = model.decision_function(FEATURES[name](table, None, test).to_numpy(float))
    own = stratified_auc([out_of_fold(features, train, fit_logistic, seed) for seed in REPEATS])
    official = auc_bootstrap_interval(test["label"].to_numpy(), scored, test["patient_id"].to_numpy())
    row = {"cohort": COHORTS[definition], "definition": definition, "baseline": name}
    for side, one, cohort in (("train", own, train), ("test", official, test)):
        row |= {side: one.value, f"{side}_low": one.low, f"{side}_high": one.high, f"n_{side}": len(cohort),
                f"malignant_{side}": int(cohort["label"].sum())}  # fmt: skip
    return row


def main() -> None:
    """Write the record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with the four official tables")
    table = read_tables(parser.parse_args().data or sample_folder())
    rows = [score(table, definition, name) for definition in COHORTS for name in ("birads", "metadata")]
    write_json(RECORD, {"rows": rows, "environment": describe_environment(PROTOCOL_3)})


if __name__ == "__main__":
    main()
