"""The outcomes of damaged and hostile inputs: runs the slow fuzz tests and tabulates their counts.

    python benchmarks/withstands.py

The tests are seeded and fail on any fault. The record has a row per entry point and kind of input; the book's
page "Robustness to damaged input" shows it.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd
import pytest
from timing import record

ROOT = Path(__file__).resolve().parents[1]
SUITES = ("test_tables.py", "test_images.py", "test_commands.py")


class Collected:
    """A pytest plugin that collects the counts in the reports of the tests."""

    def __init__(self):
        self.rows: list[dict] = []

    def pytest_runtest_logreport(self, report):
        """Keep the counts of a finished test."""
        if report.when == "call":
            self.rows += [row for name, rows in report.user_properties if name == "counts" for row in rows]


def main() -> None:
    """Run the slow fuzz tests and record their counts."""
    collected = Collected()
    paths = [str(ROOT / "tests" / "fuzz" / name) for name in SUITES]
    code = pytest.main(["-q", "-m", "slow", f"--rootdir={ROOT}", *paths], plugins=[collected])
    table = pd.DataFrame(collected.rows).groupby(["entry", "kind"], sort=False).sum().reset_index()
    record("withstands", table.to_dict("records"), table.drop(columns=["entry", "kind"]).sum().to_dict())
    sys.exit(code)


if __name__ == "__main__":
    main()
