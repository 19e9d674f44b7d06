"""The messages of one distributed run: received early, sent when a tile is done, passed on.

All of MPI is called by the thread that attends to the workers, never by a worker, so that any level
of thread support will do. It never blocks in MPI: it tests, and sleeps a fraction of a millisecond
or until a worker has something for it, so that the cores are the workers'.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from time import perf_counter
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from taskla.engines.execution import Execution
from taskla.engines.graph_run import GraphRun
from taskla.engines.mpi_memory import Neighbours
from taskla.exchange import Exchange, Part
from taskla.tile import Tile

if TYPE_CHECKING:
    from mpi4py.MPI import Intracomm, Request

__all__ = ["Traffic"]

Item = TypeVar("Item")

#: Seconds between two looks at messages, while no worker has anything for this thread.
PERIOD = 1e-3

#: What a message about a tile brings that is read in place.
NOTHING: NDArray[Any] = np.empty(0, np.uint8)

#: Tag of the word that a rank has failed, on the communicator for control.
FAILED = 1


class Traffic:
    """One rank's messages in one run.

    Parameters
    ----------
    comm, control : mpi4py.MPI.Intracomm
        For tiles, and for the word that a rank has failed.
    exchange : Exchange
    part : Part
    execution : Execution
        Where tiles that arrive are put.
    rowwise : set of str
        The grids whose tiles lie beside one another in memory, the same on all ranks; those of the
        others lie below one another.
    window : int
        Bytes of received tiles that may be held at once, as far as the run can go on with them.
    neighbours : Neighbours, optional
        Tiles that are read where their owner has them.

    Attributes
    ----------
    messages, pivot_messages, nbytes : int
        Sent so far; those for the interchanges of rows are counted apart, their bytes are not.
    """

    def __init__(
        self,
        comm: Intracomm,
        control: Intracomm,
        exchange: Exchange,
        part: Part,
        execution: Execution,
        rowwise: set[str],
        window: int,
        neighbours: Neighbours | None = None,
    ) -> None:
        from mpi4py import MPI

        self._mpi = MPI
        self._comm, self._control = comm, control
        self._exchange, self._part, self._execution = exchange, part, execution
        self._window = window
        self._over = threading.Event()
        self._event = threading.Event()
        self._done = bytearray(part.graph.n)
        self._finished: deque[int] = deque()
        self._earliest = 0
        self._held = 0
        self._posted = 0  # of the part's received messages, so many in order
        self._uses = [tasks.size for tasks in part.waiting]
        self._scratch = set(part.held)
        self._sizes: dict[int, int] = {}  # bytes of each slot that is held
        self._slots_of: dict[int, list[int]] = {}
        for slot, tasks in enumerate(part.waiting):
            for task in tasks.tolist():
                self._slots_of.setdefault(task, []).append(slot)
        self._notable = self._slots_of.keys() | part.sent.keys()
        # versions that a later task overwrites: they are copied before that can begin
        passing = {
            task: [m for m in messages if not exchange.last[m]]
            for task, messages in part.sent.items()
        }
        self._passing = {task: messages for task, messages in passing.items() if messages}
        self._copies: dict[int, NDArray[Any]] = {}
        self._copy(self._passing.get(-1, []))
        self._children: dict[int, list[int]] = {}
        for message in np.flatnonzero(exchange.parent >= 0).tolist():
            if exchange.sender[message] == comm.rank:
                self._children.setdefault(int(exchange.parent[message]), []).append(message)
        # requests, and what belongs to each: one call of MPI tests them all
        self._coming: list[Request] = []
        self._receiving: list[tuple[int, Tile | None, NDArray[Any]]] = []
        self._going: list[Request] = []
        self._sending: list[NDArray[Any]] = []
        self._neighbours = neighbours
        self._in_place = (
            np.zeros(exchange.tile.size, np.bool_) if neighbours is None else neighbours.in_place
        )
        travels = np.flatnonzero(~self._in_place[part.received]).tolist()
        self._strips = _Strips(part, rowwise, travels)
        # Others wait for what this rank passes on: it must not wait for memory.
        self._passed_on = {
            slot for slot, m in enumerate(part.received.tolist()) if m in self._children
        }
        for slot in sorted(self._passed_on):
            self._expect(slot)
        self._words: list[Request] = []
        self.sent: dict[int, list[int]] = {}  # target -> tags
        self.messages = self.pivot_messages = self.nbytes = 0
        self.failed_elsewhere = False
        # messages and when they were handed to MPI or were there, where a run is recorded
        self.departed: list[tuple[int, float]] | None = None
        self.arrived: list[tuple[int, float]] | None = None

    # -- the workers' side -------------------------------------------------------------------------

    def observed(self, execute: Callable[[int], None]) -> Callable[[int], None]:
        """Return ``execute(task)`` that takes note of what it means for messages."""
        done, notable = self._done, self._notable
        finished, event, passing = self._finished, self._event, self._passing

        def run(task: int) -> None:
            execute(task)
            done[task] = 1
            if task in passing:
                self._copy(passing[task])
            if task in notable:
                finished.append(task)
                event.set()

        return run

    def _copy(self, messages: list[int]) -> None:
        """Keep what tiles hold now for messages; of one tile there is one copy."""
        copies: dict[int, NDArray[Any]] = {}
        for message in messages:
            number = int(self._exchange.tile[message])
            if number not in copies:
                copies[number] = _flat(self._execution.tile(number).array, True)
            self._copies[message] = copies[number]

    # -- the attending thread's side ---------------------------------------------------------------

    def attend(self, job: GraphRun, over: threading.Event) -> None:
        """Send and receive until the workers have gone home and all messages are through.

        When a rank fails, this one or another, it stops: see `clear`.
        """
        try:
            self._attend(job, over)
        except BaseException:
            # workers asleep and other ranks would wait for ever
            job.dismiss()
            self._tell()
            raise

    def _attend(self, job: GraphRun, over: threading.Event) -> None:
        self._send(self._part.sent.get(-1, []))
        told = False
        while True:
            moved = self._step(job)
            if job.stopped and not told:
                # workers asleep do not see that
                job.dismiss()
                if not self.failed_elsewhere:
                    self._tell()
                told = True
            if over.is_set():
                through = not (self._going or self._coming or self._finished)
                if told or (through and self._posted == self._part.received.size):
                    return
            if not moved:
                self._event.wait(PERIOD)
            self._event.clear()

    def _step(self, job: GraphRun) -> bool:
        """Do what can be done at once; whether there was anything."""
        moved = self._settle()
        moved |= self._receive(job)
        moved |= self._post()
        if self._going and (gone := self._mpi.Request.Testsome(self._going)):
            self._going = _without(self._going, gone)
            self._sending = _without(self._sending, gone)
            moved = True
        if self._control.Iprobe(self._mpi.ANY_SOURCE, FAILED):
            self._control.recv(tag=FAILED)
            self.failed_elsewhere = True
            job.stop()
            moved = True
        return moved

    def _settle(self) -> bool:
        """Send what finished tasks wrote, and drop what they were the last to read."""
        moved = False
        while self._finished:
            task = self._finished.popleft()
            moved = True
            self._send(self._part.sent.get(task, []))
            for slot in self._slots_of.get(task, []):
                self._uses[slot] -= 1
                if not self._uses[slot]:
                    number = int(self._part.number[slot])
                    self._held -= self._sizes.pop(slot)
                    self._execution.drop(number)
        return moved

    def _send(self, messages: list[int]) -> None:
        """Send tiles that are there, the most urgent first; one to many ranks is packed once."""
        packed: dict[int, NDArray[Any]] = {}
        for message in sorted(messages, key=lambda m: -self._exchange.priority[m]):
            number = int(self._exchange.tile[message])
            buffer = NOTHING if self._in_place[message] else self._copies.pop(message, None)
            if buffer is None:
                if number not in packed:
                    packed[number] = _flat(self._execution.tile(number).array, False)
                buffer = packed[number]
            self._isend(message, buffer)
            if number in self._scratch:
                self._execution.release((number,))

    def _isend(self, message: int, buffer: NDArray[Any]) -> None:
        exchange = self._exchange
        target, tag = int(exchange.target[message]), int(exchange.tag[message])
        if self.departed is not None:
            self.departed.append((message, perf_counter()))
        self._going.append(self._comm.Isend(buffer, target, tag))
        self._sending.append(buffer)
        self.sent.setdefault(target, []).append(tag)
        if exchange.pivoting[message]:
            self.pivot_messages += 1
        else:
            self.messages += 1
        self.nbytes += int(exchange.nbytes[message])

    def _post(self) -> bool:
        """Prepare for tiles that are next to come, as far as memory goes."""
        part, moved = self._part, False
        while self._earliest < len(self._done) and self._done[self._earliest]:
            self._earliest += 1
        while self._posted < part.received.size and (
            self._held < self._window or part.first[self._posted] <= self._earliest
        ):
            slot = self._posted
            self._posted += 1
            if slot not in self._passed_on:
                self._expect(slot)
            moved = True
        return moved

    def _expect(self, slot: int) -> None:
        """Receive a message when it comes."""
        message = int(self._part.received[slot])
        source, tag = int(self._exchange.sender[message]), int(self._exchange.tag[message])
        if self._in_place[message]:
            tile, buffer = None, NOTHING
        else:
            tile = self._strips.tile(slot)
            buffer = _room(tile.array)
        self._coming.append(self._comm.Irecv(buffer, source, tag))
        self._receiving.append((slot, tile, buffer))
        self._sizes[slot] = 0 if tile is None else tile.array.nbytes
        self._held += self._sizes[slot]

    def _receive(self, job: GraphRun) -> bool:
        """Hand over tiles that have come, and pass them on."""
        come = self._mpi.Request.Testsome(self._coming) if self._coming else []
        if not come:
            return False
        arrived = [self._receiving[at] for at in come]
        if self.arrived is not None:
            now = perf_counter()
            self.arrived += [(int(self._part.received[slot]), now) for slot, _, _ in arrived]
        self._coming = _without(self._coming, come)
        self._receiving = _without(self._receiving, come)
        for slot, tile, buffer in arrived:
            message = int(self._part.received[slot])
            if tile is None:
                assert self._neighbours is not None
                tile = self._neighbours.tile(message)
            elif not np.may_share_memory(buffer, tile.array):
                tile.array.T[...] = buffer
            self._execution.put(int(self._part.number[slot]), tile)
            for child in self._children.get(message, []):
                self._isend(child, NOTHING if self._in_place[child] else _flat(tile.array, False))
            job.arrive(self._part.waiting[slot].tolist())
        return True

    # -- failures ----------------------------------------------------------------------------------

    def _tell(self) -> None:
        """Tell all other ranks that this one has failed."""
        self._words = [
            self._control.isend(None, rank, FAILED)
            for rank in range(self._control.size)
            if rank != self._control.rank
        ]

    def clear(self) -> None:
        """After a failure, which all ranks know of: let no message stay under way."""
        comm = self._comm
        expected = comm.alltoall([self.sent.get(rank, []) for rank in range(comm.size)])
        coming = {(source, tag) for source, tags in enumerate(expected) for tag in tags}
        exchange, received = self._exchange, self._part.received
        keys = [(int(exchange.sender[m]), int(exchange.tag[m])) for m in received.tolist()]
        for request, (slot, _, _) in zip(self._coming, self._receiving, strict=True):
            if keys[slot] not in coming:
                request.Cancel()
            request.Wait()
        for slot in range(self._posted, received.size):
            if keys[slot] in coming and slot not in self._passed_on:
                place = self._in_place[received[slot]]
                comm.Recv(NOTHING if place else _room(self._strips.tile(slot).array), *keys[slot])
        self._mpi.Request.Waitall(self._going)
        for request in self._words:
            request.wait()
        comm.Barrier()
        while self._control.Iprobe(self._mpi.ANY_SOURCE, FAILED):
            self._control.recv(tag=FAILED)


class _Strips:
    """Memory for received tiles: those of one tile column (or row) are one block to a kernel."""

    def __init__(self, part: Part, rowwise: set[str], slots: list[int]) -> None:
        graph = part.graph
        self._sizes: dict[tuple[Any, ...], tuple[int, int]] = {}
        self._arrays: dict[tuple[Any, ...], tuple[NDArray[Any], int]] = {}
        self._left: dict[tuple[Any, ...], int] = {}
        found = {}
        for slot in slots:
            number = int(part.number[slot])
            grid = graph.grid_of(number)
            i, j = (int(index) for index in grid.coordinates(number))
            rows, cols = (int(size) for size in grid.shapes(number))
            # of the second version of a tile on, grids are named after the first
            beside = grid.name.partition("'")[0] in rowwise
            key = (grid.base, beside, i if beside else j, grid.dtype)
            found[slot] = key, j if beside else i, rows, cols
        offsets: dict[tuple[Any, ...], int] = {}
        places: dict[int, int] = {}
        for slot in sorted(found, key=lambda slot: found[slot][1]):
            key, _, rows, cols = found[slot]
            length = cols if key[1] else rows
            places[slot] = offsets.get(key, 0)
            offsets[key] = places[slot] + length
            across = rows if key[1] else cols
            self._sizes[key] = offsets[key], across
            self._left[key] = self._left.get(key, 0) + 1
        self._where = {
            slot: (key, places[slot], rows, cols) for slot, (key, _, rows, cols) in found.items()
        }

    def tile(self, slot: int) -> Tile:
        """Return the tile for a message; asked for once each."""
        key, place, rows, cols = self._where[slot]
        strip = self._arrays.get(key)
        if strip is None:
            along, across = self._sizes[key]
            shape = (across, along) if key[1] else (along, across)
            array = np.empty(shape, key[3], order="F")
            strip = self._arrays[key] = array, self._left[key]
        array, left = strip
        if left == 1:
            # the tiles keep it alive, as long as any is in use
            del self._arrays[key]
        else:
            self._arrays[key] = array, left - 1
        return Tile(array[:, place : place + cols] if key[1] else array[place : place + rows])


def _without(items: list[Item], places: Sequence[int]) -> list[Item]:
    """Return the items that are not at some places."""
    gone = set(places)
    return [item for at, item in enumerate(items) if at not in gone]


def _flat(array: NDArray[Any], copy: bool) -> NDArray[Any]:
    """Return the columns of a tile one after the other, in one block of memory."""
    return np.array(array.T, order="C", copy=True if copy else None)


def _room(array: NDArray[Any]) -> NDArray[Any]:
    """Return where a tile can be received to: itself, if its columns follow one another."""
    whole = array.T
    return whole if whole.flags.c_contiguous else np.empty(whole.shape, whole.dtype)
