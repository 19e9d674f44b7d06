"""A program with tasks put in, taken out or put in the place of others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from taskla.graph import Grid, Kind, TaskGraph

__all__ = ["AFTER", "BEFORE", "INSTEAD", "Insertion", "rewrite"]

#: where an inserted task goes, seen from a task that is there
BEFORE, INSTEAD, AFTER = 0, 1, 2


class Insertion(NamedTuple):
    """A task to be put into a program.

    Attributes
    ----------
    at : int
        A task of the program.
    where : {BEFORE, INSTEAD, AFTER}
        Of several at one place the first comes first; INSTEAD goes with ``dropped``.
    kind : Kind
    operands : tuple of tuple of int
        The tile numbers of each operand.
    """

    at: int
    where: int
    kind: Kind
    operands: tuple[tuple[int, ...], ...]


def rewrite(
    graph: TaskGraph,
    grids: Sequence[Grid],
    tiles: NDArray[np.int32],
    modes: NDArray[np.uint8],
    inserted: Sequence[Insertion],
    dropped: Sequence[int] = (),
) -> tuple[TaskGraph, NDArray[np.int64]]:
    """Return a program with other tiles and modes, with tasks inserted and others dropped.

    Parameters
    ----------
    graph : TaskGraph
        Not fused.
    grids : sequence of Grid
        Its grids, and those of new tiles.
    tiles, modes : (a,) arrays
        In place of the graph's.
    inserted : sequence of Insertion
        Each is a call of its own.
    dropped : sequence of int
        Tasks.

    Returns
    -------
    graph : TaskGraph
        Without hints of where tasks run.
    origin : (n,) int64 array
        Of each of its tasks: its number in `graph`, or ``graph.n`` plus its number in `inserted`.
    """
    kinds = {kind: number for number, kind in enumerate(graph.kinds)}
    for task in inserted:
        kinds.setdefault(task.kind, len(kinds))
    place = np.concatenate(
        [
            3 * np.arange(graph.n) + INSTEAD,
            np.array([3 * t.at + t.where for t in inserted], dtype=np.int64),
        ]
    )
    order = np.argsort(place, kind="stable")
    if len(dropped):
        order = order[~np.isin(order, np.asarray(dropped))]
    flat = [_flat(task) for task in inserted]
    width = np.concatenate([np.diff(graph.indptr), [len(t) for t, _, _ in flat]]).astype(np.int64)
    begin = np.concatenate([[0], np.cumsum(width)[:-1]]).astype(np.int64)
    ends = np.cumsum(width[order])
    total = int(ends[-1]) if ends.size else 0
    access = np.arange(total) + np.repeat(begin[order] - ends + width[order], width[order])

    def column(old: NDArray[Any], values: list[Any]) -> NDArray[Any]:
        return np.concatenate([old, np.array(values, dtype=old.dtype)])

    call = np.repeat(np.arange(graph.calls.size - 1), np.diff(graph.calls))
    call = column(call, list(range(-1, -1 - len(inserted), -1)))[order]
    starts = np.flatnonzero(np.diff(call, prepend=call[:1] - 1))
    iteration = graph.iteration
    iteration = column(iteration, [iteration[t.at] for t in inserted])[order]
    made = TaskGraph(
        grids=grids,
        kinds=list(kinds),
        kind=column(graph.kind, [kinds[t.kind] for t in inserted])[order],
        indptr=np.concatenate([[0], ends]).astype(np.int64),
        tiles=column(tiles, [number for t, _, _ in flat for number in t])[access],
        operand=column(graph.operand, [number for _, o, _ in flat for number in o])[access],
        modes=column(modes, [mode for _, _, m in flat for mode in m])[access],
        calls=np.append(starts, order.size),
        priority=None
        if graph.priority is None
        else column(graph.priority, [graph.priority[t.at] for t in inserted])[order],
        iterations=iteration[starts],
        name=graph.name,
    )
    return made, order


def _flat(task: Insertion) -> tuple[list[int], list[int], list[int]]:
    """The accesses of a task: tiles, operands, modes."""
    tiles: list[int] = []
    operands: list[int] = []
    modes: list[int] = []
    for operand, (numbers, mode) in enumerate(
        zip(task.operands, task.kind.definition.modes, strict=True)
    ):
        tiles += numbers
        operands += [operand] * len(numbers)
        modes += [int(mode)] * len(numbers)
    return tiles, operands, modes
