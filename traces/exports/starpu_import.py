"""StarPU's ``tasks.rec``, read as a trace: to be analysed, shown and replayed like one's own.

See `taskla.traces.exports.starpu` for the format.
"""

from __future__ import annotations

import heapq
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from math import inf, isfinite
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from numpy.typing import NDArray

from taskla.traces.checks import check
from taskla.traces.tables import VERSION, empty
from taskla.traces.trace import Trace

__all__ = ["read"]

_FIELD = re.compile(r"([a-zA-Z%][a-zA-Z0-9_]*):(.*)", re.DOTALL)

# StarPU's letters for modes -> the codes of `taskla.traces.tables.MODES`; S, scratch, is no access.
_MODES = {"R": 1, "W": 2, "RW": 3, "X": 4, "RX": 4, "WX": 4, "RWX": 4}

# A line of more characters, or more edges between tasks, are no trace.
_MOST_LINE = 2**26
_MOST_EDGES = 2**27
_MOST_WORKERS = 10**6
_MOST_NAMES = 2**15 - 1
_MOST_OPERANDS = 2**8
_MOST = 2**31 - 1

Record = dict[str, str]


@dataclass(slots=True)
class _Task:
    """One record: times in seconds, None when it never ran."""

    line: int
    name: str
    order: float
    depends: list[str]
    rank: int = 0
    worker: int = 0
    node: int = 0
    submit: float | None = None
    start: float | None = None
    end: float | None = None
    flops: float = 0.0
    priority: float = 0.0
    k: int = -1
    # (handle's number, mode, bytes)
    accesses: list[tuple[int, int, int]] = field(default_factory=list)

    @property
    def ran(self) -> bool:
        return self.start is not None and self.end is not None


def read(path: str | os.PathLike[str]) -> Trace:
    """Read a ``tasks.rec`` of StarPU.

    Tasks are numbered in their submission order, as far as their dependencies allow. A task that
    never ran (StarPU's synchronisation tasks, or one that was cut off) is left out, and who depends
    on it depends on what it depended on. Handles become tiles of a matrix of bytes, ``handles``, of
    one column, as only their sizes are known. The run's ``imported`` in the header counts what was
    left out: ``tasks``, and ``dependencies`` on tasks that are not in the file.

    Parameters
    ----------
    path : path

    Returns
    -------
    Trace
        With one run.

    Raises
    ------
    OSError
        When the file cannot be read.
    ValueError
        When a line is not one of such a file, a number is none, dependencies form a circle, or no
        task ran.
    """
    path = Path(path)
    tasks: dict[str, _Task] = {}
    handles = _Codes()
    try:
        with path.open(encoding="utf-8-sig", errors="replace") as stream:
            for line, record in _records(stream):
                # nobody can depend on a task without a number
                key = record.get("JobId") or f"line {line}"
                if key in tasks:
                    raise ValueError(f"line {line}: a second task has JobId {key!r}")
                tasks[key] = _task(line, record, handles)
        trace = _trace(path, tasks, len(handles))
        check(trace)
    except ValueError as error:
        raise ValueError(f"{path}: not a tasks.rec of StarPU: {error}") from None
    return trace


class _Codes(dict[Any, int]):
    """Numbers for names, given in order of first use."""

    def __missing__(self, name: Any) -> int:
        self[name] = len(self)
        return self[name]


# -- records ---------------------------------------------------------------------------------------


def _records(stream: TextIO) -> Iterator[tuple[int, Record]]:
    """Yield the records of tasks with the number of their first line."""
    record: dict[str, list[str]] = {}
    first, last = 0, ""
    for number, line in _lines(stream):
        if line.startswith("#"):
            continue
        if not line.strip():
            yield from _task_of(first, record)
            record, last = {}, ""
        elif line.startswith("+") and last:
            record[last].append(line[1:].removeprefix(" "))
        else:
            match = _FIELD.fullmatch(line)
            if match is None:
                raise ValueError(f"line {number}: {line[:40]!r} is not a field, 'Name: value'")
            first, last = first if record else number, match[1]
            if last in record:
                raise ValueError(f"line {number}: a second {last} in one record")
            record[last] = [match[2].strip()]
    yield from _task_of(first, record)


def _task_of(line: int, record: dict[str, list[str]]) -> Iterator[tuple[int, Record]]:
    """Yield a record, unless it is a description for recutils or a hint on data for StarPU."""
    if "Control" not in record and any(not name.startswith("%") for name in record):
        yield line, {name: "\n".join(lines) for name, lines in record.items()}


def _lines(stream: TextIO) -> Iterator[tuple[int, str]]:
    """Yield lines without their end, numbered from 1; after a backslash a line goes on."""
    number, first = 0, 0
    begun: list[str] = []
    while line := stream.readline(_MOST_LINE):
        number += 1
        if len(line) == _MOST_LINE:
            raise ValueError(f"line {number} has {_MOST_LINE} characters or more")
        line = line.removesuffix("\n")
        first = first if begun else number
        if line.endswith("\\") and not line.startswith("#"):
            begun.append(line[:-1])
            continue
        yield first, "".join(begun) + line
        begun = []
    if begun:
        yield first, "".join(begun)


def _task(line: int, record: Record, handles: _Codes) -> _Task:
    def number(name: str, default: float | None, factor: float = 1.0) -> float | None:
        text = record.get(name, "").split()
        if not text:
            return default
        try:
            value = float(text[0])
        except ValueError:
            value = inf
        if not isfinite(value):
            raise ValueError(f"line {line}: {name} is {record[name][:40]!r}, not a number")
        return value * factor

    def count(name: str, default: int, most: int) -> int:
        value = number(name, default)
        assert value is not None
        if value != int(value) or value > most:
            raise ValueError(f"line {line}: {name} is {record[name]!r}; at most {most} is allowed")
        # StarPU writes -1 for none
        return max(int(value), default)

    task = _Task(
        line=line,
        name=record.get("Name") or record.get("Model") or "unnamed",
        order=number("SubmitOrder", inf) or inf,
        depends=record.get("DependsOn", "").split(),
        rank=count("MPIRank", 0, _MOST_WORKERS),
        worker=count("WorkerId", 0, _MOST_WORKERS),
        node=count("MemoryNode", 0, _MOST_NAMES),
        submit=number("SubmitTime", None, 1e-3),
        start=number("StartTime", None, 1e-3),
        end=number("EndTime", None, 1e-3),
        flops=number("GFlop", 0.0, 1e9) or 0.0,
        priority=number("Priority", 0.0) or 0.0,
        k=count("Iteration", -1, _MOST),
    )
    if task.start is not None and task.end is not None and task.end < task.start:
        raise ValueError(f"line {line}: EndTime is before StartTime")
    task.accesses = _accesses(line, task.rank, record, handles)
    return task


def _accesses(line: int, rank: int, record: Record, codes: _Codes) -> list[tuple[int, int, int]]:
    """What a task accesses, up to a limit; nothing where modes are not told."""
    handles = record.get("Handles", "").split()
    modes = record.get("Modes", "").split()
    sizes = record.get("Sizes", "").split()
    if len(modes) != len(handles):
        return []
    if len(sizes) != len(handles):
        sizes = ["0"] * len(handles)
    found = []
    for handle, mode, size in zip(handles, modes, sizes, strict=True):
        # C, commuting, says nothing of what is read or written
        code = _MODES.get(mode.replace("C", ""))
        if not size.isdecimal() or len(size) > 15:
            raise ValueError(f"line {line}: Sizes has {size[:40]!r}, not a number of bytes")
        if code is not None:
            # handles are addresses: those of another rank are others
            found.append((codes[rank, handle], code, int(size)))
    return found[:_MOST_OPERANDS]


# -- the graph -------------------------------------------------------------------------------------


def _ordered(tasks: dict[str, _Task]) -> list[str]:
    """Return the tasks' keys so that each comes after those that it depends on.

    Of those that could come next it is the one that was submitted first, or that stands first in
    the file.
    """
    position = {key: at for at, key in enumerate(tasks)}
    waiting: dict[str, int] = {}
    successors: dict[str, list[str]] = {}
    for key, task in tasks.items():
        known = [other for other in task.depends if other in tasks]
        waiting[key] = len(known)
        for other in known:
            successors.setdefault(other, []).append(key)
    heap = [(tasks[key].order, position[key], key) for key, count in waiting.items() if not count]
    heapq.heapify(heap)
    order = []
    while heap:
        *_, key = heapq.heappop(heap)
        order.append(key)
        for other in successors.get(key, ()):
            waiting[other] -= 1
            if not waiting[other]:
                heapq.heappush(heap, (tasks[other].order, position[other], other))
    if len(order) < len(tasks):
        line = min(tasks[key].line for key, count in waiting.items() if count)
        raise ValueError(f"line {line}: tasks depend on one another in a circle")
    return order


def _edges(tasks: dict[str, _Task], order: list[str]) -> tuple[NDArray[Any], int]:
    """Return edges between tasks that ran, and how many dependencies are on unknown tasks."""
    number: dict[str, int] = {}
    # what waiting for a task that never ran means
    instead: dict[str, set[int]] = {}
    pairs: list[NDArray[np.int64]] = []
    unknown = total = 0
    for key in order:
        task = tasks[key]
        sources: set[int] = set()
        for other in task.depends:
            if other in number:
                sources.add(number[other])
            elif other in instead:
                sources |= instead[other]
            else:
                unknown += 1
        if not task.ran:
            instead[key] = sources
            total += len(sources)
        else:
            number[key] = len(number)
            mine = np.empty((len(sources), 2), np.int64)
            mine[:, 0], mine[:, 1] = sorted(sources), number[key]
            pairs.append(mine)
            total += len(sources)
        if total > _MOST_EDGES:
            raise ValueError(f"there are more than {_MOST_EDGES} edges")
    joined = np.concatenate(pairs) if pairs else np.zeros((0, 2), np.int64)
    edges = empty("edges", len(joined))
    edges["source"], edges["target"] = joined.T
    return edges, unknown


# -- the trace -------------------------------------------------------------------------------------


def _trace(path: Path, tasks: dict[str, _Task], handles: int) -> Trace:
    order = _ordered(tasks)
    edges, unknown = _edges(tasks, order)
    ran = [tasks[key] for key in order if tasks[key].ran]
    if not ran:
        raise ValueError(f"of {len(tasks)} tasks none ran (has a StartTime and an EndTime)")
    kernels, nodes = _Codes(), _Codes({0: 0})
    table = _task_table(ran, kernels, nodes)
    np.maximum.at(table["ready"], edges["target"], table["end"][edges["source"]])
    if len(kernels) > _MOST_NAMES:
        raise ValueError(f"there are {len(kernels)} names of tasks, more than {_MOST_NAMES}")
    ranks, workers = int(table["rank"].max()) + 1, int(table["worker"].max()) + 1
    if ranks * workers > _MOST_WORKERS:
        raise ValueError(f"there are {ranks} ranks of {workers} workers, too many")
    run = {
        "run": 0,
        "graph": 0,
        "program": path.stem,
        "engine": "starpu",
        "policy": None,
        "workers": workers,
        "ranks": ranks,
        "status": "completed",
        "tasks": len(ran),
        "tile_tasks": len(ran),
        "begin": float(min(table["submit"].min(), table["start"].min())),
        "end": float(table["end"].max()),
        "energy": {"source": "unavailable"},
        "imported": {"tasks": len(tasks) - len(ran), "dependencies": unknown},
    }
    matrix = {"name": "handles", "graph": 0, "m": handles, "n": 1, "nb": 1}
    header = {
        "format": "taskla-trace",
        "version": VERSION,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": [],
        "runs": [run],
        "graphs": [{"graph": 0}],
        "matrices": [{**matrix, "dtype": "uint8", "scratch": False}] if handles else [],
        "kernels": list(kernels),
        "formats": ["unknown"],
        "compressions": ["none"],
        "devices": [f"node{node}" if node else "cpu" for node in nodes],
        "series": [],
    }
    return Trace(header, {"tasks": table, "accesses": _access_table(ran), "edges": edges})


def _task_table(ran: list[_Task], kernels: _Codes, nodes: _Codes) -> NDArray[Any]:
    table = empty("tasks", len(ran))
    table["task"] = np.arange(len(ran))
    table["kernel"] = np.array([kernels[task.name] for task in ran]) & 0x7FFF
    table["device"] = np.array([nodes[task.node] for task in ran]) & 0x7FFF
    for name in ("rank", "worker", "k", "start", "end", "flops", "priority"):
        table[name] = [getattr(task, name) for task in ran]
    starts = table["start"].tolist()
    table["submit"] = [
        start if task.submit is None else min(task.submit, start)
        for task, start in zip(ran, starts, strict=True)
    ]
    table["ready"] = table["submit"]
    for name, modes in (("bytes_read", (1, 3, 4)), ("bytes_written", (2, 3, 4))):
        table[name] = [
            sum(size for _, mode, size in task.accesses if mode in modes) for task in ran
        ]
    # the tile that a task writes first, or reads first if it writes none
    tiles = [
        next((tile for tile, mode, _ in task.accesses if mode != 1), task.accesses[0][0])
        if task.accesses
        else -1
        for task in ran
    ]
    table["i"] = tiles
    table["matrix"] = table["j"] = np.minimum(tiles, 0)
    table["lr_rank"], table["joules"], table["tile_tasks"] = -1, np.nan, 1
    return table


def _access_table(ran: list[_Task]) -> NDArray[Any]:
    rows = [
        (number, operand, mode, tile, min(size, _MOST))
        for number, task in enumerate(ran)
        for operand, (tile, mode, size) in enumerate(task.accesses)
    ]
    table = empty("accesses", len(rows))
    if rows:
        columns = zip(*rows, strict=True)
        for name, values in zip(("task", "operand", "mode", "i", "rows"), columns, strict=True):
            table[name] = values
    table["cols"], table["lr_rank"] = 1, -1
    return table
