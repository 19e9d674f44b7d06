"""What a scheduling policy is: a state machine that decides and does nothing else."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar

import numpy as np

if TYPE_CHECKING:
    from taskla.graph import TaskGraph

__all__ = ["Policy", "precedence"]


class Policy(ABC):
    """Which of the ready tasks a worker runs next.

    An engine calls `start` once a run, then `ready` for every task whose predecessors have all
    finished, `next` whenever a worker has nothing to do, and `finished` when a worker has run a
    task; never two of these at the same time. A policy has no threads, no clock and no input or
    output: the same calls in the same order give the same answers, in any engine.

    All state that a run changes is made anew by `start`. An engine starts a shallow copy of the
    object that it was given, so that several runs may share one object.
    """

    name: ClassVar[str]
    """The name that `taskla.schedulers.get` knows the policy by."""

    @abstractmethod
    def start(self, graph: TaskGraph, workers: int) -> None:
        """Begin a run of `graph` on workers 0, ..., `workers` - 1; no task is ready yet."""

    @abstractmethod
    def ready(self, task: int, worker: int | None) -> None:
        """Take note that `task` may run now.

        Parameters
        ----------
        task : int
            The task; told once.
        worker : int or None
            The worker that finished its last predecessor; None for a task that has none. Tasks
            that become ready together are told in submission order.
        """

    @abstractmethod
    def next(self, worker: int) -> int | None:
        """Return the task that `worker` runs now, one that is ready and not yet given away.

        None when there is nothing for this worker; it asks again after other tasks have finished.
        """

    def finished(self, task: int, worker: int) -> None:  # noqa: B027 (most policies need no answer)
        """Take note that `worker` has run `task`; the tasks that it releases are told after."""


def precedence(graph: TaskGraph) -> tuple[memoryview[int], memoryview[int]]:
    """Return the tasks' positions in the order of decreasing priority, and that order.

    Ties go by submission. A heap of positions holds plain integers, which compare faster than
    pairs of a priority and a task, and pops in an order that is always the same.

    Parameters
    ----------
    graph : TaskGraph
        The graph whose ``priorities()`` count.

    Returns
    -------
    position : memoryview of int64, length n
        ``position[task]``: 0 for the most urgent task.
    order : memoryview of int64, length n
        The inverse, ``order[position[task]] == task``.
    """
    order = np.argsort(-graph.priorities(), kind="stable")
    position = np.empty_like(order)
    position[order] = np.arange(order.size)
    return position.data, order.data
