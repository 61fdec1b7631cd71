"""What became of each notebook, and how long the others will take."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from .steps import Step


class NotebookFailed(RuntimeError):  # noqa: N818  (an event, reported as one)
    """A notebook stopped with an error; ``partial`` is its copy, executed up to the error."""

    def __init__(self, notebook: Path, cell: int, name: str, message: str, source: str, partial: Path):
        super().__init__(notebook, cell, name, message, source, partial)
        self.notebook, self.cell, self.source, self.partial = notebook, cell, source, partial
        self.text = f"{notebook.name}, cell {cell}: {name}: {message}"

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class StepOutcome:
    """The outcome of a step."""

    step: Step
    status: Literal["done", "up to date", "failed", "not run"]
    seconds: float | None = None
    error: NotebookFailed | None = None


def seconds_left(steps: list[Step], outcomes: list[StepOutcome], jobs: int = 1) -> float | None:
    """Estimate the seconds that the remaining steps take; None if nothing is known.

    A step that ran before is expected to take as long again; any other step, the mean of the known times.
    """
    finished = {outcome.step.source for outcome in outcomes}
    rest = [step for step in steps if step.source not in finished and not step.is_done]
    known = [step.expected for step in rest if step.expected is not None]
    known += [outcome.seconds for outcome in outcomes if outcome.seconds is not None]
    if not known and rest:
        return None
    return sum(sum(known) / len(known) if step.expected is None else step.expected for step in rest) / jobs


def progress_line(steps: list[Step], outcomes: list[StepOutcome], jobs: int = 1) -> str:
    """Return one line about the step that finished last: its number, its time, and the time that remains."""
    outcome = outcomes[-1]
    took = outcome.status if outcome.seconds is None else f"{outcome.seconds:.1f} s"
    line = f"[{len(outcomes):>2}/{len(steps)}] {outcome.step.source.stem:<32} {took:>10}"
    left = seconds_left(steps, outcomes, jobs)
    if outcome.status != "done" or not left:
        return line
    return f"{line}   about {left:.0f} s left" if left < 100 else f"{line}   about {left / 60:.0f} min left"
