"""Options that several commands share, and what they mean together."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, get_args

import typer

from ..config import (
    ALLOW_MISSING,
    LARGEST_SEED,
    Definition,
    Profile,
    RunConfig,
    get_profile,
    load_config,
    profile_names,
    with_changes,
    with_seed,
)
from ..errors import InputError

ProfileOption = Annotated[
    str | None,
    typer.Option(
        help=f"one of: {', '.join(profile_names())}; or a YAML file (default: MAMMO_PROFILE, else the one that suits "
        "the images of --data or MAMMO_DATA; without images smoke, for mammo reproduce mirror)"
    ),
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


def refuse_beside(option: str, why: str, others: dict[str, object]) -> None:
    """Raise an :class:`InputError` that says ``why`` if any of the ``others`` is given together with an option."""
    if given := [name for name, value in others.items() if value]:
        raise InputError(f"{option} with {', '.join(given)}: {why}; leave out {', '.join(given)}")


def chosen_profile(name: str | None, data: Path | None, allow_missing: bool) -> tuple[Profile, Path | None]:
    """Return the profile and the data that were named; of the profile, else the one that suits the data.

    Without a named profile, MAMMO_DATA stands for the data. What was chosen, and what is left out, is said.
    """
    if name is None and not os.environ.get("MAMMO_PROFILE"):
        data = data or (Path(named) if (named := os.environ.get("MAMMO_DATA")) else None)
        if data is not None:
            name = _suited(data)
    if allow_missing:
        os.environ[ALLOW_MISSING] = "1"  # the notebooks' kernels inherit it
    if os.environ.get(ALLOW_MISSING) == "1":
        typer.secho(f"views that cannot be read are left out ({ALLOW_MISSING}=1)", fg="yellow", err=True)
    return get_profile(name), data


def shown_profile(name: str | None) -> Profile:
    """Return the profile that a command without images shows: the named one, else the one that suits MAMMO_DATA."""
    folder = os.environ.get("MAMMO_DATA")
    if name is None and folder and not os.environ.get("MAMMO_PROFILE"):
        if not Path(folder).is_dir():
            raise InputError(f"MAMMO_DATA={folder}: no such folder; correct it, or name a profile with --profile")
        name = _suited(Path(folder))
    return get_profile(name)


def _suited(data: Path) -> str:
    from ..data.data_sets import data_folder, suited_profile

    name = suited_profile(data_folder(data))
    typer.secho(f"profile {name}: suits {data}; choose another one with --profile", fg="yellow", err=True)
    return name


def chosen_configs(
    profile: Profile, path: Path | None, experiment: str | None, changes: list[str], seed: int | None,
    *, needs_choice: bool = True,
) -> list[RunConfig]:  # fmt: skip
    """Return the run configs that a command means; a changed one is called ``custom`` unless it is given a name."""
    from ..runs.experiments import experiment_configs

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
        configs = [with_seed(config, seed) for config in configs]
    return list(dict.fromkeys(configs))


def checked_definition(name: str) -> str:
    """Return the name of a cohort's definition; raise an :class:`InputError` for an unknown one."""
    if name not in get_args(Definition):
        raise InputError(f"unknown cohort {name!r}: choose one of {', '.join(get_args(Definition))}")
    return name
