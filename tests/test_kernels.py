"""Every kernel, for all types, options and orders of memory, against NumPy and SciPy.

Operands are views into larger arrays, so leading dimensions exceed the tiles; what a kernel must
not read is NaN, and what it must not write has to be what it was.
"""

from itertools import product

import numpy as np
import pytest
import scipy.linalg

from taskla.errors import NotPositiveDefiniteError, SingularMatrixError
from taskla.kernels import bind, blas_threads
from taskla.tile import Tile

DTYPES = ["float32", "float64", "complex64", "complex128"]
all_dtypes = pytest.mark.parametrize("dtype", DTYPES)


@pytest.fixture(autouse=True)
def one_blas_thread():
    with blas_threads(1):
        yield


class Framed(Tile):
    """A tile inside a larger array whose margins are watched."""

    __slots__ = ("inside", "whole")

    def __init__(self, values, order="F"):
        rows, cols = values.shape
        self.whole = np.full((rows + 3, cols + 2), 77, values.dtype, order)
        self.inside = np.s_[1 : rows + 1, 1 : cols + 1]
        self.whole[self.inside] = values
        super().__init__(self.whole[self.inside])

    def margins_intact(self):
        margin = self.whole.copy()
        margin[self.inside] = 77
        return bool((margin == 77).all())


class Maker:
    """Random matrices of one type."""

    def __init__(self, dtype, seed=0):
        self.dtype = np.dtype(dtype)
        self.rng = np.random.default_rng(seed)
        self.complex = self.dtype.kind == "c"
        self.eps = np.finfo(self.dtype).eps
        self.wide = np.result_type(self.dtype, np.float64)

    def __call__(self, *shape):
        values = self.rng.standard_normal(shape)
        if self.complex:
            values = values + 1j * self.rng.standard_normal(shape)
        return values.astype(self.dtype)

    def triangle(self, n, uplo, diag):
        """A well-conditioned triangle; and as a tile stores it, NaN where nobody may look."""
        full = self(n, n) / self.dtype.type(4 * max(n, 1)) + 2 * np.eye(n, dtype=self.dtype)
        keep = np.tri(n, dtype=bool) if uplo == "L" else np.tri(n, dtype=bool).T
        if diag == "U":
            keep &= ~np.eye(n, dtype=bool)
        stored = np.where(keep, full, np.nan).astype(self.dtype)
        true = np.where(keep, full, 0).astype(self.wide)
        if diag == "U":
            true += np.eye(n)
        return true, stored

    def symmetric(self, n, uplo, hermitian):
        """A symmetric or Hermitian matrix; and as a tile stores it."""
        full = self(n, n).astype(self.wide)
        full = full + (full.conj().T if hermitian else full.T)
        keep = np.tri(n, dtype=bool) if uplo == "L" else np.tri(n, dtype=bool).T
        return full, np.where(keep, full, np.nan).astype(self.dtype)

    def positive(self, n, uplo):
        full = self(n, n).astype(self.wide)
        full = full @ full.conj().T + n * np.eye(n)
        full = full.astype(self.dtype).astype(self.wide)
        keep = np.tri(n, dtype=bool) if uplo == "L" else np.tri(n, dtype=bool).T
        return full, np.where(keep, full, np.nan).astype(self.dtype)

    def transpositions(self):
        return "NTC" if self.complex else "NT"

    def scalars(self):
        return (-1.0, 1.0), (0.5 - 2j if self.complex else 0.5, 0.0), (0.0, 3.0)


def op(trans, x):
    return {"N": x, "T": x.T, "C": x.conj().T}[trans]


def triangle_of(x, uplo):
    return np.tril(x) if uplo == "L" else np.triu(x)


def other_triangle(x, uplo):
    return np.triu(x, 1) if uplo == "L" else np.tril(x, -1)


def close(actual, expected, size, eps, growth=8.0):
    """Normwise: ||actual - expected|| <= growth size eps ||expected||."""
    assert actual.shape == expected.shape
    if expected.size == 0:
        return
    assert np.isfinite(actual).all()
    error = np.abs(actual - expected).max()
    assert error <= growth * max(size, 4) * eps * max(np.abs(expected).max(), 1e-3), error


# gemm, trsm, trmm, syrk, herk, symm, hemm


@all_dtypes
def test_gemm(dtype):
    make = Maker(dtype)
    for m, n, k in [(7, 5, 6), (70, 33, 41), (1, 1, 1), (0, 3, 2), (3, 0, 2), (4, 3, 0), (1, 9, 2)]:
        for ta, tb in product(make.transpositions(), repeat=2):
            a, b, c = (
                make(*op(ta, np.empty((m, k))).shape),
                make(*op(tb, np.empty((k, n))).shape),
                make(m, n),
            )
            for (alpha, beta), orders in product(make.scalars(), product("FC", repeat=3)):
                A, B, C = map(Framed, (a, b, c), orders)
                bind("gemm", make.dtype, (ta, tb, alpha, beta))(A, B, C)
                product_ = op(ta, a.astype(make.wide)) @ op(tb, b.astype(make.wide))
                close(C.array, alpha * product_ + beta * c, k, make.eps)
                assert C.margins_intact()


@all_dtypes
def test_gemm_with_beta_zero_does_not_read_c(dtype):
    make = Maker(dtype)
    c = Framed(np.full((4, 4), np.nan, dtype))
    bind("gemm", make.dtype, ("N", "N", 1.0, 0.0))(*map(Framed, (make(4, 3), make(3, 4))), c)
    assert np.isfinite(c.array).all()


@all_dtypes
@pytest.mark.parametrize("routine", ["trsm", "trmm"])
def test_triangular(dtype, routine):
    make = Maker(dtype)
    for m, n in [(7, 5), (131, 67), (200, 70), (70, 200), (1, 1), (0, 3), (3, 0)]:
        for side, uplo, trans, diag in product("LR", "LU", make.transpositions(), "NU"):
            k = m if side == "L" else n
            true, stored = make.triangle(k, uplo, diag)
            b = make(m, n)
            alpha = 0.5 - 2j if make.complex else 0.5
            for orders in product("FC", repeat=2):
                A, B = Framed(stored, orders[0]), Framed(b, orders[1])
                bind(routine, make.dtype, (side, uplo, trans, diag, alpha))(A, B)
                x = B.array.astype(make.wide)
                if routine == "trsm":
                    # the residual: op(A) X = alpha B
                    back = op(trans, true) @ x if side == "L" else x @ op(trans, true)
                    close(back, alpha * b.astype(make.wide), k, make.eps)
                else:
                    wide = alpha * b.astype(make.wide)
                    expected = op(trans, true) @ wide if side == "L" else wide @ op(trans, true)
                    close(x, expected, k, make.eps)
                assert B.margins_intact()
                assert A.margins_intact()


@all_dtypes
@pytest.mark.parametrize("routine", ["trsm", "trmm"])
@pytest.mark.parametrize("side", ["L", "R"])
def test_triangular_with_alpha_zero_reads_nothing(dtype, routine, side):
    nan = np.full((200, 200), np.nan, dtype)
    for orders in product("FC", repeat=2):
        a, b = map(Framed, (nan, nan), orders)
        bind(routine, np.dtype(dtype), (side, "L", "N", "N", 0.0))(a, b)
        assert not b.array.any()
        assert b.margins_intact()


@pytest.mark.parametrize("side", ["L", "R"])
def test_trsm_is_backward_stable_where_the_triangle_is_ill_conditioned(side):
    """A random triangle of order n has a condition number near 2^n; the residual is small still."""
    rng = np.random.default_rng(3)
    a = np.tril(rng.standard_normal((256, 256)))
    b = rng.standard_normal((256, 256))
    A, X = Framed(a), Framed(b)
    bind("trsm", np.dtype("f8"), (side, "L", "N", "N", 1.0))(A, X)
    x = X.array
    residual = (a @ x if side == "L" else x @ a) - b
    bound = (abs(a) @ abs(x) if side == "L" else abs(x) @ abs(a)) + abs(b)
    assert (abs(residual) <= 256 * np.finfo(float).eps * bound).all()


@all_dtypes
@pytest.mark.parametrize("bad", [0.0, np.nan])
@pytest.mark.parametrize("order", [40, 64, 150])
def test_trsm_with_a_bad_diagonal_spoils_only_what_depends_on_it(dtype, bad, order):
    make = Maker(dtype)
    true, stored = make.triangle(order, "L", "N")
    b = make(order, 256)
    stored[30, 30] = bad
    X = Framed(b)
    bind("trsm", make.dtype, ("L", "L", "N", "N", 1.0))(Framed(stored), X)
    close(true[:30, :30] @ X.array[:30], b[:30], order, make.eps)
    assert not np.isfinite(X.array[30:]).any()


@all_dtypes
@pytest.mark.parametrize("routine", ["syrk", "herk"])
def test_rank_k(dtype, routine):
    make = Maker(dtype)
    hermitian = routine == "herk"
    options = ("NC" if hermitian else "NT") if make.complex else "NTC"
    for n, k in [(7, 5), (65, 40), (3, 30), (1, 1), (0, 3), (3, 0)]:
        for uplo, trans in product("LU", options):
            a = make(*((n, k) if trans == "N" else (k, n)))
            full = make(n, n)
            if hermitian:
                full = full + full.conj().T
            wide = a.astype(make.wide)
            turned = wide.conj().T if hermitian else wide.T
            square = wide @ turned if trans == "N" else turned @ wide
            c = triangle_of(full, uplo) + other_triangle(np.full((n, n), 55, dtype), uplo)
            for alpha, beta in [(-1.0, 1.0), (2.0, 0.0), (0.0, 3.0)] + (
                [] if hermitian else list(make.scalars())
            ):
                expected = triangle_of(alpha * square + beta * full, uplo)
                for orders in product("FC", repeat=2):
                    A, C = Framed(a, orders[0]), Framed(c, orders[1])
                    bind(routine, make.dtype, (uplo, trans, alpha, beta))(A, C)
                    close(triangle_of(C.array, uplo), expected, k, make.eps)
                    assert (other_triangle(C.array - 55, uplo) == other_triangle(0 * c, uplo)).all()
                    assert C.margins_intact()


@all_dtypes
@pytest.mark.parametrize("routine", ["symm", "hemm"])
def test_symmetric(dtype, routine):
    make = Maker(dtype)
    for m, n in [(7, 5), (40, 65), (1, 1), (0, 3), (3, 0)]:
        for side, uplo in product("LR", "LU"):
            full, stored = make.symmetric(m if side == "L" else n, uplo, routine == "hemm")
            b, c = make(m, n), make(m, n)
            wide = b.astype(make.wide)
            product_ = full @ wide if side == "L" else wide @ full
            for (alpha, beta), orders in product(make.scalars(), product("FC", repeat=3)):
                A, B, C = map(Framed, (stored, b, c), orders)
                bind(routine, make.dtype, (side, uplo, alpha, beta))(A, B, C)
                close(C.array, alpha * product_ + beta * c, len(full), make.eps)
                assert C.margins_intact()


# potrf, lauum, trtri


@all_dtypes
@pytest.mark.parametrize("order", ["F", "C"])
@pytest.mark.parametrize("uplo", ["L", "U"])
def test_potrf(dtype, order, uplo):
    make = Maker(dtype)
    for n in (0, 1, 2, 33, 130, 300, 600):
        full, stored = make.positive(n, uplo)
        A = Framed(stored, order)
        bind("potrf", make.dtype, (uplo,))(A)
        factor = triangle_of(A.array, uplo).astype(make.wide)
        back = factor @ factor.conj().T if uplo == "L" else factor.conj().T @ factor
        close(back, full, n, make.eps, growth=2.0)
        assert np.isnan(other_triangle(A.array, uplo)[np.triu_indices(n, 1)]).all() or uplo == "U"
        assert A.margins_intact()


@all_dtypes
@pytest.mark.parametrize("order", ["F", "C"])
@pytest.mark.parametrize("uplo", ["L", "U"])
@pytest.mark.parametrize("bad", [-1.0, 0.0, np.nan, -np.inf])
def test_potrf_names_the_first_minor_that_is_not_positive(dtype, order, uplo, bad):
    kernel = bind("potrf", np.dtype(dtype), (uplo,))
    for n, minor in [(1, 1), (5, 3), (64, 64), (300, 1), (300, 129), (600, 258), (600, 600)]:
        a = 2 * np.eye(n, dtype=dtype)
        a[minor - 1, minor - 1] = bad
        with pytest.raises(NotPositiveDefiniteError, match=f"^{minor}-th leading minor") as caught:
            kernel(Framed(a, order))
        assert caught.value.minor == minor


@all_dtypes
@pytest.mark.parametrize("uplo", ["L", "U"])
@pytest.mark.parametrize("n", [20, 300, 600])
def test_potrf_meets_a_nan_off_the_diagonal_in_its_row_and_before_a_later_minor(dtype, uplo, n):
    a = 2 * np.eye(n, dtype=dtype)
    a[n - 5, 2] = a[2, n - 5] = np.nan
    a[n - 2, n - 2] = -1
    with pytest.raises(NotPositiveDefiniteError) as caught:
        bind("potrf", np.dtype(dtype), (uplo,))(Tile(a))
    assert caught.value.minor == n - 4


@all_dtypes
@pytest.mark.parametrize("order", ["F", "C"])
@pytest.mark.parametrize("uplo", ["L", "U"])
def test_lauum(dtype, order, uplo):
    make = Maker(dtype)
    for n in (0, 1, 2, 33, 130, 300):
        true, stored = make.triangle(n, uplo, "N")
        if make.complex:
            # the diagonal of a Cholesky factor is real, and so is that of the result
            true.imag[np.diag_indices(n)] = stored.imag[np.diag_indices(n)] = 0
        A = Framed(stored, order)
        bind("lauum", make.dtype, (uplo,))(A)
        expected = true.conj().T @ true if uplo == "L" else true @ true.conj().T
        close(triangle_of(A.array, uplo), triangle_of(expected, uplo), n, make.eps)
        assert A.margins_intact()


@all_dtypes
@pytest.mark.parametrize("order", ["F", "C"])
@pytest.mark.parametrize("uplo", ["L", "U"])
@pytest.mark.parametrize("diag", ["N", "U"])
def test_trtri(dtype, order, uplo, diag):
    make = Maker(dtype)
    for n in (0, 1, 2, 33, 130, 300):
        true, stored = make.triangle(n, uplo, diag)
        A = Framed(stored, order)
        bind("trtri", make.dtype, (uplo, diag))(A)
        inverse = triangle_of(A.array, uplo).astype(make.wide)
        if diag == "U":
            inverse[np.diag_indices(n)] = 1
        close(inverse @ true, np.eye(n), n, make.eps)
        assert A.margins_intact()


@all_dtypes
@pytest.mark.parametrize("uplo", ["L", "U"])
@pytest.mark.parametrize(("n", "pivot"), [(1, 1), (5, 3), (200, 150)])
def test_trtri_names_a_zero_pivot_and_changes_nothing(dtype, uplo, n, pivot):
    a = np.eye(n, dtype=dtype)
    a[pivot - 1, pivot - 1] = 0
    for order in "FC":
        A = Framed(a, order)
        with pytest.raises(SingularMatrixError) as caught:
            bind("trtri", np.dtype(dtype), (uplo, "N"))(A)
        assert caught.value.pivot == pivot
        np.testing.assert_array_equal(A.array, a)
        bind("trtri", np.dtype(dtype), (uplo, "U"))(A)


# LU


LU_SHAPES = [(0, 0), (1, 1), (9, 9), (130, 50), (50, 130), (5, 0), (0, 5), (300, 200)]


def lu_parts(a):
    k = min(a.shape)
    return np.tril(a[:, :k], -1) + np.eye(a.shape[0], k), np.triu(a[:k])


@all_dtypes
@pytest.mark.parametrize("order", ["F", "C"])
def test_getrf_gives_the_pivots_of_lapack(dtype, order):
    make = Maker(dtype)
    for m, n in LU_SHAPES:
        a = make(m, n)
        A, P = Framed(a, order), Framed(np.zeros((min(m, n), 1), np.int32))
        bind("getrf", make.dtype, (30,))(A, P)
        assert A.margins_intact()
        assert P.margins_intact()
        if 0 in (m, n):
            continue
        lu, piv, _ = scipy.linalg.lapack.get_lapack_funcs("getrf", (a,))(a)
        np.testing.assert_array_equal(P.array[:, 0], 30 + piv + 1)
        close(A.array, lu, m, make.eps)


@pytest.mark.parametrize("dtype", ["complex64", "complex128"])
def test_getrf_compares_complex_numbers_by_real_plus_imaginary_part(dtype):
    # |3+3i| < |5|, and |3| + |3| > |5|: LAPACK's izamax
    a = np.array([[5, 1], [3 + 3j, 2]], dtype)
    P = Tile(np.zeros(2, np.int32))
    bind("getrf", np.dtype(dtype), (0,))(Tile(a), P)
    assert P.array[0, 0] == 2


@all_dtypes
@pytest.mark.parametrize("order", ["F", "C"])
def test_getrf_goes_on_after_a_zero_pivot(dtype, order):
    a = np.ones((4, 4), dtype)
    A, P = Framed(a, order), Tile(np.zeros(4, np.int32))
    bind("getrf", np.dtype(dtype), (0,))(A, P)
    lower, upper = lu_parts(A.array)
    np.testing.assert_array_equal(lower @ upper, a)
    assert P.array[:, 0].tolist() == [1, 2, 3, 4]


@all_dtypes
@pytest.mark.parametrize("order", ["F", "C"])
def test_getrf_nopiv(dtype, order):
    make = Maker(dtype)
    for m, n in [*LU_SHAPES, (40, 8), (8, 40), (17, 33), (260, 300)]:
        a = make(m, n) + 4 * max(m, n) * np.eye(m, n, dtype=dtype)
        A = Framed(a, order)
        bind("getrf_nopiv", make.dtype)(A)
        lower, upper = lu_parts(A.array.astype(make.wide))
        close(lower @ upper, a, min(m, n), make.eps)
        assert A.margins_intact()


@all_dtypes
@pytest.mark.parametrize("order", ["F", "C"])
@pytest.mark.parametrize(("n", "pivot"), [(1, 1), (9, 4), (100, 100), (100, 33)])
def test_getrf_nopiv_names_a_zero_pivot(dtype, order, n, pivot):
    a = np.eye(n, dtype=dtype)
    a[pivot - 1, pivot - 1] = 0
    with pytest.raises(SingularMatrixError, match=f"element {pivot} is exactly zero") as caught:
        bind("getrf_nopiv", np.dtype(dtype))(Framed(a, order))
    assert caught.value.pivot == pivot


@all_dtypes
def test_getrf_nopiv_divides_by_a_subnormal_pivot(dtype):
    tiny = np.finfo(dtype).smallest_subnormal
    a = np.array([[8 * tiny, tiny], [16 * tiny, 3 * tiny]], dtype)
    A = Tile(a.copy("F"))
    bind("getrf_nopiv", np.dtype(dtype))(A)
    assert A.array[1, 0] == 2
    assert A.array[1, 1] == tiny


@all_dtypes
@pytest.mark.parametrize("order", ["F", "C"])
def test_laswp_interchanges_and_undoes(dtype, order):
    make = Maker(dtype)
    for m, n, k in [(1, 1, 1), (9, 4, 6), (100, 70, 100), (5, 0, 3), (5, 3, 0)]:
        a = make(m, n)
        pivots = np.array([make.rng.integers(i, m) + 1 for i in range(k)], np.int32)
        expected = a.copy()
        for i, pivot in enumerate(pivots - 1):
            expected[[i, pivot]] = expected[[pivot, i]]
        A = Framed(a, order)
        bind("laswp", make.dtype, (30, True))(Tile(30 + pivots), A)
        np.testing.assert_array_equal(A.array, expected)
        bind("laswp", make.dtype, (30, False))(Tile(30 + pivots), A)
        np.testing.assert_array_equal(A.array, a)
        assert A.margins_intact()


def test_laswp_refuses_pivots_outside_the_tile():
    a = Tile(np.zeros((3, 2)))
    for stray in (0, 4, -1):
        with pytest.raises(ValueError, match="allowed: 1 to 3"):
            bind("laswp", np.dtype("f8"), (0, True))(Tile(np.array([1, stray], np.int32)), a)
