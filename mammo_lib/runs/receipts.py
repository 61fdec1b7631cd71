"""Receipts: when the test set was opened, for which runs together, and which runs came later."""

from __future__ import annotations

from collections.abc import Iterable

from .records import Run


def first_opening(runs: Iterable[Run]) -> dict | None:
    """Return the earliest receipt among the runs of a list; None if the test set has not been opened for any."""
    receipts = [run.receipt for run in runs]  # an interrupted opening has shown scores too
    return min((one for one in receipts if one), key=lambda receipt: receipt["opened_at"], default=None)


def added_after(run: Run, first: dict | None) -> str | None:
    """Return the time of the first opening if this run was added later; None if it belongs to the first opening.

    A run that an interrupted opening did not reach was on its list, so it does not count as added later.
    """
    return None if first is None or run.name in first["runs"] else first["opened_at"]


def is_exploratory(run: Run) -> bool:
    """Whether a run's test scores were made outside the first opening of its frozen list.

    When such a run was added, the scores of the others were known.
    """
    receipt = run.receipt
    return receipt is None or receipt["profile"] is None or receipt["added_after"] is not None
