"""The documentation is true: Python blocks run, commands and options exist, docstring examples hold."""

import ast
import doctest
import importlib.util
import json
import os
import pydoc
import re
import shlex
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import typer
from PIL import Image

from mammo_lib.cli import app
from mammo_lib.config import TARGETS, get_profile
from mammo_lib.runs import records_badge

ROOT = Path(__file__).resolve().parents[1]
PROSE = [
    ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "results" / "README.md",
    *sorted((ROOT / "book").glob("*.md")),
]  # fmt: skip
LONG_LINES = ("protocol.md", *(f"protocol-{n}.md" for n in (2, 3, 4, 5)))  # hashed into records, and never edited
READ_BY_PAGES = (
    "released/dual/metrics.json", "results/verified.json", "benchmarks/export.json",
    "benchmarks/inference.json", "benchmarks/plan.json",
)  # fmt: skip
COMMANDS = typer.main.get_command(app)
SCRATCH = {"weights", "htmlcov"}  # made by commands, ignored by git


def blocks(path: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", path.read_text(encoding="utf-8"), re.M | re.S)


def shell_lines() -> list[tuple[str, str]]:
    """Every command line of the prose: in a block, or in code within a sentence or a table."""
    found = []
    for path in PROSE:
        text = path.read_text(encoding="utf-8")
        lines = [line for block in blocks(path, "bash") for line in block.replace("\\\n", " ").splitlines()]
        lines += re.findall(r"`((?:mammo|make) [^`\n]+)`", text)
        found += [(path.name, line.split("  #")[0].strip()) for line in lines]
    return found


def run_python(source: str, cwd: Path = ROOT, **env) -> str:
    command = [sys.executable, "-c", source]
    done = subprocess.run(command, cwd=cwd, env=os.environ | env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_python_of_readme_and_contributing_runs():
    shown = "".join(block for name in ("README.md", "CONTRIBUTING.md") for block in blocks(ROOT / name, "python"))
    used = """
from mammo_lib.config import RunConfig, with_changes
from mammo_lib.data.data_sets import DATA_SETS
from mammo_lib.models import build_model
changes = ["model.backbone=resnet18", "model.gate=none", "model.targets=[malignancy, assessment]"]
heads = build_model(with_changes(RunConfig(), changes)).heads
print(*heads, "my-cmmd" in DATA_SETS)
"""
    said = run_python(shown + used)
    assert "reference" in said
    assert said.splitlines()[-1] == "malignancy assessment True"


def test_contributing_names_every_target():
    [told] = re.findall(r"The registered targets are (.*?)\.", (ROOT / "CONTRIBUTING.md").read_text("utf-8"), re.S)
    assert set(re.findall(r"`(\w+)`", told)) == set(TARGETS)


def test_the_adapter_of_the_page_reads_a_folder(tmp_path):
    """The page's own table and source, on noise: 12 patients, two of whom test."""
    [source] = [block for block in blocks(ROOT / "book" / "own_data.md", "python") if "register_data_set" in block]
    folder, rows = tmp_path / "my_folder", ["patient_id,laterality,view,lesion,pathology,split,image,x0,y0,x1,y1"]
    folder.mkdir()
    for patient in range(12):
        pathology, split = ("BENIGN", "MALIGNANT")[patient % 2], "test" if patient > 9 else "train"
        for view in ("CC", "MLO"):
            noise = np.random.default_rng(patient).integers(0, 255, (60, 40), dtype=np.uint8)
            Image.fromarray(noise).save(folder / f"{patient}_{view}.png")
            rows.append(f"{patient},LEFT,{view},1,{pathology},{split},{patient}_{view}.png,10,10,30,30")
    (folder / "lesions.csv").write_text("\n".join(rows))
    used = """
prepared = collection.prepare("train", *profile.run.inputs)
print(len(prepared.index), len(collection.cohort(profile.run.data, "test")))
"""
    said = run_python(source + used, cwd=tmp_path, MAMMO_ROOT=str(tmp_path))
    assert said.splitlines()[-1] == "40 2"  # 10 breasts, 2 views, 2 streams; 2 test breasts


@pytest.mark.slow
def test_the_page_on_the_backbone_runs(tmp_path):
    """All its blocks, in order; a comment behind a print says what is printed."""
    pytest.importorskip("onnxruntime", reason="the extra `export` is not installed")
    examples = blocks(ROOT / "book" / "backbone.md", "python")
    sections = (ROOT / "book" / "backbone.md").read_text(encoding="utf-8").count("\n## ")
    assert (sections, len(examples)) == (8, 9)  # classification shows two ways
    said = run_python("".join(examples), cwd=tmp_path, MAMMO_ROOT=str(ROOT)).splitlines()
    assert said == [
        "torch.Size([1, 2])",
        "[160, 320, 640] [8, 16, 32]",
        "[(16, 16, 24), (32, 8, 12), (64, 4, 6), (128, 2, 3)]",
        "[(1, 64, 16, 24), (1, 64, 8, 12), (1, 64, 4, 6)]",
        "torch.Size([1, 3])",
        "torch.Size([1, 10])",
        "torch.Size([2, 128]) ['stage3_block0', 'stage3_block1', 'stage3_block2', 'stage4_block0', 'stage4_block1']",
    ]


def test_the_page_on_the_backbone_shows_what_was_measured():
    path = ROOT / "benchmarks" / "export.json"
    held, shown = json.loads(path.read_text()), load_stage().exported_speeds(path)
    assert "{{ export }}" in (ROOT / "book" / "backbone.md").read_text(encoding="utf-8")
    ratios = [f"| {row['onnxruntime_speed_over_pytorch']:.2f} |" for row in held["rows"] if "network" in row]
    assert len(ratios) == 2 and all(ratio in shown for ratio in ratios)
    assert all(f"{length} tokens" in shown for length in (49, 196, 784, 3136)) and held["command"] in shown


def test_the_page_on_the_backbone_shows_the_speed_of_every_form():
    path = ROOT / "benchmarks" / "inference.json"
    held, shown = json.loads(path.read_text()), load_stage().inference_speeds(path)
    assert "{{ inference }}" in (ROOT / "book" / "backbone.md").read_text(encoding="utf-8")
    forms = [*dict.fromkeys(row["form"] for row in held["rows"])]
    lines = {form: next(line for line in shown.splitlines() if f"| {form} |" in line) for form in forms}
    assert len(lines) == 9 and len(held["rows"]) == 4 * 9
    for row in held["rows"]:
        speed, share = row["speed_over_mambapy"], row["share_of_matrix_product_rate"]
        assert f"| {speed:.2f} ({share:.0%}) |" in lines[row["form"]]


def test_the_page_on_gpus_shows_the_plan_on_one_and_on_four(tmp_path):
    """Two experiments of 5 and 3 runs: 5 x 2 + 3 x 4 = 22 hours on one GPU, 5.5 on four."""
    rows = [
        {"experiment": "first", "runs": 5, "parameters": 1, "memory_gb": 10.0, "hours_each": 2.0},
        {"experiment": "other", "runs": 3, "parameters": 1, "memory_gb": 20.0, "hours_each": 4.0},
    ]
    path = tmp_path / "plan.json"
    path.write_text(json.dumps({"command": "x", "profile": "paper", "tflops": 30, "rows": rows}))
    shown = load_stage().planned_cost(path)
    assert "| `first` | 5 | 10 GB | 2.00 | 10.00 h | 2.50 h |" in shown
    assert "| all 2 experiments with a network | 8 | 20 GB | 4.00 | 22.00 h | 5.50 h |" in shown


def test_the_page_on_gpus_fetches_weights_and_resumes():
    [script] = [one for one in blocks(ROOT / "book" / "scaling.md", "bash") if "#SBATCH" in one]
    assert "#SBATCH --requeue\n" in script[: script.index("set -eu")]
    page = (ROOT / "book" / "scaling.md").read_text(encoding="utf-8")
    assert "{{ plan }}" in page and page.index("mammo weights L") < page.index("#SBATCH")


def test_the_readme_activates_the_environment_before_it_uses_it():
    lines = [line for block in blocks(ROOT / "README.md", "bash") for line in block.splitlines()]
    active = next(n for n, line in enumerate(lines) if line.startswith("source .venv/bin/activate"))
    needs = [n for n, line in enumerate(lines) if re.match(r"mammo|papermill|pytest|jupyter-book", line)]
    assert needs and active < min(needs)


def test_the_readme_says_how_long_the_phantom_trains():
    epochs = get_profile("smoke").run.train.epochs
    assert f"# the network, {epochs} epochs" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_nothing_is_installed_from_an_index_that_has_it_not():
    told = [*PROSE, *(ROOT / "mammo_lib").rglob("*.py")]  # pages, and messages
    assert [str(path) for path in told if "install 'mammo-lib" in path.read_text(encoding="utf-8")] == []


EDITED = [path for path in PROSE if path.name not in LONG_LINES] + [
    ROOT / name for name in ("CHANGELOG.md", "benchmarks/README.md", "data_manifest/README.md")
]


@pytest.mark.parametrize("path", EDITED, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_lines_fit_a_terminal(path):
    """Rows of tables and shown code cannot be broken."""
    text = re.sub(r"^```.*?^```$", "", path.read_text(encoding="utf-8"), flags=re.M | re.S)
    lines = text.splitlines()
    assert [line for line in lines if len(line) > 120 and not line.startswith("|")] == []


CHAPTERS = sorted((ROOT / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("path", [*EDITED, *CHAPTERS], ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_line_of_prose_begins_as_a_comment(path):
    """Jupyter Book leaves out a line that begins with a per cent sign."""
    text = path.read_text(encoding="utf-8")
    if path in CHAPTERS:
        cells = [cell for cell in json.loads(text)["cells"] if cell["cell_type"] == "markdown"]
        text = "\n".join("".join(cell["source"]) for cell in cells)
    assert [line for line in text.splitlines() if line.lstrip().startswith("%")] == []


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_the_prose_of_a_chapter_fits_a_terminal(path):
    """Prose stands in text and in the strings that code prints."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    lines = [line for cell in cells for line in "".join(cell["source"]).splitlines()]
    assert [line for line in lines if len(line) > 120 and not line.startswith("|")] == []


def markdown(rows: list[list]) -> str:
    """Return a table of Markdown, its first row the header."""
    lines = [f"| {' | '.join(map(str, row))} |" for row in rows]
    return "\n".join([lines[0], "|---" * len(rows[0]) + "|", *lines[1:]]) + "\n"


def tables_of_inputs() -> dict[str, str]:
    """Return the tables of the page on robustness by their headings: one row per entry point, and the sum."""
    counts = pd.DataFrame(json.loads((ROOT / "benchmarks" / "withstands.json").read_text())["rows"])
    sums = counts.drop(columns="kind").groupby("entry").sum()
    images, commands = sums.index.isin(["read_image", "find_breasts"]), sums.index.str.startswith("mammo ")
    parts = {"Tables and JSON files": sums[~images & ~commands], "Images": sums[images], "Commands": sums[commands]}
    return {
        heading: markdown(
            [["", *part.columns], *([name, *row] for name, *row in part.itertuples()), ["all", *part.sum()]]
        )
        for heading, part in parts.items()
    }


def table_of_kills() -> str:
    rows = json.loads((ROOT / "benchmarks" / "kills.json").read_text())["rows"]
    shown = [["not run" if value is None else value for value in row.values()] for row in rows]
    done, planned = (sum(row[name] for row in rows) for name in ("kills", "planned"))
    return markdown([[*rows[0]], *shown]) + f"\n{done} of the {planned} planned kills were made.\n"


def test_what_it_withstands_is_what_was_counted():
    page = (ROOT / "book" / "withstands.md").read_text(encoding="utf-8")
    for heading, table in tables_of_inputs().items():
        assert f"### {heading}\n\n{table}" in page
    assert table_of_kills() in page


def load_stage():
    spec = importlib.util.spec_from_file_location("stage_notebooks", ROOT / "book" / "_ext" / "stage_notebooks.py")
    stage = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(stage)
    return stage


def test_the_page_of_verified_records_shows_the_outcome_and_each_record_is_still_there(tmp_path):
    found = json.loads((ROOT / "results" / "verified.json").read_text())
    shown = load_stage().verified_records(ROOT / "results" / "verified.json")
    assert "{{ verified }}" in (ROOT / "book" / "verified.md").read_text(encoding="utf-8")
    for processor, outcomes in found.items():
        assert len(outcomes) >= 3 and f"**Processor `{processor}`: " in shown
        for name, one in outcomes.items():
            assert f"| {name} | {one['verdict']} | {one['rows']} |" in shown
            assert (ROOT / "results" / name / "metrics.json").is_file(), name
            assert not one["is_dirty"] and one["commit"]
    elsewhere = [
        abs(recorded - found)
        for processor, outcomes in found.items() for one in outcomes.values() if one["made_on"] not in (None, processor)
        for recorded, found in one["auc"].values()
    ]  # fmt: skip
    far = [difference for difference in elsewhere if difference >= 1e-4]
    assert len(elsewhere) > len(far) == 3  # as the page says: those are among the twelve of the errata
    assert "No record has been made again" in load_stage().verified_records(tmp_path / "none.json")


def test_values_reach_the_pages_whether_or_not_they_are_displayed_where_they_were_glued(tmp_path):
    """Made by `glue` itself, in a notebook that is executed here."""
    nbformat, nbclient = (pytest.importorskip(name) for name in ("nbformat", "nbclient"))
    source = (
        "from IPython.display import Markdown\nfrom myst_nb import glue\n"
        "glue('shown', Markdown('a *sentence*'))\nglue('kept', Markdown('another'), display=False)\nglue('number', 3)"
    )
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)])
    nbclient.NotebookClient(notebook, kernel_name="python3").execute()
    for folder in ("book/notebooks", "released/dual", "results", "benchmarks"):
        (tmp_path / folder).mkdir(parents=True)
    for record in READ_BY_PAGES:
        (tmp_path / record).write_bytes((ROOT / record).read_bytes())
    nbformat.write(notebook, tmp_path / "book" / "notebooks" / "00_it.ipynb")
    values = load_stage().glued_values(tmp_path / "book")
    assert (values["shown"], values["kept"], values["number"]) == ("a *sentence*", "another", "3")


@pytest.fixture
def small_book(tmp_path):
    """The source of a book of one chapter, in a checkout that has only what pages read."""
    for name in READ_BY_PAGES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    for folder in ("book", "notebooks"):
        (tmp_path / folder).mkdir()
    (tmp_path / "pyproject.toml").write_text("[project]\n")
    chapter = "01_data_audit.ipynb"
    (tmp_path / "notebooks" / chapter).write_bytes((ROOT / "notebooks" / chapter).read_bytes())
    (tmp_path / "book" / "index.md").write_text("# Book\n\n```{toctree}\nnotebooks/01_data_audit\n```\n")
    settings = {
        "extensions": ["myst_nb", "sphinx_book_theme", "stage_notebooks"], "html_theme": "sphinx_book_theme",
        "nb_execution_mode": "off",
    }  # fmt: skip
    lines = ["import sys", f"sys.path.insert(0, {str(ROOT / 'book' / '_ext')!r})"]
    lines += [f"{name} = {value!r}" for name, value in settings.items()]
    (tmp_path / "book" / "conf.py").write_text("\n".join(lines))
    return tmp_path / "book"


@pytest.mark.slow
def test_the_book_offers_binder_on_the_source_of_a_chapter_and_counts_the_records(small_book):
    on_github = {"GITHUB_SERVER_URL": "https://github.com", "GITHUB_REPOSITORY": "a/b", "GITHUB_REF_NAME": "v1.2.3"}
    pages = small_book / "html"
    command = [sys.executable, "-m", "sphinx", "-q", "-b", "html", str(small_book), str(pages)]
    subprocess.run(command, env=os.environ | {"PYTHONPATH": str(ROOT)} | on_github, check=True, capture_output=True)
    chapter = (pages / "notebooks" / "01_data_audit.html").read_text(encoding="utf-8")
    [path] = re.findall(r'href="https://mybinder.org/v2/gh/a/b/v1.2.3\?urlpath=lab/tree/([^"]+)"', chapter)
    assert (ROOT / path).is_file()
    badge = json.loads((pages / "records.json").read_text(encoding="utf-8"))
    assert badge == records_badge(small_book.parent / "results")


def test_binder_is_offered_only_where_the_repository_is_known(tmp_path, monkeypatch):
    for name in ("GITHUB_REPOSITORY", "GITHUB_REF_NAME"):
        monkeypatch.delenv(name, raising=False)
    project = tmp_path / "pyproject.toml"
    project.write_text("[project]\n")
    assert load_stage().binder_button(tmp_path / "book") == {}
    project.write_text('[project.urls]\nRepository = "https://github.com/a/b"\n')
    options = load_stage().binder_button(tmp_path / "book")
    assert (options["repository_url"], options["repository_branch"]) == ("https://github.com/a/b", "main")


def test_every_value_on_a_page_is_glued_or_read_from_a_record():
    stage = load_stage()
    used = {
        name for path in (ROOT / "book").glob("*.md") for name in re.findall(r"{{ (\w+) }}", path.read_text("utf-8"))
    }
    chapters = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "notebooks").glob("*.ipynb"))
    glued = set(re.findall(r'glue\((?:\\n",\s*")?\s*\\"(\w+)\\"', chapters))
    read = set(stage.glued_values(ROOT / "book")) - set(stage.GLUED)
    assert used & set(stage.GLUED) <= glued and used <= glued | read


def test_every_fault_that_was_counted_is_mended():
    found = json.loads((ROOT / "benchmarks" / "withstands.json").read_text())["summary"]
    assert found["inputs"] >= 500
    assert {name: found[name] for name in ("tracebacks", "hangs", "writes outside", "other answers")} == {
        "tracebacks": 0, "hangs": 0, "writes outside": 0, "other answers": 0,
    }  # fmt: skip
    kills = json.loads((ROOT / "benchmarks" / "kills.json").read_text())["rows"]
    assert [row for row in kills if row["files that differ"] or row["processes left"]] == []


@pytest.mark.parametrize("path", PROSE, ids=lambda path: path.name)
def test_every_python_block_is_python(path):
    for source in blocks(path, "python"):
        compile(source, path.name, "exec")


def command_of(words: list[str]):
    """Follow ``mammo data audit ...`` down to its command; return it and what stands behind it."""
    command = COMMANDS
    while hasattr(command, "commands") and words and not words[0].startswith("-"):
        assert words[0] in command.commands, f"mammo has no command {words[0]!r}"
        command, words = command.commands[words[0]], words[1:]
    return command, words


def mammo_lines() -> list:
    lines = [(name, line) for name, line in shell_lines() if re.search(r"(?:^|[/ ])mammo\s", line)]
    return [pytest.param(re.split(r"(?:^|[/ ])mammo\s", line)[1], id=f"{name}: {line}") for name, line in lines]


@pytest.mark.parametrize("line", mammo_lines())
def test_every_mammo_command_and_option_exists(line):
    if "|" in line:  # a list of commands, `mammo data audit | prepare`
        line = line.split("|")[0]
    words = shlex.split(re.split(r"&&|;|>", line)[0].replace("...", " "))
    command, rest = command_of(words)
    known = {"--help", *(option for parameter in command.params for option in parameter.opts)}
    given = [word.partition("=")[0] for word in rest if re.match(r"--?[a-z]", word)]
    assert [option for option in given if option not in known] == []


def test_every_make_target_exists():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    used = {word for _, line in shell_lines() for word in re.findall(r"\bmake ([a-z][a-z-]*)\b(?!=)", line)}
    assert {"reproduce", "test"} <= used <= targets


def modules() -> list[str]:
    paths = sorted((ROOT / "mammo_lib").rglob("*.py"))
    return [".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for path in paths]


def has_examples(name: str) -> bool:
    path = ROOT.joinpath(*name.split("."))
    source = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return ">>> " in source.read_text(encoding="utf-8")


def examples_of(name: str) -> list[doctest.DocTest]:
    return [test for test in doctest.DocTestFinder().find(importlib.import_module(name)) if test.examples]


WITH_EXAMPLES = [name for name in modules() if has_examples(name)]  # the others are not imported
EXAMPLES_AT_LEAST = 20


@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_examples_in_docstrings_hold(name):
    import torch

    torch.set_printoptions(profile="default")
    for test in examples_of(name):
        said = []
        runner = doctest.DocTestRunner(verbose=False, optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS)
        runner.run(test, out=said.append)
        assert (runner.failures, runner.tries) == (0, len(test.examples)), "".join(said)


def test_the_library_has_examples():
    """Guards the test above, which passes where nothing stands."""
    found = [test for name in WITH_EXAMPLES for test in examples_of(name)]
    assert sum(len(test.examples) for test in found) >= EXAMPLES_AT_LEAST


@pytest.mark.parametrize("name", [name for name in modules() if ROOT.joinpath(*name.split(".")).is_dir()])
def test_every_name_of_a_face_is_there(name):
    face = importlib.import_module(name)
    names = getattr(face, "__all__", [])
    assert len(names) == len(set(names))
    assert [one for one in names if not hasattr(face, one)] == []


def test_the_picture_of_the_layers_is_the_order_that_is_tested():
    section = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").split("## The order of imports")[1]
    drawn = [set(line.partition("#")[0].split()) for line in section.split("```")[1].splitlines()[1:]]
    layers = [{room for room in rank if room and not room.startswith("_")} for rank in load_layers()]
    assert drawn == [rank for rank in reversed(layers) if rank]


def load_layers() -> list[set[str]]:
    spec = importlib.util.spec_from_file_location("layers", ROOT / "tests" / "test_layers.py")
    layers = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(layers)
    return layers.LAYERS


def test_the_tree_names_every_room():
    tree = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").split("## The tree")[1].split("```")[1]
    named = {word.rstrip("/") for line in tree.splitlines() for word in line.partition("  #")[0].split()}
    package = ROOT / "mammo_lib"
    rooms = {path.relative_to(package).as_posix() for path in package.rglob("__init__.py")}
    rooms = {name.removesuffix("/__init__.py").rpartition("/")[2] for name in rooms} - {"__init__.py"}
    files = {path.name for path in package.glob("[a-z]*.py")}
    top = {path.name for path in ROOT.iterdir() if path.is_dir() and not path.name.startswith((".", "_"))} - SCRATCH
    assert rooms | files | top <= named
    assert {word for word in named if word.endswith(".py")} <= {path.name for path in ROOT.rglob("*.py")}


def test_the_api_shows_every_module():
    """Faces show what their modules hold; the kernels behind the scan and the command line need no page."""
    shown = [name for page in PROSE for name in re.findall(r"automodule:: (mammo_lib\S*)", page.read_text("utf-8"))]
    faces = {name for name in modules() if ROOT.joinpath(*name.split(".")).is_dir()}
    inner = {"mammo_lib.ops.scan_cpu", "mammo_lib.ops.scan_gpu", "mammo_lib.ops.scan_op"}
    inner |= {name for name in modules() if name.startswith("mammo_lib.cli.")}
    private = {name for name in modules() if name.rpartition(".")[2].startswith("_")}
    assert len(shown) == len(set(shown))
    assert set(shown) - faces == set(modules()) - faces - inner - private


def test_every_reference_to_the_library_exists():
    text = "".join(page.read_text(encoding="utf-8") for page in PROSE)
    names = re.findall(r"\{py:\w+\}`~?(mammo_lib[\w.]*)`", text)
    assert names
    assert [name for name in names if pydoc.locate(name) is None] == []


@pytest.mark.parametrize("path", sorted((ROOT / "notebooks").glob("[0-9]*.ipynb")), ids=lambda path: path.stem)
def test_every_name_that_a_chapter_takes_from_the_library_exists(path):
    """Said at once and without running the chapter: a public name that was moved or renamed."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    tree = ast.parse("\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"))
    known = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module.startswith("mammo_lib"):
            for alias in node.names:
                known[alias.asname or alias.name] = pydoc.locate(f"{node.module}.{alias.name}")
    assert [name for name, found in known.items() if found is None] == []
    used = [
        (n.value.id, n.attr) for n in ast.walk(tree) if isinstance(n, ast.Attribute) and isinstance(n.value, ast.Name)
    ]
    modules = {name: found for name, found in known.items() if isinstance(found, types.ModuleType)}
    assert [(name, attr) for name, attr in used if name in modules and not hasattr(modules[name], attr)] == []
