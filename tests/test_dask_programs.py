"""Every routine on Dask, under many maps and windows: what one process gives, inputs intact.

On Dask's synchronous scheduler, so that hundreds of programs run in a moment; the tasks are those
that a cluster runs.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import dask
import numpy as np
import pytest

import taskla as tla
from taskla.cli.generate import matrices
from taskla.distributions import Distribution, get
from taskla.engines.dask import DaskEngine
from taskla.engines.dask_matrix import DaskMatrix
from taskla.routines import ROUTINES, problem

MAPS = [get("col", 1), get("col", 3), get("2dbc", 4), get("sbc", 3), get("row", 2)]
# n, nb: nothing, less than a tile, one, remainders
SIZES = [(0, 4), (1, 4), (7, 8), (16, 8), (17, 8), (61, 8)]
OPERATIONS: list[tuple[str, dict[str, Any]]] = [
    *[("potrf", {}), ("potrf", {"uplo": "U"}), ("potrs", {"nrhs": 5}), ("posv", {"nrhs": 11})],
    *[("potri", {}), ("trtri", {"uplo": "U"}), ("lauum", {}), ("syrk", {"k": 21})],
    *[("herk", {"k": 9}), ("gemm", {"m": 33, "k": 18}), ("gemm", {"k": 5, "stationary": "A"})],
    *[("symm", {"m": 29}), ("hemm", {"m": 29, "side": "R"}), ("trsm", {"m": 26})],
    *[("trmm", {"m": 26, "side": "R"}), ("getrf", {"m": 75}), ("getrf", {"pivot": "none"})],
    *[("getrf", {"pivot": "tournament"}), ("getrs", {"nrhs": 11, "trans": "T"})],
    ("gesv", {"nrhs": 5}),
]


@pytest.fixture(autouse=True)
def in_this_process() -> Iterator[None]:
    with dask.config.set(scheduler="synchronous"):
        yield


def run(op: str, n: int, nb: int, dtype: str, engine: Any, **options: Any) -> list[Any]:
    """The matrices that a routine works on, after it did; and whether its inputs are as before."""
    p = problem(op, n, nb, dtype, **options)
    with engine:
        X = matrices(p, 3, engine)
        if isinstance(engine, DaskEngine):
            assert all(isinstance(x, DaskMatrix) for x in X)
        given = p.routine.prepare(p, X) if p.routine.prepare else None
        before = [x.copy() for x in X]
        content = [x.to_array() for x in before]
        found = p.routine.call(p, X, given)
        results = [x.to_array() for x in X]
        if isinstance(engine, DaskEngine):
            for x, was in zip(before, content, strict=True):
                np.testing.assert_array_equal(x.to_array(), was)
        if found is not None and not isinstance(found, tla.TiledMatrix):
            results.append(np.asarray(found))
    return results


@pytest.mark.parametrize(("op", "options"), OPERATIONS, ids=lambda v: v if v is str else str(v))
def test_every_routine_gives_what_one_process_gives(op: str, options: dict[str, Any]) -> None:
    assert op in ROUTINES
    for number, map_ in enumerate(MAPS):
        # in turn, as all of them take long
        for window in (1 + number % 2,):
            for (n, nb), dtype in zip(SIZES, "sdczdz", strict=True):
                if dtype in "sd" and op in ("hemm", "herk"):
                    dtype = "z"
                engine = DaskEngine.implicit(distribution=map_, window=window)
                found = run(op, n, nb, dtype, engine, **options)
                expected = run(op, n, nb, dtype, tla.engine("threads", workers=1), **options)
                for one, other in zip(found, expected, strict=True):
                    tolerance = 1e-3 if dtype in "sc" else 1e-9
                    np.testing.assert_allclose(one, other, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("map_", [get("2.5d-2dbc", 4), get("2.5d-sbc", 6)])
def test_slices_add_up_their_updates(map_: Distribution) -> None:
    with DaskEngine.implicit(distribution=map_):
        A = tla.TiledMatrix.random((61, 61), nb=8, kind="spd", uplo="lower", seed=1)
        a = A.to_array(fill="symmetric")
        tla.potrf(A)
    np.testing.assert_allclose(A.to_array(), np.linalg.cholesky(a), atol=1e-11)


def test_results_have_the_same_bits_on_every_run() -> None:
    first, second = (
        run("gesv", 61, 8, "d", DaskEngine.implicit(distribution=get("col", 2)), nrhs=5)
        for _ in range(2)
    )
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one, other)


def test_norms_and_pivots_are_computed_when_numbers_are_asked_for() -> None:
    with DaskEngine.implicit(distribution=get("col", 2)):
        A = tla.TiledMatrix.random((37, 37), nb=8, seed=5)
        a = A.to_array()
        assert tla.lange("fro", A) == pytest.approx(np.linalg.norm(a))
        assert tla.lange("1", A) == pytest.approx(np.linalg.norm(a, 1))
        piv = tla.getrf(A)
        np.testing.assert_array_equal(np.asarray(piv), tla.lu_factor(a, nb=8)[1])
        assert len(piv) == 37


def test_arrays_are_served_as_well() -> None:
    rng = np.random.default_rng(0)
    a = rng.normal(size=(40, 40))
    b = a @ a.T + 40 * np.eye(40)
    with DaskEngine.implicit(distribution=get("col", 2)):
        np.testing.assert_allclose(tla.cholesky(b, lower=True, nb=8), np.linalg.cholesky(b))
        np.testing.assert_allclose(tla.solve(a, a, nb=8), np.eye(40), atol=1e-10)
        np.testing.assert_allclose(tla.matmul(a, b, nb=8), a @ b)
