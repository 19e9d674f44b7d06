"""What recording a trace costs: a task, and a run.

    python benchmarks/trace.py [-n 8192] [--nb NB] [--workers 2] [--pairs 15] [--tasks 100000]

Three lines. `what=call`: the recorder's note around a function that does nothing, one thread,
nanoseconds a task. `what=task`: graphs of tasks that do nothing, in alternating pairs with and
without a recorder, microseconds a task, medians. `what=run`: Cholesky factorisations in alternating
pairs; `percent_predicted` is the cost of a task times the number of tasks over the time of a run,
`percent_measured` the median of the pairs' differences, with the quartiles.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np

import taskla as tla
from taskla import kernels
from taskla.energy import find
from taskla.engines.threads import ThreadsEngine
from taskla.graph import TaskGraph
from taskla.tile import Tile
from taskla.traces import Recorder, Recording

CHAINS = 16


class Anywhere:
    """A matrix whose tiles are all the same one: kernels do not look."""

    tile_ = Tile(np.zeros((1, 1), dtype=np.int8))

    def tile(self, i: int, j: int) -> Tile:
        return self.tile_


def nothing(*tiles: Tile) -> None:
    """The kernel of tasks that do nothing."""


kernels.register("noop", formats=["int8"])(lambda format, *params: nothing)


def chains(tasks: int) -> TaskGraph:
    """So many tasks in chains, as long as one another."""
    flow = tla.TaskFlow()
    tiles = flow.matrix(CHAINS, 1, nb=1, dtype=np.int8)
    for _ in range(max(1, tasks // CHAINS)):
        flow.submit("noop", tiles)
    graph = flow.graph("chains")
    graph.indegree  # noqa: B018 (derived when first asked for)
    graph.priorities()
    return graph


def seconds(run: Callable[[], object]) -> float:
    begin = time.perf_counter()
    run()
    return time.perf_counter() - begin


def alternate(pairs: int, plain: Callable[[], float], recorded: Callable[[], float]) -> np.ndarray:
    """Times in pairs, (pairs, 2), the first of a pair in turn."""
    plain(), recorded()
    found = []
    for pair in range(pairs):
        if pair % 2:
            late = recorded()
            found.append((plain(), late))
        else:
            found.append((plain(), recorded()))
    return np.array(found)


def cost_of_call(tasks: int) -> float:
    """Seconds that the note around one call takes, by itself."""

    def execute(task: int) -> None:
        return None

    def loop(run: Callable[[int], None]) -> float:
        begin = time.perf_counter()
        for task in range(tasks):
            run(task)
        return time.perf_counter() - begin

    recording = Recording(chains(tasks), {})
    pairs = alternate(5, lambda: loop(execute), lambda: loop(recording.observed(0, execute)))
    return float(np.median(pairs[:, 1] - pairs[:, 0])) / tasks


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("-n", type=int, default=8192, help="order of the matrix")
    parser.add_argument("--nb", type=int, help="tile size")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--pairs", type=int, default=15)
    parser.add_argument("--tasks", type=int, default=100_000, help="that do nothing")
    options = parser.parse_args()
    print(f"what=call ns_per_task={cost_of_call(options.tasks // CHAINS * CHAINS) * 1e9:.0f}")

    plain = tla.engine("threads", workers=options.workers, fuse=1, progress=False)
    assert isinstance(plain, ThreadsEngine)
    graph = chains(options.tasks)
    source = find("auto")

    def run(engine: ThreadsEngine) -> float:
        return seconds(lambda: engine.run(graph, [Anywhere()]))

    times = alternate(
        options.pairs, lambda: run(plain), lambda: run(plain.recorded(Recorder(), source))
    )
    cost = float(np.median(times[:, 1] - times[:, 0])) / graph.n
    print(
        f"what=task tasks={graph.n} workers={options.workers} pairs={options.pairs} "
        f"us_plain={np.median(times[:, 0]) / graph.n * 1e6:.3f} "
        f"us_recorded={np.median(times[:, 1]) / graph.n * 1e6:.3f} us_cost={cost * 1e6:.3f}"
    )

    original = tla.TiledMatrix.random((options.n, options.n), nb=options.nb, kind="spd")
    engine = tla.engine("threads", workers=options.workers, progress=False)
    assert isinstance(engine, ThreadsEngine)
    recorder = Recorder()

    def factor(engine: ThreadsEngine) -> float:
        A = original.copy()
        with engine:
            return seconds(lambda: tla.potrf(A))

    times = alternate(
        options.pairs, lambda: factor(engine), lambda: factor(engine.recorded(recorder, source))
    )
    tasks = recorder.recordings[-1].graph.n
    percent = (times[:, 1] / times[:, 0] - 1) * 100
    low, middle, high = statistics.quantiles(percent, n=4)
    print(
        f"what=run op=potrf n={options.n} nb={original.nb} workers={options.workers} "
        f"tasks_run={tasks} pairs={options.pairs} s_plain={np.median(times[:, 0]):.3f} "
        f"percent_predicted={cost * tasks / np.median(times[:, 0]) * 100:.4f} "
        f"percent_measured={middle:.2f} quartiles={low:.2f},{high:.2f}"
    )


if __name__ == "__main__":
    main()
