"""What the engine on the ranks of a job writes into a trace: one file for all ranks.

A rank records its part of a run as an engine on threads does. At the end of each run, where the
ranks wait for one another anyway, rank 0 gets what the others recorded: nothing is left to be asked
for when one of them leaves by an exception of its own.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from taskla import energy
from taskla.engines.graph_run import GraphRun
from taskla.engines.journal import Sampler, facts
from taskla.engines.machines import Machine, charge, portable
from taskla.engines.mpi_clocks import measure
from taskla.engines.mpi_recording import JobRecording, Share
from taskla.engines.mpi_traffic import Traffic
from taskla.exchange import Exchange, Part
from taskla.traces import Recorder, Recording
from taskla.traces.recorder import clock

if TYPE_CHECKING:
    from mpi4py.MPI import Intracomm

__all__ = ["MPIJournal", "PartRecording"]

#: Seconds after which the clocks are compared once more, at the end of a run; where ranks wait for
#: cores that takes long, and this is so many times longer.
AGAIN, TIMES = 1.0, 1000


class MPIJournal:
    """Records the runs of all ranks; each has one, and all are made at the same time.

    Parameters
    ----------
    comm : Intracomm
    trace : path or Recorder
        Of a recorder, that of rank 0 gets the runs.
    source : taskla.energy.Source or str, default "auto"
        As of `taskla.engines.journal.Journal`. The meters of a machine are read by its first rank.

    Attributes
    ----------
    recorder : Recorder

    Raises
    ------
    OSError
        On all ranks, when rank 0 cannot write a file there.
    ValueError
        When there is no such source of joules.
    """

    def __init__(
        self,
        comm: Intracomm,
        trace: str | os.PathLike[str] | Recorder,
        source: energy.Source | str = "auto",
    ) -> None:
        self._comm = comm
        found = energy.find(source) if isinstance(source, str) else source
        self.recorder = trace if isinstance(trace, Recorder) else self._opened(trace)
        here = comm.Split_type(_shared())
        first = here.bcast(comm.rank)
        here.Free()
        self._meters = found.meters if first == comm.rank else ()
        self._nodes = _nodes(comm.gather((first, portable(found))) or [])
        if comm.rank == 0:
            self.recorder.facts = facts() | self.recorder.facts
        self._measure()

    def _opened(self, path: str | os.PathLike[str]) -> Recorder:
        recorder, error = Recorder(), None
        if self._comm.rank == 0:
            try:
                recorder = Recorder(path)
            except OSError as refused:
                error = refused
        error = self._comm.bcast(error)
        if error is not None:
            raise error
        return recorder

    def _measure(self) -> None:
        begin = clock()
        self._offsets = measure(self._comm)
        self._due = clock() + max(AGAIN, TIMES * (clock() - begin))

    def start(self, part: Part, traffic: Traffic, submitted: float) -> PartRecording:
        """Begin to record this rank's part of a run.

        Parameters
        ----------
        part : Part
        traffic : Traffic
        submitted : float
            Clock reading of when the engine got the tasks.
        """
        return PartRecording(part, traffic, self._meters, submitted)

    def collect(
        self,
        recording: PartRecording,
        exchange: Exchange,
        width: int,
        error: BaseException | None,
        **info: Any,
    ) -> None:
        """Hand what was recorded of a run to rank 0; all ranks call it.

        Parameters
        ----------
        recording : PartRecording
        exchange : Exchange
        width : int
            Of fusion.
        error : BaseException or None
            What the run failed with.
        **info
            For the header's description of the run; `workers` are those of this rank.
        """
        recording.close(error)
        rows = self._comm.gather((recording.share(), int(info["workers"])))
        first = self._offsets
        if self._comm.bcast(clock() > self._due):
            self._measure()
        if rows is None:
            return
        shares = [share for share, _ in rows]
        workers = [count for _, count in rows]
        about = {
            "program": exchange.graph.name or "graph",
            **recording.info,
            **info,
            "workers": min(workers),
            "ranks": self._comm.size,
            "fuse": width,
            **self.recorder.context,
        }
        clocks = list(zip(first, self._offsets, strict=True))
        job = JobRecording(exchange, width, shares, clocks, about)
        job.later = partial(_complete, job, self._nodes, workers)
        self.recorder.recordings.append(job)

    def save(self) -> None:
        """Write the file on rank 0, if there is anything new; the others do nothing."""
        if self._comm.rank == 0 and self.recorder.path is not None:
            self.recorder.save()


class PartRecording(Recording):
    """One rank's part of a run.

    Parameters
    ----------
    part : Part
    traffic : Traffic
    meters : sequence of taskla.energy.Meter
    submitted : float
    """

    def __init__(
        self, part: Part, traffic: Traffic, meters: tuple[energy.Meter, ...], submitted: float
    ) -> None:
        super().__init__(part.graph, {}, submitted)
        self._traffic = traffic
        self._sampler = Sampler(self, meters)
        traffic.departed, traffic.arrived = [], []

    @contextmanager
    def sampling(self, job: GraphRun) -> Iterator[None]:
        """Read meters, memory and the ready tasks of a run inside ``with``."""
        self._sampler.waiting = lambda: job.waiting
        with self._sampler:
            yield

    def observed(self, worker: int, execute: Callable[[int], None]) -> Callable[[int], None]:
        """Return ``execute(task)`` with a note of when it ran, then of what is to be sent."""
        # the other way round a tile might be on its way before its task has ended
        return self._traffic.observed(super().observed(worker, execute))

    def share(self) -> Share:
        """Return what was recorded, to be sent."""
        return Share(
            self.submitted,
            self.begin,
            self.over,
            self.start,
            self.end,
            self.worker,
            self._traffic.departed or [],
            self._traffic.arrived or [],
            self.samples,
            self._sampler.readings,
        )


# -- energy ----------------------------------------------------------------------------------------


class _Node(NamedTuple):
    """The ranks of a machine, and where its joules come from."""

    ranks: list[int]
    source: energy.Source


def _nodes(rows: Sequence[tuple[int, energy.Source]]) -> list[_Node]:
    """Return the machines, from the first rank of each rank's machine and each rank's source."""
    return [
        _Node([rank for rank, (of, _) in enumerate(rows) if of == first], rows[first][1])
        for first in sorted({first for first, _ in rows})
    ]


def _complete(job: JobRecording, nodes: Sequence[_Node], workers: Sequence[int]) -> None:
    """Merge what the ranks recorded, and share the energy of each machine out to its tasks."""
    job.merge()
    charge(
        job,
        [
            Machine(
                ranks,
                source,
                job.shares[ranks[0]].readings,
                sum(workers[rank] for rank in ranks),
            )
            for ranks, source in nodes
        ],
    )


def _shared() -> int:
    from mpi4py import MPI

    return int(MPI.COMM_TYPE_SHARED)
