"""Matrices in files: ``.npy``, Matrix Market ``.mtx``, and a folder of tiles.

Reading speaks of a `Stored`: the layout, and a function from index ranges to blocks. So nobody
holds a second copy of the matrix, any file can be read with any tile size, and a rank reads its
part. What is read is not trusted. `taskla.matrix_saving` writes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.lib.format import open_memmap
from numpy.typing import NDArray

from taskla.atomic import check_file, check_folder
from taskla.formats import working_dtype
from taskla.matrix_folder import HEADER, TILE_NAME, read_header, read_tile, unreadable
from taskla.matrix_layout import Layout
from taskla.matrix_mixed import PackedTile
from taskla.precision import Codes
from taskla.tile import Order

__all__ = ["FILES", "MmapMode", "PackedTiles", "Stored", "check_target", "read"]

MmapMode: TypeAlias = Literal["r", "c", "r+"]

Ranges: TypeAlias = Iterable[tuple[slice, slice]]

#: Extensions of what is one file.
FILES = (".npy", ".mtx")

_ALLOWED = "allowed: a .npy file, a .mtx file, or a folder of tiles written by save"


class PackedTiles(NamedTuple):
    """Tiles that have formats of their own.

    Attributes
    ----------
    codes : (mt, nt) int8 array
        The formats, indices into `taskla.precision.NAMES`.
    tile : callable
        ``tile(i, j)`` returns a tile as it is stored.
    """

    codes: Codes
    tile: Callable[[int, int], PackedTile]


@dataclass(frozen=True)
class Stored:
    """A matrix that can be read block by block.

    Attributes
    ----------
    layout : Layout
        The tiles; for files that have none, one tile.
    dtype : numpy.dtype
        One of the four working types.
    order : {"F", "C"}
    block : callable
        ``block(rows, cols)``, two slices with given ends, returns that part of the matrix; zeros
        where the layout stores nothing.
    array : ndarray, optional
        The whole matrix, when it can be used where it lies: a memory map, or text just read.
        Its dtype may be another, which working_dtype promotes to `dtype`.
    tiled : bool
        Whether the tile size and the triangle of `layout` are those of the file.
    check : callable
        ``check(ranges)`` raises ValueError unless the file holds what its header promises in some
        ranges (rows, cols), of None in all: to be asked before memory is taken for them.
    packed : PackedTiles, optional
        Tiles that have formats of their own.
    """

    layout: Layout
    dtype: np.dtype[Any]
    order: Order
    block: Callable[[slice, slice], NDArray[Any]]
    array: NDArray[Any] | None = None
    tiled: bool = False
    check: Callable[[Ranges | None], None] = lambda ranges: None
    packed: PackedTiles | None = None


def read(path: str | os.PathLike[str], mmap: bool | MmapMode = True) -> Stored:
    """Open a matrix in a file or folder.

    Parameters
    ----------
    path : path-like
        A ``.npy`` file (1-D arrays are one column), a ``.mtx`` file (sparse ones become dense), or
        a folder of tiles.
    mmap : bool or {"r", "c", "r+"}, default True
        Whether and how a ``.npy`` file is mapped: read-only, copy on write (what True means), or
        writing to the file. The other kinds are never mapped, and naming a mode for them is an
        error.

    Raises
    ------
    FileNotFoundError
        When nothing is there.
    ValueError
        When it is none of these kinds, or damaged: the message begins with the path.
    """
    path = Path(path)
    if mmap not in (True, False, "r", "c", "r+"):
        raise ValueError(f"mmap is {mmap!r}; allowed: True, False, 'r', 'c', 'r+'")
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file or folder")
    kind = path.suffix.lower()
    if not path.is_dir() and not (path.is_file() and kind in (".npy", ".mtx")):
        raise ValueError(f"{path}: not a kind of matrix file known here; {_ALLOWED}")
    if isinstance(mmap, str) and (path.is_dir() or kind != ".npy"):
        raise ValueError(f"{path}: mmap is {mmap!r}; only .npy files can be mapped")
    if path.is_dir():
        return _read_folder(path)
    with unreadable(path):
        return _read_npy(path, mmap) if kind == ".npy" else _read_mtx(path)


def check_target(path: str | os.PathLike[str]) -> None:
    """Refuse a path where no matrix can be saved.

    Raises
    ------
    ValueError
        When the extension is none of ``.npy``, ``.mtx`` and, for a folder, ``.tiles`` or none.
    FileNotFoundError
        When the parent folder does not exist.
    PermissionError
        When it cannot be written to.
    FileExistsError
        When a file would replace a folder, or a folder of tiles anything but another one.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in (*FILES, "", ".tiles"):
        raise ValueError(
            f"{path}: extension {suffix!r} is not known; allowed: .npy, .mtx, "
            "and none or .tiles for a folder of tiles"
        )
    if suffix in FILES:
        check_file(path)
        return
    path = Path(path).resolve()
    check_folder(path.parent)
    _check_replaceable(path)


# One file --------------------------------------------------------------------------------------


def _read_npy(path: Path, mmap: bool | MmapMode) -> Stored:
    mode = mmap if isinstance(mmap, str) else "c" if mmap else "r"
    array: NDArray[Any] = np.asarray(open_memmap(path, mode=mode))
    if array.ndim == 1:
        array = array[:, np.newaxis]
    if array.ndim != 2:
        raise ValueError(f"the array has {array.ndim} dimensions; a matrix has 2")
    layout = _one_tile(array.shape)
    order: Order = "F" if array.flags.f_contiguous else "C"
    dtype = working_dtype(array.dtype)
    whole = array if mmap else None
    return Stored(layout, dtype, order, lambda rows, cols: array[rows, cols], whole)


def _read_mtx(path: Path) -> Stored:
    from scipy import io, sparse

    m, n, entries, form, field, _ = io.mminfo(path)
    dtype = np.dtype(np.complex128 if field == "complex" else np.float64)
    # An entry takes a digit and a line end at least, and a symmetric file holds half of those that
    # mminfo counts: what promises far more must not make us allocate it.
    if entries > 4 * path.stat().st_size:
        raise ValueError(f"{entries} entries announced, more than the file can hold")
    layout = _one_tile((m, n))
    if m == 0 or n == 0:
        # SciPy 1.17 dies of a division by zero on empty arrays.
        empty = np.zeros((m, n), dtype, order="F")
        return Stored(layout, dtype, "F", lambda rows, cols: empty[rows, cols], empty)
    if form == "array":
        array: NDArray[Any] = io.mmread(path)
        return Stored(layout, dtype, "F", lambda rows, cols: array[rows, cols], array)
    by_row = sparse.csr_array(io.mmread(path))
    return Stored(layout, dtype, "F", lambda rows, cols: by_row[rows, cols].toarray())


def _one_tile(shape: tuple[int, ...]) -> Layout:
    m, n = shape
    return Layout(m, n, max(1, m, n))


# A folder of tiles -----------------------------------------------------------------------------


def _check_replaceable(path: Path) -> None:
    """Raise FileExistsError unless nothing is lost by replacing `path` but a folder of tiles."""
    if not path.exists():
        return
    if path.is_dir():
        try:
            read_header(path)
        except ValueError as error:
            raise FileExistsError(f"{error}; the folder is not replaced") from None
        for entry in path.iterdir():
            if entry.name != HEADER and not TILE_NAME.fullmatch(entry.name):
                raise FileExistsError(
                    f"{path}: holds {entry.name!r} beside its tiles; the folder is not replaced"
                )
        return
    raise FileExistsError(f"{path}: exists and is not a folder of tiles; it is not replaced")


def _read_folder(folder: Path) -> Stored:
    header = read_header(folder)
    layout = header.layout

    def tile(i: int, j: int) -> PackedTile:
        return read_tile(folder, header, i, j)

    def check(ranges: Ranges | None) -> None:
        """Before anyone allocates what the header promises, the files show that they hold it."""
        met: Iterable[tuple[int, int]] = layout.tiles()
        if ranges is not None:
            met = sorted({at for rows, cols in ranges for at in _meeting(layout, rows, cols)})
        for i, j in met:
            tile(i, j)

    # A rank looks at its own tiles only, but must not count on those that cannot all be there.
    if sum(1 for _ in os.scandir(folder)) <= _tile_count(layout):
        check(None)

    def block(rows: slice, cols: slice) -> NDArray[Any]:
        """Assemble a block from the tiles that it meets."""
        shape = rows.stop - rows.start, cols.stop - cols.start
        result = np.zeros(shape, header.dtype, order=header.order)
        for i, j in _meeting(layout, rows, cols):
            to_rows, from_rows = _overlap(rows, layout.rows(i))
            to_cols, from_cols = _overlap(cols, layout.cols(j))
            tile(i, j).part(from_rows, from_cols).read(result[to_rows, to_cols])
        return result

    packed = None if header.codes is None else PackedTiles(header.codes, tile)
    return Stored(layout, header.dtype, header.order, block, tiled=True, check=check, packed=packed)


def _tile_count(layout: Layout) -> int:
    return layout.mt * layout.nt if layout.uplo is None else layout.nt * (layout.nt + 1) // 2


def _meeting(layout: Layout, rows: slice, cols: slice) -> Iterator[tuple[int, int]]:
    """Iterate over the tiles that exist and meet a block."""
    for i in range(rows.start // layout.nb, -(-rows.stop // layout.nb)):
        for j in range(cols.start // layout.nb, -(-cols.stop // layout.nb)):
            if layout.stores(i, j):
                yield i, j


def _overlap(a: slice, b: slice) -> tuple[slice, slice]:
    """Return where two index ranges meet, counted from the start of each."""
    start, stop = max(a.start, b.start), min(a.stop, b.stop)
    return slice(start - a.start, stop - a.start), slice(start - b.start, stop - b.start)
