"""The engine on the threads of this process."""

from __future__ import annotations

import atexit
import copy
import os
from collections.abc import Callable, Iterable, Sequence
from time import perf_counter
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakKeyDictionary

from taskla import schedulers
from taskla.engines.base import Engine, TileSource, at_least_one
from taskla.engines.checkpoint import Checkpoints
from taskla.engines.cores import cores
from taskla.engines.crew import Each, Job, conduct, is_worker
from taskla.engines.execution import Execution
from taskla.engines.graph_run import GraphRun
from taskla.fusion import fuse as fuse_tasks
from taskla.graph import TaskGraph
from taskla.reductions import ordered_reductions
from taskla.schedulers import Policy

if TYPE_CHECKING:
    from taskla.energy import Source
    from taskla.engines.journal import Journal
    from taskla.traces import Recorder, Recording

__all__ = ["ThreadsEngine", "at_least_one"]

Result = TypeVar("Result")

# Tile tasks of one call that are joined into one. It must not depend on the number of workers: a
# joined product sums in another order, and results have the same bits on any number of them.
FUSE = 8

# Graph -> width of fusion -> what runs in its place, None for the graph itself. Programs are kept
# and run many times; preparing a small one takes as long as running it.
_known: WeakKeyDictionary[TaskGraph, dict[int, TaskGraph | None]] = WeakKeyDictionary()


class ThreadsEngine(Engine):
    """Worker threads of this process, one BLAS thread each.

    The threads live as long as a run. One worker is the calling thread itself; so is the worker
    that does what a running task or mapped function asks of taskla, in submission order. The
    result has the same bits on every run, whatever `workers` and `policy` are.

    Parameters
    ----------
    workers : int, optional
        Number of threads. Default: the cores that this process may use (affinity mask and cgroup
        quota).
    policy : str or Policy, default "lws"
        Which ready task a worker runs next; `taskla.schedulers.available` lists the names. Of an
        object each run starts a shallow copy.
    fuse : int, optional
        How many tile tasks of one call may be joined into one task, at least 1; results for
        different values differ by rounding. The default, 4, is the same for any number of workers.
    trace : path or Recorder, optional
        Record every run: see `taskla.traces`. A file is written when ``with`` ends, whatever
        happened inside, or when Python ends after `set_default`.
    energy : str, optional
        Where the joules of a trace come from: see `taskla.energy.find`. Default: "auto".
    progress : bool, optional
        Whether to show a progress bar on standard error. Default: at a terminal, once a run has
        taken a second.
    checkpoint : path, optional
        Folder in which to save what long runs have done, and from which the same program resumes
        them: see `taskla.engines.checkpoint.Checkpoints`.
    checkpoint_every : int, optional
        Iterations of an algorithm's loop from one checkpoint to the next, at least 1. Default: 10.

    Raises
    ------
    ValueError
        When `workers`, `fuse` or `checkpoint_every` is not an integer of at least 1, `progress` not
        a bool or None, there is no such policy or source of energy, or energy is asked for without
        a trace or `checkpoint_every` without `checkpoint`.
    TypeError
        When `policy` is neither a name nor a policy.
    OSError
        When no trace or checkpoint can be written there.
    """

    name = "threads"

    def __init__(
        self,
        workers: int | None = None,
        policy: str | Policy = "lws",
        fuse: int | None = None,
        progress: bool | None = None,
        trace: str | os.PathLike[str] | Recorder | None = None,
        energy: str | None = None,
        checkpoint: str | os.PathLike[str] | None = None,
        checkpoint_every: int | None = None,
    ) -> None:
        self.workers = cores() if workers is None else at_least_one("workers", workers)
        self.policy = schedulers.get(policy)
        self.fuse = FUSE if fuse is None else at_least_one("fuse", fuse)
        if progress not in (None, True, False):
            raise ValueError(f"progress is {progress!r}; it must be True, False or None")
        self.progress = progress
        if energy is not None and trace is None:
            raise ValueError(f"energy is {energy!r}; it is for a trace: give trace as well")
        self.journal = None if trace is None else _journal(trace, energy or "auto")
        self.checkpoints = Checkpoints.wanted(
            checkpoint, checkpoint_every, engine=self.name, fuse=self.fuse
        )

    def __repr__(self) -> str:
        return (
            f"ThreadsEngine(workers={self.workers}, policy={self.policy.name!r}, fuse={self.fuse}, "
            f"progress={self.progress})"
        )

    def run(self, graph: TaskGraph, matrices: Sequence[TileSource]) -> None:
        """Run all tasks of a graph: see `Engine.run`."""
        if self.checkpoints is None or is_worker():
            self._run(graph, matrices)
        else:
            self.checkpoints.run(graph, matrices, self._run)

    def _run(self, graph: TaskGraph, matrices: Sequence[TileSource]) -> None:
        submitted = perf_counter()
        graph = self.prepare(graph)
        execution = Execution(graph, matrices)
        # What a running task asks of taskla is a part of that task.
        if self.journal is None or graph.n == 0 or is_worker():
            conduct(self._job(graph, execution), self.workers, self.progress)
            return
        workers, policy = self.workers, self.policy.name
        with self.journal.run(
            graph,
            submitted,
            engine=self.name,
            policy=policy,
            workers=workers,
            ranks=1,
            fuse=self.fuse,
        ) as (recording, sampler):
            job = self._job(graph, execution, recording)
            if isinstance(job, GraphRun):
                sampler.waiting = lambda: job.waiting
            conduct(job, workers, self.progress)

    def prepare(self, graph: TaskGraph) -> TaskGraph:
        """Return the graph that runs in place of another, with all that running it needs.

        Sums are put in order and tasks fused, dependencies and priorities derived. What comes of it
        is kept, so that running the graph afterwards begins at once.
        """
        graph = _prepared(graph, self.fuse)
        if graph.n > 1:
            graph.indegree  # noqa: B018 (derived when first asked for)
            graph.priorities()
        return graph

    def _job(
        self, graph: TaskGraph, execution: Execution, recording: Recording | None = None
    ) -> Job:
        """Return what a crew is to do."""
        if graph.n > 1 and not is_worker():
            workers = min(self.workers, graph.n)
            return GraphRun(graph, execution, copy.copy(self.policy), workers, recording)
        return Each(graph.n, execution if recording is None else recording.observed(0, execution))

    def recorded(self, trace: Recorder, energy: Source) -> ThreadsEngine:
        """Return an engine with the same settings that records its runs."""
        other = copy.copy(self)
        other.journal = _journal(trace, energy)
        return other

    def set_default(self) -> None:
        """Put this engine in force: see `Engine.set_default`. Its trace is written at the end."""
        super().set_default()
        if self.journal is not None:
            atexit.register(self.journal.save)

    def __exit__(self, *details: object) -> None:
        super().__exit__(*details)
        if self.journal is not None:
            self.journal.save()

    def map(
        self, function: Callable[..., Result], arguments: Iterable[tuple[Any, ...]]
    ) -> list[Result]:
        """Return ``[function(*a) for a in arguments]``: see `Engine.map`."""
        calls = list(arguments)
        results: list[Any] = [None] * len(calls)

        def call(number: int) -> None:
            try:
                results[number] = function(*calls[number])
            except BaseException as error:
                name = getattr(function, "__qualname__", repr(function))
                error.add_note(f"in call {number} of {len(calls)} of {name}")
                raise

        conduct(Each(len(calls), call), self.workers, self.progress)
        return results


def _prepared(graph: TaskGraph, width: int) -> TaskGraph:
    """Return the graph that runs in place of another: its sums in order, its tasks fused."""
    if graph.n <= 1:
        return graph
    known = _known.setdefault(graph, {})
    if width not in known:
        prepared = fuse_tasks(ordered_reductions(graph), width)
        # A value that refers to its key would keep it alive.
        known[width] = None if prepared is graph else prepared
    found = known[width]
    return graph if found is None else found


def _journal(trace: str | os.PathLike[str] | Recorder, energy: Source | str) -> Journal:
    # Most runs are not recorded, and need not wait for this to be imported.
    from taskla.engines.journal import Journal

    return Journal(trace, energy)
