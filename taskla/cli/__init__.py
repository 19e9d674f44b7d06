"""The command ``taskla``, the same as ``python -m taskla``.

One command a file. This module and theirs import nothing that computes, so that ``--help`` is
quick; a command imports what it needs when it runs.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import click

from taskla import __version__
from taskla.cli import ranks
from taskla.cli.options import DEBUG, Commands
from taskla.cli.ranks import Failure
from taskla.launch import job

__all__ = ["main"]

COMMANDS = ("bench", "solve", "plan", "trace", "info", "schedulers", "distributions", "dask-run")

#: Of these the command that is given to all ranks, and shares them out itself.
DASK_RUN = "dask-run"


class _Interrupted(click.ClickException):
    """Ctrl-C."""

    exit_code = 130


class _Commands(Commands):
    """The commands; errors become one line."""

    names = COMMANDS
    package = "taskla.cli"

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        # a module cannot have a hyphen in its name
        if cmd_name == DASK_RUN:
            from taskla.cli.dask_run import command

            return command
        return super().get_command(ctx, cmd_name)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        # what click itself means by an exception, and a reader of our output that went away
        except (click.ClickException, click.exceptions.Exit, click.Abort, BrokenPipeError):
            raise
        except KeyboardInterrupt:
            raise _Interrupted("interrupted") from None
        except Exception as error:
            if ctx.meta.get(DEBUG):
                raise
            raise click.ClickException(_line(error)) from error

    def main(self, *args: Any, standalone_mode: bool = True, **extra: Any) -> Any:
        """Run a command line; exit with its code, and one line on standard error if it failed."""
        run: Callable[..., Any] = partial(super().main, *args, standalone_mode=False, **extra)
        if not standalone_mode:
            return run()
        here = job()
        words = extra.get("args", args[0] if args else None) or sys.argv[1:]
        if here.ranks > 1 and words and words[0] in ranks.COMMANDS and "--help" not in words:
            sys.exit(ranks.run(here, partial(_end, run)))
        if here.rank and words[:1] != [DASK_RUN]:
            sys.exit()
        failure = _end(run)
        if failure.line:
            click.echo(f"Error: {failure.line}", err=True)
        sys.exit(failure.code)


def _end(run: Callable[[], Any]) -> Failure:
    """Run a command; return how it ended."""
    try:
        return Failure(run() or 0)
    except click.ClickException as error:
        told = getattr(error.__cause__, "__notes__", [])
        by_another = type(error.__cause__).__name__ == "RemoteError"
        if by_another or any(note.startswith("on rank ") for note in told):
            return Failure(error.exit_code)
        return Failure(error.exit_code, error.format_message())


def _line(error: Exception) -> str:
    """What an error says, in one line."""
    if isinstance(error, OSError) and error.strerror:
        text = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    elif isinstance(error, MemoryError):
        text = str(error) or "not enough memory"
    elif isinstance(error, (ValueError, TypeError, OSError, ImportError)):
        text = str(error)
    else:
        text = f"{type(error).__name__}: {error} (--debug shows where)"
    notes = getattr(error, "__notes__", [])
    return " ".join("; ".join([text, *notes]).split())


@click.group(cls=_Commands, invoke_without_command=True)
@click.version_option(__version__, prog_name="taskla")
@click.pass_context
def main(ctx: click.Context) -> None:
    """Tiled dense linear algebra: time it, check it, plan it, solve with it."""
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())
