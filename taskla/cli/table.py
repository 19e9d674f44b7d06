"""How commands print rows: a table for people, CSV and JSON lines for programs."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Collection, Iterable, Sequence
from math import isfinite, log10
from typing import Any

import click

from taskla.launch import job

__all__ = ["emit"]

Row = dict[str, Any]

#: Headings that are not the names of the columns.
_HEADINGS = {"grid": "PxQ", "gflops_per_watt": "gflops/W"}


def emit(rows: Iterable[Row], form: str | None, settings: Collection[str] = ()) -> None:
    """Print rows as they come, or as a table when all are there or the run ends.

    Parameters
    ----------
    rows : iterable of dict
        All with the same keys, the names of the columns.
    form : {None, "csv", "json"}
        None is a table: a drawn one at a terminal, plain aligned columns otherwise.
    settings : collection of str
        Columns that say what was run. At a terminal, those that are the same in all rows stand
        above the table, for want of room.
    """
    if form == "json":
        for row in rows:
            click.echo(json.dumps({key: _plain(value) for key, value in row.items()}))
    elif form == "csv":
        _emit_csv(rows)
    else:
        seen: list[Row] = []
        try:
            for row in rows:
                seen.append(row)  # noqa: PERF402 - what came before an error is still printed
        finally:
            if seen:
                _emit_table(seen, settings)


def _plain(value: Any) -> Any:
    """JSON knows neither NaN nor infinity."""
    return None if isinstance(value, float) and not isfinite(value) else value


def _emit_csv(rows: Iterable[Row]) -> None:
    stream = sys.stdout
    writer = csv.writer(stream, lineterminator="\n")
    for number, row in enumerate(rows):
        if number == 0:
            writer.writerow(row)
        writer.writerow("" if value is None else value for value in row.values())
        stream.flush()


def _emit_table(rows: Sequence[Row], settings: Collection[str]) -> None:
    # what mpirun takes for a terminal is a narrow one of its own
    if sys.stdout.isatty() and job().ranks == 1:
        _draw(rows, settings)
        return
    columns = [[_heading(key), *(_cell(row[key]) for row in rows)] for key in rows[0]]
    right = [_is_number([row[key] for row in rows]) for key in rows[0]]
    widths = [max(map(len, column)) for column in columns]
    for line in zip(*columns, strict=True):
        cells = zip(line, widths, right, strict=True)
        text = "  ".join(c.rjust(width) if r else c.ljust(width) for c, width, r in cells)
        click.echo(text.rstrip())


def _draw(rows: Sequence[Row], settings: Collection[str]) -> None:
    """Draw a table at a terminal, without what is the same in all rows, nothing or not measured."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    values = {key: [row[key] for row in rows] for key in rows[0]}
    known = [key for key in values if any(_known(v) for v in values[key])]
    same = [key for key in known if key in settings and len(set(values[key])) == 1]
    title = "  ".join(f"{_heading(key)}={_cell(values[key][0])}" for key in same)
    table = Table(title=title or None, title_justify="left", box=box.SIMPLE, padding=(0, 1, 0, 0))
    shown = [key for key in known if key not in same]
    for key in shown:
        number = _is_number(values[key])
        # a heading may be broken between words
        heading = _heading(key).replace("_", " ")
        table.add_column(heading, justify="right" if number else "left")
    for row in rows:
        table.add_row(*(_short(row[key]) for key in shown))
    # what stands in cells is text, also where it has brackets or colons
    Console(markup=False, emoji=False).print(table)


def _known(value: Any) -> bool:
    """Whether a cell says anything: a count of 0 and what was not measured do not."""
    return isinstance(value, float) or value not in (None, 0)


def _heading(key: str) -> str:
    return _HEADINGS.get(key, key)


def _is_number(values: Iterable[Any]) -> bool:
    return all(value is None or isinstance(value, int | float) for value in values)


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _short(value: Any) -> str:
    """A cell with large numbers in thousands (k, M, ...)."""
    if not isinstance(value, int | float) or not 1e6 <= abs(value) < 1e21:
        return _cell(value)
    power = int(log10(abs(value))) // 3
    return f"{value / 1000.0**power:.2f}{'_kMGTPEZ'[power]}"
