"""Engines: what runs a task graph.

`engine` makes one by name, `current` tells which one is in force, `available` lists them.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from importlib import import_module
from typing import Any

from taskla.engines import base
from taskla.engines.base import Engine
from taskla.launch import job
from taskla.matrix_layout import set_map_tiles
from taskla.matrix_place import Place, set_dask_maker, set_place

__all__ = ["Engine", "available", "current", "dask_engine", "engine"]

# Imported on first use: an engine may need packages that are not installed.
_ENGINES = {"threads": "ThreadsEngine", "mpi": "MPIEngine", "dask": "DaskEngine"}


def engine(name: str | None = None, **options: Any) -> Engine:
    """Return an engine, to be entered by ``with`` or made the default.

    Parameters
    ----------
    name : str, optional
        A name that `taskla.engines.available` lists. Default: "mpi" where ``mpirun`` or ``srun``
        has started several ranks of this program, else "threads".
    **options
        Those of the engine: see `taskla.engines.threads.ThreadsEngine`,
        `taskla.engines.mpi.MPIEngine` and `taskla.engines.dask.DaskEngine`.

    Returns
    -------
    Engine
        In force inside ``with``, or after ``.set_default()`` wherever no ``with`` names another.

    Raises
    ------
    ValueError
        When there is no engine of that name, or an option has a value that is not allowed.
    TypeError
        When the engine has no such option.

    Examples
    --------
    >>> with engine("threads", workers=2, policy="prio") as e:
    ...     current() is e
    True
    >>> engine("threads", workers=1).set_default()
    >>> current().workers
    1
    """
    if name is None:
        name = "mpi" if job().ranks > 1 else "threads"
    if name not in _ENGINES:
        raise ValueError(f"engine {name!r} does not exist; there are {', '.join(_ENGINES)}")
    make = _load(name)
    allowed = inspect.signature(make).parameters
    for option in options:
        if option not in allowed:
            raise TypeError(
                f"engine {name!r} has no option {option!r}; it has {', '.join(allowed)}"
            )
    return make(**options)


def current() -> Engine:
    """Return the engine in force: of the innermost ``with``, else the process's default.

    Where none was chosen it is "threads" with default options, on each rank of a job as well: a
    program that asks for nothing shares nothing.
    """
    found = base.entered() or base.process_default()
    if found is None:
        engine("threads").set_default()
        return current()
    return found


def available() -> dict[str, str]:
    """Return the names of the engines that exist, each with one line on what it does."""
    return {name: (_load(name).__doc__ or "").partition("\n")[0] for name in _ENGINES}


def _load(name: str) -> type[Engine]:
    """Import the class of a name in the table."""
    loaded: type[Engine] = getattr(import_module(f"taskla.engines.{name}"), _ENGINES[name])
    return loaded


def _map_tiles(function: Callable[[int, int], None], tiles: list[tuple[int, int]]) -> None:
    current().map(function, tiles)


# Matrices are made tile by tile on the workers of the engine in force; they know of no engine.
set_map_tiles(_map_tiles)


def _place() -> Place:
    return current().place


set_place(_place)


def dask_engine() -> Any:
    """Return the engine for what is on Dask: that in force if it is "dask", else an implicit one.

    An implicit engine uses the current client's cluster, or, without one, what Dask computes on.
    """
    found = base.entered() or base.process_default()
    if found is not None and found.name == "dask":
        return found
    return import_module("taskla.engines.dask").DaskEngine.implicit()


set_dask_maker(dask_engine)
