"""What engines do: results, workers, settings. Faults are in test_engine_faults.py."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Sequence
from contextlib import nullcontext

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from integers import (
    PATIENCE,
    Matrix,
    calls,
    clear,
    hook_graph,
    hooks,
    integer_kernels,
    numbers,
    sequential,
    worker_threads,
)
from threadpoolctl import threadpool_info, threadpool_limits

import taskla as tla
from taskla.engines import Engine, current
from taskla.engines.threads import ThreadsEngine
from taskla.graph import TaskGraph
from taskla.operations import OPERATIONS
from taskla.schedulers import Policy
from taskla.tile import Tile
from taskla.tiles import Tiles

POLICIES = ("eager", "prio", "lws")


@pytest.fixture(scope="module", autouse=True)
def _integers():
    with integer_kernels():
        yield


@pytest.fixture(autouse=True)
def _clean():
    clear()
    yield
    assert worker_threads() == []


# -- results ---------------------------------------------------------------------------------------


@st.composite
def programs(draw: st.DrawFn) -> TaskGraph:
    """Calls on tiles and on columns, rows and rectangles of tiles of two 3 x 3 grids."""
    flow = tla.TaskFlow()
    matrices = [flow.matrix(6, 6, nb=2, dtype=np.int64) for _ in range(2)]
    part = st.sampled_from([0, 1, 2, slice(None), slice(1, None)])
    scalar = st.integers(-2, 3)

    def selection() -> Tiles:
        return draw(st.sampled_from(matrices))[draw(part), draw(part)]

    for _ in range(draw(st.integers(1, 12))):
        name = draw(st.sampled_from(["gemm", "lacpy", "geadd", "lascl", "t_sum"]))
        count = len(OPERATIONS[name].modes)
        operands = [selection() for _ in range(count)]
        trans = draw(st.sampled_from("NT"))
        params = {
            "gemm": (trans, draw(st.sampled_from("NT")), draw(scalar), draw(scalar)),
            "lacpy": ("G", trans),
            "geadd": (trans, draw(scalar), draw(scalar)),
            "lascl": ("G", draw(scalar)),
            "t_sum": (),
        }[name]
        # What does not broadcast is no program.
        with nullcontext() if _broadcast(operands) else pytest.raises(ValueError, match="shape"):
            flow.submit(name, *operands, params=params)
    return flow.graph()


def _broadcast(operands: Sequence[Tiles]) -> bool:
    try:
        np.broadcast_shapes(*(o.shape for o in operands))
    except ValueError:
        return False
    return True


@settings(max_examples=60)
@given(
    graph=programs(),
    workers=st.integers(1, 4),
    policy=st.sampled_from(POLICIES),
    fuse=st.sampled_from([1, 2, 3]),
    apart=st.booleans(),
)
def test_the_result_is_that_of_submission_order(graph, workers, policy, fuse, apart):
    expected = [Matrix(numbers(6, 6) % 7, 2, apart=True) for _ in range(2)]
    sequential(graph, expected)
    got = [Matrix(numbers(6, 6) % 7, 2, apart) for _ in range(2)]
    ThreadsEngine(workers, policy, fuse=fuse).run(graph, got)
    for a, b in zip(expected, got, strict=True):
        np.testing.assert_array_equal(a.array, b.array)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("workers", [1, 2, 3])
def test_sums_of_floats_have_the_same_bits_whatever_runs_them(workers: int, policy: str):
    rng = np.random.default_rng(3)
    terms = (rng.standard_normal((60, 2)) * 10.0 ** rng.integers(-6, 6, (60, 1))).astype("f4")

    def run(engine: Engine) -> bytes:
        flow = tla.TaskFlow()
        a = flow.matrix(60, 2, nb=2, dtype="f4")
        b = flow.matrix(2, 2, nb=2, dtype="f4")
        flow.submit("t_sum", a, b)
        total = Matrix(np.zeros((2, 2), "f4"), 2)
        engine.run(flow.graph(), [Matrix(terms, 2), total])
        return total.array.tobytes()

    assert run(ThreadsEngine(workers, policy)) == run(ThreadsEngine(1, "eager"))


def test_an_empty_graph_runs():
    graph = tla.TaskFlow().graph()
    ThreadsEngine(2).run(graph, [])
    assert graph.n == 0


def test_a_graph_can_run_again_and_on_other_matrices():
    flow = tla.TaskFlow()
    A = flow.matrix(4, 4, nb=2, dtype=np.int64)
    flow.lascl(A, 3)
    graph = flow.graph()
    engine = ThreadsEngine(2)
    for order in "FC":
        matrix = Matrix(numbers(4, 4, order), 2)
        engine.run(graph, [matrix])
        engine.run(graph, [matrix])
        np.testing.assert_array_equal(matrix.array, 9 * numbers(4, 4, order))


# -- workers ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("workers", [2, 3])
def test_all_workers_are_woken_when_there_is_work_for_them(workers: int, policy: str):
    # In each round all workers must come together, after rounds in which all but one sleep.
    barrier = threading.Barrier(workers)
    hooks["meet"] = lambda tile: barrier.wait(PATIENCE) and None
    hooks["alone"] = lambda tile: None
    graph, matrices = hook_graph([["meet"] * workers, ["alone"], ["alone"]] * 30)
    ThreadsEngine(workers, policy, fuse=1).run(graph, matrices)
    assert calls.count("t_hook") == 30 * (workers + 2)


def test_one_worker_is_the_calling_thread():
    threads = []
    hooks["who"] = lambda tile: threads.append(threading.get_ident())
    graph, matrices = hook_graph([["who"] * 3])
    ThreadsEngine(1).run(graph, matrices)
    assert threads == [threading.get_ident()] * 3


class Pinned(Policy):
    """Task t on worker t modulo their number, and on no other."""

    name = "pinned"

    def __init__(self):
        self.by = {}

    def start(self, graph, workers):
        self.ready_ = set()
        self.workers = workers

    def ready(self, task, worker):
        self.ready_.add(task)

    def next(self, worker):
        mine = [task for task in self.ready_ if task % self.workers == worker]
        if not mine:
            return None
        self.ready_.remove(mine[0])
        return mine[0]

    def finished(self, task, worker):
        self.by[task] = worker


def test_a_policy_may_keep_tasks_for_a_worker():
    flow = tla.TaskFlow()
    A = flow.matrix(8, 2, nb=2, dtype=np.int64)
    for _ in range(30):
        flow.submit("geadd", A, A[0, 0], params=("N", 1, 2))
    graph = flow.graph()
    policy = Pinned()
    matrix = Matrix(numbers(8, 2), 2)
    engine = ThreadsEngine(3, policy, fuse=1)
    engine.run(graph, [matrix])
    # Runs start copies: only what the copies share with the object tells of the run.
    assert policy.by == {task: task % 3 for task in range(graph.n)}
    assert not hasattr(policy, "workers")
    expected = Matrix(numbers(8, 2), 2)
    sequential(graph, [expected])
    np.testing.assert_array_equal(matrix.array, expected.array)


def test_user_threads_have_runs_of_their_own():
    # Both runs are in the middle of things at the same time, with one engine and policy object.
    barrier = threading.Barrier(2)
    hooks["meet"] = lambda tile: barrier.wait(PATIENCE) and None
    engine = ThreadsEngine(2, "lws", fuse=1)
    results = []

    def use() -> None:
        graph, matrices = hook_graph([["meet"]] * 20)
        engine.run(graph, matrices)
        results.append(matrices[1].array[0, 0])

    users = [threading.Thread(target=use) for _ in range(2)]
    for user in users:
        user.start()
    for user in users:
        user.join()
    graph, matrices = hook_graph([["none"]] * 20)
    hooks["none"] = lambda tile: None
    sequential(graph, matrices)
    assert results == [matrices[1].array[0, 0]] * 2


@pytest.mark.parametrize("workers", [1, 2])
def test_nested_use_stays_in_the_worker(workers: int):
    engine = ThreadsEngine(workers, fuse=1)

    def inner(k: int) -> tuple[int, int]:
        graph, matrices = hook_graph([["who"] * 2] * 2)
        threads: list[int] = []
        hooks[f"who{k}"] = lambda tile: threads.append(threading.get_ident())
        graph, matrices = hook_graph([[f"who{k}"] * 2] * 2)
        engine.run(graph, matrices)
        threads += engine.map(threading.get_ident, [()] * 3)
        assert set(threads) == {threading.get_ident()}
        assert len(threads) == 7
        return k, int(matrices[1].array[0, 0])

    expected = engine.map(inner, [(0,)])[0][1]
    assert engine.map(inner, [(k,) for k in range(10)]) == [(k, expected) for k in range(10)]


def test_nested_use_in_a_kernel():
    engine = ThreadsEngine(2, fuse=1)

    def nested(tile: Tile) -> None:
        tile.array[...] += sum(engine.map(lambda k: k, [(1,), (2,)]))

    hooks["nested"] = nested
    graph, matrices = hook_graph([["nested"] * 3])
    engine.run(graph, matrices)
    assert matrices[1].array[0, 0] == 1 + 3 * (1 + 3)


def blas_threads() -> set[int]:
    return {lib["num_threads"] for lib in threadpool_info() if lib["user_api"] == "blas"}


@pytest.mark.parametrize("workers", [1, 2])
def test_one_blas_thread_a_worker_while_a_run_lasts(workers: int):
    engine = ThreadsEngine(workers)
    with threadpool_limits(2, user_api="blas"):
        inside = engine.map(lambda: (blas_threads(), *engine.map(blas_threads, [()])), [()] * 2)
        assert inside == [({1}, {1})] * 2
        assert blas_threads() == {2}


def test_blas_threads_come_back_after_the_last_of_several_runs():
    first_ended = threading.Event()
    inside = threading.Barrier(2)
    seen = []

    def short() -> None:
        ThreadsEngine(1).map(inside.wait, [(PATIENCE,)])
        first_ended.set()

    def long() -> None:
        inside.wait(PATIENCE)
        assert first_ended.wait(PATIENCE)
        seen.append(blas_threads())

    with threadpool_limits(2, user_api="blas"):
        user = threading.Thread(target=short)
        user.start()
        ThreadsEngine(1).map(long, [()])
        user.join()
        assert (seen, blas_threads()) == ([{1}], {2})


def test_nothing_is_left_for_the_collector():
    graph, matrices = hook_graph([["none"] * 2] * 3)
    hooks["none"] = lambda tile: None
    matrix = weakref.ref(matrices[0])
    gc.disable()
    try:
        ThreadsEngine(2).run(graph, matrices)
        del matrices
        assert matrix() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("width", [1, 2])
def test_a_graph_that_ran_is_not_kept(width: int):
    flow = tla.TaskFlow()
    flow.lascl(flow.matrix(8, 2, nb=2, dtype=np.int64), 2)
    graph = flow.graph()
    gone = weakref.ref(graph)
    ThreadsEngine(1, fuse=width).run(graph, [Matrix(numbers(8, 2), 2)])
    assert len(calls) == 4 // width
    gc.disable()
    try:
        del graph
        assert gone() is None
    finally:
        gc.enable()


# -- map -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 3])
def test_map_keeps_the_order(workers: int):
    engine = ThreadsEngine(workers)
    assert engine.map(pow, ((k, 2) for k in range(50))) == [k * k for k in range(50)]
    assert engine.map(pow, []) == []


def test_map_employs_all_workers():
    barrier = threading.Barrier(3)
    assert sorted(ThreadsEngine(3).map(barrier.wait, [(PATIENCE,)] * 3)) == [0, 1, 2]


@pytest.mark.parametrize("workers", [1, 2])
def test_mapped_functions_see_the_callers_context(workers: int):
    engine = ThreadsEngine(workers)
    with np.errstate(divide="raise"), engine:
        assert engine.map(lambda: np.geterr()["divide"], [()] * 2) == ["raise"] * 2
        assert engine.map(current, [()] * 2) == [engine] * 2
