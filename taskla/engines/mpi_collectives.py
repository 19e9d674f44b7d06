"""What all ranks of an MPI job do together, for matrices and at the end of a run.

Nothing here blocks in MPI: calls are non-blocking, tested, and slept between, so that the cores are
the workers' of other ranks. Tiles travel in typed buffers, in rounds of bounded size.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import groupby
from time import sleep
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from taskla import errors
from taskla.engines.base import TileSource
from taskla.engines.mpi_errors import RemoteError
from taskla.engines.mpi_presence import Presence
from taskla.matrix_place import Put
from taskla.matrix_tiles import StoredTiles

if TYPE_CHECKING:
    from mpi4py.MPI import Intracomm, Request

__all__ = ["MPICollectives", "RemoteError"]

#: Longest sleep between two looks at a message, in seconds.
PERIOD = 1e-3


class MPICollectives:
    """`taskla.matrix_place.Collectives` of a communicator.

    Parameters
    ----------
    comm : mpi4py.MPI.Intracomm
        No message of anyone else is under way on it when a method is called.
    one_machine : bool
        Whether its ranks share a machine.
    limit : int
        Bytes of tiles that a rank sends, and receives, at a time.
    count : callable
        ``count(messages, nbytes)`` is told what a redistribution sends.
    presence : Presence
        Who has left.
    """

    def __init__(
        self,
        comm: Intracomm,
        one_machine: bool,
        limit: int,
        count: Callable[[int, int], None],
        presence: Presence,
    ) -> None:
        from mpi4py import MPI

        self._mpi = MPI
        self._comm = comm
        self.rank, self.one_machine = int(comm.rank), one_machine
        self._limit, self._count, self._presence = limit, count, presence

    # Agreement ----------------------------------------------------------------------------------

    @contextmanager
    def agreed(self) -> Iterator[None]:
        """Wait at the end of ``with`` for all ranks; an error inside is raised on all of them."""
        error: BaseException | None = None
        try:
            yield
        except BaseException as raised:
            error = raised
        self.agree(error)

    def agree(self, error: BaseException | None) -> None:
        """Wait for all ranks; raise the own error, else what the first that failed has."""
        cause = self.cause(error)
        if cause is not None:
            raise cause

    def cause(
        self,
        error: BaseException | None,
        failed_elsewhere: bool = False,
        clear: Callable[[], None] | None = None,
    ) -> BaseException | None:
        """Wait for all ranks; return the own error, else what the first that failed has.

        Parameters
        ----------
        error : BaseException, optional
            What this rank failed with.
        failed_elsewhere : bool, default False
            Whether this rank has heard of a failure.
        clear : callable, optional
            Called on all ranks when one has failed, before they tell each other with what.
        """
        failed = np.array([error is not None or failed_elsewhere], np.int32)
        anywhere = np.zeros(1, np.int32)
        self.wait(self._comm.Iallreduce(failed, anywhere, op=self._mpi.MAX))
        if not anywhere[0]:
            return None
        if clear is not None:
            clear()
        try:
            self.share(None, error)
        except BaseException as raised:
            return raised
        raise AssertionError("a rank has failed, and none has said so")

    def share(self, value: Any, error: BaseException | None = None) -> list[Any]:
        """Tell all ranks what each has to say; raise, on all, the own or the first one's error.

        Parameters
        ----------
        value : object
            What JSON can say.
        error : BaseException, optional
            What this rank failed with.

        Returns
        -------
        list
            The ranks' values.
        """
        said = json.dumps([value, None if error is None else _words(error)]).encode()
        sizes = np.empty(self._comm.size, np.int64)
        self.wait(self._comm.Iallgather(np.array([len(said)], np.int64), sizes))
        heard = np.empty(int(sizes.sum()), np.uint8)
        self.wait(self._comm.Iallgatherv(np.frombuffer(said, np.uint8), (heard, sizes.tolist())))
        parts = np.split(heard, np.cumsum(sizes)[:-1])
        told = [json.loads(part.tobytes()) for part in parts]
        if error is not None:
            raise error
        for rank, (_, words) in enumerate(told):
            if words is not None:
                raise _from_words(rank, words)
        return [value for value, _ in told]

    def wait(self, *requests: Request) -> None:
        """Wait for messages: an instant first, then longer, never keeping a core from workers.

        Raises
        ------
        RemoteError
            When a rank has left, and what it should have sent does not come.
        """
        pause = PERIOD / 64
        waiting = self._presence.waiting()
        while not self._mpi.Request.Testall(requests):
            sleep(pause)
            if pause == PERIOD:
                waiting.check()
            pause = min(2 * pause, PERIOD)

    # Tiles --------------------------------------------------------------------------------------

    def gather(self, matrix: StoredTiles, put: Put, root: int | None = None) -> None:
        """Call `put` for all tiles of a matrix, column after column: on all ranks, or on one.

        Raises
        ------
        RemoteError
            When `put` failed on another rank.
        """
        takes = root is None or root == self.rank
        others = [r for r in range(self._comm.size) if r != self.rank and root in (None, r)]
        with self.agreed():
            tiles = _Tiles(matrix)
            rounds = _rounds([(("all",), nbytes) for nbytes in tiles.nbytes], self._limit)
            own = [[at for at in chosen if tiles.owner[at] == self.rank] for chosen in rounds]
            outgoing = np.empty(max(map(tiles.size, own), default=0), matrix.dtype)
            most = max(map(tiles.size, rounds), default=0)
            incoming = np.empty(most if takes else 0, matrix.dtype)
        error: BaseException | None = None
        for chosen, sent in zip(rounds, own, strict=True):
            tiles.pack(sent, outgoing)
            buffer = outgoing[: tiles.size(sent)]
            # Open MPI looks after non-blocking collectives in every eighth test only.
            requests = [self._comm.Isend(buffer, other) for other in others if sent]
            if takes:
                chosen.sort(key=tiles.owner.__getitem__)
                requests += self._receive(tiles, chosen, buffer, incoming)
            self.wait(*requests)
            # The other ranks need this one for the rounds that are left: an error waits.
            if takes and error is None:
                try:
                    for at, block in sorted(tiles.unpack(chosen, incoming), key=_first):
                        put(*tiles.at[at], block)
                except BaseException as raised:
                    error = raised
        self.agree(error)

    def _receive(
        self, tiles: _Tiles, chosen: list[int], own: NDArray[Any], incoming: NDArray[Any]
    ) -> list[Request]:
        """Receive tiles, sorted by owner, in one message from each; copy the own ones."""
        requests = []
        begin = 0
        for owner, part in groupby(chosen, key=tiles.owner.__getitem__):
            end = begin + tiles.size(part)
            if owner == self.rank:
                incoming[begin:end] = own
            else:
                requests.append(self._comm.Irecv(incoming[begin:end], owner))
            begin = end
        return requests

    def spread(self, writers: Mapping[tuple[int, int], int], matrix: TileSource) -> None:
        """Bring tiles of which each rank has an instance from those that wrote them to all ranks.

        Parameters
        ----------
        writers : mapping of (int, int) to int
            The rank that wrote each tile, the same on all ranks.
        matrix : TileSource
            All of its tiles have one data type.
        """
        if not writers:
            return
        parts: list[list[NDArray[Any]]] = [[] for _ in range(self._comm.size)]
        for (i, j), rank in sorted(writers.items()):
            parts[rank].append(matrix.tile(i, j).array)
        mine = [array.ravel() for array in parts[self._comm.rank]]
        sizes = [sum(array.size for array in arrays) for arrays in parts]
        everything = np.empty(sum(sizes), next(a.dtype for arrays in parts for a in arrays))
        sent = np.concatenate(mine) if mine else everything[:0]
        self.wait(self._comm.Iallgatherv(sent, (everything, sizes)))
        at = 0
        for array in (array for arrays in parts for array in arrays):
            array[...] = everything[at : at + array.size].reshape(array.shape)
            at += array.size

    def redistribute(self, source: StoredTiles, target: StoredTiles) -> None:
        """Copy the tiles of a matrix to another of the same layout and dtype.

        A tile whose owner changes is one message. A rank sends, and receives, no more at a time
        than the limit, or one tile.
        """
        with self.agreed():
            tiles, after = _Tiles(source), _Tiles(target).owner
            before = after if source.distribution is None else tiles.owner
            moving = [at for at, to in enumerate(after) if before[at] != to]
            loads = [((("from", before[at]), ("to", after[at])), tiles.nbytes[at]) for at in moving]
            rounds = [[moving[k] for k in chosen] for chosen in _rounds(loads, self._limit)]
            sent = [[at for at in chosen if before[at] == self.rank] for chosen in rounds]
            received = [[at for at in chosen if after[at] == self.rank] for chosen in rounds]
            outgoing = np.empty(max(map(tiles.size, sent), default=0), source.dtype)
            incoming = np.empty(max(map(tiles.size, received), default=0), source.dtype)
            for at, (i, j) in enumerate(tiles.at):
                if before[at] == after[at] == self.rank:
                    target.put(i, j, source.tile(i, j).array)
        for going, coming in zip(sent, received, strict=True):
            # Between two ranks messages keep their order, which is that of the tiles.
            blocks = tiles.unpack(coming, incoming)
            requests = [self._comm.Irecv(block.T, before[at]) for at, block in blocks] + [
                self._comm.Isend(block.T, after[at]) for at, block in tiles.pack(going, outgoing)
            ]
            self.wait(*requests)
            for at, block in blocks:
                target.put(*tiles.at[at], block)
        gone = [at for going in sent for at in going]
        self._count(len(gone), sum(tiles.nbytes[at] for at in gone))


class _Tiles:
    """The tiles of a matrix, column after column: where, whose, how large; and as buffers."""

    def __init__(self, matrix: StoredTiles) -> None:
        owner, layout = matrix.owner_map, matrix.layout
        self._matrix = matrix
        self.at = list(layout.tiles())
        self.owner = [int(owner[i, j]) for i, j in self.at]
        self._shapes = [(_length(layout.rows(i)), _length(layout.cols(j))) for i, j in self.at]
        self.sizes = [rows * cols for rows, cols in self._shapes]
        self.nbytes = [size * matrix.dtype.itemsize for size in self.sizes]

    def size(self, chosen: Iterable[int]) -> int:
        """Return the number of entries in some tiles."""
        return sum(self.sizes[at] for at in chosen)

    def unpack(self, chosen: list[int], buffer: NDArray[Any]) -> list[tuple[int, NDArray[Any]]]:
        """Return views of a buffer, one after the other, as tiles in Fortran order."""
        ends = np.cumsum([self.sizes[at] for at in chosen], dtype=np.int64).tolist()
        return [
            (at, buffer[end - self.sizes[at] : end].reshape(self._shapes[at], order="F"))
            for at, end in zip(chosen, ends, strict=True)
        ]

    def pack(self, chosen: list[int], buffer: NDArray[Any]) -> list[tuple[int, NDArray[Any]]]:
        """Copy tiles that are here to a buffer, one after the other, and return the copies."""
        blocks = self.unpack(chosen, buffer)
        for at, block in blocks:
            block[...] = self._matrix.tile(*self.at[at]).array
        return blocks


def _length(part: slice) -> int:
    return int(part.stop - part.start)


def _first(pair: tuple[int, NDArray[Any]]) -> int:
    return pair[0]


def _rounds(loads: Iterable[tuple[tuple[Hashable, ...], int]], limit: int) -> list[list[int]]:
    """Cut a sequence of tiles into rounds in which nobody has more than a limit, or one tile.

    Parameters
    ----------
    loads : iterable of (keys, nbytes)
        Who has to do with each tile, and its size.
    limit : int
        Bytes.
    """
    rounds: list[list[int]] = []
    held: Counter[Hashable] = Counter()
    for at, (keys, nbytes) in enumerate(loads):
        if not rounds or any(held[key] and held[key] + nbytes > limit for key in keys):
            rounds.append([])
            held.clear()
        rounds[-1].append(at)
        held.update(dict.fromkeys(keys, nbytes))
    return rounds


# Errors ----------------------------------------------------------------------------------------


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
