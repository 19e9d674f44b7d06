"""Whether what was read is a trace: every code and number that code relies on."""

from __future__ import annotations

from typing import Any

import numpy as np

from taskla.traces.tables import MODES, TABLES, VERSION
from taskla.traces.trace import Trace

__all__ = ["check"]

_LISTS = ("runs", "graphs", "matrices", "kernels", "formats", "compressions", "devices", "series")
_RUN = {"program": str, "graph": int, "begin": (int, float), "end": (int, float), "status": str}
_MATRIX = {"name": str, "graph": int, "m": int, "n": int, "nb": int, "dtype": str, "scratch": bool}
_SERIES = {"name": str, "kind": str, "unit": str, "source": str}

# A number that a picture or a graph may make an array of.
_MOST = 2**31 - 1


def check(trace: Trace) -> None:
    """Raise ValueError when a trace is not one that the rest of this package can rely on."""
    header = trace.header
    if header.get("format") != "taskla-trace":
        raise ValueError("the header does not say that it is a trace")
    version = header.get("version")
    if not isinstance(version, int) or version < 1:
        raise ValueError(f"its version is {version!r}")
    if version > VERSION:
        raise ValueError(f"it has version {version}, and this taskla reads up to {VERSION}")
    for name in _LISTS:
        if not isinstance(header.get(name), list):
            raise ValueError(f"the header has no list {name!r}")
    for name in ("kernels", "formats", "compressions", "devices"):
        _check_strings(name, header[name])
    _check_items("runs", header["runs"], _RUN)
    _check_items("matrices", header["matrices"], _MATRIX)
    _check_items("series", header["series"], _SERIES)
    _check_runs(header)
    _check_matrices(header)
    _check_codes(trace)
    _check_times(trace)


def _check_strings(name: str, items: list[Any]) -> None:
    if not all(isinstance(item, str) for item in items):
        raise ValueError(f"the header's {name!r} are not all names")


def _check_items(name: str, items: list[Any], keys: dict[str, Any]) -> None:
    for item in items:
        if not isinstance(item, dict):
            raise ValueError(f"the header's {name!r} are not all objects")
        for key, kind in keys.items():
            value = item.get(key)
            # True is an integer to Python
            if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
                raise ValueError(f"an item of the header's {name!r} has {key} {value!r}")


def _check_runs(header: dict[str, Any]) -> None:
    for run in header["runs"]:
        if not 0 <= run["graph"] < len(header["graphs"]):
            raise ValueError(f"a run is of graph {run['graph']}, which is not there")
        if not -np.inf < run["begin"] <= run["end"] < np.inf:
            raise ValueError(f"a run goes from {run['begin']} to {run['end']}")
        for key in ("workers", "ranks"):
            count = run.get(key)
            if count is not None and (not isinstance(count, int) or not 0 <= count <= 10**6):
                raise ValueError(f"a run has {key} {count!r}")
        if (run.get("workers") or 0) * (run.get("ranks") or 1) > 10**6:
            raise ValueError(f"a run has {run['workers']} workers on each of {run['ranks']} ranks")
        for key in ("parameters", "energy"):
            if not isinstance(run.get(key) or {}, dict):
                raise ValueError(f"{key} of a run is no object")
        clocks = run.get("clock") or []
        if not isinstance(clocks, list) or not all(isinstance(clock, dict) for clock in clocks):
            raise ValueError("clock of a run is no list of objects")


def _check_matrices(header: dict[str, Any]) -> None:
    for matrix in header["matrices"]:
        if not 0 <= matrix["graph"] < len(header["graphs"]):
            raise ValueError(f"a matrix is of graph {matrix['graph']}, which is not there")
        sizes = matrix["m"], matrix["n"], matrix["nb"]
        if min(sizes) < 0 or max(sizes) > _MOST or not matrix["nb"]:
            raise ValueError(f"a matrix is {sizes[0]} x {sizes[1]} with nb {sizes[2]}")
        tiles = -(-matrix["m"] // matrix["nb"]) * -(-matrix["n"] // matrix["nb"])
        if tiles > _MOST:
            raise ValueError(f"a matrix has {tiles} tiles")
        try:
            kind = np.dtype(matrix["dtype"]).kind
        except TypeError:
            kind = ""
        if kind not in "fciu" or not kind:
            raise ValueError(f"a matrix has data type {matrix['dtype']!r}")


def _check_codes(trace: Trace) -> None:
    limits = {name: len(trace.header[name]) for name in _LISTS} | {"modes": len(MODES)}
    for name, columns in TABLES.items():
        table = trace.tables[name]
        if not table.size:
            continue
        for column in columns:
            listed = {"run": "runs", "graph": "graphs", "mode": "modes"}.get(
                column.name, column.names
            )
            if column.name == "task" and name != "messages":
                _check_range(name, column.name, table[column.name], 0, _MOST)
            if listed:
                # -1 says that there is none
                least = -1 if column.name == "matrix" else 0
                _check_range(name, column.name, table[column.name], least, limits[listed] - 1)
    tasks = trace.tables["tasks"]
    for column_name in ("rank", "worker"):
        _check_range("tasks", column_name, tasks[column_name], 0, 10**6)
    edges = trace.tables["edges"]
    if (edges["source"] >= edges["target"]).any():
        raise ValueError("edges: a task waits for one that was submitted after it, or for itself")
    _check_tiles(trace)
    key = tasks["run"].astype(np.int64) << 32 | tasks["task"]
    if np.unique(key).size < key.size:
        raise ValueError("tasks: a task is there twice in one run")


def _check_tiles(trace: Trace) -> None:
    """Every access of a matrix names one of its tiles, and a matrix of the access's graph."""
    accesses = trace.tables["accesses"]
    for code, matrix in enumerate(trace.header["matrices"]):
        mine = accesses[accesses["matrix"] == code]
        if (mine["graph"] != matrix["graph"]).any():
            raise ValueError(f"accesses: matrix {code} is not of that graph")
        for axis, size in (("i", matrix["m"]), ("j", matrix["n"])):
            _check_range("accesses", axis, mine[axis], 0, -(-size // matrix["nb"]) - 1)


def _check_range(table: str, column: str, values: Any, least: int, most: int) -> None:
    if values.size and not least <= values.min() <= values.max() <= most:
        raise ValueError(
            f"{table}: {column} goes from {values.min()} to {values.max()}, "
            f"and {least} to {most} is allowed"
        )


def _check_times(trace: Trace) -> None:
    for name, columns in (
        ("tasks", ("submit", "ready", "start", "end")),
        ("messages", ("start", "end")),
    ):
        table = trace.tables[name]
        for column in columns:
            if not np.isfinite(table[column]).all():
                raise ValueError(f"{name}: {column} is not a time in every row")
        if (table["start"] > table["end"]).any():
            raise ValueError(f"{name}: one ends before it starts")
    tasks = trace.tables["tasks"]
    for column in ("flops", "priority"):
        if not np.isfinite(tasks[column]).all():
            raise ValueError(f"tasks: {column} is not a number in every row")
    samples = trace.tables["samples"]
    if not (np.isfinite(samples["time"]).all() and np.isfinite(samples["value"]).all()):
        raise ValueError("samples: not a number in every row")
