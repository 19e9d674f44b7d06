"""The functions of `taskla.linalg` on tiled matrices, against SciPy's on arrays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.linalg

import taskla as tla
from taskla import TiledMatrix, linalg

NB = 4
SIZES = (0, 1, NB - 1, NB, NB + 1, 3 * NB + 2)
DTYPES = ("float32", "float64", "complex64", "complex128")
N = SIZES[-1]

over_sizes = pytest.mark.parametrize("n", SIZES)
over_types = pytest.mark.parametrize("dtype", DTYPES)
over_triangles = pytest.mark.parametrize("uplo", [None, "lower", "upper"])
over_orders = pytest.mark.parametrize("order", ["F", "C"])


def random(shape: tuple[int, ...], dtype: str = "float64", seed: int = 0) -> Any:
    rng = np.random.default_rng([seed, *shape])
    a = rng.normal(size=shape)
    if np.dtype(dtype).kind == "c":
        a = a + 1j * rng.normal(size=shape)
    return a.astype(dtype)


def spd(n: int, dtype: str = "float64") -> Any:
    a = random((n, n), dtype)
    return (a @ a.conj().T + n * np.eye(n)).astype(dtype)


def well(n: int, dtype: str = "float64") -> Any:
    """A general matrix of which either triangle is well conditioned, too."""
    return (random((n, n), dtype) / max(n, 1) + 2 * np.eye(n)).astype(dtype)[::-1].copy()[::-1]


def pivoting(n: int, dtype: str = "float64") -> Any:
    """A well-conditioned matrix whose LU interchanges rows."""
    return np.roll(well(n, dtype), 1, axis=0)


def tiles(a: Any, uplo: str | None = None, order: Any = "F") -> TiledMatrix:
    if uplo:
        stored = np.tri(len(a), dtype=bool)
        # what is not stored must not matter
        a = np.where(stored if uplo == "lower" else stored.T, a, a.dtype.type(np.nan))
        return TiledMatrix.from_array(a, NB, uplo)
    return TiledMatrix.from_array(np.array(a, order=order), NB)


def same(ours: Any, theirs: Any, tolerance: float = 200.0) -> None:
    """Equal in type and shape, and in value up to `tolerance` units of rounding of the largest."""
    x, y = np.asarray(ours), np.asarray(theirs)
    assert x.dtype == y.dtype
    assert x.shape == y.shape
    if y.size:
        eps = np.finfo(y.dtype).eps
        assert np.abs(x - y).max() <= tolerance * eps * max(1.0, np.abs(y).max())


def half(a: Any, lower: bool) -> Any:
    return np.tril(a) if lower else np.triu(a)


def right_sides(n: int, dtype: str) -> list[Any]:
    """A vector, several columns, more than a tile of them, none."""
    b = random((n, NB + 2), dtype, seed=1)
    return [b[:, 0].copy(), b[:, :2].copy(), b, b[:, :0]]


def check_right_sides(
    solve: Callable[[Any], Any], expected: Callable[[Any], Any], n: int, dtype: str
) -> None:
    """The result is an array for an array, tiled for a tiled matrix; b is as it was."""
    for b in right_sides(n, dtype):
        before = b.copy()
        x = solve(b)
        assert type(x) is np.ndarray
        same(x, expected(b))
        np.testing.assert_array_equal(b, before)
        if b.ndim == 2:
            B = tiles(b)
            X = solve(B)
            assert isinstance(X, TiledMatrix)
            same(X, expected(b))
            np.testing.assert_array_equal(B, before)


# -- Cholesky --------------------------------------------------------------------------------------


@over_sizes
@over_types
@pytest.mark.parametrize(
    ("uplo", "lower"),
    [(None, False), (None, True), ("lower", False), ("lower", True), ("upper", False)],
)
def test_cholesky(n: int, dtype: str, uplo: str | None, lower: bool) -> None:
    a = spd(n, dtype)
    A = tiles(a, uplo)
    before = A.to_array()
    stored = lower if uplo is None else uplo == "lower"
    L = linalg.cholesky(A, lower)
    assert isinstance(L, TiledMatrix)
    assert L.uplo == uplo
    same(L, scipy.linalg.cholesky(a, stored))
    c, flag = linalg.cho_factor(A, lower)
    assert flag is stored
    same(half(np.asarray(c), stored), half(scipy.linalg.cho_factor(a, stored)[0], stored))
    np.testing.assert_array_equal(A, before)
    check_right_sides(
        lambda b: linalg.cho_solve((c, flag), b),
        lambda b: scipy.linalg.cho_solve(scipy.linalg.cho_factor(a), b),
        n,
        dtype,
    )


@over_orders
def test_cholesky_of_the_other_order_and_in_place(order: Any) -> None:
    a = spd(N)
    A = tiles(a, order=order)
    assert linalg.cholesky(A, overwrite_a=True) is A
    same(A, scipy.linalg.cholesky(a))
    B = tiles(random((N, 3)), order=order)
    expected = scipy.linalg.cho_solve((np.asarray(A), False), np.array(B))
    assert linalg.cho_solve((A, False), B, overwrite_b=True) is B
    same(B, expected)
    b = random((N,))
    x = linalg.cho_solve((A, False), b, overwrite_b=True)
    assert np.shares_memory(x, b)


def test_a_factor_given_as_an_array_and_a_tiled_right_side() -> None:
    a, b = spd(N), random((N, 3))
    c = scipy.linalg.cho_factor(a)
    X = linalg.cho_solve(c, tiles(b))
    assert isinstance(X, TiledMatrix)
    same(X, scipy.linalg.cho_solve(c, b))


def test_not_positive_definite() -> None:
    a = spd(N)
    a[9, 9] = -1e3
    with pytest.raises(scipy.linalg.LinAlgError, match=r"^10-th leading minor"):
        linalg.cholesky(tiles(a))
    with pytest.raises(scipy.linalg.LinAlgError, match="singular"):
        linalg.solve(tiles(a), np.ones(N), assume_a="pos")


# -- LU --------------------------------------------------------------------------------------------


@over_types
@pytest.mark.parametrize(
    "shape", [*((n, n) for n in SIZES), (N, 6), (6, N), (N, 8), (8, N), (1, N), (N, 1)]
)
def test_lu(shape: tuple[int, int], dtype: str) -> None:
    a = random(shape, dtype)
    A = tiles(a)
    factors, piv = linalg.lu_factor(A)
    assert isinstance(factors, TiledMatrix)
    if a.size:
        expected, expected_piv = scipy.linalg.lu_factor(a)
        same(factors, expected)
        np.testing.assert_array_equal(piv, expected_piv)
    for options in ({}, {"permute_l": True}, {"p_indices": True}):
        ours, theirs = linalg.lu(A, **options), scipy.linalg.lu(a, **options)
        assert len(ours) == len(theirs)
        for x, y in zip(ours, theirs, strict=True):
            if np.asarray(y).dtype.kind == "i":
                np.testing.assert_array_equal(x, y)
            else:
                assert isinstance(x, TiledMatrix)
                # SciPy's P of one row is complex, that of several real
                same(x, y.real if x is ours[0] and len(ours) == 3 else y)
    np.testing.assert_array_equal(A, a)


@over_sizes
@over_types
@pytest.mark.parametrize("trans", [0, 1, 2])
def test_lu_solve(n: int, dtype: str, trans: int) -> None:
    a = pivoting(n, dtype)
    factors = linalg.lu_factor(tiles(a))
    check_right_sides(
        lambda b: linalg.lu_solve(factors, b, trans),
        lambda b: scipy.linalg.lu_solve(scipy.linalg.lu_factor(a), b, trans),
        n,
        dtype,
    )


def test_a_singular_matrix() -> None:
    a = random((N, N))
    a[:, 5] = 0
    A = tiles(a)
    with pytest.warns(scipy.linalg.LinAlgWarning, match="Diagonal number 6 is exactly zero"):
        linalg.lu_factor(A)
    for refused in (
        lambda A: linalg.solve(A, np.ones(N)),
        linalg.inv,
        lambda A: linalg.solve(A, np.ones(N), assume_a="upper triangular"),
        lambda A: linalg.inv(A, assume_a="lower triangular"),
    ):
        with pytest.raises(scipy.linalg.LinAlgError, match="singular"):
            refused(A)
    assert linalg.det(A) == 0
    assert linalg.slogdet(A) == (0, -np.inf)


@over_sizes
@over_types
def test_determinants(n: int, dtype: str) -> None:
    a = pivoting(n, dtype)
    A = tiles(a)
    value, expected = linalg.det(A), scipy.linalg.det(a)
    assert type(value) is type(expected)
    rounding = 200 * np.finfo(dtype).eps
    assert abs(value - expected) <= rounding * abs(expected)
    ours, theirs = linalg.slogdet(A), np.linalg.slogdet(a)
    for x, y in zip(ours, theirs, strict=True):
        assert x.dtype == y.dtype
        assert abs(x - y) <= rounding * max(1, abs(y))
    np.testing.assert_array_equal(A, a)


# -- equations -------------------------------------------------------------------------------------


@over_sizes
@over_types
def test_solve(n: int, dtype: str) -> None:
    real = np.dtype(dtype).kind != "c"
    for a, options, uplos in (
        (pivoting(n, dtype), {}, [None]),
        (pivoting(n, dtype), {"assume_a": "gen"}, [None]),
        *([(pivoting(n, dtype), {"transposed": True}, [None])] if real else []),
        (spd(n, dtype), {"assume_a": "pos"}, [None, "lower", "upper"]),
        (spd(n, dtype), {"assume_a": "positive definite", "lower": True}, [None, "lower"]),
        (well(n, dtype), {"assume_a": "lower triangular"}, [None, "lower"]),
        (well(n, dtype), {"assume_a": "upper triangular"}, [None, "upper"]),
    ):
        for uplo in uplos:
            A = tiles(a, uplo)
            before = A.to_array()

            def expected(b: Any, a: Any = a, options: Any = options) -> Any:
                if not b.size:
                    return np.empty_like(b)
                return scipy.linalg.solve(a, b, **options)

            def ours(b: Any, A: Any = A, options: Any = options) -> Any:
                return linalg.solve(A, b, **options)

            check_right_sides(ours, expected, n, dtype)
            np.testing.assert_array_equal(A, before)


@over_types
@over_triangles
@pytest.mark.parametrize("trans", [0, "T", 2])
@pytest.mark.parametrize("unit", [False, True])
def test_solve_triangular(dtype: str, uplo: str | None, trans: int | str, unit: bool) -> None:
    for n in SIZES:
        a = well(n, dtype)
        for lower in (False, True) if uplo is None else (uplo == "lower",):
            A = tiles(a, uplo)
            check_right_sides(
                lambda b, A=A, lower=lower: linalg.solve_triangular(A, b, trans, lower, unit),
                lambda b, a=a, lower=lower: scipy.linalg.solve_triangular(a, b, trans, lower, unit),
                n,
                dtype,
            )


def test_the_stored_triangle_is_used_by_default() -> None:
    a, b = well(N), random((N,))
    x = linalg.solve_triangular(tiles(a, "lower"), b)
    same(x, scipy.linalg.solve_triangular(a, b, lower=True))


def test_a_zero_on_the_diagonal_of_a_triangle() -> None:
    a = well(N)
    a[7, 7] = 0
    with pytest.raises(scipy.linalg.LinAlgError, match="resolution failed at diagonal 7"):
        linalg.solve_triangular(tiles(a), np.ones(N))
    same(
        linalg.solve_triangular(tiles(a), np.ones(N), unit_diagonal=True),
        scipy.linalg.solve_triangular(a, np.ones(N), unit_diagonal=True),
    )


def test_solve_in_place() -> None:
    a, b = pivoting(N), random((N, 3))
    A, B = tiles(a), tiles(b)
    assert linalg.solve(A, B, overwrite_a=True, overwrite_b=True) is B
    same(B, scipy.linalg.solve(a, b))
    same(A, scipy.linalg.lu_factor(a)[0])


def test_an_array_as_the_matrix_of_a_tiled_right_side() -> None:
    a, b = pivoting(N), random((N, 3))
    before = a.copy()
    same(linalg.solve(a, tiles(b)), scipy.linalg.solve(a, b))
    same(linalg.solve_triangular(a, tiles(b)), scipy.linalg.solve_triangular(a, b))
    same(linalg.lu_solve(scipy.linalg.lu_factor(a), tiles(b)), scipy.linalg.solve(a, b))
    np.testing.assert_array_equal(a, before)


def test_what_leaves_no_digit_is_warned_of() -> None:
    a = np.vander(np.arange(1.0, N + 1))
    for solve in (lambda A: linalg.solve(A, np.ones(N)), linalg.inv):
        with pytest.warns(scipy.linalg.LinAlgWarning, match="ill-conditioned") as caught:
            solve(tiles(a))
        assert caught[0].filename == __file__


@over_sizes
@over_types
def test_inv(n: int, dtype: str) -> None:
    for a, options, uplos in (
        (pivoting(n, dtype), {}, [None]),
        (spd(n, dtype), {"assume_a": "pos"}, [None, "upper", "lower"]),
        (spd(n, dtype), {"assume_a": "pos", "lower": True}, [None, "lower"]),
        (well(n, dtype), {"assume_a": "lower triangular"}, [None, "lower"]),
        (well(n, dtype), {"assume_a": "upper triangular"}, [None, "upper"]),
    ):
        for uplo in uplos:
            A = tiles(a, uplo)
            before = A.to_array()
            X = linalg.inv(A, **options)
            assert isinstance(X, TiledMatrix)
            assert X.uplo == uplo
            expected = scipy.linalg.inv(a, **options) if n else a
            positive = options.get("assume_a") == "pos"
            same(X.to_array(fill="hermitian" if uplo and positive else None), expected)
            np.testing.assert_array_equal(A, before)


def test_inv_in_place() -> None:
    a = spd(N)
    A = tiles(a)
    assert linalg.inv(A, assume_a="pos", overwrite_a=True) is A
    same(A, scipy.linalg.inv(a))


# -- products and norms ----------------------------------------------------------------------------


@over_types
@pytest.mark.parametrize("sizes", [(N, 6, 5), (3, N, 1), (5, 0, 2), (0, 3, 2), (4, 8, 4)])
def test_matmul(dtype: str, sizes: tuple[int, int, int]) -> None:
    m, k, n = sizes
    a, b = random((m, k), dtype), random((k, n), dtype, seed=1)
    A, B = tiles(a), tiles(b)
    C = linalg.matmul(A, B)
    assert isinstance(C, TiledMatrix)
    same(C, a @ b)
    for mixed in (linalg.matmul(A, b), linalg.matmul(a, B)):
        assert type(mixed) is np.ndarray
        same(mixed, a @ b)
    if n:
        same(linalg.matmul(A, b[:, 0]), a @ b[:, 0])
    if m:
        same(linalg.matmul(a[0], B), a[0] @ b)
    out = tiles(np.full((m, n), np.nan, dtype))
    assert linalg.matmul(A, B, out=out) is out
    same(out, a @ b)
    array = np.full((m, n), np.nan, dtype)
    assert linalg.matmul(A, b, out=array) is array
    same(array, a @ b)


@over_types
@over_triangles
@pytest.mark.parametrize("side", ["left", "right"])
def test_symm(dtype: str, uplo: str | None, side: Any) -> None:
    for lower in (False, True) if uplo is None else (True,):
        used = lower if uplo is None else uplo == "lower"
        a, b, c = random((N, N), dtype), random((N, N), dtype, 1), random((N, N), dtype, 2)
        full = half(a, used) + half(a, used).T - np.diag(a.diagonal())
        product = full @ b if side == "left" else b @ full
        A, B = tiles(a, uplo), tiles(b)
        same(linalg.symm(A, B, side=side, lower=lower), product)
        options = {"alpha": 2.0, "beta": -0.5, "side": side, "lower": lower}
        for right, add in ((B, c), (B, tiles(c)), (b, tiles(c)), (b, c)):
            result = linalg.symm(A, right, add, **options)
            assert type(result) is type(right)
            same(result, (2 * product - 0.5 * c).astype(dtype))
        C = tiles(c)
        assert linalg.symm(A, B, C, overwrite_c=True, **options) is C
        same(C, (2 * product - 0.5 * c).astype(dtype))
    x = linalg.symm(tiles(spd(N)), np.ones(N))
    same(x, spd(N) @ np.ones(N))


@over_sizes
@over_types
@pytest.mark.parametrize("ord", [None, "fro", 1, np.inf])
def test_norm(n: int, dtype: str, ord: Any) -> None:
    for shape in ((n, n), (n, 5), (5, n)):
        a = random(shape, dtype)
        ours = linalg.norm(tiles(a), ord)
        theirs = scipy.linalg.norm(a, ord) if a.size else 0
        assert abs(ours - theirs) <= 50 * np.finfo(dtype).eps * max(theirs, 1)
        assert type(ours) is float


# -- arguments -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("left", "right", "common"),
    [
        ("float32", "float64", "float64"),
        ("float64", "float32", "float64"),
        ("float64", "complex64", "complex128"),
        ("complex64", "float32", "complex64"),
        ("float32", "int64", "float64"),
        ("float32", "float16", "float32"),
        ("float32", "bool", "float32"),
    ],
)
def test_types_are_those_that_both_fit(left: str, right: str, common: str) -> None:
    a = spd(N, left)
    b = np.arange(2.0 * N).reshape(N, 2).astype(right)
    A = tiles(a)
    c = linalg.cho_factor(A)
    for x in (
        linalg.solve(A, b),
        linalg.solve(A, b, assume_a="pos"),
        linalg.solve_triangular(A, b),
        linalg.cho_solve(c, b),
        linalg.lu_solve(linalg.lu_factor(A), b),
        linalg.matmul(A, b),
        linalg.symm(A, b),
    ):
        assert x.dtype == common
    same(linalg.solve(A, b).astype(common), scipy.linalg.solve(a, b).astype(common), 1000)
    if right in DTYPES:
        X = linalg.solve(A, tiles(b))
        assert isinstance(X, TiledMatrix)
        assert X.dtype == common


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@over_triangles
def test_what_is_not_finite(bad: float, uplo: str | None) -> None:
    a, b = spd(N), random((N, 3))
    b[-1, -1] = bad
    A, B = tiles(a, uplo), tiles(b)
    pos = {"assume_a": "pos"}
    for refused in (
        lambda: linalg.solve(A, B, **pos),
        lambda: linalg.solve(A, b, **pos),
        lambda: linalg.cho_solve(linalg.cho_factor(A), B),
        lambda: linalg.solve_triangular(A, b),
    ):
        with pytest.raises(ValueError, match="must not contain infs or NaNs"):
            refused()
    a[8, 8] = bad
    A = tiles(a, uplo)
    functions = [linalg.cholesky, linalg.cho_factor, lambda A: linalg.inv(A, **pos)]
    if uplo is None:
        functions += [linalg.lu, linalg.lu_factor, linalg.det, linalg.norm, linalg.inv]
    for function in functions:
        with pytest.raises(ValueError, match="must not contain infs or NaNs"):
            function(A)
    with pytest.raises(scipy.linalg.LinAlgError):
        linalg.cholesky(tiles(np.full((N, N), np.nan)), check_finite=False)
    if uplo is None:
        assert not np.isfinite(linalg.norm(A, check_finite=False))


def test_the_triangle_that_is_not_used_is_not_looked_at() -> None:
    a = spd(N)
    mixed = np.where(np.tri(N, dtype=bool), a, np.nan)
    same(linalg.cholesky(tiles(mixed), lower=True), scipy.linalg.cholesky(a, lower=True))
    x = linalg.solve(tiles(mixed), np.ones(N), assume_a="pos", lower=True)
    same(x, scipy.linalg.solve(a, np.ones(N)))
    with pytest.raises(ValueError, match="infs or NaNs"):
        linalg.cholesky(tiles(mixed))


LOWER, UPPER, FULL = tiles(spd(N), "lower"), tiles(spd(N), "upper"), tiles(spd(N))
WIDE = tiles(random((4, N)))
COARSE = TiledMatrix.from_array(spd(N), NB + 1)
B1 = np.ones(N)
ERRORS: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (lambda: linalg.cholesky(UPPER, lower=True), ValueError, "^lower is True and a stores its upp"),
    (lambda: linalg.cho_solve((LOWER, False), B1), ValueError, "^lower is False and c stores its"),
    (lambda: linalg.cho_solve((UPPER, True), B1), ValueError, "^lower is True and c stores its"),
    (lambda: linalg.solve_triangular(UPPER, B1, lower=True), ValueError, "^lower is True and a"),
    (lambda: linalg.symm(LOWER, FULL, lower=False), ValueError, "^lower is False and a stores"),
    (lambda: linalg.solve(LOWER, B1), ValueError, "^assume_a is None and a .* 'pos', 'lower tri"),
    (lambda: linalg.solve(LOWER, B1, assume_a="gen"), ValueError, "^assume_a is 'gen' and a stor"),
    (lambda: linalg.solve(LOWER, B1, assume_a="upper triangular"), ValueError, "stores its lower"),
    (lambda: linalg.solve(FULL, B1, assume_a="sym"), ValueError, "^assume_a is 'sym'; .* 'pos'"),
    (lambda: linalg.inv(UPPER), ValueError, "^assume_a is None and a stores its upper triangle"),
    (lambda: linalg.inv(FULL, assume_a="diagonal"), ValueError, "^assume_a is 'diagonal'"),
    (lambda: linalg.lu_factor(LOWER), ValueError, "^a must store all of its tiles"),
    (lambda: linalg.det(LOWER), ValueError, "^a must store all of its tiles"),
    (lambda: linalg.norm(LOWER), ValueError, r"^a stores its lower .*taskla\.lapack\.lansy"),
    (lambda: linalg.norm(FULL, 2), ValueError, "^ord is 2; of a TiledMatrix allowed"),
    (lambda: linalg.norm(FULL, axis=0), TypeError, "^norm of a TiledMatrix takes no axis"),
    (lambda: linalg.matmul(LOWER, FULL), ValueError, r"^x1 stores .*taskla\.linalg\.symm"),
    (lambda: linalg.matmul(FULL, FULL, dtype="f4"), TypeError, "takes no dtype"),
    (lambda: linalg.matmul(FULL, WIDE), ValueError, "^x1 has 14 columns and x2 4 rows"),
    (lambda: linalg.matmul(FULL, FULL, out=np.ones(3)), TypeError, "^out is of type ndarray"),
    (lambda: linalg.matmul(FULL, FULL, out=WIDE), ValueError, "^out is 4 x 14 float64; it must"),
    (lambda: linalg.matmul(FULL, FULL, out=FULL), ValueError, "is worked on in place"),
    (lambda: linalg.matmul(FULL, B1, out=WIDE), TypeError, "^out is of type TiledMatrix"),
    (lambda: linalg.matmul(FULL, B1, out=np.ones(3)), ValueError, r"^out has shape \(3,\)"),
    (lambda: linalg.symm(FULL, FULL, beta=1.0), ValueError, "^beta is 1.0 and there is no c"),
    (lambda: linalg.symm(FULL, FULL, side="up"), ValueError, "^side is 'up'; allowed"),
    (lambda: linalg.symm(FULL, FULL, alpha=1j), ValueError, "complex scalar"),
    (lambda: linalg.cholesky(WIDE), ValueError, "^a must be square, not 4 x 14"),
    (lambda: linalg.det(WIDE), ValueError, "^a must be square, not 4 x 14"),
    (lambda: linalg.slogdet(WIDE), np.linalg.LinAlgError, "^a must be square, not 4 x 14"),
    (lambda: linalg.solve(WIDE, B1), ValueError, "^a must be square, not 4 x 14"),
    (lambda: linalg.solve(FULL, WIDE), ValueError, "^b has 4 rows and a 14"),
    (lambda: linalg.solve(FULL, COARSE), ValueError, "nb=5 .*nb=4"),
    (lambda: linalg.solve(FULL, B1, nb=3), ValueError, "^nb is 3; a TiledMatrix has its .* 4$"),
    (lambda: linalg.solve(FULL, np.ones((2, N, 1))), ValueError, "^b has 3 dimensions"),
    (lambda: linalg.solve(FULL, np.float64(1)), ValueError, "^b has 0 dimensions"),
    (lambda: linalg.solve(FULL, np.ma.ones(N)), ValueError, "^b is a masked array"),
    (lambda: linalg.solve(FULL, np.array(["x"] * N)), TypeError, "^no LAPACK type .* b <U1$"),
    (lambda: linalg.lu_solve((FULL, [1]), B1), ValueError, "^piv must be"),
    (lambda: linalg.lu_solve((FULL, range(N)), B1, trans=3), ValueError, "^trans is 3; allowed"),
    (lambda: linalg.solve_triangular(FULL, B1, trans="X"), ValueError, "^trans is 'X'; allowed"),
    (
        lambda: linalg.solve(FULL.astype("c16"), B1, transposed=True),
        NotImplementedError,
        "^transposed is True",
    ),
]


@pytest.mark.parametrize(("call", "error", "message"), ERRORS)
def test_errors_say_what_is_wrong(
    call: Callable[[], Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        call()
    for matrix in (LOWER, UPPER):
        np.testing.assert_array_equal(
            matrix.to_array(), np.tril(spd(N)) if matrix is LOWER else np.triu(spd(N))
        )
    np.testing.assert_array_equal(FULL, spd(N))


def test_a_read_only_matrix_is_copied_even_if_it_may_be_overwritten() -> None:
    a = spd(N)
    a.flags.writeable = False
    A = TiledMatrix.from_array(a, NB, copy=False)
    L = linalg.cholesky(A, overwrite_a=True)
    assert L is not A
    same(L, scipy.linalg.cholesky(a))


def test_what_is_scipys_own_takes_the_array_that_a_tiled_matrix_is() -> None:
    np.testing.assert_array_equal(linalg.eigvalsh(FULL), scipy.linalg.eigvalsh(spd(N)))


def test_the_names_at_the_top_are_these_functions() -> None:
    assert tla.cholesky is linalg.cholesky
    assert isinstance(tla.solve(FULL, tiles(np.ones((N, 2)))), TiledMatrix)
