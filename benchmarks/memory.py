"""Peak memory of an in-place Cholesky factorisation that stores one triangle.

The matrix is made tile by tile, factored in a process of its own, and the kernel says how much that
process held at most: at most 1.15 times the triangle's bytes plus 150 MB is asked for at n=16384.

    python benchmarks/memory.py [-n 16384] [--nb NB]
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import time

ALLOWED_FACTOR, ALLOWED_BYTES = 1.15, 150e6


def factor(n: int, nb: int | None) -> None:
    """Make, factor and check; print figures. Runs in a process of its own."""
    import numpy as np

    import taskla as tla
    from taskla.matrix_random import random_block

    A = tla.TiledMatrix.random((n, n), nb=nb, uplo="lower", kind="spd")
    start = time.perf_counter()
    tla.potrf(A)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    # A x against L (L^T x), A made again strip by strip
    x = np.random.default_rng(0).standard_normal(n)
    y, product = np.zeros(n), np.zeros(n)
    for transposed in (True, False):
        source, target = (x, y) if transposed else (y, product)
        for i, j in A.layout.tiles():
            rows, cols = A.rows(i), A.cols(j)
            tile = A.tile(i, j).array
            tile = np.tril(tile) if i == j else tile
            if transposed:
                target[cols] += tile.T @ source[rows]
            else:
                target[rows] += tile @ source[cols]
    every = np.arange(n)
    worst = norm = 0.0
    for i in range(A.mt):
        rows = every[A.rows(i)]
        block = random_block(0, rows, every, "float64", "spd", n)
        worst = max(worst, float(np.abs(block @ x - product[rows]).max()))
        norm = max(norm, float(np.abs(block).sum(axis=1).max()))
    residual = worst / (norm * np.abs(x).max() * n * 2.0**-53)
    allowed = ALLOWED_FACTOR * A.nbytes + ALLOWED_BYTES
    print(
        f"potrf n={n} nb={A.nb} triangle={A.nbytes / 1e6:.0f} MB peak={peak / 1e6:.0f} MB "
        f"allowed={allowed / 1e6:.0f} MB time={seconds:.2f} s "
        f"gflops={n**3 / 3 / seconds / 1e9:.1f} residual={residual:.2g}"
    )
    if peak > allowed or not residual < 60:
        raise SystemExit("NOT within what is allowed")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-n", type=int, default=16384)
    parser.add_argument("--nb", type=int)
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.inside:
        factor(arguments.n, arguments.nb)
        return
    # measured in a new process: the peak of a process never falls
    code = subprocess.run([sys.executable, *sys.argv, "--inside"], env=os.environ, check=False)
    raise SystemExit(code.returncode)


if __name__ == "__main__":
    main()
