"""The published tables: every repair named, other spellings the same table, and what is refused."""

import json
import os
import re
import shutil
from pathlib import Path

import pytest

from mammo_lib.data.cbis_ddsm import defects
from mammo_lib.data.cbis_ddsm import tables as t
from mammo_lib.errors import InputError

MANIFEST = json.loads((Path(__file__).parents[3] / "data_manifest" / "cbis_ddsm.json").read_text())
REAL = os.environ.get("MAMMO_DATA")
needs_real_data = pytest.mark.skipif(not REAL, reason="MAMMO_DATA is not set: needs the real CBIS-DDSM tables")


@pytest.fixture(scope="module")
def real_table():
    return t.read_tables(REAL)


@pytest.fixture(scope="module")
def table(phantom_root):
    return t.read_tables(phantom_root)


@pytest.fixture
def copy(phantom_root, tmp_path):
    """A copy of the phantom's tables that a test may damage."""
    for path in phantom_root.glob(t.TABLE_PATTERN):
        shutil.copy(path, tmp_path)
    return tmp_path


@needs_real_data
def test_real_tables_have_the_manifests_rows(real_table):
    for name, expected in MANIFEST["tables"].items():
        part = real_table[real_table["table"] == Path(name).stem]
        assert (len(part), part["patient_id"].nunique()) == (expected["rows"], expected["patients"])
        assert part["pathology"].value_counts().sort_index().to_dict() == expected["pathology"]


def test_repairs_are_named_and_counted(table, phantom_root):
    planted = json.loads((phantom_root / "phantom.json").read_text())["planted"]
    repairs = table["repairs"].str.split(",").explode().value_counts()
    assert repairs[["newline in crop_path", "newline in mask_path"]].sum() == planted[defects.NEWLINE]
    assert repairs["density 0 is unknown"] == planted[defects.DENSITY] == table["density"].isna().sum()
    assert not table[["image_path", "crop_path", "mask_path"]].melt()["value"].str.contains("\n").any()


def test_other_line_ends_and_na_spelling_are_the_same_table(table, copy):
    for path in copy.glob(t.TABLE_PATTERN):
        text = path.read_text().replace("breast density", "breast_density")
        path.write_bytes(text.replace("\n", "\r\n").encode())
    assert t.table_fingerprint(t.read_tables(copy)) == t.table_fingerprint(table)
    changed = table.assign(pathology="BENIGN")
    assert t.table_fingerprint(changed) != t.table_fingerprint(table)


def written(kind, old, new):
    """Return what writes ``new`` in place of the first ``old`` of a test table."""

    def damage(folder):
        path = folder / f"{kind}_case_description_test_set.csv"
        path.write_text(path.read_text().replace(old, new, 1))

    return damage


def empty_patient(folder):
    path = folder / "mass_case_description_test_set.csv"
    header, first, *rest = path.read_text().split("\n")
    path.write_text("\n".join([header, "," + first.split(",", 1)[1], *rest]))


def swap(folder):
    a, b = (folder / f"mass_case_description_{split}_set.csv" for split in ("train", "test"))
    aside = a.rename(folder / "aside")
    b.rename(a)
    aside.rename(b)


def strange_density(folder):
    path = folder / "mass_case_description_test_set.csv"
    path.write_text(re.sub(r"(P_\d+),\d,", r"\1,7,", path.read_text(), count=1))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (swap, r"mass_case_description_test_set\.csv, row 2: a row of Mass-Training in this table; tables are swapped"),
        (strange_density, r"mass_case_.*row 2: density must be 1 to 4, got 7"),
        (lambda f: [p.unlink() for p in f.iterdir()], r"no \*_case_description_\*_set\.csv here"),
        (
            lambda f: (f / "mass_case_description_test_set.csv").unlink(),
            r"mass_case_description_test_set\.csv: missing, while",
        ),
        (lambda f: [p.unlink() for p in f.glob("mass_*")], r"mass_case_description_train_set\.csv: missing"),
        (
            written("mass", "pathology", "diagnosis"),
            r"mass_case_description_test_set\.csv: column 'pathology' is missing",
        ),
        (
            written("mass", ",LEFT,", ",LINKS,"),
            r"mass_case_.*row \d+: laterality must be one of LEFT, RIGHT, got 'LINKS'",
        ),
        (
            written("calc", ",CC,1,", ",CC,one,"),
            r"calc_case_.*row \d+: abnormality_id must be a whole number, got 'one'",
        ),
        (
            written("mass", ",CC,1,", ",CC,1.5,"),
            r"mass_case_.*row \d+: abnormality_id must be a whole number, got '1\.5'",
        ),
        (empty_patient, r"mass_case_.*row 2: 'patient_id' is empty"),
        (lambda f: (f / "mass_case_description_test_set.csv").write_text(""), r"mass_case_.*not a readable CSV"),
    ],
)
def test_damaged_tables_are_one_clear_line(copy, damage, message):
    damage(copy)
    with pytest.raises(InputError, match=message) as caught:
        t.read_tables(copy)
    assert "\n" not in str(caught.value)
