"""What makes a Dask collection of something whose tiles are parts of the values of keys."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, Self

from numpy.typing import NDArray

from taskla.distributions import Distribution
from taskla.engines.dask_program import Where
from taskla.matrix_place import Alone

if TYPE_CHECKING:
    from distributed import Client

__all__ = ["Collection", "Gathering", "Home", "joined", "tokenize_tiles"]


class Home(Protocol):
    """What a collection asks of its engine: see `taskla.engines.dask.DaskEngine`."""

    distribution: Distribution

    @property
    def client(self) -> Client | None:
        """The client; None where Dask computes without one."""

    def require_open(self) -> None:
        """Raise RuntimeError if the engine's own cluster has been closed."""

    def owners(self, distribution: str | Distribution) -> Distribution:
        """Return a distribution by its name."""

    def fetch(self, graph: Any, wheres: Sequence[Where]) -> list[NDArray[Any]]:
        """Return tiles, computed if need be."""

    def get(self, graph: Any, keys: list[Hashable]) -> list[Any]:
        """Return what keys of a graph stand for, computed if need be."""


class Collection:
    """Tiles on Dask: the protocol of collections, and the engine's own client.

    Attributes
    ----------
    engine : DaskEngine
        Its client computes what is asked for.
    where : dict of (int, int) to Where
    graph : dask.highlevelgraph.HighLevelGraph
        The graph that its keys are in, with all that they need.
    unchecked : bool
        Whether the next program is to check that its entries are finite.
    """

    unchecked: bool = False
    engine: Home
    where: dict[tuple[int, int], Where]
    graph: Any

    def tile_keys(self) -> list[Hashable]:
        """Return the keys of all tiles, each once."""
        return list(dict.fromkeys(where.key for where in self.where.values()))

    def compute(self, **options: Any) -> Any:
        """Compute on the engine's client and bring the result here: a matrix in memory, or array.

        `options` are those of ``dask.compute``.
        """
        import dask

        (result,) = dask.compute(self, **self.scheduler(options))
        return result

    def persist(self, **options: Any) -> Self:
        """Begin to compute on the engine's client; return what refers to the tiles on workers.

        Without a client Dask computes here. `options` are those of ``dask.persist``.
        """
        import dask

        (result,) = dask.persist(self, **self.scheduler(options))
        return result  # type: ignore[no-any-return]

    def visualize(self, **options: Any) -> Any:
        """Draw the graph: see ``dask.visualize``."""
        import dask

        return dask.visualize(self, **options)

    def scheduler(self, options: dict[str, Any]) -> dict[str, Any]:
        """Return options of ``dask.compute`` with the engine's client for a default."""
        self.engine.require_open()
        if self.engine.client is None:
            return options
        return {"scheduler": self.engine.client, **options}

    # the protocol

    def __dask_graph__(self) -> Any:
        return self.graph

    def __dask_keys__(self) -> list[Hashable]:
        return self.tile_keys()

    def __dask_layers__(self) -> tuple[str, ...]:
        return tuple(self.graph.layers)

    def __dask_tokenize__(self) -> Any:
        return type(self).__name__, sorted(self.where.items(), key=str)

    @staticmethod
    def __dask_optimize__(graph: Any, keys: Any, **options: Any) -> Any:
        from dask.array.optimization import optimize

        return optimize(graph, keys, **options)

    @property
    def __dask_scheduler__(self) -> Callable[..., Any]:
        if self.engine.client is not None:
            return self.engine.client.get  # type: ignore[no-any-return]
        from dask.threaded import get

        return get  # type: ignore[no-any-return]

    def __dask_postpersist__(self) -> tuple[Any, tuple[Any, ...]]:
        return self._persisted, ()

    def _persisted(self, graph: Mapping[Hashable, Any], *, rename: Any = None) -> Any:
        keys = set(self.tile_keys())
        tasks = {key: graph[key] for key in keys}
        return self._rebuilt(joined([], f"persisted-{uuid.uuid4().hex}", tasks))

    def _rebuilt(self, graph: Any) -> Any:
        """Return the same with another graph."""
        raise NotImplementedError


class Gathering(Alone):
    """What matrices ask of those that share them: here one process, which asks the workers."""

    def gather(
        self, matrix: Any, put: Callable[[int, int, NDArray[Any]], None], root: int | None = None
    ) -> None:
        """Call `put` for all tiles, as they come: what is not computed yet is, once."""
        here = matrix.persist()
        by_key: dict[Hashable, list[tuple[int, int]]] = {}
        for tile, where in matrix.where.items():
            by_key.setdefault(where.key, []).append(tile)
        for i, j in matrix.own_tiles():
            if (i, j) not in matrix.where:
                put(i, j, matrix.block(i, j))
        for tiles in by_key.values():
            wheres = [matrix.where[tile] for tile in tiles]
            for (i, j), array in zip(tiles, matrix.engine.fetch(here.graph, wheres), strict=True):
                put(i, j, array)

    def redistribute(self, source: Any, target: Any) -> None:
        """Let the one be the other: tasks find tiles wherever they are."""
        target.where, target.graph = dict(source.where), source.graph


def joined(
    graphs: Iterable[Any], name: str = "", tasks: Mapping[Hashable, Any] | None = None
) -> Any:
    """Return one graph of several, with a layer on top that may need all of them."""
    from dask.highlevelgraph import HighLevelGraph, MaterializedLayer

    merged = HighLevelGraph.merge(*graphs)
    if not tasks or name in merged.layers:
        return merged
    layers = {**merged.layers, name: MaterializedLayer(tasks)}
    return HighLevelGraph(layers, {**merged.dependencies, name: set(merged.layers)})


def tokenize_tiles(A: Any, *more: Any) -> str:
    """Return a name for what a matrix holds."""
    from dask.base import tokenize

    found: str = tokenize(sorted(A.where.items(), key=str), A.layout, A.dtype.str, *more)
    return found
