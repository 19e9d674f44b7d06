"""Programs that `test_engine_dask` runs, each with a cluster of its own."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
from distributed import Client, LocalCluster, wait

import taskla as tla

PATIENCE = 90


def cluster(**options: Any) -> LocalCluster:
    return LocalCluster(host="127.0.0.1", dashboard_address="127.0.0.1:0", **options)


def own() -> None:
    """The cluster of an engine: on loopback, gone afterwards."""
    with tla.engine("dask", workers=2) as engine:
        assert engine.client is not None
        workers = list(engine.client.nthreads())
        addresses = [engine.client.scheduler.address, *workers]
        pids = list(engine.client.run(os.getpid).values())
        x = tla.cholesky(da.eye(100, chunks=40) * 4, lower=True).compute()
        assert np.allclose(x, 2 * np.eye(100))
        A = tla.TiledMatrix.random((50, 50), nb=20)
    for late in (A.compute, A.persist, A.to_array):
        with pytest.raises(RuntimeError, match="was closed when `with` ended"):
            late()
    # its client is not taken for the current one either: Dask computes here
    assert np.allclose(tla.cholesky(da.eye(30, chunks=10) * 4).compute(), 2 * np.eye(30))
    loopback = all(address.startswith("tcp://127.0.0.1:") for address in addresses)
    print("workers", len(workers), "loopback", loopback, "closed", not any(map(alive, pids)))


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return "zombie" not in Path(f"/proc/{pid}/status").read_text()


def killed() -> None:
    """A worker is killed amid a factorisation, and another comes in its place."""
    n, nb = 3000, 150
    with (
        cluster(n_workers=3, threads_per_worker=1) as workers,
        Client(workers) as client,
        tla.engine("dask", client=client) as engine,
    ):
        A = tla.TiledMatrix.random((n, n), nb=nb, kind="spd", uplo="lower", seed=7).persist()
        wait(A, timeout=PATIENCE)
        before = A.copy()
        tla.potrf(A)
        L = A.persist()
        # amid: a panel in the middle is done, the last one is not
        middle, last = L.where[10, 10].key, L.where[19, 19].key
        wait(future(client, middle), timeout=PATIENCE)
        victim = next(iter(client.who_has([future(client, L.where[9, 9].key)]).values()))[0]
        pid = client.run(os.getpid, workers=[victim])[victim]
        os.kill(pid, signal.SIGKILL)
        wait(L, timeout=PATIENCE)
        a = before.to_array(fill="symmetric")
        x = L.to_array()
        error = np.abs(x @ x.T - a).max() / np.abs(a).max()
        tasks = len([key for key in A.graph.to_dict() if key[0].split("-")[0] in KERNELS])
        print("tasks", tasks, "recomputed", engine.recomputed, "error", error, last)
        assert error < 1e-13
        # what the dead worker had done, a third of what was done by then, and its part of A
        assert 0 < engine.recomputed <= tasks // 3 + 7


def only() -> None:
    """The only worker is killed amid a factorisation, and its nanny starts it again."""
    with (
        cluster(n_workers=1, threads_per_worker=1) as workers,
        Client(workers) as client,
        tla.engine("dask", client=client),
    ):
        A = tla.TiledMatrix.random((2000, 2000), nb=100, kind="spd", uplo="lower", seed=7)
        a = A.to_array(fill="symmetric")
        tla.potrf(A)
        L = A.persist()
        wait(future(client, L.where[4, 4].key), timeout=PATIENCE)
        (pid,) = client.run(os.getpid).values()
        os.kill(pid, signal.SIGKILL)
        wait(L, timeout=PATIENCE)
        x = L.to_array()
        assert np.abs(x @ x.T - a).max() / np.abs(a).max() < 1e-13


def busy() -> None:
    """Many short tasks under a map of shared columns: none is stolen, none is done twice."""

    def stolen(dask_scheduler: Any) -> int:
        return int(dask_scheduler.extensions["stealing"].count)

    with (
        cluster(n_workers=3, threads_per_worker=1) as workers,
        Client(workers) as client,
        tla.engine("dask", client=client, distribution="sbc") as engine,
    ):
        for seed in range(3):
            A = tla.TiledMatrix.random((2000, 2000), nb=100, kind="spd", uplo="lower", seed=seed)
            a = A.to_array(fill="symmetric")
            before = client.run_on_scheduler(stolen)
            tla.potrf(A)
            L = A.persist()
            wait(L, timeout=PATIENCE)
            assert client.run_on_scheduler(stolen) == before
            x = L.to_array()
            assert np.abs(x @ x.T - a).max() < 1e-13 * np.abs(a).max()
        assert engine.recomputed == 0


KERNELS = {"potrf", "syrk", "gemm", "trsm"}


def future(client: Client, key: Any) -> Any:
    from distributed import Future

    return Future(key, client)


def peak(client: Client, reset: bool = False) -> dict[str, float]:
    """The most memory that each worker has had since it was last reset, in MB."""

    def of_worker() -> float:
        if reset:
            Path("/proc/self/clear_refs").write_text("5")
        status = Path("/proc/self/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) / 1000

    found: dict[str, float] = client.run(of_worker)
    return found


def correlation(n: int, chunk: int, rate: float) -> da.Array:
    """``rate ** |i - j|``, made chunk by chunk where it is wanted."""
    sizes = (chunk,) * (n // chunk)
    return da.map_blocks(_block, rate, chunks=(sizes, sizes), dtype=float, meta=np.zeros((0, 0)))


def _block(rate: float, block_info: Any = None) -> Any:
    (top, bottom), (left, right) = block_info[None]["array-location"]
    return rate ** abs(np.arange(top, bottom)[:, None] - np.arange(left, right))


def memory() -> None:
    """Peak memory of workers, ours and that of `dask.array.linalg.cholesky`, of the same array."""
    n, chunk = 8192, 256
    peaks = []
    for factor in (ours, da.linalg.cholesky):
        # each with fresh processes that have imported what they need
        with cluster(n_workers=2, threads_per_worker=1) as workers, Client(workers) as client:
            wait(factor(correlation(1000, 500, 0.4), lower=True).persist(), timeout=PATIENCE)
            idle = peak(client, reset=True)
            L = factor(correlation(n, chunk, 0.5), lower=True).persist()
            wait(L, timeout=PATIENCE)
            found = peak(client)
            peaks.append(max(found[name] - idle[name] for name in found))
            del L
    print("peak MB", peaks, "ratio", peaks[0] / peaks[1])
    assert peaks[0] <= 0.6 * peaks[1]


def ours(a: da.Array, lower: bool) -> Any:
    """The factor as a tiled matrix."""
    assert lower
    return tla.potrf(tla.TiledMatrix.from_dask(a, uplo="lower"))


def large() -> None:
    """A matrix that no worker could hold."""
    n, nb, limit = 8000, 500, "400MB"
    with (
        cluster(n_workers=3, threads_per_worker=1, memory_limit=limit) as workers,
        Client(workers) as client,
        tla.engine("dask", client=client),
    ):
        a = correlation(n, nb, 0.5)
        assert a.nbytes > 400e6
        L = tla.cholesky(a, lower=True).persist()
        wait(L, timeout=PATIENCE)
        z = np.random.default_rng(0).normal(size=n)
        found = (L @ (L.T @ z)).compute()
        expected = (a @ z).compute()
        assert np.abs(found - expected).max() < 1e-10 * np.abs(expected).max()
        print("ok")


def adaptive() -> None:
    """No worker at first; then as many as are asked for, which go when nothing is left to do."""
    with (
        cluster(n_workers=0, threads_per_worker=1) as workers,
        Client(workers) as client,
    ):
        workers.adapt(minimum=0, maximum=2, interval="100ms")
        with tla.engine("dask", client=client, distribution=tla.distributions.get("col", 2)):
            A = tla.TiledMatrix.random((600, 600), nb=100, kind="spd", uplo="lower", seed=1)
            a = A.to_array(fill="symmetric")
            tla.potrf(A)
            x = A.to_array()
        assert np.allclose(x, np.linalg.cholesky(a))
        print("ok")


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
