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
OPERATIONS: list[tuple[str, dict[str, Any]]] = [
    *[("potrf", {}), ("potrs", {"nrhs": 5}), ("posv", {"nrhs": 11}), ("potri", {}), ("trtri", {})],
    *[("lauum", {}), ("syrk", {"k": 21}), ("herk", {"k": 9})],
    *[("gemm", {"m": 33, "k": 18, "stationary": matrix}) for matrix in "ABC"],
    *[("symm", {"m": 29}), ("hemm", {"m": 29, "side": "R"})],
    *[("trsm", {"m": 26}), ("trmm", {"m": 26, "side": "R"})],
    *[("getrf", {"pivot": pivot}) for pivot in ("none", "partial", "tournament")],
    *[("getrf", {"m": 75}), ("getrs", {"nrhs": 11, "trans": "T"}), ("gesv", {"nrhs": 5})],
]


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
    sent = _sent(engine)
    outcome = p.routine.call(p, operands, given)
    results = [matrix.to_array() for matrix in operands]
    if isinstance(outcome, np.ndarray):
        # pivots
        results.append(outcome)
    return [_sent(engine) - sent, *results] if distributed else results


def _sent(engine: Any) -> Any:
    """Messages of this rank so far, and those of pivoting."""
    return np.array([getattr(engine, name, 0) for name in ("messages", "pivot_messages")])


def algorithms() -> None:
    """Every algorithm, type, distribution and size gives what one process gives."""
    checked = 0
    for number, name in enumerate(DISTRIBUTIONS[COMM.size]):
        map_ = get(name, COMM.size)
        # in turn as on one machine, and as on many
        how: dict[str, Any] = {"workers": 2, "window": 4000, "shared_memory": number % 2 == 0}
        with tla.engine("mpi", distribution=map_, **how) as engine:
            for op, options in OPERATIONS:
                for n, nb in SIZES if COMM.size < 4 else SIZES[-2:]:
                    for dtype in "d" if n != 61 else "sdcz" if COMM.size < 4 else "sz":
                        messages, *found = run(op, n, nb, dtype, True, **options)
                        with tla.engine("threads", workers=1):
                            expected = run(op, n, nb, dtype, False, **options)
                        for a, b in zip(found, expected, strict=True):
                            tolerance = 1e-3 if dtype in "sc" else 1e-9
                            np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)
                        total = COMM.allreduce(messages).tolist()
                        # the plan gives a matrix of one tile column a map of its own
                        if n == 61:
                            expect_messages(op, n, nb, dtype, map_, total, options)
                        checked += 1
            assert engine.ranks == COMM.size
    report(checked=checked)


def expect_messages(
    op: str,
    n: int,
    nb: int,
    dtype: str,
    map_: Distribution,
    total: list[int],
    options: dict[str, Any],
) -> None:
    from taskla.plan import graphs
    from taskla.volume import Volumes

    p = problem(op, n, nb, dtype, **options)
    volumes = [Volumes(graph).under(map_) for graph in graphs(p, map_.slices)]
    planned = [sum(v.messages for v in volumes), sum(v.pivot_messages for v in volumes)]
    assert total == planned, (op, map_.name, total, planned)
    if all(operand.n > nb for operand in p.operands):
        (row,) = plan(op, n, dist=map_, nb=nb, dtype=dtype, **options)
        assert [row.messages, row.pivot_messages] == planned
    assert op in ROUTINES


def sliced() -> None:
    """2.5D distributions of Cholesky: right, as planned, and the same bits each time."""
    maps = ["2.5d-2dbc", *(["2.5d-sbc"] if COMM.size == 4 else [])]
    for name in maps:
        map_ = get(name, COMM.size, slices=2)
        for dtype in "sdcz":
            for uplo in "LU":
                factors = []
                for policy in ("lws", "eager"):
                    with tla.engine("mpi", distribution=map_, workers=2, policy=policy):
                        messages, factor = run("potrf", 61, 8, dtype, True, uplo=uplo)
                        factors.append(factor)
                    total = COMM.allreduce(messages).tolist()
                    expect_messages("potrf", 61, 8, dtype, map_, total, {})
                np.testing.assert_array_equal(*factors)
                with tla.engine("threads", workers=1):
                    (expected,) = run("potrf", 61, 8, dtype, False, uplo=uplo)
                np.testing.assert_allclose(factors[0], expected, rtol=1e-3, atol=1e-3)
    report(maps=maps)


def shared() -> None:
    """Ranks of one machine read final tiles in place, and memory goes when matrices go."""
    files = os.listdir("/proc/self/fd")
    with tla.engine("mpi", distribution="row", workers=1) as engine:
        travelled = []
        isend = type(engine._comm).Isend  # type: ignore[attr-defined]

        class Counting:
            """The communicator, with a note of what is sent."""

            def __init__(self, comm: Any) -> None:
                self._comm = comm

            def __getattr__(self, name: str) -> Any:
                return getattr(self._comm, name)

            def Isend(self, buffer: Any, *where: int) -> Any:
                travelled.append(buffer.nbytes)
                return isend(self._comm, buffer, *where)

        engine._comm = Counting(engine._comm)  # type: ignore[attr-defined]
        for _ in range(3):
            A = tla.TiledMatrix.random((61, 61), nb=8, kind="spd", uplo="lower")
            a = A.to_array(fill="symmetric")
            travelled.clear()
            tla.potrf(A)
            # each tile of the factor is final once it is sent
            in_place = not any(travelled)
            factor = A.to_array()
            np.testing.assert_allclose(factor @ factor.T, a, atol=1e-9)
        sent = engine.bytes_sent  # type: ignore[attr-defined]
        assert engine.peak_received == 0  # type: ignore[attr-defined]
        del A
        # potri overwrites what it has sent: those tiles travel
        B = tla.TiledMatrix.random((61, 61), nb=8, kind="spd", uplo="lower")
        tla.potrf(B)
        travelled.clear()
        tla.potri(B)
        some = sum(1 for nbytes in travelled if nbytes)
        received = COMM.allreduce(engine.peak_received)  # type: ignore[attr-defined]
        del B
    left = len(os.listdir("/proc/self/fd")) - len(files)
    report(
        in_place=all(COMM.allgather(in_place)),
        travelled=COMM.allreduce(some) > 0,
        received=0 < received <= 8 * 61 * 61 * COMM.size,
        bytes_sent=COMM.allreduce(sent) > 0,
        # MPI has some of its own
        files=max(COMM.allgather(left)) < 20,
    )


def norms() -> None:
    """Norms are those of one process, the same on all ranks."""
    with tla.engine("mpi", distribution="2dbc"):
        for shape in ((61, 61), (5, 3), (0, 4), (33, 70)):
            for dtype in ("f4", "f8", "c8", "c16"):
                A = tla.TiledMatrix.random(shape, nb=8, dtype=dtype, seed=1)
                a = A.to_array()
                for norm, order in (("1", 1), ("I", np.inf), ("F", "fro"), ("M", None)):
                    value = tla.lange(norm, A)
                    if a.size:
                        expected = abs(a).max() if order is None else np.linalg.norm(a, order)
                        np.testing.assert_allclose(value, expected, rtol=1e-5)
                    assert len(set(COMM.allgather(value))) == 1
                if shape[0] == shape[1]:
                    S = tla.TiledMatrix.from_array(a, nb=8, uplo="upper")
                    for norm in "1IFM":
                        with tla.engine("threads", workers=1):
                            one = tla.TiledMatrix.from_array(a, nb=8, uplo="upper")
                            expected = [tla.lansy(norm, one), tla.lantr(norm, one)]
                        assert [tla.lansy(norm, S), tla.lantr(norm, S)] == expected
    report(ranks=COMM.size)


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
            lambda: tla.TiledMatrix.from_array(a, copy=False),
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


def mapped() -> None:
    """A function runs on one rank's workers; an error tells in which call. MPI may end before."""
    with tla.engine("mpi", workers=1) as engine:
        assert engine.map(divmod, [(7, 2), (9, 4)]) == [(3, 1), (2, 1)]
        try:
            engine.map(divmod, [(1, 1), (1, 0)])
        except ZeroDivisionError as error:
            notes = error.__notes__
        engine.share(None)
    report(notes=notes)
    MPI.Finalize()


def different() -> None:
    """Ranks that do not run the same are told so, all of them, and life goes on."""
    words = []
    with tla.engine("mpi", workers=1) as engine:
        odd = engine.rank == COMM.size - 1
        for n, nb, dtype, map_ in (
            (80 if odd else 90, 16, "f8", "2dbc"),
            (90, 16, "f4" if odd else "f8", "2dbc"),
            (90, 32 if odd else 16, "f8", "2dbc"),
            (90, 16, "f8", "row" if odd else "col"),
        ):
            A = tla.TiledMatrix.random((n, n), nb=nb, dtype=dtype, kind="spd", distribution=map_)
            try:
                tla.potrf(A)
            except ValueError as error:
                words.append(str(error))
        tla.potrf(tla.TiledMatrix.random((90, 90), nb=16, kind="spd"))
    report(words=words, alike=len(set(COMM.allgather(tuple(words)))) == 1)


def gone() -> None:
    """A rank that leaves while others wait for it lets them go on, by an error."""
    with tla.engine("mpi", workers=1) as engine:
        A = tla.TiledMatrix.random((90, 90), nb=16)
        tla.getrf(A)
        if sys.argv[2] == "exit" and engine.rank == 1:
            sys.exit(3)
        if sys.argv[2] == "run" and engine.rank != 1:
            tla.getrf(A)
        if sys.argv[2] != "run" and engine.rank != 1:
            A.to_array()


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
