"""The command line: what is wrong is one line on stderr and exit code 2, without a traceback."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def mammo(*arguments, **environment):
    env = {key: value for key, value in os.environ.items() if not key.startswith("MAMMO_")} | environment
    command = [sys.executable, "-m", "mammo_lib.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=env)


@pytest.fixture
def empty(tmp_path):
    return tmp_path


def one_line(done) -> str:
    assert done.returncode == 2, done.stderr
    lines = [line for line in done.stderr.splitlines() if line]
    assert len(lines) == 1, done.stderr
    return lines[0]


@pytest.mark.parametrize("command", [["reproduce"], ["evaluate"], ["data", "prepare"]])
def test_unknown_profile(command):
    assert "unknown profile 'fast': choose one of smoke, mirror, paper" in one_line(
        mammo(*command, "--profile", "fast")
    )


def test_real_profile_without_data():
    line = one_line(mammo("reproduce", "--profile", "mirror"))
    assert "profile 'mirror' needs real images: give the folder of CBIS-DDSM with --data DIR" in line


def test_folder_that_is_not_there(tmp_path):
    line = one_line(mammo("data", "prepare", "--profile", "mirror", "--data", tmp_path / "nowhere"))
    assert "nowhere: no such folder" in line


def test_empty_data_folder(empty):
    line = one_line(mammo("data", "prepare", "--profile", "mirror", "--data", empty))
    assert str(empty) in line
    assert "case_description" in line


def test_config_with_an_unknown_key(tmp_path):
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"train": {"epoch": 3}}))
    assert one_line(mammo("run", path)).endswith("config.json: train.epoch: unknown key, remove it")


def test_run_wants_one_thing():
    assert "give either a CONFIG.json or --experiment NAME" in one_line(mammo("run"))


def test_phantom_refuses_a_folder_in_use(tmp_path):
    (tmp_path / "mine.txt").write_text("keep")
    line = one_line(mammo("data", "phantom", tmp_path, "--breasts", 12))
    assert str(tmp_path) in line
    assert (tmp_path / "mine.txt").read_text() == "keep"
