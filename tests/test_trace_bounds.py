"""Lower bounds: by hand, by published oracles, and never above what a schedule took."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from made_traces import cholesky, lu, made

from taskla.traces import Trace, bounds

# Seconds of a made-up machine of two CPUs and a GPU, in this order.
TIMES = {"potrf": (20, 10), "trsm": (33, 3), "syrk": (26, 1), "gemm": (58, 2)}
MACHINES = (2, 1)


def chol(nt: int) -> tuple[list[int], list[tuple[int, int]]]:
    """Counts and times of the tasks of a Cholesky factorisation, by kernel."""
    pairs = nt * (nt - 1) // 2
    return [nt, pairs, pairs, pairs * (nt - 2) // 3], list(TIMES.values())


# -- the area --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("counts", "times", "machines", "bound"),
    [
        ([4, 4], [(4, 1), (2, 2)], (1, 1), 6),
        ([10, 5], [(8, 1), (2, 1)], (2, 1), 9),
        (*chol(4), MACHINES, 36),
        (*chol(6), MACHINES, 93.84615384615384),
        # one kind of worker: the sum over the number
        ([3, 2], [(5,), (7,)], (4,), 29 / 4),
        # what cannot run somewhere runs elsewhere, and a type without tasks anywhere
        ([6, 0], [(3, np.inf), (np.inf, np.inf)], (2, 5), 9),
        # workers that are not there do nothing
        ([6], [(3, 1e-6)], (2, 0), 9),
        ([], np.zeros((0, 2)), (1, 1), 0),
        ([4], [(0, 1)], (1, 1), 0),
    ],
)
def test_area_bound(counts: Any, times: Any, machines: Any, bound: float) -> None:
    assert bounds.area_bound(counts, times, machines) == pytest.approx(bound, rel=1e-6)


@pytest.mark.parametrize("unit", [1e-9, 1.0, 1e9])
def test_bounds_scale_with_the_unit_of_time(unit: float) -> None:
    """A solver's tolerances are absolute: nanoseconds would be lost in them."""
    counts, times = chol(6)
    found = bounds.area_bound(counts, unit * np.array(times), MACHINES)
    assert found == pytest.approx(93.84615384615384 * unit, rel=1e-6)
    graph = cholesky(6)
    each = unit * np.array([TIMES[name] for name in graph.operations], dtype=float)[graph.kind]
    found = bounds.iterative_bound(each, MACHINES, *graph.edges())
    assert found == pytest.approx(112.72727273 * unit, rel=1e-6)


@pytest.mark.parametrize(
    ("counts", "times", "machines", "message"),
    [
        ([1], [(1, 2)], (1,), r"times has shape \(1, 2\)"),
        ([1, 2], [(1,)], (1,), r"times has shape \(1, 1\)"),
        ([-1], [(1,)], (1,), "counts has a negative number or NaN"),
        ([1], [(np.nan,)], (1,), "times has a negative number or NaN"),
        ([1], [(1,)], (-1,), "machines has a negative number or NaN"),
        ([np.inf], [(1,)], (1,), "counts and machines must be finite"),
        ([1], [(np.inf,)], (1,), "a type of task that no worker can run"),
        ([1], [(1, np.inf)], (0, 1), "a type of task that no worker can run"),
    ],
)
def test_what_area_bound_refuses(counts: Any, times: Any, machines: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        bounds.area_bound(counts, times, machines)


# -- with dependencies -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("nt", "path", "mixed", "iterative"),
    [(4, 52, 57.27272727, 59.28701299), (6, 80, 112.72727273, 112.72727273)],
)
def test_bounds_of_cholesky(nt: int, path: float, mixed: float, iterative: float) -> None:
    graph = cholesky(nt)
    times = np.array([TIMES[name] for name in graph.operations], dtype=float)[graph.kind]
    edges = graph.edges()
    assert bounds.longest_path(times.min(axis=1), *edges)[0] == path
    assert bounds.cholesky_bound(nt, TIMES, MACHINES) == pytest.approx(mixed, rel=1e-8)
    assert bounds.iterative_bound(times, MACHINES, *edges) == pytest.approx(iterative, rel=1e-6)


def test_the_cholesky_bound_of_small_matrices() -> None:
    assert bounds.cholesky_bound(0, TIMES, MACHINES) == 0
    # one task: the program lets it run in parts, 20 x <= 2 L and 10 (1 - x) <= L and their sum <= L
    assert bounds.cholesky_bound(1, TIMES, MACHINES) == pytest.approx(10, rel=1e-6)


def test_what_the_cholesky_bound_refuses() -> None:
    with pytest.raises(ValueError, match="times has no entry for gemm"):
        bounds.cholesky_bound(2, {name: TIMES[name] for name in ("potrf", "trsm", "syrk")}, (1, 1))
    with pytest.raises(ValueError, match="nt is -1; it must be at least 0"):
        bounds.cholesky_bound(-1, TIMES, MACHINES)


def test_with_one_kind_of_worker_the_iterative_bound_is_the_larger_one() -> None:
    chain: tuple[Sequence[int], Sequence[int]] = ([0, 1], [1, 2])
    times = [[2.0], [3.0], [4.0], [1.0]]
    assert bounds.iterative_bound(times, [2], *chain) == pytest.approx(9, rel=1e-6)
    assert bounds.iterative_bound(times, [1], *chain) == pytest.approx(10, rel=1e-6)
    assert bounds.iterative_bound(np.zeros((0, 1)), [1], [], []) == 0


def test_the_longest_path_and_its_tasks() -> None:
    # 0 -> 1 -> 3, 0 -> 2 -> 3, and 4 alone
    source, target = [0, 0, 1, 2], [1, 2, 3, 3]
    length, path = bounds.longest_path([1, 5, 2, 3, 8], source, target)
    assert (length, path.tolist()) == (9, [0, 1, 3])
    length, path = bounds.longest_path([1, 5, 2, 3, 9.5], source, target)
    assert (length, path.tolist()) == (9.5, [4])
    assert bounds.longest_path([], [], [])[0] == 0


@given(st.integers(1, 7), st.integers(0, 2**32 - 1))
@settings(max_examples=25)
def test_the_longest_path_is_the_graphs_own(nt: int, seed: int) -> None:
    graph = cholesky(nt)
    weights = np.random.default_rng(seed).integers(0, 9, graph.n).astype(float)
    length, path = bounds.longest_path(weights, *graph.edges())
    assert length == graph.critical_path(weights)
    assert weights[path].sum() == length
    edges = set(zip(*(end.tolist() for end in graph.edges()), strict=True))
    assert set(zip(path[:-1].tolist(), path[1:].tolist(), strict=True)) <= edges


# -- runs ------------------------------------------------------------------------------------------


def test_bounds_of_a_run() -> None:
    run = made().run()
    # five factorisations, and a solve and an update between each two; 10 of 35 tasks take 2 s
    assert bounds.critical_path(run) == 13
    assert bounds.area(run) == 45 / 2


def test_bounds_of_a_run_without_tasks() -> None:
    trace = made()
    empty = {name: table[:0] for name, table in trace.tables.items()}
    run = Trace(trace.header, empty).run()
    assert (bounds.critical_path(run), bounds.area(run)) == (0, 0)


def test_the_area_of_a_run_on_two_kinds_of_device() -> None:
    """The second of three workers is a GPU; not every kernel ran on it."""
    trace = made(cholesky(4), workers=3)
    trace.header["devices"] = ["cpu", "cuda"]
    tasks = trace.tables["tasks"]
    tasks["device"] = tasks["worker"] == 1
    run = trace.run()
    kernels = sorted(set(run.tasks["kernel"].tolist()))
    counts, times = [], []
    for kernel in kernels:
        mine = run.tasks["kernel"] == kernel
        counts.append(int(mine.sum()))
        on = [mine & (run.tasks["device"] == device) for device in (0, 1)]
        times.append([run.durations[rows].mean() if rows.any() else np.inf for rows in on])
    assert any(np.isinf(times).ravel())
    assert bounds.area(run) == bounds.area_bound(counts, times, (2, 1))
    assert bounds.area(run) < run.durations.sum() / 2


@given(
    st.sampled_from([cholesky, lu]),
    st.integers(1, 5),
    st.integers(1, 3),
    st.integers(1, 4),
    st.integers(0, 3),
)
@settings(max_examples=30)
def test_no_bound_is_above_the_makespan(
    program: Any, nt: int, ranks: int, workers: int, gpus: int
) -> None:
    trace = made(program(nt), ranks=ranks, workers=workers)
    trace.header["devices"] = ["cpu", "cuda"]
    trace.tables["tasks"]["device"] = trace.tables["tasks"]["worker"] < gpus
    run = trace.run()
    assert 0 < bounds.critical_path(run) <= run.makespan * (1 + 1e-12)
    assert 0 < bounds.area(run) <= run.makespan * (1 + 1e-6)
