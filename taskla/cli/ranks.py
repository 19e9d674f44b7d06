"""The command on the ranks of a job: one speaks for all, and all end together."""

from __future__ import annotations

import os
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, redirect_stdout
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import click

from taskla.launch import Job

if TYPE_CHECKING:
    from mpi4py.MPI import Intracomm
    from numpy.typing import NDArray

__all__ = ["COMMANDS", "Failure", "Ranks", "current", "run", "say"]

Value = TypeVar("Value")

#: The commands that ranks run together; all others are rank 0's alone.
COMMANDS = ("bench", "solve")

#: Seconds that a rank that failed waits for the others to fail likewise, and to save a trace.
GRACE = 5.0

#: Seconds between two looks at what MPI does.
_PERIOD = 1e-3


class Failure(NamedTuple):
    """How a command ended on one rank: exit code, and a line; None for what another rank told."""

    code: int
    line: str | None = None


class Ranks:
    """The ranks that run one command. All call each method, in the same order.

    Parameters
    ----------
    comm : mpi4py.MPI.Intracomm
        It is duplicated.

    Attributes
    ----------
    rank, ranks : int
    """

    def __init__(self, comm: Intracomm) -> None:
        # the end has its own: a rank may come to it while others are still at work
        self._comm, self._end = comm.Dup(), comm.Dup()
        self.rank, self.ranks = int(comm.rank), int(comm.size)

    def wait(self) -> None:
        """Wait for all, without keeping a core busy, then leave within microseconds of another."""
        _meet(self._comm, None)
        self._comm.Barrier()

    def gather(self, value: Value) -> list[Value]:
        """Return what each rank gave, on all of them."""
        _meet(self._comm, None)
        found: list[Value] = self._comm.allgather(value)
        return found

    def share(self, value: Value) -> Value:
        """Return what rank 0 gave."""
        _meet(self._comm, None)
        found: Value = self._comm.bcast(value)
        return found

    def first(self, function: Callable[[], Value]) -> Value | None:
        """Return what a function returns on rank 0, where alone it is called; raise if it does."""
        found: Value | None = None
        error: Exception | None = None
        if self.rank == 0:
            try:
                found = function()
            except Exception as raised:
                error = raised
        error = self.share(error)
        if error is not None:
            raise error
        return found

    def sum(self, array: NDArray[Any]) -> NDArray[Any]:
        """Return the sum of arrays of one shape and type, in the order of ranks, on all of them."""
        import numpy as np

        total = np.array(array, order="C")
        _meet(self._comm, None)
        if self.rank:
            self._comm.Send(total, 0)
        else:
            part = np.empty_like(total)
            for rank in range(1, self.ranks):
                self._comm.Recv(part, rank)
                total += part
        self._comm.Bcast(total)
        return total

    def machine(self, value: Value) -> list[Value]:
        """Return what each rank on this machine gave."""
        from mpi4py import MPI

        _meet(self._comm, None)
        here = self._comm.Split_type(MPI.COMM_TYPE_SHARED)
        found: list[Value] = here.allgather(value)
        here.Free()
        return found

    def leave(self, failure: Failure) -> int:
        """End the command on all ranks; return the exit code, which is that of the first cause.

        A rank that others do not follow, as they wait for it in a call that it will not make, ends
        the job.
        """
        try:
            # what is no error, as a check that failed, or what all have heard of, brings all here
            if _meet(self._end, GRACE if failure.line else None):
                return self._first(self._end.allgather(failure))
        except KeyboardInterrupt:
            failure = Failure(130, "interrupted")
        click.echo(f"Error: rank {self.rank}: {failure.line}", err=True)
        sys.stdout.flush()
        self._end.Abort(failure.code)

    def _first(self, failures: Sequence[Failure]) -> int:
        """Say the first cause, once; return its exit code."""
        told = {rank: f for rank, f in enumerate(failures) if f.code and f.line}
        if not told:
            return max(failure.code for failure in failures)
        rank, (code, line) = next(iter(told.items()))
        if self.rank == 0:
            common = len(told) == self.ranks and len(set(told.values())) == 1
            say(f"Error: {line}" if common else f"Error: rank {rank}: {line}")
        return code


def _meet(comm: Intracomm, limit: float | None) -> bool:
    """Wait for the other ranks, some seconds at most; whether all came."""
    end = None if limit is None else monotonic() + limit
    request = comm.Ibarrier()
    while not request.Test():
        if end is not None and monotonic() > end:
            return False
        sleep(_PERIOD)
    return True


_current: Ranks | None = None


def current() -> Ranks | None:
    """Return the ranks that run this command; None where there is one."""
    return _current


def say(line: str) -> None:
    """Print a line for people, on one rank."""
    if _current is None or _current.rank == 0:
        click.echo(line, err=True)


def run(job: Job, end: Callable[[], Failure]) -> int:
    """Run a command that all ranks have been given; return the exit code of all.

    Parameters
    ----------
    job : Job
        More than one rank.
    end : callable
        Runs the command and returns how it ended.
    """
    global _current
    try:
        _current = _join(job)
    except (ImportError, ValueError) as error:
        if job.rank == 0:
            say(f"Error: {error}")
        return 1
    with warnings.catch_warnings(), nullcontext() if job.rank == 0 else _unheard():
        warnings.showwarning = _show
        try:
            failure = end()
        except SystemExit as error:
            # the end of a batch job's time, or of who reads what is printed
            code = error.code if isinstance(error.code, int) else 1
            failure = Failure(code, "terminated" if code > 128 else "nobody reads what is printed")
        except BaseException as error:
            # what --debug lets pass
            traceback.print_exc()
            failure = Failure(1, f"{type(error).__name__}: {error}")
        return _current.leave(failure)


def _show(message: Warning | str, *_: object, **__: object) -> None:
    """Print a warning as people want it, without the line of code."""
    click.echo(f"Warning: {message}", err=True)


@contextmanager
def _unheard() -> Iterator[None]:
    """Drop what is printed as a result."""
    with open(os.devnull, "w", encoding="utf-8") as nowhere, redirect_stdout(nowhere):
        yield


def _join(job: Job) -> Ranks:
    try:
        from mpi4py import MPI
    except ImportError as error:
        raise ImportError(
            f"a launcher started {job.ranks} ranks, which needs mpi4py and an MPI: "
            "pip install 'taskla[mpi]'"
        ) from error
    if MPI.COMM_WORLD.size != job.ranks:
        raise ValueError(
            f"a launcher started {job.ranks} ranks, but MPI knows of {MPI.COMM_WORLD.size}: it "
            "must be that of the MPI that mpi4py uses, or srun --mpi with what that understands"
        )
    return Ranks(MPI.COMM_WORLD)
