"""The audit: it finds planted defects, accepts the real data, and says where a copy contradicts the manifest."""

import json
import os
import shutil

import pytest

from mammo_lib.data.cbis_ddsm import audit as a
from mammo_lib.data.cbis_ddsm import defects
from mammo_lib.data.cbis_ddsm.tables import read_tables
from mammo_lib.data.cohort import build_cohort
from mammo_lib.data.phantom.layouts import LAYOUTS
from mammo_lib.errors import InputError

REAL = os.environ.get("MAMMO_DATA")
needs_real_data = pytest.mark.skipif(not REAL, reason="MAMMO_DATA is not set: needs the real CBIS-DDSM tables")


def found(checks, what):
    return [check for check in checks if check.what == what]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_phantom_holds_exactly_what_was_planted(phantom_of, layout):
    checks = a.audit_copy(phantom_of(layout))
    assert [check for check in checks if check.verdict in ("mismatch", "absent")] == []
    planted = json.loads((phantom_of(layout) / "phantom.json").read_text())["planted"]
    names = defects.IN_TABLES if layout == "mirror-800" else defects.DEFECTS
    assert {name: found(checks, name)[0].found for name in names} == {name: planted[name] for name in names}
    assert all(planted[name] for name in defects.IN_TABLES)  # every defect of the tables is in a phantom


@pytest.fixture
def copy(phantom_root, tmp_path):
    return shutil.copytree(phantom_root, tmp_path / "data")


def test_a_changed_label_is_a_mismatch(copy):
    path = copy / "mass_case_description_test_set.csv"
    path.write_text(path.read_text().replace(",MALIGNANT,", ",BENIGN,"))
    wrong = [check for check in a.audit_copy(copy) if check.verdict == "mismatch"]
    assert ("cohort paper, test", "malignant") in {(check.part, check.what) for check in wrong}


def test_missing_files_are_absent_and_unreadable_ones_a_mismatch(copy):
    films = [copy / path for path in build_cohort(read_tables(copy), "paper", "test")["whole_CC"]]
    films[0].unlink()
    assert {c.verdict for c in a.audit_copy(copy) if c.part == "images" and "test" in c.what} >= {"absent"}
    films[-1].write_bytes(b"<html>not found</html>")
    checks = a.audit_copy(copy)
    assert found(checks, defects.UNREADABLE)[0].found == 1
    assert "a web page under a DICOM name" in "".join(check.example for check in checks)
    assert "mismatch" in {check.verdict for check in checks if check.part == "images"}


def test_tables_without_images_are_audited(copy):
    for path in copy.glob("*-T*"):
        shutil.rmtree(path)
    checks = a.audit_copy(copy)
    assert found(checks, "a layout that is known")[0].verdict == "absent"
    assert "mismatch" not in {check.verdict for check in checks}


def test_images_that_could_not_be_checked_are_no_clean_copy(copy):
    """Images are there, but their layout is not found because of one name."""
    with open(os.fsencode(copy) + b"/\xff.dcm", "wb") as stream:
        stream.write(b"junk")
    check = found(a.audit_copy(copy), "a layout that is known")[0]
    assert check.verdict == "mismatch" and "not in UTF-8" in check.found


def test_the_report_is_json(copy, tmp_path):
    a.write_report(a.audit_copy(copy), tmp_path / "new" / "audit.json")
    report = json.loads((tmp_path / "new" / "audit.json").read_text())
    assert {"part", "what", "expected", "found", "verdict", "example"} == set(report[0])


@needs_real_data
def test_the_real_data_is_what_the_manifest_says():
    checks = a.audit_copy(REAL)
    assert [check for check in checks if check.verdict == "mismatch"] == []
    assert len(found(checks, "hash of the canonical table")) == 1


@needs_real_data
def test_lesion_ids_are_swapped_in_the_known_breast():
    swapped = defects.swapped_lesions(read_tables(REAL))
    assert ("P_00419", "LEFT") in set(zip(swapped["patient_id"], swapped["laterality"], strict=True))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[]", "a list instead of a mapping; write the phantom again"),
        ("", "not JSON"),
        ("{}", "planted: Field required"),
        ('{"planted": [], "cohort": {}}', "planted: Input should be a valid dictionary"),
        ('{"planted": {"a": "x"}, "cohort": {}}', "planted.a: Input should be a valid integer"),
        ('{"planted": {}, "cohort": {"train": {}}}', "cohort: must name the splits train and test"),
        ('{"planted": {}, "cohort": {"train": {"age": 1}, "test": {}}}', "cohort.train.age"),
    ],
)
def test_a_phantoms_damaged_manifest_is_one_line(tmp_path, content, message):
    (tmp_path / "phantom.json").write_text(content)
    with pytest.raises(InputError, match=message):
        a.load_manifest(tmp_path)
