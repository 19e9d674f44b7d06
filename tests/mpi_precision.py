"""The program of `test_mixed_precision` on ranks: factors and products of tiles of many formats."""

from __future__ import annotations

import json

import numpy as np
from matern import covariance, morton_grid

import taskla as tla

N, NB = 1024, 64


def main() -> None:
    """Print errors and shares of bytes, on rank 0."""
    f = covariance(morton_grid(32), 0.03)
    at = np.arange(N)
    a = f(at, at)
    cholesky, others = {}, {}
    with tla.engine("mpi", workers=1) as engine:
        for uplo in ("lower", "upper"):
            full = tla.TiledMatrix.from_function(f, (N, N), NB, uplo=uplo)
            before = engine.bytes_sent
            tla.potrf(full)
            wide = engine.bytes_sent - before
            for tol in (1e-4, 1e-6):
                rule = f"adaptive:{tol}"
                A = tla.TiledMatrix.from_function(f, (N, N), NB, uplo=uplo, precision=rule)
                before = engine.bytes_sent
                tla.potrf(A)
                share = (engine.bytes_sent - before) / wide
                factor = A.to_array()
                made = factor @ factor.T if uplo == "lower" else factor.T @ factor
                cholesky[f"{uplo} {tol}"] = [error(made, a), tol, share]
                B = tla.TiledMatrix.from_array(np.ones((N, 3)), NB)
                tla.potrs(A, B)
                x = B.to_array()
                others[f"potrs {uplo} {tol}"] = [
                    float(np.abs(a @ x - 1).max() / (np.abs(x).max() * np.linalg.norm(a, np.inf))),
                    tol,
                ]
        g = np.random.default_rng(0).normal(size=(N, N)) + np.diag(np.full(N, 90.0))
        for pivot in ("partial", "tournament", "none"):
            A = tla.TiledMatrix.from_array(g, NB, precision="fp32:4,fp16:rest")
            piv = tla.getrf(A, pivot)
            order = np.arange(N)
            for i, k in enumerate(piv):
                order[[i, k]] = order[[k, i]]
            lu = A.to_array()
            made = (np.tril(lu, -1) + np.eye(N)) @ np.triu(lu)
            others[f"getrf {pivot}"] = [error(made, g[order]), 2.0**-11]
            # what is amid its updates travels as it is: rounded, more than a few numbers would
            # be off by a unit of fp16
            with tla.engine("threads", workers=1):
                B = tla.TiledMatrix.from_array(g, NB, precision="fp32:4,fp16:rest")
                alone = tla.getrf(B, pivot)
                assert (alone == piv).all()
                others[f"getrf {pivot} as on threads"] = [error(lu, B.to_array()), 1e-5]
        X, C = tla.TiledMatrix.from_array(g, NB), tla.TiledMatrix.zeros((N, N), NB)
        tla.gemm(1.0, X, X, 0.0, C, precision="adaptive:1e-4")
        others["gemm"] = [
            float(np.linalg.norm(C.to_array() - g @ g) / np.linalg.norm(g) ** 2),
            1e-4,
        ]
    if engine.rank == 0:
        print(json.dumps({"cholesky": cholesky, "others": others}))


def error(made: np.ndarray, a: np.ndarray) -> float:
    """``||made - a||_F / ||a||_F``."""
    return float(np.linalg.norm(made - a) / np.linalg.norm(a))


if __name__ == "__main__":
    main()
