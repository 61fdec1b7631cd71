"""One source of dependencies, one install line, notebooks without outputs; the wheel works where no checkout is."""

import ast
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import venv
from functools import partial
from importlib.metadata import packages_distributions
from itertools import pairwise
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from mammo_lib.files import file_hash

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
TREES = {path: ast.parse(path.read_text(encoding="utf-8")) for path in sorted((ROOT / "mammo_lib").rglob("*.py"))}


def pins():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pairs = [line.split("==") for line in lines if "==" in line and not line.startswith("#")]
    return {canonicalize_name(name): version.strip() for name, version in pairs}


@pytest.mark.parametrize("extra", [None, "book", "dev", "data", "cloud", "cluster"])
def test_every_direct_dependency_is_pinned_within_its_range(extra):
    lines = PROJECT["dependencies"] if extra is None else PROJECT["optional-dependencies"][extra]
    for requirement in map(Requirement, lines):
        assert requirement.specifier.contains(pins()[canonicalize_name(requirement.name)]), requirement


def test_what_the_library_imports_is_declared():
    """Also what only one function needs: a package that another one happens to bring may be gone tomorrow."""
    lines = [*PROJECT["dependencies"], *(line for extra in PROJECT["optional-dependencies"].values() for line in extra)]
    declared = {canonicalize_name(Requirement(line).name) for line in lines}
    names = {name.partition(".")[0] for tree in TREES.values() for name in imported_names(tree)}
    foreign = names - {"mammo_lib", *sys.stdlib_module_names}
    installed = packages_distributions()
    unknown = {name for name in foreign if not declared & set(map(canonicalize_name, installed.get(name, [name])))}
    assert unknown == set()


def imported_names(tree: ast.Module) -> list[str]:
    found = []
    for node in ast.walk(tree):
        found += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        found += [node.module] if isinstance(node, ast.ImportFrom) and not node.level else []
    return found


def test_make_and_conda_install_the_same_line():
    makefile, environment = (ROOT / "Makefile").read_text(), (ROOT / "environment.yml").read_text()
    [(constraints, project)] = re.findall(r"--constraint (\S+) --editable '(\S+)'", makefile)
    assert f"- --constraint {constraints}\n" in environment
    assert f"- --editable {project}\n" in environment


def test_conda_gives_the_python_that_the_project_needs_and_leaves_the_rest_to_pip():
    """Each name that conda and pip both installed would come in two versions."""
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    *conda, pip = environment["dependencies"]
    python, installer = map(Requirement, (re.sub(r"(?<![=<>])=(?!=)", "==", line) for line in conda))
    assert (python.name, installer.name, [*pip]) == ("python", "pip", ["pip"])
    [version] = [one.version for one in python.specifier]
    assert SpecifierSet(PROJECT["requires-python"]).contains(version)
    [extras] = [
        Requirement(f"x{line.partition('.')[2]}").extras for line in pip["pip"] if line.startswith("--editable")
    ]
    assert extras <= set(PROJECT["optional-dependencies"])
    [constraints] = [line.split()[1] for line in pip["pip"] if line.startswith("--constraint")]
    assert (ROOT / constraints).is_file() and environment["name"] in (ROOT / "README.md").read_text()


@pytest.mark.skipif(shutil.which("make") is None, reason="no make")
@pytest.mark.parametrize(
    "given, options",
    [
        ([], ""),
        (["PROFILE=mirror"], "--profile mirror"),
        (["DATA=/my films", "JOBS=2"], "--jobs 2 --data '/my films'"),
    ],
)
def test_make_passes_on_what_it_was_given_and_nothing_else(given, options):
    env = {key: value for key, value in os.environ.items() if key not in ("DATA", "PROFILE", "JOBS")}
    command = ["make", "--no-print-directory", "-n", "reproduce", *given]  # also where make itself runs the tests
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
    assert shlex.split(done.stdout.splitlines()[-1])[1:] == ["reproduce", *shlex.split(options)]


@pytest.mark.skipif(shutil.which("make") is None, reason="no make")
@pytest.mark.parametrize(
    "given, pip, backend",
    [
        ({}, "", ["cpu"]),
        ({}, "find-links", []),
        ({}, "index-url", []),
        ({}, "extra-index-url", []),
        ({"PIP_INDEX_URL": "https://mirror.example/simple"}, "", []),
        ({"UV_DEFAULT_INDEX": "https://mirror.example/simple"}, "", []),
        ({"UV_TORCH_BACKEND": "cu128"}, "", ["cu128"]),
        ({"UV_TORCH_BACKEND": "auto"}, "find-links", ["auto"]),
    ],
)
def test_make_takes_the_cpu_build_of_torch_unless_another_source_or_build_is_named(given, pip, backend, tmp_path):
    """A build of torch comes from download.pytorch.org, which a machine with an index of its own may not reach."""
    python = tmp_path / "python"  # knows one setting of pip's configuration
    python.write_text(f'#!/bin/sh\n[ "$*" = "-m pip config get global.{pip}" ] && echo /of/our/own\n')
    python.chmod(0o755)
    env = {key: value for key, value in os.environ.items() if not key.startswith(("PIP_", "UV_"))} | given
    command = ["make", "--no-print-directory", "-n", f"{tmp_path}/.ready", f"VENV={tmp_path}", f"PYTHON={python}"]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
    [line] = [line for line in done.stdout.splitlines() if " pip install --quiet --python " in line]
    assert re.findall(r"--torch-backend (\S+)", line) == backend


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


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_chapter_can_be_read_in_one_sitting(path):
    """10 to 25 cells, and no code cell, shown or hidden, is longer than 15 lines."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    assert 10 <= len(cells) <= 25
    lengths = {cell["id"]: len("".join(cell["source"]).splitlines()) for cell in cells if cell["cell_type"] == "code"}
    assert {name: length for name, length in lengths.items() if length > 15} == {}


def test_every_notebook_is_in_the_table_of_contents():
    toc = (ROOT / "book" / "_toc.yml").read_text()
    assert [f"notebooks/{path.stem}" for path in NOTEBOOKS] == re.findall(r"notebooks/\S+", toc)


def test_a_chapter_leads_to_the_one_after_it():
    """By its last link; the last chapters lead back."""
    for path, after in pairwise(NOTEBOOKS[:-1]):
        last = "".join(json.loads(path.read_text(encoding="utf-8"))["cells"][-1]["source"])
        assert re.findall(r"Next: \[[^]]+\]\((\S+)\)", last) == [after.name], path.name


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
    assert {str(path): hits for path in TREES if (hits := words.findall(path.read_text(encoding="utf-8")))} == {}
    assert {str(path): glued for path, tree in TREES.items() if (glued := glued_paths(tree))} == {}


PATHS = re.compile(r"(?:^|_)(?:root|path|folder|home|dir|directory|parent|cache|build|material)$", re.I)


def glued_paths(tree: ast.AST) -> list[str]:
    """Return the expressions that put a slash behind a path, or take a path's text apart at slashes.

    A path is told by its name: ``root``, ``run.folder``, ``BUILD``. A slash between names that are not paths
    (``run.folder.name``, ``case``) is text: the tables of CBIS-DDSM have such, and pathlib reads it on any system.
    """
    return [ast.unparse(node) for node in ast.walk(tree) if _glues(node)]


def _glues(node: ast.AST) -> bool:
    match node:
        case ast.JoinedStr(values=values):
            return any(_is_path(one) and _text(other).startswith("/") for one, other in pairwise(values))
        case ast.BinOp(op=ast.Add(), left=left, right=right):
            return _is_path(left) and _text(right).startswith("/")
        case ast.BinOp(op=ast.Mod(), left=ast.Constant(value=str(text)), right=right):
            values = right.elts if isinstance(right, ast.Tuple) else [right]
            return "/" in text and any(map(_is_path, values))
        case ast.Call(func=ast.Attribute(value=ast.Constant(value="/"), attr="join"), args=[ast.List(elts=values)]):
            return any(map(_is_path, values))
        case ast.Call(func=ast.Attribute(value=ast.Call(func=ast.Name(id="str")) as text), args=[first, *_]):
            return _is_path(text) and "/" in _text(first)
    return False


def _is_path(node: ast.AST) -> bool:
    match node:
        case ast.FormattedValue(value=value) | ast.Call(func=ast.Name(id="str" | "Path"), args=[value]):
            return _is_path(value)
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return PATHS.search(name) is not None
        case ast.BinOp(op=ast.Div()):
            return True
    return False


def _text(node: ast.AST) -> str:
    """Return the text at the start of a string, literal or formatted; nothing for other expressions."""
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values=[first, *_]):
            return _text(first)
    return ""


@pytest.mark.parametrize(
    "source, is_glued",
    [
        ('f"{root}/tables"', True),
        ('f"{run.folder}/x.json"', True),
        ('f"{root / name}/x"', True),
        ('str(root) + "/x"', True),
        ('"%s/x" % path', True),
        ('"/".join([str(folder), name])', True),
        ('str(path).split("/")', True),
        ('f"{run.folder.parent.name}/{run.folder.name}"', False),
        ('f"{case}/{uid}.dcm"', False),
        ('f"{done}/{total}"', False),
        ('f"{path}: no such file; a/b"', False),
        ('root / "a/b"', False),
    ],
)
def test_a_glued_path_is_found(source, is_glued):
    assert bool(glued_paths(ast.parse(source))) == is_glued


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
    assert {"uv.lock", "Dockerfile", "codemeta.json", ".zenodo.json", "paper.md", "CITATION.cff"} <= names
    assert {"Makefile", "constraints.txt", "_config.yml", "book/_toc.yml", "data_manifest/cbis_ddsm.json"} <= names
    assert {f"notebooks/{path.name}" for path in NOTEBOOKS} <= names
    assert not [name for name in names if name.startswith(("_build/", ".venv/")) or "__pycache__" in name]


def installed_files(python) -> dict[str, str]:
    """Return the hash of every file of the installed library, compiled code excepted."""
    where = "import mammo_lib, pathlib; print(pathlib.Path(mammo_lib.__file__).parent)"
    home = Path(call(python, "-c", where, cwd=Path(python).parent).stdout.strip())
    assert not home.is_relative_to(ROOT)
    files = (path for path in home.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {path.relative_to(home).as_posix(): file_hash(path) for path in files}


@pytest.mark.slow
def test_the_wheel_works_outside_a_checkout(clean_python, tmp_path):
    mammo, before = partial(call, Path(clean_python).with_name("mammo"), cwd=tmp_path), installed_files(clean_python)
    for command in ([], ["data"], ["run"], ["evaluate"], ["reproduce"], ["results"], ["verify"]):
        assert mammo(*command, "--help").returncode == 0
    shown, listed = mammo("config", "--profile", "paper"), mammo("list", "--profile", "paper")
    assert (shown.returncode, listed.returncode) == (0, 0), shown.stderr + listed.stderr
    assert "backbone: L " in shown.stdout
    assert {"smoke", "mirror", "paper", "dual_stream", "isolation"} <= set(re.split(r"[\s,]+", listed.stdout))
    assert mammo("data", "phantom", "data", "--breasts", 24).returncode == 0
    audit = mammo("data", "audit", "--data", "data")
    assert audit.returncode == 0, audit.stdout + audit.stderr
    changes = [
        "experiment=wheel", "data.image_size=32", "data.n_folds=2", "model.backbone=nano", "model.weights=null",
        "train.epochs=1", "train.batch_size=4",
    ]  # fmt: skip
    config = mammo("config", "--profile", "paper", *(word for change in changes for word in ("--set", change)))
    (tmp_path / "wheel.yaml").write_text(config.stdout)
    run = mammo("run", "wheel.yaml", "--profile", "paper", "--data", "data")
    assert run.returncode == 0, run.stderr
    [record] = (tmp_path / "_build/runs/wheel").glob("*/environment.json")
    assert json.loads(record.read_text())["protocol_hash"] == file_hash(ROOT / "book/protocol.md")
    verified = mammo("verify", "--records", "_build/runs", "--profile", "paper", "--data", "data")
    assert (verified.returncode, "bitwise" in verified.stdout) == (0, True), verified.stdout + verified.stderr
    exported = mammo("results", "export", "out", "--records", "_build/runs")
    assert (exported.returncode, exported.stdout) == (0, "1 records: out\n"), exported.stderr
    closed = mammo("evaluate", "--profile", "paper", "--data", "data")
    assert (closed.returncode, "the test set stays closed" in closed.stderr) == (2, True), closed.stderr
    assert "no notebooks; run this in a checkout" in mammo("reproduce").stderr
    assert installed_files(clean_python) == before


@pytest.mark.slow
def test_what_the_code_reads_travels_with_the_wheel(clean_python, tmp_path):
    held = {
        "mammo_lib.data.cbis_ddsm.audit.MANIFEST": "data_manifest/cbis_ddsm.json",
        "mammo_lib.data.cbis_ddsm.fetch.SERIES": "data_manifest/cbis_ddsm_series.csv.gz",
        "mammo_lib.config.checkpoints.OFFICIAL": "data_manifest/weights.json",
        "mammo_lib.runs.experiments.FROZEN": "book/experiments.json",
        "mammo_lib.runs.protocols.PROTOCOL_2": "book/protocol-2.md",
        "mammo_lib.runs.protocols.PROTOCOL_3": "book/protocol-3.md",
        "mammo_lib.runs.protocols.PROTOCOL_4": "book/protocol-4.md",
        "mammo_lib.runs.protocols.PROTOCOL_5": "book/protocol-5.md",
        "mammo_lib.runs.protocols.PROTOCOL_6": "book/protocol-6.md",
        "mammo_lib.runs.protocols.PROTOCOL_7": "book/protocol-7.md",
        "mammo_lib.runs.protocols.PROTOCOL_8": "book/protocol-8.md",
        "mammo_lib.runs.protocols.PROTOCOL_9": "book/protocol-9.md",
        "mammo_lib.runs.protocols.PROTOCOL_10": "book/protocol-10.md",
        "mammo_lib.runs.protocols.PROTOCOL_11": "book/protocol-11.md",
        "mammo_lib.runs.protocols.PROTOCOL_EXTERNAL": "book/protocol-external.md",
        "mammo_lib.runs.protocols.PROTOCOL": "book/protocol.md",
        "mammo_lib.analysis.published.PUBLISHED": "book/published.csv",
        "mammo_lib.config.profiles.PROFILES": "book/profiles",
    }
    before = installed_files(clean_python)
    code = "import json, pydoc, sys; print(json.dumps([str(pydoc.locate(name)) for name in sys.argv[1:]]))"
    done = call(clean_python, "-c", code, *held, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for found, source in zip(map(Path, json.loads(done.stdout)), (ROOT / path for path in held.values()), strict=True):
        assert not found.is_relative_to(ROOT)
        assert contents(found) == contents(source)
    rows = call(clean_python, "-c", "from mammo_lib.analysis.published import read_published as r; print(len(r()))",
                cwd=tmp_path)  # fmt: skip
    assert (rows.returncode, int(rows.stdout or 0) > 5) == (0, True), rows.stderr
    assert installed_files(clean_python) == before
    assert list(tmp_path.iterdir()) == []


def contents(path: Path) -> dict[str, bytes]:
    """Return the bytes of a file, or of each file in a folder, by name."""
    files = [path] if path.is_file() else [one for one in path.iterdir() if one.is_file()]
    return {one.name: one.read_bytes() for one in files}
