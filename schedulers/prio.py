"""The most urgent task first."""

from __future__ import annotations

from heapq import heappop, heappush
from typing import TYPE_CHECKING

from taskla.schedulers.base import Policy, precedence

if TYPE_CHECKING:
    from taskla.graph import TaskGraph

__all__ = ["Prio"]


class Prio(Policy):
    """One queue for all workers, highest priority first; ties in submission order."""

    name = "prio"

    def start(self, graph: TaskGraph, workers: int) -> None:
        """Rank the tasks; begin with an empty queue."""
        self._position, self._order = precedence(graph)
        self._heap: list[int] = []

    def ready(self, task: int, worker: int | None) -> None:
        """Put into the queue by rank."""
        heappush(self._heap, self._position[task])

    def next(self, worker: int) -> int | None:
        """Return the most urgent task that is ready."""
        return self._order[heappop(self._heap)] if self._heap else None
