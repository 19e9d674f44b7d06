"""Traces to test with: real ones, and made ones of which every number is known."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import taskla as tla
from taskla.algorithms.getrf import getrf
from taskla.algorithms.potrf import potrf
from taskla.flow import TaskFlow
from taskla.graph import TaskGraph
from taskla.traces import Recorder, Trace

__all__ = ["cholesky", "lu", "made", "real"]


def cholesky(nt: int, nb: int = 4) -> TaskGraph:
    """The graph of a Cholesky factorisation of nt x nt tiles."""
    flow = TaskFlow()
    potrf(flow, flow.matrix(nt * nb, nt * nb, nb=nb, name="A"))
    return flow.graph("potrf")


def lu(nt: int, nb: int = 4) -> TaskGraph:
    """The graph of an LU factorisation with partial pivoting: tasks on several tiles."""
    flow = TaskFlow()
    A = flow.matrix(nt * nb, nt * nb, nb=nb, name="A")
    P = flow.matrix(nt * nb, 1, nb=nb, dtype="int32", name="P")
    getrf(flow, A, P)
    return flow.graph("getrf")


def real(path: Any = None, n: int = 96, nb: int = 16, workers: int = 2, repeats: int = 1) -> Trace:
    """A trace of Cholesky factorisations that really ran; in a file as well if a path is given."""
    recorder = Recorder(path)
    with tla.engine("threads", workers=workers, trace=recorder, fuse=1, progress=False):
        for repeat in range(repeats):
            recorder.context = {"repeat": repeat, "parameters": {"op": "potrf", "n": n, "nb": nb}}
            tla.potrf(tla.TiledMatrix.random((n, n), nb=nb, kind="spd", uplo="lower"))
    return recorder.trace()


def made(
    graph: TaskGraph | None = None,
    *,
    ranks: int = 1,
    workers: int = 2,
    repeats: int = 1,
    duration: Callable[[str], float] = lambda kernel: 2.0 if kernel == "gemm" else 1.0,
    joules: float | None = 3.0,
) -> Trace:
    """A trace of runs that were scheduled by hand, in exact seconds: task t on rank t mod ranks.

    Every task takes ``duration(kernel)`` seconds and `joules` joules. Each data dependency between
    ranks is a message of 1000 bytes that takes half a second; a task waits for its messages. Meter
    "package-0" shows 50 W, one sample a second.
    """
    graph = cholesky(5) if graph is None else graph
    recorder = Recorder()
    recorder.facts = {"machine": {"processor": "made up", "cores": 4}, "versions": {"taskla": "0"}}
    for repeat in range(repeats):
        info: dict[str, Any] = {"engine": "threads", "policy": "prio", "workers": workers}
        recording = recorder.start(graph, **info, ranks=ranks, repeat=repeat)
        begin = recording.begin
        free = np.zeros((ranks, workers))
        arrival = np.zeros(graph.n)
        grids = list(graph.grids)
        # submission order is a topological order: each task goes to the worker that is free first
        for task in range(graph.n):
            rank = task % ranks
            worker = int(np.argmin(free[rank]))
            start = max(free[rank, worker], arrival[task])
            end = start + duration(graph.operations[graph.kind[task]]) + repeat / 8
            free[rank, worker] = end
            recording.start[task], recording.end[task] = begin + start, begin + end
            recording.worker[task], recording.rank[task] = worker, rank
            grid, i, j = graph.locate(task)
            told: dict[int, float] = {}
            for successor in graph.succ[graph.succ_ptr[task] : graph.succ_ptr[task + 1]].tolist():
                to = successor % ranks
                if to != rank and to not in told:
                    told[to] = end + 0.5
                    number = grids.index(grid)
                    sent = (task, number, i, j, rank, to, 1000, begin + end, begin + end + 0.5)
                    recording.messages.append(sent)
                arrival[successor] = max(arrival[successor], told.get(to, end))
        last = float(free.max())
        for second in range(int(last) + 1):
            for kind, unit, value in (("power", "W", 50.0), ("energy", "J", 50.0 * second)):
                about = ("package-0", kind, unit, "measured")
                recording.samples.append((about, begin + second, value))
            recording.samples.append((("memory", "memory", "B", "measured"), begin + second, 1e6))
        if joules is not None:
            recording.joules = np.full(graph.n, joules)
            total = joules * graph.n
            recording.info["energy"] = {
                "source": "measured",
                "joules": total + 7.0,
                "idle_joules": 7.0,
                "meters": [{"name": "package-0", "kind": "package", "joules": total + 7.0}],
            }
        recording.close()
        recording.over = begin + last
    return recorder.trace()
