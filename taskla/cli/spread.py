"""Matrices whose tiles are on many ranks, multiplied by thin ones and measured.

Each rank works on its own tiles; the thin results are summed up in the order of ranks, so that they
are the same on all of them, and on every run.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from taskla.cli.ranks import Ranks
from taskla.engines import Engine
from taskla.matrix import TiledMatrix

__all__ = ["Shape", "Spread"]

Array = NDArray[Any]

Shape: TypeAlias = Literal["full", "symmetric", "hermitian", "lower", "upper"]
"""What a matrix is: all of its tiles, a stored triangle and its mirror image, or one triangle."""


class Spread:
    """A matrix as mathematics has it, of which each rank has some tiles.

    Parameters
    ----------
    matrix : TiledMatrix
        Its layout, and which tiles are here.
    shape : Shape
    ranks : Ranks
        All of them call every method.
    engine : Engine
        Whose workers do this rank's part.
    block : callable, optional
        ``block(rows, cols)`` makes a tile anew. Default: what the matrix holds.
    unit : bool, default False
        Whether the diagonal of a triangle is ones, whatever the tiles hold.

    Attributes
    ----------
    m, n : int
    """

    def __init__(
        self,
        matrix: TiledMatrix,
        shape: Shape,
        ranks: Ranks,
        engine: Engine,
        block: Callable[[Array, Array], Array] | None = None,
        unit: bool = False,
    ) -> None:
        self.m, self.n = matrix.m, matrix.n
        self._matrix, self._shape = matrix, shape
        self._ranks, self._engine = ranks, engine
        self._made, self._unit = block, unit

    def times(self, X: Array, op: str = "N") -> Array:
        """Return op(A) X; of a symmetric or Hermitian A for op "N" only."""
        mirrored = self._shape in ("symmetric", "hermitian")
        flip = "C" if self._shape == "hermitian" else "T"

        def parts(i: int, j: int) -> list[tuple[slice, Array]]:
            block = self._block(i, j)
            rows, cols = self._matrix.rows(i), self._matrix.cols(j)
            if op != "N":
                return [(cols, _op(block, op) @ X[rows])]
            found = [(rows, block @ X[cols])]
            if mirrored and i != j:
                found.append((cols, _op(block, flip) @ X[rows]))
            return found

        size = self.m if op == "N" else self.n
        total = np.zeros((size, X.shape[1]), np.result_type(X, self._matrix.dtype))
        for found in self._engine.map(parts, self._tiles()):
            for where, part in found:
                total[where] += part
        return self._ranks.sum(total)

    def norm(self, norm: str = "1") -> float:
        """Return the norm "M", "1", "I" or "F"."""
        rows, cols = np.zeros(self.m), np.zeros(self.n)
        largest = squares = 0.0
        mirrored = self._shape in ("symmetric", "hermitian")

        def measure(i: int, j: int) -> tuple[Array, Array, float, float]:
            size = np.abs(self._block(i, j)).astype(np.float64)
            return size.sum(axis=1), size.sum(axis=0), size.max(initial=0), (size**2).sum()

        tiles = self._tiles()
        for (i, j), found in zip(tiles, self._engine.map(measure, tiles), strict=True):
            twice = mirrored and i != j
            down, across, most, square = found
            rows[self._matrix.rows(i)] += down
            cols[self._matrix.cols(j)] += across
            if twice:
                rows[self._matrix.cols(j)] += across
                cols[self._matrix.rows(i)] += down
            # NaN is the largest, as NumPy has it
            largest = float(np.maximum(largest, most))
            squares += (1 + twice) * float(square)
        if norm == "M":
            return float(np.max(self._ranks.gather(largest)))
        if norm == "F":
            return float(np.sqrt(sum(self._ranks.gather(squares))))
        sums = self._ranks.sum(rows if norm == "I" else cols)
        return float(sums.max(initial=0))

    def _tiles(self) -> list[tuple[int, int]]:
        """Return the tiles here that have entries."""
        outside = {"lower": lambda i, j: i < j, "upper": lambda i, j: i > j}.get(self._shape)
        own = self._matrix.own_tiles()
        return own if outside is None else [tile for tile in own if not outside(*tile)]

    def _block(self, i: int, j: int) -> Array:
        """Return a tile; one on the diagonal with what is not stored, or without what is not."""
        if self._made is None:
            block = self._matrix.tile(i, j).array
        else:
            rows, cols = self._matrix.rows(i), self._matrix.cols(j)
            made = self._made(np.arange(rows.start, rows.stop), np.arange(cols.start, cols.stop))
            block = np.asarray(made)
        if i != j or self._shape == "full":
            return block
        if self._shape in ("symmetric", "hermitian"):
            upper = self._matrix.uplo == "upper"
            half: Array = np.triu(block, 1) if upper else np.tril(block, -1)
            diagonal = np.diag(np.diag(block))
            if self._shape == "hermitian":
                return np.asarray(half + half.conj().T + diagonal.real)
            return np.asarray(half + half.T + diagonal)
        block = np.tril(block) if self._shape == "lower" else np.triu(block)
        if self._unit:
            np.fill_diagonal(block, 1)
        return block


def _op(block: Array, op: str) -> Array:
    return block.conj().T if op == "C" else block.T
