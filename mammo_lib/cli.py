"""The command line, ``mammo``: thin wrappers that print. A user's error is one line, with exit code 2."""

from __future__ import annotations

import errno
import io
import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, NoReturn, get_args

import typer

from .config import (
    ALLOW_MISSING,
    BUILD,
    LARGEST_SEED,
    MOST_BREASTS,
    RANKS,
    RETRAIN,
    ROOT,
    Definition,
    Profile,
    RunConfig,
    as_repeats,
    as_yaml,
    get_profile,
    is_rehearsal,
    load_config,
    process_number,
    profile_names,
    with_changes,
)  # fmt: skip
from .errors import InputError, printable, writing_to

app = typer.Typer(
    add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, help="Mammo-Mamba, reproduced."
)
data_app = typer.Typer(no_args_is_help=True, help="Data: fetch, audit, prepare, phantom, folds.")
results_app = typer.Typer(no_args_is_help=True, help="Committed records of runs.")
app.add_typer(data_app, name="data")
app.add_typer(results_app, name="results")

ProfileOption = Annotated[
    str | None,
    typer.Option(help=f"one of: {', '.join(profile_names())}; or a YAML file (default: chosen by --data, else smoke)"),
]
DataOption = Annotated[Path | None, typer.Option(help="folder of the images (default: MAMMO_DATA)")]
AllowMissing = Annotated[
    bool, typer.Option("--allow-missing", help="leave out views whose files are missing or cannot be decoded")
]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", help="FIELD=VALUE, as in train.epochs=3 or model.gate=none; repeatable")
]
SeedOption = Annotated[int | None, typer.Option(min=0, max=LARGEST_SEED, help="one seed instead of the profile's")]
ExperimentOption = Annotated[
    str | None, typer.Option(help="an experiment or a group of book/experiments.json, or 'all' (see mammo list)")
]
DefinitionOption = Annotated[str, typer.Option("--cohort", help=f"one of: {', '.join(get_args(Definition))}")]
UsageError = typer.BadParameter.__base__  # typer brings a click of its own
TRANSFERRED = ("frozen_stages", "frozen_features")  # baselines that need nothing but pixels
MARKS = {"ok": "[green]ok[/]", "mismatch": "[bold red]MISMATCH[/]", "absent": "[dim]absent[/]", "note": ""}


@app.command()
def reproduce(
    profile: ProfileOption = None,
    data: DataOption = None,
    only: Annotated[list[str] | None, typer.Option(help="chapter number, e.g. 05; repeatable")] = None,
    start: Annotated[str | None, typer.Option("--from", help="first chapter to run, e.g. 03")] = None,
    force: Annotated[bool, typer.Option(help="also run notebooks that are up to date")] = False,
    retrain: Annotated[
        bool, typer.Option("--retrain", help="train again the runs that have records in results/")
    ] = False,
    jobs: Annotated[
        int | None, typer.Option(min=1, help="number of chapters to run in parallel (default: one per core)")
    ] = None,
    parameter: Annotated[
        list[str] | None, typer.Option("--parameter", "-p", help="NAME=VALUE for the notebooks; repeatable")
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
        _refuse_beside(
            "--rehearse", "it goes through a whole profile on a phantom",
            {"--data": data, "--only": only, "--from": start, "--retrain": retrain, "--parameter": parameter,
             "--allow-missing": allow_missing},
        )  # fmt: skip
    from . import reproduce as reproduction

    if profile is None and data is None and not os.environ.get("MAMMO_PROFILE"):
        profile = reproduction.DEFAULT_BOOK
    (chosen, data), given = _profile(profile, data, allow_missing), _parameters(parameter or [])
    if rehearse:
        raise typer.Exit(_rehearse(chosen, jobs, is_new=force))
    from .data.data_sets import open_collection
    from .runs.evaluate import finished_runs

    if retrain:
        os.environ[RETRAIN] = "1"  # the notebooks' kernels inherit this, and what follows
    jobs = jobs or os.cpu_count() or 1
    if jobs > 1:
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // jobs)))
    reproduction.find_notebooks()
    typer.echo(f"profile {chosen.name}: preparing the data")
    collection = open_collection(chosen, data, sample=True)
    splits = ("train",) if collection.is_sample else ("train", "test")
    data_hash = {split: collection.prepare(split, *chosen.run.inputs).fingerprint for split in splits}
    if collection.is_sample:
        finished_runs(chosen, "all", collection)  # an error where a chapter would lack a record
        typer.echo("no images given: chapters show committed records and the sample of eight breasts")
    elif chosen.phantom_breasts is None:
        os.environ["MAMMO_DATA"] = str(collection.root)
    choice = {"only": only or (), "start": start, "force": force, "parameters": given}
    steps = reproduction.plan(chosen, collection.root, data_hash=data_hash, **choice)
    head, outcomes = reproduction.start_summary(chosen, data_hash, given), []
    for outcomes in reproduction.run_chapters(steps, chosen, head, jobs):
        typer.echo(reproduction.progress_line(steps, outcomes, jobs))
    if failed := [outcome.error for outcome in outcomes if outcome.error]:
        raise failed[0]
    typer.echo("building the book")
    book = reproduction.build_book()
    reproduction.write_summary(head, steps, outcomes, book)
    typer.echo(f"provenance, as an RO-Crate: {reproduction.describe_as_crate(chosen, steps, book)}")
    typer.echo(f"the book: {book}")


@app.command()
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
    chosen, data = _profile(profile, data, allow_missing)
    configs = _configs(chosen, config, experiment, changes or [], seed)
    configs = as_repeats(configs, cv) if cv else configs
    # What is wrong with the arguments is said before the seconds that torch takes to import.
    from .data.data_sets import open_collection
    from .runs.sweep import run_sweep

    sweep = run_sweep(configs, open_collection(chosen, data), workers=workers, cluster=cluster, progress=True)
    failures = []
    try:
        for number, outcome in enumerate(sweep, start=1):
            if outcome.error and len(configs) == 1:
                raise InputError(outcome.error)
            failures += [outcome] if outcome.error else []
            _echo_outcome(outcome, number, len(configs))
    except (KeyboardInterrupt, SystemExit):  # Lightning turns Ctrl-C into the second
        typer.secho("interrupted; the same command resumes after the last complete epoch", fg="yellow", err=True)
        raise typer.Exit(130) from None
    if failures:
        _echo_failures(failures, len(configs))
        raise typer.Exit(1)


@app.command("config")
def show_config(
    config: Annotated[Path | None, typer.Argument(help="a run config to show instead of a profile's")] = None,
    experiment: ExperimentOption = None,
    changes: SetOption = None,
    seed: SeedOption = None,
    profile: ProfileOption = None,
) -> None:
    """Print a run config as commented YAML, to save, edit and give to mammo run."""
    chosen = get_profile(profile)
    configs = _configs(chosen, config, experiment, changes or [], seed, needs_choice=False)
    typer.echo(as_yaml(configs[0]), nl=False)


@app.command("list")
def list_runs(profile: ProfileOption = None) -> None:
    """Show all profiles, and the experiments of one: what is finished, and about how long the rest takes."""
    from rich.table import Table

    from .runs.experiments import read_groups
    from .runs.overview import overview

    console = _console()
    profiles = Table("profile", "purpose", "seeds", box=None, pad_edge=False)
    for name in profile_names():
        one = get_profile(name)
        profiles.add_row(name, one.about, str(len(one.seeds)))
    chosen = get_profile(profile)
    experiments = Table("experiment", "question", "finished", "time left", box=None, pad_edge=False)
    for row in overview(chosen).itertuples():
        left = "" if row.seconds == 0 else "unknown" if row.seconds != row.seconds else f"{row.seconds / 60:.0f} min"
        experiments.add_row(row.experiment, row.question, f"{row.finished} of {row.runs}", left)
    groups = Table("group", "experiments", box=None, pad_edge=False)
    for name, members in read_groups(chosen).items():
        groups.add_row(name, ", ".join(members))
    for part in (profiles, f"\n[bold]profile {chosen.name}[/]", experiments, "", groups):
        console.print(part)


@app.command()
def plan(
    profile: ProfileOption = None,
    gpus: Annotated[int, typer.Option(min=1, help="number of GPUs that share the runs")] = 1,
    tflops: Annotated[
        float | None,
        typer.Option(
            min=1e-3, help="sustained rate of one device, in 10^12 operations per second (default: measured here)"
        ),
    ] = None,
) -> None:
    """Print what a profile will cost before it is run: parameters, memory, hours, disk."""
    from .data.cbis_ddsm.tables import read_tables
    from .data.sample import sample_folder
    from .training.plan import measured_rate, planned_runs, run_cost

    chosen, table = get_profile(profile), read_tables(sample_folder())
    if chosen.run.model.weights and tflops is None:
        typer.echo("measuring one training step of the profile's network on this machine ...", err=True)
    rate = measured_rate(chosen.run) if tflops is None else tflops * 1e12
    _print_plan(planned_runs(chosen, table, rate, gpus), run_cost(chosen.run, table).cache)
    source = "given" if tflops is not None else "measured here by one training step"
    typer.echo(
        f"hours are estimates, at {rate / 1e12:.3g} x 10^12 operations a second ({source}) on each of {gpus} device(s)"
    )


@app.command()
def evaluate(
    profile: ProfileOption = None,
    data: DataOption = None,
    workers: Annotated[int, typer.Option(min=1, help="processes")] = 1,
    allow_missing: AllowMissing = False,
) -> None:
    """Open the test set for all runs of the frozen experiment list together."""
    chosen, data = _profile(profile, data, allow_missing)
    from .data.data_sets import open_collection
    from .runs.evaluate import evaluate_profile

    for opened in evaluate_profile(chosen, open_collection(chosen, data), workers=workers, progress=True):
        _echo_metrics(opened.run, "test")


@results_app.command()
def publish(
    experiments: Annotated[list[str], typer.Argument(help="names of experiments that are finished on this machine")],
) -> None:
    """Copy finished records, without checkpoints, from _build/runs/ to results/, where records are committed."""
    from .runs import records

    for name in experiments:
        runs = [run for run in records.all_runs(records.FRESH) if run.config.experiment == name]
        if not runs:
            raise InputError(f"{records.FRESH / name}: no finished run here; run `mammo run --experiment {name}` first")
        for one in runs:
            typer.echo(f"{one.name}: {records.publish(one)}")


@results_app.command()
def check(
    folder: Annotated[Path | None, typer.Argument(help="a record, or a folder of records (default: results/)")] = None,
) -> None:
    """Verify every record against its manifest; print one line per fault, then exit with code 2."""
    from .runs import records

    n, faults = records.check_records(folder or records.COMMITTED)
    for fault in faults:
        typer.secho(f"mammo: {InputError(fault)}", fg="red", err=True)
    if faults:
        raise typer.Exit(2)
    typer.echo(f"{n} records, all intact")


@results_app.command()
def export(
    folder: Annotated[Path, typer.Argument(help="a new folder")],
    home: Annotated[Path | None, typer.Option("--records", help="the folder of records (default: results/)")] = None,
) -> None:
    """Write the records as CSV tables with a data package (Frictionless), beside copies and an RO-Crate."""
    from .runs import records
    from .runs.export import export_records

    with writing_to(folder):
        n = export_records(home or records.COMMITTED, folder)
    typer.echo(f"{n} records: {folder}")


@app.command()
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
    from .runs import records
    from .runs import verify as verification

    chosen = verification.choose_records(home or records.COMMITTED, names or [])
    profile_used, data = _profile(profile, data, allow_missing)
    from .data.data_sets import open_collection

    collection, outcomes = open_collection(profile_used, data), []
    for number, record in enumerate(chosen, start=1):
        typer.echo(f"[{number}/{len(chosen)}] {record.name}", err=True)
        outcomes.append(verification.verify(record, collection, tolerance, progress=sys.stderr.isatty()))
        with writing_to(out):
            verification.write_outcome(out, outcomes[-1], tolerance)
    _print_outcomes(outcomes)
    typer.echo(f"{sum(one.is_reproduced for one in outcomes)} of {len(outcomes)} records reproduced; outcomes: {out}")
    if not all(one.is_reproduced for one in outcomes):
        raise typer.Exit(1)


@app.command()
def predict(
    paths: Annotated[
        list[Path] | None, typer.Argument(help="images or folders; file names or DICOM tags must give view and breast")
    ] = None,
    run: Annotated[
        Path | None, typer.Option(help="folder of a finished run, with its checkpoint (default: the released network)")
    ] = None,
    out: Annotated[Path, typer.Option(help="folder for a JSON file and a picture per breast")] = Path("predictions"),
    sample: Annotated[bool, typer.Option("--sample", help="score the eight breasts of the sample")] = False,
    cc: Annotated[Path | None, typer.Option("--cc", help="whole CC view of one breast")] = None,
    mlo: Annotated[Path | None, typer.Option("--mlo", help="whole MLO view")] = None,
    crop_cc: Annotated[Path | None, typer.Option("--crop-cc", help="the lesion in the CC view")] = None,
    crop_mlo: Annotated[Path | None, typer.Option("--crop-mlo", help="the lesion in the MLO view")] = None,
    box_cc: Annotated[
        str | None, typer.Option("--box-cc", help="the lesion's box instead: x0,y0,x1,y1 in pixels of the CC film")
    ] = None,
    box_mlo: Annotated[str | None, typer.Option("--box-mlo", help="the lesion's box in the MLO film")] = None,
    aspect: Annotated[
        float | None, typer.Option(min=0.2, max=5, help="pixel height over pixel width of whole views, if not square")
    ] = None,
) -> None:
    """Score mammograms with a trained network: probability, gates, maps. Research use only, not a medical device."""
    from .inference.inputs import find_breasts, name_breast, parse_box

    named = {("whole", "CC"): cc, ("whole", "MLO"): mlo, ("crop", "CC"): crop_cc, ("crop", "MLO"): crop_mlo}
    named = {key: path for key, path in named.items() if path is not None}
    drawn = {"CC": box_cc, "MLO": box_mlo}
    boxes = {view: parse_box(text, f"--box-{view.lower()}") for view, text in drawn.items() if text is not None}
    if bool(paths) + bool(named or boxes) + sample != 1:
        raise InputError(
            "give one of: images or folders; one breast with --cc, --mlo, --crop-cc, --crop-mlo; or --sample"
        )
    if sample:
        from .data.sample import sample_folder

        paths = [sample_folder() / "mass-800"]
    refused: list[str] = []
    breasts = find_breasts(paths, refused, out) if paths else [name_breast(named, boxes)]
    from .inference.predict import NOTICE, predict_breasts, trained_on, write_prediction
    from .inference.release import released_run
    from .runs.records import Run

    chosen = Run(run) if run else released_run()
    typer.secho(NOTICE, fg="red")
    predictions = predict_breasts(chosen, breasts, aspect=aspect, refused=refused if paths else None)
    for number, prediction in enumerate(predictions):
        if number == 0:
            typer.echo(f"trained on {trained_on(chosen)}")
        _, picture = write_prediction(prediction, out)
        typer.echo(f"{prediction.line}; {picture}")
    for reason in refused:
        typer.secho(f"mammo: refused: {reason}", fg="red", err=True)
    if refused:
        raise typer.Exit(2)


@app.command()
def external(
    data: Annotated[Path, typer.Option(help="folder of the collection, which is recognised by its tables")],
    run: Annotated[
        Path | None,
        typer.Option(
            "--run", "--network", help="a finished run with its checkpoint, or a released network (default: ours)"
        ),
    ] = None,
    baseline: Annotated[
        list[str] | None, typer.Option(help=f"also this baseline: {' or '.join(TRANSFERRED)}; repeatable")
    ] = None,
    reference: Annotated[
        Path | None,
        typer.Option("--cbis-ddsm", help="folder of CBIS-DDSM, for its held-out breasts (default: MAMMO_DATA)"),
    ] = None,
    allow_missing: AllowMissing = False,
) -> None:
    """Score a trained network, unchanged, on another collection: mini-MIAS, CMMD, INbreast or VinDr-Mammo.

    If CBIS-DDSM is given, its held-out breasts are scored too, and the views that the collection lacks are masked. A
    finished record is read, not made again.
    """
    for name in baseline or []:
        if name not in TRANSFERRED:
            raise InputError(f"--baseline {name}: choose one of {', '.join(TRANSFERRED)}")
    from .data.data_sets import data_folder, open_cbis_ddsm
    from .data.external import open_other

    other = open_other(data)
    given = reference or os.environ.get("MAMMO_DATA")
    if baseline and not given:
        data_folder(None, "a baseline is fitted on CBIS-DDSM: ")
    home = open_cbis_ddsm(data_folder(given)) if given else None
    about = other.about
    typer.echo(f"{about.name}: {len(other.breasts)} breasts. {about.citation}\nLicence: {about.licence}")
    for reason, n in other.left_out["reason"].value_counts().items():
        typer.echo(f"left out: {n} x {reason}")
    from .inference.predict import NOTICE
    from .inference.release import released_run
    from .inference.transfer import score_baseline, score_network
    from .runs.records import Run

    typer.secho(NOTICE, fg="red")
    chosen, options = Run(run) if run else released_run(), {"allow_missing": allow_missing}
    records = [score_network(chosen, other, home, progress=True, **options)]
    records += [score_baseline(name, chosen.config, other, home, **options) for name in baseline or []]
    for record in records:
        _echo_transfer(record)


@app.command()
def weights(
    variant: Annotated[str, typer.Argument(help="T, T2, S, B, B_21k, L, L_21k, L2 or L3_256_21k")],
    folder: Annotated[Path, typer.Option(help="where to put the checkpoint")] = Path("weights"),
) -> None:
    """Download an official MambaVision checkpoint (CC-BY-NC-SA-4.0)."""
    from .models.weights import fetch_weights

    typer.echo(f"{fetch_weights(variant, folder)}: give this path as model.weights")


@app.command("export")
def export_network(
    network: Annotated[
        str,
        typer.Argument(metavar="RUN|VARIANT", help="a run's folder, released/dual, T, T2, S, B, L, L2, L3 or nano"),
    ],
    to: Annotated[str, typer.Option(help="onnx or torch-export")] = "onnx",
    opset: Annotated[int, typer.Option(help="version of ONNX's operators, 18 to 23")] = 20,
    dynamic: Annotated[bool, typer.Option("--dynamic", help="for a variant: leave height and width free")] = False,
    out: Annotated[Path | None, typer.Option(help="the file (default: the name, with .onnx or .pt2)")] = None,
    weights: Annotated[str | None, typer.Option(help="for a variant: a checkpoint, official, or random")] = None,
    size: Annotated[int | None, typer.Option(help="for a variant: side of the images in pixels (default: 224)")] = None,
) -> None:
    """Write a network to a file that runs without this library: ONNX of standard operators, or torch.export.

    The batch size is free. The image size of a trained run is fixed; masks say which views exist.
    """
    from .inference.deploy import export

    typer.echo(export(network, out, to=to, opset=opset, weights=weights, size=size, is_dynamic=dynamic))


@data_app.command()
def phantom(
    folder: Path,
    breasts: Annotated[
        int, typer.Option(help="number of two-view breasts, training and test together", min=12, max=MOST_BREASTS)
    ] = 96,
    seed: Annotated[int, typer.Option(min=0, max=LARGEST_SEED)] = 0,
    layout: Annotated[str, typer.Option(help="classic, nbia, flat, idc, kaggle or mirror-800")] = "classic",
) -> None:
    """Write a synthetic data set in the layout of CBIS-DDSM."""
    from .data import write_phantom

    write_phantom(folder, n_breasts=breasts, seed=seed, layout=layout)
    typer.echo(f"phantom of {breasts} breasts, seed {seed}: {folder}")


@data_app.command()
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
    from .data.object_storage import fetching

    look = _archive if address is None else partial(_object_storage, address)
    with fetching(folder):
        size, download = look(folder, _definition(cohort))
        typer.echo(f"cohort {cohort}: {size}")
        if not tables_only and not dry_run:
            download()
            typer.echo(f"complete; next: mammo data audit --data {folder}")


def _archive(folder: Path, definition: str) -> tuple[str, Callable[[], None]]:
    """Fetch the tables from the archive; return how much the images of a cohort are, and what downloads them."""
    from .data.cbis_ddsm.fetch import fetch_series, fetch_tables, series_of_cohort

    series = series_of_cohort(fetch_tables(folder), definition)
    size = f"{len(series)} series, {series['images'].sum():.0f} images, {series['megabytes'].sum() / 1000:.1f} GB"
    return size, partial(fetch_series, series, folder)


def _object_storage(address: str, folder: Path, definition: str) -> tuple[str, Callable[[], None]]:
    """Copy the tables from object storage; return how much the images of a cohort are, and what copies them."""
    from .data.cbis_ddsm.fetch import copy_tables, objects_of_cohort
    from .data.object_storage import copy_objects, list_objects

    stored = list_objects(address)
    names = objects_of_cohort(stored, copy_tables(stored, folder), definition)
    return f"{len(names)} files, {stored.size(names) / 1e9:.1f} GB", partial(copy_objects, stored, names, folder)


@data_app.command()
def audit(
    data: DataOption = None,
    report: Annotated[Path | None, typer.Option("--json", help="file for the report, as JSON")] = None,
) -> None:
    """Compare a copy of the data with the manifest; exit code 1 if they contradict each other."""
    from rich.table import Table

    from .data.cbis_ddsm.audit import audit_copy, write_report
    from .data.data_sets import data_folder

    root = data_folder(data)
    checks = audit_copy(root)
    path = report or BUILD / "audit.json"
    with writing_to(path):
        write_report(checks, path)
    shown = Table("part", "what", "expected", "found", "", box=None, pad_edge=False)
    for before, check in zip([None, *checks], checks, strict=False):
        part = "" if before and before.part == check.part else check.part
        found = f"{check.found}" + (
            f"  [dim]e.g. {check.example.removeprefix(str(root) + os.sep)}[/]" if check.example and check.found else ""
        )
        shown.add_row(
            part, check.what, "" if check.expected is None else str(check.expected), found, MARKS[check.verdict]
        )
    _console(180).print(shown)
    wrong = [check for check in checks if check.verdict == "mismatch"]
    typer.echo(f"{len(checks)} checks, {len(wrong)} contradict the manifest; report: {path}")
    if wrong:
        raise typer.Exit(1)


@data_app.command()
def folds(
    folder: Annotated[Path, typer.Argument(help="output folder")],
    cohort: DefinitionOption = "paper",
    n_folds: Annotated[int, typer.Option(min=2, max=20)] = 5,
    seed: Annotated[int, typer.Option(min=0, max=LARGEST_SEED)] = 0,
    data: DataOption = None,
) -> None:
    """Write patient-level validation folds of a cohort's training breasts, with a checksum."""
    from .data.cbis_ddsm.folds import write_folds
    from .data.cbis_ddsm.tables import read_tables
    from .data.data_sets import data_folder

    table = read_tables(data_folder(data))
    with writing_to(folder):
        record = write_folds(table, _definition(cohort), n_folds, seed, folder)
    typer.echo(f"{record['rows']} samples, {record['patients']} patients: {folder / record['file']}")


@data_app.command()
def prepare(
    profile: ProfileOption = None,
    data: DataOption = None,
    allow_missing: AllowMissing = False,
    workers: Annotated[int | None, typer.Option(min=1, help="processes (default: one per core)")] = None,
    cluster: Annotated[str | None, typer.Option(help="address of a Dask scheduler, instead of processes")] = None,
) -> None:
    """Decode every image of the profile's cohort once, into the cache; resumable."""
    from .data.data_sets import open_collection

    chosen, data = _profile(profile, data, allow_missing)
    collection = open_collection(chosen, data)
    for split in ("train", "test"):
        prepared = collection.prepare(split, *chosen.run.inputs, workers=workers, cluster=cluster)
        left_out = f", {len(prepared.problems)} left out" if len(prepared.problems) else ""
        typer.echo(f"{split}: {len(prepared.index)} views ready in {prepared.folder}{left_out}")


def _rehearse(profile: Profile, jobs: int | None, *, is_new: bool) -> int:
    """Rehearse a profile in a project folder of its own, print every step, and return the exit code."""
    from . import rehearsal
    from .runs.executor import end_with

    if not is_rehearsal():
        return rehearsal.start(rehearsal.stage(profile, is_new=is_new), profile, jobs)
    end_with(os.getppid())  # the one that staged this folder
    typer.secho(rehearsal.BANNER, fg="yellow")
    steps = []
    for step in rehearsal.rehearse(profile, jobs or os.cpu_count() or 1):
        steps.append(step)
        typer.echo(f"{step.step}: {step.outcome}{f', {step.reason}' if step.reason else ''}")
    _print_rehearsal(steps)
    failed = sum(step.outcome in ("failed", "not run") for step in steps)
    typer.echo(f"{rehearsal.BANNER}\n{len(steps)} steps, {failed} failed or not run: {rehearsal.STEPS}")
    return 1 if failed else 0


def _refuse_beside(option: str, why: str, others: dict[str, object]) -> None:
    if given := [name for name, value in others.items() if value]:
        raise InputError(f"{option} with {', '.join(given)}: {why}; leave out {', '.join(given)}")


def _profile(name: str | None, data: Path | None, allow_missing: bool) -> tuple[Profile, Path | None]:
    """Return the profile and the data that were named; of the profile, else the one that suits the data.

    Without a named profile, MAMMO_DATA stands for the data. What was chosen, and what is left out, is said.
    """
    if name is None and not os.environ.get("MAMMO_PROFILE"):
        data = data or (Path(named) if (named := os.environ.get("MAMMO_DATA")) else None)
        if data is not None:
            from .data.data_sets import data_folder, suited_profile

            name = suited_profile(data_folder(data))
            typer.secho(f"profile {name}: suits {data}; choose another one with --profile", fg="yellow", err=True)
    if allow_missing:
        os.environ[ALLOW_MISSING] = "1"  # the notebooks' kernels inherit it
    if os.environ.get(ALLOW_MISSING) == "1":
        typer.secho(f"views that cannot be read are left out ({ALLOW_MISSING}=1)", fg="yellow", err=True)
    return get_profile(name), data


def _configs(
    profile: Profile, path: Path | None, experiment: str | None, changes: list[str], seed: int | None,
    *, needs_choice: bool = True,
) -> list[RunConfig]:  # fmt: skip
    """Return the run configs that a command means; a changed one is called ``custom`` unless it is given a name."""
    from .runs.experiments import experiment_configs

    if path and experiment:
        raise InputError("give either a config file or --experiment NAME, not both")
    if needs_choice and not (path or experiment or changes):
        raise InputError("give a config file, --experiment NAME, or changes to the profile's run (--set FIELD=VALUE)")
    if path:
        configs = [load_config(path)]
    else:
        configs = experiment_configs(profile, experiment) if experiment else profile.configs()
    if changes and not any(change.startswith("experiment=") for change in changes):
        changes = ["experiment=custom", *changes]
    configs = [with_changes(config, changes) for config in configs] if changes else configs
    if seed is not None:
        configs = [config.model_copy(update={"seed": seed}) for config in configs]
    return list(dict.fromkeys(configs))


def _parameters(given: list[str]) -> dict[str, object]:
    pairs = [text.partition("=") for text in given]
    for name, equals, _ in pairs:
        if not name or not equals:
            raise InputError(f"--parameter {name!r}: write NAME=VALUE")
        if name == "profile":
            raise InputError("--parameter profile: choose the profile with --profile")
    return {name: _yaml_value(name, value) for name, _, value in pairs}


def _yaml_value(name: str, text: str) -> object:
    import yaml

    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError):  # ValueError: a date such as 2026-13-45
        raise InputError(f"--parameter {name}: {text!r} is not a valid value; put it into quotes") from None


def _definition(name: str) -> str:
    if name not in get_args(Definition):
        raise InputError(f"unknown cohort {name!r}: choose one of {', '.join(get_args(Definition))}")
    return name


def _echo_metrics(run, split: str) -> None:
    shown = ("auc", "accuracy", "sensitivity", "specificity", "f1")
    values = ", ".join(f"{name} {run.metrics[split][name]['value']:.3f}" for name in shown)
    typer.echo(f"{run.folder.parent.name}/{run.folder.name}: {split} {values}\n  record: {run.folder}")


def _echo_transfer(run) -> None:
    typer.echo(f"{run.config.baseline or 'network'}: {run.folder}")
    for split, metrics in run.metrics.items():
        value, low, high, n = (metrics["auc"][name] for name in ("value", "low", "high", "n"))
        said = "AUC undefined" if value is None else f"AUC {value:.3f}"
        bounds = "" if low is None else f" ({low:.3f} to {high:.3f})"
        typer.echo(f"  {split.replace('_', ' ')}: {said}{bounds}, {n} breasts")


def _echo_outcome(outcome, number: int, total: int) -> None:
    from tqdm import tqdm

    if total == 1 and outcome.run:
        return _echo_metrics(outcome.run, next(iter(outcome.run.metrics)))
    name = f"[{number}/{total}] {outcome.config.experiment}, seed {outcome.config.seed}"
    if outcome.error:
        return tqdm.write(f"{name}: FAILED: {outcome.error}", file=sys.stderr)
    took = "finished before" if outcome.was_finished else f"{outcome.seconds:.0f} s"
    split, metrics = next(iter(outcome.run.metrics.items()))
    tqdm.write(f"{name}: {split.replace('_', '-')} auc {metrics['auc']['value']:.3f}, {took}", file=sys.stdout)


def _console(width: int = 160):
    """Return a console; ``width`` is that of its lines where nobody looks at a terminal."""
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else width, highlight=False)


def _print_outcomes(outcomes: list) -> None:
    from rich.table import Table

    largest = "largest difference of a probability", "of a metric"
    shown = Table("record", "verdict", "rows", *largest, "columns that differ", box=None)
    for one in outcomes:
        differences = ["" if value is None else f"{value:.2g}" for value in (one.probability, one.metric)]
        shown.add_row(one.record, one.verdict, str(one.rows or ""), *differences, ", ".join(one.columns))
    _console().print(shown)
    for causes in dict.fromkeys(one.causes for one in outcomes if one.causes):
        records = ", ".join(one.record for one in outcomes if one.causes == causes)
        typer.echo(f"{records}: {'; '.join(causes)}")


def _print_rehearsal(steps: list) -> None:
    from rich.table import Table

    shown = Table("step", "outcome", "seconds", "reason", box=None)
    for one in steps:
        shown.add_row(one.step, one.outcome, "" if one.seconds is None else f"{one.seconds:.0f}", one.reason)
    _console().print(shown)


def _print_plan(table, cache: float) -> None:
    from rich.table import Table

    shown = Table("experiment", "finished", "million parameters", "memory, GB", "hours a run", "hours left", box=None)
    for row in table.itertuples():
        is_network = row.parameters == row.parameters  # a baseline has none, and takes seconds
        numbers = (row.parameters / 1e6, row.memory_gb, row.hours_each, row.hours_left) if is_network else ()
        shown.add_row(row.experiment, f"{row.finished} of {row.runs}", *(f"{one:,.2f}" for one in numbers))
    _console().print(shown)
    left = table["runs"] - table["finished"]
    weights = 4 * (left * table["parameters"]).sum()  # 32 bits each; a run keeps those of its best epoch
    typer.echo(
        f"{left.sum()} of {table['runs'].sum()} runs are left, {table['hours_left'].sum():,.1f} hours; "
        f"their weights: {weights / 1e9:,.1f} GB; cache of the profile's own run: {cache / 1e9:.2f} GB"
    )


def _echo_failures(failures: list, total: int) -> None:
    typer.secho(f"mammo: {len(failures)} of {total} runs failed:", fg="red", err=True)
    for outcome in failures:
        typer.echo(f"  {outcome.config.experiment}, seed {outcome.config.seed}: {outcome.error}", err=True)
    typer.echo("run the same command again: finished runs are read, the others resume", err=True)


def main() -> None:
    """Run the command line; a user's error is one line on stderr, with exit code 2."""
    from .reproduce import NotebookFailed

    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a terminal that cannot show a letter is no fault
    try:
        if ROOT.exists() and not ROOT.is_dir():
            raise InputError(f"MAMMO_ROOT={ROOT}: a file; set it to the folder of a checkout, or unset it")
        for name in RANKS:  # here, since libraries read them while they are imported
            process_number(name)
        sys.exit(app(standalone_mode=False) or 0)
    except InputError as error:
        _refuse(str(error))
    except UsageError as error:
        if not error.message or len(sys.argv) == 1:
            error.show()
            sys.exit(error.exit_code)
        _refuse(f"{error.format_message()} (see {error.ctx.command_path if error.ctx else 'mammo'} --help)")
    except OSError as error:
        if error.errno is None or error.errno == errno.EPIPE:
            raise
        where = f"{error.filename}: " if error.filename else ""
        _refuse(f"{where}the system refused it ({error.strerror}); check that the folder is writable and has space")
    except NotebookFailed as error:
        typer.secho(f"mammo: stopped at {error}", fg="red", err=True)
        for line in error.source.strip().splitlines():
            typer.echo(f"    | {line}", err=True)
        typer.echo(f"executed up to the error: {error.partial}", err=True)
        typer.echo(f"run the same command again to resume at {error.notebook.name}", err=True)
        sys.exit(1)


def _refuse(reason: str) -> NoReturn:
    typer.secho(f"mammo: {printable(reason)}", fg="red", err=True)
    sys.exit(2)


if __name__ == "__main__":
    main()
