"""OTF2, the format of Score-P's tools and Vampir, by the `otf2` package.

A rank is a location group, a worker a location, a kernel a region; the messages of a rank and what
was sampled have locations of their own, as events of one location stand in the order of time.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from taskla.traces.exports.shared import curves, replacing_folder, title
from taskla.traces.trace import Run, Trace

__all__ = ["TICKS", "write"]

#: Ticks of the clock in a second.
TICKS = 10**9

#: What a folder written here holds.
_OURS = ("traces", "traces.otf2", "traces.def", "traces/[0-9]*.def", "traces/[0-9]*.evt")

# attribute -> its type in OTF2, what it is
_ATTRIBUTES = {
    "task": ("INT32", "number of the task"),
    "matrix": ("STRING", "matrix of the tile that it writes first"),
    "i": ("INT32", "row of that tile, -1 for none"),
    "j": ("INT32", "column of that tile, -1 for none"),
    "k": ("INT32", "step of the algorithm's loop, -1 for none"),
    "flops": ("DOUBLE", "floating-point operations"),
    "bytes_read": ("INT64", "bytes of the tiles that it reads"),
    "bytes_written": ("INT64", "bytes of the tiles that it writes"),
    "format": ("STRING", "number format that it computes in"),
    "joules": ("DOUBLE", "energy, where it is known"),
}


class _Event(NamedTuple):
    """An event of a location: when, in ticks, which method of the writer, and its arguments."""

    time: int
    method: str
    arguments: tuple[Any, ...]


def write(trace: Trace, path: str | os.PathLike[str], run: int | None = None) -> None:
    """Write one run as an OTF2 archive: a folder with ``traces.otf2``, whole or not at all.

    Times are nanoseconds from the run's begin. A message is an MPI send and receive with its number
    as the tag; a sampled quantity is a metric.

    Parameters
    ----------
    trace : Trace
    path : path
        A folder; one that holds nothing but such an archive is replaced.
    run : int, optional
        Default: the one that `Trace.run` chooses.

    Raises
    ------
    OSError
        When the parent folder does not exist, or what is there must not be replaced.
    ValueError
        When there is no such run.
    ImportError
        When otf2 is not installed.
    """
    try:
        import otf2.writer
    except ImportError as error:
        raise ImportError("OTF2 needs otf2: pip install 'taskla[otf2]'") from error

    chosen = trace.run(run)
    with (
        replacing_folder(path, _OURS) as folder,
        otf2.writer.open(os.fspath(folder), timer_resolution=TICKS) as archive,
    ):
        _Archive(archive, chosen).write()


class _Archive:
    """Writes a run into an archive that is open."""

    def __init__(self, archive: Any, run: Run) -> None:
        self._archive = archive
        self._definitions = archive.definitions
        self._run = run
        root = self._definitions.system_tree_node("taskla", class_name="machine")
        self._groups = {
            rank: self._definitions.location_group(f"rank {rank}", system_tree_parent=root)
            for rank in sorted({worker.rank for worker in run.workers})
        }
        self._whole = self._definitions.location_group(
            _plain(f"run {run.program}"), system_tree_parent=root
        )

    def write(self) -> None:
        for number, worker in enumerate(self._run.workers):
            group = self._groups[worker.rank]
            writer = self._archive.event_writer(_plain(worker.name), group=group)
            self._put(writer, self._tasks(number))
        if self._run.messages.size:
            self._write_messages()
        self._write_samples()

    def _put(self, writer: Any, events: Iterable[_Event]) -> None:
        # stable: of two events at one time the one that was made first comes first
        for time, method, arguments in sorted(events, key=lambda event: event.time):
            getattr(writer, method)(time, *arguments)

    def _ticks(self, times: NDArray[Any]) -> list[int]:
        ticks = np.rint((times - self._run.begin) * TICKS).astype(np.int64)
        found: list[int] = np.maximum(ticks, 0).tolist()
        return found

    def _tasks(self, number: int) -> Iterator[_Event]:
        from otf2.enums import Type

        run = self._run
        known = {
            name: self._definitions.attribute(name, meaning, getattr(Type, kind))
            for name, (kind, meaning) in _ATTRIBUTES.items()
        }
        regions = {
            code: self._definitions.region(_plain(run.kernels[code]))
            for code in np.unique(run.tasks["kernel"]).tolist()
        }
        tasks = run.tasks[run.lanes == number]
        tasks = tasks[np.lexsort((tasks["task"], tasks["start"]))]
        matrices, formats = [*run.trace.names("matrices"), ""], run.trace.names("formats")
        starts, ends = (self._ticks(tasks[name]) for name in ("start", "end"))
        for start, end, task in zip(starts, ends, tasks, strict=True):
            region = regions[int(task["kernel"])]
            names = {
                "matrix": _plain(matrices[task["matrix"]]),
                "format": _plain(formats[task["format"]]),
            }
            attributes = {
                known[name]: names[name] if name in names else task[name].item()
                for name in _ATTRIBUTES
                if name != "joules" or np.isfinite(task["joules"])
            }
            yield _Event(start, "enter", (region, attributes))
            yield _Event(end, "leave", (region,))

    def _write_messages(self) -> None:
        from otf2.enums import GroupType, Paradigm

        places = tuple(
            self._definitions.location("messages", group=group) for group in self._groups.values()
        )
        define = self._definitions.group
        define("ranks", GroupType.COMM_LOCATIONS, Paradigm.MPI, members=places)
        everyone = define("all ranks", GroupType.COMM_GROUP, Paradigm.MPI, members=places)
        comm = self._definitions.comm("messages", group=everyone)
        index = {rank: number for number, rank in enumerate(self._groups)}
        events: list[list[_Event]] = [[] for _ in places]
        messages = self._run.messages
        sent, arrived = (self._ticks(messages[name]) for name in ("start", "end"))
        for tag, message in enumerate(messages):
            source = index.get(int(message["source"]))
            target = index.get(int(message["destination"]))
            if source is None or target is None:
                continue  # a rank where nothing ran is no location
            size = int(message["bytes"])
            events[source].append(_Event(sent[tag], "mpi_send", (target, comm, tag, size)))
            events[target].append(_Event(arrived[tag], "mpi_recv", (source, comm, tag, size)))
        for place, mine in zip(places, events, strict=True):
            self._put(self._archive.event_writer_from_location(place), mine)

    def _write_samples(self) -> None:
        from otf2.enums import LocationType

        writer = self._archive.event_writer("samples", LocationType.METRIC, group=self._whole)
        events = []
        for series in curves(self._run):
            name = _plain(title(series))
            metric = self._definitions.metric(name, unit=_plain(series.unit))
            for time, value in zip(self._ticks(series.time), series.value.tolist(), strict=True):
                events.append(_Event(time, "metric", (metric, [value])))
        self._put(writer, events)


def _plain(name: str) -> str:
    """A name that C can hold: it ends at the first zero, and is UTF-8."""
    return name.replace("\0", " ").encode("utf-8", "replace").decode()
