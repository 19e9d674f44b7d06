"""Fusion: neighbouring tile tasks of one call become one task on a taller or wider tile.

On the threads of one machine a product of 512 x 512 tiles runs at 121 Gflop/s and one of a
2048 x 512 block by the same tile at 141 (two cores, fp64): the shared operand is packed once. So
tasks of one call that share operands and otherwise go on to the next tile are joined; where their
tiles are adjacent in memory an engine runs them as one kernel call, else one after the other. Only
the tasks of a call that do not depend on one another are joined.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from taskla.graph import TaskGraph
from taskla.operations import Access

__all__ = ["fuse"]

Int64 = NDArray[np.int64]


def fuse(graph: TaskGraph, width: int) -> TaskGraph:
    """Join up to `width` neighbouring tile tasks of a call.

    Parameters
    ----------
    graph : TaskGraph
        Of tile tasks.
    width : int
        At most so many tile tasks in one; groups begin at tile rows (columns) divisible by it, so
        that the groups of successive calls coincide.

    Returns
    -------
    TaskGraph
        The same program in fewer tasks; `TaskGraph.multiplicity` counts their tile tasks. The graph
        itself when there is nothing to join.

    Raises
    ------
    ValueError
        If `width` is less than 1 or the graph is fused already.
    """
    if width < 1:
        raise ValueError(f"width must be at least 1, not {width}")
    if (graph.multiplicity > 1).any():
        raise ValueError("the graph is fused already")
    if width == 1 or graph.n < 2:
        return graph
    heads = [_heads(graph, a, b, width) for a, b in zip(graph.calls, graph.calls[1:], strict=False)]
    head = np.concatenate(heads)
    starts = np.flatnonzero(head)
    if starts.size == graph.n:
        return graph
    group = np.cumsum(head) - 1
    kept = _kept_accesses(graph, group)
    length = np.bincount(group[graph.task_of_access[kept]], minlength=starts.size)
    # the accesses of a fused task go operand by operand
    order = kept[np.lexsort((kept, graph.operand[kept], group[graph.task_of_access[kept]]))]
    return TaskGraph(
        grids=graph.grids,
        kinds=graph.kinds,
        kind=graph.kind[starts],
        indptr=np.concatenate([[0], np.cumsum(length)]),
        tiles=graph.tiles[order],
        operand=graph.operand[order],
        modes=graph.modes[order],
        calls=np.searchsorted(starts, graph.calls),
        priority=None if graph.priority is None else graph.priority[starts],
        multiplicity=np.diff(np.append(starts, graph.n)).astype(np.int32),
        flops=np.add.reduceat(graph.flops(), starts),
        iterations=graph.iterations,
        name=graph.name,
        at=None if graph.at is None else graph.at[starts],
    )


def _heads(graph: TaskGraph, first: int, last: int, width: int) -> NDArray[np.bool_]:
    """Which tasks of one call begin a group."""
    head = np.ones(last - first, dtype=np.bool_)
    kind = graph.kinds[graph.kind[first]]
    if head.size < 2 or kind.definition.panel:
        return head
    tiles = graph.tiles[graph.indptr[first] : graph.indptr[last]].reshape(head.size, -1)
    writes = [p for p, mode in enumerate(kind.definition.modes) if mode != Access.R]
    if not writes or _depends_on_itself(tiles, writes):
        return head
    step = np.diff(tiles, axis=0)
    joins = np.ones(len(step), dtype=np.bool_)
    for position in range(tiles.shape[1]):
        grid = graph.grid_of(int(tiles[0, position]))
        row, column = grid.coordinates(tiles[1:, position])
        down = (step[:, position] == 1) & (row > 0)
        right = step[:, position] == grid.mt
        still = step[:, position] == 0
        joins &= (down | right) if position in writes else (down | right | still)
        if position == writes[0]:
            joins &= np.where(down, row, column) % width != 0
    # a group goes one way
    joins[1:] &= ~joins[:-1] | (step[1:] == step[:-1]).all(axis=1)
    head[1:] = ~joins
    return head


def _depends_on_itself(tiles: NDArray[np.int32], writes: list[int]) -> bool:
    """Whether a task of the call touches what another one writes."""
    written = tiles[:, writes].ravel()
    others: Any = np.delete(tiles, writes, axis=1).ravel()
    return np.unique(written).size < written.size or bool(np.isin(others, written).any())


def _kept_accesses(graph: TaskGraph, group: Int64) -> Int64:
    """Accesses without those that repeat what the task before in the same group names."""
    task = graph.task_of_access
    width = np.diff(graph.indptr)[task]
    access = np.arange(graph.tiles.size)
    # the same operand of the task before stands one task's accesses earlier
    before = np.maximum(access - width, 0)
    same_group = (group[task] == group[task[before]]) & (task[before] == task - 1)
    repeats = same_group & (graph.tiles == graph.tiles[before])
    return np.flatnonzero(~repeats)
