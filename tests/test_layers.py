"""The layers: imports point only from later layers to earlier ones, and importing the library is quiet."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "mammo_lib"
# From the ground up; CONTRIBUTING.md draws it. A room stands once, but for `runs`: what a record is lies below
# training, what makes many of them above.
LAYERS = [
    {"errors", "files", "_torchvision_shim", ""},
    {"config"},
    {"statistics"},
    {"runs"},
    {"figures"},
    {"data", "ops", "models"},
    {"analysis"},
    {"training"},
    {"runs.sweep", "runs.evaluate", "runs.verify"},
    {"inference"},
    {"report"},
    {"cli"},
]
# Inside the data room: what serves any mammogram knows no data set; one place knows them all by name.
DATA_SETS = {"data.cbis_ddsm", "data.phantom", "data.external"}
KNOWS_DATA_SETS = {"data.data_sets", "data", *DATA_SETS}
TORCH_FREE = [
    "config", "files", "runs", "runs.records", "runs.experiments", "runs.overview", "runs.sweep", "runs.evaluate",
    "runs.verify", "statistics",
    "figures", "data", "data.cohort", "data.prepare", "data.collection", "data.data_sets", "data.cbis_ddsm",
    "data.cbis_ddsm.tables", "data.cbis_ddsm.sources", "data.phantom", "analysis", "analysis.diagnostics",
    "analysis.official_split", "analysis.wording", "analysis.tables", "analysis.published", "inference",
    "inference.inputs", "training", "training.readers", "models", "ops", "report",
    "report.execution", "report.rehearsal", "cli",
]  # fmt: skip
HEAVY = {"torch", "lightning", "timm", "torchmetrics", "torchvision"}
# What uses a finished network trains nothing, and does not wait for what training needs.
TRAINING_FREE = ["data.loader", "models.network", "analysis.gates", "analysis.maps", "analysis.lesion_shares",
                 "inference.predict", "inference.deploy", "inference.transfer", "inference.viewer",
                 "inference.release"]  # fmt: skip


def name_of(path: Path) -> str:
    """Return the dotted name of a module below mammo_lib; a package has its own."""
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix("__init__").strip(".")


def rank_of(module: str) -> int:
    """Return how high a module stands: by its own name where LAYERS has it, else by its room's."""
    for name in (module, module.split(".")[0]):
        for rank, modules in enumerate(LAYERS):
            if name in modules:
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
    """Turn ``mammo_lib.data.cohort.build_cohort``, or the same by the room's face, into ``data.cohort``."""
    parts = dotted.split(".")[1:]
    while parts and not (
        (PACKAGE / "/".join(parts)).is_dir() or (PACKAGE / "/".join(parts)).with_suffix(".py").is_file()
    ):
        missing = parts.pop()
        face = PACKAGE.joinpath(*parts, "__init__.py")
        if parts and face.is_file() and (owner := FACES.get(".".join(parts), {}).get(missing)):
            return f"{'.'.join(parts)}.{owner}"
    return ".".join(parts)


def names_in_face(path: Path) -> dict[str, str]:
    """Return {public name: module} of a lazy face."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.keyword) and node.arg == "submod_attrs":
            return {name: module for module, names in ast.literal_eval(node.value).items() for name in names}
    return {}


FILES = sorted(PACKAGE.rglob("*.py"))
FACES = {name_of(path): names_in_face(path) for path in FILES if path.name == "__init__.py"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: name_of(path) or "mammo_lib")
def test_imports_point_one_way(path):
    module = name_of(path)
    for imported in imports_of(path):
        assert rank_of(imported) <= rank_of(module), f"{module} imports {imported}, which stands above it"


@pytest.mark.parametrize("path", FILES, ids=lambda path: name_of(path) or "mammo_lib")
def test_data_and_models_never_meet(path):
    room = name_of(path).split(".")[0]
    others = {"data": {"models", "ops"}, "models": {"data"}, "ops": {"data", "models"}}.get(room, set())
    assert not {name.split(".")[0] for name in imports_of(path)} & others


@pytest.mark.parametrize("path", sorted((PACKAGE / "data").rglob("*.py")), ids=name_of)
def test_what_serves_any_mammogram_knows_no_data_set(path):
    module = name_of(path)
    if module in KNOWS_DATA_SETS or module.rpartition(".")[0] in DATA_SETS:
        return
    assert not {name for name in imports_of(path) if any(name.startswith(one) for one in DATA_SETS)}


def test_every_room_has_a_face_and_every_name_in_it_is_there():
    for folder in {path.parent for path in FILES}:
        face = folder / "__init__.py"
        assert face.is_file() and ast.get_docstring(ast.parse(face.read_text(encoding="utf-8"))), folder
    for room, names in FACES.items():
        face = importlib.import_module(f"mammo_lib.{room}".rstrip("."))
        assert [name for name in names if not hasattr(face, name)] == [], room


IMPORTS = """
import importlib, sys
for name in {names}:
    importlib.import_module("mammo_lib." + name)
    print(name, *sorted({heavy} & set(sys.modules)))
"""


@pytest.mark.parametrize(
    ("names", "heavy"),
    [(TORCH_FREE, HEAVY), (TRAINING_FREE, HEAVY - {"torch"})],
    ids=["tables need no torch", "finished networks need nothing of training"],
)
def test_nothing_heavy_is_imported_that_is_not_needed(names, heavy):
    """A heavy package is told with the first module that brings it, imported one after another in one interpreter."""
    code = IMPORTS.format(names=names, heavy=heavy)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=PACKAGE.parent)
    assert done.stdout.splitlines() == names


def test_import_is_quiet():
    code = "import mammo_lib, sys; assert 'torch' not in sys.modules and 'numpy' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=PACKAGE.parent)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


MAY_SHARE = {"tables.py", "__init__.py"}  # the published tables, and those of the chapters
COMMANDS = ("_command", "_commands")  # how modules end whose functions are named after commands
KERNELS = {"ops.scan_cpu", "ops.scan_gpu"}  # the same functions for two machines


def test_one_name_means_one_thing():
    files, names = {}, {}
    for path in FILES:
        files.setdefault(path.name, []).append(name_of(path))
        if name_of(path) in KERNELS or name_of(path).endswith(COMMANDS):
            continue
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_"):
                names.setdefault(node.name, []).append(name_of(path))
    assert {name: where for name, where in files.items() if len(where) > 1 and name not in MAY_SHARE} == {}
    assert {name: where for name, where in names.items() if len(where) > 1} == {}


# What reads a text of somebody else's making without the guards of `files`; `memo` reads cells of its own database.
UNGUARDED = ("read_csv(", "json.load(", "json.loads(", "csv.reader(", "csv.DictReader(")
MAY_PARSE = {"files", "data.memo"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: name_of(path) or "mammo_lib")
def test_tables_and_json_are_read_through_the_guarded_readers(path):
    text = path.read_text(encoding="utf-8")
    assert name_of(path) in MAY_PARSE or [call for call in UNGUARDED if call in text] == []
