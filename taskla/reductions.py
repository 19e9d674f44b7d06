"""Commutative contributions in a fixed order, so that every run gives the same bits.

Contributions to one tile (`Access.REDUX`) may be made in any order, and floating-point sums differ
from order to order. Here each run of contributions is dealt to a few lanes by its length alone:
the first lane adds to the tile itself, the others to partial sums that are added to it at the end,
in order. Within a lane contributions follow one another; lanes run at the same time.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from taskla import dependencies
from taskla.graph import Grid, Kind, TaskGraph
from taskla.operations import Access
from taskla.rewriting import AFTER, BEFORE, Insertion, rewrite

__all__ = ["LANES", "SHORTEST", "ordered_reductions"]

#: at most so many lanes a run
LANES = 4
#: contributions that a lane is worth
SHORTEST = 4


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
    inserted: list[Insertion] = []
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
                base = grids[-1].end
                partial[key] = replace(grid, name=name, base=base, scratch=True, format=None)
                grids.append(partial[key])
            own = tile - grid.base + partial[key].base
            tiles[mine] = own
            zero = Kind("laset", ("G", 0.0, 0.0), grid.dtype)
            add = Kind("geadd", ("N", 1.0, 1.0), grid.dtype)
            inserted.append(Insertion(int(task[mine[0]]), BEFORE, zero, ((own,),)))
            inserted.append(Insertion(int(task[run[-1]]), AFTER, add, ((own,), (tile,))))
    modes = np.where(graph.modes == Access.REDUX, np.uint8(Access.RW), graph.modes)
    return rewrite(graph, grids, tiles, modes, inserted)[0]
