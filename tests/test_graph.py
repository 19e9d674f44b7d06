"""The task graph: facts about known DAGs, dependencies of random programs, paths, exports."""

from __future__ import annotations

import heapq
import re
from collections.abc import Callable, Iterator
from itertools import pairwise

import networkx
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from random_programs import check_consistent, closure, edges, execute, programs, random_operations

from taskla.algorithms import gemm, getrf, lauum, potrf, symm, syrk, trmm, trsm, trtri
from taskla.flow import TaskFlow
from taskla.graph import TaskGraph
from taskla.operations import OPERATIONS, Access
from taskla.programs import Layout, program

REAL, COMPLEX = np.dtype("float64"), np.dtype("complex128")

# Weights in nb^3 / 3 flops.
CHOLESKY = {"potrf": 1.0, "trsm": 3.0, "syrk": 3.0, "gemm": 6.0}
LU = {"getrf_nopiv": 2.0, "trsm": 3.0, "gemm": 6.0}


@pytest.fixture(autouse=True, scope="module")
def operations() -> Iterator[None]:
    with random_operations():
        yield


def layout(m: int, n: int, nb: int = 1, dtype: np.dtype = REAL) -> Layout:
    return Layout(m, n, nb, dtype, "A")


def cholesky(N: int, uplo: str = "L") -> TaskGraph:
    return program(potrf.potrf, (layout(N, N),), (uplo,))


def lu(N: int) -> TaskGraph:
    return program(getrf.getrf_nopiv, (layout(N, N),))


def where(graph: TaskGraph, task: int) -> tuple[str, int, int, int]:
    """Operation, tile row and column of the tile written, and step k, of Cholesky or LU."""
    name = graph.operations[graph.kind[task]]
    grid, i, j = graph.locate(task)
    row, column = grid.coordinates(graph.tiles[graph.indptr[task]])
    k = {"syrk": column, "gemm": column}.get(name, min(row, column))
    return name, i, j, int(k)


# -- known DAGs ------------------------------------------------------------------------------------


def test_cholesky_dag() -> None:
    # data edges of N = 2, 3, ... tile columns
    known = {1: 0, 2: 3, 3: 12, 4: 30, 5: 60, 6: 105, 8: 252}
    for N, count in known.items():
        for uplo in "LU":
            graph = cholesky(N, uplo)
            assert graph.counts() == {
                name: tasks
                for name, tasks in {
                    "potrf": N,
                    "trsm": N * (N - 1) // 2,
                    "syrk": N * (N - 1) // 2,
                    "gemm": N * (N - 1) * (N - 2) // 6,
                }.items()
                if tasks
            }
            assert len(graph.edges("raw")[0]) == count
            assert graph.weights(CHOLESKY).sum() == N**3
            assert graph.critical_path() == 3 * N - 2
            assert graph.critical_path(CHOLESKY) == {1: 1, 2: 8}.get(N, 9 * N - 10)


def test_cholesky_bottom_levels() -> None:
    for N in range(1, 9):
        graph = cholesky(N)
        levels = graph.bottom_levels(CHOLESKY)

        def panel(k: int, N: int = N) -> int:
            return max(9 * (N - 1 - k) - 1, 1)

        def solve(k: int, N: int = N) -> int:
            return 9 * (N - 1 - k) - 2

        for task in range(graph.n):
            name, _, j, k = where(graph, task)
            formula = {
                "potrf": panel(k),
                "trsm": solve(k),
                "syrk": 3 * (j - k) + panel(j),
                "gemm": 6 * (j - k) + solve(j),
            }
            assert levels[task] == formula[name], graph.label(task)


def test_lu_dag() -> None:
    known = {1: 0, 2: 5, 3: 21, 4: 54, 5: 110}
    for N, count in known.items():
        graph = lu(N)
        tasks = {
            "getrf_nopiv": N,
            "trsm": N * (N - 1),
            "gemm": N * (N - 1) * (2 * N - 1) // 6,
        }
        assert graph.counts() == {name: count for name, count in tasks.items() if count}
        assert len(graph.edges("raw")[0]) == count
        assert graph.weights(LU).sum() == 2 * N**3
        assert graph.critical_path() == 3 * N - 2
        assert graph.critical_path(LU) == 11 * N - 9


def test_lu_bottom_levels() -> None:
    # A tile (i, j) gets to its own panel at 9 a step, and a diagonal tile to the end at 11.
    for N in range(1, 8):
        graph = lu(N)
        levels = graph.bottom_levels(LU)

        def factor(k: int, N: int = N) -> int:
            return 11 * (N - 1 - k) + 2

        def solve(i: int, k: int, N: int = N) -> int:
            return 9 * (i - 1 - k) + 11 * (N - i)

        for task in range(graph.n):
            name, i, j, k = where(graph, task)
            low, high = min(i, j), max(i, j)
            formula = {
                "getrf_nopiv": factor(k),
                "trsm": solve(high, k),
                "gemm": 6 * (low - k) + (factor(low) if i == j else solve(high, low)),
            }
            assert levels[task] == formula[name], graph.label(task)


def textbook_cholesky(N: int) -> TaskGraph:
    """Tile by tile, an update's tiles column by column."""
    flow = TaskFlow()
    A = flow.matrix(N, N, nb=1)
    for k in range(N):
        flow.potrf(A[k, k])
        for i in range(k + 1, N):
            flow.trsm(A[k, k].H, A[i, k], side="R", uplo="U")
        for j in range(k + 1, N):
            flow.herk(A[j, k], A[j, j], alpha=-1.0)
            for i in range(j + 1, N):
                flow.gemm(A[i, k], A[j, k].H, A[i, j], alpha=-1.0)
    return flow.graph()


def makespan(graph: TaskGraph, weights: np.ndarray, priorities: np.ndarray, P: int) -> float:
    """Time that P equal workers take who start the ready task of highest priority."""
    missing = graph.indegree.tolist()
    ready = [(-priorities[task], task) for task in range(graph.n) if not missing[task]]
    heapq.heapify(ready)
    running: list[tuple[float, int]] = []
    now = 0.0
    while ready or running:
        while ready and len(running) < P:
            _, task = heapq.heappop(ready)
            heapq.heappush(running, (now + weights[task], task))
        now = running[0][0]
        while running and running[0][0] == now:
            _, task = heapq.heappop(running)
            for successor in graph.succ[graph.succ_ptr[task] : graph.succ_ptr[task + 1]].tolist():
                missing[successor] -= 1
                if not missing[successor]:
                    heapq.heappush(ready, (-priorities[successor], successor))
    return now


@pytest.mark.parametrize(
    ("N", "P", "expected", "bound"),
    [
        (4, 2, (35, 38, 37), 32),
        (4, 4, (26, 29, 27), 26),
        (6, 2, (111, 118, 114), 108),
        (6, 4, (62, 65, 65), 54),
    ],
)
def test_list_scheduling(N: int, P: int, expected: tuple[int, ...], bound: int) -> None:
    graph = textbook_cholesky(N)
    weights = graph.weights(CHOLESKY)
    # Chameleon's: 2N - 2k for a panel, less i, less j
    chameleon = [
        2 * N - 2 * k - {"potrf": 0, "trsm": i, "syrk": i, "gemm": i + j}[name]
        for name, i, j, k in (where(graph, task) for task in range(graph.n))
    ]
    rules = (graph.bottom_levels(CHOLESKY), np.array(chameleon), -np.arange(graph.n))
    assert tuple(makespan(graph, weights, rule, P) for rule in rules) == expected
    assert max(graph.critical_path(CHOLESKY), -(-(N**3) // P)) == bound


def test_the_order_of_independent_tasks_changes_no_dependency() -> None:
    for N in (2, 4, 6):
        ours, other = cholesky(N), textbook_cholesky(N)

        def named(graph: TaskGraph, kind: str) -> set[tuple[object, ...]]:
            source, target = graph.edges(kind)  # type: ignore[arg-type]
            return {(where(graph, a), where(graph, b)) for a, b in zip(source, target, strict=True)}

        assert named(ours, "all") == named(other, "all")
        assert named(ours, "raw") == named(other, "raw")


def test_partial_pivoting_looks_ahead() -> None:
    # the next panel waits for the tasks on its own column alone
    N = 6
    panels = Layout(N, 1, 1, np.dtype(np.int32), "P")
    graph = program(getrf.getrf, (layout(N, N), panels))
    reach = closure(edges(graph))
    names = [graph.operations[kind] for kind in graph.kind]
    found = [task for task in range(graph.n) if names[task] == "getrf"]
    assert len(found) == N
    for k, (a, b) in enumerate(pairwise(found)):
        between = [t for t in range(graph.n) if reach[a, t] and reach[t, b]]
        assert all(graph.locate(t)[2] == k + 1 for t in between)
        assert [names[t] for t in between] == ["laswp", "trsm"] + ["gemm"] * (N - k - 1)


# -- flops -----------------------------------------------------------------------------------------


def total(operation: str, dtype: np.dtype, *shapes: tuple[int, int]) -> float:
    """Working note 41's count for the whole matrices."""
    return float(OPERATIONS[operation].flops(shapes, dtype.kind == "c"))


def test_flops_of_tile_tasks_sum_to_those_of_the_routine() -> None:
    nb = 4
    square: dict[str, Callable[..., None]]
    square = {"potrf": potrf.potrf, "trtri": trtri.trtri, "lauum": lauum.lauum}
    for dtype in (REAL, COMPLEX):
        for n, r in ((1, 3), (4, 4), (10, 7), (8, 21), (21, 5)):

            def a(rows: int, columns: int, dtype: np.dtype = dtype) -> Layout:
                return layout(rows, columns, nb, dtype)

            for name, algorithm in square.items():
                for uplo in "LU":
                    graph = program(algorithm, (a(n, n),), (uplo,))
                    whole = total(name, dtype, (n, n))
                    assert graph.flops().sum() == pytest.approx(whole, rel=1e-12), name
            graph = program(gemm.gemm, (a(n, r), a(r, n + 3), a(n, n + 3)))
            whole = total("gemm", dtype, (n, r), (r, n + 3), (n, n + 3))
            assert graph.flops().sum() == pytest.approx(whole, rel=1e-12)
            for uplo in "LU":
                graph = program(syrk.herk, (a(n, r), a(n, n)), (uplo,))
                whole = total("herk", dtype, (n, r), (n, n))
                assert graph.flops().sum() == pytest.approx(whole, rel=1e-12)
                for side in "LR":
                    b = (n, r) if side == "L" else (r, n)
                    for name, triangular in (("trsm", trsm.trsm), ("trmm", trmm.trmm)):
                        graph = program(triangular, (a(n, n), a(*b)), (side, uplo))
                        # seen from the right, B is its transpose
                        whole = total(name, dtype, (n, n), (n, r))
                        assert graph.flops().sum() == pytest.approx(whole, rel=1e-12), name
                    graph = program(symm.hemm, (a(n, n), a(*b), a(*b)), (side, uplo))
                    whole = total("hemm", dtype, (n, n), (n, r), (n, r))
                    assert graph.flops().sum() == pytest.approx(whole, rel=1e-12)


def test_flops_of_lu_count_unit_triangles_as_others() -> None:
    # Working note 41 has one count for trsm, unit diagonal or not: a product too many for each row
    # of a block row of U and each column right of the diagonal block.
    nb = 4
    for dtype, product in ((REAL, 1), (COMPLEX, 6)):
        for m, n in ((1, 1), (4, 4), (10, 10), (21, 13), (13, 5)):
            surplus = sum(product * min(nb, n - k) * max(0, n - k - nb) for k in range(0, n, nb))
            expected = total("getrf", dtype, (m, n)) + surplus
            pivots = Layout(min(m, n), 1, nb, np.dtype(np.int32), "P")
            for graph in (
                program(getrf.getrf_nopiv, (layout(m, n, nb, dtype),)),
                program(getrf.getrf, (layout(m, n, nb, dtype), pivots)),
            ):
                assert graph.flops().sum() == pytest.approx(expected, rel=1e-12)


def test_bytes_accessed() -> None:
    flow = TaskFlow()
    A = flow.matrix(5, 5, nb=4, dtype="complex64")
    P = flow.matrix(5, 1, nb=4, dtype="int32")
    flow.gemm(A[1, 0], A[0, 1], A[1, 1])
    flow.getrf(A[:, 0].columns, P[0, 0])
    flow.laset(A[0, 1])
    read = 8 * (4 + 4 + 1), 8 * (16 + 4), 0
    written = 8 * 1, 8 * (16 + 4) + 4 * 4, 8 * 4
    expected = [r + w for r, w in zip(read, written, strict=True)]
    assert flow.graph().nbytes_accessed().tolist() == expected


# -- dependencies ----------------------------------------------------------------------------------


@settings(max_examples=150)
@given(programs(), st.integers(0, 1000))
def test_any_allowed_order_gives_the_sequential_result(graph: TaskGraph, seed: int) -> None:
    check_consistent(graph, execute(graph), seed)


@settings(max_examples=60)
@given(programs())
def test_versions_and_data_edges_are_those_of_a_run(graph: TaskGraph) -> None:
    writers: dict[int, tuple[int, ...]] = {}
    open_reductions: dict[int, tuple[int, ...]] = {}
    found: list[tuple[int, tuple[int, ...]]] = []
    data: set[tuple[int, int]] = set()
    task_of = graph.task_of_access
    for task, tile, mode in zip(task_of.tolist(), graph.tiles.tolist(), graph.modes, strict=True):
        if mode != Access.REDUX and tile in open_reductions:
            writers[tile] = open_reductions.pop(tile)
        found.append((tile, writers.get(tile, ())))
        if mode != Access.W:
            # each writer of the version that is found: several where they contributed to it
            data |= {(writer, task) for writer in writers.get(tile, ()) if writer >= 0}
        stamp = -len(found)  # the same task may write a tile twice
        if mode == Access.REDUX:
            open_reductions[tile] = (*open_reductions.get(tile, (stamp,)), task)
        elif mode != Access.R:
            writers[tile] = (stamp, task)
    numbers = graph.versions().tolist()
    assert len(set(zip(numbers, found, strict=True))) == len(set(found)) == len(set(numbers))
    source, target = graph.edges("raw")
    assert len(source) == len(set(zip(source.tolist(), target.tolist(), strict=True)))
    expected = {(a, b) for a, b in data if a != b}
    assert set(zip(source.tolist(), target.tolist(), strict=True)) == expected


def test_a_graph_of_nothing() -> None:
    graph = TaskFlow().graph()
    assert (graph.n, len(graph), graph.tile_count) == (0, 0, 0)
    assert graph.counts() == {}
    assert graph.succ.size == graph.indegree.size == graph.bottom_levels().size == 0
    assert graph.critical_path() == 0.0
    assert graph.edges("raw")[0].size == graph.versions().size == 0
    assert graph.flops().sum() == graph.nbytes_accessed().sum() == 0.0
    assert repr(graph) == "TaskGraph(0 tasks)"
    assert len(graph.to_networkx()) == 0


def test_edges_of_an_unknown_kind() -> None:
    with pytest.raises(ValueError, match="'all' or 'raw', not 'war'"):
        cholesky(2).edges("war")  # type: ignore[arg-type]


# -- weights, levels, priorities -------------------------------------------------------------------


@settings(max_examples=60)
@given(programs(), st.randoms(use_true_random=False))
def test_bottom_levels_are_longest_paths(graph: TaskGraph, chance: object) -> None:
    weights = np.array([chance.random() for _ in range(graph.n)])  # type: ignore[attr-defined]
    edge = edges(graph)
    expected = weights.copy()
    for task in reversed(range(graph.n)):
        expected[task] += expected[edge[task]].max(initial=0.0)
    assert graph.bottom_levels(weights) == pytest.approx(expected, rel=1e-12)
    assert graph.critical_path(weights) == pytest.approx(expected.max(initial=0.0), rel=1e-12)


def test_weights() -> None:
    graph = cholesky(3)
    assert graph.weights(None).tolist() == [1.0] * graph.n
    assert (graph.weights("flops") == graph.flops()).all()
    assert graph.weights(CHOLESKY).tolist() == [CHOLESKY[where(graph, t)[0]] for t in range(10)]
    with pytest.raises(ValueError, match=r"no entry for gemm, trsm"):
        graph.weights({"potrf": 1.0, "syrk": 1.0})
    with pytest.raises(ValueError, match=r"'flops'.*not 'seconds'"):
        graph.weights("seconds")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"shape \(10,\), not \(3,\)"):
        graph.weights(np.ones(3))
    unchanged = graph.weights(np.ones(10))
    graph.bottom_levels(unchanged)
    assert (unchanged == 1.0).all()


def test_priorities_are_explicit_ones_or_bottom_levels() -> None:
    graph = cholesky(4)
    assert (graph.priorities() == graph.bottom_levels("flops")).all()
    flow = TaskFlow()
    A = flow.matrix(2, 2, nb=1)
    flow.potrf(A[0, 0], priority=7.5)
    flow.laset(A[1, :])
    assert flow.graph().priorities().tolist() == [7.5, 0.0, 0.0]


# -- words and exports -----------------------------------------------------------------------------


def test_locate_and_label() -> None:
    flow = TaskFlow()
    A = flow.matrix(5, 7, nb=2, name="A")
    B = flow.matrix(5, 7, nb=2, name="B")
    flow.lacpy(A, B)
    flow.submit("random_R", B[1, 3], params=(0,))
    graph = flow.graph()
    assert [graph.locate(t)[1:] for t in (0, 1, 3, 11)] == [(0, 0), (1, 0), (0, 1), (2, 3)]
    assert graph.label(11) == "lacpy on B(2, 3)"
    assert graph.label(12) == "random_R on B(1, 3)"
    assert graph.tile_count == 24
    assert repr(graph) == "TaskGraph(13 tasks; lacpy: 12, random_R: 1)"
    with pytest.raises(IndexError, match="tile number 24 is in none"):
        graph.grid_of(24)


def test_dot() -> None:
    graph = cholesky(4)
    text = graph.to_dot()
    assert text.startswith("digraph taskla {\n")
    assert text.endswith("}\n")
    nodes = re.findall(r'^  (\d+) \[label="([^"]*)"\];$', text, re.MULTILINE)
    arrows = re.findall(r"^  (\d+) -> (\d+);$", text, re.MULTILINE)
    assert [int(node) for node, _ in nodes] == list(range(graph.n))
    assert nodes[0][1] == "potrf on A(0, 0)"
    source, target = graph.edges()
    assert [(int(a), int(b)) for a, b in arrows] == list(zip(source, target, strict=True))
    # nothing else but the first line, the style of nodes and the last
    assert len(text.splitlines()) == graph.n + len(source) + 3


def test_networkx() -> None:
    for graph in (cholesky(5), lu(4)):
        exported = graph.to_networkx()
        assert networkx.is_directed_acyclic_graph(exported)
        assert exported.number_of_nodes() == graph.n
        assert exported.number_of_edges() == len(graph.succ)
        assert networkx.dag_longest_path_length(exported) == graph.critical_path() - 1
        first = exported.nodes[0]
        assert first["operation"] in ("potrf", "getrf_nopiv")
        assert first["label"] == graph.label(0)
        assert first["flops"] == graph.flops()[0]


def test_memory_is_counted() -> None:
    graph = textbook_cholesky(8)
    before = graph.nbytes
    assert before >= graph.tiles.nbytes + graph.indptr.nbytes
    graph.succ  # noqa: B018 (derived when first asked for)
    assert (
        graph.nbytes == before + graph.succ.nbytes + graph.succ_ptr.nbytes + graph.indegree.nbytes
    )
