"""What commands print of runs, plans and rehearsals."""

from __future__ import annotations

import sys

import typer


def echo_metrics(run, split: str) -> None:
    """Print the metrics of one split of a run, and where its record is."""
    shown = ("auc", "accuracy", "sensitivity", "specificity", "f1")
    values = ", ".join(f"{name} {run.metrics[split][name]['value']:.3f}" for name in shown)
    typer.echo(f"{run.folder.parent.name}/{run.folder.name}: {split} {values}\n  record: {run.folder}")


def echo_transfer(run) -> None:
    """Print the AUC of every split of a record on another collection, with its interval."""
    typer.echo(f"{run.config.baseline or 'network'}: {run.folder}")
    for split, metrics in run.metrics.items():
        value, low, high, n = (metrics["auc"][name] for name in ("value", "low", "high", "n"))
        said = "AUC undefined" if value is None else f"AUC {value:.3f}"
        bounds = "" if low is None else f" ({low:.3f} to {high:.3f})"
        typer.echo(f"  {split.replace('_', ' ')}: {said}{bounds}, {n} breasts")


def echo_outcome(outcome, number: int, total: int) -> None:
    """Print how one of several runs ended, above the progress bar; a failure goes to stderr."""
    from tqdm import tqdm

    if total == 1 and outcome.run:
        return echo_metrics(outcome.run, next(iter(outcome.run.metrics)))
    name = f"[{number}/{total}] {outcome.config.experiment}, seed {outcome.config.seed}"
    if outcome.error:
        return tqdm.write(f"{name}: FAILED: {outcome.error}", file=sys.stderr)
    took = "finished before" if outcome.was_finished else f"{outcome.seconds:.0f} s"
    split, metrics = next(iter(outcome.run.metrics.items()))
    tqdm.write(f"{name}: {split.replace('_', '-')} auc {metrics['auc']['value']:.3f}, {took}", file=sys.stdout)


def echo_failures(failures: list, total: int) -> None:
    """Print to stderr which runs failed and why, and that the same command resumes."""
    typer.secho(f"mammo: {len(failures)} of {total} runs failed:", fg="red", err=True)
    for outcome in failures:
        typer.echo(f"  {outcome.config.experiment}, seed {outcome.config.seed}: {outcome.error}", err=True)
    typer.echo("run the same command again: finished runs are read, the others resume", err=True)


def open_console(width: int = 160):
    """Return a console; ``width`` is that of its lines where nobody looks at a terminal."""
    from rich.console import Console

    return Console(width=None if sys.stdout and sys.stdout.isatty() else width, highlight=False)


def open_table(*headings: str):
    """Return a table without lines that breaks a word which is wider than its column, and never cuts it."""
    from rich.table import Column, Table

    return Table(*(Column(one, overflow="fold") for one in headings), box=None, pad_edge=False)


def print_outcomes(outcomes: list) -> None:
    """Print the verifications of records as a table, then each cause of differences with its records."""
    largest = "largest difference of a probability", "of a metric"
    shown = open_table("record", "verdict", "rows", "AUC of the record and here", *largest, "columns that differ")
    for one in outcomes:
        auc = "; ".join(f"{split} {recorded:.3f} {found:.3f}" for split, (recorded, found) in one.auc.items())
        differences = ["" if value is None else f"{value:.2g}" for value in (one.probability, one.metric)]
        shown.add_row(one.record, one.verdict, str(one.rows or ""), auc, *differences, ", ".join(one.columns))
    open_console().print(shown)
    for causes in dict.fromkeys(one.causes for one in outcomes if one.causes):
        records = ", ".join(one.record for one in outcomes if one.causes == causes)
        typer.echo(f"{records}: {'; '.join(causes)}")


def print_rehearsal(steps: list) -> None:
    """Print the steps of a rehearsal as a table."""
    from rich.markup import escape

    shown = open_table("step", "outcome", "seconds", "reason")
    for one in steps:
        shown.add_row(one.step, one.outcome, "" if one.seconds is None else f"{one.seconds:.0f}", escape(one.reason))
    open_console().print(shown)


def print_plan(table, cache: float) -> None:
    """Print what a list of runs will cost, by experiment, then in all; ``cache`` is in bytes."""
    shown = open_table("experiment", "finished", "million parameters", "memory, GB", "hours a run", "hours left")
    for row in table.itertuples():
        is_network = row.parameters == row.parameters  # a baseline has none, and takes seconds
        numbers = (row.parameters / 1e6, row.memory_gb, row.hours_each, row.hours_left) if is_network else ()
        shown.add_row(row.experiment, f"{row.finished} of {row.runs}", *(f"{one:,.2f}" for one in numbers))
    open_console().print(shown)
    left = table["runs"] - table["finished"]
    weights = 4 * (left * table["parameters"]).sum()  # 32 bits each; a run keeps those of its best epoch
    typer.echo(
        f"{left.sum()} of {table['runs'].sum()} runs are left, {table['hours_left'].sum():,.1f} hours; "
        f"their weights: {weights / 1e9:,.1f} GB; cache of the profile's own run: {cache / 1e9:.2f} GB"
    )
