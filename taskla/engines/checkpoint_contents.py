"""What a run works on and what it computes, as checkpoints know them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from taskla.distributions import Distribution
from taskla.engines.base import TileSource
from taskla.engines.checkpoint_files import digest, raw
from taskla.graph import Kind, TaskGraph
from taskla.matrix_store import triangle
from taskla.operations import Access
from taskla.pieces import cuts
from taskla.tile import Tile

__all__ = ["OwnTiles", "checksum_of_graph"]


class OwnTiles:
    """The tiles of a graph's matrices that this rank has, by number.

    Parameters
    ----------
    graph : TaskGraph
    matrices : sequence of TileSource
        One for each grid that is not scratch.
    rank : int
    """

    def __init__(self, graph: TaskGraph, matrices: Sequence[TileSource], rank: int) -> None:
        self._graph = graph
        self._rank = rank
        grids = [grid for grid in graph.grids if not grid.scratch]
        self._matrices = list(zip(grids, matrices, strict=False))

    def of(self, numbers: NDArray[np.int32]) -> Iterator[tuple[Any, Tile]]:
        """Iterate over those of some numbers that are here, each with its half if it is cut."""
        for grid, matrix in self._matrices:
            mine = np.unique(numbers[(numbers >= grid.base) & (numbers < grid.end)])
            i, j = grid.coordinates(mine)
            map_ = _distribution(matrix)
            if map_ is not None:
                here = map_(i, j) == self._rank
                i, j = i[here], j[here]
            uplo = getattr(matrix, "uplo", None)
            for row, column in zip(i.tolist(), j.tolist(), strict=True):
                yield uplo if row == column else None, matrix.tile(row, column)

    def owners(self) -> str:
        """Return a checksum of the owners of all tiles."""
        check = digest()
        for grid, matrix in self._matrices:
            map_ = _distribution(matrix)
            if map_ is not None:
                tiles = np.arange(grid.base, grid.end)
                check.update(np.asarray(map_(*grid.coordinates(tiles)), dtype=np.int64))
        return str(check.hexdigest())

    def contents(self) -> str:
        """Return a checksum of the tiles here that a task reads before any has written them."""
        graph = self._graph
        tiles, first = np.unique(graph.tiles, return_index=True)
        reads = graph.modes[first] != Access.W
        overwrites = np.array([_overwrites(kind) for kind in graph.kinds])
        kind = graph.kind[graph.task_of_access[first]]
        reads &= (graph.modes[first] == Access.R) | ~overwrites[kind]
        check = digest()
        for uplo, tile in self.of(tiles[reads]):
            check.update(raw(triangle(tile.array, uplo)))
        return str(check.hexdigest())


def _overwrites(kind: Kind) -> bool:
    """Whether tasks of a kind do not look at what they write, though they may add to it."""
    scalar = "alpha" if kind.operation == "lascl" else "beta"
    params = dict(zip(kind.definition.params, kind.params, strict=True))
    return bool(params.get(scalar) == 0)


def _distribution(matrix: Any) -> Distribution | None:
    """Return who owns the tiles of a matrix, None where all are here."""
    found = getattr(matrix, "distribution", None)
    return found if isinstance(found, Distribution) else None


def checksum_of_graph(graph: TaskGraph, every: int) -> str:
    """Return a checksum of what a graph computes, and to the last bit."""
    check = digest()
    check.update(repr((graph.grids, graph.kinds)).encode())
    columns: list[NDArray[Any]] = [graph.kind, graph.indptr, graph.tiles, graph.operand]
    columns += [graph.modes, graph.calls]
    if graph.at is not None:
        columns.append(graph.at)
    if (graph.modes == Access.REDUX).any():
        # partial sums are formed piece by piece
        columns.append(np.array(cuts(graph, every)))
    for column in columns:
        check.update(f"{column.dtype} {column.size}".encode())
        check.update(np.ascontiguousarray(column))
    return str(check.hexdigest())
