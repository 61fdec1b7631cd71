"""Killed at random moments, again and again: the files are those of an undisturbed run, and no process remains.

The moments are seeded, but what a process does at a moment depends on the machine. The table of counts is printed:
``pytest -m slow tests/fuzz/test_kills.py``.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mammo_lib.config import ROOT
from mammo_lib.files import file_hash

pytestmark = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="counts processes in /proc")

MARK = "KILL_SUITE"  # an environment variable that everything inherits which a killed command had started
PATIENCE_S = 15  # within which what a killed command had started must have ended
PROFILE = {
    "run": {
        "data": {"image_size": 32, "n_folds": 2},
        "model": {"backbone": "nano", "gate": "random"},
        "train": {"epochs": 5, "batch_size": 2, "learning_rate": 1e-3, "patience": 5, "dropout": 0.2,
                  "drop_path": 0.1, "augment": 1.0, "ema_decay": 0.9},
    }
}  # fmt: skip
EXPERIMENTS = {"dual_stream": {"question": "?", "overrides": {}},
               "baseline_birads": {"question": "?", "overrides": {"baseline": "birads"}}}  # fmt: skip


def files_of(folder: Path) -> dict[str, str]:
    """Return the hash of every file, hidden ones left out: they are what a kill left half written."""
    paths = [path for path in folder.rglob("*") if path.is_file() and not path.name.startswith(".")]
    return {str(path.relative_to(folder)): file_hash(path) for path in paths}


def phantom_in(root: Path) -> dict[str, str]:
    assert list(root.glob(".phantom*")) == []
    return files_of(root / "phantom")


def pixels_of(root: Path) -> dict[str, str]:
    return {name: content for name, content in files_of(root / "_build").items() if name.endswith(".npy")}


def records_of(root: Path) -> dict[str, object]:
    """Return what the records say, but for times: of the epochs, and of the opening."""
    found: dict[str, object] = {}
    for folder in sorted(root.glob("_build/runs/*/*")):
        files = files_of(folder)
        timed = {"history.csv", "environment.json", "manifest.json", "receipt.json", "best.ckpt", "last.ckpt"}
        found |= {f"{folder.name}/{name}": content for name, content in files.items() if name not in timed}
        if "history.csv" in files:
            history = pd.read_csv(folder / "history.csv").drop(columns="seconds")
            found[f"{folder.name}/history"] = history.to_csv(index=False)
    return found


def chapter_of(root: Path) -> dict[str, object]:
    """Return what the cells of the executed chapter show, but for addresses and the random names of tables."""
    (chapter,) = root.glob("book/notebooks/00_*.ipynb")
    text = re.sub(r"0x[0-9a-f]{6,}|T_[0-9a-f]{5}", "", chapter.read_text("utf-8"))
    cells = json.loads(text)["cells"]
    return {str(number): [cell["source"], cell.get("outputs")] for number, cell in enumerate(cells)}


@dataclass(frozen=True)
class Work:
    """A command, and what it must leave behind; before it, its folder holds a phantom, and ``needs`` was run there."""

    name: str
    command: tuple[str, ...]
    results: Callable[[Path], dict]
    needs: tuple[tuple[str, ...], ...] = ()
    reads_phantom: bool = False


PHANTOM = ("data", "phantom", "phantom", "--breasts", "12")
REAL = ("--profile", "profile.json", "--data", "phantom")
PREPARE = ("data", "prepare", *REAL, "--workers", "2")
TRAIN = ("run", "--experiment", "all", *REAL)
WORKS = {
    "phantom": Work("phantom", PHANTOM, phantom_in),
    "prepare": Work("prepare, 2 workers", PREPARE, pixels_of, reads_phantom=True),
    "run": Work("run", ("run", "--experiment", "dual_stream", *REAL), records_of, reads_phantom=True),
    "evaluate": Work("evaluate", ("evaluate", *REAL), records_of, (PREPARE, TRAIN), True),
    "reproduce": Work(
        "reproduce, 1 chapter", ("reproduce", "--only", "00", "--profile", "smoke", "--jobs", "1"), chapter_of
    ),
}


@dataclass
class Counts:
    """What came of the kills of one command."""

    name: str
    kills: int = 0
    ended_before: int = 0
    compared: int = 0
    files: int = 0
    left: list[int] = field(default_factory=list)


@pytest.fixture(scope="module")
def table(request):
    """Print the counts when all is over."""
    rows: list[Counts] = []
    yield rows
    head = f"\n{'command':<22}{'kills':>7}{'ended before':>14}{'compared':>10}{'files':>7}{'processes left':>16}"
    lines = [
        f"{one.name:<22}{one.kills:>7}{one.ended_before:>14}{one.compared:>10}{one.files:>7}{len(one.left):>16}"
        for one in rows
    ]
    with request.config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        print(head, *lines, sep="\n")


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A project of its own, whose book is one chapter."""
    root = tmp_path_factory.mktemp("project")
    for name in ("benchmarks", "book", "data_manifest", "notebooks", "released", "sample"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("_build", ".*"))
    shutil.rmtree(root / "book" / "notebooks", ignore_errors=True)
    for name in ("_config.yml", "pyproject.toml"):
        shutil.copy(ROOT / name, root)
    (root / "book" / "_toc.yml").write_text(
        "format: jb-book\nroot: intro\nchapters:\n- file: notebooks/00_the_paper_and_its_numbers\n"
    )
    (root / "profile.json").write_text(json.dumps(PROFILE))
    return root


def start(command: tuple[str, ...], root: Path, mark: str) -> subprocess.Popen:
    env = {key: value for key, value in os.environ.items() if not key.startswith("MAMMO_")}
    env |= {"MAMMO_ROOT": str(root), MARK: mark, "PYTHONPATH": str(ROOT)}
    with open(root / "stderr", "w") as stderr:
        line = [sys.executable, "-m", "mammo_lib.cli", *command]
        return subprocess.Popen(line, cwd=root, env=env, stdout=subprocess.DEVNULL, stderr=stderr)


def finish(command: tuple[str, ...], root: Path, mark: str = "") -> float:
    """Run a command to its end; return the seconds it took."""
    started = time.monotonic()
    assert start(command, root, mark).wait(timeout=500) == 0, (root / "stderr").read_text()[-2000:]
    return time.monotonic() - started


def left_behind(mark: str) -> list[int]:
    """Return the processes with this mark that still live when the patience is over."""
    ends, found = time.monotonic() + PATIENCE_S, [0]
    while found and time.monotonic() < ends:
        found = [int(path.parent.name) for path in Path("/proc").glob("[0-9]*/environ") if is_marked(path, mark)]
        time.sleep(0.2 if found else 0)
    return found


def is_marked(environ: Path, mark: str) -> bool:
    try:
        return f"{MARK}={mark}".encode() in environ.read_bytes().split(b"\0")
    except OSError:  # it has ended, or it is somebody else's
        return False


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "kills"), {"phantom": 17, "prepare": 16, "run": 13, "evaluate": 10, "reproduce": 4}.items()
)
def test_kills_change_nothing_and_leave_nothing(name, kills, project, phantom_of, table, tmp_path):
    work, rng, mark = WORKS[name], np.random.default_rng([kills, len(name)]), uuid.uuid4().hex
    if name == "evaluate":
        (project / "book" / "experiments.json").write_text(json.dumps({"experiments": EXPERIMENTS}))
    before, undisturbed, root = tmp_path / "before", tmp_path / "undisturbed", tmp_path / "killed"
    shutil.copytree(project, before)
    if work.reads_phantom:
        shutil.copytree(phantom_of(), before / "phantom")
    for command in work.needs:
        finish(command, before)
    shutil.copytree(before, undisturbed)
    seconds, wanted = finish(work.command, undisturbed), work.results(undisturbed)
    assert wanted
    counts = Counts(work.name, files=len(wanted))
    table.append(counts)
    while counts.kills < kills:
        if not root.exists():
            shutil.copytree(before, root)
        process = start(work.command, root, mark)
        try:
            process.wait(timeout=rng.uniform(0.3, 1.0) * seconds)
            counts.ended_before += 1
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            counts.kills += 1
        counts.left += left_behind(mark)
        if process.returncode == 0 or counts.kills == kills or rng.uniform() < 0.3:
            finish(work.command, root, mark)
            assert work.results(root) == wanted
            counts.left += left_behind(mark)
            counts.compared += 1
            shutil.rmtree(root)
    assert counts.left == []
