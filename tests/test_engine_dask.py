"""The Dask engine on real clusters: where tiles are, what is lazy, how it ends, who may die.

One cluster of two worker processes serves most tests; those that kill, limit or scale have others.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import numpy as np
import pytest
from distributed import Client, as_completed, futures_of, wait

import taskla as tla
from taskla.engines.dask_matrix import DaskMatrix
from taskla.errors import NotPositiveDefiniteError

pytestmark = pytest.mark.xdist_group("dask")

PROGRAMS = Path(__file__).with_name("dask_programs.py")
PATIENCE = 60


def positive(n: int, seed: int = 0) -> Any:
    a = np.random.default_rng(seed).normal(size=(n, n))
    return a @ a.T + n * np.eye(n)


def program(name: str, *arguments: str, timeout: int = 120) -> subprocess.CompletedProcess[str]:
    """Run one of the programs in `dask_programs`, with a cluster of its own."""
    return subprocess.run(
        [sys.executable, "-W", "error", str(PROGRAMS), name, *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
    )


# -- where things are ------------------------------------------------------------------------------


def test_tiles_stay_on_the_workers_that_own_them(client: Client) -> None:
    workers = sorted(client.nthreads())
    with tla.engine("dask", client=client, distribution="col"):
        A = tla.TiledMatrix.random((800, 800), nb=100, kind="spd", uplo="lower", seed=1)
        a = A.to_array(fill="symmetric")
        tla.potrf(A)
        L = A.persist()
        wait(L, timeout=PATIENCE)
        where = client.who_has(futures_of(L))
        found = {L.where[i, j].key: j % 2 for i, j in L.where}
        for key, addresses in where.items():
            # copies of a panel are dropped once its last reader is done
            assert len(addresses) == 1, key
        by_rank = {rank: {where[key][0] for key in found if found[key] == rank} for rank in (0, 1)}
        assert {len(addresses) for addresses in by_rank.values()} == {1}
        assert sorted(address for (address,) in by_rank.values()) == workers
    np.testing.assert_allclose(L.to_array(), np.linalg.cholesky(a), atol=1e-10)


def test_the_dashboard_knows_tasks_by_their_kernels(client: Client) -> None:
    def prefixes(dask_scheduler: Any) -> list[str]:
        return list(dask_scheduler.task_prefixes)

    with tla.engine("dask", client=client, distribution=tla.distributions.get("2dbc", 4)):
        A = tla.TiledMatrix.random((400, 400), nb=50, kind="spd", uplo="lower", seed=2)
        tla.potrf(A)
        wait(A.persist(), timeout=PATIENCE)
    assert {"potrf", "trsm", "syrk", "gemm"} <= set(client.run_on_scheduler(prefixes))


def test_ranks_are_shared_out_to_the_workers_that_there_are() -> None:
    from taskla.engines.dask_plugin import Ranks

    ranks = Ranks(["a", "b"])
    assert [ranks.worker(k) for k in range(5)] == ["a", "b", "a", "b", "a"]
    # a new one takes what makes shares even, the others keep theirs
    moved = ranks.add("c")
    assert [ranks.worker(k) for k in range(5)] == ["a", "b", "a", "b", "c"]
    assert moved == [4]
    assert ranks.add("c") == []
    assert ranks.remove("a") == [0, 2]
    assert sorted(ranks.worker(k) or "" for k in range(5)) == ["b", "b", "b", "c", "c"]
    ranks.remove("b")
    ranks.remove("c")
    assert ranks.worker(0) is None
    # tasks that are pinned to those that have left are its own
    assert ranks.add("d") == [0, 1, 2, 3, 4]
    assert ranks.worker(3) == "d"


# -- Dask's own ways -------------------------------------------------------------------------------


def test_dask_arrays_are_solved_on_the_cluster(client: Client) -> None:
    a = positive(300)
    b = np.random.default_rng(1).normal(size=300)
    with client.as_current():
        x = tla.solve(da.from_array(a, chunks=(90, 110)), da.from_array(b, chunks=77), nb=64)
        assert isinstance(x, da.Array)
        np.testing.assert_allclose(x.compute(), np.linalg.solve(a, b))
        L = tla.cholesky(da.from_array(a, chunks=64), lower=True).persist()
        np.testing.assert_allclose(L.compute(), np.linalg.cholesky(a))


def test_a_tiled_matrix_is_a_collection(client: Client) -> None:
    a = positive(200)
    with tla.engine("dask", client=client):
        A = tla.TiledMatrix.from_array(a, nb=50, uplo="lower")
        assert isinstance(A, DaskMatrix)
        assert dask.is_dask_collection(A)
        same, other = A.copy(), A.copy()
        tla.potrf(A)
        tla.potrf(same)
        assert dask.base.tokenize(A) == dask.base.tokenize(same) != dask.base.tokenize(other)
        (here,) = dask.compute(A)
        assert type(here) is tla.TiledMatrix
        np.testing.assert_allclose(here.to_array(), np.linalg.cholesky(a))
        # computed together, with arrays
        one, two = dask.compute(A, A.to_dask().sum())
        assert two == pytest.approx(one.to_array().sum())
        persisted = A.persist()
        done = list(as_completed(futures_of(persisted), timeout=PATIENCE))
        assert len(done) == len(set(persisted.tile_keys()))
        np.testing.assert_array_equal(persisted.block(1, 0), here.tile(1, 0).array)


def test_a_result_stays_with_the_engine_that_it_was_made_under(client: Client) -> None:
    a = positive(120)
    with tla.engine("dask", client=client) as engine:
        A = tla.TiledMatrix.from_array(a, nb=50, uplo="lower")
        tla.potrf(A)
    # outside of `with` no client is current
    assert A.engine is engine
    assert A.compute().to_array() == pytest.approx(np.linalg.cholesky(a))
    B = tla.TiledMatrix.from_array(np.ones((120, 1)), nb=50)
    # a matrix in this process's memory beside it is worked on in place, as everywhere
    tla.potrs(A, B)
    np.testing.assert_allclose(B.to_array()[:, 0], np.linalg.solve(a, np.ones(120)))


def inside(a: Any) -> Any:
    from distributed import get_client

    get_client()
    x = tla.cholesky(da.from_array(a, chunks=50), lower=True)
    with tla.engine("dask"):
        A = tla.TiledMatrix.from_array(a, nb=50, uplo="lower")
        tla.potrf(A)
        return x.compute(), A.to_array()


def test_it_works_from_inside_a_task(client: Client) -> None:
    a = positive(150)
    for found in client.submit(inside, a).result(timeout=PATIENCE):
        np.testing.assert_allclose(found, np.linalg.cholesky(a))


def test_a_failing_minor_is_named_and_the_cluster_goes_on(client: Client) -> None:
    a = positive(400)
    a[250, 250] = -1e4
    with tla.engine("dask", client=client):
        A = tla.TiledMatrix.from_array(a, nb=50, uplo="lower")
        tla.potrf(A)
        with pytest.raises(NotPositiveDefiniteError, match="251-th leading minor") as caught:
            A.compute()
        assert "in task potrf on tile A(5, 5)" in caught.value.__notes__
        B = tla.TiledMatrix.random((200, 200), nb=50, kind="spd", uplo="lower")
        b = B.to_array(fill="symmetric")
        tla.potrf(B)
        np.testing.assert_allclose(B.to_array(), np.linalg.cholesky(b))


def test_files_go_there_and_back(client: Client, tmp_path: Path) -> None:
    with tla.engine("dask", client=client):
        A = tla.TiledMatrix.random((130, 130), nb=50, seed=4)
        a = A.to_array()
        for name in ("a.npy", "a.mtx", "a.tiles"):
            A.save(tmp_path / name)
            B = tla.TiledMatrix.load(tmp_path / name, nb=50)
            assert isinstance(B, DaskMatrix)
            np.testing.assert_array_equal(B.to_array(), a)


def test_what_is_not_allowed_is_said(client: Client) -> None:
    with pytest.raises(TypeError, match=r"client must be a distributed\.Client, not str"):
        tla.engine("dask", client="tcp://127.0.0.1:1")
    with pytest.raises(ValueError, match="workers is 2; it is for a new cluster"):
        tla.engine("dask", client=client, workers=2)
    for option in ("workers", "fuse", "window"):
        with pytest.raises(ValueError, match=f"{option} is 0"):
            tla.engine("dask", **{option: 0})
    with pytest.raises(ValueError, match="nonsense"):
        tla.engine("dask", client=client, distribution="nonsense")
    with tla.engine("dask", client=client):
        A = tla.TiledMatrix.random((100, 100), nb=50)
        with pytest.raises(TypeError, match=r"tile \(0, 1\) is a part of a Dask graph"):
            A.tile(0, 1)
        with pytest.raises(IndexError, match=r"tile \(2, 0\) does not exist"):
            A.block(2, 0)
        with pytest.raises(ValueError, match="copy is False"):
            tla.TiledMatrix.from_array(np.eye(4), copy=False)


def test_without_distributed_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(ImportError, match=r"taskla\[dask\]"):
        tla.engine("dask")


# -- clusters of their own -------------------------------------------------------------------------


def test_an_engine_without_a_client_brings_a_cluster_and_takes_it_away() -> None:
    done = program("own")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "workers 2 loopback True closed True" in done.stdout


def test_a_killed_worker_costs_no_more_than_its_own_work() -> None:
    done = program("killed")
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_program_goes_on_when_its_only_worker_comes_back() -> None:
    done = program("only")
    assert done.returncode == 0, done.stdout + done.stderr


def test_tasks_stay_where_their_tiles_are() -> None:
    done = program("busy")
    assert done.returncode == 0, done.stdout + done.stderr


def test_peak_memory_is_well_below_that_of_dask_array() -> None:
    done = program("memory", timeout=200)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_matrix_may_be_larger_than_a_workers_memory() -> None:
    done = program("large", timeout=200)
    assert done.returncode == 0, done.stdout + done.stderr


def test_workers_may_come_and_go() -> None:
    done = program("adaptive")
    assert done.returncode == 0, done.stdout + done.stderr
