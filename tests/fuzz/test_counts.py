"""The counting itself: a fault of each kind is detected, even where the library hides it."""

import contextlib
import time

import pytest

from mammo_lib.errors import InputError

from . import counts
from .test_commands import Line
from .test_commands import came_of as came_of_command


def refuse(text):
    raise InputError(text)


def answer(value):
    assert value <= 1
    return value == 0


def sleep():
    with contextlib.suppress(Exception):  # a decoder that catches what the alarm raises
        time.sleep(5)


@pytest.mark.parametrize(
    ("read", "came"),
    [
        (lambda: 0, "read as before"),
        (lambda: 1, "read otherwise"),
        (lambda: 2, "other answers"),
        (lambda: refuse("a\nb"), "refused in one line"),  # the message is one line all the same
        (lambda: refuse("x" * 5000), "refused in one line"),  # and a short one
        (lambda: {}["x"], "tracebacks"),
        (lambda: exec("raise SystemExit"), "tracebacks"),
        (sleep, "hangs"),
    ],
)
def test_what_comes_of_a_reading(monkeypatch, read, came):
    monkeypatch.setattr(counts, "PATIENCE_S", 1)
    assert counts.came_of(read, answer)[0] == came


@pytest.mark.parametrize(
    ("command", "code", "stderr", "came"),
    [
        ("config", 0, "", "read as before"),
        ("predict", 0, "", "read otherwise"),
        ("config", 2, "mammo: x: is wrong\n", "refused in one line"),
        ("config", 2, "50%|##  | 1/2 [00:01<00:01]\rprofile paper: suits x\nmammo: x\n", "refused in one line"),
        ("config", 2, "mammo: x\nmammo: y\n", "other answers"),
        ("config", 2, "", "other answers"),
        ("config", 0, "UserWarning: x\n", "other answers"),
        ("config", 1, "", "other answers"),
        ("data audit", 1, "", "read otherwise"),
        ("predict", 2, "mammo: refused: x\nmammo: refused: y\n", "refused in one line"),
        ("predict", 2, "mammo: refused: x\nwhat is this\n", "other answers"),
        ("config", None, "", "tracebacks"),
        ("config", 1, "Traceback (most recent call last):\n", "tracebacks"),
    ],
)
def test_what_comes_of_a_command(command, code, stderr, came):
    said = {"code": code, "raised": "", "stdout": "seed: 0\n", "stderr": stderr}
    assert came_of_command(Line(command, []), said, {"config": "seed: 0\n"})[0] == came
    assert came_of_command(Line(command, []), None, {})[0] == "hangs"


def test_a_file_that_is_written_is_seen(tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    before = counts.state_of(tmp_path)
    (tmp_path / "a" / "b" / "evil").write_text("")
    assert counts.state_of(tmp_path) != before
