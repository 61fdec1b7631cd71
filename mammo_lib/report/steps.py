"""Which notebooks a reproduction runs, with which parameters, and which of them are up to date."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path

from ..config import BUILD, RETRAIN, ROOT, Profile
from ..errors import InputError
from ..files import read_json

SOURCE = ROOT / "notebooks"
EXECUTED = ROOT / "book" / "notebooks"
STATE = BUILD / "papermill"
DEFAULT_BOOK = "mirror"  # the profile whose records the book shows where no images are given
SHOWN = (  # folder and name of what every chapter may show or say, whatever its profile
    ("mammo_lib", "*.py"),
    ("book", "*.json"), ("book", "*.csv"), ("book", "protocol*.md"), ("book/profiles", "*.yaml"),
    ("results", "metrics.json"), ("results", "receipt.json"), ("results", "what_did_not_help.csv"),
    ("results", "test_set_shift.json"), ("results", "calcification_baselines.json"),
    ("benchmarks", "*.json"), ("released", "*"), ("sample", "*.csv"),
)  # fmt: skip


@dataclass(frozen=True)
class Step:
    """One notebook of the plan; ``expected`` is the seconds that its last run in this profile took."""

    source: Path
    output: Path
    key: str
    is_done: bool
    parameters: dict[str, object]
    expected: float | None = None

    @property
    def number(self) -> str:
        """The chapter's number, e.g. "05" or "06a"."""
        return chapter_number(self.source)

    @property
    def mark(self) -> Path:
        """The file that records the inputs of this notebook's last execution."""
        return STATE / f"{self.source.stem}.json"


def chapter_number(notebook: Path) -> str:
    """Return the number at the start of a notebook's name, "05" or "06a"."""
    return notebook.name.partition("_")[0]


def find_notebooks() -> list[Path]:
    """Return the numbered notebooks, in order.

    Raises
    ------
    InputError
        There are none, because this is an installed library without a checkout.
    """
    notebooks = sorted(SOURCE.glob("[0-9][0-9]*_*.ipynb"))
    if not notebooks:
        raise InputError(f"{SOURCE}: no notebooks; run this in a checkout of the project, or set MAMMO_ROOT to one")
    return notebooks


def plan(
    profile: Profile,
    data: Path | None = None,
    *,
    data_hash: dict | None = None,
    only=(),
    start=None,
    force=False,
    parameters: dict | None = None,
) -> list[Step]:
    """Return the notebooks of a reproduction, and whether each is up to date.

    ``only`` and ``start`` take chapter numbers; "05" includes "05a". Each notebook receives the ``parameters`` that it
    declares.

    Raises
    ------
    InputError
        No notebook has a number, none is left, or no chosen notebook declares a parameter.
    """
    chosen = _chosen(find_notebooks(), tuple(only), start)
    given = assign_parameters(chosen, {"profile": profile.name} | (parameters or {}))
    shared = _shared_key(profile, data, data_hash)
    return [_step(path, given[path], shared, profile, force) for path in chosen]


def _chosen(notebooks: list[Path], only: tuple[str, ...], start: str | None) -> list[Path]:
    """Return the notebooks from ``start`` on whose numbers begin with one of ``only``, where these are given."""
    given = [("--only", number) for number in only] + ([] if start is None else [("--from", start)])
    for option, number in given:
        if not number or not any(chapter_number(path).startswith(number) for path in notebooks):
            raise InputError(f"{option} {number!r}: no such chapter; choose from {_numbers(notebooks)}")
    later = [path for path in notebooks if start is None or path.name >= start]
    chosen = [path for path in later if not only or path.name.startswith(only)]
    if not chosen:
        before = f"--only {', '.join(only)} with --from {start}: no chapter is left"
        raise InputError(f"{before}; with this --from, choose --only from {_numbers(later)}")
    return chosen


def _numbers(notebooks: list[Path]) -> str:
    return ", ".join(map(chapter_number, notebooks))


def assign_parameters(notebooks: list[Path], parameters: dict) -> dict[Path, dict]:
    """Return for each notebook the parameters that its parameter cell declares.

    Raises
    ------
    InputError
        A notebook cannot be read, or none declares a parameter. (papermill would only warn.)
    """
    declared = {path: _declared(path) for path in notebooks}
    known = set().union(*declared.values())
    for name in parameters:
        if name not in known:
            have = f"choose from {', '.join(sorted(known - {'profile'}))}"
            if known <= {"profile"}:
                have = "they have none but profile, which --profile sets" if known else "they have none"
            raise InputError(f"--parameter {name}: no chosen notebook has this parameter; {have}")
    return {path: {k: v for k, v in parameters.items() if k in names} for path, names in declared.items()}


def _declared(path: Path) -> set[str]:
    import papermill

    try:
        return set(papermill.inspect_notebook(path))
    except Exception as error:  # many types: errors of the file, of JSON or of the notebook's format
        reason = f"{type(error).__name__}: {error}".splitlines()[0][:200]
        raise InputError(f"{path}: not a readable notebook ({reason}); restore it (git checkout {path.name})") from None


def _shared_key(profile: Profile, data: Path | None, data_hash: dict | None) -> bytes:
    switches = [profile.model_dump_json(), str(data), data_hash, os.environ.get(RETRAIN) == "1"]
    digest = hashlib.sha256(json.dumps(switches, sort_keys=True).encode())
    for folder, pattern in SHOWN:
        for path in filter(Path.is_file, sorted((ROOT / folder).rglob(pattern))):
            digest.update(path.read_bytes())
    return digest.digest()


def _step(notebook: Path, parameters: dict, shared: bytes, profile: Profile, force: bool) -> Step:
    cells = read_json(notebook)["cells"]
    content = [[cell["cell_type"], cell["metadata"], "".join(cell["source"])] for cell in cells]
    key = hashlib.sha256(shared + json.dumps([parameters, content], sort_keys=True).encode()).hexdigest()
    step = Step(notebook, EXECUTED / notebook.name, key, False, parameters)
    mark = read_json(step.mark) if step.mark.exists() else {}
    is_done = not force and step.output.exists() and mark.get("key") == key
    expected = mark.get("seconds") if mark.get("profile") == profile.name else None
    return Step(notebook, step.output, key, is_done, parameters, expected)
