"""Wording: estimates with their bounds, tables as the pages show them, and text that no page reads as markup."""

import ast
import html
import json
import re

import pandas as pd
import pytest

from mammo_lib.analysis import wording
from mammo_lib.config import ROOT

EVIL = "<img src=x onerror=alert(1)> $\\frac{1$ | `{role}` [a](b) {{ verdicts }} *b* _c_\n# d"


def test_readable_merges_an_estimate_with_its_bounds():
    table = pd.DataFrame(
        {
            "experiment": ["no_seqmoe"], "difference": [0.01], "difference_low": [-0.02], "difference_high": [0.04],
            "p_auc": [0.0001], "n": [149], "matched": [True], "parameters": [1.25e6], "published": [0.8322],
        }
    )  # fmt: skip
    shown = wording.readable(table)
    assert shown.iloc[0].to_dict() == {
        "experiment": "no seqmoe", "difference": "+0.010 (-0.020 to +0.040)", "p auc": "< 0.001", "n": "149",
        "matched": "yes", "parameters": "1.25 M", "published": "0.8322",
    }  # fmt: skip


@pytest.mark.parametrize("name", wording.DECISIVE)
def test_a_verdict_stands_behind_the_names_of_its_row(name):
    late = pd.DataFrame({"of": ["a"], "metric": ["auc"], "ours": [0.8], "ours_low": [0.7], "ours_high": [0.9]})
    assert [*wording.readable(late.assign(**{name: "yes"}))] == ["of", "metric", name, "ours"]
    early = pd.DataFrame({"name": ["a"], name: ["yes"], "n": [149], "p": [0.5]})
    assert [*wording.readable(early)] == [*early]


def test_a_shown_table_has_no_index_and_its_texts_stand_on_the_left():
    table = pd.DataFrame({"seen_in": [EVIL], "auc": [0.8], "auc_low": [0.7], "auc_high": [0.9]}, index=["row 7"])
    page = wording.shown(table).to_html()
    cells = [html.unescape(cell) for cell in re.findall(r"<t[hd]\b[^>]*>(.*?)</t[hd]>", page, re.DOTALL)]
    assert cells == ["seen in", "auc", EVIL, "0.800 (0.700 to 0.900)"]
    assert "<img" not in page
    assert re.findall(r"\.(col\d+) \{\s*text-align: left;", page) == ["col0"]


def test_folded_tables_are_below_one_line():
    text = wording.folded("Numbers <3", pd.DataFrame({"name": ["<b>"]}), pd.DataFrame()).data
    assert text.startswith("<details><summary>Numbers &lt;3</summary>") and text.count("<table") == 2
    assert "&lt;b&gt;" in text and "<b>" not in text


def test_markup_in_text_is_shown_and_not_obeyed():
    markdown_it = pytest.importorskip("markdown_it")  # of the extra that builds the book
    page = markdown_it.MarkdownIt("commonmark").render(f"Why: {wording.as_text(EVIL)}.")
    shown = re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]+>", " ", page))).strip()
    assert shown == f"Why: {' '.join(EVIL.split())}."
    assert set(re.findall(r"<(\w+)", page)) == {"p"}


def test_every_table_of_a_chapter_escapes_its_cells():
    # Cells of the tables reach the book as HTML: a Styler escapes only where it is told to, in its last format.
    unescaped = []
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            source = "".join(cell["source"])
            if cell["cell_type"] == "code" and ".style" in source:
                formats = [
                    node
                    for node in ast.walk(ast.parse(source))
                    if isinstance(node, ast.Call) and "style" in _chain(node.func) and _chain(node.func)[0] == "format"
                ]
                n_stylers = sum(isinstance(n, ast.Attribute) and n.attr == "style" for n in ast.walk(ast.parse(source)))
                escaped = sum(any(word.arg == "escape" for word in node.keywords) for node in formats)
                if not (n_stylers == len(formats) == escaped):
                    unescaped.append(f"{path.name}: {source}")
    assert not unescaped, unescaped


def _chain(node) -> list[str]:
    """Return the names of a chain of attributes and calls, the last one first."""
    names = []
    while isinstance(node, (ast.Attribute, ast.Call)):
        names += [node.attr] if isinstance(node, ast.Attribute) else []
        node = node.value if isinstance(node, ast.Attribute) else node.func
    return names
