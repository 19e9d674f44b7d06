"""taskla schedulers."""

from __future__ import annotations

import click

from taskla.cli.options import debug_option, output_options
from taskla.cli.table import emit

__all__ = ["command"]


@click.command(epilog="Example: taskla schedulers --json")
@output_options
@debug_option
def command(form: str | None) -> None:
    """List the scheduling policies, for --policy."""
    from taskla import schedulers

    found = schedulers.available().items()
    emit(({"policy": name, "description": line} for name, line in found), form)
