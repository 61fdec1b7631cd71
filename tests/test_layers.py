"""The one-way street: imports point only from later layers to earlier ones, and importing the library is quiet."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "mammo_lib"
LAYERS = [
    {"errors", "_torchvision_shim", "__init__"},
    {"config"},
    {"runs", "statistics", "executor"},
    {"diagnostics"},
    {"figures"},
    {"data.__init__", "data.tables", "data.images", "data.memo", "data.phantom_pixels", "data.phantom_files"},
    {"data.cohort", "data.series"},
    {"data.sources"},
    {"data.defects"},
    {"data.phantom", "data.audit", "data.folds"},
    {"data.fetch"},
    {"data.prepare"},
    {"data.boxes", "data.collection"},
    {"data.external"},
    {"data.given"},
    {"data.loader"},
    {"ops"},
    {"models"},
    {"gates"},
    {"callbacks", "baselines", "optimisation"},
    {"train"},
    {"sweep"},
    {"maps"},
    {"experiments"},
    {"predict", "results"},
    {"viewer"},
    {"evaluate"},
    {"reproduce"},
    {"cli"},
]
TORCH_FREE = [
    "config",
    "runs",
    "statistics",
    "figures",
    "data",
    "data.cohort",
    "data.given",
    "data.prepare",
    "executor",
    "diagnostics",
    "experiments",
    "sweep",
    "results",
    "reproduce",
    "cli",
]
HEAVY = {"torch", "lightning", "timm", "torchmetrics", "torchvision"}


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts)


def rank_of(module: str) -> int:
    for rank, layer in enumerate(LAYERS):
        if module in layer or module.split(".")[0] in layer:
            return rank
    raise AssertionError(f"{module} has no place in LAYERS: give it one")


def imports_of(path: Path) -> set[str]:
    """Every module of ours that a file imports, at the top or inside a function, as a dotted name below mammo_lib."""
    package = ("mammo_lib", *path.relative_to(PACKAGE).parts[:-1])
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            base = [*package[: len(package) - node.level + 1]] if node.level else []
            base += node.module.split(".") if node.module else []
            found |= {".".join([*base, alias.name]) for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return {resolve(name) for name in found if name.startswith("mammo_lib.")}


def resolve(dotted: str) -> str:
    """Turn ``mammo_lib.data.cohort.read_tables`` into ``data.cohort``."""
    parts = dotted.split(".")[1:]
    while parts and not (
        (PACKAGE / "/".join(parts)).is_dir() or (PACKAGE / "/".join(parts)).with_suffix(".py").is_file()
    ):
        parts.pop()
    name = ".".join(parts) or "__init__"
    return f"{name}.__init__" if name == "data" else name


FILES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_imports_point_one_way(path):
    module = name_of(path)
    for imported in imports_of(path):
        if imported.split(".")[0] == module.split(".")[0] and "." in module and not module.startswith("data."):
            continue  # inside ops, inside models
        if module == "data.__init__" or imported == module:
            continue
        assert rank_of(imported) <= rank_of(module), f"{module} imports {imported}, which stands below it"


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_data_and_models_never_meet(path):
    module = name_of(path).split(".")[0]
    others = {"data": {"models", "ops"}, "models": {"data"}, "ops": {"data", "models"}}.get(module, set())
    assert not {name.split(".")[0] for name in imports_of(path)} & others


def loaded_by(module: str) -> set[str]:
    """Import a module in a fresh interpreter and return the heavy packages that came with it."""
    code = f"import mammo_lib.{module}, sys; print(*sorted({HEAVY!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=PACKAGE.parent)
    return set(done.stdout.split())


@pytest.mark.parametrize("module", TORCH_FREE)
def test_tables_need_no_torch(module):
    assert loaded_by(module) == set()


def test_import_is_quiet():
    code = "import mammo_lib, sys; assert 'torch' not in sys.modules and 'numpy' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=PACKAGE.parent)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
