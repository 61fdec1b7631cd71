"""The whole report by one command: data, every notebook in order with papermill, then the book.

Finished notebooks are kept in ``book/notebooks``. A notebook runs again only when its
source, the library, the protocol, the profile or the data folder has changed, so a
killed reproduction goes on where it was. A failed notebook never replaces a good page.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from .config import BUILD, ROOT, Profile
from .errors import InputError

SOURCE = ROOT / "notebooks"
EXECUTED = ROOT / "book" / "notebooks"
STATE = BUILD / "papermill"
NOTEBOOK_TIMEOUT_S = 6 * 3600


class NotebookFailed(RuntimeError):  # noqa: N818  (an event, reported as one)
    """A notebook stopped with an error."""

    def __init__(self, notebook: Path, cell: int, name: str, message: str, source: str, partial: Path):
        self.notebook, self.cell, self.source, self.partial = notebook, cell, source, partial
        super().__init__(f"{notebook.name}, cell {cell}: {name}: {message}")


@dataclass(frozen=True)
class Step:
    """One notebook of the plan."""

    source: Path
    output: Path
    key: str
    is_done: bool

    @property
    def mark(self) -> Path:
        """The file that says with what this notebook was last executed."""
        return STATE / f"{self.source.stem}.json"


def find_notebooks() -> list[Path]:
    """Return the numbered notebooks, in order."""
    return sorted(SOURCE.glob("[0-9][0-9]_*.ipynb"))


def plan(profile: Profile, data: Path | None = None, *, only=(), start=None, force=False) -> list[Step]:
    """Say which notebooks a reproduction consists of and which of them are up to date.

    ``only`` and ``start`` take chapter numbers ("05"); a number that no notebook has is an error.
    """
    notebooks = find_notebooks()
    for number in [*only, *([start] if start else [])]:
        if not any(path.name.startswith(number) for path in notebooks):
            have = ", ".join(path.name[:2] for path in notebooks)
            raise InputError(f"no notebook starts with {number!r}: choose from {have}")
    shared = _shared_key(profile, data)
    steps = [_step(path, shared, force) for path in notebooks if not start or path.name[:2] >= start[:2]]
    return [s for s in steps if not only or s.source.name.startswith(tuple(only))]


def execute(step: Step, profile: Profile, position: int = 1) -> float:
    """Execute one notebook and move it into the book when it finished; return the seconds it took."""
    import papermill
    from papermill.exceptions import PapermillExecutionError

    STATE.mkdir(parents=True, exist_ok=True)
    EXECUTED.mkdir(parents=True, exist_ok=True)
    partial = STATE / f"{step.source.stem}.partial.ipynb"
    started = time.perf_counter()
    try:
        papermill.execute_notebook(
            step.source, partial, parameters={"profile": profile.name}, cwd=SOURCE, kernel_name="python3",
            progress_bar={"desc": f"  {step.source.stem}", "leave": False, "position": position},
            execution_timeout=NOTEBOOK_TIMEOUT_S, start_timeout=120,
        )  # fmt: skip
    except PapermillExecutionError as error:
        raise NotebookFailed(step.source, error.cell_index, error.ename, error.evalue, error.source, partial) from error
    _publish(partial, step)
    seconds = time.perf_counter() - started
    step.mark.write_text(json.dumps({"key": step.key, "profile": profile.name, "seconds": round(seconds, 2)}))
    return seconds


def build_book(*, strict: bool = False) -> Path:
    """Build the HTML book from the executed notebooks and return its front page."""
    options = ["-W", "--keep-going"] if strict else []
    run_cli = "from jupyter_book.cli.main import main; main()"
    command = [sys.executable, "-c", run_cli, "build", "--all", "--quiet", *options, "book/"]
    done = subprocess.run(command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    if done.returncode:
        raise InputError(f"the book did not build; the builder said:\n{done.stdout.strip()}")
    return BUILD / "html" / "index.html"


def _shared_key(profile: Profile, data: Path | None) -> bytes:
    digest = hashlib.sha256(profile.model_dump_json().encode() + str(data).encode())
    for folder, pattern in ((ROOT / "mammo_lib", "*.py"), (ROOT / "book", "*.json"), (ROOT / "book", "*.csv")):
        for path in sorted(folder.rglob(pattern)):
            digest.update(path.read_bytes())
    return digest.digest()


def _step(notebook: Path, shared: bytes, force: bool) -> Step:
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    content = [(cell["cell_type"], cell["metadata"], "".join(cell["source"])) for cell in cells]
    key = hashlib.sha256(shared + json.dumps(content, sort_keys=True).encode()).hexdigest()
    step = Step(notebook, EXECUTED / notebook.name, key, is_done=False)
    is_done = (
        not force and step.output.exists() and step.mark.exists() and json.loads(step.mark.read_text())["key"] == key
    )
    return Step(notebook, step.output, key, is_done)


def _publish(partial: Path, step: Step) -> None:
    """Move a finished notebook into the book, without paths of this machine and with one parameter cell."""
    notebook = json.loads(partial.read_text(encoding="utf-8"))
    record = notebook["metadata"]["papermill"]
    record["input_path"] = step.source.relative_to(ROOT).as_posix()
    record["output_path"] = step.output.relative_to(ROOT).as_posix()
    for cell in notebook["cells"]:
        tags = cell["metadata"].get("tags", [])
        if "parameters" in tags and "remove-cell" not in tags:
            cell["metadata"]["tags"] = [*tags, "remove-cell"]  # the injected cell below it shows the values used
    partial.write_text(json.dumps(notebook, indent=1) + "\n", encoding="utf-8")
    os.replace(partial, step.output)
