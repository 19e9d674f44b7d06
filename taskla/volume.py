"""What a task graph costs under a distribution: messages, bytes, balance, memory. Nothing runs.

The owner computes: a task runs on the rank that owns the tile it writes (of several, the first), or
the one that the program names. A message brings one version of one tile to one rank other than the
one that made it, once, however many tasks read it there; what a tile holds at first is made by its
owner. A broadcast along a tree sends as many messages, only from other ranks.

Commutative contributions to a tile (REDUX) are added up on each rank that makes some. Each of these
ranks but the owner sends its partial sum, whole or along a tree, and the owner has the version that
follows. Under a 2.5D distribution contributions of step k are made on the slice of k.

Where LU interchanges rows that several ranks share, what is counted is the program of
`taskla.interchanges`, and messages that its panels and interchanges read are counted apart.

References
----------
Beaumont, Duchon, Eyraud-Dubois, Langou, Verite, "Symmetric block-cyclic distribution: fewer
communications leads to faster dense Cholesky factorization", SC'22, section III-D.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from taskla.distributions import Distribution
from taskla.graph import Grid, TaskGraph
from taskla.interchanges import interchanges
from taskla.operations import Access
from taskla.placement import NO_HOME, Placed, place

__all__ = ["Volume", "Volumes"]

Int64 = NDArray[np.int64]
PerTile = Callable[[Grid, Any], Any]


@dataclass(frozen=True)
class Volume:
    """The cost of a graph under one distribution.

    Attributes
    ----------
    sent, received : (ranks,) int64 arrays
        Messages of each rank; a tile's producer sends all of its copies.
    pivot_messages : int
        Messages that pivoting takes, apart from these. They are what is sent at most: one that
        would have no row in it need not be.
    bytes : int
        Bytes in all messages, those of pivoting too: whole tiles, without headers.
    by_matrix : dict of str to int
        Messages that carry tiles of each matrix.
    bytes_by_format : dict of str to int
        Bytes in messages by the number format of the tiles, where there are any.
    flops : (ranks,) float64 array
        Floating-point operations of each rank's tasks.
    memory : (ranks,) int64 array
        Bytes of the tiles that each rank owns, of those that tasks use, and of its partial sums.
    """

    sent: Int64
    received: Int64
    pivot_messages: int
    bytes: int
    by_matrix: dict[str, int]
    bytes_by_format: dict[str, int]
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
    holds at first; two reads have the same number exactly if they find the same version. ``writer``
    is the task that wrote it; ``summed`` tells versions that contributions were added up to.
    """

    version: Int64
    tile: NDArray[np.int32]
    reader: NDArray[np.int32]
    writer: NDArray[np.int32]
    summed: NDArray[np.bool_]


class _Sums(NamedTuple):
    """The contributions: the run of them that each belongs to, its tile, its task."""

    run: Int64
    tile: NDArray[np.int32]
    task: NDArray[np.int32]


class Volumes:
    """The volumes of one graph under any number of distributions.

    Parameters
    ----------
    graph : TaskGraph
        As algorithms make it, with contributions as such.

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
        self._graph = graph
        self._reads, self._sums = _accesses(graph)
        self._size = self._per_tile(
            np.int64, lambda grid, tiles: np.prod(grid.shapes(tiles), axis=0) * grid.itemsize
        )
        self._held = self._per_tile(
            np.int64, lambda grid, tiles: np.prod(grid.shapes(tiles), axis=0) * grid.dtype.itemsize
        )
        self._matrix = self._per_tile(np.int32, lambda grid, _: graph.grids.index(grid))
        self._used = np.zeros(graph.tile_count, dtype=np.bool_)
        self._used[graph.tiles] = True

    def under(
        self, distribution: Distribution, others: Mapping[str, Distribution] | None = None
    ) -> Volume:
        """Count under a distribution.

        Parameters
        ----------
        distribution : Distribution
        others : mapping of str to Distribution, optional
            For matrices, by name, that have another one on as many ranks.

        Raises
        ------
        ValueError
            If a distribution gives a rank that is out of range, or has another number of ranks.
        """
        ranks = distribution.ranks
        maps = dict(others or {})
        for name, other in maps.items():
            if other.ranks != ranks:
                raise ValueError(
                    f"{name} is on {other.ranks} ranks and the other matrices on {ranks}"
                )
        program = place(
            self._graph,
            [
                None if grid.scratch or grid.everywhere else maps.get(grid.matrix, distribution)
                for grid in self._graph.grids
            ],
        )
        shared = interchanges(program)
        return (self if shared is program else Volumes(shared.graph))._count(shared, ranks)

    def _count(self, program: Placed, ranks: int) -> Volume:
        reads, (_, owner, rank, pivoting) = self._reads, program
        # what a tile holds at first, and a sum, its owner has
        home = reads.summed | (reads.version < 0)
        source = np.where(home, owner[reads.tile], rank[np.maximum(reads.writer, 0)])
        target = rank[reads.reader]
        away = np.flatnonzero((source != target) & (source != NO_HOME))
        key = (reads.version[away] + self._graph.tile_count) * ranks + target[away]
        sent = away[np.unique(key, return_index=True)[1]]
        apart = pivoting[reads.reader[sent]]
        partial, contributor, root = self._partial_sums(owner, rank, ranks)
        moved = np.concatenate([reads.tile[sent], partial])
        rounded = (reads.version[sent] < 0) | self._graph.rounds[reads.writer[sent]]
        sizes = np.where(np.append(rounded, np.zeros(partial.size, np.bool_)), *self._sizes(moved))
        sent = sent[~apart]
        tile = np.concatenate([reads.tile[sent], partial])
        matrix = np.bincount(self._matrix[tile], minlength=len(self._graph.grids))
        owned = self._used & (owner != NO_HOME)
        own = np.bincount(owner[owned], self._size[owned], ranks)
        memory = own + self._sum_memory(partial, contributor, ranks)
        return Volume(
            sent=np.bincount(np.concatenate([source[sent], contributor]), minlength=ranks),
            received=np.bincount(np.concatenate([target[sent], root]), minlength=ranks),
            pivot_messages=int(apart.sum()),
            bytes=int(sizes.sum()),
            by_matrix=self._sums_by(lambda grid: None if grid.scratch else grid.matrix, matrix),
            bytes_by_format={
                name: size
                for name, size in self._sums_by(
                    lambda grid: grid.format_name,
                    np.bincount(self._matrix[moved], sizes, len(self._graph.grids)),
                ).items()
                if size
            },
            flops=np.bincount(rank, self._graph.flops(), ranks).astype(np.float64),
            memory=memory.astype(np.int64),
        )

    def _sizes(self, tiles: Any) -> tuple[Int64, Int64]:
        """Bytes of tiles in their formats, and as they are held."""
        return self._size[tiles], self._held[tiles]

    def _sums_by(self, key: Callable[[Grid], str | None], values: NDArray[Any]) -> dict[str, int]:
        """Sum one number a grid up by what grids have in common; None is left out."""
        sums: dict[str, int] = {}
        for grid, value in zip(self._graph.grids, values.tolist(), strict=True):
            if (name := key(grid)) is not None:
                sums[name] = sums.get(name, 0) + int(value)
        return sums

    def _partial_sums(self, owner: Int64, place: Int64, ranks: int) -> tuple[Any, Any, Any]:
        """Tile, sender and receiver of each partial sum that is sent."""
        sums = self._sums
        key, first = np.unique(sums.run * ranks + place[sums.task], return_index=True)
        tile, contributor = sums.tile[first], key % ranks
        away = owner[tile] != contributor
        return tile[away], contributor[away], owner[tile[away]]

    def _sum_memory(self, tile: Any, contributor: Int64, ranks: int) -> NDArray[np.float64]:
        """(ranks,) Bytes of the partial sums that each rank holds, one a tile."""
        held = np.unique(contributor * self._graph.tile_count + tile)
        rank, number = np.divmod(held, max(self._graph.tile_count, 1))
        return np.bincount(rank, self._size[number], ranks).astype(np.float64)

    def _per_tile(self, dtype: type[np.generic], value: PerTile) -> NDArray[Any]:
        """An array over tile numbers, from ``value(grid, tile numbers of the grid)``."""
        result = np.zeros(self._graph.tile_count, dtype=dtype)
        for grid in self._graph.grids:
            tiles = np.arange(grid.base, grid.end)
            result[tiles] = value(grid, tiles)
        return result


def _accesses(graph: TaskGraph) -> tuple[_Reads, _Sums]:
    access = np.argsort(graph.tiles, kind="stable")
    tile, mode, task = graph.tiles[access], graph.modes[access], graph.task_of_access[access]
    at = np.arange(access.size)
    new_tile = np.ones(access.size, dtype=np.bool_)
    np.not_equal(tile[1:], tile[:-1], out=new_tile[1:])
    start = np.maximum.accumulate(np.where(new_tile, at, 0))
    written = np.full(access.size, -1)
    np.maximum.accumulate(np.where(mode != Access.R, at, -1)[:-1], out=written[1:])
    version = np.where(written >= start, written, -1 - tile)
    needs = np.flatnonzero((mode == Access.R) | (mode == Access.RW))
    version = version[needs]
    writer = np.maximum(version, 0)
    summed = (version >= 0) & (mode[writer] == Access.REDUX)
    reads = _Reads(version, tile[needs], task[needs], task[writer], summed)
    redux = mode == Access.REDUX
    begins = redux & new_tile
    begins[1:] |= redux[1:] & ~redux[:-1]
    run = np.cumsum(begins)
    return reads, _Sums(run[redux], tile[redux], task[redux])
