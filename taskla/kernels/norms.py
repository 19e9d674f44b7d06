"""What one tile contributes to a norm of its matrix.

The result S is a real column. Norm "M": S[0] is the largest absolute value. "1" and "I": S[j] is
the sum of absolute values in column (row) j. "F": S[0:2] are scale and sumsq of LAPACK's ``lassq``:
scale^2 sumsq is the sum of the squares, without overflow. Elements of S beyond are left alone. A
NaN in the tile makes the norm NaN.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from taskla.kernels.arguments import FLIP_UPLO, choice, mismatch
from taskla.kernels.elementwise import blocks, fortran
from taskla.kernels.table import Kernel, register
from taskla.tile import Tile

Real: TypeAlias = NDArray[np.floating[Any]]
#: rows, columns, absolute values; zero where the element does not count
Magnitudes: TypeAlias = Iterator[tuple[slice, slice, Real]]


@register("lange")
def lange(dtype: str, norm: str) -> Kernel:
    """Contribution of a general tile."""
    choice("lange", "norm", norm, "M1IF")

    def magnitudes(x: NDArray[Any], turned: bool) -> Magnitudes:
        for rows, cols, _ in blocks(x, "G"):
            yield rows, cols, np.abs(x[rows, cols])

    return _kernel("lange", norm, magnitudes)


@register("lantr")
def lantr(dtype: str, norm: str, uplo: str, diag: str) -> Kernel:
    """Contribution of a triangular (trapezoidal) tile, its diagonal stored or all ones."""
    choice("lantr", "norm", norm, "M1IF")
    choice("lantr", "uplo", uplo, "LU")
    choice("lantr", "diag", diag, "NU")

    def magnitudes(x: NDArray[Any], turned: bool) -> Magnitudes:
        for rows, cols, mask in blocks(x, FLIP_UPLO[uplo] if turned else uplo):
            size = np.abs(x[rows, cols])
            if mask is not None:
                size = np.where(mask, size, 0)
                if diag == "U":
                    np.fill_diagonal(size, 1)
            yield rows, cols, size

    return _kernel("lantr", norm, magnitudes)


@register("lansy")
def lansy(dtype: str, norm: str, uplo: str, hermitian: bool) -> Kernel:
    """Contribution of a symmetric or Hermitian tile on the diagonal, one triangle of it stored."""
    choice("lansy", "norm", norm, "M1IF")
    choice("lansy", "uplo", uplo, "LU")

    def magnitudes(x: NDArray[Any], turned: bool) -> Magnitudes:
        if x.shape[0] != x.shape[1]:
            raise ValueError(f"lansy: a tile of shape {x.shape[0]} x {x.shape[1]} is not square")
        for rows, cols, mask in blocks(x, FLIP_UPLO[uplo] if turned else uplo):
            block = x[rows, cols]
            size = np.abs(block)
            if mask is None:
                # off the diagonal, and its mirror image
                yield rows, cols, size
                yield cols, rows, size.T
                continue
            size = np.where(mask, size, 0)
            if hermitian:
                np.fill_diagonal(size, np.abs(block.diagonal().real))
            mirrored = size.T.copy()
            np.fill_diagonal(mirrored, 0)
            yield rows, cols, size
            yield rows, cols, mirrored

    return _kernel("lansy", norm, magnitudes)


def _kernel(
    operation: str, norm: str, magnitudes: Callable[[NDArray[Any], bool], Magnitudes]
) -> Kernel:
    @np.errstate(all="ignore")
    def kernel(a: Tile, s: Tile) -> None:
        needed = {"M": 1, "F": 2, "1": a.cols, "I": a.rows}[norm]
        if s.rows < needed or s.cols != 1:
            mismatch(operation, a, s)
        turned = a.order == "C"
        x, result = fortran(a), s.array[:, 0]
        if norm == "M":
            result[0] = _largest(magnitudes(x, turned))
        elif norm == "F":
            result[:2] = _squares(lambda: magnitudes(x, turned))
        else:
            sums = np.zeros(needed, result.dtype)
            down = (norm == "1") != turned
            for rows, cols, size in magnitudes(x, turned):
                sums[cols if down else rows] += size.sum(axis=0 if down else 1)
            result[:needed] = sums

    return kernel


def _largest(magnitudes: Magnitudes) -> float:
    # np.maximum, unlike max, hands a NaN on.
    largest = 0.0
    for _, _, size in magnitudes:
        largest = np.maximum(largest, size.max(initial=0))
    return float(largest)


def _squares(magnitudes: Callable[[], Magnitudes]) -> tuple[float, float]:
    """Return scale and sumsq; (0, 1) for zeros, as LAPACK starts."""
    scale = _largest(magnitudes())
    if scale == 0 or np.isinf(scale):
        return scale, 1.0
    # scale is an element of the tile, so a float holds it exactly
    return scale, float(sum(np.square(size / scale).sum() for _, _, size in magnitudes()))
