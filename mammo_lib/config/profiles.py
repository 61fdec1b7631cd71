"""Profiles, which set the scale of a reproduction: one YAML file each in ``book/profiles/``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError, model_validator

from ..errors import InputError
from .edit import closest, describe, read_mapping
from .paths import MATERIAL
from .run import LARGEST_SEED, Frozen, RunConfig

PROFILES = MATERIAL / "book" / "profiles"
ORDER = (
    "smoke", "mirror", "mirror-cv", "mirror-cv-training", "mirror-open", "mirror-limits", "mirror-final",
    "mirror-whole", "mirror-resolution", "mirror-whole-training", "mirror-resolution-training",
    "mirror-long-gates", "paper",
)  # fmt: skip
MAX_BREASTS = 10_000  # of a phantom: some 15 GB
Seed = Annotated[int, Field(ge=0, le=LARGEST_SEED)]
ALLOW_MISSING = "MAMMO_ALLOW_MISSING"  # 1: views that cannot be read are left out; set by --allow-missing


class Profile(Frozen):
    """The scale of a reproduction: its data, run and seeds."""

    name: str
    about: str = Field("", description="purpose of the profile, in one line")
    data_set: str = Field("cbis-ddsm", description="data set reader: a name in mammo_lib.data.data_sets")
    phantom_breasts: int | None = Field(
        None, ge=12, le=MAX_BREASTS, description="number of breasts of the generated phantom; null: real data"
    )
    phantom_seed: Seed = 0
    experiments: str = Field("experiments.json", description="file in book/ with the list of experiments")
    run: RunConfig = RunConfig()
    seeds: tuple[Seed, ...] = Field((0,), min_length=1)
    further_seeds: tuple[Seed, ...] = Field(
        (), description="seeds of the repeats that are added where a comparison is undecided"
    )

    @model_validator(mode="after")
    def _seeds_differ_and_fit_the_run(self):
        every = (*self.seeds, *self.further_seeds)
        if twice := sorted({seed for seed in every if every.count(seed) > 1}):
            raise ValueError(f"seeds and further_seeds must differ, {', '.join(map(str, twice))} is given twice")
        try:
            self.extended.configs()
        except ValidationError as error:
            raise ValueError(describe(error)) from None
        return self

    @property
    def extended(self) -> Profile:
        """The profile with its further seeds among its seeds."""
        return self.model_copy(update={"seeds": (*self.seeds, *self.further_seeds)})

    def configs(self) -> list[RunConfig]:
        """Return one run config per seed."""
        return [self.run.with_seed(seed) for seed in self.seeds]


def profile_names() -> list[str]:
    """Return the names of the project's profiles, from the quickest to the paper's."""
    known = {name: place for place, name in enumerate(ORDER)}
    return sorted((path.stem for path in PROFILES.glob("*.yaml")), key=lambda name: (known.get(name, len(ORDER)), name))


def get_profile(name: str | Path | None = None) -> Profile:
    """Return a profile by name or from a YAML file of your own; by default ``MAMMO_PROFILE``, else ``smoke``.

    Raises
    ------
    InputError
        There is no such profile, or its file contains an unknown or invalid field.
    """
    name = str(name or os.environ.get("MAMMO_PROFILE") or "smoke")
    is_file = name.endswith((".yaml", ".yml", ".json"))
    path = Path(name) if is_file else PROFILES / f"{name}.yaml"
    if not is_file and name not in profile_names():
        raise InputError(
            f"unknown profile {name!r}: choose one of {', '.join(profile_names())}{closest(name, profile_names())}"
        )
    try:
        profile = Profile.model_validate({"name": path.stem} | read_mapping(path))
    except ValidationError as error:
        raise InputError(f"{path}: {describe(error, Profile)}") from None
    if os.environ.get(ALLOW_MISSING) == "1":
        data = profile.run.data.model_copy(update={"allow_missing": True})
        profile = profile.model_copy(update={"run": profile.run.model_copy(update={"data": data})})
    return profile
