"""What is computed at once on Dask: solutions that are refined, and estimates of errors."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import numpy as np
import pytest
from distributed import Client, get_client, wait
from numpy.linalg import LinAlgError
from refined import ORDERS, WIDE, definite, excess, randsvd
from residuals import NB, random

import taskla as tla
from taskla.engines import dask_work
from taskla.errors import NotPositiveDefiniteError
from taskla.refinement import RefinementInfo

pytestmark = pytest.mark.xdist_group("dask")

PATIENCE = 60


@pytest.fixture
def here() -> Iterator[None]:
    """Dask computes in this process."""
    with dask.config.set(scheduler="synchronous"):
        yield


def array(a: Any, chunk: int = NB) -> Any:
    return da.from_array(a, chunks=chunk)


# -- solve -----------------------------------------------------------------------------------------


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("dtype", WIDE)
@pytest.mark.parametrize(
    ("precision", "n"),
    [*(("fp32", n) for n in (0, 1, *ORDERS)), ("bf16", ORDERS[-1]), ("fp16", ORDERS[-1])],
)
def test_solve(n: int, dtype: str, precision: str) -> None:
    a, h = randsvd(n, 20, dtype), definite(n, 20, dtype)
    b = random(n, 3, np.dtype(dtype))
    cases: list[tuple[str, Any, Any, dict[str, Any]]] = [
        ("lu-ir", a, a, {}),
        ("cholesky-ir", np.triu(h), h, {"assume_a": "pos"}),
        ("cholesky-ir", np.tril(h), h, {"assume_a": "pos", "lower": True}),
    ]
    if dtype == "float64":
        cases += [("lu-ir", a, a.T, {"transposed": True})]
    for solver, given, matrix, options in cases:
        for right in (b, b[:, 0]):
            x, info = tla.solve(
                array(given),
                array(right),
                precision=precision,
                full_output=True,
                nb=NB,
                **options,
            )
            assert isinstance(x, da.Array)
            assert (info.solver, info.precision) == (solver, precision)
            assert x.shape == right.shape
            assert x.dtype == dtype
            found = np.atleast_2d(x.compute().T).T
            assert excess(matrix, found, np.atleast_2d(right.T).T) <= 1


def test_on_a_cluster(client: Client) -> None:
    n = 5 * NB + 3
    a, h, b = randsvd(n, 20), definite(n, 20), random(n, 2, np.dtype("d"))
    with client.as_current():
        x, info = tla.solve(array(a, 70), b, precision="fp32", full_output=True)
        y = tla.solve(array(h), array(b), precision="fp32", assume_a="pos")
        # they are there
        assert all(future.status == "finished" for future in client.futures_of([x, y]))
        assert (info.solver, info.reason) == ("lu-ir", "")
        x, y = dask.compute(x, y)
    assert excess(a, x, b) <= 1
    assert excess(h, y, b) <= 1


def counted(a: Any, file: Path) -> Any:
    """A Dask array of an array, of which each chunk that is computed leaves a mark in a file."""

    def block(block: Any) -> Any:
        with file.open("a") as marks:
            marks.write("x")
        return block

    return array(a).map_blocks(block, dtype=float, meta=np.zeros((0, 0)))


def test_a_matrix_is_computed_once(client: Client, tmp_path: Path) -> None:
    a, computed = randsvd(4 * NB, 20), tmp_path / "computed"
    with client.as_current():
        x = counted(a, computed)
        solution = tla.solve(x, a[:, :1], precision="fp32").compute()
    np.testing.assert_allclose(solution[0], 1)
    assert computed.read_text() == 16 * "x"


@pytest.mark.usefixtures("here")
def test_a_matrix_is_computed_once_to_be_saved(tmp_path: Path) -> None:
    h, computed = definite(3 * NB, 20), tmp_path / "computed"
    # of a factor each tile needs what came before it
    A = tla.cholesky(tla.TiledMatrix.from_dask(counted(h, computed), uplo="lower"), lower=True)
    with pytest.raises(FileNotFoundError):
        A.save(tmp_path / "nowhere" / "a")
    assert not computed.exists()
    A.save(tmp_path / "a")
    assert computed.read_text() == 6 * "x"
    L = tla.TiledMatrix.load(tmp_path / "a").to_array()
    np.testing.assert_allclose(L @ L.T, h, atol=1e-14)


@pytest.mark.usefixtures("here")
def test_factors_are_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    panels: list[str] = []
    run = dask_work._run

    def observed(share: dask_work.Share, *rest: Any) -> Any:
        names = [share.graph.operations[kind] for kind in share.graph.kind.tolist()]
        panels.extend(name for name in names if name in ("getrf", "potrf"))
        return run(share, *rest)

    monkeypatch.setattr(dask_work, "_run", observed)
    a, h, b = randsvd(3 * NB, 20), definite(3 * NB, 20), random(3 * NB, 1, np.dtype("d"))
    for kernel, matrix, options in (("getrf", a, {}), ("potrf", h, {"assume_a": "pos"})):
        panels.clear()
        _, info = tla.solve(array(matrix), b, precision="fp32", full_output=True, **options)
        assert info.iterations > 0
        assert panels == 3 * [kernel]


def test_inside_of_a_task(client: Client) -> None:
    def task(a: Any, b: Any) -> Any:
        with get_client().as_current():
            return tla.solve(array(a), b, precision="fp32").compute()

    a = randsvd(3 * NB, 20)
    b = random(3 * NB, 1, np.dtype("d"))
    assert excess(a, client.submit(task, a, b, pure=False).result(PATIENCE), b) <= 1


def test_what_is_not_refined_stays_lazy() -> None:
    a = randsvd(3 * NB, 20)

    def block(block: Any) -> Any:
        raise AssertionError("nothing is computed")

    x = array(a).map_blocks(block, dtype=float, meta=np.zeros((0, 0)))
    for options, info in (
        ({}, RefinementInfo("full", "fp64")),
        ({"precision": "fp64"}, RefinementInfo("full", "fp64")),
        (
            {"precision": "fp32", "assume_a": "lower triangular"},
            RefinementInfo("full", "fp32", reason="the matrix is lower triangular", iter=-1),
        ),
    ):
        _, found = tla.solve(x, a, full_output=True, **options)
        assert found == info
    with pytest.raises(ValueError, match="precision is 'fp8'; allowed: None, fp64, fp32"):
        tla.solve(x, a, precision="fp8")
    with pytest.raises(ValueError, match="only float64 and complex128 are refined to"):
        tla.solve(x.astype("f"), a.astype("f"), precision="fp32")
    with pytest.raises(NotImplementedError, match="transposed"):
        tla.solve(x.astype("D"), a, precision="fp32", transposed=True)


@pytest.mark.usefixtures("here")
def test_what_is_not_finite_is_refused() -> None:
    a, b = randsvd(3 * NB, 20), random(3 * NB, 1, np.dtype("d"))
    a[NB, 2], b[-1] = np.nan, np.inf
    good = randsvd(3 * NB, 20)
    for options in ({}, {"assume_a": "pos", "lower": True}):
        with pytest.raises(ValueError, match="infs or NaNs"):
            tla.solve(array(a), array(good), precision="fp32", **options)
        with pytest.raises(ValueError, match="infs or NaNs"):
            tla.solve(array(good @ good.T), array(b), precision="fp32", **options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        x, info = tla.solve(
            array(a), array(good), precision="fp32", check_finite=False, full_output=True
        )
        assert (info.iter, info.reason) == (-2, "the matrix is not finite")
        assert np.isnan(x.compute()).any()


# -- tiled matrices --------------------------------------------------------------------------------


@pytest.mark.parametrize(("precision", "distribution"), [("fp32", "col"), ("fp16", "2dbc")])
def test_in_place(client: Client, precision: str, distribution: str) -> None:
    n = 3 * NB + 5
    a, h, b = randsvd(n, 20), definite(n, 20), random(n, 2, np.dtype("d"))
    cases: list[tuple[Any, str | None, Callable[..., Any]]] = [
        (a, None, tla.gesv),
        (h, "lower", tla.posv),
        (h, "upper", tla.posv),
    ]
    with tla.engine("dask", client=client, distribution=distribution):
        for matrix, uplo, call in cases:
            A = tla.TiledMatrix.from_array(matrix, NB, uplo)
            B = tla.TiledMatrix.from_array(b, NB)
            info = call(A, B, precision=precision)
            assert info.solver == ("lu-ir" if call is tla.gesv else "cholesky-ir")
            assert excess(matrix, B.to_array(), b) <= 1
            # as it was, and kept by the workers
            stored = matrix if uplo is None else {"lower": np.tril, "upper": np.triu}[uplo](matrix)
            assert (A.to_array() == stored).all()
            assert client.futures_of(A)


@pytest.mark.usefixtures("here")
def test_every_choice_of_pivots() -> None:
    a = randsvd(3 * NB, 10) + 4 * np.eye(3 * NB)
    for pivot in ("partial", "tournament", "none"):
        A, B = (tla.TiledMatrix.from_dask(array(m)) for m in (a, a[:, :1]))
        assert tla.gesv(A, B, pivot, precision="fp32").solver == "lu-ir"
        np.testing.assert_allclose(B.to_array()[0, 0], 1)


@pytest.mark.usefixtures("here")
def test_where_it_fails_all_is_done_in_full() -> None:
    n = 3 * NB
    h = definite(n, 1e12)
    b = h @ np.ones((n, 1))
    A, B = tla.TiledMatrix.from_dask(array(h), uplo="lower"), tla.TiledMatrix.from_dask(array(b))
    info = tla.posv(A, B, precision="fp32")
    assert (info.solver, info.iter) == ("full", -3)
    assert "leading minor of the array is not positive definite" in info.reason
    factor = A.to_array()
    np.testing.assert_allclose(factor @ factor.T, h, atol=1e-15)
    assert excess(h, B.to_array(), b) <= 10
    zeros = tla.TiledMatrix.from_dask(array(np.zeros((n, n))))
    info = tla.gesv(zeros, B, precision="fp32")
    assert info.reason == "in fp32: singular matrix: diagonal element 1 is exactly zero"
    with pytest.raises(LinAlgError, match="is exactly zero"):
        B.to_array()


@pytest.mark.usefixtures("here")
def test_gmres_is_given_up_where_it_would_take_long() -> None:
    n = 3 * NB
    a, h = randsvd(n, 1e9), definite(n, 1e5)
    _, info = tla.solve(array(a), a[:, :2], precision="bf16", full_output=True)
    assert (info.solver, info.iter) == ("full", -31)
    assert "GMRES-IR took too long" in info.reason
    assert 0 < info.inner_iterations <= 10 + n // 100
    _, info = tla.solve(array(h), h[:, :1], precision="fp32", full_output=True, assume_a="pos")
    assert info.solver == "cholesky-ir"


@pytest.mark.usefixtures("here")
def test_a_tile_can_be_put() -> None:
    A = tla.TiledMatrix.from_dask(array(np.ones((3 * NB, NB))))
    block = np.arange(NB * NB).reshape(NB, NB)
    A.put(1, 0, block)
    block[:] = 7
    expected = np.ones((3 * NB, NB))
    expected[NB : 2 * NB] = np.arange(NB * NB).reshape(NB, NB)
    np.testing.assert_array_equal(A.to_array(), expected)
    with pytest.raises(IndexError, match=r"tile \(3, 0\) does not exist"):
        A.put(3, 0, block)
    with pytest.raises(TypeError, match="is a part of a Dask graph"):
        A.with_precision("fp16").put(0, 0, block)


# -- how accurate a factorisation was --------------------------------------------------------------


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("dtype", WIDE)
@pytest.mark.parametrize("uplo", ["lower", "upper", None])
def test_the_estimate_of_cholesky_is_that_of_threads(uplo: Any, dtype: str) -> None:
    h = definite(3 * NB + 5, 20, dtype)
    A = tla.TiledMatrix.from_dask(array(h), NB, uplo, precision="fp64:1,bf16:rest")
    tla.potrf(A, estimate=True)
    T = tla.TiledMatrix.from_array(h, NB, uplo, precision="fp64:1,bf16:rest")
    tla.potrf(T, estimate=True)
    assert A.accuracy is not None
    assert T.accuracy is not None
    assert T.accuracy.error > 1e-5
    assert A.accuracy.error == pytest.approx(T.accuracy.error, rel=1e-5)
    # where the factor goes, as long as it is that
    (persisted,) = dask.persist(A)
    assert A.copy().accuracy == A.compute().accuracy == persisted.accuracy == A.accuracy
    for matrix in (A, T):
        tla.potri(matrix)
        assert matrix.accuracy is None


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("shape", [(3 * NB + 5, 3 * NB + 5), (4 * NB, NB + 1), (NB + 1, 4 * NB)])
@pytest.mark.parametrize("pivot", ["partial", "none"])
def test_the_estimate_of_lu_is_that_of_threads(shape: tuple[int, int], pivot: Any) -> None:
    a = random(*shape, np.dtype("d")) + 8 * np.eye(*shape)
    A = tla.TiledMatrix.from_dask(array(a), NB, precision="fp32")
    tla.getrf(A, pivot, estimate=True)
    T = tla.TiledMatrix.from_array(a, NB, precision="fp32")
    tla.getrf(T, pivot, estimate=True)
    assert A.accuracy is not None
    assert T.accuracy is not None
    assert T.accuracy.error > 1e-9
    assert A.accuracy.error == pytest.approx(T.accuracy.error, rel=1e-2)


def test_an_estimate_computes_and_keeps_the_factor(client: Client) -> None:
    h = definite(4 * NB, 20)
    with tla.engine("dask", client=client):
        A = tla.TiledMatrix.from_array(h, NB, "lower", precision="adaptive:1e-5")
        tla.potrf(A, estimate=True)
        assert A.accuracy is not None
        assert A.accuracy.kept
        wait(client.futures_of(A), timeout=PATIENCE)
        L = A.to_array()
        assert np.linalg.norm(L @ L.T - h) <= 3e-5 * np.linalg.norm(h)
        h[20, 20] = -1
        A = tla.TiledMatrix.from_array(h, NB, "lower", precision="adaptive:1e-5")
        with pytest.raises(NotPositiveDefiniteError, match="21-th leading minor"):
            tla.potrf(A, estimate=True)
