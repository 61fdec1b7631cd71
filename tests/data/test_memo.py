"""What is remembered about files: asked once, forgotten when the file changes, never in the way."""

import os

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
    os.utime(path, ns=(1, 1))
    memo.remember("size", [path], size)
    assert len(asked) == 4


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
