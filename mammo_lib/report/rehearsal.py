"""The rehearsal of a profile: everything that its reproduction does, on a small phantom, so that a crash costs minutes.

A rehearsal has a project folder of its own, ``_build/rehearsal/<profile>``: a copy of this one (:func:`stage`) in which
``rehearsal.json`` says what it is, the profile is :func:`shortened`, every page has a banner, and checkpoints are
random. Runs, cache, records and the book stay in that folder. It executes the code of the real reproduction, with two
differences. The test set is opened for one network after another, and all but two then lose their weights, because few
disks have room for all. A failure does not stop the steps that can go on without the failed one.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import yaml

from ..config import BUILD, REHEARSAL, ROOT, Profile, RunConfig, get_profile, is_rehearsal
from ..config.checkpoints import OFFICIAL, weights_folder
from ..errors import InputError, writing_to
from ..files import read_json, write_json
from ..runs.executor import open_executor, run_program
from ..runs.experiments import experiment_configs
from ..runs.records import Run, fresh_run
from . import book as pages
from . import summary
from .execution import run_chapters
from .outcomes import StepOutcome
from .steps import DEFAULT_BOOK, find_notebooks, plan

if TYPE_CHECKING:
    from ..data.collection import Collection

HOME = BUILD / "rehearsal"
COPIED = ("benchmarks", "book", "data_manifest", "mammo_lib", "notebooks", "released", "results", "sample")
MADE = ("notebooks", "_build")  # made by the book's builder inside the copied folders; not sources
BANNER = "Rehearsal: phantom, random weights, one step. No number here is a result."
BREASTS = 24  # of the phantom: both labels in each of five folds and in the test set, and one step of 8 breasts
SIDE, BATCH = 64, 8  # largest image and batch without a GPU
FOREIGN_BREASTS = 12
KEEP_WEIGHTS = ("dual_stream", "scope_token")  # for other collections; for the maps of chapter 07
STEPS = BUILD / "rehearsed.json"


@dataclass(frozen=True)
class Rehearsed:
    """The outcome of one step. For a step that was finished before, ``seconds`` is the time that it took then."""

    step: str
    outcome: Literal["done", "finished before", "failed", "not run"]
    seconds: float | None = None
    reason: str = ""


def shortened(profile: Profile, *, has_gpu: bool) -> Profile:
    """Return a profile with one seed, one epoch and few breasts, and without a GPU also with small images.

    With a GPU, image and batch keep their size, so that the rehearsal shows whether memory is enough.
    """
    run, small = profile.run, {}
    if not has_gpu:
        small["data"] = run.data.model_copy(
            update={"image_size": tuple(min(side, SIDE) for side in run.data.image_size)}
        )
    batch = {} if has_gpu else {"batch_size": min(run.train.batch_size, BATCH)}
    small["train"] = run.train.model_copy(update={"epochs": 1, **batch})
    breasts = None if profile.phantom_breasts is None else BREASTS
    cut_run = run.model_copy(update=small)
    return profile.model_copy(update={"seeds": profile.seeds[:1], "phantom_breasts": breasts, "run": cut_run})


def stage(profile: Profile, *, is_new: bool = False) -> Path:
    """Make or renew the project folder of a profile's rehearsal, and return it; finished work in it is kept.

    Raises
    ------
    InputError
        This folder is itself a rehearsal or is not a checkout, or the profile reads another data set.
    """
    import torch

    if profile.data_set != "cbis-ddsm":
        raise InputError(f"profile {profile.name!r} reads {profile.data_set!r}: there is no phantom of it")
    find_notebooks()
    home, has_gpu = HOME / profile.name, torch.cuda.is_available()
    with writing_to(home):
        if is_new:
            shutil.rmtree(home, ignore_errors=True)
        for name in COPIED:
            _renew(ROOT / name, home / name)
        shutil.copy(ROOT / "pyproject.toml", home)  # the book's pages name the project
        for one in {profile.name: profile, "smoke": get_profile("smoke")}.values():
            _write_profile(shortened(one, has_gpu=has_gpu), home / "book" / "profiles")
        for path in sorted((home / "notebooks").glob("*.ipynb")):
            _put_banner(path)
        settings = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))
        settings["html"]["announcement"] = BANNER
        (home / "_config.yml").write_text(yaml.safe_dump(settings), encoding="utf-8")
        _name_random_weights(home / "data_manifest" / "weights.json", profile)
        write_json(home / REHEARSAL, {"profile": profile.name, "about": BANNER})
    return home


def start(home: Path, profile: Profile, jobs: int | None) -> int:
    """Rehearse in a process whose project folder is ``home``; return its exit code."""
    command = [sys.executable, "-m", "mammo_lib.cli", "reproduce", "--rehearse", "--profile", profile.name]
    left_out = ("MAMMO_PROFILE", "MAMMO_RETRAIN", "MAMMO_ALLOW_MISSING", "MAMMO_DATA")
    environment = {name: value for name, value in os.environ.items() if name not in left_out}
    environment |= {"MAMMO_ROOT": str(home), "MAMMO_WEIGHTS": str(home / "weights"), "MAMMO_TOLD_BY_CALLER": "1"}
    return run_program([*command, *(["--jobs", str(jobs)] if jobs else [])], env=environment)


def rehearse(profile: Profile, jobs: int) -> Iterator[Rehearsed]:
    """Yield the outcome of every step, in the project folder of a rehearsal, and write it to ``rehearsed.json``."""
    if not is_rehearsal():
        raise InputError(f"{ROOT}: not the folder of a rehearsal; run `mammo reproduce --rehearse`")
    known = read_json(STEPS)["steps"] if STEPS.is_file() else []
    took = {one["step"]: one["seconds"] for one in known}
    found: list[Rehearsed] = []
    for one in _steps(profile, jobs):
        seconds = took.get(one.step) if one.outcome == "finished before" else one.seconds
        found.append(Rehearsed(one.step, one.outcome, seconds, one.reason))
        later = [old for old in known if old["step"] not in {new.step for new in found}]
        write_json(STEPS, {"profile": profile.name, "about": BANNER, "steps": [*map(asdict, found), *later]})
        yield found[-1]


def try_step(step: str, work: Callable[[], object]) -> Rehearsed:
    """Carry out a step and return its outcome; the traceback of a crash goes to ``_build/failed/``."""
    from ..runs.sweep import describe_failure

    started = time.perf_counter()
    try:
        work()
    except Exception as error:
        reason = describe_failure(error, BUILD / "failed" / step.replace(" ", "-"))
        return Rehearsed(step, "failed", time.perf_counter() - started, reason)
    return Rehearsed(step, "done", time.perf_counter() - started)


def _steps(profile: Profile, jobs: int) -> Iterator[Rehearsed]:
    from ..data.data_sets import open_collection

    started = time.perf_counter()
    collection = open_collection(profile, _images(profile))
    configs = experiment_configs(profile, "all")
    hashes = {split: collection.data_hash(split, *profile.run.inputs) for split in ("train", "test")}
    yield Rehearsed("phantom", "done", time.perf_counter() - started)
    yield from _write_weights(configs)
    failed = False
    for one in _train_and_open(profile, configs, collection, jobs):
        failed |= one.outcome == "failed"
        yield one
    is_opened = profile.run.data.fold != "each"
    if is_opened:
        yield _open_rest(profile, collection, failed=failed)
        yield try_step("gates", partial(_check_gates, profile, collection))
        yield from _score_elsewhere(profile, collection)
    shown = profile if is_opened else get_profile(DEFAULT_BOOK)
    yield from _chapters(shown, collection, hashes, jobs)


def _images(profile: Profile) -> Path | None:
    """Return the folder of the phantom that replaces a profile's images; None if the profile makes its own phantom."""
    from ..data import write_phantom
    from ..data.data_sets import suited_layout

    if profile.phantom_breasts is not None:
        return None
    root = ROOT / "data"
    write_phantom(root, n_breasts=BREASTS, seed=0, layout=suited_layout(profile))
    return root


def _write_weights(configs: Iterable[RunConfig]) -> Iterator[Rehearsed]:
    from ..models.random_weights import write_random_checkpoint

    for backbone in _needed(configs):
        path, step = weights_folder() / read_json(OFFICIAL)[backbone]["file"], f"checkpoint {backbone}"
        if path.is_file():
            yield Rehearsed(step, "finished before")
        else:
            yield try_step(step, partial(write_random_checkpoint, backbone, path))


def _train_and_open(
    profile: Profile, configs: list[RunConfig], collection: Collection, jobs: int
) -> Iterator[Rehearsed]:
    """Train every run; with ``jobs`` above 1, another process opens a network while the next one is trained."""
    from ..runs.evaluate import opening_of
    from ..runs.sweep import run_sweep

    opening, waiting = None, []
    with open_executor(min(jobs, 2)) as (pool, _):
        for one in run_sweep(configs, collection, progress=True):
            yield from (future.result() for future in waiting)
            name, waiting = one.config.experiment, []
            if one.error:
                for path in _run_of(one.config, collection).folder.glob("*.ckpt"):
                    path.unlink()  # one step is soon trained again, and many failures would fill the disk
                yield Rehearsed(f"train {name}", "failed", one.seconds, one.error)
                continue
            yield Rehearsed(f"train {name}", "finished before" if one.was_finished else "done", one.seconds)
            if one.config.baseline or name in KEEP_WEIGHTS or one.config.data.fold == "each":
                continue  # opened with the whole list
            opening = opening or opening_of(profile, [_run_of(config, collection) for config in configs])
            waiting = [pool.submit(_open_and_thin, one.run, collection, opening | {"added_after": None})]
        yield from (future.result() for future in waiting)


def _open_and_thin(run: Run, collection: Collection, opening: dict) -> Rehearsed:
    """Open the test set for a network and remove its weights, because a disk may not have room for all."""
    from ..runs.evaluate import open_test_set

    step = f"open {run.config.experiment}"
    if run.is_evaluated:
        return Rehearsed(step, "finished before")
    opened = try_step(step, partial(open_test_set, run, collection, opening))
    if opened.outcome == "done":
        run.checkpoint.unlink()
    return opened


def _open_rest(profile: Profile, collection: Collection, *, failed: bool) -> Rehearsed:
    from ..runs.evaluate import evaluate_profile

    if failed:
        return Rehearsed("open the list", "not run", reason="the test set is opened for all runs or for none")
    return try_step("open the list", partial(evaluate_profile, profile, collection, progress=True))


def _check_gates(profile: Profile, collection: Collection) -> None:
    """Raise an error if a network with learned gates has no gates, or no overridden gates, on its test breasts."""
    for config in experiment_configs(profile, "all"):
        run = _run_of(config, collection)
        if config.baseline or config.model.gate.kind != "learned" or not run.is_evaluated:
            continue
        for name in ("gates", "interventions"):
            table = getattr(run, name)
            if table is None or not (table["split"] == "test").any():
                raise InputError(f"{run.folder}: no {name} of test breasts; see the run's error, then rehearse again")


def _score_elsewhere(profile: Profile, collection: Collection) -> Iterator[Rehearsed]:
    from ..config.run import TRANSFERRED
    from ..data.external import open_other
    from ..data.phantom.elsewhere import write_mias_phantom
    from ..inference.transfer import score_baseline, score_network

    root = ROOT / "mini-mias"
    write_mias_phantom(root, n_breasts=FOREIGN_BREASTS, seed=0)
    config = experiment_configs(profile, KEEP_WEIGHTS[0])[0]
    run = _run_of(config, collection)
    if not run.is_finished:
        yield Rehearsed("mini-MIAS", "not run", reason=f"{config.experiment} is not trained")
        return
    other = open_other(root)
    yield try_step("mini-MIAS, network", partial(score_network, run, other, collection, progress=True))
    for name in TRANSFERRED:
        yield try_step(f"mini-MIAS, {name}", partial(score_baseline, name, config, other, collection))


def _chapters(profile: Profile, collection: Collection, hashes: dict[str, str], jobs: int) -> Iterator[Rehearsed]:
    if profile.phantom_breasts is None and profile.run.data.fold != "each":
        os.environ["MAMMO_DATA"] = str(collection.root)  # the kernels inherit it
    if jobs > 1:
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // jobs)))
    steps = plan(profile, collection.root, data_hash=hashes)
    head, outcomes = summary.start_summary(profile, hashes, {}), []
    for outcomes in run_chapters(steps, profile, head, jobs, keeps_going=True):
        yield _of_chapter(outcomes[-1])
    built = try_step("book", pages.build_book)
    yield built
    if built.outcome == "done" and all(outcome.error is None for outcome in outcomes):
        book = BUILD / "html" / "index.html"
        summary.write_summary(head, steps, outcomes, book)
        yield try_step("RO-Crate", partial(summary.describe_as_crate, profile, steps, book))


def _of_chapter(outcome: StepOutcome) -> Rehearsed:
    step = f"chapter {outcome.step.source.stem}"
    if outcome.error:
        return Rehearsed(step, "failed", outcome.seconds, str(outcome.error))
    return Rehearsed(step, "finished before" if outcome.status == "up to date" else "done", outcome.seconds)


def _run_of(config: RunConfig, collection: Collection) -> Run:
    return fresh_run(config, collection.data_hash("train", *config.inputs))


def _needed(configs: Iterable[RunConfig]) -> list[str]:
    """Return the backbones whose official checkpoints the networks start from."""
    needed = (one.model.backbone for one in configs if one.model.weights == "official" and not one.baseline)
    return [*dict.fromkeys(needed)]


def _renew(source: Path, target: Path) -> None:
    """Make a folder a copy of another, but keep what the rehearsal has made in it."""
    for path in target.iterdir() if target.is_dir() else ():
        if not (target.name == "book" and path.name in MADE):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    made = (lambda folder, _: MADE if Path(folder) == source else ()) if source.name == "book" else None
    shutil.copytree(source, target, ignore=made, dirs_exist_ok=True)


def _write_profile(profile: Profile, folder: Path) -> None:
    fields = profile.model_dump(mode="json", exclude={"name"})
    (folder / f"{profile.name}.yaml").write_text(yaml.safe_dump(fields, sort_keys=False), encoding="utf-8")


def _put_banner(path: Path) -> None:
    """Put the banner below the title of a notebook."""
    notebook = read_json(path)
    source = f":::{{admonition}} Rehearsal\n:class: warning\n{BANNER}\n:::"
    banner = {"cell_type": "markdown", "id": "rehearsal", "metadata": {}, "source": source}
    notebook["cells"].insert(1, banner)
    path.write_text(json.dumps(notebook, indent=1) + "\n", encoding="utf-8")


def _name_random_weights(path: Path, profile: Profile) -> None:
    """Enter the rehearsal's random checkpoints, under names of their own, in its list of official ones."""
    record = read_json(path)
    for backbone in _needed(experiment_configs(profile, "all")):
        official = record.get(backbone, {}).get("file", f"{backbone}.safetensors")
        record[backbone] = {"repository": "", "file": f"random-{official}", "licence": "none", "sha256": None}
    write_json(path, record)
