"""Cholesky factorisation, solution and inversion, triangular inversion, products of triangles."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any

import numpy as np
import pytest
from interpreter import interpret, mirrored, op, triangle
from residuals import (
    DTYPES,
    FACTOR,
    INVERSE,
    NB,
    SIZES,
    SOLVE,
    TIGHT,
    Stored,
    definite,
    one_norm,
    own,
    poisoned,
    random,
    ratio,
    storages,
    triangular,
    wide,
)

import taskla as tla
from taskla import lapack
from taskla.algorithms import lauum, posv, potrf, potri, trtri
from taskla.engines.threads import ThreadsEngine
from taskla.errors import NotPositiveDefiniteError, SingularMatrixError
from taskla.matrix import TiledMatrix
from taskla.programs import Layout, program

NAMES = {"L": "lower", "U": "upper"}


@pytest.fixture(autouse=True)
def two_workers() -> Iterator[None]:
    with tla.engine("threads", workers=2, progress=False):
        yield


def halves(a: np.ndarray, uplo: str, diag: str = "N") -> Iterator[tuple[Stored, Any]]:
    """A triangle in every storage, and the `uplo` to name it by."""
    hidden = poisoned(a, uplo, diag)
    for stored in storages(hidden, uplo=uplo):
        yield stored, None
    # a matrix that stores both, of which one is asked for
    for stored in storages(hidden):
        yield stored, (uplo if stored.name == "F view" else NAMES[uplo])


def check_other_triangle(stored: Stored, result: np.ndarray, uplo: str) -> None:
    """What is not stored was not written either."""
    outside = np.tri(len(result), k=-1, dtype=bool)
    if uplo == "L":
        outside = outside.T
    if stored.array is not None:
        assert np.isnan(result[outside]).all()


def factor(result: np.ndarray, uplo: str) -> np.ndarray:
    """L, whichever triangle was computed."""
    found = triangle(wide(result), uplo)
    return found if uplo == "L" else op("C", found)


# -- potrf, potrs, posv, potri ---------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_potrf(dtype: np.dtype) -> None:
    for n, uplo in product(SIZES, "LU"):
        a = definite(n, dtype)
        for stored, name in halves(a, uplo):
            assert lapack.potrf(stored.matrix, name) is stored.matrix
            found = stored.read()
            lower = factor(found, uplo)
            residual = ratio(wide(a) - lower @ op("C", lower), one_norm(wide(a)), n, dtype)
            assert residual <= TIGHT < FACTOR, (n, uplo, stored.name)
            assert (lower.diagonal().imag == 0).all()
            check_other_triangle(stored, found, uplo)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_potrf_of_tiles_that_kernels_cut_further(dtype: np.dtype) -> None:
    n = 700
    a = definite(n, dtype)
    for uplo in "LU":
        lower = factor(lapack.potrf(own(a, 300, uplo)).to_array(), uplo)
        residual = ratio(wide(a) - lower @ op("C", lower), one_norm(wide(a)), n, dtype)
        assert residual <= TIGHT


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_potrs_and_posv(dtype: np.dtype) -> None:
    for n, uplo, columns in product(SIZES, "LU", (0, 1, NB + 3)):
        a, b = definite(n, dtype), random(n, columns, dtype, 1)
        for stored, name in halves(a, uplo):
            for right in storages(b):
                solve = lapack.posv if right.name == "F view" else lapack.potrs
                # after the first, the matrix holds the factor
                assert solve(stored.matrix, right.matrix, name or uplo) is right.matrix
                x = wide(right.read())
                scale = one_norm(wide(a)) * one_norm(x)
                residual = ratio(wide(b) - wide(a) @ x, scale, n, dtype)
                assert residual <= TIGHT < SOLVE, (n, uplo, columns, stored.name, right.name)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_potri(dtype: np.dtype) -> None:
    for n, uplo in product(SIZES, "LU"):
        a = definite(n, dtype) + n * np.eye(n, dtype=dtype)
        for stored, name in halves(a, uplo):
            lapack.potrf(stored.matrix, name)
            assert lapack.potri(stored.matrix, name) is stored.matrix
            found = stored.read()
            inverse = mirrored(wide(found), uplo, hermitian=True)
            scale = one_norm(wide(a)) * one_norm(inverse)
            residual = ratio(np.eye(n) - wide(a) @ inverse, scale, n, dtype)
            assert residual <= TIGHT < INVERSE, (n, uplo, stored.name)
            check_other_triangle(stored, found, uplo)


@pytest.mark.parametrize("uplo", ["L", "U"])
def test_the_leading_minor_that_is_not_positive_is_named(uplo: str) -> None:
    n = 3 * NB + 5
    for dtype, minor in product(DTYPES, (1, 5, NB, NB + 1, 2 * NB + 4, 3 * NB + 1, n)):
        a = definite(n, dtype)
        # the first pivot that is not positive is this one: of L D L^H, D is changed
        lower = np.linalg.cholesky(wide(a))
        signs = np.ones(n)
        signs[minor - 1 :] = -1
        a = (lower * signs @ op("C", lower)).astype(dtype)
        for stored, name in halves(a, uplo):
            with pytest.raises(NotPositiveDefiniteError) as caught:
                lapack.potrf(stored.matrix, name)
            assert caught.value.minor == minor
            assert str(caught.value).startswith(f"{minor}-th leading minor of the array is not")
            tile = (minor - 1) // NB
            assert f"potrf on tile A({tile}, {tile})" in caught.value.__notes__[0]
            with pytest.raises(np.linalg.LinAlgError, match=f"^{minor}-th leading minor"):
                lapack.posv(own(a), own(random(n, 2, dtype)), uplo)


def test_a_matrix_that_holds_nan_is_not_positive_definite() -> None:
    a = definite(20, np.dtype("float64"))
    a[11, 11] = np.nan
    with pytest.raises(NotPositiveDefiniteError, match=r"^12-th leading minor"):
        lapack.potrf(own(a))


# -- trtri, lauum ----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_trtri(dtype: np.dtype) -> None:
    for n, uplo, diag in product(SIZES, "LU", "NU"):
        a = triangular(n, dtype)
        expected = triangle(wide(a), uplo, diag)
        for stored, name in halves(a, uplo, diag):
            assert lapack.trtri(stored.matrix, name, diag) is stored.matrix
            found = stored.read()
            if diag == "U":
                assert np.isnan(found.diagonal()).all()
            inverse = triangle(wide(found), uplo, diag)
            scale = one_norm(expected) * one_norm(inverse)
            residual = ratio(np.eye(n) - expected @ inverse, scale, n, dtype)
            assert residual <= TIGHT < INVERSE, (n, uplo, diag, stored.name)
            check_other_triangle(stored, found, uplo)


def test_a_zero_on_the_diagonal_has_no_inverse() -> None:
    n = 3 * NB + 5
    for dtype, zero, uplo in product(DTYPES, (1, NB, 2 * NB + 3, n), "LU"):
        a = triangular(n, dtype)
        a[zero - 1, zero - 1] = 0
        for stored, name in halves(a, uplo):
            with pytest.raises(SingularMatrixError) as caught:
                lapack.trtri(stored.matrix, name)
            assert caught.value.pivot == zero
        lapack.trtri(own(a), uplo, diag="U")


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_lauum(dtype: np.dtype) -> None:
    for n, uplo in product(SIZES, "LU"):
        a = random(n, n, dtype)
        np.fill_diagonal(a, abs(a.diagonal()))
        x = triangle(wide(a), uplo)
        expected = op("C", x) @ x if uplo == "L" else x @ op("C", x)
        for stored, name in halves(a, uplo):
            assert lapack.lauum(stored.matrix, name) is stored.matrix
            found = stored.read()
            error = mirrored(wide(found), uplo, hermitian=True) - expected
            assert ratio(error, one_norm(x) ** 2, n, dtype) <= TIGHT, (n, uplo, stored.name)
            check_other_triangle(stored, found, uplo)


# -- without kernels -------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
def test_the_algorithms_by_the_meaning_of_their_operations(dtype: str) -> None:
    kind = np.dtype(dtype)
    for n, uplo in product((0, 1, 3, 4, 5, 11), "LU"):
        square = (Layout(n, n, 4, kind, "A"),)
        a = definite(n, kind)
        x = poisoned(a, uplo)
        interpret(program(potrf.potrf, square, (uplo,)), x)
        lower = factor(x, uplo)
        np.testing.assert_allclose(lower @ op("C", lower), a, atol=1e-12)
        product_of = poisoned(x, uplo)
        interpret(program(lauum.lauum, square, (uplo,)), product_of)
        np.testing.assert_allclose(
            mirrored(product_of, uplo, True), op("C", lower) @ lower, atol=1e-11
        )
        inverse = x.copy()
        interpret(program(trtri.trtri, square, (uplo,)), inverse)
        np.testing.assert_allclose(factor(inverse, uplo) @ lower, np.eye(n), atol=1e-10)
        interpret(program(potri.potri, square, (uplo,)), x)
        np.testing.assert_allclose(mirrored(x, uplo, True) @ a, np.eye(n), atol=1e-9)
        b = random(n, 3, kind, 1)
        y = b.copy()
        interpret(
            program(posv.posv, (*square, Layout(n, 3, 4, kind, "B")), (uplo,)), poisoned(a, uplo), y
        )
        np.testing.assert_allclose(a @ y, b, atol=1e-9)


# -- reproducibility, arguments --------------------------------------------------------------------


def test_the_same_bits_on_any_number_of_workers() -> None:
    n = 9 * NB + 3
    for dtype, uplo in product(DTYPES, "LU"):
        a = definite(n, dtype)
        b = random(n, NB + 1, dtype)
        results = []
        for workers, policy in product((1, 2, 3), ("prio", "lws", "eager")):
            with tla.engine("threads", workers=workers, policy=policy, progress=False):
                A, B = own(a, uplo=uplo), own(b)
                lapack.posv(A, B)
                lapack.potri(A)
                results.append((A.to_array().tobytes(), B.to_array().tobytes()))
        assert len(set(results)) == 1


def test_fusion_changes_rounding_only() -> None:
    n, dtype = 9 * NB + 3, np.dtype("float64")
    a = definite(n, dtype)
    found = []
    for width, uplo in product((1, 2, 5, 100), "LU"):
        with ThreadsEngine(workers=2, fuse=width, progress=False):
            found.append(factor(lapack.potrf(own(a, uplo=uplo)).to_array(), uplo))
    for lower in found:
        assert ratio(lower @ lower.T - a, one_norm(a), n, dtype) <= TIGHT


def test_a_graph_of_moderate_size_is_built_once() -> None:
    A = (Layout(40, 40, 4, np.dtype("float64"), "A"),)
    assert program(potrf.potrf, A, ("L",)) is program(potrf.potrf, A, ("L",))
    assert program(potrf.potrf, A, ("L",)) is not program(potrf.potrf, A, ("U",))
    large = (A[0]._replace(m=120, n=120),)
    assert program(lauum.lauum, large) is not program(lauum.lauum, large)


def test_what_is_refused() -> None:
    square, oblong = TiledMatrix.zeros((4, 4), 2), TiledMatrix.zeros((4, 3), 2)
    half = TiledMatrix.zeros((4, 4), 2, uplo="lower")
    frozen = np.eye(4)
    frozen.flags.writeable = False
    for call, message in (
        (lambda: lapack.potrf(oblong), "A must be square, not 4 x 3"),
        (lambda: lapack.trtri(oblong), "A must be square, not 4 x 3"),
        (lambda: lapack.lauum(oblong), "A must be square, not 4 x 3"),
        (lambda: lapack.potri(oblong), "A must be square, not 4 x 3"),
        (lambda: lapack.potrf(half, "U"), "uplo is 'U', but the matrix stores its lower triangle"),
        (lambda: lapack.potrf(square, "X"), "uplo is 'X'; allowed: None, 'lower', 'upper'"),
        (lambda: lapack.potrf(square, 1), "uplo is 1; allowed: None, 'lower', 'upper'"),
        (lambda: lapack.trtri(square, diag="Z"), "diag must be one of N, U, not 'Z'"),
        (lambda: lapack.potrs(square, half), "B must store all of its tiles, not its lower"),
        (
            lambda: lapack.potrs(square, TiledMatrix.zeros((3, 4), 2)),
            r"B must be 4 x 4 \(rows as A\), not 3 x 4",
        ),
        (
            lambda: lapack.posv(square, TiledMatrix.zeros((4, 1), 3)),
            "B has nb=3 and A nb=2: they must be the same",
        ),
        (
            lambda: lapack.posv(square, TiledMatrix.zeros((4, 1), 2, "float32")),
            "B has data type float32 and A float64",
        ),
        (
            lambda: lapack.potrf(TiledMatrix.from_array(frozen, 2, copy=False)),
            "A is read-only and is worked on in place",
        ),
        (lambda: lapack.posv(square, square), "is worked on in place and must not be . as well"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    with pytest.raises(TypeError, match="A must be a TiledMatrix, not ndarray"):
        lapack.potrf(frozen)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="B must be a TiledMatrix, not list"):
        lapack.potrs(square, [1.0])  # type: ignore[arg-type]
