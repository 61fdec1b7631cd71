"""The frozen list of experiments: their names, their differences from the profile's run, and groups.

``book/experiments.json`` contains ``experiments`` (identifier -> ``question``, ``overrides``, ``profiles`` if not every
profile runs it, and ``name``, shown to readers) and ``groups`` (name -> experiments). A profile may name another file
of this form.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from ..config import MATERIAL, Profile, RunConfig, closest, describe, fingerprint, identity, merged
from ..errors import InputError
from ..files import read_json

BOOK = MATERIAL / "book"
FROZEN = BOOK / "experiments.json"


class _Experiment(BaseModel):
    model_config = ConfigDict(extra="forbid")

    question: str
    overrides: dict[str, object] = {}
    profiles: list[str] = []
    name: str = ""


class _List(BaseModel):
    model_config = ConfigDict(extra="forbid")

    note: str = ""
    experiments: dict[str, _Experiment]
    groups: dict[str, list[str]] = {}


def read_experiments(profile: Profile, path: Path | None = None) -> dict[str, dict]:
    """Return the experiments of a profile: name -> ``question``, ``overrides``."""
    return _of_profile(_read(path or BOOK / profile.experiments), profile)


def read_groups(profile: Profile | None = None) -> dict[str, list[str]]:
    """Return the groups of a profile's list: name -> experiment names, whichever profile runs them."""
    return _read(BOOK / profile.experiments if profile else FROZEN).get("groups", {})


def experiment_configs(profile: Profile, name: str, path: Path | None = None) -> list[RunConfig]:
    """Return the run configs of an experiment, or of every experiment of a group, under a profile: one per seed.

    Raises
    ------
    InputError
        The name is unknown, the profile does not run it, or its overrides make no valid config.
    """
    path = path or BOOK / profile.experiments
    content = _read(path)
    experiments = _of_profile(content, profile)
    groups = content.get("groups", {}) | {"all": list(experiments)}
    members = [one for one in groups.get(name, [name]) if one in experiments]
    if not members:
        known = [*experiments, *(group for group, names in groups.items() if {*names} & {*experiments})]
        everywhere = " (other profiles run it)" if name in content["experiments"] or name in groups else ""
        raise InputError(
            f"unknown experiment {name!r} in profile {profile.name!r}{everywhere}: choose one of {', '.join(known)}"
            f"{closest(name, known)}"
        )
    return [config for one in members for config in _configs(profile, one, experiments[one], path)]


def list_hash(profile: Profile) -> str:
    """Return the SHA-256 of all runs of the frozen list under a profile, as recorded in a receipt."""
    return fingerprint([identity(config) for config in experiment_configs(profile, "all")])


def _of_profile(content: dict, profile: Profile) -> dict[str, dict]:
    experiments = content["experiments"]
    return {name: one for name, one in experiments.items() if profile.name in one.get("profiles", [profile.name])}


def _configs(profile: Profile, name: str, experiment: dict, path: Path) -> list[RunConfig]:
    fields = merged(profile.run.model_dump(), experiment.get("overrides", {}))
    try:
        base = RunConfig.model_validate(fields | {"experiment": name})
        return [base.with_seed(seed) for seed in profile.seeds]
    except ValidationError as error:
        raise InputError(f"{path}: experiment {name}: {describe(error)}") from None


def _read(path: Path) -> dict:
    content = read_json(path, "restore it from the repository")
    try:
        _List.model_validate(content)
    except ValidationError as error:
        raise InputError(
            f"{path}: {describe(error, _List)}; correct the entry, or restore the file from the repository"
        ) from None
    return content
