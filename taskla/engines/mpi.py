"""The engine on the ranks of an MPI job."""

from __future__ import annotations

import atexit
import copy
import os
import sys
import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from functools import partial
from time import perf_counter
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakKeyDictionary

import numpy as np

from taskla import distributions, schedulers
from taskla.distributions import Distribution
from taskla.engines import oversubscription
from taskla.engines.base import Engine, TileSource
from taskla.engines.checkpoint import Checkpoints
from taskla.engines.crew import conduct, is_worker
from taskla.engines.execution import Execution
from taskla.engines.graph_run import GraphRun
from taskla.engines.mpi_collectives import MPICollectives
from taskla.engines.mpi_errors import RemoteError
from taskla.engines.mpi_memory import SharedMemory
from taskla.engines.mpi_presence import Presence
from taskla.engines.mpi_traffic import Traffic
from taskla.engines.threads import FUSE, ThreadsEngine, at_least_one
from taskla.exchange import Exchange, Part, across_ranks
from taskla.graph import Grid, TaskGraph
from taskla.matrix_place import HERE, Place
from taskla.schedulers import Policy

if TYPE_CHECKING:
    from mpi4py.MPI import Intracomm

    from taskla.energy import Source
    from taskla.engines.journal import Journal
    from taskla.engines.mpi_journal import MPIJournal
    from taskla.traces import Recorder

__all__ = ["MPIEngine", "RemoteError"]

Result = TypeVar("Result")

#: Bytes of received tiles that a rank may hold, as far as it can go on with them.
WINDOW = 256 * 2**20


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
        Threads of each rank. Default: its share of the cores that it may use, each divided by the
        ranks on this machine that may use it; at least 1.
    policy : str or Policy, default "lws"
        Of each rank's workers.
    fuse : int, optional
        As of the threads engine.
    distribution : str or Distribution, default "2dbc"
        Of new matrices for which none is given.
    window : int, optional
        Bytes of received tiles that a rank holds at most, but for those that it cannot go on
        without. Default: 256 MiB.
    shared_memory : bool, default True
        Whether ranks of one machine read one another's tiles where they lie, rather than receive
        copies: those that no later task writes, of matrices made inside ``with``.
    checkpoint, checkpoint_every : optional
        As of the threads engine; all ranks give the same folder.
    trace : path or Recorder, optional
        Record every run of all ranks: see `taskla.traces`. Rank 0 writes one file when ``with``
        ends, whatever happened inside, or when Python ends after `set_default`.
    energy : str, optional
        Where the joules of a trace come from: see `taskla.energy.find`. Default: "auto".

    Attributes
    ----------
    rank, ranks : int
    messages, pivot_messages, bytes_sent : int
        What this rank has sent so far. Messages for the interchanges of rows of LU are counted
        apart; bytes are those of all, also of tiles that are read in place.
    peak_received : int
        The most bytes of received tiles that this rank has held at once, beside its own tiles.

    Raises
    ------
    ImportError
        When mpi4py is not installed.
    ValueError
        When an option is not allowed.
    OSError
        When no checkpoint can be written there.
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
        shared_memory: bool = True,
        checkpoint: str | os.PathLike[str] | None = None,
        checkpoint_every: int | None = None,
        trace: str | os.PathLike[str] | Recorder | None = None,
        energy: str | None = None,
    ) -> None:
        MPI = _mpi()
        given = MPI.COMM_WORLD if comm is None else comm
        self._comm, self._control = given.Dup(), given.Dup()
        self._presence = Presence(given)
        self.rank, self.ranks = int(given.rank), int(given.size)
        here = given.Split_type(MPI.COMM_TYPE_SHARED)
        self._one_machine = here.size == given.size
        usual = oversubscription.usual(here)
        self.workers = usual if workers is None else at_least_one("workers", workers)
        oversubscription.warn(here, self.workers)
        here.Free()
        self.policy = schedulers.get(policy)
        self.fuse = FUSE if fuse is None else at_least_one("fuse", fuse)
        self.window = WINDOW if window is None else at_least_one("window", window)
        self.distribution = distributions.get(distribution, self.ranks)
        self.messages = self.pivot_messages = self.bytes_sent = self.peak_received = 0
        self._memory = SharedMemory(self._comm, self._collectives.wait) if shared_memory else None
        self._plans: WeakKeyDictionary[TaskGraph, dict[Any, tuple[Exchange, Part]]] = (
            WeakKeyDictionary()
        )
        self.checkpoints = Checkpoints.wanted(
            checkpoint,
            checkpoint_every,
            engine=self.name,
            fuse=self.fuse,
            rank=self.rank,
            ranks=self.ranks,
            share=self._collectives.share,
        )
        if energy is not None and trace is None:
            raise ValueError(f"energy is {energy!r}; it is for a trace: give trace as well")
        self._alone: Journal | None = None
        self.journal: MPIJournal | None = None
        if trace is not None:
            self._record(trace, energy or "auto")
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
        memory = None if self._memory is None else self._memory.allocate
        return Place(self.rank, self.ranks, self.distribution, self._collectives, memory)

    @property
    def _collectives(self) -> MPICollectives:
        how = self._one_machine, self.window, self._count, self._presence
        return MPICollectives(self._comm, *how)

    def _count(self, messages: int, nbytes: int) -> None:
        self.messages += messages
        self.bytes_sent += nbytes

    def run(self, graph: TaskGraph, matrices: Sequence[TileSource]) -> None:
        """Run all tasks of a graph, with all ranks: see `Engine.run`.

        Raises
        ------
        ValueError
            Besides: when a matrix is not distributed, or a task writes tiles of several ranks.
        """
        if self.checkpoints is None or is_worker():
            self._run(graph, matrices)
        else:
            self.checkpoints.run(graph, matrices, self._run)

    def _run(self, graph: TaskGraph, matrices: Sequence[TileSource]) -> None:
        if self.ranks == 1:
            alone = self._threads()
            alone.journal = self._alone
            alone.run(graph, matrices)
            return
        submitted = perf_counter()
        exchange, part = self._plan(graph, matrices)
        self._compare(exchange)
        execution = Execution(part.graph, matrices, part.held)
        given = _matrices_by_grid(graph, matrices)
        traffic = self._traffic(exchange, part, execution, given)
        recording = None
        if self.journal is not None and exchange.graph.n:
            recording = self.journal.start(part, traffic, submitted)
        workers = min(self.workers, part.graph.n)
        run = execution if recording else traffic.observed(execution)
        policy = copy.copy(self.policy)
        job = GraphRun(part.graph, run, policy, workers, recording, traffic.awaited())
        error: BaseException | None = None
        try:
            with nullcontext() if recording is None else recording.sampling(job):
                conduct(job, workers, attend=partial(traffic.attend, job))
        except BaseException as raised:
            error = raised
        self.messages += traffic.messages
        self.pivot_messages += traffic.pivot_messages
        self.bytes_sent += traffic.nbytes
        self.peak_received = max(self.peak_received, traffic.most_held)
        failure = self._collectives.cause(error, traffic.failed_elsewhere, traffic.clear)
        if self.journal is not None and recording is not None:
            maps = [getattr(matrix, "distribution", None) for matrix in matrices]
            names = dict.fromkeys(map_.name for map_ in maps if map_ is not None)
            about: dict[str, Any] = {"policy": self.policy.name, "distribution": ", ".join(names)}
            about |= {"engine": self.name, "workers": self.workers}
            self.journal.collect(recording, exchange, self.fuse, failure, **about)
        if failure is not None:
            raise failure
        for grid, matrix in given.items():
            if grid.everywhere:
                self._collectives.spread(exchange.last_writers(grid), matrix)

    def _compare(self, exchange: Exchange) -> None:
        """Refuse, on all ranks, that they run programs which differ."""
        everyones = np.empty((self.ranks, exchange.signature.size), np.uint8)
        self._collectives.wait(self._comm.Iallgather(exchange.signature, everyones))
        others = np.flatnonzero((everyones != everyones[0]).any(axis=1)).tolist()
        if others:
            name = exchange.graph.name or "a graph"
            raise ValueError(
                f"ranks {others} run something else than rank 0 (here: {name}), or with other "
                "sizes, nb, types, distributions or parameters; all ranks make the same calls, "
                "with the same arguments"
            )

    def _traffic(
        self, exchange: Exchange, part: Part, execution: Execution, given: dict[Grid, TileSource]
    ) -> Traffic:
        """Prepare for the messages of a run."""
        rowwise = {
            grid.name for grid, matrix in given.items() if getattr(matrix, "uplo", None) == "upper"
        }
        neighbours = None
        if self._memory is not None:
            neighbours = self._memory.neighbours(exchange, given)
        comms = self._comm, self._control, self._presence
        return Traffic(comms, exchange, part, execution, rowwise, self.window, neighbours)

    def prepare(self, graph: TaskGraph, matrices: Sequence[TileSource]) -> TaskGraph:
        """Return what this rank runs of a graph; what is derived for it is kept for `run`."""
        if self.ranks == 1:
            return self._threads().prepare(graph)
        return self._plan(graph, matrices)[1].graph

    def _plan(self, graph: TaskGraph, matrices: Sequence[TileSource]) -> tuple[Exchange, Part]:
        """Derive the messages and this rank's part; kept, as programs are run many times."""
        if is_worker():
            raise RuntimeError("a task cannot run a graph on all ranks: the others know nothing")
        given = _matrices_by_grid(graph, matrices)
        maps = [
            None if grid.scratch or grid.everywhere else _distribution(grid.name, given.get(grid))
            for grid in graph.grids
        ]
        known = self._plans.setdefault(graph, {})
        key = tuple(maps)
        if key not in known:
            exchange = Exchange(across_ranks(graph, maps), self.ranks)
            known[key] = exchange, exchange.part(self.rank, self.fuse)
        return known[key]

    def _record(self, trace: str | os.PathLike[str] | Recorder, energy: Source | str) -> None:
        # Most runs are not recorded, and need not wait for this to be imported.
        from taskla.engines.journal import Journal
        from taskla.engines.mpi_journal import MPIJournal

        if self.ranks == 1:
            self._alone = Journal(trace, energy)
        else:
            self.journal = MPIJournal(self._comm, trace, energy)

    def recorded(self, trace: Recorder, energy: Source) -> MPIEngine:
        """Return an engine with the same settings that records its runs; all ranks call it.

        The recorder of rank 0 gets them.
        """
        other = copy.copy(self)
        other._record(trace, energy)
        return other

    def set_default(self) -> None:
        """Put this engine in force: see `Engine.set_default`. Its trace is written at the end."""
        super().set_default()
        if self._alone is not None or self.journal is not None:
            atexit.register(self._save)

    def __exit__(self, *details: object) -> None:
        super().__exit__(*details)
        self._presence.leave()
        self._save()

    def _save(self) -> None:
        for journal in (self._alone, self.journal):
            if journal is not None:
                journal.save()

    def map(
        self, function: Callable[..., Result], arguments: Iterable[tuple[Any, ...]]
    ) -> list[Result]:
        """Return ``[function(*a) for a in arguments]``, on this rank's workers alone."""
        return self._threads().map(function, arguments)

    def _threads(self) -> ThreadsEngine:
        """Return an engine of this rank's workers alone."""
        return ThreadsEngine(self.workers, self.policy, self.fuse, False)


def _mpi() -> Any:
    """Return mpi4py.MPI."""
    try:
        from mpi4py import MPI
    except ImportError as error:
        raise ImportError(
            "the engine 'mpi' needs mpi4py and an MPI: pip install 'taskla[mpi]'"
        ) from error
    return MPI


def _matrices_by_grid(graph: TaskGraph, matrices: Sequence[TileSource]) -> dict[Grid, TileSource]:
    # that there are more or less of them is for the execution to say
    return dict(zip([grid for grid in graph.grids if not grid.scratch], matrices, strict=False))


def _distribution(name: str, matrix: Any) -> Distribution:
    found = getattr(matrix, "distribution", None)
    if not isinstance(found, Distribution):
        raise ValueError(
            f"{name} is not distributed, and the engine 'mpi' runs on distributed matrices: make "
            "it inside of `with tla.engine('mpi')`"
        )
    return found


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
