"""What each rank of a distributed run does: its tasks, what it receives, what it sends.

Every rank derives the whole plan from the same graph and the same owners, so none is told
anything. The owner computes. One message brings one version of one tile to one rank; where many
ranks want it, it goes along a binomial tree. The messages are those that `taskla.volume` counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from taskla.fusion import fuse
from taskla.graph import Grid, TaskGraph
from taskla.operations import Access

__all__ = ["Exchange", "Part"]

# Targets from which on a tree is worth that some ranks pass on what they may need later only.
_TREE = 4

Int64 = NDArray[np.int64]


@dataclass(frozen=True)
class Part:
    """One rank's part of a run.

    Attributes
    ----------
    graph : TaskGraph
        Its tasks, fused. A tile that is received has the number that it has everywhere, or, of
        several versions, one in a grid of its own.
    received : (r,) int64 array
        The messages that it receives, by the first task that waits for each.
    number : (r,) int64 array
        The tile number of each in `graph`.
    first : (r,) int64 array
        The first task that waits for each.
    waiting : list of (w,) int64 arrays
        The tasks that wait for each.
    sent : dict of int to list of int
        The messages that it sends when a task has run; -1 for what tiles hold at first.
    """

    graph: TaskGraph
    received: Int64
    number: Int64
    first: Int64
    waiting: list[Int64]
    sent: dict[int, list[int]]


class Exchange:
    """The messages of a graph whose tiles have owners.

    Parameters
    ----------
    graph : TaskGraph
        Of tile tasks, without contributions that commute.
    owner : (tiles,) int64 array
        The rank that owns each tile number.
    ranks : int

    Attributes
    ----------
    tile, writer : (m,) int arrays
        Of each message: the tile, and the task that wrote the version, -1 for the first content.
    source, target : (m,) int64 arrays
        Where the version is made, and where it goes.
    sender : (m,) int64 array
        The rank that sends it: `source`, or another target of the version.
    tag : (m,) int64 array
        Tells the messages between a sender and a target apart.
    priority : (m,) float64 array
        The largest of the tasks that wait for it.
    last : (m,) bool array
        Whether the tile keeps that version to the end: a sender need not copy it then.

    Raises
    ------
    ValueError
        When a task writes a tile that its rank does not own, or adds to one.
    """

    def __init__(self, graph: TaskGraph, owner: Int64, ranks: int) -> None:
        self.graph = graph
        self.owner = owner
        self.ranks = ranks
        self.place = owner[graph.place]
        task = graph.task_of_access
        self._refuse(task)
        order = np.argsort(graph.tiles, kind="stable")
        tile, mode, task = graph.tiles[order], graph.modes[order], task[order]
        at = np.arange(order.size)
        new_tile = np.ones(order.size, dtype=np.bool_)
        np.not_equal(tile[1:], tile[:-1], out=new_tile[1:])
        start = np.maximum.accumulate(np.where(new_tile, at, 0))
        written = np.full(order.size, -1)
        np.maximum.accumulate(np.where(mode != Access.R, at, -1)[:-1], out=written[1:])
        version = np.where(written >= start, written, -1 - tile.astype(np.int64))
        away = np.flatnonzero((mode != Access.W) & (owner[tile] != self.place[task]))
        key = (version[away] + graph.tile_count) * ranks + self.place[task[away]]
        unique, first, message = np.unique(key, return_index=True, return_inverse=True)
        found = away[first]
        self.tile = tile[found].astype(np.int64)
        made = version[found]
        self.writer = np.where(made < 0, -1, task[np.maximum(made, 0)]).astype(np.int64)
        self.source = owner[self.tile]
        self.target = unique % ranks
        self.last = self._kept(tile, mode, made)
        self._access, self._message = order[away], message
        self.priority = np.full(unique.size, -np.inf)
        np.maximum.at(self.priority, message, graph.priorities()[task[away]])
        self._plan(unique // ranks)

    def _refuse(self, task: NDArray[np.int32]) -> None:
        graph = self.graph
        if (graph.modes == Access.REDUX).any():
            raise ValueError(
                "the graph has commutative contributions, which ranks cannot add up yet"
            )
        wrote = np.flatnonzero(graph.modes != Access.R)
        foreign = wrote[self.owner[graph.tiles[wrote]] != self.place[task[wrote]]]
        if foreign.size:
            label = graph.label(int(task[foreign[0]]))
            raise ValueError(f"{label} writes tiles of several ranks, which it cannot do yet")

    @staticmethod
    def _kept(tile: NDArray[np.int32], mode: NDArray[np.uint8], made: Int64) -> NDArray[np.bool_]:
        """Whether no later task writes the tile of each version."""
        wrote = np.flatnonzero(mode != Access.R)
        final = np.full(int(tile.max(initial=-1)) + 1, -1)
        # of several assignments to one tile the last stays
        final[tile[wrote]] = wrote
        of = np.where(made < 0, -1 - made, tile[np.maximum(made, 0)] if tile.size else 0)
        return np.asarray(final[of] <= made if tile.size else made > 0)

    def _plan(self, version: Int64) -> None:
        """Lay a tree through the targets of each version; number what goes between two ranks."""
        count = version.size
        new = np.ones(count, dtype=np.bool_)
        np.not_equal(version[1:], version[:-1], out=new[1:])
        begin = np.maximum.accumulate(np.where(new, np.arange(count), 0))
        # position 0 is the source; the parent of a position is it without its highest bit
        position = np.arange(count) - begin + 1
        parent = position - 2 ** np.floor(np.log2(position)).astype(np.int64)
        group = np.cumsum(new) - 1
        size = np.bincount(group) if count else np.zeros(0, np.int64)
        parent[size[group] < _TREE] = 0
        above = self.target[begin + np.maximum(parent - 1, 0)] if count else self.target
        self.sender = np.where(parent == 0, self.source, above)
        self.parent = np.where(parent == 0, -1, begin + parent - 1)
        pair = self.sender * self.ranks + self.target
        order = np.argsort(pair, kind="stable")
        first = np.ones(count, dtype=np.bool_)
        np.not_equal(pair[order][1:], pair[order][:-1], out=first[1:])
        start = np.maximum.accumulate(np.where(first, np.arange(count), 0))
        self.tag = np.empty(count, dtype=np.int64)
        self.tag[order] = np.arange(count) - start

    def part(self, rank: int, width: int) -> Part:
        """Return one rank's part.

        Parameters
        ----------
        rank : int
        width : int
            Of fusion, see `taskla.fusion.fuse`.
        """
        graph = self.graph
        mine = np.flatnonzero(self.place == rank)
        grids, number_of = self._slots(rank)
        number = graph.tiles.astype(np.int32)
        here = self.target[self._message] == rank
        number[self._access[here]] = number_of[self._message[here]]
        part = _subset(graph, mine, number, grids)
        fused = fuse(part, width)
        ends = np.cumsum(fused.multiplicity)
        group = np.searchsorted(ends, np.arange(mine.size), side="right")
        received = np.flatnonzero(self.target == rank)
        waiting = self._waiting(fused, number_of[received])
        first = np.array([tasks[0] for tasks in waiting], dtype=np.int64)
        order = np.argsort(first, kind="stable")
        # what is received is passed on when it comes: only what is made here waits for a task
        sent: dict[int, list[int]] = {}
        for message in np.flatnonzero((self.sender == rank) & (self.parent < 0)).tolist():
            writer = int(self.writer[message])
            task = -1 if writer < 0 else int(group[np.searchsorted(mine, writer)])
            sent.setdefault(task, []).append(message)
        return Part(
            fused,
            received[order],
            number_of[received][order],
            first[order],
            [waiting[at] for at in order.tolist()],
            sent,
        )

    def _slots(self, rank: int) -> tuple[Sequence[Grid], Int64]:
        """Grids with room for all versions that a rank receives; tile numbers of the messages."""
        graph = self.graph
        number = np.full(self.tile.size, -1, dtype=np.int64)
        received = np.flatnonzero(self.target == rank)
        order = received[np.argsort(self.tile[received], kind="stable")]
        tile = self.tile[order]
        new = np.ones(tile.size, dtype=np.bool_)
        np.not_equal(tile[1:], tile[:-1], out=new[1:])
        ordinal = np.arange(tile.size) - np.maximum.accumulate(
            np.where(new, np.arange(tile.size), 0)
        )
        grids = list(graph.grids)
        number[order[ordinal == 0]] = tile[ordinal == 0]
        for grid in graph.grids:
            of_grid = (tile >= grid.base) & (tile < grid.end)
            for copy in range(1, int(ordinal[of_grid].max(initial=0)) + 1):
                base = max(g.end for g in grids)
                grids.append(replace(grid, name=f"{grid.name}'{copy}", base=base, scratch=True))
                these = of_grid & (ordinal == copy)
                number[order[these]] = tile[these] - grid.base + base
        return grids, number

    @staticmethod
    def _waiting(graph: TaskGraph, numbers: Int64) -> list[Int64]:
        """The tasks that access each of some tile numbers, in order."""
        order = np.argsort(numbers, kind="stable")
        place = np.searchsorted(numbers[order], graph.tiles)
        place[place == numbers.size] = 0
        hit = numbers[order][place] == graph.tiles if numbers.size else np.zeros(0, np.bool_)
        slot = order[place[hit]] if numbers.size else np.zeros(0, np.int64)
        task = graph.task_of_access[hit] if numbers.size else np.zeros(0, np.int64)
        pairs = np.unique(slot.astype(np.int64) * max(graph.n, 1) + task)
        slot, task = np.divmod(pairs, max(graph.n, 1))
        bounds = np.searchsorted(slot, np.arange(numbers.size + 1))
        return [task[a:b] for a, b in pairwise(bounds.tolist())]


def _subset(
    graph: TaskGraph, tasks: Int64, numbers: NDArray[np.int32], grids: Sequence[Grid]
) -> TaskGraph:
    """The graph of some tasks, with other tile numbers; dependencies follow from these."""
    width = np.diff(graph.indptr)[tasks]
    begin = graph.indptr[:-1][tasks]
    ends = np.cumsum(width)
    access = np.arange(int(ends[-1]) if ends.size else 0) + np.repeat(begin - ends + width, width)
    call = np.repeat(np.arange(graph.calls.size - 1), np.diff(graph.calls))[tasks]
    starts = np.flatnonzero(np.diff(call, prepend=-1))
    return TaskGraph(
        grids=grids,
        kinds=graph.kinds,
        kind=graph.kind[tasks],
        indptr=np.concatenate([[0], ends]).astype(np.int64),
        tiles=numbers[access],
        operand=graph.operand[access],
        modes=graph.modes[access],
        calls=np.append(starts, tasks.size),
        priority=graph.priorities()[tasks],
        flops=graph.flops()[tasks],
        iterations=graph.iterations[call[starts]],
        name=graph.name,
    )
