"""Products and norms with tiled matrices."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from taskla import lapack
from taskla.linalg._tiled import (
    Given,
    common_dtype,
    finite,
    matrix,
    read,
    result,
    tile_size,
    triangle_asked,
    writable,
)
from taskla.matrix import TiledMatrix
from taskla.precision import PrecisionMap

__all__ = ["matmul", "norm", "symm"]


def matmul(
    x1: Any,
    x2: Any,
    out: Any,
    nb: int | None,
    precision: PrecisionMap | str | None,
    options: dict[str, Any],
) -> Any:
    """Return the product: tiled if both factors are, else an array on all ranks."""
    if options:
        raise TypeError(f"matmul of a TiledMatrix takes no {', '.join(options)}")
    size = tile_size(nb, x1, x2, out)
    left, right = _factor("x1", x1), _factor("x2", x2)
    if np.ndim(x1) == 1 and not isinstance(x1, TiledMatrix):
        left = left.T  # type: ignore[union-attr]
    (m, k), (rows, n) = left.shape, right.shape
    if k != rows:
        raise ValueError(f"x1 has {k} columns and x2 {rows} rows; they must be as many")
    dtype = common_dtype(x1=left, x2=right)
    both = isinstance(x1, TiledMatrix) and isinstance(x2, TiledMatrix)
    C = _new((m, n), size, dtype) if out is None or not both else _out(out, (m, n), dtype)
    A, B = read(left, size, dtype), read(right, size, dtype)
    stationary = "C" if precision is not None else _stationary(A=A, B=B, C=C)
    lapack.gemm(1.0, A, B, 0.0, C, stationary=stationary, precision=precision)
    if both:
        return C
    product = C.to_array()
    if np.ndim(x1) == 1 or np.ndim(x2) == 1:
        product = product.ravel()
    return product if out is None else _into(out, product)


def symm(
    a: Any,
    b: Any,
    c: Any,
    alpha: complex,
    beta: complex,
    side: str,
    lower: Any,
    overwrite_c: bool,
    nb: int | None,
    precision: PrecisionMap | str | None,
) -> Any:
    """Return the product, as `b` was given."""
    if c is None and beta:
        raise ValueError(f"beta is {beta!r} and there is no c")
    size = tile_size(nb, a, b, c)
    given = {"a": matrix("a", a), "b": matrix("b", b)}
    if c is not None:
        given["c"] = matrix("c", c)
    dtype = common_dtype(**given)
    uplo = triangle_asked("a", given["a"], lower, default=True)
    A, B = read(given["a"], size, dtype), read(given["b"], size, dtype)
    C = _new(B.shape, size, dtype) if c is None else writable(given["c"], size, dtype, overwrite_c)
    stationary = "C" if precision is not None or _stationary(A=A, C=C) != "A" else "A"
    lapack.symm(side, uplo, alpha, A, B, beta, C, stationary=stationary, precision=precision)
    return result(C, b)


def norm(A: TiledMatrix, ord: Any, axis: Any, keepdims: bool, check_finite: bool) -> float:
    """Return the norm, the same number on all ranks."""
    if axis is not None or keepdims:
        raise TypeError("norm of a TiledMatrix takes no axis and no keepdims")
    if A.uplo:
        raise ValueError(
            f"a stores its {A.uplo} triangle; taskla.lapack.lansy, lanhe or lantr has the norm of "
            "the symmetric, Hermitian or triangular matrix"
        )
    if not (ord is None or ord == "fro" or ord == 1 or ord == np.inf):
        raise ValueError(f"ord is {ord!r}; of a TiledMatrix allowed: None, 'fro', 1, inf")
    value = lapack.lange("fro" if ord is None else ord, A)
    # either the norm overflows or an element is not finite: only now is a look at all needed
    finite(check_finite and not math.isfinite(value), A)
    return value


def _factor(name: str, x: Any) -> Given:
    """Return a factor of a product, which is a full matrix."""
    found = matrix(name, x)
    if isinstance(found, TiledMatrix) and found.uplo:
        raise ValueError(
            f"{name} stores its {found.uplo} triangle; taskla.linalg.symm, taskla.lapack.hemm or "
            "trmm multiplies by a symmetric, Hermitian or triangular matrix"
        )
    return found


def _new(shape: tuple[int, int], nb: int, dtype: np.dtype[Any]) -> TiledMatrix:
    return TiledMatrix.zeros(shape, nb, dtype)


def _out(out: Any, shape: tuple[int, int], dtype: np.dtype[Any]) -> TiledMatrix:
    """Return `out` if the product of tiled matrices fits it."""
    if not isinstance(out, TiledMatrix):
        raise TypeError(f"out is of type {type(out).__name__}; it must be a TiledMatrix")
    if out.shape != shape or out.dtype != dtype:
        raise ValueError(
            f"out is {out.m} x {out.n} {out.dtype}; it must be {shape[0]} x {shape[1]} {dtype}"
        )
    return out


def _into(out: Any, product: Any) -> Any:
    """Copy a product into the array that it was asked for."""
    if not isinstance(out, np.ndarray):
        raise TypeError(
            f"out is of type {type(out).__name__}; with a factor that is an array it must be one"
        )
    if out.shape != product.shape:
        raise ValueError(f"out has shape {out.shape}; it must have {product.shape}")
    np.copyto(out, product, casting="same_kind")
    return out


def _stationary(**matrices: TiledMatrix) -> str:
    """Return the matrix that stays on its ranks: the one of most tiles, C if it is one of them.

    On one rank nothing is sent, and C is best.
    """
    if matrices["C"].distribution is None:
        return "C"
    return max(reversed(matrices), key=lambda name: matrices[name].mt * matrices[name].nt)
