"""Programs that `test_mpi_matrices` runs: ``mpirun -n P python mpi_matrices.py NAME FOLDER``."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from mpi4py import MPI

import taskla as tla
from taskla import TiledMatrix, matrix_files, matrix_folder, matrix_saving
from taskla.distributions import get
from taskla.engines.mpi_collectives import MPICollectives, _Tiles
from taskla.precision import NAMES as FORMATS

COMM = MPI.COMM_WORLD
DTYPES = ["f4", "f8", "c8", "c16"]
UPLOS = [None, "lower", "upper"]
#: Shape and tile size: nothing, one tile, remainders, fewer tiles than ranks, many.
FULL = [
    ((0, 0), 4),
    ((0, 5), 4),
    ((5, 0), 4),
    ((3, 3), 8),
    ((8, 8), 8),
    ((9, 25), 8),
    ((37, 29), 8),
]
SQUARE = [((0, 0), 4), ((1, 1), 4), ((8, 8), 8), ((17, 17), 8), ((61, 61), 8)]
MAPS = {
    2: ["2dbc", "row", "sbc-basic", "g2dbc", "gcrm"],
    3: ["2dbc", "row", "col", "sbc", "gcrm"],
    4: ["2dbc", "row", "g2dbc", "gcrm", "2.5d-2dbc"],
    6: ["2dbc", "sbc", "tbc"],
}
NAMES = ["a.tiles", "a.npy", "a.mtx"]


def report(**found: Any) -> None:
    """Print one JSON object, on rank 0."""
    if COMM.rank == 0:
        print(json.dumps(found), flush=True)


def cases() -> Iterator[tuple[tuple[int, int], int, str, str | None]]:
    for uplo in UPLOS:
        for shape, nb in FULL if uplo is None else SQUARE:
            for dtype in DTYPES:
                yield shape, nb, dtype, uplo


def random(shape: tuple[int, int], nb: int, dtype: str, uplo: str | None) -> TiledMatrix:
    return TiledMatrix.random(shape, nb, dtype, uplo, seed=7)


def alone(shape: tuple[int, int], nb: int, dtype: str, uplo: str | None) -> TiledMatrix:
    """The same matrix, all of it here."""
    with tla.engine("threads", workers=1):
        return random(shape, nb, dtype, uplo)


def same(A: TiledMatrix, expected: np.ndarray) -> None:
    """Every tile that is here has the bits of an array, and the unused half of it is zero."""
    for i, j in A.own_tiles():
        part = np.asarray(expected[A.rows(i), A.cols(j)], order="F")
        assert A.tile(i, j).array.dtype == expected.dtype
        assert A.tile(i, j).array.tobytes("F") == part.tobytes("F"), (i, j)


def content(path: Path) -> dict[str, bytes]:
    """The bytes of a file, or of all files in a folder."""
    if not path.is_dir():
        return {"": path.read_bytes()}
    return {file.name: file.read_bytes() for file in path.iterdir()}


def saved_and_loaded(folder: Path) -> None:
    """What ranks write has the bytes of what one process writes; what they read, its entries."""
    checked = 0
    for shape, nb, dtype, uplo in list(cases())[COMM.size % 3 :: 3]:
        B = alone(shape, nb, dtype, uplo)
        b = B.to_array()
        for name in NAMES:
            with tla.engine("mpi", distribution=MAPS[COMM.size][checked % 4], window=3000):
                random(shape, nb, dtype, uplo).save(folder / name)
                COMM.Barrier()
                if COMM.rank == 0:
                    B.save(folder / f"alone-{name}")
                    assert content(folder / name) == content(folder / f"alone-{name}")
                    assert not [p for p in os.listdir(folder) if p.startswith(".")]
                COMM.Barrier()
                for size, map_ in ((None, None), (5, "row"), (100, "gcrm")):
                    A = TiledMatrix.load(
                        folder / name, size, mmap=checked % 2 == 0, uplo=uplo, distribution=map_
                    )
                    assert A.distribution is not None
                    assert A.distribution.name == (map_ or MAPS[COMM.size][checked % 4])
                    # text knows no precision
                    same(A.astype(b.dtype) if name == "a.mtx" else A, b)
                COMM.Barrier()
            checked += 1
    report(checked=checked)


def formats(folder: Path) -> None:
    """Tiles of many formats: the files of one process, and each rank has its own, bit for bit."""
    checked = 0
    for number, uplo in enumerate(UPLOS * 2):
        dtype, path = DTYPES[number % 4], folder / "a.tiles"
        names = np.random.default_rng(number).choice(FORMATS, (5, 5))
        whole = alone((37, 37), 8, dtype, uplo).to_array()
        with tla.engine("threads", workers=1):
            B = TiledMatrix.from_array(whole, 8, uplo, precision=names)
        with tla.engine("mpi", distribution="2dbc"):
            TiledMatrix.from_array(whole, 8, uplo, precision=names).save(path)
            COMM.Barrier()
            if COMM.rank == 0:
                B.save(folder / "alone")
                assert content(path) == content(folder / "alone")
            COMM.Barrier()
            A = TiledMatrix.load(path, distribution="row")
            np.testing.assert_array_equal(A.format_map, B.format_map)
            assert A.distribution is not None
            assert A.distribution.name == "row"
            assert COMM.allreduce(A.nbytes) == B.nbytes
            for i, j in A.own_tiles():
                assert A.packed(i, j).scale == B.packed(i, j).scale
                ours, theirs = A.packed(i, j).numbers, B.packed(i, j).numbers
                assert ours.tobytes("F") == theirs.tobytes("F")
            other = TiledMatrix.load(path, 5, distribution="row")
            assert other.mixed is None
            same(other, B.to_array())
            COMM.Barrier()
            checked += 1
    with tla.engine("mpi", distribution="row"):
        # of the last rank, none of the others looks at it
        i = COMM.size - 1
        file, held = path / f"tile_{i:04d}_{i:04d}.npy", np.zeros(9, np.uint8)
        if COMM.rank == 0:
            np.save(file, held)
        COMM.Barrier()
        damaged = words(lambda: TiledMatrix.load(path))
    report(checked=checked, damaged=damaged)


def another_machine(folder: Path) -> None:
    """Where ranks cannot map one file together, one writes it."""
    with mock.patch.object(matrix_saving, "open_memmap", counted := mock.Mock()):
        counted.side_effect = np.lib.format.open_memmap
        for uplo in UPLOS:
            with tla.engine("mpi", window=3000) as engine:
                engine._one_machine = False
                random((37, 37), 8, "c16", uplo).save(folder / "a.npy")
            if COMM.rank == 0:
                alone((37, 37), 8, "c16", uplo).save(folder / "b.npy")
                assert (folder / "a.npy").read_bytes() == (folder / "b.npy").read_bytes()
            COMM.Barrier()
    report(maps=COMM.gather(counted.call_count))


def left(folder: Path) -> None:
    """Matrices of all types and kinds, for others to read."""
    with tla.engine("mpi"):
        for dtype in DTYPES:
            for uplo in UPLOS:
                for name in ("tiles", "npy"):
                    path = folder / f"{dtype}-{uplo}.{name}"
                    random((61, 61), 8, dtype, uplo).save(path)
    report(written=len(os.listdir(folder)))


def found(folder: Path) -> None:
    """What `left` wrote, read by as many ranks as there are now; each opens only its own tiles."""
    opened: set[str] = set()
    open_memmap = np.lib.format.open_memmap

    def watched(path: Any, *args: Any, **kwargs: Any) -> Any:
        opened.add(f"{Path(path).parent.name}/{Path(path).name}")
        return open_memmap(path, *args, **kwargs)

    for module in (matrix_files, matrix_folder):
        module.open_memmap = watched  # type: ignore[attr-defined]
    read = 0
    with tla.engine("mpi", distribution="row"):
        for path in sorted(folder.iterdir()):
            opened.clear()
            dtype, _, uplo = path.stem.partition("-")
            A = TiledMatrix.load(path, 8, uplo=None if uplo == "None" else uplo)
            same(A, alone((61, 61), 8, dtype, A.uplo).to_array())
            own = {f"{path.name}/tile_{i:04d}_{j:04d}.npy" for i, j in A.own_tiles()}
            assert opened == (own if path.is_dir() else {f"{folder.name}/{path.name}"})
            read += 1
    report(read=read)


def redistributed(folder: Path) -> None:
    """Each tile whose owner changes is one message, and nothing else is."""
    maps = MAPS[COMM.size]
    checked = 0
    for turn, window in enumerate((1, 5000, None)):
        with tla.engine("mpi", window=window, distribution="2dbc") as engine:
            for shape, nb, dtype, uplo in list(cases())[turn::3]:
                before = get(maps[checked % len(maps)], COMM.size)
                after = get(maps[(checked // 2 + 1) % len(maps)], COMM.size)
                A = TiledMatrix.random(shape, nb, dtype, uplo, seed=7, distribution=before)
                a = alone(shape, nb, dtype, uplo).to_array()
                sent, nbytes = engine.messages, engine.bytes_sent
                B = A.redistribute(after.name if checked % 2 else after)
                moved = [(i, j) for i, j in A.layout.tiles() if before(i, j) != after(i, j)]
                size = sum(a[A.rows(i), A.cols(j)].nbytes for i, j in moved)
                assert COMM.allreduce(engine.messages - sent) == len(moved)
                assert COMM.allreduce(engine.bytes_sent - nbytes) == size
                assert (B.distribution, B.layout, B.dtype) == (after, A.layout, A.dtype)
                same(B, a)
                same(A, a)
                for i, j in set(A.own_tiles()) & set(B.own_tiles()):
                    assert not np.shares_memory(A.tile(i, j).array, B.tile(i, j).array)
                checked += 1
            # what each rank has whole is cut
            sent = engine.messages
            whole = alone((37, 29), 8, "f8", None)
            same(whole.redistribute("row"), whole.to_array())
            assert engine.messages == sent
    report(checked=checked)


@contextmanager
def failing(rank: int, owner: Any, name: str) -> Iterator[None]:
    """A function that raises OSError on one rank."""
    if COMM.rank != rank:
        yield
        return
    with mock.patch.object(owner, name, side_effect=OSError("disk full")):
        yield


def words(call: Callable[[], Any]) -> list[str]:
    """What a call raises on each rank."""
    try:
        call()
    except (OSError, RuntimeError, ValueError) as error:
        return COMM.allgather(f"{type(error).__name__}: {error}")
    return COMM.allgather("no error")


def failures(folder: Path) -> None:
    """A failure on one rank is one on all; what was there remains, and life goes on."""
    from scipy import io

    last = COMM.size - 1
    raised = {}
    with tla.engine("mpi"):
        old, new = random((37, 37), 8, "f8", None), TiledMatrix.zeros((37, 37), 8)
        for name, rank, owner, function in (
            ("a.tiles", 1, np, "save"),
            ("a.tiles", 0, np, "save"),
            ("a.tiles", 0, matrix_saving, "header_text"),
            ("a.tiles", last, matrix_saving, "check_target"),
            ("a.npy", 1, matrix_saving, "open_memmap"),
            ("a.npy", 0, os, "fsync"),
            ("a.mtx", 0, io, "mmwrite"),
        ):
            old.save(folder / name)
            before = content(folder / name)
            COMM.Barrier()
            with failing(rank, owner, function):
                raised[f"{name} {rank} {function}"] = words(
                    lambda name=name: new.save(folder / name)
                )
            COMM.Barrier()
            assert content(folder / name) == before
            assert not [p for p in os.listdir(folder) if p.startswith(".")]
            same(TiledMatrix.load(folder / name, 8), alone((37, 37), 8, "f8", None).to_array())
        with failing(1, matrix_folder, "open_memmap"):
            raised["load"] = words(lambda: TiledMatrix.load(folder / "a.tiles"))
        with failing(last, _Tiles, "size"):
            raised["to_array"] = words(old.to_array)
            raised["redistribute"] = words(lambda: old.redistribute("row"))

        def put(i: int, j: int, block: np.ndarray) -> None:
            if COMM.rank == 1 and i == 2:
                raise ValueError("no room")

        collectives = tla.engines.current().place.collectives
        assert isinstance(collectives, MPICollectives)
        raised["put"] = words(lambda: collectives.gather(old, put))
        np.testing.assert_array_equal(old.to_array(), alone((37, 37), 8, "f8", None).to_array())
    report(**raised)


def refusals(folder: Path) -> None:
    """What cannot be asked of a distributed matrix, and is said on all ranks alike."""
    np.save(folder / f"rank{COMM.rank}.npy", np.eye(9))
    COMM.Barrier()
    with tla.engine("mpi"):
        A = random((37, 37), 8, "f8", None)
        asked: list[Callable[[], Any]] = [
            lambda: TiledMatrix.load(folder / "rank0.npy", mmap="r+"),
            lambda: TiledMatrix.load(folder / "rank0.npy", mmap="r"),
            lambda: TiledMatrix.load(folder / "none.npy"),
            lambda: A.save(folder / "a.csv"),
            lambda: A.redistribute("nonsense"),
            lambda: A.redistribute(get("row", ranks=COMM.size + 1)),
            lambda: A.to_array(copy=False),
        ]
        errors = [words(call) for call in asked]
    errors += [words(lambda: A.save(folder / "a")), words(lambda: A.redistribute("row"))]
    assert all(len(set(same_on_all)) == 1 for same_on_all in errors)
    report(errors=[error for error, *_ in errors])


def made(folder: Path) -> None:
    """Every way to make a matrix takes a distribution, by name or as an object."""
    a = alone((37, 29), 8, "f8", None).to_array()
    with tla.engine("mpi", distribution="2dbc"):
        for map_ in ("row", get("row", COMM.size)):
            row: dict[str, Any] = {"distribution": map_}
            same(TiledMatrix.from_array(a, 8, **row), a)
            same(TiledMatrix.from_function(lambda i, j: a[np.ix_(i, j)], a.shape, 8, **row), a)
            same(TiledMatrix.random(a.shape, 8, seed=7, **row), a)
            same(TiledMatrix.zeros(a.shape, 8, **row), np.zeros_like(a))
            E = TiledMatrix.empty(a.shape, 8, **row)
            assert E.owner_map[:, 0].tolist() == [i % COMM.size for i in range(E.mt)]
            assert E.like().distribution == E.distribution
    report(ok=True)


if __name__ == "__main__":
    globals()[sys.argv[1]](Path(sys.argv[2]))
