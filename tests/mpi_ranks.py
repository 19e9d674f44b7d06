"""Programs that `test_engine_mpi` runs on real ranks: ``mpirun -n P python mpi_ranks.py NAME``."""

from __future__ import annotations

import json
import os
import signal
import sys
from typing import Any

import numpy as np
from mpi4py import MPI

import taskla as tla
from taskla.distributions import Distribution, get
from taskla.plan import plan
from taskla.routines import ROUTINES, problem

COMM = MPI.COMM_WORLD
DISTRIBUTIONS = {
    2: ["2dbc", "row", "col", "sbc-basic", "g2dbc", "gcrm"],
    3: ["2dbc", "row", "sbc", "g2dbc", "gcrm"],
    4: ["2dbc", "row", "gcrm"],
    6: ["2dbc", "sbc", "tbc", "gcrm"],
}
# n, nb: nothing, less than a tile, one, remainders, fewer tiles than ranks
SIZES = [(0, 4), (1, 4), (7, 8), (16, 8), (17, 8), (61, 8)]
OPERATIONS = {
    **{"potrf": {}, "potrs": {"nrhs": 5}, "posv": {"nrhs": 11}, "potri": {}, "trtri": {}},
    **{"lauum": {}, "getrf": {"pivot": "none"}, "syrk": {"k": 21}, "herk": {"k": 9}},
    **{"gemm": {"m": 33, "k": 18}, "symm": {"m": 29}, "hemm": {"m": 29, "side": "R"}},
    **{"trsm": {"m": 26}, "trmm": {"m": 26, "side": "R"}},
}


def report(**found: Any) -> None:
    """Print one JSON object, on rank 0."""
    if COMM.rank == 0:
        print(json.dumps(found), flush=True)


def run(op: str, n: int, nb: int, dtype: str, distributed: bool, **options: Any) -> list[Any]:
    """Matrices that an operation works on, after it did, gathered; the same random ones always."""
    from taskla.cli.generate import matrices

    p = problem(op, n, nb, dtype, **options)
    engine = tla.engines.current()
    operands = matrices(p, 3, engine)
    given = p.routine.prepare(p, operands) if p.routine.prepare else None
    sent = getattr(engine, "messages", 0)
    p.routine.call(p, operands, given)
    results = [matrix.to_array() for matrix in operands]
    return [getattr(engine, "messages", 0) - sent, *results] if distributed else results


def algorithms() -> None:
    """Every algorithm, type, distribution and size gives what one process gives."""
    checked = 0
    for name in DISTRIBUTIONS[COMM.size]:
        map_ = get(name, COMM.size)
        with tla.engine("mpi", distribution=map_, workers=2, window=4000) as engine:
            for op, options in OPERATIONS.items():
                for n, nb in SIZES:
                    for dtype in "dz" if n != 61 else "sdcz":
                        messages, *found = run(op, n, nb, dtype, True, **options)
                        with tla.engine("threads", workers=1):
                            expected = run(op, n, nb, dtype, False, **options)
                        for a, b in zip(found, expected, strict=True):
                            tolerance = 1e-3 if dtype in "sc" else 1e-9
                            np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)
                        total = COMM.allreduce(messages)
                        # the plan gives a matrix of one tile column a map of its own
                        if n == 61:
                            expect_messages(op, n, nb, dtype, map_, total, options)
                        checked += 1
            assert engine.ranks == COMM.size
    report(checked=checked)


def expect_messages(
    op: str, n: int, nb: int, dtype: str, map_: Distribution, total: int, options: dict[str, Any]
) -> None:
    from taskla.plan import graphs
    from taskla.volume import Volumes

    p = problem(op, n, nb, dtype, **options)
    planned = sum(Volumes(graph).under(map_).messages for graph in graphs(p))
    assert total == planned, (op, map_.name, total, planned)
    if all(operand.n > nb for operand in p.operands):
        (row,) = plan(op, n, dist=map_, nb=nb, dtype=dtype, **options)
        assert row.messages == planned
    assert op in ROUTINES


def matrices() -> None:
    """Distributed matrices: what is here, what is gathered, what is refused."""
    with tla.engine("mpi", distribution="row") as engine:
        A = tla.TiledMatrix.random((50, 70), nb=16, seed=5)
        a = A.to_array()
        L = tla.TiledMatrix.random((50, 50), nb=16, kind="hermitian", uplo="lower", dtype="c16")
        U = tla.TiledMatrix.from_array(L.to_array(fill="hermitian"), nb=16, uplo="upper")
        whole, mirrored = L.to_array(fill="hermitian"), U.to_array(fill="hermitian")
        copied = A.copy().to_array()
        held = sum(A.tile(i, j).array.nbytes for i, j in A.own_tiles())
        assert held == A.nbytes
        assert sum(COMM.allgather(A.nbytes)) == a.nbytes
        assert set(A.owner_map.ravel().tolist()) == set(range(min(COMM.size, 4)))
        elsewhere = next((i, 0) for i in range(A.mt) if A.owner_map[i, 0] != engine.rank)
        errors = []
        for refused in (
            lambda: A.tile(*elsewhere),
            lambda: A.save("x.npy"),
            lambda: tla.TiledMatrix.from_array(a, copy=False),
            lambda: tla.getrf(tla.TiledMatrix.random((40, 40), nb=8)),
            lambda: tla.lange("1", A),
            lambda: tla.cholesky(np.eye(2000)),
            lambda: tla.gemm(
                1.0, A, A, 0.0, tla.TiledMatrix.zeros((50, 50), nb=16), transb="T", stationary="A"
            ),
        ):
            try:
                refused()
            except (ValueError, IndexError) as error:
                errors.append(str(error))
    with tla.engine("threads", workers=1):
        B = tla.TiledMatrix.random((50, 70), nb=16, seed=5)
    np.testing.assert_array_equal(a, B.to_array())
    np.testing.assert_array_equal(copied, a)
    np.testing.assert_array_equal(whole, mirrored)
    report(errors=errors)


def indefinite() -> None:
    """A minor that is not positive definite is named on every rank, and life goes on."""
    with tla.engine("mpi", workers=2) as engine:
        for _ in range(3):
            A = tla.TiledMatrix.random((200, 200), nb=16, kind="spd", uplo="lower")
            if (6, 6) in A.own_tiles():
                A.tile(6, 6).array[3, 3] = -1e9
            try:
                tla.potrf(A)
            except np.linalg.LinAlgError as error:
                minors = COMM.allgather(error.minor)  # type: ignore[attr-defined]
                messages = COMM.allgather(str(error))
            else:
                raise AssertionError("no error")
            assert set(minors) == {100}, minors
            assert len(set(messages)) == 1
            B = tla.TiledMatrix.random((64, 64), nb=16, kind="spd", uplo="lower")
            b = B.to_array(fill="symmetric")
            tla.potrf(B)
            factor = B.to_array()
            np.testing.assert_allclose(factor @ factor.T, b, atol=1e-9)
    report(ranks=engine.ranks)


def broken() -> None:
    """An error where messages are attended to reaches all ranks, and none waits for ever."""
    from taskla.engines.mpi import RemoteError
    from taskla.engines.mpi_traffic import Traffic

    post = Traffic._post

    def fail(self: Traffic) -> bool:
        raise OSError("the network is down")

    with tla.engine("mpi", workers=2):
        A = tla.TiledMatrix.random((300, 300), nb=16, kind="spd", uplo="lower")
        if COMM.rank == 1:
            Traffic._post = fail  # type: ignore[method-assign]
        try:
            tla.potrf(A)
        except (OSError, RemoteError) as error:
            kinds = COMM.gather(type(error).__name__)
            words = COMM.gather(str(error))
        else:
            raise AssertionError("no error")
        Traffic._post = post  # type: ignore[method-assign]
        tla.potrf(tla.TiledMatrix.random((64, 64), nb=16, kind="spd", uplo="lower"))
    report(kinds=kinds, words=words)


def uncaught() -> None:
    """An exception that one rank does not catch ends all."""
    with tla.engine("mpi"):
        if COMM.rank == COMM.size - 1:
            raise ValueError("the first cause")
        tla.potrf(tla.TiledMatrix.random((4000, 4000), nb=100, kind="spd"))


def killed() -> None:
    """A rank that dies ends all."""
    with tla.engine("mpi"):
        A = tla.TiledMatrix.random((3000, 3000), nb=100, kind="spd")
        if COMM.rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        tla.potrf(A)


if __name__ == "__main__":
    globals()[sys.argv[1]]()
