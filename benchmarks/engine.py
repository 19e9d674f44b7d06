"""What the threads engine costs a task: graphs of tasks whose kernels do nothing.

    python benchmarks/engine.py [--tasks 20000] [--workers 2] [--policy eager,prio,lws] [--repeat 5]

One line a graph and policy, microseconds a task, medians: `us_build` to submit the tasks and derive
their dependencies, `us_run` to run them, priorities and start of the threads included, and
`us_per_task`, the sum: end to end. The last line is the same number of calls of nothing by
ThreadPoolExecutor, submit and result.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

import taskla as tla
from taskla import kernels
from taskla.algorithms.potrf import potrf
from taskla.engines import Engine
from taskla.tile import Tile

CHAINS = 16

Program = Callable[[tla.TaskFlow, int], None]


class Anywhere:
    """A matrix whose tiles are all the same one: kernels do not look."""

    tile_ = Tile(np.zeros((1, 1), dtype=np.int8))

    def tile(self, i: int, j: int) -> Tile:
        return self.tile_


def nothing(*tiles: Tile) -> None:
    """Every kernel of this benchmark."""


# No kernel of the package computes with 8-bit integers: in this format all of them do nothing.
for operation in ("noop", "potrf", "trsm", "syrk", "gemm", "geadd"):
    kernels.register(operation, formats=["int8"])(lambda format, *params: nothing)


def independent(flow: tla.TaskFlow, tasks: int) -> None:
    flow.submit("noop", flow.matrix(tasks, 1, nb=1, dtype=np.int8))


def chains(flow: tla.TaskFlow, tasks: int) -> None:
    tiles = flow.matrix(CHAINS, 1, nb=1, dtype=np.int8)
    for _ in range(max(1, tasks // CHAINS)):
        flow.submit("noop", tiles)


def one_chain(flow: tla.TaskFlow, tasks: int) -> None:
    tile = flow.matrix(1, 1, nb=1, dtype=np.int8)
    flow.geadd(flow.matrix(tasks, 1, nb=1, dtype=np.int8), tile)


def cholesky(flow: tla.TaskFlow, tasks: int) -> None:
    # nt tile columns make about nt^3 / 6 tasks.
    nt = round((6 * tasks) ** (1 / 3))
    potrf(flow, flow.matrix(nt, nt, nb=1, dtype=np.int8))


def measure(program: Program, tasks: int, engine: Engine) -> tuple[int, float, float]:
    """Tasks, seconds to build the graph, seconds to run it."""
    begin = time.perf_counter()
    flow = tla.TaskFlow()
    program(flow, tasks)
    graph = flow.graph()
    graph.indegree  # noqa: B018 (derived when first asked for)
    built = time.perf_counter()
    engine.run(graph, [Anywhere() for _ in graph.grids])
    return graph.n, built - begin, time.perf_counter() - built


def pool(tasks: int, workers: int) -> float:
    """Seconds that ThreadPoolExecutor takes."""
    begin = time.perf_counter()
    with ThreadPoolExecutor(workers) as executor:
        for future in [executor.submit(nothing) for _ in range(tasks)]:
            future.result()
    return time.perf_counter() - begin


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--tasks", type=int, default=20_000, help="about so many a graph")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--policy", default="eager,prio,lws", help="names, separated by commas")
    parser.add_argument("--repeat", type=int, default=5, help="of which the median counts")
    options = parser.parse_args()

    for program in (independent, one_chain, chains, cholesky):
        for policy in options.policy.split(","):
            engine = tla.engine(
                "threads", workers=options.workers, policy=policy, fuse=1, progress=False
            )
            runs = [measure(program, options.tasks, engine) for _ in range(options.repeat)]
            tasks = runs[0][0]
            build = statistics.median(run[1] for run in runs) / tasks * 1e6
            run = statistics.median(run[2] for run in runs) / tasks * 1e6
            print(
                f"graph={program.__name__} tasks={tasks} workers={options.workers} "
                f"policy={policy} us_build={build:.2f} us_run={run:.2f} "
                f"us_per_task={build + run:.2f}",
                flush=True,
            )
    times = [pool(options.tasks, options.workers) for _ in range(options.repeat)]
    print(
        f"peer=ThreadPoolExecutor tasks={options.tasks} workers={options.workers} "
        f"us_per_task={statistics.median(times) / options.tasks * 1e6:.2f}"
    )


if __name__ == "__main__":
    main()
