"""What the functions on arrays do with their arguments before anything is computed.

A function serves the arguments that it can tile and hands every other call, invalid ones included,
to SciPy: so the answer, or the exception, is SciPy's own.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from operator import index
from typing import Any, Literal, ParamSpec, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from taskla.linalg import _passes
from taskla.linalg._passes import Part
from taskla.matrix import TiledMatrix
from taskla.matrix_place import place
from taskla.matrix_store import merge_triangles
from taskla.tile import Tile

__all__ = [
    "Array",
    "columns",
    "fetch",
    "fits",
    "given",
    "is_big",
    "is_square",
    "is_tiled",
    "lapack_dtype",
    "matrices_first",
    "operand",
    "over_batch",
    "scratch",
    "tileable",
    "tiled",
]

Array: TypeAlias = NDArray[Any]
P = ParamSpec("P")
R = TypeVar("R")
Overwrite: TypeAlias = Literal["", "F", "FC"]

ONE_TILE = 640
"""Up to this order, unless `nb` is less, SciPy computes: one call of LAPACK in this thread.

There two threads of BLAS on the whole matrix are as fast as a graph of tiles on two workers.
"""

_WORKING = {
    **{char: np.dtype(char) for char in "fdFD"},
    np.dtype(np.longdouble).char: np.dtype("d"),
    np.dtype(np.clongdouble).char: np.dtype("D"),
}


def is_tiled(*arguments: object) -> bool:
    """Whether any argument is a TiledMatrix."""
    return any(isinstance(argument, TiledMatrix) for argument in arguments)


def matrices_first(function: Callable[P, R]) -> Callable[P, R]:
    """Refuse BLAS's order of arguments, which begins with a letter, by an error that says so.

    For a function that BLAS's name makes look like the one in `taskla.lapack`.
    """

    @wraps(function)
    def checked(*args: P.args, **kwargs: P.kwargs) -> R:
        if args and isinstance(args[0], str):
            name = function.__name__
            raise TypeError(
                f"{name} takes matrices first, {name}(a, b, ...), not {args[0]!r}; with BLAS's "
                f"order of arguments, on tiled matrices, there is taskla.lapack.{name}"
            )
        return function(*args, **kwargs)

    return checked


def given(a: Any) -> tuple[Any, Array]:
    """Return an argument as SciPy shall see it, and the plain array that SciPy makes of it.

    The first is the argument itself, masked or sparse or worse; only lists are converted, lest it
    be done twice.
    """
    array = np.asarray(a)
    return array if isinstance(a, list | tuple) else a, array


def is_big(order: int, nb: int | None) -> bool:
    """Whether a matrix of this order is cut into tiles.

    Raises
    ------
    TypeError
        When `nb` is not an integer.
    ValueError
        When `nb` is less than 1.
    """
    if nb is None:
        return order > ONE_TILE
    try:
        # index() takes a bool, which is no size
        size = index(nb) if not isinstance(nb, bool) else None
    except TypeError:
        size = None
    if size is None:
        raise TypeError(f"nb is {nb!r}; it must be an integer")
    if size < 1:
        raise ValueError(f"nb is {size}; it must be at least 1")
    return order > size


def is_square(a: Array) -> bool:
    """Whether `a` is a square matrix, or a batch of them, with something in it."""
    return a.ndim > 1 and a.shape[-1] == a.shape[-2] and a.size > 0


def fits(a: Array, b: Array) -> bool:
    """Whether `b` is a vector or matrix, or a batch of matrices, with as many rows as `a`."""
    return b.ndim > 0 and b.shape[-min(b.ndim, 2)] == a.shape[-2] and b.size > 0


def columns(b: Array) -> Array:
    """Return a matrix for what may be a vector: one column."""
    return b[:, None] if b.ndim == 1 else b


def lapack_dtype(*arrays: Array) -> np.dtype[Any] | None:
    """Return the LAPACK type in which SciPy computes with arrays; None for what it cannot convert.

    Small integers, booleans and float16 become float32, other integers float64.
    """
    if any(array.dtype.kind not in "biufc" for array in arrays):
        return None
    common = np.result_type(np.float32, *(array.dtype for array in arrays))
    return _WORKING.get(common.char)


def operand(a: Array, dtype: np.dtype[Any], check_finite: bool) -> Array:
    """Return a matrix or column that is only read: `a` itself where tiles can be views of it.

    Raises
    ------
    ValueError
        When `a` is to be checked and holds infs or NaNs.
    """
    if not tileable(a, dtype):
        return _passes.copied(a, dtype, "F", "G", check_finite)
    if check_finite:
        _passes.check(a)
    return a


def scratch(
    a: Array,
    dtype: np.dtype[Any],
    check_finite: bool,
    *,
    order: Literal["F", "C", "K"] = "K",
    part: Part = "G",
    overwrite: Overwrite = "",
) -> Array:
    """Return a matrix that may be destroyed: a checked copy, or `a` itself.

    Parameters
    ----------
    a : ndarray, shape (m, n)
    dtype : numpy.dtype
        Of the result.
    check_finite : bool
        Whether the whole of `a` must be finite.
    order : {"F", "C", "K"}
        The order of a copy; "K" takes that of `a`.
    part : {"G", "L", "U"}
        What is wanted of `a`; the rest of the result is zero.
    overwrite : {"", "F", "FC"}
        The orders in which a contiguous `a` may itself be the result, if dtype and flags allow.

    Raises
    ------
    ValueError
        When `a` is to be checked and holds infs or NaNs; then `a` is as it was.
    """
    contiguous = ("F" in overwrite and a.flags.f_contiguous) or (
        "C" in overwrite and a.flags.c_contiguous
    )
    if contiguous and a.flags.writeable and tileable(a, dtype):
        if check_finite:
            _passes.check(a)
        if part != "G":
            _passes.clear(a, part)
        return a
    if order == "K":
        order = "F" if abs(a.strides[0]) < abs(a.strides[1]) else "C"
    return _passes.copied(a, dtype, order, part, check_finite)


def tiled(a: Array, nb: int | None, uplo: Literal["lower", "upper"] | None = None) -> TiledMatrix:
    """Return the tiles of an array: views of it; on several ranks copies, which `fetch` takes back.

    There all ranks have the same array, and each copies its own tiles.
    """
    here = place()
    copies = here.ranks > 1 or here.maker is not None
    return TiledMatrix.from_array(a, nb, uplo, copy=None if copies else False)


def fetch(A: TiledMatrix, a: Array) -> None:
    """Bring what the tiles of an array have become back into it, on all ranks."""
    if A.distribution is None:
        # they are views
        return
    whole = A.to_array()
    if A.uplo is None:
        a[...] = whole
        return
    for i, j in A.layout.tiles():
        block, tile = a[A.rows(i), A.cols(j)], whole[A.rows(i), A.cols(j)]
        block[...] = merge_triangles(tile, block, A.uplo) if i == j else tile


def tileable(a: Array, dtype: np.dtype[Any]) -> bool:
    """Whether tiles of this dtype can be views of a matrix."""
    if a.dtype != dtype or not a.flags.aligned:
        return False
    try:
        Tile(a)
    except ValueError:
        return False
    return True


def over_batch(function: Callable[..., Any], *arguments: tuple[Array, int]) -> Any:
    """Call a function for each member of a batch and stack what it returns.

    Parameters
    ----------
    function : callable
        It returns one array or a tuple of arrays.
    *arguments : (ndarray, int)
        Arrays, none empty, with the number of dimensions that `function` takes; those in front are
        the batch, broadcast against each other.

    Raises
    ------
    ValueError
        When the batches cannot be broadcast.
    """
    split = [array.ndim - core for array, core in arguments]
    shapes = [array.shape[:k] for (array, _), k in zip(arguments, split, strict=True)]
    batch = np.broadcast_shapes(*shapes)
    arrays = [
        np.broadcast_to(array, batch + array.shape[k:])
        for (array, _), k in zip(arguments, split, strict=True)
    ]
    results = [function(*(array[i] for array in arrays)) for i in np.ndindex(batch)]
    if not isinstance(results[0], tuple):
        return _stacked(results, batch)
    return tuple(_stacked(parts, batch) for parts in zip(*results, strict=True))


def _stacked(members: Any, batch: tuple[int, ...]) -> Array:
    stack = np.stack(members)
    return stack.reshape(batch + stack.shape[1:])
