"""What a Dask worker notes of programs that are to be in a trace, until the client fetches it.

`taskla.engines.dask_journal` puts a plugin into the workers for as long as it records. Tasks of its
programs find it there and note when their tile tasks ran; without it they note nothing.
"""

from __future__ import annotations

import heapq
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable
from itertools import takewhile
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from taskla import energy
from taskla.engines.dask_watch import Watch
from taskla.engines.machines import portable
from taskla.machine import boot
from taskla.traces.recorder import clock, in_words

__all__ = ["Note", "Noted", "Report", "Transfer", "note", "plugin", "reading", "report"]

#: Tile tasks whose times a worker keeps until they are fetched, at 20 bytes each, and transfers.
#: Beyond that the oldest go.
MOST, TRANSFERS = 2**21, 2**16


class Noted(NamedTuple):
    """What is noted of one task of Dask's, by the clock of its worker.

    Attributes
    ----------
    token, number : str, int
        The program, and the task's place in it.
    begin, over : float
    start, end : (n,) float64 arrays
        Of its tile tasks, as they were fused; `end` is NaN for those that did not run.
    lane : (n,) int32 array
        Which of the worker's threads ran them.
    error : (bool, str) or None
        What it failed with, and whether that was an `Exception`.
    """

    token: str
    number: int
    begin: float
    over: float
    start: NDArray[np.float64]
    end: NDArray[np.float64]
    lane: NDArray[np.int32]
    error: tuple[bool, str] | None


class Transfer(NamedTuple):
    """Values that a worker has got from another, by its own clock: bytes by key."""

    start: float
    end: float
    source: str
    nbytes: dict[Hashable, int]


class Report(NamedTuple):
    """What a worker has to tell.

    Attributes
    ----------
    name : object
        Dask's name of the worker.
    threads : int
    machine : str
        The same for processes that have one clock, and the same meters.
    noted : list of Noted
    lost : dict of str to int
        By program: tile tasks whose times have gone.
    transfers : list of Transfer
    memory : (list of float, list of float)
        Times, bytes.
    readings : dict
        Meter's name -> times, joules.
    source : taskla.energy.Source or None
        The machine's meters, told by the process that reads them.
    """

    name: Any
    threads: int
    machine: str
    noted: list[Noted]
    lost: dict[str, int]
    transfers: list[Transfer]
    memory: tuple[list[float], list[float]]
    readings: dict[str, tuple[list[float], list[float]]]
    source: energy.Source | None


# -- in tasks --------------------------------------------------------------------------------------


class _Lanes:
    """Numbers for threads that compute at the same time: each has the smallest that is free."""

    def __init__(self) -> None:
        self._free: list[int] = []
        self._count = 0
        self._lock = threading.Lock()

    def take(self) -> int:
        with self._lock:
            if self._free:
                return heapq.heappop(self._free)
            self._count += 1
            return self._count - 1

    def give(self, lane: int) -> None:
        with self._lock:
            heapq.heappush(self._free, lane)


class Note:
    """A task of Dask's that is being noted: inside ``with``.

    Parameters
    ----------
    book : _Book
    token : str
    number : int
    """

    def __init__(self, book: _Book, token: str, number: int) -> None:
        self._book = book
        self._key = token, number
        self._lane: int | None = None
        self._start, self._end = np.empty(0), np.empty(0)
        self._lanes = np.empty(0, np.int32)

    def observed(
        self, n: int, execute: Callable[[int], None], alone: bool
    ) -> Callable[[int], None]:
        """Return ``execute(task)`` with a note of when it ran, and where.

        Parameters
        ----------
        n : int
            How many there are.
        execute : callable
        alone : bool
            Whether one thread does them all.
        """
        self._start, self._end = np.empty(n), np.full(n, np.nan)
        self._lanes = np.zeros(n, np.int32)
        # see `taskla.traces.Recording.observed`
        start: Any = self._start.data
        end: Any = self._end.data
        lanes, now = self._lanes.data, clock
        if alone:
            self._lane = self._book.lanes.take()
            self._lanes[:] = self._lane

            def run(task: int) -> None:
                begin = now()
                try:
                    execute(task)
                finally:
                    end[task] = now()
                    start[task] = begin

            return run
        take, give = self._book.lanes.take, self._book.lanes.give

        def run_in_crew(task: int) -> None:
            lane = take()
            begin = now()
            try:
                execute(task)
            finally:
                end[task] = now()
                start[task] = begin
                lanes[task] = lane
                give(lane)

        return run_in_crew

    def __enter__(self) -> Self:
        self._begin = clock()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        over = clock()
        if self._lane is not None:
            self._book.lanes.give(self._lane)
        failed = None if error is None else (isinstance(error, Exception), in_words(error))
        times = self._begin, over, self._start, self._end
        self._book.add(Noted(*self._key, *times, self._lanes, failed))


class _Book:
    """What one worker has noted for one journal.

    Parameters
    ----------
    watch : Watch
    """

    def __init__(self, watch: Watch) -> None:
        self.lanes = _Lanes()
        self.watch = watch
        self._noted: dict[tuple[str, int], Noted] = {}
        self._size = 0
        self._lost: dict[str, int] = {}
        self._transfers: deque[Transfer] = deque(maxlen=TRANSFERS)
        self._seen: Any = None
        self._lock = threading.Lock()

    def add(self, noted: Noted) -> None:
        """Keep what was noted of a task, in place of what was noted of it before."""
        with self._lock:
            before = self._noted.pop((noted.token, noted.number), None)
            self._size += noted.end.size - (0 if before is None else before.end.size)
            self._noted[noted.token, noted.number] = noted
            while self._size > MOST and len(self._noted) > 1:
                oldest = self._noted.pop(next(iter(self._noted)))
                self._size -= oldest.end.size
                self._lost[oldest.token] = self._lost.get(oldest.token, 0) + oldest.end.size
        self.watch.glance()

    def take(self) -> tuple[list[Noted], dict[str, int], list[Transfer]]:
        """Return what was noted, and forget it."""
        with self._lock:
            noted, self._noted, self._size = list(self._noted.values()), {}, 0
            lost, self._lost = self._lost, {}
        transfers = list(self._transfers)
        self._transfers.clear()
        return noted, lost, transfers

    def begin(self, worker: Any) -> None:
        """Leave out what has arrived so far."""
        log = worker.transfer_incoming_log
        self._seen = log[-1] if log else None

    def look(self, worker: Any) -> None:
        """Copy what is new in Dask's log of transfers, which is short."""
        log = worker.transfer_incoming_log
        if not log or log[-1] is self._seen:
            return
        last, self._seen = self._seen, log[-1]
        new = list(takewhile(lambda entry: entry is not last, reversed(log)))
        # Dask has put the times on what it takes for the scheduler's clock
        shift = clock() - time.time() - worker.scheduler_delay
        for entry in reversed(new):
            start, end = entry["start"] + shift, entry["stop"] + shift
            self._transfers.append(Transfer(start, end, entry["who"], dict(entry["keys"])))


#: By journal and worker: threads of one process may be several workers.
_books: dict[tuple[str, str], _Book] = {}


def note(about: tuple[str, str, int]) -> Note | None:
    """Return a task's note, if anybody wants it.

    Parameters
    ----------
    about : (str, str, int)
        The journal, the program's token, the task's number in it.
    """
    from distributed import get_worker

    journal, token, number = about
    try:
        book = _books.get((journal, str(get_worker().address)))
    except ValueError:
        return None
    return None if book is None else Note(book, token, number)


# -- in the workers' event loops -------------------------------------------------------------------


def plugin(journal: str, meters: bool) -> Any:
    """Return the plugin of workers that keeps their notes.

    Parameters
    ----------
    journal : str
        Its name.
    meters : bool
        Whether to read the machines' meters.
    """
    return __getattr__("NotesPlugin")(journal, meters)


def report(journal: str, dask_worker: Any) -> Report | None:
    """Return what a worker has noted since it was last asked; None if it notes nothing."""
    book = _books.get((journal, str(dask_worker.address)))
    if book is None:
        return None
    book.look(dask_worker)
    noted, lost, transfers = book.take()
    memory, readings = book.watch.take()
    return Report(
        name=dask_worker.name,
        threads=int(dask_worker.state.nthreads),
        machine=boot(),
        noted=noted,
        lost=lost,
        transfers=transfers,
        memory=memory,
        readings=readings,
        source=book.watch.source and portable(book.watch.source),
    )


def reading() -> tuple[str, float]:
    """Return the machine that this process is on, and what its clock shows."""
    return boot(), clock()


def _claimed(journal: str) -> socket.socket | None:
    """Return what one process of a machine can have at a time, until it ends; None for others."""
    if not Path("/proc/self").exists():
        # names without a file are Linux's
        return None
    claim = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        claim.bind(f"\0taskla-{journal}")
    except OSError:
        claim.close()
        return None
    return claim


def _meters() -> energy.Source:
    """Return the meters of this machine; without any, why there are none."""
    try:
        return energy.find("meters")
    except (OSError, ValueError) as error:
        return energy.Source((), None, reason=str(error))


def _make() -> Any:
    from distributed.diagnostics.plugin import WorkerPlugin

    class NotesPlugin(WorkerPlugin):  # type: ignore[misc]
        """Keeps a worker's notes for a journal, and samples memory and meters meanwhile."""

        def __init__(self, journal: str, meters: bool) -> None:
            self.name = f"taskla-notes-{journal}"
            self._journal, self._meters = journal, meters

        def setup(self, worker: Any) -> None:
            self._worker = worker
            self._claim = _claimed(self._journal) if self._meters else None
            self._book = _Book(Watch(None if self._claim is None else _meters()))
            self._book.begin(worker)
            self._book.watch.start()
            _books[self._journal, str(worker.address)] = self._book

        def teardown(self, worker: Any) -> None:
            _books.pop((self._journal, str(worker.address)), None)
            self._book.watch.stop()
            if self._claim is not None:
                self._claim.close()

        def transition(self, key: Hashable, start: str, finish: str, **details: Any) -> None:
            if finish == "memory":
                self._book.look(self._worker)

    NotesPlugin.__module__ = __name__
    NotesPlugin.__qualname__ = "NotesPlugin"
    return NotesPlugin


def __getattr__(name: str) -> Any:
    # made when it is first asked for, as Dask may not be installed; pickle finds it by its name
    if name != "NotesPlugin":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name not in globals():
        globals()[name] = _make()
    return globals()[name]
