"""Paje, the format that ViTE opens.

Containers: the program, its ranks, their workers. States: a worker's kernel, or idle. Links:
messages. Variables: what was sampled, and ready tasks. The events are those that ViTE and pajeng
read without a warning (de Kergommeaux, Stein: Paje trace file format, version 1.2).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from taskla.atomic import replacing
from taskla.traces.exports.shared import arrows, curves, tile, title
from taskla.traces.trace import Run, Series, Trace, Worker

__all__ = ["write"]

# id, name, fields in the order of the lines below; types are "string" if not given.
_EVENTS = (
    (1, "PajeDefineContainerType", "Alias Type Name"),
    (3, "PajeDefineStateType", "Alias Type Name"),
    (4, "PajeDefineVariableType", "Alias Type Name"),
    (5, "PajeDefineLinkType", "Alias Type StartContainerType EndContainerType Name"),
    (6, "PajeDefineEntityValue", "Alias Type Name Color:color"),
    (7, "PajeCreateContainer", "Time:date Alias Type Container Name"),
    (8, "PajeDestroyContainer", "Time:date Name Type"),
    # the last five are shown when a state is clicked
    (10, "PajeSetState", "Time:date Type Container Value Task:int Tile K:int GFlop:double Energy"),
    (13, "PajeSetVariable", "Time:date Type Container Value:double"),
    (18, "PajeStartLink", "Time:date Type Container Value StartContainer Key"),
    (19, "PajeEndLink", "Time:date Type Container Value EndContainer Key"),
)

_TYPES = (
    '1 P 0 "Program"',
    '1 R P "Rank"',
    '1 W R "Worker"',
    '3 S W "Worker State"',
    '5 M P W W "Message"',
)


class _Event(NamedTuple):
    """A line that has a time, in seconds from the run's begin."""

    time: float
    code: int
    rest: str


def write(trace: Trace, path: str | os.PathLike[str], run: int | None = None) -> None:
    """Write one run as a Paje trace, whole or not at all; an existing file is replaced.

    Times are seconds from the run's begin. Paje knows no escapes: in names, double quotes become
    single ones and control characters spaces.

    Parameters
    ----------
    trace : Trace
    path : path
        Usually ``NAME.trace``, as ViTE opens no other extension.
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
        for line in _lines(chosen):
            file.write(line + "\n")


def _lines(run: Run) -> Iterator[str]:
    yield from _definitions()
    yield from _TYPES
    yield from _values(run)
    series = curves(run)
    for number, about in enumerate(series):
        yield f"4 v{number} P {_quoted(f'{title(about)} ({about.unit})')}"
    yield f"7 0.0 p P 0 {_quoted(run.program)}"
    for rank in sorted({worker.rank for worker in run.workers}):
        yield f'7 0.0 r{rank} R p "rank {rank}"'
    for worker in run.workers:
        yield f"7 0.0 {_lane(worker)} W r{worker.rank} {_quoted(worker.name)}"

    events = [*_states(run), *_links(run), *_variables(run, series)]
    # events of one time stay in the order of their codes, then in that in which they were made
    events.sort(key=lambda event: event[:2])
    for time, code, rest in events:
        yield f"{code} {time:.9f} {rest}"

    last = max(run.makespan, events[-1].time if events else 0.0)
    for worker in run.workers:
        yield f"8 {last:.9f} {_lane(worker)} W"
    for rank in sorted({worker.rank for worker in run.workers}):
        yield f"8 {last:.9f} r{rank} R"
    yield f"8 {last:.9f} p P"


def _definitions() -> Iterator[str]:
    for code, name, fields in _EVENTS:
        yield f"%EventDef {name} {code}"
        for field in fields.split():
            key, _, kind = field.partition(":")
            yield f"%   {key} {kind or 'string'}"
        yield "%EndEventDef"


def _values(run: Run) -> Iterator[str]:
    """The states' names and colours, those of the kernels that ran."""
    from taskla.traces.pictures.palette import IDLE, colour_of

    yield f'6 idle S "idle" "{_colour(IDLE)}"'
    for code in np.unique(run.tasks["kernel"]).tolist():
        name = run.kernels[code]
        yield f'6 k{code} S {_quoted(name)} "{_colour(colour_of(name))}"'


def _states(run: Run) -> Iterator[_Event]:
    tasks = run.tasks
    begin = np.maximum(tasks["start"] - run.begin, 0.0)
    end = np.maximum(tasks["end"] - run.begin, 0.0)
    for number, worker in enumerate(run.workers):
        lane = _lane(worker)
        idle = f'S {lane} idle -1 "-" -1 0 "-"'
        rows = np.flatnonzero(run.lanes == number)
        rows = rows[np.lexsort((tasks["task"][rows], begin[rows]))]
        following = np.append(begin[rows], np.inf)[1:]
        yield _Event(0.0, 10, idle)
        for row, after in zip(rows.tolist(), following.tolist(), strict=True):
            task = tasks[row]
            joules = task["joules"]
            energy = "unavailable" if np.isnan(joules) else f"{joules:.6g} J"
            yield _Event(
                float(begin[row]),
                10,
                f"S {lane} k{task['kernel']} {task['task']} {_quoted(tile(run, row))} {task['k']} "
                f'{task["flops"] / 1e9:.9g} "{energy}"',
            )
            if end[row] < after:
                yield _Event(float(end[row]), 10, idle)


def _links(run: Run) -> Iterator[_Event]:
    """Messages, from the worker that made the tile to the first one that read it.

    Where one of them is not known, it is the rank's first worker.
    """
    first: dict[int, str] = {}
    for worker in run.workers:
        first.setdefault(worker.rank, _lane(worker))
    source, target = (rows.tolist() for rows in arrows(run))
    for key, message in enumerate(run.messages):
        ends = []
        for row, rank in ((source[key], message["source"]), (target[key], message["destination"])):
            ends.append(_lane(run.workers[run.lanes[row]]) if row >= 0 else first.get(int(rank)))
        if None in ends:
            continue  # a rank where nothing ran is no container
        about = f"M p {message['bytes']}"
        for code, time, end in zip((18, 19), ("start", "end"), ends, strict=True):
            at = max(float(message[time]) - run.begin, 0.0)
            yield _Event(at, code, f"{about} {end} m{key}")


def _variables(run: Run, series: list[Series]) -> Iterator[_Event]:
    for number, about in enumerate(series):
        times = np.maximum(about.time - run.begin, 0.0).tolist()
        for time, value in zip(times, about.value.tolist(), strict=True):
            yield _Event(time, 13, f"v{number} p {value:.9g}")


def _colour(name: str) -> str:
    """``#rrggbb`` as Paje has it: three numbers from 0 to 1."""
    return " ".join(f"{int(name[at : at + 2], 16) / 255:.3f}" for at in (1, 3, 5))


def _lane(worker: Worker) -> str:
    return f"w{worker.rank}_{worker.worker}"


def _quoted(name: str) -> str:
    plain = "".join(letter if letter.isprintable() else " " for letter in name)
    return '"' + (plain.replace('"', "'") or "-") + '"'
