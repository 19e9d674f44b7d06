"""Norms of tiled matrices: general, symmetric, Hermitian, triangular."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

import numpy as np
import pytest
from interpreter import mirrored, triangle
from residuals import DTYPES, NB, SIZES, own, poisoned, random, storages, u, wide

import taskla as tla
from taskla import lapack
from taskla.matrix import TiledMatrix

Norm = Callable[[np.ndarray], float]

REFERENCE: dict[str, Norm] = {
    "M": lambda a: abs(a).max(initial=0.0),
    "1": lambda a: abs(a).sum(axis=0).max(initial=0.0),
    "I": lambda a: abs(a).sum(axis=1).max(initial=0.0),
    "F": lambda a: np.sqrt((abs(a) ** 2).sum()),
}


@pytest.fixture(autouse=True)
def two_workers() -> Iterator[None]:
    with tla.engine("threads", workers=2, progress=False):
        yield


def check(found: Any, norm: str, a: np.ndarray, dtype: np.dtype) -> None:
    assert type(found) is float
    # sums of max(m, n) terms; the square root halves an error
    terms = max(a.shape) if norm in "1I" else a.size if norm == "F" else 1
    assert found == pytest.approx(REFERENCE[norm](a), rel=(terms + 2) * u(dtype), abs=0.0)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_general(dtype: np.dtype) -> None:
    for m, n in (*product(SIZES, (0, 1, NB, 2 * NB + 1)), (3, 5 * NB)):
        a = random(m, n, dtype)
        for stored, norm in product(storages(a), REFERENCE):
            check(lapack.lange(norm, stored.matrix), norm, wide(a), dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_symmetric_and_hermitian(dtype: np.dtype) -> None:
    for n, uplo in product(SIZES, "LU"):
        a = random(n, n, dtype)
        hidden = poisoned(a, uplo)
        for function, hermitian in ((lapack.lansy, False), (lapack.lanhe, True)):
            # what imaginary parts the diagonal of a Hermitian matrix has does not count
            x = mirrored(wide(a), uplo, hermitian)
            for norm in REFERENCE:
                for stored in storages(hidden, uplo=uplo):
                    check(function(norm, stored.matrix), norm, x, dtype)
                for stored in storages(hidden):
                    check(function(norm, stored.matrix, uplo), norm, x, dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_triangular(dtype: np.dtype) -> None:
    for n, uplo, diag in product(SIZES, "LU", "NU"):
        a = random(n, n, dtype)
        x = triangle(wide(a), uplo, diag)
        hidden = poisoned(a, uplo, diag)
        for norm in REFERENCE:
            for stored in storages(hidden, uplo=uplo):
                check(lapack.lantr(norm, stored.matrix, diag=diag), norm, x, dtype)
            for stored in storages(hidden):
                check(lapack.lantr(norm, stored.matrix, uplo, diag), norm, x, dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_nan_anywhere_makes_the_norm_nan(dtype: np.dtype) -> None:
    n = 2 * NB + 3
    for i, j in ((0, 0), (n - 1, 2), (NB, NB - 1), (n - 1, n - 1)):
        a = random(n, n, dtype)
        a[i, j] = np.nan
        A = own(a)
        for norm in REFERENCE:
            assert np.isnan(lapack.lange(norm, A))
            assert np.isnan(lapack.lansy(norm, A, "L"))
            assert np.isnan(lapack.lanhe(norm, A, "L"))
            assert np.isnan(lapack.lantr(norm, A, "L"))
            if i > j:
                assert np.isfinite(lapack.lantr(norm, A, "U"))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_infinity_and_extremes(dtype: np.dtype) -> None:
    n = 2 * NB + 3
    a = random(n, n, dtype)
    a[n - 1, 1] = -np.inf
    for norm in REFERENCE:
        assert lapack.lange(norm, own(a)) == np.inf
    a[0, 0] = np.nan
    for norm in REFERENCE:
        assert np.isnan(lapack.lange(norm, own(a)))
    limits = np.finfo(dtype)
    for size in (float(limits.max) / 1000, float(limits.tiny) * 8):
        # the squares overflow, or underflow; the Frobenius norm does not
        b = np.full((n, n), size, dtype=dtype)
        assert lapack.lange("F", own(b)) == pytest.approx(size * n, rel=n * n * u(dtype))
        assert lapack.lansy("F", own(b)) == pytest.approx(size * n, rel=n * n * u(dtype))
    assert all(lapack.lange(norm, own(np.zeros((n, n), dtype))) == 0.0 for norm in REFERENCE)


def test_an_empty_matrix_has_norm_zero() -> None:
    for shape in ((0, 0), (0, 5), (5, 0)):
        A = TiledMatrix.zeros(shape, 2)
        for norm in REFERENCE:
            assert lapack.lange(norm, A) == 0.0
            if shape == (0, 0):
                assert lapack.lansy(norm, A) == lapack.lanhe(norm, A) == lapack.lantr(norm, A) == 0


def test_norms_have_many_names() -> None:
    A = own(random(11, 11, np.dtype("float64")))
    for letter, names in {
        "M": ("m", "max", "Max"),
        "1": (1, "o", "O", "one"),
        "I": ("i", "inf", np.inf, float("inf")),
        "F": ("f", "E", "e", "fro"),
    }.items():
        for name in names:
            assert lapack.lange(name, A) == lapack.lange(letter, A)
    for name in (2, "nuc", -np.inf, None, ""):
        with pytest.raises(ValueError, match=r"norm must be 'M' \(max\), '1', 'I'"):
            lapack.lange(name, A)


def test_what_is_refused() -> None:
    oblong, half = TiledMatrix.zeros((4, 3), 2), TiledMatrix.zeros((4, 4), 2, uplo="upper")
    for function in (lapack.lansy, lapack.lanhe, lapack.lantr):
        with pytest.raises(ValueError, match="A must be square, not 4 x 3"):
            function("1", oblong)
        with pytest.raises(ValueError, match="stores its upper triangle only"):
            function("1", half, "lower")
    with pytest.raises(ValueError, match="A must store all of its tiles, not its upper triangle"):
        lapack.lange("1", half)
    with pytest.raises(TypeError, match="A must be a TiledMatrix, not ndarray"):
        lapack.lange("1", np.eye(2))  # type: ignore[arg-type]


def test_the_same_bits_on_any_number_of_workers() -> None:
    n = 9 * NB + 3
    for dtype, norm in product(DTYPES, REFERENCE):
        a = random(n, n, dtype)
        found = set()
        for workers, policy in product((1, 2, 3), ("prio", "lws", "eager")):
            with tla.engine("threads", workers=workers, policy=policy, progress=False):
                found.add((lapack.lange(norm, own(a)), lapack.lansy(norm, own(a))))
        assert len(found) == 1
