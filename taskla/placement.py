"""Which rank runs each task, and what ranks make of a program that names no ranks.

The owner computes: a task runs on the rank that owns the tile that it writes first, or that the
program names; under a 2.5D distribution contributions of step k are made on the slice of k.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from taskla.distributions import Distribution
from taskla.graph import Grid, TaskGraph
from taskla.operations import Access
from taskla.rewriting import Insertion, rewrite

__all__ = ["NO_HOME", "Draft", "Placed", "near_large", "owners", "place"]

#: Owner of tiles that each rank has an instance of: scratch, and what is everywhere.
NO_HOME = -1

Int64 = NDArray[np.int64]


class Placed(NamedTuple):
    """A program with a rank for each task.

    Attributes
    ----------
    graph : TaskGraph
    owner : (tiles,) int64 array
        Of each tile number, `NO_HOME` where each rank has its own.
    rank : (n,) int64 array
        Where each task runs.
    pivoting : (n,) bool array
        The tasks that look for pivots and interchange rows: what they read is counted apart.
    """

    graph: TaskGraph
    owner: Int64
    rank: Int64
    pivoting: NDArray[np.bool_]


class Draft:
    """A program that is being rewritten: scratch tiles are added, and tasks on ranks put in.

    Parameters
    ----------
    program : Placed

    Attributes
    ----------
    tiles : (a,) int32 array
        In place of the graph's, to be changed.
    dropped : list of int
        Tasks to be taken out.
    """

    def __init__(self, program: Placed) -> None:
        self._program = program
        self.tiles = program.graph.tiles.copy()
        self.dropped: list[int] = []
        self._grids = list(program.graph.grids)
        self._scratch: dict[tuple[int, str], Grid] = {}
        self._inserted: list[Insertion] = []
        self._ranks: list[int] = []

    def scratch(self, tile: int, what: str) -> int:
        """Return the number of the scratch tile of a name that goes with a tile."""
        grid = self._program.graph.grid_of(tile)
        key = grid.base, what
        if key not in self._scratch:
            base = self._grids[-1].end
            # what it holds need not be rounded to the format of the tiles
            self._scratch[key] = replace(
                grid, name=f"{grid.name}{what}", base=base, scratch=True, format=None
            )
            self._grids.append(self._scratch[key])
        return tile - grid.base + self._scratch[key].base

    def insert(self, task: Insertion, rank: int) -> None:
        """Put in a task that runs on a rank."""
        self._inserted.append(task)
        self._ranks.append(rank)

    def done(self, modes: NDArray[np.uint8], pivoting: bool) -> Placed:
        """Return the program as it is now; `pivoting` is said of the tasks that were put in."""
        graph, owner, rank, apart = self._program
        made, origin = rewrite(graph, self._grids, self.tiles, modes, self._inserted, self.dropped)
        added = made.tile_count - owner.size
        return Placed(
            made,
            np.concatenate([owner, np.full(added, NO_HOME)]),
            np.concatenate([rank, np.array(self._ranks, dtype=np.int64)])[origin],
            np.concatenate([apart, np.full(len(self._ranks), pivoting)])[origin],
        )


def place(graph: TaskGraph, maps: Sequence[Distribution | None]) -> Placed:
    """Give each task of a program a rank.

    Parameters
    ----------
    graph : TaskGraph
        As algorithms make it.
    maps : sequence of Distribution or None
        Of each grid; None for those of which each rank has an instance.

    Raises
    ------
    ValueError
        When a distribution gives a rank that is out of range, or the tile that a task is to run at
        has no owner.
    """
    owner = owners(graph, maps)
    rank = owner[graph.place]
    adds = np.zeros(graph.n, dtype=np.bool_)
    adds[graph.task_of_access[graph.modes == Access.REDUX]] = True
    for grid, map_ in zip(graph.grids, maps, strict=True):
        if map_ is not None and map_.slices > 1:
            mine = np.flatnonzero(adds & (graph.place >= grid.base) & (graph.place < grid.end))
            i, j = grid.coordinates(graph.place[mine])
            rank[mine] = map_.contributor(i, j, graph.iteration[mine])
    lost = np.flatnonzero(rank == NO_HOME)
    if lost.size:
        raise ValueError(f"no rank owns the tile that {graph.label(int(lost[0]))} is to run at")
    apart = [number for number, kind in enumerate(graph.kinds) if _is_pivoting(kind.operation)]
    return Placed(graph, owner, rank, np.isin(graph.kind, apart))


def owners(graph: TaskGraph, maps: Sequence[Distribution | None]) -> Int64:
    """(tiles,) The rank that owns each tile; parameters and errors as of `place`."""
    owner = np.full(graph.tile_count, NO_HOME, dtype=np.int64)
    for grid, map_ in zip(graph.grids, maps, strict=True):
        if map_ is None:
            continue
        tiles = np.arange(grid.base, grid.end)
        found = owner[tiles] = map_(*grid.coordinates(tiles))
        if found.size and not 0 <= found.min() <= found.max() < map_.ranks:
            raise ValueError(
                f"distribution {map_.name!r} gives ranks from {found.min()} to {found.max()}; "
                f"allowed: 0 to {map_.ranks - 1}"
            )
    return owner


def near_large(program: Placed) -> Placed:
    """Return a program whose tasks on a thin matrix run where the large one is that they read.

    A matrix that is one tile wide travels from rank to rank rather than the factor that it is
    solved with. For engines on which a task may write tiles that another rank owns.
    """
    graph, owner, rank, pivoting = program
    width = np.zeros(graph.tile_count, dtype=np.int64)
    for grid in graph.grids:
        width[grid.base : grid.end] = grid.nt
    read = (graph.modes == Access.R) & (width[graph.tiles] > 1) & (owner[graph.tiles] != NO_HOME)
    task = graph.task_of_access[read]
    thin = width[graph.place[task]] == 1
    moved = rank.copy()
    moved[task[thin]] = owner[graph.tiles[read][thin]]
    return Placed(graph, owner, moved, pivoting)


def _is_pivoting(operation: str) -> bool:
    return operation.startswith(("laswp", "getrf_tnt")) or operation == "getrf"
