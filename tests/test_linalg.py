"""The functions on arrays against SciPy's (slogdet, matmul: NumPy's), by tiles and at once."""

import doctest
import importlib
import inspect
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import scipy.linalg

import taskla
from taskla import engines, linalg
from taskla.linalg import _inputs, _products

DTYPES = ("float32", "float64", "complex64", "complex128")
ORDERS = ("C", "F")
N = 23
# Five tile rows, the last of 3; two, the last of 7; None: SciPy's turn at this order.
SIZES = (5, 16, None)
REPLACED = [
    *("cho_factor", "cho_solve", "cholesky", "det", "inv", "lu", "lu_factor", "lu_solve", "norm"),
    *("solve", "solve_triangular"),
]
MODULES = ["_cholesky", "_determinant", "_inverse", "_lu", "_products", "_solve"]


def random(shape: tuple[int, ...], dtype: str = "float64", order: Any = "C", seed: int = 0) -> Any:
    rng = np.random.default_rng([seed, *shape])
    a = rng.normal(size=shape)
    if np.dtype(dtype).kind == "c":
        a = a + 1j * rng.normal(size=shape)
    return a.astype(dtype, order=order)


def spd(n: int, dtype: str = "float64", order: Any = "C", seed: int = 0) -> Any:
    a = random((n, n), dtype, seed=seed)
    return (a @ a.conj().T + n * np.eye(n)).astype(dtype, order=order)


def triangle(n: int, dtype: str, order: Any) -> Any:
    """A full matrix of which either triangle is well conditioned."""
    return (random((n, n), dtype) / n + 2 * np.eye(n)).astype(dtype, order=order)


def same(ours: Any, theirs: Any, tolerance: float = 200.0) -> None:
    """Equal in type and shape, and in value up to `tolerance` units of rounding of the largest."""
    if isinstance(theirs, tuple | list):
        # For a batch SciPy returns a list where it documents a tuple.
        assert isinstance(ours, tuple)
        assert len(ours) == len(theirs)
        for x, y in zip(ours, theirs, strict=True):
            same(x, y, tolerance)
        return
    assert type(ours) is type(theirs)
    x, y = np.asarray(ours), np.asarray(theirs)
    assert x.dtype == y.dtype
    assert x.shape == y.shape
    if y.dtype.kind not in "fc":
        np.testing.assert_array_equal(x, y)
    elif y.size:
        eps = np.finfo(y.dtype).eps
        assert np.abs(x - y).max() <= tolerance * eps * max(1.0, np.abs(y).max())


every = [
    pytest.mark.parametrize("nb", SIZES),
    pytest.mark.parametrize("order", ORDERS),
    pytest.mark.parametrize("dtype", DTYPES),
]


def over_everything(test: Callable[..., None]) -> Callable[..., None]:
    for mark in every:
        test = mark(test)
    return test


# -- results ---------------------------------------------------------------------------------------


@over_everything
@pytest.mark.parametrize("lower", [False, True])
def test_cholesky(dtype: str, order: str, nb: int | None, lower: bool) -> None:
    a, b = spd(N, dtype, order), random((N, 3), dtype, order)
    same(linalg.cholesky(a, lower, nb=nb), scipy.linalg.cholesky(a, lower))
    c, flag = linalg.cho_factor(a, lower, nb=nb)
    assert flag is lower
    keep = np.tril if lower else np.triu
    same(keep(c), keep(scipy.linalg.cho_factor(a, lower)[0]))
    for right in (b, b[:, 0]):
        ours = linalg.cho_solve((c, lower), right, nb=nb)
        same(ours, scipy.linalg.cho_solve((c, lower), right))


@over_everything
@pytest.mark.parametrize("shape", [(N, N), (N, 14), (14, N)])
def test_lu(dtype: str, order: str, nb: int | None, shape: tuple[int, int]) -> None:
    a = random(shape, dtype, order)
    factors, piv = linalg.lu_factor(a, nb=nb)
    assert factors.flags.f_contiguous
    same((factors, piv), scipy.linalg.lu_factor(a))
    for options in ({}, {"permute_l": True}, {"p_indices": True}):
        same(linalg.lu(a, **options, nb=nb), scipy.linalg.lu(a, **options))


@over_everything
@pytest.mark.parametrize("trans", [0, 1, 2])
def test_lu_solve(dtype: str, order: str, nb: int | None, trans: int) -> None:
    factors = scipy.linalg.lu_factor(random((N, N), dtype) + N * np.eye(N, dtype=dtype))
    factors = (np.asarray(factors[0], order=order), factors[1])
    b = random((N, 3), dtype, order)
    for right in (b, b[:, 0]):
        ours = linalg.lu_solve(factors, right, trans, nb=nb)
        same(ours, scipy.linalg.lu_solve(factors, right, trans))


@over_everything
@pytest.mark.parametrize("lower", [False, True])
@pytest.mark.parametrize("trans", [0, 1, 2, "N", "T", "C"])
def test_solve_triangular(
    dtype: str, order: str, nb: int | None, lower: bool, trans: int | str
) -> None:
    a, b = triangle(N, dtype, order), random((N, 3), dtype, order)
    for unit, right in ((False, b), (True, b), (False, b[:, 0])):
        ours = linalg.solve_triangular(a, right, trans, lower, unit, nb=nb)
        same(ours, scipy.linalg.solve_triangular(a, right, trans, lower, unit))


def structured(dtype: str) -> dict[str, Any]:
    a = random((N, N), dtype)
    tri = triangle(N, dtype, "C")
    band = np.triu(np.tril(tri, 1), -1)
    return {
        "general": a + 3 * np.eye(N, dtype=dtype),
        "positive": spd(N, dtype),
        "indefinite": a + a.conj().T,
        "symmetric": a + a.T,
        "lower": np.tril(tri),
        "upper": np.triu(tri),
        "diagonal": np.diag(np.diag(tri)),
        "tridiagonal": band,
        "bidiagonal": np.triu(band),
    }


@over_everything
@pytest.mark.parametrize("kind", list(structured("float64")))
def test_solve_and_inv_find_the_structure(
    dtype: str, order: str, nb: int | None, kind: str
) -> None:
    a, b = np.asarray(structured(dtype)[kind], order=order), random((N, 3), dtype, order)
    before = a.copy(), b.copy()
    same(linalg.solve(a, b, nb=nb), scipy.linalg.solve(a, b), 3000)
    same(linalg.solve(a, b[:, 0], nb=nb), scipy.linalg.solve(a, b[:, 0]), 3000)
    if np.dtype(dtype).kind == "f":
        ours = linalg.solve(a, b, transposed=True, nb=nb)
        same(ours, scipy.linalg.solve(a, b, transposed=True), 3000)
    same(linalg.inv(a, nb=nb), scipy.linalg.inv(a), 3000)
    np.testing.assert_array_equal((a, b)[0], before[0])
    np.testing.assert_array_equal((a, b)[1], before[1])


@over_everything
@pytest.mark.parametrize("lower", [False, True])
@pytest.mark.parametrize(
    "assume_a", ["gen", "pos", "sym", "her", "upper triangular", "lower triangular", "diagonal"]
)
def test_solve_and_inv_are_told_the_structure(
    dtype: str, order: str, nb: int | None, lower: bool, assume_a: str
) -> None:
    a, b = spd(N, dtype, order), random((N, 3), dtype, order)
    if assume_a == "pos":
        # What lies in the other triangle does not matter, but for its being finite.
        a[np.triu_indices(N, 1) if lower else np.tril_indices(N, -1)] = 7
    options = {"lower": lower, "assume_a": assume_a}
    same(linalg.solve(a, b, **options, nb=nb), scipy.linalg.solve(a, b, **options))
    same(linalg.inv(a, **options, nb=nb), scipy.linalg.inv(a, **options))


@over_everything
def test_determinants(dtype: str, order: str, nb: int | None) -> None:
    for seed in range(3):
        a = random((N, N), dtype, order, seed)
        ours, theirs = linalg.det(a, nb=nb), scipy.linalg.det(a)
        assert type(ours) is type(theirs)
        assert abs(ours - theirs) <= 1e3 * np.finfo(dtype).eps * abs(theirs)
        found, expected = linalg.slogdet(a, nb=nb), np.linalg.slogdet(a)
        assert type(found) is type(expected)
        same(found.sign, expected.sign)
        same(found.logabsdet, expected.logabsdet)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("large", [1, 10**6])
@pytest.mark.parametrize("order_of_norm", [None, "fro", 1, np.inf, -1, 2, "nuc"])
def test_norm(
    dtype: str, order: str, large: int, order_of_norm: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_products, "LARGE", large)
    for a in (random((N, 19), dtype, order), random((19, N), dtype, order)):
        ours, theirs = linalg.norm(a, order_of_norm), scipy.linalg.norm(a, order_of_norm)
        assert type(ours) is type(theirs)
        assert ours == pytest.approx(theirs, rel=50 * float(np.finfo(dtype).eps))


@over_everything
def test_matmul(dtype: str, order: str, nb: int | None) -> None:
    a, b = random((N, 19), dtype, order), random((19, 21), dtype, order)
    same(linalg.matmul(a, b, nb=nb), a @ b)
    out = np.full((N, 21), np.nan, dtype, order=order)
    assert linalg.matmul(a, b, out, nb=nb) is out
    same(out, a @ b)


@over_everything
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("lower", [False, True])
def test_symm(dtype: str, order: str, nb: int | None, side: Any, lower: bool) -> None:
    b, c = random((N, 19), dtype, order), random((N, 19), dtype, order, 1)
    k = N if side == "left" else 19
    a = random((k, k), dtype, order)
    keep = np.tril if lower else np.triu
    full = keep(a) + keep(a, -1 if lower else 1).T
    product = full @ b if side == "left" else b @ full
    alpha = 2.0 if np.dtype(dtype).kind == "f" else 2 - 1j
    options = {"side": side, "lower": lower, "nb": nb}
    same(linalg.symm(a, b, **options), product)
    ours = linalg.symm(a, b, c, alpha=alpha, beta=0.5, **options)
    same(ours, (alpha * product + 0.5 * c).astype(dtype))
    nothing = np.full_like(c, np.nan)
    assert linalg.symm(a, b, nothing, overwrite_c=True, **options) is nothing
    same(nothing, product)


def test_large_matrices_take_the_default_tiles() -> None:
    n = _inputs.ONE_TILE + 90
    a, p, b = random((n, n)), spd(n), random((n, 2))
    same(linalg.cholesky(p), scipy.linalg.cholesky(p))
    same(linalg.lu_factor(a), scipy.linalg.lu_factor(a), 1e5)
    same(linalg.solve(a, b), scipy.linalg.solve(a, b), 1e6)
    same(linalg.solve(p, b), scipy.linalg.solve(p, b), 1e4)
    same(linalg.inv(a), scipy.linalg.inv(a), 1e6)
    same(linalg.inv(p), scipy.linalg.inv(p), 1e4)
    same(linalg.matmul(a, p), a @ p, 1e3)


def test_small_matrices_bother_no_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "current", lambda: pytest.fail("an engine was asked for"))
    n = 64
    a, p, b = random((n, n)), spd(n), random((n, 2))
    linalg.cho_solve(linalg.cho_factor(p), b)
    linalg.lu_solve(linalg.lu_factor(a), b)
    linalg.solve(a, b)
    linalg.inv(p)
    linalg.solve_triangular(linalg.cholesky(p), b)
    linalg.symm(p, b)
    linalg.matmul(a, b)
    assert linalg.det(a) == pytest.approx(
        np.prod(linalg.slogdet(a)[0]) * scipy.linalg.det(a).__abs__()
    )
    linalg.norm(a)
    linalg.lu(a)


def test_the_engine_in_force_computes_and_workers_do_not_change_the_bits() -> None:
    a = spd(150)
    results = []
    for workers in (1, 2, 3):
        with taskla.engine("threads", workers=workers):
            results.append(linalg.cholesky(a, nb=32))
    assert all(np.array_equal(results[0], other) for other in results[1:])


# -- batches ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("nb", SIZES)
@pytest.mark.parametrize("dtype", ["float32", "complex128"])
def test_batches(dtype: str, nb: int | None) -> None:
    n = 9
    a = random((2, 3, n, n), dtype) + n * np.eye(n, dtype=dtype)
    p = a @ a.conj().swapaxes(-1, -2)
    same(linalg.cholesky(p, nb=nb), scipy.linalg.cholesky(p))
    c, theirs = linalg.cho_factor(p, True, nb=nb), scipy.linalg.cho_factor(p, True)
    same(np.tril(c[0]), np.tril(theirs[0]))
    same(c[1], theirs[1])
    lu, expected = linalg.lu_factor(a, nb=nb), scipy.linalg.lu_factor(a)
    same(lu, expected)
    for options in ({}, {"permute_l": True}, {"p_indices": True}):
        same(linalg.lu(a, **options, nb=nb), scipy.linalg.lu(a, **options))
    for shape in ((n,), (n, 2), (3, n, 2), (2, 1, n, 4)):
        b = random(shape, dtype)
        same(linalg.cho_solve(c, b, nb=nb), scipy.linalg.cho_solve(theirs, b))
        same(linalg.lu_solve(lu, b, nb=nb), scipy.linalg.lu_solve(expected, b))
        same(linalg.solve(a, b, nb=nb), scipy.linalg.solve(a, b))
        same(linalg.solve(a[0, 0], b, nb=nb), scipy.linalg.solve(a[0, 0], b))
        same(linalg.solve_triangular(p, b, nb=nb), scipy.linalg.solve_triangular(p, b))
    same(linalg.inv(a, nb=nb), scipy.linalg.inv(a))
    dets = linalg.det(a, nb=nb)
    np.testing.assert_allclose(dets, scipy.linalg.det(a), rtol=1e3 * np.finfo(dtype).eps)
    same(tuple(linalg.slogdet(a, nb=nb)), tuple(np.linalg.slogdet(a)))
    same(linalg.matmul(a, p, nb=nb), a @ p)
    same(linalg.matmul(a[0], p[:, :1], nb=nb), a[0] @ p[:, :1])


# -- errors and warnings ---------------------------------------------------------------------------


@pytest.mark.parametrize("nb", SIZES)
def test_not_positive_definite(nb: int | None) -> None:
    a = spd(N)
    a[17, 17] = -1
    message = "^18-th leading minor of the array is not positive definite"
    for function in (linalg.cholesky, linalg.cho_factor):
        with pytest.raises(linalg.LinAlgError, match=message):
            function(a, nb=nb)
    message = r"^A singular matrix detected: slice\(s\) \[0\] are singular\.$"
    with pytest.raises(linalg.LinAlgError, match=message):
        linalg.solve(a, a, assume_a="pos", nb=nb)
    with pytest.raises(linalg.LinAlgError, match=message):
        linalg.inv(a, assume_a="pos", nb=nb)


def singular() -> Any:
    a = random((N, N))
    a[:, 11] = 0
    return a


@pytest.mark.parametrize("nb", SIZES)
def test_singular_factors(nb: int | None) -> None:
    a = singular()
    message = r"^Diagonal number 12 is exactly zero\. Singular matrix\.$"
    with pytest.warns(linalg.LinAlgWarning, match=message) as caught:
        factors = linalg.lu_factor(a, nb=nb)
    assert caught[0].filename == __file__ or nb is None
    with pytest.warns(linalg.LinAlgWarning):
        same(factors, scipy.linalg.lu_factor(a))
    assert linalg.det(a, nb=nb) == 0
    assert linalg.slogdet(a, nb=nb) == (0, -np.inf)
    message = "^singular matrix: resolution failed at diagonal 11$"
    with pytest.raises(linalg.LinAlgError, match=message):
        linalg.solve_triangular(a, a, nb=nb)
    with pytest.warns(linalg.LinAlgWarning, match="Diagonal number 12"):
        linalg.lu_factor(np.stack([random((N, N)), a]), nb=nb)


@pytest.mark.parametrize("nb", SIZES)
@pytest.mark.parametrize("part", [np.asarray, np.tril, np.triu])
def test_singular_systems(nb: int | None, part: Callable[[Any], Any]) -> None:
    a = part(singular())
    with pytest.raises(linalg.LinAlgError, match=r"slice\(s\) \[0\] are singular"):
        linalg.solve(a, a, nb=nb)
    with pytest.raises(linalg.LinAlgError, match=r"slice\(s\) \[0\] are singular"):
        linalg.inv(a, nb=nb)
    batch = np.stack([random((N, N)), a])
    with pytest.raises(linalg.LinAlgError, match="are singular"):
        linalg.solve(batch, a, nb=nb)
    with pytest.raises(linalg.LinAlgError, match="are singular"):
        linalg.inv(batch, nb=nb)


def ill_conditioned(kind: str) -> tuple[Any, dict[str, str]]:
    """A matrix without a digit to hope for, in the 1-norm, and what SciPy is told of it."""
    q, _ = scipy.linalg.qr(random((N, N)))
    scale = np.geomspace(1, 1e-25, N)
    if kind == "pos":
        return np.sqrt(scale)[:, None] * spd(N) * np.sqrt(scale), {"assume_a": "pos"}
    if kind == "upper":
        return np.triu(random((N, N))) * scale + np.diag(scale), {}
    return q * scale, {}


@pytest.mark.parametrize("nb", SIZES)
@pytest.mark.parametrize("kind", ["general", "pos", "upper"])
@pytest.mark.parametrize("name", ["solve", "inv"])
def test_ill_conditioned(nb: int | None, kind: str, name: str) -> None:
    a, options = ill_conditioned(kind)
    arguments = (a, np.ones(N)) if name == "solve" else (a,)
    with pytest.warns(linalg.LinAlgWarning) as theirs:
        getattr(scipy.linalg, name)(*arguments, **options)
    with pytest.warns(linalg.LinAlgWarning) as ours:
        getattr(linalg, name)(*arguments, **options, nb=nb)
    said, rcond = str(ours[0].message).removesuffix(".").rsplit(" = ", 1)
    expected, reference = str(theirs[0].message).removesuffix(".").rsplit(" = ", 1)
    assert said == expected == "An ill-conditioned matrix detected: slice 0 has rcond"
    # SciPy 1.17 multiplies by the largest row sum instead of the largest column sum.
    assert 0.1 / N < float(rcond) / float(reference) < 10 * N
    assert ours[0].filename == __file__ or nb is None


def test_ill_conditioned_members_of_a_batch_share_a_warning() -> None:
    bad, _ = ill_conditioned("general")
    batch = np.stack([bad, random((N, N)) + N * np.eye(N), bad])
    message = "^An ill-conditioned .*: slice 0 has rcond = .*,slice 2 has rcond = [^,]*$"
    with pytest.warns(linalg.LinAlgWarning, match=message):
        linalg.solve(batch, np.ones(N), nb=5)


@pytest.mark.parametrize("nb", SIZES)
@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan])
@pytest.mark.parametrize("place", [(1, N - 2), (N - 2, 1)])
def test_infs_and_nans(nb: int | None, bad: float, place: tuple[int, int]) -> None:
    a = spd(N, order="F")
    a[place] = bad
    kept = a.copy()
    b, good = random((N, 3), order="F"), spd(N)
    for name, arguments, overwrite in (
        ("cholesky", (a,), "overwrite_a"),
        ("cho_factor", (a,), "overwrite_a"),
        ("cho_solve", ((a, True), b), "overwrite_b"),
        ("cho_solve", ((good, True), a), "overwrite_b"),
        ("lu_factor", (a,), "overwrite_a"),
        ("lu_solve", ((good, np.arange(N)), a), "overwrite_b"),
        ("lu", (a,), "overwrite_a"),
        ("solve", (a, b), "overwrite_a"),
        ("solve", (good, a), "overwrite_b"),
        ("solve_triangular", (a, b), "overwrite_b"),
        ("solve_triangular", (good, a), "overwrite_b"),
        ("inv", (a,), "overwrite_a"),
        ("det", (a,), "overwrite_a"),
    ):
        for allowed in (False, True):
            with pytest.raises(ValueError, match="array must not contain infs or NaNs"):
                getattr(linalg, name)(*arguments, **{overwrite: allowed}, nb=nb)
            np.testing.assert_array_equal(a, kept)
    # The other triangle is not looked at when nothing is checked.
    lower = place[0] < place[1]
    ours = linalg.cholesky(a, lower, check_finite=False, nb=nb)
    same(ours, scipy.linalg.cholesky(spd(N), lower))


@pytest.mark.parametrize("large", [1, 10**6])
@pytest.mark.parametrize("order_of_norm", [None, 1, np.inf])
def test_the_norm_of_infs_and_nans(
    large: int, order_of_norm: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_products, "LARGE", large)
    for bad in (np.inf, np.nan):
        a = random((N, N))
        a[3, 5] = bad
        with pytest.raises(ValueError, match="array must not contain infs or NaNs"):
            linalg.norm(a, order_of_norm)
        assert np.array_equal(
            linalg.norm(a, order_of_norm, check_finite=False), bad, equal_nan=True
        )


def test_a_norm_may_overflow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_products, "LARGE", 1)
    a = np.full((N, N), 1e308)
    assert linalg.norm(a, 1) == scipy.linalg.norm(a, 1) == np.inf


@pytest.mark.parametrize(("nb", "error"), [(0, ValueError), (-3, ValueError), (2.5, TypeError)])
def test_an_impossible_tile_size(nb: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match=f"^nb is {nb}; it must be"):
        linalg.cholesky(np.eye(3), nb=nb)


def test_symm_says_what_is_wrong() -> None:
    a, b = np.eye(3), np.ones((3, 2))
    for arguments, options, message in (
        ((a, b), {"side": "L"}, "side is 'L'; allowed: 'left', 'right'"),
        ((a, b), {"side": "right"}, r"a has shape \(3, 3\); to the right of b .* \(2, 2\)"),
        ((a, b[:, 0]), {}, "b has 1 dimensions"),
        ((a, b, b.T), {}, r"c has shape \(2, 3\); it must have that of b, \(3, 2\)"),
        ((a, b), {"beta": 1}, "beta is 1 and there is no c"),
        ((a, b), {"alpha": 1j}, "alpha is 1j; it must be real"),
    ):
        with pytest.raises(ValueError, match=message):
            linalg.symm(*arguments, **options)
    with pytest.raises(TypeError, match="dtype"):
        linalg.symm(a.astype(object), b)


# -- memory ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("nb", SIZES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_overwriting(dtype: str, nb: int | None) -> None:
    a, p, b = (random((N, N), dtype, "F"), spd(N, dtype, "F"), random((N, 3), dtype, "F"))
    c = scipy.linalg.cho_factor(p)
    lu = scipy.linalg.lu_factor(a)
    inside: list[tuple[Callable[..., Any], Any]] = [
        (lambda x: linalg.cholesky(x, overwrite_a=True, nb=nb), p),
        (lambda x: linalg.cho_factor(x, overwrite_a=True, nb=nb)[0], p),
        (lambda x: linalg.lu_factor(x, overwrite_a=True, nb=nb)[0], a),
        (lambda x: linalg.inv(x, overwrite_a=True, nb=nb), a),
        (lambda x: linalg.inv(x, overwrite_a=True, assume_a="pos", nb=nb), p),
        (lambda x: linalg.inv(x, overwrite_a=True, assume_a="lower triangular", nb=nb), p),
        (lambda x: linalg.cho_solve(c, x, overwrite_b=True, nb=nb), b),
        (lambda x: linalg.lu_solve(lu, x, overwrite_b=True, nb=nb), b),
        (lambda x: linalg.solve_triangular(p, x, overwrite_b=True, nb=nb), b),
        (lambda x: linalg.solve(p, x, overwrite_b=True, nb=nb), b),
        (lambda x: linalg.symm(p, b, x, overwrite_c=True, nb=nb), b),
    ]
    for call, array in inside:
        ours = array.copy(order="F")
        result = call(ours)
        assert np.shares_memory(result, ours)
        if nb is not None:
            # A read-only array is never overwritten, whatever is allowed.
            ours = array.copy(order="F")
            ours.flags.writeable = False
            assert np.array_equal(call(ours), result)
            assert np.array_equal(ours, array)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_nothing_else_is_overwritten(dtype: str, order: str) -> None:
    a, p, b = random((N, N), dtype, order), spd(N, dtype, order), random((N, 3), dtype, order)
    kept = a.copy(), p.copy(), b.copy()
    linalg.cholesky(p, nb=5)
    c = linalg.cho_factor(p, nb=5)
    held = c[0].copy()
    linalg.cho_solve(c, b, nb=5)
    lu = linalg.lu_factor(a, nb=5)
    holding = lu[0].copy(), lu[1].copy()
    for trans in (0, 1, 2):
        linalg.lu_solve(lu, b, trans, nb=5)
    linalg.lu(a, nb=5)
    linalg.solve(a, b, nb=5)
    linalg.solve(p, b, nb=5)
    linalg.solve_triangular(p, b, nb=5)
    linalg.inv(a, nb=5)
    linalg.inv(p, nb=5)
    linalg.det(a, nb=5)
    linalg.slogdet(a, nb=5)
    linalg.matmul(a, p, nb=5)
    linalg.symm(p, b, b, beta=1, nb=5)
    for before, after in zip((*kept, held, *holding), (a, p, b, c[0], *lu), strict=True):
        np.testing.assert_array_equal(after, before)


@pytest.mark.parametrize("order", ORDERS)
def test_one_working_copy(order: str) -> None:
    """Peak memory in matrices beside the arguments, the result included."""
    n = 800
    a, p, b = random((n, n), "float64", order), spd(n, "float64", order), random((n, 1))
    factor = linalg.cho_factor(p, nb=200)
    small = 0.35  # blocks in flight, tasks
    for most, call in (
        (1, lambda: linalg.cholesky(p, lower=True, nb=200)),
        (1, lambda: linalg.lu_factor(a, nb=200)),
        (1, lambda: linalg.solve(a, b, nb=200)),
        (1, lambda: linalg.solve(p, b, nb=200)),
        (0, lambda: linalg.cho_solve(factor, b, nb=200)),
        (0, lambda: linalg.solve_triangular(p, b, nb=200)),
        (1, lambda: linalg.matmul(a, p, nb=200)),
        (2, lambda: linalg.inv(a, nb=200)),
        (1, lambda: linalg.inv(p, nb=200)),
        (1, lambda: linalg.det(a, nb=200)),
    ):
        call()
        tracemalloc.start()
        try:
            call()
            peak = tracemalloc.get_traced_memory()[1] / a.nbytes
        finally:
            tracemalloc.stop()
        assert peak <= most + small, (most, call)


# -- the public face -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", REPLACED)
def test_signatures_are_scipys_with_nb_at_the_end(name: str) -> None:
    ours = list(inspect.signature(getattr(linalg, name)).parameters.values())
    theirs = list(inspect.signature(getattr(scipy.linalg, name)).parameters.values())
    assert [(p.name, p.kind, p.default) for p in ours[: len(theirs)]] == [
        (p.name, p.kind, p.default) for p in theirs
    ]
    # A norm is no tiled algorithm.
    extra: list[tuple[str, object]] = [] if name == "norm" else [("nb", None)]
    if name == "solve":
        extra += [("precision", None), ("full_output", False)]
    if name in ("cholesky", "cho_factor", "lu", "lu_factor"):
        extra += [("precision", None)]
    assert [(p.name, p.default) for p in ours[len(theirs) :]] == extra
    assert all(p.kind is inspect.Parameter.KEYWORD_ONLY for p in ours[len(theirs) :])


def test_every_name_of_scipy_is_there() -> None:
    assert set(scipy.linalg.__all__) <= set(dir(linalg))
    assert set(scipy.linalg.__all__) <= set(linalg.__all__)
    for name in scipy.linalg.__all__:
        if name not in REPLACED:
            assert getattr(linalg, name) is getattr(scipy.linalg, name)
        elif name in REPLACED:
            assert getattr(linalg, name).__module__.startswith("taskla.")
    with pytest.raises(
        AttributeError, match=r"module 'taskla\.linalg' has no attribute 'choleski'"
    ):
        linalg.choleski  # noqa: B018


def test_code_written_for_scipy_runs_with_the_import_replaced() -> None:
    program = """
from taskla.linalg import *
from taskla.linalg import LinAlgError, expm, lapack, blas, interpolative
from taskla.linalg.blas import dgemm
from taskla.linalg.lapack import dpotrf
import taskla.linalg.blas, taskla.linalg as la
import scipy.linalg
assert la.blas.dgemm is dgemm is scipy.linalg.blas.dgemm
assert interpolative is scipy.linalg.interpolative
assert la.lapack is lapack is scipy.linalg.lapack
assert cholesky is la.cholesky is not scipy.linalg.cholesky
assert hilbert is scipy.linalg.hilbert
"""
    subprocess.run([sys.executable, "-c", program], check=True)


def test_taskla_reexports_the_functions() -> None:
    for name in (*REPLACED, "slogdet", "matmul", "symm"):
        assert getattr(taskla, name) is getattr(linalg, name)


@pytest.mark.parametrize("name", ["linalg", *(f"linalg.{name}" for name in MODULES)])
def test_examples_in_docstrings(name: str) -> None:
    module: ModuleType = importlib.import_module(f"taskla.{name}")
    result = doctest.testmod(module)
    assert result.failed == 0
    documented = [
        function
        for function in vars(module).values()
        if inspect.isfunction(function)
        and function.__module__ == module.__name__
        and not function.__name__.startswith("_")
        and function.__name__ in linalg.__all__
    ]
    assert all(">>>" in (function.__doc__ or "") for function in documented)
    assert result.attempted >= 2 * len(documented)


def test_lapacks_symm_is_named_where_its_arguments_are_given() -> None:
    A = taskla.TiledMatrix.zeros((4, 4), 2)
    with pytest.raises(TypeError, match=r"^symm takes matrices first.*taskla\.lapack\.symm$"):
        taskla.symm("L", "lower", 1.0, A, A, 0.0, A)


def test_a_bool_is_no_tile_size() -> None:
    with pytest.raises(TypeError, match="nb is True; it must be an integer"):
        linalg.inv(np.eye(3), nb=True)
