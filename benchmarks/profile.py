"""Where the time of a factorisation goes: CPU time and rate of each kernel, workers together.

python benchmarks/profile.py potrf -n 8192 --nb 512 [--workers 2]
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict

import taskla as tla
from taskla.engines.execution import Execution


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("op", choices=["potrf", "getrf"])
    parser.add_argument("-n", type=int, default=8192)
    parser.add_argument("--nb", type=int)
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    n, workers = arguments.n, arguments.workers
    records: list[tuple[str, float, float]] = []  # appending is atomic: no lock in the way
    run = Execution.__call__

    def timed(self: Execution, task: int) -> None:
        begin = time.thread_time()
        run(self, task)
        seconds = time.thread_time() - begin
        graph = self._graph
        records.append((graph.operations[graph.kind[task]], seconds, graph.flops()[task]))

    kind = "spd" if arguments.op == "potrf" else "general"
    make = tla.TiledMatrix.random((n, n), nb=arguments.nb, kind=kind)
    with tla.engine("threads", workers=workers):
        for _ in range(2):  # the first run warms up
            A = make.copy()
            records.clear()
            Execution.__call__ = timed  # type: ignore[method-assign]
            start = time.perf_counter()
            getattr(tla, arguments.op)(A)
            wall = time.perf_counter() - start
            Execution.__call__ = run  # type: ignore[method-assign]
    table: dict[str, list[float]] = defaultdict(lambda: [0, 0.0, 0.0])
    for name, seconds, flops in records:
        for column, value in enumerate((1, seconds, flops)):
            table[name][column] += value
    busy = sum(seconds for _, seconds, _ in table.values())
    total = n**3 / 3 if arguments.op == "potrf" else 2 * n**3 / 3
    print(
        f"{arguments.op} n={n} nb={A.nb} workers={workers} wall={wall:.3f} s "
        f"{total / wall / 1e9:.1f} Gflop/s busy={busy / workers / wall:.2f} "
        f"if_never_waiting={total / (busy / workers) / 1e9:.1f} Gflop/s"
    )
    for name, (count, seconds, flops) in table.items():
        print(
            f"  {name:6} tasks={count:5.0f} cpu={seconds:.3f} s share={seconds / busy:4.0%} "
            f"gflops_per_core={flops / seconds / 1e9:.1f}"
        )


if __name__ == "__main__":
    main()
