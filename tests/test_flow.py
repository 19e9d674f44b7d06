"""The task flow: selections of tiles, broadcasting, what BLAS is told of tiles seen transposed."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
import pytest
from interpreter import interpret, mirrored, op, part, triangle

from taskla.flow import TaskFlow, Tiles, flip
from taskla.operations import Access
from taskla.tiles import compose

NAN = np.nan
REAL, COMPLEX = np.dtype("float64"), np.dtype("complex128")


def flow_and(*shapes: tuple[int, int], nb: int = 1, dtype: Any = REAL) -> list[Any]:
    flow = TaskFlow()
    return [flow, *(flow.matrix(m, n, nb, dtype) for m, n in shapes)]


def tasks(flow: TaskFlow) -> list[list[tuple[str, int, int]]]:
    """Name, tile row and tile column of each access, task by task."""
    graph = flow.graph()
    result: list[list[tuple[str, int, int]]] = [[] for _ in range(graph.n)]
    for task, tile in zip(graph.task_of_access.tolist(), graph.tiles.tolist(), strict=True):
        grid = graph.grid_of(tile)
        i, j = grid.coordinates(tile)
        result[task].append((grid.name, int(i), int(j)))
    return result


# -- matrices and selections -----------------------------------------------------------------------


def test_matrices_have_tile_numbers_of_their_own() -> None:
    flow = TaskFlow()
    A = flow.matrix(5, 7, nb=2, dtype="float32")
    B = flow.matrix(0, 3, nb=2, name="rhs")
    C = flow.matrix(1, 1, nb=9, dtype=complex, scratch=True)
    assert (A.mt, A.nt, B.mt, B.nt, C.mt, C.nt) == (3, 4, 0, 2, 1, 1)
    assert A.ids.tolist() == [[0, 3, 6, 9], [1, 4, 7, 10], [2, 5, 8, 11]]
    assert [X.grid.name for X in (A, B, C)] == ["A", "rhs", "C"]
    assert [X.grid.base for X in (A, B, C)] == [0, 12, 12]
    assert [X.grid.end for X in (A, B, C)] == [12, 12, 13]
    assert [X.grid.scratch for X in (A, B, C)] == [False, False, True]
    assert (A.dtype, C.dtype, A.nb, C.nb) == (np.float32, COMPLEX, 2, 9)
    rows, columns = A.grid.shapes(A.ids)
    assert rows.tolist() == [[2] * 4, [2] * 4, [1] * 4]
    assert columns.tolist() == [[2, 2, 2, 1]] * 3
    assert flow.graph().grids == (A.grid, B.grid, C.grid)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ((-1, 2, 1), "at least 0 rows and columns, not -1 x 2"),
        ((2, -1, 1), "at least 0 rows and columns, not 2 x -1"),
        ((2, 2, 0), "nb must be at least 1, not 0"),
    ],
)
def test_sizes_that_a_matrix_cannot_have(sizes: tuple[int, int, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TaskFlow().matrix(*sizes)


def test_indexing_keeps_both_axes() -> None:
    _, A = flow_and((4, 3))
    ids = A.ids
    every = slice(None)
    for index, expected in (
        ((1, 2), ids[1:2, 2:3]),
        ((-1, -3), ids[3:4, 0:1]),
        ((slice(1, None), 0), ids[1:, 0:1]),
        ((slice(None, 2), slice(None, None, 2)), ids[:2, ::2]),
        ((slice(4, None), 0), ids[4:, 0:1]),
        (2, ids[2:3]),
        ((np.int64(1), every), ids[1:2]),
    ):
        assert A[index].ids.tolist() == expected.tolist(), index
    assert A[[3, 0], [2, 1]].ids.tolist() == ids[np.ix_([3, 0], [2, 1])].tolist()
    assert A[1:, 0].T.ids.tolist() == ids[1:, 0:1].T.tolist()
    assert A[1:][0, 1].ids == ids[1, 1]
    for index in ((4, 0), (-5, 0), (0, 3), (0, -4)):
        with pytest.raises(IndexError, match=r"tile index -?\d is out of range for [34] tiles"):
            A[index]
    assert repr(A[1:, :].T) == "<3 x 3 tiles of A.T>"
    assert repr(A[0, 0]) == "<1 x 1 tiles of A>"


def test_diagonals() -> None:
    _, A = flow_and((3, 4))
    assert A.diagonal.ids.tolist() == [[0], [4], [8]]
    assert A.diagonal.T.diagonal.ids.tolist() == [[0]]
    assert A[1:, :].diagonal.ids.tolist() == [[1], [5]]
    mask = np.tri(3, 4, -1, dtype=bool)
    assert (A.below_diagonal.mask == mask).all()
    assert (A.below_diagonal.H.mask == mask.T).all()
    for X in (A.below_diagonal, A.columns):
        with pytest.raises(ValueError, match="choose tiles first"):
            X[0, 0]
    with pytest.raises(ValueError, match="no transpose"):
        A.columns.T  # noqa: B018 (raises)


def test_transpositions_compose() -> None:
    x = np.array([[1 + 2j]])
    for dtype, value in ((REAL, x.real), (COMPLEX, x)):
        for outer, inner in product("NTC", repeat=2):
            seen = op(outer, op(inner, value))
            conjugates = {"NC": "C", "CN": "C", "TC": None, "CT": None}.get(outer + inner, "")
            if conjugates is None and dtype == COMPLEX:
                with pytest.raises(ValueError, match="use T and H consistently"):
                    compose(outer, inner, dtype)  # type: ignore[arg-type]
                continue
            found = compose(outer, inner, dtype)  # type: ignore[arg-type]
            assert (op(found, value) == seen).all()
            # as many transpositions, modulo 2
            assert (found != "N") == ((outer != "N") != (inner != "N"))
    assert [flip(u, o) for u in "LU" for o in "NTC"] == ["L", "U", "U", "U", "L", "L"]  # type: ignore[arg-type]


# -- submission ------------------------------------------------------------------------------------


def test_calls_broadcast_column_by_column() -> None:
    flow, A, B, C = flow_and((2, 3), (3, 2), (2, 2))
    flow.gemm(A[:, 1], B[1, :], C)
    assert tasks(flow) == [
        [("A", i, 1), ("B", 1, j), ("C", i, j)] for j in range(2) for i in range(2)
    ]
    graph = flow.graph()
    assert graph.operand.tolist() == [0, 1, 2] * 4
    assert graph.modes.tolist() == [Access.R, Access.R, Access.RW] * 4
    assert graph.indptr.tolist() == [0, 3, 6, 9, 12]
    assert len(flow) == graph.n == 4


def test_transposed_outputs_are_visited_as_seen() -> None:
    flow, A = flow_and((2, 3))
    flow.lascl(A.T, 2.0)
    assert tasks(flow) == [[("A", i, j)] for i in range(2) for j in range(3)]


def test_masks_choose_tasks() -> None:
    flow, A, C = flow_and((3, 1), (3, 3))
    flow.gemm(A, A.T, C.below_diagonal)
    assert [task[2][1:] for task in tasks(flow)] == [(1, 0), (2, 0), (2, 1)]
    flow = TaskFlow()
    C = flow.matrix(3, 3, nb=1)
    # both masks hold; an operand of one tile goes with all
    B = flow.matrix(3, 3, nb=1)
    flow.lacpy(B.below_diagonal, C.below_diagonal)
    flow.geadd(C[0, 0], C.T.below_diagonal)
    lower = [(1, 0), (2, 0), (2, 1)]
    assert [task[1][1:] for task in tasks(flow)] == lower + [(j, i) for i, j in lower]


def test_columns_are_one_operand() -> None:
    flow, A, P = flow_and((5, 2), (2, 1), nb=2)
    flow.laswp(P[0, 0], A[1:, :].columns)
    graph = flow.graph()
    assert graph.n == 1
    assert tasks(flow) == [[("B", 0, 0), ("A", 1, 0), ("A", 2, 0)]]
    assert graph.operand.tolist() == [0, 1, 1]
    assert graph.modes.tolist() == [Access.R, Access.RW, Access.RW]


def test_empty_selections_submit_nothing() -> None:
    flow, A, E = flow_and((3, 3), (0, 3))
    flow.lascl(A[3:, :], 2.0)
    flow.lascl(A[0, 0].below_diagonal, 2.0)
    flow.lascl(E, 2.0)
    flow.laswp(A[0, 0], A[:, 3:].columns)
    graph = flow.graph()
    assert (len(flow), graph.n, graph.calls.tolist(), graph.kinds) == (0, 0, [0], ())


def test_kinds_and_calls() -> None:
    flow, A = flow_and((3, 1))
    flow.lascl(A, 2.0)
    flow.lascl(A, 3.0)
    flow.lascl(A[1:, 0], 2.0, precision="fp32", compression="svd")
    flow.lascl(A[0, 0], 2.0)
    graph = flow.graph()
    assert graph.calls.tolist() == [0, 3, 6, 8, 9]
    assert graph.kind.tolist() == [0] * 3 + [1] * 3 + [2] * 2 + [0]
    assert [kind.params for kind in graph.kinds] == [("G", 2.0), ("G", 3.0), ("G", 2.0)]
    assert [(k.precision, k.compression) for k in graph.kinds] == [
        (None, None),
        (None, None),
        ("fp32", "svd"),
    ]
    assert graph.priority is None


def test_a_flow_goes_on_after_its_graph() -> None:
    flow, A = flow_and((2, 2))
    flow.lascl(A, 2.0)
    first = flow.graph()
    flow.lascl(A[0, 0], 3.0, priority=5.0)
    second = flow.graph()
    assert (first.n, second.n) == (4, 5)
    assert first.priority is None
    assert second.priority is not None
    assert second.priority.tolist() == [0.0] * 4 + [5.0]


def test_a_kind_has_the_type_of_what_it_writes() -> None:
    flow = TaskFlow()
    A, P = flow.matrix(2, 2, 2, "complex64"), flow.matrix(2, 1, 2, "int32")
    S = flow.matrix(1, 1, 2, "float32")
    flow.getrf(A.columns, P)
    flow.laswp(P, A.columns)
    flow.lange(A, S, "M")
    assert [kind.dtype for kind in flow.graph().kinds] == ["complex64", "complex64", "float32"]


def test_calls_that_make_no_sense() -> None:
    flow, A = flow_and((3, 3))
    with pytest.raises(ValueError, match=r"no operation 'gmm'; there are potrf, trsm"):
        flow.submit("gmm", A)
    with pytest.raises(ValueError, match=r"lascl takes 1 operands .*\(uplo, alpha\), not 2 and"):
        flow.submit("lascl", A, A, params=("G", 1.0))
    with pytest.raises(ValueError, match="lascl takes 1 operands"):
        flow.submit("lascl", A, params=("G",))
    with pytest.raises(ValueError, match="broadcast"):
        flow.gemm(A[:, 0], A[0, 1:], A)
    for call in (
        lambda: flow.getrf(A.T, A[0, 0]),
        lambda: flow.getrf_nopiv(A.T),
        lambda: flow.laswp(A[0, 0], A.T),
    ):
        with pytest.raises(ValueError, match="takes tiles as they are stored"):
            call()
    assert len(flow) == 0


def test_a_tile_that_is_written_is_no_other_operand() -> None:
    flow, A, B = flow_and((3, 3), (3, 1), nb=1)
    for call, message in (
        (lambda: flow.gemm(A[0, 0], A[0, 0], A[0, 0], beta=0.0), r"gemm writes tile A\(0, 0\)"),
        (lambda: flow.gemm(A[:, 2], A[1, :], A[:, :]), r"gemm writes tile A\(0, 2\)"),
        (lambda: flow.gemm(A[1, :].T, B.T, A[:, 1].T), r"gemm writes tile A\(1, 1\)"),
        (lambda: flow.trsm(A[1, 1], A[:, 1], side="R"), r"trsm writes tile A\(1, 1\)"),
        (lambda: flow.syrk(A[2, 2], A.diagonal), r"syrk writes tile A\(2, 2\)"),
        (lambda: flow.geadd(A, A.T), r"geadd writes tile A\(0, 0\)"),
        (lambda: flow.laswp(A[1, 0], A[:, :1].columns), r"laswp writes tile A\(1, 0\)"),
        (lambda: flow.getrf_tnt_merge(A[0, 0], B[0, 0], A[0, 0], B[1, 0]), "getrf_tnt_merge wri"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    assert len(flow) == 0


def test_a_tile_may_be_read_as_several_operands() -> None:
    flow, A, C = flow_and((3, 3), (3, 3))
    flow.gemm(A, A.T, C)
    flow.gemm(A, A.T, C.below_diagonal)
    flow.gemm(A[1:, :1], A[1:, :1].T, A[1:, 1:])
    flow.syrk(A[2, 0], A.diagonal)
    assert len(flow) == 9 + 3 + 4 + 3


def test_what_is_submitted_by_name_may_use_a_tile_twice_unless_told() -> None:
    flow, A = flow_and((2, 2))
    flow.submit("geadd", A, A, params=("N", 1.0, 1.0))
    with pytest.raises(ValueError, match="must be no other operand"):
        flow.submit("geadd", A, A, params=("N", 1.0, 1.0), distinct=True)
    assert len(flow) == 4


def test_operands_of_blas_have_one_data_type() -> None:
    flow = TaskFlow()
    A, B = flow.matrix(2, 2, 1, "float32"), flow.matrix(2, 2, 1, "float64")
    message = r"gemm takes operands of one data type, not <2 x 2 tiles of A> of float32, <2 x 2 til"
    with pytest.raises(ValueError, match=message):
        flow.gemm(A, A, B)
    with pytest.raises(ValueError, match="lacpy takes operands of one data type"):
        flow.submit("lacpy", A, B, params=("G", "N"))
    assert len(flow) == 0


@pytest.mark.parametrize("letter", ["Q", "", "LU", "l", None, 1])
@pytest.mark.parametrize("transposed", [False, True])
def test_letters_that_blas_does_not_know(letter: Any, transposed: bool) -> None:
    flow, A, B, C = flow_and((2, 2), (2, 2), (2, 2), nb=2)
    if transposed:
        A, B, C = A.T, B.T, C.T
    allowed = {"side": "L, R", "uplo": "L, U", "diag": "N, U"}
    side, uplo, diag = (f"^{n} must be one of {a}, not {letter!r}$" for n, a in allowed.items())
    part = f"^uplo must be one of G, L, U, not {letter!r}$"
    for call, message in (
        (lambda: flow.symm(A, B, C, side=letter), side),
        (lambda: flow.hemm(A, B, C, uplo=letter), uplo),
        (lambda: flow.syrk(A, C, uplo=letter), uplo),
        (lambda: flow.herk(A, C, uplo=letter), uplo),
        (lambda: flow.trsm(A, B, side=letter), side),
        (lambda: flow.trsm(A, B, uplo=letter), uplo),
        (lambda: flow.trmm(A, B, diag=letter), diag),
        (lambda: flow.potrf(A, uplo=letter), uplo),
        (lambda: flow.trtri(A, uplo=letter), uplo),
        (lambda: flow.trtri(A, diag=letter), diag),
        (lambda: flow.lauum(A, uplo=letter), uplo),
        (lambda: flow.lascl(A, 2.0, uplo=letter), part),
        (lambda: flow.laset(A, uplo=letter), part),
        (lambda: flow.lacpy(A, B, uplo=letter), part),
        (lambda: flow.lansy(A, B, "M", letter, False), uplo),
        (lambda: flow.lantr(A, B, "M", "L", letter), diag),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    assert len(flow) == 0


def test_norms_that_lapack_does_not_know() -> None:
    flow, A, B = flow_and((2, 2), (2, 2), nb=2)
    with pytest.raises(ValueError, match=r"^norm must be one of M, 1, I, F, not '2'$"):
        flow.lange(A, B, "2")


def test_complex_herk_checks_its_letter() -> None:
    flow, A, C = flow_and((2, 2), (2, 2), nb=2, dtype=COMPLEX)
    with pytest.raises(ValueError, match="uplo must be one of L, U, not 'Q'"):
        flow.herk(A, C, uplo="Q")


def test_complex_views_that_blas_has_no_word_for() -> None:
    flow, A, B = flow_and((3, 3), (3, 3), dtype=COMPLEX)
    for call, message in (
        (lambda: flow.gemm(A.H, B, A.T), "without transposing"),
        (lambda: flow.syrk(A.H, B), r"takes X or X\.T"),
        (lambda: flow.syrk(A, B.H), r"takes X or X\.T"),
        (lambda: flow.herk(A.T, B), r"takes X or X\.H"),
        (lambda: flow.symm(A.H, B, B), r"takes X or X\.T"),
        (lambda: flow.hemm(A, B, B.T), r"takes X or X\.H"),
        (lambda: flow.lauum(A.T), r"takes X or X\.H"),
        (lambda: flow.symm(A, B.T, B), "seen the same way"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    assert len(flow) == 0


# -- what the calls mean ---------------------------------------------------------------------------
# Each is made on tiles seen in every way, and run by the interpreter; the equation holds for what
# is seen. The triangle that is not stored is not a number.

N, M, K = 5, 3, 4


def numbers(shape: tuple[int, int], dtype: np.dtype, seed: int) -> np.ndarray:
    generator = np.random.default_rng(seed)
    result = generator.standard_normal(shape).astype(dtype)
    if dtype.kind == "c":
        result += 1j * generator.standard_normal(shape)
    return result


def half(a: np.ndarray, uplo: str) -> np.ndarray:
    """The triangle of a matrix, the rest not a number."""
    return np.where(part(uplo, a.shape), a, NAN)


def run(submit: Callable[..., None], seen: list[np.ndarray], ops: str) -> list[np.ndarray]:
    """Call with one tile an operand, stored as `ops` says; the operands afterwards, as seen."""
    flow = TaskFlow()
    stored = [op(o, x).copy() for o, x in zip(ops, seen, strict=True)]
    tiles = [flow.matrix(*x.shape, nb=9, dtype=x.dtype) for x in stored]
    submit(flow, *(view(X, o) for X, o in zip(tiles, ops, strict=True)))
    interpret(flow.graph(), *stored)
    return [op(o, x) for o, x in zip(ops, stored, strict=True)]


def view(X: Tiles, o: str) -> Tiles:
    return {"N": X, "T": X.T, "C": X.H}[o]


def close(a: np.ndarray, b: np.ndarray) -> None:
    np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)


def ways(count: int, dtype: np.dtype, letters: str = "NTC") -> list[str]:
    """How operands may be seen: complex ones not both transposed and conjugate-transposed."""
    found = ["".join(way) for way in product(letters, repeat=count)]
    return [way for way in found if dtype.kind != "c" or not {"T", "C"} <= set(way)]


SCALARS = {REAL: (2.0, -3.0), COMPLEX: (2.0 + 1.0j, -3.0j)}


@pytest.mark.parametrize("dtype", [REAL, COMPLEX], ids=str)
def test_products(dtype: np.dtype) -> None:
    alpha, beta = SCALARS[dtype]
    a, b, c = numbers((M, K), dtype, 0), numbers((K, N), dtype, 1), numbers((M, N), dtype, 2)
    for way in (*ways(3, dtype), "TCN", "CTN"):
        found = run(lambda f, A, B, C: f.gemm(A, B, C, alpha, beta), [a, b, c], way)
        close(found[2], alpha * a @ b + beta * c)
        found = run(lambda f, A, B, C: f.gemm(A, B, C, beta=0.0), [a, b, c * NAN], way)
        close(found[2], a @ b)


@pytest.mark.parametrize("dtype", [REAL, COMPLEX], ids=str)
def test_symmetric_and_hermitian_products(dtype: np.dtype) -> None:
    alpha, beta = SCALARS[dtype]
    a, c = numbers((N, N), dtype, 0), numbers((N, N), dtype, 2)
    b = numbers((N, N), dtype, 1)
    for name, letters in (("symm", "NT"), ("hemm", "NC")):
        for way, uplo, side in product(ways(2, dtype, letters), "LU", "LR"):

            def submit(
                flow: TaskFlow,
                A: Tiles,
                B: Tiles,
                C: Tiles,
                name: str = name,
                side: str = side,
                uplo: str = uplo,
            ) -> None:
                getattr(flow, name)(A, B, C, side, uplo, alpha, beta)

            x = mirrored(a, uplo, name == "hemm")
            # B and C are seen the same way
            found = run(submit, [half(a, uplo), b, c], way + way[1])
            close(found[2], alpha * (x @ b if side == "L" else b @ x) + beta * c)


@pytest.mark.parametrize("dtype", [REAL, COMPLEX], ids=str)
def test_rank_k_updates(dtype: np.dtype) -> None:
    a, c = numbers((N, K), dtype, 0), numbers((N, N), dtype, 1)
    for name, same in (("syrk", "T"), ("herk", "C")):
        alpha, beta = (2.0, -3.0) if same == "C" else SCALARS[dtype]
        for way, uplo in product(ways(2, dtype, "N" + same), "LU"):
            before = half(c, uplo)
            found = run(
                lambda f, A, C, name=name, uplo=uplo, x=alpha, y=beta: getattr(f, name)(
                    A, C, uplo, x, y
                ),
                [a, before],
                way,
            )
            # the other triangle is still what it was
            close(found[1], np.where(part(uplo, c.shape), alpha * a @ op(same, a) + beta * c, NAN))


@pytest.mark.parametrize("dtype", [REAL, COMPLEX], ids=str)
def test_triangular_solves_and_products(dtype: np.dtype) -> None:
    alpha, _ = SCALARS[dtype]
    a = numbers((N, N), dtype, 0) + 5 * np.eye(N)
    b = {"L": numbers((N, M), dtype, 1), "R": numbers((M, N), dtype, 1)}
    every = (*ways(2, dtype),)
    for way, side, uplo, diag in product(every, "LR", "LU", "NU"):
        x = triangle(a, uplo, diag)
        hidden = half(a, uplo)
        if diag == "U":
            np.fill_diagonal(hidden, NAN)
        for name, factor in (("trmm", x), ("trsm", np.linalg.inv(x))):
            found = run(
                lambda f, A, B, name=name, side=side, uplo=uplo, diag=diag: getattr(f, name)(
                    A, B, side, uplo, diag, alpha
                ),
                [hidden, b[side]],
                way,
            )
            close(found[1], alpha * (factor @ b[side] if side == "L" else b[side] @ factor))


@pytest.mark.parametrize("dtype", [REAL, COMPLEX], ids=str)
def test_factorisations_and_inverses_of_a_tile(dtype: np.dtype) -> None:
    a = numbers((N, N), dtype, 0)
    spd = a @ a.conj().T + N * np.eye(N)
    shifted = a + 5 * np.eye(N)
    for o, uplo in product("NTC", "LU"):
        outside = ~part(uplo, a.shape)
        if o != "T" or dtype == REAL:
            (found,) = run(lambda f, A, uplo=uplo: f.potrf(A, uplo), [half(spd, uplo)], o)
            x = triangle(found, uplo)
            close(x @ op("C", x) if uplo == "L" else op("C", x) @ x, spd)
            assert np.isnan(found[outside]).all()
            (found,) = run(lambda f, A, uplo=uplo: f.lauum(A, uplo), [half(a, uplo)], o)
            x = triangle(a, uplo)
            expected = op("C", x) @ x if uplo == "L" else x @ op("C", x)
            close(found, np.where(outside, NAN, expected))
        for diag in "NU":
            (found,) = run(
                lambda f, A, uplo=uplo, diag=diag: f.trtri(A, uplo, diag), [half(shifted, uplo)], o
            )
            x = triangle(shifted, uplo, diag)
            close(triangle(found, uplo, diag), np.linalg.inv(x))
            assert np.isnan(found[outside]).all()


@pytest.mark.parametrize("dtype", [REAL, COMPLEX], ids=str)
def test_copies_fills_scalings_and_sums(dtype: np.dtype) -> None:
    alpha, beta = SCALARS[dtype]
    a, b = numbers((N, N), dtype, 0), numbers((N, N), dtype, 1)
    for way in ways(2, dtype):
        found = run(lambda f, A, B: f.geadd(A, B, alpha, beta), [a, b], way)
        close(found[1], alpha * a + beta * b)
        for uplo in "LUG":
            inside = part(uplo, b.shape)
            found = run(lambda f, A, B, uplo=uplo: f.lacpy(A, B, uplo), [a, b], way)
            close(found[1], np.where(inside, a, b))
    for o, uplo in product("NTC", "LUG"):
        inside = part(uplo, b.shape)
        (found,) = run(lambda f, B, uplo=uplo: f.lascl(B, alpha, uplo), [b], o)
        close(found, np.where(inside, alpha * b, b))
        (found,) = run(lambda f, B, uplo=uplo: f.laset(B, alpha, beta, uplo), [b], o)
        filled = np.where(np.eye(N, dtype=bool), beta, alpha)
        close(found, np.where(inside, filled, b))


def test_real_tiles_have_no_hermitian_operations() -> None:
    flow, A, B = flow_and((2, 2), (2, 2), nb=2)
    flow.herk(A, B)
    flow.hemm(A, A, B)
    assert set(flow.graph().counts()) == {"syrk", "symm"}
