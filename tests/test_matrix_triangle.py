"""TiledMatrix with uplo: one triangle, half the memory, the other never looked at."""

import tracemalloc

import numpy as np
import pytest

from taskla.matrix import TiledMatrix
from taskla.tile import Tile

NB = 4
DTYPES = ["f4", "f8", "c8", "c16"]
SIZES = [0, 1, NB - 1, NB, NB + 1, 2 * NB, 3 * NB + 2]
UPLOS = ["lower", "upper"]


def numbers(m, n, dtype="f8", order="F"):
    a = np.arange(1.0, m * n + 1).reshape(m, n)
    return np.array(a * (1 + 2j) if np.dtype(dtype).kind == "c" else a, dtype, order=order)


def kept(a, uplo):
    return {None: lambda a: a, "lower": np.tril, "upper": np.triu}[uplo](a)


def owned(A):
    """Bytes of the distinct arrays that the tiles lie in."""
    owners = {}
    for i, j in A.layout.tiles():
        array = A.tile(i, j).array
        while array.base is not None:
            array = array.base
        owners[id(array)] = array.nbytes
    return sum(owners.values())


@pytest.mark.parametrize("uplo", UPLOS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", SIZES)
def test_a_triangle_is_copied_without_looking_at_the_other(n, dtype, uplo) -> None:
    a = numbers(n, n, dtype)
    expected = kept(a, uplo)
    a[kept(np.ones((n, n)), uplo) == 0] = np.nan
    A = TiledMatrix.from_array(a, NB, uplo, copy=True)
    np.testing.assert_array_equal(A.to_array(), expected)
    for i, j in A.layout.tiles():
        np.testing.assert_array_equal(A.tile(i, j).array, expected[A.rows(i), A.cols(j)])
    B = TiledMatrix.from_array(a, NB, uplo)
    np.testing.assert_array_equal(B.to_array(), expected)


@pytest.mark.parametrize("uplo", UPLOS)
@pytest.mark.parametrize("make", [TiledMatrix.empty, TiledMatrix.zeros])
def test_a_triangle_takes_half_the_memory(uplo, make) -> None:
    n, nb = 1024, 32
    full = n * n * 8
    tracemalloc.start()
    A = make((n, n), nb, "f8", uplo)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert A.nbytes == owned(A) == full // 2 + n * nb * 8 // 2
    assert peak < A.nbytes + 50_000
    assert make((n, n), nb, "f8").nbytes == full


@pytest.mark.parametrize("uplo", UPLOS)
def test_copying_a_triangle_needs_no_full_copy(uplo) -> None:
    n = 1024
    a = np.ones((n, n), order="F")
    tracemalloc.start()
    A = TiledMatrix.from_array(a, 32, uplo, copy=True)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert owned(A) == A.nbytes
    assert peak < 0.55 * a.nbytes


@pytest.mark.parametrize("n", [7, 8, 9])
def test_tiles_side_by_side_in_a_strip_merge(n) -> None:
    lower = TiledMatrix.random((n, n), 3, uplo="lower")
    upper = TiledMatrix.random((n, n), 3, uplo="upper")
    a, b = lower.to_array(), upper.to_array()
    column = Tile.merge([lower.tile(1, 0), lower.tile(2, 0)], (2, 1))
    row = Tile.merge([upper.tile(0, 1), upper.tile(0, 2)], (1, 2))
    assert row is not None
    assert column is not None
    np.testing.assert_array_equal(column.array, a[3:9, 0:3])
    np.testing.assert_array_equal(row.array, b[0:3, 3:9])
    assert Tile.merge([lower.tile(2, 0), lower.tile(2, 1)], (1, 2)) is None


@pytest.mark.parametrize("order", ["F", "C"])
def test_tiles_of_one_array_merge_into_the_array(order) -> None:
    a = numbers(11, 7, order=order)
    A = TiledMatrix.from_array(a, nb=3)
    whole = Tile.merge([A.tile(i, j) for i, j in A.layout.tiles()], (A.mt, A.nt))
    assert whole is not None
    assert whole.array.__array_interface__ == a.__array_interface__


@pytest.mark.parametrize("uplo", UPLOS)
def test_unused_halves_of_diagonal_tiles_are_zero(uplo) -> None:
    # Memory with something in it is likely to be handed out again.
    np.full((64, 64), np.nan)
    made = [
        TiledMatrix.empty((64, 64), 16, uplo=uplo),
        TiledMatrix.from_array(np.full((64, 64), np.nan), 16, uplo, copy=True),
        TiledMatrix.from_function(lambda i, j: np.full((16, 16), np.nan), (64, 64), 16, uplo=uplo),
    ]
    for A in made:
        for k in range(4):
            tile = A.tile(k, k).array
            assert not np.any((tile - kept(tile, uplo))[kept(np.ones((16, 16)), uplo) == 0])


def test_a_triangle_is_square() -> None:
    with pytest.raises(ValueError, match=r"uplo is 'lower' and the shape \(3, 4\)"):
        TiledMatrix.zeros((3, 4), 2, uplo="lower")
    with pytest.raises(ValueError, match="square"):
        TiledMatrix.from_array(np.zeros((3, 4)), 2, uplo="upper")
