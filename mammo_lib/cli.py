"""The command line, ``mammo``: thin wrappers that print; errors of the user's making are one line and exit code 2."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from .config import PROFILES, get_profile, load_config
from .errors import InputError

app = typer.Typer(
    add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, help="Mammo-Mamba, reproduced."
)
data_app = typer.Typer(no_args_is_help=True, help="The data: phantom, preparation.")
app.add_typer(data_app, name="data")

ProfileOption = Annotated[str, typer.Option(help=f"one of: {', '.join(PROFILES)}")]
DataOption = Annotated[Path | None, typer.Option(help="folder of CBIS-DDSM (default: MAMMO_DATA)")]


@app.command()
def reproduce(
    profile: ProfileOption = "smoke",
    data: DataOption = None,
    only: Annotated[list[str] | None, typer.Option(help="chapter number, e.g. 05; repeatable")] = None,
    start: Annotated[str | None, typer.Option("--from", help="first chapter to run, e.g. 03")] = None,
    force: Annotated[bool, typer.Option(help="run notebooks again that are up to date")] = False,
) -> None:
    """Run every notebook in order, then build the book; what is up to date is not run again."""
    from tqdm import tqdm

    from . import reproduce as reproduction
    from .data.collection import open_collection

    chosen = get_profile(profile)
    typer.echo(f"profile {chosen.name}: preparing the data")
    collection = open_collection(chosen, data)
    for split in ("train", "test"):
        collection.prepare(chosen.run, split)
    if chosen.phantom_breasts is None:
        os.environ["MAMMO_DATA"] = str(collection.root)  # the notebooks' kernels inherit it
    steps = reproduction.plan(chosen, collection.root, only=only or (), start=start, force=force)
    for step in tqdm(steps, desc="notebooks", unit="notebook", dynamic_ncols=True):
        seconds = None if step.is_done else reproduction.execute(step, chosen)
        tqdm.write(
            f"{step.source.stem:<36} {'up to date' if seconds is None else f'{seconds:6.1f} s'}", file=sys.stdout
        )
    typer.echo("building the book")
    typer.echo(f"the report: {reproduction.build_book()}")


@app.command()
def run(
    config: Annotated[Path | None, typer.Argument(help="a run config as JSON")] = None,
    experiment: Annotated[str | None, typer.Option(help="a name in book/experiments.json")] = None,
    profile: ProfileOption = "smoke",
    data: DataOption = None,
) -> None:
    """Train one config, or every seed of an experiment; scores validation only."""
    from .experiments import experiment_configs

    chosen = get_profile(profile)
    if (config is None) == (experiment is None):
        raise InputError("give either a CONFIG.json or --experiment NAME")
    configs = [load_config(config)] if config else experiment_configs(chosen, experiment)
    # What is wrong with the arguments is said before the seconds that torch takes to import.
    from .data.collection import open_collection
    from .train import train_run

    collection = open_collection(chosen, data)
    for one in configs:
        finished = train_run(one, collection, progress=True)
        _echo_metrics(finished, "validation")


@app.command()
def evaluate(profile: ProfileOption = "smoke", data: DataOption = None) -> None:
    """Open the test set for all runs of the frozen experiment list together."""
    chosen = get_profile(profile)
    from .data.collection import open_collection
    from .evaluate import evaluate_profile

    for opened in evaluate_profile(chosen, open_collection(chosen, data)):
        _echo_metrics(opened.run, "test")


@app.command()
def weights(
    variant: Annotated[str, typer.Argument(help="T, T2, S, B, B_21k, L, L_21k, L2 or L3_256_21k")],
    folder: Annotated[Path, typer.Option(help="where to put the checkpoint")] = Path("weights"),
) -> None:
    """Download an official MambaVision checkpoint (CC-BY-NC-SA-4.0)."""
    from .models.weights import fetch_weights

    typer.echo(f"{fetch_weights(variant, folder)}: give this path as model.weights")


@data_app.command()
def phantom(
    folder: Path,
    breasts: Annotated[int, typer.Option(help="two-view breasts, train and test together", min=12)] = 96,
    seed: Annotated[int, typer.Option(min=0)] = 0,
) -> None:
    """Write a synthetic data set in the form of CBIS-DDSM."""
    from .data.phantom import write_phantom

    write_phantom(folder, n_breasts=breasts, seed=seed)
    typer.echo(f"phantom of {breasts} breasts, seed {seed}: {folder}")


@data_app.command()
def prepare(profile: ProfileOption = "smoke", data: DataOption = None) -> None:
    """Decode every image of the profile's cohort once, into the cache; resumes."""
    from .data.collection import open_collection

    chosen = get_profile(profile)
    collection = open_collection(chosen, data)
    for split in ("train", "test"):
        prepared = collection.prepare(chosen.run, split)
        typer.echo(f"{split}: {len(prepared.index)} views ready in {prepared.folder}")


def _echo_metrics(run, split: str) -> None:
    shown = ("auc", "accuracy", "sensitivity", "specificity", "f1")
    values = ", ".join(f"{name} {run.metrics[split][name]['value']:.3f}" for name in shown)
    typer.echo(f"{run.folder.parent.name}/{run.folder.name}: {split} {values}\n  record: {run.folder}")


def main() -> None:
    """Run the command line; a user's mistake is one line on stderr and exit code 2."""
    from .reproduce import NotebookFailed

    try:
        app()
    except InputError as error:
        typer.secho(f"mammo: {error}", fg="red", err=True)
        sys.exit(2)
    except NotebookFailed as error:
        typer.secho(f"mammo: stopped at {error}", fg="red", err=True)
        for line in error.source.strip().splitlines():
            typer.echo(f"    | {line}", err=True)
        typer.echo(f"executed up to the error: {error.partial}", err=True)
        typer.echo(f"run the same command again to go on at {error.notebook.name}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
