"""How often do the intervals of repeated cross-validation cover the truth? A simulation at the sizes of protocol 2.

Each simulated data set has as many breasts, patients and malignant breasts as the training set of CBIS-DDSM. Two
classifiers that depend on chance as networks do (ridge regression on random ReLU features) are cross-validated in the
same folds. The truth is the mean AUC difference over all simulated sets. The record says how often the 95 % intervals
cover it, how often TOST calls the two equivalent when the true difference lies at the bound, and the standard errors.

    python benchmarks/interval_coverage.py [--sets 1000] [--repeats 2]
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.model_selection import StratifiedGroupKFold
from tqdm import tqdm

from mammo_lib.files import write_json
from mammo_lib.runs.environment import describe_environment
from mammo_lib.statistics import compare_folds
from mammo_lib.statistics.out_of_fold import EQUIVALENCE

BREASTS, PATIENTS, MALIGNANT, FOLDS, FEATURES = 506, 489, 249, 5, 20
RECORD = Path(__file__).with_suffix(".json")
CASES = {  # random features of the one classifier and of the other, and how much worse the other's inputs are
    "same classifier": (60, 60, 0.0),
    "other size": (60, 15, 0.0),
    "other inputs": (60, 60, 0.35),
    "inputs at the bound": (60, 60, 0.48),  # the true difference is about EQUIVALENCE
}


def data_set(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return features, labels and patients; the two breasts of a patient have correlated features."""
    label = np.zeros(BREASTS, int)
    label[rng.choice(BREASTS, MALIGNANT, replace=False)] = 1
    patient = np.arange(BREASTS) % PATIENTS
    shared = rng.normal(size=(PATIENTS, FEATURES))[patient]
    x = 0.7 * shared + np.sqrt(1 - 0.49) * rng.normal(size=(BREASTS, FEATURES))
    x[:, :6] += 0.55 * (2 * label[:, None] - 1)
    return x, label, patient


def scores(x, label, train, test, n_features: int, rng: np.random.Generator) -> np.ndarray:
    """Fit ridge regression on random ReLU features; return the held-out scores."""
    weight, bias = rng.normal(size=(x.shape[1], n_features)), rng.normal(size=n_features)
    hidden = np.maximum(x @ weight / np.sqrt(x.shape[1]) + bias, 0)
    centre = hidden[train].mean(axis=0)
    h, y = hidden[train] - centre, label[train] - label[train].mean()
    return (hidden[test] - centre) @ np.linalg.solve(h.T @ h + 10 * np.eye(n_features), h.T @ y)


def simulate(case: str, repeats: int, rng: np.random.Generator):
    """Cross-validate both classifiers on one simulated data set; return their comparison."""
    n_one, n_other, worse = CASES[case]
    x, label, patient = data_set(rng)
    blurred = x + worse * rng.normal(size=x.shape)
    one, other = [], []
    for _ in range(repeats):
        folds = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=int(rng.integers(2**31)))
        frame = pd.DataFrame({"sample_id": np.arange(BREASTS), "patient_id": patient, "label": label, "fold": -1})
        logits = np.zeros((2, BREASTS))
        for number, (train, test) in enumerate(folds.split(x, label, patient)):
            frame.loc[test, "fold"] = number
            logits[0, test] = scores(x, label, train, test, n_one, rng)
            logits[1, test] = scores(blurred, label, train, test, n_other, rng)
        one.append(frame.assign(logit=logits[0]))
        other.append(frame.assign(logit=logits[1]))
    return compare_folds(one, other)


def summary(found: pd.DataFrame) -> dict[str, float]:
    """Return the coverage of both intervals and the standard errors, claimed and true."""
    truth = found["value"].mean()
    held = {name: found[low].le(truth) & found[high].ge(truth)
            for name, low, high in (("placements", "low", "high"), ("nadeau_bengio", "low_nb", "high_nb"))}  # fmt: skip
    # TOST against a bound at the truth itself: the share of false claims of equivalence, at most 5 %.
    claims = (found["value"].abs() + (found["reach"] - found["value"].abs())).lt(abs(truth))
    return {
        "sets": len(found), "true_difference": truth, "true_standard_error": found["value"].std(ddof=1),
        "claimed_standard_error": float(((found["high"] - found["low"]) / 2 / 1.959964).mean()),
        **{f"coverage_{name}": float(inside.mean()) for name, inside in held.items()},
        "false_equivalence": float(claims.mean()),
    }  # fmt: skip


def main() -> None:
    """Simulate every case and write the record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sets", type=int, default=1000)
    parser.add_argument("--repeats", type=int, nargs="+", default=[2, 5])
    arguments = parser.parse_args()
    rows = []
    for repeats in arguments.repeats:
        for number, case in enumerate(CASES):
            rng = np.random.default_rng([number, repeats])
            sets = tqdm(range(arguments.sets), desc=f"{case}, {repeats} repeats", unit="set", dynamic_ncols=True)
            found = pd.DataFrame([vars(simulate(case, repeats, rng)) for _ in sets])
            rows.append({"case": case, "repeats": repeats} | summary(found))
            print(json.dumps(rows[-1]))
    write_json(RECORD, {"bound": EQUIVALENCE, "environment": describe_environment(), "rows": rows})


if __name__ == "__main__":
    main()
