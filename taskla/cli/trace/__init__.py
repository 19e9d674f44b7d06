"""taskla trace: what was recorded, looked at in every way. One command a file."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import click

from taskla.cli.options import suggest

__all__ = ["command"]

#: Commands in the order of ``--help``; a module that would be a keyword has an underscore.
COMMANDS = ("info", "summary", "view", "export", "import", "compare", "replay")


class _Commands(click.Group):
    """The commands, each imported when it is named."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = "import_" if cmd_name == "import" else cmd_name
        command: click.Command = import_module(f"taskla.cli.trace.{module}").command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] not in COMMANDS:
            ctx.fail(suggest(args[0], COMMANDS))
        return super().resolve_command(ctx, args)


@click.group(cls=_Commands, invoke_without_command=True)
@click.pass_context
def command(ctx: click.Context, /, **_: Any) -> None:
    """Look at recorded traces: why did it take that long, what else would have been.

    A trace is recorded by taskla bench --trace FILE, or by tla.engine(..., trace=FILE).
    """
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())
