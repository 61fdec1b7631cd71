"""The memory of facts about files: computed once, forgotten when the file changes, never an obstacle."""

import os
import sqlite3
import time

import pytest

from mammo_lib.data import memo


def test_a_file_is_asked_once_until_it_changes(tmp_path, monkeypatch):
    monkeypatch.setattr(memo, "MEMO", tmp_path / "m" / "files.sqlite")
    path, asked = tmp_path / "a", []
    path.write_text("one")

    def size(path):
        asked.append(path)
        return {"size": path.stat().st_size}

    for _ in range(2):
        assert memo.remember("size", [path, path], size) == {path: {"size": 3}}
    assert len(asked) == 1
    memo.remember("something else", [path], size)
    assert len(asked) == 2
    path.write_text("longer")
    assert memo.remember("size", [path], size) == {path: {"size": 6}}
    assert len(asked) == 3


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("how", ["written over", "moved in"])
def test_another_file_of_the_same_size_and_time_is_noticed(tmp_path, monkeypatch, large, how):
    monkeypatch.setattr(memo, "MEMO", tmp_path / "m" / "files.sqlite")
    monkeypatch.setattr(memo, "SMALL", 0 if large else 99)
    path, other = tmp_path / "a", tmp_path / "b"
    path.write_text("one")
    read = lambda path: path.read_text()  # noqa: E731
    before = path.stat()
    assert memo.remember("text", [path], read) == {path: "one"}
    if how == "moved in":
        other.write_text("two")
        other.replace(path)
    path.write_text("two")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert memo.remember("text", [path], read) == {path: "two"}


def test_a_file_that_has_rested_is_told_by_the_time_of_its_last_change(tmp_path, monkeypatch):
    monkeypatch.setattr(memo, "SMALL", 0)
    monkeypatch.setattr(memo, "YOUNG_S", 0)
    monkeypatch.setattr(memo, "file_hash", None)  # not asked
    path = tmp_path / "a"
    path.write_text("one")
    before, stamp = path.stat(), memo._stamp(path)
    assert memo._stamp(path) == stamp
    time.sleep(0.02)  # a tick of the file system's clock
    path.write_text("two")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert memo._stamp(path) != stamp


def test_a_memo_that_cannot_be_written_is_done_without(tmp_path, monkeypatch):
    (tmp_path / "m").write_text("a file where the folder should be")
    monkeypatch.setattr(memo, "MEMO", tmp_path / "m" / "files.sqlite")
    (tmp_path / "a").touch()
    assert memo.remember("name", [tmp_path / "a"], lambda path: path.name) == {tmp_path / "a": "a"}


def test_a_memo_that_is_damaged_is_done_without(tmp_path, monkeypatch):
    monkeypatch.setattr(memo, "MEMO", tmp_path / "files.sqlite")
    memo.MEMO.write_bytes(b"not a database, " * 100)
    (tmp_path / "a").touch()
    assert memo.remember("name", [tmp_path / "a"], lambda path: path.name) == {tmp_path / "a": "a"}


def test_an_answer_that_stands_for_an_error_is_asked_again(tmp_path, monkeypatch):
    monkeypatch.setattr(memo, "MEMO", tmp_path / "files.sqlite")
    path, answers = tmp_path / "a", iter(["cannot be read", 7])
    path.touch()
    ask = lambda: memo.remember("n", [path], lambda _: next(answers), keep=lambda one: one == 7)[path]  # noqa: E731
    assert [ask(), ask(), ask()] == ["cannot be read", 7, 7]


def test_an_answer_that_was_kept_once_and_is_refused_now_is_asked_again(tmp_path, monkeypatch):
    monkeypatch.setattr(memo, "MEMO", tmp_path / "files.sqlite")
    path = tmp_path / "a"
    path.touch()
    memo.remember("n", [path], lambda _: "cannot be read")
    assert memo.remember("n", [path], lambda _: 7, keep=lambda one: one == 7) == {path: 7}


def test_a_name_that_is_not_utf8_is_remembered(tmp_path, monkeypatch):
    monkeypatch.setattr(memo, "MEMO", tmp_path / "files.sqlite")
    path = tmp_path / os.fsdecode(b"film\xe9.dcm")
    path.touch()
    assert memo.remember("name", [path], lambda path: path.name) == {path: path.name}
    assert memo.remember("name", [path], None) == {path: path.name}


def malformed(connection):
    content = bytearray(memo.MEMO.read_bytes())
    memo.MEMO.write_bytes(content[:4096] + b"\xff" * (len(content) - 4096))  # the first page is the schema


def locked(connection):
    other = sqlite3.connect(memo.MEMO, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    connection.execute("PRAGMA busy_timeout = 0")
    return other


def no_json(connection):
    with connection:
        connection.execute("UPDATE memo SET answer = 'no JSON'")


@pytest.mark.parametrize("damage", [malformed, locked, no_json])
def test_a_memo_that_breaks_after_it_is_opened_is_done_without(tmp_path, monkeypatch, damage):
    monkeypatch.setattr(memo, "MEMO", tmp_path / "files.sqlite")
    path, opened, held = tmp_path / "a", memo._connect, []
    path.touch()
    memo.remember("name", [path], lambda path: "before")

    def breaks():
        connection = opened()
        held.append(damage(connection))
        return connection

    monkeypatch.setattr(memo, "_connect", breaks)
    assert memo.remember("name", [path], lambda path: "again") == {path: "again"}
    for other in filter(None, held):
        other.close()
