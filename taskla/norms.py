"""Norms of tiled matrices; `taskla.lapack` has them under one roof with the rest."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from taskla.algorithms import norms as _norms
from taskla.matrix import TiledMatrix
from taskla.operands import (
    Columns,
    choice,
    full,
    layouts,
    norm_letter,
    run,
    square,
    stored_triangle,
)

__all__ = ["lange", "lanhe", "lansy", "lantr"]


def lange(norm: Any, A: TiledMatrix) -> float:
    """Norm of a general matrix.

    Parameters
    ----------
    norm : {"M", "1", "I", "F"}
        Largest absolute value, largest column sum, largest row sum, Frobenius; also "max", "one",
        "inf", "fro", 1 and ``numpy.inf``.
    A : TiledMatrix
        (m, n).

    Returns
    -------
    float
        0 for an empty matrix; NaN if an entry is.

    References
    ----------
    LAPACK dlange.
    """
    full(A=A)
    return _norm(_norms.lange, norm_letter(norm), A, ())


def lansy(norm: Any, A: TiledMatrix, uplo: str | None = None) -> float:
    """Norm of a symmetric matrix of which one triangle is read; otherwise as `lange`.

    References
    ----------
    LAPACK dlansy.
    """
    square(A=A)
    return _norm(_norms.lansy, norm_letter(norm), A, (stored_triangle(A, uplo), False))


def lanhe(norm: Any, A: TiledMatrix, uplo: str | None = None) -> float:
    """Norm of a Hermitian matrix of which one triangle is read; otherwise as `lange`.

    References
    ----------
    LAPACK zlanhe.
    """
    square(A=A)
    return _norm(_norms.lansy, norm_letter(norm), A, (stored_triangle(A, uplo), True))


def lantr(norm: Any, A: TiledMatrix, uplo: str | None = None, diag: str = "N") -> float:
    """Norm of a triangular matrix; with ``diag="U"`` its diagonal is ones, and not read.

    References
    ----------
    LAPACK dlantr.
    """
    square(A=A)
    params = (stored_triangle(A, uplo), choice("diag", diag, "NU"))
    return _norm(_norms.lantr, norm_letter(norm), A, params)


def _norm(
    algorithm: Callable[..., None], letter: str, A: TiledMatrix, params: tuple[Any, ...]
) -> float:
    """Shares of the tiles by tasks, then their sum in a fixed order."""
    if A.m == 0 or A.n == 0:
        return 0.0
    real = np.zeros(0, dtype=A.dtype).real.dtype
    symmetric = algorithm is _norms.lansy
    # a symmetric matrix's column sums are its row sums
    by_rows = letter == "I" or (symmetric and letter == "1")

    def share(i: int, j: int) -> NDArray[Any]:
        start, size = (i * A.nb, A.m) if by_rows else (j * A.nb, A.n)
        length = {"M": 1, "F": 2}.get(letter, min(A.nb, size - start))
        return np.zeros(length, dtype=real)

    shares = [[share(i, j) for j in range(A.nt)] for i in range(A.mt)]
    (a,) = layouts((), A=A)
    everyones = a._replace(dtype=real, name="S", everywhere=True)
    run(algorithm, [A, Columns(shares)], (a, everyones), (letter, *params))
    if letter == "M":
        return float(np.max([share[0] for row in shares for share in row]))
    if letter == "F":
        # entries (scale, sum of squares), as LAPACK's lassq keeps them
        scale, ssq = np.moveaxis(np.array(shares, dtype=np.float64), -1, 0)
        if symmetric:
            # a tile off the diagonal stands for its mirror image, too
            ssq *= 2 - np.eye(A.mt)
        largest = scale.max()
        if not 0 < largest < np.inf:
            return float(largest)
        return float(largest * np.sqrt(((scale / largest) ** 2 * ssq).sum()))
    if not by_rows:
        shares = [list(column) for column in zip(*shares, strict=True)]
    totals = [np.sum(line, axis=0).max() for line in shares]
    return float(np.max(totals))
