"""Senseless command lines, damaged files and impossible outputs: one line on stderr, exit code 2.

Valid input gives exit code 0, and a comparison with a bad outcome 1. Commands write only into the folder that they name
and into ``_build`` of the project.
"""

import json
import os
import random
import re
import select
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from mammo_lib.config import ROOT, RunConfig, as_yaml
from mammo_lib.runs.records import COMMITTED, all_runs

from .counts import PATIENCE_S, Counts, judge, state_of
from .test_images import BYTES, NAME, anything_can_be_written, as_bytes, film, whole_files, write_one
from .test_images import KINDS as IMAGE_KINDS
from .test_tables import DAMAGED, DAMAGED_JSON

FIRST_PATIENCE_S = 300  # for the first lines of a process, which import torch and compile the scan
BAR = re.compile(r"\d+%\||\| *\d+/\d+ \[|^\s*$")  # of progress
NOTE = re.compile(r"profile \S+: suits |views that cannot be read are left out")
SEVERAL = {"predict": "mammo: refused: ", "results check": "mammo: "}  # commands that say one line per fault
WORDS = (
    "", " ", "-", "--", "abc", "-1", "1e3", "\u4e73", "../../evil", "a\nb", "x" * 5000, "\udcff", "null", "[", "{",
    "$(id)", "<b>", "%s", "=", "a=b=c", "*", "~", "0x1", "1_0", "\u0661", "true",
)  # fmt: skip
NUMBERS = ("-1", "0", "4294967296", "1e99", "nan", "inf", "abc", "", "1.5", "9" * 400, "-0", "0b1", "\u0663")
VALUES = (
    "", "null", "[]", "{}", "-1", "0", "1e999", ".nan", "-.inf", "abc", "[1, 2, 3]", "{a: 1}", "*x", "&a [*a]",
    "!!python/x", "!!python/object/apply:os.system [id]", "2026-13-45", "9" * 5000, "[" * 3000, "\t", "'", "true",
    "\x07", "1:2:3",
)  # fmt: skip


@dataclass(frozen=True)
class Line:
    """A command line: the command, what follows it, and variables of the environment."""

    command: str
    arguments: list[str]
    environment: dict[str, str] = field(default_factory=dict)


class Home:
    """A folder with one of everything that commands read, and with places that they may write to."""

    def __init__(self, home: Path, data: Path, run: Path, seed: int):
        self.draw = random.Random(seed)
        self.path = home
        for name in ("project/_build", "elsewhere", "said"):
            (home / name).mkdir(parents=True)
        self.data, self.out, self.given, self.config = (home / name for name in ("data", "out", "given", "config.yaml"))
        shutil.copytree(data, self.data)
        trained = next(run.folder for run in all_runs(COMMITTED) if (run.folder / "history.csv").is_file())
        self.record = shutil.copytree(trained, home / "record")
        self.run = shutil.copytree(run, home / "run")
        self.whole = whole_files()
        self.renew()

    def renew(self) -> None:
        """Bring back what commands wrote to, and what was damaged beside it."""
        for folder in (self.out, self.given):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
        (self.out / "file").write_text("")
        (self.given / f"{NAME}.dcm").write_bytes(as_bytes(film()))
        self.config.write_text(as_yaml(RunConfig()))

    def place(self) -> str:
        """Return a place where nothing can be written."""
        places = (self.out / "file", self.out / "file" / "x", "/proc/x", "/dev/null/x", self.out / ("x" * 300))
        return str(self.draw.choice(places))

    def copy(self, folder: Path) -> Path:
        """Return a copy that may be damaged."""
        return shutil.copytree(folder, self.given / "copy")

    def state(self) -> dict:
        """Return the state of everything that no command may change."""
        allowed = tuple(map(str, (self.out, self.path / "project" / "_build", self.path / "said")))
        return {path: state for path, state in state_of(self.path).items() if not path.startswith(allowed)}


NEED_DATA = ("run", "evaluate", "reproduce", "data audit", "data folds", "data prepare")
FIELDS = [
    f"{group}.{name}"
    for group in ("data", "model", "train")
    for name in type(getattr(RunConfig(), group)).model_fields
] + ["seed", "experiment", "baseline"]  # fmt: skip
COMMANDS = (
    "run", "config", "list", "evaluate", "reproduce", "results check", "results publish", "predict", "weights",
    "data phantom", "data fetch", "data audit", "data folds", "data prepare",
)  # fmt: skip


def nowhere(home: Home, command: str) -> list[str]:
    """Return the option that keeps a command from working for minutes should all else be right."""
    return ["--data", str(home.out / "none")] if command in NEED_DATA else []


def unknown_words(home: Home) -> Line:
    command = home.draw.choice((*COMMANDS, "data", "results", "nonsense"))
    return Line(command, [f"--{home.draw.choice(WORDS)[:50]}x", home.draw.choice(WORDS)])


def wrong_value(home: Home) -> Line:
    return Line("config", ["--set", f"{home.draw.choice(FIELDS)}={home.draw.choice(VALUES)}"])


def unknown_field(home: Home) -> Line:
    name = home.draw.choice((*WORDS, "train", "train.", ".epochs", "train.epoch", "model.gate.x.y", "data.__class__"))
    return Line("config", ["--set", home.draw.choice((name, f"{name}=1"))])


def damaged_config(home: Home) -> Line:
    kind = home.draw.choice([*DAMAGED, *DAMAGED_JSON])
    home.config.write_bytes((DAMAGED | DAMAGED_JSON)[kind](home.draw, home.config.read_bytes()))
    command = home.draw.choice(("config", "config", "run"))
    return Line(command, [str(home.config), *nowhere(home, command)])


CONFIGS = (
    "[]", "a", "", "data: []", "data: {x: 1}", "? [a]\n: b", "seed: *x", "<<: 1", "experiment: ../../evil",
    "experiment: 'a\n\nb'", "1: 2", "data: {image_size: [1, 2, 3]}", "--- 1\n--- 2", "model: {views: [CC, CC]}",
    "? {a: 1}\n: 2", "seed: 1\nseed: 2", "!!python/object/apply:os.system [id]", "a: &a [*a]", "model: {gate: {}}",
)  # fmt: skip
PROFILES = (
    "seeds: []", "seeds: [-1]", "run: 1", "name: ../x\nseeds: [0]", "phantom_breasts: 1.0e+9", "x: 1", "",
    "experiments: ../../../etc/passwd", "data_set: os:system", "data_set: 'a:b:c'", "run: {seed: -1}", "about: [1]",
)  # fmt: skip


def strange_config(home: Home) -> Line:
    home.config.write_text(home.draw.choice(CONFIGS))
    command = home.draw.choice(("config", "run"))
    return Line(command, [str(home.config), *nowhere(home, command)])


def no_config(home: Home) -> Line:
    paths = (home.given, home.path / "none.yaml", "/dev/null", "/proc/self/mem", home.out / "file", "-", "x\ny.yaml")
    return Line("config", [str(home.draw.choice(paths))])


def wrong_profile(home: Home) -> Line:
    home.config.write_text(home.draw.choice(PROFILES))
    names = (str(home.config), str(home.config), home.draw.choice(WORDS), "../smoke", "smoke.yaml", "smok", "/")
    command = home.draw.choice(("config", "list", "run", "evaluate", "data prepare", "reproduce"))
    experiment = ["--experiment", "dual_stream"] if command == "run" else []
    return Line(command, [f"--profile={home.draw.choice(names)}", *experiment, *nowhere(home, command)])


NUMBER_OPTIONS = (
    ("data phantom", "--seed"), ("data phantom", "--breasts"), ("data folds", "--n-folds"), ("data folds", "--seed"),
    ("run", "--workers"), ("run", "--cv"), ("run", "--seed"), ("evaluate", "--workers"), ("reproduce", "--jobs"),
    ("predict", "--aspect"), ("config", "--seed"), ("data prepare", "--workers"),
)  # fmt: skip


def wrong_number(home: Home) -> Line:
    command, option = home.draw.choice(NUMBER_OPTIONS)
    out = [str(home.out / "file")] if command in ("data phantom", "data folds") else []
    return Line(command, [*out, f"{option}={home.draw.choice(NUMBERS)}", *nowhere(home, command)])


def wrong_name(home: Home) -> Line:
    """Give a name of something that does not exist: of an experiment, a variant, a layout, a cohort, a chapter."""
    word = home.draw.choice([word for word in WORDS if not word.startswith("-")])
    lines = (
        Line("run", [f"--experiment={word}", *nowhere(home, "run")]),
        Line("config", [f"--experiment={word}"]),
        Line("weights", [word, "--folder", home.place()]),
        Line("data phantom", [str(home.out / "p"), f"--layout={word}"]),
        Line("data folds", [str(home.out / "f"), f"--cohort={word}", "--data", str(home.data)]),
        Line("results publish", [word]),
        Line("reproduce", ["-p", word]),
        Line("reproduce", ["-p", f"a={home.draw.choice(VALUES)}", f"--only={word}"]),
        Line("run", ["--set", "train.epochs=1", f"--cluster={word}", *nowhere(home, "run")]),
    )
    return home.draw.choice(lines)


def impossible_output(home: Home) -> Line:
    place = home.place()
    lines = (
        Line("data phantom", [place, "--breasts", "12"]),
        Line("data fetch", [place, "--tables-only"]),
        Line("data audit", ["--data", str(home.data), "--json", place]),
        Line("data folds", [place, "--data", str(home.data), "--n-folds", "2"]),
        Line("predict", [str(home.given), "--run", str(home.run), "--out", place]),
    )
    return home.draw.choice(lines)


def no_data(home: Home) -> Line:
    (home.given / "loop").symlink_to("loop")
    command = home.draw.choice(("data audit", "data folds", "data prepare", "evaluate", "run"))
    folders = (home.given, home.given / "loop", home.out / "file", home.out / "none", "/dev/null", "~nobody", "a\nb")
    more = {"run": ["--set", "train.epochs=1"], "data folds": [str(home.out / "f")]}.get(command, [])
    return Line(command, [*more, "--data", str(home.draw.choice(folders))])


def damaged_data(home: Home) -> Line:
    copy = home.copy(home.data)
    path = home.draw.choice(sorted([*copy.rglob("*.csv"), *copy.glob("*.json"), *copy.rglob("*.dcm")]))
    path.write_bytes(home.draw.choice([*BYTES.values()])(home.draw, path.read_bytes()))
    command = home.draw.choice(("data audit", "data folds"))
    more = [str(home.out / "f"), "--n-folds", "2"] if command == "data folds" else ["--json", str(home.out / "a.json")]
    return Line(command, [*more, "--data", str(copy)])


def damage_record(home: Home, folder: Path) -> None:
    """Damage one file of a run folder, take it away, or put another in its place."""
    draw, path = home.draw, home.draw.choice(sorted(folder.iterdir()))
    content = path.read_bytes()
    path.unlink()
    effect = draw.choice(("bytes", "bytes", "json", "missing", "folder", "pipe", "another's", "mended manifest"))
    if effect == "folder":
        path.mkdir()
    elif effect == "pipe":
        os.mkfifo(path)
    elif effect == "another's":
        path.write_bytes(draw.choice(sorted(home.record.iterdir())).read_bytes())
    elif effect != "missing":
        kinds = DAMAGED_JSON if effect == "json" and path.suffix == ".json" else BYTES
        path.write_bytes(draw.choice([*kinds.values()])(draw, content))
    if effect == "mended manifest":  # a damage that nobody notices by its hash
        (folder / "manifest.json").unlink(missing_ok=True)


def damaged_record(home: Home) -> Line:
    copy = home.copy(home.draw.choice((home.record, home.run)))
    damage_record(home, copy)
    return Line("results check", [str(copy)])


def no_record(home: Home) -> Line:
    paths = (home.given, home.out / "none", home.out / "file", "/dev/null", "a\nb", home.run / "config.json")
    return Line("results check", [str(home.draw.choice(paths))])


def prediction(home: Home, run: Path, *given: str) -> Line:
    return Line("predict", [*given, "--run", str(run), "--out", str(home.out / "predictions")])


def damaged_run(home: Home) -> Line:
    copy = home.copy(home.run)
    damage_record(home, copy)
    return prediction(home, copy, str(home.given))


def no_run(home: Home) -> Line:
    return prediction(
        home, home.draw.choice((home.record, home.given, home.out / "none", Path("/dev/null"))), str(home.given)
    )


def damaged_image(home: Home) -> Line:
    with anything_can_be_written():
        path, _ = write_one(home.draw.choice(IMAGE_KINDS), fresh(home.given), home.draw, home.whole)
    return prediction(home, home.run, *home.draw.choice(([str(path)], [str(home.given)], ["--cc", str(path)])))


def fresh(folder: Path) -> Path:
    shutil.rmtree(folder)
    folder.mkdir()
    return folder


HOSTILE = ("../../evil", "..", "a\nb", "<script>", "$x^$", "C:evil", "x" * 300, "\u202e", "%s", "~", "CON")


def hostile_patient(home: Home) -> Line:
    with anything_can_be_written():
        content = as_bytes(film(PatientID=home.draw.choice((*HOSTILE, str(home.path / "evil")))))
    (fresh(home.given) / "1.dcm").write_bytes(content)
    return prediction(home, home.run, str(home.given))


def odd_images(home: Home) -> Line:
    path = str(home.given / f"{NAME}.dcm")
    given = (
        [],
        ["--cc", path, "--mlo", path],
        [path, "--cc", path],
        [path, path],
        ["--crop-cc", path],
        [str(home.out)],
    )
    return prediction(home, home.run, *home.draw.choice(given))


def odd_environment(home: Home) -> Line:
    name = home.draw.choice(
        ("RANK", "LOCAL_RANK", "SLURM_PROCID", "MAMMO_PROFILE", "MAMMO_DATA", "MAMMO_ALLOW_MISSING")
    )
    command = home.draw.choice(("evaluate", "config", "data audit", "data prepare"))
    profile = ["--profile", "mirror"] if command in ("evaluate", "data prepare") else []
    value = home.draw.choice([word for word in (*WORDS, *NUMBERS) if word.isprintable() or word == "a\nb"])
    return Line(command, profile, {"MAMMO_DATA": str(home.out / "none"), name: value})


KINDS: dict[str, Callable[[Home], Line]] = {
    "unknown option": unknown_words,
    "field of a wrong value": wrong_value,
    "unknown field": unknown_field,
    "damaged config file": damaged_config,
    "config file of strange content": strange_config,
    "no config file": no_config,
    "wrong profile": wrong_profile,
    "number out of bounds": wrong_number,
    "unknown name": wrong_name,
    "output that cannot be": impossible_output,
    "folder without data": no_data,
    "damaged data": damaged_data,
    "damaged record": damaged_record,
    "no record": no_record,
    "damaged run": damaged_run,
    "no run": no_run,
    "damaged image": damaged_image,
    "hostile patient": hostile_patient,
    "odd images": odd_images,
    "odd environment": odd_environment,
}


class Mammo:
    """``mammo`` in a process that answers one line after another; another one where it hangs or dies."""

    def __init__(self, home: Home):
        self.home = home
        self.process = None

    def __call__(self, line: Line, patience: float = PATIENCE_S) -> dict | None:
        """Return what a command line answers; None where no answer came in time."""
        if self.process is None:
            self._start()
        arguments = [*line.command.split(), *line.arguments]
        self.process.stdin.write(json.dumps({"arguments": arguments, "environment": line.environment}) + "\n")
        self.process.stdin.flush()
        ready, _, _ = select.select([self.process.stdout], [], [], patience)
        if ready and (said := self.process.stdout.readline()):
            return json.loads(said)
        self.close()
        return None

    def _start(self) -> None:
        env = {key: value for key, value in os.environ.items() if not key.startswith("MAMMO_")}
        env |= {"MAMMO_ROOT": str(self.home.path / "project"), "PYTHONPATH": str(ROOT), "MPLBACKEND": "agg"}
        command = [sys.executable, Path(__file__).with_name("answer.py"), self.home.path / "said"]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env, cwd=self.home.path / "elsewhere"
        )

    def close(self) -> None:
        """End the process."""
        if self.process is not None:
            self.process.kill()
            self.process.communicate()
            self.process = None


def came_of(line: Line, said: dict | None, before: dict[str, str]) -> tuple[str, str]:
    """Return how a command line was taken, and where that is a fault, why."""
    if said is None:
        return "hangs", f"no answer within {PATIENCE_S} s, or the process died"
    told = [one for one in said["stderr"].splitlines() if not BAR.search(one) and not NOTE.match(one)]
    if said["code"] is None or "Traceback (most recent call last)" in said["stderr"]:
        return "tracebacks", (said["raised"] or said["stderr"])[-1500:]
    if said["code"] == 2 and told:
        is_right = told[0].startswith("mammo: ") and len(told) == 1
        start = SEVERAL.get(line.command)
        is_right |= start is not None and all(one.startswith(start) for one in told)
        return ("refused in one line" if is_right else "other answers"), said["stderr"][-1500:]
    is_answer = said["code"] == 0 or (said["code"], line.command) == (1, "data audit")
    if told or not is_answer:
        return "other answers", f"exit code {said['code']}: {said['stderr'][-1500:]}"
    return ("read as before" if said["stdout"] == before.get(line.command) else "read otherwise"), ""


def fuzz(home: Path, data: Path, run: Path, n: int, seed: int) -> Counts:
    """Give ``n`` command lines, as many of each kind; return what came of them.

    ``data`` is a phantom, ``run`` a folder with weights; both are copied.
    """
    folder, counts = Home(home, data, run, seed), Counts()
    mammo = Mammo(folder)
    try:
        right = (
            Line("config", [str(folder.config)]),
            Line("results check", [str(folder.record)]),
            prediction(folder, folder.run, str(folder.given)),
        )
        before = {line.command: mammo(line, FIRST_PATIENCE_S)["stdout"] for line in right}
        for number in range(n):
            kind = [*KINDS][number % len(KINDS)]
            folder.renew()
            line = KINDS[kind](folder)
            state = folder.state()
            said = mammo(line)
            came, why = came_of(line, said, before)
            if folder.state() != state:
                came, why = "writes outside", str(set(folder.state().items()) ^ set(state.items()))
            counts.add(f"mammo {line.command}", kind, came, f"{number} of seed {seed}: {line}: {why}")
    finally:
        mammo.close()
    return counts


def test_wrong_command_lines_are_refused_in_one_line(tmp_path, phantom_of, untrained_run, record_property):
    judge(fuzz(tmp_path / "home", phantom_of(), untrained_run().folder, len(KINDS), seed=0), record_property)


@pytest.mark.slow
def test_many_wrong_command_lines_are_refused_in_one_line(tmp_path, phantom_of, untrained_run, record_property):
    judge(fuzz(tmp_path / "home", phantom_of(), untrained_run().folder, 10 * len(KINDS), seed=1), record_property)
