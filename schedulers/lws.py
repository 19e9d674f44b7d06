"""Locality work stealing."""

from __future__ import annotations

from heapq import heappop, heappush
from typing import TYPE_CHECKING

from taskla.schedulers.base import Policy, precedence

if TYPE_CHECKING:
    from taskla.graph import TaskGraph

__all__ = ["LocalityWorkStealing"]


class LocalityWorkStealing(Policy):
    """A priority queue per worker, fed by what the worker releases; idle workers steal nearby.

    A task goes to the worker that released it, whose caches hold what its predecessor wrote; tasks
    without predecessors are dealt round-robin. A worker with an empty queue takes the most urgent
    task of the first worker that has one, among worker + 1, - 1, + 2, - 2, ... (modulo the number
    of workers).  [StarPU's lws]
    """

    name = "lws"

    def start(self, graph: TaskGraph, workers: int) -> None:
        """Rank the tasks; begin with an empty queue a worker."""
        self._position, self._order = precedence(graph)
        self._heaps: list[list[int]] = [[] for _ in range(workers)]
        # A worker's own queue, then the others' in order of proximity.
        self._visits = [
            [self._heaps[other] for other in _by_proximity(worker, workers)]
            for worker in range(workers)
        ]
        self._dealt = 0

    def ready(self, task: int, worker: int | None) -> None:
        """Put into the queue of the worker that released the task, or of the next in turn."""
        if worker is None:
            worker = self._dealt % len(self._heaps)
            self._dealt += 1
        heappush(self._heaps[worker], self._position[task])

    def next(self, worker: int) -> int | None:
        """Return the most urgent task of the worker's own queue, or else steal one."""
        for heap in self._visits[worker]:
            if heap:
                return self._order[heappop(heap)]
        return None


def _by_proximity(worker: int, workers: int) -> list[int]:
    """Return all workers, beginning with `worker`, then + 1, - 1, + 2, ..., each once."""
    offsets = [0] + [sign * d for d in range(1, workers // 2 + 1) for sign in (1, -1)]
    return list(dict.fromkeys((worker + offset) % workers for offset in offsets))
