"""Ranks that share the cores of a machine: how many workers each has, and more than fit."""

from __future__ import annotations

import os
import warnings
from collections import Counter
from collections.abc import Sequence
from fractions import Fraction
from typing import TYPE_CHECKING, NamedTuple

from taskla.engines.cores import cores

if TYPE_CHECKING:
    from mpi4py.MPI import Comm

__all__ = ["Share", "complaint", "fair", "usual", "warn"]


class Share(NamedTuple):
    """What one rank has: its workers, and the cores that they may use.

    Attributes
    ----------
    workers : int
    affinity : frozenset of int
        The cores of its affinity mask; empty where the system does not tell.
    cores : int
        Those that it may use, by `taskla.engines.cores.cores`.
    """

    workers: int
    affinity: frozenset[int]
    cores: int


def usual(here: Comm) -> int:
    """Return how many workers this rank has when nobody says.

    Each core counts for as much as is left for each of the ranks on this machine that may use it:
    the ranks share the cores that they have in common, and one that is bound has its own.

    Parameters
    ----------
    here : mpi4py.MPI.Comm
        The ranks on this machine; all of them call this.
    """
    shares = here.allgather(_mine(0))
    return fair(shares, here.rank)


def fair(shares: Sequence[Share], rank: int) -> int:
    """Return the workers of one of the ranks on a machine, at least 1."""
    mine = shares[rank]
    if mine.cores < len(mine.affinity) or not mine.affinity:
        # time is limited, not places
        return max(1, mine.cores // len(shares))
    users = Counter(core for share in shares for core in share.affinity)
    # a sum of thirds may come out below 1
    return max(1, int(sum(Fraction(1, users[core]) for core in mine.affinity)))


def _mine(workers: int) -> Share:
    affinity = getattr(os, "sched_getaffinity", None)
    return Share(workers, frozenset(affinity(0) if affinity else ()), cores())


def warn(here: Comm, workers: int) -> None:
    """Warn, on the first rank of a machine, of more workers than cores there.

    Parameters
    ----------
    here : mpi4py.MPI.Comm
        The ranks on this machine; all of them call this.
    workers : int
        Of this rank.
    """
    shares = here.allgather(_mine(workers))
    if here.rank == 0 and (text := complaint(shares)):
        # the line that asks for the engine: by name, as all do
        warnings.warn(text, RuntimeWarning, stacklevel=4)


def complaint(shares: Sequence[Share]) -> str | None:
    """Return what is wrong with the shares of all ranks on a machine, if anything."""
    usable = len(frozenset().union(*(share.affinity for share in shares)))
    quota = max(share.cores for share in shares)
    if any(share.cores < len(share.affinity) for share in shares) or not usable:
        # time is limited, not places
        usable = quota
    total = sum(share.workers for share in shares)
    # one rank has the cores to itself, and its user chose
    if len(shares) == 1 or total <= usable:
        return None
    each = {share.workers for share in shares}
    what = f" x {_many(each.pop(), 'worker')}" if len(each) == 1 else f" with {total} workers"
    fitting = max(1, usable // len(shares))
    advice = f"give workers={fitting}" if fitting * len(shares) <= usable else "start fewer ranks"
    return (
        f"{len(shares)} ranks{what} on {_many(usable, 'core')}: they take turns, and ranks wait "
        f"for one another; {advice}"
    )


def _many(count: int, word: str) -> str:
    return f"{count} {word}" if count == 1 else f"{count} {word}s"
