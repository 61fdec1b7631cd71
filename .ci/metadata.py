"""Write codemeta.json, .zenodo.json, and the README's badges and findings: python .ci/metadata.py

Sources are pyproject.toml, CITATION.cff and results/. A test compares the committed files with what this script writes.
"""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from urllib.parse import quote

import yaml

from mammo_lib.analysis.headlines import headlines
from mammo_lib.analysis.wording import in_words
from mammo_lib.runs import records_badge

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
CITATION = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
KINDS = {"article": "ScholarlyArticle", "data": "Dataset"}


def identifier(reference: dict) -> str:
    """Return the address of a reference in CITATION.cff: that of its DOI, else of the arXiv number in its notes."""
    if "doi" in reference:
        return f"https://doi.org/{reference['doi']}"
    return "https://arxiv.org/abs/" + re.search(r"arXiv:(\S+)", reference["notes"])[1]


def as_author(person: dict) -> dict:
    """Return a person or an entity of CITATION.cff in the words of schema.org."""
    if "name" in person:
        return {"@type": "Organization", "name": person["name"]}
    return {"@type": "Person", "givenName": person["given-names"], "familyName": person["family-names"]}


def codemeta() -> dict:
    """Return the content of codemeta.json (CodeMeta 3.0)."""
    references = [
        {"@type": KINDS[one["type"]], "@id": identifier(one), "name": one["title"],
         "author": [as_author(person) for person in one["authors"]], "datePublished": str(one["year"])}
        for one in CITATION["references"]
    ]  # fmt: skip
    return {
        "@context": "https://w3id.org/codemeta/3.0",
        "@type": "SoftwareSourceCode",
        "identifier": PROJECT["name"],
        "name": CITATION["title"],
        "description": PROJECT["description"],
        "version": CITATION["version"],
        "license": f"https://spdx.org/licenses/{CITATION['license']}",
        "author": [as_author(person) for person in CITATION["authors"]],
        "keywords": PROJECT["keywords"],
        "programmingLanguage": {"@type": "ComputerLanguage", "name": "Python"},
        "runtimePlatform": f"Python {PROJECT['requires-python']}",
        "operatingSystem": ["Linux", "macOS", "Windows"],
        "softwareRequirements": PROJECT["dependencies"],
        "referencePublication": references[0],
        "citation": references[1:],
    }


def zenodo() -> dict:
    """Return the content of .zenodo.json, which Zenodo reads when a release is made."""
    relations = {"article": "isDerivedFrom", "data": "references"}
    return {
        "title": CITATION["title"],
        "description": PROJECT["description"],
        "upload_type": "software",
        "access_right": "open",
        "license": CITATION["license"],
        "version": CITATION["version"],
        "creators": [{"name": person["name"]} for person in CITATION["authors"]],
        "keywords": PROJECT["keywords"],
        "related_identifiers": [
            {"identifier": identifier(one), "relation": relations[one["type"]]} for one in CITATION["references"]
        ],
    }


def badges(urls: dict[str, str]) -> str:
    """Return the README's badges: the reproduced records, and the state of tests and book if the project is published.

    ``urls`` are those of pyproject.toml. If ``Documentation``, the published book, is one of them, the first badge
    shows the book's `records.json`. Until then it shows the content of the committed file.
    """
    badge = records_badge(ROOT / "results")
    image = "badge/" + "-".join(quote(badge[key].replace("-", "--"), safe="") for key in ("label", "message", "color"))
    if book := urls.get("Documentation"):
        image = f"endpoint?url={quote(book.rstrip('/') + '/records.json', safe='')}"
    shown = ["[![records reproduced][records]](book/verified.md)"]
    if home := urls.get("Repository"):
        flows = {name: f"{home.rstrip('/')}/actions/workflows/{name}.yml" for name in ("tests", "book")}
        shown += [f"[![{name}]({flow}/badge.svg)]({flow})" for name, flow in flows.items()]
    return "\n".join([*shown, "", f"[records]: https://img.shields.io/{image}"])


def findings_table() -> str:
    """Return the README's findings: a row for each comparison, its answer from the records, and the chapter."""
    lines = ["| question | compared | difference in AUC | answer | remark | chapter |", "|---|---|---|---|---|---|"]
    table = headlines()
    table["question"] = table["question"].mask(table["question"].duplicated(), "")
    for row in table.to_dict("records"):
        chapter = f"[{row['chapter'].partition('_')[0]}](notebooks/{row['chapter']}.ipynb)"
        told = (row["question"], row["compared"], in_words(row, "difference"), row["answer"], row["remark"], chapter)
        lines.append(f"| {' | '.join(told)} |")
    return "\n".join(lines)


def readme() -> str:
    """Return the README with its badges and its findings, each between two comments."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for name, content in (("badges", badges(PROJECT.get("urls", {}))), ("findings", findings_table())):
        head, begin, rest = text.partition(f"<!-- {name}, written by .ci/metadata.py -->\n")
        _, end, tail = rest.partition(f"\n<!-- end of {name} -->")
        text = head + begin + content + end + tail
    return text


FILES = {"codemeta.json": codemeta, ".zenodo.json": zenodo}

if __name__ == "__main__":
    for name, content in FILES.items():
        (ROOT / name).write_text(json.dumps(content(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    (ROOT / "README.md").write_text(readme(), encoding="utf-8")
