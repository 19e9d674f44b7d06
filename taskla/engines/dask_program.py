"""From a program in joined tasks to a graph of Dask tasks."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from taskla.coarsening import INITIAL, Coarse, Joined
from taskla.engines.dask_strips import Position, is_packed
from taskla.engines.dask_task import About, Described
from taskla.engines.dask_work import Found, Made, Share, packed, run, select
from taskla.graph import Grid, TaskGraph
from taskla.operations import Access
from taskla.pieces import subset
from taskla.schedulers import Policy
from taskla.traces.recorder import of_one_matrix

__all__ = ["Tasks", "Where", "kernel", "tasks"]


class Where(NamedTuple):
    """Where a tile is: a key of a Dask graph, and the position in its value."""

    key: Hashable
    position: Position


@dataclass(frozen=True)
class Tasks:
    """A program as Dask tasks.

    Attributes
    ----------
    graph : dict
        From keys to tasks.
    home : dict of int to Where
        Where each tile that the program writes is in the end.
    """

    graph: dict[Hashable, Any]
    home: dict[int, Where]


def tasks(
    coarse: Coarse,
    token: str,
    rowwise: Sequence[int],
    policy: str | Policy,
    fuse: int,
    initial: Mapping[int, Where],
    checked: Mapping[int, str],
    shapes: Mapping[int, tuple[int, int]],
    journal: str | None = None,
) -> Tasks:
    """Make the Dask tasks of a program.

    Parameters
    ----------
    coarse : Coarse
    token : str
        Different for programs that differ in anything that follows.
    rowwise : sequence of int
        First tile numbers of grids whose strips are tile rows.
    policy : str or Policy
    fuse : int
        Of each worker's tile tasks.
    initial : mapping of int to Where
        Where tiles are at first; those that are not there are scratch.
    checked : mapping of int to str
        Tiles to be checked when they are first looked at, and which part of each.
    shapes : mapping of int to (int, int)
        Of tiles that have another shape than their grid says.
    journal : str, optional
        That workers are to note the tasks for.
    """
    maker = _Maker(coarse, token, rowwise, policy, fuse, shapes, journal)
    return maker.make(initial, dict(checked))


class _Maker:
    def __init__(
        self,
        coarse: Coarse,
        token: str,
        rowwise: Sequence[int],
        policy: str | Policy,
        fuse: int,
        shapes: Mapping[int, tuple[int, int]],
        journal: str | None,
    ) -> None:
        self._shapes, self._journal = shapes, journal
        self._coarse, self._token, self._rowwise = coarse, token, rowwise
        self._policy, self._fuse = policy, fuse
        self._graph = coarse.program.graph
        self._bases = np.array([grid.base for grid in self._graph.grids])
        self._grids = [grid for grid in self._graph.grids if not grid.scratch]
        name = self._graph.name or "graph"
        self._described = Described(token, name, tuple(_described(self._grids)))
        self._importance = _importance(coarse)
        self._keys: list[Hashable] = []
        self._positions: list[dict[int, int]] = []

    def make(self, initial: Mapping[int, Where], unchecked: dict[int, str]) -> Tasks:
        """Return the tasks."""
        from dask.task_spec import TaskRef

        from taskla.engines.dask_task import StripTask

        made: dict[Hashable, Any] = {}
        for number, task in enumerate(self._coarse.joined):
            piece = _piece(self._graph, np.array(sorted(task.tasks)))
            strips, positions = _made(task, self._graph, self._rowwise, piece)
            sources, found = self._found(task, initial, unchecked)
            carried = self._carried(task, sources, positions)
            odd = {
                tile: self._shapes[tile]
                for tile in np.unique(piece.tiles).tolist()
                if tile in self._shapes
            }
            note = None if self._journal is None else (self._journal, self._token, number)
            share = Share(piece, found, tuple(strips), carried, self._policy, self._fuse, odd, note)
            about = self._about(number, task, piece)
            key: tuple[Any, ...] = (f"{about.kernel}-{self._token}", self._strip(task), number)
            refs = [TaskRef(source) for source in sources]
            made[key] = StripTask(key, run, packed(share), *refs, about=about)
            self._keys.append(key)
            self._positions.append(positions)
        for number, (source, tiles) in enumerate(self._coarse.kept):
            key = (f"keep-{self._token}", number)
            origin = made[self._keys[source]].about
            about = origin._replace(program=None, kernel="keep", writes=(), flops=0.0)
            at = [self._positions[source][tile] for tile in tiles]
            made[key] = StripTask(key, select, at, TaskRef(self._keys[source]), about=about)
            self._keys.append(key)
            self._positions.append({tile: place for place, tile in enumerate(tiles)})
        home = {
            tile: Where(self._keys[at], self._positions[at][tile])
            for tile, at in self._coarse.home.items()
        }
        return Tasks(made, home)

    def _found(
        self, task: Joined, initial: Mapping[int, Where], unchecked: dict[int, str]
    ) -> tuple[list[Hashable], tuple[Found, ...]]:
        """The arguments of a task, and the tiles in them."""
        sources: dict[Hashable, int] = {}
        found = []
        for tile, maker in task.inputs.items():
            check = ""
            if maker == INITIAL:
                if tile not in initial:
                    continue
                key, position = initial[tile]
                check = unchecked.pop(tile, "")
            else:
                key, position = self._keys[maker], self._positions[maker][tile]
            found.append(Found(tile, sources.setdefault(key, len(sources)), position, check))
        return list(sources), tuple(found)

    def _carried(
        self, task: Joined, sources: list[Hashable], positions: dict[int, int]
    ) -> tuple[tuple[int, int], ...]:
        carried = []
        for tile, maker in sorted(task.carried.items()):
            key = self._keys[maker]
            carried.append((sources.index(key), self._positions[maker][tile]))
            positions[tile] = len(positions)
        return tuple(carried)

    def _about(self, number: int, task: Joined, piece: TaskGraph) -> About:
        writes = []
        for tile in task.outputs:
            grid = self._graph.grids[int(np.searchsorted(self._bases, tile, side="right")) - 1]
            if not grid.scratch:
                i, j = grid.coordinates(tile)
                writes.append((self._grids.index(grid), int(i), int(j)))
        return About(
            self._described,
            task.rank,
            int(self._importance[number]),
            kernel(piece),
            tuple(writes),
            float(piece.flops().sum()),
        )

    def _strip(self, task: Joined) -> int:
        """The tile column or row that a task is on."""
        grid = self._graph.grid_of(task.strip[1])
        i, j = grid.coordinates(task.strip[1])
        return int(i) if grid.base in self._rowwise else int(j)


def _described(grids: list[Grid]) -> Iterator[tuple[str, int, int, str, bool]]:
    """Grids as `Described` has them."""
    more = [False, *(of_one_matrix(*two) for two in pairwise(grids))]
    for grid, same in zip(grids, more, strict=False):
        yield grid.matrix, grid.mt, grid.nt, grid.format_name, same


def _importance(coarse: Coarse) -> NDArray[np.int64]:
    """Place of each joined task in the order of importance, the first is the most important.

    That is the program's own order, in which the update of the next panel's column, and so the
    panel, comes first in each step. The longest way to the end would let columns far from the
    panel wait, and workers keep all panels that those still need.
    """
    first = np.array([min(task.tasks) for task in coarse.joined], dtype=np.int64)
    explicit = coarse.program.graph.priority
    most = np.zeros(first.size)
    if explicit is not None:
        most = np.array([explicit[task.tasks].max() for task in coarse.joined])
    importance = np.empty(first.size, dtype=np.int64)
    importance[np.lexsort((first, -most))] = np.arange(first.size)
    return importance


#: What leaves a tile as a number format can store it.
_ROUNDING = ("round", "lag2")

#: What a task is known by if it does any of these: a panel decides how fast everything else goes.
_PANELS = ("potrf", "getrf", "getrf_nopiv", "trtri", "lauum")


def kernel(graph: TaskGraph) -> str:
    """Return the kernel that a task is known by: its panel's, else that of most flops."""
    names = [graph.operations[kind] for kind in graph.kind.tolist()]
    for name in _PANELS:
        if name in names:
            return name
    flops: dict[str, float] = {}
    for name, count in zip(names, graph.flops().tolist(), strict=True):
        flops[name] = flops.get(name, 0.0) + count
    return max(flops, key=lambda name: flops[name])


def _piece(graph: TaskGraph, tasks: Any) -> TaskGraph:
    piece = subset(graph, tasks, graph.tiles, graph.grids)
    used = np.unique(piece.tiles)
    # only the grids that its tiles are in
    piece.grids = tuple(
        grid
        for grid in graph.grids
        if np.searchsorted(used, grid.base) < np.searchsorted(used, grid.end)
    )
    return piece


def _made(
    task: Joined, graph: TaskGraph, rowwise: Sequence[int], piece: TaskGraph
) -> tuple[list[Made], dict[int, int]]:
    """The strips that a task makes, and where in its value tiles are."""
    outputs = set(task.outputs)
    written = np.unique(piece.tiles[piece.modes != Access.R]).tolist()
    rounded = _rounded(piece)
    made: list[Made] = []
    for grid in graph.grids:
        axis = 1 if grid.base in rowwise else 0
        mine = [
            tile
            for tile in written
            if grid.base <= tile < grid.end
            # scratch that nobody else has seen or will see comes and goes with the task
            and (not grid.scratch or tile in outputs or tile in task.inputs)
        ]
        format = grid.format if is_packed(grid.format, grid.dtype) else None
        made += _runs(mine, grid, axis, outputs, task.final, rounded if format else set(), format)
    positions: dict[int, int] = {}
    for strip in made:
        for tile in strip.tiles if strip.returned else ():
            positions[tile] = len(positions)
    return made, positions


def _rounded(piece: TaskGraph) -> set[int]:
    """The tiles that are numbers of their format at the end: the others are still summed up."""
    if not any(name in _ROUNDING for name in piece.operations):
        return set()
    writes = np.flatnonzero(piece.modes != Access.R)[::-1]
    tiles, last = np.unique(piece.tiles[writes], return_index=True)
    kinds = [number for number, name in enumerate(piece.operations) if name in _ROUNDING]
    mine = np.isin(piece.kind[piece.task_of_access[writes[last]]], kinds)
    return set(tiles[mine].tolist())


def _runs(
    tiles: list[int],
    grid: Grid,
    axis: int,
    outputs: set[int],
    final: set[int],
    packed: set[int],
    format: str | None,
) -> list[Made]:
    """Neighbours of one fate, in strips."""
    rows, columns = (index.tolist() for index in grid.coordinates(np.array(tiles, dtype=np.int64)))
    along, across = (columns, rows) if axis else (rows, columns)
    order = sorted(range(len(tiles)), key=lambda at: (across[at], along[at]))
    keyed = [
        (
            across[at],
            along[at] - place,
            tiles[at] in packed and tiles[at] in outputs,
            tiles[at] in outputs,
            tiles[at] in final,
        )
        for place, at in enumerate(order)
    ]
    result = []
    pairs = zip(keyed, order, strict=True)
    for (*_, pack, returned, _), alike in groupby(pairs, key=lambda pair: pair[0]):
        stored = format if pack and format else ""
        result.append(Made(tuple(tiles[at] for _, at in alike), axis, returned, stored))
    return result
