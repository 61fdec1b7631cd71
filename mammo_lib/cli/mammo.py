"""The command ``mammo``: which commands there are, and how errors are told."""

from __future__ import annotations

import errno
import io
import os
import sys
from typing import NoReturn

import typer
from pydantic import ValidationError

from ..config import RANKS, ROOT, process_number
from ..errors import InputError, printable
from . import bench_command, data_commands, network_commands, record_commands, report_command, run_commands

UsageError = typer.BadParameter.__base__  # typer brings a click of its own

app = typer.Typer(
    add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, help="Mammo-Mamba, reproduced."
)
app.command()(report_command.reproduce)
app.command()(run_commands.run)
app.command("config")(run_commands.show_config)
app.command("list")(run_commands.list_runs)
app.command()(run_commands.plan)
app.command()(run_commands.evaluate)
app.command()(run_commands.verify)
app.command()(network_commands.predict)
app.command()(network_commands.external)
app.command()(network_commands.weights)
app.command("export")(network_commands.export_network)
app.command(context_settings={"allow_extra_args": True, "allow_interspersed_args": False})(bench_command.bench)

data = typer.Typer(no_args_is_help=True, help="Data: fetch, audit, prepare, phantom, folds.")
for command in (
    data_commands.phantom,
    data_commands.fetch,
    data_commands.audit,
    data_commands.folds,
    data_commands.prepare,
):
    data.command()(command)
app.add_typer(data, name="data")

results = typer.Typer(no_args_is_help=True, help="Committed records of runs.")
for command in (record_commands.publish, record_commands.check, record_commands.export):
    results.command()(command)
app.add_typer(results, name="results")


def run_command_line() -> None:
    """Run the command line; a user's error is one line on stderr, with exit code 2."""
    from ..report.outcomes import NotebookFailed

    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a terminal that cannot show a letter is no fault
    try:
        if ROOT.exists() and not ROOT.is_dir():
            raise InputError(f"MAMMO_ROOT={ROOT}: a file; set it to the folder of a checkout, or unset it")
        _refuse_empty(sys.argv[1:])
        for name in RANKS:  # here, since libraries read them while they are imported
            process_number(name)
        sys.exit(app([_expand_home(argument) for argument in sys.argv[1:]], standalone_mode=False) or 0)
    except InputError as error:
        _refuse(str(error))
    except UsageError as error:
        if not error.format_message() or len(sys.argv) == 1:
            error.show()
            sys.exit(error.exit_code)
        _refuse(f"{_describe_usage(error)} (see {error.ctx.command_path if error.ctx else 'mammo'} --help)")
    except OSError as error:
        if error.errno is None or error.errno == errno.EPIPE:
            raise
        where = f"{error.filename}: " if error.filename else ""
        _refuse(f"{where}the system refused it ({error.strerror}); check that the folder is writable and has space")
    except NotebookFailed as error:
        typer.secho(f"mammo: stopped at {error}", fg="red", err=True)
        for line in error.source.strip().splitlines():
            typer.echo(f"    | {line}", err=True)
        typer.echo(f"executed up to the error: {error.partial}", err=True)
        typer.echo(f"run the same command again to resume at {error.notebook.name}", err=True)
        sys.exit(1)


def _refuse_empty(arguments: list[str]) -> None:
    """Refuse an empty argument or ``--option=``, most often of a variable that is not set; a path would be this folder.

    Raises
    ------
    InputError
        One is empty; the option or the word before it is named.
    """
    for before, argument in zip(["mammo", *arguments], arguments, strict=False):
        option, equals, value = argument.partition("=")
        if not argument or (equals and not value and option.startswith("--")):
            given = argument or before
            raise InputError(f"an empty argument after {given!r}: give a value, or leave it out")


def _describe_usage(error: UsageError) -> str:
    """Return what is wrong with a command line, with the value that was refused or the commands that there are."""
    said = error.format_message().rstrip(".")
    if isinstance(error.__cause__, ValidationError):
        return f"{said}, got {error.__cause__.errors()[0]['input']!r}"
    if said.startswith("No such command"):
        return f"{said.rstrip('?')}: choose one of {', '.join(error.ctx.command.commands)}"
    return said


def _expand_home(argument: str) -> str:
    """Return ``--out=~/x`` with the home folder in place of the tilde: shells expand it only at the start of a word."""
    option, equals, value = argument.partition("=")
    return option + equals + os.path.expanduser(value) if option.startswith("--") else argument


def _refuse(reason: str) -> NoReturn:
    typer.secho(f"mammo: {printable(reason)}", fg="red", err=True)
    sys.exit(2)
