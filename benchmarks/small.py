"""How long the functions on arrays take on one tile, as a multiple of SciPy's (or NumPy's) time.

    python benchmarks/small.py [n ...]

Each figure is the ratio of the medians of rounds in which the two alternate.
"""

import sys
from collections.abc import Callable, Iterator
from statistics import median
from time import perf_counter

import numpy as np
import scipy.linalg

import taskla.linalg
from taskla import kernels

ORDERS = (1, 16, 64, 256)
ROUNDS = 15
SECONDS = 0.004  # a round of one of them, at least


def calls(n: int) -> Iterator[tuple[str, Callable[[], object], Callable[[], object]]]:
    """Yield a name, our call and theirs, for matrices of order n."""
    rng = np.random.default_rng(n)
    a, b = rng.normal(size=(n, n)), rng.normal(size=(n, 2))
    spd = a @ a.T + n * np.eye(n)
    f = np.asfortranarray(a)

    def both(name: str, *arguments: object, **options: object) -> Iterator[Callable[[], object]]:
        for module in (taskla.linalg, scipy.linalg):
            function = getattr(module, name)
            yield lambda function=function: function(*arguments, **options)

    cho, lu = scipy.linalg.cho_factor(spd), scipy.linalg.lu_factor(a)
    yield "cholesky", *both("cholesky", spd, lower=True)
    yield "cho_factor", *both("cho_factor", spd)
    yield "cho_solve", *both("cho_solve", cho, b)
    yield "lu", *both("lu", a)
    yield "lu_factor", *both("lu_factor", a)
    yield "lu_solve", *both("lu_solve", lu, b)
    yield "solve", *both("solve", a, b)
    yield "solve pos", *both("solve", spd, b, assume_a="pos")
    yield "solve_triangular", *both("solve_triangular", spd, b, lower=True)
    yield "inv", *both("inv", a)
    yield "det", *both("det", a)
    yield "norm", *both("norm", a)
    yield "slogdet", lambda: taskla.linalg.slogdet(a), lambda: np.linalg.slogdet(a)
    yield "matmul", lambda: taskla.linalg.matmul(a, spd), lambda: np.matmul(a, spd)
    dsymm = scipy.linalg.blas.dsymm
    yield "symm", lambda: taskla.linalg.symm(spd, f), lambda: dsymm(1.0, spd.T, f, lower=False)


def ratio(ours: Callable[[], object], theirs: Callable[[], object]) -> float:
    """Return the ratio of the median times, alternating."""

    def seconds(call: Callable[[], object], repeats: int) -> float:
        start = perf_counter()
        for _ in range(repeats):
            call()
        return (perf_counter() - start) / repeats

    # The first calls load, bind and warm up.
    once = min(seconds(call, 1) for _ in range(3) for call in (ours, theirs))
    repeats = max(1, int(SECONDS / once))
    times = [(seconds(ours, repeats), seconds(theirs, repeats)) for _ in range(ROUNDS)]
    mine, reference = (median(column) for column in zip(*times, strict=True))
    return mine / reference


def main(orders: list[int]) -> None:
    names = [name for name, *_ in calls(1)]
    ratios: dict[str, list[float]] = {name: [] for name in names}
    threads = max(library["threads"] for library in kernels.blas_info())
    for n in orders:
        for name, ours, theirs in calls(n):
            ratios[name].append(ratio(ours, theirs))
    print(f"time as a multiple of SciPy's (slogdet, matmul: NumPy's); {threads} BLAS threads")
    print(f"{'n':18}" + "".join(f"{n:8}" for n in orders))
    for name in names:
        print(f"{name:18}" + "".join(f"{value:8.2f}" for value in ratios[name]))


if __name__ == "__main__":
    main([int(n) for n in sys.argv[1:]] or list(ORDERS))
