"""The start of a Dask cluster on ranks: what was asked for, and whether all of them can do it."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from taskla.engines.dask_meeting import CLIENT, meet
from taskla.engines.oversubscription import usual
from taskla.launch import job

if TYPE_CHECKING:
    from mpi4py.MPI import Intracomm

__all__ = ["LOOPBACK", "Refused", "Settings", "agree", "hush", "join"]

LOOPBACK = "127.0.0.1"


@dataclass(frozen=True)
class Settings:
    """Settings of the cluster, in Dask's words.

    Attributes
    ----------
    interface : str, optional
        Network interface of scheduler and workers. Default: the loopback one when all ranks are on
        one machine, else that by which a machine reaches the others.
    nthreads : int, optional
        Of each worker. Default: the cores of its machine, shared by the workers there.
    memory_limit : str
        Of each worker, as of ``dask worker``.
    local_directory : str, optional
        For files of workers. Default: Dask's.
    dashboard_address : str, optional
        Where the scheduler's dashboard listens; None for no dashboard.
    timeout : float
        Seconds that ranks wait for one another at the start.
    """

    interface: str | None = None
    nthreads: int | None = None
    memory_limit: str = "auto"
    local_directory: str | None = None
    dashboard_address: str | None = f"{LOOPBACK}:8787"
    timeout: float = 60.0


class Refused(ValueError):
    """What was asked for cannot be done, as all ranks know."""


def join(settings: Settings) -> Intracomm:
    """Return the ranks of this job; raise, on all of them, where there are too few."""
    try:
        from mpi4py import MPI
    except ImportError as error:
        raise ImportError("dask-run needs mpi4py and an MPI: pip install 'taskla[mpi]'") from error
    world, started = MPI.COMM_WORLD, job().ranks
    if started not in (1, world.size):
        raise ValueError(
            f"a launcher started {started} ranks, but MPI knows of {world.size}: it must be that "
            "of the MPI that mpi4py uses, or srun --mpi with what that understands"
        )
    if world.size < 3:
        there = "there is 1" if world.size == 1 else f"there are {world.size}"
        raise ValueError(
            "dask-run needs at least 3 ranks, one each for scheduler, client and a worker, and "
            f"{there}: start it by mpirun -n 3, or more"
        )
    meet(world, settings.timeout)
    # a communicator of its own: the script may use MPI as well
    return world.Dup()


def agree(comm: Intracomm, script: str, settings: Settings) -> tuple[int, str | None]:
    """Check what was asked for; return this rank's threads, and its address if that is settled."""
    from mpi4py import MPI

    meet(comm, settings.timeout)
    machine = comm.Split_type(MPI.COMM_TYPE_SHARED)
    alike = machine.Split(comm.rank > CLIENT)
    nthreads = settings.nthreads or usual(alike)
    here, wrong = LOOPBACK if machine.size == comm.size else None, None
    try:
        _check(comm.rank, script, settings, nthreads)
        if settings.interface is not None:
            from distributed.utils import get_ip_interface

            here = get_ip_interface(settings.interface)
    except (ValueError, ImportError, OSError) as error:
        wrong = str(error)
    # some ranks import faster than others
    meet(comm, settings.timeout)
    told = {rank: words for rank, words in enumerate(comm.allgather(wrong)) if words}
    if told:
        # the client alone looks at the script
        rank, words = next(iter(told.items()))
        common = len(told) == comm.size or rank == CLIENT
        raise Refused(words if common else f"rank {rank}: {words}")
    return nthreads, here


def _check(rank: int, script: str, settings: Settings, nthreads: int) -> None:
    """Raise what is wrong with what was asked for, as far as one can tell beforehand."""
    if rank == CLIENT and not os.path.exists(script):
        raise ValueError(f"script {script!r} does not exist")
    try:
        from distributed.utils import clean_dashboard_address
        from distributed.worker_memory import parse_memory_limit
    except ImportError as error:
        raise ImportError("dask-run needs distributed: pip install 'taskla[dask]'") from error
    # as of a LocalCluster: what is printed is the script's
    hush(logging.WARNING)
    try:
        parse_memory_limit(settings.memory_limit, nthreads, logger=logging.getLogger("distributed"))
    except ValueError:
        raise ValueError(
            f"memory-limit is {settings.memory_limit!r}; allowed: bytes, such as 4GB, a fraction "
            "of the machine's memory, 0 for none, auto"
        ) from None
    try:
        clean_dashboard_address(settings.dashboard_address or 0)
    except ValueError:
        raise ValueError(
            f"dashboard-address is {settings.dashboard_address!r}; allowed: HOST:PORT, :PORT"
        ) from None
    if settings.local_directory is not None and rank > CLIENT:
        os.makedirs(settings.local_directory, exist_ok=True)


def hush(level: int) -> None:
    """Let Dask log from a level on, unless its configuration has a word on that."""
    import dask

    configured = {*dask.config.config, *dask.config.get("distributed", {})}
    if not configured & {"logging", "logging-file-config"}:
        logging.getLogger("distributed").setLevel(level)
