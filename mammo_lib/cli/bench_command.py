"""The benchmarks of a checkout, listed and run."""

from __future__ import annotations

import ast
import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from ..config import ROOT
from ..errors import InputError
from ..runs.executor import run_program


def bench(
    context: typer.Context,
    script: Annotated[str | None, typer.Argument(help="its name, such as scan (default: list them)")] = None,
) -> None:
    """List the benchmarks, or run one with the options that follow its name; it replaces its record in benchmarks/."""
    sources = {path.stem: path.read_text(encoding="utf-8") for path in sorted((ROOT / "benchmarks").glob("*.py"))}
    sources = {name: source for name, source in sources.items() if '__name__ == "__main__"' in source}
    if not sources:
        raise InputError(f"{ROOT}: no benchmarks; run this in a checkout")
    if script is None:
        for name, source in sources.items():
            question = (ast.get_docstring(ast.parse(source)) or "").partition("\n")[0]
            typer.echo(f"{name:<18} {question}")
    elif script not in sources:
        raise InputError(f"unknown benchmark {script!r}: choose one of {', '.join(sources)}")
    elif "argparse" in sources[script]:
        _run(script, context.args)
    elif context.args == ["--help"]:
        typer.echo(ast.get_docstring(ast.parse(sources[script])))
    elif context.args:
        raise InputError(f"bench {script}: takes no options, got {' '.join(context.args)}")
    else:
        _run(script, [])


def _run(script: str, arguments: list[str]) -> NoReturn:
    runner = str(Path(__file__).with_name("script.py"))
    raise typer.Exit(run_program([sys.executable, runner, f"benchmarks/{script}.py", *arguments], cwd=ROOT))
