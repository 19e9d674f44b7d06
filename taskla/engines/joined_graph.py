"""The graph of a trace in which tasks of several processes are recorded: tile tasks, joined."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from taskla.dependencies import Successors
from taskla.graph import TaskGraph

__all__ = ["joined_graph", "numbered"]

Int64 = NDArray[np.int64]


def numbered(
    n: int, tile_tasks: Sequence[Int64], counts: Sequence[NDArray[np.int32]]
) -> tuple[list[Int64], Int64, Int64, NDArray[np.int32]]:
    """Number the tasks of several graphs by the first tile task in each.

    Parameters
    ----------
    n : int
        Tile tasks of the program.
    tile_tasks : sequence of (t,) int64 arrays
        Of each graph, in order.
    counts : sequence of (s,) int32 arrays
        How many of them are in each of its tasks.

    Returns
    -------
    number : list of (s,) int64 arrays
        Of the tasks of each graph.
    number_of : (n,) int64 array
        Of the task that each tile task is in.
    first : (m,) int64 array
        The first tile task in each task.
    multiplicity : (m,) int32 array
    """
    begins = [np.cumsum(count) - count for count in counts]
    firsts = np.concatenate([of[at] for of, at in zip(tile_tasks, begins, strict=True)])
    order = np.argsort(firsts)
    number = np.empty(firsts.size, np.int64)
    number[order] = np.arange(firsts.size)
    numbers = np.split(number, np.cumsum([count.size for count in counts])[:-1])
    number_of = np.empty(n, np.int64)
    for tasks, mine, count in zip(tile_tasks, numbers, counts, strict=True):
        number_of[tasks] = np.repeat(mine, count)
    return numbers, number_of, firsts[order], np.concatenate(counts)[order]


def joined_graph(
    graph: TaskGraph,
    number_of: Int64,
    first: Int64,
    multiplicity: NDArray[np.int32],
    edges: tuple[Int64, Int64],
) -> TaskGraph:
    """Return a program with tile tasks joined, and these edges.

    Parameters
    ----------
    graph : TaskGraph
        The program.
    number_of : (graph.n,) int64 array
        The task that each tile task is in.
    first : (n,) int64 array
        The first tile task in each task; they increase.
    multiplicity : (n,) int32 array
    edges : ((e,) int64 array, (e,) int64 array)
        Sources and targets; an edge may be there several times.
    """
    n = first.size
    task = graph.task_of_access
    order = np.lexsort((np.arange(task.size), graph.operand, number_of[task]))
    # what a tile task shares with the one before it is named once
    same = np.zeros(order.size, dtype=np.bool_)
    alike = (number_of[task], graph.operand, graph.tiles)
    same[1:] = np.diff(task[order]) != 0
    for column in alike:
        same[1:] &= np.diff(column[order].astype(np.int64)) == 0
    order = order[~same]
    width = np.bincount(number_of[task[order]], minlength=n)
    flops = np.bincount(number_of, weights=graph.flops(), minlength=n)
    return TaskGraph(
        grids=graph.grids,
        kinds=graph.kinds,
        kind=graph.kind[first],
        indptr=np.concatenate([[0], np.cumsum(width)]).astype(np.int64),
        tiles=graph.tiles[order],
        operand=graph.operand[order],
        modes=graph.modes[order],
        calls=np.arange(n + 1, dtype=np.int64),
        priority=graph.priorities()[first],
        multiplicity=multiplicity,
        flops=flops.astype(np.float64),
        iterations=graph.iteration[first],
        name=graph.name,
        successors=_successors(n, *edges),
    )


def _successors(n: int, source: Int64, target: Int64) -> Successors:
    source, target = np.divmod(np.unique(source * max(n, 1) + target), max(n, 1))
    pointer = np.concatenate([[0], np.cumsum(np.bincount(source, minlength=n))])
    return Successors(pointer.astype(np.int64), target.astype(np.int32))
