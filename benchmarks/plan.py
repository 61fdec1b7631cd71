"""What the paper's profile takes on one GPU and on four: python benchmarks/plan.py (one minute; needs no GPU).

Memory and operations are counted. The rate is an assumption until a GPU has been measured.
"""

from __future__ import annotations

from pathlib import Path

from mammo_lib.config import get_profile
from mammo_lib.data import read_tables
from mammo_lib.data.sample import sample_folder
from mammo_lib.files import write_json
from mammo_lib.training.plan import planned_runs

PROFILE, TFLOPS = "paper", 30


def main() -> None:
    """Write plan.json: a row per experiment that trains a network."""
    table = planned_runs(get_profile(PROFILE), read_tables(sample_folder()), TFLOPS * 1e12).dropna(subset="parameters")
    kept = ["experiment", "runs", "parameters", "memory_gb", "hours_each"]
    rows = table[kept].astype({"parameters": int}).to_dict("records")
    record = {"command": "python benchmarks/plan.py", "profile": PROFILE, "tflops": TFLOPS, "rows": rows}
    write_json(Path(__file__).with_suffix(".json"), record)


if __name__ == "__main__":
    main()
