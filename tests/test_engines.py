"""What engines do: results, order, workers, settings. Faults are in test_engine_faults.py.

Most graphs here are on matrices of 64-bit integers, a format in which the package computes nothing:
the kernels below are NumPy expressions. Integer arithmetic is exact, so results are compared by
equality, and ``3 A + 2 B`` does not commute, so a wrong order shows.
"""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Callable, Sequence
from contextlib import nullcontext

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from threadpoolctl import threadpool_info, threadpool_limits

import taskla as tla
from taskla import kernels, operations
from taskla.engines import Engine, available, base, cores, current
from taskla.engines.execution import Execution
from taskla.engines.merging import acts_as_one
from taskla.engines.threads import ThreadsEngine
from taskla.graph import Grid, Kind, TaskGraph
from taskla.operations import OPERATIONS
from taskla.schedulers import Policy
from taskla.tile import Tile
from taskla.tiles import Tiles

POLICIES = ("eager", "prio", "lws")
# Barriers and events in kernels: long enough for any machine, short enough for a test that fails.
PATIENCE = 60.0

calls: list[str] = []
"""Kernels called, in order; of use where one worker runs."""

hooks: dict[str, Callable[..., None]] = {}
"""What the kernel "t_hook" with that parameter does."""


def op(letter: str, array: np.ndarray) -> np.ndarray:
    return array if letter == "N" else array.T


def _gemm(a: Tile, b: Tile, c: Tile, transa: str, transb: str, alpha: int, beta: int) -> None:
    product = op(transa, a.array) @ op(transb, b.array)
    c.array[...] = int(alpha) * product + int(beta) * c.array


def _lacpy(a: Tile, b: Tile, uplo: str, trans: str) -> None:
    where = {"G": np.ones, "L": lambda shape: np.tri(*shape)}[uplo](b.array.shape)
    np.copyto(b.array, op(trans, a.array), where=where.astype(bool))


def _geadd(a: Tile, b: Tile, trans: str, alpha: int, beta: int) -> None:
    b.array[...] = int(alpha) * op(trans, a.array) + int(beta) * b.array


def _lascl(a: Tile, uplo: str, alpha: int) -> None:
    a.array[...] *= int(alpha)


def _laset(a: Tile, uplo: str, offdiag: int, diag: int) -> None:
    a.array[...] = offdiag


def _sum(a: Tile, b: Tile) -> None:
    b.array[...] += a.array


def _panel(p: Tile, a: Tile) -> None:
    a.array[...] = np.cumsum(a.array, axis=0) + p.array.sum()


def _hook(a: Tile, name: str) -> None:
    hooks[name](a)


operations.register("t_sum", "", "R REDUX")
operations.register("t_panel", "", "R RW", panel=True)
operations.register("t_hook", "name", "RW")
KERNELS: dict[str, Callable[..., None]] = {
    "gemm": _gemm,
    "lacpy": _lacpy,
    "geadd": _geadd,
    "lascl": _lascl,
    "laset": _laset,
    "t_panel": _panel,
    "t_hook": _hook,
    "t_sum": _sum,
}


def _enter(name: str, kernel: Callable[..., None], formats: Sequence[str]) -> None:
    def factory(format: str, *params: object) -> Callable[..., None]:
        def call(*tiles: Tile) -> None:
            calls.append(name)
            kernel(*tiles, *params)

        return call

    kernels.register(name, formats=formats)(factory)


for _name, _kernel in KERNELS.items():
    _enter(_name, _kernel, ["int64"])
_enter("t_sum", _sum, ["float32"])


class Matrix:
    """Tiles of one array, or each in an array of its own."""

    def __init__(self, array: np.ndarray, nb: int, apart: bool = False) -> None:
        self.shape = array.shape
        self.nb = nb
        self._tiles = {
            (i, j): Tile(np.array(block, order="F") if apart else block)
            for j in range(-(-array.shape[1] // nb))
            for i in range(-(-array.shape[0] // nb))
            for block in [array[i * nb : (i + 1) * nb, j * nb : (j + 1) * nb]]
        }

    def tile(self, i: int, j: int) -> Tile:
        return self._tiles[i, j]

    @property
    def array(self) -> np.ndarray:
        result = np.empty(self.shape, self._tiles[0, 0].array.dtype)
        for (i, j), tile in self._tiles.items():
            result[i * self.nb :, j * self.nb :][: tile.rows, : tile.cols] = tile.array
        return result


def numbers(m: int, n: int, order: str = "F") -> np.ndarray:
    return np.arange(1, m * n + 1, dtype=np.int64).reshape((m, n), order=order)  # type: ignore[call-overload]


def hook_graph(rounds: Sequence[Sequence[str]]) -> tuple[TaskGraph, list[Matrix]]:
    """Tasks of each round at the same time, after all those of the round before."""
    width = max(map(len, rounds))
    flow = tla.TaskFlow()
    tiles = flow.matrix(width, 1, nb=1, dtype=np.int64)
    join = flow.matrix(1, 1, nb=1, dtype=np.int64)
    for names in rounds:
        for i, name in enumerate(names):
            flow.submit("lacpy", join, tiles[i, 0], params=("G", "N"))
            flow.submit("t_hook", tiles[i, 0], params=(name,))
        for i in range(len(names)):
            flow.submit("geadd", tiles[i, 0], join, params=("N", 1, 1))
    return flow.graph(), [Matrix(np.zeros((width, 1), np.int64), 1), Matrix(numbers(1, 1), 1)]


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(base, "_process_default", None)
    calls.clear()
    hooks.clear()
    yield
    assert [t.name for t in threading.enumerate() if t.name.startswith("taskla")] == []


# -- results ---------------------------------------------------------------------------------------


def sequential(graph: TaskGraph, matrices: Sequence[Matrix]) -> None:
    """The oracle: tile tasks one after the other in submission order."""
    grids = dict(zip([grid.base for grid in graph.grids], matrices, strict=True))
    for task in range(graph.n):
        kind = graph.kinds[graph.kind[task]]
        tiles = []
        for number in graph.tiles[graph.indptr[task] : graph.indptr[task + 1]]:
            grid = graph.grid_of(int(number))
            i, j = grid.coordinates(number)
            tiles.append(grids[grid.base].tile(int(i), int(j)))
        KERNELS[kind.operation](*tiles, *kind.params)


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
    ThreadsEngine(2).run(tla.TaskFlow().graph(), [])


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


# -- tasks with several tiles in an operand --------------------------------------------------------


def one_task(kind: Kind, grids: Sequence[Grid], operands: Sequence[Sequence[int]]) -> TaskGraph:
    """A graph of one task with several tiles in an operand, as fusion makes it."""
    width = [len(numbers) for numbers in operands]
    modes = kind.definition.modes
    return TaskGraph(
        grids=grids,
        kinds=[kind],
        kind=np.zeros(1, np.int32),
        indptr=np.array([0, sum(width)]),
        tiles=np.array([n for numbers in operands for n in numbers], np.int32),
        operand=np.repeat(np.arange(len(width), dtype=np.uint8), width),
        modes=np.repeat(np.array(modes, np.uint8), width),
        calls=np.array([0, 1]),
    )


INT = np.dtype(np.int64)
# A 6 x 6 matrix of 3 x 3 tiles, numbered column by column from 0, 9 and 18.
THREE = [Grid(name, 6, 6, 2, INT, base) for name, base in (("A", 0), ("B", 9), ("C", 18))]
COLUMN, ROW = [3, 4, 5], [1, 4, 7]


def at(base: int, numbers: Sequence[int]) -> list[int]:
    return [base + number for number in numbers]


@pytest.mark.parametrize(
    ("name", "params", "operands", "merged_calls"),
    [
        # C_x += A_x B, by rows of C; A may be transposed
        ("gemm", ("N", "N", 1, 3), [COLUMN, [9], at(18, COLUMN)], 1),
        ("gemm", ("T", "N", 1, 3), [ROW, [9], at(18, COLUMN)], 1),
        # by columns of C
        ("gemm", ("N", "N", 2, 1), [[0], at(9, ROW), at(18, ROW)], 1),
        ("gemm", ("N", "T", 2, 1), [[0], at(9, COLUMN), at(18, ROW)], 1),
        # C += sum_x A_x B_x
        ("gemm", ("N", "N", 1, 1), [ROW, at(9, COLUMN), [18]], 1),
        ("gemm", ("T", "T", 1, 1), [COLUMN, at(9, ROW), [18]], 1),
        # the same, but C is scaled each time
        ("gemm", ("N", "N", 1, 2), [ROW, at(9, COLUMN), [18]], 3),
        # C_x += A_x B_x is no single product
        ("gemm", ("N", "N", 1, 1), [COLUMN, at(9, ROW), at(18, COLUMN)], 3),
        ("gemm", ("N", "N", 1, 1), [COLUMN, [9], at(18, ROW)], 3),
        ("gemm", ("N", "N", 1, 1), [COLUMN, [9], [18]], 3),
        # tiles that are not neighbours
        ("gemm", ("N", "N", 1, 1), [[0, 2], [9], [18, 20]], 2),
        ("gemm", ("N", "N", 1, 1), [[1, 0], [9], [19, 18]], 2),
        ("geadd", ("N", 2, 3), [COLUMN, at(9, COLUMN)], 1),
        ("geadd", ("T", 2, 3), [COLUMN, at(9, ROW)], 1),
        ("geadd", ("T", 2, 3), [COLUMN, at(9, COLUMN)], 3),
        ("lacpy", ("G", "N"), [ROW, at(9, ROW)], 1),
        # a triangle of the whole is not the triangles of the parts
        ("lacpy", ("L", "N"), [COLUMN, at(9, COLUMN)], 3),
        ("lascl", ("G", 2), [COLUMN], 1),
        ("laset", ("G", 1, 1), [COLUMN], 3),
    ],
)
@pytest.mark.parametrize("apart", [False, True])
def test_a_batch_is_one_call_where_that_is_the_same(name, params, operands, merged_calls, apart):
    graph = one_task(Kind(name, params, INT), THREE, operands)
    got = [Matrix(numbers(6, 6), 2, apart) for _ in THREE]
    ThreadsEngine(1).run(graph, got)
    longest = max(map(len, operands))
    assert len(calls) == (longest if apart else merged_calls)

    expected = [Matrix(numbers(6, 6), 2) for _ in THREE]
    for step in range(longest):
        chosen = [ns[step] if len(ns) > 1 else ns[0] for ns in operands]
        sequential(one_task(Kind(name, params, INT), THREE, [[n] for n in chosen]), expected)
    for a, b in zip(expected, got, strict=True):
        np.testing.assert_array_equal(a.array, b.array)


# Rows and columns of each operand when tiles have 2 x 2 elements; x marks what was merged from 3.
@pytest.mark.parametrize(
    ("name", "params", "shapes", "same"),
    [
        ("trsm", ("R", "L", "C", "N", 1.0), ["22", "62x"], True),
        ("trsm", ("R", "L", "C", "N", 1.0), ["22", "26x"], False),
        ("trsm", ("L", "L", "N", "N", 1.0), ["22", "26x"], True),
        ("trmm", ("L", "L", "N", "N", 1.0), ["26x", "22"], False),
        ("syrk", ("L", "N", -1.0, 1.0), ["26x", "22"], True),
        ("syrk", ("L", "T", -1.0, 1.0), ["62x", "22"], True),
        ("syrk", ("L", "N", -1.0, 0.5), ["26x", "22"], False),
        ("herk", ("L", "N", -1.0, 1.0), ["62x", "62x"], False),
        ("symm", ("L", "L", 1.0, 2.0), ["22", "26x", "26x"], True),
        ("symm", ("L", "L", 1.0, 2.0), ["22", "62x", "62x"], False),
        ("hemm", ("R", "L", 1.0, 2.0), ["22", "62x", "62x"], True),
        ("hemm", ("R", "L", 1.0, 1.0), ["26x", "26x", "22"], False),
        ("potrf", ("L",), ["62x"], False),
    ],
)
def test_which_batches_act_as_one(name, params, shapes, same):
    tiles = [Tile(np.zeros((int(shape[0]), int(shape[1])))) for shape in shapes]
    shared = [not shape.endswith("x") for shape in shapes]
    assert acts_as_one(OPERATIONS[name], params, tiles, shared) is same


@pytest.mark.parametrize("apart", [False, True])
def test_a_panel_is_one_matrix(apart: bool):
    flow = tla.TaskFlow()
    A = flow.matrix(7, 5, nb=2, dtype=np.int64)
    P = flow.matrix(2, 1, nb=2, dtype=np.int64)
    flow.submit("t_panel", P, A.columns)
    # Panels of other heights, by the same engine in the same run.
    flow.submit("t_panel", P, A[2:, :].columns)
    matrix = Matrix(numbers(7, 5), 2, apart)
    ThreadsEngine(2).run(flow.graph(), [matrix, Matrix(numbers(2, 1), 2)])

    expected = np.cumsum(numbers(7, 5), axis=0) + 3
    expected[4:] = np.cumsum(expected[4:], axis=0) + 3
    np.testing.assert_array_equal(matrix.array, expected)


# -- scratch ---------------------------------------------------------------------------------------


def test_scratch_tiles_are_zero_at_first_and_go_after_their_last_task():
    arrays: list[weakref.ref[np.ndarray]] = []
    alive: list[bool] = []
    hooks["first"] = lambda tile: arrays.append(weakref.ref(tile.array))
    hooks["later"] = lambda tile: alive.append(arrays[0]() is not None)
    flow = tla.TaskFlow()
    A = flow.matrix(2, 2, nb=2, dtype=np.int64)
    S = flow.matrix(3, 3, nb=2, dtype=np.int64, scratch=True)
    flow.submit("t_hook", S[0, 0], params=("first",))
    flow.geadd(S[0, 0], A)
    flow.submit("t_hook", A, params=("later",))
    flow.lacpy(A, S[0, 0])
    flow.geadd(S[0, 0], A)
    flow.submit("t_hook", A, params=("later",))
    matrix = Matrix(numbers(2, 2), 2)
    ThreadsEngine(1, fuse=1).run(flow.graph(), [matrix])
    np.testing.assert_array_equal(matrix.array, 2 * numbers(2, 2))
    assert alive == [True, False]


def test_a_remainder_tile_of_scratch_has_its_shape():
    shapes = []
    hooks["shape"] = lambda tile: shapes.append((tile.shape, tile.array.dtype))
    flow = tla.TaskFlow()
    flow.submit(
        "t_hook", flow.matrix(3, 5, nb=2, dtype=np.int64, scratch=True)[1, 2], params=("shape",)
    )
    ThreadsEngine(1).run(flow.graph(), [])
    assert shapes == [((1, 1), INT)]


def test_the_matrices_are_those_of_the_grids():
    flow = tla.TaskFlow()
    flow.lascl(flow.matrix(2, 2, nb=2, dtype=np.int64, name="X"), 2)
    flow.matrix(2, 2, nb=2, dtype=np.int64, name="S", scratch=True)
    with pytest.raises(ValueError, match=r"matrices has length 0; the graph has 1 \(X\)"):
        ThreadsEngine(1).run(flow.graph(), [])


def test_tags_without_a_kernel_are_refused():
    def graph(**tags: str) -> TaskGraph:
        flow = tla.TaskFlow()
        flow.lascl(flow.matrix(2, 2, nb=2), 2.0, **tags)
        return flow.graph()

    matrix = Matrix(np.ones((2, 2)), 2)
    with pytest.raises(ValueError, match="no lascl on float64 tiles with precision 'fp32'"):
        ThreadsEngine(1).run(graph(precision="fp32"), [matrix])
    with pytest.raises(ValueError, match="compression 'svd'"):
        ThreadsEngine(1).run(graph(compression="svd"), [matrix])
    Execution(graph(precision="fp64"), [matrix])(0)
    np.testing.assert_array_equal(matrix.array, 2.0)


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


# -- settings --------------------------------------------------------------------------------------


def test_engine_is_in_force_inside_with():
    outer, inner = tla.engine("threads", workers=1), tla.engine(workers=2)
    with outer as entered:
        assert entered is current() is outer
        with inner, outer:
            assert current() is outer
        assert current() is outer
        with pytest.raises(ZeroDivisionError), inner:
            raise ZeroDivisionError
        assert current() is outer
    assert current() not in (inner, outer)


def test_the_default_setting_holds_wherever_no_with_is():
    chosen, other = tla.engine("threads", workers=3), tla.engine("threads", workers=1)
    chosen.set_default()
    seen = []
    with other:
        assert current() is other
        # A new thread is inside no `with` statement.
        thread = threading.Thread(target=lambda: seen.append(current()))
        thread.start()
        thread.join()
    assert [*seen, current()] == [chosen, chosen]


def test_without_a_setting_threads_run_with_default_options():
    engine = current()
    assert isinstance(engine, ThreadsEngine)
    assert engine is current()
    assert engine.workers == cores.cores()
    assert engine.policy.name == "lws"


def test_available_lists_the_engines():
    lines = available()
    assert list(lines) == ["threads"]
    assert lines["threads"].endswith(".")


def test_repr_shows_the_settings():
    text = "ThreadsEngine(workers=2, policy='prio', fuse=1, progress=False)"
    assert repr(tla.engine("threads", workers=2, policy="prio", fuse=1, progress=False)) == text


@pytest.mark.parametrize(
    ("name", "options", "error", "message"),
    [
        ("dask", {}, ValueError, "engine 'dask' does not exist; there are threads"),
        ("mpi", {"comm": None}, ValueError, "engine 'mpi' does not exist"),
        ("threads", {"trace": "x"}, TypeError, "no option 'trace'; it has workers, policy, fuse"),
        ("threads", {"worker": 2}, TypeError, "engine 'threads' has no option 'worker'"),
        ("threads", {"workers": 0}, ValueError, "workers is 0; it must be an integer of at least"),
        ("threads", {"workers": -1}, ValueError, "workers is -1"),
        ("threads", {"workers": 2.0}, ValueError, "workers is 2.0"),
        ("threads", {"workers": True}, ValueError, "workers is True"),
        ("threads", {"workers": "2"}, ValueError, "workers is '2'"),
        ("threads", {"fuse": 0}, ValueError, "fuse is 0; it must be an integer of at least 1"),
        ("threads", {"policy": "fifo"}, ValueError, "policy 'fifo' does not exist; there are"),
        ("threads", {"policy": 1}, TypeError, "policy is 1"),
        ("threads", {"progress": "yes"}, ValueError, "progress is 'yes'; it must be True, False"),
    ],
)
def test_wrong_settings_are_named(name, options, error, message):
    with pytest.raises(error, match=message):
        tla.engine(name, **options)


def test_workers_may_be_a_numpy_integer():
    assert tla.engine("threads", workers=np.int32(2)).workers == 2


# -- cores -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        # version 2: a quota in microseconds and its period, "max" for none
        ({"proc/self/cgroup": "0::/", "sys/fs/cgroup/cpu.max": "150000 100000"}, 2),
        ({"proc/self/cgroup": "0::/", "sys/fs/cgroup/cpu.max": "max 100000"}, 8),
        ({"proc/self/cgroup": "0::/", "sys/fs/cgroup/cpu.max": "1000 100000"}, 1),
        # the limit of a group above holds too
        (
            {
                "proc/self/cgroup": "0::/a/b",
                "sys/fs/cgroup/a/b/cpu.max": "600000 100000",
                "sys/fs/cgroup/a/cpu.max": "500000 100000",
            },
            5,
        ),
        # version 1, as the controllers are mounted, and in a container that sees the host's path
        (
            {
                "proc/self/cgroup": "3:memory:/x\n2:cpu,cpuacct:/job\n",
                "sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_quota_us": "250000",
                "sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_period_us": "100000",
            },
            3,
        ),
        (
            {
                "proc/self/cgroup": "2:cpuacct,cpu:/docker/0123",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "400000",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
            },
            4,
        ),
        (
            {
                "proc/self/cgroup": "1:cpu:/",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
            },
            8,
        ),
        # a quota of more than the affinity mask has, no cgroups, and what nobody understands
        ({"proc/self/cgroup": "0::/", "sys/fs/cgroup/cpu.max": "1600000 100000"}, 8),
        ({}, 8),
        ({"proc/self/cgroup": "0::/", "sys/fs/cgroup/cpu.max": "what"}, 8),
    ],
)
def test_cores_that_this_process_may_use(files, expected, tmp_path, monkeypatch):
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(8)), raising=False)
    assert cores.cores(tmp_path) == expected
