"""The tiles of a program's matrices, as their tasks have them."""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["STATES", "State", "Sums", "Tiles"]

#: Of tasks there are so many.
STATES = 4


class State(IntEnum):
    """Of a tile; of a task all but ``NONE`` and ``PARTLY``."""

    #: No task writes it.
    NONE = -1
    WAITING = 0
    #: On a worker: it runs, or is the next to run there.
    RUNNING = 1
    DONE = 2
    FAILED = 3
    #: Some of the tasks that write it are done, none is running.
    PARTLY = 4


class Tiles(NamedTuple):
    """What is known of the tiles of one matrix: arrays of shape (mt, nt).

    Attributes
    ----------
    state : array of int8
        `State`. One failed task makes a tile failed, else one running task makes it running.
    tasks, done : array of int32
        How many tasks write it, and how many of these are done.
    owner : array of int32
        Rank by the distribution, of the task that writes it last; -1 where none does.
    worker : array of int32
        Number in `Program.workers` of the one that had it last; -1 where none had it yet.
    format : array of int32
        Number in `Program.formats`, of the grid that the last task writes it in; -1 where none
        does.
    seconds : array of float64
        Of the tasks that wrote it, each shared out evenly to the tiles that it writes; NaN where no
        task writes it.
    """

    state: NDArray[np.int8]
    tasks: NDArray[np.int32]
    done: NDArray[np.int32]
    owner: NDArray[np.int32]
    worker: NDArray[np.int32]
    format: NDArray[np.int32]
    seconds: NDArray[np.float64]


class Sums:
    """What is known of tiles, and the tasks whose changes these do not yet know of."""

    def __init__(self, count: int) -> None:
        # in the order of their last change
        self._changed: dict[int, None] = {}
        self._count = count
        self._states = np.zeros((STATES, count), np.int64)
        self._seconds = np.zeros(count)
        self._worker = np.full(count, -1, np.int32)
        self._owner = np.full(count, -1, np.int32)
        # of tasks, as far as tiles know: -1 is not yet
        self._known = np.zeros(0, np.int64)
        self._spent = np.zeros(0)

    def touch(self, task: int) -> None:
        """Take note that a task has changed, or that it is there."""
        self._changed.pop(task, None)
        self._changed[task] = None

    def catch_up(
        self,
        state: NDArray[np.int64],
        spent: NDArray[np.float64],
        worker: NDArray[np.int32],
        rank: NDArray[np.int32],
        first: NDArray[np.int64],
        writes: NDArray[np.int32],
    ) -> None:
        """Add what has changed: of each task its state, seconds, worker, rank and tiles."""
        if not self._changed:
            return
        new = state.size - self._known.size
        self._known = np.append(self._known, np.full(new, -1))
        self._spent = np.append(self._spent, np.zeros(new))
        tasks = np.array(list(self._changed), np.int64)
        self._changed.clear()
        length = first[tasks + 1] - first[tasks]
        before = np.cumsum(length) - length
        at = np.arange(length.sum()) + np.repeat(first[tasks] - before, length)
        tiles, tasks_of = writes[at], np.repeat(tasks, length)
        for codes, sign in ((self._known[tasks_of], -1), (state[tasks_of], 1)):
            there = codes >= 0
            pairs = codes[there] * self._count + tiles[there]
            found = np.bincount(pairs, minlength=STATES * self._count)
            self._states += sign * found.reshape(STATES, self._count)
        more = (spent[tasks] - self._spent[tasks]) / np.maximum(length, 1)
        self._seconds += np.bincount(tiles, np.repeat(more, length), self._count)
        # of several the one that changed last has a tile
        had = worker[tasks_of] >= 0
        self._worker[tiles[had]] = worker[tasks_of][had]
        # in the order in which they were submitted
        fresh = tasks[self._known[tasks] == -1]
        if fresh.size:
            some = slice(first[fresh.min()], None)
            self._owner[writes[some]] = np.repeat(rank, np.diff(first))[some]
        self._known[tasks], self._spent[tasks] = state[tasks], spent[tasks]

    def of(self, part: slice, shape: tuple[int, int], formats: NDArray[np.int32]) -> Tiles:
        """Return what is known of some tiles, whose formats are given."""
        _, running, done, failed = self._states[:, part]
        tasks = self._states[:, part].sum(0)
        state = np.select(
            [tasks == 0, failed > 0, running > 0, done == tasks, done > 0],
            [State.NONE, State.FAILED, State.RUNNING, State.DONE, State.PARTLY],
            State.WAITING,
        )
        return Tiles(
            state.astype(np.int8).reshape(shape),
            tasks.astype(np.int32).reshape(shape),
            done.astype(np.int32).reshape(shape),
            self._owner[part].reshape(shape).copy(),
            self._worker[part].reshape(shape).copy(),
            formats.reshape(shape),
            np.where(tasks > 0, self._seconds[part], np.nan).reshape(shape),
        )
