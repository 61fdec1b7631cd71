"""The book, built from the executed notebooks."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from ..config import BUILD, ROOT
from ..errors import InputError


def build_book(*, strict: bool = False) -> Path:
    """Build the HTML book from the executed notebooks and return its front page."""
    options = ["-W", "--keep-going"] if strict else []
    run_cli = "from jupyter_book.cli.main import main; main()"
    command = [sys.executable, "-c", run_cli, "build", "--all", "--quiet", *options, "book/"]
    done = subprocess.run(command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    if done.returncode:
        print(done.stdout.strip(), file=sys.stderr)
        raise InputError("book/: the book did not build; fix the errors that its builder reports above")
    return BUILD / "html" / "index.html"
