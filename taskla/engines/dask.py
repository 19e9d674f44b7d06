"""The engine on a Dask cluster."""

from __future__ import annotations

import atexit
import math
import os
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from time import perf_counter
from typing import TYPE_CHECKING, Any, Self, TypeVar
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from taskla import distributions, schedulers
from taskla.coarsening import Coarse, coarsen
from taskla.distributions import Distribution
from taskla.engines.base import Engine, TileSource, at_least_one, process_default
from taskla.engines.dask_chunks import COLUMNS, chunk_size, tile_size
from taskla.engines.dask_cluster import Cluster, seceded
from taskla.engines.dask_collection import Collection, joined
from taskla.engines.dask_given import (
    check_stored,
    initial_tiles,
    odd_shapes,
    signature,
    tiles_of,
    to_be_checked,
    token_of,
)
from taskla.engines.dask_matrix import DaskMatrix
from taskla.engines.dask_program import Where, tasks
from taskla.engines.dask_strips import tile_of
from taskla.engines.execution import by_grid
from taskla.engines.threads import FUSE, ThreadsEngine
from taskla.formats import working_dtype
from taskla.graph import Grid, TaskGraph
from taskla.interchanges import interchanges
from taskla.matrix import BlockFunction
from taskla.matrix_layout import Layout, MapTiles
from taskla.matrix_mixed import Block
from taskla.matrix_place import ALONE, Place
from taskla.matrix_store import layout_asked_for
from taskla.partial_sums import partial_sums
from taskla.placement import near_large, place
from taskla.precision import Codes, PrecisionMap
from taskla.schedulers import Policy

if TYPE_CHECKING:
    from distributed import Client

    from taskla.engines.dask_journal import DaskJournal
    from taskla.traces import Recorder

__all__ = ["DaskEngine", "joined_tasks"]

Result = TypeVar("Result")

#: Iterations of an algorithm's loop that one task may do of a strip.
WINDOW = 2

#: So many columns of small chunks are rechunked to fewer.
MANY = 64


class DaskEngine(Engine):
    """Workers of a Dask cluster; tiles stay on the workers that own them.

    Inside ``with`` new matrices are lazy: functions build a Dask graph, and Dask runs it when a
    result is computed, persisted, gathered or saved. See the page on Dask in the documentation.

    Parameters
    ----------
    client : distributed.Client, optional
        Default: the current one (inside of a task, that of its worker); without one, that of a new
        `distributed.LocalCluster` on the loopback interface, which is closed when ``with`` ends.
    workers : int, optional
        Processes of that new cluster, with one thread each. Default: `LocalCluster`'s.
    distribution : str or Distribution, default "col"
        Of new matrices for which none is given. A name stands for as many ranks as there are
        workers now; an object may have more: ranks are shared out to the workers that there are.
    policy : str or Policy, default "lws"
        In which order the threads of a worker take the tile tasks of one task.
    fuse : int, optional
        As of the threads engine.
    window : int, optional
        Iterations of an algorithm's loop that one task may do of a strip, at least 1. Default: 2.
    trace : path or Recorder, optional
        Record what workers do of the programs that are called inside ``with``: see
        `taskla.traces`. A file is written when ``with`` ends, whatever happened inside, or when
        Python ends after `set_default`.
    energy : str, optional
        Where the joules of a trace come from: see `taskla.energy.find`. Default: "auto".

    Raises
    ------
    ImportError
        When distributed is not installed.
    OSError
        When no trace can be written there.
    ValueError
        When an option is not allowed.
    TypeError
        When `client` is no client, or an asynchronous one.
    """

    name = "dask"

    def __init__(
        self,
        client: Client | None = None,
        workers: int | None = None,
        distribution: str | Distribution = "col",
        policy: str | Policy = "lws",
        fuse: int | None = None,
        window: int | None = None,
        trace: str | os.PathLike[str] | Recorder | None = None,
        energy: str | None = None,
    ) -> None:
        # what is wrong is said before a cluster starts
        if workers is not None:
            at_least_one("workers", workers)
        for name, value in (("fuse", fuse), ("window", window)):
            if value is not None:
                at_least_one(name, value)
        schedulers.get(policy)
        if isinstance(distribution, str) and distribution not in distributions.available():
            distributions.get(distribution, 1)
        if energy is not None and trace is None:
            raise ValueError(f"energy is {energy!r}; it is for a trace: give trace as well")
        journal = None if trace is None else _journal(trace, energy or "auto")
        self._set(Cluster(client, workers), distribution, policy, fuse, window, journal)

    @classmethod
    def implicit(
        cls, distribution: str | Distribution = "col", window: int | None = None
    ) -> DaskEngine:
        """Return an engine on the current client, or, without one, on whatever Dask will take.

        Parameters
        ----------
        distribution, window
            As of the constructor.
        """
        engine = cls.__new__(cls)
        engine._set(Cluster.current(), distribution, "lws", None, window)
        return engine

    def _set(
        self,
        cluster: Cluster,
        distribution: str | Distribution,
        policy: str | Policy,
        fuse: int | None,
        window: int | None,
        journal: DaskJournal | None = None,
    ) -> None:
        self.policy = schedulers.get(policy)
        # workers find it by its name if it has one
        known = self.policy.name in schedulers.available()
        self._sent_policy = self.policy.name if known else self.policy
        self.fuse = FUSE if fuse is None else at_least_one("fuse", fuse)
        self.window = WINDOW if window is None else at_least_one("window", window)
        self._cluster = cluster
        self.journal = journal
        self.distribution = self.owners(distribution)
        self._known: WeakKeyDictionary[TaskGraph, dict[Any, Coarse]] = WeakKeyDictionary()
        self._entered: list[AbstractContextManager[Any]] = []

    def __repr__(self) -> str:
        return (
            f"DaskEngine(client={self.client!r}, distribution={self.distribution.name!r}, "
            f"policy={self.policy.name!r}, fuse={self.fuse}, window={self.window})"
        )

    @property
    def client(self) -> Client | None:
        """The client; None where Dask computes without one."""
        return self._cluster.client

    def require_open(self) -> None:
        """Raise RuntimeError if the engine's own cluster has been closed."""
        self._cluster.require_open()

    @property
    def recomputed(self) -> int:
        """Tasks that workers have done again because what came of them was lost."""
        return self._cluster.recomputed()

    def owners(self, distribution: str | Distribution) -> Distribution:
        """Return a distribution by its name, for as many ranks as there are workers."""
        if isinstance(distribution, str):
            return distributions.get(distribution, max(1, len(self._cluster.workers())))
        return distribution

    # -- matrices ----------------------------------------------------------------------------------

    @property
    def place(self) -> Place:
        """Where new matrices are made: on Dask."""
        return Place(0, 1, None, ALONE, maker=self)

    def from_function(
        self,
        f: BlockFunction,
        layout: Layout,
        dtype: np.dtype[Any],
        distribution: str | Distribution | None,
    ) -> DaskMatrix:
        """Return a matrix that workers assemble."""
        return DaskMatrix.of_function(self, f, layout, dtype, self._owners(distribution))

    def from_array(
        self,
        array: NDArray[Any],
        layout: Layout,
        dtype: np.dtype[Any],
        distribution: str | Distribution | None,
    ) -> DaskMatrix:
        """Return a matrix of copies of an array's tiles."""
        return DaskMatrix.of_array(self, array, layout, dtype, self._owners(distribution))

    def from_tiles(
        self,
        block: Block,
        layout: Layout,
        dtype: np.dtype[Any],
        precision: PrecisionMap | Codes,
        distribution: str | Distribution | None,
        map_tiles: MapTiles | None,
    ) -> DaskMatrix:
        """Return a matrix of tiles of this process, in formats of their own."""
        rest = precision, self._owners(distribution), map_tiles
        return DaskMatrix.of_tiles(self, block, layout, dtype, *rest)

    def from_dask(self, x: Any, layout: Layout, distribution: Any) -> DaskMatrix:
        """Return a matrix of the chunks of a Dask array."""
        return DaskMatrix.of_dask(self, x, layout, self._owners(distribution))

    def matrix(
        self,
        x: Any,
        nb: int | None = None,
        uplo: str | None = None,
        distribution: str | Distribution | None = None,
    ) -> DaskMatrix:
        """Return a matrix of the chunks of a Dask array: see `TiledMatrix.from_dask`."""
        import dask.array as da

        if not isinstance(x, da.Array):
            raise TypeError(f"x must be a dask.array.Array, not {type(x).__name__}")
        if x.ndim not in (1, 2):
            raise ValueError(f"x has {x.ndim} dimensions; a matrix has 2, a vector 1")
        if any(math.isnan(size) for size in x.shape):
            raise ValueError("x has chunks of unknown size; x.compute_chunk_sizes() finds them")
        dtype = working_dtype(x.dtype)
        shape = x.shape if x.ndim == 2 else (*x.shape, 1)
        if nb is None:
            nb = self._fitting_chunk(x.chunks, max(shape)) or self.tile_size(max(shape), dtype)
        layout = layout_asked_for(shape, nb, dtype, uplo)
        return self.from_dask(x, layout, distribution)

    def tile_size(self, n: int, dtype: np.dtype[Any]) -> int:
        """Return the tile size of a matrix of order n for which none is given."""
        return tile_size(n, dtype, self.distribution.ranks)

    def _fitting_chunk(self, chunks: tuple[tuple[int, ...], ...], n: int) -> int | None:
        """Return the size of chunks that will do for tiles."""
        size = chunk_size(chunks)
        if size is None:
            return None
        columns = -(-n // size)
        too_large = size > 512 and columns < COLUMNS // 2 * self.distribution.ranks
        too_small = size < 256 and columns > MANY
        return None if too_large or too_small else size

    def zeros(
        self,
        shape: tuple[int, int],
        nb: int | None,
        dtype: np.dtype[Any],
        distribution: str | Distribution | None = None,
    ) -> DaskMatrix:
        """Return a matrix of zeros, which no task makes."""
        layout = layout_asked_for(shape, nb, dtype, None)
        owners = self._owners(distribution)
        return DaskMatrix(layout, dtype, self, {}, joined([]), owners)

    def _owners(self, distribution: str | Distribution | None) -> Distribution:
        return self.distribution if distribution is None else self.owners(distribution)

    def fetch(self, graph: Any, wheres: Sequence[Where]) -> list[NDArray[Any]]:
        """Return tiles, computed if need be; of a value of which some are wanted, these alone."""
        return self.get(*_asking(graph, wheres))

    def get(self, graph: Any, keys: list[Hashable]) -> list[Any]:
        """Return what keys of a graph stand for, computed if need be."""
        self.require_open()
        optimized = Collection.__dask_optimize__(graph, keys)
        if self.client is not None:
            return list(self.client.get(optimized, keys))
        from dask.base import get_scheduler
        from dask.threaded import get

        return list((get_scheduler() or get)(optimized, keys))

    # -- running -----------------------------------------------------------------------------------

    def run(self, graph: TaskGraph, matrices: Sequence[TileSource]) -> None:
        """Add the tasks of a graph to what Dask is to compute: see `Engine.run`.

        Nothing is computed, unless a matrix that is written is in the memory of this process: then
        all that the graph writes is, and that matrix gets its tiles.
        """
        if graph.n == 0:
            return
        submitted = perf_counter()
        given = by_grid(graph, matrices)
        for grid, matrix in given.items():
            check_stored(graph, grid, matrix)
        maps = [self._map_of(grid, given.get(grid)) for grid in graph.grids]
        rowwise = tuple(
            grid.base for grid, matrix in given.items() if getattr(matrix, "uplo", None) == "upper"
        )
        coarse = self.coarse(graph, maps, rowwise)
        initial, local, graphs = initial_tiles(coarse, given)
        checked = to_be_checked(given)
        token = token_of(signature(graph), initial, checked, self.fuse, self.policy.name, coarse)
        shapes = odd_shapes(graph, given)
        journal = self._recording_journal()
        noted_by = None if journal is None else journal.name
        how = self._sent_policy, self.fuse
        made = tasks(coarse, token, rowwise, *how, initial, checked, shapes, noted_by)
        if journal is not None and self.client is not None:
            about = token, coarse, self.fuse, initial, submitted
            journal.submitted(self.client, *about, **self._described(maps))
        name = f"{graph.name or 'graph'}-{token}"
        whole = joined([*graphs, joined([], f"array-{token}", local)], name, made.graph)
        self._rebind(given, made.home, whole)

    def _recording_journal(self) -> DaskJournal | None:
        """The journal, if this engine is in force: later nobody would write its file."""
        return self.journal if self._entered or process_default() is self else None

    def _described(self, maps: Sequence[Distribution | None]) -> dict[str, Any]:
        """What a trace says of a program's runs."""
        names = dict.fromkeys(map_.name for map_ in maps if map_ is not None)
        return {
            "engine": self.name,
            "policy": self.policy.name,
            "window": self.window,
            "distribution": ", ".join(names),
        }

    def _rebind(self, given: Mapping[Grid, Any], homes: Mapping[int, Where], whole: Any) -> None:
        """Let matrices be what a program has made of them."""
        wanted: list[tuple[Any, int, int, Where]] = []
        changed: list[Collection] = []
        for grid, matrix in given.items():
            home = tiles_of(homes, grid)
            if isinstance(matrix, Collection):
                if home:
                    matrix.where.update(home)
                    matrix.graph = whole
                matrix.unchecked = False
                changed.append(matrix)
            else:
                wanted += [(matrix, *tile, where) for tile, where in home.items()]
        if wanted:
            self._bring(whole, wanted, changed)

    def _map_of(self, grid: Grid, matrix: Any) -> Distribution | None:
        if grid.scratch or grid.everywhere:
            return None
        found = getattr(matrix, "distribution", None)
        return found if isinstance(found, Distribution) else self.distribution

    def coarse(
        self, graph: TaskGraph, maps: Sequence[Distribution | None], rowwise: tuple[int, ...]
    ) -> Coarse:
        """Return a program in joined tasks; it is kept, as programs are run many times."""
        known = self._known.setdefault(graph, {})
        key = (tuple(maps), rowwise, self.window)
        if key not in known:
            known[key] = joined_tasks(graph, maps, rowwise, self.window)
        return known[key]

    def _bring(
        self, graph: Any, wanted: Sequence[tuple[Any, int, int, Where]], changed: list[Collection]
    ) -> None:
        """Compute, and set tiles of matrices in this process's memory to what comes of it."""
        self.require_open()
        graph, asked = _asking(graph, [where for *_, where in wanted])
        if self.client is None:
            arrays = self.get(graph, asked)
        else:
            # what is computed on the way stays on the workers, for what comes next
            others = list(dict.fromkeys(key for matrix in changed for key in matrix.tile_keys()))
            optimized = Collection.__dask_optimize__(graph, asked + others)
            futures = self.client.get(optimized, asked + others, sync=False)
            kept = dict(zip(others, futures[len(asked) :], strict=True))
            for matrix in changed:
                matrix.graph = matrix._persisted(kept).graph
            with seceded():
                arrays = self.client.gather(futures[: len(asked)])
        for (matrix, i, j, _), array in zip(wanted, arrays, strict=True):
            matrix.tile(i, j).array[...] = array

    def map(
        self, function: Callable[..., Result], arguments: Iterable[tuple[Any, ...]]
    ) -> list[Result]:
        """Return ``[function(*a) for a in arguments]``, on the threads of this process.

        What is mapped works on this process's memory; for functions on workers there are the
        client's ``map`` and `TiledMatrix.from_function`.
        """
        return ThreadsEngine(policy=self.policy, progress=False).map(function, arguments)

    def set_default(self) -> None:
        """Put this engine in force: see `Engine.set_default`.

        Its trace is written and its cluster is closed at the end.
        """
        super().set_default()
        atexit.register(self.close)

    def close(self) -> None:
        """Write the trace, and close the cluster that the engine has started, if it has."""
        self._close(None)

    def _close(self, error: BaseException | None) -> None:
        try:
            if self.journal is not None:
                self.journal.finish(error)
        finally:
            self._cluster.close()

    def __enter__(self) -> Self:
        super().__enter__()
        # what else asks for a client inside of `with` means this one
        current = nullcontext() if self.client is None else self.client.as_current()
        current.__enter__()
        self._entered.append(current)
        return self

    def __exit__(self, *details: object) -> None:
        super().__exit__(*details)
        self._entered.pop().__exit__(None, None, None)
        if not self._entered:
            error = details[1]
            self._close(error if isinstance(error, BaseException) else None)


def _journal(trace: str | os.PathLike[str] | Recorder, energy: str) -> DaskJournal:
    # Most programs are not recorded, and need not wait for this to be imported.
    from taskla.engines.dask_journal import DaskJournal

    return DaskJournal(trace, energy)


def joined_tasks(
    graph: TaskGraph,
    maps: Sequence[Distribution | None],
    rowwise: Sequence[int] = (),
    window: int = WINDOW,
) -> Coarse:
    """Return a program in the tasks that Dask gets.

    Parameters
    ----------
    graph : TaskGraph
        As algorithms make it.
    maps : sequence of Distribution or None
        Of each grid; None for those of which each rank has an instance.
    rowwise : sequence of int
        First tile numbers of grids of which one upper triangle is stored.
    window : int
        As of `DaskEngine`.
    """
    program = interchanges(partial_sums(near_large(place(graph, maps))))
    return coarsen(program, rowwise, window)


def _asking(graph: Any, wheres: Sequence[Where]) -> tuple[Any, list[Hashable]]:
    """Return a graph with a key for each of some tiles, and these keys."""
    from dask.task_spec import Task, TaskRef

    name = f"fetch-{token_of(wheres)}"
    asked: dict[Hashable, Any] = {
        (name, number): Task((name, number), tile_of, TaskRef(source), position)
        for number, (source, position) in enumerate(wheres)
    }
    return joined([graph], name, asked), list(asked)
