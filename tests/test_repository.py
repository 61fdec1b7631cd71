"""The files around the package agree with it: lock file, metadata, workflows, container."""

import importlib.util
import json
import re
import shlex
import subprocess
import tomllib
from collections import defaultdict
from pathlib import Path

import pytest
import typer
import yaml
from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from mammo_lib import __version__
from mammo_lib.cli import app

ROOT = Path(__file__).resolve().parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
MAKE = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))
PROGRAMS = {"uv", "uvx", "make", "mammo", "python", "tar", "test", "gh"}


def constraints() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pairs = [line.split("==") for line in lines if "==" in line and not line.startswith("#")]
    return {canonicalize_name(name): version.strip() for name, version in pairs}


def locked() -> dict[str, set[str]]:
    """Return the locked versions of every package: more than one where systems differ."""
    found = defaultdict(set)
    for package in tomllib.loads((ROOT / "uv.lock").read_text(encoding="utf-8"))["package"]:
        if "version" in package:
            found[package["name"]].add(package["version"])
    return found


def test_the_lock_holds_the_versions_of_the_constraints():
    lock = locked()
    both = {name: version for name, version in constraints().items() if name in lock}
    assert len(both) > 150
    assert {name: (version, lock[name]) for name, version in both.items() if lock[name] != {version}} == {}


def test_the_lock_is_of_the_dependencies_that_are_declared():
    """As `uv lock --check`, which asks the index, would say."""
    [own] = [one for one in tomllib.loads((ROOT / "uv.lock").read_text())["package"] if one["name"] == "mammo-lib"]
    declared = {None: PYPROJECT["project"]["dependencies"]} | PYPROJECT["project"]["optional-dependencies"]
    wanted = {
        (canonicalize_name(one.name), str(one.specifier), extra)
        for extra, lines in declared.items() for one in map(Requirement, lines)
    }  # fmt: skip
    found = {(one["name"], str(Requirement(f"x{one.get('specifier', '')}").specifier), _extra(one))
             for one in own["metadata"]["requires-dist"]}  # fmt: skip
    assert found == wanted


def _extra(requirement: dict) -> str | None:
    found = re.search(r"extra == '(\w+)'", requirement.get("marker", ""))
    return found and found[1]


def test_what_only_another_system_needs_is_all_that_the_constraints_lack():
    """A package of every system without a pin would come in any version."""
    lock = tomllib.loads((ROOT / "uv.lock").read_text(encoding="utf-8"))["package"]
    packages, seen = {one["name"]: one for one in lock}, set()
    environment = {"sys_platform": "linux", "platform_system": "Linux", "platform_machine": "x86_64",
                   "python_full_version": "3.11.7", "python_version": "3.11", "implementation_name": "cpython",
                   "platform_python_implementation": "CPython", "os_name": "posix"}  # fmt: skip
    own = packages["mammo-lib"]
    waiting = [*own["dependencies"], *own["optional-dependencies"]["book"], *own["optional-dependencies"]["dev"]]
    while waiting:
        one = waiting.pop()
        if one["name"] in seen or ("marker" in one and not Marker(one["marker"]).evaluate(environment)):
            continue
        seen.add(one["name"])
        waiting += packages[one["name"]].get("dependencies", [])
    cuda = {name for name in seen if name.startswith(("nvidia-", "cuda-"))}  # of PyPI's torch; the CPU build has none
    assert seen - cuda - set(constraints()) <= {"setuptools"}  # torch's and triton's, which pip brings in any version


def load_metadata():
    spec = importlib.util.spec_from_file_location("metadata", ROOT / ".ci" / "metadata.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["codemeta.json", ".zenodo.json"])
def test_metadata_are_those_of_pyproject_and_citation(name):
    assert json.loads((ROOT / name).read_text(encoding="utf-8")) == load_metadata().FILES[name]()


def test_badges_and_findings_of_the_readme_are_those_of_the_committed_records():
    metadata = load_metadata()
    assert (ROOT / "README.md").read_text(encoding="utf-8") == metadata.readme(), "python .ci/metadata.py"
    tried = {
        name
        for processor, outcomes in json.loads((ROOT / "results" / "verified.json").read_text(encoding="utf-8")).items()
        for name, one in outcomes.items()
        if one["made_on"] in (None, processor)
    }
    assert f"of%20{len(tried)}%20tried" in metadata.badges({})


def test_badges_ask_the_published_book_and_its_workflows_once_there_is_one():
    urls = {"Repository": "https://github.com/a/b/", "Documentation": "https://a.github.io/b/"}
    shown = load_metadata().badges(urls)
    assert "https://img.shields.io/endpoint?url=https%3A%2F%2Fa.github.io%2Fb%2Frecords.json" in shown
    flows = re.findall(r"\(https://github.com/a/b/actions/workflows/(\w+\.yml)\)", shown)
    assert flows == ["tests.yml", "book.yml"] and set(flows) <= {path.name for path in WORKFLOWS}


def test_one_version_one_licence_one_author():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == __version__
    assert citation["license"] == PYPROJECT["project"]["license"]
    assert citation["authors"] == PYPROJECT["project"]["authors"]


def test_the_paper_cites_what_it_names():
    paper = (ROOT / "paper.md").read_text(encoding="utf-8")
    _, head, text = paper.split("---\n", 2)
    head = yaml.safe_load(head)
    entries = re.findall(r"^@\w+\{(\w+),", (ROOT / head["bibliography"]).read_text(encoding="utf-8"), re.M)
    assert set(re.findall(r"@(\w+)", text)) == set(entries)
    for heading in ("Summary", "Statement of need", "References"):
        assert f"\n# {heading}\n" in text
    assert 250 <= len(text.split()) <= 1000  # JOSS asks for 250 to 1000 words
    assert {"title", "tags", "authors", "affiliations", "date", "bibliography"} <= set(head)


def steps_of(path: Path) -> list[str]:
    """Return every command line of a workflow's steps."""
    jobs = yaml.safe_load(path.read_text(encoding="utf-8"))["jobs"]
    blocks = [step["run"] for job in jobs.values() for step in job["steps"] if "run" in step]
    return [line.strip() for block in blocks for line in block.splitlines() if line.strip()]


def lines_of_workflows():
    return [pytest.param(line, id=f"{path.stem}: {line}") for path in WORKFLOWS for line in steps_of(path)]


@pytest.mark.parametrize("line", lines_of_workflows())
def test_every_command_of_the_workflows_exists(line):
    words = shlex.split(line)
    if words[:3] == ["uv", "run", "--no-sync"]:
        words = words[3:]
    name = Path(words[0]).name
    assert name in PROGRAMS | {"ruff", "nbstripout"}
    if name == "make":
        assert words[1] in MAKE
    if name == "mammo":
        command, rest = typer.main.get_command(app), words[1:]
        while hasattr(command, "commands"):
            assert rest[0] in command.commands
            command, rest = command.commands[rest[0]], rest[1:]
        known = {option for parameter in command.params for option in parameter.opts}
        assert {word for word in rest if word.startswith("-")} <= known
    for word in words[1:]:
        if word.endswith(".py") or word in ("constraints.txt", "notebooks/", "tests/"):
            assert (ROOT / word).exists()


def test_workflows_cover_what_they_are_for():
    assert {path.stem for path in WORKFLOWS} == {"tests", "book", "reproduce", "release"}
    commands = " ".join(line for path in WORKFLOWS for line in steps_of(path))
    assert all(f"mammo {name}" in commands for name in ("verify", "results check", "results export"))
    jobs = yaml.safe_load((ROOT / ".github/workflows/tests.yml").read_text())["jobs"]
    assert "make test-slow" in [step.get("run") for step in jobs["slow"]["steps"]]  # at every push, beside the others
    matrix = jobs["tests"]["strategy"]["matrix"]
    assert {name.partition("-")[0] for name in matrix["os"]} == {"ubuntu", "macos", "windows"}
    assert matrix["python"] == ["3.11", "3.12", "3.13"]
    assert all("permissions" in yaml.safe_load(path.read_text()) for path in WORKFLOWS)


def test_no_workflow_keeps_the_token_of_its_checkout():
    """A later step, such as the upload of a folder, could otherwise publish it."""
    jobs = [job for path in WORKFLOWS for job in yaml.safe_load(path.read_text())["jobs"].values()]
    steps = [step for job in jobs for step in job["steps"] if step.get("uses", "").startswith("actions/checkout@")]
    assert len(steps) == 7 and all(step["with"]["persist-credentials"] is False for step in steps)


def test_the_container_is_pinned_and_writes_only_to_its_volume():
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    assert f"astral-sh/uv:{constraints()['uv']} " in text
    assert "--constraint constraints.txt --editable '.[book,dev]'" in text
    env = dict(re.findall(r"(\w+)=(\S+)", " ".join(re.findall(r"^ENV ((?:.*\\\n)*.*)", text, re.M))))
    [volume] = re.findall(r"^VOLUME (\S+)", text, re.M)
    homes = ("HOME", "MAMMO_ROOT", "NUMBA_CACHE_DIR", "XDG_CACHE_HOME", "MPLCONFIGDIR", "IPYTHONDIR")
    assert {name for name in homes if not env[name].startswith(volume)} == set()
    assert re.findall(r"^USER (\d+)", text, re.M)[-1] != "0"
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").split()
    assert {".git", ".venv", "_build"} <= set(ignored)


def test_binder_installs_the_pinned_versions():
    folder = ROOT / ".binder"
    lines = (folder / "requirements.txt").read_text(encoding="utf-8").splitlines()
    [pins] = [line.split()[1] for line in lines if line.startswith("--constraint")]
    assert (folder / pins).resolve() == ROOT / "constraints.txt"
    assert "--editable .[book]" in lines


def test_no_benchmark_hides_a_package():
    """A script's folder comes first on Python's path: a neighbour named like a package would be imported instead."""
    from importlib.util import find_spec

    scripts = [path.stem for path in (ROOT / "benchmarks").glob("*.py")]
    assert [name for name in scripts if find_spec(name) is not None] == []


def test_chapters_are_numbered_in_the_contents_as_in_their_files():
    toc = yaml.safe_load((ROOT / "book" / "_toc.yml").read_text(encoding="utf-8"))
    listed = {one["file"].removeprefix("notebooks/"): one.get("title") for one in toc["parts"][0]["chapters"]}
    expected = {}
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        first = "".join(json.loads(path.read_text(encoding="utf-8"))["cells"][0]["source"]).splitlines()[0]
        expected[path.stem] = f"{path.stem.split('_')[0]} {first.removeprefix('# ')}"
    assert listed == expected and [*listed] == [*expected]


def test_files_above_the_limit_of_pre_commit_are_exempt_by_name():
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    [hook] = [one for repo in config["repos"] for one in repo["hooks"] if one["id"] == "check-added-large-files"]
    limit = 1024 * int(hook["args"][0].removeprefix("--maxkb="))
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False).stdout
    large = [
        name for name in listed.split("\0") if name and (ROOT / name).is_file() and (ROOT / name).stat().st_size > limit
    ]
    assert [name for name in large if not re.fullmatch(hook["exclude"].strip("^$"), name)] == []


def test_each_guard_that_is_broken_on_purpose_is_still_there():
    """A line that has changed would leave its guard unbroken, and the tests would be said to miss it."""
    spec = importlib.util.spec_from_file_location("mutations", ROOT / "tests" / "mutations.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    found = {one.guards: (ROOT / "mammo_lib" / one.file).read_text(encoding="utf-8").count(one.line)
             for one in script.MUTATIONS}  # fmt: skip
    assert {guard: n for guard, n in found.items() if n != 1} == {}
