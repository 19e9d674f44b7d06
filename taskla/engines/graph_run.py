"""The loop of a worker: finish a task, release its successors, take the next one."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from taskla.engines.crew import Job
from taskla.graph import TaskGraph
from taskla.schedulers import Policy

if TYPE_CHECKING:
    from taskla.traces import Recording

__all__ = ["GraphRun"]

# In place of a count of predecessors: the task has been given to a worker.
_TAKEN = -1


class GraphRun(Job):
    """One run of a graph, in the order that a policy decides.

    A worker that has finished a task takes the lock once: it releases the successors, takes its
    next task and wakes as many sleeping workers as there are tasks left for them. One that finds
    nothing sleeps on a lock of its own.

    Parameters
    ----------
    graph : TaskGraph
    execute : callable
        What a task does.
    policy : Policy
        In the hands of this run alone.
    workers : int
        The size of the crew.
    recording : Recording, optional
        Where to note what ran.
    outside : (n,) int array, optional
        For how many things each task waits besides its predecessors; `arrive` tells of them.
    """

    def __init__(
        self,
        graph: TaskGraph,
        execute: Callable[[int], None],
        policy: Policy,
        workers: int,
        recording: Recording | None = None,
        outside: NDArray[np.integer[Any]] | None = None,
    ) -> None:
        super().__init__(graph.n)
        self._graph = graph
        self._execute = execute
        self._policy = policy
        self._workers = workers
        self._recording = recording
        self._missing = graph.indegree.copy()
        self._outside = 0
        if outside is not None:
            self._missing += outside.astype(np.int32)
            self._outside = int(outside.sum())
        self._counts = self._missing.data
        self._pointer = graph.succ_ptr.data
        self._successors = graph.succ.data
        self._left = graph.n
        self._waiting = 0  # ready tasks that no worker has taken
        self._coming = 0  # workers that were woken and have not taken the lock yet
        self._idle: list[int] = []
        #: Called when a worker falls asleep: whoever can bring work is to look for it now.
        self.asleep: Callable[[], object] | None = None
        self._beds = [threading.Lock() for _ in range(workers)]
        for bed in self._beds:
            bed.acquire()
        self._refused_at = [-1] * workers  # tasks left when a worker last found nothing
        policy.start(graph, workers)
        for task in (self._missing == 0).nonzero()[0].tolist():
            policy.ready(task, None)
            self._waiting += 1

    def work(self, worker: int) -> None:
        """Run tasks until none is left."""
        lock, execute, counts = self.lock, self._execute, self._counts
        if self._recording is not None:
            execute = self._recording.observed(worker, execute)
        pointer, successors = self._pointer, self._successors
        ready, finished = self._policy.ready, self._policy.finished
        task: int | None = None
        try:
            while True:
                with lock:
                    if task is not None:
                        self._left -= 1
                        finished(task, worker)
                        for successor in successors[pointer[task] : pointer[task + 1]]:
                            missing = counts[successor] - 1
                            counts[successor] = missing
                            if not missing:
                                ready(successor, worker)
                                self._waiting += 1
                    task = self._take(worker)
                if task is None:
                    return
                execute(task)
        except BaseException as error:
            with lock:
                # Before its first task a worker can only meet a fault of the policy.
                self.fail(-1 if task is None else task, error)
                self._wake_all()

    def _take(self, worker: int) -> int | None:
        """Return a task for a worker, None when there will be none. Needs the lock."""
        while self._left and not self.stopped:
            task = self._policy.next(worker)
            if task is not None:
                try:
                    refused = task < 0 or self._counts[task]
                except (TypeError, IndexError):
                    refused = True
                if refused:
                    raise RuntimeError(
                        f"policy {self._policy.name!r} gave task {task!r} to worker {worker}; "
                        "it must give a task that is ready, once"
                    )
                self._counts[task] = _TAKEN
                self._waiting -= 1
                if self._idle and self._waiting > self._coming:
                    self._wake()
                return task
            self._sleep(worker)
        self._wake_all()
        return None

    def _sleep(self, worker: int) -> None:
        """Let a worker for whom there is nothing wait until it is woken. Needs the lock."""
        self._refused_at[worker] = self._left
        self._idle.append(worker)
        if self.asleep is not None:
            self.asleep()
        # What the policy did not give to this worker it may give to another.
        self._wake()
        if len(self._idle) == self._workers and not self._outside:
            raise RuntimeError(
                f"policy {self._policy.name!r} gave none of the {self._waiting} ready tasks to any "
                f"of {self._workers} workers, while {self._left} tasks are left and none is running"
            )
        self.lock.release()
        self._beds[worker].acquire()
        self.lock.acquire()
        self._coming -= 1

    def arrive(self, tasks: Iterable[int]) -> None:
        """Take note that something has come that these tasks waited for, besides predecessors."""
        with self.lock:
            for task in tasks:
                self._outside -= 1
                missing = self._counts[task] - 1
                self._counts[task] = missing
                if not missing:
                    self._policy.ready(task, None)
                    self._waiting += 1
            # who found nothing before may find something now
            for worker in self._idle:
                self._refused_at[worker] = -1
            if self._idle:
                self._wake()

    def dismiss(self) -> None:
        """Let workers start nothing more, those that sleep as well."""
        self.stop()
        with self.lock:
            self._wake_all()

    def _wake(self) -> None:
        """Wake a sleeping worker for each task that nobody is coming for. Needs the lock."""
        # Since a worker found nothing, only the end of a task can have changed that.
        left, refused_at = self._left, self._refused_at
        for worker in [w for w in self._idle if refused_at[w] != left]:
            if self._waiting <= self._coming:
                break
            self._rouse(worker)

    def _wake_all(self) -> None:
        """Wake all sleeping workers, to go home. Needs the lock."""
        for worker in self._idle.copy():
            self._rouse(worker)

    def _rouse(self, worker: int) -> None:
        self._idle.remove(worker)
        self._coming += 1
        self._beds[worker].release()

    @property
    def idle(self) -> bool:
        """Whether a worker sleeps for want of a task."""
        return bool(self._idle)

    @property
    def waiting(self) -> int:
        """Tasks that are ready and that no worker has taken."""
        return self._waiting

    def done(self) -> tuple[int, float, float]:
        """Return the number of tasks finished, the flops of those taken, and of all."""
        flops = self._graph.flops()
        return (
            self.count - self._left,
            float(flops[self._missing == _TAKEN].sum()),
            float(flops.sum()),
        )
