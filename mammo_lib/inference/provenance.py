"""What is known about a network before it is used: its weights, what it was trained on, and how to train it again."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from ..config import BUILD, ROOT, Profile, RunConfig, get_profile, profile_names
from ..data.collection import PHANTOM
from ..errors import InputError
from ..files import file_hash, write_json
from ..runs import records as runs
from ..runs.experiments import experiment_configs
from ..runs.manifest import RELEASED
from ..runs.records import Run
from ..statistics import OUT_OF_FOLD
from .release import WITHOUT

HELD_OUT = (OUT_OF_FOLD, "validation")  # splits of a network's own record, apart from its test set
CLOSE_ENOUGH = 1e-3  # in probability, between a record's network and the same network trained again
NOTICE = "Research use only. Not a medical device: no basis for a decision about a patient."


def with_weights(run: Run) -> Run:
    """Return a run with a checkpoint on this machine: ``run``, or the one that was retrained from its record.

    Raises
    ------
    InputError
        The folder is not a finished run, the run is a baseline or a cross-validation, or its checkpoint is missing.
        Records are committed without checkpoints, and the message contains the command that recreates it.
    """
    if not run.is_finished:
        raise InputError(f"{run.folder}: not a finished run (metrics.json is missing); give a run's folder")
    if run.config.baseline:
        raise InputError(
            f"{run.folder}: a baseline ({run.config.baseline}), which has no network; give a network's run"
        )
    if run.is_scored_only:
        raise InputError(f"{run.folder}: scores of another run's network on other films; give the run of that network")
    again = Run(runs.FRESH / run.folder.parent.name / run.folder.name)
    if run.config.data.fold == "each":
        raise InputError(
            f"{run.folder}: a cross-validation, which trains one network for each fold; give one of them, such as "
            f"{_from_root(again.folder / 'fold0')}; `{rebuild_command(run)}` trains them"
        )
    for one in (run, again):
        if one.is_finished and one.checkpoint.is_file():
            return one
    raise InputError(
        f"{run.checkpoint}: missing, because records are kept without weights; `{rebuild_command(run)}` recreates it"
    )


def same_network(run: Run) -> Run:
    """Return a run with a checkpoint on this machine, as :func:`with_weights`, if it is the network of the record.

    Raises
    ------
    InputError
        The run was trained again, and did not score the held-out breasts of its record or gives one of them a
        probability that differs by more than ``CLOSE_ENOUGH``; or as :func:`with_weights`.
    """
    found = with_weights(run)
    if found.folder == run.folder:
        return found
    recorded, again = (_held_out(one) for one in (run, found))
    way_out = f"move {found.folder} away and train the record again: `{rebuild_command(run)}`"
    if recorded.empty or not recorded.index.isin(again.index).all():
        raise InputError(f"{found.folder}: it did not score the held-out breasts of its record; {way_out}")
    apart = (again.loc[recorded.index] - recorded).abs().max()
    if apart > CLOSE_ENOUGH:
        raise InputError(
            f"{found.folder}: not the network of its record: trained again here, it differs by up to {apart:.3f} in "
            f"the probability of a held-out breast (allowed: {CLOSE_ENOUGH}); {way_out}, with the versions and the "
            "number of threads that the record's environment.json names"
        )
    return found


def identity_of(run: Run) -> str:
    """Return what identifies a network in the name of a record: the hash of released weights, else the run's name.

    A checkpoint's own hash would differ whenever the same network is trained again.
    """
    return file_hash(run.checkpoint) if run.checkpoint.name == RELEASED else run.name


def _held_out(run: Run) -> pd.Series:
    """Return, by sample, the probabilities of the breasts that a run did not train on, except its test breasts."""
    frame = run.predictions
    return frame[frame["split"].isin(HELD_OUT)].set_index("sample_id")["probability"]


def networks_of(profile: Profile, name: str) -> list[Run]:
    """Return the trained networks of an experiment or a group, each with its checkpoint, in the order of the list.

    Raises
    ------
    InputError
        None is finished, or one of them is a baseline, a cross-validation, or has no checkpoint here.
    """
    found = runs.finished_of(experiment_configs(profile, name))
    if not found:
        raise InputError(
            f"{name}: no finished run with profile {profile.name}; "
            f"`mammo run --experiment {name} --profile {profile.name}` trains them"
        )
    return [same_network(run) for run in found]


def rebuild_command(run: Run) -> str:
    """Return the command that retrains a committed run with its weights; without ``--profile`` if none is known."""
    profile = next((name for name in profile_names() if run.config in _configs_of(name, run.config)), None)
    options = _options(profile) if profile else "--data DIR"
    return f"MAMMO_RETRAIN=1 mammo run {_from_root(run.folder / 'config.json')} {options}"


def run_command(config: RunConfig, profile: str) -> str:
    """Return the command that trains a run; a config outside the profile's frozen list is first written to a file."""
    options = _options(profile)
    if config in _configs_of(profile, config):
        return f"mammo run --experiment {config.experiment} {options}"
    path = BUILD / "configs" / f"{config.experiment}-{config.fingerprint[:12]}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, config.model_dump(mode="json"))
    return f"mammo run {_from_root(path)} {options}"


def _options(profile: str) -> str:
    return f"--profile {profile}{'' if profile == 'smoke' else ' --data DIR'}"


def _from_root(path: Path) -> Path:
    """Return a path relative to the project's folder, so that pages and messages name no folder of one machine."""
    return path.relative_to(ROOT) if path.is_relative_to(ROOT) else path


def _configs_of(profile: str, config: RunConfig) -> list[RunConfig]:
    try:
        return experiment_configs(get_profile(profile), config.experiment)
    except InputError:
        return []


def is_phantom(run: Run) -> bool:
    """Whether a network was trained on synthetic images: its record says so, or its config is of such a profile."""
    said = run.environment.get("data_set")
    if said is not None:
        return said.startswith(PHANTOM)
    phantoms = [name for name in profile_names() if get_profile(name).phantom_breasts]
    return any(run.config in _configs_of(name, run.config) for name in phantoms)


def refuse_phantom(record: Run) -> None:
    """Raise an :class:`InputError` for a record of synthetic images, or of a network that was trained on them."""
    said = record.environment.get("trained_on") or ""
    network = Run(runs.FRESH / (record.environment.get("network") or record.name))  # older records do not say it
    if is_phantom(record) or said.startswith(PHANTOM) or (network.is_finished and is_phantom(network)):
        raise InputError(
            f"{record.folder}: made on the {PHANTOM}, and results/ holds records of real films; train on images "
            "(--data DIR), or move this folder away"
        )


def training_set(run: Run) -> str | None:
    """Return the name of the data set that a network was trained on; None if its record does not say it."""
    return run.environment.get("data_set") or (PHANTOM if is_phantom(run) else None)


def trained_on(run: Run) -> str:
    """Say what a run's network was trained on, and how it scored on breasts that it was not trained on."""
    config, auc = run.config, _auc_of(run)
    source = training_set(run) or "a data set that its record does not name"
    height, width = config.data.image_size
    score = f"; {_in_words(auc)} on breasts that it was not trained on" if auc else ""
    return f"{source}, {width} x {height} px, backbone {config.model.backbone}{score}"


def cost_of_crops(run: Run) -> str:
    """Say what missing crops cost this network in AUC, from its record, or that nobody measured it."""
    given, without = _auc_of(run), _auc_of(run, WITHOUT["crop"])
    if given is None or without is None:
        return "what that costs was not measured for this network"
    return f"without crops its AUC falls from {given['value']:.2f} to {_in_words(without).removeprefix('AUC ')}"


def _auc_of(run: Run, split: str | None = None) -> dict | None:
    """Return the AUC of a split of a record, by default of the first; None if the record has none."""
    metrics = run.metrics
    return metrics.get(split or next(iter(metrics)), {}).get("auc")


def _in_words(auc: dict) -> str:
    return f"AUC {auc['value']:.2f} ({auc['low']:.2f} to {auc['high']:.2f}, n = {auc['n']})"
