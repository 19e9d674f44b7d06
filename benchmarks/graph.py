"""What building a task graph costs: the graph of the Cholesky factorisation.

    python benchmarks/graph.py [--tiles 180] [--repeat 3]

One line a number of tile columns. Seconds, medians: `s_submit` to submit the tasks, `s_depend` to
derive their dependencies, `s_build` the sum, `s_levels` to find the bottom levels by which policies
rank tasks. Bytes a task: `bytes_held` of the arrays that stay, and `bytes_peak` of all that is
allocated on the way, traced in a run of its own. The aim for 180 tiles is s_build < 3 and
bytes_held < 200.
"""

from __future__ import annotations

import argparse
import statistics
import time
import tracemalloc

import taskla as tla
from taskla.algorithms.potrf import potrf


def cholesky(tiles: int) -> tla.TaskGraph:
    """The graph, dependencies not derived yet."""
    flow = tla.TaskFlow()
    potrf(flow, flow.matrix(tiles, tiles, nb=1))
    return flow.graph()


def derive(graph: tla.TaskGraph) -> None:
    graph.indegree  # noqa: B018 (derived when first asked for, with the successors)


def measure(tiles: int) -> tuple[float, float, float]:
    """Seconds to submit, to derive dependencies, to find bottom levels."""
    begin = time.perf_counter()
    graph = cholesky(tiles)
    submitted = time.perf_counter()
    derive(graph)
    derived = time.perf_counter()
    graph.bottom_levels("flops")
    return submitted - begin, derived - submitted, time.perf_counter() - derived


def memory(tiles: int) -> tuple[int, int, int]:
    """Tasks, bytes held by the graph, bytes at the peak of building it."""
    tracemalloc.start()
    graph = cholesky(tiles)
    derive(graph)
    held, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return graph.n, held, peak


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--tiles", default="180", help="tile columns: numbers, by commas")
    parser.add_argument("--repeat", type=int, default=3, help="of which the median counts")
    options = parser.parse_args()

    cholesky(2)
    for tiles in map(int, options.tiles.split(",")):
        tasks, held, peak = memory(tiles)
        runs = [measure(tiles) for _ in range(options.repeat)]
        submit, depend, levels = (statistics.median(column) for column in zip(*runs, strict=True))
        print(
            f"graph=cholesky tiles={tiles} tasks={tasks} s_submit={submit:.3f} "
            f"s_depend={depend:.3f} s_build={submit + depend:.3f} s_levels={levels:.3f} "
            f"bytes_held={held / tasks:.1f} bytes_peak={peak / tasks:.1f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
