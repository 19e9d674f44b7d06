"""What the workers of a Dask cluster noted of one program, as one recording of one graph.

The graph has the tile tasks of all joined tasks as workers fuse them. Its dependencies are those
within each joined task, and those from the last writer of a tile to its readers in other ones:
joined tasks change nothing that others have, so no reader is waited for.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from taskla.coarsening import INITIAL, Coarse
from taskla.engines.dask_notes import Noted
from taskla.engines.dask_program import Where
from taskla.engines.joined_graph import joined_graph, numbered
from taskla.fusion import fuse
from taskla.graph import TaskGraph
from taskla.operations import Access
from taskla.pieces import subset
from taskla.traces import Recording

__all__ = ["DaskRecording", "Passed", "Program", "WorkersGraph", "identity", "workers_graph"]

Int64 = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Program:
    """A program that Dask may compute.

    Attributes
    ----------
    token : str
        That its keys have.
    coarse : Coarse
    fuse : int
        Of each worker's tile tasks.
    initial : mapping of int to Where
        Where tiles are at first.
    submitted : float
        Clock reading of when the engine got it.
    info : dict
        What the header says of its runs.
    """

    token: str
    coarse: Coarse
    fuse: int
    initial: Mapping[int, Where]
    submitted: float
    info: dict[str, Any]

    @cached_property
    def readers(self) -> dict[Hashable, dict[int, int]]:
        """By what a key is known by: the joined tasks that read of it, and the first tile each."""
        found: dict[Hashable, dict[int, int]] = {}
        for number, task in enumerate(self.coarse.joined):
            for tile, maker in task.inputs.items():
                if maker != INITIAL:
                    known: Hashable = (self.token, maker)
                elif tile in self.initial:
                    known = identity(self.initial[tile].key)
                else:
                    continue
                tiles = found.setdefault(known, {})
                tiles[number] = min(tile, tiles.get(number, tile))
        return found

    def origin(self, key: Any) -> tuple[int, int] | None:
        """Return the joined task that made the value of a key, and its first tile."""
        if not isinstance(key, tuple) or not isinstance(key[0], str):
            return None
        if identity(key) == (self.token, key[-1]):
            task = self.coarse.joined[key[-1]]
            return key[-1], min([*task.outputs, *task.carried])
        if key[0] == f"keep-{self.token}":
            source, tiles = self.coarse.kept[key[-1]]
            return source, tiles[0]
        return None


def identity(key: Any) -> Hashable:
    """Return what a key of Dask's is known by: of joined tasks the program's token and number."""
    if isinstance(key, tuple) and len(key) == 3 and isinstance(key[0], str):
        return key[0].rpartition("-")[2], key[2]
    found: Hashable = key
    return found


class Passed(NamedTuple):
    """A value that went from one worker to another.

    Attributes
    ----------
    source, destination : str
        Addresses.
    tile : int
        The first one that was read of it there.
    maker : int
        The joined task that made it, or `INITIAL`.
    nbytes : int
    start, end : float
    """

    source: str
    destination: str
    tile: int
    maker: int
    nbytes: int
    start: float
    end: float


class WorkersGraph(NamedTuple):
    """The tasks of all workers.

    Attributes
    ----------
    graph : TaskGraph
        Tasks are numbered by the first tile task in each.
    number : list of (t,) int64 arrays
        Of each joined task: the numbers of its tasks.
    number_of : (n,) int64 array
        The task that each tile task of the program is in.
    """

    graph: TaskGraph
    number: list[Int64]
    number_of: Int64


def workers_graph(coarse: Coarse, width: int) -> WorkersGraph:
    """Return the graph of all workers' tasks.

    Parameters
    ----------
    coarse : Coarse
    width : int
        Of fusion.
    """
    graph = coarse.program.graph
    tile_tasks = [np.array(sorted(task.tasks), np.int64) for task in coarse.joined]
    parts = [fuse(subset(graph, of, graph.tiles, graph.grids), width) for of in tile_tasks]
    counts = [part.multiplicity for part in parts]
    number, number_of, first, multiplicity = numbered(graph.n, tile_tasks, counts)
    source, target = [], []
    for part, numbers in zip(parts, number, strict=True):
        before, after = part.edges()
        source.append(numbers[before])
        target.append(numbers[after])
    inside = _joined_of(coarse)
    before, after = graph.edges("raw")
    crossing = inside[before] != inside[after]
    source.append(number_of[before[crossing]])
    target.append(number_of[after[crossing]])
    edges = np.concatenate(source), np.concatenate(target)
    return WorkersGraph(
        joined_graph(graph, number_of, first, multiplicity, edges), number, number_of
    )


def _joined_of(coarse: Coarse) -> Int64:
    """(n,) The joined task that each tile task is in."""
    result = np.empty(coarse.program.graph.n, np.int64)
    for number, task in enumerate(coarse.joined):
        result[task.tasks] = number
    return result


class DaskRecording(Recording):
    """One run of a program, by the client's clock; workers have told of it once `noted` is filled.

    Parameters
    ----------
    program : Program

    Attributes
    ----------
    program : Program
    noted : dict of int to (str, Noted)
        By joined task: the address of the worker, what it noted.
    passed : list of Passed
    ranks : dict of str to int
        By address; set before `merge`.
    """

    def __init__(self, program: Program) -> None:
        # the graph takes longer than a small run: it is made when a trace is asked for
        super().__init__(
            program.coarse.program.graph, {**program.info, "status": "running"}, program.submitted
        )
        self.program = program
        self.noted: dict[int, tuple[str, Noted]] = {}
        self.passed: list[Passed] = []
        self.ranks: dict[str, int] = {}

    def add(self, worker: str, noted: Noted) -> None:
        """Take what a worker noted last of a joined task; its times are the client's."""
        known = self.noted.get(noted.number)
        if known is None or known[1].over <= noted.over:
            self.noted[noted.number] = worker, noted
        self.begin = min(noted.begin for _, noted in self.noted.values())
        self.over = max(noted.over for _, noted in self.noted.values())

    @property
    def complete(self) -> bool:
        """Whether all of its joined tasks are done."""
        return self.error is None and len(self.noted) == len(self.program.coarse.joined)

    @property
    def error(self) -> tuple[bool, str] | None:
        """What the first joined task failed with that did: see `Noted`."""
        found = (self.noted[number][1].error for number in sorted(self.noted))
        return next((error for error in found if error is not None), None)

    def readings(self, known: Hashable, worker: str) -> list[tuple[float, int]]:
        """Return when a worker's joined tasks read a value, and of it which tile first."""
        return [
            (self.noted[number][1].begin, tile)
            for number, tile in self.program.readers.get(known, {}).items()
            if number in self.noted and self.noted[number][0] == worker
        ]

    def merge(self, whole: WorkersGraph) -> None:
        """Put what the workers noted on the graph of them all."""
        n = whole.graph.n
        self.graph = whole.graph
        self.start, self.end = np.full(n, np.nan), np.full(n, np.nan)
        self.worker, self.rank = np.zeros(n, np.int32), np.zeros(n, np.int32)
        for number, (address, noted) in self.noted.items():
            # one that failed before its first tile task has none
            numbers = whole.number[number][: noted.end.size]
            self.start[numbers], self.end[numbers] = noted.start, noted.end
            self.worker[numbers], self.rank[numbers] = noted.lane, self.ranks[address]
        self.messages = self._rows(whole.number_of)

    def _rows(
        self, number_of: Int64
    ) -> list[tuple[int, int, int, int, int, int, int, float, float]]:
        """The values that were passed on, as rows of the trace's table of messages."""
        if not self.passed:
            return []
        coarse = self.program.coarse
        writers = _last_writers(coarse)
        graph = coarse.program.graph
        where = {grid.base: number for number, grid in enumerate(graph.grids)}
        rows = []
        for passed in sorted(self.passed, key=lambda passed: passed.start):
            maker, tile = passed.maker, passed.tile
            while maker != INITIAL and (maker, tile) not in writers:
                maker = coarse.joined[maker].carried.get(tile, INITIAL)
            grid = graph.grid_of(tile)
            i, j = (int(index) for index in grid.coordinates(tile))
            rows.append(
                (
                    -1 if maker == INITIAL else int(number_of[writers[maker, tile]]),
                    where[grid.base],
                    i,
                    j,
                    self.ranks[passed.source],
                    self.ranks[passed.destination],
                    passed.nbytes,
                    passed.start,
                    max(passed.start, passed.end),
                )
            )
        return rows


def _last_writers(coarse: Coarse) -> dict[tuple[int, int], int]:
    """By joined task and tile: the last tile task there that writes it."""
    graph = coarse.program.graph
    writing = np.flatnonzero(graph.modes != Access.R)
    task, tile = graph.task_of_access[writing], graph.tiles[writing]
    inside = _joined_of(coarse)[task]
    # of several entries of one key the last stays
    return dict(zip(zip(inside.tolist(), tile.tolist(), strict=True), task.tolist(), strict=True))
