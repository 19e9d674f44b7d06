"""taskla plan."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from itertools import product
from typing import Any

import click

from taskla.cli.options import (
    debug_option,
    grid as read_grid,
    numbers,
    output_options,
    precision_option,
    size_options,
    usage,
    words,
)
from taskla.cli.table import emit

__all__ = ["command"]

#: Columns that say what was counted.
SETTINGS = {"op", "type", "n", "nb", "ranks", "pivot", "stationary", "slices", "precision"}


@click.command(epilog="Example: taskla plan potrf -n 100000 --nb 500 --ranks 6 --dist all")
@click.argument("op")
@size_options
@click.option(
    "--ranks", type=numbers(1), metavar="LIST", help="Processes.  [default: those of --grid, or 1]"
)
@click.option(
    "--dist",
    type=words(),
    metavar="LIST",
    default="all",
    show_default=True,
    help="See taskla distributions; all stands for those that exist for so many ranks.",
)
@click.option(
    "--grid", type=read_grid, metavar="PxQ", help="Grid of 2dbc.  [default: the squarest, P <= Q]"
)
@click.option(
    "--pivot",
    type=click.Choice(["partial", "tournament", "none"]),
    help="For LU.  [default: partial]",
)
@click.option(
    "--stationary",
    type=click.Choice(["A", "B", "C"]),
    help="Of gemm, symm, hemm: what stays where it is.  [default: C]",
)
@click.option(
    "--slices",
    type=click.IntRange(min=2),
    help="Of the 2.5D distributions.  [default: as many as cost least]",
)
@click.option(
    "--engine",
    type=click.Choice(["threads", "dask"]),
    default="threads",
    show_default=True,
    help="Whose tasks are counted as run.",
)
@precision_option(
    "Of the tiles of A: fp32, fp64:2,bf16:rest, FILE; of products one format. That of --dtype, "
    "fp64 say, changes nothing."
)
@output_options
@debug_option
def command(op: str, form: str | None, **choices: Any) -> None:
    """Count what OP costs on many ranks, best distribution first. Nothing runs.

    OP is potrf, potrs, posv, potri, trtri, lauum, getrf, getrs, gesv, gemm, symm, hemm, syrk, herk,
    trsm or trmm. The owner of a tile computes it; a message brings one version of one tile to one
    rank, once. What LU's pivoting takes is counted apart, as the most that it can be.

    All matrices have one distribution, but: one that is a single tile wide goes row by row, and B
    and C of an A-stationary symm are where A's diagonal tiles are.

    Columns: stationary (of a product, the matrix whose tiles stay where they are), slices (groups
    of ranks that do the updates of steps in turn, 2.5D), tasks (on tiles), tasks_run (those that
    would run: the threads of one rank fuse neighbouring tasks, several tiles in one kernel call;
    with --engine dask those that Dask's scheduler gets, each a step on one tile column of a rank),
    flops, messages, bytes (in all messages: whole tiles), pivot_messages (at most: for panels,
    pivots and rows that ranks interchange), max_messages (the most that one rank sends), imbalance
    (most flops of a rank over the mean: 1 is perfect), bytes_per_rank (most memory for own tiles),
    critical_path (tasks); with --precision conversions (tasks that round tiles) and bytes_by_format
    (those in messages).
    """
    rows = _rows(op, **choices)
    if form != "json":
        rows = (_in_words(row, bool(choices["precision"])) for row in rows)
    emit(rows, form, SETTINGS)


def _in_words(row: dict[str, Any], precision: bool) -> dict[str, Any]:
    """Return a row for a table: formats in one cell, or left out where there is one."""
    formats = row.pop("bytes_by_format")
    if not precision:
        del row["precision"], row["conversions"]
        return row
    return row | {"bytes_by_format": " ".join(f"{n} {size}" for n, size in formats.items()) or "-"}


def _rows(
    op: str,
    n: tuple[int, ...],
    nb: tuple[int, ...] | None,
    dtype: tuple[str, ...],
    ranks: tuple[int, ...] | None,
    dist: tuple[str, ...],
    grid: tuple[int, int] | None,
    precision: tuple[str, ...],
    **options: Any,
) -> Iterator[dict[str, Any]]:
    from taskla.plan import plan

    for order, tile, letter, count, rule in product(
        n, nb or (None,), dtype, ranks or (None,), precision or (None,)
    ):
        how = options | {"dist": dist, "grid": grid, "precision": rule}
        with usage():
            rows = plan(op, order, ranks=count, nb=tile, dtype=letter, **how)
        yield from map(asdict, rows)
