"""The published tables: every repair is named, other spellings give the same table, and bad tables are refused."""

import json
import os
import re
import shutil
from pathlib import Path

import pandas as pd
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


PATHS = ["image file path", "cropped image file path", "ROI mask file path"]


def edited(folder, edit, names=t.TABLE_PATTERN):
    """Rewrite the tables of a folder, each as ``edit`` returns it."""
    for path in folder.glob(names):
        edit(pd.read_csv(path, dtype="string", keep_default_na=False)).to_csv(path, index=False)
    return folder


def paths_as(change):
    """Return what changes the three paths of every row."""
    return lambda frame: frame.assign(**{name: change(frame[name]) for name in PATHS})


HARMLESS = {
    "CBIS-DDSM/ before the case": (paths_as(lambda s: "CBIS-DDSM/" + s), "folders before the case in image_path"),
    "./ before the case": (paths_as(lambda s: "./" + s), "folders before the case in crop_path"),
    "backslashes": (paths_as(lambda s: s.str.replace("/", "\\")), "backslashes in mask_path"),
    "a drive": (paths_as(lambda s: "D:\\cbis\\" + s.str.replace("/", "\\")), "backslashes in image_path"),
    "a space behind ids": (lambda f: f.assign(patient_id=f["patient_id"] + " "), "space around patient_id"),
    "a space behind sides": (
        lambda f: f.assign(**{"left or right breast": f["left or right breast"] + "\t"}),
        "space around laterality",
    ),
    "floats": (
        lambda f: f.assign(**{name: f[name] + ".0" for name in f if "density" in name or name == "abnormality id"}),
        "density 0 is unknown",
    ),
    "every row twice": (lambda f: pd.concat([f, f]), "repeated row left out"),
}


@pytest.mark.parametrize(("edit", "repair"), HARMLESS.values(), ids=HARMLESS)
def test_what_programs_change_is_mended_and_named(copy, table, edit, repair):
    changed = t.read_tables(edited(copy, edit))
    assert t.table_fingerprint(changed) == t.table_fingerprint(table)
    assert changed["repairs"].str.contains(repair, regex=False).any()


@pytest.mark.parametrize(
    "edit",
    [
        lambda s: s + ".0",
        lambda s: "P_" + s.str[2:].str.lstrip("0"),
        lambda s: s.str[2:],
        lambda s: s.str.lower(),
        lambda s: s.str.replace("0", "\u0660"),  # an Arabic zero is a digit too
    ],
)
def test_a_changed_patient_id_is_refused(copy, edit):
    edited(copy, lambda frame: frame.assign(patient_id=edit(frame["patient_id"])))
    with pytest.raises(InputError, match=r"calc_case_.*row 2: patient_id must be P_ and five digits, got '"):
        t.read_tables(copy)


@pytest.mark.parametrize("prefix", ["", "CBIS-DDSM/", "./", "/data/cbis/", "D:\\cbis\\"])
def test_swapped_tables_are_refused_whatever_stands_before_the_case(copy, prefix):
    edited(copy, paths_as(lambda s: prefix + s))
    swap(copy)
    with pytest.raises(InputError, match="a row of Mass-Training in this table"):
        t.read_tables(copy)


def test_a_patient_in_both_tables_of_a_type_is_refused(copy, table):
    masses = table[table["lesion_type"] == "mass"]
    assert set(masses.loc[masses["split"] == "train", "patient_id"]).isdisjoint(
        masses.loc[masses["split"] == "test", "patient_id"]
    )
    train, test = (copy / f"mass_case_description_{split}_set.csv" for split in ("train", "test"))
    _header, first, *_ = train.read_text().split("\nP_")
    test.write_text(test.read_text() + "P_" + first.replace("Mass-Training", "Mass-Test") + "\n")
    with pytest.raises(InputError, match="both the train and the test table of type mass: 1, P_00001 first"):
        t.read_tables(copy)


def contradicted(frame):
    return pd.concat([frame, frame.head(1).assign(pathology="BENIGN_WITHOUT_CALLBACK")])


def other_patient(frame):
    return frame.assign(patient_id=frame["patient_id"].iloc[::-1].to_numpy())


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (contradicted, r"row \d+: pathology is 'BENIGN_WITHOUT_CALLBACK', while row 2 says .* same lesion and view"),
        (other_patient, r"row 2: image_path is of Mass-Test_P_\d+_\w+, but the row of Mass-Test_P_"),
        (
            paths_as(lambda s: "['" + s.str.strip() + "']"),
            r"row 2: image_path must name its case's folder, Mass-Test_P_",
        ),
        (paths_as(lambda s: s.str.rpartition("/")[2]), r"row 2: image_path must name its case's folder"),
        (
            lambda f: f.assign(**{"abnormality type": "calcification"}),
            r"row 2: lesion_type must be mass in this table, got 'calcification'",
        ),
        (lambda f: f.head(0), "no rows below the header"),
        (lambda f: f.assign(subtlety="1e30"), r"row 2: subtlety must be a whole number, got '1e30'"),
    ],
)
def test_rows_that_contradict_each_other_or_their_table_are_refused(copy, edit, message):
    edited(copy, edit, "mass_*_test_set.csv")
    with pytest.raises(InputError, match=message):
        t.read_tables(copy)


def test_a_copy_of_a_table_beside_it_is_refused_and_what_macos_leaves_is_not(copy, table):
    for path in list(copy.glob(t.TABLE_PATTERN)):
        path.with_name(f"._{path.name}").write_bytes(b"\0\5\x16\7")
    assert t.table_fingerprint(t.read_tables(copy)) == t.table_fingerprint(table)
    shutil.copy(copy / "mass_case_description_test_set.csv", copy / "old_mass_case_description_test_set.csv")
    with pytest.raises(InputError, match=r"old_mass_case_description_test_set\.csv: not one of the published tables"):
        t.read_tables(copy)


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
