"""Matrices to files, by one process or by all ranks that share a matrix.

Everything is written under another name beside the target, then renamed by rank 0: it appears whole
or not at all. A step ends when all ranks are through with it; when it fails on one, all raise, and
what was begun is removed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.lib.format import open_memmap
from numpy.typing import NDArray

from taskla.atomic import beside, flush, swap
from taskla.distributions import Distribution
from taskla.matrix_files import FILES, check_target
from taskla.matrix_folder import HEADER, Header, header_text, tile_path, write_tile
from taskla.matrix_layout import Layout
from taskla.matrix_mixed import PackedTile
from taskla.matrix_place import Collectives
from taskla.matrix_store import triangle
from taskla.precision import Codes
from taskla.tile import Order

__all__ = ["Source", "write"]


class HasCodes(Protocol):
    """The formats of tiles: see `taskla.matrix_mixed.MixedStore`."""

    @property
    def codes(self) -> Codes:
        """Indices into `taskla.precision.NAMES`, (mt, nt)."""


class Source(Protocol):
    """What is written: see `taskla.matrix_tiles.StoredTiles`."""

    layout: Layout
    dtype: np.dtype[Any]
    order: Order
    distribution: Distribution | None

    @property
    def mixed(self) -> HasCodes | None:
        """The formats of tiles that have their own."""

    def own_tiles(self) -> list[tuple[int, int]]:
        """Return the tiles that are here."""

    def block(self, i: int, j: int) -> NDArray[Any]:
        """Return what tile (i, j) holds, as it counts."""

    def packed(self, i: int, j: int) -> PackedTile:
        """Return the same as its format stores it."""

    def to_array(self, order: Literal["K", "F", "C"] = "K", *, copy: bool | None) -> NDArray[Any]:
        """Return the matrix as an array."""


def write(path: str | os.PathLike[str], matrix: Source, ranks: Collectives) -> None:
    """Write a matrix: ``.npy`` or ``.mtx`` by the path's extension, else a folder of tiles.

    A ``.npy`` or ``.mtx`` file holds the whole matrix, with zeros for the triangle that is not
    stored, and text knows no precision: ``.mtx`` gives single precision back as double. Only a
    folder keeps the formats of tiles. An existing file or folder of tiles is replaced.

    Parameters
    ----------
    path : path-like
        The same file or folder on all ranks.
    matrix : Source
    ranks : Collectives
        Of those that share the matrix; all of them call this.

    Raises
    ------
    OSError, ValueError
        As `taskla.matrix_files.check_target`.
    """
    with ranks.agreed():
        check_target(path)
    # A link stays, what it points to is replaced.
    target = Path(path).resolve()
    kind = Path(path).suffix.lower()
    with _one_name(target, ranks) as new:
        if kind == ".npy":
            _write_npy(new, matrix, ranks)
        elif kind == ".mtx":
            _write_mtx(new, matrix, ranks)
        else:
            _write_folder(new, matrix, ranks)
        with ranks.agreed():
            if ranks.rank == 0:
                flush(new)
                if kind in FILES:
                    new.replace(target)
                else:
                    swap(new, target)
                flush(target.parent)


@contextmanager
def _one_name(target: Path, ranks: Collectives) -> Iterator[Path]:
    """Give an unused name beside a path, the same to all ranks; rank 0 removes what is left."""
    if ranks.rank:
        yield target.with_name(ranks.share(None)[0])
        return
    with beside(target) as new:
        ranks.share(new.name)
        yield new


def _write_npy(new: Path, matrix: Source, ranks: Collectives) -> None:
    layout = matrix.layout
    with ranks.agreed():
        if ranks.rank == 0:
            # The new file reads as zeros where no tile is written.
            open_memmap(
                new,
                mode="w+",
                dtype=matrix.dtype,
                shape=(layout.m, layout.n),
                fortran_order=matrix.order == "F",
            ).flush()
    # Two machines that write to one page of a file, by a map, may lose what one of them wrote.
    writes = ranks.one_machine or ranks.rank == 0
    with ranks.agreed():
        array = open_memmap(new, mode="r+") if writes else None
        if array is not None and ranks.one_machine:
            for i, j in matrix.own_tiles():
                array[layout.rows(i), layout.cols(j)] = matrix.block(i, j)
            array.flush()
    if not ranks.one_machine:
        _gather(array, matrix, ranks)
        with ranks.agreed():
            if array is not None:
                array.flush()


def _write_mtx(new: Path, matrix: Source, ranks: Collectives) -> None:
    from scipy import io

    layout, array = matrix.layout, None
    with ranks.agreed():
        if matrix.distribution is None:
            array = matrix.to_array(copy=None)
        elif ranks.rank == 0:
            array = np.zeros((layout.m, layout.n), matrix.dtype, order=matrix.order)
    if matrix.distribution is not None:
        _gather(array, matrix, ranks)
    with ranks.agreed():
        if array is None:
            return
        if array.size:
            io.mmwrite(new, array, symmetry="general")
        else:
            # SciPy 1.17 dies of a division by zero on empty arrays.
            field = "complex" if array.dtype.kind == "c" else "real"
            banner = f"%%MatrixMarket matrix array {field} general"
            new.write_text(f"{banner}\n{layout.m} {layout.n}\n")


def _gather(array: NDArray[Any] | None, matrix: Source, ranks: Collectives) -> None:
    """Set an array on rank 0, None on the others, to a distributed matrix."""
    layout = matrix.layout

    def put(i: int, j: int, block: NDArray[Any]) -> None:
        if array is not None:
            block = triangle(block, layout.uplo) if i == j else block
            array[layout.rows(i), layout.cols(j)] = block

    ranks.gather(matrix, put, root=0)


def _write_folder(new: Path, matrix: Source, ranks: Collectives) -> None:
    codes = None if matrix.mixed is None else matrix.mixed.codes
    header = Header(matrix.layout, matrix.dtype, matrix.order, codes)
    with ranks.agreed():
        if ranks.rank == 0:
            new.mkdir()
            file = new / HEADER
            file.write_text(header_text(header), encoding="utf-8")
            flush(file)
    with ranks.agreed():
        for i, j in matrix.own_tiles():
            write_tile(tile_path(new, i, j), matrix.packed(i, j), matrix.order)
