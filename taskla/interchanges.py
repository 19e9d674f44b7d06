"""Panels and row interchanges of LU where several ranks share a tile column.

A panel is factored where its first tile is: the other ranks' tiles of this one column go there and
come back. In the columns beside it only rows travel: each rank swaps with the one that has the top
tile those rows that the interchanges move between the two, at most a tile's height of them.

References
----------
LAPACK dlaswp; ScaLAPACK pdlaswp, which does the same row by row.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from taskla.graph import Grid, Kind
from taskla.operations import Access
from taskla.placement import NO_HOME, Placed
from taskla.rewriting import AFTER, BEFORE, INSTEAD, Insertion, rewrite

__all__ = ["interchanges"]

Tiles = tuple[int, ...]


def interchanges(program: Placed) -> Placed:
    """Return a program in which no panel and no interchange writes tiles of several ranks."""
    graph, owner, rank, pivoting = program
    column = _Columns(program)
    for task in _shared(program):
        operation = graph.operations[graph.kind[task]]
        if operation == "getrf":
            column.panel(task)
        elif operation == "laswp":
            column.interchange(task)
    if not column.inserted:
        return program
    made, origin = rewrite(
        graph, column.grids, column.tiles, graph.modes, column.inserted, column.dropped
    )
    return Placed(
        made,
        np.concatenate([owner, np.full(made.tile_count - owner.size, NO_HOME)]),
        np.concatenate([rank, np.array(column.ranks, dtype=np.int64)])[origin],
        np.concatenate([pivoting, np.ones(len(column.inserted), np.bool_)])[origin],
    )


def _shared(program: Placed) -> list[int]:
    """The tasks that write tiles of another rank, in order."""
    graph, owner, rank, _ = program
    task = graph.task_of_access
    away = (owner[graph.tiles] != rank[task]) & (owner[graph.tiles] != NO_HOME)
    # contributions are another matter: see taskla.partial_sums
    written = (graph.modes == Access.W) | (graph.modes == Access.RW)
    found: list[int] = np.unique(task[away & written]).tolist()
    return found


class _Columns:
    """The tasks that stand for those on a tile column of several ranks."""

    def __init__(self, program: Placed) -> None:
        self._graph, self._owner, self._rank, _ = program
        self.grids = list(program.graph.grids)
        self.tiles = program.graph.tiles.copy()
        self.inserted: list[Insertion] = []
        self.ranks: list[int] = []
        self.dropped: list[int] = []
        self._scratch: dict[tuple[int, str], Grid] = {}

    def panel(self, task: int) -> None:
        """Copy the tiles of other ranks to where a panel is factored, and back."""
        begin, end = self._graph.indptr[task : task + 2].tolist()
        rank = int(self._rank[task])
        for access in range(begin, end):
            tile = int(self.tiles[access])
            home = int(self._owner[tile])
            if home in (rank, NO_HOME):
                continue
            copied = self._number(tile, "panel")
            self.tiles[access] = copied
            copy = Kind("lacpy", ("G", "N"), self._graph.grid_of(tile).dtype)
            self._insert(Insertion(task, BEFORE, copy, ((tile,), (copied,))), rank)
            self._insert(Insertion(task, AFTER, copy, ((copied,), (tile,))), home)

    def interchange(self, task: int) -> None:
        """Interchange rows, one panel's pivots after the other's."""
        graph = self._graph
        begin, end = graph.indptr[task : task + 2].tolist()
        operand, tiles = graph.operand[begin:end], self.tiles[begin:end]
        pivots, column = tiles[operand == 0].tolist(), tiles[operand == 1].tolist()
        kind = graph.kinds[graph.kind[task]]
        _, forward = kind.params
        self.dropped.append(task)
        steps = range(len(pivots))
        for k in steps if forward else reversed(steps):
            self._step(task, (pivots[k],), column[k:], forward, kind.dtype)

    def _step(
        self, task: int, pivots: Tiles, column: list[int], forward: bool, dtype: np.dtype[Any]
    ) -> None:
        """Apply the interchanges of one panel to a tile column from its row on."""
        grid = self._graph.grid_of(column[0])
        i, _ = grid.coordinates(column)
        first = dict(zip(column, (i * grid.nb).tolist(), strict=True))
        top, root = column[0], int(self._owner[column[0]])
        own: dict[int, Tiles] = {root: ()}
        for tile in column:
            home = int(self._owner[tile])
            own[home] = (*own.get(home, ()), tile)
        common = first[top], grid.nb, forward
        head = (first[top],)

        def add(operation: str, params: tuple[object, ...], rank: int, *operands: Tiles) -> None:
            kind = Kind(operation, (*common, *params), dtype)
            self._insert(Insertion(task, INSTEAD, kind, (pivots, *operands)), rank)

        rows = {rank: tuple(first[tile] for tile in tiles) for rank, tiles in own.items()}
        others = list(own)[1:]
        up = {rank: (self._number(top, f"up{n}"),) for n, rank in enumerate(others)}
        down = {rank: (self._number(top, f"down{n}"),) for n, rank in enumerate(others)}
        for rank in others:
            add("laswp_take", (rows[rank], head), rank, own[rank], up[rank])
            add("laswp_take", (head, rows[rank]), root, (top,), down[rank])
        add("laswp_own", (rows[root],), root, own[root])
        for rank in others:
            add("laswp_put", (head, rows[rank]), root, up[rank], (top,))
            add("laswp_put", (rows[rank], head), rank, down[rank], own[rank])

    def _number(self, tile: int, what: str) -> int:
        """The number of a scratch tile that goes with a tile."""
        grid = self._graph.grid_of(tile)
        key = grid.base, what
        if key not in self._scratch:
            base, name = self.grids[-1].end, f"{grid.name}-{what}"
            self._scratch[key] = replace(grid, name=name, base=base, scratch=True)
            self.grids.append(self._scratch[key])
        return tile - grid.base + self._scratch[key].base

    def _insert(self, task: Insertion, rank: int) -> None:
        self.inserted.append(task)
        self.ranks.append(rank)
