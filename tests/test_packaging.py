"""One source of dependencies, one install line, notebooks without outputs."""

import json
import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

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
    assert sum("parameters" in cell["metadata"].get("tags", []) for cell in code) == 1


def test_every_notebook_is_in_the_table_of_contents():
    toc = (ROOT / "book" / "_toc.yml").read_text()
    assert [f"notebooks/{path.stem}" for path in NOTEBOOKS] == re.findall(r"notebooks/\S+", toc)
