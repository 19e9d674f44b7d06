"""Recording: an engine notes when each task started, ended and where; all else follows later.

While a run lasts, a worker writes three numbers a task into columns that were there before: no
lock, no allocation. What the graph knows of its tasks is put beside them when a trace is asked for.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from taskla.atomic import check_file
from taskla.formats import format_of
from taskla.graph import Grid, TaskGraph
from taskla.traces.files import write
from taskla.traces.tables import TABLES, VERSION, dtype_of, empty
from taskla.traces.trace import Trace

__all__ = ["Recorder", "Recording", "clock", "format_name", "in_words", "of_one_matrix", "timed"]

#: What all times are read from: seconds, monotonic.
clock = time.perf_counter


class Recording:
    """One run that is being recorded.

    Parameters
    ----------
    graph : TaskGraph
        What runs, fused and all.
    info : dict
        What the header says of the run.

    Attributes
    ----------
    graph : TaskGraph
    info : dict
    start, end : (n,) float64 arrays
        Readings of `clock`, NaN for tasks that have not ended.
    worker, rank : (n,) int32 arrays
    joules : (n,) float64 array or None
        Energy of each task, once it is known.
    later : callable or None
        What is left to do before a trace can be made, done when one is asked for.
    messages : list of tuple
        (task, grid, i, j, source, destination, bytes, start, end): a tile that was sent;
        the task that made it, -1 for a first content, the graph's grid by its index, readings.
    samples : list of tuple
        (series, time, value); a series is (name, kind, unit, source), see `Series`.
    submitted, begin, over : float
        Clock readings: of when the engine got the tasks, the run began and was over.
    """

    def __init__(
        self, graph: TaskGraph, info: dict[str, Any], submitted: float | None = None
    ) -> None:
        self.graph = graph
        self.info = info
        self.start = np.empty(graph.n)
        self.end = np.full(graph.n, np.nan)
        self.worker = np.zeros(graph.n, dtype=np.int32)
        self.rank = np.zeros(graph.n, dtype=np.int32)
        self.joules: NDArray[np.float64] | None = None
        self.later: Callable[[], None] | None = None
        self.messages: list[tuple[int, int, int, int, int, int, int, float, float]] = []
        self.samples: list[tuple[tuple[str, str, str, str], float, float]] = []
        self.begin = self.over = clock()
        self.submitted = self.begin if submitted is None else submitted

    def observed(self, worker: int, execute: Callable[[int], None]) -> Callable[[int], None]:
        """Return ``execute(task)`` with a note of when it started and ended, on this worker."""
        return timed(execute, clock, self.start, self.end, self.worker, worker)

    def close(self, error: BaseException | None = None) -> None:
        """Take note that the run is over, and of what it failed with."""
        self.over = clock()
        if error is None:
            self.info["status"] = "completed"
            return
        self.info["status"] = "failed" if isinstance(error, Exception) else "interrupted"
        self.info["error"] = in_words(error)

    @property
    def ran(self) -> NDArray[np.int64]:
        """(r,) The tasks that ran, the one that failed included."""
        return np.flatnonzero(np.isfinite(self.end))


class Recorder:
    """Keeps what runs wrote, and makes a trace of it.

    Parameters
    ----------
    path : path, optional
        Where `save` writes.

    Attributes
    ----------
    facts : dict
        For the header: engines add what they know of the machine.
    context : dict
        What is said of the runs that begin from now on: ``parameters``, ``repeat``, ...
    elsewhere : list of callable
        Called before a trace is made: each adds what other processes have recorded so far.

    Raises
    ------
    OSError
        When no file can be written there.
    """

    def __init__(self, path: str | os.PathLike[str] | None = None) -> None:
        if path is not None:
            check_file(path)
        self.path = None if path is None else Path(path)
        self.facts: dict[str, Any] = {}
        self.context: dict[str, Any] = {}
        self.recordings: list[Recording] = []
        self.elsewhere: list[Callable[[], None]] = []
        self._saved = -1
        self._created = datetime.now(UTC)
        self._origin = clock()

    def start(self, graph: TaskGraph, submitted: float | None = None, **info: Any) -> Recording:
        """Begin to record a run of a graph.

        Parameters
        ----------
        graph : TaskGraph
        submitted : float, optional
            Clock reading of when the engine got the tasks. Default: now.
        **info
            ``engine``, ``policy``, ``workers``, ... for the header.
        """
        about = {"program": graph.name or "graph", "status": "running", **info, **self.context}
        recording = Recording(graph, about, submitted)
        self.recordings.append(recording)
        return recording

    def save(self) -> None:
        """Write what was recorded so far to the recorder's path, if there is anything new.

        Raises
        ------
        ValueError
            When it has no path.
        OSError
            When the file cannot be written.
        """
        if self.path is None:
            raise ValueError("the recorder has no path; write trace() with taskla.traces.write")
        self._fetch()
        closed = sum(recording.info["status"] != "running" for recording in self.recordings)
        # also without a run: what was there before is not to be taken for this
        if closed > self._saved:
            write(self._made(), self.path)
            self._saved = closed

    def trace(self) -> Trace:
        """Return what was recorded so far; runs that are not over are left out."""
        self._fetch()
        return self._made()

    def _fetch(self) -> None:
        for fetch in self.elsewhere:
            fetch()

    def _made(self) -> Trace:
        recordings = [r for r in self.recordings if r.info["status"] != "running"]
        for recording in recordings:
            later, recording.later = recording.later, None
            if later is not None:
                later()
        return _Tables(recordings, self._origin).trace(
            {
                "format": "taskla-trace",
                "version": VERSION,
                "created": self._created.isoformat(timespec="seconds"),
                "command": _command(),
                **self.facts,
            }
        )


def timed(
    execute: Callable[[int], None],
    now: Callable[[], float],
    start: NDArray[np.float64],
    end: NDArray[np.float64],
    worker: NDArray[np.int32],
    number: int,
) -> Callable[[int], None]:
    """Return ``execute(task)`` with a note of the times it started and ended, and of its worker."""
    # Into a memoryview a number goes three times as fast as into an array. Its stub knows
    # integers alone.
    starts: Any = start.data
    ends: Any = end.data
    workers = worker.data

    def run(task: int) -> None:
        begin = now()
        try:
            execute(task)
        finally:
            ends[task] = now()
            starts[task] = begin
            workers[task] = number

    return run


def in_words(error: BaseException) -> str:
    """Return what a header says of an error: its type, its message and its notes."""
    words = [f"{type(error).__name__}: {error}" if str(error) else type(error).__name__]
    return "; ".join([*words, *getattr(error, "__notes__", [])])


class _Codes(dict[Any, int]):
    """Numbers for names, given in order of first use."""

    def __missing__(self, name: Any) -> int:
        self[name] = len(self)
        return self[name]


class _Tables:
    """Makes the tables of a trace from recordings."""

    def __init__(self, recordings: list[Recording], origin: float) -> None:
        self._recordings = recordings
        self._origin = origin
        self._kernels, self._formats, self._devices = _Codes(), _Codes(), _Codes(cpu=0)
        self._compressions, self._series = _Codes(none=0), _Codes()
        self._graphs: dict[bytes, int] = {}  # what a graph consists of -> its number
        self._matrices: list[dict[str, Any]] = []
        self._numbers: list[NDArray[np.int64]] = []  # of the matrix of each grid of a graph
        self._parts: dict[str, list[NDArray[Any]]] = {name: [] for name in TABLES}

    def trace(self, header: dict[str, Any]) -> Trace:
        runs = [self._run(number, r) for number, r in enumerate(self._recordings)]
        tables = {
            name: np.concatenate(parts) if parts else empty(name)
            for name, parts in self._parts.items()
        }
        series = [
            dict(zip(("name", "kind", "unit", "source"), about, strict=True))
            for about in self._series
        ]
        return Trace(
            {
                **header,
                "runs": runs,
                "graphs": [{"graph": number} for number in self._graphs.values()],
                "matrices": self._matrices,
                "kernels": list(self._kernels),
                "formats": list(self._formats),
                "compressions": list(self._compressions),
                "devices": list(self._devices),
                "series": series,
            },
            tables,
        )

    def _run(self, number: int, recording: Recording) -> dict[str, Any]:
        """Add the tables of one run; return what the header says of it."""
        graph, origin = recording.graph, self._origin
        # a repeat may have built its graph anew
        key = _fingerprint(graph)
        if key not in self._graphs:
            self._graphs[key] = len(self._graphs)
            self._add_graph(graph, self._graphs[key])
        code = self._graphs[key]
        self._parts["tasks"].append(self._tasks(number, recording, code))
        if recording.messages:
            self._parts["messages"].append(self._messages(number, recording, code))
        if recording.samples:
            samples = empty("samples", len(recording.samples))
            samples["run"] = number
            samples["series"] = [self._series[about] for about, _, _ in recording.samples]
            samples["time"] = np.array([at for _, at, _ in recording.samples]) - origin
            samples["value"] = [value for _, _, value in recording.samples]
            self._parts["samples"].append(samples)
        return {
            "run": number,
            "graph": code,
            "tasks": graph.n,
            "tile_tasks": int(graph.multiplicity.sum()),
            "submitted": recording.submitted - origin,
            "begin": recording.begin - origin,
            "end": recording.over - origin,
            **recording.info,
        }

    def _add_graph(self, graph: TaskGraph, code: int) -> None:
        numbers = []
        for before, grid in zip((None, *graph.grids), graph.grids, strict=False):
            # the tiles of a matrix that are in several formats are still one matrix
            if before is None or not of_one_matrix(before, grid):
                about = {name: getattr(grid, name) for name in ("m", "n", "nb", "scratch")}
                about |= {"name": grid.name if grid.scratch else grid.matrix, "graph": code}
                self._matrices.append({**about, "dtype": grid.dtype.name})
            numbers.append(len(self._matrices) - 1)
        self._numbers.append(np.array(numbers, dtype=np.int64))
        accesses = empty("accesses", graph.tiles.size)
        accesses["graph"], accesses["task"] = code, graph.task_of_access
        accesses["operand"], accesses["mode"] = graph.operand, graph.modes
        accesses["rows"], accesses["cols"] = graph.access_shapes()
        accesses["lr_rank"] = -1
        for number, grid in zip(numbers, graph.grids, strict=True):
            mine = np.flatnonzero((graph.tiles >= grid.base) & (graph.tiles < grid.end))
            accesses["matrix"][mine] = number
            accesses["i"][mine], accesses["j"][mine] = grid.coordinates(graph.tiles[mine])
            accesses["format"][mine] = self._formats[grid.format_name]
        self._parts["accesses"].append(accesses)
        source, target = graph.edges()
        edges = empty("edges", source.size)
        edges["graph"], edges["source"], edges["target"] = code, source, target
        self._parts["edges"].append(edges)

    def _tasks(self, number: int, recording: Recording, code: int) -> NDArray[Any]:
        graph, ran = recording.graph, recording.ran
        tasks = np.zeros(graph.n, dtype_of("tasks"))
        kinds = graph.kinds
        per_kind = {
            "kernel": [self._kernels[kind.operation] for kind in kinds],
            "format": [self._formats[kind.precision or format_name(kind.dtype)] for kind in kinds],
            "compression": [self._compressions[kind.compression or "none"] for kind in kinds],
        }
        for name, codes in per_kind.items():
            tasks[name] = np.array(codes, dtype=np.int16)[graph.kind]
        self._place(tasks, graph, self._numbers[code])
        tasks["run"], tasks["task"], tasks["k"] = number, np.arange(graph.n), graph.iteration
        tasks["rank"], tasks["worker"] = recording.rank, recording.worker
        tasks["flops"], tasks["priority"] = graph.flops(), graph.priorities()
        tasks["bytes_read"] = graph.nbytes_read()
        tasks["bytes_written"] = graph.nbytes_written()
        tasks["lr_rank"], tasks["tile_tasks"] = -1, graph.multiplicity
        tasks["joules"] = np.nan if recording.joules is None else recording.joules
        begin = recording.begin - self._origin
        tasks["submit"] = recording.submitted - self._origin
        tasks["start"] = recording.start - self._origin
        tasks["end"] = recording.end - self._origin
        # a task is ready when the last of its predecessors has ended
        ready = np.full(graph.n, begin)
        source, target = graph.edges()
        ended = np.isfinite(tasks["end"][source])
        np.maximum.at(ready, target[ended], tasks["end"][source[ended]])
        tasks["ready"] = ready
        return tasks[ran]

    def _place(self, tasks: NDArray[Any], graph: TaskGraph, numbers: NDArray[np.int64]) -> None:
        """Fill in the tile that each task writes first, or reads first if it writes none."""
        tile = graph.first_written
        for number, grid in zip(numbers.tolist(), graph.grids, strict=True):
            mine = np.flatnonzero((tile >= grid.base) & (tile < grid.end))
            tasks["matrix"][mine] = number
            tasks["i"][mine], tasks["j"][mine] = grid.coordinates(tile[mine])

    def _messages(self, number: int, recording: Recording, code: int) -> NDArray[Any]:
        messages = empty("messages", len(recording.messages))
        messages["run"] = number
        names = ("task", "matrix", "i", "j", "source", "destination", "bytes", "start", "end")
        for name, values in zip(names, zip(*recording.messages, strict=True), strict=True):
            messages[name] = values
        messages["matrix"] = self._numbers[code][messages["matrix"]]
        messages["start"] -= self._origin
        messages["end"] -= self._origin
        return messages


def of_one_matrix(before: Grid, grid: Grid) -> bool:
    """Whether neighbouring grids have the tiles of one matrix that are in different formats."""
    if grid.format is None or grid.scratch or before.scratch or before.format is None:
        return False
    return (before.matrix, before.m, before.n, before.nb) == (grid.matrix, grid.m, grid.n, grid.nb)


def _fingerprint(graph: TaskGraph) -> bytes:
    """Return what is the same for two graphs exactly if they consist of the same."""
    digest = blake2b(repr((graph.grids, graph.kinds, graph.name)).encode())
    accesses = graph.indptr, graph.tiles, graph.operand, graph.modes
    # the dependencies of all ranks' tasks are not those that the accesses imply
    for array in (graph.kind, *accesses, graph.succ_ptr, graph.succ):
        digest.update(array.tobytes())
    return digest.digest()


def _command() -> list[str]:
    """Return the command line; of ``python -m taskla`` the program's name is the package's."""
    if not sys.argv:
        return []
    program = Path(sys.argv[0])
    name = program.parent.name if program.name == "__main__.py" else program.name
    return [name, *sys.argv[1:]]


def format_name(dtype: np.dtype[Any]) -> str:
    """Return the name of the format of tiles; those of pivots hold integers: ``int32``."""
    try:
        return format_of(dtype).name
    except ValueError:
        return dtype.name
