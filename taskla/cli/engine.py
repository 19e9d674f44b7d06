"""The engine of a command: that of one process, or that of the ranks of a job."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from taskla import engines
from taskla.cli.ranks import current
from taskla.engines.mpi import MPIEngine
from taskla.engines.threads import ThreadsEngine

if TYPE_CHECKING:
    from taskla.engines import Engine

__all__ = ["choose"]


def choose(
    name: str | None, others: Sequence[str] = (), **options: Any
) -> ThreadsEngine | MPIEngine:
    """Return an engine; where ranks run the command together, one for all of them.

    Parameters
    ----------
    name : str or None
        Default: "threads", and "mpi" for more ranks than one.
    others : sequence of str
        Names that the command knows beside these.
    **options
        Of the engine.

    Raises
    ------
    ValueError
        When there is no such engine, or it is not for as many ranks as there are.
    """
    if name not in (None, "threads", "mpi"):
        raise ValueError(f"engine is {name!r}; allowed: {', '.join(['threads', 'mpi', *others])}")
    ranks = current()
    count = 1 if ranks is None else ranks.ranks
    if name == "threads" and count > 1:
        raise ValueError(
            f"engine is {name!r}, which is one process, and there are {count} ranks; leave it out, "
            "or start one"
        )
    made: Engine = engines.engine(name or ("threads" if count == 1 else "mpi"), **options)
    if not isinstance(made, ThreadsEngine | MPIEngine):
        raise ValueError(f"engine is {name!r}; allowed: threads, mpi")
    if isinstance(made, MPIEngine) and made.ranks != count:
        raise ValueError(
            f"MPI knows of {made.ranks} ranks, and the environment of {count}: start taskla by "
            "mpirun, mpiexec or srun"
        )
    return made
