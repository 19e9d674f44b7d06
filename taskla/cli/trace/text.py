"""What the commands on traces print: names out of a file are not trusted."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from textwrap import fill
from typing import TYPE_CHECKING, Any, TypeVar

import click

from taskla.cli.table import emit

if TYPE_CHECKING:
    from taskla.traces import Run

__all__ = [
    "json_option",
    "lines",
    "percent",
    "printable",
    "scalar",
    "status",
    "table",
    "unit_of",
    "words",
]

Row = dict[str, Any]
Command = TypeVar("Command", bound=Callable[..., Any])

# Longer names would tear a table apart.
_MOST = 60
_WIDTH = 100


def json_option(command: Command) -> Command:
    """Add ``--json``, given to the command as ``form``: for rows of several kinds, without CSV."""
    return click.option(
        "--json",
        "form",
        flag_value="json",
        help="Print one JSON object a line; key table: its kind.",
    )(command)


def printable(value: Any, most: int = 1000) -> str:
    """Return text that does nothing to a terminal: what cannot be printed is written as escapes."""
    text = "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in str(value)
    )
    return text if len(text) <= most else text[: most - 3] + "..."


def scalar(value: Any) -> Any:
    """Return a value of a header as a cell: anything but text and numbers is put into words."""
    return value if value is None or isinstance(value, str | int | float) else words(value)


def words(value: Any) -> str:
    """Return lists and objects of a header in words: ``n 96, nb 16``."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_item(key, item)}" for key, item in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _item(key: Any, value: Any) -> Any:
    memory = key == "memory" and isinstance(value, int)
    return f"{value / 2**30:.1f} GiB" if memory else value


def lines(facts: Mapping[str, Any]) -> None:
    """Print facts for people, one a line under its name."""
    width = max(map(len, facts), default=0) + 2
    for name, fact in facts.items():
        text = f"{name:{width}}{printable(fact)}"
        indent = " " * width
        click.echo(
            fill(
                text,
                _WIDTH,
                subsequent_indent=indent,
                break_long_words=False,
                break_on_hyphens=False,
            )
        )


def table(title: str, rows: Iterable[Row]) -> None:
    """Print rows for people under a title; columns in which nothing is known are left out."""
    shown = list(rows)
    click.echo(f"\n{title}")
    if not shown:
        click.echo("none")
        return
    known = [key for key in shown[0] if any(row[key] is not None for row in shown)]
    emit([{key: _cell(row[key]) for key in known} for row in shown], None)


def _cell(value: Any) -> Any:
    return printable(value, _MOST) if isinstance(value, str) else value


def percent(share: float | None) -> float | None:
    """Return a share in percent, to one digit after the point."""
    return None if share is None else round(100 * share, 1)


def unit_of(seconds: Sequence[float]) -> tuple[str, float]:
    """Return the unit in which times are read best, and how many of it a second has."""
    longest = max(seconds, default=0.0)
    for unit, count in (("s", 1.0), ("ms", 1e3)):
        if longest * count >= 1 or longest == 0:
            return unit, count
    return "us", 1e6


def status(run: Run) -> str | None:
    """Return in words that a run did not complete; None if it did."""
    if run.info["status"] == "completed":
        return None
    what = printable(str(run.info["status"]).upper())
    return f"{what} after {run.tasks.size} tasks: {printable(run.info.get('error') or 'no error')}"
