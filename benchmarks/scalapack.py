"""ScaLAPACK on the ranks of an MPI job, as a peer: potrf, getrf or gemm in double precision.

It starts itself under Debian's own mpirun, calls the library through ctypes, and prints a JSON
object with the seconds of each repeat. It needs Debian's packages:

    apt-get install libscalapack-openmpi2.2 openmpi-bin libopenblas0-pthread
    python benchmarks/scalapack.py potrf -n 8192 --grid 1x2 --nb 128
    python benchmarks/scalapack.py getrf -n 1000 --nb 64 --check
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np

LIBRARY = "libscalapack-openmpi.so.2.2"
MPIRUN = "/usr/bin/mpirun.openmpi"
PACKAGES = "libscalapack-openmpi2.2 openmpi-bin libopenblas0-pthread"
OPERATIONS = {"potrf": 1 / 3, "getrf": 2 / 3, "gemm": 2.0}  # flops over n^3
# Debian's OpenBLAS does not know the newest processors, and takes its slowest kernels for them.
CORETYPE = "SKYLAKEX"


class Missing(OSError):
    """A package of Debian is not installed."""


def require() -> None:
    """Raise `Missing`, with what to do, where ScaLAPACK or its MPI is not there."""
    there = any(Path("/usr/lib").glob(f"*/{LIBRARY}")) and Path(MPIRUN).exists()
    if not there:
        raise Missing(f"{LIBRARY} or {MPIRUN} is missing: apt-get install {PACKAGES}")


def launch(
    op: str,
    n: int,
    grid: str,
    nb: int,
    repeat: int = 1,
    save: str | None = None,
    limit: float = 600,
) -> list[float]:
    """Run one operation on the ranks of a grid and return the seconds of each repeat.

    Parameters
    ----------
    op : {"potrf", "getrf", "gemm"}
    n, nb : int
        Order of the matrices and of the blocks.
    grid : str
        Rows and columns of processes: "1x2".
    repeat : int
        After one warm-up.
    save : str, optional
        Folder for what each rank had before and after, for `residual`.
    limit : float
        Seconds after which it is given up.
    """
    require()
    p, q = map(int, grid.split("x"))
    # the MPI of a virtual environment, or of a job around this one, is another
    foreign = ("OMPI_", "PMIX_", "PRTE_", "PMI_", "LD_LIBRARY_PATH")
    environment = {k: v for k, v in os.environ.items() if not k.startswith(foreign)}
    environment |= {"OPENBLAS_NUM_THREADS": "1", "OPENBLAS_CORETYPE": CORETYPE}
    flags = ["--bind-to", "core"] if len(os.sched_getaffinity(0)) >= p * q else ["--oversubscribe"]
    if os.geteuid() == 0:
        flags.append("--allow-run-as-root")
    program = [sys.executable, __file__, op, "-n", f"{n}", "--grid", grid, "--nb", f"{nb}"]
    program += ["--repeat", f"{repeat}", "--rank", *(["--save", save] if save else [])]
    done = subprocess.run(
        [MPIRUN, *flags, "-n", f"{p * q}", *program],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=limit,
    )
    if done.returncode:
        raise RuntimeError(f"ScaLAPACK failed:\n{done.stdout}{done.stderr}")
    seconds: list[float] = json.loads(done.stdout.splitlines()[-1])["seconds"]
    return seconds


# -- on a rank -------------------------------------------------------------------------------------


class Grid(NamedTuple):
    """Processes in rows and columns, and where this one is."""

    context: int
    p: int
    q: int
    row: int
    col: int

    def indices(self, n: int, nb: int) -> tuple[Any, Any]:
        """Global indices of the rows and columns that this process has."""
        blocks = np.arange(n) // nb
        return (
            np.flatnonzero(blocks % self.p == self.row),
            np.flatnonzero(blocks % self.q == self.col),
        )


def at(value: int | float | bytes) -> Any:
    """A scalar as Fortran takes it."""
    kinds = {int: ctypes.c_int, float: ctypes.c_double, bytes: ctypes.c_char}
    return ctypes.byref(kinds[type(value)](value))


def blacs_grid(library: Any, p: int, q: int) -> Grid:
    """Start BLACS, which starts MPI."""
    numbers = [ctypes.c_int() for _ in range(4)]
    context = ctypes.c_int()
    library.Cblacs_get(-1, 0, ctypes.byref(context))
    library.Cblacs_gridinit(ctypes.byref(context), b"Row", p, q)
    library.Cblacs_gridinfo(context, *(ctypes.byref(number) for number in numbers))
    return Grid(context.value, *(number.value for number in numbers))


def descriptor(library: Any, grid: Grid, n: int, nb: int, rows: int) -> Any:
    """The nine numbers that describe a distributed n x n matrix."""
    numbers, info = (ctypes.c_int * 9)(), ctypes.c_int()
    sizes = [at(value) for value in (n, n, nb, nb, 0, 0, grid.context, max(1, rows))]
    library.descinit_(numbers, *sizes, ctypes.byref(info))
    if info.value:
        raise SystemExit(f"descinit: info = {info.value}")
    return numbers


def operation(library: Any, op: str, n: int, desc: Any, blocks: list[Any], pivots: Any) -> None:
    """Call the routine."""
    one, order = at(1), at(n)
    address = [block.ctypes.data_as(ctypes.c_void_p) for block in blocks]
    info = ctypes.c_int()
    last = ctypes.byref(info)
    if op == "potrf":
        library.pdpotrf_(at(b"L"), order, address[0], one, one, desc, last)
    elif op == "getrf":
        ipiv = pivots.ctypes.data_as(ctypes.c_void_p)
        library.pdgetrf_(order, order, address[0], one, one, desc, ipiv, last)
    else:
        a, b, c = ((x, one, one, desc) for x in address)
        sizes = (order, order, order)
        library.pdgemm_(at(b"N"), at(b"N"), *sizes, at(1.0), *a, *b, at(0.0), *c)
    if info.value:
        raise SystemExit(f"{op}: info = {info.value}")


def be_a_rank(options: argparse.Namespace) -> None:
    """Run the operation as one process of the grid."""
    op, n, nb = options.op, options.n, options.nb
    library = ctypes.CDLL(LIBRARY, ctypes.RTLD_GLOBAL)
    grid = blacs_grid(library, *map(int, options.grid.split("x")))
    rows, cols = grid.indices(n, nb)
    random = np.random.default_rng(1 + grid.row * grid.q + grid.col)
    given = [np.asfortranarray(random.random((rows.size, cols.size)) - 0.5)]
    if op == "potrf":
        _, i, j = np.intersect1d(rows, cols, return_indices=True)
        given[0][i, j] += n
    if op == "gemm":
        given += [np.asfortranarray(random.random((rows.size, cols.size)) - 0.5) for _ in "BC"]
    pivots = np.zeros(rows.size + nb, dtype=np.int32)
    desc = descriptor(library, grid, n, nb, rows.size)
    blocks = [block.copy(order="F") for block in given]
    seconds = []
    for _ in range(options.repeat + 1):
        blocks[-1][...] = given[-1]
        library.Cblacs_barrier(grid.context, b"All")
        start = time.perf_counter()
        operation(library, op, n, desc, blocks, pivots)
        library.Cblacs_barrier(grid.context, b"All")
        seconds.append(time.perf_counter() - start)
    if options.save:
        file = Path(options.save) / f"{grid.row}-{grid.col}.npz"
        np.savez(file, given=given, blocks=blocks, rows=rows, cols=cols, pivots=pivots[: rows.size])
    if grid.row == grid.col == 0:
        print(json.dumps({"seconds": seconds[1:]}), flush=True)
    library.Cblacs_gridexit(grid.context)
    library.Cblacs_exit(0)


# -- whether it is right ---------------------------------------------------------------------------


def residual(op: str, n: int, grid: str, nb: int) -> float:
    """The residual over ``eps n`` and the norms, of a run whose parts are put together here."""
    with TemporaryDirectory() as folder:
        launch(op, n, grid, nb, save=folder)
        p, q = map(int, grid.split("x"))
        count = 3 if op == "gemm" else 1
        before, after = np.empty((count, n, n)), np.empty((count, n, n))
        pivots = np.empty(n, dtype=int)
        for row, col in product(range(p), range(q)):
            with np.load(Path(folder) / f"{row}-{col}.npz") as part:
                place = np.ix_(range(count), part["rows"], part["cols"])
                before[place], after[place] = part["given"], part["blocks"]
                pivots[part["rows"]] = part["pivots"] - 1
    if op == "gemm":
        (a, b, _), c = before, after[2]
        return scaled(c - a @ b, n, a, b)
    a, factor = before[0], after[0]
    if op == "potrf":
        a = np.tril(a) + np.tril(a, -1).T
        lower = np.tril(factor)
        return scaled(a - lower @ lower.T, n, a)
    for i, k in enumerate(pivots):
        a[[i, k]] = a[[k, i]]
    return scaled(a - (np.tril(factor, -1) + np.eye(n)) @ np.triu(factor), n, a)


def scaled(error: Any, n: int, *factors: Any) -> float:
    """A residual over ``eps n`` and the norms of what was multiplied."""
    norm: Callable[[Any], float] = lambda x: float(np.linalg.norm(x, 1))  # noqa: E731
    return norm(error) / (n * 2.0**-53 * float(np.prod([norm(x) for x in factors])))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("op", choices=OPERATIONS)
    parser.add_argument("-n", type=int, default=8192, help="order of the matrices (%(default)s)")
    parser.add_argument("--grid", default="1x2", help="rows x columns of processes (%(default)s)")
    parser.add_argument("--nb", type=int, default=128, help="block size (%(default)s)")
    parser.add_argument("--repeat", type=int, default=1, help="runs after a warm-up (%(default)s)")
    parser.add_argument("--check", action="store_true", help="print the residual as well")
    parser.add_argument("--rank", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--save", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.rank:
        be_a_rank(options)
        return
    chosen = (options.op, options.n, options.grid, options.nb)
    try:
        found: dict[str, Any] = {"seconds": launch(*chosen, options.repeat)}
        if options.check:
            found["residual"] = residual(*chosen)
    except Missing as missing:
        parser.exit(1, f"{missing}\n")
    print(json.dumps(found))


if __name__ == "__main__":
    main()
