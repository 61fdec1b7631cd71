"""Which collection a folder holds is found by its tables; none and several are refused in one line."""

import pytest

from mammo_lib.data.external import ADAPTERS, open_other
from mammo_lib.errors import InputError

TABLES = {
    "mini-MIAS": ("Info.txt", "mdb001 G NORM"),
    "CMMD": ("CMMD_clinicaldata_revision.csv", "ID1"),
    "INbreast": ("INbreast.CSV", "File Name"),
    "VinDr-Mammo": ("breast-level_annotations.csv", "image_id"),
}


@pytest.mark.parametrize("name", TABLES)
def test_each_collection_is_known_by_its_table_alone(tmp_path, name):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / TABLES[name][0]).write_text(TABLES[name][1])
    assert [one for one, adapter in ADAPTERS.items() if adapter.find(tmp_path)] == [name]


def test_a_folder_without_a_table_says_what_was_looked_for(tmp_path):
    (tmp_path / "Info.txt").write_text("a file of another program")
    with pytest.raises(InputError, match=r"no table of a known collection \(mini-MIAS: Info.txt; CMMD: .*VinDr"):
        open_other(tmp_path)


def test_the_info_of_another_program_is_passed_over(tmp_path):
    (tmp_path / "info.txt").write_bytes(b"\0\1\2 mdb001")
    (tmp_path / TABLES["INbreast"][0]).write_text(TABLES["INbreast"][1])
    assert [one for one, adapter in ADAPTERS.items() if adapter.find(tmp_path)] == ["INbreast"]


def test_two_collections_in_one_folder_are_told(tmp_path):
    for name in ("mini-MIAS", "INbreast"):
        (tmp_path / TABLES[name][0]).write_text(TABLES[name][1])
    with pytest.raises(InputError, match=r"tables of 2 collections: mini-MIAS \(Info.txt\), INbreast \(INbreast.CSV\)"):
        open_other(tmp_path)


def test_two_copies_of_one_table_are_told(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "Info.txt").write_text(TABLES["mini-MIAS"][1])
    with pytest.raises(InputError, match=r"2 files Info.txt \(a.Info.txt, b.Info.txt\), expected 1"):
        open_other(tmp_path)


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(InputError, match="nowhere: no such folder"):
        open_other(tmp_path / "nowhere")
