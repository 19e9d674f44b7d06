"""The JSON of Chrome's tracing, which ui.perfetto.dev opens.

A process is a rank, a thread a worker, a slice a task; counters are what was sampled; arrows are
messages and dependencies (Duan, "Trace Event Format", 2016). Times are microseconds from the run's
begin, to the nanosecond.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from math import isfinite
from typing import Any

import numpy as np
from numpy.typing import NDArray

from taskla.atomic import replacing
from taskla.traces.exports.shared import arrows, curves, title
from taskla.traces.trace import Run, Trace

__all__ = ["MOST_DEPENDENCIES", "write"]

#: Dependencies are drawn in graphs of up to this many: more hide the tasks and slow the page down.
MOST_DEPENDENCIES = 20_000

Event = dict[str, Any]


def write(trace: Trace, path: str | os.PathLike[str], run: int | None = None) -> None:
    """Write one run as trace events in JSON, whole or not at all; an existing file is replaced.

    Counters belong to the whole run, a process of their own after the ranks. An arrow of a message
    goes from the task that made the tile to the first that read it there, and says how long the
    message took; without either there is none. Dependencies are arrows in graphs of up to
    `MOST_DEPENDENCIES`.

    Parameters
    ----------
    trace : Trace
    path : path
        Usually ``NAME.json``.
    run : int, optional
        Default: the one that `Trace.run` chooses.

    Raises
    ------
    OSError
        When the parent folder does not exist, or what is there is not a file.
    ValueError
        When there is no such run.
    """
    chosen = trace.run(run)
    with replacing(path) as temporary, temporary.open("x", encoding="utf-8", newline="\n") as file:
        about = json.dumps({"program": chosen.program, "run": chosen.number})
        file.write(f'{{"displayTimeUnit": "ms", "otherData": {about}, "traceEvents": [\n')
        for number, event in enumerate(_events(chosen)):
            # a line an event, so that no list of them all is made
            file.write(",\n" if number else "")
            file.write(json.dumps(event, allow_nan=False))
        file.write("\n]}\n")


def _events(run: Run) -> Iterator[Event]:
    start, end = (_nanoseconds(run, run.tasks[name]) for name in ("start", "end"))
    yield from _names(run)
    yield from _slices(run, start, end)
    yield from _counters(run)
    yield from _messages(run, start, end)
    source, target = run.edges
    if source.size <= MOST_DEPENDENCIES:
        first = run.messages.size
        for number, ends in enumerate(zip(source.tolist(), target.tolist(), strict=True), first):
            yield from _arrow(run, number, "dependency", ends, start, end, {})


def _nanoseconds(run: Run, times: NDArray[Any]) -> NDArray[np.int64]:
    """Whole nanoseconds: rounding keeps the order, so that tasks do not come to overlap."""
    return np.rint((times - run.begin) * 1e9).astype(np.int64)


def _micro(nanoseconds: int) -> float:
    return nanoseconds / 1000


def _whole(run: Run) -> int:
    """The process that stands for the run as a whole."""
    return max((worker.rank for worker in run.workers), default=-1) + 1


def _names(run: Run) -> Iterator[Event]:
    def name(kind: str, pid: int, tid: int, value: str) -> Event:
        return {"ph": "M", "name": kind, "pid": pid, "tid": tid, "args": {"name": value}}

    def order(kind: str, pid: int, tid: int, value: int) -> Event:
        return {"ph": "M", "name": kind, "pid": pid, "tid": tid, "args": {"sort_index": value}}

    for rank in sorted({worker.rank for worker in run.workers}):
        yield name("process_name", rank, 0, f"rank {rank}")
        yield order("process_sort_index", rank, 0, rank)
    for worker in run.workers:
        yield name("thread_name", worker.rank, worker.worker, worker.name)
        yield order("thread_sort_index", worker.rank, worker.worker, worker.worker)
    yield name("process_name", _whole(run), 0, run.program)


def _slices(run: Run, start: NDArray[np.int64], end: NDArray[np.int64]) -> Iterator[Event]:
    tasks, formats = run.tasks, run.trace.names("formats")
    tiles = _tiles(run)
    columns = ("task", "k", "flops", "bytes_read", "bytes_written", "priority", "tile_tasks")
    for row, task in enumerate(tasks):
        joules = float(task["joules"])
        yield {
            "ph": "X",
            "name": run.label(row),
            "cat": run.kernels[task["kernel"]],
            "pid": int(task["rank"]),
            "tid": int(task["worker"]),
            "ts": _micro(int(start[row])),
            "dur": _micro(int(end[row] - start[row])),
            "args": {
                "kernel": run.kernels[task["kernel"]],
                **{name: task[name].item() for name in columns},
                "tiles": tiles[row],
                "format": formats[task["format"]],
                "joules": joules if isfinite(joules) else None,
            },
        }


def _tiles(run: Run) -> list[list[str]]:
    """The tiles that each task accesses, in the order of its operands."""
    names = [*run.trace.names("matrices"), ""]
    found: list[list[str]] = [[] for _ in range(run.tasks.size)]
    rows = np.searchsorted(run.tasks["task"], run.accesses["task"])
    for row, access in zip(rows.tolist(), run.accesses, strict=True):
        found[row].append(f"{names[access['matrix']]}({access['i']}, {access['j']})")
    return found


def _counters(run: Run) -> Iterator[Event]:
    for series in curves(run):
        for time, value in zip(_nanoseconds(run, series.time), series.value.tolist(), strict=True):
            yield {
                "ph": "C",
                "name": title(series),
                "pid": _whole(run),
                "tid": 0,
                "ts": _micro(max(int(time), 0)),
                "args": {series.unit: value},
            }


def _messages(run: Run, start: NDArray[np.int64], end: NDArray[np.int64]) -> Iterator[Event]:
    source, target = (rows.tolist() for rows in arrows(run))
    names = [*run.trace.names("matrices"), ""]
    sent, arrived = (_nanoseconds(run, run.messages[name]) for name in ("start", "end"))
    for number, ends in enumerate(zip(source, target, strict=True)):
        if min(ends) < 0:
            continue
        message = run.messages[number]
        args = {
            "tile": f"{names[message['matrix']]}({message['i']}, {message['j']})",
            "bytes": int(message["bytes"]),
            "sent": _micro(int(sent[number])),
            "arrived": _micro(int(arrived[number])),
        }
        yield from _arrow(run, number, "message", ends, start, end, args)


def _arrow(
    run: Run,
    number: int,
    name: str,
    ends: tuple[int, int],
    start: NDArray[np.int64],
    end: NDArray[np.int64],
    args: Event,
) -> Iterator[Event]:
    """An arrow from one task to another; each end lies within the slice that it belongs to."""
    # a slice is over at its end: the last nanosecond is still in it
    times = max(int(end[ends[0]]) - 1, int(start[ends[0]])), int(start[ends[1]])
    for phase, row, time in zip("sf", ends, times, strict=True):
        task = run.tasks[row]
        yield {
            "ph": phase,
            "name": name,
            "cat": name,
            "id": number,
            "pid": int(task["rank"]),
            "tid": int(task["worker"]),
            "ts": _micro(time),
            **({"bp": "e"} if phase == "f" else {}),
            "args": args,
        }
