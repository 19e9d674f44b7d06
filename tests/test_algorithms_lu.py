"""LU factorisation with partial, tournament and no pivoting; solution; inversion."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import numpy as np
import pytest
import scipy.linalg
from interpreter import interchanged, interpret, op
from residuals import (
    DTYPES,
    FACTOR,
    INVERSE,
    NB,
    SIZES,
    SOLVE,
    TIGHT,
    one_norm,
    own,
    random,
    ratio,
    storages,
    wide,
)

import taskla as tla
from taskla import lapack
from taskla.algorithms import getrf, getri, getrs
from taskla.engines.threads import ThreadsEngine
from taskla.errors import SingularMatrixError
from taskla.matrix import TiledMatrix
from taskla.programs import Layout, program

Array = np.ndarray

#: square, tall and wide; the last panel narrower than the last row of tiles is high, and vice versa
SHAPES = (
    *((n, n) for n in SIZES),
    *((0, 5), (5, 0), (1, NB + 1), (NB + 1, 1), (3 * NB, NB), (NB, 3 * NB)),
    *((3 * NB + 5, NB + 3), (NB + 3, 3 * NB + 5), (2 * NB + 1, 2 * NB - 1), (2 * NB - 1, 2 * NB)),
)


@pytest.fixture(autouse=True)
def two_workers() -> Iterator[None]:
    with tla.engine("threads", workers=2, progress=False):
        yield


def dominant(m: int, n: int, dtype: np.dtype) -> Array:
    """A matrix that needs no pivots."""
    a = random(m, n, dtype)
    a[np.arange(min(m, n)), np.arange(min(m, n))] += 2 * max(m, n)
    return a


def factors(lu: Array) -> tuple[Array, Array]:
    m, n = lu.shape
    k = min(m, n)
    return np.tril(wide(lu)[:, :k], -1) + np.eye(m, k), np.triu(wide(lu)[:k])


def factor_ratio(a: Array, lu: Array, piv: Array) -> float:
    lower, upper = factors(lu)
    error = interchanged(wide(a), piv) - lower @ upper
    return ratio(error, one_norm(wide(a)), min(a.shape), a.dtype)


def scipy_pivots(a: Array) -> Array:
    if not a.size:
        return np.empty(0, np.int32)
    (routine,) = scipy.linalg.get_lapack_funcs(("getrf",), (a,))
    return routine(a)[1]


# -- getrf -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_partial_pivoting_gives_lapacks_pivots(dtype: np.dtype) -> None:
    for m, n in SHAPES:
        a = random(m, n, dtype)
        for stored in storages(a):
            piv = lapack.getrf(stored.matrix)
            assert piv.dtype == np.int32
            assert piv.tolist() == scipy_pivots(a).tolist(), (m, n, stored.name)
            lu = stored.read()
            assert factor_ratio(a, lu, piv) <= TIGHT < FACTOR, (m, n, stored.name)
            size = abs(factors(lu)[0])
            assert size.max(initial=0) <= (1 if dtype.kind != "c" else np.sqrt(2)) + 1e-5


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_pivots_are_lapacks_for_many_matrices(dtype: np.dtype) -> None:
    for seed in range(40):
        m, n, nb = (int(x) for x in np.random.default_rng(seed).integers(1, (60, 60, 20)))
        a = random(m, n, dtype, seed)
        A = own(a, nb)
        assert lapack.getrf(A).tolist() == scipy_pivots(a).tolist(), (m, n, nb)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("pivot", ["tournament", "none"])
def test_other_pivoting(dtype: np.dtype, pivot: str) -> None:
    for m, n in SHAPES:
        a = random(m, n, dtype) if pivot == "tournament" else dominant(m, n, dtype)
        k = min(m, n)
        for stored in storages(a):
            piv = lapack.getrf(stored.matrix, pivot)  # type: ignore[arg-type]
            assert (piv.shape, piv.dtype) == ((k,), np.int32)
            lu = stored.read()
            assert factor_ratio(a, lu, piv) <= TIGHT < FACTOR, (m, n, stored.name)
            if pivot == "none":
                assert piv.tolist() == list(range(k))
            assert (piv >= np.arange(k)).all()
            assert (piv < m).all()


def test_tournament_pivoting_is_partial_pivoting_in_one_tile_row() -> None:
    for dtype in DTYPES:
        a = random(NB, 3 * NB, dtype)
        A, B = own(a), own(a)
        assert lapack.getrf(A, "tournament").tolist() == lapack.getrf(B).tolist()


def test_every_tile_takes_part_in_the_tournament() -> None:
    # of a single column the largest entry wins, wherever it is
    for dtype, tiles in product(DTYPES, range(1, 10)):
        for tile in range(tiles):
            a = random(tiles * NB, 1, dtype)
            a[tile * NB + 2] = 100
            assert lapack.getrf(own(a), "tournament").tolist() == [tile * NB + 2]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_tournament_pivoting_keeps_growth_small(dtype: np.dtype) -> None:
    # In CALU's experiments elements of L stay below 10 and U grows as with partial pivoting.
    for n in (40, 100, 190):
        a = random(n, n, dtype)
        A, B = own(a, 16), own(a, 16)
        piv = lapack.getrf(A, "tournament")
        lapack.getrf(B)
        assert factor_ratio(a, A.to_array(), piv) <= TIGHT
        (lower, upper), (_, partial) = factors(A.to_array()), factors(B.to_array())
        assert abs(lower).max() < 10
        assert abs(upper).max() < 3 * abs(partial).max()
        # without pivots the same matrix is factored worse
        if n == 190:
            C = own(a, 16)
            lapack.getrf(C, "none")
            assert abs(factors(C.to_array())[0]).max() > 10


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_tiles_that_kernels_cut_further(dtype: np.dtype) -> None:
    m, n = 500, 450
    a = random(m, n, dtype)
    for pivot in ("partial", "tournament"):
        A = own(a, 200)
        piv = lapack.getrf(A, pivot)  # type: ignore[arg-type]
        assert factor_ratio(a, A.to_array(), piv) <= TIGHT
        if pivot == "partial":
            assert piv.tolist() == scipy_pivots(a).tolist()
    a = dominant(m, n, dtype)
    A = own(a, 200)
    piv = lapack.getrf(A, "none")
    assert factor_ratio(a, A.to_array(), piv) <= TIGHT


def test_partial_pivoting_goes_on_through_a_zero_pivot() -> None:
    for dtype, n, k in product(DTYPES, (NB, 3 * NB + 5), (0, 5, NB - 1)):
        a = random(n, n, dtype)
        # column k has nothing at and below the diagonal once those to its left are eliminated
        a[:, k] = 0
        for stored in storages(a):
            piv = lapack.getrf(stored.matrix)
            assert piv.tolist() == scipy_pivots(a).tolist()
            lu = stored.read()
            assert lu[k, k] == 0
            assert factor_ratio(a, lu, piv) <= TIGHT
    zeros = np.zeros((11, 11))
    A = own(zeros)
    assert lapack.getrf(A).tolist() == list(range(11))
    assert (A.to_array() == 0).all()


def test_a_zero_pivot_stops_the_others() -> None:
    n = 3 * NB + 5
    for dtype, zero in product(DTYPES, (1, NB, NB + 1, n)):
        # A = L U with u_kk = 0; small integers, so that nothing is rounded
        lower = np.tril(np.random.default_rng(0).integers(-1, 2, (n, n)), -1) + np.eye(n)
        upper = np.eye(n)
        upper[zero - 1, zero - 1] = 0
        a = (lower @ upper).astype(dtype)
        with pytest.raises(SingularMatrixError, match=f"diagonal element {zero} is") as caught:
            lapack.getrf(own(a), "none")
        assert caught.value.pivot == zero
        tile = (zero - 1) // NB
        assert f"getrf_nopiv on tile A({tile}, {tile})" in caught.value.__notes__[0]
    with pytest.raises(np.linalg.LinAlgError, match="exactly zero"):
        lapack.getrf(own(np.zeros((n, n))), "tournament")


# -- getrs, gesv, getri ----------------------------------------------------------------------------


def solution_ratio(a: Array, x: Array, b: Array) -> float:
    error = wide(b) - wide(a) @ wide(x)
    return ratio(error, one_norm(wide(a)) * one_norm(wide(x)), len(a), a.dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_getrs(dtype: np.dtype) -> None:
    for n, columns in product(SIZES, (0, 1, NB + 3)):
        a, b = random(n, n, dtype), random(n, columns, dtype, 1)
        for stored in storages(a):
            piv = lapack.getrf(stored.matrix)
            for trans in "NTC":
                for right in storages(b):
                    assert lapack.getrs(stored.matrix, piv, right.matrix, trans) is right.matrix
                    residual = solution_ratio(op(trans, a), right.read(), b)
                    assert residual <= TIGHT < SOLVE, (n, columns, trans, stored.name, right.name)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_factors_of_any_origin_serve(dtype: np.dtype) -> None:
    n = 3 * NB + 5
    a, b = random(n, n, dtype), random(n, 3, dtype, 1)
    lu, piv = scipy.linalg.lu_factor(a)
    for kind in (np.int32, np.int64, np.uint8):
        x = lapack.getrs(own(lu), piv.astype(kind), own(b)).to_array()
        assert solution_ratio(a, x, b) <= TIGHT
    x = lapack.getrs(own(lu), piv.tolist(), own(b), "T").to_array()
    assert solution_ratio(a.T, x, b) <= TIGHT
    # the last of 256 rows is the largest number of that type
    n = 256
    a, b = random(n, n, dtype), random(n, 1, dtype, 1)
    lu, piv = scipy.linalg.lu_factor(a)
    x = lapack.getrs(own(lu, 100), piv.astype(np.uint8), own(b, 100)).to_array()
    assert solution_ratio(a, x, b) <= TIGHT


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_gesv(dtype: np.dtype) -> None:
    for n, columns in product(SIZES, (0, 1, NB + 3)):
        b = random(n, columns, dtype, 1)
        for pivot in ("partial", "tournament", "none"):
            a = dominant(n, n, dtype) if pivot == "none" else random(n, n, dtype)
            for left, right in zip(storages(a), storages(b), strict=True):
                piv = lapack.gesv(left.matrix, right.matrix, pivot)  # type: ignore[arg-type]
                assert solution_ratio(a, right.read(), b) <= TIGHT < SOLVE, (n, columns, pivot)
                assert factor_ratio(a, left.read(), piv) <= TIGHT
                if pivot == "partial":
                    assert piv.tolist() == scipy_pivots(a).tolist()


@pytest.mark.parametrize("pivot", ["partial", "tournament", "none"])
@pytest.mark.parametrize("zero", [1, NB, NB + 1, 2 * NB + 3])
def test_gesv_refuses_singular_matrices_and_leaves_b(pivot: str, zero: int) -> None:
    n = 2 * NB + 3
    a = np.diag(np.arange(1.0, n + 1))
    a[zero - 1, zero - 1] = 0
    b = random(n, 2, np.dtype("f8"), 1)
    right = own(b)
    with pytest.raises(SingularMatrixError, match=f"element {zero} is exactly zero") as caught:
        lapack.gesv(own(a), right, pivot)  # type: ignore[arg-type]
    assert caught.value.pivot == zero
    np.testing.assert_array_equal(right.to_array(), b)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_getri(dtype: np.dtype) -> None:
    for n in SIZES:
        a = random(n, n, dtype)
        for stored, into in zip(storages(a), storages(np.full_like(a, np.nan)), strict=True):
            piv = lapack.getrf(stored.matrix)
            assert lapack.getri(stored.matrix, into.matrix) is into.matrix
            # the interchanges of the columns, in reverse order
            inverse = interchanged(wide(into.read()).T, piv, forward=False).T
            scale = one_norm(wide(a)) * one_norm(inverse)
            residual = ratio(np.eye(n) - inverse @ wide(a), scale, n, dtype)
            assert residual <= TIGHT < INVERSE, (n, stored.name)


# -- without kernels -------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
def test_the_algorithms_by_the_meaning_of_their_operations(dtype: str) -> None:
    kind, nb = np.dtype(dtype), 4
    for m, n in ((0, 3), (1, 1), (4, 4), (5, 9), (9, 5), (13, 6), (6, 13), (3, 20), (20, 3)):
        k = min(m, n)
        A = Layout(m, n, nb, kind, "A")
        P = Layout(k, 1, nb, np.dtype(np.int32), "P")
        C = A._replace(scratch=True)
        R = Layout(m, 1, nb, np.dtype(np.int64), "R", scratch=True)
        for algorithm, layouts in (
            (getrf.getrf, (A, P)),
            (getrf.getrf_tntpiv, (A, P, C, R)),
            (getrf.getrf_nopiv, (A,)),
        ):
            a = dominant(m, n, kind) if algorithm is getrf.getrf_nopiv else random(m, n, kind)
            lu, p = a.copy(), np.zeros((k, 1), np.int32)
            interpret(program(algorithm, layouts), *(lu, p)[: min(len(layouts), 2)])
            if len(layouts) == 1:
                p[:, 0] = np.arange(k) + 1
            piv = p[:, 0] - 1
            assert factor_ratio(a, lu, piv) <= TIGHT, (algorithm, m, n)
            if algorithm is getrf.getrf:
                assert piv.tolist() == scipy_pivots(a).tolist()
    for n in (1, 4, 5, 11):
        A, P = Layout(n, n, nb, kind, "A"), Layout(n, 1, nb, np.dtype(np.int32), "P")
        B = Layout(n, 3, nb, kind, "B")
        a, b = random(n, n, kind), random(n, 3, kind, 1)
        lu, p, x = a.copy(), np.zeros((n, 1), np.int32), b.copy()
        interpret(program(getrf.getrf, (A, P)), lu, p)
        for trans in "NTC":
            x = b.copy()
            interpret(program(getrs.getrs, (A, P, B), (trans,)), lu, p, x)
            assert solution_ratio(op(trans, a), x, b) <= TIGHT
        inverse = np.full_like(a, np.nan)
        interpret(program(getri.getri, (A, A)), lu, inverse)
        piv = p[:, 0] - 1
        inverse = interchanged(inverse.T, piv, forward=False).T
        np.testing.assert_allclose(inverse @ a, np.eye(n), atol=1e-9)


# -- reproducibility, arguments --------------------------------------------------------------------


def test_the_same_bits_on_any_number_of_workers() -> None:
    n = 8 * NB + 3
    for dtype, pivot in product(DTYPES, ("partial", "tournament", "none")):
        a = dominant(n, n - 5, dtype) if pivot == "none" else random(n, n - 5, dtype)
        results = set()
        for workers, policy in product((1, 2, 3), ("prio", "lws", "eager")):
            with tla.engine("threads", workers=workers, policy=policy, progress=False):
                A = own(a)
                piv = lapack.getrf(A, pivot)  # type: ignore[arg-type]
                results.add((A.to_array().tobytes(), piv.tobytes()))
        assert len(results) == 1


def test_fusion_changes_rounding_only() -> None:
    n, dtype = 8 * NB + 3, np.dtype("float64")
    a = random(n, n, dtype)
    for width, pivot in product((1, 2, 5, 100), ("partial", "tournament")):
        with ThreadsEngine(workers=2, fuse=width, progress=False):
            A = own(a)
            piv = lapack.getrf(A, pivot)  # type: ignore[arg-type]
            assert factor_ratio(a, A.to_array(), piv) <= TIGHT
            if pivot == "partial":
                assert piv.tolist() == scipy_pivots(a).tolist()


def test_what_is_refused() -> None:
    square, oblong = TiledMatrix.zeros((4, 4), 2), TiledMatrix.zeros((4, 3), 2)
    half, b = TiledMatrix.zeros((4, 4), 2, uplo="lower"), TiledMatrix.zeros((4, 1), 2)
    identity = np.arange(4)
    for call, message in (
        (lambda: lapack.getrf(half), "A must store all of its tiles, not its lower triangle"),
        (
            lambda: lapack.getrf(square, "full"),  # type: ignore[arg-type]
            "pivot must be 'partial', 'tournament' or 'none', not 'full'",
        ),
        (lambda: lapack.gesv(square, b, "full"), "pivot must be 'partial'"),  # type: ignore[arg-type]
        (lambda: lapack.gesv(oblong, b), "A must be square, not 4 x 3"),
        (lambda: lapack.gesv(square, square), "must not be . as well"),
        (lambda: lapack.getrs(oblong, identity, b), "A must be square, not 4 x 3"),
        (lambda: lapack.getrs(square, identity[:3], b), r"piv must be \(4,\) integers, not int64"),
        (lambda: lapack.getrs(square, identity + 0.0, b), "piv must be .* not float64"),
        (lambda: lapack.getrs(square, identity[::-1], b), r"i <= piv\[i\] < 4 for every i"),
        (lambda: lapack.getrs(square, identity + 1, b), r"i <= piv\[i\] < 4 for every i"),
        (lambda: lapack.getrs(square, identity, b, "X"), "trans must be one of N, T, C, not 'X'"),
        (lambda: lapack.getrs(square, identity, half), "B must store all of its tiles"),
        (lambda: lapack.getri(square, oblong), r"X must be 4 x 4 \(as A\), not 4 x 3"),
        (lambda: lapack.getri(square, square), "must not be . as well"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    with pytest.raises(TypeError, match="A must be a TiledMatrix, not ndarray"):
        lapack.getrf(np.eye(3))  # type: ignore[arg-type]
