"""Execution of a task graph in virtual time, in the order that a policy decides."""

from __future__ import annotations

import copy
from heapq import heappop, heappush
from operator import index
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from taskla import schedulers
from taskla.engines import simulation_compiled
from taskla.graph import TaskGraph
from taskla.schedulers import Policy

__all__ = ["Schedule", "simulate"]

# In place of a count of predecessors: the task has been given to a worker.
_TAKEN = -1

# Tasks from which on the loading of compiled code, about a second, is worth it.
_WORTH_COMPILING = 200_000


class Schedule(NamedTuple):
    """What ran where and when.

    Attributes
    ----------
    start, end : (n,) float64 arrays
        Seconds from the begin of the run.
    worker : (n,) int32 array
    """

    start: NDArray[np.float64]
    end: NDArray[np.float64]
    worker: NDArray[np.int32]

    @property
    def makespan(self) -> float:
        """Seconds from the begin of the run to the end of the last task."""
        return float(self.end.max(initial=0.0))


def simulate(
    graph: TaskGraph,
    policy: str | Policy,
    workers: int,
    durations: ArrayLike,
    *,
    compiled: bool | None = None,
) -> Schedule:
    """Run a graph in virtual time, where nothing but tasks takes time.

    The policy is asked as the threads engine asks it. First all tasks without predecessors become
    ready, in submission order, and all workers ask for a task, by number. Afterwards, whenever a
    worker has run a task: the policy is told that it has finished; then of each task that this
    releases, in submission order; the worker asks for its next task; and while ready tasks are
    left, the idle workers ask, in the order in which they became idle. A worker that was given
    nothing is not asked again before another task has finished. Of tasks that end at the same
    time the one that was started first is dealt with first. No more workers take part than there
    are tasks.

    Parameters
    ----------
    graph : TaskGraph
    policy : str or Policy
        A name that `taskla.schedulers.available` lists, or an object, of which a shallow copy is
        started.
    workers : int
        At least 1. All are alike, and in one memory: tiles take no time from one to another.
    durations : (n,) array_like of float
        Seconds that each task takes, 0 or more, wherever it runs.
    compiled : bool, optional
        Whether to use the compiled twin of a built-in policy, which makes the same decisions.
        Default: for large graphs, if the policy has one and Numba is installed.

    Returns
    -------
    Schedule

    Raises
    ------
    ValueError
        When `workers` or a duration is not allowed, there is no such policy, or `compiled` is True
        and the policy has no compiled twin.
    ImportError
        When `compiled` is True and Numba is not installed.
    RuntimeError
        When the policy gives a task that is not ready, or none while none runs.
    """
    policy = schedulers.get(policy)
    seconds = _checked(durations, graph.n)
    crew = max(1, min(_checked_workers(workers), graph.n))
    if compiled is None:
        large = graph.n >= _WORTH_COMPILING
        compiled = large and simulation_compiled.usable(policy)
    if compiled:
        return Schedule(*simulation_compiled.simulate(graph, policy, crew, seconds))
    return _Simulation(graph, copy.copy(policy), crew, seconds).run()


def _checked(durations: ArrayLike, n: int) -> NDArray[np.float64]:
    seconds = np.asarray(durations, dtype=np.float64)
    if seconds.shape != (n,):
        raise ValueError(f"durations must have shape ({n},), not {seconds.shape}")
    wrong = np.flatnonzero(~((seconds >= 0) & (seconds < np.inf)))
    if wrong.size:
        raise ValueError(
            f"durations[{wrong[0]}] is {seconds[wrong[0]]}; it must be finite and at least 0"
        )
    return seconds


def _checked_workers(workers: int) -> int:
    if isinstance(workers, bool) or index(workers) < 1:
        raise ValueError(f"workers is {workers!r}; it must be at least 1")
    return index(workers)


class _Simulation:
    """One run. Only the clock, which jumps from one end of a task to the next, is not real."""

    def __init__(
        self, graph: TaskGraph, policy: Policy, workers: int, durations: NDArray[np.float64]
    ) -> None:
        self._graph = graph
        self._policy = policy
        self._workers = workers
        self._durations = durations.data
        self._missing = graph.indegree.copy().data
        self._left = graph.n
        self._waiting = 0  # ready tasks that no worker has taken
        self._begun = 0  # tasks that were started
        self._now = 0.0
        self._running: list[tuple[float, int, int, int]] = []  # end, how manieth, task, worker
        self._idle: list[int] = []
        self._refused_at = [-1] * workers  # tasks left when a worker last found nothing
        self._schedule = Schedule(
            np.zeros(graph.n), np.zeros(graph.n), np.zeros(graph.n, dtype=np.int32)
        )

    def run(self) -> Schedule:
        """Run all tasks."""
        ready, finished = self._policy.ready, self._policy.finished
        pointer, successors = self._graph.succ_ptr.data, self._graph.succ.data
        missing = self._missing
        self._policy.start(self._graph, self._workers)
        for task in (self._graph.indegree == 0).nonzero()[0].tolist():
            ready(task, None)
            self._waiting += 1
        for worker in range(self._workers if self._left else 0):
            self._ask(worker)
        while self._running:
            self._now, _, task, worker = heappop(self._running)
            self._left -= 1
            finished(task, worker)
            for successor in successors[pointer[task] : pointer[task + 1]]:
                missing[successor] -= 1
                if not missing[successor]:
                    ready(successor, worker)
                    self._waiting += 1
            if self._left:
                self._ask(worker)
                self._wake()
        if self._left:
            raise RuntimeError(
                f"policy {self._policy.name!r} gave none of the {self._waiting} ready tasks to any "
                f"of {self._workers} workers, while {self._left} tasks are left and none is running"
            )
        return self._schedule

    def _ask(self, worker: int) -> None:
        """Start what the policy gives to a worker, or let the worker be idle."""
        task = self._policy.next(worker)
        if task is None:
            self._refused_at[worker] = self._left
            self._idle.append(worker)
            return
        try:
            refused = task < 0 or self._missing[task]
        except (TypeError, IndexError):
            refused = True
        if refused:
            raise RuntimeError(
                f"policy {self._policy.name!r} gave task {task!r} to worker {worker}; "
                "it must give a task that is ready, once"
            )
        self._missing[task] = _TAKEN
        self._waiting -= 1
        start, end, where = self._schedule
        over = self._now + self._durations[task]
        start[task], end[task], where[task] = self._now, over, worker
        heappush(self._running, (over, self._begun, task, worker))
        self._begun += 1

    def _wake(self) -> None:
        """Let idle workers ask, those for whom the end of a task may have changed the answer."""
        if not (self._waiting and self._idle):
            return
        for worker in self._idle.copy():
            if not self._waiting:
                break
            if self._refused_at[worker] != self._left:
                self._idle.remove(worker)
                self._ask(worker)
