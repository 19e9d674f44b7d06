"""A program in few, large tasks: what one worker does to one strip of tiles in one step.

A cluster's scheduler takes a millisecond a task, and keeps what a task returns until nobody needs
it: so tile tasks are joined, and a joined task hands on new versions of tiles and never changes one
that it was given. Tile tasks are joined when they

- run on one rank, in one iteration of the algorithm's loop (or a window of several), and write
  tiles of one strip: one tile column, or tile row where matrices are stored by rows; or
- go on with what the task before made of the strip, and wait for nothing else: a panel follows the
  update of its own column.

They are not joined where another rank waits for what was made so far, or where that would close a
circle. What is one call but for the number formats of its tiles, and their conversions, is joined
all the same: other ranks wait for all of it. A factorisation of N tile columns has O(N^2) such
tasks a rank row, not O(N^3).

References
----------
Sarkar, "Partitioning and scheduling parallel programs for multiprocessors", MIT Press (1989): tasks
are clustered such that their graph has no circle.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from taskla.graph import Grid, TaskGraph
from taskla.operations import Access
from taskla.placement import Placed

__all__ = ["INITIAL", "Coarse", "Joined", "Kept", "coarsen"]

#: In place of the task that made a tile: what it holds at first.
INITIAL = -1

Int64 = NDArray[np.int64]

#: From one number format to another: they belong to the call before.
_CONVERSIONS = ("round", "lag2")


@dataclass
class Joined:
    """Tile tasks that are one task.

    Attributes
    ----------
    rank : int
    strip : (int, int)
        First tile number of the grid, and the tile column or row.
    tasks : list of int
        In order.
    inputs : dict of int to int
        Tiles that it finds, and the joined task that made each of them, or `INITIAL`.
    outputs : list of int
        Tiles of which others, or the matrix in the end, get its version.
    final : set of int
        Those of `outputs` and `carried` that nobody changes any more.
    carried : dict of int to int
        Final tiles that it hands on as it found them, and whose output they were, so that this
        other task's outputs, of which some are out of date by then, need not be kept.
    exported : bool
        Whether another rank gets any of it.
    """

    rank: int
    strip: tuple[int, int]
    tasks: list[int] = field(default_factory=list)
    inputs: dict[int, int] = field(default_factory=dict)
    outputs: list[int] = field(default_factory=list)
    final: set[int] = field(default_factory=set)
    carried: dict[int, int] = field(default_factory=dict)
    exported: bool = False


class Kept(NamedTuple):
    """Final tiles of a joined task, apart from others that are out of date when it is done."""

    source: int
    tiles: tuple[int, ...]


@dataclass(frozen=True)
class Coarse:
    """A program in joined tasks.

    Attributes
    ----------
    program : Placed
    joined : list of Joined
        In an order in which they may run.
    kept : list of Kept
    home : dict of int to int
        Where each tile is in the end: the number of a joined task, or their count plus that of an
        entry of `kept`.
    """

    program: Placed
    joined: list[Joined]
    kept: list[Kept]
    home: dict[int, int]

    def __len__(self) -> int:
        return len(self.joined) + len(self.kept)


def coarsen(program: Placed, rowwise: Collection[int] = (), window: int = 1) -> Coarse:
    """Join the tile tasks of a program.

    Parameters
    ----------
    program : Placed
        Without contributions that commute: see `taskla.partial_sums`.
    rowwise : collection of int
        First tile numbers of the grids whose strips are tile rows.
    window : int, default 1
        Iterations of the algorithm's loop in one task, at most.

    Raises
    ------
    ValueError
        If `window` is less than 1, or the program has such contributions.
    """
    if window < 1:
        raise ValueError(f"window is {window!r}; it must be at least 1")
    if (program.graph.modes == Access.REDUX).any():
        raise ValueError("contributions must be put in order before tasks are joined")
    blocks = _Blocks(program, rowwise, window)
    joining = _Joining(blocks)
    for number in range(blocks.count):
        joining.add(number)
    return joining.done()


class _Blocks:
    """Tile tasks of one call on one strip of one rank: they do not depend on one another."""

    def __init__(self, program: Placed, rowwise: Collection[int], window: int) -> None:
        self.program = program
        graph, _, rank, _ = program
        self._call = np.repeat(np.arange(graph.calls.size - 1), np.diff(graph.calls))
        strip = _strips(graph, rowwise)
        single = self._dependent_calls()[self._call]
        order = np.lexsort((np.arange(graph.n), np.where(single, 0, strip), rank, self._call))
        # tasks of a call that depend on one another stay in order, each on its own
        key = np.stack([self._call, rank, strip, np.where(single, np.arange(graph.n), -1)], axis=1)
        lone = np.flatnonzero(single[order])
        order[lone] = np.sort(order[lone])
        new = np.ones(graph.n, dtype=np.bool_)
        new[1:] = (key[order][1:] != key[order][:-1]).any(axis=1)
        starts = np.flatnonzero(new)
        self.count = starts.size
        self.tasks = np.split(order, starts[1:]) if starts.size else []
        self.of_task = np.empty(graph.n, dtype=np.int64)
        self.of_task[order] = np.cumsum(new) - 1
        first = order[starts]
        self.rank = rank[first].tolist()
        self.strip = strip[first].tolist()
        iteration = graph.iteration[first]
        # outside of loops each call is a step of its own
        self.step = np.where(
            iteration < 0, -1 - self._call[first], -(-iteration // window)
        ).tolist()
        self.iteration = iteration.tolist()
        self.kind = [graph.kinds[number] for number in graph.kind[first].tolist()]
        self.reads, self.writes, self.exports = self._accesses()

    def _dependent_calls(self) -> NDArray[np.bool_]:
        """Whether a task of a call touches what another one of it writes."""
        graph = self.program.graph
        call = self._call[graph.task_of_access]
        key = call * max(graph.tile_count, 1) + graph.tiles
        task = graph.task_of_access
        writing = graph.modes != Access.R
        dependent = np.zeros(graph.calls.size - 1, dtype=np.bool_)
        order = np.lexsort((~writing, key))
        key, task, writing = key[order], task[order], writing[order]
        # the first access of each tile in a call is a write, if there is any
        first = np.ones(key.size, dtype=np.bool_)
        np.not_equal(key[1:], key[:-1], out=first[1:])
        head = np.maximum.accumulate(np.where(first, np.arange(key.size), 0))
        touched = writing[head] & (task != task[head])
        dependent[call[order][touched]] = True
        return dependent

    def _accesses(
        self,
    ) -> tuple[list[list[tuple[int, int]]], list[list[int]], list[bool]]:
        """Of each block: tiles read, with the block that wrote them; tiles written; exports."""
        graph, _, rank, _ = self.program
        order = np.argsort(graph.tiles, kind="stable")
        tile, mode = graph.tiles[order].astype(np.int64), graph.modes[order]
        task = graph.task_of_access[order]
        at = np.arange(order.size)
        new = np.ones(order.size, dtype=np.bool_)
        np.not_equal(tile[1:], tile[:-1], out=new[1:])
        start = np.maximum.accumulate(np.where(new, at, 0))
        # a task that has a tile twice finds it as the tasks before left it
        first = new.copy()
        first[1:] |= task[1:] != task[:-1]
        begin = np.maximum.accumulate(np.where(first, at, 0))
        written = np.append(-1, np.maximum.accumulate(np.where(mode != Access.R, at, -1)))[begin]
        writer = np.where(written >= start, self.of_task[task[np.maximum(written, 0)]], INITIAL)
        block = self.of_task[task]
        read = mode != Access.W
        exports = np.zeros(self.count, dtype=np.bool_)
        away = read & (writer >= 0)
        away[away] = rank[task[away]] != np.array(self.rank)[writer[away]]
        exports[writer[away]] = True
        count = self.count
        reads: list[Any] = _grouped(count, block[read], tile[read], writer[read])
        writes = _grouped(count, block[mode != Access.R], tile[mode != Access.R])
        return reads, [[tile for (tile,) in of] for of in writes], exports.tolist()


def _strips(graph: TaskGraph, rowwise: Collection[int]) -> Int64:
    """(n,) First tile number of the strip that each task writes first.

    Scratch that is shaped as a matrix, copies and partial sums, belongs to the matrix's strips.
    """
    result = np.zeros(graph.n, dtype=np.int64)
    for grid in graph.grids:
        mine = (graph.first_written >= grid.base) & (graph.first_written < grid.end)
        row, column = grid.coordinates(graph.first_written[mine])
        of = _origin(grid, graph.grids)
        result[mine] = of.base + (row if of.base in rowwise else column * of.mt)
    return result


def _origin(grid: Grid, grids: Collection[Grid]) -> Grid:
    """Return the matrix that scratch is a part of: by its name if there are several.

    Of a matrix with a grid for each number format it is the first of these: "A:fp64" for all of
    "A:fp16", "A>fp16" and so on.
    """
    stem, colon, _ = grid.name.partition(":")
    if not (grid.scratch or colon):
        return grid
    alike = [
        other
        for other in grids
        if not other.scratch and (other.m, other.n, other.nb) == (grid.m, grid.n, grid.nb)
    ]
    stems = [other.name.partition(":")[0] for other in alike]
    if not grid.scratch:
        return alike[stems.index(stem)]
    named = (other for other, start in zip(alike, stems, strict=True) if stem.startswith(start))
    return next(named, alike[0] if alike else grid)


def _grouped(count: int, block: Int64, *columns: Int64) -> list[list[tuple[int, ...]]]:
    """Distinct rows of some columns, of each block."""
    rows = np.unique(np.stack([block, *columns], axis=1), axis=0)
    bounds = np.searchsorted(rows[:, 0], np.arange(count + 1)).tolist()
    values = [tuple(row) for row in rows[:, 1:].tolist()]
    return [values[a:b] for a, b in pairwise(bounds)]


class _Joining:
    """Blocks are added in order, each to the last task of its strip or to a new one.

    Every task has a level, larger than those of the tasks that it waits for: hence no circle.
    """

    def __init__(self, blocks: _Blocks) -> None:
        self._blocks = blocks
        self._joined: list[Joined] = []
        self._level: list[int] = []
        #: the least level of those that wait for a task
        self._ceiling: list[float] = []
        self._step: list[int] = []
        #: of each task with number formats: the iteration and operation that it was given last
        self._call: list[tuple[int, str] | None] = []
        #: whether each task only converts what tiles hold at first
        self._of_first: list[bool] = []
        #: of each task: the block that wrote the version of a tile that it has
        self._current: list[dict[int, int]] = []
        self._of_block: list[int] = []
        self._last: dict[tuple[int, int], int] = {}
        #: versions, as tile and block, that another task finds
        self._outside: set[tuple[int, int]] = set()

    def add(self, block: int) -> None:
        """Put a block into a task."""
        key = self._blocks.rank[block], self._blocks.strip[block]
        task = self._last.get(key)
        if task is None or not self._fits(block, task):
            task = self._new(block, key)
        self._put(block, task)

    def _makers(self, block: int) -> Iterator[tuple[int, int, int]]:
        """Tiles that a block reads, the block that wrote each, and the task that this is in."""
        for tile, writer in self._blocks.reads[block]:
            yield tile, writer, self._of_block[writer] if writer >= 0 else INITIAL

    def _fits(self, block: int, task: int) -> bool:
        """Whether a block may join a task."""
        joined, current = self._joined[task], self._current[task]
        along = self._is_one_call(block, task)
        if joined.exported and not along:
            return False
        level, new_input = 0, False
        for tile, writer, maker in self._makers(block):
            if current.get(tile, writer) != writer:
                return False
            if maker != task:
                new_input |= tile not in current
                level = max(level, self._level[maker] + 1 if maker >= 0 else 0)
        other_step = self._blocks.step[block] != self._step[task] and not along
        if other_step and (new_input or self._ceiling[task] < np.inf):
            return False
        if level >= self._ceiling[task]:
            return False
        for tile in self._blocks.writes[block]:
            writer = current.get(tile, INITIAL)
            if writer >= 0 and self._of_block[writer] == task and (tile, writer) in self._outside:
                return False
        return True

    def _is_one_call(self, block: int, task: int) -> bool:
        """Whether a block is what a task was given last but for the number formats.

        All conversions of what a strip holds at first are one call, whenever they are wanted.
        """
        if self._of_first[task] and self._converts_first(block):
            return True
        last, kind = self._call[task], self._blocks.kind[block]
        if last is None or kind.precision is None or last[0] != self._blocks.iteration[block]:
            return False
        return kind.operation in (last[1], *_CONVERSIONS)

    def _converts_first(self, block: int) -> bool:
        """Whether a block only copies what tiles hold at first to other formats."""
        writers = (writer for _, writer in self._blocks.reads[block])
        return self._blocks.kind[block].operation == "lag2" and all(w < 0 for w in writers)

    def _new(self, block: int, key: tuple[int, int]) -> int:
        task = len(self._joined)
        self._joined.append(Joined(key[0], key))
        self._level.append(0)
        self._ceiling.append(np.inf)
        self._step.append(self._blocks.step[block])
        self._call.append(None)
        self._of_first.append(True)
        self._current.append({})
        self._last[key] = task
        return task

    def _put(self, block: int, task: int) -> None:
        joined, current = self._joined[task], self._current[task]
        makers = list(self._makers(block))
        for _, _, maker in makers:
            if maker not in (task, INITIAL):
                self._level[task] = max(self._level[task], self._level[maker] + 1)
        for tile, writer, maker in makers:
            if maker == task:
                continue
            joined.inputs.setdefault(tile, maker)
            current.setdefault(tile, writer)
            if maker >= 0:
                self._outside.add((tile, writer))
                self._ceiling[maker] = min(self._ceiling[maker], self._level[task])
                self._joined[maker].exported |= self._joined[maker].rank != joined.rank
        for tile in self._blocks.writes[block]:
            current[tile] = block
        joined.tasks += self._blocks.tasks[block].tolist()
        joined.exported |= self._blocks.exports[block]
        self._step[task] = self._blocks.step[block]
        self._of_first[task] &= self._converts_first(block)
        kind = self._blocks.kind[block]
        if kind.precision is not None and kind.operation not in _CONVERSIONS:
            self._call[task] = self._blocks.iteration[block], kind.operation
        self._of_block.append(task)

    # -- what becomes of tiles ---------------------------------------------------------------------

    def done(self) -> Coarse:
        """Return the tasks, with what each hands on."""
        scratch = [(g.base, g.end) for g in self._blocks.program.graph.grids if g.scratch]
        newest: dict[int, int] = {}
        for block in range(self._blocks.count):
            for tile in self._blocks.writes[block]:
                newest[tile] = block
        for task, current in enumerate(self._current):
            for tile, block in current.items():
                if block < 0 or self._of_block[block] != task:
                    continue
                final = newest[tile] == block
                lost = any(base <= tile < end for base, end in scratch)
                if (tile, block) in self._outside or (final and not lost):
                    self._joined[task].outputs.append(tile)
                if final and not lost:
                    self._joined[task].final.add(tile)
            self._joined[task].outputs.sort()
        order = self._order()
        return self._carried([self._joined[task] for task in order], order)

    def _order(self) -> list[int]:
        """The tasks by level: none waits for a later one."""
        order: list[int] = np.argsort(self._level, kind="stable").tolist()
        return order

    def _carried(self, joined: list[Joined], order: list[int]) -> Coarse:
        """Hand final tiles on to the next task of the strip, or keep them apart."""
        number = dict(zip(order, range(len(order)), strict=True)) | {INITIAL: INITIAL}
        for task in joined:
            task.inputs = {tile: number[maker] for tile, maker in task.inputs.items()}
        following: dict[int, int] = {}
        last: dict[tuple[int, int], int] = {}
        for at, task in enumerate(joined):
            if task.strip in last:
                following[last[task.strip]] = at
            last[task.strip] = at
        kept: list[Kept] = []
        home: dict[int, int] = {}
        for at, task in enumerate(joined):
            stale = [tile for tile in task.outputs if tile not in task.final]
            if task.final and stale:
                successor = joined[following[at]] if at in following else None
                if successor is None or successor.exported or at not in successor.inputs.values():
                    home |= dict.fromkeys(task.final, len(joined) + len(kept))
                    kept.append(Kept(at, tuple(sorted(task.final))))
                else:
                    successor.carried |= dict.fromkeys(task.final, at)
                    successor.final |= task.final
                continue
            home |= dict.fromkeys(task.final, at)
        return Coarse(self._blocks.program, joined, kept, home)
