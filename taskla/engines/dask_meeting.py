"""What MPI tells the ranks of a Dask cluster: where the scheduler is, and that the script ended.

Nobody waits inside MPI: a rank looks for what is to come, up to a limit where another may be
missing.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from time import monotonic, sleep
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from mpi4py.MPI import Intracomm

__all__ = ["CLIENT", "GRACE", "SCHEDULER", "abort", "address", "end_all", "leave", "meet"]
__all__ += ["tell_address", "until_end"]

#: The ranks that are no workers.
SCHEDULER, CLIENT = 0, 1

#: Seconds that ranks have to end after the script.
GRACE = 10.0

# Tags: where the scheduler is; the script's exit code; a rank has nothing left to do.
_ADDRESS, _END, _BYE = 1, 2, 3

# Seconds between two looks at MPI.
_PERIOD = 0.01


def meet(comm: Intracomm, timeout: float) -> None:
    """Wait for the other ranks, so that those who then wait inside MPI do so for an instant."""
    request = comm.Ibarrier()
    _look(request.Test, timeout, f"not all {comm.size} ranks started")


def _look(there: Callable[[], bool], timeout: float, otherwise: str) -> None:
    """Wait until something is there."""
    end = monotonic() + timeout
    while not there():
        if monotonic() > end:
            raise TimeoutError(f"{otherwise} within {timeout:g} s")
        sleep(_PERIOD)


def tell_address(comm: Intracomm, address: str) -> None:
    """Tell all ranks where the scheduler is."""
    for rank in range(comm.size):
        if rank != SCHEDULER:
            # short messages leave at once, and are on their way before the rank ends
            comm.isend(address, rank, _ADDRESS).Test()


def address(comm: Intracomm, timeout: float) -> str:
    """Return where the scheduler is."""

    def there() -> bool:
        return bool(comm.iprobe(SCHEDULER, _ADDRESS))

    _look(there, timeout, "the scheduler did not start")
    found: str = comm.recv(source=SCHEDULER, tag=_ADDRESS)
    return found


async def until_end(comm: Intracomm) -> None:
    """Wait until the client says that the script has ended."""
    while not comm.iprobe(CLIENT, _END):
        await asyncio.sleep(_PERIOD)


def leave(comm: Intracomm) -> int:
    """Tell the client that this rank is done; return the script's exit code."""
    code: int = comm.recv(source=CLIENT, tag=_END)
    _flush()
    request = comm.isend(None, CLIENT, _BYE)
    _look(request.Test, GRACE, "the client did not end")
    return code


def end_all(comm: Intracomm, code: int) -> None:
    """Tell all ranks that the script has ended, and wait until they have; the client calls it."""
    _flush()
    # the scheduler last: it closes the workers, who are to know why
    left = [rank for rank in reversed(range(comm.size)) if rank != CLIENT]
    sent = [comm.isend(code, rank, _END) for rank in left]

    def all_done() -> bool:
        for rank in [rank for rank in left if comm.iprobe(rank, _BYE)]:
            comm.recv(source=rank, tag=_BYE)
            left.remove(rank)
        return not left and all(request.Test() for request in sent)

    try:
        _look(all_done, GRACE, "")
    except TimeoutError:
        ranks = ", ".join(map(str, sorted(left)))
        abort(
            comm, f"{GRACE:g} s after the script had ended, these ranks had not: {ranks}", code or 1
        )


def abort(comm: Intracomm, cause: str, code: int = 1) -> NoReturn:
    """Say why, and end all ranks."""
    role = {SCHEDULER: "scheduler", CLIENT: "client"}.get(comm.rank, "worker")
    with suppress(OSError, ValueError):
        print(f"Error: rank {comm.rank} ({role}): {cause}", file=sys.stderr)
    _flush()
    comm.Abort(code)
    os._exit(code)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
