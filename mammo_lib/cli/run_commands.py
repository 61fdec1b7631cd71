"""Training, evaluation and verification of runs; which there are, and what they will cost."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Annotated

import typer

from ..config import BUILD, as_repeats, as_yaml, get_profile, profile_names
from ..errors import InputError, writing_to
from .options import (
    AllowMissing,
    DataOption,
    ExperimentOption,
    ProfileOption,
    SeedOption,
    SetOption,
    chosen_configs,
    chosen_profile,
    shown_profile,
)
from .printing import echo_failures, echo_metrics, echo_outcome, open_console, open_table, print_outcomes, print_plan


def run(
    config: Annotated[Path | None, typer.Argument(help="a run config, JSON or YAML (see mammo config)")] = None,
    experiment: ExperimentOption = None,
    changes: SetOption = None,
    seed: SeedOption = None,
    cv: Annotated[
        int | None,
        typer.Option("--cv", min=1, max=100, help="cross-validate with this many repeats over all folds"),
    ] = None,
    profile: ProfileOption = None,
    data: DataOption = None,
    allow_missing: AllowMissing = False,
    workers: Annotated[
        int | None, typer.Option(min=1, help="number of processes (default: one per GPU, else one)")
    ] = None,
    cluster: Annotated[str | None, typer.Option(help="address of a Dask scheduler, instead of processes")] = None,
) -> None:
    """Train one config, or every seed of an experiment or a group; score validation breasts only.

    Finished runs are read, interrupted runs resume, and a run that fails does not stop the others (exit code 1).
    """
    if cv and seed is not None:
        raise InputError("--cv with --seed: the repeats have the seeds 0, 1, ...; leave out --seed")
    chosen, data = chosen_profile(profile, data, allow_missing)
    configs = chosen_configs(chosen, config, experiment, changes or [], seed)
    configs = as_repeats(configs, cv) if cv else configs
    # What is wrong with the arguments is said before the seconds that torch takes to import.
    from ..data.data_sets import open_collection
    from ..runs.sweep import run_sweep

    sweep = run_sweep(configs, open_collection(chosen, data), workers=workers, cluster=cluster, progress=True)
    failures = []
    for number, outcome in enumerate(sweep, start=1):
        if outcome.error and len(configs) == 1:
            raise InputError(outcome.error)
        failures += [outcome] if outcome.error else []
        echo_outcome(outcome, number, len(configs))
    if failures:
        echo_failures(failures, len(configs))
        raise typer.Exit(1)


def show_config(
    config: Annotated[Path | None, typer.Argument(help="a run config to show instead of a profile's")] = None,
    experiment: ExperimentOption = None,
    changes: SetOption = None,
    seed: SeedOption = None,
    profile: ProfileOption = None,
) -> None:
    """Print a run config as commented YAML, to save, edit and give to mammo run."""
    chosen = shown_profile(profile)
    configs = chosen_configs(chosen, config, experiment, changes or [], seed, needs_choice=False)
    if len(names := list(dict.fromkeys(config.experiment for config in configs))) > 1:
        raise InputError(f"--experiment {experiment}: a group of {len(names)}; choose one of {', '.join(names)}")
    typer.echo(as_yaml(configs[0]), nl=False)


def list_runs(profile: ProfileOption = None) -> None:
    """Show all profiles, and the experiments of one: what is finished, and about how long the rest takes."""
    from ..runs.experiments import read_groups
    from ..runs.overview import overview

    chosen, console = shown_profile(profile), open_console()
    profiles = open_table("profile", "purpose", "seeds")
    for name in profile_names():
        one = get_profile(name)
        profiles.add_row(name, one.about, str(len(one.seeds)))
    experiments = open_table("experiment", "question", "finished", "time left")
    for row in overview(chosen).itertuples():
        left = "" if row.seconds == 0 else "unknown" if row.seconds != row.seconds else f"{row.seconds / 60:.0f} min"
        experiments.add_row(row.experiment, row.question, f"{row.finished} of {row.runs}", left)
    groups = open_table("group", "experiments")
    for name, members in read_groups(chosen).items():
        groups.add_row(name, ", ".join(members))
    for part in (profiles, f"\n[bold]profile {chosen.name}[/]", experiments, "", groups):
        console.print(part)


def plan(
    profile: ProfileOption = None,
    data: DataOption = None,
    gpus: Annotated[int, typer.Option(min=1, help="number of GPUs that share the runs")] = 1,
    tflops: Annotated[
        float | None,
        typer.Option(
            min=1e-3, help="sustained rate of one device, in 10^12 operations per second (default: measured here)"
        ),
    ] = None,
) -> None:
    """Print what a profile will cost before it is run: parameters, memory, hours, disk.

    The breasts are those of the data that its runs read; without images, those of the tables in the project. A phantom
    is written where it is absent.
    """
    from ..data.data_sets import open_collection
    from ..training.plan import measured_rate, planned_runs, run_cost

    if tflops is not None and not math.isfinite(tflops):
        raise InputError(f"--tflops {tflops}: give a finite number of 10^12 operations per second")
    chosen, data = chosen_profile(profile, data, allow_missing=False)
    table = open_collection(chosen, data, sample=True).table
    if chosen.run.model.weights and tflops is None:
        typer.echo("measuring one training step of the profile's network on this machine ...", err=True)
    rate = measured_rate(chosen.run) if tflops is None else tflops * 1e12
    print_plan(planned_runs(chosen, table, rate, gpus), run_cost(chosen.run, table).cache)
    source = "given" if tflops is not None else "measured here by one training step"
    typer.echo(
        f"hours are estimates, at {rate / 1e12:.3g} x 10^12 operations a second ({source}) on each of {gpus} device(s)"
    )


def evaluate(
    profile: ProfileOption = None,
    data: DataOption = None,
    workers: Annotated[int, typer.Option(min=1, help="processes")] = 1,
    incomplete: Annotated[
        bool,
        typer.Option("--incomplete", help="instead: score the networks on test breasts with films hidden or missing"),
    ] = False,
    allow_missing: AllowMissing = False,
) -> None:
    """Open the test set for all runs of the frozen experiment list together.

    With --incomplete, the networks of the list score the test breasts once more, with views and streams hidden, and
    those of which one view exists (protocol 8). It needs the checkpoints.
    """
    if incomplete and workers > 1:
        raise InputError(f"--workers {workers} with --incomplete: these networks are scored in one process")
    chosen, data = chosen_profile(profile, data, allow_missing)
    from ..data.data_sets import open_collection
    from ..runs.evaluate import evaluate_profile

    if incomplete:
        from ..inference.incomplete import score_incomplete
        from ..runs.records import ONE_FILM

        for record in score_incomplete(chosen, open_collection(chosen, data), progress=True):
            echo_metrics(record, ONE_FILM)
        return

    for opened in evaluate_profile(chosen, open_collection(chosen, data), workers=workers, progress=True):
        echo_metrics(opened.run, "test")


def verify(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[RECORD]...", help="experiments, or EXPERIMENT/RUN (default: all)")
    ] = None,
    home: Annotated[Path | None, typer.Option("--records", help="the folder of records (default: results/)")] = None,
    tolerance: Annotated[float, typer.Option(min=0, help="largest difference that counts as rounding")] = 1e-6,
    out: Annotated[Path, typer.Option("--json", help="file that collects the outcomes")] = BUILD / "verified.json",
    profile: ProfileOption = None,
    data: DataOption = None,
    allow_missing: AllowMissing = False,
) -> None:
    """Train records again, and compare predictions and metrics with the recorded ones; exit code 1 if they differ.

    Results depend on the number of threads: OMP_NUM_THREADS=1 repeats a record that was made with one thread.
    """
    from ..runs import records
    from ..runs import verify as verification

    if not math.isfinite(tolerance):
        raise InputError(f"--tolerance {tolerance}: give a finite number, such as 1e-6")
    verification.check_target(out)
    chosen = verification.choose_records(home or records.COMMITTED, names or [])
    profile_used, data = chosen_profile(profile, data, allow_missing)
    from ..data.data_sets import open_collection

    collection, outcomes = open_collection(profile_used, data), []
    for number, record in enumerate(chosen, start=1):
        typer.echo(f"[{number}/{len(chosen)}] {record.name}", err=True)
        outcomes.append(verification.verify(record, collection, tolerance, progress=sys.stderr.isatty()))
        with writing_to(out):
            verification.write_outcome(out, outcomes[-1], tolerance)
    print_outcomes(outcomes)
    typer.echo(f"{sum(one.is_reproduced for one in outcomes)} of {len(outcomes)} records reproduced; outcomes: {out}")
    if not all(one.is_reproduced for one in outcomes):
        raise typer.Exit(1)
