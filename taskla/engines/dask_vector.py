"""Pivots on Dask."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from taskla.engines.dask_chunks import pivots_from, pivots_of
from taskla.engines.dask_collection import Collection, Home, joined
from taskla.engines.dask_program import Where
from taskla.tile import Tile

if TYPE_CHECKING:
    import dask.array as da

__all__ = ["DaskVector"]


class DaskVector(Collection):
    """A column beside a matrix, on Dask: the pivots of an LU factorisation, as LAPACK counts them.

    Parameters
    ----------
    n, nb : int
    dtype : numpy.dtype
    engine : DaskEngine
    where : mapping of (int, int) to Where
        Its tiles, (k, 0).
    graph : dask.highlevelgraph.HighLevelGraph
    """

    def __init__(
        self,
        n: int,
        nb: int,
        dtype: np.dtype[Any],
        engine: Home,
        where: Mapping[tuple[int, int], Where],
        graph: Any,
    ) -> None:
        self.m, self.n, self.nb, self.dtype = n, 1, nb, dtype
        self.mt = -(-n // nb)
        self.engine = engine
        self.where = dict(where)
        self.graph = graph
        self.unchecked = False

    @classmethod
    def of_dask(cls, engine: Home, x: da.Array, nb: int) -> DaskVector:
        """Return the pivots that an array, counted from 0, stands for."""
        column = (x[:, None] + 1).astype(np.int32).rechunk((nb, 1), method="tasks")
        count = -(-x.shape[0] // nb)
        where = {(k, 0): Where((column.name, k, 0), -1) for k in range(count)}
        return cls(x.shape[0], nb, np.dtype(np.int32), engine, where, column.dask)

    def tile(self, i: int, j: int) -> Tile:
        """Raise TypeError: see `DaskMatrix.tile`."""
        raise TypeError(
            f"tile ({i}, {j}) is a part of a Dask graph; to_dask() makes an array of it"
        )

    def to_dask(self) -> da.Array:
        """Return the interchanges as a Dask array, counted from 0 as SciPy does."""
        import dask.array as da
        from dask.base import tokenize
        from dask.task_spec import Task, TaskRef

        name = f"pivots-{tokenize(sorted(self.where.items(), key=str))}"
        sizes = tuple(min(self.nb, self.m - k * self.nb) for k in range(self.mt)) or (0,)
        tasks: dict[Hashable, Any] = {
            (name, k): Task(
                (name, k), pivots_of, TaskRef(self.where[k, 0].key), self.where[k, 0][1]
            )
            for k in range(self.mt)
        }
        if not self.mt:
            tasks[name, 0] = Task((name, 0), np.zeros, 0, self.dtype)
        return da.Array(joined([self.graph], name, tasks), name, (sizes,), dtype=self.dtype)

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray[Any]:
        """Be an array to NumPy, counted from 0; it is computed."""
        found = np.concatenate(
            [array[:, 0] - 1 for array in self.engine.fetch(self.graph, self._tiles())]
            or [np.zeros(0, self.dtype)]
        )
        return np.asarray(found, dtype or self.dtype)

    def __len__(self) -> int:
        return self.m

    def from_zero(self) -> DaskVector:
        """Return itself: as an array it counts from 0."""
        return self

    def _tiles(self) -> list[Where]:
        return [self.where[k, 0] for k in range(self.mt)]

    def __dask_postcompute__(self) -> tuple[Any, tuple[Any, ...]]:
        return pivots_from, (self.tile_keys(), self._tiles())

    def _rebuilt(self, graph: Any) -> DaskVector:
        return DaskVector(self.m, self.nb, self.dtype, self.engine, self.where, graph)
