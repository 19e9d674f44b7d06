"""What the scheduler of a Dask cluster does for our tasks: where each runs, and what became of it.

A task belongs to a rank of a distribution, and each rank to a worker that is there: when a worker
leaves, others take over its ranks; when one comes, it takes some. Tasks may run elsewhere when
their worker is gone before this is known, but are not stolen. Copies of a result that no task of
their worker waits for are dropped.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import Any

from taskla.engines.dask_progress import Fused, Progress, TileGrid
from taskla.engines.dask_task import About

__all__ = ["NAME", "Ranks", "Tasks", "install"]

#: Of the plugin, among those of the scheduler.
NAME = "taskla"

#: The priority of what can wait for everything else.
LAST = 2**40


class Ranks:
    """The worker of each rank. Pure: told who is there, it tells who does what."""

    def __init__(self, workers: Iterable[str] = ()) -> None:
        self._ranks: dict[str, set[int]] = {worker: set() for worker in workers}
        self._worker: dict[int, str] = {}

    def worker(self, rank: int) -> str | None:
        """Return the worker of a rank; None if there is none at all."""
        if not self._ranks:
            return None
        if rank not in self._worker:
            self._give(rank)
        return self._worker[rank]

    def _give(self, rank: int) -> None:
        # of those that have the fewest the one that came first
        worker = min(self._ranks, key=lambda name: len(self._ranks[name]))
        self._ranks[worker].add(rank)
        self._worker[rank] = worker

    def add(self, worker: str) -> list[int]:
        """Take note of a new worker; return the ranks that are now elsewhere."""
        if worker in self._ranks:
            return []
        self._ranks[worker] = set()
        moved = [rank for rank in sorted(self._worker) if self._worker[rank] not in self._ranks]
        for rank in moved:
            self._give(rank)
        # even shares: the largest rank of the one that has most goes
        while True:
            most = max(self._ranks, key=lambda name: len(self._ranks[name]))
            if len(self._ranks[most]) <= len(self._ranks[worker]) + 1:
                return moved
            rank = max(self._ranks[most])
            self._ranks[most].discard(rank)
            self._ranks[worker].add(rank)
            self._worker[rank] = worker
            moved.append(rank)

    def remove(self, worker: str) -> list[int]:
        """Take note that a worker has left; return the ranks that are now elsewhere."""
        moved = sorted(self._ranks.pop(worker, ()))
        # those of the last one wait for the next that comes: tasks are pinned to one that is gone
        for rank in moved if self._ranks else ():
            self._give(rank)
        return moved


class Tasks:
    """Pins our tasks, and keeps account of them: what the plugin does when Dask calls it.

    Parameters
    ----------
    scheduler : distributed.Scheduler

    Attributes
    ----------
    ranks : Ranks
    progress : Progress
        For the dashboard.
    recomputed : int
        How often a task was done again.
    """

    def __init__(self, scheduler: Any) -> None:
        self._scheduler = scheduler
        self.ranks = Ranks(scheduler.workers)
        self.progress = Progress()
        self.recomputed = 0
        self._about: dict[Hashable, About] = {}
        # tasks of Dask's that are pinned beside ours
        self._beside: dict[Hashable, About] = {}
        self._done: dict[Hashable, int] = {}

    # -- where tasks run ---------------------------------------------------------------------------

    def update_graph(self, scheduler: Any, *, tasks: list[Hashable], **_: Any) -> None:
        """Place the tasks that are ours among new ones."""
        new = []
        for key in tasks:
            ts = scheduler.tasks[key]
            about = getattr(ts.run_spec, "about", None)
            if isinstance(about, About) and key not in self._about:
                self._about[key] = about
                new.append((ts, about))
        for ts, about in sorted(new, key=lambda pair: pair[1].priority):
            self._place(ts, about, about.priority)
            for source in ts.dependencies:
                self._place_source(source, about)
            for result in ts.dependents:
                self._place_result(result, about)
            if about.program is not None:
                token, name, grids = about.program
                program = self.progress.begin(token, name, [TileGrid(*grid) for grid in grids])
                fused = Fused(about.kernel, about.rank, about.writes, about.flops)
                program.add(ts.key, fused)

    def _place(self, ts: Any, about: About, priority: float) -> None:
        self._pin(ts, about)
        if ts.priority is not None and ts.state == "released":
            ts.priority = (*ts.priority[:2], priority)

    def _place_source(self, ts: Any, about: About) -> None:
        """Have chunks of a Dask array made where, and not long before, they are wanted."""
        stack = [ts]
        while stack:
            ts = stack.pop()
            about_it = isinstance(getattr(ts.run_spec, "about", None), About)
            if about_it or ts.state != "released" or ts.worker_restrictions:
                continue
            self._place(ts, about, about.priority - 0.5)
            self._beside[ts.key] = about
            stack += ts.dependencies

    def _place_result(self, ts: Any, about: About) -> None:
        """Have tiles taken apart where they are, when nothing else is to be done there."""
        if ts.prefix.name == "tile" and ts.state == "released" and not ts.worker_restrictions:
            self._place(ts, about, LAST)
            self._beside[ts.key] = about

    def _pin(self, ts: Any, about: About) -> None:
        worker = self.ranks.worker(about.rank)
        ts.worker_restrictions = None if worker is None else {worker}
        ts.loose_restrictions = True

    def add_worker(self, scheduler: Any, worker: str) -> None:
        """Let a new worker take over some ranks."""
        self._moved(self.ranks.add(worker))

    def remove_worker(self, scheduler: Any, worker: str, **_: Any) -> None:
        """Let others take over the ranks of one that has left."""
        self._moved(self.ranks.remove(worker))

    def _moved(self, ranks: list[int]) -> None:
        moved = set(ranks)
        for key, about in (*self._about.items(), *self._beside.items()):
            ts = self._scheduler.tasks.get(key)
            if about.rank in moved and ts is not None and ts.state != "processing":
                self._pin(ts, about)

    def restart(self, scheduler: Any) -> None:
        """Forget all tasks."""
        self._about.clear()
        self._beside.clear()
        self._done.clear()

    # -- what became of them -----------------------------------------------------------------------

    def transition(
        self, key: Hashable, start: str, finish: str, *args: Any, **details: Any
    ) -> None:
        """Keep account of what became of a task of ours."""
        about = self._about.get(key)
        if about is None:
            if finish == "forgotten":
                self._beside.pop(key, None)
            return
        if finish == "forgotten":
            del self._about[key]
            self._done.pop(key, None)
            return
        ts = self._scheduler.tasks[key]
        if finish == "processing":
            _not_to_be_stolen(self._scheduler, ts)
            self.progress.note(key, "running", worker=_address(ts))
        elif finish == "memory" and start == "processing":
            self._finished(key, ts, details)
        elif finish in ("released", "waiting"):
            if start in ("processing", "memory") and ts.waiters:
                self.progress.note(key, "waiting")
        elif finish == "erred":
            self.progress.note(key, "failed", worker=ts.erred_on and min(ts.erred_on))

    def _finished(self, key: Hashable, ts: Any, details: dict[str, Any]) -> None:
        count = self._done[key] = self._done.get(key, 0) + 1
        self.recomputed += count > 1
        times = [step for step in details.get("startstops") or () if step["action"] == "compute"]
        first, last = (times[0]["start"], times[-1]["stop"]) if times else (None, None)
        self.progress.note(key, "done", worker=details.get("worker"), start=first, stop=last)
        for dependency in ts.dependencies:
            if dependency.key in self._about and len(dependency.who_has or ()) > 1:
                self._drop_copies(dependency)

    def _drop_copies(self, ts: Any) -> None:
        """Let go of copies of a result where no task waits for it."""
        wanted = {self.ranks.worker(self._about[ts.key].rank)}
        for waiter in ts.waiters or ():
            about = self._about.get(waiter.key)
            if about is None:
                return
            wanted |= {self.ranks.worker(about.rank), _address(waiter)}
        spare = [ws for ws in ts.who_has if ws.address not in wanted]
        if len(spare) == len(ts.who_has):
            spare = spare[1:]
        for ws in spare:
            self._scheduler.request_remove_replicas(
                ws.address, [ts.key], stimulus_id=f"taskla-drop-{ts.key!r}"
            )


def _not_to_be_stolen(scheduler: Any, ts: Any) -> None:
    """Have a task stay where it is: tiles are there."""
    stealing = scheduler.extensions.get("stealing")
    if stealing is not None:
        stealing.remove_key_from_stealable(ts)
        # once a task of this name has ended, those are looked at again
        stealing.unknown_durations.get(ts.prefix.name, set()).discard(ts)


def _address(ts: Any) -> str | None:
    return None if ts.processing_on is None else str(ts.processing_on.address)


def install(dask_scheduler: Any) -> None:
    """Put the plugin into a scheduler, unless it is there."""
    if NAME in dask_scheduler.plugins:
        return
    from distributed.diagnostics.plugin import SchedulerPlugin

    from taskla.engines.dask_dashboard import add_page

    class Plugin(Tasks, SchedulerPlugin):  # type: ignore[misc]
        name = NAME

    dask_scheduler.add_plugin(Plugin(dask_scheduler), name=NAME)
    add_page(dask_scheduler)
