"""Write codemeta.json and .zenodo.json from pyproject.toml and CITATION.cff: python .ci/metadata.py

A test compares the committed files with what this script writes.
"""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
CITATION = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
KINDS = {"article": "ScholarlyArticle", "data": "Dataset"}


def identifier(reference: dict) -> str:
    """Return the address of what CITATION.cff refers to: of its DOI, else of the arXiv number in its notes."""
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


FILES = {"codemeta.json": codemeta, ".zenodo.json": zenodo}

if __name__ == "__main__":
    for name, content in FILES.items():
        (ROOT / name).write_text(json.dumps(content(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
