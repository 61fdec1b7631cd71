"""The book as a reader opens it, from disk: it builds without a warning, and every page works in a browser."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from mammo_lib.analysis import published, wording
from mammo_lib.config import get_profile
from mammo_lib.data.data_sets import open_collection
from mammo_lib.runs.evaluate import finished_runs

ROOT = Path(__file__).resolve().parents[1]
CHAPTER, VERDICTS = "00_the_paper_and_its_numbers", "12_verdicts"
# One page of each kind is opened at every test run, all of them with the slow tests.
SHOWN = ("intro", f"notebooks/{CHAPTER}", f"notebooks/{VERDICTS}", "protocol-2", "verified", "backbone", "api_models")
NOT_SOURCES = (".git", ".venv", "_build", "results", "tests", "__pycache__", ".*_cache", "*.egg-info")
HARMLESS = (
    # The theme preloads fonts, which a browser refuses from file://; its icons are SVG and need none.
    r"Access to font at 'file:///.*' from origin 'null' has been blocked by CORS policy.*",
    r"Failed to load resource: net::ERR_FAILED",
    # Said by the theme at the first visit, when no one has chosen light or dark yet.
    r"Got invalid theme mode: \. Resetting to auto\.",
    # sphinx-thebe declares this on every page, twice.
    r"Identifier 'THEBE_JS_URL' has already been declared",
)
PICTURES = {"image/svg+xml", "image/png"}
ERRORS = ("Traceback (most recent call last)", "An Exception was encountered")
RESIDUE = ("█", "%|", "it/s]", "s/it]", "<IPython.core", "<Figure size", " object at 0x")  # of bars, of displays


def executed(page: Path) -> bool:
    return page.is_file() and not json.loads(page.read_text(encoding="utf-8"))["metadata"].get("staged")


def shorten(copy: Path) -> None:
    """Leave one module on each page of the API, and no page of source code: half of what a build costs."""
    settings = copy / "_config.yml"
    settings.write_text(
        settings.read_text(encoding="utf-8").replace("    - sphinx.ext.viewcode\n", ""), encoding="utf-8"
    )
    for page in (copy / "book").glob("api_*.md"):
        title, first, *_ = page.read_text(encoding="utf-8").split("\n## ")
        page.write_text(f"{title}\n## {first}", encoding="utf-8")


def show_verdicts(copy: Path) -> None:
    """Put the table of verdicts on its page, from committed records; to execute the chapter takes half a minute."""
    profile = get_profile("mirror")
    runs = finished_runs(profile, "all", open_collection(profile, sample=True))
    table = wording.shown(published.beside_paper(published.read_published(), runs, profile).drop(columns="why"))
    notebook = json.loads((copy / "notebooks" / f"{VERDICTS}.ipynb").read_text(encoding="utf-8"))
    [cell] = [cell for cell in notebook["cells"] if "wording.shown(beside" in "".join(cell["source"])]
    cell["outputs"] = [{"output_type": "display_data", "data": {"text/html": table.to_html()}, "metadata": {}}]
    (copy / "book" / "notebooks" / f"{VERDICTS}.ipynb").write_text(json.dumps(notebook), encoding="utf-8")


@pytest.fixture(scope="module")
def book(request, tmp_path_factory):
    """The HTML of a copy of this checkout with whatever has been executed in it, and at least the first chapter.

    The verdicts' page has at least its first table. Without the slow tests, the pages of the API are short ones.
    """
    import papermill

    copy = shutil.copytree(
        ROOT, tmp_path_factory.mktemp("book") / "copy", ignore=shutil.ignore_patterns(*NOT_SOURCES), symlinks=True
    )
    if not any(item.path == request.path and item.get_closest_marker("slow") for item in request.session.items):
        shorten(copy)
    page = copy / "book" / "notebooks" / f"{CHAPTER}.ipynb"
    if not executed(page):
        source = copy / "notebooks" / page.name
        papermill.execute_notebook(source, page, {"profile": "smoke"}, cwd=source.parent, progress_bar=False)
    if not executed(page.with_name(f"{VERDICTS}.ipynb")):
        show_verdicts(copy)
    command = [sys.executable, "-c", "from jupyter_book.cli.main import main; main()", "build", "-W", "--keep-going"]
    done = subprocess.run([*command, "-q", "book/"], cwd=copy, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return copy


def pages() -> list[str]:
    toc = yaml.safe_load((ROOT / "book" / "_toc.yml").read_text())
    chapters = [chapter for part in toc["parts"] for chapter in part["chapters"]]
    return [toc["root"], *(one["file"] for chapter in chapters for one in (chapter, *chapter.get("sections", [])))]


def html(book: Path, name: str) -> Path:
    return book / "_build" / "html" / f"{name}.html"


def test_every_page_of_the_contents_is_built_and_linked_from_the_front_page(book):
    front = html(book, "intro").read_text(encoding="utf-8")
    for name in pages():
        assert html(book, name).is_file()
        assert name == "intro" or f'href="{name}.html"' in front


@pytest.mark.parametrize("name", ["protocol", *(f"protocol-{n}" for n in range(2, 12)), "protocol-external"])
def test_a_protocol_links_to_its_errata(book, name):
    assert 'href="protocol-errata.html"' in html(book, name).read_text(encoding="utf-8").split("<article")[1]


def test_the_first_protocol_says_third_look(book):
    assert "third look" in html(book, "protocol").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def browser():
    """Debian's Chromium, or any other that is installed; none is downloaded."""
    from playwright.sync_api import sync_playwright

    names = ("chromium", "chromium-browser", "google-chrome", "chrome")
    path = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, names)), None)
    if path is None:
        pytest.skip("no Chromium installed (Debian: apt-get install chromium; or set CHROMIUM)")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        yield chromium
        chromium.close()


@pytest.fixture
def tab(browser):
    """A page that keeps what it complained about and what it asked for outside the disk."""
    context = browser.new_context(viewport={"width": 1200, "height": 900})
    page = context.new_page()
    page.complaints, page.outside = [], []
    page.on("pageerror", lambda error: page.complaints.append(error.message))
    page.on("console", lambda message: message.type == "error" and page.complaints.append(message.text))
    page.on("request", lambda request: page.outside.append(request.url))
    yield page
    context.close()


def complaints(tab) -> list[str]:
    return [text for text in tab.complaints if not any(re.fullmatch(known, text, re.S) for known in HARMLESS)]


def outside(tab) -> list[str]:
    return [url for url in tab.outside if not url.startswith(("file:", "data:", "blob:"))]


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in SHOWN else pytest.mark.slow) for name in pages()]
)
def test_a_page_shows_what_it_should_and_asks_nobody(tab, book, name):
    tab.goto(html(book, name).as_uri(), wait_until="load")
    tab.evaluate("document.querySelectorAll('img').forEach(image => image.loading = 'eager')")
    tab.wait_for_function("[...document.images].every(image => image.complete)")
    assert tab.evaluate("[...document.images].filter(i => i.naturalWidth == 0).map(i => i.src)") == []
    article, outputs = tab.inner_text("article"), " ".join(tab.locator("article .cell_output").all_inner_texts())
    assert [words for words in ERRORS if words in article] == []
    assert [words for words in RESIDUE if words in outputs] == []
    assert tab.evaluate("document.querySelectorAll('article .system-message').length") == 0
    assert complaints(tab) == []
    assert outside(tab) == []
    tab.set_viewport_size({"width": 390, "height": 800})  # a phone
    assert tab.evaluate("document.documentElement.scrollWidth") <= 390


@pytest.mark.slow
@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("name", pages())
def test_everyone_can_read_a_page(tab, book, name, theme):
    """Contrast, names of pictures and controls, order of headings and what else axe examines."""
    from axe_playwright_python.sync_playwright import Axe

    tab.goto(html(book, name).as_uri(), wait_until="load")
    tab.evaluate("theme => { document.documentElement.dataset.theme = theme }", theme)
    tab.evaluate("Promise.all(document.getAnimations().map(one => one.finished))")  # colours fade from one to the other
    found = Axe().run(tab).response["violations"]
    serious = [one for one in found if one["impact"] in ("serious", "critical")]
    assert [(one["id"], [node["target"] for node in one["nodes"]]) for one in serious] == []


def test_an_executed_chapter_has_every_figure_of_its_notebook(tab, book):
    notebooks = [path for path in sorted((book / "book" / "notebooks").glob("*.ipynb")) if executed(path)]
    assert CHAPTER in [path.stem for path in notebooks]
    for path in notebooks:
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        outputs = [output for cell in cells for output in cell.get("outputs", [])]
        figures = sum(bool(PICTURES & output.get("data", {}).keys()) for output in outputs)
        tab.goto(html(book, f"notebooks/{path.stem}").as_uri())
        assert tab.locator("article .cell_output img").count() == figures, path.name


def test_a_figure_is_described_by_its_headline(tab, book):
    cells = json.loads((book / "book" / "notebooks" / f"{CHAPTER}.ipynb").read_text(encoding="utf-8"))["cells"]
    about = [one for cell in cells for output in cell.get("outputs", []) for one in output.get("metadata", {}).values()]
    tab.goto(html(book, f"notebooks/{CHAPTER}").as_uri())
    images, headings = tab.locator("article .cell_output img").all(), tab.locator("article h2").all_inner_texts()
    texts = [image.get_attribute("alt") for image in images]
    assert len(texts) > 1
    assert [text for text in texts if text.endswith(tuple(heading.rstrip("#") for heading in headings))] == []
    assert texts == [one["alt"] for one in about if "alt" in one]


# The cells of a column, and whether each lies within the window and within whatever box scrolls its table.
COLUMN_IN_VIEW = """names => [...document.querySelectorAll("article table")].flatMap(table => {
  const at = [...table.tHead.rows[0].cells].findIndex(cell => names.includes(cell.innerText.trim()));
  return at < 0 ? [] : [...table.rows].map(row => {
    const cell = row.cells[at].getBoundingClientRect();
    for (let box = table; box; box = box.parentElement) {
      const edge = box.getBoundingClientRect();
      const scrolls = getComputedStyle(box).overflowX != "visible";
      if (scrolls && (cell.left < edge.left - 1 || cell.right > edge.right + 1)) return false;
    }
    return cell.left >= 0 && cell.right <= innerWidth;
  });
})"""


@pytest.mark.parametrize("width", [390, 1280])
def test_a_verdict_is_in_view(tab, book, width):
    tab.set_viewport_size({"width": width, "height": 800})
    tab.goto(html(book, f"notebooks/{VERDICTS}").as_uri())
    seen = tab.evaluate(COLUMN_IN_VIEW, list(wording.DECISIVE))
    assert len(seen) > len(published.read_published())  # and the column's title
    assert all(seen)


def test_the_reader_can_walk_from_page_to_page(tab, book):
    tab.goto(html(book, "intro").as_uri())
    tab.click(f".bd-sidebar-primary a[href$='{CHAPTER}.html']")
    tab.get_by_role("heading", name="The paper and its numbers").wait_for()
    tab.click("a.right-next")
    assert tab.url.endswith("00a_what_the_paper_leaves_open.html")


def test_the_search_finds_a_word(tab, book):
    tab.goto(f"{html(book, 'search').as_uri()}?q=denominator")
    tab.wait_for_selector("ul.search li a")
    assert CHAPTER in " ".join(tab.evaluate("[...document.querySelectorAll('ul.search li a')].map(a => a.href)"))


def test_formulas_are_set_without_a_network(tab, book):
    tab.goto(html(book, "notebooks/02_ssm_as_convolution").as_uri())
    tab.wait_for_selector("mjx-container svg")
    assert tab.locator("mjx-merror").count() == 0
