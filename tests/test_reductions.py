"""Commutative contributions in a fixed order: same meaning, no REDUX left, lanes that overlap."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from random_programs import check_consistent, execute, programs, random_operations

from taskla import reductions
from taskla.engines import engine
from taskla.flow import TaskFlow
from taskla.graph import TaskGraph
from taskla.matrix import TiledMatrix
from taskla.operations import Access
from taskla.reductions import LANES, SHORTEST, ordered_reductions


@pytest.fixture(autouse=True, scope="module")
def operations() -> Iterator[None]:
    with random_operations():
        yield


def contributions(count: int, width: int = 1) -> TaskGraph:
    """A write to each of a row of tiles, `count` contributions to each, a read."""
    flow = TaskFlow()
    A = flow.matrix(1, width, nb=1)
    flow.submit("random_W", A, params=(0,), priority=1.0)
    for salt in range(count):
        flow.submit("random_REDUX", A, params=(salt + 1,), priority=2.0)
    flow.submit("random_R", A, params=(99,), priority=3.0)
    return flow.graph()


@settings(max_examples=150)
@given(programs(), st.integers(0, 1000), st.sampled_from([1, 2, SHORTEST]))
def test_random_programs_keep_their_meaning(graph: TaskGraph, seed: int, shortest: int) -> None:
    # small programs have short runs
    with patch.object(reductions, "SHORTEST", shortest):
        ordered = ordered_reductions(graph)
    assert not (ordered.modes == Access.REDUX).any()
    assert np.diff(ordered.calls).min(initial=1) > 0
    assert ordered.calls[-1] == ordered.n
    check_consistent(ordered, execute(graph), seed)


def test_many_contributions_to_one_tile_keep_their_meaning() -> None:
    for count in (1, SHORTEST, 2 * SHORTEST - 1, 2 * SHORTEST, 5 * LANES * SHORTEST):
        graph = contributions(count, width=3)
        check_consistent(ordered_reductions(graph), execute(graph), seed=count)


def test_a_graph_without_contributions_is_left_alone() -> None:
    graph = contributions(0)
    assert ordered_reductions(graph) is graph


def test_short_runs_add_to_the_tile_in_submission_order() -> None:
    ordered = ordered_reductions(contributions(2 * SHORTEST - 1))
    assert ordered.n == 2 * SHORTEST + 1
    assert ordered.critical_path() == ordered.n
    assert len(ordered.grids) == 1


def test_long_runs_are_dealt_to_lanes() -> None:
    count = 8 * LANES
    ordered = ordered_reductions(contributions(count))
    # every lane but the first has a partial sum to clear and to add
    assert ordered.counts() == {
        "random_W": 1,
        "random_REDUX": count,
        "laset": LANES - 1,
        "geadd": LANES - 1,
        "random_R": 1,
    }
    # the write, a lane, the partial sums one after the other, the read
    assert ordered.critical_path() <= 1 + 1 + count // LANES + (LANES - 1) + 1
    assert [grid.scratch for grid in ordered.grids] == [False] + [True] * (LANES - 1)
    assert all(grid.base == before.end for before, grid in pairwise(ordered.grids))


def test_lanes_depend_on_the_program_alone() -> None:
    first, second = (ordered_reductions(contributions(21, width=2)) for _ in range(2))
    for name in ("kind", "indptr", "tiles", "operand", "modes", "calls", "priority"):
        assert (getattr(first, name) == getattr(second, name)).all(), name


def test_matrices_of_one_name_have_partial_sums_of_their_own() -> None:
    flow = TaskFlow()
    small, large = flow.matrix(1, 1, nb=1, name="C"), flow.matrix(3, 2, nb=1, name="C")
    for salt in range(2 * SHORTEST):
        flow.submit("random_REDUX", large[2, 1], params=(salt,))
        flow.submit("random_REDUX", small[0, 0], params=(salt,))
    graph = flow.graph()
    ordered = ordered_reductions(graph)
    assert [(grid.m, grid.n) for grid in ordered.grids if grid.scratch] == [(1, 1), (3, 2)]
    check_consistent(ordered, execute(graph), seed=0)


def test_inserted_tasks_have_the_priority_of_their_neighbours() -> None:
    ordered = ordered_reductions(contributions(2 * SHORTEST))
    names = [ordered.operations[kind] for kind in ordered.kind]
    priority = dict(zip(names, ordered.priorities().tolist(), strict=True))
    assert priority == {
        "random_W": 1.0,
        "laset": 2.0,
        "random_REDUX": 2.0,
        "geadd": 2.0,
        "random_R": 3.0,
    }


def test_calls_are_cut_where_tasks_are_inserted() -> None:
    flow = TaskFlow()
    A = flow.matrix(1, 1, nb=1)
    B = flow.matrix(4 * SHORTEST, 1, nb=1)
    # one call, whose tasks all add to A
    flow.submit("random_R_REDUX", B, A, params=(0,))
    graph = flow.graph()
    ordered = ordered_reductions(graph)
    for first, last in zip(ordered.calls[:-1], ordered.calls[1:], strict=True):
        assert len(set(ordered.kind[first:last].tolist())) == 1
    check_consistent(ordered, execute(graph), seed=1)


@pytest.mark.parametrize("dtype", ["float32", "complex128"])
def test_partial_sums_are_tiles_like_the_one_they_belong_to(dtype: str) -> None:
    flow = TaskFlow()
    A = flow.matrix(5, 3, nb=2, dtype=dtype)
    for salt in range(2 * SHORTEST):
        flow.submit("random_REDUX", A[2, 1], params=(salt,))
    ordered = ordered_reductions(flow.graph())
    (partial,) = (grid for grid in ordered.grids if grid.scratch)
    assert partial.dtype == dtype
    used = ordered.tiles[ordered.tiles >= partial.base]
    assert {tuple(map(int, partial.shapes(tile))) for tile in used} == {(1, 1)}
    added = {kind.operation: kind for kind in ordered.kinds}
    assert added["laset"].dtype == added["geadd"].dtype == dtype


def test_accumulating_products_commute_and_give_the_same_bits() -> None:
    # C += sum of A_k B_k as contributions, on the engine
    rng = np.random.default_rng(0)
    a, b, c = rng.normal(size=(8, 160)), rng.normal(size=(160, 8)), rng.normal(size=(8, 8))
    flow = TaskFlow()
    A, B, C = (flow.matrix(*x.shape, nb=8) for x in (a, b, c))
    for k in range(A.nt):
        flow.gemm(A[:, k], B[k, :], C, accumulate=True)
    graph = flow.graph()
    assert graph.modes.tolist().count(Access.REDUX) == 20
    assert graph.succ.size == 0
    results = []
    for workers in (1, 2, 3):
        matrices = [TiledMatrix.from_array(np.asfortranarray(x), nb=8) for x in (a, b, c.copy())]
        with engine("threads", workers=workers) as threads:
            threads.run(graph, matrices)
        results.append(matrices[2].to_array())
    np.testing.assert_allclose(results[0], c + a @ b, rtol=1e-13)
    assert all(np.array_equal(x, results[0]) for x in results)
    with pytest.raises(ValueError, match="accumulate=True asks for an operation with beta=1"):
        flow.gemm(A[:, 0], B[0, :], C, beta=2.0, accumulate=True)
