"""Parts of a graph: cut between the iterations of its algorithm, or some tasks of it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from taskla.graph import Grid, TaskGraph
from taskla.operations import Access

__all__ = ["cuts", "iterations", "piece", "subset"]

Int64 = NDArray[np.int64]


def iterations(graph: TaskGraph) -> Int64:
    """(s + 1,) First call of each iteration in submission order and, last, the number of calls.

    An iteration is a run of calls of one step of a loop (`TaskFlow.iterate`). Calls outside of all
    loops belong to the iteration before them, those in front of the first one to that.
    """
    step = graph.iterations
    known = np.flatnonzero(step >= 0)
    begins = known[1:][step[known[1:]] != step[known[:-1]]]
    return np.concatenate([[0], begins, [step.size]]).astype(np.int64)


def cuts(graph: TaskGraph, every: int) -> list[int]:
    """Iterations before which the graph is cut, so that about `every` of them are a piece.

    Where scratch tiles are in use across a cut, it is moved to the next iteration where none is.

    Parameters
    ----------
    graph : TaskGraph
    every : int
        At least 1.
    """
    begins = iterations(graph)[:-1]
    in_use = _scratch_in_use(graph)
    result = []
    due = every
    for iteration, call in enumerate(begins.tolist()):
        if iteration >= due and not in_use[call]:
            result.append(iteration)
            due = (iteration // every + 1) * every
    return result


def _scratch_in_use(graph: TaskGraph) -> NDArray[np.bool_]:
    """(calls + 1,) Whether scratch tiles hold, before each call, what a later one reads."""
    scratch = np.zeros(graph.tile_count, dtype=np.bool_)
    for grid in graph.grids:
        scratch[grid.base : grid.end] = grid.scratch
    access = np.flatnonzero(scratch[graph.tiles])
    access = access[np.argsort(graph.tiles[access], kind="stable")]
    calls = graph.calls.size - 1
    call = np.repeat(np.arange(calls), np.diff(graph.calls))[graph.task_of_access[access]]
    tile = graph.tiles[access]
    kept = (tile[1:] == tile[:-1]) & (graph.modes[access[1:]] != Access.W)
    change = np.zeros(calls + 2, dtype=np.int64)
    np.add.at(change, call[:-1][kept] + 1, 1)
    np.add.at(change, call[1:][kept] + 1, -1)
    return np.asarray(np.cumsum(change)[:-1] > 0)


def piece(graph: TaskGraph, first: int, last: int) -> TaskGraph:
    """Return the graph of the calls from `first` to before `last`, or the graph itself if all.

    Priorities are those of the whole graph.
    """
    if first == 0 and last == graph.calls.size - 1:
        return graph
    begin, end = int(graph.calls[first]), int(graph.calls[last])
    tasks = slice(begin, end)
    accesses = slice(int(graph.indptr[begin]), int(graph.indptr[end]))
    return TaskGraph(
        grids=graph.grids,
        kinds=graph.kinds,
        kind=graph.kind[tasks],
        indptr=graph.indptr[begin : end + 1] - graph.indptr[begin],
        tiles=graph.tiles[accesses],
        operand=graph.operand[accesses],
        modes=graph.modes[accesses],
        calls=graph.calls[first : last + 1] - begin,
        priority=graph.priorities()[tasks],
        multiplicity=graph.multiplicity[tasks],
        flops=graph.flops()[tasks],
        iterations=graph.iterations[first:last],
        name=graph.name,
        at=None if graph.at is None else graph.at[tasks],
    )


def subset(
    graph: TaskGraph, tasks: Int64, numbers: NDArray[np.int32], grids: Sequence[Grid]
) -> TaskGraph:
    """Return the graph of some tasks, with other tile numbers; dependencies follow from these.

    Parameters
    ----------
    graph : TaskGraph
    tasks : (t,) int array
        In order. Priorities are those of the whole graph.
    numbers : (a,) int32 array
        In place of the graph's tiles.
    grids : sequence of Grid
        That these are in.
    """
    width = np.diff(graph.indptr)[tasks]
    begin = graph.indptr[:-1][tasks]
    ends = np.cumsum(width)
    access = np.arange(int(ends[-1]) if ends.size else 0) + np.repeat(begin - ends + width, width)
    call = np.repeat(np.arange(graph.calls.size - 1), np.diff(graph.calls))[tasks]
    starts = np.flatnonzero(np.diff(call, prepend=-1))
    # interchanges of rows have many kinds, and an engine binds a kernel for each
    kinds, kind = np.unique(graph.kind[tasks], return_inverse=True)
    return TaskGraph(
        grids=grids,
        kinds=[graph.kinds[number] for number in kinds.tolist()],
        kind=kind.astype(np.int32),
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
