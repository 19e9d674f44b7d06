"""What a recorded run would have taken with another policy or another number of workers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from taskla import schedulers
from taskla.engines.simulation import Schedule, simulate
from taskla.schedulers import Policy
from taskla.traces import Run, Trace

__all__ = ["DURATIONS", "MOST_WORKERS", "Replay", "replay", "resampled"]

#: Where durations come from.
DURATIONS = ("task", "kernel")

#: More than a machine has: lws lists the victims of every worker.
MOST_WORKERS = 10_000

#: Columns in which tasks that are alike agree.
_ALIKE = ("kernel", "format", "compression", "lr_rank", "tile_tasks", "flops")


@dataclass(frozen=True)
class Replay:
    """Simulated runs of the tasks of a recorded one.

    Attributes
    ----------
    run : Run
        The recorded one.
    rows : list of dict
        One a simulated run: ``policy`` and ``workers``; ``makespan``, seconds; ``efficiency``, the
        sum of durations over workers times makespan, 1 when nobody is ever idle, NaN when the run
        takes no time; ``bounds``, a dict of seconds: ``critical_path``, the heaviest path, and
        ``area``, the sum of durations over the workers, neither of which a makespan falls below;
        ``idle``, seconds, summed over the workers.
    schedules : list of Schedule
        Alongside; tasks are the rows of ``run.tasks``.
    """

    run: Run
    rows: list[dict[str, Any]]
    schedules: list[Schedule]

    def trace(self) -> Trace:
        """Return the simulated runs as a trace, one after another; they have no energy."""
        about: dict[str, Any] = {"engine": "simulation", "status": "completed"}
        if "error" in self.run.info:
            # it is no fault of a simulated run
            about["error"] = None
        return self.run.rescheduled(
            [
                {**schedule._asdict(), **about, "policy": row["policy"], "workers": row["workers"]}
                for row, schedule in zip(self.rows, self.schedules, strict=True)
            ]
        )


def replay(
    run: Run,
    policies: Iterable[str | Policy],
    workers: Iterable[int],
    *,
    durations: str = "task",
    seed: int = 0,
    compiled: bool | None = None,
) -> Replay:
    """Run the tasks of a recorded run again in virtual time: see `simulate`.

    All tasks are there from the begin on, and all workers are alike and in one memory. Nothing but
    tasks takes time: the millisecond in which threads start and the microseconds that a worker
    spends between two tasks are left out, which is 1 % of tasks of milliseconds and up to a tenth
    of tasks of 60 microseconds.

    Parameters
    ----------
    run : Run
        Of one rank and one kind of device.
    policies : iterable of str or Policy
        Names or objects. Priorities are the recorded ones.
    workers : iterable of int
        Numbers of workers, each from 1 to `MOST_WORKERS`; every policy with each of them.
    durations : {"task", "kernel"}, default "task"
        Each task takes as long as it took when it was recorded, or as long as one of the tasks
        like it: see `resampled`. They are the same in all the simulated runs.
    seed : int, default 0
        Of what is drawn.
    compiled : bool, optional
        See `simulate`.

    Returns
    -------
    Replay

    Raises
    ------
    ValueError
        When the run has no tasks, several ranks or kinds of devices, or another argument has a
        value that is not allowed.
    ImportError
        When `compiled` is True and Numba is not installed.
    RuntimeError
        When a policy gives a task that is not ready, or none while none runs.
    """
    if durations not in DURATIONS:
        raise ValueError(f"durations is {durations!r}; allowed: {', '.join(DURATIONS)}")
    _refuse(run)
    counts = list(workers)
    for count in counts:
        if not 1 <= count <= MOST_WORKERS:
            raise ValueError(f"workers is {count}; it must be from 1 to {MOST_WORKERS}")
    seconds = run.durations if durations == "task" else resampled(run, seed)
    graph = run.graph()
    total, path = float(seconds.sum()), graph.critical_path(seconds)
    found = Replay(run, [], [])
    for policy in map(schedulers.get, policies):
        for count in counts:
            schedule = simulate(graph, policy, count, seconds, compiled=compiled)
            spent = count * schedule.makespan
            found.schedules.append(schedule)
            found.rows.append(
                {
                    "policy": policy.name,
                    "workers": count,
                    "makespan": schedule.makespan,
                    # on one worker both would be off by the rounding of sums
                    "efficiency": min(total / spent, 1.0) if spent else np.nan,
                    "bounds": {"critical_path": path, "area": total / count},
                    "idle": max(spent - total, 0.0),
                }
            )
    return found


def resampled(run: Run, seed: int) -> NDArray[np.float64]:
    """Draw a duration for each task from those of the tasks like it in the same run.

    Tasks are alike when they have the same kernel, number format, compression and tile rank, as
    many flops, and as many tile tasks fused into them. A task that has none like it keeps its own
    duration.

    Parameters
    ----------
    run : Run
    seed : int
        Of `numpy.random.default_rng`.

    Returns
    -------
    (n,) float64 array
        Seconds.
    """
    tasks = run.tasks
    group = np.zeros(tasks.size, dtype=np.int64)
    for column in _ALIKE:
        values, code = np.unique(tasks[column], return_inverse=True)
        group = np.unique(group * values.size + code, return_inverse=True)[1]
    counts = np.bincount(group)
    first = np.cumsum(counts) - counts
    by_group = run.durations[np.argsort(group, kind="stable")]
    drawn = np.random.default_rng(seed).integers(counts[group])
    return np.asarray(by_group[first[group] + drawn])


def _refuse(run: Run) -> None:
    """Raise ValueError for what cannot be replayed."""
    if not run.tasks.size:
        raise ValueError(f"run {run.number} has no tasks")
    ranks = len({worker.rank for worker in run.workers})
    if ranks > 1:
        raise ValueError(
            f"run {run.number} has {ranks} ranks; a replay has all workers in one memory, where "
            "messages take no time: it replays runs of one rank only"
        )
    devices = sorted(set(run.tasks["device"].tolist()))
    if len(devices) > 1:
        names = ", ".join(run.trace.names("devices")[device] for device in devices)
        raise ValueError(
            f"run {run.number} has tasks on {names}; in a replay any worker runs any task for as "
            "long as it took, so it replays runs on one kind of device only"
        )
