"""What a run spent its time and energy on: per kernel, per worker, and in all.

Times are seconds, counted from the begin of the run. Energy that is not known is None, not 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from taskla.traces import bounds
from taskla.traces.trace import Run

__all__ = [
    "PARTS",
    "Energy",
    "Kernel",
    "Step",
    "Summary",
    "Use",
    "arrivals",
    "by_format",
    "by_kernel",
    "by_worker",
    "energy",
    "progress",
    "ready_over_time",
    "summary",
    "where_time_went",
]

Floats = NDArray[np.float64]

#: What workers spend their time on, and what each word means.
PARTS = {
    "busy": "running tasks",
    "overhead": "between tasks, although the next one was ready with its tiles there",
    "start-up": "before the worker's first task",
    "starvation": "between tasks, until the next one was ready; workers without a task",
    "end": "after the worker's last task",
}


@dataclass(frozen=True)
class Kernel:
    """The tasks of one kernel.

    Attributes
    ----------
    kernel : str
    tasks, tile_tasks : int
        Tasks that ran, and the tile tasks that were fused into them.
    time : float
        Seconds that they took, summed over the workers.
    share : float or None
        Of the busy time of all kernels, from 0 to 1; None where that is 0.
    gflops : float or None
        Gflop/s of one worker while it runs them; None where they took no time.
    joules : float or None
        None when unavailable.
    min, q1, median, q3, max, mean, deviation : float
        Distribution of the durations of tasks in seconds: the quartiles by linear interpolation,
        the standard deviation of the population.
    """

    kernel: str
    tasks: int
    tile_tasks: int
    time: float
    share: float | None
    gflops: float | None
    joules: float | None
    min: float
    q1: float
    median: float
    q3: float
    max: float
    mean: float
    deviation: float


@dataclass(frozen=True)
class Use:
    """How one worker spent the makespan: busy + overhead + startup + starvation + end.

    Attributes
    ----------
    rank, worker : int
    device : str
    tasks : int
    busy, overhead, startup, starvation, end : float
        Seconds; `PARTS` says what they are.
    idle : float
        Seconds in which it ran no task: all but busy.
    busy_share, overhead_share, idle_share : float or None
        Of the makespan, from 0 to 1; None where that is 0.
    """

    rank: int
    worker: int
    device: str
    tasks: int
    busy: float
    overhead: float
    startup: float
    starvation: float
    end: float
    idle: float
    busy_share: float | None
    overhead_share: float | None
    idle_share: float | None


@dataclass(frozen=True)
class Summary:
    """One run in figures.

    Attributes
    ----------
    run : int
    program, status : str
    error : str or None
    engine, policy : str or None
    repeat : int or None
    ranks, workers : int
        Processes, and workers of all of them.
    submitted, tasks, tile_tasks : int
        Tasks of the graph, those that ran, and the tile tasks fused into these.
    makespan : float
        Seconds from the begin of the run to the end of the last task.
    critical_path, area, bound : float
        Seconds: the two lower bounds on the makespan, see `taskla.traces.bounds`, and the larger.
    efficiency : float or None
        bound / makespan; None for no makespan, as all rates are.
    flops, gflops : float
        Floating-point operations; 10^9 of them a second of makespan.
    bytes_read, bytes_written : int
        Of the tiles that tasks read and wrote.
    messages, bytes_sent : int
        Between ranks.
    clock_error : float or None
        Seconds by which times of two ranks may be wrong against one another; None where ranks have
        no clocks of their own.
    energy_source : {"measured", "modelled", "unavailable"}
    joules, idle_joules : float or None
        Of the whole run, and the part of it that belongs to no task.
    energy_note : str or None
        What is to be known of the figures: why there are none, or which are missing.
    watts : float or None
        joules / makespan
    gflops_per_watt : float or None
        10^9 flops a joule.
    energy_delay : float or None
        joules x makespan, in J s.
    """

    run: int
    program: str
    status: str
    error: str | None
    engine: str | None
    policy: str | None
    repeat: int | None
    ranks: int
    workers: int
    submitted: int
    tasks: int
    tile_tasks: int
    makespan: float
    critical_path: float
    area: float
    bound: float
    efficiency: float | None
    flops: float
    gflops: float | None
    bytes_read: int
    bytes_written: int
    messages: int
    bytes_sent: int
    clock_error: float | None
    energy_source: str
    joules: float | None
    idle_joules: float | None
    energy_note: str | None
    watts: float | None
    gflops_per_watt: float | None
    energy_delay: float | None


class Energy(NamedTuple):
    """Energy of a run: where the figures are from, in all, and what belongs to no task."""

    source: str
    joules: float | None
    idle_joules: float | None


class Step(NamedTuple):
    """One step k of the algorithm's loop: when its first task started, its last one ended."""

    k: int
    start: float
    end: float
    tasks: int


# -- kernels and workers ---------------------------------------------------------------------------


def by_kernel(run: Run) -> list[Kernel]:
    """Return what each kernel took, the one that took the longest in all first."""
    tasks, durations = run.tasks, run.durations
    busy = float(durations.sum())
    codes, first = np.unique(np.sort(tasks["kernel"]), return_index=True)
    order = np.argsort(tasks["kernel"], kind="stable")
    found = []
    for code, rows in zip(codes.tolist(), np.split(order, first[1:]), strict=False):
        took = durations[rows]
        time = float(took.sum())
        low, q1, median, q3, high = np.quantile(took, (0, 0.25, 0.5, 0.75, 1)).tolist()
        found.append(
            Kernel(
                kernel=run.kernels[code],
                tasks=rows.size,
                tile_tasks=int(tasks["tile_tasks"][rows].sum()),
                time=time,
                share=_ratio(time, busy),
                gflops=_ratio(float(tasks["flops"][rows].sum()) / 1e9, time),
                joules=_number(float(tasks["joules"][rows].sum())),
                min=low,
                q1=q1,
                median=median,
                q3=q3,
                max=high,
                mean=time / rows.size,
                deviation=float(took.std()),
            )
        )
    return sorted(found, key=lambda kernel: -kernel.time)


def by_format(run: Run) -> list[dict[str, Any]]:
    """Return what was computed in each number format, the one of the most time first.

    Returns
    -------
    list of dict
        ``format``, ``tasks``, ``tile_tasks``, ``time`` (seconds) and its ``share`` of that of all
        tasks, ``flops`` (flop) and ``flops_share``; shares are None where that of all is 0.
    """
    tasks, durations = run.tasks, run.durations
    names = run.trace.names("formats")
    busy, flops = float(durations.sum()), float(tasks["flops"].sum())
    found = []
    for code in np.unique(tasks["format"]).tolist():
        mine = tasks["format"] == code
        time, work = float(durations[mine].sum()), float(tasks["flops"][mine].sum())
        found.append(
            {
                "format": names[code],
                "tasks": int(mine.sum()),
                "tile_tasks": int(tasks["tile_tasks"][mine].sum()),
                "time": time,
                "share": _ratio(time, busy),
                "flops": work,
                "flops_share": _ratio(work, flops),
            }
        )
    return sorted(found, key=lambda row: -row["time"])


def by_worker(run: Run) -> list[Use]:
    """Return how each worker spent its time, by rank and number."""
    spent = _spent(run)
    count = np.bincount(run.lanes, minlength=len(run.workers)).tolist()
    idle = np.sum([seconds for name, seconds in spent.items() if name != "busy"], axis=0)
    columns = {name.replace("-", ""): values.tolist() for name, values in spent.items()}
    return [
        Use(
            rank=worker.rank,
            worker=worker.worker,
            device=worker.device,
            tasks=count[at],
            **{name: values[at] for name, values in columns.items()},
            idle=float(idle[at]),
            busy_share=_ratio(columns["busy"][at], run.makespan),
            overhead_share=_ratio(columns["overhead"][at], run.makespan),
            idle_share=_ratio(float(idle[at]), run.makespan),
        )
        for at, worker in enumerate(run.workers)
    ]


def where_time_went(run: Run) -> dict[str, float]:
    """Return the seconds of each of `PARTS`, summed over the workers.

    Together they are the number of workers times the makespan.
    """
    return {name: float(values.sum()) for name, values in _spent(run).items()}


def _spent(run: Run) -> dict[str, Floats]:
    """Seconds of each of `PARTS`, (workers,)."""
    tasks, lanes, count = run.tasks, run.lanes, len(run.workers)
    order = np.lexsort((tasks["start"], lanes))
    lane = lanes[order]
    # of a file, times may be anything: what lies before the begin is left out, and overlaps count
    # once
    start = tasks["start"][order]
    end = np.maximum(tasks["end"][order], run.begin)
    ready = np.maximum(tasks["ready"], arrivals(run))[order]
    first = np.flatnonzero(np.diff(lane, prepend=-1))
    last = np.append(first, lane.size)[1:]
    before = np.full(lane.size, run.begin)
    over = np.full(count, np.nan)
    for a, b in zip(first.tolist(), last.tolist(), strict=True):
        latest = np.maximum.accumulate(end[a:b])
        before[a + 1 : b] = latest[:-1]
        over[lane[a]] = latest[-1]
    busy = np.maximum(end - np.maximum(start, before), 0.0)
    gap = np.maximum(start - before, 0.0)
    overhead = np.clip(start - np.maximum(before, ready), 0.0, gap)
    overhead[first] = 0.0
    waiting = gap - overhead
    starting = np.zeros(lane.size)
    starting[first] = gap[first]

    def per_worker(values: Floats) -> Floats:
        return np.bincount(lane, weights=values, minlength=count).astype(np.float64)

    worked = np.isfinite(over)
    return {
        "busy": per_worker(busy),
        "overhead": per_worker(overhead),
        "start-up": per_worker(starting),
        "starvation": per_worker(waiting - starting) + np.where(worked, 0.0, run.makespan),
        "end": np.where(worked, run.end - over, 0.0),
    }


def arrivals(run: Run) -> Floats:
    """Return when the tiles that each task needs from other ranks had arrived.

    Returns
    -------
    (n,) float64 array
        Seconds from the trace's origin, as in `Run.tasks`: of each tile that a task accesses, the
        latest message with it to the task's rank that had ended when the task started; -inf where
        there was none.
    """
    tasks, accesses, messages = run.tasks, run.accesses, run.messages
    arrived = np.full(tasks.size, -np.inf)
    if not messages.size or not accesses.size:
        return arrived
    task = np.searchsorted(tasks["task"], accesses["task"])
    # messages and accesses in one list, by tile, rank and time; a message before an access
    keys = [np.append(messages[name], accesses[name]) for name in ("matrix", "i", "j")]
    keys.append(np.append(messages["destination"], tasks["rank"][task]))
    time = np.append(messages["end"], tasks["start"][task])
    order = np.lexsort((np.arange(time.size), time, *keys))
    new = np.zeros(time.size, dtype=np.bool_)
    new[0] = True
    for key in keys:
        new[1:] |= np.diff(key[order]) != 0
    place = np.arange(time.size)
    group = np.maximum.accumulate(np.where(new, place, 0))
    latest = np.maximum.accumulate(np.where(order < messages.size, place, -1))
    found = (order >= messages.size) & (latest >= group)
    np.maximum.at(arrived, task[order[found] - messages.size], time[order[latest[found]]])
    return arrived


# -- over time -------------------------------------------------------------------------------------


def ready_over_time(run: Run) -> tuple[Floats, NDArray[np.int64]]:
    """Return how many tasks were ready and had not started.

    Returns
    -------
    times : (u,) float64 array
        Seconds from the begin of the run, increasing.
    counts : (u,) int64 array
        Tasks from ``times[i]`` until ``times[i + 1]``; the last count is 0.
    """
    start = run.tasks["start"] - run.begin
    ready = np.minimum(run.tasks["ready"] - run.begin, start)
    times, at = np.unique(np.concatenate([ready, start]), return_inverse=True)
    become = np.bincount(at[: ready.size], minlength=times.size)
    begun = np.bincount(at[ready.size :], minlength=times.size)
    return times, np.cumsum(become - begun, dtype=np.int64)


def progress(run: Run) -> list[Step]:
    """Return when the tasks of each step k of the algorithm's loop ran, by k.

    Times are seconds from the begin of the run. Tasks that belong to no step are left out.
    """
    tasks = run.tasks[run.tasks["k"] >= 0]
    steps, at, counts = np.unique(tasks["k"], return_inverse=True, return_counts=True)
    first, last = np.full(steps.size, np.inf), np.full(steps.size, -np.inf)
    np.minimum.at(first, at, tasks["start"] - run.begin)
    np.maximum.at(last, at, tasks["end"] - run.begin)
    columns = (steps.tolist(), first.tolist(), last.tolist(), counts.tolist())
    return [Step(*row) for row in zip(*columns, strict=True)]


# -- the whole run ---------------------------------------------------------------------------------


def summary(run: Run) -> Summary:
    """Return a run in figures."""
    tasks, info = run.tasks, run.info
    flops = float(tasks["flops"].sum())
    path, area = bounds.critical_path(run), bounds.area(run)
    source, joules, idle = energy(run)
    return Summary(
        run=run.number,
        program=run.program,
        status=str(info["status"]),
        error=_text(info.get("error")),
        engine=_text(info.get("engine")),
        policy=_text(info.get("policy")),
        repeat=_whole(info.get("repeat")),
        ranks=len({worker.rank for worker in run.workers}),
        workers=len(run.workers),
        submitted=max(_whole(info.get("tasks")) or 0, tasks.size),
        tasks=tasks.size,
        tile_tasks=int(tasks["tile_tasks"].sum()),
        makespan=run.makespan,
        critical_path=path,
        area=area,
        bound=max(path, area),
        efficiency=_ratio(max(path, area), run.makespan),
        flops=flops,
        gflops=_ratio(flops / 1e9, run.makespan),
        bytes_read=int(tasks["bytes_read"].sum()),
        bytes_written=int(tasks["bytes_written"].sum()),
        messages=run.messages.size,
        bytes_sent=int(run.messages["bytes"].sum()),
        clock_error=_clock_error(run),
        energy_source=source,
        joules=joules,
        idle_joules=idle,
        energy_note=_energy_note(run),
        watts=None if joules is None else _ratio(joules, run.makespan),
        gflops_per_watt=None if joules is None else _ratio(flops / 1e9, joules),
        energy_delay=None if joules is None else joules * run.makespan,
    )


def _clock_error(run: Run) -> float | None:
    """Twice the largest error, as both ends of a message may be off by it."""
    errors = [_number(clock.get("error")) for clock in run.info.get("clock") or []]
    known = [error for error in errors if error is not None]
    return 2 * max(known) if known else None


def energy(run: Run) -> Energy:
    """Return the energy of a run, as the header has it."""
    about = run.info.get("energy") or {}
    joules = _number(about.get("joules"))
    if about.get("source") not in ("measured", "modelled") or joules is None:
        return Energy("unavailable", None, None)
    return Energy(about["source"], joules, _number(about.get("idle_joules")))


def _energy_note(run: Run) -> str | None:
    about = run.info.get("energy") or {}
    model = about.get("model")
    return _text(about.get("reason") or (model.get("note") if isinstance(model, dict) else None))


def _ratio(value: float, of: float) -> float | None:
    return value / of if of > 0 else None


# What a header says may be anything that JSON has.


def _number(value: Any) -> float | None:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if isfinite(number) else None


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _text(value: Any) -> str | None:
    return None if value is None else str(value)
