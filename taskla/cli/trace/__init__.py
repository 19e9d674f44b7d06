"""taskla trace: what was recorded, looked at in every way. One command a file."""

from __future__ import annotations

from typing import Any

import click

from taskla.cli.options import Commands

__all__ = ["command"]

#: In the order of ``--help``.
COMMANDS = ("info", "summary", "view", "export", "import", "compare", "replay")


class _Commands(Commands):
    """The commands on traces."""

    names = COMMANDS
    package = "taskla.cli.trace"


@click.group(cls=_Commands, invoke_without_command=True)
@click.pass_context
def command(ctx: click.Context, /, **_: Any) -> None:
    """Look at recorded traces: why did it take that long, what else would have been.

    A trace is recorded by taskla bench --trace FILE, or by tla.engine(..., trace=FILE).
    """
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())
