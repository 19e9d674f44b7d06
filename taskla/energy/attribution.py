"""Sharing a meter's joules out to tasks, and the weights by which that is done.

In each interval between two readings the idle power has its own bucket; the rest is shared by
weight x time that a task ran in the interval. A task that covers many intervals is not looked at
in each of them: they are at most 2 log2(s) nodes of a binary tree over the intervals. Nothing is
ever subtracted, so small shares are as exact as large ones.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["Calibration", "attribute", "fault", "weights_from_calibration"]

_Floats = NDArray[np.float64]


def attribute(
    times: ArrayLike,
    joules: ArrayLike,
    idle_power: float,
    start: ArrayLike,
    end: ArrayLike,
    weights: ArrayLike = 1.0,
) -> tuple[_Floats, float]:
    """Share out what a meter counted.

    In an interval of length dt in which the meter grew by dE, the idle bucket gets
    min(idle_power dt, dE), and task i gets the rest times w_i overlap_i / sum_j w_j overlap_j. An
    interval without tasks, or with tasks of weight 0 alone, is all idle.

    Parameters
    ----------
    times : (s,) array
        When the meter was read, in s; never falling.
    joules : (s,) array
        What it showed; never falling.
    idle_power : float
        W.
    start, end : (n,) arrays
        Of the tasks, on the clock of `times`. One with a NaN did not run and gets NaN.
    weights : float or (n,) array, default 1.0
        Power of the tasks beyond the idle power; only ratios count.

    Returns
    -------
    joules : (n,) float64 array
        Of the tasks.
    idle : float
        The bucket of no task. `math.fsum` of both is that of the meter's differences up to a few
        units in the last place: the tasks' joules are scaled by their own rounding error.

    Raises
    ------
    ValueError
        When `times` and `joules` are no readings of a counter (see `fault`), when `idle_power` or a
        weight is negative or not finite, or when lengths differ.

    Examples
    --------
    One second in which 260 J were counted, at 100 W of idle power, a task of 0.6 s and one of 0.2 s
    that draws twice the power:

    >>> attribute([0, 1], [0, 260], 100, start=[0, 0.5], end=[0.6, 0.7], weights=[1, 2])
    (array([96., 64.]), 100.0)
    """
    times, joules = np.asarray(times, np.float64), np.asarray(joules, np.float64)
    if reason := fault(times, joules):
        raise ValueError(reason)
    start, end, weights = _tasks(start, end, weights)
    ran = np.flatnonzero(np.isfinite(start) & np.isfinite(end))
    overlaps = _Overlaps(times, start[ran], end[ran], weights[ran])
    grown = np.diff(joules)
    idle = _idle(times, grown, idle_power)
    busy = overlaps.load > 0
    dynamic = np.where(busy, grown - idle, 0.0)
    shares = np.full(start.size, np.nan)
    shares[ran] = _scaled(overlaps.share(dynamic), math.fsum(dynamic))
    return shares, math.fsum(np.where(busy, idle, grown))


def fault(times: _Floats, joules: _Floats) -> str | None:
    """Say why a meter's readings are of no use, None when they are.

    Parameters
    ----------
    times, joules : (s,) arrays
    """
    if times.ndim != 1 or times.shape != joules.shape:
        return f"readings have shapes {times.shape} and {joules.shape}"
    if times.size < 2:
        return f"{times.size} readings; it takes two"
    if not (np.isfinite(times).all() and np.isfinite(joules).all()):
        return "a reading is not finite"
    if (np.diff(times) < 0).any() or times[0] == times[-1]:
        return "no time went by between readings, or went backwards"
    if (np.diff(joules) < 0).any():
        return "the counter went backwards"
    return None


class Calibration(NamedTuple):
    """A run from which weights are learnt.

    Parameters
    ----------
    times, joules : (s,) arrays
        A meter's readings, in s and J.
    idle_power : float
        W.
    start, end : (n,) arrays
        Of the tasks, on the same clock; NaN when one did not run.
    kernel : (n,) array of str
    """

    times: ArrayLike
    joules: ArrayLike
    idle_power: float
    start: ArrayLike
    end: ArrayLike
    kernel: ArrayLike


def weights_from_calibration(runs: Iterable[Calibration]) -> dict[str, float]:
    """Return the power that a running task of each kernel adds to the idle power.

    The non-negative least-squares solution of: joules of an interval beyond the idle power = sum
    over kernels of weight x time that tasks of the kernel ran in it.

    Parameters
    ----------
    runs : iterable of Calibration

    Returns
    -------
    dict
        Kernel -> W.

    Raises
    ------
    ValueError
        When the intervals do not tell the kernels apart: there are too few, the mix of kernels is
        the same in all, or a kernel did not run while the meter was read; or as `attribute`.
    """
    from scipy.optimize import nnls

    runs = list(runs)
    kernels = sorted({str(name) for run in runs for name in np.unique(np.asarray(run.kernel))})
    rows = [_equations(run, kernels) for run in runs]
    matrix = np.concatenate([np.empty((0, len(kernels))), *(left for left, _ in rows)])
    dynamic = np.concatenate([np.empty(0), *(right for _, right in rows)])
    if not kernels or np.linalg.matrix_rank(matrix) < len(kernels):
        raise ValueError(
            f"{len(matrix)} intervals do not tell apart {len(kernels)} kernels"
            f"{': ' if kernels else ''}{', '.join(kernels)}; record longer runs, of other mixes"
        )
    solution, _ = nnls(matrix, dynamic)
    return dict(zip(kernels, solution.tolist(), strict=True))


def _equations(run: Calibration, kernels: list[str]) -> tuple[_Floats, _Floats]:
    """Return the time that each kernel ran in each interval, and the joules beyond idle power."""
    times, joules = np.asarray(run.times, np.float64), np.asarray(run.joules, np.float64)
    if reason := fault(times, joules):
        raise ValueError(reason)
    start, end, weights = _tasks(run.start, run.end, 1.0)
    kernel = np.asarray(run.kernel)
    if kernel.shape != start.shape:
        raise ValueError(f"kernel has shape {kernel.shape}, start {start.shape}")
    ran = np.isfinite(start) & np.isfinite(end)
    busy = np.empty((times.size - 1, len(kernels)))
    for column, name in enumerate(kernels):
        mine = ran & (kernel == name)
        busy[:, column] = _Overlaps(times, start[mine], end[mine], weights[mine]).load
    grown = np.diff(joules)
    dynamic = grown - _idle(times, grown, run.idle_power)
    return busy, dynamic


def _idle(times: _Floats, grown: _Floats, idle_power: float) -> _Floats:
    """(s - 1,) The idle joules of each interval."""
    if not 0 <= idle_power < math.inf:
        raise ValueError(f"idle_power is {idle_power!r}; it must be finite and at least 0")
    return np.minimum(idle_power * np.diff(times), grown)


def _tasks(start: ArrayLike, end: ArrayLike, weights: ArrayLike) -> tuple[_Floats, ...]:
    start, end = np.asarray(start, np.float64), np.asarray(end, np.float64)
    if start.ndim != 1 or start.shape != end.shape:
        raise ValueError(f"start has shape {start.shape}, end {end.shape}; allowed: (n,) both")
    try:
        weights = np.broadcast_to(np.asarray(weights, np.float64), start.shape)
    except ValueError:
        raise ValueError(f"weights have shape {np.shape(weights)}, start {start.shape}") from None
    if not ((weights >= 0) & (weights < math.inf)).all():
        raise ValueError("weights must be finite and at least 0")
    # what is 0 beside the largest stays out of products that would not
    top = weights.max(initial=0.0)
    weights = weights / top if top > 0 else weights
    return start, end, np.where(weights < 1e-100, 0.0, weights)


def _scaled(shares: _Floats, total: float) -> _Floats:
    """Return shares whose exact sum is the total up to rounding each."""
    found = math.fsum(shares)
    return shares * (total / found) if found > 0 else shares


class _Overlaps:
    """How long each of n tasks ran in each of s - 1 intervals between s times.

    A task begins in one interval and ends in one; the intervals between it covers.

    Attributes
    ----------
    load : (s - 1,) float64 array
        Sum over the tasks of weight x time in each interval.
    """

    def __init__(self, times: _Floats, start: _Floats, end: _Floats, weights: _Floats) -> None:
        self._lengths = np.diff(times)
        self._weights = weights
        count = self._lengths.size
        start, end = np.clip(start, times[0], times[-1]), np.clip(end, times[0], times[-1])
        first = np.clip(np.searchsorted(times, start, "right") - 1, 0, count - 1)
        last = np.clip(np.searchsorted(times, end, "left") - 1, 0, count - 1)
        several = last > first
        self._first, self._last = first, last
        self._head = weights * np.maximum(np.where(several, times[first + 1], end) - start, 0.0)
        self._tail = weights * np.where(several, end - times[last], 0.0)
        #: leaves of the tree: a power of two
        self._leaves = 1 << (count - 1).bit_length()
        self._covering = self._cover()
        self.load = self._covering * self._lengths
        self.load += np.bincount(first, self._head, minlength=count)
        self.load += np.bincount(last, self._tail, minlength=count)

    def share(self, amounts: _Floats) -> _Floats:
        """(n,) What each task gets when amounts of intervals are shared by weight x time."""
        load = np.where(amounts > 0, self.load, 1.0)
        shares = amounts[self._first] * (self._head / load[self._first])
        shares += amounts[self._last] * (self._tail / load[self._last])
        # what a task of weight 1 gets of the intervals that somebody covers
        tree = np.zeros(2 * self._leaves)
        leaves = tree[self._leaves : self._leaves + load.size]
        np.divide(amounts * self._lengths, load, out=leaves, where=self._covering > 0)
        width = self._leaves
        while width > 1:
            tree[width // 2 : width] = tree[width : 2 * width].reshape(-1, 2).sum(axis=1)
            width //= 2
        for tasks, nodes in self._nodes():
            shares[tasks] += self._weights[tasks] * tree[nodes]
        return shares

    def _cover(self) -> _Floats:
        """(s - 1,) Sum of the weights of the tasks that cover each interval."""
        tree = np.zeros(2 * self._leaves)
        for tasks, nodes in self._nodes():
            np.add.at(tree, nodes, self._weights[tasks])
        width = 1
        while width < self._leaves:
            tree[2 * width : 4 * width] += np.repeat(tree[width : 2 * width], 2)
            width *= 2
        return tree[self._leaves : self._leaves + self._lengths.size]

    def _nodes(self) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp]]]:
        """Yield tasks, each once at a time, and nodes that make up what they cover.

        The root is node 1, the children of node i are 2 i and 2 i + 1.
        """
        tasks = np.flatnonzero(self._last > self._first + 1)
        low, beyond = self._first[tasks] + 1 + self._leaves, self._last[tasks] + self._leaves
        while tasks.size:
            odd = low % 2 == 1
            yield tasks[odd], low[odd]
            low = (low + odd) // 2
            odd = beyond % 2 == 1
            yield tasks[odd], beyond[odd] - 1
            beyond = beyond // 2
            more = low < beyond
            tasks, low, beyond = tasks[more], low[more], beyond[more]
