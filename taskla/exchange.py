"""What each rank of a distributed run does: its tasks, what it receives, what it sends.

Every rank derives the whole plan from the same graph and the same owners, so none is told
anything. The owner computes. One message brings one version of one tile to one rank; where many
ranks want it, it goes along a binomial tree. The messages are those that `taskla.volume` counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from hashlib import blake2b
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from taskla.distributions import Distribution
from taskla.fusion import fuse
from taskla.graph import Grid, TaskGraph
from taskla.interchanges import interchanges
from taskla.operations import Access
from taskla.partial_sums import partial_sums
from taskla.pieces import subset
from taskla.placement import NO_HOME, Placed, place

__all__ = ["Exchange", "Part", "across_ranks"]

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
    held : list of int
        The scratch tiles that messages carry, one entry a message: they are kept until then.
    overwriting : dict of int to int
        Of messages about versions that this rank makes and overwrites: the task that does.
    """

    graph: TaskGraph
    received: Int64
    number: Int64
    first: Int64
    waiting: list[Int64]
    sent: dict[int, list[int]]
    held: list[int]
    overwriting: dict[int, int]


def across_ranks(graph: TaskGraph, maps: Sequence[Distribution | None]) -> Placed:
    """Return a program as ranks run it: each task on one rank, writing what that rank has.

    Parameters
    ----------
    graph : TaskGraph
        As algorithms make it.
    maps : sequence of Distribution or None
        Of each grid; None for those of which each rank has an instance.

    Raises
    ------
    ValueError
        When a distribution gives a rank that is out of range, or a task cannot be shared out.
    """
    return interchanges(partial_sums(place(graph, maps)))


class Exchange:
    """The messages of a graph whose tiles have owners.

    Parameters
    ----------
    program : Placed
        Of tile tasks, as `across_ranks` makes it.
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
    overwriter : (m,) int64 array
        The next task that writes the tile, -1 for none.
    last : (m,) bool array
        Whether the tile keeps that version to the end: a sender need not copy it then.
    reader : (m,) int64 array
        The last task that waits for it.
    packed : (m,) bool array
        Whether the version consists of numbers of the tile's format, and may travel as such.
    nbytes : (m,) int64 array
        Bytes of the tile, as it travels.
    pivoting : (m,) bool array
        Whether it is for a task that looks for pivots or interchanges rows.

    Raises
    ------
    ValueError
        When a task writes a tile that its rank does not own, or adds to one.
    """

    def __init__(self, program: Placed, ranks: int) -> None:
        graph, owner, self.place, pivoting = program
        self.graph = graph
        self.owner = owner
        self.ranks = ranks
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
        # what a tile without a home holds at first is on every rank
        maker = np.where(version >= 0, self.place[task[np.maximum(version, 0)]], owner[tile])
        away = np.flatnonzero((mode != Access.W) & (maker != self.place[task]) & (maker != NO_HOME))
        self._refuse_moving(tile[away], mode[away], task[away])
        key = (version[away] + graph.tile_count) * ranks + self.place[task[away]]
        unique, first, message = np.unique(key, return_index=True, return_inverse=True)
        found = away[first]
        self.tile = tile[found].astype(np.int64)
        made = version[found]
        self.writer = np.where(made < 0, -1, task[np.maximum(made, 0)]).astype(np.int64)
        self.source = maker[found]
        self.target = unique % ranks
        self.overwriter = self._overwriters(tile, mode, task, made)
        self.last = self.overwriter < 0
        self.reader = np.full(unique.size, -1)
        np.maximum.at(self.reader, message, task[away])
        self.pivoting = pivoting[task[found]]
        self.nbytes = np.zeros(unique.size, dtype=np.int64)
        self.packed = (self.writer < 0) | graph.rounds[np.maximum(self.writer, 0)]
        for grid in graph.grids:
            mine = (self.tile >= grid.base) & (self.tile < grid.end)
            rows, columns = grid.shapes(self.tile[mine])
            size = np.where(self.packed[mine], grid.itemsize, grid.dtype.itemsize)
            self.nbytes[mine] = rows * columns * size
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
        owner = self.owner[graph.tiles[wrote]]
        foreign = wrote[(owner != self.place[task[wrote]]) & (owner != NO_HOME)]
        if foreign.size:
            label = graph.label(int(task[foreign[0]]))
            raise ValueError(f"{label} writes tiles of several ranks, which it cannot do yet")

    def _refuse_moving(
        self, tile: NDArray[np.int32], mode: NDArray[np.uint8], task: NDArray[np.int32]
    ) -> None:
        """Refuse tasks that go on with another rank's instance of a tile without a home."""
        moving = np.flatnonzero(mode != Access.R)
        if moving.size:
            label = self.graph.label(int(task[moving[0]]))
            name = self.graph.grid_of(int(tile[moving[0]])).name
            raise ValueError(f"{label} goes on with a tile of {name} that another rank wrote")

    @staticmethod
    def _overwriters(
        tile: NDArray[np.int32], mode: NDArray[np.uint8], task: NDArray[np.int32], made: Int64
    ) -> Int64:
        """The next task that writes the tile of each version, -1 for none."""
        wrote = np.append(np.flatnonzero(mode != Access.R), tile.size)
        # what a tile holds at first is there before its first access
        begins = np.searchsorted(tile, -1 - made)
        of = np.where(made < 0, -1 - made, tile[np.maximum(made, 0)] if tile.size else 0)
        next_one = wrote[np.searchsorted(wrote, np.where(made < 0, begins, made + 1))]
        same = np.append(tile, -1)[next_one] == of
        return np.where(same, np.append(task, -1)[next_one], -1)

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

    @cached_property
    def signature(self) -> NDArray[np.uint8]:
        """(16,) A checksum of the program and its owners: ranks that have the same agree."""
        graph = self.graph
        checksum = blake2b(repr((graph.grids, graph.kinds)).encode(), digest_size=16)
        for array in (graph.kind, graph.indptr, graph.tiles, graph.calls, self.owner):
            checksum.update(np.ascontiguousarray(array).data)
        return np.frombuffer(checksum.digest(), np.uint8)

    def last_writers(self, grid: Grid) -> dict[tuple[int, int], int]:
        """Return the rank that writes each tile of a grid last, by tile row and column."""
        graph = self.graph
        wrote = np.flatnonzero(
            (graph.modes != Access.R) & (graph.tiles >= grid.base) & (graph.tiles < grid.end)
        )
        i, j = grid.coordinates(graph.tiles[wrote])
        rank = self.place[graph.task_of_access[wrote]]
        # of several the last stays
        return dict(zip(zip(i.tolist(), j.tolist(), strict=True), rank.tolist(), strict=True))

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
        part = subset(graph, mine, number, grids)
        fused = fuse(part, width)
        ends = np.cumsum(fused.multiplicity)
        group = np.searchsorted(ends, np.arange(mine.size), side="right")
        received = np.flatnonzero(self.target == rank)
        waiting = self._waiting(fused, number_of[received])
        first = np.array([tasks[0] for tasks in waiting], dtype=np.int64)
        order = np.argsort(first, kind="stable")
        # what is received is passed on when it comes: only what is made here waits for a task
        sent: dict[int, list[int]] = {}
        first_hand = np.flatnonzero((self.sender == rank) & (self.parent < 0)).tolist()
        for message in first_hand:
            writer = int(self.writer[message])
            task = -1 if writer < 0 else int(group[np.searchsorted(mine, writer)])
            sent.setdefault(task, []).append(message)
        passing = np.flatnonzero((self.source == rank) & ~self.last)
        overwriting = group[np.searchsorted(mine, self.overwriter[passing])]
        return Part(
            fused,
            received[order],
            number_of[received][order],
            first[order],
            [waiting[at] for at in order.tolist()],
            sent,
            [tile for tile in self.tile[first_hand].tolist() if graph.grid_of(tile).scratch],
            dict(zip(passing.tolist(), overwriting.tolist(), strict=True)),
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
        # of tiles without a home this rank may have an instance of its own
        ordinal += self.owner[tile] == NO_HOME
        for grid in graph.grids:
            of_grid = (tile >= grid.base) & (tile < grid.end)
            for copy in range(1, int(ordinal[of_grid].max(initial=0)) + 1):
                base = max(g.end for g in grids)
                name = f"{grid.name}'{copy}"
                grids.append(replace(grid, name=name, base=base, scratch=True, everywhere=False))
                these = of_grid & (ordinal == copy)
                number[order[these]] = tile[these] - grid.base + base
        number[order[ordinal == 0]] = tile[ordinal == 0]
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
