"""The functions of `taskla.linalg` on Dask arrays: what SciPy gives, lazily, for any chunks.

Most run on Dask's synchronous scheduler, in this process; what a cluster adds is in
`test_engine_dask`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import dask
import dask.array as da
import numpy as np
import pytest
import scipy.linalg

import taskla as tla
from taskla.errors import NotPositiveDefiniteError, SingularMatrixError

TYPES = ["float32", "float64", "complex64", "complex128"]
# order, tile size: nothing, one number, less than a tile, one tile, one more, remainders
SIZES = [(0, 4), (1, 4), (3, 4), (4, 4), (5, 4), (8, 4), (37, 8), (40, 8)]


@pytest.fixture(autouse=True)
def in_this_process() -> Iterator[None]:
    with dask.config.set(scheduler="synchronous"):
        yield


def general(n: int, m: int, dtype: str, seed: int = 0) -> Any:
    rng = np.random.default_rng(seed)
    a = rng.normal(size=(n, m))
    if np.dtype(dtype).kind == "c":
        a = a + 1j * rng.normal(size=(n, m))
    return a.astype(dtype)


def positive(n: int, dtype: str, seed: int = 0) -> Any:
    a = general(n, n, dtype, seed)
    return (a @ a.conj().T + n * np.eye(n)).astype(dtype)


def chunked(a: Any, chunks: Any = "odd") -> Any:
    """As a Dask array, by default with chunks that are no tiles."""
    if chunks == "odd":
        chunks = tuple(_odd(size) for size in a.shape)
    return da.from_array(a, chunks=chunks)


def _odd(size: int) -> tuple[int, ...]:
    parts, left, step = [], size, 3
    while left > 0:
        parts.append(min(step, left))
        left, step = left - parts[-1], step + 2
    return tuple(parts) or (0,)


def close(found: Any, expected: Any, *, factor: float = 100) -> None:
    """What is lazy, of the type and shape that it says, and right."""
    assert isinstance(found, da.Array)
    value = found.compute()
    assert value.dtype == found.dtype == expected.dtype
    assert value.shape == found.shape == expected.shape
    scale = max(1.0, float(np.abs(expected).max(initial=0)), float(expected.size))
    limit = factor * np.finfo(expected.dtype).eps * scale * max(expected.shape or (1,), default=1)
    assert np.abs(value - expected).max(initial=0) <= limit


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize(("n", "nb"), SIZES)
@pytest.mark.parametrize("lower", [False, True])
def test_cholesky(n: int, nb: int, dtype: str, lower: bool) -> None:
    a = positive(n, dtype)
    expected = scipy.linalg.cholesky(a, lower=lower) if n else a
    # the other triangle is not looked at
    wrong = np.where(np.tri(n, dtype=bool) if lower else np.tri(n, dtype=bool).T, a, 7)
    close(tla.cholesky(chunked(wrong.astype(dtype)), lower=lower, nb=nb), expected)
    c, is_lower = tla.cho_factor(chunked(a), lower=lower, nb=nb)
    assert is_lower == lower
    b = general(n, 3, dtype, 1)
    x = tla.cho_solve((c, lower), chunked(b), nb=nb)
    close(x, np.linalg.solve(a, b) if n else b, factor=1000)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize(("n", "nb"), SIZES)
def test_lu(n: int, nb: int, dtype: str) -> None:
    a = general(n, n, dtype)
    lu, piv = tla.lu_factor(chunked(a), nb=nb)
    if n:
        expected, pivots = scipy.linalg.lu_factor(a)
        close(lu, expected, factor=1000)
        np.testing.assert_array_equal(piv.compute(), pivots)
    assert piv.dtype == np.int32
    assert piv.compute().dtype == np.int32
    b = general(n, 5, dtype, 1)
    for trans in (0, 1, 2):
        op = (a, a.T, a.conj().T)[trans]
        x = tla.lu_solve((lu, piv), chunked(b), trans=trans, nb=nb)
        close(x, np.linalg.solve(op, b) if n else b, factor=10000)


@pytest.mark.parametrize("dtype", ["float32", "complex128"])
@pytest.mark.parametrize(("m", "n"), [(37, 37), (37, 20), (20, 37), (9, 1), (1, 9)])
def test_the_parts_of_lu(m: int, n: int, dtype: str) -> None:
    a = general(m, n, dtype)
    for found, expected in zip(tla.lu(chunked(a), nb=8), scipy.linalg.lu(a), strict=True):
        close(found, expected, factor=1000)
    for found, expected in zip(
        tla.lu(chunked(a), permute_l=True, nb=8), scipy.linalg.lu(a, permute_l=True), strict=True
    ):
        close(found, expected, factor=1000)
    p, lower, upper = tla.lu(chunked(a), p_indices=True, nb=8)
    np.testing.assert_array_equal(p.compute(), scipy.linalg.lu(a, p_indices=True)[0])
    close(lower[p.compute()] @ upper, a)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("n", [1, 4, 37])
@pytest.mark.parametrize("assume_a", [None, "pos", "lower triangular", "upper triangular"])
def test_solve(n: int, dtype: str, assume_a: str | None) -> None:
    a = positive(n, dtype)
    lower = {"lower triangular": np.tril(a), "upper triangular": np.triu(a)}
    b = general(n, 2, dtype, 1)
    expected = np.linalg.solve(lower.get(assume_a or "", a), b)
    close(tla.solve(chunked(a), chunked(b), assume_a=assume_a, nb=8), expected, factor=1000)
    close(tla.solve(chunked(a), chunked(b[:, 0]), assume_a=assume_a, nb=8), expected[:, 0])
    # an array beside a Dask array
    close(tla.solve(chunked(a), b, assume_a=assume_a, nb=8), expected, factor=1000)


@pytest.mark.parametrize("trans", [0, "T", "C"])
@pytest.mark.parametrize("lower", [False, True])
@pytest.mark.parametrize("unit", [False, True])
def test_solve_triangular(trans: Any, lower: bool, unit: bool) -> None:
    a = positive(29, "complex128")
    b = general(29, 11, "complex128", 1)
    options: dict[str, Any] = {"trans": trans, "lower": lower, "unit_diagonal": unit}
    a = a / 29
    expected = scipy.linalg.solve_triangular(a, b, **options)
    close(tla.solve_triangular(chunked(a), chunked(b), nb=8, **options), expected, factor=1000)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("assume_a", [None, "pos", "lower triangular", "upper triangular"])
def test_inverse(dtype: str, assume_a: str | None) -> None:
    a = positive(27, dtype)
    if assume_a in ("lower triangular", "upper triangular"):
        a = np.tril(a) if assume_a.startswith("lower") else np.triu(a)
    close(tla.inv(chunked(a), assume_a=assume_a, nb=8), np.linalg.inv(a), factor=1000)


@pytest.mark.parametrize("dtype", TYPES)
def test_determinants(dtype: str) -> None:
    a = general(19, 19, dtype)
    expected = np.linalg.det(a)
    det = tla.det(chunked(a), nb=4)
    assert det.compute() == pytest.approx(expected, rel=1e-3)
    assert det.dtype == det.compute().dtype == np.result_type(dtype, np.float64)
    sign, log = tla.slogdet(chunked(a), nb=4)
    expected = np.linalg.slogdet(a)
    assert (sign.dtype, log.dtype) == (expected.sign.dtype, expected.logabsdet.dtype)
    assert sign.compute() == pytest.approx(expected.sign, rel=1e-4)
    assert log.compute() == pytest.approx(expected.logabsdet, rel=1e-4)
    singular = chunked(np.zeros((5, 5), dtype))
    assert tla.det(singular, nb=2).compute() == 0
    # no product of what comes before the zero
    huge = np.diag(np.full(40, 1e30)).astype(dtype)
    huge[39, 39] = 0
    assert tla.det(chunked(huge), nb=8).compute() == 0
    # an odd permutation of a singular matrix has no minus before its zero
    for zero in (singular, chunked(np.diag([0, 1, 2, 3])[[1, 0, 2, 3]].astype(dtype))):
        sign, log = tla.slogdet(zero, nb=2)
        assert (str(sign.compute()), log.compute()) == (str(np.zeros((), dtype)), -np.inf)
    # more than single precision holds
    large = np.diag([1e30, 1e30]).astype(dtype)
    assert tla.det(chunked(large), nb=2).compute() == pytest.approx(1e60, rel=1e-6)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize(("m", "k", "n"), [(9, 17, 23), (16, 8, 8), (1, 1, 1), (5, 0, 3)])
def test_products(m: int, k: int, n: int, dtype: str) -> None:
    a, b = general(m, k, dtype), general(k, n, dtype, 1)
    close(tla.matmul(chunked(a), chunked(b), nb=8), a @ b)
    close(tla.matmul(chunked(a), b, nb=8), a @ b)
    close(tla.matmul(chunked(a), chunked(b[:, 0]), nb=8), a @ b[:, 0])
    close(tla.matmul(chunked(a[0]), chunked(b), nb=8), a[0] @ b)
    close(tla.matmul(chunked(a[0]), chunked(b[:, 0]), nb=8), np.asarray(a[0] @ b[:, 0]))


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("lower", [False, True])
def test_symmetric_products(side: str, lower: bool) -> None:
    a = positive(21, "float64")
    half = np.tril(a) if lower else np.triu(a)
    b = general(21, 13, "float64", 1)
    b = b if side == "left" else b.T.copy()
    c = general(*b.shape, "float64", 2)
    expected = 2 * (a @ b if side == "left" else b @ a) + 3 * c
    found = tla.symm(
        chunked(half), chunked(b), chunked(c), alpha=2, beta=3, side=side, lower=lower, nb=8
    )
    close(found, expected)


@pytest.mark.parametrize("ord", [None, "fro", 1, np.inf])
def test_norms(ord: Any) -> None:
    a = general(21, 13, "complex64")
    assert tla.norm(chunked(a), ord).compute() == pytest.approx(np.linalg.norm(a, ord), rel=1e-5)
    with pytest.raises(ValueError, match="infs or NaNs"):
        tla.norm(chunked(a * np.nan), ord).compute()


# -- laziness, errors ------------------------------------------------------------------------------


def test_nothing_is_computed_before_it_is_asked_for() -> None:
    touched = []

    def note(block: Any) -> Any:
        touched.append(block.shape)
        return block

    a = positive(24, "float64")
    x = da.from_array(a, chunks=8).map_blocks(note, dtype=a.dtype, meta=a[:0, :0])
    b = chunked(general(24, 2, "float64"))
    results = [
        tla.solve(x, b, nb=8),
        tla.cholesky(x, nb=8),
        *tla.lu(x, nb=8),
        tla.inv(x, nb=8),
        tla.matmul(x, x, nb=8),
        tla.det(x, nb=8),
        tla.norm(x),
    ]
    assert not touched
    dask.compute(*results)
    assert touched


def test_chunks_of_the_other_triangle_are_not_computed() -> None:
    seen = set()

    def note(block: Any, block_info: Any = None) -> Any:
        seen.add(block_info[0]["chunk-location"])
        return block

    a = positive(24, "float64")
    x = da.from_array(a, chunks=8).map_blocks(note, dtype=a.dtype, meta=a[:0, :0])
    tla.cholesky(x, lower=True).compute()
    assert seen == {(i, j) for i in range(3) for j in range(i + 1)}


def test_errors_come_with_the_numbers() -> None:
    a = positive(40, "float64")
    a[21, 21] = -1e3
    with pytest.raises(NotPositiveDefiniteError, match="22-th leading minor") as caught:
        tla.cholesky(chunked(a), lower=True, nb=8).compute()
    assert caught.value.__notes__ == ["in task potrf on tile A(2, 2)"]
    b = chunked(general(40, 1, "float64"))
    with pytest.raises(np.linalg.LinAlgError):
        tla.solve(chunked(a), b, assume_a="pos", nb=8).compute()
    singular = general(20, 20, "float64")
    singular[:, 13] = 0
    b = b[:20]
    with pytest.raises(np.linalg.LinAlgError, match="singular"):
        tla.solve(chunked(singular), b, nb=8).compute()
    with pytest.raises(np.linalg.LinAlgError, match="at diagonal 13"):
        tla.solve_triangular(chunked(singular), b, nb=8).compute()
    A = tla.TiledMatrix.from_dask(chunked(singular), nb=8)
    B = tla.TiledMatrix.from_dask(b, nb=8)
    tla.gesv(A, B)
    with pytest.raises(SingularMatrixError, match="diagonal element 14 "):
        B.compute()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_is_refused_by_default(value: float) -> None:
    a = positive(24, "float64")
    a[20, 3] = value
    x, b = chunked(a), chunked(np.ones((24, 1)))
    calls = [
        lambda: tla.cholesky(x, lower=True, nb=8),
        lambda: tla.lu_factor(x, nb=8)[0],
        lambda: tla.solve(x, b, nb=8),
        lambda: tla.solve(chunked(positive(24, "float64")), b * value, nb=8),
        lambda: tla.solve_triangular(x, b, lower=True, nb=8),
        lambda: tla.inv(x, nb=8),
    ]
    for call in calls:
        with pytest.raises(ValueError, match="must not contain infs or NaNs"):
            call().compute()
    # the upper factor does not look there
    close(tla.cholesky(x, nb=8), scipy.linalg.cholesky(a, check_finite=False))
    assert not np.isfinite(tla.lu_factor(x, check_finite=False, nb=8)[0].compute()).all()


def test_arguments_are_refused_at_once() -> None:
    x, b = chunked(positive(24, "float64")), chunked(np.ones((24, 1)))
    refused = [
        (ValueError, "square", lambda: tla.cholesky(x[:20], nb=8)),
        (ValueError, "rows", lambda: tla.solve(x, b[:9], nb=8)),
        (ValueError, "assume_a is 'sym'", lambda: tla.solve(x, b, assume_a="sym", nb=8)),
        (ValueError, "trans is 7", lambda: tla.lu_solve(tla.lu_factor(x, nb=8), b, trans=7)),
        (ValueError, "x1 has 24 columns", lambda: tla.matmul(x, x[:20], nb=8)),
        (TypeError, "takes no out", lambda: tla.matmul(x, x, out=np.empty((24, 24)))),
        (ValueError, "3 dimensions", lambda: tla.cholesky(da.zeros((2, 8, 8)), nb=8)),
        (ValueError, "nb is 0", lambda: tla.cholesky(x, nb=0)),
        (ValueError, "unknown size", lambda: tla.cholesky(x[x[:, 0] > 0], nb=8)),
        (TypeError, "no LAPACK type", lambda: tla.cholesky(da.zeros((8, 8), dtype="M8[s]"))),
        (NotImplementedError, "transposed", lambda: tla.solve(x * 1j, b, transposed=True)),
    ]
    for kind, words, call in refused:
        with pytest.raises(kind, match=words):
            call()


def test_integers_and_half_precision() -> None:
    a = positive(12, "float64").round().astype(int)
    assert tla.cholesky(chunked(a), nb=4).dtype == np.float64
    close(tla.cholesky(chunked(a), nb=4), scipy.linalg.cholesky(a.astype(float)))
    assert tla.cholesky(chunked(a.astype("float16")), nb=4).dtype == np.float32


def test_leave_to_overwrite_changes_nothing() -> None:
    a, b = positive(9, "d"), general(9, 2, "d")
    x, y = chunked(a), chunked(b)
    close(tla.solve(x, y, True, True, True, assume_a="pos", nb=4), np.linalg.solve(a, b))
    close(tla.cholesky(x, True, True, nb=4), np.linalg.cholesky(a))
    assert (x.compute() == a).all()
    assert (y.compute() == b).all()
    with pytest.raises(TypeError, match="overwrite_c"):
        tla.inv(x, overwrite_c=True)  # type: ignore[call-arg]
