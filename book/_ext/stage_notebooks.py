"""Give the book a page for each notebook that has not been executed yet.

Sphinx reads pages only below its source folder, book/, while the notebooks live in
notebooks/. `mammo reproduce` puts the executed ones into book/notebooks/. On a fresh
checkout nothing is there, so the page shows the source notebook, without outputs.

Figures of notebooks get a text for those who cannot see them: the title of their file, which is their headline.
Values that a notebook glued (``myst_nb.glue``) can be used in the text of any page as {{ name }}. Until it is executed
the page says that they are missing. Values from committed records, like the findings of the front page, need no
notebook.
`records.json`, beside the pages, tells how many records were made again, as a badge of shields.io.
Where the repository is known, chapters get a button that opens their source on Binder.
"""

from __future__ import annotations

import html
import json
import os
import subprocess
import tomllib
from pathlib import Path
from xml.etree import ElementTree

from docutils import nodes
from PIL import Image
from sphinx.util import logging

from mammo_lib.analysis.headlines import headlines
from mammo_lib.analysis.wording import in_words
from mammo_lib.files import write_json
from mammo_lib.runs import read_outcomes, records_badge

logger = logging.getLogger(__name__)
GLUED = ("headline", "fourth", "within_four", "elsewhere", "untested", "missing_views")
FINDINGS = tuple(
    f"finding_{key}" for key in ("readers", "assessment", "gates", "gates_long", "scan", "crop", "test_set")
)
NOTE = {
    "cell_type": "markdown",
    "id": "not-executed",
    "metadata": {},
    "source": (
        ":::{admonition} Not executed yet\n:class: warning\n"
        "Run `make reproduce` to execute this notebook; the page then shows its results.\n:::"
    ),
}


def stage(book: Path) -> int:
    """Copy every notebook without an executed copy into book/notebooks; return how many there are."""
    sources, pages = book.parent / "notebooks", book / "notebooks"
    pages.mkdir(exist_ok=True)
    waiting = [path for path in sorted(sources.glob("[0-9][0-9]*_*.ipynb")) if not _is_executed(pages / path.name)]
    for path in waiting:
        notebook = json.loads(path.read_text(encoding="utf-8"))
        notebook["metadata"]["staged"] = True
        notebook["cells"].insert(1, NOTE)
        text = json.dumps(notebook, indent=1)
        page = pages / path.name
        if not page.exists() or page.read_text(encoding="utf-8") != text:
            page.write_text(text, encoding="utf-8")
    return len(waiting)


def _is_executed(page: Path) -> bool:
    return page.exists() and not json.loads(page.read_text(encoding="utf-8"))["metadata"].get("staged")


def glued_values(book: Path) -> dict[str, str]:
    """Return name -> Markdown of everything that the executed notebooks glued."""
    values = dict.fromkeys(GLUED, "*Not executed in this copy yet: `make reproduce` fills this in.*")
    values |= dict.fromkeys(FINDINGS, "*not run yet*")  # in a copy without records
    values |= {f"finding_{row['key']}": in_words(row, "difference") for row in headlines().to_dict("records")}
    values |= released_values(book.parent / "released" / "dual" / "metrics.json")
    values["verified"] = verified_records(book.parent / "results" / "verified.json")
    values["export"] = exported_speeds(book.parent / "benchmarks" / "export.json")
    values["inference"] = inference_speeds(book.parent / "benchmarks" / "inference.json")
    values["plan"] = planned_cost(book.parent / "benchmarks" / "plan.json")
    for page in sorted((book / "notebooks").glob("*.ipynb")):
        for cell in json.loads(page.read_text(encoding="utf-8"))["cells"]:
            for output in cell.get("outputs", []):
                if glued := output.get("metadata", {}).get("scrapbook"):
                    prefix = glued["mime_prefix"]  # of a value that is not displayed where it was glued
                    forms = [output["data"].get(f"{prefix}text/{form}") for form in ("markdown", "plain")]
                    values[glued["name"]] = "".join(next(filter(None, forms)))
    return values


def released_values(path: Path) -> dict[str, str]:
    """Return what pages say of the released network's AUC, from its record."""
    metrics = json.loads(path.read_text(encoding="utf-8"))
    found = {"released_auc": metrics["out_of_fold"]["auc"], "released_without_crops": metrics["without_crops"]["auc"]}
    return {name: f"{one['value']:.2f} ({one['low']:.2f} to {one['high']:.2f})" for name, one in found.items()}


def verified_records(path: Path) -> str:
    """Return what `mammo verify` found as Markdown: for each processor the verdicts, then a row per record."""
    if not path.is_file():
        return "*No record has been made again in this copy: `mammo verify` does it.*"
    return "\n\n".join(_verified_on(processor, outcomes) for processor, outcomes in read_outcomes(path).items())


def _verified_on(processor: str, outcomes: dict) -> str:
    """Return what `mammo verify` found on one processor."""
    rows, others = [], {}
    for name, one in sorted(outcomes.items()):
        auc = "; ".join(
            f"{split.replace('_', ' ')} {was:.4f}, {now:.4f}"
            for split, (was, now) in one["auc"].items()
            if not split.startswith("test_")  # a part of the test set
        )
        differences = ["" if one[key] is None else f"{one[key]:.1g}" for key in ("probability", "metric")]
        rows.append([name, one["verdict"], str(one["rows"]), auc, *differences])
        others.setdefault("; ".join(one["causes"]) or "nothing", []).append(name)
    verdicts = [one["verdict"] for one in outcomes.values()]
    counts = ", ".join(f"{verdicts.count(verdict)} {verdict}" for verdict in dict.fromkeys(verdicts))
    head = ["record", "verdict", "rows", "AUC of the record, and here", "largest difference of a probability",
            "of a metric"]  # fmt: skip
    besides = [f"- {cause}: {len(names)} of {len(rows)} records" for cause, names in others.items()]
    what = "What differs between the machine of the record and this one:"
    parts = [f"**Processor `{processor}`: {counts}.**", _table([head, *rows]), what, "\n".join(besides)]
    return "\n\n".join(parts)


def exported_speeds(path: Path) -> str:
    """Return what `benchmarks/export.py` measured as Markdown: the whole network, then the forms of the scan."""
    held = json.loads(path.read_text(encoding="utf-8"))
    networks = [row for row in held["rows"] if "network" in row]
    scans = [row for row in held["rows"] if "scan" in row]
    whole = [["network", "batch", "PyTorch, ms", "onnxruntime, ms", "speed over PyTorch"]]
    whole += [
        [row["network"], row["batch"], f"{row['pytorch_ms']:.0f}", f"{row['onnxruntime_ms']:.0f}",
         f"{row['onnxruntime_speed_over_pytorch']:.2f}"]
        for row in networks
    ]  # fmt: skip
    shapes = [*dict.fromkeys((row["batch"], row["length"]) for row in scans)]
    times = {(row["scan"], row["batch"], row["length"]): row["ms"] for row in scans}
    forms = [["form of the scan, ms", *(f"batch {batch}, {length} tokens" for batch, length in shapes)]]
    forms += [
        [name.replace("_", " "), *(f"{times[name, *shape]:.1f}" for shape in shapes)]
        for name in dict.fromkeys(row["scan"] for row in scans)
    ]
    others = held["summary"]["other_processes"]
    besides = f"beside {others:.0f} other busy processes: read the ratios, not the times"
    return "\n\n".join([_table(whole), _table(forms), f"{_where(held)}, {besides}."])


def inference_speeds(path: Path) -> str:
    """Return what `benchmarks/inference.py` measured as Markdown: a row for each form of the network."""
    held = json.loads(path.read_text(encoding="utf-8"))
    shapes = [*dict.fromkeys((row["variant"], row["batch"]) for row in held["rows"])]
    found = {(row["form"], row["variant"], row["batch"]): row for row in held["rows"]}
    lines = [["form", *(f"{variant}, batch {batch}" for variant, batch in shapes)]]
    for form in dict.fromkeys(row["form"] for row in held["rows"]):
        rows = [found[form, *shape] for shape in shapes]
        cells = [f"{row['speed_over_mambapy']:.2f} ({row['share_of_matrix_product_rate']:.0%})" for row in rows]
        lines.append([form, *cells])
    meant = (
        "Speeds are relative to the same network with mambapy's scan, as trained, in 32 bits (medians over repeats in "
        "turn). In brackets: the share of the rate of a large matrix product of the same precision."
    )
    return f"{_table(lines)}\n\n{_where(held)}, {held['summary']['size']} px. {meant}"


def _where(held: dict) -> str:
    """Return by which command and where a benchmark was measured."""
    machine = held["machine"]
    threads = "1 thread" if machine["threads"] == 1 else f"{machine['threads']} threads"
    return f"`{held['command']}`, {machine['processor']}, {threads}"


def planned_cost(path: Path) -> str:
    """Return what `benchmarks/plan.py` counted as Markdown: a profile's first network, then all of them together.

    A run is on one GPU, and GPUs share the runs: more of them change neither a run's memory nor its hours.
    """
    held = json.loads(path.read_text(encoding="utf-8"))
    rows, first = held["rows"], held["rows"][:1]
    head = ["profile " + held["profile"], "runs", "memory of a GPU", "hours a run"]
    head += [f"all runs on {count}" for count in ("one GPU", "four GPUs")]
    shown = [head]
    for name, chosen in ((f"`{first[0]['experiment']}`", first), (f"all {len(rows)} experiments with a network", rows)):
        hours = sum(row["runs"] * row["hours_each"] for row in chosen)
        memory, longest = (max(row[key] for row in chosen) for key in ("memory_gb", "hours_each"))
        shown.append([name, sum(row["runs"] for row in chosen), f"{memory:.0f} GB", f"{longest:.2f}"])
        shown[-1] += [f"{hours / count:.2f} h" for count in (1, 4)]
    rate = f"Hours: at an assumed {held['tflops']} x 10^12 operations a second of a GPU"
    return "\n\n".join([_table(shown), f"Last row: memory and hours of the largest run. {rate} (`{held['command']}`)."])


def _table(rows: list[list]) -> str:
    lines = [f"| {' | '.join(map(str, row))} |" for row in rows]
    return "\n".join([lines[0], "|---" * len(rows[0]) + "|", *lines[1:]])


def provenance(book: Path) -> str:
    """Say in one line what this book was built from: the commit, and the profiles of the executed chapters."""
    pages = [json.loads(page.read_text(encoding="utf-8")) for page in sorted((book / "notebooks").glob("*.ipynb"))]
    ran = [page["metadata"].get("papermill", {}).get("parameters", {}).get("profile") for page in pages]
    profiles = " and ".join(sorted({profile for profile in ran if profile}))
    chapters = f"{sum(map(bool, ran))} of {len(ran)} chapters executed" + (f", profile {profiles}" if profiles else "")
    commit, changes = _git(book, "rev-parse", "--short", "HEAD"), _git(book, "status", "--porcelain", "-uno")
    built = f"Built from commit {commit}{' with uncommitted changes' if changes else ''}; " if commit else ""
    return f"<p>{html.escape(f'{built}{chapters}')}.</p>"


def _git(folder: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()


def binder_button(book: Path) -> dict:
    """Return the theme's options for a button that opens a chapter on Binder; none where no repository is known.

    It is that of GitHub's machine at work, else the one that pyproject.toml names. A chapter's source has the same
    path from the repository as its page from the book: notebooks/.
    """
    project = tomllib.loads((book.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    home = project.get("urls", {}).get("Repository")
    if name := os.environ.get("GITHUB_REPOSITORY"):
        home = f"{os.environ['GITHUB_SERVER_URL']}/{name}"
    if home is None:
        return {}
    launch = {"binderhub_url": "https://mybinder.org", "notebook_interface": "jupyterlab"}
    branch = os.environ.get("GITHUB_REF_NAME", "main")
    return {"repository_url": home, "repository_branch": branch, "path_to_docs": "", "launch_buttons": launch}


def use_values(app, config):
    """Offer the glued values to MyST; give every page the provenance at its foot, and chapters a button."""
    config.myst_substitutions = glued_values(Path(app.srcdir))
    config.html_theme_options["extra_footer"] = provenance(Path(app.srcdir))
    config.html_theme_options |= binder_button(Path(app.srcdir))


def write_badge(app, exception):
    """Put the badge of the committed records beside the pages."""
    if exception is None and app.builder.format == "html":
        write_json(Path(app.outdir) / "records.json", records_badge(Path(app.srcdir).parent / "results"))


def name_figures(app, doctree):
    """Give every output figure, whose text would be its file's name, its headline as text, or else its section."""
    for image in doctree.findall(nodes.image):
        if image.get("alt", image["uri"]) == image["uri"]:
            section = image.parent
            while section.parent and not isinstance(section, nodes.section):
                section = section.parent
            title = section.next_node(nodes.title)
            if headline := headline_of(Path(app.srcdir, image["uri"])):
                image["alt"] = headline
            elif title is not None:
                image["alt"] = f"Figure: {title.astext()}"


def headline_of(file: Path) -> str:
    """Return the title of a picture's file, where `mammo_lib.figures` writes a figure's headline; "" if it has none."""
    if file.suffix == ".svg":
        return ElementTree.parse(file).findtext("{http://www.w3.org/2000/svg}title", "")
    if file.suffix == ".png":
        with Image.open(file) as picture:
            return picture.info.get("Title", "")
    return ""


def setup(app):
    """Stage the notebooks before Sphinx looks for pages."""
    waiting = stage(Path(app.srcdir))
    if waiting:
        logger.info("stage_notebooks: %d notebook(s) shown without results", waiting)
    app.connect("config-inited", use_values, priority=100)  # before myst-parser reads its settings
    app.connect("doctree-read", name_figures)
    app.connect("build-finished", write_badge)
    return {"version": "1.0", "parallel_read_safe": True}
