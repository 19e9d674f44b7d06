"""Which ranks can still be waited for: one that has left does not come to what others do together.

A rank that leaves the engine's ``with``, or ends, says so to all others, and waits for nobody. Who
waits in a call that all ranks make hears of it, and need not wait for ever.
"""

from __future__ import annotations

import atexit
from time import monotonic
from typing import TYPE_CHECKING

import numpy as np

from taskla.engines.mpi_errors import RemoteError

if TYPE_CHECKING:
    from mpi4py.MPI import Intracomm, Request

__all__ = ["Presence"]

#: Seconds that a message of a rank which has left may take longer than the word that it has.
GRACE = 2.0


class Presence:
    """Who of the ranks has left how often.

    Parameters
    ----------
    comm : mpi4py.MPI.Intracomm
        It is duplicated.
    """

    def __init__(self, comm: Intracomm) -> None:
        from mpi4py import MPI

        self._mpi = MPI
        self._comm = comm.Dup()
        self._status, self._word = MPI.Status(), np.empty(1, np.int64)
        self._left = [0] * comm.size
        self._sent: list[tuple[Request, object]] = []
        atexit.register(self._end)

    def _end(self) -> None:
        # a program may have called it
        if not self._mpi.Is_finalized():
            self.leave()

    def leave(self) -> None:
        """Say to all others that this rank leaves."""
        mine = self._comm.rank
        self._left[mine] += 1
        word = np.array([self._left[mine]])
        others = [rank for rank in range(self._comm.size) if rank != mine]
        self._sent = [sent for sent in self._sent if not sent[0].Test()]
        self._sent += [(self._comm.Isend(word, rank), word) for rank in others]

    def gone(self) -> int | None:
        """Return a rank that has left what this one is inside of; None if all are there."""
        while self._comm.Iprobe(self._mpi.ANY_SOURCE, self._mpi.ANY_TAG, self._status):
            source = self._status.source
            self._comm.Recv(self._word, source)
            self._left[source] = int(self._word[0])
        mine = self._left[self._comm.rank]
        return next((rank for rank, count in enumerate(self._left) if count > mine), None)

    def waiting(self) -> Waiting:
        """Return what is asked again and again while this rank waits for all."""
        return Waiting(self)


class Waiting:
    """One wait: ends by an error when a rank has left that should have come."""

    def __init__(self, presence: Presence) -> None:
        self._presence = presence
        self._since: float | None = None

    def check(self, grace: float = GRACE) -> None:
        """Raise RemoteError if a rank is gone and its last messages should have come by now."""
        rank = self._presence.gone()
        if rank is None:
            self._since = None
            return
        now = monotonic()
        self._since = now if self._since is None else self._since
        if now - self._since >= grace:
            raise RemoteError(
                f"rank {rank} has left the engine's `with`, or ended, and this rank waits for it: "
                "all ranks make the same calls on what they share"
            )
