"""Speed on the threads of one machine, against SciPy, NumPy, BLAS, MKL and Dask in the same run.

Each line is one comparison: ours and the peer in turn, a warm-up and then `--rounds` rounds; the
medians, their ratio (above 1: we are faster) and the ratio asked for. The peer's BLAS threads are
read back in every round, and every result of ours is checked.

    python benchmarks/local.py                    # everything, about 15 minutes
    python benchmarks/local.py --only potrf-8192  # names that contain the text
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import scipy.linalg as sl
from threadpoolctl import threadpool_info

import taskla as tla

Array = Any
LIMIT = 60.0  # LAPACK-style scaled residual


@dataclass
class Case:
    """One comparison.

    `prepare` makes what a run works on, outside the timing; `ours` and `peer` do the work;
    `check` gives a scaled residual of our result.
    """

    name: str
    flops: float
    target: float
    prepare: Callable[[], tuple[Any, ...]]
    ours: Callable[..., Any]
    peer: Callable[..., Any]
    check: Callable[[Any], float]
    peer_name: str
    peer_prepare: Callable[[], tuple[Any, ...]] | None = None
    peer_flops: float | None = None
    limit: float = LIMIT
    ratios: list[float] = field(default_factory=list)


def blas_threads() -> str:
    """Threads of each BLAS loaded, as it says itself."""
    found = {
        f"{Path(info['filepath']).name.split('-')[0]}={info['num_threads']}"
        for info in threadpool_info()
        if info["user_api"] == "blas"
    }
    return ",".join(sorted(found))


def timed(function: Callable[..., Any], arguments: tuple[Any, ...]) -> tuple[float, Any]:
    """Seconds and result."""
    start = time.perf_counter()
    result = function(*arguments)
    return time.perf_counter() - start, result


def compare(case: Case, rounds: int) -> bool:
    """Run one comparison and print it. True if the ratio asked for was reached."""
    ours, peers, threads = [], [], []
    worst = 0.0
    peer_prepare = case.peer_prepare or case.prepare
    for round_ in range(rounds + 1):
        seconds, result = timed(case.ours, case.prepare())
        worst = max(worst, case.check(result))
        del result
        threads.append(blas_threads())
        peer_seconds, _ = timed(case.peer, peer_prepare())
        if round_:
            ours.append(seconds)
            peers.append(peer_seconds)
    mine, theirs = statistics.median(ours), statistics.median(peers)
    rate = case.flops / mine / 1e9
    peer_rate = (case.peer_flops or case.flops) / theirs / 1e9
    ratio = rate / peer_rate
    pairs = sorted(
        (case.flops / a) / ((case.peer_flops or case.flops) / b)
        for a, b in zip(ours, peers, strict=True)
    )
    good = worst < case.limit
    print(
        f"{case.name:24} ours {mine:7.3f} s {rate:6.1f} Gflop/s   "
        f"{case.peer_name:24} {theirs:7.3f} s {peer_rate:6.1f} Gflop/s   "
        f"ratio {ratio:5.2f} [{pairs[0]:.2f}, {pairs[-1]:.2f}] "
        f"asked {case.target:4.2f} {'reached' if ratio >= case.target else 'NOT reached'}   "
        f"residual {worst:.2g} {'ok' if good else 'WRONG'}   "
        f"peer threads {' '.join(dict.fromkeys(threads))}",
        flush=True,
    )
    return good and ratio >= case.target


def spd(n: int, dtype: str = "float64") -> Array:
    """A well-conditioned positive definite matrix, in C order."""
    x = np.random.default_rng(n).standard_normal((n, 64)).astype(dtype)
    a = x @ x.T
    a *= 1 / 64
    a.flat[:: n + 1] += 2
    return a


def probe(product: Callable[[Array], Array], a: Array, factors: float) -> float:
    """Scaled residual by a thin random block: ``|(A - product) X| / (|A| |X| n u)``."""
    n = a.shape[1]
    x = np.random.default_rng(1).standard_normal((n, 4)).astype(a.dtype)
    u = np.finfo(a.dtype).eps / 2
    difference = np.abs(a @ x - product(x)).sum(axis=0).max()
    return float(
        difference / (np.abs(a).sum(axis=0).max() * np.abs(x).sum(axis=0).max() * u) / factors
    )


def lower_product(factor: Array) -> Callable[[Array], Array]:
    """``x -> L (L^T x)`` reading only the lower triangle of `factor`."""
    trmm = sl.get_blas_funcs("trmm", (factor,))

    def product(x: Array) -> Array:
        return trmm(1, factor, trmm(1, factor, x, lower=1, trans_a=1), lower=1)

    return product


def lu_product(lu: Array, piv: Array) -> Callable[[Array], Array]:
    """``x -> P^T (L (U x))``."""
    trmm = sl.get_blas_funcs("trmm", (lu,))

    def product(x: Array) -> Array:
        y = trmm(1, lu, trmm(1, lu, x), lower=1, diag=1)
        for i in range(len(piv) - 1, -1, -1):
            if piv[i] != i:
                y[[i, piv[i]]] = y[[piv[i], i]]
        return y

    return product


def cholesky_case(n: int, target: float) -> Case:
    """`tla.cholesky` against `scipy.linalg.cholesky`."""
    a = spd(n)
    return Case(
        f"cholesky-{n}",
        n**3 / 3,
        target,
        prepare=lambda: (a,),
        ours=lambda a: tla.cholesky(a, lower=True),
        peer=lambda a: sl.cholesky(a, lower=True),
        check=lambda c: probe(lambda x: c @ (c.T @ x), a, n),
        peer_name="scipy.linalg.cholesky",
    )


def tiled_potrf(a: Array) -> Array:
    """Cholesky of an array, in place, as a tiled matrix."""
    tla.potrf(tla.TiledMatrix.from_array(a), "lower")
    return a


def potrf_case(n: int, target: float, dtype: str = "float64") -> Case:
    """Potrf on a tiled matrix against SciPy's raw wrapper of LAPACK."""
    a = spd(n, dtype)
    peer = sl.get_lapack_funcs("potrf", (a,))
    letter = "d" if dtype == "float64" else "s"
    return Case(
        f"{letter}potrf-{n}",
        n**3 / 3,
        target,
        prepare=lambda: (a.copy("F"),),
        ours=tiled_potrf,
        peer=lambda a: peer(a, lower=1, overwrite_a=1, clean=0),
        check=lambda c: probe(lower_product(c), a, n),
        peer_name=f"lapack.{letter}potrf",
    )


def dgemm_case(n: int, target: float) -> Case:
    """Potrf against the rate of DGEMM on 2 threads at n=4096."""
    a, m = spd(n), 4096
    b = np.random.default_rng(0).standard_normal((2, m, m))
    out = np.empty((m, m))
    return Case(
        f"dpotrf-{n}-dgemm",
        n**3 / 3,
        target,
        prepare=lambda: (a.copy("F"),),
        ours=tiled_potrf,
        peer=lambda: np.matmul(b[0], b[1], out=out),
        check=lambda c: probe(lower_product(c), a, n),
        peer_name="dgemm n=4096",
        peer_prepare=tuple,
        peer_flops=2.0 * m**3,
    )


def lu_factor_case(n: int, target: float) -> Case:
    """`tla.lu_factor` against `scipy.linalg.lu_factor`."""
    a = np.random.default_rng(n).standard_normal((n, n))
    return Case(
        f"lu_factor-{n}",
        2 * n**3 / 3,
        target,
        prepare=lambda: (a,),
        ours=tla.lu_factor,
        peer=sl.lu_factor,
        check=lambda r: probe(lu_product(*r), a, n),
        peer_name="scipy.linalg.lu_factor",
    )


def getrf_case(n: int, target: float) -> Case:
    """Getrf on a tiled matrix against SciPy's raw wrapper of LAPACK."""
    a = np.random.default_rng(n).standard_normal((n, n))
    return Case(
        f"dgetrf-{n}",
        2 * n**3 / 3,
        target,
        prepare=lambda: (a.copy("F"),),
        ours=lambda a: (a, tla.getrf(tla.TiledMatrix.from_array(a))),
        peer=lambda a: sl.lapack.dgetrf(a, overwrite_a=1),
        check=lambda r: probe(lu_product(*r), a, n),
        peer_name="lapack.dgetrf",
    )


def matmul_case(n: int, target: float) -> Case:
    """`tla.matmul` against `numpy.matmul`."""
    a, b = np.random.default_rng(n).standard_normal((2, n, n))
    x = np.random.default_rng(1).standard_normal((n, 4))
    scale = np.linalg.norm(a) * np.linalg.norm(b) * np.sqrt(n + 2) * 2.0**-53
    return Case(
        f"matmul-{n}",
        2.0 * n**3,
        target,
        prepare=lambda: (a, b),
        ours=tla.matmul,
        peer=np.matmul,
        check=lambda c: float(np.linalg.norm(c @ x - a @ (b @ x)) / scale / np.linalg.norm(x)),
        peer_name="numpy.matmul",
        limit=3.0,
    )


def symm_case(n: int, target: float) -> Case:
    """`tla.symm` against BLAS dsymm."""
    a, b = (np.asfortranarray(x) for x in np.random.default_rng(n).standard_normal((2, n, n)))
    low = np.tril(a)
    full = low + np.tril(a, -1).T
    x = np.random.default_rng(1).standard_normal((n, 4))
    scale = np.linalg.norm(full) * np.linalg.norm(b) * np.sqrt(n + 2) * 2.0**-53
    return Case(
        f"symm-{n}",
        2.0 * n**3,
        target,
        prepare=lambda: (a, b),
        ours=lambda a, b: tla.symm(a, b, side="left", lower=True),
        peer=lambda a, b: sl.blas.dsymm(1.0, a, b, lower=1),
        check=lambda c: float(np.linalg.norm(c @ x - full @ (b @ x)) / scale / np.linalg.norm(x)),
        peer_name="blas.dsymm",
        limit=3.0,
    )


def dask_case(name: str, n: int, target: float) -> Case:
    """Potrf or getrf against `dask.array.linalg` on threads, with its best chunk size."""
    import dask
    import dask.array as da

    potrf = name == "potrf"
    a = spd(n) if potrf else np.random.default_rng(n).standard_normal((n, n))
    if not potrf:
        # Dask pivots within diagonal blocks only: give it a matrix on which that is enough
        a.flat[:: n + 1] += n

    def theirs(chunk: int) -> Any:
        x = da.from_array(a, chunks=chunk, name=False)
        with dask.config.set(scheduler="threads", num_workers=2):
            if potrf:
                return da.linalg.cholesky(x, lower=True).persist()
            return dask.persist(*da.linalg.lu(x))

    chunks = {chunk: timed(theirs, (chunk,))[0] for chunk in (512, 1024, 2048)}
    best = min(chunks, key=chunks.__getitem__)
    ours = potrf_case(n, target) if potrf else getrf_case(n, target)
    base = np.asfortranarray(a)
    ours.name = f"d{name}-{n}-dask"
    ours.prepare = lambda: (base.copy("F"),)
    ours.check = (
        (lambda c: probe(lower_product(c), a, n))
        if potrf
        else (lambda r: probe(lu_product(*r), a, n))
    )
    ours.peer = theirs
    ours.peer_prepare = lambda: (best,)
    ours.peer_name = f"dask.array chunk={best}"
    return ours


def mkl_worker(who: str, n: int) -> None:
    """In a process of its own: seconds of one factorisation by MKL, ours or its own dpotrf."""
    a = spd(n)
    if who == "ours":
        for _ in range(2):
            b = a.copy("F")
            seconds, _ = timed(tiled_potrf, (b,))
        print(seconds, probe(lower_product(b), a, n))
        return
    import ctypes
    from importlib.metadata import files

    runtime = next(file for file in files("mkl") or [] if "mkl_rt." in file.name)
    dpotrf = ctypes.CDLL(str(runtime.locate())).dpotrf_
    order, info, uplo = ctypes.c_int(n), ctypes.c_int(), ctypes.c_char(b"L")
    at = ctypes.byref
    for _ in range(2):
        b = a.copy("F")
        address = ctypes.c_void_p(b.ctypes.data)
        seconds, _ = timed(dpotrf, (at(uplo), at(order), address, at(order), at(info)))
    if info.value:
        raise SystemExit(f"MKL's dpotrf: info = {info.value}")
    print(seconds, 0.0)


def mkl_case(n: int, target: float) -> Case:
    """Potrf by MKL's kernels against MKL's own dpotrf, in alternating processes."""
    import os

    def run(who: str) -> tuple[float, float]:
        environment = dict(os.environ, MKL_NUM_THREADS="2")
        environment |= {"TASKLA_BLAS": "mkl"} if who == "ours" else {"MKL_THREADING_LAYER": "INTEL"}
        out = subprocess.run(
            [sys.executable, __file__, "--mkl-worker", who, "-n", str(n)],
            env=environment,
            capture_output=True,
            text=True,
            timeout=600,
            check=True,
        )
        seconds, residual = map(float, out.stdout.split())
        return seconds, residual

    return Case(f"dpotrf-{n}-mkl", n**3 / 3, target, tuple, lambda: run("ours"), lambda: run("mkl"),
                lambda r: r[1], "MKL's dpotrf")  # fmt: skip


def compare_processes(case: Case, rounds: int) -> bool:
    """As `compare`, for cases whose runs time themselves in processes of their own."""
    ours, peers, worst = [], [], 0.0
    for _ in range(rounds):
        seconds, residual = case.ours()
        worst = max(worst, residual)
        ours.append(seconds)
        peers.append(case.peer()[0])
    mine, theirs = statistics.median(ours), statistics.median(peers)
    ratio = theirs / mine
    print(
        f"{case.name:24} ours {mine:7.3f} s {case.flops / mine / 1e9:6.1f} Gflop/s   "
        f"{case.peer_name:24} {theirs:7.3f} s {case.flops / theirs / 1e9:6.1f} Gflop/s   "
        f"ratio {ratio:5.2f} asked {case.target:4.2f} "
        f"{'reached' if ratio >= case.target else 'NOT reached'}   residual {worst:.2g}",
        flush=True,
    )
    return worst < LIMIT and ratio >= case.target


#: name -> how to make the case; made only when it is run, for the memory
CASES: dict[str, Callable[[], Case]] = {
    "cholesky-2048": lambda: cholesky_case(2048, 1.2),
    "cholesky-4096": lambda: cholesky_case(4096, 1.35),
    "cholesky-8192": lambda: cholesky_case(8192, 1.2),
    "dpotrf-4096": lambda: potrf_case(4096, 1.3),
    "dpotrf-8192": lambda: potrf_case(8192, 1.2),
    "spotrf-8192": lambda: potrf_case(8192, 1.0, "float32"),
    "dpotrf-8192-dgemm": lambda: dgemm_case(8192, 0.9),
    "lu_factor-4096": lambda: lu_factor_case(4096, 1.2),
    "lu_factor-8192": lambda: lu_factor_case(8192, 1.2),
    "dgetrf-4096": lambda: getrf_case(4096, 1.0),
    "dgetrf-8192": lambda: getrf_case(8192, 1.1),
    "matmul-4096": lambda: matmul_case(4096, 0.95),
    "symm-4096": lambda: symm_case(4096, 0.95),
    "dpotrf-8192-mkl": lambda: mkl_case(8192, 0.85),
    "dpotrf-8192-dask": lambda: dask_case("potrf", 8192, 1.8),
    "dgetrf-8192-dask": lambda: dask_case("getrf", 8192, 1.8),
}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="rounds after the warm-up")
    parser.add_argument("--only", default="", help="names that contain one of these, by commas")
    parser.add_argument("--mkl-worker", choices=["ours", "mkl"], help=argparse.SUPPRESS)
    parser.add_argument("-n", type=int, default=8192, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.mkl_worker:
        mkl_worker(arguments.mkl_worker, arguments.n)
        return
    chosen = [name for name in CASES if any(t in name for t in arguments.only.split(","))]
    if not chosen:
        parser.error(f"--only: no such case; there are {', '.join(CASES)}")
    missed = []
    for name in chosen:
        case = CASES[name]()
        run = compare_processes if name.endswith("-mkl") else compare
        if not run(case, arguments.rounds):
            missed.append(name)
        del case
    print("all reached" if not missed else f"not reached: {', '.join(missed)}")


if __name__ == "__main__":
    main()
