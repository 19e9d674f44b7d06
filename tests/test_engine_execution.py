"""How a task becomes calls of kernels: batches, panels, scratch tiles."""

from __future__ import annotations

import weakref
from collections.abc import Sequence

import numpy as np
import pytest
from integers import INT, Matrix, calls, clear, hooks, integer_kernels, numbers, sequential

import taskla as tla
from taskla.engines.execution import Execution
from taskla.engines.merging import acts_as_one
from taskla.engines.threads import ThreadsEngine
from taskla.graph import Grid, Kind, TaskGraph
from taskla.matrix import TiledMatrix
from taskla.operations import OPERATIONS
from taskla.tile import Tile


@pytest.fixture(scope="module", autouse=True)
def _integers():
    with integer_kernels():
        yield


@pytest.fixture(autouse=True)
def _clean():
    clear()


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


def scaling() -> tuple[TaskGraph, TiledMatrix]:
    flow = tla.TaskFlow()
    flow.lascl(flow.matrix(6, 6, nb=2, name="X"), 2.0)
    return flow.graph(), TiledMatrix.zeros((6, 6), nb=2)


@pytest.mark.parametrize(
    ("shape", "nb", "dtype"),
    [
        ((6, 6), 2, "f4"),
        ((6, 6), 3, "f8"),
        ((4, 6), 2, "f8"),
        ((6, 8), 2, "f8"),
    ],
)
def test_a_matrix_is_the_one_that_was_declared(shape, nb, dtype):
    graph, declared = scaling()
    given = TiledMatrix.from_array(np.ones(shape, dtype), nb)
    with pytest.raises(ValueError, match=r"^X was declared") as caught:
        ThreadsEngine(1).run(graph, [given])
    assert str(caught.value) == (
        "X was declared 6 x 6, nb=2, float64; the matrix given is "
        f"{shape[0]} x {shape[1]}, nb={nb}, {np.dtype(dtype)}"
    )
    np.testing.assert_array_equal(given.to_array(), 1)
    ThreadsEngine(1).run(graph, [declared])


def test_an_array_is_no_tiled_matrix():
    graph, _ = scaling()
    with pytest.raises(TypeError, match="X must be a TiledMatrix, not ndarray"):
        ThreadsEngine(1).run(graph, [np.ones((6, 6))])


def test_no_tile_of_another_type_reaches_a_kernel():
    graph, _ = scaling()
    matrix = Matrix(np.ones((6, 6), "f4"), 2)
    message = r"X was declared float64; tile \(0, 0\) of the matrix given is float32"
    with pytest.raises(ValueError, match=message):
        ThreadsEngine(1, "eager").run(graph, [matrix])
    np.testing.assert_array_equal(matrix.array, 1)


@pytest.mark.parametrize(("uplo", "missing"), [("lower", r"\(0, 1\)"), ("upper", r"\(1, 0\)")])
def test_a_triangle_has_no_tiles_of_the_other(uplo, missing):
    graph, _ = scaling()
    message = f"X stores its {uplo} triangle only, and tile {missing} is asked for"
    with pytest.raises(ValueError, match=message) as caught:
        ThreadsEngine(1, "eager", fuse=1).run(graph, [TiledMatrix.zeros((6, 6), 2, uplo=uplo)])
    assert caught.value.__notes__[0].startswith("in task lascl on tile X(")


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


def test_a_read_only_matrix_is_read_and_never_written():
    fixed = np.eye(4, order="F")
    fixed.flags.writeable = False
    A = TiledMatrix.from_array(fixed, 2, copy=False)
    B = TiledMatrix.zeros((4, 4), 2)
    flow = tla.TaskFlow()
    X, Y = (flow.matrix(4, 4, 2, name=name) for name in "XY")
    flow.lacpy(X, Y)
    ThreadsEngine(1).run(flow.graph(), [A, B])
    np.testing.assert_array_equal(B.to_array(), np.eye(4))
    with pytest.raises(ValueError, match="Y is read-only and is worked on in place"):
        ThreadsEngine(1).run(flow.graph(), [B, A])
