"""TiledMatrix: sizes, types and choices that are refused, and the tile size that is chosen."""

import numpy as np
import pytest

from taskla.matrix import TiledMatrix
from taskla.matrix_layout import choose_nb

DTYPES = ["f4", "f8", "c8", "c16"]


# Arguments ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "nb", "error", "message"),
    [
        ((-1, 3), 2, ValueError, "m is -1; it must be at least 0"),
        ((3, -1), None, ValueError, "n is -1; it must be at least 0"),
        ((3, 3), 0, ValueError, "nb is 0; it must be at least 1"),
        ((3, 3), -5, ValueError, "nb is -5"),
        ((3, 3), True, TypeError, "nb is True; it must be an integer"),
        ((3, 3), 2.0, TypeError, "nb is 2.0; it must be an integer"),
        ((3.0, 3), 2, TypeError, "m is 3.0; it must be an integer"),
        ((3, "3"), 2, TypeError, "n is '3'; it must be an integer"),
        (3, 2, ValueError, "shape is 3; it must be two integers"),
        ((3, 3, 3), 2, ValueError, r"shape is \(3, 3, 3\)"),
    ],
)
def test_sizes_are_checked(shape, nb, error, message) -> None:
    for make in (TiledMatrix.empty, TiledMatrix.zeros, TiledMatrix.random):
        with pytest.raises(error, match=message):
            make(shape, nb)
    with pytest.raises(error, match=message):
        TiledMatrix.from_function(lambda i, j: np.zeros((len(i), len(j))), shape, nb)


def test_sizes_may_be_numpy_integers() -> None:
    A = TiledMatrix.zeros((np.int32(5), np.uint8(4)), np.int64(2))
    assert (A.shape, A.nb, type(A.m), type(A.nb)) == ((5, 4), 2, int, int)


@pytest.mark.parametrize("dtype", ["f2", "i8", "g", "O", "nonsense"])
def test_dtypes_are_checked(dtype) -> None:
    for make in (TiledMatrix.empty, TiledMatrix.zeros, TiledMatrix.random):
        with pytest.raises(ValueError, match="allowed: complex128, complex64, float32, float64"):
            make((2, 2), 1, dtype)


def test_a_foreign_byte_order_becomes_the_native_one() -> None:
    A = TiledMatrix.zeros((2, 2), 1, ">f4")
    assert A.dtype == A.tile(0, 0).array.dtype == np.dtype("f4")


def test_choices_are_checked() -> None:
    for uplo in ("low", "", 1):
        with pytest.raises(
            ValueError, match=f"uplo is {uplo!r}; allowed: None, 'lower', 'upper', 'L', 'U'"
        ):
            TiledMatrix.zeros((2, 2), 1, uplo=uplo)
    with pytest.raises(ValueError, match="order is 'K'"):
        TiledMatrix.zeros((2, 2), 1, order="K")
    with pytest.raises(ValueError, match="order is 'C'"):
        TiledMatrix.zeros((2, 2), 1, uplo="upper", order="C")
    with pytest.raises(ValueError, match="copy is 'yes'; allowed: None, True, False"):
        TiledMatrix.from_array(np.zeros((2, 2)), 1, copy="yes")


@pytest.mark.parametrize(
    ("given", "stored"),
    [("L", "lower"), ("l", "lower"), ("LOWER", "lower"), ("U", "upper"), ("Upper", "upper")],
)
def test_uplo_may_be_lapacks(tmp_path, given, stored) -> None:
    a = np.arange(25.0).reshape(5, 5)
    TiledMatrix.from_array(a, 2).save(tmp_path / "a")
    part = np.tril(a) if stored == "lower" else np.triu(a)
    for A in (
        TiledMatrix.from_array(a, 2, given),
        TiledMatrix.from_function(lambda i, j: a[np.ix_(i, j)], (5, 5), 2, uplo=given),
        TiledMatrix.load(tmp_path / "a", uplo=given),
    ):
        assert A.uplo == stored
        np.testing.assert_array_equal(A.to_array(), part)
    for make in (TiledMatrix.empty, TiledMatrix.zeros, TiledMatrix.random):
        assert make((5, 5), 2, uplo=given).uplo == stored


def test_a_flat_block_gets_a_hint() -> None:
    with pytest.raises(ValueError, match=r"shape \(2,\), not \(2, 2\); use rows\[:, None\]"):
        TiledMatrix.from_function(lambda rows, cols: rows, (4, 4), 2)


def test_numpy_takes_a_matrix_for_an_array() -> None:
    a = np.asfortranarray(np.arange(25.0).reshape(5, 5))
    A = TiledMatrix.from_array(a, 2)
    assert np.shares_memory(np.asarray(A), a)
    assert not np.shares_memory(np.array(A), a)
    assert np.shares_memory(np.array(A, copy=False), a)
    assert np.asarray(A, dtype="f4").dtype == np.float32
    np.testing.assert_array_equal(np.asarray(A), a)
    with pytest.raises(ValueError, match="copy"):
        np.array(A, dtype="f4", copy=False)
    lower = TiledMatrix.from_array(a, 2, "L")
    np.testing.assert_array_equal(np.asarray(lower), np.tril(a))
    with pytest.raises(ValueError, match="copy is False"):
        np.array(lower, copy=False)


def test_zeros_are_zeros() -> None:
    assert not np.any(TiledMatrix.zeros((5, 7), 3, "c8").to_array())
    assert TiledMatrix.zeros((5, 7), 3, order="C").to_array().flags.c_contiguous


# The tile size -----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("workers", [1, 2, 16, 128])
def test_chosen_tile_sizes_grow_with_the_matrix_and_shrink_with_the_workers(dtype, workers) -> None:
    sizes = [choose_nb(n, dtype, workers) for n in (0, 1, 100, 1000, 5000, 20000, 100000, 10**7)]
    assert sizes == sorted(sizes)
    assert sizes[0] in (256, 512)
    assert all(s >= choose_nb(5000, dtype, 4 * workers) for s in sizes[4:])
    for n in (5000, 20000, 100000):
        nb = choose_nb(n, dtype, workers)
        assert nb == sizes[0] or n / nb >= 5 * workers**0.5


def test_the_default_tile_size_is_the_chosen_one() -> None:
    assert TiledMatrix.empty((3000, 10)).nb == choose_nb(3000, "f8")
    assert TiledMatrix.from_array(np.zeros((3, 3000), "f4")).nb == choose_nb(3000, "f4")
    with pytest.raises(ValueError, match="dtype is 'i8'"):
        choose_nb(5, "i8")
