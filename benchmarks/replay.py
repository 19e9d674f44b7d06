"""How well a replay predicts a real run, and how fast virtual time passes.

    python benchmarks/replay.py [-n 8192] [--nb NB] [--repeat 5] [--workers W]
                                [--policy lws,prio,eager] [--tiles 180] [--simulated 2,64]
    python benchmarks/replay.py validation ...
    python benchmarks/replay.py speed ...

validation: Cholesky factorisations are recorded, the policies in turn, and each is replayed with
its own policy and number of workers. One line a run: seconds that it took, seconds that the replay
predicts, and `ratio`, the latter over the former; then the ratios' median for each policy. The aim
is a median within 5 % of 1 for n=8192.

speed: the graph of a Cholesky factorisation of tiles x tiles, random durations. One line a policy
and number of workers: tasks a second by the policy's object and by its compiled twin, and whether
both decided the same. The first line is what the twins cost before: to load Numba, and to compile
or to read what was compiled in an earlier process. The aim for 180 tiles is tasks_per_second >
30 000 and compiled > 200 000.
"""

from __future__ import annotations

import argparse
import statistics
import time

import numpy as np

import taskla as tla
from taskla.algorithms.potrf import potrf
from taskla.engines import simulation_compiled
from taskla.engines.cores import cores
from taskla.engines.replay import replay
from taskla.engines.simulation import simulate
from taskla.graph import TaskGraph
from taskla.traces import Recorder, Run


def record(n: int, nb: int | None, policy: str, workers: int) -> Run:
    """One factorisation that really ran."""
    recorder = Recorder()
    A = tla.TiledMatrix.random((n, n), nb=nb, kind="spd", uplo="lower")
    with tla.engine("threads", workers=workers, policy=policy, trace=recorder, progress=False):
        tla.potrf(A)
    return recorder.trace().run()


def validation(n: int, nb: int | None, policies: list[str], workers: int, repeat: int) -> None:
    ratios: dict[str, list[float]] = {policy: [] for policy in policies}
    record(min(n, 1024), nb, policies[0], workers)
    for _ in range(repeat):
        for policy in policies:
            run = record(n, nb, policy, workers)
            (row,) = replay(run, [policy], [workers]).rows
            ratio = row["makespan"] / run.makespan
            ratios[policy].append(ratio)
            print(
                f"op=potrf n={n} tasks={run.tasks.size} workers={workers} policy={policy} "
                f"real={run.makespan:.4f} replay={row['makespan']:.4f} ratio={ratio:.4f}",
                flush=True,
            )
    for policy, found in ratios.items():
        print(
            f"op=potrf n={n} workers={workers} policy={policy} repeat={repeat} "
            f"median={statistics.median(found):.4f} least={min(found):.4f} most={max(found):.4f}"
        )


def cholesky(tiles: int) -> TaskGraph:
    """The graph, with all that is derived from it once."""
    flow = tla.TaskFlow()
    potrf(flow, flow.matrix(tiles, tiles, nb=1))
    graph = flow.graph()
    graph.indegree  # noqa: B018 (derived when first asked for)
    return graph


def speed(tiles: int, policies: list[str], counts: list[int]) -> None:
    begin = time.perf_counter()
    simulation_compiled.load()
    print(f"load_twins_seconds={time.perf_counter() - begin:.2f}")
    graph = cholesky(tiles)
    durations = np.random.default_rng(1).uniform(0.5e-3, 1.5e-3, graph.n)
    for policy in policies:
        for workers in counts:
            rates, schedules = [], []
            for compiled in (False, True):
                begin = time.perf_counter()
                schedules.append(simulate(graph, policy, workers, durations, compiled=compiled))
                rates.append(graph.n / (time.perf_counter() - begin))
            same = all(map(np.array_equal, *schedules))
            print(
                f"tiles={tiles} tasks={graph.n} workers={workers} policy={policy} "
                f"tasks_per_second={rates[0]:.0f} compiled={rates[1]:.0f} "
                f"same={'yes' if same else 'NO'}",
                flush=True,
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parts = ("validation", "speed")
    parser.add_argument("part", nargs="?", choices=parts, help="default: both")
    parser.add_argument("-n", type=int, default=8192, help="order of the matrix")
    parser.add_argument("--nb", type=int, help="tile size; default: from n")
    parser.add_argument("--repeat", type=int, default=5, help="real runs of each policy")
    parser.add_argument("--workers", type=int, default=cores(), help="of the real runs")
    parser.add_argument("--policy", default="lws,prio,eager", help="names, separated by commas")
    parser.add_argument("--tiles", type=int, default=180, help="tile columns, for speed")
    parser.add_argument("--simulated", default="2,64", help="numbers of workers, for speed")
    options = parser.parse_args()

    policies = options.policy.split(",")
    if options.part in (None, "validation"):
        validation(options.n, options.nb, policies, options.workers, options.repeat)
    if options.part in (None, "speed"):
        speed(options.tiles, policies, [int(count) for count in options.simulated.split(",")])


if __name__ == "__main__":
    main()
