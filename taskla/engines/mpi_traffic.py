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
from taskla.engines.mpi_presence import Presence
from taskla.engines.mpi_strips import Strips, flat, packed, packing, room_for, unpack_to
from taskla.exchange import Exchange, Part
from taskla.tile import Tile

if TYPE_CHECKING:
    from mpi4py.MPI import Intracomm, Request

__all__ = ["Traffic"]

Item = TypeVar("Item")

#: Seconds between two looks at messages while no worker has anything for this thread, and while
#: one waits for what a message may bring.
PERIOD, SOON = 5e-3, 2e-4

#: Tags on the communicator for control: a rank has failed; a tile is there, to be read in place; it
#: has been read, and may be overwritten.
FAILED, READY, READ = 1, 2, 3


class Traffic:
    """One rank's messages in one run.

    Parameters
    ----------
    comms : tuple
        Communicators for tiles and for words about tiles and failures; who has left.
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
    most_held : int
        The most bytes of received tiles that were held at once.
    """

    def __init__(
        self,
        comms: tuple[Intracomm, Intracomm, Presence],
        exchange: Exchange,
        part: Part,
        execution: Execution,
        rowwise: set[str],
        window: int,
        neighbours: Neighbours | None = None,
    ) -> None:
        from mpi4py import MPI

        self._mpi = MPI
        comm, self._control, self._presence = comms
        self._comm = comm
        self._exchange, self._part, self._execution = exchange, part, execution
        self._neighbours, self._window = neighbours, window
        self._in_place = (
            np.zeros(exchange.tile.size, np.bool_) if neighbours is None else neighbours.in_place
        )
        self.messages = self.pivot_messages = self.nbytes = 0
        self.failed_elsewhere = False
        # messages and when they were handed to MPI or were there, where a run is recorded
        self.departed: list[tuple[int, float]] | None = None
        self.arrived: list[tuple[int, float]] | None = None
        # what workers leave for this thread
        self._event = threading.Event()
        self._finished: deque[int] = deque()
        self._done = bytearray(part.graph.n)
        self._earliest = 0
        # words of other ranks, about tiles and failures, and to them
        self._status, self._word = MPI.Status(), np.empty(1, np.int64)
        self._heard, self._said = [0] * comm.size, [0] * comm.size
        self._failures: list[Request] = []
        self._prepare_sending()
        self._prepare_receiving(rowwise)

    def _prepare_sending(self) -> None:
        exchange, part = self._exchange, self._part
        # requests, and what belongs to each: one call of MPI tests them all
        self._going: list[Request] = []
        self._sending: list[NDArray[Any]] = []
        self.sent: dict[int, list[int]] = {}  # target -> tags
        self._scratch = set(part.held)
        # versions that a later task overwrites: they are copied before that can begin
        passing = {
            task: [m for m in messages if not (exchange.last[m] or self._in_place[m])]
            for task, messages in part.sent.items()
        }
        self._passing = {task: messages for task, messages in passing.items() if messages}
        self._copies: dict[int, NDArray[Any]] = {}
        self._copy(self._passing.get(-1, []))
        self._children: dict[int, list[int]] = {}
        mine = (exchange.parent >= 0) & (exchange.sender == self._comm.rank)
        for message in np.flatnonzero(mine).tolist():
            self._children.setdefault(int(exchange.parent[message]), []).append(message)

    def _prepare_receiving(self, rowwise: set[str]) -> None:
        part = self._part
        self._coming: list[Request] = []
        self._receiving: list[tuple[int, Tile, NDArray[Any]]] = []
        self._uses = [tasks.size for tasks in part.waiting]
        self._sizes: dict[int, int] = {}  # bytes of each slot that is held
        self._held = self.most_held = 0
        self._slots_of: dict[int, list[int]] = {}
        for slot, tasks in enumerate(part.waiting):
            for task in tasks.tolist():
                self._slots_of.setdefault(task, []).append(slot)
        self._notable = self._slots_of.keys() | part.sent.keys()
        here = self._in_place[part.received]
        # the slots of messages that say where a tile can be read
        self._awaited = {int(part.received[s]): s for s in np.flatnonzero(here).tolist()}
        self._travelling = np.flatnonzero(~here).tolist()
        self._posted = 0  # of these, so many in order
        self._strips = Strips(part, rowwise, self._travelling)
        # Others wait for what this rank passes on: it must not wait for memory.
        self._passed_on = {
            slot for slot in self._travelling if int(part.received[slot]) in self._children
        }
        for slot in sorted(self._passed_on):
            self._expect(slot)

    def awaited(self) -> NDArray[np.int32]:
        """Return for how many messages each task waits."""
        count = np.zeros(self._part.graph.n, dtype=np.int32)
        for tasks in self._part.waiting:
            count[tasks] += 1
        for message, task in self._part.overwriting.items():
            count[task] += self._in_place[message]
        return count

    # -- the workers' side -------------------------------------------------------------------------

    def observed(self, execute: Callable[[int], None]) -> Callable[[int], None]:
        """Return ``execute(task)`` that takes note of what it means for messages."""
        done, notable, sent = self._done, self._notable, self._part.sent
        finished, event, passing = self._finished, self._event, self._passing

        def run(task: int) -> None:
            execute(task)
            done[task] = 1
            if task in passing:
                self._copy(passing[task])
            if task in notable:
                finished.append(task)
                # what is only to be dropped can wait for the next look
                if task in sent:
                    event.set()

        return run

    def _copy(self, messages: list[int]) -> None:
        """Keep what tiles hold now for messages; of one tile there is one copy."""
        copies: dict[int, NDArray[Any]] = {}
        for message in messages:
            number = int(self._exchange.tile[message])
            if number not in copies:
                copies[number] = self._outgoing(message, self._execution.tile(number), True)
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
        job.asleep = self._event.set
        self._send(self._part.sent.get(-1, []))
        told = False
        waiting = self._presence.waiting()
        while True:
            moved = self._step(job)
            if job.stopped and not told:
                # workers asleep do not see that
                job.dismiss()
                if not self.failed_elsewhere:
                    self._tell()
                told = True
            if over.is_set():
                left = self._going or self._coming or self._finished or self._awaited
                if told or (not left and self._posted == len(self._travelling)):
                    return
            if not moved:
                if job.idle:
                    # a rank cannot leave before all have done their part
                    waiting.check(0.0)
                self._event.wait(SOON if job.idle else PERIOD)
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
        return self._listen(job) or moved

    def _listen(self, job: GraphRun) -> bool:
        """Hear what other ranks say: that a tile can be read, or that one has failed."""
        heard, status = False, self._status
        while self._control.Iprobe(self._mpi.ANY_SOURCE, self._mpi.ANY_TAG, status):
            heard, source = True, status.source
            if status.tag == FAILED:
                self._control.recv(source=source, tag=FAILED)
                self.failed_elsewhere = True
                job.stop()
                continue
            tag = status.tag
            self._control.Recv(self._word, source, tag)
            self._heard[source] += 1
            message = int(self._word[0])
            if tag == READ:
                job.arrive([self._part.overwriting[message]])
                continue
            slot = self._awaited.pop(message)
            assert self._neighbours is not None
            self._sizes[slot] = 0
            self._arrived(job, slot, self._neighbours.tile(message))
        return heard

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
                    message = int(self._part.received[slot])
                    if self._in_place[message] and not self._exchange.last[message]:
                        self._say(int(self._exchange.source[message]), READ, message)
        return moved

    def _send(self, messages: list[int]) -> None:
        """Send tiles that are there, the most urgent first; one to many ranks is packed once."""
        buffers: dict[int, NDArray[Any]] = {}
        for message in sorted(messages, key=lambda m: -self._exchange.priority[m]):
            number = int(self._exchange.tile[message])
            buffer = self._copies.pop(message, None)
            if buffer is None and not self._in_place[message]:
                if number not in buffers:
                    buffers[number] = self._outgoing(message, self._execution.tile(number), False)
                buffer = buffers[number]
            self._isend(message, buffer)
            if number in self._scratch:
                self._execution.release((number,))

    def _outgoing(self, message: int, tile: Tile, copy: bool) -> NDArray[Any]:
        """Return a tile as it travels: packed, where its format is less than what it is held in."""
        format = self._format(message)
        return flat(tile.array, copy) if format is None else packed(tile.array, format)

    def _format(self, message: int) -> str | None:
        """Return the format that the tile of a message is packed in, if it is."""
        if not self._exchange.packed[message]:
            return None
        return packing(self._exchange.graph.grid_of(int(self._exchange.tile[message])))

    def _isend(self, message: int, buffer: NDArray[Any] | None) -> None:
        """Send a tile, or the word that it can be read in place."""
        exchange = self._exchange
        target, tag = int(exchange.target[message]), int(exchange.tag[message])
        if self.departed is not None:
            self.departed.append((message, perf_counter()))
        if buffer is None:
            self._say(target, READY, message)
        else:
            self._going.append(self._comm.Isend(buffer, target, tag))
            self._sending.append(buffer)
            self.sent.setdefault(target, []).append(tag)
        if exchange.pivoting[message]:
            self.pivot_messages += 1
        else:
            self.messages += 1
        self.nbytes += int(exchange.nbytes[message])

    def _say(self, rank: int, tag: int, message: int) -> None:
        """Send word about the tile of a message."""
        word = np.array([message], np.int64)
        self._going.append(self._control.Isend(word, rank, tag))
        self._sending.append(word)
        self._said[rank] += 1

    def _post(self) -> bool:
        """Prepare for tiles that are next to come, as far as memory goes."""
        part, moved = self._part, False
        while self._earliest < len(self._done) and self._done[self._earliest]:
            self._earliest += 1
        while self._posted < len(self._travelling):
            slot = self._travelling[self._posted]
            if self._held >= self._window and part.first[slot] > self._earliest:
                break
            self._posted += 1
            if slot not in self._passed_on:
                self._expect(slot)
            moved = True
        return moved

    def _expect(self, slot: int) -> None:
        """Receive a message when it comes."""
        message = int(self._part.received[slot])
        source, tag = int(self._exchange.sender[message]), int(self._exchange.tag[message])
        tile = self._strips.tile(slot)
        buffer = room_for(tile.array, self._format(message))
        self._coming.append(self._comm.Irecv(buffer, source, tag))
        self._receiving.append((slot, tile, buffer))
        self._sizes[slot] = tile.array.nbytes
        self._held += tile.array.nbytes
        self.most_held = max(self.most_held, self._held)

    def _receive(self, job: GraphRun) -> bool:
        """Hand over tiles that have come, and pass them on."""
        come = self._mpi.Request.Testsome(self._coming) if self._coming else []
        if not come:
            return False
        arrived = [self._receiving[at] for at in come]
        self._coming = _without(self._coming, come)
        self._receiving = _without(self._receiving, come)
        for slot, tile, buffer in arrived:
            unpack_to(tile.array, buffer, self._format(int(self._part.received[slot])))
            self._arrived(job, slot, tile)
        return True

    def _arrived(self, job: GraphRun, slot: int, tile: Tile) -> None:
        """Hand over a tile, and pass it on."""
        message = int(self._part.received[slot])
        if self.arrived is not None:
            self.arrived.append((message, perf_counter()))
        self._execution.put(int(self._part.number[slot]), tile)
        for child in self._children.get(message, []):
            in_place = self._in_place[child]
            self._isend(child, None if in_place else self._outgoing(child, tile, False))
        job.arrive(self._part.waiting[slot].tolist())

    # -- failures ----------------------------------------------------------------------------------

    def _tell(self) -> None:
        """Tell all other ranks that this one has failed."""
        self._failures = [
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
        for slot in self._travelling[self._posted :]:
            if keys[slot] in coming and slot not in self._passed_on:
                format = self._format(int(received[slot]))
                comm.Recv(room_for(self._strips.tile(slot).array, format), *keys[slot])
        for source, said in enumerate(comm.alltoall(self._said)):
            while self._heard[source] < said:
                # some of what was said may be that it failed
                self._control.Probe(source, self._mpi.ANY_TAG, self._status)
                if self._status.tag == FAILED:
                    self._control.recv(source=source, tag=FAILED)
                else:
                    self._control.Recv(self._word, source, self._status.tag)
                    self._heard[source] += 1
        self._mpi.Request.Waitall(self._going)
        for request in self._failures:
            request.wait()
        comm.Barrier()
        while self._control.Iprobe(self._mpi.ANY_SOURCE, FAILED):
            self._control.recv(tag=FAILED)


def _without(items: list[Item], places: Sequence[int]) -> list[Item]:
    """Return the items that are not at some places."""
    gone = set(places)
    return [item for at, item in enumerate(items) if at not in gone]
