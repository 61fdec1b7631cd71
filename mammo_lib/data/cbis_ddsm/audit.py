"""Compare a copy of CBIS-DDSM with the manifest in ``data_manifest/``; a phantom has its own manifest.

A contradiction is a mismatch. Content that a copy lacks is absent, which is not a fault. Raw-file hashes are only
informative, because a copy with other line endings is the same data; the hash of the canonical table decides.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import pandas as pd
from pydantic import BaseModel, ValidationError, field_validator

from ...config import MATERIAL, describe
from ...errors import InputError
from ...files import file_hash, read_json, write_bytes
from ..cohort import build_cohort, pooled_leak
from ..folders import find_images
from ..views import SPLITS
from .defects import DEFECTS, STAMP, count_file_defects, count_table_defects
from .sources import SeriesSource, open_source
from .tables import find_tables, published_name, read_tables, table_fingerprint

MANIFEST = MATERIAL / "data_manifest" / "cbis_ddsm.json"


@dataclass(frozen=True)
class Check:
    """One statement of the manifest and what was found; ``verdict`` is ``ok``, ``mismatch``, ``absent`` or ``note``."""

    part: str
    what: str
    expected: object
    found: object
    verdict: str
    example: str = ""


class PhantomManifest(BaseModel):
    """The manifest of a phantom: the number of planted defects, and the size of each split of its cohort."""

    planted: dict[str, int]
    cohort: dict[Literal["train", "test"], dict[Literal["rows", "malignant"], int]]

    @field_validator("cohort")
    @classmethod
    def _has_both_splits(cls, value):
        if set(value) != set(SPLITS):
            raise ValueError(f"must name the splits {' and '.join(SPLITS)}")
        return value


def audit_copy(root: str | Path) -> list[Check]:
    """Check the tables, cohorts, defects and images of a copy.

    Raises
    ------
    InputError
        The tables cannot be read, or there is no manifest.
    """
    root = Path(root)
    manifest = load_manifest(root)
    table = read_tables(root)
    checks = [
        *_check_tables(root, table, manifest),
        *_check_cohorts(table, manifest),
        *_check_counts("pooled split", manifest.get("leak", {}), pooled_leak(table)),
        *_check_defects(count_table_defects(table), manifest),
    ]
    try:
        source = open_source(root)
    except InputError as error:
        verdict = "mismatch" if find_images(root, "DICOM", "picture") else "absent"
        return [*checks, Check("images", "a layout that is known", "some", str(error), verdict)]
    checks.append(Check("images", "layout", None, source.kind, "note"))
    checks += _check_images(source, table)
    if isinstance(source, SeriesSource):
        checks += _check_defects(count_file_defects(table, source), manifest)
    return checks


def load_manifest(root: Path) -> dict:
    """Return the manifest of the copy below ``root``: the phantom's own, else ``data_manifest/cbis_ddsm.json``."""
    path = root / STAMP
    if not path.exists():
        return read_json(MANIFEST)
    try:
        phantom = PhantomManifest.model_validate(read_json(path, "write the phantom again"))
    except ValidationError as error:
        raise InputError(f"{path}: {describe(error, PhantomManifest)}; write the phantom again") from None
    defects = {name: {"count": count} for name, count in phantom.planted.items() if name in DEFECTS}
    return {"name": "phantom", "defects": defects, "cohorts": {"paper": phantom.cohort}}


def write_report(checks: list[Check], path: Path) -> None:
    """Write the checks as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = json.dumps([asdict(check) for check in checks], indent=1, default=str) + "\n"
    write_bytes(path, content.encode("utf-8"))


def checks_table(checks: list[Check]) -> pd.DataFrame:
    """Return the checks as a table, for people."""
    return pd.DataFrame([asdict(check) for check in checks])


def _check_tables(root: Path, table: pd.DataFrame, manifest: dict) -> list[Check]:
    checks = []
    if "canonical_sha256" in manifest:
        checks.append(
            _compare("tables", "hash of the canonical table", manifest["canonical_sha256"], table_fingerprint(table))
        )
    there = {published_name(path): path for path in find_tables(root)}
    for name, expected in manifest.get("tables", {}).items():
        if name not in there:
            checks.append(Check("tables", name, f"{expected['rows']} rows", "not in this copy", "absent"))
            continue
        part = table[table["table"] == Path(name).stem]
        found = {"rows": len(part), "patients": part["patient_id"].nunique()}
        found["pathology"] = part["pathology"].value_counts().sort_index().to_dict()
        checks += _check_counts(name, {key: expected[key] for key in found if key in expected}, found)
        same = file_hash(there[name]) == expected["sha256"]
        checks.append(Check(name, "the file as published", None, "yes" if same else "no, rewritten", "note"))
    return checks


def _check_cohorts(table: pd.DataFrame, manifest: dict) -> list[Check]:
    checks = []
    for definition, splits in manifest.get("cohorts", {}).items():
        for split in SPLITS:
            part = f"cohort {definition}, {split}"
            try:
                cohort = build_cohort(table, definition, split)
            except InputError as error:
                checks.append(Check(part, "samples", splits[split], str(error), "absent"))
                continue
            found = {"rows": len(cohort), "malignant": int(cohort["label"].sum())}
            found["patients"] = cohort["patient_id"].nunique()
            checks += _check_counts(part, splits[split], found)
    return checks


def _check_counts(part: str, expected: dict, found: dict) -> list[Check]:
    return [_compare(part, name, value, found[name]) for name, value in expected.items()]


def _check_defects(found: dict[str, tuple[int, str]], manifest: dict) -> list[Check]:
    known = manifest.get("defects", {})
    return [
        _compare("defects", name, known[name]["count"], count, example)
        if name in known
        else Check("defects", name, None, count, "note", example)
        for name, (count, example) in found.items()
    ]


def _check_images(source, table: pd.DataFrame) -> list[Check]:
    """Count the views of the paper's cohort that are here. A copy may be incomplete, but no file undecodable."""
    checks = []
    for split in SPLITS:
        located = source.locate(build_cohort(table, "paper", split))
        for stream, part in located[located["status"] != "absent"].groupby("stream"):
            counts = part["status"].value_counts()
            found = ", ".join(f"{n} {status}" for status, n in counts.items())
            found += f" ({int(part['derived'].sum())} derived)" if part["derived"].any() else ""
            wrong = part[part["status"] != "found"]
            verdict = "ok" if wrong.empty else "mismatch" if "undecodable" in counts else "absent"
            example = "" if wrong.empty else f"{wrong.iloc[0]['path']}: {wrong.iloc[0]['problem']}"
            checks.append(Check("images", f"paper, {split}, {stream}", f"{len(part)} views", found, verdict, example))
    return checks


def _compare(part: str, what: str, expected, found, example: str = "") -> Check:
    return Check(part, what, expected, found, "ok" if expected == found else "mismatch", example)
