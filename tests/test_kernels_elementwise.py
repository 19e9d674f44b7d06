"""Copies, fills, scalings, sums, norms, tournaments: kernels that pass over a tile a few times."""

import warnings
from itertools import product

import numpy as np
import pytest
import scipy.linalg

from taskla.kernels import bind
from taskla.tile import Tile

DTYPES = ["float32", "float64", "complex64", "complex128"]
all_dtypes = pytest.mark.parametrize("dtype", DTYPES)
SHAPES = [(0, 0), (0, 4), (4, 0), (1, 1), (7, 5), (130, 70), (70, 200)]


def random(rng, dtype, *shape):
    values = rng.standard_normal(shape)
    if np.dtype(dtype).kind == "c":
        values = values + 1j * rng.standard_normal(shape)
    return values.astype(dtype)


def framed(values, order):
    """A tile inside a larger array, and a function that tells whether the margins are intact."""
    rows, cols = values.shape
    whole = np.full((rows + 3, cols + 2), 77, values.dtype, order)
    inside = np.s_[1 : rows + 1, 1 : cols + 1]
    whole[inside] = values

    def intact():
        margin = whole.copy()
        margin[inside] = 77
        return bool((margin == 77).all())

    return Tile(whole[inside]), intact


def op(trans, x):
    return {"N": x, "T": x.T, "C": x.conj().T}[trans]


def part(uplo, shape):
    """The elements that an option selects: the diagonal included."""
    lower = np.tri(*shape, dtype=bool)
    return {"L": lower, "U": ~np.tri(*shape, -1, dtype=bool), "G": np.ones(shape, bool)}[uplo]


@all_dtypes
def test_lacpy(dtype):
    rng = np.random.default_rng(0)
    for shape, trans, uplo in product(SHAPES, "NTC", "LUG"):
        a = random(rng, dtype, *op(trans, np.empty(shape)).shape)
        b = random(rng, dtype, *shape)
        expected = np.where(part(uplo, shape), op(trans, a), b)
        for orders in product("FC", repeat=2):
            B, intact = framed(b, orders[1])
            bind("lacpy", np.dtype(dtype), (uplo, trans))(framed(a, orders[0])[0], B)
            np.testing.assert_array_equal(B.array, expected)
            assert intact()


@all_dtypes
def test_geadd(dtype):
    rng = np.random.default_rng(1)
    z = 2 - 1j if np.dtype(dtype).kind == "c" else 2.0
    for shape, trans, alpha, beta in product(SHAPES, "NTC", (1.0, z, 0.0), (1.0, z, 0.0)):
        a = random(rng, dtype, *op(trans, np.empty(shape)).shape)
        b = random(rng, dtype, *shape)
        expected = alpha * op(trans, a) + beta * b
        if not alpha:
            a[...] = np.nan
        if not beta:
            b[...] = np.nan
        for orders in product("FC", repeat=2):
            B, intact = framed(b, orders[1])
            bind("geadd", np.dtype(dtype), (trans, alpha, beta))(framed(a, orders[0])[0], B)
            np.testing.assert_allclose(B.array, expected, rtol=0, atol=30 * np.finfo(dtype).eps)
            assert intact()


@all_dtypes
def test_lascl(dtype):
    rng = np.random.default_rng(2)
    z = 2 - 1j if np.dtype(dtype).kind == "c" else 2.0
    for shape, uplo, alpha, order in product(SHAPES, "LUG", (1.0, z, 0.0), "FC"):
        a = random(rng, dtype, *shape)
        expected = np.where(part(uplo, shape), a * np.dtype(dtype).type(alpha), a)
        if not alpha:
            a[part(uplo, shape)] = np.nan
        A, intact = framed(a, order)
        bind("lascl", np.dtype(dtype), (uplo, alpha))(A)
        np.testing.assert_array_equal(A.array, expected)
        assert intact()


@all_dtypes
def test_laset(dtype):
    for shape, uplo, order in product(SHAPES, "LUG", "FC"):
        a = np.full(shape, 55, dtype)
        expected = np.where(part(uplo, shape), 3, a)
        np.fill_diagonal(expected, 4)
        A, intact = framed(a, order)
        bind("laset", np.dtype(dtype), (uplo, 3.0, 4.0))(A)
        np.testing.assert_array_equal(A.array, expected)
        assert intact()


def test_arithmetic_on_what_is_not_finite_does_not_warn():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        a, b = (Tile(np.array([[np.inf, np.nan, 1e308]])) for _ in range(2))
        bind("geadd", np.dtype("f8"), ("N", -1e308, 1.0))(a, b)
        bind("lascl", np.dtype("f8"), ("G", 1e308))(b)
        for norm in "M1IF":
            bind("lange", np.dtype("f8"), (norm,))(a, Tile(np.zeros(3)))


# norms


def norm_of(tile, operation, norm, *params):
    """Run the kernel, and make a number of what it gives."""
    real = tile.array.real.dtype
    S = Tile(np.full(max(*tile.shape, 2) + 1, -1, real))
    bind(operation, tile.array.dtype, (norm, *params))(tile, S)
    s = S.array[:, 0]
    used = {"M": 1, "F": 2, "1": tile.cols, "I": tile.rows}[norm]
    assert (s[used:] == -1).all()
    if norm == "F":
        return s[0] * np.sqrt(s[1])
    return np.max(s[:used], initial=0)


def reference(full, norm):
    size = np.abs(full)
    return {
        "M": size.max(initial=0),
        "1": size.sum(0).max(initial=0),
        "I": size.sum(1).max(initial=0),
        "F": np.sqrt(np.square(size).sum()),
    }[norm]


@all_dtypes
def test_lange(dtype):
    rng = np.random.default_rng(3)
    for shape, norm, order in product(SHAPES, "M1IF", "FC"):
        a = random(rng, dtype, *shape)
        value = norm_of(framed(a, order)[0], "lange", norm)
        expected = reference(a.astype("c16"), norm)
        np.testing.assert_allclose(value, expected, rtol=60 * np.finfo(dtype).eps)


@all_dtypes
def test_lantr(dtype):
    rng = np.random.default_rng(4)
    for shape, norm, order, uplo, diag in product(SHAPES, "M1IF", "FC", "LU", "NU"):
        stored = part(uplo, shape)
        if diag == "U":
            stored &= ~np.eye(*shape, dtype=bool)
        a = np.where(stored, random(rng, dtype, *shape), np.nan).astype(dtype)
        full = np.where(stored, a, 0) + (np.eye(*shape) if diag == "U" else 0)
        value = norm_of(framed(a, order)[0], "lantr", norm, uplo, diag)
        expected = reference(full.astype("c16"), norm)
        np.testing.assert_allclose(value, expected, rtol=60 * np.finfo(dtype).eps)


@all_dtypes
@pytest.mark.parametrize("hermitian", [False, True])
def test_lansy(dtype, hermitian):
    rng = np.random.default_rng(5)
    for n, norm, order, uplo in product((0, 1, 7, 64, 150), "M1IF", "FC", "LU"):
        full = random(rng, dtype, n, n)
        full = full + (full.conj().T if hermitian else full.T)
        stored = full.copy()
        if hermitian and stored.dtype.kind == "c":
            # LAPACK takes the imaginary part of the diagonal for zero
            stored.imag[np.diag_indices(n)] = 9
        a = np.where(part(uplo, full.shape), stored, np.nan).astype(dtype)
        value = norm_of(framed(a, order)[0], "lansy", norm, uplo, hermitian)
        expected = reference(full.astype("c16"), norm)
        np.testing.assert_allclose(value, expected, rtol=60 * np.finfo(dtype).eps)


@all_dtypes
@pytest.mark.parametrize("norm", "M1IF")
def test_norms_hand_on_nan_and_infinity(dtype, norm):
    for bad in (np.nan, np.inf):
        a = np.ones((100, 100), dtype)
        a[70, 70] = bad
        for operation, params in [
            ("lange", ()),
            ("lantr", ("L", "N")),
            ("lansy", ("U", False)),
            ("lansy", ("U", True)),
        ]:
            value = norm_of(Tile(a.copy()), operation, norm, *params)
            np.testing.assert_equal(float(value), bad)


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex128"])
def test_frobenius_neither_overflows_nor_underflows(dtype):
    for extreme in (np.finfo(dtype).max / 4, np.finfo(dtype).smallest_subnormal * 4):
        a = np.full((2, 2), extreme, dtype)
        value = norm_of(Tile(a), "lange", "F")
        np.testing.assert_allclose(value, 2 * float(extreme), rtol=1e-6)


# tournament pivoting


def play(a, heights):
    """The pivots and the winners of a panel cut into blocks of the given heights."""
    m, n = a.shape
    dtype = a.dtype
    size = min(n, m)
    proposals, first = [], 0
    for height in heights:
        C, R = Tile(np.full((size, n), 5, dtype, order="F")), Tile(np.zeros(size, np.int64))
        block = Tile(a[first : first + height])
        bind("getrf_tnt_leaf", dtype, (100 + first,))(block, C, R)
        np.testing.assert_array_equal(block.array, a[first : first + height])
        proposals.append((C, R))
        first += height
    while len(proposals) > 1:
        for winner, loser in zip(proposals[::2], proposals[1::2], strict=False):
            bind("getrf_tnt_merge", dtype)(*winner, *loser)
        proposals = proposals[::2]
    C, R = proposals[0]
    P = Tile(np.zeros(size, np.int32))
    bind("getrf_tnt_pivots", dtype, (100, size))(R, P)
    return P, C.array, R.array[:, 0] - 100


@all_dtypes
@pytest.mark.parametrize(
    "heights",
    [[40], [10, 10, 10, 10], [10, 10, 10, 3], [3, 10], [10, 10, 7, 10, 10], [4], [1, 1, 1]],
)
def test_the_winners_come_to_the_top(dtype, heights):
    a = random(np.random.default_rng(6), dtype, sum(heights), 10)
    P, rows, numbers = play(a, heights)
    assert len(set(numbers.tolist())) == len(numbers) == min(a.shape)
    np.testing.assert_array_equal(rows, a[numbers])
    moved = Tile(a.copy())
    bind("laswp", a.dtype, (100, True))(P, moved)
    np.testing.assert_array_equal(moved.array[: len(numbers)], a[numbers])
    # a permutation: nothing lost, nothing twice
    assert sorted(map(tuple, moved.array.tolist()), key=str) == sorted(
        map(tuple, a.tolist()), key=str
    )


@all_dtypes
def test_one_player_is_partial_pivoting(dtype):
    a = random(np.random.default_rng(7), dtype, 40, 10)
    P, _, _ = play(a, [40])
    _, pivots = scipy.linalg.lu_factor(a)
    np.testing.assert_array_equal(P.array[:, 0] - 100, pivots + 1)


def test_winners_already_at_the_top_in_another_order():
    R = Tile(np.array([2, 0, 1], np.int64))
    P = Tile(np.zeros(3, np.int32))
    bind("getrf_tnt_pivots", np.dtype("f8"), (0, 3))(R, P)
    assert P.array[:, 0].tolist() == [3, 3, 3]


def test_short_proposals_are_filled_up():
    C, R = Tile(np.full((4, 3), 9.0)), Tile(np.full(4, 9, np.int64))
    bind("getrf_tnt_leaf", np.dtype("f8"), (7,))(Tile(np.array([[1.0, 2, 3], [4, 5, 6]])), C, R)
    assert R.array[:, 0].tolist() == [8, 7, -1, -1]
    np.testing.assert_array_equal(C.array, [[4, 5, 6], [1, 2, 3], [0, 0, 0], [0, 0, 0]])
    P = Tile(np.zeros(4, np.int32))
    bind("getrf_tnt_pivots", np.dtype("f8"), (7, 4))(R, P)
    assert P.array[:, 0].tolist() == [9, 9, 10, 11]
