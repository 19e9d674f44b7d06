"""Level 3 BLAS on tiled matrices: products, rank-k updates, triangular solves."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

import numpy as np
import pytest
from interpreter import interpret, mirrored, op, part, triangle
from residuals import (
    DTYPES,
    NB,
    PRODUCT,
    SIZES,
    SOLVE,
    TIGHT,
    frobenius,
    one_norm,
    own,
    poisoned,
    product_ratio,
    random,
    ratio,
    storages,
    triangular,
    wide,
)

import taskla as tla
from taskla import lapack, level3
from taskla.matrix import TiledMatrix
from taskla.programs import Layout, program

Array = np.ndarray

#: m, n, k: nothing, one tile, remainders, tall, wide, thin
SHAPES = (
    *((0, 5, 5), (5, 0, 5), (5, 5, 0), (1, 1, 1), (NB - 1, NB, NB + 1)),
    *((3 * NB + 5, 2, 2 * NB), (2, 3 * NB + 5, NB), (NB + 3, 2 * NB, 3 * NB + 1)),
)


@pytest.fixture(autouse=True)
def two_workers() -> Iterator[None]:
    with tla.engine("threads", workers=2, progress=False):
        yield


def scalars(dtype: np.dtype) -> tuple[tuple[Any, Any], ...]:
    """Pairs of alpha and beta: general ones, and those that BLAS treats apart."""
    general = (1.5 - 0.5j, -2.0 + 1.0j) if dtype.kind == "c" else (1.5, -2.0)
    return (general, (-1.0, 1.0), (1.0, 0.0), (0.0, 2.0))


def letters(dtype: np.dtype) -> str:
    return "NTC" if dtype.kind == "c" else "NT"


def check_product(
    found: Array,
    x: Array,
    y: Array,
    c: Array,
    alpha: Any,
    beta: Any,
    what: object,
    inside: Any = True,
) -> None:
    """C = alpha X Y + beta C, where `inside` says, to the limit of the testers."""
    reference = alpha * wide(x) @ wide(y)
    if beta:
        reference = reference + beta * wide(c)
    scale = np.sqrt(x.shape[1] + 2) * abs(alpha) * frobenius(x) * frobenius(y)
    scale += 2 * abs(beta) * frobenius(c) if beta else 0.0
    error = np.where(inside, wide(found) - reference, 0)
    assert product_ratio(error, scale, found.dtype) <= PRODUCT, what


# -- gemm, symm, hemm ------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_gemm(dtype: np.dtype) -> None:
    for (m, n, k), ta, tb in product(SHAPES, letters(dtype), letters(dtype)):
        a = random(m, k, dtype) if ta == "N" else random(k, m, dtype)
        b = random(k, n, dtype, 1) if tb == "N" else random(n, k, dtype, 1)
        c = random(m, n, dtype, 2)
        for number, (alpha, beta) in enumerate(scalars(dtype)):
            # beta = 0 does not read C, nor does alpha = 0 read A and B
            old = c if beta else np.full_like(c, np.nan)
            ways = zip(storages(a), storages(b), storages(old), strict=True)
            # the first pair in every storage, the others in memory of their own
            for A, B, C in list(ways)[0 if number == 0 else 2 :]:
                found = lapack.gemm(alpha, A.matrix, B.matrix, beta, C.matrix, transa=ta, transb=tb)
                assert found is C.matrix
                check_product(C.read(), op(ta, a), op(tb, b), c, alpha, beta, (m, n, k, ta, tb))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_gemm_of_matrices_stored_in_different_ways(dtype: np.dtype) -> None:
    m, n, k = NB + 3, 2 * NB, 2 * NB + 1
    c = random(m, n, dtype, 2)
    for ta, tb in product(letters(dtype), repeat=2):
        a = random(m, k, dtype) if ta == "N" else random(k, m, dtype)
        b = random(k, n, dtype, 1) if tb == "N" else random(n, k, dtype, 1)
        for A, B, C in product(storages(a), storages(b), range(3)):
            into = list(storages(c))[C]
            lapack.gemm(1.0, A.matrix, B.matrix, -1.0, into.matrix, transa=ta, transb=tb)
            check_product(into.read(), op(ta, a), op(tb, b), c, 1.0, -1.0, (A.name, B.name, C))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_symm_and_hemm(dtype: np.dtype) -> None:
    shapes = {(m, n) for m, n, _ in SHAPES}
    for (m, n), side, uplo in product(sorted(shapes), "LR", "LU"):
        order = m if side == "L" else n
        a, b, c = random(order, order, dtype), random(m, n, dtype, 1), random(m, n, dtype, 2)
        hidden = poisoned(a, uplo)
        for name, (alpha, beta) in product(("symm", "hemm"), scalars(dtype)):
            call = getattr(lapack, name)
            x = mirrored(a, uplo, hermitian=name == "hemm")
            left, right = (x, b) if side == "L" else (b, x)
            old = c if beta else np.full_like(c, np.nan)
            for A, B, C in zip(
                storages(hidden, uplo=uplo), storages(b), storages(old), strict=True
            ):
                assert call(side, None, alpha, A.matrix, B.matrix, beta, C.matrix) is C.matrix
                check_product(C.read(), left, right, c, alpha, beta, (name, m, n, side, uplo))
            C = next(storages(old))
            call(side, uplo, alpha, own(hidden), own(b), beta, C.matrix)
            check_product(C.read(), left, right, c, alpha, beta, (name, m, n, side, uplo))


# -- syrk, herk ------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_syrk_and_herk(dtype: np.dtype) -> None:
    for n, k, uplo in product(SIZES, (0, 1, NB, 2 * NB + 3), "LU"):
        c = random(n, n, dtype, 2)
        np.fill_diagonal(c, c.diagonal().real)
        for name, same in (("syrk", "T"), ("herk", "C")):
            call = getattr(lapack, name)
            real = dtype if name == "syrk" else np.dtype("float64")
            for trans, (alpha, beta) in product("N" + same, scalars(real)):
                a = random(n, k, dtype) if trans == "N" else random(k, n, dtype)
                x = op(trans, a)
                inside = part(uplo, c.shape)
                old = np.where(inside, c if beta else np.nan, np.nan).astype(dtype)
                for A, C in zip(storages(a), storages(old, uplo=uplo), strict=True):
                    assert call(None, trans, alpha, A.matrix, beta, C.matrix) is C.matrix
                    found = C.read()
                    what = (name, n, k, uplo, trans)
                    check_product(found, x, op(same, x), c, alpha, beta, what, inside)
                    if C.array is not None:
                        assert np.isnan(found[~inside]).all()
                C = next(storages(old))
                call(uplo, trans, alpha, own(a), beta, C.matrix)
                assert (np.isnan(C.read()) == ~inside).all()


# -- trsm, trmm ------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("side", ["L", "R"])
def test_trsm_and_trmm(dtype: np.dtype, side: str) -> None:
    alphas = [alpha for alpha, _ in scalars(dtype)]
    shapes = sorted({(m, n) for m, n, _ in SHAPES})
    for (m, n), uplo, trans, diag in product(shapes, "LU", letters(dtype), "NU"):
        order = m if side == "L" else n
        a, b = triangular(order, dtype), random(m, n, dtype, 1)
        x = op(trans, triangle(wide(a), uplo, diag))
        hidden = poisoned(a, uplo, diag)
        what = (m, n, side, uplo, trans, diag)
        for number, alpha in enumerate(alphas):
            ways = list(zip(storages(hidden, uplo=uplo), storages(b), strict=True))
            for A, B in ways[0 if number == 0 else 2 :]:
                result = lapack.trsm(side, None, trans, diag, alpha, A.matrix, B.matrix)
                assert result is B.matrix
                check_solution(B.read(), x, b, alpha, side, what)
            for A, B in zip(storages(hidden), storages(b), strict=True):
                if number == 0:
                    lapack.trsm(side, uplo, trans, diag, alpha, A.matrix, B.matrix)
                    check_solution(B.read(), x, b, alpha, side, what)
            for A, B in list(zip(storages(hidden, uplo=uplo), storages(b), strict=True))[
                0 if number == 0 else 2 :
            ]:
                assert lapack.trmm(side, None, trans, diag, alpha, A.matrix, B.matrix) is B.matrix
                left, right = (x, b) if side == "L" else (b, x)
                check_product(B.read(), left, right, b, alpha, 0.0, what)


def check_solution(found: Array, x: Array, b: Array, alpha: Any, side: str, what: object) -> None:
    got = wide(found)
    error = alpha * wide(b) - (x @ got if side == "L" else got @ x)
    scale = one_norm(x) * one_norm(got)
    assert ratio(error, scale, len(x), found.dtype) <= TIGHT < SOLVE, what


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_zero_alpha_reads_no_factor(dtype: np.dtype) -> None:
    n = 2 * NB + 3
    broken = np.full((n, n), np.inf, dtype=dtype)
    b = np.full((n, n), np.nan, dtype=dtype)
    for call, side, trans in product((lapack.trsm, lapack.trmm), "LR", letters(dtype)):
        B = call(side, "L", trans, "N", 0.0, own(broken), own(b))
        assert (B.to_array() == 0).all()
    for beta, expected in ((0.0, 0.0), (2.0, 6.0)):
        C = own(np.full((n, n), 3.0 if beta else np.nan, dtype=dtype))
        lapack.gemm(0.0, own(broken), own(broken), beta, C)
        assert (C.to_array() == expected).all()


# -- without kernels -------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
def test_the_algorithms_by_the_meaning_of_their_operations(dtype: str) -> None:
    kind = np.dtype(dtype)
    (alpha, beta), nb = scalars(kind)[0], 3
    for m, n, k in ((0, 4, 4), (4, 4, 0), (1, 1, 1), (7, 5, 4), (5, 7, 8)):

        def layout(array: Array) -> Layout:
            return Layout(*array.shape, nb, array.dtype, "A")

        def check(
            algorithm: Callable[..., None],
            arrays: list[Array],
            params: tuple[Any, ...],
            expected: Array,
        ) -> None:
            result = [array.copy() for array in arrays]
            interpret(program(algorithm, tuple(map(layout, arrays)), params), *result)
            np.testing.assert_allclose(result[-1], expected, atol=1e-10, equal_nan=True)

        b, c = random(m, n, kind, 1), random(m, n, kind, 2)
        for ta, tb in product("NTC", repeat=2):
            x, y = op(ta, random(m, k, kind)).copy(), op(tb, random(k, n, kind)).copy()
            expected = alpha * op(ta, x) @ op(tb, y) + beta * c
            # op is its own inverse
            check(level3._gemm_program, [x, y, c], (ta, tb, alpha, beta), expected)
        for side, uplo in product("LR", "LU"):
            order = m if side == "L" else n
            a = random(order, order, kind)
            for name in ("symm", "hemm"):
                x = mirrored(a, uplo, name == "hemm")
                expected = alpha * (x @ b if side == "L" else b @ x) + beta * c
                algorithm = getattr(level3._symm, name)
                check(algorithm, [poisoned(a, uplo), b, c], (side, uplo, alpha, beta), expected)
            a = triangular(order, kind)
            for trans, diag in product("NTC", "NU"):
                x = op(trans, triangle(a, uplo, diag))
                hidden = poisoned(a, uplo, diag)
                params = (side, uplo, trans, diag, alpha)
                expected = alpha * (x @ b if side == "L" else b @ x)
                check(level3._trmm_program, [hidden, b], params, expected)
                x = np.linalg.inv(x)
                expected = alpha * (x @ b if side == "L" else b @ x)
                check(level3._trsm_program, [hidden, b], params, expected)
        for name, same, uplo in (("syrk", "T", "L"), ("syrk", "T", "U"), ("herk", "C", "U")):
            s, t = (alpha, beta) if name == "syrk" else (1.5, -2.0)
            for trans in "N" + same:
                x = op(trans, random(m, k, kind)).copy()
                square = random(m, m, kind)
                inside = part(uplo, square.shape)
                expected = s * op(trans, x) @ op(same, op(trans, x)) + t * square
                check(
                    getattr(level3, f"_{name}_program"),
                    [x, np.where(inside, square, np.nan)],
                    (uplo, trans, s, t),
                    np.where(inside, expected, np.nan),
                )


# -- reproducibility, arguments --------------------------------------------------------------------


def test_the_same_bits_on_any_number_of_workers() -> None:
    n = 6 * NB + 3
    for dtype in DTYPES:
        a, b, c = (random(n, n, dtype, seed) for seed in range(3))
        tri = triangular(n, dtype)
        found = set()
        for workers, policy in product((1, 2, 3), ("prio", "lws", "eager")):
            with tla.engine("threads", workers=workers, policy=policy, progress=False):
                A, B, C, X = own(a), own(b), own(c), own(tri)
                lapack.gemm(1.5, A, B, -1.0, C, transb="T")
                lapack.symm("R", "U", 1.0, A, C, 2.0, B)
                lapack.herk("L", "N", 0.5, A, 1.0, C)
                lapack.trmm("L", "U", "C", "N", 1.0, X, B)
                lapack.trsm("R", "L", "T", "U", 1.0, X, B)
                found.add((B.to_array().tobytes(), C.to_array().tobytes()))
        assert len(found) == 1


def test_scalars_of_any_type() -> None:
    a, b = random(9, 9, np.dtype("float64")), random(9, 9, np.dtype("float64"), 1)
    for two in (2, 2.0, np.float32(2), np.int64(2), 2 + 0j, np.complex64(2), np.array(2)):
        C = TiledMatrix.zeros((9, 9), 4)
        lapack.gemm(two, own(a, 4), own(b, 4), two, C)
        np.testing.assert_allclose(C.to_array(), 2 * a @ b, atol=1e-12)
        lapack.herk("L", "N", two, own(a, 4), two, C)


def test_what_is_refused() -> None:
    square, oblong = TiledMatrix.zeros((4, 4), 2), TiledMatrix.zeros((4, 3), 2)
    other, half = TiledMatrix.zeros((4, 4), 2), TiledMatrix.zeros((4, 4), 2, uplo="lower")
    z = [TiledMatrix.zeros((4, 4), 2, "complex128") for _ in range(3)]
    gemm, trsm, symm, syrk, herk = (
        *(lapack.gemm, lapack.trsm, lapack.symm, lapack.syrk, lapack.herk),
    )
    for call, message in (
        (lambda: gemm(1, oblong, square, 0, other), r"B must be 3 x 4 \(as op\(A\) op\(B\) asks\)"),
        (lambda: gemm(1, square, oblong, 0, other), r"C must be 4 x 3 \(rows as op\(A\), columns"),
        (lambda: gemm(1, square, half, 0, other), "B must store all of its tiles"),
        (lambda: gemm(1, square, other, 0, square), "is worked on in place and must not be A as"),
        (lambda: gemm(1j, square, other, 0, half.copy()), "C must store all"),
        (lambda: gemm(1j, square, other, 0, TiledMatrix.zeros((4, 4), 2)), "a complex scalar, 1j"),
        (lambda: gemm(1, square, other, 0, z[0]), "C has data type complex128 and A float64"),
        (lambda: gemm(1, square, other, 0, z[0], transa="H"), "transa must be one of N, T, C"),
        (lambda: symm("L", None, 1, oblong, square, 0, other), "A must be square, not 4 x 3"),
        (lambda: symm("X", None, 1, square, square, 0, other), "side must be one of L, R, not 'X'"),
        (lambda: symm("L", "U", 1, half, square, 0, other), "stores its lower triangle only"),
        (
            lambda: symm("R", None, 1, square, oblong, 0, oblong),
            r"B must be 4 x 4 \(as A and C ask\), not 4 x 3",
        ),
        (lambda: trsm("R", None, "N", "N", 1, square, oblong), r"B must be 4 x 4 \(as A asks\)"),
        (lambda: trsm("L", None, "N", "N", 1, oblong, square), "A must be square"),
        (lambda: trsm("L", None, "N", "N", 1, square, half), "B must store all"),
        (lambda: trsm("L", None, "N", "N", 1, square, square), "must not be . as well"),
        (lambda: syrk("L", "N", 1, oblong, 0, TiledMatrix.zeros((3, 3), 2)), "A must be 3 x 3"),
        (lambda: syrk("L", "C", 1, z[0], 0, z[1]), "trans must be one of N, T, not 'C'"),
        (lambda: herk("L", "T", 1, z[0], 0, z[1]), "trans must be one of N, C, not 'T'"),
        (lambda: herk("L", "N", 1j, z[0], 0, z[1]), "alpha must be real for herk, not 1j"),
        (lambda: herk("L", "N", 1, z[0], np.complex64(1j), z[1]), "beta must be real for herk"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
