"""What all ranks recorded of a run, as one recording of one graph.

Each rank runs a graph of its own, with its tasks fused and numbers of its own for tiles received.
The graph of the job has the tasks of all ranks as they were fused, on the program's tiles, and for
dependencies those that there were: within each rank, and from the task that made a tile version to
the tasks that waited for a message with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from taskla.engines.joined_graph import joined_graph, numbered
from taskla.engines.mpi_clocks import Offset, aligned, described
from taskla.exchange import Exchange
from taskla.graph import TaskGraph
from taskla.traces import Recording

__all__ = ["JobGraph", "JobRecording", "Share", "job_graph"]

Int64 = NDArray[np.int64]
Times = NDArray[np.float64]

#: Times of messages, by their numbers in the exchange.
Notes = list[tuple[int, float]]


class Share(NamedTuple):
    """What one rank recorded of a run, by its own clock.

    Attributes
    ----------
    submitted, begin, over : float
    start, end : (n,) float64 arrays
    worker : (n,) int32 array
    sent, arrived : list of (int, float)
        Messages, and when they were handed to MPI, or were there.
    samples : list of tuple
        As of `Recording`.
    readings : dict
        Meter's name -> times, joules.
    """

    submitted: float
    begin: float
    over: float
    start: Times
    end: Times
    worker: NDArray[np.int32]
    sent: Notes
    arrived: Notes
    samples: list[tuple[tuple[str, str, str, str], float, float]]
    readings: dict[str, tuple[list[float], list[float]]]


class JobGraph(NamedTuple):
    """The tasks of all ranks.

    Attributes
    ----------
    graph : TaskGraph
        Tasks are numbered by the first tile task in each.
    number : list of (t,) int64 arrays
        Of each rank: the numbers of its tasks.
    number_of : (n,) int64 array
        The task that each tile task of the program is in.
    """

    graph: TaskGraph
    number: list[Int64]
    number_of: Int64


# Programs are kept and run many times, and each run is recorded.
_known: WeakKeyDictionary[Exchange, dict[int, JobGraph]] = WeakKeyDictionary()


def job_graph(exchange: Exchange, width: int) -> JobGraph:
    """Return the graph of all ranks' tasks.

    Parameters
    ----------
    exchange : Exchange
    width : int
        Of fusion, on all ranks.
    """
    known = _known.setdefault(exchange, {})
    if width not in known:
        known[width] = _job_graph(exchange, width)
    return known[width]


def _job_graph(exchange: Exchange, width: int) -> JobGraph:
    graph, place = exchange.graph, exchange.place
    parts = [exchange.part(rank, width) for rank in range(exchange.ranks)]
    tile_tasks = [np.flatnonzero(place == rank) for rank in range(exchange.ranks)]
    of_rank, number_of, first, multiplicity = numbered(
        graph.n, tile_tasks, [part.graph.multiplicity for part in parts]
    )
    source, target = [], []
    for part, numbers in zip(parts, of_rank, strict=True):
        before, after = part.graph.edges()
        source.append(numbers[before])
        target.append(numbers[after])
        writer = exchange.writer[part.received]
        for made_by, tasks in zip(writer.tolist(), part.waiting, strict=True):
            if made_by >= 0:
                source.append(np.full(tasks.size, number_of[made_by]))
                target.append(numbers[tasks])
    edges = np.concatenate(source), np.concatenate(target)
    joined = joined_graph(graph, number_of, first, multiplicity, edges)
    return JobGraph(joined, of_rank, number_of)


class JobRecording(Recording):
    """One run of all ranks, by rank 0's clock.

    Parameters
    ----------
    exchange : Exchange
    width : int
        Of fusion.
    shares : sequence of Share
        By rank.
    clocks : sequence of (Offset, Offset)
        By rank, as of `aligned`.
    info : dict
        What the header says of the run; the clocks are added.
    """

    def __init__(
        self,
        exchange: Exchange,
        width: int,
        shares: Sequence[Share],
        clocks: Sequence[tuple[Offset, Offset]],
        info: dict[str, Any],
    ) -> None:
        # the graph takes longer than a small run: it is made when a trace is asked for
        super().__init__(exchange.graph, info)
        self._exchange, self._width = exchange, width
        self._clocks = list(clocks)
        self.shares = [self._on_one_clock(rank, share) for rank, share in enumerate(shares)]
        self.submitted = min(share.submitted for share in self.shares)
        self.begin = min(share.begin for share in self.shares)
        self.over = max(share.over for share in self.shares)
        info["clock"] = [described(rank, *pair, self.begin) for rank, pair in enumerate(clocks)]
        self.samples = [
            ((f"rank {rank} {about[0]}", *about[1:]), time, value)
            for rank, share in enumerate(self.shares)
            for about, time, value in share.samples
        ]
        self.later = self.merge

    def _on_one_clock(self, rank: int, share: Share) -> Share:
        pair = self._clocks[rank]

        def moved(times: Any) -> list[float]:
            found: list[float] = aligned(times, *pair).tolist()
            return found

        def notes(found: Notes) -> Notes:
            return list(zip([m for m, _ in found], moved([t for _, t in found]), strict=True))

        submitted, begin, over = moved([share.submitted, share.begin, share.over])
        times = moved([time for _, time, _ in share.samples])
        return Share(
            submitted,
            begin,
            over,
            aligned(share.start, *pair),
            aligned(share.end, *pair),
            share.worker,
            notes(share.sent),
            notes(share.arrived),
            [(s[0], time, s[2]) for s, time in zip(share.samples, times, strict=True)],
            {name: (moved(t), joules) for name, (t, joules) in share.readings.items()},
        )

    def merge(self) -> None:
        """Make one graph of those of all ranks, and note on it what they noted on theirs."""
        job = job_graph(self._exchange, self._width)
        n = job.graph.n
        self.graph = job.graph
        self.start, self.end = np.full(n, np.nan), np.full(n, np.nan)
        self.worker, self.rank = np.zeros(n, np.int32), np.zeros(n, np.int32)
        for rank, (share, numbers) in enumerate(zip(self.shares, job.number, strict=True)):
            self.start[numbers], self.end[numbers] = share.start, share.end
            self.worker[numbers], self.rank[numbers] = share.worker, rank
        self.messages = self._passed(job.number_of)

    def _passed(
        self, number_of: Int64
    ) -> list[tuple[int, int, int, int, int, int, int, float, float]]:
        """The messages that came, as rows of the trace's table."""
        exchange, graph = self._exchange, self._exchange.graph
        sent = {message: time for share in self.shares for message, time in share.sent}
        arrived = [note for share in self.shares for note in share.arrived]
        if arrived:
            # below 0 where the clocks' error is larger than the way was long
            self.info["shortest_message"] = min(came - sent[message] for message, came in arrived)
        where = {grid.base: number for number, grid in enumerate(graph.grids)}
        rows = []
        for message, came in sorted(arrived, key=lambda note: sent[note[0]]):
            tile, writer = int(exchange.tile[message]), int(exchange.writer[message])
            grid = graph.grid_of(tile)
            i, j = (int(index) for index in grid.coordinates(tile))
            height, width = (int(size) for size in grid.shapes(tile))
            rows.append(
                (
                    -1 if writer < 0 else int(number_of[writer]),
                    where[grid.base],
                    i,
                    j,
                    int(exchange.sender[message]),
                    int(exchange.target[message]),
                    height * width * grid.itemsize,
                    sent[message],
                    max(came, sent[message]),
                )
            )
        return rows
