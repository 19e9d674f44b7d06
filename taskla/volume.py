"""What a task graph costs under a distribution: messages, bytes, balance, memory. Nothing runs.

The owner computes: a task runs on the rank that owns the tile it writes (of several, the first). A
message brings one version of one tile to one rank other than the one that made it, once, however
many tasks read it there; what a tile holds at first is made by its owner. A broadcast along a tree
sends as many messages, only from other ranks.

References
----------
Beaumont, Duchon, Eyraud-Dubois, Langou, Verite, "Symmetric block-cyclic distribution: fewer
communications leads to faster dense Cholesky factorization", SC'22, section III-D.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from taskla.distributions import Distribution
from taskla.graph import TaskGraph
from taskla.operations import Access

__all__ = ["Volume", "Volumes"]

Int64 = NDArray[np.int64]
PerTile = Callable[[Any, Any], Any]


@dataclass(frozen=True)
class Volume:
    """The cost of a graph under one distribution.

    Attributes
    ----------
    sent, received : (ranks,) int64 arrays
        Messages of each rank; a tile's producer sends all of its copies.
    bytes : int
        Bytes in all messages: whole tiles, without headers.
    by_matrix : dict of str to int
        Messages that carry tiles of each matrix.
    flops : (ranks,) float64 array
        Floating-point operations of each rank's tasks.
    memory : (ranks,) int64 array
        Bytes of the tiles that each rank owns, of those that tasks use.
    """

    sent: Int64
    received: Int64
    bytes: int
    by_matrix: dict[str, int]
    flops: NDArray[np.float64]
    memory: Int64

    @property
    def messages(self) -> int:
        """Messages of all ranks together."""
        return int(self.sent.sum())

    @property
    def imbalance(self) -> float:
        """Largest number of flops of a rank over the mean; 1 is perfect."""
        mean = float(self.flops.mean())
        return float(self.flops.max()) / mean if mean else 1.0


class _Reads(NamedTuple):
    """The accesses that need what a tile holds, sorted by tile and then submission.

    ``version`` is where in that order the version was written, or ``-1 - tile`` for what the tile
    holds at first; two reads have the same number exactly if they find the same version.
    """

    version: Int64
    tile: NDArray[np.int32]
    reader: NDArray[np.int32]
    writer: NDArray[np.int32]


class Volumes:
    """The volumes of one graph under any number of distributions.

    Parameters
    ----------
    graph : TaskGraph
        Without commutative contributions (REDUX): they need not run where the tile is.

    Raises
    ------
    ValueError
        If the graph has such contributions.

    Examples
    --------
    >>> from taskla import TaskFlow, distributions
    >>> from taskla.algorithms.potrf import potrf
    >>> flow = TaskFlow()
    >>> potrf(flow, flow.matrix(12, 12, nb=1))
    >>> Volumes(flow.graph()).under(distributions.get("2dbc", ranks=4)).messages
    132
    """

    def __init__(self, graph: TaskGraph) -> None:
        if (graph.modes == Access.REDUX).any():
            raise ValueError(
                "the graph has commutative contributions (REDUX), and where they run is not "
                "settled by the owners of tiles"
            )
        self._graph = graph
        task = graph.task_of_access
        self._reads = _reads(graph, task)
        self._place = _first_written(graph, task)
        self._size = self._per_tile(
            np.int64, lambda grid, tiles: np.prod(grid.shapes(tiles), axis=0) * grid.dtype.itemsize
        )
        self._matrix = self._per_tile(np.int32, lambda grid, _: graph.grids.index(grid))
        self._used = np.zeros(graph.tile_count, dtype=np.bool_)
        self._used[graph.tiles] = True

    def under(self, distribution: Distribution) -> Volume:
        """Count under one distribution, which all matrices of the graph have.

        Raises
        ------
        ValueError
            If the distribution gives a rank that is out of range.
        """
        ranks, reads = distribution.ranks, self._reads
        owner = self._per_tile(np.int64, lambda grid, tiles: distribution(*grid.coordinates(tiles)))
        if owner.size and not 0 <= owner.min() <= owner.max() < ranks:
            raise ValueError(
                f"distribution {distribution.name!r} gives ranks from {owner.min()} to "
                f"{owner.max()}; allowed: 0 to {ranks - 1}"
            )
        place = owner[self._place]
        initial = reads.version < 0
        source = np.where(initial, owner[reads.tile], place[reads.writer])
        target = place[reads.reader]
        away = np.flatnonzero(source != target)
        key = (reads.version[away] + self._graph.tile_count) * ranks + target[away]
        sent = away[np.unique(key, return_index=True)[1]]
        matrix = np.bincount(self._matrix[reads.tile[sent]], minlength=len(self._graph.grids))
        names = [grid.name for grid in self._graph.grids]
        return Volume(
            sent=np.bincount(source[sent], minlength=ranks),
            received=np.bincount(target[sent], minlength=ranks),
            bytes=int(self._size[reads.tile[sent]].sum()),
            by_matrix=dict(zip(names, matrix.tolist(), strict=True)),
            flops=np.bincount(place, self._graph.flops(), ranks).astype(np.float64),
            memory=np.bincount(owner[self._used], self._size[self._used], ranks).astype(np.int64),
        )

    def _per_tile(self, dtype: type[np.generic], value: PerTile) -> NDArray[Any]:
        """An array over tile numbers, from ``value(grid, tile numbers of the grid)``."""
        result = np.zeros(self._graph.tile_count, dtype=dtype)
        for grid in self._graph.grids:
            tiles = np.arange(grid.base, grid.end)
            result[tiles] = value(grid, tiles)
        return result


def _first_written(graph: TaskGraph, task: NDArray[np.int32]) -> NDArray[np.int32]:
    """(n,) The first tile that each task writes; for one that writes none, the first it reads."""
    result = graph.tiles[graph.indptr[:-1]]
    writing = np.flatnonzero(graph.modes != Access.R)[::-1]
    # of several assignments to one task the last stays: its first write
    result[task[writing]] = graph.tiles[writing]
    return result


def _reads(graph: TaskGraph, task: NDArray[np.int32]) -> _Reads:
    access = np.argsort(graph.tiles, kind="stable")
    tile, mode, task = graph.tiles[access], graph.modes[access], task[access]
    at = np.arange(access.size)
    new_tile = np.ones(access.size, dtype=np.bool_)
    np.not_equal(tile[1:], tile[:-1], out=new_tile[1:])
    start = np.maximum.accumulate(np.where(new_tile, at, 0))
    written = np.full(access.size, -1)
    np.maximum.accumulate(np.where(mode != Access.R, at, -1)[:-1], out=written[1:])
    version = np.where(written >= start, written, -1 - tile)
    needs = np.flatnonzero(mode != Access.W)
    version = version[needs]
    return _Reads(version, tile[needs], task[needs], task[np.maximum(version, 0)])
