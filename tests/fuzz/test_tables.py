"""Many damaged tables and JSON files: each is read with its original content, or refused in one line."""

import csv
import io
import os
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest

from mammo_lib.analysis.published import read_published
from mammo_lib.analysis.tables import did_not_help
from mammo_lib.config import RunConfig, load_config
from mammo_lib.data.cbis_ddsm.audit import load_manifest
from mammo_lib.data.cbis_ddsm.sources import open_source
from mammo_lib.data.cbis_ddsm.tables import TABLES, read_tables, table_fingerprint
from mammo_lib.data.cohort import build_cohort, patients_on_both_sides
from mammo_lib.data.external.cmmd import read_clinical_table
from mammo_lib.runs.records import COMMITTED, Run, all_runs

from .counts import Counts, came_of, judge, state_of


@dataclass(frozen=True)
class Given:
    """One file that somebody gives, and the public function that reads it."""

    name: str
    path: Path
    read: Callable


def cohorts(root: Path) -> list:
    """Return everything that training and scoring take from the tables: who, with which label, with which files."""
    table = read_tables(root)
    assert not patients_on_both_sides(table[table["lesion_type"] == "mass"])
    found = [build_cohort(table, "paper", split) for split in ("train", "test")]
    return [table_fingerprint(table), *(one.map(lambda x: sorted(x) if isinstance(x, tuple) else x) for one in found)]


def inputs(home: Path, phantom_of: Callable) -> list[Given]:
    """Write one of each file below ``home``; ``phantom_of`` returns the phantom of a layout."""
    layouts = ("classic", "kaggle", "mirror-800")
    phantoms = {layout: shutil.copytree(phantom_of(layout), home / layout) for layout in layouts}
    tables = home / "tables"
    tables.mkdir()
    for name in TABLES:
        shutil.copy(phantoms["classic"] / name, tables)
    cohort = build_cohort(read_tables(tables), "paper", "train")
    run = shutil.copytree(next(run.folder for run in all_runs(COMMITTED) if (run.folder / "history.csv").is_file()),
                          home / "run")  # fmt: skip
    (run / "manifest.json").unlink()  # which lets no change pass, harmless or not
    (home / "config.json").write_text(RunConfig().model_dump_json(indent=1))
    (home / "CMMD_clinicaldata_revision.csv").write_text(
        "ID1,LeftRight,Age,number,abnormality,classification,subtype\nD1-0001,L,44,2,mass,Malignant,Luminal A\n"
        "D1-0002,R,51,2,both,Benign,\n"
    )
    for path in (COMMITTED / "what_did_not_help.csv", COMMITTED.parent / "book" / "published.csv"):
        shutil.copy(path, home)

    def located(root):
        return lambda: open_source(root).locate(cohort).astype(str).to_dict()

    mirror, kaggle = phantoms["mirror-800"] / "mass-800", phantoms["kaggle"] / "csv"
    return [
        *(Given(name, tables / name, lambda: cohorts(tables)) for name in TABLES),
        Given("dicom_info.csv", kaggle / "dicom_info.csv", located(phantoms["kaggle"])),
        Given("lesion_boxes.csv", mirror / "lesion_boxes.csv", located(phantoms["mirror-800"])),
        Given("original_size_estimate.csv", mirror / "original_size_estimate.csv", located(phantoms["mirror-800"])),
        Given(
            "CMMD_clinicaldata_revision.csv",
            home / "CMMD_clinicaldata_revision.csv",
            lambda: read_clinical_table(home).astype(str).to_dict("list"),
        ),
        Given("history.csv", run / "history.csv", lambda: Run(run).history.to_dict("list")),
        Given("what_did_not_help.csv", home / "what_did_not_help.csv", lambda: did_not_help(home).to_dict("list")),
        Given("published.csv", home / "published.csv", lambda: read_published(home / "published.csv").to_dict("list")),
        Given("phantom.json", phantoms["classic"] / "phantom.json", lambda: load_manifest(phantoms["classic"])),
        Given("config.json", home / "config.json", lambda: load_config(home / "config.json")),
    ]


def rewritten(change: Callable, separator: str = ",") -> Callable:
    """Return what parses a CSV file, changes its rows (a list of lists, the header first) and writes it again."""

    def mutate(draw: random.Random, content: bytes) -> bytes:
        rows = list(csv.reader(io.StringIO(content.decode(), newline="")))
        change(draw, rows)
        text = io.StringIO(newline="")
        csv.writer(text, delimiter=separator, lineterminator="\n").writerows(rows)
        return text.getvalue().encode()

    return mutate


STRANGE = (
    "", " ", "abc", "0", "-1", "1e30", "inf", "nan", "1,5", "0x10", "True", "../../evil", "<img src=x onerror=1>",
    "=1+1", "#REF!", "\u0664", "\u4e73\u817a", "a\nb", "\u202e", "x" * 100_000, "P_00001", "MALIGNANT", "LEFT",
)  # fmt: skip


def change_cell(draw, rows):
    row = draw.choice(rows)
    row[draw.randrange(len(row))] = draw.choice(STRANGE)


def change_column(draw, rows):
    column = draw.randrange(len(rows[0]))
    value = draw.choice((lambda x: x + ".0", lambda x: "", lambda x: x.lower(), lambda x: x[:2], lambda x: f"['{x}']",
                         lambda x: x.replace("0", ""), lambda x: x.replace("Training", "Test")))  # fmt: skip
    for row in rows[1:]:
        row[column] = value(row[column])


def swap_cells(draw, rows):
    row = draw.choice(rows[1:])
    one, other = draw.randrange(len(row)), draw.randrange(len(row))
    row[one], row[other] = row[other], row[one]


def drop_column(draw, rows):
    column = draw.randrange(len(rows[0]))
    for row in rows:
        del row[column]


def double_column(draw, rows):
    column = draw.randrange(len(rows[0]))
    for row in rows:
        row.append(row[column])


def flip(draw: random.Random, content: bytes) -> bytes:
    damaged = bytearray(content)
    for _ in range(draw.randint(1, 8)):
        damaged[draw.randrange(len(damaged))] = draw.randrange(32, 127)
    return bytes(damaged)


def number_everywhere(draw: random.Random, content: bytes) -> bytes:
    """Give one number of a JSON file another type."""
    places = [i for i, byte in enumerate(content) if chr(byte).isdigit()]
    place = draw.choice(places)
    new = draw.choice((b"[]", b"{}", b'"x"', b"null", b"true", b"1e999", b"NaN", b"-", b"9" * 5000, b"[" * 5000))
    return content[:place] + new + content[place + 1 :]


# What changes nothing in what a file says, for every CSV file; and what may be read or refused.
HARMLESS = {
    "UTF-8 with a mark": lambda draw, content: b"\xef\xbb\xbf" + content,
    "Windows line ends": lambda draw, content: content.replace(b"\n", b"\r\n"),
    "sep= line": lambda draw, content: b"sep=,\r\n" + content,
    "semicolons": rewritten(lambda draw, rows: None, ";"),
    "tabs": rewritten(lambda draw, rows: None, "\t"),
    "empty row": rewritten(lambda draw, rows: rows.insert(draw.randint(1, len(rows)), [""] * len(rows[0]))),
    "column without a name": rewritten(lambda draw, rows: [row.insert(0, str(i or "")) for i, row in enumerate(rows)]),
}
HARMLESS_IN_TABLES = {
    "repeated row": rewritten(lambda draw, rows: rows.append(draw.choice(rows[1:]))),
    "rows in another order": rewritten(lambda draw, rows: rows.append(rows.pop(1))),
    "space behind a cell": rewritten(
        lambda draw, rows: rows.__setitem__(1, [cell + " " * (draw.random() < 0.5) for cell in rows[1]])
    ),
    "folders before the case": lambda draw, content: content.replace(b"Mass-", b"CBIS-DDSM/Mass-"),
}
DAMAGED = {
    "UTF-16": lambda draw, content: content.decode().encode("utf-16"),
    "UTF-16 without a mark": lambda draw, content: content.decode().encode("utf-16-le"),
    "Latin-1": lambda draw, content: content + "\nä,ö".encode("latin-1"),
    "cut": lambda draw, content: content[: draw.randrange(len(content))],
    "NUL": lambda draw, content: content.replace(b",", b",\0", 1),
    "changed characters": flip,
    "random bytes": lambda draw, content: draw.randbytes(500),
    "a web page": lambda draw, content: b"<html><body>404, not found</body></html>",
    "a picture": lambda draw, content: b"\xff\xd8\xff\xe0" + draw.randbytes(500),
    "unclosed quote": lambda draw, content: content + b'"x',
    "twice in one file": lambda draw, content: content + content,
}
DAMAGED_CSV = {
    "strange cell": rewritten(change_cell),
    "changed column": rewritten(change_column),
    "swapped cells": rewritten(swap_cells),
    "dropped row": rewritten(lambda draw, rows: rows.pop(draw.randrange(len(rows)))),
    "dropped column": rewritten(drop_column),
    "doubled column": rewritten(double_column),
    "short row": rewritten(lambda draw, rows: draw.choice(rows).pop()),
}
DAMAGED_JSON = {
    "another type": number_everywhere,
    "a list": lambda draw, content: b"[" + content + b"]",
    "dropped line": lambda draw, content: b"\n".join(
        line for i, line in enumerate(content.split(b"\n")) if i != draw.randrange(1, 8)
    ),
}
IN_THE_WAY = {"a folder": Path.mkdir, "a pipe": os.mkfifo}


def kinds_for(given: Given) -> dict[str, dict[str, Callable]]:
    """Return {harmless, damaged: {kind: mutation}} of an input."""
    if given.path.suffix == ".json":
        return {"harmless": {"UTF-8 with a mark": HARMLESS["UTF-8 with a mark"]}, "damaged": DAMAGED | DAMAGED_JSON}
    mine = HARMLESS_IN_TABLES if given.name in TABLES else {}
    return {"harmless": HARMLESS | mine, "damaged": DAMAGED | DAMAGED_CSV}


def same(found, before) -> bool:
    """Whether two answers are equal, tables and NaN included."""
    if isinstance(found, pd.DataFrame):
        return found.equals(before)
    if isinstance(found, list):
        return len(found) == len(before) and all(map(same, found, before))
    return repr(found) == repr(before)


def fuzz(home: Path, phantom_of: Callable, n: int, seed: int) -> Counts:
    """Give ``n`` damaged files, as many of each; return what came of them: harmless changes must change nothing."""
    draw, counts = random.Random(seed), Counts()
    given_files = inputs(home, phantom_of)
    before = {given.name: given.read() for given in given_files}
    for number in range(n):
        given = given_files[number % len(given_files)]
        kinds = kinds_for(given)
        content = given.path.read_bytes()
        effect = draw.choice(("harmless", "damaged", "damaged"))
        kind = draw.choice([*kinds[effect], *(IN_THE_WAY if effect == "damaged" else ())])
        given.path.unlink()
        if kind in IN_THE_WAY:
            IN_THE_WAY[kind](given.path)
        else:
            given.path.write_bytes(kinds[effect][kind](draw, content))
        state, wanted = state_of(home), before[given.name]
        came, why = came_of(given.read, lambda found, wanted=wanted: same(found, wanted))
        if effect == "harmless" and came != "read as before":
            came, why = "other answers", f"{came}, though nothing was changed in what it says: {why}"
        came = "writes outside" if state_of(home) != state else came
        counts.add(given.name, kind, came, f"input {number} of seed {seed}: {why}")
        if given.path.is_dir():
            given.path.rmdir()
        else:
            given.path.unlink()
        given.path.write_bytes(content)
    return counts


def test_damaged_tables_are_read_or_refused(tmp_path, phantom_of, record_property):
    counts = fuzz(tmp_path, phantom_of, 40, seed=0)
    judge(counts, record_property)
    assert counts.table["inputs"].sum() == 40
    assert counts.table["refused in one line"].sum() > 12


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_many_damaged_tables_are_read_or_refused(tmp_path, phantom_of, record_property, seed):
    judge(fuzz(tmp_path, phantom_of, 1000, seed), record_property)
