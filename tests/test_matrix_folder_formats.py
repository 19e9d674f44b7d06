"""A folder of tiles keeps their formats, and what is refused when it is damaged."""

import json
import math
import os
import struct
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, strategies as st

from taskla import matrix_folder
from taskla.formats import FORMATS
from taskla.matrix import TiledMatrix
from taskla.precision import NAMES
from taskla.rounding import unpack

DTYPES = ["f4", "f8", "c8", "c16"]


def entries(shape, dtype, seed=0):
    """Numbers of many magnitudes, small ones to the right."""
    rng = np.random.default_rng(seed)
    a = rng.normal(size=shape) * 10.0 ** rng.integers(-6, 6, shape)
    if np.dtype(dtype).kind == "c":
        a = a + 1j * rng.normal(size=shape)
    return (a * 10.0 ** -np.arange(shape[1])).astype(dtype)


def same(A, B):
    """Whether two matrices have the same formats, bits and scales."""
    assert (A.layout, A.dtype, A.nbytes) == (B.layout, B.dtype, B.nbytes)
    np.testing.assert_array_equal(A.format_map, B.format_map)
    assert A.own_tiles() == B.own_tiles()
    for i, j in A.own_tiles():
        a, b = A.packed(i, j), B.packed(i, j)
        assert (a.format, a.scale, a.numbers.dtype) == (b.format, b.scale, b.numbers.dtype)
        assert a.numbers.tobytes("F") == b.numbers.tobytes("F"), (i, j)


@pytest.fixture
def saved(tmp_path):
    """A folder of 3 x 3 tiles of four formats, and its matrix."""
    A = TiledMatrix.from_array(entries((9, 9), "f8"), 4, precision=[
        ["fp64", "fp16", "bf16"], ["fp32", "fp64", "fp16"], ["bf16", "fp32", "fp64"]
    ])  # fmt: skip
    A.save(tmp_path / "tiles")
    return tmp_path / "tiles", A


def rewrite(path, **change):
    """Change fields of a header."""
    header = json.loads((path / "header.json").read_text())
    (path / "header.json").write_text(json.dumps({**header, **change}))


# What is kept ------------------------------------------------------------------------------------


@pytest.mark.parametrize("uplo", [None, "lower", "upper"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", NAMES)
def test_every_format_is_kept_to_the_bit(tmp_path, name, dtype, uplo) -> None:
    A = TiledMatrix.from_array(entries((11, 11), dtype), 4, uplo, precision=name)
    A.save(tmp_path / "a")
    B = TiledMatrix.load(tmp_path / "a")
    same(A, B)
    assert (B.uplo, B.writeable) == (uplo, True)
    assert B.to_array().tobytes() == A.to_array().tobytes()
    whole = [file for file in (tmp_path / "a").iterdir() if file.name.startswith("tile")]
    size = FORMATS[name].nbytes * (2 if B.dtype.kind == "c" else 1)
    # NumPy's header, and a scale
    assert sum(file.stat().st_size for file in whole) <= A.nbytes + 136 * len(whole)
    assert A.nbytes == A.layout.entries * min(size, A.dtype.itemsize)


@given(
    st.integers(0, 9),
    st.integers(0, 9),
    st.integers(1, 5),
    st.sampled_from(DTYPES),
    st.sampled_from([None, "lower", "upper"]),
    st.integers(0, 2**32 - 1),
)
def test_any_map_is_kept(m, n, nb, dtype, uplo, seed) -> None:
    n = m if uplo else n
    rng = np.random.default_rng(seed)
    a = entries((m, n), dtype, seed)
    a[rng.random((m, n)) < 0.1] = rng.choice([0.0, -0.0, np.inf, np.nan, 0.5, 1e-30])
    grid = -(-m // nb), -(-n // nb)
    # an array of no names has no type that says so
    names = rng.choice(NAMES, grid) if min(grid) else "fp16"
    A = TiledMatrix.from_array(a, nb, uplo, precision=names)
    with tempfile.TemporaryDirectory() as folder:
        A.save(Path(folder) / "a")
        B = TiledMatrix.load(Path(folder) / "a")
        same(A, B)
        # and again what is read was not mapped to a file that may go
        B.save(Path(folder) / "a")
        same(A, TiledMatrix.load(Path(folder) / "a"))


def test_a_scale_is_kept_that_the_rounded_numbers_would_not_have(tmp_path) -> None:
    a = np.full((2, 2), 0.5 + 2.0**-30)
    A = TiledMatrix.from_array(a, 2, precision="fp16")
    assert A.packed(0, 0).scale == 1.0
    assert A.copy().with_precision("fp16").packed(0, 0).scale == 2.0
    A.save(tmp_path / "a")
    assert TiledMatrix.load(tmp_path / "a").packed(0, 0).scale == 1.0


def test_the_folder_format(saved) -> None:
    path, A = saved
    assert json.loads((path / "header.json").read_text()) == {
        "format": "taskla-tiles",
        "version": 2,
        "shape": [9, 9],
        "nb": 4,
        "dtype": "float64",
        "uplo": None,
        "order": "F",
        "formats": ["fp64 fp16 bf16", "fp32 fp64 fp16", "bf16 fp32 fp64"],
    }
    held = np.load(path / "tile_0001_0000.npy", allow_pickle=False)
    assert held.dtype == np.float32
    np.testing.assert_array_equal(held, A.tile(1, 0).array)
    packed = np.load(path / "tile_0000_0001.npy", allow_pickle=False).tobytes()
    scale, numbers = np.frombuffer(packed[:8], "<f8"), np.frombuffer(packed[8:], "<f2")
    np.testing.assert_array_equal(numbers.reshape(4, 4).T / scale, A.tile(0, 1).array)
    packed = np.load(path / "tile_0000_0002.npy", allow_pickle=False).tobytes()
    assert len(packed) == 8 + 2 * 4
    upper = np.frombuffer(packed[8:], "<u2").astype("<u4") << 16
    np.testing.assert_array_equal(upper.view("<f4").reshape(4, 1), A.tile(0, 2).array)


def test_a_matrix_without_formats_of_its_own_is_written_as_ever(tmp_path) -> None:
    TiledMatrix.random((4, 4), 2).save(tmp_path / "a")
    assert json.loads((tmp_path / "a" / "header.json").read_text())["version"] == 1
    # what is not of that version is not looked at
    rewrite(tmp_path / "a", formats="nonsense")
    assert TiledMatrix.load(tmp_path / "a").mixed is None


def test_one_triangle_of_a_whole_matrix_keeps_its_formats(saved) -> None:
    path, A = saved
    for uplo in ("lower", "upper"):
        B = TiledMatrix.load(path, uplo=uplo)
        expected = np.tril(A.to_array()) if uplo == "lower" else np.triu(A.to_array())
        np.testing.assert_array_equal(B.to_array(), expected)
        for i, j in B.own_tiles():
            assert B.format_map[i, j] == B.format_map[j, i] == A.format_map[i, j]
            assert i == j or B.packed(i, j).scale == A.packed(i, j).scale


@pytest.mark.parametrize("nb", [1, 3, 5, 100])
def test_other_tiles_are_in_the_type_of_the_matrix(saved, nb) -> None:
    path, A = saved
    B = TiledMatrix.load(path, nb)
    assert (B.mixed, B.dtype) == (None, np.float64)
    np.testing.assert_array_equal(B.to_array(), A.to_array())
    assert TiledMatrix.load(path, 4, mmap=False).mixed is not None
    with pytest.raises(ValueError, match="mmap is 'r'; only"):
        TiledMatrix.load(path, mmap="r")


@pytest.mark.parametrize("name", ["a.npy", "a.mtx"])
def test_a_file_has_no_formats(saved, tmp_path, name) -> None:
    A = saved[1]
    A.save(tmp_path / name)
    B = TiledMatrix.load(tmp_path / name, 4)
    assert (B.mixed, B.dtype) == (None, A.dtype)
    np.testing.assert_array_equal(B.to_array(), A.to_array())


def test_the_unused_half_of_a_diagonal_tile_is_neither_written_nor_read(tmp_path) -> None:
    A = TiledMatrix.from_array(np.ones((4, 4)), 4, "lower", precision="fp16")
    expected = A.to_array()
    A.mixed.packed(0, 0).numbers[0, 3] = 7
    assert A.mixed.packed(0, 0).numbers[0, 3] == 7
    A.save(tmp_path / "a")
    file = tmp_path / "a" / "tile_0000_0000.npy"
    held = np.load(file)
    assert not held[8:].view(np.float16).reshape(4, 4).T[0, 3]
    held[8:].view(np.float16)[3 * 4] = np.nan
    np.save(file, held)
    for nb in (4, 2):
        B = TiledMatrix.load(tmp_path / "a", nb)
        np.testing.assert_array_equal(B.to_array(), expected)
        assert np.isfinite(B.tile(0, 0).array).all()


def test_a_folder_of_formats_is_replaced_whole_or_not_at_all(saved, monkeypatch) -> None:
    path, A = saved
    monkeypatch.setattr(matrix_folder, "_LONGEST_HEADER", 100)
    with pytest.raises(ValueError, match="3 x 3 tiles are too many for one folder"):
        A.save(path.with_name("new"))
    with pytest.raises(ValueError, match=r"header\.json: longer than 100 bytes"):
        TiledMatrix.load(path)
    monkeypatch.undo()
    B = TiledMatrix.from_array(np.ones((6, 6)), 4, precision="fp8_e5m2")
    with monkeypatch.context() as patched:
        patched.setattr(np, "save", lambda *_, **__: (_ for _ in ()).throw(OSError("disk full")))
        with pytest.raises(OSError, match="disk full"):
            B.save(path)
    same(A, TiledMatrix.load(path))
    assert os.listdir(path.parent) == [path.name]
    B.save(path)
    same(B, TiledMatrix.load(path))


# What is refused ---------------------------------------------------------------------------------

ROW = "fp64 fp16 bf16"
FIELDS = {
    "a newer version": ({"version": 3}, "version is 3; this program reads 1 and 2"),
    "no formats": ({"formats": None}, "formats is None; it must be a list of strings"),
    "a string": ({"formats": ROW}, "formats is fp64 fp16 bf16; it must"),
    "lists": ({"formats": [ROW.split()] * 3}, "must be a list of strings"),
    "too few rows": ({"formats": [ROW] * 2}, "has 2 lines of formats; there must be 3 of 3"),
    "too many rows": ({"formats": [ROW] * 4}, "has 4 lines of formats; there must be 3 of 3"),
    "a short row": ({"formats": [ROW, ROW, "fp16"]}, "line 3 of formats has 1 names"),
    "a long row": ({"formats": [ROW, ROW + " fp16", ROW]}, "line 2 of formats has 4 names"),
    "no format": ({"formats": [ROW, ROW, "fp16 fp7 fp16"]}, "format is 'fp7'; allowed"),
    "a wide one": ({"dtype": "float32"}, "formats has fp64, which is wider than float32"),
    "huge": ({"shape": [10**15, 10**15], "nb": 1}, "has 3 lines of formats; there must be 10000"),
}


@pytest.mark.parametrize(("change", "message"), FIELDS.values(), ids=FIELDS)
def test_the_formats_of_the_header_are_checked(saved, change, message) -> None:
    path, A = saved
    rewrite(path, **change)
    with pytest.raises(ValueError, match=rf"header\.json: .*{message}"):
        TiledMatrix.load(path)
    with pytest.raises(FileExistsError, match="not replaced"):
        A.save(path)


TILES = {
    "of the matrix's type": np.zeros((4, 4)),
    "one byte less": np.zeros(8 + 31, np.uint8),
    "one byte more": np.zeros(8 + 33, np.uint8),
    "without a scale": np.zeros(32, np.uint8),
    "signed": np.zeros(40, np.int8),
    "in two dimensions": np.zeros((40, 1), np.uint8),
    "half": np.zeros((4, 4), np.float16),
}


@pytest.mark.parametrize("nb", [4, 3])
@pytest.mark.parametrize("tile", TILES.values(), ids=TILES)
def test_a_tile_that_is_not_as_its_format_stores_it(saved, tile, nb) -> None:
    path, _ = saved
    np.save(path / "tile_0000_0001.npy", tile)
    with pytest.raises(
        ValueError,
        match=r"tile_0000_0001\.npy: holds .* asks for uint8 of shape \(40,\), as fp16 of shape"
        r" \(4, 4\) is stored",
    ):
        TiledMatrix.load(path, nb)


@pytest.mark.parametrize("dtype", ["f8", "f2", "c8"])
def test_a_tile_of_another_type_than_its_format(saved, dtype) -> None:
    path, _ = saved
    np.save(path / "tile_0001_0000.npy", np.zeros((4, 4), dtype))
    with pytest.raises(
        ValueError, match=r"tile_0001_0000\.npy: holds .* asks for float32 of shape"
    ):
        TiledMatrix.load(path)


@pytest.mark.parametrize("scale", [np.inf, -np.inf, np.nan, 0.0, -2.0, 3.0, 2.0**-1074 * 3])
def test_a_scale_that_is_none(saved, scale) -> None:
    path, _ = saved
    file = path / "tile_0000_0001.npy"
    held = np.load(file)
    held[:8].view("f8")[:] = scale
    np.save(file, held)
    with pytest.raises(ValueError, match=r"tile_0000_0001\.npy: scale is .*; allowed: powers of"):
        TiledMatrix.load(path)


@pytest.mark.parametrize("damage", [lambda b: b[:-1], lambda b: b"", lambda b: b[:130]])
def test_a_truncated_tile(saved, damage) -> None:
    path, _ = saved
    file = path / "tile_0000_0001.npy"
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(ValueError, match=r"tile_0000_0001\.npy: not a readable \.npy file"):
        TiledMatrix.load(path)


def test_a_missing_tile_and_one_of_objects(saved) -> None:
    path, _ = saved
    file = path / "tile_0000_0001.npy"
    np.save(file, np.array([{}] * 40, object), allow_pickle=True)
    with pytest.raises(ValueError, match=r"tile_0000_0001\.npy"):
        TiledMatrix.load(path)
    file.unlink()
    with pytest.raises(ValueError, match=r"tile_0000_0001\.npy is missing"):
        TiledMatrix.load(path)


@given(
    st.binary(min_size=8, max_size=8)
    | st.integers(-1074, 1023).map(lambda k: struct.pack("d", 2.0**k)),
    st.binary(min_size=32, max_size=32),
)
def test_any_bytes_are_numbers_or_refused(scale, numbers) -> None:
    (factor,) = struct.unpack("d", scale)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a"
        TiledMatrix.from_array(np.ones((4, 4)), 4, precision="fp16").save(path)
        np.save(path / "tile_0000_0000.npy", np.frombuffer(scale + numbers, np.uint8))
        if math.frexp(factor)[0] != 0.5:
            with pytest.raises(ValueError, match=r"tile_0000_0000\.npy: scale is"):
                TiledMatrix.load(path)
            return
        A = TiledMatrix.load(path)
    held = np.frombuffer(numbers, "f2").reshape(4, 4).T
    np.testing.assert_array_equal(A.tile(0, 0).array, unpack(held, "fp16", factor))
