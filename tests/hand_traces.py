"""A trace so small that every figure of its analysis is computed by hand."""

from __future__ import annotations

from typing import Any

from taskla.traces import Trace
from taskla.traces.tables import VERSION, empty

__all__ = ["four_tasks"]

# task, kernel, k, worker, ready, start, end, Gflop, joules; 1 and 2 wait for 0, 3 waits for both
_TASKS = (
    (0, 0, 0, 0, 0.0, 1.0, 3.0, 1, 1.0),
    (1, 1, 0, 1, 3.0, 3.5, 5.5, 4, 2.0),
    (2, 1, 0, 0, 3.0, 3.0, 7.0, 2, 3.0),
    (3, 2, 1, 1, 7.0, 7.25, 8.0, 3, 4.0),
)
_EDGES = ((0, 1), (0, 2), (1, 3), (2, 3))


def four_tasks(
    kernels: tuple[str, ...] = ("potrf", "trsm", "syrk"),
    scales: tuple[float, ...] = (1.0,),
    **info: Any,
) -> Trace:
    """A trace of one run a scale, which its times are multiplied with; `info` goes to each run.

    Run 0 begins 10 s after the origin, each other one where the one before it ends.
    """
    edges = empty("edges", len(_EDGES))
    edges["source"], edges["target"] = zip(*_EDGES, strict=True)
    tasks = empty("tasks", len(_TASKS) * len(scales))
    runs, begin = [], 10.0
    for number, scale in enumerate(scales):
        rows = tasks[len(_TASKS) * number : len(_TASKS) * (number + 1)]
        names = ("task", "kernel", "k", "worker", "ready", "start", "end", "flops", "joules")
        for name, values in zip(names, zip(*_TASKS, strict=True), strict=True):
            rows[name] = values
        rows["run"], rows["matrix"], rows["tile_tasks"] = number, -1, (1, 1, 3, 1)
        rows["flops"] *= 1e9
        rows["bytes_read"], rows["bytes_written"] = 100, 10
        for name in ("ready", "start", "end"):
            rows[name] = begin + scale * rows[name]
        about = {"run": number, "graph": 0, "tasks": 4, "program": "made", "status": "completed"}
        about |= {"begin": begin, "end": begin + 8 * scale, "engine": "threads", "policy": "prio"}
        about |= {"workers": 2, "ranks": 1, "repeat": number, "parameters": {"n": 96, "nb": 16}}
        about["energy"] = {"source": "measured", "joules": 15.0, "idle_joules": 5.0}
        runs.append({**about, **info})
        begin += 8 * scale
    header = {
        "format": "taskla-trace",
        "version": VERSION,
        "created": "2026-01-31T12:00:00+00:00",
        "command": ["taskla", "bench", "a name"],
        "machine": {"processor": "made up", "cores": 4, "memory": 2**34},
        "blas": {"name": "openblas"},
        "versions": {"taskla": "0"},
        "runs": runs,
        "graphs": [{"graph": 0}],
        "kernels": list(kernels),
        "formats": ["fp64"],
        "compressions": ["none"],
        "devices": ["cpu"],
        "matrices": [],
        "series": [],
    }
    return Trace(header, {"tasks": tasks, "edges": edges})
