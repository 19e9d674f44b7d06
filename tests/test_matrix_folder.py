"""The folder of tiles: its format, and what is refused when it is damaged."""

import json
import os

import numpy as np
import pytest

from taskla.matrix import TiledMatrix
from taskla.matrix_layout import choose_nb

NB = 4


@pytest.fixture
def saved(tmp_path):
    """A folder with one 14 x 14 matrix of 4 x 4 tiles, and that matrix."""
    A = TiledMatrix.random((14, 14), NB, seed=1)
    A.save(tmp_path / "tiles")
    return tmp_path / "tiles", A


def test_the_folder_format(saved) -> None:
    path, A = saved
    names = [f"tile_{i:04d}_{j:04d}.npy" for i in range(4) for j in range(4)]
    assert sorted(os.listdir(path)) == ["header.json", *names]
    assert json.loads((path / "header.json").read_text()) == {
        "format": "taskla-tiles",
        "version": 1,
        "shape": [14, 14],
        "nb": NB,
        "dtype": "float64",
        "uplo": None,
        "order": "F",
    }
    tile = np.load(path / "tile_0003_0001.npy", allow_pickle=False)
    np.testing.assert_array_equal(tile, A.tile(3, 1).array)


def test_a_folder_keeps_its_tile_size_and_order(tmp_path) -> None:
    a = TiledMatrix.random((9, 7), 3).to_array("C")
    TiledMatrix.from_array(a, 3).save(tmp_path / "a")
    A = TiledMatrix.load(tmp_path / "a")
    assert (A.nb, A.order) == (3, "C")
    TiledMatrix.from_array(a, 3).save(tmp_path / "a.npy")
    assert TiledMatrix.load(tmp_path / "a.npy").nb == choose_nb(9)


def test_a_folder_of_one_triangle_has_half_the_tiles(tmp_path) -> None:
    TiledMatrix.random((9, 9), 3, uplo="lower").save(tmp_path / "a")
    assert len(os.listdir(tmp_path / "a")) == 1 + 6
    assert not (tmp_path / "a" / "tile_0000_0001.npy").exists()
    with pytest.raises(ValueError, match="a: holds the lower triangle; uplo is 'upper'"):
        TiledMatrix.load(tmp_path / "a", uplo="upper")


def test_the_unused_half_of_a_diagonal_tile_is_neither_written_nor_read(tmp_path) -> None:
    A = TiledMatrix.random((4, 4), NB, uplo="lower")
    expected = A.to_array()
    A.tile(0, 0).array[0, 3] = np.nan
    A.save(tmp_path / "a")
    tile = np.load(tmp_path / "a" / "tile_0000_0000.npy")
    np.testing.assert_array_equal(tile, expected)
    tile[0, 3] = np.nan
    np.save(tmp_path / "a" / "tile_0000_0000.npy", tile)
    for nb in (4, 3, 2):
        B = TiledMatrix.load(tmp_path / "a", nb)
        np.testing.assert_array_equal(B.tile(0, 0).array, expected[:nb, :nb])


HEADERS = {
    "another format": ({"format": "zarr"}, "not the header of a folder of tiles"),
    "a newer version": ({"version": 3}, "version is 3; this program reads 1 and 2"),
    "no version": ({"version": None}, "version is None"),
    "one size": ({"shape": [14]}, "shape is"),
    "negative size": ({"shape": [-14, 14]}, "shape is"),
    "huge size": ({"shape": [10**30, 14]}, "shape is"),
    "float size": ({"shape": [14.0, 14]}, "shape is"),
    "bool size": ({"shape": [True, 14]}, "shape is"),
    "string size": ({"shape": "14"}, "shape is"),
    "nb 0": ({"nb": 0}, "nb is 0"),
    "nb absurd": ({"nb": 10**30}, "nb is 1000"),
    "nb a string": ({"nb": "4"}, "nb is '4'"),
    "nb missing": ({"nb": None}, "nb is None"),
    "dtype": ({"dtype": "object"}, "dtype is 'object'; allowed"),
    "dtype no name": ({"dtype": ["f8"]}, "dtype is"),
    "dtype of a structure": ({"dtype": "f8,f8"}, "dtype is"),
    "uplo": ({"uplo": "L"}, "uplo is 'L'"),
    "uplo a list": ({"uplo": ["lower"]}, "uplo is"),
    "triangle not square": ({"uplo": "lower", "shape": [14, 13]}, "square"),
    "order": ({"order": "K"}, "order is 'K'"),
    "order a list": ({"order": []}, "order is"),
}


@pytest.mark.parametrize(("change", "message"), HEADERS.values(), ids=HEADERS)
def test_each_field_of_the_header_is_checked(saved, change, message) -> None:
    path, _ = saved
    header = json.loads((path / "header.json").read_text())
    (path / "header.json").write_text(json.dumps({**header, **change}))
    with pytest.raises(ValueError, match=rf"header\.json: .*{message}"):
        TiledMatrix.load(path)


@pytest.mark.parametrize(
    "text", [b"", b"{", b"[]", b"7", b"null", b"\xff\xfe", b"[" * 4000, b" " * 5000]
)
def test_headers_that_are_none(saved, text) -> None:
    path, A = saved
    (path / "header.json").write_bytes(text)
    with pytest.raises(ValueError, match=r"header\.json: (not|longer)"):
        TiledMatrix.load(path)
    with pytest.raises(FileExistsError, match="not replaced"):
        A.save(path)


def test_folders_of_something_else(tmp_path) -> None:
    (tmp_path / "a.npy").mkdir()
    with pytest.raises(ValueError, match=r"a\.npy: not a folder of tiles, it has no header\.json"):
        TiledMatrix.load(tmp_path / "a.npy")
    with pytest.raises(FileExistsError, match="not replaced"):
        TiledMatrix.zeros((2, 2), 1).save(tmp_path / "a.npy")


def test_sizes_that_the_tiles_do_not_bear_out_allocate_nothing(saved) -> None:
    path, _ = saved
    header = json.loads((path / "header.json").read_text())
    for change in ({"shape": [10**15, 10**15], "nb": 1}, {"shape": [10**9, 14]}):
        (path / "header.json").write_text(json.dumps({**header, **change}))
        with pytest.raises(ValueError, match=r"tile_\d+_\d+\.npy"):
            TiledMatrix.load(path)


def test_a_missing_tile(saved) -> None:
    path, _ = saved
    (path / "tile_0002_0003.npy").unlink()
    with pytest.raises(ValueError, match=r"tiles: tile_0002_0003\.npy is missing"):
        TiledMatrix.load(path)
    os.mkfifo(path / "tile_0002_0003.npy")
    with pytest.raises(ValueError, match=r"tile_0002_0003\.npy is missing"):
        TiledMatrix.load(path)


@pytest.mark.parametrize(
    "tile",
    [
        np.zeros((4, 3)),
        np.zeros((4, 4), "f4"),
        np.zeros((4, 4), ">f8"),
        np.zeros(16),
        np.zeros((4, 4), "i8"),
        np.zeros((1, 1)),
    ],
)
def test_a_tile_that_is_not_as_the_header_says(saved, tile) -> None:
    path, _ = saved
    np.save(path / "tile_0000_0001.npy", tile)
    with pytest.raises(
        ValueError, match=r"tile_0000_0001\.npy: holds .* asks for float64 of shape \(4, 4\)"
    ):
        TiledMatrix.load(path)


@pytest.mark.parametrize("damage", [lambda b: b[:-1], lambda b: b"", lambda b: b[:100]])
def test_a_truncated_tile(saved, damage) -> None:
    path, _ = saved
    file = path / "tile_0001_0001.npy"
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(ValueError, match=r"tile_0001_0001\.npy: not a readable \.npy file"):
        TiledMatrix.load(path)


def test_a_tile_with_pickled_objects_is_not_unpickled(saved) -> None:
    class Bomb:
        def __reduce__(self):
            return os.mkdir, (str(saved[0] / "exploded"),)

    tile = np.empty((4, 4), object)
    tile[0, 0] = Bomb()
    np.save(saved[0] / "tile_0000_0000.npy", tile, allow_pickle=True)
    with pytest.raises(ValueError, match=r"tile_0000_0000\.npy"):
        TiledMatrix.load(saved[0])
    assert not (saved[0] / "exploded").exists()
