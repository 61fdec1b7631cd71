"""The whole report by one command, or its rehearsal."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from ..config import RETRAIN, Profile, is_rehearsal
from ..errors import InputError
from .options import AllowMissing, DataOption, ProfileOption, chosen_profile, refuse_beside
from .printing import print_rehearsal


def reproduce(
    profile: ProfileOption = None,
    data: DataOption = None,
    only: Annotated[
        list[str] | None, typer.Option(help="chapter number as in notebooks/: 05 includes 05a, 05b; repeatable")
    ] = None,
    start: Annotated[
        str | None, typer.Option("--from", help="number of the first chapter to run, e.g. 03 or 03a")
    ] = None,
    force: Annotated[bool, typer.Option(help="also run notebooks that are up to date")] = False,
    retrain: Annotated[
        bool, typer.Option("--retrain", help="train again the runs that have records in results/")
    ] = False,
    jobs: Annotated[
        int | None, typer.Option(min=1, help="number of chapters to run in parallel (default: one per core)")
    ] = None,
    parameter: Annotated[
        list[str] | None,
        typer.Option(
            "--parameter", "-p", help="NAME=VALUE of a variable in a notebook's cell tagged parameters; repeatable"
        ),
    ] = None,
    allow_missing: AllowMissing = False,
    rehearse: Annotated[
        bool, typer.Option("--rehearse", help="try the whole profile on a small phantom, with one step per run")
    ] = False,
) -> None:
    """Run every notebook in order, then build the book; notebooks that are up to date are not run again.

    Without --data and --profile the chapters show the committed records of real films and the sample of eight breasts.
    """
    if rehearse:
        refuse_beside(
            "--rehearse", "it goes through a whole profile on a phantom",
            {"--data": data, "--only": only, "--from": start, "--retrain": retrain, "--parameter": parameter,
             "--allow-missing": allow_missing},
        )  # fmt: skip
    from .. import report

    if not (profile or data or os.environ.get("MAMMO_PROFILE") or os.environ.get("MAMMO_DATA")):
        profile = report.DEFAULT_BOOK
    (chosen, data), given = chosen_profile(profile, data, allow_missing), _parameters(parameter or [])
    if rehearse:
        raise typer.Exit(_rehearse(chosen, jobs, is_new=force))
    from ..data.data_sets import open_collection
    from ..runs.evaluate import finished_runs

    if retrain:
        os.environ[RETRAIN] = "1"  # the notebooks' kernels inherit this, and what follows
    jobs = jobs or os.cpu_count() or 1
    if jobs > 1:
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // jobs)))
    choice = {"only": only or (), "start": start, "force": force, "parameters": given}
    report.plan(chosen, **choice)  # a chapter that does not exist is told before the data are prepared
    typer.echo(f"profile {chosen.name}: preparing the data")
    collection = open_collection(chosen, data, sample=True)
    splits = ("train",) if collection.is_sample else ("train", "test")
    data_hash = {split: collection.prepare(split, *chosen.run.inputs).fingerprint for split in splits}
    if collection.is_sample:
        finished_runs(chosen, "all", collection)  # an error where a chapter would lack a record
        typer.echo("no images given: chapters show committed records and the sample of eight breasts")
    elif chosen.phantom_breasts is None:
        os.environ["MAMMO_DATA"] = str(collection.root)
    steps = report.plan(chosen, collection.root, data_hash=data_hash, **choice)
    head, outcomes = report.start_summary(chosen, data_hash, given), []
    for outcomes in report.run_chapters(steps, chosen, head, jobs):
        typer.echo(report.progress_line(steps, outcomes, jobs))
    if failed := [outcome.error for outcome in outcomes if outcome.error]:
        raise failed[0]
    typer.echo("building the book")
    book = report.build_book()
    report.write_summary(head, steps, outcomes, book)
    typer.echo(f"provenance, as an RO-Crate: {report.describe_as_crate(chosen, steps, book)}")
    typer.echo(f"the book: {book}")


def _rehearse(profile: Profile, jobs: int | None, *, is_new: bool) -> int:
    """Rehearse a profile in a project folder of its own, print every step, and return the exit code."""
    from ..report import rehearsal
    from ..runs.executor import end_with

    if not is_rehearsal():
        return rehearsal.start(rehearsal.stage(profile, is_new=is_new), profile, jobs)
    end_with(os.getppid())  # the one that staged this folder
    typer.secho(rehearsal.BANNER, fg="yellow")
    steps = []
    for step in rehearsal.rehearse(profile, jobs or os.cpu_count() or 1):
        steps.append(step)
        typer.echo(f"{step.step}: {step.outcome}{f', {step.reason}' if step.reason else ''}")
    print_rehearsal(steps)
    failed = sum(step.outcome in ("failed", "not run") for step in steps)
    typer.echo(f"{rehearsal.BANNER}\n{len(steps)} steps, {failed} failed or not run: {rehearsal.STEPS}")
    return 1 if failed else 0


def _parameters(given: list[str]) -> dict[str, object]:
    pairs = [text.partition("=") for text in given]
    for text, (name, equals, _) in zip(given, pairs, strict=True):
        if not name or not equals:
            raise InputError(
                f"--parameter {text!r}: write NAME=VALUE (-p is --parameter; a profile is chosen with --profile)"
            )
        if name == "profile":
            raise InputError(f"--parameter {text}: a profile is chosen with --profile")
    return {name: _yaml_value(name, value) for name, _, value in pairs}


def _yaml_value(name: str, text: str) -> object:
    import yaml

    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError):  # ValueError: a date such as 2026-13-45
        raise InputError(f"--parameter {name}: {text!r} is not a valid value; put it into quotes") from None
