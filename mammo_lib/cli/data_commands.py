"""Data sets: download, check, prepare, divide; and the phantom."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from ..config import BUILD, LARGEST_SEED, MAX_BREASTS
from ..errors import writing_to
from .options import AllowMissing, DataOption, DefinitionOption, ProfileOption, checked_definition, chosen_profile
from .printing import open_console, open_table

MARKS = {"ok": "[green]ok[/]", "mismatch": "[bold red]MISMATCH[/]", "absent": "[dim]absent[/]", "note": ""}


def phantom(
    folder: Path,
    breasts: Annotated[
        int, typer.Option(help="number of two-view breasts, training and test together", min=12, max=MAX_BREASTS)
    ] = 96,
    seed: Annotated[int, typer.Option(min=0, max=LARGEST_SEED)] = 0,
    layout: Annotated[str, typer.Option(help="classic, nbia, flat, idc, kaggle or mirror-800")] = "classic",
) -> None:
    """Write a synthetic data set in the layout of CBIS-DDSM."""
    from ..data import write_phantom

    write_phantom(folder, n_breasts=breasts, seed=seed, layout=layout)
    typer.echo(f"phantom of {breasts} breasts, seed {seed}: {folder}")


def fetch(
    folder: Path,
    cohort: DefinitionOption = "paper",
    tables_only: Annotated[bool, typer.Option("--tables-only", help="only the four tables, no images")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="print what would be downloaded")] = False,
    address: Annotated[
        str | None, typer.Option("--from", help="object storage that holds a copy: s3://bucket/folder (extra cloud)")
    ] = None,
) -> None:
    """Download the tables and images of a cohort (CC BY 3.0) from The Cancer Imaging Archive, or --from; resumable."""
    from ..data.object_storage import fetching

    look = _archive if address is None else partial(_object_storage, address)
    with fetching(folder):
        size, download = look(folder, checked_definition(cohort))
        typer.echo(f"cohort {cohort}: {size}")
        if not tables_only and not dry_run:
            download()
            typer.echo(f"complete; next: mammo data audit --data {folder}")


def _archive(folder: Path, definition: str) -> tuple[str, Callable[[], None]]:
    """Fetch the tables from the archive; return how much the images of a cohort are, and what downloads them."""
    from ..data.cbis_ddsm.fetch import fetch_series, fetch_tables, series_of_cohort

    series = series_of_cohort(fetch_tables(folder), definition)
    size = f"{len(series)} series, {series['images'].sum():.0f} images, {series['megabytes'].sum() / 1000:.1f} GB"
    return size, partial(fetch_series, series, folder)


def _object_storage(address: str, folder: Path, definition: str) -> tuple[str, Callable[[], None]]:
    """Copy the tables from object storage; return how much the images of a cohort are, and what copies them."""
    from ..data.cbis_ddsm.fetch import copy_tables, objects_of_cohort
    from ..data.object_storage import copy_objects, list_objects

    stored = list_objects(address)
    names = objects_of_cohort(stored, copy_tables(stored, folder), definition)
    return f"{len(names)} files, {stored.size(names) / 1e9:.1f} GB", partial(copy_objects, stored, names, folder)


def audit(
    data: DataOption = None,
    report: Annotated[Path | None, typer.Option("--json", help="file for the report, as JSON")] = None,
) -> None:
    """Compare a copy of the data with the manifest; exit code 1 if they contradict each other."""
    from rich.markup import escape

    from ..data.cbis_ddsm.audit import audit_copy, write_report
    from ..data.data_sets import data_folder

    root = data_folder(data)
    checks = audit_copy(root)
    path = report or BUILD / "audit.json"
    with writing_to(path):
        write_report(checks, path)
    shown = open_table("part", "what", "expected", "found", "")
    for before, check in zip([None, *checks], checks, strict=False):
        part = "" if before and before.part == check.part else check.part
        example = escape(check.example.removeprefix(str(root) + os.sep))
        found = escape(f"{check.found}") + (f"  [dim]e.g. {example}[/]" if check.example and check.found else "")
        expected = "" if check.expected is None else escape(str(check.expected))
        shown.add_row(part, check.what, expected, found, MARKS[check.verdict])
    open_console(180).print(shown)
    wrong = [check for check in checks if check.verdict == "mismatch"]
    typer.echo(f"{len(checks)} checks, {len(wrong)} contradict the manifest; report: {path}")
    if wrong:
        raise typer.Exit(1)


def folds(
    folder: Annotated[Path, typer.Argument(help="output folder")],
    cohort: DefinitionOption = "paper",
    n_folds: Annotated[int, typer.Option(min=2, max=20)] = 5,
    seed: Annotated[int, typer.Option(min=0, max=LARGEST_SEED)] = 0,
    data: DataOption = None,
) -> None:
    """Write patient-level validation folds of a cohort's training breasts, with a checksum."""
    from ..data.cbis_ddsm.folds import write_folds
    from ..data.cbis_ddsm.tables import read_tables
    from ..data.data_sets import data_folder

    table = read_tables(data_folder(data))
    with writing_to(folder):
        record = write_folds(table, checked_definition(cohort), n_folds, seed, folder)
    typer.echo(f"{record['rows']} samples, {record['patients']} patients: {folder / record['file']}")


def prepare(
    profile: ProfileOption = None,
    data: DataOption = None,
    allow_missing: AllowMissing = False,
    workers: Annotated[int | None, typer.Option(min=1, help="processes (default: one per core)")] = None,
    cluster: Annotated[str | None, typer.Option(help="address of a Dask scheduler, instead of processes")] = None,
) -> None:
    """Decode every image of the profile's cohort once, into the cache; resumable."""
    from ..data.data_sets import open_collection

    chosen, data = chosen_profile(profile, data, allow_missing)
    collection = open_collection(chosen, data)
    for split in ("train", "test"):
        prepared = collection.prepare(split, *chosen.run.inputs, workers=workers, cluster=cluster)
        left_out = f", {len(prepared.problems)} left out" if len(prepared.problems) else ""
        typer.echo(f"{split}: {len(prepared.index)} views ready in {prepared.folder}{left_out}")
