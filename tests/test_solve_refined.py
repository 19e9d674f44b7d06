"""`solve`, `gesv` and `posv` with factors in a lower precision: results, fallbacks, errors."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.linalg as sl
from numpy.linalg import LinAlgError
from refined import LOW, ORDERS, WIDE, Array, definite, exact, excess, randsvd
from residuals import NB, random
from test_engine_mpi import mpirun

import taskla as tla
from taskla.refinement import (
    INNER_ITERATIONS,
    RefinementInfo,
    low_format,
    refine,
)

# -- arrays ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", LOW)
@pytest.mark.parametrize("dtype", WIDE)
@pytest.mark.parametrize("n", [*ORDERS, 700])
@pytest.mark.parametrize("k", [None, 1, 3, 20])
def test_solve(n: int, k: int | None, dtype: str, precision: str) -> None:
    if n == 700 and (k == 3 or (precision != "fp32" and k != 1)):
        pytest.skip("long, and no other case")
    a, h = randsvd(n, 20, dtype), definite(n, 20, dtype)
    b = random(n, k or 1, np.dtype(dtype))
    b = b[:, 0] if k is None else b
    kept = a.copy(), h.copy(), b.copy()
    nb = NB if n < 100 else None
    wide = {"precision": precision, "full_output": True, "nb": nb}
    cases: list[tuple[str, Array, Array, dict[str, Any]]] = [
        ("lu-ir", a, a, {}),
        ("lu-ir", np.asfortranarray(a), a, {"assume_a": "gen"}),
        ("lu-ir", np.stack([a, a], axis=2)[:, :, 0], a, {}),
        ("cholesky-ir", h, h, {}),
        ("cholesky-ir", np.triu(h), h, {"assume_a": "pos"}),
        ("cholesky-ir", np.asfortranarray(np.triu(h)), h, {"assume_a": "pos"}),
        ("cholesky-ir", np.tril(h), h, {"assume_a": "pos", "lower": True}),
        ("cholesky-ir", np.stack([h, h], axis=2)[:, :, 0], h, {"assume_a": "pos"}),
    ]
    if dtype == "float64":
        cases += [("lu-ir", a, a.T, {"transposed": True})]
    for solver, given, matrix, options in cases:
        x, info = tla.solve(given, b, **wide, **options)
        assert info.solver == solver
        assert info.precision == precision
        assert (info.reason, info.iter) == ("", info.iterations)
        assert x.shape == b.shape
        assert x.dtype == dtype
        assert excess(matrix, np.atleast_2d(x.T).T, np.atleast_2d(b.T).T) <= 1
        assert (tla.solve(given, b, precision=precision, nb=nb, **options) == x).all()
    for was, now in zip(kept, (a, h, b), strict=True):
        assert (was == now).all()


@pytest.mark.parametrize("shape", [(0, 0), (1, 1), (2, 2)])
def test_the_smallest(shape: tuple[int, int]) -> None:
    a = random(*shape, np.dtype("d"))
    x, info = tla.solve(a, a.sum(axis=1), precision="fp32", full_output=True)
    np.testing.assert_allclose(x, 1, rtol=1e-10)
    assert info.solver == ("full" if shape != (2, 2) or info.iter < 0 else "lu-ir")
    # positive definite matrices of one row are factored
    x, info = tla.solve(a @ a.T, a, precision="fp32", assume_a="pos", full_output=True)
    assert info.solver == ("cholesky-ir" if shape[0] else "full")


def test_integers_and_single_precision_beside_double() -> None:
    a = np.random.default_rng(0).integers(-9, 9, (30, 30))
    x, info = tla.solve(a, a.sum(axis=1), precision="fp32", full_output=True)
    assert (info.solver, x.dtype) == ("lu-ir", np.float64)
    x, info = tla.solve(a.astype(np.float32), a.sum(axis=1) + 0.0, precision="fp32",
                        full_output=True)  # fmt: skip
    assert (info.solver, x.dtype) == ("lu-ir", np.float64)
    np.testing.assert_allclose(x, 1, rtol=1e-11)


def test_a_batch_has_an_info_for_each_matrix() -> None:
    a = np.stack([randsvd(20, 10, seed=s) for s in range(6)]).reshape(2, 3, 20, 20)
    # nothing but a full factorisation serves this one
    a[1, 2] = singular_when_rounded(20)
    b = a @ np.ones((20, 1))
    with pytest.warns(sl.LinAlgWarning, match=r"slice 5 has rcond"):
        x, info = tla.solve(a, b, precision="bf16", full_output=True)
    assert info.shape == (2, 3)
    assert [entry.solver for entry in info.flat] == ["lu-ir"] * 5 + ["full"]
    assert excess(a[0, 1], x[0, 1], b[0, 1]) <= 1
    _, info = tla.solve(a[:1], b[:1], full_output=True)
    assert set(info.flat) == {RefinementInfo("full", "fp64")}
    # one matrix, many right-hand sides
    x, one = tla.solve(a[0, 0], b, precision="fp32", full_output=True)
    assert isinstance(one, RefinementInfo)
    assert x.shape == b.shape


def test_full_output_without_a_lower_precision() -> None:
    a = randsvd(30, 10)
    for nb in (None, 8):
        for precision in (None, "fp64"):
            x, info = tla.solve(a, a[:, 0], precision=precision, full_output=True, nb=nb)
            assert info == RefinementInfo("full", "fp64")
            assert (x == tla.solve(a, a[:, 0], nb=nb)).all()
    single = a.astype(np.float32)
    x, info = tla.solve(single, single[:, 0], precision="fp64", full_output=True, nb=8)
    assert info.solver == "full"
    assert x.dtype == np.float32


# -- fallbacks -------------------------------------------------------------------------------------


def test_a_matrix_too_ill_conditioned_is_solved_in_full() -> None:
    # of fewer rows than GMRES may take iterations it solves all
    n = INNER_ITERATIONS + 50
    a = randsvd(n, 1e14)
    b = a @ np.ones(n)
    x, info = tla.solve(a, b, precision="bf16", full_output=True, nb=100)
    assert (info.solver, info.iter, info.precision) == ("full", -31, "bf16")
    assert info.reason.startswith("LU-IR ")
    assert ", GMRES-IR " in info.reason
    assert info.inner_iterations >= INNER_ITERATIONS
    assert info.backward_error is None
    assert (x == tla.solve(a, b, nb=100)).all()


def test_gmres_serves_where_lu_does_not() -> None:
    a = randsvd(100, 1e9)
    b = a @ random(100, 2, np.dtype("d"))
    x, info = tla.solve(a, b, precision="fp32", full_output=True)
    assert info.solver == "gmres-ir"
    assert info.inner_iterations > 0
    assert info.reason.startswith("LU-IR ")
    assert info.iter == info.iterations > 0
    assert excess(a, x, b) <= 1
    x, info = tla.solve(a.T, b, precision="fp32", full_output=True, transposed=True)
    assert info.solver == "gmres-ir"
    assert excess(a, x, b) <= 1
    z = randsvd(100, 1e9, "complex128")
    x, info = tla.solve(z, b, precision="fp32", full_output=True)
    assert info.solver == "gmres-ir"
    assert excess(z, x, b.astype(complex)) <= 1


def singular_when_rounded(n: int) -> Array:
    """A matrix whose last column only double precision tells from zero."""
    a = randsvd(n, 10)
    a[:, -1] = 0
    a[-1, -1] = 1e-60
    return a


def test_factors_that_are_singular_in_low_precision() -> None:
    a = singular_when_rounded(40)
    b = a @ np.ones(40)
    with pytest.warns(sl.LinAlgWarning):
        x, info = tla.solve(a, b, precision="fp32", full_output=True)
    assert (info.solver, info.iter) == ("full", -3)
    assert info.reason == "in fp32: singular matrix: diagonal element 40 is exactly zero"
    assert np.isfinite(x).all()


def test_a_matrix_that_is_singular_in_every_precision() -> None:
    a = randsvd(40, 10)
    a[:, 7] = 0
    with pytest.raises(LinAlgError, match="singular"):
        tla.solve(a, a[:, 0], precision="fp32", nb=NB)


def test_a_matrix_that_is_positive_definite_in_double_precision_only() -> None:
    h = definite(60, 1e12)
    b = h @ np.ones(60)
    _, info = tla.solve(h, b, precision="fp32", assume_a="pos", full_output=True)
    assert (info.solver, info.iter) == ("full", -3)
    assert "leading minor" in info.reason
    indefinite = h - np.eye(60) / 2
    with pytest.raises(LinAlgError):
        tla.solve(indefinite, b, precision="fp32", assume_a="pos")
    # only thought to be positive definite: LU factors serve
    x, info = tla.solve(indefinite, b, precision="fp32", full_output=True)
    assert info.solver == "lu-ir"
    assert excess(indefinite, x[:, None], b[:, None]) <= 1


def test_an_infinite_matrix_overflows() -> None:
    a = randsvd(20, 10)
    a[3, 4] = np.inf
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        _, info = tla.solve(
            a, a[:, 0], precision="fp16", full_output=True, check_finite=False, nb=NB
        )
    assert (info.solver, info.iter) == ("full", -2)
    assert info.reason == "the matrix is not finite"
    with pytest.raises(ValueError, match="infs or NaNs"):
        tla.solve(a, a[:, 0], precision="fp16")
    with pytest.raises(ValueError, match="infs or NaNs"):
        tla.solve(np.eye(20) + 1, a[:, 4], precision="fp16")


def test_factors_that_are_not_finite() -> None:
    X, info = refine(exact(np.eye(5), lambda R: R * np.inf), np.ones((5, 1)), "bf16", "lu-ir")
    assert X is None
    assert (info.iter, info.reason) == (-3, "the factors in bf16 are not finite")


def test_factors_whose_range_is_too_wide() -> None:
    """Growth by 2 in each step of elimination, 2^39 in all."""
    n = 40
    a = np.tril(-np.ones((n, n)), -1) + np.eye(n)
    a[:, -1] = 1
    b = a @ np.ones(n)
    _, info = tla.solve(a, b, precision="fp16", full_output=True)
    assert (info.solver, info.precision) == ("full", "fp16")
    assert info.iter == -3


@pytest.mark.parametrize(
    ("matrix", "options", "what"),
    [
        (np.tril(np.ones((9, 9))), {}, "lower triangular"),
        (np.triu(np.ones((9, 9))), {"assume_a": "upper triangular"}, "upper triangular"),
        (np.diag(np.arange(1.0, 10)), {}, "of a form that SciPy solves"),
    ],
)
def test_what_needs_no_factors(matrix: Array, options: dict[str, Any], what: str) -> None:
    x, info = tla.solve(
        matrix, matrix @ np.ones(9), precision="bf16", full_output=True, nb=4, **options
    )
    assert info == RefinementInfo("full", "bf16", reason=f"the matrix is {what}", iter=-1)
    np.testing.assert_allclose(x, 1)


# -- errors ----------------------------------------------------------------------------------------


def test_a_precision_that_there_is_not() -> None:
    a = np.eye(3)
    for precision in ("fp8", "half", 16, np.float16):
        with pytest.raises(ValueError, match="allowed: None, fp64, fp32, bf16, fp16"):
            tla.solve(a, a, precision=precision)
        with pytest.raises(ValueError, match="allowed: None, fp64, fp32, bf16, fp16"):
            low_format(precision, a.dtype)


@pytest.mark.parametrize("dtype", ["float32", "complex64"])
def test_single_precision_has_nothing_to_refine_to(dtype: str) -> None:
    a = randsvd(20, 10).astype(dtype)
    with pytest.raises(ValueError, match=f"result {dtype}; only float64 and complex128"):
        tla.solve(a, a, precision="fp32")
    A = tla.TiledMatrix.from_array(a, NB)
    for call in (tla.gesv, tla.posv):
        with pytest.raises(ValueError, match="only float64 and complex128"):
            call(A, A.copy(), precision="bf16")
    assert isinstance(tla.gesv(A.copy(), A.copy(), precision="fp64"), RefinementInfo)


def test_what_scipy_is_to_solve_is_not_refined() -> None:
    a = np.eye(9) + 1
    for name in ("sym", "her", "banded", "nonsense"):
        with pytest.raises(ValueError, match=f"assume_a is '{name}'; with precision 'fp32'"):
            tla.solve(a, a, precision="fp32", assume_a=name)


def test_scipys_own_errors_stay() -> None:
    with pytest.raises(ValueError, match="square"):
        tla.solve(np.ones((3, 4)), np.ones(3), precision="fp32")
    with pytest.raises(NotImplementedError):
        tla.solve(np.eye(9) * 1j, np.ones(9), precision="fp32", transposed=True)
    with pytest.raises(ValueError, match="nb is 0"):
        tla.solve(np.eye(9), np.ones(9), precision="fp32", nb=0)


# -- tiled matrices --------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", LOW)
@pytest.mark.parametrize("dtype", WIDE)
@pytest.mark.parametrize("n", [0, 1, *ORDERS])
@pytest.mark.parametrize("k", [0, 1, 20])
@pytest.mark.parametrize("workers", [1, 3])
def test_tiled(n: int, k: int, dtype: str, precision: str, workers: int) -> None:
    a, h = randsvd(n, 20, dtype), definite(n, 20, dtype)
    b = random(n, k, np.dtype(dtype))
    cases: list[tuple[Array, Array, str | None, Callable[..., Any]]] = [
        (a, a, None, tla.gesv),
        (h, h, None, tla.posv),
        (h, np.tril(h), "lower", tla.posv),
        (h, np.triu(h), "upper", tla.posv),
    ]
    with tla.engine("threads", workers=workers):
        for matrix, stored, uplo, call in cases:
            A = tla.TiledMatrix.from_array(stored, NB, uplo, copy=True)
            before = A.copy()
            B = tla.TiledMatrix.from_array(b, NB, copy=True)
            info = call(A, B, precision=precision)
            assert info.solver == ("lu-ir" if call is tla.gesv else "cholesky-ir")
            assert excess(matrix, B.to_array(), b) <= 1
            # as it was
            assert (A.to_array() == before.to_array()).all()


@pytest.mark.parametrize("precision", LOW)
@pytest.mark.parametrize("size", [1e200, 1e45, 1e-44, 1e-200])
def test_tiles_of_any_size(size: float, precision: str) -> None:
    n = 3 * NB + 5
    a, h, b = randsvd(n, 20) * size, definite(n, 20) * size, random(n, 2, np.dtype("d"))
    for matrix, call, options in ((a, tla.gesv, {}), (h, tla.posv, {"assume_a": "pos"})):
        A, B = (tla.TiledMatrix.from_array(m, NB, copy=True) for m in (matrix, b))
        info = call(A, B, precision=precision)
        assert info.solver in ("lu-ir", "cholesky-ir")
        assert excess(matrix / size, B.to_array() * size, b) <= 1
        # and no warning that it is ill-conditioned
        x = tla.solve(A, b, precision=precision, **options)
        assert excess(matrix / size, x * size, b) <= 1


def test_tiled_solve() -> None:
    n = 3 * NB + 5
    a, h = randsvd(n, 20), definite(n, 20)
    b = random(n, 3, np.dtype("d"))
    A = tla.TiledMatrix.from_array(a, NB)
    H = tla.TiledMatrix.from_array(h, NB, "lower")
    how = {"precision": "fp32", "full_output": True}
    for given, matrix, options in (
        (A, a, {}),
        (A, a.T, {"transposed": True}),
        (H, h, {"assume_a": "pos"}),
    ):
        x, info = tla.solve(given, b, **how, **options)
        assert info.solver in ("lu-ir", "cholesky-ir")
        assert excess(matrix, x, b) <= 1
        X, _ = tla.solve(given, tla.TiledMatrix.from_array(b, NB), **how, **options)
        assert (X.to_array() == x).all()
    assert (A.to_array() == a).all()
    triangle = tla.TiledMatrix.from_array(np.tril(h), NB, "lower")
    _, info = tla.solve(triangle, b, assume_a="lower triangular", **how)
    assert info.reason == "the matrix is lower triangular"


def test_tiled_fallback() -> None:
    n = 3 * NB
    h = definite(n, 1e12)
    b = h @ np.ones((n, 1))
    A, B = (tla.TiledMatrix.from_array(m, NB, copy=True) for m in (h, b))
    info = tla.posv(A, B, precision="fp32")
    assert (info.solver, info.iter) == ("full", -3)
    # then A is the factor
    factor = np.tril(A.to_array())
    np.testing.assert_allclose(factor @ factor.T, h, atol=1e-15)
    assert excess(h, B.to_array(), b) <= 10
    a = singular_when_rounded(n)
    A, B = (tla.TiledMatrix.from_array(m, NB, copy=True) for m in (a, a @ np.ones((n, 1))))
    info = tla.gesv(A, B, precision="bf16")
    assert (info.solver, info.iter) == ("full", -3)
    assert info.reason == f"in bf16: singular matrix: diagonal element {n} is exactly zero"
    expected, _ = sl.lu_factor(a)
    np.testing.assert_allclose(A.to_array(), expected, atol=1e-12)
    A = tla.TiledMatrix.zeros((n, n), NB)
    before = B.to_array()
    with pytest.raises(LinAlgError, match="diagonal element 1 is exactly zero"):
        tla.gesv(A, B, precision="fp32")
    assert (B.to_array() == before).all()


def test_pivots_are_chosen_as_asked() -> None:
    a = randsvd(3 * NB, 10) + 4 * np.eye(3 * NB)
    b = a @ np.ones((3 * NB, 1))
    for pivot in ("partial", "tournament", "none"):
        A, B = (tla.TiledMatrix.from_array(m, NB, copy=True) for m in (a, b))
        assert tla.gesv(A, B, pivot, precision="fp32").solver == "lu-ir"
        assert excess(a, B.to_array(), b) <= 1


def test_matrices_with_formats_of_their_own_are_not_refined() -> None:
    A = tla.TiledMatrix.random((20, 20), 8, kind="spd")
    B = tla.TiledMatrix.random((20, 1), 8)
    low = A.with_precision("fp16")
    for solve in (tla.gesv, tla.posv):
        with pytest.raises(ValueError, match=r"refinement wants A.astype\('float64'\)"):
            solve(low, B, precision="fp64")
        with pytest.raises(ValueError, match="the tiles of B have number formats of their own"):
            solve(A, B.with_precision("fp16"), precision="fp32")


# -- ranks -----------------------------------------------------------------------------------------


@pytest.mark.xdist_group("mpi")
@pytest.mark.parametrize("ranks", [2, 3])
def test_ranks(ranks: int) -> None:
    done = mpirun(ranks, Path(__file__).with_name("mpi_refinement.py"), timeout=120)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-10000:]
    found = json.loads(done.stdout.splitlines()[-1])
    # GMRES is for one matrix
    assert found.pop(8) == "gmres-ir"
    one = ["lu-ir", *["cholesky-ir"] * 2, *["lu-ir"] * 2, "cholesky-ir", "1-th "]
    assert found == one * 4
