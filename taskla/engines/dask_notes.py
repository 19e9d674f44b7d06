"""What a Dask worker notes of programs that are to be in a trace, until the client fetches it.

While a journal records, each worker has a book for it: see `taskla.engines.dask_reports`. Tasks of
its programs find the book and note when their tile tasks ran; without one they note nothing.
"""

from __future__ import annotations

import heapq
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable
from itertools import takewhile
from types import TracebackType
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from taskla.engines.dask_watch import Watch
from taskla.traces.recorder import clock, in_words, timed

__all__ = ["Book", "Note", "Noted", "Transfer", "books", "note"]

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
    book : Book
    token : str
    number : int
    """

    def __init__(self, book: Book, token: str, number: int) -> None:
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
        if alone:
            self._lane = self._book.lanes.take()
            return timed(execute, clock, self._start, self._end, self._lanes, self._lane)
        # see `timed`, which has one lane
        start: Any = self._start.data
        end: Any = self._end.data
        lanes, now = self._lanes.data, clock
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
        token, number = self._key
        start, end, lane = self._start, self._end, self._lanes
        self._book.add(Noted(token, number, self._begin, over, start, end, lane, failed))


class Book:
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


#: By journal and worker's address: threads of one process may be several workers.
books: dict[tuple[str, str], Book] = {}


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
        book = books.get((journal, str(get_worker().address)))
    except ValueError:
        return None
    return None if book is None else Note(book, token, number)
