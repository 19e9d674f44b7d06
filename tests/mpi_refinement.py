"""What `test_refinement` runs on real ranks: ``mpirun -n P python mpi_refinement.py``.

What one rank finds wrong ends all of them; rank 0 prints what was found.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from mpi4py import MPI

import taskla as tla

COMM = MPI.COMM_WORLD
NB = 8
N = 4 * NB + 5
U = 2.0**-53


def excess(a: Any, x: Any, b: Any) -> float:
    limit = np.abs(a).sum(axis=1).max() * np.abs(x).max(axis=0) * U * (np.sqrt(len(a)) + 1)
    return float((np.abs(b - a @ x).max(axis=0) / limit).max())


def main() -> None:
    rng = np.random.default_rng(0)
    tiled = tla.TiledMatrix.from_array
    found = []
    for dtype, precision in (("d", "fp32"), ("D", "fp32"), ("d", "bf16"), ("D", "fp16")):
        a = rng.standard_normal((N, N)).astype(dtype)
        if dtype == "D":
            a += 1j * rng.standard_normal((N, N))
        h = a @ a.conj().T + N * np.eye(N)
        h = (h + h.conj().T) / 2
        q, _ = np.linalg.qr(a)
        # singular values down to 1e-9, so that GMRES is needed
        ill = (q * 10.0 ** -np.linspace(0, 9, N)) @ q[::-1]
        b = a[:, :3].copy()
        how: dict[str, Any] = {"precision": precision, "full_output": True}
        for matrix in (a, ill) if (dtype, precision) == ("D", "fp32") else (a,):
            A, B = tiled(matrix, NB), tiled(b, NB)
            info = tla.gesv(A, B, precision=precision)
            assert excess(matrix, B.to_array(), b) <= 1
            assert (A.to_array() == matrix).all()
            found.append(info.solver)
        for stored, uplo in ((h, None), (np.tril(h), "lower")):
            B = tiled(b, NB)
            info = tla.posv(tiled(stored, NB, uplo), B, precision=precision)
            assert excess(h, B.to_array(), b) <= 1
            found.append(info.solver)
        for given, matrix in ((tiled(a, NB), a), (a, a), (h, h)):
            x, info = tla.solve(given, b, nb=NB, **how)
            assert excess(matrix, x, b) <= 1
            assert COMM.allreduce(x.tobytes() == COMM.bcast(x.tobytes()), MPI.LAND)
            found.append(info.solver)
        # not positive definite in low precision, nor in any
        try:
            tla.posv(tiled(-h, NB), tiled(b, NB), precision=precision)
        except np.linalg.LinAlgError as error:
            found.append(str(error)[:5])
    if COMM.rank == 0:
        print(json.dumps(found))


with tla.engine("mpi"):
    try:
        main()
    except BaseException:
        import traceback

        traceback.print_exc()
        COMM.Abort(1)
