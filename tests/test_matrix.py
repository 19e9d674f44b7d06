"""TiledMatrix over arrays and functions: views, triangles, blocks, arguments."""

import copy
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, strategies as st

from taskla.engines import engine
from taskla.matrix import TiledMatrix, generate
from taskla.matrix_layout import Layout, in_sequence, set_map_tiles

NB = 4
DTYPES = ["f4", "f8", "c8", "c16"]
SIZES = [0, 1, NB - 1, NB, NB + 1, 2 * NB, 3 * NB + 2]
SHAPES = [(m, n) for m in SIZES for n in SIZES]
UPLOS = ["lower", "upper"]


def numbers(m, n, dtype="f8", order="F"):
    a = np.arange(1.0, m * n + 1).reshape(m, n)
    return np.array(a * (1 + 2j) if np.dtype(dtype).kind == "c" else a, dtype, order=order)


def kept(a, uplo):
    return {None: lambda a: a, "lower": np.tril, "upper": np.triu}[uplo](a)


# The grid ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ["F", "C"])
@pytest.mark.parametrize(("m", "n"), SHAPES)
def test_tiles_are_the_blocks_of_the_array(m, n, order) -> None:
    a = numbers(m, n, order=order)
    A = TiledMatrix.from_array(a, nb=NB)
    assert (A.m, A.n, A.shape, A.nb) == (m, n, (m, n), NB)
    assert (A.mt, A.nt) == (-(-m // NB), -(-n // NB))
    assert list(A.layout.tiles()) == [(i, j) for j in range(A.nt) for i in range(A.mt)]
    assert A.nbytes == a.nbytes
    for i, j in A.layout.tiles():
        block = a[i * NB : (i + 1) * NB, j * NB : (j + 1) * NB]
        assert A.rows(i) == slice(i * NB, i * NB + block.shape[0])
        assert A.cols(j) == slice(j * NB, j * NB + block.shape[1])
        assert A.tile(i, j).array.__array_interface__ == block.__array_interface__


@pytest.mark.parametrize("order", ["F", "C"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("m", "n"), [(11, 7), (1, 9), (9, 1), (4, 8)])
def test_pointers_and_leading_dimensions_reach_every_entry(m, n, dtype, order) -> None:
    base = numbers(m + 3, n + 5, dtype, order)
    a = base[2 : m + 2, 1 : n + 1]
    A = TiledMatrix.from_array(a, nb=3, copy=False)
    for i, j in A.layout.tiles():
        tile = A.tile(i, j)
        assert (tile.rows, tile.cols) == tile.array.shape
        for x in range(tile.rows):
            for y in range(tile.cols):
                steps = x + y * tile.ld if tile.order == "F" else x * tile.ld + y
                assert tile.pointer + a.itemsize * steps == tile.array[x:, y:].ctypes.data
    assert A.order == order or min(m, n) == 1


def test_a_tile_is_cut_once() -> None:
    A = TiledMatrix.zeros((5, 5), nb=2)
    assert A.tile(1, 2) is A.tile(1, 2)


@pytest.mark.parametrize(("i", "j"), [(-1, 0), (0, -1), (3, 0), (0, 2), (10**20, 0)])
def test_tiles_outside_the_grid(i, j) -> None:
    A = TiledMatrix.zeros((5, 4), nb=2)
    with pytest.raises(IndexError, match=rf"\({i}, {j}\).*0 <= i < 3, 0 <= j < 2$"):
        A.tile(i, j)


def test_index_ranges_outside_the_grid() -> None:
    A = TiledMatrix.zeros((5, 4), nb=2)
    with pytest.raises(IndexError, match="row 3 is out of range; allowed: 0 to 2"):
        A.rows(3)
    with pytest.raises(IndexError, match="column -1 is out of range; allowed: 0 to 1"):
        A.cols(-1)
    with pytest.raises(IndexError, match="the matrix is empty"):
        TiledMatrix.zeros((0, 4), nb=2).rows(0)


@pytest.mark.parametrize(
    ("uplo", "missing", "limit"), [("lower", (0, 1), "i >= j"), ("upper", (1, 0), "i <= j")]
)
def test_tiles_of_the_other_triangle_do_not_exist(uplo, missing, limit) -> None:
    for A in (
        TiledMatrix.zeros((5, 5), 2, uplo=uplo),
        TiledMatrix.from_array(numbers(5, 5), 2, uplo=uplo),
    ):
        assert A.tile(*reversed(missing)).shape == (2, 2)
        with pytest.raises(IndexError, match=limit):
            A.tile(*missing)


@given(n=st.integers(0, 40), nb=st.integers(1, 45))
def test_both_triangles_together_are_the_grid(n, nb) -> None:
    full, lower, upper = (Layout(n, n, nb, uplo) for uplo in (None, *UPLOS))
    tiles = set(full.tiles())
    assert set(lower.tiles()) == {(i, j) for i, j in tiles if i >= j}
    assert set(upper.tiles()) == {(i, j) for i, j in tiles if i <= j}
    for layout in (full, lower, upper):
        sizes = [(layout.rows(i), layout.cols(j)) for i, j in layout.tiles()]
        assert layout.entries == sum((r.stop - r.start) * (c.stop - c.start) for r, c in sizes)


# Views and copies --------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("uplo", [None, *UPLOS])
@pytest.mark.parametrize("order", ["F", "C"])
@pytest.mark.parametrize("copy", [None, False])
def test_an_array_is_viewed(dtype, uplo, order, copy) -> None:
    a = numbers(10, 10, dtype, order)
    A = TiledMatrix.from_array(a, NB, uplo, copy)
    assert A.dtype == a.dtype
    assert A.order == order
    assert A.writeable
    tile = A.tile(1, 1).array
    assert np.shares_memory(tile, a)
    tile[0, 0] = -1
    assert a[NB, NB] == -1
    a[NB + 1, NB + 1] = -2
    assert tile[1, 1] == -2


@pytest.mark.parametrize("order", ["F", "C"])
def test_a_part_of_an_array_is_viewed(order) -> None:
    base = numbers(20, 30, order=order)
    a = base[3:15, 4:25]
    A = TiledMatrix.from_array(a, nb=5)
    assert A.tile(0, 0).ld == (20 if order == "F" else 30)
    A.tile(2, 4).array[...] = 0
    assert np.count_nonzero(base == 0) == 2 * 1
    np.testing.assert_array_equal(A.to_array(), base[3:15, 4:25])


def test_rows_with_gaps_are_a_view_if_columns_are_dense() -> None:
    base = numbers(6, 10)
    A = TiledMatrix.from_array(base[:, ::2], nb=2, copy=False)
    assert A.tile(0, 0).ld == 12
    np.testing.assert_array_equal(A.to_array(), base[:, ::2])


def unaligned():
    raw = np.zeros(8 * 9 + 1, np.uint8)
    a = raw[1:].view("f8").reshape(3, 3)
    a[...] = numbers(3, 3)
    return a


IN_NEED_OF_A_COPY = {
    "both strides": lambda: numbers(12, 12)[::2, ::2],
    "reversed": lambda: numbers(7, 7)[::-1],
    "broadcast": lambda: np.broadcast_to(np.arange(5.0), (5, 5)),
    "overlapping": lambda: np.lib.stride_tricks.sliding_window_view(np.arange(9.0), 5),
    "bool": lambda: numbers(5, 5) > 7,
    "int8": lambda: np.arange(25, dtype="i1").reshape(5, 5),
    "uint64": lambda: np.arange(25, dtype="u8").reshape(5, 5),
    "float16": lambda: numbers(5, 5).astype("f2"),
    "big endian": lambda: numbers(5, 5).astype(">f8"),
    "big endian complex": lambda: numbers(5, 5).astype(">c8"),
    "unaligned": unaligned,
}


@pytest.mark.parametrize("make", IN_NEED_OF_A_COPY.values(), ids=IN_NEED_OF_A_COPY)
def test_what_cannot_be_viewed_is_copied_in_fortran_order(make) -> None:
    a = make()
    before = a.copy()
    A = TiledMatrix.from_array(a, nb=2)
    assert A.order == "F"
    assert A.writeable
    assert A.tile(0, 0).ld == A.m
    assert A.dtype.isnative
    assert A.dtype == {"f2": "f4", ">c8": "c8"}.get(a.dtype.str.lstrip("<"), "f8")
    np.testing.assert_array_equal(A.to_array(), a)
    A.tile(0, 0).array[...] = 77
    np.testing.assert_array_equal(a, before)
    with pytest.raises(ValueError, match="copy of a is needed"):
        TiledMatrix.from_array(a, nb=2, copy=False)


def test_a_list_becomes_an_array_first() -> None:
    A = TiledMatrix.from_array([[1, 2], [3, 4]], nb=1)
    assert A.dtype == np.float64
    assert A.to_array().tolist() == [[1, 2], [3, 4]]
    with pytest.raises(ValueError, match="copy"):
        TiledMatrix.from_array([[1.0, 2.0]], nb=1, copy=False)


def test_read_only_arrays_are_copied_unless_that_is_forbidden() -> None:
    a = numbers(5, 5)
    a.flags.writeable = False
    A = TiledMatrix.from_array(a, nb=2)
    A.tile(0, 0).array[...] = 0
    assert a[0, 0] == 1
    B = TiledMatrix.from_array(a, nb=2, copy=False)
    assert np.shares_memory(B.tile(0, 0).array, a)
    assert (A.writeable, B.writeable) == (True, False)
    with pytest.raises(ValueError, match="read-only"):
        B.tile(0, 0).array[...] = 0


@pytest.mark.parametrize("order", ["F", "C"])
@pytest.mark.parametrize("uplo", [None, *UPLOS])
def test_copy_true_always_copies(order, uplo) -> None:
    a = numbers(9, 9, order=order)
    A = TiledMatrix.from_array(a, NB, uplo, copy=True)
    assert not any(np.shares_memory(A.tile(i, j).array, a) for i, j in A.layout.tiles())
    np.testing.assert_array_equal(A.to_array(), kept(a, uplo))


def test_subclasses_of_ndarray_lose_their_class() -> None:
    class Subclass(np.ndarray):
        pass

    a = numbers(4, 4).view(Subclass)
    A = TiledMatrix.from_array(a, nb=2)
    assert type(A.tile(0, 0).array) is np.ndarray
    assert np.shares_memory(A.tile(0, 0).array, a)


@pytest.mark.parametrize(
    ("a", "message"),
    [
        (np.zeros(3), "a has 1 dimensions"),
        (np.zeros((2, 2, 2)), "a has 3 dimensions"),
        (np.zeros((2, 2), "O"), "allowed: complex128"),
        (np.zeros((2, 2), "g"), "allowed: complex128"),
        (np.array([["a"]]), "allowed: complex128"),
        (np.ma.masked_array([[1.0]], [[True]]), "masked"),
    ],
)
def test_arrays_that_are_no_matrices(a, message) -> None:
    with pytest.raises(ValueError, match=message):
        TiledMatrix.from_array(a, nb=2)


# From a function ---------------------------------------------------------------------------------


@pytest.mark.parametrize("uplo", [None, *UPLOS])
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_function_is_called_once_per_stored_tile(dtype, uplo) -> None:
    calls = []

    def f(rows, cols):
        assert rows.dtype.kind == cols.dtype.kind == "i"
        calls.append((rows.tolist(), cols.tolist()))
        return 100 * rows[:, None] + cols

    A = TiledMatrix.from_function(f, (7, 7), 3, dtype, uplo)
    i, j = np.indices((7, 7))
    assert A.dtype == dtype
    np.testing.assert_array_equal(A.to_array(), kept(100 * i + j, uplo))
    parts = [list(range(7))[A.rows(k)] for k in range(3)]
    # several workers make tiles, in any order
    assert sorted(calls) == sorted((parts[i], parts[j]) for i, j in A.layout.tiles())


@pytest.mark.parametrize(("m", "n"), SHAPES)
def test_a_function_on_every_shape(m, n) -> None:
    A = TiledMatrix.from_function(lambda i, j: i[:, None] - 2.0 * j, (m, n), NB)
    np.testing.assert_array_equal(A.to_array(), np.arange(m)[:, None] - 2.0 * np.arange(n)[None, :])


@pytest.mark.parametrize("shape", [(3,), (), (3, 2), (2, 3), (3, 3, 1)])
def test_a_block_of_the_wrong_shape(shape) -> None:
    def f(rows, cols):
        return np.zeros(shape if rows[0] and cols[0] else (len(rows), len(cols)))

    with pytest.raises(ValueError, match=r"block \(1, 1\) has shape \(.*\), not \(3, 3\)"):
        TiledMatrix.from_function(f, (6, 6), 3)


def test_a_block_of_complex_numbers_in_a_real_matrix() -> None:
    def f(rows, cols):
        return np.zeros((len(rows), len(cols)), complex)

    with pytest.raises(TypeError, match=r"block \(0, 0\) has dtype complex128, not float64"):
        TiledMatrix.from_function(f, (3, 3), 3)
    assert TiledMatrix.from_function(f, (3, 3), 3, "c8").dtype == np.complex64


def test_an_error_in_the_function_is_raised() -> None:
    def f(rows, cols):
        raise ZeroDivisionError("no covariance here")

    with pytest.raises(ZeroDivisionError, match="no covariance here"):
        TiledMatrix.from_function(f, (3, 3), 2)


def test_tiles_may_be_made_in_any_order_and_by_threads() -> None:
    def threads(function, tiles):
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(function, *zip(*reversed(tiles), strict=True)))

    expected = TiledMatrix.random((50, 50), 7, uplo="lower").to_array()
    A = TiledMatrix.random((50, 50), 7, uplo="lower", map_tiles=threads)
    np.testing.assert_array_equal(A.to_array(), expected)
    B = TiledMatrix.from_array(np.asfortranarray(expected), 6, copy=True, map_tiles=threads)
    np.testing.assert_array_equal(B.to_array(), expected)


def test_who_makes_the_tiles_can_be_set_for_all() -> None:
    seen = []

    def recorder(function, tiles):
        seen.append(tiles)
        in_sequence(function, tiles)

    before = set_map_tiles(recorder)
    try:
        TiledMatrix.random((5, 5), 3)
        TiledMatrix.from_array([[1, 2]], 1, copy=True)
    finally:
        assert set_map_tiles(before) is recorder
    assert seen == [[(0, 0), (1, 0), (0, 1), (1, 1)], [(0, 0), (0, 1)]]


def test_engines_make_the_tiles() -> None:
    with engine("threads", workers=2) as threads:
        here = threading.get_ident()
        meet = threading.Barrier(2, timeout=60)
        seen = []

        def f(rows, cols):
            seen.append(threading.get_ident())
            meet.wait()  # only two workers at once get past this
            return np.zeros((len(rows), len(cols)))

        TiledMatrix.from_function(f, (4, 4), 2)
    assert threads.workers == 2
    assert here not in seen
    assert len(seen) == 4


def test_generate_makes_one_tile() -> None:
    A = TiledMatrix.zeros((5, 5), 2)
    generate(A, 1, 2, lambda i, j: np.ones((2, 1)))
    expected = np.zeros((5, 5))
    expected[2:4, 4] = 1
    np.testing.assert_array_equal(A.to_array(), expected)


# To an array -------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ["F", "C"])
def test_to_array_copies_or_not_as_asked(order) -> None:
    a = numbers(5, 7, order=order)
    A = TiledMatrix.from_array(a, 2)
    other = {"F": "C", "C": "F"}[order]
    assert not np.shares_memory(A.to_array(), a)
    for result in (
        A.to_array(),
        A.to_array(order),
        A.to_array(other),
        A.to_array(other, copy=None),
    ):
        np.testing.assert_array_equal(result, a)
    assert A.to_array().flags[f"{order}_CONTIGUOUS"]
    assert A.to_array(other).flags[f"{other}_CONTIGUOUS"]
    assert A.to_array(copy=False) is a
    assert A.to_array(order, copy=None) is a
    with pytest.raises(ValueError, match="copy"):
        A.to_array(other, copy=False)


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("uplo", UPLOS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("copy", [None, True])
def test_to_array_fills_the_other_triangle(n, uplo, dtype, copy) -> None:
    a = numbers(n, n, dtype)
    A = TiledMatrix.from_array(a, NB, uplo, copy)
    triangle = kept(a, uplo)
    strict = triangle - np.diag(np.diag(triangle))
    hermitian = strict + strict.conj().T + np.diag(np.diag(triangle).real)
    expected = {None: triangle, "triangle": triangle, "symmetric": strict.T + triangle}
    for fill, result in {**expected, "hermitian": hermitian}.items():
        for order in ("F", "C"):
            array = A.to_array(order, fill=fill)
            assert array.dtype == dtype
            assert array.flags[f"{order}_CONTIGUOUS"]
            np.testing.assert_array_equal(array, result)
    np.testing.assert_array_equal(A.to_array(), triangle)
    assert not np.shares_memory(A.to_array(), a)


def test_to_array_refuses_what_it_cannot_do() -> None:
    full, lower = TiledMatrix.zeros((3, 3), 2), TiledMatrix.zeros((3, 3), 2, uplo="lower")
    with pytest.raises(ValueError, match="order is 'A'"):
        full.to_array("A")
    with pytest.raises(ValueError, match="fill is 'symmetric'"):
        full.to_array(fill="symmetric")
    with pytest.raises(ValueError, match="fill is 'nan'; allowed"):
        lower.to_array(fill="nan")
    with pytest.raises(ValueError, match="copy is False"):
        lower.to_array(copy=False)


@given(
    m=st.integers(0, 30),
    n=st.integers(0, 30),
    nb=st.integers(1, 35),
    dtype=st.sampled_from(DTYPES),
    order=st.sampled_from("FC"),
    copy=st.sampled_from([None, True]),
)
def test_from_array_to_array_is_the_identity(m, n, nb, dtype, order, copy) -> None:
    a = numbers(m, n, dtype, order)
    result = TiledMatrix.from_array(a, nb, copy=copy).to_array()
    assert result.dtype == a.dtype
    np.testing.assert_array_equal(result, a)


# Others like it ----------------------------------------------------------------------------------


@pytest.mark.parametrize("uplo", [None, *UPLOS])
@pytest.mark.parametrize("order", ["F", "C"])
def test_copies_have_the_same_layout_and_their_own_memory(uplo, order) -> None:
    a = numbers(9, 9, order=order)
    A = TiledMatrix.from_array(a, NB, uplo)
    for B in (A.copy(), A.astype("c8"), A.like(), A.like("f4")):
        assert B.layout == A.layout
        assert B.order == (order if uplo is None else "F")
        assert not np.shares_memory(B.tile(1, 1).array, a)
    np.testing.assert_array_equal(A.copy().to_array(), kept(a, uplo))
    np.testing.assert_array_equal(A.astype("c8").to_array(), kept(a, uplo))
    assert [A.copy().dtype, A.astype("c8").dtype, A.like("f4").dtype] == ["f8", "c8", "f4"]


def test_astype_does_not_drop_imaginary_parts() -> None:
    with pytest.raises(TypeError, match="complex128, not float64"):
        TiledMatrix.random((2, 2), 2, "c16").astype("f8")


@pytest.mark.parametrize("uplo", [None, *UPLOS])
def test_pickle_and_deepcopy_leave_addresses_behind(uplo) -> None:
    A = TiledMatrix.random((9, 9), NB, uplo=uplo)
    address = A.tile(1, 1).pointer
    for B in (pickle.loads(pickle.dumps(A)), copy.deepcopy(A)):
        assert B.layout == A.layout
        assert B.tile(1, 1).pointer != address
        np.testing.assert_array_equal(B.to_array(), A.to_array())
        B.tile(1, 1).array[...] = 5
        assert not np.any(A.to_array() == 5)


# What it says about itself -----------------------------------------------------------------------


def test_maps() -> None:
    A = TiledMatrix.zeros((5, 9), 2, "c8")
    for values, expected in [(A.format_map, "fp32"), (A.owner_map, 0), (A.lr_rank_map, -1)]:
        assert values.shape == (3, 5)
        assert np.all(values == expected)
    assert np.all(TiledMatrix.zeros((5, 9), 2).format_map == "fp64")
    assert A.owner_map.dtype.kind == A.lr_rank_map.dtype.kind == "i"
    assert TiledMatrix.zeros((0, 9), 2).format_map.shape == (0, 5)


def test_repr() -> None:
    A = TiledMatrix.zeros((5, 5), 2, "f4", "upper")
    assert repr(A) == (
        "TiledMatrix(5 x 5 float32, nb=2, 3 x 3 tiles, uplo='upper', order='F', 68 bytes)"
    )
