"""Compiled twins of the built-in policies, with the simulation around them.

One loop serves the three: a policy is a queue for all workers or one for each, and the rank by
which tasks leave a queue, the lowest first. Eager's rank is the order in which tasks become ready.
"""

from __future__ import annotations

from functools import cache
from heapq import heappop, heappush
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from taskla.graph import TaskGraph
from taskla.schedulers import Policy, precedence
from taskla.schedulers.eager import Eager
from taskla.schedulers.lws import LocalityWorkStealing
from taskla.schedulers.prio import Prio

__all__ = ["simulate", "usable"]

_TWINS = (Eager, Prio, LocalityWorkStealing)

_Arrays = tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int32]]

_SIGNATURE = (
    "Tuple((float64[::1], float64[::1], int32[::1]))"
    "(int64[::1], int32[::1], int32[::1], float64[::1], int64[::1], int64[::1], b1, int64, int64)"
)


def usable(policy: Policy) -> bool:
    """Whether a policy has a compiled twin and Numba is installed."""
    return type(policy) in _TWINS and find_spec("numba") is not None


def simulate(
    graph: TaskGraph, policy: Policy, workers: int, durations: NDArray[np.float64]
) -> _Arrays:
    """Run a graph in virtual time: see `taskla.engines.simulation.simulate`.

    Parameters
    ----------
    graph : TaskGraph
    policy : Policy
        A built-in one. Its class counts; the object is not touched.
    workers : int
        At most n.
    durations : (n,) float64 array
        Seconds.

    Returns
    -------
    start, end : (n,) float64 arrays
        Seconds.
    worker : (n,) int32 array

    Raises
    ------
    ValueError
        When the policy is not exactly of a built-in class.
    ImportError
        When Numba is not installed.
    """
    if type(policy) not in _TWINS:
        names = ", ".join(twin.name for twin in _TWINS)
        raise ValueError(
            f"compiled is True, and policy {policy.name!r} ({type(policy).__name__}) has no "
            f"compiled twin; {names} have one"
        )
    run = load()
    by_release = type(policy) is Eager
    if by_release:
        rank, order = np.empty(graph.n, np.int64), np.empty(graph.n, np.int64)
    else:
        rank, order = (np.array(view, dtype=np.int64) for view in precedence(graph))
    queues = workers if type(policy) is LocalityWorkStealing else 1
    # Tasks without predecessors are the successors of one more, which ends when the run begins.
    missing = graph.indegree.copy()
    sources = np.flatnonzero(missing == 0).astype(np.int32)
    missing[sources] = 1
    successors = np.concatenate([graph.succ, sources], dtype=np.int32)
    pointer = np.append(graph.succ_ptr, successors.size).astype(np.int64)
    seconds = np.array(durations, dtype=np.float64)
    found: _Arrays = run(
        pointer, successors, missing, seconds, rank, order, by_release, queues, workers
    )
    return found


@cache
def load() -> Any:
    """Return the compiled loop: some seconds for the first time, less once it is kept on disk.

    Raises
    ------
    ImportError
        When Numba is not installed.
    """
    try:
        from numba import njit
    except ImportError as error:
        raise ImportError("compiled simulation needs Numba: pip install 'taskla[sim]'") from error
    try:
        return njit(_SIGNATURE, cache=True)(_loop)
    except (RuntimeError, OSError):
        # There is no folder where compiled code can be kept.
        return njit(_SIGNATURE)(_loop)


def _loop(
    pointer: NDArray[np.int64],
    successors: NDArray[np.int32],
    missing: NDArray[np.int32],
    durations: NDArray[np.float64],
    rank: NDArray[np.int64],
    order: NDArray[np.int64],
    by_release: bool,
    queues: int,
    workers: int,
) -> _Arrays:
    """Run task n, which ends at once, and all that it releases."""
    n = durations.size
    start, end, where = np.zeros(n), np.zeros(n), np.zeros(n, dtype=np.int32)
    heaps = [[0 for _ in range(0)] for _ in range(queues)]
    running = [(0.0, 0, 0, 0) for _ in range(0)]  # end, how manieth, task, worker
    idle = np.arange(workers)  # a ring
    first, sleeping = 0, workers
    waiting = released = begun = 0
    now, task, worker = 0.0, n, -1
    while True:
        for successor in successors[pointer[task] : pointer[task + 1]]:
            missing[successor] -= 1
            if missing[successor] == 0:
                if by_release:
                    rank[successor] = released
                    order[released] = successor
                owner = worker if worker >= 0 else released
                heappush(heaps[owner % queues], rank[successor])
                released += 1
                waiting += 1
        if worker >= 0:
            # It asks before those that were idle already, and is the last of them otherwise.
            if waiting:
                first = (first - 1) % workers
                idle[first] = worker
            else:
                idle[(first + sleeping) % workers] = worker
            sleeping += 1
        while waiting and sleeping:
            worker = idle[first]
            first = (first + 1) % workers
            sleeping -= 1
            # Its own queue, then + 1, - 1, + 2, ...
            nearest = worker % queues
            for step in range(1, queues):
                if heaps[nearest]:
                    break
                nearest = (worker + ((step + 1) // 2 if step % 2 else -(step // 2))) % queues
            task = order[heappop(heaps[nearest])]
            waiting -= 1
            start[task] = now
            end[task] = now + durations[task]
            where[task] = worker
            heappush(running, (end[task], begun, task, worker))
            begun += 1
        if not running:
            return start, end, where
        now, _, task, worker = heappop(running)
