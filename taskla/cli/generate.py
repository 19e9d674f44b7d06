"""Random inputs of a routine: entry (i, j) is a function of (seed, i, j) alone.

So a check makes the inputs again instead of keeping copies, and they are the same for every tile
size and engine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from taskla.distributions import Distribution
from taskla.engines import Engine
from taskla.matrix import BlockFunction, TiledMatrix
from taskla.matrix_random import random_block
from taskla.precision import PrecisionMap
from taskla.routines import FACTORED, Operand, Problem

__all__ = ["STRIP", "TRIANGULAR", "Known", "entries", "known", "matrices", "strips"]

#: Rows of a matrix that a check looks at together.
STRIP = 512

#: What the triangular kinds are a triangle of.
TRIANGULAR = {"triangular": "dominant", "factor": "spd"}

Array = NDArray[Any]


def matrices(
    p: Problem,
    seed: int,
    engine: Engine,
    maps: Mapping[str, Distribution] | None = None,
    known_as: Callable[[BlockFunction], BlockFunction] = lambda f: f,
) -> list[TiledMatrix]:
    """Make the operands of a problem, tile by tile on the workers of an engine.

    Parameters
    ----------
    p : Problem
    seed : int
    engine : Engine
    maps : mapping of str to Distribution, optional
        By name, for an engine of many ranks, which is in force. Default: the engine's own.
    known_as : callable, optional
        What an engine gets in place of a function that makes blocks.
    """

    def map_tiles(function: Callable[[int, int], None], tiles: list[tuple[int, int]]) -> None:
        engine.map(function, tiles)

    return [
        TiledMatrix.from_function(
            known_as(entries(operand, p, seed + number)),
            (operand.m, operand.n),
            p.nb,
            p.dtype,
            operand.uplo,
            precision=_formats(p) if number == 0 and p.op in FACTORED else None,
            distribution=maps[operand.name] if maps else None,
            map_tiles=map_tiles,
        )
        for number, operand in enumerate(p.operands)
    ]


def _formats(p: Problem) -> PrecisionMap | None:
    """Return the map of the tiles of A; where rows are interchanged an adaptive one by column."""
    if p.formats is None:
        return None
    found = PrecisionMap(p.formats)
    pivots = "pivot" in p.routine.options and p.pivot != "none"
    return PrecisionMap(p.formats, by="column") if pivots and found.needs_norms else found


def known(p: Problem, seed: int) -> dict[str, Known]:
    """Return the operands of a problem as they were made, by name."""
    return {
        operand.name: Known(operand, p, entries(operand, p, seed + number))
        for number, operand in enumerate(p.operands)
    }


def entries(operand: Operand, p: Problem, seed: int) -> BlockFunction:
    """Return what makes a block of an operand; of a triangle the whole that it is cut from."""
    order = max(operand.m, operand.n, 1)
    kind: Any = TRIANGULAR.get(operand.kind, operand.kind)
    # a diagonal near 1 and a small rest: well-conditioned, with a unit diagonal in its place too
    scale = order if operand.kind in TRIANGULAR else 1

    def block(rows: Array, cols: Array) -> Array:
        return random_block(seed, rows, cols, p.dtype, kind, order) / scale

    return block


def strips(m: int) -> Iterator[slice]:
    """Iterate over 0..m in slices of `STRIP`."""
    for start in range(0, m, STRIP):
        yield slice(start, min(m, start + STRIP))


class Known:
    """An operand as mathematics has it: a symmetric matrix whole, a triangular one with its zeros.

    Nothing is stored: entries are made anew whenever they are asked for.

    Attributes
    ----------
    m, n : int
    """

    def __init__(self, operand: Operand, p: Problem, entries: BlockFunction) -> None:
        self.m, self.n = operand.m, operand.n
        self._entries = entries
        self._triangle = operand.uplo if operand.kind in TRIANGULAR else None
        self._unit = p.diag == "U"

    def rows(self, rows: slice | Array) -> Array:
        """Return rows, all columns of them; only a slice of a triangular matrix."""
        if isinstance(rows, slice):
            rows = np.arange(rows.start, rows.stop)
        block = np.asarray(self._entries(rows, np.arange(self.n)))
        if self._triangle and rows.size:
            first = int(rows[0])
            block = (np.tril if self._triangle == "lower" else np.triu)(block, first)
            if self._unit:
                block[np.arange(rows.size), rows] = 1
        return block

    def dense(self) -> Array:
        """Return all of it."""
        return self.rows(slice(0, self.m))

    def times(self, X: Array, op: str = "N") -> Array:
        """Return op(A) X."""
        if op == "N":
            parts = [self.rows(s) @ X for s in strips(self.m)]
            return np.concatenate(parts) if parts else np.zeros((0, X.shape[1]), X.dtype)
        total = np.zeros((self.n, X.shape[1]), X.dtype)
        for s in strips(self.m):
            block = self.rows(s).T
            total += (block.conj() if op == "C" else block) @ X[s]
        return total

    def norm(self, norm: str = "1") -> float:
        """Return the norm "M", "1", "I" or "F"."""
        blocks = (np.abs(self.rows(s)) for s in strips(self.m))
        if norm == "M":
            return max((float(b.max(initial=0)) for b in blocks), default=0.0)
        if norm == "I":
            return max((float(b.sum(axis=1).max(initial=0)) for b in blocks), default=0.0)
        if norm == "F":
            return float(np.sqrt(sum(float((b.astype(float) ** 2).sum()) for b in blocks)))
        return float(sum((b.sum(axis=0) for b in blocks), np.zeros(self.n)).max(initial=0))
