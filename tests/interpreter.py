"""What each operation means, in NumPy, and a graph run by that, one task after the other.

A second opinion on algorithms and on the calls that the flow makes of them: it shares nothing with
the kernels, the engines and tiled memory. A triangle that is not stored may hold anything, NaN say.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeAlias

import numpy as np

from taskla.graph import TaskGraph

Array: TypeAlias = np.ndarray[Any, Any]


def op(letter: str, a: Array) -> Array:
    return {"N": a, "T": a.T, "C": a.conj().T}[letter]


def part(uplo: str, shape: tuple[int, ...]) -> Array:
    """True where the triangle `uplo`, its diagonal included, or everything ("G") is."""
    return {"L": np.tri(*shape), "U": ~np.tri(*shape, -1, dtype=bool), "G": np.ones(shape)}[
        uplo
    ].astype(bool)


def triangle(a: Array, uplo: str, diag: str = "N") -> Array:
    """The triangular matrix that is stored in `a`; of an oblong `a`, in its leading square."""
    n = min(a.shape)
    result = np.where(part(uplo, (n, n)), a[:n, :n], 0)
    if diag == "U":
        np.fill_diagonal(result, 1)
    return result


def mirrored(a: Array, uplo: str, hermitian: bool) -> Array:
    """The symmetric or Hermitian matrix of which `a` stores the triangle `uplo`."""
    half = np.where(part(uplo, a.shape), a, 0)
    off = np.where(np.eye(len(a), dtype=bool), 0, half)
    result = half + op("C" if hermitian else "T", off)
    if hermitian:
        np.fill_diagonal(result, result.diagonal().real)
    return result


def write(target: Array, uplo: str, value: Array) -> None:
    np.copyto(target, value, where=part(uplo, target.shape))


def scaled(factor: Any, a: Array) -> Array:
    """As in BLAS, zero times anything is zero."""
    return factor * a if factor else np.zeros_like(a)


def eliminate(a: Array, pivoting: bool) -> list[int]:
    """LU in place, column by column; the 0-based interchanges."""
    pivots = []
    for k in range(min(a.shape)):
        size = abs(a[k:, k].real) + abs(a[k:, k].imag)
        pivot = k + int(size.argmax()) if pivoting else k
        a[[k, pivot]] = a[[pivot, k]]
        pivots.append(pivot)
        if a[k, k] != 0:
            a[k + 1 :, k] /= a[k, k]
        a[k + 1 :, k + 1 :] -= np.outer(a[k + 1 :, k], a[k, k + 1 :])
    return pivots


def interchanged(rows: Array, pivots: Iterable[int], forward: bool = True) -> Array:
    result = rows.copy()
    swaps = list(enumerate(pivots))
    for k, pivot in swaps if forward else reversed(swaps):
        result[[k, pivot]] = result[[pivot, k]]
    return result


# -- the operations --------------------------------------------------------------------------------


def potrf(a: Array, *, uplo: str) -> None:
    lower = np.linalg.cholesky(mirrored(a, uplo, True))
    write(a, uplo, lower if uplo == "L" else op("C", lower))


def trtri(a: Array, *, uplo: str, diag: str) -> None:
    inverse = np.linalg.inv(triangle(a, uplo, diag))
    if diag == "U":
        np.fill_diagonal(inverse, a.diagonal())
    write(a, uplo, inverse)


def lauum(a: Array, *, uplo: str) -> None:
    x = triangle(a, uplo)
    write(a, uplo, op("C", x) @ x if uplo == "L" else x @ op("C", x))


def trsm(a: Array, b: Array, *, side: str, uplo: str, trans: str, diag: str, alpha: Any) -> None:
    inverse = np.linalg.inv(op(trans, triangle(a, uplo, diag)))
    b[...] = alpha * (inverse @ b if side == "L" else b @ inverse)


def trmm(a: Array, b: Array, *, side: str, uplo: str, trans: str, diag: str, alpha: Any) -> None:
    x = op(trans, triangle(a, uplo, diag))
    b[...] = alpha * (x @ b if side == "L" else b @ x)


def gemm(a: Array, b: Array, c: Array, *, transa: str, transb: str, alpha: Any, beta: Any) -> None:
    c[...] = alpha * op(transa, a) @ op(transb, b) + scaled(beta, c)


def symm(
    a: Array, b: Array, c: Array, *, side: str, uplo: str, alpha: Any, beta: Any, same: str = "T"
) -> None:
    x = mirrored(a, uplo, same == "C")
    c[...] = alpha * (x @ b if side == "L" else b @ x) + scaled(beta, c)


def hemm(a: Array, b: Array, c: Array, **params: Any) -> None:
    symm(a, b, c, **params, same="C")


def syrk(
    a: Array, c: Array, *, uplo: str, trans: str, alpha: Any, beta: Any, same: str = "T"
) -> None:
    assert trans in ("N", same) or a.dtype.kind != "c"
    x = op(trans, a)
    write(c, uplo, alpha * x @ op(same, x) + scaled(beta, c))


def herk(a: Array, c: Array, **params: Any) -> None:
    syrk(a, c, **params, same="C")


def getrf(a: Array, p: Array, *, row: int) -> None:
    p[:, 0] = np.array(eliminate(a, pivoting=True)) + row + 1


def getrf_nopiv(a: Array) -> None:
    eliminate(a, pivoting=False)


def laswp(p: Array, a: Array, *, row: int, forward: bool) -> None:
    a[...] = interchanged(a, p[:, 0] - row - 1, forward)


def getrf_tnt_leaf(a: Array, c: Array, r: Array, *, row0: int) -> None:
    _propose(c, r, a, row0 + np.arange(len(a)))


def getrf_tnt_merge(c1: Array, r1: Array, c2: Array, r2: Array) -> None:
    numbers = np.concatenate([r1, r2])[:, 0]
    there = numbers >= 0
    _propose(c1, r1, np.concatenate([c1, c2])[there], numbers[there])


def _propose(c: Array, r: Array, rows: Array, numbers: Array) -> None:
    pivots = eliminate(rows.copy(), pivoting=True)
    count = min(rows.shape[1], len(numbers), len(c))
    c[:count] = interchanged(rows, pivots)[:count]
    r[:], r[:count, 0] = -1, interchanged(numbers, pivots)[:count]


def getrf_tnt_pivots(r: Array, p: Array, *, top: int, n: int) -> None:
    assert len(p) == n
    order = list(range(top, 1 + max(top + n, r.max())))
    for k in range(n):
        pivot = order.index(r[k, 0])
        order[k], order[pivot] = order[pivot], order[k]
        p[k] = top + pivot + 1


def lacpy(a: Array, b: Array, *, uplo: str, trans: str) -> None:
    write(b, uplo, op(trans, a))


def laset(a: Array, *, uplo: str, offdiag: Any, diag: Any) -> None:
    value = np.full(a.shape, offdiag, a.dtype)
    np.fill_diagonal(value, diag)
    write(a, uplo, value)


def lascl(a: Array, *, uplo: str, alpha: Any) -> None:
    write(a, uplo, scaled(alpha, a))


def geadd(a: Array, b: Array, *, trans: str, alpha: Any, beta: Any) -> None:
    b[...] = alpha * op(trans, a) + scaled(beta, b)


MEANING: dict[str, Callable[..., None]] = {
    function.__name__: function
    for function in (
        *(potrf, trtri, lauum, trsm, trmm, gemm, symm, hemm, syrk, herk),
        *(getrf, getrf_nopiv, laswp, getrf_tnt_leaf, getrf_tnt_merge, getrf_tnt_pivots),
        *(lacpy, laset, lascl, geadd),
    )
}

# -- graphs ----------------------------------------------------------------------------------------


def tile_tasks(graph: TaskGraph, task: int) -> Iterator[list[list[int]]]:
    """The tile tasks that a task stands for: the tile numbers of each operand.

    A panel's operand has several; lists in an operand of other operations are a batch.
    """
    mine = slice(graph.indptr[task], graph.indptr[task + 1])
    definition = graph.kinds[graph.kind[task]].definition
    operands = [
        graph.tiles[mine][graph.operand[mine] == number].tolist()
        for number in range(len(definition.modes))
    ]
    if definition.panel:
        yield operands
        return
    count = max(map(len, operands))
    for at in range(count):
        yield [[numbers[at if len(numbers) == count else 0]] for numbers in operands]


def interpret(graph: TaskGraph, *matrices: Array, order: Iterable[int] | None = None) -> None:
    """Run a graph on arrays, in place, in submission order or the one given.

    `matrices` are those of the grids that are not scratch.
    """
    arrays = iter(matrices)
    tiles: dict[int, Array] = {}
    for grid in graph.grids:
        array = np.zeros((grid.m, grid.n), grid.dtype) if grid.scratch else next(arrays)
        assert (array.shape, array.dtype) == ((grid.m, grid.n), grid.dtype)
        for number in range(grid.base, grid.end):
            i, j = (int(index) * grid.nb for index in grid.coordinates(number))
            tiles[number] = array[i : i + grid.nb, j : j + grid.nb]
    assert not list(arrays)
    for task in range(graph.n) if order is None else order:
        kind = graph.kinds[graph.kind[task]]
        params = dict(zip(kind.definition.params, kind.params, strict=True))
        for operands in tile_tasks(graph, task):
            stacks = [np.concatenate([tiles[t] for t in numbers]) for numbers in operands]
            MEANING[kind.operation](*stacks, **params)
            for numbers, stack in zip(operands, stacks, strict=True):
                tops = np.cumsum([len(tiles[t]) for t in numbers])
                for number, rows in zip(numbers, np.split(stack, tops[:-1]), strict=True):
                    tiles[number][...] = rows
