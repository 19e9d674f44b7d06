"""First in, first out."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from taskla.schedulers.base import Policy

if TYPE_CHECKING:
    from taskla.graph import TaskGraph

__all__ = ["Eager"]


class Eager(Policy):
    """One queue for all workers, first in first out."""

    name = "eager"

    def start(self, graph: TaskGraph, workers: int) -> None:
        """Begin with an empty queue."""
        self._queue: deque[int] = deque()

    def ready(self, task: int, worker: int | None) -> None:
        """Append to the queue."""
        self._queue.append(task)

    def next(self, worker: int) -> int | None:
        """Return the task that has been ready for longest."""
        return self._queue.popleft() if self._queue else None
