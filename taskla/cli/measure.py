"""One combination of a bench: generate, call, time, check.

On many ranks a run begins when all are ready and ends when the last one has.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from statistics import median
from time import perf_counter
from typing import Any, ClassVar, TypeVar

import numpy as np
from numpy.typing import NDArray

from taskla import energy, programs
from taskla.cli import checks_formats_tiled, checks_tiled
from taskla.cli.checks import check
from taskla.cli.checks_formats import check_formats
from taskla.cli.generate import matrices
from taskla.cli.ranks import Ranks
from taskla.distributions import Distribution
from taskla.engines import Engine
from taskla.engines.base import TileSource
from taskla.engines.journal import task_figures
from taskla.engines.mpi import MPIEngine
from taskla.engines.threads import ThreadsEngine
from taskla.flow import TaskFlow
from taskla.graph import TaskGraph
from taskla.matrix import TiledMatrix
from taskla.matrix_place import Place
from taskla.refinement import RefinementInfo
from taskla.routines import Problem
from taskla.traces import Recorder

__all__ = ["Measured", "measure", "reason_of_fallback"]

Result = TypeVar("Result")


@dataclass(frozen=True)
class Measured:
    """What a combination took; all None for one that failed.

    Attributes
    ----------
    t_submit, time : float
        Seconds, medians of the repeats: to submit the tasks, and from the first submission to the
        last task's end.
    tasks, tasks_run : int
        Tile tasks, and tasks after fusion.
    messages, pivot_messages, bytes_sent : int
        Of all ranks together in one run; None for what is not told apart.
    joules : float or None
        Median of the repeats; None when unavailable.
    energy : {"measured", "modelled", "unavailable"}
        What the joules are.
    note : str or None
        Why there are none, or which of them are missing.
    failure : str or None
        Why a refinement failed, and the last run was in full precision.
    residual : float or None
        The worst of the repeats, None when nothing was checked.
    passed : bool or None
        Whether all repeats did, likewise.
    """

    t_submit: float | None = None
    time: float | None = None
    tasks: int | None = None
    tasks_run: int | None = None
    messages: int = 0
    pivot_messages: int | None = 0
    bytes_sent: int = 0
    joules: float | None = None
    energy: str | None = None
    note: str | None = None
    failure: str | None = None
    residual: float | None = None
    passed: bool | None = None


class _Observed(Engine):
    """Another engine, with a note of when graphs reach it, and of what it runs in their place."""

    name: ClassVar[str] = "observed"

    def __init__(self, engine: ThreadsEngine | MPIEngine) -> None:
        self.engine = engine
        self.graphs: list[TaskGraph] = []
        self.ran: list[TaskGraph] = []
        self.running = 0.0

    @property
    def place(self) -> Place:
        """Where this process stands, for scratch matrices."""
        return self.engine.place

    def run(self, graph: TaskGraph, matrices: Sequence[TileSource]) -> None:
        # dependencies, priorities and messages belong to the submission of tasks
        if isinstance(self.engine, MPIEngine):
            ran = self.engine.prepare(graph, matrices)
        else:
            ran = self.engine.prepare(graph)
        begin = perf_counter()
        self.engine.run(graph, matrices)
        self.running += perf_counter() - begin
        self.graphs.append(graph)
        self.ran.append(ran)

    def map(
        self, function: Callable[..., Result], arguments: Iterable[tuple[Any, ...]]
    ) -> list[Result]:
        return self.engine.map(function, arguments)


def measure(
    p: Problem,
    engine: ThreadsEngine | MPIEngine,
    source: energy.Source,
    recorder: Recorder | None = None,
    ranks: Ranks | None = None,
    maps: Mapping[str, Distribution] | None = None,
    *,
    seed: int,
    repeat: int,
    warmup: int,
    checked: bool,
) -> Measured:
    """Run a problem `warmup` times uncounted and `repeat` times counted, on fresh random matrices.

    Parameters
    ----------
    p : Problem
    engine : Engine
    source : taskla.energy.Source
        Of the joules.
    recorder : Recorder, optional
        Gets the counted runs.
    ranks : Ranks, optional
        Those that run it together, with the engine "mpi". The result is the same on all of them.
    maps : mapping of str to Distribution, optional
        Of the operands, by name.
    seed : int
        Of the matrices.
    repeat, warmup : int
    checked : bool
        Whether to check the result of every counted run.

    Raises
    ------
    numpy.linalg.LinAlgError
        When the routine cannot do it.
    """
    times, submissions, reports, verdicts = [], [], [], []
    for number in range(warmup + repeat):
        counted = number >= warmup
        if counted and recorder is not None:
            recorder.context["repeat"] = number - warmup
        observed = _Observed(engine.recorded(recorder, source) if counted and recorder else engine)
        with engine:
            operands = matrices(p, seed, engine, maps)
            given = p.routine.prepare(p, operands) if p.routine.prepare else None
        # a graph kept from an earlier call would be no submission
        programs.forget()
        if ranks is not None:
            ranks.wait()
        first, sent = _read(source), _sent(observed.engine)
        with observed:
            begin = perf_counter()
            outcome = p.routine.call(p, operands, given)
            time = perf_counter() - begin
        last, sent = _read(source), _sent(observed.engine) - sent
        if counted:
            span = begin, begin + time
            times.append(_latest(time, ranks))
            submissions.append(_latest(time - observed.running, ranks))
            if ranks is None:
                reports.append(_report(source, span, first, last, observed.ran, engine.workers))
            if checked:
                verdicts.append(_check(p, operands, outcome, seed, engine, ranks))
        # before the next ones take as much memory again
        del operands
    tasks_run, messages, pivot_messages, bytes_sent = _total(
        [sum(graph.n for graph in observed.ran), *sent.tolist()], ranks
    )
    measured = Measured(
        t_submit=median(submissions),
        time=median(times),
        tasks=sum(int(graph.multiplicity.sum()) for graph in observed.graphs),
        tasks_run=tasks_run,
        messages=messages,
        pivot_messages=pivot_messages,
        bytes_sent=bytes_sent,
        **_energy(reports),
        failure=reason_of_fallback(outcome),
        # NaN is the worst of all, as NumPy has it
        residual=float(np.max([residual for residual, _ in verdicts])) if verdicts else None,
        passed=all(passed for _, passed in verdicts) if verdicts else None,
    )
    if engine.checkpoints is not None and engine.checkpoints.resumed:
        # the time of the rest is not that of the whole
        return replace(measured, t_submit=None, time=None, tasks_run=None, joules=None)
    return measured


def reason_of_fallback(outcome: Any) -> str | None:
    """Return why a call was not refined to the end; None where it was, or never meant to be."""
    if isinstance(outcome, RefinementInfo) and outcome.solver == "full":
        return outcome.reason
    return None


def _sent(engine: Engine) -> NDArray[np.int64]:
    """Return what this rank has sent so far."""
    names = ("messages", "pivot_messages", "bytes_sent")
    return np.array([getattr(engine, name, 0) for name in names], dtype=np.int64)


def _latest(time: float, ranks: Ranks | None) -> float:
    return time if ranks is None else max(ranks.gather(time))


def _total(numbers: Sequence[int], ranks: Ranks | None) -> list[int]:
    """Return sums over the ranks."""
    everywhere = [numbers] if ranks is None else ranks.gather(numbers)
    return [sum(column) for column in zip(*everywhere, strict=True)]


def _check(
    p: Problem,
    operands: Sequence[TiledMatrix],
    outcome: Any,
    seed: int,
    engine: Engine,
    ranks: Ranks | None,
) -> tuple[float, bool]:
    if ranks is None:
        return (check if p.formats is None else check_formats)(p, operands, outcome, seed)
    on_ranks = checks_tiled.check if p.formats is None else checks_formats_tiled.check_formats
    return on_ranks(p, operands, outcome, seed, engine, ranks)


def _read(source: energy.Source) -> dict[str, float]:
    """Return what the meters show, in joules."""
    joules = {}
    for meter in source.meters:
        # one that cannot be read has no figure, and the account says so
        with suppress(OSError):
            joules[meter.name] = meter.read()
    return joules


def _report(
    source: energy.Source,
    span: tuple[float, float],
    first: dict[str, float],
    last: dict[str, float],
    graphs: Sequence[TaskGraph],
    workers: int,
) -> dict[str, Any]:
    """Return what is known of the energy of a call that took a span of time."""
    figures = [
        task_figures(graph, np.full(graph.n, span[0]), np.full(graph.n, span[1]))
        # of an empty matrix there is nothing to run
        for graph in graphs or [TaskFlow().graph()]
    ]
    readings = {name: last[name] - first[name] for name in first.keys() & last.keys()}
    account = energy.account(
        source,
        begin=span[0],
        end=span[1],
        readings={name: (np.array(span), np.array([0.0, j])) for name, j in readings.items()},
        tasks=energy.Tasks(*(np.concatenate(columns) for columns in zip(*figures, strict=True))),
        workers=workers,
    )
    return account.report


def _energy(reports: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the joules of the repeats, and what they are; of several words the weakest holds."""
    if not reports:
        return {"joules": None, "energy": "unavailable", "note": None}
    words = {report["source"] for report in reports}
    note = next((report["reason"] for report in reports if "reason" in report), None)
    if "unavailable" in words:
        return {"joules": None, "energy": "unavailable", "note": note}
    joules = median(report["joules"] for report in reports)
    word = "modelled" if "modelled" in words else "measured"
    return {"joules": joules, "energy": word, "note": note}
