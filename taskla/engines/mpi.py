"""The engine on the ranks of an MPI job."""

from __future__ import annotations

import copy
import os
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from time import sleep
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from taskla import distributions, errors, schedulers
from taskla.distributions import Distribution
from taskla.engines.base import Engine, TileSource
from taskla.engines.cores import cores
from taskla.engines.crew import Each, conduct, is_worker
from taskla.engines.execution import Execution
from taskla.engines.graph_run import GraphRun
from taskla.engines.mpi_traffic import PERIOD, Traffic
from taskla.engines.threads import FUSE, ThreadsEngine, at_least_one
from taskla.exchange import Exchange, Part
from taskla.graph import TaskGraph
from taskla.matrix_place import HERE, Place
from taskla.schedulers import Policy

if TYPE_CHECKING:
    from mpi4py.MPI import Intracomm

    from taskla.matrix import TiledMatrix

__all__ = ["MPIEngine", "RemoteError"]

Result = TypeVar("Result")

#: Bytes of received tiles that a rank may hold, as far as it can go on with them.
WINDOW = 256 * 2**20


class RemoteError(RuntimeError):
    """Another rank failed, with an error that cannot be raised here."""


class MPIEngine(Engine):
    """Ranks of an MPI job, each with worker threads; the owner of a tile computes it.

    All ranks run the same program. Inside ``with`` new matrices are distributed: each rank makes,
    and has, its own tiles. Every rank derives the same task graph and keeps its own part of it;
    tiles go straight from the rank that makes them to those that read them.

    Parameters
    ----------
    comm : mpi4py.MPI.Intracomm, optional
        Default: all ranks. It is duplicated.
    workers : int, optional
        Threads of each rank. Default: the cores that this process may use over the ranks on this
        machine, at least 1.
    policy : str or Policy, default "lws"
        Of each rank's workers.
    fuse : int, optional
        As of the threads engine.
    distribution : str or Distribution, default "2dbc"
        Of new matrices for which none is given.
    window : int, optional
        Bytes of received tiles that a rank holds at most, but for those that it cannot go on
        without. Default: 256 MiB.

    Attributes
    ----------
    rank, ranks : int
    messages, bytes_sent : int
        What this rank has sent so far.

    Raises
    ------
    ImportError
        When mpi4py is not installed.
    ValueError
        When an option is not allowed.
    """

    name = "mpi"

    def __init__(
        self,
        comm: Intracomm | None = None,
        workers: int | None = None,
        policy: str | Policy = "lws",
        fuse: int | None = None,
        distribution: str | Distribution = "2dbc",
        window: int | None = None,
    ) -> None:
        MPI = _mpi()
        given = MPI.COMM_WORLD if comm is None else comm
        self._comm, self._control = given.Dup(), given.Dup()
        self.rank, self.ranks = int(given.rank), int(given.size)
        here = given.Split_type(MPI.COMM_TYPE_SHARED)
        usual = max(1, cores() // here.size)
        here.Free()
        self.workers = usual if workers is None else at_least_one("workers", workers)
        self.policy = schedulers.get(policy)
        self.fuse = FUSE if fuse is None else at_least_one("fuse", fuse)
        self.window = WINDOW if window is None else at_least_one("window", window)
        self.distribution = distributions.get(distribution, self.ranks)
        self.messages = self.bytes_sent = 0
        self._plans: WeakKeyDictionary[TaskGraph, dict[Any, tuple[Exchange, Part]]] = (
            WeakKeyDictionary()
        )
        if self.ranks > 1:
            _abort_on_exceptions(self._comm)

    def __repr__(self) -> str:
        return (
            f"MPIEngine(ranks={self.ranks}, workers={self.workers}, policy={self.policy.name!r}, "
            f"fuse={self.fuse}, distribution={self.distribution.name!r})"
        )

    @property
    def place(self) -> Place:
        """Where this process stands, for new matrices."""
        if self.ranks == 1:
            return HERE
        return Place(self.rank, self.ranks, self.distribution, self._gather)

    def run(self, graph: TaskGraph, matrices: Sequence[TileSource]) -> None:
        """Run all tasks of a graph, with all ranks: see `Engine.run`.

        Raises
        ------
        ValueError
            Besides: when a matrix is not distributed, or a task writes tiles of several ranks or
            adds to one of another.
        """
        if self.ranks == 1:
            ThreadsEngine(self.workers, self.policy, self.fuse, False).run(graph, matrices)
            return
        exchange, part = self._plan(graph, matrices)
        execution = Execution(part.graph, matrices)
        rowwise = {
            grid.name
            for grid, matrix in zip(graph.grids, matrices, strict=True)
            if getattr(matrix, "uplo", None) == "upper"
        }
        traffic = Traffic(
            self._comm, self._control, exchange, part, execution, rowwise, self.window
        )
        outside = np.zeros(part.graph.n, dtype=np.int32)
        for tasks in part.waiting:
            outside[tasks] += 1
        workers = min(self.workers, part.graph.n)
        policy = copy.copy(self.policy)
        run = traffic.observed(execution)
        job = GraphRun(part.graph, run, policy, workers, outside=outside)
        error: BaseException | None = None
        try:
            conduct(job, workers, attend=partial(traffic.attend, job))
        except BaseException as raised:
            error = raised
        self.messages += traffic.messages
        self.bytes_sent += traffic.nbytes
        self._agree(traffic, error)

    def _plan(self, graph: TaskGraph, matrices: Sequence[TileSource]) -> tuple[Exchange, Part]:
        """Derive the messages and this rank's part; kept, as programs are run many times."""
        if is_worker():
            raise RuntimeError("a task cannot run a graph on all ranks: the others know nothing")
        maps = [_distribution(grid.name, m) for grid, m in zip(graph.grids, matrices, strict=False)]
        if len(maps) < len(graph.grids):
            name = graph.grids[len(maps)].name
            raise ValueError(f"{name} is scratch memory, which is not distributed yet")
        known = self._plans.setdefault(graph, {})
        key = tuple(maps)
        if key not in known:
            owner = np.zeros(graph.tile_count, dtype=np.int64)
            for grid, map_ in zip(graph.grids, maps, strict=True):
                tiles = np.arange(grid.base, grid.end)
                owner[tiles] = map_(*grid.coordinates(tiles))
            exchange = Exchange(graph, owner, self.ranks)
            known[key] = exchange, exchange.part(self.rank, self.fuse)
        return known[key]

    def _agree(self, traffic: Traffic, error: BaseException | None) -> None:
        """Wait for all ranks; raise what the first of them failed with, if any did."""
        failed = np.array([error is not None or traffic.failed_elsewhere], dtype=np.int32)
        anywhere = np.zeros(1, dtype=np.int32)
        request = self._comm.Iallreduce(failed, anywhere, op=_mpi().MAX)
        while not request.Test():
            sleep(PERIOD)
        if not anywhere[0]:
            return
        traffic.clear()
        words = None if error is None else _words(error)
        causes = [(r, w) for r, w in enumerate(self._comm.allgather(words)) if w is not None]
        if error is not None:
            raise error
        raise _from_words(*causes[0])

    def map(
        self, function: Callable[..., Result], arguments: Iterable[tuple[Any, ...]]
    ) -> list[Result]:
        """Return ``[function(*a) for a in arguments]``, on this rank's workers alone."""
        calls = list(arguments)
        results: list[Any] = [None] * len(calls)

        def call(number: int) -> None:
            results[number] = function(*calls[number])

        conduct(Each(len(calls), call), self.workers)
        return results

    def _gather(self, matrix: TiledMatrix) -> Iterator[tuple[int, int, NDArray[Any]]]:
        own: dict[int, dict[int, NDArray[Any]]] = {}
        for i, j in matrix.own_tiles():
            own.setdefault(j, {})[i] = matrix.tile(i, j).array
        # a column at a time: more would be copies of the whole matrix
        for j in range(matrix.nt):
            column: dict[int, NDArray[Any]] = {}
            for tiles in self._comm.allgather(own.get(j, {})):
                column |= tiles
            for i in sorted(column):
                yield i, j, column[i]


def _mpi() -> Any:
    """Return mpi4py.MPI."""
    try:
        from mpi4py import MPI
    except ImportError as error:
        raise ImportError(
            "the engine 'mpi' needs mpi4py and an MPI: pip install 'taskla[mpi]'"
        ) from error
    return MPI


def _distribution(name: str, matrix: Any) -> Distribution:
    found = getattr(matrix, "distribution", None)
    if not isinstance(found, Distribution):
        raise ValueError(
            f"{name} is not distributed, and the engine 'mpi' runs on distributed matrices: make "
            "it inside of `with tla.engine('mpi')`; pivots and norms are not distributed yet"
        )
    return found


def _words(error: BaseException) -> tuple[str, str, int | None]:
    """Return an error as what can be sent: class, message, and the index of a minor or pivot."""
    index = getattr(error, "minor", getattr(error, "pivot", None))
    notes = getattr(error, "__notes__", [])
    return type(error).__name__, "; ".join([str(error), *notes]), index


def _from_words(rank: int, words: tuple[str, str, int | None]) -> Exception:
    """Return another rank's error; those that name a minor or pivot are the same here."""
    name, message, index = words
    kinds = {
        kind.__name__: kind
        for kind in (errors.NotPositiveDefiniteError, errors.SingularMatrixError)
    }
    if name in kinds and index is not None:
        error: Exception = kinds[name](index)
        error.add_note(f"on rank {rank}")
        return error
    return RemoteError(f"rank {rank}: {name}: {message}")


def _abort_on_exceptions(comm: Intracomm) -> None:
    """End the whole job, with the first cause shown, when a rank's program ends by an exception."""
    before = sys.excepthook

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        before(kind, error, trace)
        sys.stderr.flush()
        sys.stdout.flush()
        if threading.current_thread() is threading.main_thread():
            comm.Abort(1)
            os._exit(1)

    sys.excepthook = hook
