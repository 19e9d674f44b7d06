"""What a lower precision saves on the threads of one machine, and what it costs in accuracy.

`cholesky`: `tla.cholesky` and `tla.potrf` of a Matern covariance (nu = 1/2, beta = .03, points of a
grid along a Morton curve) in mixed precision, against `scipy.linalg.cholesky` in fp64,
in turn in one process; `tla.cholesky` in fp64 is timed beside them. Every factor is checked in the
same run: `|A - L L'|_F <= 3 tol |A|_F`, by random vectors.

`solve`: `tla.solve` with factors in fp32, refined to fp64, against `scipy.linalg.solve` in fp64, in
turn in one process, a warm-up and then `--rounds` rounds: medians, their ratio (above 1: we are
faster) and the ratio asked for. `tla.solve` in fp64 is timed beside them, and every solution is
checked by the rule by which LAPACK's dsgesv stops.

    python benchmarks/precision.py                # n=8192, some minutes
    python benchmarks/precision.py --n 4096 --rounds 3 --only cholesky
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import scipy.linalg as sl
from threadpoolctl import threadpool_info

import taskla as tla
from taskla import kernels

Array = Any
Solve = Callable[[Array, Array], Array]


def blas_threads() -> str:
    """Threads of each BLAS loaded, as it says itself."""
    found = {
        f"{Path(info['filepath']).name.split('-')[0]}={info['num_threads']}"
        for info in threadpool_info()
        if info["user_api"] == "blas"
    }
    return ",".join(sorted(found))


def residual(a: Array, x: Array, b: Array) -> float:
    """``|b - A x| / (|A| |x| sqrt(n) u)`` in the infinity norm; at most 1 where dsgesv stops."""
    norm = np.abs(a).sum(axis=1).max()
    u = np.finfo(a.dtype).eps / 2
    return float(np.abs(b - a @ x).max() / (norm * np.abs(x).max() * np.sqrt(len(a)) * u))


def compare(
    name: str, flops: float, a: Array, b: Array, ways: dict[str, Solve], rounds: int
) -> bool:
    """Time all ways in turn and print a line for each; the last one is the peer."""
    times: dict[str, list[float]] = {way: [] for way in ways}
    worst = dict.fromkeys(ways, 0.0)
    for round_ in range(rounds + 1):
        for way, solve in ways.items():
            begin = time.perf_counter()
            x = solve(a, b)
            seconds = time.perf_counter() - begin
            worst[way] = max(worst[way], residual(a, x, b))
            if round_:
                times[way].append(seconds)
    *ours, peer = ways
    for way, seconds in times.items():
        median = statistics.median(seconds)
        pairs = sorted(p / s for p, s in zip(times[peer], seconds, strict=True))
        ratio = statistics.median(times[peer]) / median
        print(
            f"{name:16} {way:28} {median:7.3f} s {flops / median / 1e9:7.1f} Gflop/s   "
            f"ratio {ratio:5.2f} [{pairs[0]:.2f}, {pairs[-1]:.2f}]   residual {worst[way]:.2g}",
            flush=True,
        )
    print(f"{name:16} threads of BLAS: {blas_threads()}")
    return worst[ours[0]] <= 1


def solve_case(n: int, definite: bool, rounds: int) -> bool:
    """fp32 factors refined to fp64 against SciPy's fp64, asked for: 1.5 times as fast."""
    a = np.random.default_rng(n).standard_normal((n, n))
    options: dict[str, Any] = {}
    if definite:
        a = a @ a.T / n + np.eye(n)
        options = {"assume_a": "pos"}
    b = a @ np.random.default_rng(1).standard_normal(n)

    def refined(a: Array, b: Array) -> Array:
        x, info = tla.solve(a, b, precision="fp32", full_output=True, **options)
        solvers.add(f"{info.solver}, {info.iterations} iterations {info.reason}".strip())
        return x

    solvers: set[str] = set()
    ways: dict[str, Solve] = {
        "tla.solve fp32 to fp64": refined,
        "tla.solve fp64": lambda a, b: tla.solve(a, b, **options),
        "scipy.linalg.solve": lambda a, b: sl.solve(a, b, **options),
    }
    name = f"solve{'-pos' * definite}-{n}"
    good = compare(name, (1 if definite else 2) / 3 * n**3, a, b, ways, rounds)
    print(f"{name:16} refined by {'; '.join(sorted(solvers))}; asked for: ratio 1.50")
    return good


def matern(n: int) -> Array:
    """exp(-h / .03) for the first n points of a square grid in Z-order."""
    side = 1 << int(np.ceil(np.log2(n) / 2))
    bits = np.arange(16)[:, None]
    number = np.arange(n)
    x, y = ((((number >> (2 * bits + s)) & 1) << bits).sum(axis=0) for s in (0, 1))
    points = (np.stack([x, y], axis=1) + 0.5) / side
    a = np.empty((n, n))
    for start in range(0, n, 256):
        rows = slice(start, start + 256)
        h = np.sqrt(((points[rows, None] - points[None]) ** 2).sum(axis=-1))
        a[rows] = np.exp(-h / 0.03)
    return a


def backward_error(a: Array, factor: Array) -> float:
    """Estimate of ``|A - L L'|_F / |A|_F`` by random vectors."""
    x = np.random.default_rng(0).standard_normal((len(a), 16))
    return float(np.linalg.norm(a @ x - factor @ (factor.T @ x)) / 4 / np.linalg.norm(a))


def cholesky_case(n: int, tol: float, formats: tuple[str, ...], target: float, rounds: int) -> bool:
    """A tolerance against SciPy's fp64: arrays in and out, and tiled matrices in place."""
    a = matern(n)
    precision = tla.PrecisionMap("adaptive", tol=tol, formats=formats)
    tiled = tla.TiledMatrix.from_array(a, uplo="lower", precision=precision)
    ways: dict[str, Callable[[], tuple[float, Array]]] = {
        "tla.potrf mixed": lambda: timed(lambda A: tla.potrf(A), tiled.copy()),
        "tla.cholesky mixed": lambda: timed(
            lambda x: tla.cholesky(x, lower=True, precision=precision), a
        ),
        "tla.cholesky fp64": lambda: timed(lambda x: tla.cholesky(x, lower=True), a),
        "scipy.linalg.cholesky": lambda: timed(lambda x: sl.cholesky(x, lower=True), a),
    }
    times: dict[str, list[float]] = {way: [] for way in ways}
    worst = dict.fromkeys(ways, 0.0)
    for round_ in range(rounds + 1):
        for way, run in ways.items():
            seconds, factor = run()
            worst[way] = max(worst[way], backward_error(a, np.asarray(factor)))
            del factor
            if round_:
                times[way].append(seconds)
    name = f"cholesky-{n}-{tol:g}-{formats[-1]}"
    peer = statistics.median(times["scipy.linalg.cholesky"])
    for way, seconds in times.items():
        median = statistics.median(seconds)
        print(
            f"{name:24} {way:22} {median:7.3f} s {n**3 / 3 / median / 1e9:7.1f} Gflop/s   "
            f"ratio {peer / median:5.2f}   error {worst[way]:.2g}",
            flush=True,
        )
    count = dict(zip(*np.unique(lower(tiled.format_map), return_counts=True), strict=True))
    tiles = ", ".join(f"{count[f]} in {f}" for f in formats if f in count)
    full = tiled.layout.entries * 8
    print(
        f"{name:24} tiles {tiles}; {tiled.nbytes / full:.2f} of the bytes of fp64; bf16 "
        f"{kernels.product_facts()['bf16']}; asked for: ratio {target:.2f}"
    )
    return all(worst[way] <= 3 * tol for way in ways)


def lower(formats: Array) -> Array:
    """The formats of the tiles of the lower triangle."""
    return formats[np.tril_indices(len(formats))]


def timed(function: Callable[[Any], Any], argument: Any) -> tuple[float, Any]:
    """Seconds, and the result."""
    begin = time.perf_counter()
    result = function(argument)
    return time.perf_counter() - begin, result


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n", type=int, default=8192, help="order of the matrices")
    parser.add_argument("--rounds", type=int, default=5, help="rounds after the warm-up")
    parser.add_argument("--only", choices=("cholesky", "solve"), help="one of the two")
    arguments = parser.parse_args()
    n, rounds, good = arguments.n, arguments.rounds, []
    if arguments.only != "solve":
        good += [
            # 1e-4 with products in bf16, which some processors make several times as fast
            cholesky_case(n, 1e-4, ("fp64", "fp32", "bf16"), 2.5, rounds),
            cholesky_case(n, 1e-6, ("fp64", "fp32"), 1.5, rounds),
            # smaller, and where 16 bits are emulated not faster
            cholesky_case(n, 1e-6, ("fp64", "fp32", "fp16"), 1.5, rounds),
        ]
    if arguments.only != "cholesky":
        good += [solve_case(n, definite, rounds) for definite in (False, True)]
    if not all(good):
        raise SystemExit("WRONG: a result is not as accurate as it is to be")


if __name__ == "__main__":
    main()
