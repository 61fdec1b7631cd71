"""Files: names that come from tags and tables stay in their folder; text, JSON and tables are read or refused."""

import gzip
import os
import random
import shutil
from pathlib import Path, PureWindowsPath

import numpy as np
import pytest

from mammo_lib import files
from mammo_lib.data import write_phantom
from mammo_lib.errors import InputError, writing_to
from mammo_lib.files import (
    new_folder,
    read_array,
    read_json,
    read_table,
    read_text,
    safe_name,
    with_numbers,
    write_bytes,
)  # fmt: skip


@pytest.mark.parametrize("text", ["P_00001_LEFT", "12-345.6", "Müller", "患者7", "a@b=c+d"])
def test_a_safe_name_stays(text):
    assert safe_name(text) == text


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("12/345", "12_345"),
        ("../evil", "_evil"),
        ("/etc/passwd", "_etc_passwd"),
        ("a\\b:c", "a_b_c"),
        ("..", "_"),
        ("", "_"),
        (" \t\n", "_"),
        (".hidden", "hidden"),
        ("-rf", "rf"),
        ("trailing. ", "trailing._"),
        ("trailing.", "trailing"),
        ("CON", "_CON"),
        ("nul.txt", "_nul.txt"),
        ("COM¹", "_COM1"),
        ("console", "console"),
        ("a\x00b\x1b[31m", "a_b_31m"),
        ("a\u202egnp.exe", "a_gnp.exe"),  # turns the direction of reading
        ("\uff0e\uff0e\uff0fevil", "_evil"),  # full-width ../
        ("a\u2215b", "a_b"),  # a division slash
        ("a\udc80b", "a_b"),  # a byte that was no text
        ("<img src=x onerror=alert(1)>", "_img_src=x_onerror=alert_1_"),
    ],
)
def test_whatever_a_tag_holds_becomes_the_name_of_one_file(text, name):
    assert safe_name(text) == name


def test_the_longest_patient_id_keeps_its_side():
    assert safe_name("患" * 64 + "_LEFT").endswith("_LEFT")


def test_names_of_any_text_are_short_stay_inside_and_do_not_change_again(tmp_path):
    draw = random.Random(0)
    for _ in range(500):
        text = "".join(
            chr(draw.choice((draw.randrange(128), draw.randrange(0x110000)))) for _ in range(draw.randrange(200))
        )
        name = safe_name(text)
        assert safe_name(name) == name
        assert len(name.encode()) <= 201
        assert (tmp_path / name).parent == tmp_path
        assert PureWindowsPath(name).name == name
        assert not PureWindowsPath(name).is_reserved()
        (tmp_path / f"{name}.json").touch()


TABLE = 'name,size,note\nP_1,3,"two, words"\nP_2,4.5,"a\nline"\n'


@pytest.mark.parametrize(
    "content",
    [
        TABLE.encode(),
        TABLE.encode("utf-8-sig"),
        TABLE.replace("\n", "\r\n").encode(),
        b"sep=,\r\n" + TABLE.encode(),
        b"\n" + TABLE.encode(),
        TABLE.replace("P_2", ",,\n\nP_2").encode(),
        TABLE.replace("name,", "name ,").encode(),
        b"".join((line + "," * (i in (0, 1, 3)) + "\n").encode() for i, line in enumerate(TABLE.split("\n")[:-1])),
    ],
    ids=["plain", "mark", "Windows", "sep=", "leading line", "empty rows", "space in the header", "a nameless column"],
)
def test_one_table_however_it_is_written(tmp_path, content):
    (tmp_path / "t.csv").write_bytes(content)
    table = with_numbers(tmp_path / "t.csv", read_table(tmp_path / "t.csv", ["size"]), ["size"])
    assert list(table) == ["name", "size", "note"]
    assert table["size"].tolist() == [3, 4.5]
    assert [note.replace("\r", "") for note in table["note"]] == ["two, words", "a\nline"]


@pytest.mark.parametrize("separator", [";", "\t", "|"])
def test_other_separators_are_found_or_declared(tmp_path, separator):
    text = "name,size,note\nP_1,3,x\n".replace(",", separator)
    (tmp_path / "t.csv").write_text(f"sep={separator}\n{text}" if separator == "|" else text)
    assert read_table(tmp_path / "t.csv").to_numpy().tolist() == [["P_1", "3", "x"]]


def test_unknown_cells_are_na_and_a_row_keeps_its_number(tmp_path):
    (tmp_path / "t.csv").write_text("a,b\nNA,1\n,,\n".replace(",,", ",") + "N/A,x\n")
    table = read_table(tmp_path / "t.csv")
    assert table["a"].isna().all()
    assert table.index.tolist() == [0, 2]
    with pytest.raises(InputError, match=r"t\.csv, row 4: b must be a number, written with a point, got 'x'"):
        with_numbers(tmp_path / "t.csv", table, ["b"])
    assert read_table(tmp_path / "t.csv", unknown=())["a"].tolist() == ["NA", "N/A"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not a readable CSV"),
        (b"\n\n", "not a readable CSV"),
        (b'a,b\n1,"2', "not a readable CSV"),
        (b"a,b\n1," + b"2" * 200_000, "not a readable CSV"),
        (b"a,b\n1,2,3\n", "row 2: 3 cells under 2 names"),
        (b"a,b\n1\n", "row 2: 1 cells under 2 names"),
        (b"a,b,a\n1,2,3\n", "column 'a' occurs 2 times"),
        (b"a,c\n1,2\n", r"column 'b' is missing \(found: a, c\)"),
        ("a,b\n1,2\n".encode("utf-16"), "UTF-16; save it as CSV in UTF-8"),
        ("a,b\n1,2\n".encode("utf-16-le"), "a NUL at character 1"),
        ("a,b\n1,ä\n".encode("latin-1"), "not UTF-8 text, perhaps Latin-1 or Windows-1252"),
        (b"\xff\xd8\xff\xe0" * 50, "not UTF-8 text"),
        (b"a,b\n1,\x00\n", "a NUL at character 6"),
        (b"<html><body>404</body></html>", "column 'a' is missing"),
    ],
)
def test_what_is_no_table_is_one_line(tmp_path, content, message):
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        read_table(tmp_path / "t.csv", ["a", "b"], "download it again")
    assert str(tmp_path / "t.csv") in str(caught.value)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("read", [read_text, read_json, read_table])
def test_what_would_hang_or_fill_the_memory_is_refused(tmp_path, monkeypatch, read):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    monkeypatch.setattr(files, "LARGEST_TEXT", 2**20)
    (tmp_path / "large").write_bytes(b" " * (2**20 + 1))
    (tmp_path / "bomb.gz").write_bytes(gzip.compress(bytes(2**22)))
    (tmp_path / "cut.gz").write_bytes(gzip.compress(b"a" * 1000)[:-9])
    (tmp_path / "no.gz").write_bytes(b"a,b")
    for name in ("pipe", "folder", "cut.gz", "no.gz", "missing"):
        with pytest.raises(InputError, match="cannot be read"):
            read(tmp_path / name)
    for name in ("large", "bomb.gz"):
        with pytest.raises(InputError, match="larger than 1 MiB"):
            read(tmp_path / name)


@pytest.mark.parametrize(
    "content", ["[]", "1", '"x"', "", "{", "[" * 100_000, '{"a": ' + "1" * 5000 + "}", '{"a": {"b": 1, "b": 1}}']
)
def test_what_is_no_mapping_is_one_line(tmp_path, content):
    (tmp_path / "x.json").write_text(content)
    with pytest.raises(InputError, match=r"x\.json: (not JSON|JSON, but a)"):
        read_json(tmp_path / "x.json")


def test_a_write_that_breaks_off_leaves_the_old_file(tmp_path, monkeypatch):
    """The disk is full after half of the bytes: what was there is still there, whole, and nothing else is."""
    path = tmp_path / "record.json"
    files.write_bytes(path, b"old and whole")
    write = Path.write_bytes

    def half(self, content):
        write(self, content[: len(content) // 2])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", half)
    with pytest.raises(OSError, match="No space left"):
        files.write_bytes(path, b"new and never whole")
    assert path.read_bytes() == b"old and whole"
    assert [one.name for one in tmp_path.iterdir()] == ["record.json"]


def test_the_current_folder_is_not_replaced(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder in (".", tmp_path, tmp_path / "a" / ".."):
        with pytest.raises(InputError, match="is the current folder; give a new one"):
            new_folder(folder)
    assert new_folder("phantom") == tmp_path / "phantom"


@pytest.mark.parametrize("target", ["nowhere", "link", "nowhere/deeper"])
def test_a_new_folder_is_no_link_to_nowhere(tmp_path, target):
    (tmp_path / "link").symlink_to(target)
    with pytest.raises(InputError, match=f"link: a link to {target}, which is not there; remove it, or give a new one"):
        new_folder(tmp_path / "link")


def test_a_link_to_an_empty_folder_is_followed(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to("empty")
    write_phantom(tmp_path / "link", n_breasts=12, seed=0)
    assert (tmp_path / "link").is_symlink() and (tmp_path / "empty" / "phantom.json").is_file()


def first_byte_of_the_header(content):
    return content[:10] + b"[" + content[11:]


@pytest.mark.parametrize("damage", [
    lambda content: b"", lambda content: content[:50], lambda content: content[:-1], first_byte_of_the_header,
])  # fmt: skip
@pytest.mark.parametrize("part", [None, 0])
def test_a_damaged_array_is_one_line(tmp_path, damage, part):
    path = tmp_path / "a.npy"
    files.write_array(path, np.ones((2, 3), np.uint16))
    assert read_array(path, part=part).tolist() == ([[1, 1, 1]] * 2 if part is None else [1, 1, 1])
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(InputError, match=r"a\.npy: cannot be read \(\w+\); delete the file and run the command again"):
        read_array(path, part=part)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names on this system")
def test_a_pipe_is_not_replaced_and_a_link_is_followed(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="a pipe, a socket or a device is there"):
        write_bytes(tmp_path / "pipe", b"x")
    assert (tmp_path / "pipe").is_fifo()
    (tmp_path / "link").symlink_to(tmp_path / "file")
    for content in (b"one", b"two"):
        write_bytes(tmp_path / "link", content)
        assert (tmp_path / "link").is_symlink() and (tmp_path / "file").read_bytes() == content


def test_a_folder_that_cannot_be_copied_says_why(tmp_path):
    """shutil reports a list of (source, target, reason)."""
    reason = "[Errno 28] No space left on device"
    with (
        pytest.raises(
            InputError, match=r"out: cannot be written \(\[Errno 28\] No space left on device\); give another"
        ),
        writing_to("out"),
    ):
        raise shutil.Error([("a", "b", reason), ("c", "d", reason)])
