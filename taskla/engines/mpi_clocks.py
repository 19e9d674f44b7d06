"""What the ranks' clocks read at the same moment, measured by messages there and back.

Rank 0 notes when it asks and when it is answered; the other clock was read in between. Of many
trips the shortest says the most (Cristian: Probabilistic clock synchronization, 1989).
"""

from __future__ import annotations

from collections.abc import Callable
from time import sleep
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from taskla.traces.recorder import clock

if TYPE_CHECKING:
    from mpi4py.MPI import Intracomm

__all__ = ["Offset", "aligned", "described", "measure", "offset"]

#: Trips to each rank: some microseconds each, milliseconds where ranks wait for a core. After so
#: many seconds it is enough.
TRIPS, ENOUGH = 20, 1e-3

#: Seconds between two looks at whether rank 0 asks: others' turns are not to be slowed down.
_PERIOD = 1e-4


class Offset(NamedTuple):
    """How far a clock is ahead of rank 0's.

    Attributes
    ----------
    at : float
        When that was so, on rank 0's clock.
    seconds : float
    error : float
        `seconds` is off by no more than this.
    """

    at: float
    seconds: float
    error: float


def offset(asked: ArrayLike, read: ArrayLike, answered: ArrayLike) -> Offset:
    """Return the offset that readings of some trips tell.

    Parameters
    ----------
    asked, answered : (k,) arrays
        Readings of rank 0's clock, before and after each trip.
    read : (k,) array
        Readings of the other clock on the way.

    Raises
    ------
    ValueError
        When there is no trip, or one was answered before it was asked.
    """
    before, other, after = (np.asarray(given, np.float64) for given in (asked, read, answered))
    if not before.size or (after < before).any():
        raise ValueError("a trip is needed, and none can be answered before it is asked")
    best = int(np.argmin(after - before))
    middle = float(before[best] + after[best]) / 2
    return Offset(middle, float(other[best]) - middle, float(after[best] - before[best]) / 2)


def aligned(times: ArrayLike, first: Offset, last: Offset) -> NDArray[np.float64]:
    """Return readings of a clock as those of rank 0's at the same moments.

    Parameters
    ----------
    times : array
        Readings of a clock; NaN stays.
    first, last : Offset
        Of that clock, measured before and after: between them the offset goes on evenly.
    """
    span = last.at - first.at
    drift = (last.seconds - first.seconds) / span if span > 0 else 0.0
    given = np.asarray(times, np.float64)
    return np.asarray(first.at + (given - first.at - first.seconds) / (1 + drift))


def described(rank: int, first: Offset, last: Offset, begin: float) -> dict[str, Any]:
    """Return what the header says of a clock: seconds, at the begin of the run.

    Parameters
    ----------
    rank : int
    first, last : Offset
        As of `aligned`.
    begin : float
        On rank 0's clock.
    """
    span = last.at - first.at
    drift = (last.seconds - first.seconds) / span if span > 0 else 0.0
    return {
        "rank": rank,
        "offset": first.seconds + drift * (begin - first.at),
        "drift": drift,
        "error": max(first.error, last.error),
    }


def measure(comm: Intracomm, now: Callable[[], float] = clock) -> list[Offset]:
    """Measure the offsets of all ranks' clocks; all ranks call it.

    Parameters
    ----------
    comm : Intracomm
        Without messages under way to or from rank 0.
    now : callable
        Reads the clock of this rank.

    Returns
    -------
    list of Offset
        By rank, on rank 0; empty on the others.
    """
    reading = np.zeros(1)
    if comm.rank:
        while not comm.Iprobe(0):
            sleep(_PERIOD)
        more = True
        while more:
            comm.Recv(reading, 0)
            more = bool(reading[0])
            reading[0] = now()
            comm.Send(reading, 0)
        return []
    found = [Offset(now(), 0.0, 0.0)]
    for rank in range(1, comm.size):
        rows: list[tuple[float, float, float]] = []
        more = True
        while more:
            asked = now()
            # the first trip, which wakes the other, is worth little
            first = rows[1][0] if len(rows) > 1 else asked
            more = len(rows) + 1 < TRIPS and asked - first < ENOUGH
            reading[0] = more
            comm.Send(reading, rank)
            comm.Recv(reading, rank)
            rows.append((asked, float(reading[0]), now()))
        found.append(offset(*zip(*rows, strict=True)))
    return found
