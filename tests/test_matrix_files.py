"""Matrices in files: what is saved is loaded, maps are views, damaged files are named."""

import os
import stat

import numpy as np
import pytest
import scipy.io
from hypothesis import given, strategies as st

from taskla import atomic
from taskla.matrix import TiledMatrix

NB = 4
DTYPES = ["f4", "f8", "c8", "c16"]
SHAPES = [(0, 0), (0, 5), (5, 0), (1, 1), (3, 3), (4, 4), (5, 5), (14, 3), (3, 14), (14, 14)]
UPLOS = ["lower", "upper"]


def kept(a, uplo):
    return {None: lambda a: a, "lower": np.tril, "upper": np.triu}[uplo](a)


def same_bits(a, b):
    return a.shape == b.shape and a.dtype == b.dtype and a.tobytes() == b.tobytes()


@pytest.fixture
def saved(tmp_path):
    """A folder with one 14 x 14 matrix of 4 x 4 tiles, and that matrix."""
    A = TiledMatrix.random((14, 14), NB, seed=1)
    A.save(tmp_path / "tiles")
    return tmp_path / "tiles", A


# Every kind --------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ["F", "C"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", ["a.npy", "a.mtx", "a.tiles"])
def test_what_is_saved_is_loaded(tmp_path, name, shape, dtype, order) -> None:
    a = TiledMatrix.random(shape, NB, dtype).to_array(order)
    TiledMatrix.from_array(a, NB).save(tmp_path / name)
    A = TiledMatrix.load(tmp_path / name, nb=3)
    assert (A.shape, A.nb, A.uplo, A.writeable) == (shape, 3, None, True)
    if name == "a.mtx":
        assert A.dtype == (np.complex128 if np.dtype(dtype).kind == "c" else np.float64)
        A = A.astype(dtype)
    assert same_bits(A.to_array(), a)
    if name != "a.mtx" and a.size and min(shape) > 1:
        assert A.order == order
    assert os.listdir(tmp_path) == [name]


@pytest.mark.parametrize("own_memory", [True, False])
@pytest.mark.parametrize("uplo", UPLOS)
@pytest.mark.parametrize("n", [0, 1, 4, 14])
@pytest.mark.parametrize("name", ["a.npy", "a.mtx", "a.tiles"])
def test_a_triangle_is_saved_and_loaded(tmp_path, name, n, uplo, own_memory) -> None:
    a = TiledMatrix.random((n, n), NB, "c16").to_array()
    TiledMatrix.from_array(a, NB, uplo, copy=own_memory or None).save(tmp_path / name)
    for nb in (NB, 3, 20):
        A = TiledMatrix.load(tmp_path / name, nb, uplo=uplo)
        assert (A.uplo, A.nb) == (uplo, nb)
        assert same_bits(A.to_array(), kept(a, uplo))
    if name == "a.tiles":
        assert TiledMatrix.load(tmp_path / name).uplo == uplo
    else:
        full = TiledMatrix.load(tmp_path / name, NB)
        assert full.uplo is None
        assert same_bits(full.to_array(), kept(a, uplo))


@pytest.mark.parametrize("uplo", UPLOS)
@pytest.mark.parametrize("name", ["a.npy", "a.mtx", "a.tiles"])
@pytest.mark.parametrize("mmap", [True, False])
def test_one_triangle_of_a_full_matrix_is_loaded(tmp_path, name, uplo, mmap) -> None:
    A = TiledMatrix.random((14, 14), NB)
    A.save(tmp_path / name)
    B = TiledMatrix.load(tmp_path / name, NB, mmap, uplo)
    np.testing.assert_array_equal(B.to_array(), kept(A.to_array(), uplo))
    with pytest.raises(IndexError):
        B.tile(*((0, 1) if uplo == "lower" else (1, 0)))


@given(m=st.integers(0, 20), n=st.integers(0, 20), nb=st.integers(1, 25), new=st.integers(1, 25))
def test_a_folder_is_read_with_any_tile_size(tmp_path_factory, m, n, nb, new) -> None:
    path = tmp_path_factory.mktemp("folder") / "a"
    A = TiledMatrix.random((m, n), nb)
    A.save(path)
    B = TiledMatrix.load(path, new)
    assert B.nb == new
    np.testing.assert_array_equal(B.to_array(), A.to_array())


@pytest.mark.parametrize("name", ["a.npy", "a.mtx", "a.tiles"])
def test_special_values_survive(tmp_path, name) -> None:
    a = np.array([[np.nan, np.inf, -np.inf], [5e-324, 1.7976931348623157e308, 0.1]])
    TiledMatrix.from_array(a, 2).save(tmp_path / name)
    np.testing.assert_array_equal(TiledMatrix.load(tmp_path / name, 2).to_array(), a)


@pytest.mark.parametrize("name", ["a.npy", "a.mtx", "a.tiles"])
def test_saving_again_replaces(tmp_path, name) -> None:
    TiledMatrix.zeros((9, 9), 2).save(tmp_path / name)
    A = TiledMatrix.random((5, 5), 3)
    A.save(tmp_path / name)
    np.testing.assert_array_equal(TiledMatrix.load(tmp_path / name, 3).to_array(), A.to_array())
    assert os.listdir(tmp_path) == [name]


@pytest.mark.parametrize("name", ["a.npy", "a.tiles"])
def test_a_matrix_may_be_saved_over_the_file_it_came_from(tmp_path, name) -> None:
    expected = TiledMatrix.random((9, 9), 2)
    expected.save(tmp_path / name)
    A = TiledMatrix.load(tmp_path / name, 2)
    A.tile(0, 0).array[...] = 0
    expected.tile(0, 0).array[...] = 0
    A.save(tmp_path / name)
    for B in (A, TiledMatrix.load(tmp_path / name, 2)):
        np.testing.assert_array_equal(B.to_array(), expected.to_array())


@pytest.mark.parametrize("name", ["a.npy", "a.mtx", "a.tiles"])
def test_a_failure_leaves_what_was_there(tmp_path, name, monkeypatch) -> None:
    old = TiledMatrix.random((5, 5), 3)
    old.save(tmp_path / name)

    def fail(path):
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        TiledMatrix.zeros((5, 5), 3).save(tmp_path / name)
    assert os.listdir(tmp_path) == [name]
    np.testing.assert_array_equal(TiledMatrix.load(tmp_path / name, 3).to_array(), old.to_array())


def test_a_folder_is_put_back_if_the_new_one_cannot_take_its_place(saved, monkeypatch) -> None:
    path, A = saved
    rename = type(path).rename

    def fail(self, target):
        if target == path and (self / "tile_0000_0001.npy").exists() and self.name == "new":
            raise OSError("no")
        return rename(self, target)

    new = path.with_name("new")
    A.save(new)
    monkeypatch.setattr(type(path), "rename", fail)
    with pytest.raises(OSError, match="no"):
        atomic.swap(new, path)
    np.testing.assert_array_equal(TiledMatrix.load(path).to_array(), A.to_array())
    assert sorted(os.listdir(path.parent)) == ["new", "tiles"]


@pytest.mark.parametrize("name", ["a.npy", "a.mtx", "a.tiles"])
def test_links_stay_and_modes_are_those_of_new_files(tmp_path, name) -> None:
    target = tmp_path / f"target-of-{name}"
    TiledMatrix.zeros((2, 2), 1).save(target)
    (tmp_path / name).symlink_to(target)
    A = TiledMatrix.random((3, 3), 2)
    A.save(tmp_path / name)
    assert (tmp_path / name).is_symlink()
    np.testing.assert_array_equal(TiledMatrix.load(target, 2).to_array(), A.to_array())
    (tmp_path / "plain").touch()
    (tmp_path / "folder").mkdir()
    like = tmp_path / ("folder" if target.is_dir() else "plain")
    assert stat.S_IMODE(target.stat().st_mode) == stat.S_IMODE(like.stat().st_mode)


@pytest.mark.parametrize("name", ["a.npy", "a.mtx", "a.tiles"])
def test_paths_that_cannot_be_saved_to(tmp_path, name) -> None:
    A = TiledMatrix.zeros((2, 2), 1)
    with pytest.raises(FileNotFoundError, match="absent: no such folder"):
        A.save(tmp_path / "absent" / name)
    (tmp_path / name).mkdir()
    (tmp_path / name / "thesis.tex").write_text("years of work")
    with pytest.raises(FileExistsError, match=r"a\.\w+: .*not replaced"):
        A.save(tmp_path / name)
    assert (tmp_path / name / "thesis.tex").read_text() == "years of work"
    assert os.listdir(tmp_path) == [name]


@pytest.mark.parametrize("name", ["x.txt", "x.npz", "x.npy.gz", "factor.v2"])
def test_unknown_extensions_are_not_saved_to(tmp_path, name) -> None:
    with pytest.raises(ValueError, match=r"allowed: \.npy, \.mtx, and none or \.tiles"):
        TiledMatrix.zeros((2, 2), 1).save(tmp_path / name)
    assert os.listdir(tmp_path) == []


def test_a_folder_of_tiles_does_not_replace_a_file(tmp_path) -> None:
    (tmp_path / "a").write_text("mine")
    with pytest.raises(FileExistsError, match="a: exists and is not a folder of tiles"):
        TiledMatrix.zeros((2, 2), 1).save(tmp_path / "a")
    assert (tmp_path / "a").read_text() == "mine"


def test_a_folder_of_tiles_with_other_files_is_not_replaced(saved) -> None:
    path, A = saved
    (path / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match=r"holds 'notes.txt' beside its tiles"):
        A.save(path)
    assert (path / "notes.txt").exists()


def test_nothing_to_load(tmp_path) -> None:
    for name in ("a.npy", "a.mtx", "a"):
        with pytest.raises(FileNotFoundError, match=f"{name}: no such file or folder"):
            TiledMatrix.load(tmp_path / name)


@pytest.mark.parametrize("name", ["a.csv", "a", "a.npz", "npy"])
def test_other_files_are_refused(tmp_path, name) -> None:
    (tmp_path / name).write_text("1,2\n3,4\n")
    with pytest.raises(ValueError, match=rf"{name}: .*allowed: a .npy file, a .mtx file, or a fol"):
        TiledMatrix.load(tmp_path / name)


@pytest.mark.parametrize("name", ["a.npy", "a.mtx"])
def test_devices_are_refused(tmp_path, name) -> None:
    os.mkfifo(tmp_path / name)
    with pytest.raises(ValueError, match=r"allowed: a \.npy file"):
        TiledMatrix.load(tmp_path / name)
    with pytest.raises(FileExistsError, match="is not a file"):
        TiledMatrix.zeros((2, 2), 1).save(tmp_path / name)


# .npy --------------------------------------------------------------------------------------------


def is_mapped(A):
    array = A.tile(0, 0).array
    while isinstance(array, np.ndarray):
        array = array.base
    return type(array).__name__ == "mmap"


@pytest.mark.parametrize("order", ["F", "C"])
@pytest.mark.parametrize("uplo", [None, *UPLOS])
@pytest.mark.parametrize(
    ("mmap", "mapped", "writeable", "written"),
    [
        (True, True, True, False),
        ("c", True, True, False),
        ("r", True, False, False),
        ("r+", True, True, True),
        (False, False, True, False),
    ],
)
def test_npy_files_are_mapped(tmp_path, order, uplo, mmap, mapped, writeable, written) -> None:
    a = TiledMatrix.random((9, 9), NB).to_array(order)
    np.save(tmp_path / "a.npy", a)
    A = TiledMatrix.load(tmp_path / "a.npy", NB, mmap, uplo)
    assert is_mapped(A) == mapped
    assert A.writeable == writeable == A.tile(1, 1).array.flags.writeable
    if mapped:
        assert A.order == order
    else:
        assert A.order == ("F" if uplo else order)
    np.testing.assert_array_equal(A.to_array(), kept(a, uplo))
    if writeable:
        A.tile(0, 0).array[0, 0] = 9
        assert A.to_array()[0, 0] == 9
    del A
    assert (np.load(tmp_path / "a.npy")[0, 0] == 9) == written


def test_npy_without_map_stores_one_triangle(tmp_path) -> None:
    np.save(tmp_path / "a.npy", np.ones((64, 64)))
    A = TiledMatrix.load(tmp_path / "a.npy", 4, mmap=False, uplo="upper")
    assert A.nbytes < 0.55 * 64 * 64 * 8
    # a strip of its own for each tile row, not a view of the whole
    assert A.tile(0, 0).ld == A.tile(0, 15).ld == 4


@pytest.mark.parametrize("dtype", ["?", "i2", "u8", "f2", ">f8", ">c8"])
def test_npy_of_other_dtypes_is_promoted(tmp_path, dtype) -> None:
    a = np.arange(25).reshape(5, 5).astype(dtype)
    np.save(tmp_path / "a.npy", a)
    for mmap in (True, False):
        A = TiledMatrix.load(tmp_path / "a.npy", 2, mmap)
        assert A.dtype == {"f2": "f4", ">c8": "c8"}.get(dtype, "f8")
        np.testing.assert_array_equal(A.to_array(), a)
    for mode in ("r", "r+", "c"):
        with pytest.raises(ValueError, match="copy is False"):
            TiledMatrix.load(tmp_path / "a.npy", 2, mode)


def test_npy_of_one_dimension_is_a_column(tmp_path) -> None:
    np.save(tmp_path / "b.npy", np.arange(5.0))
    A = TiledMatrix.load(tmp_path / "b.npy", 2, mmap="r+")
    assert A.shape == (5, 1)
    A.tile(1, 0).array[0, 0] = 7
    del A
    assert np.load(tmp_path / "b.npy").tolist() == [0, 1, 7, 3, 4]


def npy_bytes(tmp_path, a=None):
    np.save(tmp_path / "good.npy", np.ones((9, 9)) if a is None else a)
    return (tmp_path / "good.npy").read_bytes()


DAMAGED_NPY = {
    "empty": lambda good: b"",
    "no magic": lambda good: b"PK\3\4" + good,
    "truncated": lambda good: good[:-1],
    "header only": lambda good: good[:128],
    "half a header": lambda good: good[:40],
    "future version": lambda good: good[:6] + b"\x09" + good[7:],
    "not a dict": lambda good: good.replace(b"{'descr'", b"['descr'"),
    "negative size": lambda good: good.replace(b"(9, 9)", b"(9,-9)"),
    "huge size": lambda good: good.replace(
        b"(9, 9), }" + b" " * 19, b"(999999999999, 999999999), }"
    ),
    "half an expression": lambda good: good.replace(b", }", b"   "),
    "unknown dtype": lambda good: good.replace(b"<f8", b"<q9"),
}


@pytest.mark.parametrize("damage", DAMAGED_NPY.values(), ids=DAMAGED_NPY)
@pytest.mark.parametrize("mmap", [True, False, "r"])
def test_damaged_npy(tmp_path, damage, mmap) -> None:
    good = npy_bytes(tmp_path)
    bad = damage(good)
    assert bad != good
    (tmp_path / "bad.npy").write_bytes(bad)
    with pytest.raises(ValueError, match=r"bad\.npy: not a readable \.npy file: ."):
        TiledMatrix.load(tmp_path / "bad.npy", NB, mmap)


@pytest.mark.parametrize(
    "a", [np.array([[{}]]), np.ones((2, 2), "g"), np.ones((2, 2, 2)), np.array([["a"]]), 1.0]
)
def test_npy_that_holds_no_matrix(tmp_path, a) -> None:
    np.save(tmp_path / "bad.npy", a, allow_pickle=True)
    with pytest.raises(ValueError, match=r"bad\.npy: not a readable \.npy file: ."):
        TiledMatrix.load(tmp_path / "bad.npy")


def test_an_npz_archive_under_the_wrong_name(tmp_path) -> None:
    np.savez(tmp_path / "a.npz", a=np.ones((2, 2)))
    (tmp_path / "a.npz").rename(tmp_path / "a.npy")
    with pytest.raises(ValueError, match=r"a\.npy: not a readable"):
        TiledMatrix.load(tmp_path / "a.npy")


# .mtx --------------------------------------------------------------------------------------------

BANNER = "%%MatrixMarket matrix "
MTX = {
    "dense": ("array real general\n2 3\n1\n2\n3\n4\n5\n6\n", [[1, 3, 5], [2, 4, 6]]),
    "dense symmetric": ("array real symmetric\n2 2\n1\n2\n3\n", [[1, 2], [2, 3]]),
    "dense hermitian": (
        "array complex hermitian\n2 2\n1 0\n2 3\n4 0\n",
        [[1, 2 - 3j], [2 + 3j, 4]],
    ),
    "dense integer": ("array integer general\n1 2\n-3\n4\n", [[-3, 4]]),
    "sparse": (
        "coordinate real general\n% note\n2 3 2\n2 1 5e-1\n1 3 7\n",
        [[0, 0, 7], [0.5, 0, 0]],
    ),
    "sparse symmetric": ("coordinate real symmetric\n2 2 2\n2 1 5\n2 2 1\n", [[0, 5], [5, 1]]),
    "sparse skew": ("coordinate real skew-symmetric\n2 2 1\n2 1 5\n", [[0, -5], [5, 0]]),
    "sparse hermitian": (
        "coordinate complex hermitian\n2 2 1\n2 1 5 1\n",
        [[0, 5 - 1j], [5 + 1j, 0]],
    ),
    "sparse integer": ("coordinate integer general\n2 2 1\n1 2 9\n", [[0, 9], [0, 0]]),
    "pattern": ("coordinate pattern general\n2 2 2\n1 1\n1 2\n", [[1, 1], [0, 0]]),
    "repeated entries": ("coordinate real general\n1 1 2\n1 1 2\n1 1 3\n", [[5]]),
    "no entries": ("coordinate real general\n2 2 0\n", [[0, 0], [0, 0]]),
    "no rows": ("array complex general\n0 3\n", np.zeros((0, 3), complex)),
    "no columns": ("coordinate real general\n3 0 0\n", np.zeros((3, 0))),
}


@pytest.mark.parametrize(("text", "expected"), MTX.values(), ids=MTX)
@pytest.mark.parametrize("mmap", [True, False])
def test_mtx_of_every_kind(tmp_path, text, expected, mmap) -> None:
    (tmp_path / "a.mtx").write_text(BANNER + text)
    A = TiledMatrix.load(tmp_path / "a.mtx", 2, mmap)
    expected = np.array(expected)
    assert A.dtype == (np.complex128 if "complex" in text else np.float64)
    assert A.writeable
    assert A.shape == expected.shape
    np.testing.assert_array_equal(A.to_array(), expected)
    if A.m == A.n:
        B = TiledMatrix.load(tmp_path / "a.mtx", 1, uplo="lower")
        np.testing.assert_array_equal(B.to_array(), np.tril(expected))


def test_a_sparse_mtx_of_many_tiles(tmp_path) -> None:
    a = np.where(TiledMatrix.random((30, 20), 7, seed=4).to_array() > 0.4, 1.5, 0)
    scipy.io.mmwrite(tmp_path / "a.mtx", scipy.sparse.coo_array(a))
    np.testing.assert_array_equal(TiledMatrix.load(tmp_path / "a.mtx", 7).to_array(), a)


def test_mtx_is_what_scipy_reads(tmp_path) -> None:
    A = TiledMatrix.random((5, 3), 2, "c16")
    A.save(tmp_path / "a.mtx")
    np.testing.assert_array_equal(scipy.io.mmread(tmp_path / "a.mtx"), A.to_array())


DAMAGED_MTX = {
    "empty": "",
    "no banner": "1 2\n3 4\n",
    "truncated": BANNER + "array real general\n3 3\n1\n2\n",
    "no sizes": BANNER + "array real general\n",
    "negative size": BANNER + "coordinate real general\n-3 3 1\n1 1 1\n",
    "index outside": BANNER + "coordinate real general\n3 3 1\n4 1 1\n",
    "not a number": BANNER + "coordinate real general\n3 3 1\n1 1 x\n",
    "integer overflow": BANNER + "array integer general\n1 1\n99999999999999999999999\n",
    "vector": "%%MatrixMarket vector coordinate real general\n2 1\n1 3\n",
    "promises terabytes": BANNER + "array real general\n999999 999999\n1\n",
    "promises more than there is": BANNER + "array real general\n99999999999 99999999999\n1\n",
    "row index of terabytes": BANNER + "coordinate real general\n99999999999999 2 1\n1 1 1\n",
}


@pytest.mark.parametrize("text", DAMAGED_MTX.values(), ids=DAMAGED_MTX)
def test_damaged_mtx(tmp_path, text) -> None:
    (tmp_path / "bad.mtx").write_text(text)
    with pytest.raises(ValueError, match=r"bad\.mtx: not a readable \.mtx file: ."):
        TiledMatrix.load(tmp_path / "bad.mtx")


def test_mtx_sizes_that_the_file_cannot_bear_out_allocate_nothing(tmp_path) -> None:
    (tmp_path / "bad.mtx").write_text(BANNER + "array real general\n100000 10000\n1\n")
    with pytest.raises(ValueError, match="1000000000 entries announced"):
        TiledMatrix.load(tmp_path / "bad.mtx")


# Maps --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mmap", ["w+", "x", None, 2])
def test_mmap_modes_are_checked(saved, mmap) -> None:
    with pytest.raises(ValueError, match=r"mmap is .*; allowed: True, False, 'r', 'c', 'r\+'"):
        TiledMatrix.load(saved[0], mmap=mmap)


def test_only_npy_files_can_be_mapped(saved, tmp_path) -> None:
    saved[1].save(tmp_path / "a.mtx")
    for path in (saved[0], tmp_path / "a.mtx"):
        with pytest.raises(ValueError, match=r"mmap is 'r'; only \.npy files can be mapped"):
            TiledMatrix.load(path, mmap="r")
