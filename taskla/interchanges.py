"""Panels and row interchanges of LU where several ranks share a tile column.

A panel is factored where its first tile is: the other ranks' tiles of this one column go there and
come back. In the columns beside it only rows travel: each rank swaps with the one that has the top
tile those rows that the interchanges move between the two, at most a tile's height of them.

References
----------
LAPACK dlaswp; ScaLAPACK pdlaswp, which does the same row by row.
"""

from __future__ import annotations

import numpy as np

from taskla.graph import Kind
from taskla.operations import Access
from taskla.placement import NO_HOME, Draft, Placed
from taskla.rewriting import AFTER, BEFORE, INSTEAD, Insertion

__all__ = ["interchanges"]

Tiles = tuple[int, ...]


def interchanges(program: Placed) -> Placed:
    """Return a program in which no panel and no interchange writes tiles of several ranks."""
    shared = _shared(program)
    if not shared:
        return program
    column = _Columns(program)
    for task in shared:
        column.take_apart(task)
    return column.draft.done(program.graph.modes, pivoting=True)


def _shared(program: Placed) -> list[int]:
    """The panels and interchanges that write tiles of another rank, in order."""
    graph, owner, rank, _ = program
    here = [n for n, name in enumerate(graph.operations) if name in ("getrf", "laswp")]
    task = graph.task_of_access
    away = (owner[graph.tiles] != rank[task]) & (owner[graph.tiles] != NO_HOME)
    found = np.unique(task[away & (graph.modes != Access.R)])
    return [int(task) for task in found if graph.kind[task] in here]


class _Columns:
    """The tasks that stand for those on a tile column of several ranks."""

    def __init__(self, program: Placed) -> None:
        self._graph, self._owner, self._rank, _ = program
        self.draft = Draft(program)

    def take_apart(self, task: int) -> None:
        """Put tasks of single ranks around a panel, or in the place of an interchange."""
        if self._graph.operations[self._graph.kind[task]] == "getrf":
            self._panel(task)
        else:
            self._interchange(task)

    def _panel(self, task: int) -> None:
        """Copy the tiles of other ranks to where a panel is factored, and back."""
        begin, end = self._graph.indptr[task : task + 2].tolist()
        rank = int(self._rank[task])
        for access in range(begin, end):
            tile = int(self._graph.tiles[access])
            home = int(self._owner[tile])
            if home in (rank, NO_HOME):
                continue
            copied = self.draft.tiles[access] = self.draft.scratch(tile, "-panel")
            copy = Kind("lacpy", ("G", "N"), self._graph.grid_of(tile).dtype)
            self.draft.insert(Insertion(task, BEFORE, copy, ((tile,), (copied,))), rank)
            self.draft.insert(Insertion(task, AFTER, copy, ((copied,), (tile,))), home)

    def _interchange(self, task: int) -> None:
        """Interchange rows, one panel's pivots after the other's."""
        graph = self._graph
        begin, end = graph.indptr[task : task + 2].tolist()
        operand, tiles = graph.operand[begin:end], graph.tiles[begin:end]
        pivots, column = tiles[operand == 0].tolist(), tiles[operand == 1].tolist()
        kind = graph.kinds[graph.kind[task]]
        _, forward = kind.params
        self.draft.dropped.append(task)
        steps = range(len(pivots))
        for k in steps if forward else reversed(steps):
            self._step(task, (pivots[k],), column[k:], forward, kind)

    def _step(self, task: int, pivots: Tiles, column: list[int], forward: bool, of: Kind) -> None:
        """Apply the interchanges of one panel to a tile column from its row on."""
        grid = self._graph.grid_of(column[0])
        i, _ = grid.coordinates(column)
        first = dict(zip(column, (i * grid.nb).tolist(), strict=True))
        top, root = column[0], int(self._owner[column[0]])
        own: dict[int, Tiles] = {root: ()}
        for tile in column:
            home = int(self._owner[tile])
            own[home] = (*own.get(home, ()), tile)
        if len(own) == 1:
            whole = Kind("laswp", (first[top], forward), of.dtype, of.precision)
            self.draft.insert(Insertion(task, INSTEAD, whole, (pivots, tuple(column))), root)
            return
        common = first[top], grid.nb, forward
        head = (first[top],)

        def add(operation: str, params: tuple[object, ...], rank: int, *operands: Tiles) -> None:
            # tiles of a column may be of several formats
            kind = Kind(operation, (*common, *params), of.dtype, of.precision)
            self.draft.insert(Insertion(task, INSTEAD, kind, (pivots, *operands)), rank)

        rows = {rank: tuple(first[tile] for tile in tiles) for rank, tiles in own.items()}
        others = list(own)[1:]
        up = {rank: (self.draft.scratch(top, f"-up{n}"),) for n, rank in enumerate(others)}
        down = {rank: (self.draft.scratch(top, f"-down{n}"),) for n, rank in enumerate(others)}
        for rank in others:
            add("laswp_take", (rows[rank], head), rank, own[rank], up[rank])
            add("laswp_take", (head, rows[rank]), root, (top,), down[rank])
        add("laswp_own", (rows[root],), root, own[root])
        for rank in others:
            add("laswp_put", (head, rows[rank]), root, up[rank], (top,))
            add("laswp_put", (rows[rank], head), rank, down[rank], own[rank])
