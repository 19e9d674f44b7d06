"""Programs that `test_mpi_trace` runs on ranks: ``mpirun -n P python mpi_traces.py NAME FILE``."""

from __future__ import annotations

import json
import sys
import time
from typing import Any

if sys.argv[1] == "skewed":
    # before anything of taskla has looked at the clock: those of two ranks have nothing in common
    from mpi4py import MPI as _MPI

    _real, _rank = time.perf_counter, _MPI.COMM_WORLD.rank
    time.perf_counter = lambda: (1 + 1e-3 * _rank) * _real() + 1000 * _rank

import numpy as np
from mpi4py import MPI

import taskla as tla
from taskla.distributions import get
from taskla.energy import Meter, Source
from taskla.engines import mpi_clocks, mpi_journal
from taskla.traces import Recorder

COMM = MPI.COMM_WORLD


def report(engine: Any, **found: Any) -> None:
    """Print what the ranks have sent in all, and more, on rank 0."""
    sent = COMM.allreduce(engine.messages + engine.pivot_messages)
    nbytes = COMM.allreduce(engine.bytes_sent)
    if COMM.rank == 0:
        print(json.dumps({"messages": sent, "bytes": nbytes, **found}), flush=True)


def spd(n: int, nb: int) -> tla.TiledMatrix:
    return tla.TiledMatrix.random((n, n), nb=nb, kind="spd", uplo="lower")


def several(file: str) -> None:
    """Several algorithms, one of them repeated."""
    with tla.engine("mpi", workers=2, trace=file, energy="model", window=4000) as engine:
        A, B, C = spd(200, 16), spd(200, 16), tla.TiledMatrix.random((200, 90), nb=16)
        tla.potrf(A)
        tla.potrf(B)
        tla.potrs(A, C)
        tla.getrf(tla.TiledMatrix.random((150, 150), nb=16))
        F, G = (tla.TiledMatrix.random((100, 100), nb=16, seed=seed) for seed in (1, 2))
        tla.gemm(1.0, F, F, 1.0, G, stationary="A")
        owners = A.owner_map
    report(engine, owners=np.asarray(owners).tolist())


def maps(file: str) -> None:
    """The same program under two distributions, its tasks unfused: other ranks, other messages."""
    with tla.engine("mpi", workers=1, fuse=1, trace=file) as engine:
        for name in ("row", "col"):
            map_ = get(name, COMM.size)
            A = tla.TiledMatrix.random((96, 96), nb=16, kind="spd", uplo="lower", distribution=map_)
            tla.trtri(A)
    report(engine)


def few(file: str) -> None:
    """More ranks than tiles, and nothing at all."""
    with tla.engine("mpi", workers=2, distribution="row", trace=file) as engine:
        tla.potrf(spd(30, 16))
        tla.potrf(spd(0, 16))
        tla.potrf(spd(9, 16))
    report(engine)


def indefinite(file: str) -> None:
    """A run that fails on one rank, and one after it; then all ranks leave by an exception."""
    failed = False
    try:
        with tla.engine("mpi", workers=2, trace=file) as engine:
            A = spd(200, 16)
            if (6, 6) in A.own_tiles():
                A.tile(6, 6).array[3, 3] = -1e9
            try:
                tla.potrf(A)
            except np.linalg.LinAlgError:
                failed = True
            tla.potrf(spd(64, 16))
            raise KeyError("all of them")
    except KeyError:
        report(engine, failed=COMM.allreduce(int(failed)))


def alone(file: str) -> None:
    """One rank leaves by an exception of its own."""
    with tla.engine("mpi", trace=file):
        tla.potrf(spd(64, 16))
        if COMM.rank == 1:
            raise ValueError("the first cause")
        tla.potrf(spd(64, 16))


def unwritable(file: str) -> None:
    """All ranks hear that no file can be written, and that joules need a trace."""
    words = []
    for options in ({"trace": f"{file}/no/such.trace"}, {"energy": "model"}):
        try:
            tla.engine("mpi", **options)
        except (OSError, ValueError) as error:
            words.append(type(error).__name__)
    everywhere = COMM.gather(words)
    if COMM.rank == 0:
        print(json.dumps(everywhere))


def default(file: str) -> None:
    """A default engine writes its trace when Python ends."""
    engine = tla.engine("mpi", workers=1, trace=file)
    engine.set_default()
    tla.potrf(spd(64, 16))
    report(engine)


class Counter(Meter):
    """A meter that has counted 5 J more at each reading."""

    joules = 0.0

    def read(self) -> float:
        self.joules += 5.0
        return self.joules


def metered(file: str) -> None:
    """Meters of the machine, and a recorder of one's own."""
    recorder = Recorder(file) if COMM.rank == 0 else Recorder()
    recorder.context["parameters"] = {"op": "potrf"}
    meter = Counter("package-0", "package")
    engine = tla.engine("mpi", workers=1).recorded(recorder, Source((meter,), None))
    with engine:
        tla.potrf(spd(64, 16))
    readings = COMM.gather(meter.joules)
    report(engine, readings=readings, recordings=len(recorder.recordings))


def skewed(file: str) -> None:
    """Clocks that differ by minutes and run at different speeds."""
    now = time.perf_counter
    (offset,) = mpi_clocks.measure(COMM)[1:2] or [None]
    # rank 0 asks what the other clock reads now, in the same way as it was measured
    truth = 0.0
    if offset is not None:
        truth = (1 + 1e-3) * offset.at + 1000 - offset.at
    mpi_journal.AGAIN = mpi_journal.TIMES = 0
    with tla.engine("mpi", workers=1, trace=file) as engine:
        for _ in range(3):
            tla.potrf(spd(300, 16))
    off = None if offset is None else [offset.seconds, offset.error, truth, now()]
    report(engine, off=off)


if __name__ == "__main__":
    globals()[sys.argv[1]](sys.argv[2])
