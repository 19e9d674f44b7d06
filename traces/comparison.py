"""Two traces side by side: what got faster, and whether that is more than noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from taskla.traces.trace import Run, Trace

__all__ = ["Difference", "Spread", "compare", "repeats"]


@dataclass(frozen=True)
class Spread:
    """One quantity over repeats, in seconds.

    Attributes
    ----------
    median, min, max : float
    repeats : int
    """

    median: float
    min: float
    max: float
    repeats: int


@dataclass(frozen=True)
class Difference:
    """One quantity of A and of B.

    Attributes
    ----------
    kernel : str or None
        None for the whole run.
    quantity : {"makespan", "busy", "task"}
        From the begin of the run to the end of the last task; all tasks of the kernel, or of the
        run, summed over the workers; the median task of the kernel.
    a, b : Spread or None
        None when that side has no such kernel.
    """

    kernel: str | None
    quantity: str
    a: Spread | None
    b: Spread | None

    @property
    def speedup(self) -> float | None:
        """A's median over B's: above 1, B is faster. None where a side lacks the kernel or is 0."""
        if self.a is None or self.b is None or not self.b.median > 0:
            return None
        return self.a.median / self.b.median

    @property
    def within_noise(self) -> bool | None:
        """Whether the ranges [min, max] of both sides overlap.

        None where a side lacks the kernel or has one run only: nothing is known of its noise.
        """
        if self.a is None or self.b is None or min(self.a.repeats, self.b.repeats) < 2:
            return None
        return self.a.min <= self.b.max and self.b.min <= self.a.max


def repeats(trace: Trace, number: int | None = None) -> list[Run]:
    """Return a run and its repeats: the runs of the same setting.

    Runs that did not complete are left out, unless all of them did not, or `number` is one: then it
    is alone.

    Parameters
    ----------
    trace : Trace
    number : int, optional
        Default: as of `Trace.run`.

    Raises
    ------
    ValueError
        When there is no such run.
    """
    run = trace.run(number)
    if number is not None and not _complete(run):
        return [run]
    same = [other for other in trace.runs if other.setting == run.setting]
    return [other for other in same if _complete(other)] or same


def compare(a: Sequence[Run], b: Sequence[Run]) -> list[Difference]:
    """Compare runs, given with their repeats.

    Parameters
    ----------
    a, b : sequence of Run
        At least one each, as of `repeats`.

    Returns
    -------
    list of Difference
        The makespan, the busy time of all kernels, then of each kernel its busy time and its median
        task; kernels by A's busy time, the longest first, then those that B alone has.

    Raises
    ------
    ValueError
        When a side has no run.
    """
    for name, runs in (("a", a), ("b", b)):
        if not runs:
            raise ValueError(f"{name} has no runs; at least one is needed")
    durations = [_durations(runs) for runs in (a, b)]
    found = [
        Difference(None, "makespan", *(_spread([r.makespan for r in runs]) for runs in (a, b))),
        Difference(
            None, "busy", *(_spread([float(r.durations.sum()) for r in runs]) for runs in (a, b))
        ),
    ]
    totals = [
        {kernel: _spread([float(took.sum()) for took in runs]) for kernel, runs in side.items()}
        for side in durations
    ]
    medians = [
        {
            kernel: _spread([float(np.median(took)) for took in runs])
            for kernel, runs in side.items()
        }
        for side in durations
    ]

    def longest_first(side: int) -> list[str]:
        return sorted(totals[side], key=lambda kernel: -totals[side][kernel].median)

    for kernel in dict.fromkeys(longest_first(0) + longest_first(1)):
        for quantity, (of_a, of_b) in (("busy", totals), ("task", medians)):
            found.append(Difference(kernel, quantity, of_a.get(kernel), of_b.get(kernel)))
    return found


def _complete(run: Run) -> bool:
    return bool(run.info["status"] == "completed")


def _durations(runs: Sequence[Run]) -> dict[str, list[np.ndarray]]:
    """Durations of the tasks of each kernel, an array a run that has any."""
    found: dict[str, list[np.ndarray]] = {}
    for run in runs:
        code = run.tasks["kernel"]
        for kernel in np.unique(code).tolist():
            found.setdefault(run.kernels[kernel], []).append(run.durations[code == kernel])
    return found


def _spread(values: Sequence[float]) -> Spread:
    return Spread(float(np.median(values)), min(values), max(values), len(values))
