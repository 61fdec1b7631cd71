"""One source of dependencies, one install line, notebooks without outputs; the wheel works where no checkout is."""

import json
import os
import re
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import venv
from functools import partial
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from mammo_lib.runs.records import file_hash

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def pins():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pairs = [line.split("==") for line in lines if "==" in line and not line.startswith("#")]
    return {canonicalize_name(name): version.strip() for name, version in pairs}


@pytest.mark.parametrize("extra", [None, "book", "dev", "data", "cluster"])
def test_every_direct_dependency_is_pinned_within_its_range(extra):
    lines = PROJECT["dependencies"] if extra is None else PROJECT["optional-dependencies"][extra]
    for requirement in map(Requirement, lines):
        assert requirement.specifier.contains(pins()[canonicalize_name(requirement.name)]), requirement


def test_make_and_conda_install_the_same_line():
    makefile, environment = (ROOT / "Makefile").read_text(), (ROOT / "environment.yml").read_text()
    installed = re.search(r"--constraint (\S+) --editable '(\S+)'", makefile).groups()
    assert f"- --constraint {installed[0]}\n" in environment
    assert f"- --editable {installed[1]}\n" in environment


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_are_clean_and_parametrised(path):
    notebook = json.loads(path.read_text(encoding="utf-8"))
    assert notebook["metadata"]["kernelspec"]["name"] == "python3"
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)
    [parameters] = [cell for cell in code if "parameters" in cell["metadata"].get("tags", [])]
    lines = "".join(parameters["source"]).splitlines()
    assert all("#" in line for line in lines), "each parameter says what it is for"
    assert any(line.startswith("profile = ") for line in lines)


def test_every_notebook_is_in_the_table_of_contents():
    toc = (ROOT / "book" / "_toc.yml").read_text()
    assert [f"notebooks/{path.stem}" for path in NOTEBOOKS] == re.findall(r"notebooks/\S+", toc)


def test_pre_commit_runs_the_pinned_versions():
    hooks = {
        Path(repo["repo"]).name: repo
        for repo in yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    }
    assert hooks["nbstripout"]["rev"] == pins()["nbstripout"]
    assert hooks["ruff-pre-commit"]["rev"] == f"v{pins()['ruff']}"
    [size] = [hook for hook in hooks["pre-commit-hooks"]["hooks"] if hook["id"] == "check-added-large-files"]
    assert size["args"] == ["--maxkb=1024"]


def test_newer_pythons_are_not_excluded():
    allowed = SpecifierSet(PROJECT["requires-python"])
    assert [version for version in ("3.10", "3.11", "3.12", "3.13") if allowed.contains(version)] == [
        "3.11",
        "3.12",
        "3.13",
    ]


def test_nothing_that_only_linux_has():
    """The CPU path runs on Windows and macOS: no fork, no /proc, no POSIX-only module, no path glued with slashes."""
    words = re.compile(
        r"os\.fork|[\"']/proc|[\"']/dev/|os\.sched_|^\s*(?:import|from) (?:fcntl|resource|pwd|grp|termios)\b", re.M
    )
    sources = {path: words.findall(path.read_text(encoding="utf-8")) for path in (ROOT / "mammo_lib").rglob("*.py")}
    assert {path.name: found for path, found in sources.items() if found} == {}


@pytest.fixture(scope="module")
def distributions(tmp_path_factory):
    """The sdist, and the wheel built from it, as `python -m build` makes them; without a network."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True, text=True)
    return folder


@pytest.fixture(scope="module")
def clean_python(distributions, tmp_path_factory):
    """A clean environment with nothing of ours but the wheel; its dependencies are borrowed from this one."""
    builder = venv.EnvBuilder(with_pip=False)
    home = tmp_path_factory.mktemp("clean") / "venv"
    builder.create(home)
    python = builder.ensure_directories(home).env_exe
    [wheel] = distributions.glob("*.whl")
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index", "--quiet"]
    subprocess.run([*pip, str(wheel)], check=True, capture_output=True, text=True)
    where = "import sysconfig; print(sysconfig.get_path('purelib'))"
    site = subprocess.run([python, "-c", where], check=True, capture_output=True, text=True).stdout.strip()
    (Path(site) / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return python


def call(program, *arguments, cwd):
    """Run a program of the clean environment in a folder that is no checkout."""
    env = {key: value for key, value in os.environ.items() if not key.startswith(("MAMMO_", "PYTHON"))}
    return subprocess.run([program, *map(str, arguments)], capture_output=True, text=True, cwd=cwd, env=env)


@pytest.mark.slow
def test_the_sdist_is_a_whole_checkout(distributions):
    [sdist] = distributions.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"Makefile", "constraints.txt", "_config.yml", "book/_toc.yml", "data_manifest/cbis_ddsm.json"} <= names
    assert {f"notebooks/{path.name}" for path in NOTEBOOKS} <= names
    assert not [name for name in names if name.startswith(("_build/", ".venv/")) or "__pycache__" in name]


@pytest.mark.slow
def test_the_wheel_works_outside_a_checkout(clean_python, tmp_path):
    mammo = partial(call, Path(clean_python).with_name("mammo"), cwd=tmp_path)
    for command in ([], ["data"], ["run"], ["evaluate"], ["reproduce"]):
        assert mammo(*command, "--help").returncode == 0
    assert mammo("data", "phantom", "data", "--breasts", 24).returncode == 0
    audit = mammo("data", "audit", "--data", "data")
    assert audit.returncode == 0, audit.stdout + audit.stderr
    config = {
        "experiment": "wheel", "data": {"image_size": 32, "n_folds": 2},
        "model": {"backbone": "nano"}, "train": {"epochs": 1, "batch_size": 4},
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(config))
    run = mammo("run", "config.json", "--profile", "paper", "--data", "data")
    assert run.returncode == 0, run.stderr
    [record] = (tmp_path / "_build/runs/wheel").glob("*/environment.json")
    assert json.loads(record.read_text())["protocol_hash"] == file_hash(ROOT / "book/protocol.md")
    closed = mammo("evaluate", "--profile", "paper", "--data", "data")
    assert (closed.returncode, "the test set stays closed" in closed.stderr) == (2, True), closed.stderr
    assert "no notebooks; run this in a checkout" in mammo("reproduce").stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    "name, path",
    [
        ("mammo_lib.data.cbis_ddsm.audit.MANIFEST", "data_manifest/cbis_ddsm.json"),
        ("mammo_lib.data.cbis_ddsm.fetch.SERIES", "data_manifest/cbis_ddsm_series.csv.gz"),
        ("mammo_lib.models.weights.RECORD", "data_manifest/weights.json"),
        ("mammo_lib.runs.experiments.FROZEN", "book/experiments.json"),
        ("mammo_lib.runs.records.PROTOCOL", "book/protocol.md"),
    ],
)
def test_what_the_code_reads_travels_with_the_wheel(clean_python, tmp_path, name, path):
    module, _, attribute = name.rpartition(".")
    done = call(clean_python, "-c", f"from {module} import {attribute}; print({attribute})", cwd=tmp_path)
    found = Path(done.stdout.strip())
    assert not found.is_relative_to(ROOT)
    assert found.read_bytes() == (ROOT / path).read_bytes()
