"""Programs that `test_mpi_linalg` runs on real ranks: ``mpirun -n P python mpi_linalg.py NAME``.

What one rank finds wrong ends all of them.
"""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.linalg
from mpi4py import MPI

import taskla as tla
from taskla import TiledMatrix, linalg
from taskla.routines import TYPES

COMM = MPI.COMM_WORLD
NB = 8
N = 5 * NB + 2
# distribution, order and type, by the number of ranks
CASES = {
    2: [("2dbc", N, "z"), ("row", 2 * NB + 3, "s"), ("col", 1, "d")],
    3: [("2dbc", N, "d"), ("sbc", 2 * NB + 3, "z"), ("row", NB, "c")],
}


def random(shape: tuple[int, ...], dtype: str, seed: int = 0) -> Any:
    rng = np.random.default_rng([seed, *shape])
    a = rng.normal(size=shape)
    if np.dtype(dtype).kind == "c":
        a = a + 1j * rng.normal(size=shape)
    return a.astype(dtype)


def spd(n: int, dtype: str) -> Any:
    a = random((n, n), dtype)
    return (a @ a.conj().T + n * np.eye(n)).astype(dtype)


def well(n: int, dtype: str) -> Any:
    return (random((n, n), dtype) / n + 2 * np.eye(n)).astype(dtype)


def pivoting(n: int, dtype: str) -> Any:
    return np.roll(well(n, dtype), 1, axis=0)


def same(ours: Any, theirs: Any) -> None:
    if isinstance(theirs, tuple):
        assert len(ours) == len(theirs)
        for x, y in zip(ours, theirs, strict=True):
            same(x, y)
        return
    x, y = np.asarray(ours), np.asarray(theirs)
    assert x.shape == y.shape, (x.shape, y.shape)
    eps = np.finfo(x.dtype).eps if x.dtype.kind in "fc" else 0
    assert np.abs(x - y).max() <= 500 * eps * max(1.0, np.abs(y).max())


def cut(a: Any, uplo: str | None = None) -> TiledMatrix:
    A = TiledMatrix.from_array(a, NB, uplo)
    assert A.distribution is not None
    return A


def report(**found: Any) -> None:
    """Print one JSON object, on rank 0."""
    if COMM.rank == 0:
        print(json.dumps(found), flush=True)


def tiled() -> None:
    """Functions of tiled matrices: as SciPy's of arrays, on every rank."""
    for name, n, dtype in CASES[COMM.size]:
        with tla.engine("mpi", distribution=name):
            factors(n, TYPES[dtype])
            equations(n, TYPES[dtype])
            products(n, TYPES[dtype])
    report(checked=len(CASES[COMM.size]))


def factors(n: int, dtype: str) -> None:
    a, g, b = spd(n, dtype), pivoting(n, dtype), random((n, 3), dtype, 1)
    for uplo in (None, "lower", "upper"):
        A = cut(a, uplo)
        same(linalg.cholesky(A), scipy.linalg.cholesky(a, lower=uplo == "lower"))
        c = linalg.cho_factor(A)
        for right in (b, cut(b), b[:, 0]):
            x = linalg.cho_solve(c, right)
            assert type(x) is type(right)
            same(x, scipy.linalg.cho_solve(scipy.linalg.cho_factor(a), np.asarray(right)))
        same(A.to_array(fill="hermitian" if uplo else None), a)
    G = cut(g)
    same(linalg.lu_factor(G), scipy.linalg.lu_factor(g))
    for options in ({}, {"permute_l": True}, {"p_indices": True}):
        same(linalg.lu(G, **options), scipy.linalg.lu(g, **options))
    for trans in (0, 1, 2):
        for right in (b, cut(b)):
            x = linalg.lu_solve(linalg.lu_factor(G), right, trans)
            assert type(x) is type(right)
            same(x, scipy.linalg.lu_solve(scipy.linalg.lu_factor(g), b, trans))
    for shape in ((n, 5), (5, n), (n, 2 * NB)):
        wide = random(shape, dtype)
        same(linalg.lu(cut(wide)), scipy.linalg.lu(wide))
    same(linalg.slogdet(G), tuple(np.linalg.slogdet(g)))
    value = scipy.linalg.det(g)
    assert abs(linalg.det(G) - value) <= 500 * np.finfo(dtype).eps * abs(value)
    same(G, g)


def equations(n: int, dtype: str) -> None:
    b = random((n, 3), dtype, 1)
    for a, options, uplos in (
        (pivoting(n, dtype), {}, (None,)),
        (spd(n, dtype), {"assume_a": "pos"}, (None, "upper", "lower")),
        (well(n, dtype), {"assume_a": "lower triangular"}, (None, "lower")),
        (well(n, dtype), {"assume_a": "upper triangular"}, (None, "upper")),
    ):
        for uplo in uplos:
            A = cut(a, uplo)
            for right in (b[:, 0], cut(b)):
                x = linalg.solve(A, right, **options)
                assert type(x) is type(right)
                same(x, scipy.linalg.solve(a, np.asarray(right), **options))
            X = linalg.inv(A, **options)
            positive = options.get("assume_a") == "pos"
            same(
                X.to_array(fill="hermitian" if uplo and positive else None),
                scipy.linalg.inv(a, **options),
            )
    for lower in (False, True):
        for trans in "NTC":
            x = linalg.solve_triangular(cut(a), b, trans, lower)
            same(x, scipy.linalg.solve_triangular(a, b, trans, lower))


def products(n: int, dtype: str) -> None:
    a, b = random((n, n), dtype), random((n, NB + 3), dtype, 1)
    full = np.tril(a) + np.tril(a, -1).T
    for right in (b, cut(b), b[:, 0]):
        for x, expected in (
            (linalg.matmul(cut(a), right), a @ np.asarray(right)),
            (linalg.symm(cut(a), right), full @ np.asarray(right)),
            (linalg.symm(cut(a, "lower"), right, alpha=2.0), 2 * full @ np.asarray(right)),
        ):
            assert type(x) is type(right)
            same(x, expected.astype(dtype))
    for ord in (None, 1, np.inf):
        value, expected = linalg.norm(cut(a), ord), scipy.linalg.norm(a, ord)
        assert abs(value - expected) <= 50 * np.finfo(dtype).eps * expected
        assert len(set(COMM.allgather(value))) == 1


def arrays() -> None:
    """Functions of arrays that all ranks have: as SciPy's, in arrays, on every rank."""
    with tla.engine("mpi") as engine:
        for dtype in ("float32", "complex128"):
            array_functions(dtype)
        sent = COMM.allreduce(engine.messages)
    report(has_sent=sent > 0)


def array_functions(dtype: str) -> None:
    a, g, w = spd(N, dtype), pivoting(N, dtype), well(N, dtype)
    low = half = np.tril(w)
    for columns in (3, 20):
        b = random((N, columns), dtype, 1)
        calls: list[tuple[Callable[..., Any], Callable[..., Any], tuple[Any, ...]]] = [
            (linalg.cholesky, scipy.linalg.cholesky, (a,)),
            (linalg.cholesky, scipy.linalg.cholesky, (a, True)),
            (linalg.cho_solve, scipy.linalg.cho_solve, (scipy.linalg.cho_factor(a), b)),
            (linalg.lu, scipy.linalg.lu, (g,)),
            (linalg.lu_factor, scipy.linalg.lu_factor, (g,)),
            (linalg.lu_solve, scipy.linalg.lu_solve, (scipy.linalg.lu_factor(g), b)),
            (linalg.solve, scipy.linalg.solve, (g, b)),
            (linalg.solve, scipy.linalg.solve, (a, b)),
            (linalg.solve, scipy.linalg.solve, (low, b)),
            (linalg.solve_triangular, scipy.linalg.solve_triangular, (w, b)),
            (linalg.inv, scipy.linalg.inv, (g,)),
            (linalg.inv, scipy.linalg.inv, (a,)),
            (linalg.inv, scipy.linalg.inv, (half,)),
            (linalg.slogdet, lambda a: tuple(np.linalg.slogdet(a)), (g,)),
            (linalg.matmul, np.matmul, (a, b)),
            (linalg.matmul, np.matmul, (np.stack([a, g]), b)),
            (linalg.symm, lambda a, b: (np.tril(a) + np.tril(a, -1).T) @ b, (w, b)),
        ]
        for ours, theirs, arguments in calls:
            result = ours(*arguments, nb=NB)
            same(result, theirs(*arguments))
    c, lower = linalg.cho_factor(a, nb=NB)
    same(linalg.cho_solve((c, lower), a[0], nb=NB), scipy.linalg.solve(a, a[0]))
    assert linalg.cholesky(np.asfortranarray(a), nb=NB).flags.writeable


def errors() -> None:
    """Errors and warnings are the same on all ranks, and life goes on."""
    found = []
    with tla.engine("mpi"), warnings.catch_warnings():
        warnings.simplefilter("error")
        bad, zero = spd(N, "float64"), pivoting(N, "float64")
        bad[N - 1, N - 1] = np.nan
        zero[:, 9] = 0
        indefinite = spd(N, "float64")
        indefinite[20, 20] = -1e4
        vandermonde = np.vander(np.arange(1.0, N + 1))
        for call in (
            lambda: linalg.cholesky(cut(bad)),
            lambda: linalg.lu_factor(cut(bad)),
            lambda: linalg.solve(cut(indefinite), zero[0], assume_a="pos"),
            lambda: linalg.cholesky(cut(indefinite)),
            lambda: linalg.cholesky(indefinite, nb=NB),
            lambda: linalg.solve(cut(zero), zero[0]),
            lambda: linalg.lu_factor(cut(zero)),
            lambda: linalg.inv(cut(zero)),
            lambda: linalg.inv(cut(vandermonde)),
            lambda: linalg.solve(cut(vandermonde), zero[0]),
            lambda: linalg.solve_triangular(cut(zero), zero[0]),
        ):
            try:
                call()
            except (ValueError, scipy.linalg.LinAlgError, scipy.linalg.LinAlgWarning) as error:
                words = set(COMM.allgather(f"{type(error).__name__}: {error}"))
                assert len(words) == 1, words
                found.append(words.pop()[:60])
            else:
                raise AssertionError("no error")
        half = np.where(np.tri(N, dtype=bool), spd(N, "float64"), np.nan)
        same(
            linalg.cholesky(cut(half), lower=True),
            scipy.linalg.cholesky(spd(N, "float64"), lower=True),
        )
    report(errors=found)


if __name__ == "__main__":
    # in this process, so that an exception ends all ranks
    globals()[sys.argv[1]]()
