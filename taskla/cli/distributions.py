"""taskla distributions: the maps from tiles to ranks, listed and drawn."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from taskla.cli.options import debug_option, grid as read_grid, output_options, usage
from taskla.cli.table import emit

__all__ = ["command"]


@click.group(invoke_without_command=True, epilog="Example: taskla distributions --json")
@output_options
@debug_option
@click.pass_context
def command(ctx: click.Context, /, form: str | None) -> None:
    """List the distributions of tiles over ranks, for --dist; show draws one.

    There is also file:PATH, a pattern of your own in Chameleon's format: its numbers of rows and
    columns, then the ranks of its cells row by row.
    """
    if ctx.invoked_subcommand is not None:
        return
    from taskla import distributions

    found = distributions.available().items()
    emit(({"distribution": name, "description": line} for name, line in found), form)


@command.command(epilog="Example: taskla distributions show sbc --ranks 10 -o sbc.png")
@click.argument("name")
@click.option("--ranks", type=click.IntRange(min=1), help="Processes.  [default: of --grid]")
@click.option("--grid", type=read_grid, metavar="PxQ", help="Of the ranks.  [default: squarest]")
@click.option("--slices", type=click.IntRange(min=2), help="Of the 2.5D distributions.")
@click.option(
    "--tiles",
    type=click.IntRange(1, 200),
    default=12,
    show_default=True,
    help="Tile rows and columns to show.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Draw a picture instead: .png, .svg or .pdf.",
)
@output_options
@debug_option
def show(
    name: str,
    ranks: int | None,
    grid: tuple[int, int] | None,
    slices: int | None,
    tiles: int,
    output: Path | None,
    form: str | None,
) -> None:
    """Show the owners of a matrix's tiles under distribution NAME.

    Below the owners stand the tiles of each rank, least and most, of the whole matrix and of one
    triangle, and, for a pattern that repeats, its cost: the mean number of ranks that a tile of a
    row and a column meets, to which the number of messages is proportional.
    """
    import numpy as np

    from taskla import distributions

    with usage():
        map_ = distributions.get(name, ranks, grid, slices)
        owners = map_(*np.indices((tiles, tiles)))
    if output is not None:
        from taskla.traces.pictures.owners import write_owners

        title = f"{name} on {map_.ranks} ranks"
        write_owners(owners, map_.ranks, output, title)
        click.echo(output)
    elif form == "csv":
        emit(_cells(owners.tolist()), form)
    elif form == "json":
        about = {"distribution": name, "ranks": map_.ranks, "grid": map_.grid and list(map_.grid)}
        emit([{**about, "slices": map_.slices, "owners": owners.tolist()}], form)
    else:
        _draw(owners, map_)


def _cells(owners: list[list[int]]) -> Iterator[dict[str, Any]]:
    for i, row in enumerate(owners):
        for j, rank in enumerate(row):
            yield {"i": i, "j": j, "rank": rank}


def _draw(owners: Any, map_: Any) -> None:
    """Print the owners and what follows from them."""
    import numpy as np

    width = len(str(map_.ranks - 1))
    for row in owners.tolist():
        click.echo(" ".join(f"{rank:>{width}}" for rank in row))
    click.echo()
    for what, mine in (("matrix", owners), ("triangle", owners[np.tril_indices(len(owners))])):
        load = np.bincount(np.ravel(mine), minlength=map_.ranks)
        click.echo(f"tiles of a rank, {what}: {load.min()} to {load.max()}")
    cost = getattr(map_.owner, "cost", None)
    if cost is not None:
        click.echo(f"cost of the pattern: {cost:.4g}")
