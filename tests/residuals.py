"""Test matrices, the ways in which they may be stored, and how wrong a result is.

Residuals and limits are those of the testers of LAPACK, Chameleon and DPLASMA; u is the unit
roundoff of the working format, half of NumPy's eps. They are computed in double precision.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from taskla.matrix import TiledMatrix

Array: TypeAlias = np.ndarray[Any, Any]

DTYPES = tuple(np.dtype(letter) for letter in "fdFD")
NB = 8
#: one tile or none, one more than a tile, remainders
SIZES = (0, 1, NB - 1, NB, NB + 1, 3 * NB, 3 * NB + 5)

#: limits of the residuals
FACTOR, SOLVE, INVERSE, PRODUCT = 60.0, 60.0, 60.0, 3.0
#: what is usual: an error that the limits forgive shows here
TIGHT = 5.0

_POISON = -1234.5


def u(dtype: np.dtype) -> float:
    return float(np.finfo(dtype).eps) / 2


def random(m: int, n: int, dtype: np.dtype, seed: int = 0) -> Array:
    generator = np.random.default_rng([seed, m, n])
    result = generator.standard_normal((m, n))
    if dtype.kind == "c":
        result = result + 1j * generator.standard_normal((m, n))
    return result.astype(dtype)


def definite(n: int, dtype: np.dtype, seed: int = 0) -> Array:
    a = random(n, n, dtype, seed)
    return a @ a.conj().T + np.eye(n, dtype=dtype)


def triangular(n: int, dtype: np.dtype, seed: int = 0) -> Array:
    """A full matrix whose triangles are well-conditioned, with unit diagonals or their own."""
    a = random(n, n, dtype, seed) / max(n, 1)
    np.fill_diagonal(a, 2 + a.diagonal())
    return a


def poisoned(a: Array, uplo: str, diag: str = "N") -> Array:
    """A copy whose other triangle is not to be read: not a number; a unit diagonal likewise."""
    inside = np.tri(len(a), dtype=bool)
    if uplo == "U":
        inside = inside.T
    result = np.where(inside, a, np.nan).astype(a.dtype)
    if diag == "U":
        np.fill_diagonal(result, np.nan)
    return result


# -- storage ---------------------------------------------------------------------------------------


@dataclass
class Stored:
    """A tiled matrix, the array that it is a view of, and what lies around the view."""

    name: str
    matrix: TiledMatrix
    array: Array | None = None
    frame: Array | None = None

    def read(self) -> Array:
        """What the matrix holds: from the user's array where it is a view of one."""
        self.check_frame()
        return self.matrix.to_array() if self.array is None else self.array.copy()

    def check_frame(self) -> None:
        if self.frame is not None:
            assert (self.frame == _POISON).sum() == self.frame.size - self.matrix.m * self.matrix.n


def storages(a: Array, nb: int = NB, uplo: str | None = None) -> Iterator[Stored]:
    """Views inside larger arrays of either order, and memory of its own."""
    m, n = a.shape
    triangle: Any = {None: None, "L": "lower", "U": "upper"}[uplo]
    for order in ("F", "C"):
        frame = np.full((m + 5, n + 3), _POISON, dtype=a.dtype, order=order)
        view = frame[2 : 2 + m, 1 : 1 + n]
        view[...] = a
        assert not (view == _POISON).any()
        matrix = TiledMatrix.from_array(view, nb, triangle, copy=False)
        yield Stored(f"{order} view", matrix, view, frame)
    yield Stored("own memory", TiledMatrix.from_array(a, nb, triangle, copy=True))


def own(a: Array, nb: int = NB, uplo: str | None = None) -> TiledMatrix:
    """A tiled copy."""
    *_, last = storages(a, nb, uplo)
    return last.matrix


# -- residuals -------------------------------------------------------------------------------------


def wide(a: Array) -> Array:
    return a.astype(np.result_type(a.dtype, np.float64))


def one_norm(a: Array) -> float:
    return float(abs(a).sum(axis=0).max(initial=0.0))


def ratio(error: Array, scale: float, n: int, dtype: np.dtype) -> float:
    """||error||_1 / (scale n u); NaN and inf always fail a comparison with a limit."""
    size = one_norm(error)
    return size / (scale * n * u(dtype)) if size else 0.0


def product_ratio(error: Array, scale: float, dtype: np.dtype) -> float:
    """||error||_F / (scale u); scale says what was multiplied and added."""
    size = frobenius(error)
    return size / (scale * u(dtype)) if size else 0.0


def frobenius(a: Array) -> float:
    return float(np.linalg.norm(wide(a)))
