"""A trace in memory: a header and tables; and one run of it, to look at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from taskla.dependencies import Successors
from taskla.graph import Grid, Kind, TaskGraph
from taskla.traces.tables import TABLES, empty

__all__ = ["Run", "Series", "Trace", "Worker"]

Table = NDArray[Any]
Header = dict[str, Any]


class Worker(NamedTuple):
    """One worker of a run: its rank, its number there, the kind of device that it drives."""

    rank: int
    worker: int
    device: str

    @property
    def name(self) -> str:
        """``cpu 1`` where there is one rank; pictures put the rank's name in front."""
        return f"{self.device} {self.worker}"


class Series(NamedTuple):
    """Samples of one quantity over a run.

    Attributes
    ----------
    name : str
        ``package-0``, ``memory``, ``ready``, ...
    kind : {"power", "energy", "memory", "ready"}
        Watts, the mean since the sample before; joules since the run began; bytes that the process
        holds; tasks that could run and no worker has taken.
    unit : str
    source : {"measured", "modelled"}
    time : (s,) float64 array
        Seconds from the trace's origin.
    value : (s,) float64 array
    """

    name: str
    kind: str
    unit: str
    source: str
    time: NDArray[np.float64]
    value: NDArray[np.float64]


class Trace:
    """Runs that were recorded, imported or simulated.

    Parameters
    ----------
    header : dict
        JSON's types; `docs/traces.md` describes it.
    tables : mapping of str to structured array
        Those of `taskla.traces.tables`; a missing one is empty.

    Attributes
    ----------
    header : dict
    tables : dict of str to structured array
    """

    def __init__(self, header: Header, tables: Mapping[str, Table]) -> None:
        self.header = header
        self.tables = {name: tables.get(name, empty(name)) for name in TABLES}

    def __repr__(self) -> str:
        return f"Trace({len(self)} runs, {len(self.tables['tasks'])} tasks)"

    def __len__(self) -> int:
        return len(self.header["runs"])

    @cached_property
    def runs(self) -> tuple[Run, ...]:
        """All runs, in order."""
        return tuple(Run(self, number) for number in range(len(self)))

    def run(self, number: int | None = None) -> Run:
        """Return one run.

        Parameters
        ----------
        number : int, optional
            Default: of the program that took the longest in all repeats together, the repeat of
            median length.

        Raises
        ------
        ValueError
            When there is no run of that number, or none at all.
        """
        if not len(self):
            raise ValueError("the trace has no runs")
        if number is not None:
            if not 0 <= number < len(self):
                raise ValueError(f"run is {number}; the trace has runs 0 to {len(self) - 1}")
            return self.runs[number]
        repeats: dict[Any, list[Run]] = {}
        for run in self.runs:
            repeats.setdefault(run.setting, []).append(run)
        longest = max(repeats.values(), key=lambda runs: sum(run.makespan for run in runs))
        return sorted(longest, key=lambda run: run.makespan)[(len(longest) - 1) // 2]

    def names(self, column: str) -> list[str]:
        """Return the names that the codes of a column stand for: those of kernels, formats, ..."""
        listed: list[Any] = self.header[column]
        return [item if isinstance(item, str) else str(item["name"]) for item in listed]


class Run:
    """One run: tasks that ran, sorted by number, and what belongs to them.

    Attributes
    ----------
    trace : Trace
    number : int
    info : dict
        What the header says of it.
    """

    def __init__(self, trace: Trace, number: int) -> None:
        self.trace = trace
        self.number = number
        self.info: dict[str, Any] = trace.header["runs"][number]

    def __repr__(self) -> str:
        return f"Run({self.number}: {self.program}, {self.tasks.size} tasks, {self.makespan:.4g} s)"

    # -- what was run ------------------------------------------------------------------------------

    @property
    def program(self) -> str:
        """The algorithm's name, or what was imported."""
        return str(self.info["program"])

    @cached_property
    def parameters(self) -> dict[str, Any]:
        """What was asked for: op, type, n, nb and options.

        Where the header does not say, the sizes and the data type of the program's first matrix.
        """
        known: dict[str, Any] = dict(self.info.get("parameters") or {})
        first = next((matrix for matrix in self.matrices if not matrix["scratch"]), None)
        if known or first is None:
            return known
        sizes = ("n", "nb") if first["m"] == first["n"] else ("m", "n", "nb")
        return {name: first[name] for name in sizes} | {"type": _letter(first["dtype"])}

    @property
    def setting(self) -> tuple[Any, ...]:
        """What repeats of one another have in common."""
        keys = ("program", "graph", "engine", "policy", "workers", "ranks", "distribution")
        return (
            *(str(self.info.get(key)) for key in keys),
            *((name, str(value)) for name, value in sorted(self.parameters.items())),
        )

    @cached_property
    def matrices(self) -> list[dict[str, Any]]:
        """The matrices of its graph: name, m, n, nb, dtype, scratch; and `code`, as in tables."""
        return [
            {**matrix, "code": code}
            for code, matrix in enumerate(self.trace.header["matrices"])
            if matrix["graph"] == self.info["graph"]
        ]

    # -- tables ------------------------------------------------------------------------------------

    @cached_property
    def tasks(self) -> Table:
        """(n,) The tasks that ran, sorted by number; columns as in `taskla.traces.tables`."""
        tasks = self.trace.tables["tasks"]
        mine: Table = tasks[tasks["run"] == self.number]
        ordered: Table = mine[np.argsort(mine["task"], kind="stable")]
        return ordered

    @cached_property
    def accesses(self) -> Table:
        """(a,) The accesses of these tasks, task by task; ``task`` is the number in the graph."""
        accesses = self.trace.tables["accesses"]
        mine = accesses[accesses["graph"] == self.info["graph"]]
        mine = mine[np.isin(mine["task"], self.tasks["task"])]
        ordered: Table = mine[np.argsort(mine["task"], kind="stable")]
        return ordered

    @cached_property
    def edges(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """(e,), (e,) Edges between these tasks, as rows of `tasks`, sorted by source and target."""
        edges = self.trace.tables["edges"]
        mine = edges[edges["graph"] == self.info["graph"]]
        number = self.tasks["task"]
        if not number.size or not mine.size:
            return np.zeros(0, np.int64), np.zeros(0, np.int64)
        ends = []
        for end in ("source", "target"):
            row = np.searchsorted(number, mine[end])
            row[row == number.size] = 0
            ends.append(np.where(number[row] == mine[end], row, -1))
        source, target = ends
        ran = (source >= 0) & (target >= 0)
        source, target = source[ran], target[ran]
        order = np.lexsort((target, source))
        return source[order], target[order]

    @cached_property
    def messages(self) -> Table:
        """(m,) The messages of this run."""
        messages = self.trace.tables["messages"]
        mine: Table = messages[messages["run"] == self.number]
        return mine

    @cached_property
    def series(self) -> tuple[Series, ...]:
        """What was sampled during this run."""
        samples = self.trace.tables["samples"]
        mine = samples[samples["run"] == self.number]
        found = []
        for code, about in enumerate(self.trace.header["series"]):
            rows = mine[mine["series"] == code]
            if rows.size:
                rows = rows[np.argsort(rows["time"], kind="stable")]
                found.append(
                    Series(
                        about["name"],
                        about["kind"],
                        about["unit"],
                        about["source"],
                        rows["time"],
                        rows["value"],
                    )
                )
        return tuple(found)

    # -- times -------------------------------------------------------------------------------------

    @property
    def begin(self) -> float:
        """Seconds from the trace's origin to the begin of the run."""
        return float(self.info["begin"])

    @property
    def end(self) -> float:
        """Seconds from the trace's origin to the end of the last task."""
        return float(self.tasks["end"].max(initial=self.begin))

    @property
    def makespan(self) -> float:
        """Seconds from the begin of the run to the end of the last task."""
        return self.end - self.begin

    @cached_property
    def durations(self) -> NDArray[np.float64]:
        """(n,) Seconds that each task took."""
        return np.asarray(self.tasks["end"] - self.tasks["start"])

    # -- codes in words ----------------------------------------------------------------------------

    @cached_property
    def kernels(self) -> list[str]:
        """Names of the kernels, by code."""
        return self.trace.names("kernels")

    @cached_property
    def workers(self) -> tuple[Worker, ...]:
        """The workers by rank and number, those that had nothing to do included."""
        devices = self.trace.names("devices")
        _, first = np.unique(self._worker_key, return_index=True)
        seen = self.tasks[["rank", "worker", "device"]][first].tolist()
        known = {(rank, worker): devices[device] for rank, worker, device in seen}
        count = self.info.get("workers") or 0
        for rank in range(max(int(self.info.get("ranks") or 1), 1)):
            for worker in range(count):
                known.setdefault((rank, worker), devices[0] if devices else "cpu")
        return tuple(Worker(rank, worker, known[rank, worker]) for rank, worker in sorted(known))

    @cached_property
    def lanes(self) -> NDArray[np.int64]:
        """(n,) The worker of each task, as an index into `workers`."""
        keys = [(worker.rank << 32) | worker.worker for worker in self.workers]
        lanes: NDArray[np.int64] = np.searchsorted(np.array(keys, np.int64), self._worker_key)
        return lanes

    @cached_property
    def _worker_key(self) -> NDArray[np.int64]:
        """(n,) Rank and worker of each task in one number."""
        return np.asarray((self.tasks["rank"].astype(np.int64) << 32) | self.tasks["worker"])

    def label(self, row: int) -> str:
        """Return a task in words: ``potrf A(3, 3)``."""
        task = self.tasks[row]
        name = self.kernels[int(task["kernel"])]
        if task["matrix"] < 0:
            return name
        matrix: str = self.trace.header["matrices"][task["matrix"]]["name"]
        return f"{name} {matrix}({task['i']}, {task['j']})"

    # -- the graph ---------------------------------------------------------------------------------

    def graph(self) -> TaskGraph:
        """Return the graph of the tasks that ran, numbered as the rows of `tasks`.

        It has the edges, flops, priorities, iterations and kernels that were recorded, not the
        kernels' parameters: policies and the simulator can work on it, engines with real tiles can
        not.
        """
        tasks, accesses = self.tasks, self.accesses
        grids: list[Grid] = []
        base: dict[int, Grid] = {}
        for about in self.matrices:
            sizes = (about["m"], about["n"], about["nb"])
            first = grids[-1].end if grids else 0
            grid = Grid(about["name"], *sizes, np.dtype(about["dtype"]), first, about["scratch"])
            grids.append(grid)
            base[about["code"]] = grid
        tiles = np.zeros(accesses.size, dtype=np.int32)
        for code, grid in base.items():
            mine = accesses["matrix"] == code
            tiles[mine] = grid.base + accesses["i"][mine] + accesses["j"][mine] * grid.mt
        width = np.searchsorted(tasks["task"], accesses["task"])
        dtype = grids[0].dtype if grids else np.dtype(np.float64)
        source, target = self.edges
        pointer = np.zeros(tasks.size + 1, dtype=np.int64)
        np.cumsum(np.bincount(source, minlength=tasks.size), out=pointer[1:])
        counts = np.bincount(width, minlength=tasks.size)
        return TaskGraph(
            grids=grids,
            kinds=[Kind(name, (), dtype) for name in self.kernels],
            kind=tasks["kernel"].astype(np.int32),
            indptr=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
            tiles=tiles,
            operand=np.ascontiguousarray(accesses["operand"]),
            modes=np.ascontiguousarray(accesses["mode"]),
            calls=np.arange(tasks.size + 1, dtype=np.int64),
            priority=np.ascontiguousarray(tasks["priority"]),
            multiplicity=np.ascontiguousarray(tasks["tile_tasks"]),
            flops=np.ascontiguousarray(tasks["flops"]),
            iterations=np.ascontiguousarray(tasks["k"]),
            name=self.program,
            successors=Successors(pointer, target.astype(np.int32)),
        )

    def rescheduled(self, schedules: Sequence[Mapping[str, Any]]) -> Trace:
        """Return a trace of other runs of the same tasks: what a simulator made of this one.

        Parameters
        ----------
        schedules : sequence of mapping
            One a run: ``start`` and ``end``, (n,) seconds from the run's begin, ``worker``, (n,),
            for the rows of `tasks`; every other entry goes into the header's description of the run
            (``policy``, ``workers``, ...).
        """
        tables = {name: empty(name) for name in TABLES}
        for name in ("accesses", "edges"):
            table = self.trace.tables[name]
            tables[name] = table[table["graph"] == self.info["graph"]]
        runs, tasks, begin = [], [], 0.0
        source, target = self.edges
        for number, schedule in enumerate(schedules):
            start, end, worker = (np.asarray(schedule[key]) for key in ("start", "end", "worker"))
            rows = self.tasks.copy()
            ready = np.zeros(rows.size)
            np.maximum.at(ready, target, end[source])
            rows["run"], rows["worker"], rows["rank"], rows["joules"] = number, worker, 0, np.nan
            rows["submit"] = begin
            rows["ready"], rows["start"], rows["end"] = ready + begin, start + begin, end + begin
            tasks.append(rows)
            about = {
                key: schedule[key] for key in schedule if key not in ("start", "end", "worker")
            }
            last = float(end.max(initial=0.0)) + begin
            runs.append(
                {
                    **self.info,
                    "energy": {"source": "unavailable"},
                    **about,
                    "run": number,
                    "begin": begin,
                    "end": last,
                }
            )
            begin = last
        if tasks:
            tables["tasks"] = np.concatenate(tasks)
        return Trace({**self.trace.header, "runs": runs, "series": []}, tables)


def _letter(dtype: str) -> str:
    """LAPACK's letter of a data type, or its name where LAPACK has none."""
    letters = {"float32": "s", "float64": "d", "complex64": "c", "complex128": "z"}
    return letters.get(dtype, dtype)
