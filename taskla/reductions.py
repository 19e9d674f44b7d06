"""Commutative contributions in a fixed order, so that every run gives the same bits.

Contributions to one tile (`Access.REDUX`) may be made in any order, and floating-point sums differ
from order to order. Here each run of contributions is dealt to a few lanes by its length alone:
the first lane adds to the tile itself, the others to partial sums that are added to it at the end,
in order. Within a lane contributions follow one another; lanes run at the same time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from taskla import dependencies
from taskla.graph import Grid, Kind, TaskGraph
from taskla.operations import Access

__all__ = ["LANES", "SHORTEST", "ordered_reductions"]

#: at most so many lanes a run
LANES = 4
#: contributions that a lane is worth
SHORTEST = 4


class _Inserted(NamedTuple):
    """A task put in front of (place 0) or behind (place 2) task `at` of the program."""

    at: int
    place: int
    kind: Kind
    tiles: tuple[int, ...]


def ordered_reductions(graph: TaskGraph) -> TaskGraph:
    """Turn every REDUX access into a read-write access to the tile or to a partial sum of it.

    Parameters
    ----------
    graph : TaskGraph
        Not fused yet.

    Returns
    -------
    TaskGraph
        Without REDUX accesses; the graph itself if it had none. Partial sums live in scratch grids.
    """
    if not (graph.modes == Access.REDUX).any():
        return graph
    found = dependencies.phases(graph.tiles, graph.modes)
    task = graph.task_of_access
    tiles = graph.tiles.copy()
    grids = list(graph.grids)
    # by the matrix's first tile number, which tells matrices of one name apart, and the lane
    partial: dict[tuple[int, int], Grid] = {}
    inserted: list[_Inserted] = []
    for phase in np.flatnonzero(graph.modes[found.access[found.start[:-1]]] == Access.REDUX):
        end = int(found.start[phase + 1])
        run = found.access[found.start[phase] : end]
        tile = int(tiles[run[0]])
        grid = graph.grid_of(tile)
        after = found.access[end : end + 1]
        # a task that uses the tile after its contribution has to find the others' there
        goes_on = ((graph.tiles[after] == tile) & (task[after] == task[run[-1]])).any()
        lanes = 1 if goes_on else min(LANES, max(1, run.size // SHORTEST))
        for lane, mine in enumerate(np.array_split(run, lanes)[1:], start=1):
            key = (grid.base, lane)
            if key not in partial:
                name = f"{grid.name}+{lane}"
                partial[key] = replace(grid, name=name, base=grids[-1].end, scratch=True)
                grids.append(partial[key])
            own = tile - grid.base + partial[key].base
            tiles[mine] = own
            zero = Kind("laset", ("G", 0.0, 0.0), grid.dtype)
            add = Kind("geadd", ("N", 1.0, 1.0), grid.dtype)
            inserted.append(_Inserted(int(task[mine[0]]), 0, zero, (own,)))
            inserted.append(_Inserted(int(task[run[-1]]), 2, add, (own, tile)))
    modes = np.where(graph.modes == Access.REDUX, np.uint8(Access.RW), graph.modes)
    return _insert(graph, grids, tiles, modes, inserted)


def _insert(
    graph: TaskGraph,
    grids: Sequence[Grid],
    tiles: NDArray[np.int32],
    modes: NDArray[np.uint8],
    inserted: Sequence[_Inserted],
) -> TaskGraph:
    """The program with tasks inserted, each a call of its own."""
    kinds = {kind: number for number, kind in enumerate(graph.kinds)}
    for task in inserted:
        kinds.setdefault(task.kind, len(kinds))
    place = np.concatenate(
        [3 * np.arange(graph.n) + 1, np.array([3 * t.at + t.place for t in inserted], dtype=int)]
    )
    order = np.argsort(place, kind="stable")
    width = np.concatenate([np.diff(graph.indptr), [len(t.tiles) for t in inserted]]).astype(int)
    begin = np.concatenate([[0], np.cumsum(width)[:-1]])
    access = np.concatenate([np.arange(begin[t], begin[t] + width[t]) for t in order])

    def column(old: NDArray[Any], values: list[Any]) -> NDArray[Any]:
        return np.concatenate([old, np.array(values, dtype=old.dtype)])

    call = np.repeat(np.arange(graph.calls.size - 1), np.diff(graph.calls))
    call = column(call, list(range(-1, -1 - len(inserted), -1)))[order]
    starts = np.flatnonzero(np.concatenate([[True], call[1:] != call[:-1]]))
    iteration = graph.iteration
    iteration = column(iteration, [iteration[t.at] for t in inserted])[order]
    return TaskGraph(
        grids=grids,
        kinds=list(kinds),
        kind=column(graph.kind, [kinds[t.kind] for t in inserted])[order],
        indptr=np.concatenate([[0], np.cumsum(width[order])]),
        tiles=column(tiles, [tile for t in inserted for tile in t.tiles])[access],
        operand=column(graph.operand, [o for t in inserted for o in range(len(t.tiles))])[access],
        modes=column(modes, [m for t in inserted for m in t.kind.definition.modes])[access],
        calls=np.append(starts, order.size),
        priority=None
        if graph.priority is None
        else column(graph.priority, [graph.priority[t.at] for t in inserted])[order],
        iterations=iteration[starts],
        name=graph.name,
        at=None if graph.at is None else column(graph.at, [-1] * len(inserted))[order],
    )
