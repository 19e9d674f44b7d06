"""Neighbouring tile tasks of one call become one task; the program stays the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from interpreter import interpret, tile_tasks
from random_programs import check_consistent, execute, programs, random_operations

from taskla.algorithms import gemm, getrf, lauum, posv, potrf, symm, syrk, trsm, trtri
from taskla.flow import TaskFlow
from taskla.fusion import fuse
from taskla.graph import TaskGraph
from taskla.operations import Access
from taskla.programs import Layout, program
from taskla.reductions import ordered_reductions

WIDTHS = (2, 3, 4, 7)


@pytest.fixture(autouse=True, scope="module")
def operations() -> Iterator[None]:
    with random_operations():
        yield


def layout(m: int, n: int, nb: int = 1, dtype: str = "float64", name: str = "A") -> Layout:
    return Layout(m, n, nb, np.dtype(dtype), name)


def tile_lists(graph: TaskGraph, name: str) -> list[list[tuple[int, int]]]:
    """Coordinates of the tiles that tasks of an operation write first, task by task."""
    result = []
    for task in range(graph.n):
        if graph.operations[graph.kind[task]] == name:
            mine = slice(graph.indptr[task], graph.indptr[task + 1])
            writing = graph.modes[mine] != Access.R
            tiles = graph.tiles[mine][writing]
            rows, columns = graph.grid_of(int(tiles[0])).coordinates(tiles)
            result.append(list(zip(rows.tolist(), columns.tolist(), strict=True)))
    return result


def check_fused(fused: TaskGraph, graph: TaskGraph, width: int) -> None:
    """What holds for whatever program: counts, flops, neighbours only, tasks of a call in order."""
    assert fused.multiplicity.sum() == graph.n
    assert fused.multiplicity.min(initial=1) == 1
    assert fused.multiplicity.max(initial=1) <= width
    assert fused.counts() == graph.counts()
    assert fused.flops().sum() == pytest.approx(graph.flops().sum(), rel=1e-14)
    assert fused.calls.size == graph.calls.size
    assert fused.calls[-1] == fused.n
    before = 0
    for task in range(fused.n):
        count = int(fused.multiplicity[task])
        members = range(before, before + count)
        before += count
        assert all(fused.kind[task] == graph.kind[t] for t in members)
        # unfused again it is what it was
        parts = list(tile_tasks(fused, task))
        whole = [next(tile_tasks(graph, t)) for t in members]
        assert parts == whole
        modes = fused.kinds[fused.kind[task]].definition.modes
        for numbers, mode in zip(zip(*parts, strict=True), modes, strict=True):
            tiles = [number for (number, *_) in numbers]
            grid = fused.grid_of(tiles[0])
            i, j = grid.coordinates(np.array(tiles))
            moves = set(zip(np.diff(i).tolist(), np.diff(j).tolist(), strict=True))
            allowed = [{(1, 0)}, {(0, 1)}] + ([{(0, 0)}] if mode == Access.R else [])
            assert count == 1 or moves in allowed


@settings(max_examples=150)
@given(programs(), st.integers(0, 1000), st.integers(1, 5))
def test_random_programs_keep_their_meaning(graph: TaskGraph, seed: int, width: int) -> None:
    ordered = ordered_reductions(graph)
    fused = fuse(ordered, width)
    check_fused(fused, ordered, width)
    check_consistent(fused, execute(graph), seed)


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
def test_fused_algorithms_compute_the_same(dtype: str) -> None:
    def a(m: int, n: int) -> Layout:
        return layout(m, n, 2, dtype)

    n, r = 11, 9
    pivots = layout(r, 1, 2, "int32", "P")
    spd, rhs, other = random(n, n, dtype), random(n, r, dtype), random(r, n, dtype)
    spd = spd @ spd.conj().T + n * np.eye(n)
    p = (np.arange(r) % 2 + 1).astype(np.int32)[:, None]
    runs: list[tuple[Callable[..., None], list[Any], tuple[Any, ...]]] = [
        (potrf.potrf, [spd], ("L",)),
        (potrf.potrf, [spd], ("U",)),
        (posv.posv, [spd, rhs], ("L",)),
        (trtri.trtri, [spd], ("U",)),
        (lauum.lauum, [spd], ("L",)),
        (getrf.getrf, [rhs, p], ()),
        (getrf.getrf_nopiv, [spd], ()),
        (gemm.gemm, [rhs, other, spd], (2.0, -1.0)),
        (symm.hemm, [spd, rhs, rhs + 1], ("L", "U", 2.0, 3.0)),
        (syrk.herk, [rhs, spd], ("U", 2.0, 1.0)),
        (trsm.trsm, [spd, other], ("R", "U")),
    ]
    for algorithm, arrays, params in runs:
        layouts = tuple(pivots if array.dtype == np.int32 else a(*array.shape) for array in arrays)
        graph = program(algorithm, layouts, params)
        expected = [array.copy() for array in arrays]
        interpret(graph, *expected)
        for width in WIDTHS:
            fused = fuse(graph, width)
            check_fused(fused, graph, width)
            results = [array.copy() for array in arrays]
            interpret(fused, *results)
            for result, reference in zip(results, expected, strict=True):
                assert (result == reference).all(), (algorithm, width)


def random(m: int, n: int, dtype: str) -> np.ndarray:
    generator = np.random.default_rng(7)
    result = generator.standard_normal((m, n)).astype(dtype)
    if result.dtype.kind == "c":
        result += 1j * generator.standard_normal((m, n))
    return result


def test_cholesky_joins_down_the_columns() -> None:
    graph = program(potrf.potrf, (layout(6, 6),))
    fused = fuse(graph, 3)
    # groups begin at rows that 3 divides
    trsm_tasks = tile_lists(fused, "trsm")
    assert trsm_tasks[:2] == [[(1, 0), (2, 0)], [(3, 0), (4, 0), (5, 0)]]
    assert trsm_tasks[2:4] == [[(2, 1)], [(3, 1), (4, 1), (5, 1)]]
    gemm_tasks = tile_lists(fused, "gemm")
    assert gemm_tasks[:3] == [[(2, 1)], [(3, 1), (4, 1), (5, 1)], [(3, 2), (4, 2), (5, 2)]]
    # tiles of a diagonal are nobody's neighbours
    assert all(len(tiles) == 1 for tiles in tile_lists(fused, "syrk"))
    # the shared tile is named once, the others one a tile task
    task = next(t for t in range(fused.n) if fused.multiplicity[t] == 3)
    assert fused.operations[fused.kind[task]] == "trsm"
    mine = slice(fused.indptr[task], fused.indptr[task + 1])
    assert fused.operand[mine].tolist() == [0, 1, 1, 1]
    assert fused.tiles[mine].tolist() == [0, 3, 4, 5]


def test_upper_cholesky_joins_along_the_rows() -> None:
    lower, upper = (fuse(program(potrf.potrf, (layout(6, 6),), (uplo,)), 3) for uplo in ("L", "U"))
    for name in ("trsm", "gemm"):
        mirrored = [[(j, i) for i, j in tiles] for tiles in tile_lists(lower, name)]
        assert tile_lists(upper, name) == mirrored
    assert upper.n == lower.n


def test_joins_in_matrices_of_one_tile_row_or_column() -> None:
    for shape, op in (((1, 8), "T"), ((8, 1), "N")):
        flow = TaskFlow()
        A, B = flow.matrix(1, 1, nb=1), flow.matrix(*shape, nb=1)
        flow.trsm(A, B.T if op == "T" else B, side="R")
        assert fuse(flow.graph(), 4).multiplicity.tolist() == [4, 4]


def test_general_products_join_where_c_goes_on() -> None:
    graph = program(gemm.gemm, (layout(4, 1), layout(1, 2), layout(4, 2)))
    assert tile_lists(fuse(graph, 4), "gemm") == [
        [(0, 0), (1, 0), (2, 0), (3, 0)],
        [(0, 1), (1, 1), (2, 1), (3, 1)],
    ]
    graph = program(gemm.gemm, (layout(1, 1), layout(1, 4), layout(1, 4)))
    assert tile_lists(fuse(graph, 4), "gemm") == [[(0, 0), (0, 1), (0, 2), (0, 3)]]


def test_the_end_of_a_column_is_no_neighbour_of_the_next_ones_top() -> None:
    flow = TaskFlow()
    A = flow.matrix(3, 3, nb=1)
    flow.lascl(A, 2.0)
    fused = fuse(flow.graph(), 100)
    assert tile_lists(fused, "lascl") == [[(i, j) for i in range(3)] for j in range(3)]


def test_tasks_of_a_call_that_depend_on_one_another_stay_apart() -> None:
    flow = TaskFlow()
    A, B = flow.matrix(5, 5, nb=1), flow.matrix(5, 5, nb=1)
    # sums into one tile
    flow.gemm(A[0, :], B[:, 0].T, A[4, 4])
    # each reads what the one before wrote
    flow.lacpy(A[:-1, 0], A[1:, 0])
    # each reads what the one after will write
    flow.lacpy(B[1:, 0], B[:-1, 0])
    graph = flow.graph()
    assert graph.n == 13
    assert fuse(graph, 4) is graph


def test_panels_and_calls_stay_apart() -> None:
    flow = TaskFlow()
    A, P = flow.matrix(4, 4, nb=1), flow.matrix(4, 1, nb=1, dtype="int32")
    flow.getrf(A[:, :].columns, P[:, 0].T)
    flow.laswp(P[0, 0], A[:, 1:].columns)
    for i in range(4):
        # one tile a call, though neighbours
        flow.laset(A[i, 0])
    graph = flow.graph()
    assert fuse(graph, 4) is graph


def test_priorities_are_kept() -> None:
    flow = TaskFlow()
    A = flow.matrix(4, 2, nb=1)
    flow.laset(A[:, 0], priority=3.0)
    flow.laset(A[:, 1])
    fused = fuse(flow.graph(), 2)
    assert fused.priorities().tolist() == [3.0, 3.0, 0.0, 0.0]


def test_a_width_of_one_and_small_graphs_change_nothing() -> None:
    graph = program(potrf.potrf, (layout(4, 4),))
    assert fuse(graph, 1) is graph
    empty = TaskFlow().graph()
    assert fuse(empty, 4) is empty


def test_a_call_without_tasks_is_no_call() -> None:
    # the last call selects nothing: there is no tile below the diagonal of one
    flow = TaskFlow()
    A, C = flow.matrix(1, 2, nb=1), flow.matrix(1, 1, nb=1)
    syrk.syrk(flow, A, C)
    graph = flow.graph()
    assert graph.calls.tolist() == [0, 1, 2]
    assert fuse(graph, 4) is graph


def test_what_fuse_refuses() -> None:
    graph = program(potrf.potrf, (layout(6, 6),))
    with pytest.raises(ValueError, match="width must be at least 1, not 0"):
        fuse(graph, 0)
    with pytest.raises(ValueError, match="fused already"):
        fuse(fuse(graph, 4), 2)
