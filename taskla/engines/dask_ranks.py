"""A Dask cluster on the ranks of an MPI job: scheduler, client, workers, each a rank's process.

MPI tells the ranks where the scheduler is and when the script has ended; all else goes by Dask's
own connections. A worker is the rank's process itself, without a nanny: a nanny forks, which a
process that MPI has started must not. Hence a worker that uses too much memory pauses, but is not
killed and restarted.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from taskla.engines.dask_meeting import (
    CLIENT,
    SCHEDULER,
    abort,
    address,
    end_all,
    leave,
    tell_address,
    until_end,
)
from taskla.engines.dask_script import run_script
from taskla.engines.dask_start import LOOPBACK, Refused, Settings, agree, hush, join

if TYPE_CHECKING:
    from mpi4py.MPI import Intracomm

__all__ = ["Settings", "launch"]

# Seconds for a connection to close at the end, whoever is gone already.
_CLOSING = 3.0

# What launchers leave in the environment of a rank.
_LAUNCHERS = ("OMPI_COMM_WORLD_", "PMI_", "PMIX_", "SLURM_STEP_NUM_TASKS")

# Why a worker is closed for good, beside having been retired; any other one comes back.
_FOR_GOOD = ("scheduler-close", "scheduler-close-worker", "worker-lifetime-reached")


def launch(script: str, arguments: Sequence[str] = (), settings: Settings | None = None) -> int:
    """Run a script on a Dask cluster made of the ranks of this job; all ranks call this.

    Rank 0 is the scheduler, rank 1 runs the script, the others are workers, named by their ranks.
    The script runs like ``python script``, when all workers are there, with a client that is the
    current one; ``Client()`` connects to the same scheduler.

    Parameters
    ----------
    script : str
        A file; only rank 1 reads it.
    arguments : sequence of str
        ``sys.argv[1:]`` of the script.
    settings : Settings, optional

    Returns
    -------
    int
        The exit code, the script's, on all ranks. They are to leave at once.

    Raises
    ------
    ImportError
        On all ranks: when mpi4py is not installed.
    ValueError
        On all ranks, with the same words: when there are less than three, there is no such script,
        or a setting is not allowed.

    Notes
    -----
    What fails otherwise, on any rank, is said on standard error, and ends the job by ``MPI_Abort``.
    """
    settings = settings or Settings()
    comm = join(settings)
    try:
        nthreads, here = agree(comm, script, settings)
        for name in [name for name in os.environ if name.startswith(_LAUNCHERS)]:
            # the script is one program, and so are those that it starts: no ranks
            del os.environ[name]
        sys.path.insert(0, os.path.dirname(os.path.abspath(script)))
        if comm.rank == CLIENT:
            return _be_client(comm, script, arguments, settings)
        scheduling = comm.rank == SCHEDULER
        asyncio.run(
            _schedule(comm, settings, here) if scheduling else _work(comm, settings, here, nthreads)
        )
        return leave(comm)
    except Refused:
        raise
    except KeyboardInterrupt:
        abort(comm, "interrupted", 130)
    except BaseException as error:
        abort(comm, f"{type(error).__name__}: {error}")


# -- the ranks -------------------------------------------------------------------------------------


def _be_client(comm: Intracomm, script: str, arguments: Sequence[str], settings: Settings) -> int:
    """Run the script, then end all."""
    import dask
    from distributed import Client

    scheduler = address(comm, settings.timeout)
    dask.config.set({"scheduler-address": scheduler})
    # held, as clients that nobody holds are closed
    client = Client(scheduler, timeout=settings.timeout)
    client.wait_for_workers(comm.size - 2, timeout=settings.timeout)
    code = run_script(script, arguments)
    for client in list(Client._instances):
        if not client.asynchronous:
            with suppress(Exception):
                client.close(timeout=_CLOSING)
    end_all(comm, code)
    return code


async def _schedule(comm: Intracomm, settings: Settings, here: str | None) -> None:
    """Be the scheduler until the script has ended."""
    from distributed import Scheduler
    from distributed.utils import get_ip

    dashboard = settings.dashboard_address
    scheduler = await Scheduler(
        host=here or get_ip(),
        port=0,
        dashboard=dashboard is not None,
        dashboard_address=dashboard or f"{LOOPBACK}:0",
    )
    tell_address(comm, scheduler.address)
    # the script may close it, and go on
    await until_end(comm)
    _hush()
    await scheduler.close(reason="the script has ended")


async def _work(comm: Intracomm, settings: Settings, here: str | None, nthreads: int) -> None:
    """Be a worker until the script has ended."""
    from distributed.comm import get_address_host
    from distributed.utils import get_ip

    scheduler = address(comm, settings.timeout)
    ending = asyncio.create_task(until_end(comm))
    ending.add_done_callback(_hush)
    while not ending.done():
        worker = await _worker_class()(
            scheduler,
            name=comm.rank,
            host=here or get_ip(get_address_host(scheduler)),
            nthreads=nthreads,
            memory_limit=settings.memory_limit,
            local_directory=settings.local_directory,
            death_timeout=settings.timeout,
        )
        working = asyncio.create_task(worker.finished())
        await asyncio.wait({working, ending}, return_when=asyncio.FIRST_COMPLETED)
        if ending.done():
            # the scheduler tells all workers to close, unless it is gone
            await asyncio.wait({working}, timeout=_CLOSING)
            await worker.close(timeout=_CLOSING, executor_wait=False)
        elif worker.retired or worker.cause in _FOR_GOOD:
            await ending


def _hush(*_: object) -> None:
    """Let Dask log no more: that all is cut off at the end is no news."""
    hush(logging.CRITICAL)


def _worker_class() -> Any:
    from distributed import Worker

    class RankWorker(Worker):  # type: ignore[misc]
        """Notes why it is closed, and does not wait for tasks when all ends."""

        cause: str | None = None
        retired = False

        async def close(
            self,
            timeout: float = 30,
            executor_wait: bool = True,
            nanny: bool = True,
            reason: str = "worker-close",
        ) -> str | None:
            if self.cause is None:
                self.cause, self.retired = reason, self.status.name == "closing_gracefully"
            if reason == "scheduler-close":
                _hush()
                # nobody waits for what runs
                executor_wait = False
            closed: str | None = await super().close(timeout, executor_wait, nanny, reason)
            return closed

    return RankWorker
