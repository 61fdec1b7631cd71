"""Committed records: publish, check, export."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..errors import InputError, writing_to


def publish(
    experiments: Annotated[list[str], typer.Argument(help="names of experiments that are finished on this machine")],
) -> None:
    """Copy finished records, without checkpoints, from _build/runs/ to results/, where records are committed.

    Nothing is copied if one of them is of the phantom.
    """
    from ..inference.provenance import refuse_phantom
    from ..runs import records

    chosen = []
    for name in experiments:
        runs = [run for run in records.all_runs(records.FRESH) if run.config.experiment == name]
        if not runs:
            first = f"run `mammo run --experiment {name} --data DIR` first"  # without images it would be of the phantom
            raise InputError(f"{records.FRESH / name}: no finished run here; {first}")
        chosen += runs
    for one in chosen:
        refuse_phantom(one)
    for one in chosen:
        typer.echo(f"{one.name}: {records.publish(one)}")


def check(
    folder: Annotated[Path | None, typer.Argument(help="a record, or a folder of records (default: results/)")] = None,
) -> None:
    """Verify every record against its manifest; print one line per fault, then exit with code 2."""
    from ..runs import records

    n, faults = records.check_records(folder or records.COMMITTED)
    for fault in faults:
        typer.secho(f"mammo: {InputError(fault)}", fg="red", err=True)
    if faults:
        raise typer.Exit(2)
    typer.echo(f"{n} records, all intact")


def export(
    folder: Annotated[Path, typer.Argument(help="a new folder")],
    home: Annotated[Path | None, typer.Option("--records", help="the folder of records (default: results/)")] = None,
) -> None:
    """Write the records as CSV tables with a data package (Frictionless), beside copies and an RO-Crate."""
    from ..runs import records
    from ..runs.export import export_records

    with writing_to(folder):
        n = export_records(home or records.COMMITTED, folder)
    typer.echo(f"{n} records: {folder}")
