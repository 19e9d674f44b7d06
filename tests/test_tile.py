import ctypes
from itertools import pairwise

import numpy as np
import pytest

from taskla.tile import Tile


def element(tile: Tile, i: int, j: int) -> int:
    """Address of element (i, j), by the definition of the order."""
    steps = i + j * tile.ld if tile.order == "F" else i * tile.ld + j
    return tile.pointer + steps * tile.array.itemsize


@pytest.mark.parametrize("dtype", ["f4", "f8", "c8", "c16", "i4"])
@pytest.mark.parametrize("order", ["F", "C"])
@pytest.mark.parametrize("rows", [slice(0, 6), slice(2, 5), slice(3, 4)])
@pytest.mark.parametrize("cols", [slice(0, 9), slice(1, 9), slice(8, 9)])
def test_a_view_describes_the_memory_of_its_array(dtype, order, rows, cols):
    whole = np.zeros((6, 9), dtype, order)
    view = whole[rows, cols]
    tile = Tile(view)
    assert tile.array is view
    assert tile.shape == (tile.rows, tile.cols) == view.shape
    assert (tile.order, tile.ld) == (order, 6 if order == "F" else 9)
    assert tile.pointer == view.ctypes.data
    last = tile.rows - 1, tile.cols - 1
    assert element(tile, *last) == view[last[0] :, last[1] :].ctypes.data


@pytest.mark.parametrize(
    ("array", "order", "ld"),
    [
        (np.zeros(5), "F", 5),
        (np.zeros(10).reshape(5, 2)[:, 0], "C", 2),
        (np.zeros((5, 1)), "F", 5),
        (np.zeros((1, 5)), "C", 5),
        (np.zeros((1, 10))[:, ::2], "F", 2),
        (np.zeros((4, 10), order="F")[1:2, ::2], "F", 8),
        (np.zeros((1, 1)), "F", 1),
        (np.zeros((0, 0)), "F", 1),
        (np.zeros((0, 3), order="F"), "F", 1),
        (np.zeros((3, 0), order="F"), "F", 3),
        (np.zeros((3, 0), order="C"), "F", 3),
        (np.zeros((6, 4), order="F")[:, ::3], "F", 18),
        (np.zeros((6, 4), order="C")[::3], "C", 12),
        (np.zeros((6, 4), order="C").T, "F", 4),
    ],
)
def test_vectors_empty_and_strided_arrays(array, order, ld):
    tile = Tile(array)
    assert (tile.order, tile.ld) == (order, ld)
    assert tile.ld >= max(1, tile.rows if tile.order == "F" else tile.cols)
    assert tile.pointer == array.ctypes.data


def test_a_vector_is_one_column():
    pivots = np.arange(4, dtype=np.int32)
    tile = Tile(pivots)
    tile.array[2, 0] = 9
    assert tile.shape == (4, 1)
    assert pivots[2] == 9


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((4, 4))[::2, ::2],
        np.zeros((4, 4))[::-1],
        np.zeros((4, 4))[:, ::-1],
        np.zeros((4, 4), order="F")[:, ::-1],
        np.broadcast_to(np.zeros(4), (4, 4)),
        np.broadcast_to(np.zeros((4, 1)), (4, 4)),
        np.zeros((4, 2), "f8, f4")["f0"],
    ],
    ids=[
        "both strided",
        "rows back",
        "columns back",
        "F back",
        "row again",
        "column again",
        "field",
    ],
)
def test_memory_without_a_unit_stride_is_refused(array):
    with pytest.raises(ValueError, match="strides"):
        Tile(array)


def test_three_dimensions_are_refused():
    with pytest.raises(ValueError, match="array has 3 dimensions"):
        Tile(np.zeros((2, 2, 2)))


def test_from_parts_takes_what_it_is_given():
    array = np.zeros((3, 4), order="F")
    derived = Tile(array)
    given = Tile.from_parts(array, derived.pointer, 3, 3, 4, "F")
    for name in Tile.__slots__:
        assert getattr(given, name) is getattr(derived, name) or (
            getattr(given, name) == getattr(derived, name)
        )


def cut(array, row_cuts, col_cuts):
    """Tiles of an array, column after column."""
    return [
        Tile(array[i0:i1, j0:j1]) for j0, j1 in pairwise(col_cuts) for i0, i1 in pairwise(row_cuts)
    ]


@pytest.mark.parametrize("order", ["F", "C"])
@pytest.mark.parametrize("rows", [[0, 4, 8, 11], [4, 8], [3, 5, 6]])
@pytest.mark.parametrize("cols", [[0, 5, 7], [5, 7], [2, 4, 6, 7]])
def test_neighbours_merge(order, rows, cols):
    array = np.arange(77.0).reshape(11, 7).copy(order)
    tiles = cut(array, rows, cols)
    merged = Tile.merge(tiles, (len(rows) - 1, len(cols) - 1))
    assert merged is not None
    expected = array[rows[0] : rows[-1], cols[0] : cols[-1]]
    np.testing.assert_array_equal(merged.array, expected)
    assert merged.pointer == expected.ctypes.data
    assert (merged.order, merged.ld) == (order, 11 if order == "F" else 7)
    assert merged.shape == expected.shape
    merged.array[-1, -1] = -1
    assert array[rows[-1] - 1, cols[-1] - 1] == -1


def test_merged_tiles_merge_again_and_keep_their_memory():
    array = np.arange(64.0).reshape(8, 8).copy("F")
    left = Tile.merge(cut(array, [0, 4, 8], [0, 4]), (2, 1))
    right = Tile.merge(cut(array, [0, 4, 8], [4, 8]), (2, 1))
    whole = Tile.merge([left, right], (1, 2))
    expected = array.copy()
    del array, left, right
    np.testing.assert_array_equal(whole.array, expected)


def test_one_tile_is_its_own_merger():
    tile = Tile(np.zeros((3, 3)))
    assert Tile.merge([tile], (1, 1)) is tile


def test_strangers_do_not_merge():
    a = np.zeros((8, 8), order="F")
    b = np.zeros((8, 8), order="F")
    top, bottom = cut(a, [0, 4, 8], [0, 8])
    assert Tile.merge([top, bottom], (2, 1)) is not None
    # swapped, a gap, an overlap
    assert Tile.merge([bottom, top], (2, 1)) is None
    assert Tile.merge([top, Tile(a[5:])], (2, 1)) is None
    assert Tile.merge([top, Tile(a[3:])], (2, 1)) is None
    # another array, another order, another width
    assert Tile.merge([top, Tile(b[4:])], (2, 1)) is None
    assert Tile.merge([top, Tile(np.zeros((4, 8)))], (2, 1)) is None
    assert Tile.merge([top, Tile(a[4:, :7])], (2, 1)) is None
    # rows that do not line up across columns
    assert Tile.merge([*cut(a, [0, 4, 8], [0, 4]), *cut(a, [0, 5, 8], [4, 8])], (2, 2)) is None


def test_separate_arrays_that_happen_to_touch_do_not_merge():
    memory = (ctypes.c_double * 32)()
    halves = [
        (ctypes.c_double * 16).from_address(ctypes.addressof(memory) + offset)
        for offset in (0, 128)
    ]
    tiles = [Tile(np.frombuffer(half).reshape(4, 4, order="F")) for half in halves]
    assert tiles[0].pointer + 4 * tiles[0].ld * 8 == tiles[1].pointer
    assert Tile.merge(tiles, (1, 2)) is None


def test_merge_wants_as_many_tiles_as_its_shape():
    tile = Tile(np.zeros((2, 2)))
    with pytest.raises(ValueError, match=r"length 1, shape \(2, 1\)"):
        Tile.merge([tile], (2, 1))
    with pytest.raises(ValueError, match="length 0"):
        Tile.merge([], (0, 3))


def test_repr_tells_what_blas_needs():
    assert repr(Tile(np.zeros((3, 4), "f4"))) == "Tile(3 x 4 float32, order='C', ld=4)"
