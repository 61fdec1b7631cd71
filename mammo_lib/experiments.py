"""The frozen list of experiments: a name, and how it differs from its profile's run."""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import ValidationError

from .config import ROOT, Profile, RunConfig, describe
from .errors import InputError

FROZEN = ROOT / "book" / "experiments.json"


def read_experiments(path: Path = FROZEN) -> dict[str, dict]:
    """Return experiment name -> overrides of the profile's run config."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))["experiments"]
    except (OSError, KeyError, json.JSONDecodeError) as error:
        raise InputError(f"{path}: not a list of experiments ({error}); restore it from the repository") from None


def experiment_configs(profile: Profile, name: str, path: Path = FROZEN) -> list[RunConfig]:
    """Return the run configs of an experiment under a profile, one per seed."""
    experiments = read_experiments(path)
    if name not in experiments:
        raise InputError(f"unknown experiment {name!r}: choose one of {', '.join(experiments)}")
    fields = profile.run.model_dump()
    for section, overrides in experiments[name].get("overrides", {}).items():
        fields[section] = fields[section] | overrides
    try:
        base = RunConfig.model_validate(fields | {"experiment": name})
    except ValidationError as error:
        raise InputError(f"{path}: experiment {name}: {describe(error)}") from None
    return [base.model_copy(update={"seed": seed}) for seed in profile.seeds]
