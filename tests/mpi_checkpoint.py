"""Programs for `test_checkpoint_mpi`: ``mpirun python mpi_checkpoint.py NAME FOLDER [KILL N]``.

Without a folder (``-``) nothing is saved. With KILL and N the last rank kills itself: in piece N of
the graph named KILL, or in a checkpoint, see `test_checkpoint.kill_itself`.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

from mpi4py import MPI

import taskla as tla
from taskla.engines.mpi import MPIEngine

sys.path.insert(0, str(Path(__file__).parent))
from test_checkpoint import kill_itself

COMM = MPI.COMM_WORLD
N, NB = 150, 16


def spd(dtype: str, uplo: str | None = "lower") -> tla.TiledMatrix:
    return tla.TiledMatrix.random((N, N), NB, dtype, uplo, seed=1, kind="spd")


def potrf() -> list[Any]:
    A = spd("f8")
    tla.potrf(A)
    return [A.to_array()]


def everything() -> list[Any]:
    """Several runs, some of which go on with the results of others."""
    A, B = spd("c8", "upper"), tla.TiledMatrix.random((N, 20), NB, "c8", seed=5)
    tla.potrf(A)
    tla.potrs(A, B)
    G, T = (tla.TiledMatrix.random((N + 13, N), NB, dtype, seed=2) for dtype in ("f8", "c16"))
    pivots = tla.getrf(G), tla.getrf(T, "tournament")
    # what is summed up across ranks
    C = tla.TiledMatrix.random((N, N), NB, "f4", seed=4)
    D = C.copy()
    tla.gemm(1.0, C, C, 0.5, D, stationary="A")
    return [*(matrix.to_array() for matrix in (A, B, G, T, D)), *pivots]


def other() -> list[Any]:
    """The Cholesky factorisation of a matrix that is another on the last rank alone."""
    A = spd("f8")
    if COMM.rank == COMM.size - 1:
        i, j = A.own_tiles()[-1]
        A.tile(i, j).array[-1, 0] += 1e-3
    tla.potrf(A)
    return [A.to_array()]


def kill_in_piece(name: str, number: int) -> None:
    """Have this process end with SIGKILL at its first task in a piece of a graph."""
    run, left = MPIEngine._run, number

    def counted(self: MPIEngine, graph: Any, matrices: Any) -> None:
        nonlocal left
        left -= graph.name == name
        if not left and graph.name == name:
            kill_itself("task", 1)
        run(self, graph, matrices)

    MPIEngine._run = counted  # type: ignore[method-assign]


def main(program: str, folder: str, kill: str = "", number: str = "0") -> None:
    options = {} if folder == "-" else {"checkpoint": folder, "checkpoint_every": 3}
    if kill and COMM.rank == COMM.size - 1:
        if kill in ("tile", "file"):
            kill_itself(kill, int(number))
        else:
            kill_in_piece(kill, int(number))
    with tla.engine("mpi", workers=1, distribution="2dbc", **options):
        try:
            found = globals()[program]()
        except (ValueError, RuntimeError) as error:
            words = COMM.gather(f"{type(error).__name__}: {error}")
            if COMM.rank == 0:
                print(json.dumps(words))
            return
    digests = COMM.gather([hashlib.sha256(a.tobytes()).hexdigest() for a in found])
    if COMM.rank == 0:
        assert all(digest == digests[0] for digest in digests)
        print(json.dumps(digests[0]))


if __name__ == "__main__":
    main(*sys.argv[1:])
