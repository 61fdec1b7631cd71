"""The command line: an error is one line on stderr and exit code 2, without a traceback."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from unittest import mock

import nbformat
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from rich.console import Console

from mammo_lib.cli import main, printing
from mammo_lib.cli.start import leave
from mammo_lib.config import RunConfig, get_profile, load_config
from mammo_lib.data.cbis_ddsm.tables import read_tables
from mammo_lib.data.cohort import build_cohort
from mammo_lib.data.phantom import exams
from mammo_lib.data.views import SPLITS
from mammo_lib.report import rehearsal
from mammo_lib.runs import records
from mammo_lib.runs.records import COMMITTED
from mammo_lib.runs.verify import Verification

ROOT = Path(__file__).resolve().parents[1]


def mammo(*arguments, **environment) -> subprocess.CompletedProcess:
    """Give a command line in this process, which has imported the libraries already."""
    command, stdout, stderr = ["mammo", *map(str, arguments)], StringIO(), StringIO()
    with (
        mock.patch.dict(os.environ, environment_of(environment), clear=True),
        mock.patch.object(sys, "argv", command),
        redirect_stdout(stdout),
        redirect_stderr(stderr),
        pytest.raises(SystemExit) as exit,
    ):
        main()
    return subprocess.CompletedProcess(command, exit.value.code, stdout.getvalue(), stderr.getvalue())


def fresh_mammo(*arguments, **environment) -> subprocess.CompletedProcess:
    """Give a command line in a process of its own, for what is read when a process starts."""
    command = [sys.executable, "-m", "mammo_lib.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment_of(environment))


def environment_of(changes: dict) -> dict[str, str]:
    outside = {key: value for key, value in os.environ.items() if not key.startswith("MAMMO_")}
    return outside | {key: str(value) for key, value in changes.items()}


@pytest.fixture
def empty(tmp_path):
    return tmp_path


def one_line(done) -> str:
    assert done.returncode == 2, done.stderr
    # A progress bar may have been drawn before; it ends with a carriage return, not with a line of its own.
    lines = [line for line in done.stderr.splitlines() if line and not re.search(r"\| \d+/\d+ \[", line)]
    assert len(lines) == 1, done.stderr
    return lines[0]


@pytest.mark.parametrize("command", [["reproduce"], ["evaluate"], ["data", "prepare"]])
def test_unknown_profile(command):
    assert (
        "unknown profile 'fast': choose one of smoke, mirror, mirror-cv, mirror-cv-training, mirror-open, "
        "mirror-limits, mirror-final, mirror-whole, mirror-resolution, mirror-whole-training, "
        "mirror-resolution-training, mirror-long-gates, paper" in one_line(mammo(*command, "--profile", "fast"))
    )


@pytest.mark.parametrize(
    "given, says",
    [
        ("smoke", "--parameter 'smoke': write NAME=VALUE (-p is --parameter; a profile is chosen with --profile)"),
        ("=5", "--parameter '=5': write NAME=VALUE"),
        ("profile=paper", "--parameter profile=paper: a profile is chosen with --profile"),
    ],
)
def test_a_parameter_that_makes_no_sense(given, says):
    assert says in one_line(mammo("reproduce", "-p", given))


def test_the_help_of_reproduce_says_what_may_be_given():
    said = " ".join(mammo("reproduce", "--help", COLUMNS=300).stdout.split())
    assert "05 includes 05a, 05b" in said and "NAME=VALUE of a variable in a notebook's cell tagged parameters" in said
    assert "without images smoke, for mammo reproduce mirror" in said


def test_reproduction_outside_a_checkout(tmp_path):
    assert "no notebooks; run this in a checkout" in one_line(fresh_mammo("reproduce", MAMMO_ROOT=tmp_path))


def test_benchmarks_outside_a_checkout(tmp_path):
    assert one_line(fresh_mammo("bench", MAMMO_ROOT=tmp_path)).endswith("no benchmarks; run this in a checkout")


def test_the_benchmarks_are_listed_as_their_folder_has_them():
    """Each script by the first line of its text; what scripts share is no benchmark."""
    done = mammo("bench")
    listed = [line.split()[0] for line in done.stdout.splitlines()]
    scripts = {path.stem for path in (ROOT / "benchmarks").glob("*.py")} - {"baselines", "limits", "timing"}
    assert (done.returncode, listed) == (0, sorted(scripts))
    assert "CPU scan compared with a plain PyTorch loop" in done.stdout
    assert "unknown benchmark 'scna': choose one of attention, " in one_line(mammo("bench", "scna"))


def test_a_benchmark_gets_what_follows_its_name_and_its_exit_code_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr("mammo_lib.cli.bench_command.ROOT", tmp_path)
    body = 'open("said", "w").write(str(sys.argv)); sys.exit(3)'
    write_benchmark(tmp_path, f'import argparse, sys\nif __name__ == "__main__":\n    {body}\n')
    for given in (["--sets", "5"], ["--help"]):
        assert mammo("bench", "own", *given).returncode == 3
        assert (tmp_path / "said").read_text() == str(["benchmarks/own.py", *given])


def write_benchmark(root, source):
    (root / "benchmarks").mkdir(exist_ok=True)
    (root / "benchmarks" / "own.py").write_text(f'"""A question."""\n{source}')


def test_a_benchmark_without_options_refuses_them_and_shows_its_text_as_help(tmp_path, monkeypatch):
    monkeypatch.setattr("mammo_lib.cli.bench_command.ROOT", tmp_path)
    write_benchmark(tmp_path, 'if __name__ == "__main__":\n    raise SystemExit(3)\n')
    said = one_line(mammo("bench", "own", "--sets", 5))
    assert said == "mammo: bench own: takes no options, got --sets 5"
    helped = mammo("bench", "own", "--help")
    assert (helped.returncode, helped.stdout) == (0, "A question.\n")
    assert "No such option: --sets" in one_line(mammo("bench", "--sets"))
    assert "List the benchmarks, or run one" in mammo("bench", "--help").stdout


@pytest.mark.parametrize(
    ("body", "code", "said"),
    [
        ("import a_package", 1, "mammo: benchmarks/own.py: the package a_package is not installed\n"),
        ("from mammo_lib.errors import InputError; raise InputError('x: no')", 2, "mammo: x: no\n"),
        ("raise KeyboardInterrupt", 130, ""),
        ("import own; own.main(); raise SystemExit(7)", 7, ""),
    ],
)
def test_a_benchmark_that_fails_ends_without_a_traceback(tmp_path, monkeypatch, capfd, body, code, said):
    monkeypatch.setattr("mammo_lib.cli.bench_command.ROOT", tmp_path)
    write_benchmark(tmp_path, f'def main(): pass\nif __name__ == "__main__":\n    {body}\n')
    assert mammo("bench", "own").returncode == code
    assert capfd.readouterr().err == said


def test_a_module_that_a_package_lacks_is_an_error_of_the_benchmark(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr("mammo_lib.cli.bench_command.ROOT", tmp_path)
    write_benchmark(tmp_path, 'if __name__ == "__main__":\n    import mammo_lib.opps\n')
    assert mammo("bench", "own").returncode == 1
    assert "Traceback" in capfd.readouterr().err


def test_real_profile_without_data():
    line = one_line(mammo("run", "--experiment", "dual_stream", "--profile", "mirror"))
    assert "profile 'mirror' needs real images: give the folder of CBIS-DDSM with --data DIR" in line
    line = one_line(mammo("reproduce", "--profile", "paper"))  # of it no record is committed that chapters could show
    assert "no record with test scores, and no images to make one from; give the folder of CBIS-DDSM" in line


def test_folder_that_is_not_there(tmp_path):
    line = one_line(mammo("data", "prepare", "--profile", "mirror", "--data", tmp_path / "nowhere"))
    assert "nowhere: no such folder" in line


def test_empty_data_folder(empty):
    line = one_line(mammo("data", "prepare", "--profile", "mirror", "--data", empty))
    assert str(empty) in line
    assert "case_description" in line


@pytest.fixture
def damaged(phantom_root, tmp_path):
    """A copy of the phantom that a test may damage; the `mirror` profile reads any layout."""
    return shutil.copytree(phantom_root, tmp_path / "data")


def a_test_film(root):
    cohort = build_cohort(read_tables(root), "paper", "test")
    return root / cohort["whole_CC"].iloc[0]


@pytest.mark.parametrize("command", [["reproduce"], ["data", "prepare"]])
def test_truncated_image(damaged, command):
    film = a_test_film(damaged)
    film.write_bytes(film.read_bytes()[:-9999])
    (damaged.parent / "notebooks").mkdir()
    cell = nbformat.v4.new_code_cell("profile = ''", metadata={"tags": ["parameters"]})
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    notebook = nbformat.v4.new_notebook(cells=[cell], metadata=kernel)
    nbformat.write(notebook, damaged.parent / "notebooks" / "00_none.ipynb")
    line = one_line(fresh_mammo(*command, "--profile", "mirror", "--data", damaged, MAMMO_ROOT=damaged.parent))
    assert f"{film}: cannot be decoded" in line
    assert not list(damaged.parent.rglob("_build/cache/.*"))


def test_missing_table(damaged):
    (damaged / "mass_case_description_test_set.csv").unlink()
    line = one_line(mammo("reproduce", "--profile", "mirror", "--data", damaged))
    assert "mass_case_description_test_set.csv: missing, while" in line


def test_config_with_an_unknown_key(tmp_path):
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"train": {"epoch": 3}}))
    assert one_line(mammo("run", path)).endswith("config.json: train.epoch: unknown key; did you mean train.epochs?")


def test_run_wants_one_thing():
    assert "give a config file, --experiment NAME, or changes" in one_line(mammo("run"))
    assert "not both" in one_line(mammo("run", "a.json", "--experiment", "dual_stream"))


def test_phantom_refuses_a_folder_in_use(tmp_path):
    (tmp_path / "mine.txt").write_text("keep")
    line = one_line(mammo("data", "phantom", tmp_path, "--breasts", 12))
    assert str(tmp_path) in line
    assert (tmp_path / "mine.txt").read_text() == "keep"


def test_a_folder_of_real_images_leads_to_the_real_profile(tmp_path, phantom_root):
    (tmp_path / "mass-800").mkdir()
    for command in (("run", "--experiment", "baseline_birads"), ("reproduce",), ("data", "prepare")):
        for done in (mammo(*command, "--data", tmp_path), mammo(*command, MAMMO_DATA=tmp_path)):
            assert "profile mirror: suits" in done.stderr, done.stderr
        done = mammo(*command, "--data", tmp_path, "--profile", "smoke")
        assert done.returncode == 2 and "reads a synthetic phantom, not your images" in done.stderr


@pytest.mark.parametrize("command", [["data", "prepare"], ["run", "--experiment", "dual_stream"]])
def test_the_data_folder_of_the_environment_is_read(command, tmp_path):
    assert f"MAMMO_DATA={tmp_path / 'films'}: no such" in one_line(mammo(*command, MAMMO_DATA=tmp_path / "films"))


def test_settings_without_python(tmp_path):
    printed = mammo("config", "--profile", "smoke", "--set", "train.epochs=2", "--seed", "3")
    assert printed.returncode == 0 and "# passes over the training breasts" in printed.stdout
    (tmp_path / "run.yaml").write_text(printed.stdout)
    assert load_config(tmp_path / "run.yaml").train.epochs == 2
    assert load_config(tmp_path / "run.yaml").seed == 3
    assert "\nseed: 5" in mammo("config", "--profile", "smoke", "--set", "seed=5").stdout
    group = one_line(mammo("config", "--profile", "mirror-cv", "--experiment", "gates"))
    assert "a group of" in group and "crop_gate_token" in group
    assert "leave out --seed" in one_line(mammo("run", "--profile", "smoke", "--set", "seed=1", "--cv", 2, "--seed", 5))
    assert "did you mean train.epochs?" in one_line(mammo("run", "--set", "train.epoch=2"))
    assert "did you mean dual_stream?" in one_line(mammo("run", "--experiment", "dual_steam"))
    listed = mammo("list", "--profile", "mirror")
    assert "crop_only" in listed.stdout and "3 of 3" in listed.stdout and "isolation" in listed.stdout


def test_a_table_in_a_narrow_terminal_is_folded_and_not_cut(monkeypatch):
    """At 80 columns, names of records and reasons are wider than their columns."""
    screen, record, columns = StringIO(), "crop_gate_bias/seed0-0123456789ab", ("a_long_column_of_it", "another_column")
    monkeypatch.setattr(printing, "open_console", lambda: Console(width=80, file=screen))
    printing.print_outcomes([Verification(record, "within rounding", 9, columns, 0.5, 0.5, {"validation": (0.5, 0.5)})])
    reason = "/in/a/long/path" * 9 + ": needs .[book]"
    printing.print_rehearsal([rehearsal.Rehearsed("train", "failed", 1.0, reason)])
    shown = screen.getvalue()
    assert max(map(len, shown.splitlines())) <= 80
    for mark in "_/":
        assert shown.count(mark) == "".join((record, *columns, reason)).count(mark), shown
    assert "needs .[book]" in shown  # a reason is no markup


def test_views_left_out_are_said(tmp_path):
    done = mammo("run", "--experiment", "dual_stream", "--data", tmp_path / "nowhere", "--allow-missing")
    assert "no such folder" in done.stderr
    done = mammo("evaluate", "--profile", "mirror", "--allow-missing", MAMMO_DATA="")
    assert "views that cannot be read are left out (MAMMO_ALLOW_MISSING=1)" in done.stderr


def test_films_are_hidden_from_a_list_with_its_images_in_one_process():
    incomplete = ("evaluate", "--incomplete", "--profile", "mirror")
    assert "needs real images: give the folder of CBIS-DDSM" in one_line(mammo(*incomplete, MAMMO_DATA=""))
    assert "--workers 2 with --incomplete" in one_line(mammo(*incomplete, "--workers", 2, MAMMO_DATA=""))


def test_the_records_are_checked():
    """Those of one experiment; tests/runs/test_records.py checks all."""
    n = len(list((COMMITTED / "dual_stream").glob("*/metrics.json")))
    assert n >= 3 and mammo("results", "check", COMMITTED / "dual_stream").stdout == f"{n} records, all intact\n"


def test_a_damaged_record_is_told_in_one_line(tmp_path):
    record = next((ROOT / "results" / "dual_stream").iterdir())
    copied = tmp_path / record.name
    shutil.copytree(record, copied)
    (copied / "history.csv").write_text("")
    assert f"{copied / 'history.csv'}: damaged" in one_line(mammo("results", "check", copied))
    assert "no record of a finished run" in one_line(mammo("results", "check", tmp_path / "none"))


def test_the_root_must_be_a_folder(tmp_path):
    (tmp_path / "file").write_text("")
    assert f"MAMMO_ROOT={tmp_path / 'file'}: a file" in one_line(fresh_mammo("list", MAMMO_ROOT=tmp_path / "file"))


@pytest.mark.parametrize("value", ["[1", "{b: *x}", "'", "\t", "2026-13-45"])
def test_a_parameter_that_is_no_value(value):
    assert "--parameter a: " in one_line(mammo("reproduce", "-p", f"a={value}"))


@pytest.mark.parametrize(
    "given",
    [
        ["data", "phantom", "x", "--seed", 2**32],
        ["data", "phantom", "x", "--breasts", 10**9],
        ["data", "folds", "x", "--seed", 2**32],
        ["run", "--seed", -1],
        ["run", "--workers", 0],
        ["predict", "--aspect", "nan"],
        ["run", "--set", f"seed={2**32}"],
        ["run", "--set", f"data.fold_seed={2**32}"],
        ["run", "--set", "train.epochs=1000000000"],
        ["run", "--set", "train.batch_size=1000000000"],
        ["run", "--set", "train.devices=1000000000"],
        ["run", "--set", "train.learning_rate=.inf"],
        ["run", "--set", "train.warmup_epochs=.nan"],
    ],
    ids=str,
)
def test_every_number_has_a_bound(given):
    name = given[-2] if given[-2] != "--set" else given[-1].partition("=")[0]
    line = one_line(mammo(*given))
    assert name in line
    assert "should be" in line
    assert re.search(rf", got '?{str(given[-1]).rpartition('=')[2].lstrip('.')}\b", line)


def test_what_is_no_command_or_option_is_one_line():
    assert "No such command 'nope': choose one of reproduce, run, config, list, plan, " in one_line(mammo("nope"))
    assert "'fold'. Did you mean 'folds': choose one of phantom, " in one_line(mammo("data", "fold"))
    assert "No such command 'x': choose one of publish, check, export (see" in one_line(mammo("results", "x"))
    assert one_line(mammo("export")).startswith("mammo: Missing argument 'RUN|VARIANT' (see ")
    assert "--nope" in one_line(mammo("run", "--nope"))
    assert "Usage" in mammo("data").stderr + mammo("data").stdout


@pytest.mark.parametrize("output", ["{tmp}/file", "{tmp}/file/x", "/proc/x", "{tmp}/" + 300 * "x"])
@pytest.mark.parametrize("command", [["data", "phantom", "--breasts", 12], ["data", "fetch", "--tables-only"]])
def test_an_output_that_cannot_be(tmp_path, command, output):
    (tmp_path / "file").write_text("")
    place = output.format(tmp=tmp_path)
    line = one_line(mammo(*command[:2], place, *command[2:]))
    assert f"{place}: cannot be written" in line
    assert (tmp_path / "file").read_text() == ""


@pytest.mark.parametrize("output", ["{tmp}", "{tmp}/file/r.json", "/dev/full", "/proc/r.json"])
def test_a_report_that_cannot_be_written(tmp_path, phantom_root, output):
    (tmp_path / "file").write_text("")
    place = output.format(tmp=tmp_path)
    assert f"{place}: cannot be written" in one_line(mammo("data", "audit", "--data", phantom_root, "--json", place))


def test_folds_that_cannot_be_written_or_made(tmp_path, phantom_root):
    (tmp_path / "file").write_text("")
    assert "cannot be written" in one_line(mammo("data", "folds", tmp_path / "file", "--data", phantom_root))
    assert "n_folds=19" in one_line(mammo("data", "folds", tmp_path / "f", "--data", phantom_root, "--n-folds", 19))


def test_a_project_folder_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "_build").write_text("")
    assert "_build" in one_line(fresh_mammo("run", "--set", "train.epochs=1", MAMMO_ROOT=tmp_path))


def test_a_rank_that_is_no_number(tmp_path, phantom_root):
    line = one_line(fresh_mammo("run", "--set", "train.epochs=1", MAMMO_ROOT=tmp_path, LOCAL_RANK="words"))
    assert "LOCAL_RANK=words: not the number of a process" in line


def test_a_terminal_without_letters_is_no_fault():
    done = fresh_mammo(
        "list", LC_ALL="C", LANG="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0", PYTHONIOENCODING="ascii:strict"
    )
    assert done.returncode == 0, done.stderr


def test_another_collection_is_refused_in_one_line(tmp_path):
    assert "no such folder" in one_line(mammo("external", "--data", tmp_path / "nowhere"))
    assert "no table of a known collection" in one_line(mammo("external", "--data", tmp_path))
    (tmp_path / "Info.txt").write_text("mdb001 G CIRC B 5000 1 1")
    assert "line 1: a circle at 5000, 1" in one_line(mammo("external", "--data", tmp_path))
    assert "choose one of frozen_stages, frozen_features" in one_line(
        mammo("external", "--data", tmp_path, "--baseline", "birads")
    )
    (tmp_path / "Info.txt").write_text("mdb001 G CIRC B 500 500 30")
    Image.fromarray(np.zeros((1024, 1024), np.uint8)).save(tmp_path / "mdb001.pgm")
    both = mammo("external", "--data", tmp_path, "--run", "released/dual", "--experiment", "dual")
    assert "give either --run RUN or --experiment NAME" in one_line(both)
    assert "--profile without --experiment" in one_line(mammo("external", "--data", tmp_path, "--profile", "smoke"))
    unknown = mammo("external", "--data", tmp_path, "--experiment", "nonsense", "--profile", "smoke")
    assert "nonsense" in one_line(unknown)
    missing = mammo("external", "--data", tmp_path, "--baseline", "frozen_stages", MAMMO_DATA="")
    assert "give its folder with --cbis-ddsm DIR or MAMMO_DATA" in one_line(missing)


def test_a_home_folder_behind_an_equals_sign_is_that_of_the_user(tmp_path):
    """A shell passes on the tilde of ``--cc=~/film.png`` as it stands."""
    done = mammo("predict", "--cc=~/film.png", HOME=tmp_path)
    assert one_line(done).startswith(f"mammo: {tmp_path}/film.png: no such image")


def test_an_empty_argument_is_not_the_current_folder():
    assert "an empty argument after 'predict': give a value" in one_line(mammo("predict", ""))
    assert "an empty argument after '--data': give a value" in one_line(mammo("run", "--seed", 1, "--data", ""))
    for option in ("--data=", "--only=", "--from="):
        assert f"an empty argument after '{option}': give a value" in one_line(mammo("reproduce", option))


def test_names_with_brackets_are_no_markup(tmp_path, phantom_root):
    data = tmp_path / "data"
    shutil.copytree(phantom_root, data)
    (data / "x[").mkdir()
    (data / "x[" / "b].dcm").write_text("junk")
    done = mammo("data", "audit", "--data", data, "--json", tmp_path / "audit.json")
    assert "x[/b].dcm" in done.stdout


def test_a_report_does_not_wait_for_a_pipe(tmp_path, phantom_root):
    os.mkfifo(tmp_path / "pipe")
    done = mammo("data", "audit", "--data", phantom_root, "--json", tmp_path / "pipe")
    assert "a pipe, a socket or a device is there" in one_line(done)


def test_weights_are_not_read_from_a_pipe(tmp_path, phantom_root):
    os.mkfifo(tmp_path / "pipe")
    change = f"model.weights={tmp_path / 'pipe'}"
    done = mammo("run", "--set", change, "--data", phantom_root, "--profile", "smoke")
    assert f"{tmp_path / 'pipe'}: a pipe or a device, not a checkpoint; give a file" in one_line(done)


def test_official_finds_the_checkpoint_that_has_the_name_of_its_variant(tmp_path, monkeypatch):
    """A second checkpoint of a variant, such as B_21k, is given by its path."""
    monkeypatch.setattr("mammo_lib.models.weights.fetch_weights", lambda variant, folder: folder / variant)
    assert mammo("weights", "B").stdout.endswith("B: model.weights: official finds it\n")
    assert mammo("weights", "B_21k").stdout.endswith("B_21k: as model.weights, give this path\n")
    assert mammo("weights", "B", "--folder", tmp_path).stdout.endswith("B: as model.weights, give this path\n")


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["plan", "--tflops", "inf"], "--tflops inf: give a finite number"),
        (["verify", "--tolerance", "inf"], "--tolerance inf: give a finite number"),
    ],
)
def test_infinity_is_no_number_of_an_option(command, message):
    assert message in one_line(mammo(*command))


def test_a_plan_counts_the_breasts_that_its_runs_would_read(tmp_path, monkeypatch):
    """A profile on a phantom its phantom's, written where it is absent; without images the tables of the project."""
    counted = []
    monkeypatch.setattr("mammo_lib.training.plan.planned_runs", lambda profile, table, *_: counted.append(table))
    monkeypatch.setattr("mammo_lib.training.plan.run_cost", mock.Mock())
    monkeypatch.setattr("mammo_lib.cli.run_commands.print_plan", mock.Mock())
    monkeypatch.setattr("mammo_lib.data.data_sets.BUILD", tmp_path)
    (tmp_path / "own.yaml").write_text("phantom_breasts: 12")
    for profile in (tmp_path / "own.yaml", "paper"):
        assert mammo("plan", "--profile", profile, "--tflops", 1).returncode == 0
    sizes = [[len(build_cohort(table, "paper", split)) for split in SPLITS] for table in counted]
    assert sizes == [[8, 4], [len(build_cohort(read_tables(ROOT / "sample"), "paper", one)) for one in SPLITS]]


@pytest.mark.parametrize("content", ['{"a": 1}', '{"a": {"b": 1}}', '{"a": {"b": {"c": 1}}}', "[]"])
def test_a_foreign_file_for_outcomes_is_told_before_anything_is_trained(tmp_path, content):
    (tmp_path / "mine.json").write_text(content)
    said = one_line(mammo("verify", "--json", tmp_path / "mine.json", "--records", tmp_path))
    assert "mine.json: " in said and "give another file, or delete it" in said
    assert (tmp_path / "mine.json").read_text() == content
    assert "not a file of outcomes" in one_line(mammo("verify", "--json", tmp_path, "--records", tmp_path))


def test_the_settings_that_are_shown_are_those_that_a_run_would_use():
    shown = mammo("config", MAMMO_DATA=ROOT / "sample")
    assert "backbone: lite" in shown.stdout and "profile mirror: suits" in shown.stderr
    said = one_line(mammo("config", MAMMO_DATA="/nowhere"))
    assert "MAMMO_DATA=/nowhere: no such folder; correct it, or name a profile with --profile" in said
    assert "\nprofile mirror\n" in mammo("list", MAMMO_DATA=ROOT / "sample").stdout


INTERRUPTED = "interrupted; the same command resumes (a training after its last complete epoch) or starts again"


def test_an_interrupt_among_the_first_imports_is_one_line(tmp_path):
    (tmp_path / "typer.py").write_text("raise KeyboardInterrupt")
    done = fresh_mammo("list", PYTHONPATH=tmp_path)
    assert (done.returncode, done.stderr.splitlines()) == (130, [INTERRUPTED])


def test_an_interrupt_of_a_command_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr("mammo_lib.data.phantom.exams._write_table", mock.Mock(side_effect=KeyboardInterrupt))
    done = mammo("data", "phantom", tmp_path / "a", "--breasts", 12)
    assert (done.returncode, done.stderr.splitlines()[-1]) == (130, INTERRUPTED)


def test_a_terminated_command_leaves_nothing_half_done(tmp_path, monkeypatch):
    def terminate(*_):
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr("mammo_lib.data.phantom.exams._write_table", terminate)
    with handler_of_sigterm(signal.SIG_DFL):
        done = mammo("data", "phantom", tmp_path / "a", "--breasts", 12)
        assert (done.returncode, done.stderr.splitlines()[-1]) == (143, INTERRUPTED)
        assert list(tmp_path.iterdir()) == [] and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_a_second_sigterm_does_not_break_the_clean_up(tmp_path, monkeypatch):
    def terminate(*_):
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        finally:  # a clean-up
            os.kill(os.getpid(), signal.SIGTERM)
            (tmp_path / "cleaned").touch()

    monkeypatch.setattr("mammo_lib.data.phantom.exams._write_table", terminate)
    with handler_of_sigterm(signal.SIG_DFL):
        assert mammo("data", "phantom", tmp_path / "a", "--breasts", 12).returncode == 143
    assert (tmp_path / "cleaned").exists()


@pytest.mark.parametrize("given", [signal.SIG_IGN, lambda *_: None], ids=["ignored", "handled"])
def test_what_was_decided_about_sigterm_before_the_command_stays(tmp_path, monkeypatch, given):
    """As in ``trap '' TERM; exec mammo``: a command whose caller ignores the signal is not ended by it."""

    def terminate(*arguments):
        os.kill(os.getpid(), signal.SIGTERM)
        write(*arguments)

    write = exams._write_table
    monkeypatch.setattr(exams, "_write_table", terminate)
    with handler_of_sigterm(given):
        assert mammo("data", "phantom", tmp_path / "a", "--breasts", 12).returncode == 0
        assert signal.getsignal(signal.SIGTERM) is given


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_benchmark_ends_in_order_with_its_command(tmp_path, monkeypatch, number):
    monkeypatch.setattr("mammo_lib.cli.bench_command.ROOT", tmp_path)
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "benchmarks" / "own.py").write_text(ENDS_ITS_PARENT.format(number=int(number)))
    monkeypatch.setattr("mammo_lib.runs.executor.PATIENCE_S", 0.1)
    with handler_of_sigterm(signal.SIG_DFL):
        assert mammo("bench", "own").returncode == 128 + number
    assert (tmp_path / "cleaned").exists()


def test_a_rehearsal_ends_in_order_with_its_command(tmp_path, monkeypatch):
    interpreter = tmp_path / "python"
    interpreter.write_text(f"#!{sys.executable}\n{ENDS_ITS_PARENT.format(number=int(signal.SIGTERM))}")
    interpreter.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(interpreter))
    monkeypatch.chdir(tmp_path)
    with handler_of_sigterm(leave), pytest.raises(SystemExit):
        rehearsal.start(tmp_path, get_profile("smoke"), None)
    assert (tmp_path / "cleaned").exists()


def test_the_end_of_a_rehearsal_is_told_once(tmp_path, monkeypatch, capfd):
    """By the command that waits for it, which ends with its exit code."""
    (tmp_path / "typer.py").write_text("import os, signal; os.kill(os.getpid(), signal.SIGTERM)")
    monkeypatch.setattr(rehearsal, "stage", lambda *_, **__: tmp_path)
    done = mammo("reproduce", "--rehearse", "--profile", "smoke", PYTHONPATH=tmp_path)
    assert (done.returncode, done.stderr, capfd.readouterr().err) == (143, f"{INTERRUPTED}\n", "")


ENDS_ITS_PARENT = """
import os, sys, signal, time
signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
if __name__ == "__main__":
    try:
        os.kill(os.getppid(), {number})
        time.sleep(40)
    finally:
        time.sleep(1)
        open("cleaned", "w").close()
"""


@contextmanager
def handler_of_sigterm(handler):
    """Put a handler in the place of that of the tests, for a while."""
    before = signal.signal(signal.SIGTERM, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def finished_run(experiment: str, data_set: str, **facts) -> records.Run:
    run = records.start_run(RunConfig(experiment=experiment), "d", data_set=data_set, **facts)
    frame = pd.DataFrame({"split": ["validation"], "label": [1], "probability": [0.75]})
    run.finish(frame, {"validation": {"auc": {"value": 0.75}}})
    return run


def test_records_of_the_phantom_are_not_published(run_homes):
    phantom = "synthetic phantom"
    finished_run("real", "CBIS-DDSM, layout mirror-800")
    network = finished_run("synthetic", phantom).name
    finished_run("incomplete_real", phantom, network="real/seed0")
    finished_run("external_mini_mias", "mini-MIAS", network=network)
    for name in ("synthetic", "incomplete_real", "external_mini_mias"):
        line = one_line(mammo("results", "publish", "real", name))
        assert f"{name}/seed0-" in line and "made on the synthetic phantom, and results/ holds records of real" in line
    assert not records.COMMITTED.exists()
    assert "run `mammo run --experiment none --data DIR` first" in one_line(mammo("results", "publish", "none"))
    assert mammo("results", "publish", "real").returncode == 0
    (record,) = records.all_runs(records.COMMITTED)
    assert record.config.experiment == "real"
