"""What a Dask worker tells the client of a journal: its notes, memory, the machine's meters.

The journal puts a plugin into the workers for as long as it records, also into those that come
meanwhile. One that is told to leave hands what it has noted to the scheduler.
"""

from __future__ import annotations

import pickle
import socket
from collections.abc import Hashable
from pathlib import Path
from typing import Any, NamedTuple

from taskla import energy
from taskla.engines.dask_notes import Book, Noted, Transfer, books
from taskla.engines.dask_watch import Watch
from taskla.engines.machines import portable
from taskla.machine import boot
from taskla.traces.recorder import clock

__all__ = ["Report", "forget", "plugin", "reading", "report", "topic"]


class Report(NamedTuple):
    """What a worker has to tell.

    Attributes
    ----------
    name : object
        Dask's name of the worker.
    threads : int
    machine : str
        The same for processes that have one clock, and the same meters.
    noted : list of Noted
    lost : dict of str to int
        By program: tile tasks whose times have gone.
    transfers : list of Transfer
    memory : (list of float, list of float)
        Times, bytes.
    readings : dict
        Meter's name -> times, joules.
    source : taskla.energy.Source or None
        The machine's meters, told by the process that reads them.
    """

    name: Any
    threads: int
    machine: str
    noted: list[Noted]
    lost: dict[str, int]
    transfers: list[Transfer]
    memory: tuple[list[float], list[float]]
    readings: dict[str, tuple[list[float], list[float]]]
    source: energy.Source | None


def plugin(journal: str, meters: bool) -> Any:
    """Return the plugin of workers that keeps their notes.

    Parameters
    ----------
    journal : str
        Its name.
    meters : bool
        Whether to read the machines' meters.
    """
    return __getattr__("NotesPlugin")(journal, meters)


def topic(journal: str) -> str:
    """Return the name of a journal's plugin, and of its entries in the scheduler's log."""
    return f"taskla-notes-{journal}"


def report(journal: str, dask_worker: Any) -> Report | None:
    """Return what a worker has noted since it was last asked; None if it notes nothing."""
    book = books.get((journal, str(dask_worker.address)))
    if book is None:
        return None
    book.look(dask_worker)
    noted, lost, transfers = book.take()
    memory, readings = book.watch.take()
    return Report(
        name=dask_worker.name,
        threads=int(dask_worker.state.nthreads),
        machine=boot(),
        noted=noted,
        lost=lost,
        transfers=transfers,
        memory=memory,
        readings=readings,
        source=book.watch.source and portable(book.watch.source),
    )


def reading() -> tuple[str, float]:
    """Return the machine that this process is on, and what its clock shows."""
    return boot(), clock()


def forget(journal: str, dask_scheduler: Any) -> None:
    """Clear a scheduler's log of what workers of a journal have left there."""
    dask_scheduler._broker.truncate(topic(journal))


def _claimed(journal: str) -> socket.socket | None:
    """Return what one process of a machine can have at a time, until it ends; None for others."""
    if not Path("/proc/self").exists():
        # names without a file are Linux's
        return None
    claim = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        claim.bind(f"\0taskla-{journal}")
    except OSError:
        claim.close()
        return None
    return claim


def _meters() -> energy.Source:
    """Return the meters of this machine; without any, why there are none."""
    try:
        return energy.find("meters")
    except (OSError, ValueError) as error:
        return energy.Source((), None, reason=str(error))


def _make() -> Any:
    from distributed.diagnostics.plugin import WorkerPlugin

    class NotesPlugin(WorkerPlugin):  # type: ignore[misc]
        """Keeps a worker's notes for a journal, and samples memory and meters meanwhile."""

        def __init__(self, journal: str, meters: bool) -> None:
            self.name = topic(journal)
            self._journal, self._meters = journal, meters

        def setup(self, worker: Any) -> None:
            self._worker = worker
            self._claim = _claimed(self._journal) if self._meters else None
            self._book = Book(Watch(None if self._claim is None else _meters()))
            self._book.begin(worker)
            self._book.watch.start()
            books[self._journal, str(worker.address)] = self._book

        def teardown(self, worker: Any) -> None:
            if worker.status.name.startswith("closing"):
                # nobody will ask it again
                told = report(self._journal, worker)
                entry = str(worker.address), told
                worker.log_event(topic(self._journal), pickle.dumps(entry))
            books.pop((self._journal, str(worker.address)), None)
            self._book.watch.stop()
            if self._claim is not None:
                self._claim.close()

        def transition(self, key: Hashable, start: str, finish: str, **details: Any) -> None:
            if finish == "memory":
                self._book.look(self._worker)

    NotesPlugin.__module__ = __name__
    NotesPlugin.__qualname__ = "NotesPlugin"
    return NotesPlugin


def __getattr__(name: str) -> Any:
    # made when it is first asked for, as Dask may not be installed; pickle finds it by its name
    if name != "NotesPlugin":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name not in globals():
        globals()[name] = _make()
    return globals()[name]
