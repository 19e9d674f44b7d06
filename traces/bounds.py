"""Lower bounds on the makespan: no schedule of these tasks on these workers is shorter.

The critical path knows the dependencies and not the workers, the area the workers and not the
dependencies. Where workers are of several kinds the area is a linear program: how many tasks of
each type each kind of worker runs (Agullo, Beaumont, Eyraud-Dubois, Kumar: Are static schedules so
bad? IPDPS 2016, whose bounds for Cholesky are here too).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from taskla.traces.trace import Run

__all__ = [
    "area",
    "area_bound",
    "cholesky_bound",
    "critical_path",
    "iterative_bound",
    "longest_path",
]

Floats = NDArray[np.float64]

# Of what the solver's answers are exact to.
_TOLERANCE = 1e-7


def critical_path(run: Run) -> float:
    """Return the length of the longest path of a run, by the durations recorded, in seconds."""
    return longest_path(run.durations, *run.edges)[0]


def area(run: Run) -> float:
    """Return the area bound of a run in seconds.

    The time of all tasks over the number of workers. Where devices of several kinds ran, the linear
    program of `area_bound` by the mean duration of each kernel on each kind of device; no task goes
    to a kind of device that none of its kernel ran on.
    """
    tasks = run.tasks
    if not tasks.size:
        return 0.0
    kinds = sorted({worker.device for worker in run.workers})
    if len(kinds) == 1:
        return float(run.durations.sum()) / len(run.workers)
    codes, kernel = np.unique(tasks["kernel"], return_inverse=True)
    # the device of a worker, not of a task: the machine counts workers
    device = np.array([kinds.index(worker.device) for worker in run.workers])
    cell = kernel * len(kinds) + device[run.lanes]
    shape = codes.size, len(kinds)
    size = codes.size * len(kinds)
    count = np.bincount(cell, minlength=size).reshape(shape)
    total = np.bincount(cell, weights=run.durations, minlength=size).reshape(shape)
    mean = np.full(shape, np.inf)
    np.divide(total, count, out=mean, where=count > 0)
    return area_bound(count.sum(axis=1), mean, np.bincount(device, minlength=len(kinds)))


def longest_path(
    weights: ArrayLike, source: ArrayLike, target: ArrayLike
) -> tuple[float, NDArray[np.int64]]:
    """Return the weight of the heaviest path in a graph, and its tasks in order.

    Parameters
    ----------
    weights : (n,) array of float
        Of the tasks, at least 0.
    source, target : (e,) arrays of int
        Edges sorted by source, every source smaller than its target, as `Run.edges` are.
    """
    weight = np.asarray(weights, dtype=np.float64).tolist()
    if not weight:
        return 0.0, np.zeros(0, np.int64)
    begin, before = [0.0] * len(weight), [-1] * len(weight)
    # sorted by source, all edges into a task come before those out of it
    for u, v in zip(np.asarray(source).tolist(), np.asarray(target).tolist(), strict=True):
        end = begin[u] + weight[u]
        if end > begin[v]:
            begin[v], before[v] = end, u
    ends = np.add(begin, weight)
    at = int(ends.argmax())
    length, path = float(ends[at]), []
    while at >= 0:
        path.append(at)
        at = before[at]
    return length, np.array(path[::-1])


def area_bound(counts: ArrayLike, times: ArrayLike, machines: ArrayLike) -> float:
    """Return the area bound for workers of several kinds.

    The least L such that sum_r x_tr = n_t and sum_t x_tr p_tr <= m_r L for some x >= 0.

    Parameters
    ----------
    counts : (t,) array
        Tasks n_t of each type.
    times : (t, r) array
        Seconds p_tr that a task of a type takes on a worker of a kind; infinite if it cannot run.
    machines : (r,) array of int
        Workers m_r of each kind.

    Raises
    ------
    ValueError
        When the shapes do not fit, a number is negative or NaN, or a type can run nowhere.
    """
    return _solve(*_checked(counts, times, machines))[0]


def cholesky_bound(nt: int, times: Mapping[str, Sequence[float]], machines: ArrayLike) -> float:
    """Return the mixed bound for the Cholesky factorisation of nt x nt tiles.

    The area bound, and the path of all factorisations with one solve and one update between each:
    sum_r x_potrf,r p_potrf,r + (nt - 1) (min_r p_trsm,r + min_r p_syrk,r) <= L.

    Parameters
    ----------
    nt : int
    times : mapping of str to (r,) sequence of float
        Seconds of potrf, trsm, syrk and gemm on each kind of worker.
    machines : (r,) array of int
        Workers of each kind.

    Raises
    ------
    ValueError
        As `area_bound` does, and when a kernel is missing or `nt` is negative.
    """
    names = ("potrf", "trsm", "syrk", "gemm")
    missing = sorted(set(names) - set(times))
    if missing:
        raise ValueError(f"times has no entry for {', '.join(missing)}")
    if nt < 0:
        raise ValueError(f"nt is {nt}; it must be at least 0")
    pairs = nt * (nt - 1) // 2
    counts = [nt, pairs, pairs, pairs * (nt - 2) // 3]
    given = _checked(counts, [times[name] for name in names], machines)
    shortest = given[1].min(axis=1)
    between = max(nt - 1, 0) * float(shortest[1] + shortest[2])
    return _solve(*given, [(np.array([nt, 0, 0, 0]), between)])[0]


def iterative_bound(
    times: ArrayLike, machines: ArrayLike, source: ArrayLike, target: ArrayLike
) -> float:
    """Return the bound that knows both workers and dependencies: at least area and critical path.

    Each task is its own type in the program of `area_bound`. As long as the longest path, by the
    durations that the solution gives to the tasks, is longer than its L, that path may not be
    longer than L either, and the program is solved again. For graphs of up to some thousand tasks.

    Parameters
    ----------
    times : (n, r) array
        Seconds that each task takes on a worker of each kind; infinite if it cannot run there.
    machines : (r,) array of int
        Workers of each kind.
    source, target : (e,) arrays of int
        Edges as of `longest_path`.

    Raises
    ------
    ValueError
        As `area_bound` does.
    """
    n = len(np.asarray(times))
    given = _checked(np.ones(n), times, machines)
    paths: list[tuple[Floats, float]] = []
    known: set[bytes] = set()
    while True:
        bound, durations = _solve(*given, paths)
        length, path = longest_path(durations, source, target)
        # a path that is there already is longer only by what the solver rounds
        if length <= bound * (1 + _TOLERANCE) or path.tobytes() in known:
            return bound
        known.add(path.tobytes())
        paths.append((np.bincount(path, minlength=n).astype(np.float64), 0.0))


def _checked(
    counts: ArrayLike, times: ArrayLike, machines: ArrayLike
) -> tuple[Floats, Floats, Floats]:
    n, p, m = (np.asarray(given, dtype=np.float64) for given in (counts, times, machines))
    if n.ndim != 1 or m.ndim != 1 or p.shape != (n.size, m.size):
        # nothing to run has no shape worth an error
        if not n.size and not p.size and m.ndim == 1:
            return n, p.reshape(0, m.size), m
        raise ValueError(
            f"times has shape {p.shape}; counts {n.shape} and machines {m.shape} need (t, r)"
        )
    for name, values in (("counts", n), ("times", p), ("machines", m)):
        if not (values >= 0).all():
            raise ValueError(f"{name} has a negative number or NaN")
    if not (np.isfinite(n).all() and np.isfinite(m).all()):
        raise ValueError("counts and machines must be finite")
    usable = np.where(m > 0, p, np.inf)
    if not np.isfinite(usable.min(axis=1, initial=np.inf)[n > 0]).all():
        raise ValueError("times has a type of task that no worker can run")
    return n, usable, m


def _solve(
    n: Floats, p: Floats, m: Floats, paths: Sequence[tuple[Any, float]] = ()
) -> tuple[float, Floats]:
    """Return the least L, and the durations (t,) of tasks in that solution.

    A path is how many tasks of each type are on it, and seconds that it takes besides: it may not
    be longer than L.
    """
    from scipy.optimize import linprog
    from scipy.sparse import coo_array, csr_array, hstack, vstack

    shortest = p.min(axis=1, initial=np.inf, where=np.isfinite(p))
    shortest[n == 0] = 0.0
    # in units of about the answer, and shares y_tr of a type rather than numbers x_tr = n_t y_tr,
    # so that the solver's absolute tolerances mean the same for microseconds and hours
    unit = float(n @ shortest) / max(float(m.sum()), 1.0)
    unit = max(unit, *(q @ shortest + extra for q, extra in paths)) if paths else unit
    if unit <= 0:
        return 0.0, shortest
    t, r = np.nonzero(np.isfinite(p) & (n > 0)[:, None])
    column = np.arange(t.size)
    seconds = p[t, r] / unit
    workers = coo_array((n[t] * seconds / m[r], (r, column)), (m.size, t.size))
    rows = [workers]
    if paths:
        every = csr_array(np.array([q for q, _ in paths], dtype=np.float64))[:, t]
        rows.append(every.multiply(seconds[None, :]))
    limits = vstack(rows, format="csr")
    limits = hstack([limits, csr_array(np.full((limits.shape[0], 1), -1.0))], format="csr")
    types, row = np.unique(t, return_inverse=True)
    whole = coo_array((np.ones(t.size), (row, column)), (types.size, t.size + 1))
    solution = linprog(
        np.append(np.zeros(t.size), 1.0),
        A_ub=limits,
        b_ub=np.concatenate([np.zeros(m.size), [-extra / unit for _, extra in paths]]),
        A_eq=whole.tocsr(),
        b_eq=np.ones(types.size),
        method="highs",
    )
    if not solution.success:
        raise RuntimeError(f"the linear program was not solved: {solution.message}")
    durations = np.zeros(n.size)
    np.add.at(durations, t, solution.x[:-1] * seconds * unit)
    return float(solution.x[-1]) * unit, durations
