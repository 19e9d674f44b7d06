"""Contributions to a tile that are made on several ranks: each adds up its own, then they meet.

What a rank other than the tile's owner contributes (`Access.REDUX`) goes into a partial sum there,
in the order of the program. The partial sums are added up along a binomial tree whose root is the
tile itself, always in the same order, so that every run gives the same bits.
"""

from __future__ import annotations

import numpy as np

from taskla import dependencies
from taskla.graph import Kind
from taskla.operations import Access
from taskla.placement import NO_HOME, Draft, Placed
from taskla.rewriting import AFTER, BEFORE, Insertion

__all__ = ["partial_sums"]

#: Other ranks from which on they are added up along a tree rather than one by one at the root.
_TREE = 4


def partial_sums(program: Placed) -> Placed:
    """Return a program in which no two ranks add to one tile, and none has REDUX accesses.

    Raises
    ------
    ValueError
        When a task adds to a tile without an owner, or uses a tile that it adds to otherwise, too.
    """
    graph, owner, rank, _ = program
    if not (graph.modes == Access.REDUX).any():
        return program
    found = dependencies.phases(graph.tiles, graph.modes)
    task = graph.task_of_access
    sums = _Sums(program)
    for phase in np.flatnonzero(graph.modes[found.access[found.start[:-1]]] == Access.REDUX):
        end = int(found.start[phase + 1])
        run = found.access[found.start[phase] : end]
        tile = int(graph.tiles[run[0]])
        makers = rank[task[run]]
        others = np.unique(makers[makers != owner[tile]]).tolist()
        if not others:
            continue
        after = found.access[end : end + 1]
        if ((graph.tiles[after] == tile) & (task[after] == task[run[-1]])).any():
            raise ValueError(f"{graph.label(int(task[run[-1]]))} adds to a tile and uses it, too")
        if owner[tile] == NO_HOME:
            raise ValueError(f"{graph.label(int(task[run[0]]))} adds to a tile that no rank owns")
        for one in others:
            mine = run[makers == one]
            sums.draft.tiles[mine] = sums.begin(tile, one, int(task[mine[0]]))
        sums.meet(tile, others, int(task[run[-1]]))
    modes = np.where(graph.modes == Access.REDUX, np.uint8(Access.RW), graph.modes)
    return sums.draft.done(modes, pivoting=False)


class _Sums:
    """Tiles for partial sums, and the tasks that clear and add them."""

    def __init__(self, program: Placed) -> None:
        self._graph, self._owner = program.graph, program.owner
        self.draft = Draft(program)
        self._used: set[int] = set()

    def begin(self, tile: int, rank: int, first: int) -> int:
        """The number of the partial sum of a tile on a rank, zero before its task `first`."""
        number = self._number(tile, rank)
        # scratch is zero when it is used first
        if number in self._used:
            zero = Kind("laset", ("G", 0.0, 0.0), self._graph.grid_of(tile).dtype)
            self.draft.insert(Insertion(first, BEFORE, zero, ((number,),)), rank)
        self._used.add(number)
        return number

    def meet(self, tile: int, others: list[int], last: int) -> None:
        """Add the partial sums of some ranks to a tile, after the task `last`."""
        add = Kind("geadd", ("N", 1.0, 1.0), self._graph.grid_of(tile).dtype)
        root = int(self._owner[tile])
        at = [(root, tile), *((rank, self._number(tile, rank)) for rank in others)]
        distance = 1
        while distance < len(at):
            for left in range(0, len(at) - distance, 2 * distance):
                right = left + distance
                rank, number = at[left] if len(others) >= _TREE else at[0]
                task = Insertion(last, AFTER, add, ((at[right][1],), (number,)))
                self.draft.insert(task, rank)
            distance *= 2

    def _number(self, tile: int, rank: int) -> int:
        return self.draft.scratch(tile, f"+{rank}")
