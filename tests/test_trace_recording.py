"""What the threads engine records: every task once, with the times and tiles that it had."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_traces import real

import taskla as tla
from taskla import programs
from taskla.algorithms.potrf import potrf
from taskla.engines.threads import ThreadsEngine
from taskla.graph import TaskGraph
from taskla.programs import Layout
from taskla.schedulers import Policy
from taskla.schedulers.eager import Eager
from taskla.traces import Recorder, Run, Trace, read

N, NB = 90, 16  # 6 x 6 tiles, the last ones smaller


def spd(n: int = N, nb: int = NB) -> tla.TiledMatrix:
    return tla.TiledMatrix.random((n, n), nb=nb, kind="spd", uplo="lower")


def graph_of(n: int = N, nb: int = NB) -> TaskGraph:
    return programs.program(potrf, (Layout(n, n, nb, np.dtype(float), "A"),), ("L",))


def predecessors_end(run: Run) -> np.ndarray:
    latest = np.full(run.tasks.size, run.begin)
    source, target = run.edges
    np.maximum.at(latest, target, run.tasks["end"][source])
    return latest


@pytest.fixture(scope="module")
def run() -> Run:
    return real(n=N, nb=NB).run()


# -- tasks -----------------------------------------------------------------------------------------


def test_every_task_is_there_once_with_what_the_graph_knows_of_it(run: Run) -> None:
    graph = graph_of()
    tasks = run.tasks
    np.testing.assert_array_equal(tasks["task"], np.arange(graph.n))
    names = [run.kernels[code] for code in tasks["kernel"]]
    assert names == [graph.operations[kind] for kind in graph.kind]
    np.testing.assert_array_equal(tasks["flops"], graph.flops())
    np.testing.assert_array_equal(tasks["priority"], graph.priorities())
    places = [graph.locate(task)[1:] for task in range(graph.n)]
    assert list(zip(tasks["i"].tolist(), tasks["j"].tolist(), strict=True)) == places
    assert {run.trace.names("formats")[code] for code in tasks["format"]} == {"fp64"}
    assert (tasks["tile_tasks"] == 1).all()
    assert (tasks["lr_rank"] == -1).all()


def test_the_iteration_is_the_step_of_the_loop(run: Run) -> None:
    # in step k potrf and trsm write column k; syrk and gemm what is right of it, from column k
    tasks, kernels = run.tasks, run.kernels
    accesses = run.accesses
    for row, task in enumerate(tasks):
        if kernels[task["kernel"]] in ("potrf", "trsm"):
            assert task["k"] == task["j"]
        else:
            of_task = accesses[accesses["task"] == row]
            assert (of_task["j"][of_task["mode"] == 1] == task["k"]).all()


def test_bytes_are_those_of_the_tiles(run: Run) -> None:
    # potrf reads and writes its tile; gemm reads three and writes one; the last tiles are 10 wide
    by_label = {run.label(row): row for row in range(run.tasks.size)}
    first, last = run.tasks[by_label["potrf A(0, 0)"]], run.tasks[by_label["potrf A(5, 5)"]]
    assert (first["bytes_read"], first["bytes_written"]) == (16 * 16 * 8, 16 * 16 * 8)
    assert (last["bytes_read"], last["bytes_written"]) == (10 * 10 * 8, 10 * 10 * 8)
    gemm = run.tasks[by_label["gemm A(5, 1)"]]
    assert gemm["bytes_read"] == (10 * 16 + 16 * 16 + 10 * 16) * 8
    assert gemm["bytes_written"] == 10 * 16 * 8


def test_times_are_in_order(run: Run) -> None:
    tasks = run.tasks
    np.testing.assert_allclose(tasks["ready"], predecessors_end(run), rtol=0, atol=1e-12)
    assert (tasks["submit"] == run.info["submitted"]).all()
    assert run.info["submitted"] <= run.begin
    assert (tasks["ready"] <= tasks["start"]).all()
    assert (tasks["start"] < tasks["end"]).all()
    assert run.end <= run.info["end"]


def test_a_worker_does_one_task_at_a_time(run: Run) -> None:
    assert run.info["workers"] == 2
    for lane in range(len(run.workers)):
        mine = np.sort(run.tasks[run.lanes == lane], order="start")
        assert (mine["end"][:-1] <= mine["start"][1:]).all()


def test_edges_and_accesses_are_the_graphs(run: Run) -> None:
    graph, again = graph_of(), run.graph()
    for name in ("succ_ptr", "succ", "indptr", "tiles", "modes", "operand", "iteration"):
        np.testing.assert_array_equal(getattr(again, name), getattr(graph, name), err_msg=name)
    assert again.counts() == graph.counts()
    assert again.name == graph.name == "potrf"
    # the accesses that were recorded imply the edges that were recorded
    derived = run.graph()
    derived._successors = None
    np.testing.assert_array_equal(derived.succ, graph.succ)


def test_fused_tasks_count_their_tile_tasks() -> None:
    recorder = Recorder()
    with tla.engine("threads", workers=2, trace=recorder, fuse=4):
        tla.potrf(spd())
    run = recorder.trace().run()
    graph = graph_of()
    assert run.tasks.size < graph.n
    assert run.tasks["tile_tasks"].sum() == run.info["tile_tasks"] == graph.n
    assert run.tasks["flops"].sum() == pytest.approx(graph.flops().sum())


def test_pivots_are_tiles_of_integers() -> None:
    recorder = Recorder()
    with tla.engine("threads", workers=2, trace=recorder):
        tla.getrf(tla.TiledMatrix.random((60, 60), nb=20, seed=1))
    run = recorder.trace().run()
    assert run.program == "getrf"
    assert [matrix["dtype"] for matrix in run.matrices] == ["float64", "int32"]
    formats = run.trace.names("formats")
    assert {formats[code] for code in run.accesses["format"]} == {"fp64", "int32"}
    assert run.graph().counts() == {"getrf": 3, "laswp": 5, "trsm": 3, "gemm": 5}


def test_one_task_is_a_run_as_well() -> None:
    recorder = Recorder()
    with tla.engine("threads", workers=2, trace=recorder):
        tla.potrf(spd(8, 8))
    assert recorder.trace().run().tasks.size == 1


def test_sums_in_lanes_keep_their_iterations() -> None:
    # contributions that commute are dealt to partial sums: inserted tasks belong to a step too
    flow = tla.TaskFlow()
    X, Y = flow.matrix(64, 1, nb=1, name="X"), flow.matrix(1, 1, nb=1, name="Y")
    for k in flow.iterate(range(64)):
        flow.submit("geadd", X[k, 0], Y[0, 0], params=("N", 1.0, 1.0), accumulate=True)
    recorder = Recorder()
    x, y = tla.TiledMatrix.random((64, 1), nb=1, seed=3), tla.TiledMatrix.zeros((1, 1), nb=1)
    with tla.engine("threads", workers=2, trace=recorder, fuse=1) as engine:
        engine.run(flow.graph("sum"), [x, y])
    run = recorder.trace().run()
    assert run.tasks.size > 64
    assert set(run.tasks["k"].tolist()) == set(range(64))
    assert y.to_array()[0, 0] == pytest.approx(x.to_array().sum())


# -- samples, header -------------------------------------------------------------------------------


def test_memory_is_sampled_at_both_ends(run: Run) -> None:
    (memory,) = [series for series in run.series if series.kind == "memory"]
    assert memory.unit == "B"
    assert memory.time[0] >= run.begin
    assert memory.time[-1] >= run.end
    assert (memory.value > 1e6).all()


def test_the_header_tells_what_ran_on_what(run: Run) -> None:
    header = run.trace.header
    assert header["format"] == "taskla-trace"
    assert set(header["versions"]) >= {"taskla", "python", "numpy", "scipy"}
    assert header["machine"]["cores"] >= 1
    assert header["blas"]["name"]
    assert header["command"]
    assert run.info["engine"] == "threads"
    assert run.info["policy"] == "lws"
    assert run.info["status"] == "completed"
    assert run.info["parameters"] == {"op": "potrf", "n": N, "nb": NB}


def test_each_repeat_is_a_run_and_they_share_a_graph() -> None:
    trace = real(n=N, nb=NB, repeats=3)
    assert [run.info["repeat"] for run in trace.runs] == [0, 1, 2]
    assert len(trace.header["graphs"]) == 1
    assert len({run.setting for run in trace.runs}) == 1
    begins = [run.begin for run in trace.runs]
    assert begins == sorted(begins)
    lengths = sorted(run.makespan for run in trace.runs)
    assert trace.run().makespan == lengths[1]


def test_the_run_shown_is_of_the_program_that_took_longest() -> None:
    recorder = Recorder()
    with tla.engine("threads", workers=1, trace=recorder):
        tla.potrf(spd(8, 8))
        tla.potrf(spd(400, 40))
    assert recorder.trace().run().number == 1


# -- what is not recorded --------------------------------------------------------------------------


def test_what_a_running_function_asks_of_taskla_is_a_part_of_it() -> None:
    recorder = Recorder()
    with tla.engine("threads", workers=2, trace=recorder) as engine:
        engine.map(lambda seed: tla.potrf(spd(40 + seed, 10)), [(1,), (2,)])
    assert len(recorder.trace()) == 0


def test_nothing_is_imported_or_wrapped_when_off() -> None:
    code = """
import sys
import taskla as tla
from taskla.engines.graph_run import GraphRun
from taskla.engines.execution import Execution
seen = []
work = GraphRun.work
def spy(self, worker):
    seen.append((self._recording, type(self._execute)))
    work(self, worker)
GraphRun.work = spy
with tla.engine("threads", workers=2, progress=False):
    tla.potrf(tla.TiledMatrix.random((90, 90), nb=16, kind="spd"))
assert seen == [(None, Execution)] * 2, seen
print(sorted(name for name in sys.modules if name.startswith(("taskla.traces", "taskla.energy"))))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "[]\n"


# -- failures --------------------------------------------------------------------------------------


def test_a_run_that_fails_leaves_what_ran(tmp_path: Path) -> None:
    A = spd()
    A.tile(3, 3).array[0, 0] = -1e9
    engine = tla.engine("threads", workers=2, trace=tmp_path / "f.trace", fuse=1)
    with pytest.raises(np.linalg.LinAlgError), engine:
        tla.potrf(A)
    run = read(tmp_path / "f.trace").run()
    assert run.info["status"] == "failed"
    assert "49-th leading minor" in run.info["error"]
    assert "potrf on tile A(3, 3)" in run.info["error"]
    labels = [run.label(row) for row in range(run.tasks.size)]
    assert "potrf A(3, 3)" in labels
    assert "potrf A(4, 4)" not in labels
    assert run.tasks.size < run.info["tasks"]
    assert np.isfinite(run.durations).all()
    assert run.graph().n == run.tasks.size


class Stopping(Policy):
    """First in, first out; Ctrl-C comes with the tenth task."""

    name = "stopping"

    def start(self, graph: TaskGraph, workers: int) -> None:
        self._queue, self._given = Eager(), 0
        self._queue.start(graph, workers)

    def ready(self, task: int, worker: int | None) -> None:
        self._queue.ready(task, worker)

    def next(self, worker: int) -> int | None:
        self._given += 1
        if self._given == 10:
            raise KeyboardInterrupt
        return self._queue.next(worker)


def test_a_run_that_is_interrupted_leaves_what_ran(tmp_path: Path) -> None:
    path = tmp_path / "i.trace"
    engine = tla.engine("threads", workers=1, policy=Stopping(), trace=path, fuse=1)
    with pytest.raises(KeyboardInterrupt), engine:
        tla.potrf(spd())
    run = read(path).run()
    assert run.info["status"] == "interrupted"
    assert run.tasks["task"].size == 9


# -- where traces go -------------------------------------------------------------------------------


def test_a_file_is_written_when_with_ends_and_again_with_what_came_later(tmp_path: Path) -> None:
    path = tmp_path / "x.trace"
    engine = tla.engine("threads", workers=2, trace=str(path))
    with engine:
        tla.potrf(spd())
        assert not path.exists()
    assert len(read(path)) == 1
    with engine:
        tla.potrf(spd(50, 10))
    assert [run.tasks.size > 0 for run in read(path).runs] == [True, True]


def test_a_default_engines_trace_is_written_when_python_ends(tmp_path: Path) -> None:
    code = """
import taskla as tla
tla.engine("threads", workers=1, trace="d.trace").set_default()
tla.potrf(tla.TiledMatrix.random((90, 90), nb=16, kind="spd"))
"""
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, timeout=60, check=True)
    assert read(tmp_path / "d.trace").run().tasks.size > 0


def test_a_trace_of_nothing_replaces_what_was_there(tmp_path: Path) -> None:
    for ran in (True, False):
        with tla.engine("threads", workers=1, trace=tmp_path / "n.trace"):
            if ran:
                tla.potrf(spd())
        assert len(read(tmp_path / "n.trace")) == ran


def test_energy_is_for_a_trace() -> None:
    with pytest.raises(ValueError, match="energy is 'model'; it is for a trace"):
        tla.engine("threads", energy="model")


@pytest.mark.parametrize(
    ("where", "error"), [("no/x.trace", FileNotFoundError), ("", FileExistsError)]
)
def test_a_place_where_no_file_can_be_is_refused_before_anything_runs(
    tmp_path: Path, where: str, error: type[Exception]
) -> None:
    with pytest.raises(error):
        tla.engine("threads", trace=tmp_path / where)


def test_a_recorder_without_a_path_cannot_save() -> None:
    with pytest.raises(ValueError, match="no path"):
        Recorder().save()


def test_recorded_is_the_same_engine_with_a_journal() -> None:
    from taskla.energy import find

    engine = ThreadsEngine(workers=2, policy="prio", fuse=3, progress=False)
    recorder = Recorder()
    other = engine.recorded(recorder, find("off"))
    assert engine.journal is None
    assert repr(other) == repr(engine)
    with other:
        tla.potrf(spd())
    run = recorder.trace().run()
    assert (run.info["policy"], run.info["fuse"]) == ("prio", 3)
    assert run.info["energy"]["source"] == "unavailable"
    assert np.isnan(run.tasks["joules"]).all()


# -- a run made again ------------------------------------------------------------------------------


def schedules(run: Run, workers: Sequence[int]) -> Iterator[dict[str, Any]]:
    for count in workers:
        start = np.cumsum(run.durations) - run.durations
        worker = np.zeros(run.tasks.size, np.int32)
        yield {"start": start, "end": start + run.durations, "worker": worker, "workers": count}


def test_rescheduled_runs_follow_one_another(run: Run) -> None:
    trace: Trace = run.rescheduled(list(schedules(run, (1, 2))))
    assert [again.info["workers"] for again in trace.runs] == [1, 2]
    for again in trace.runs:
        assert again.makespan == pytest.approx(run.durations.sum())
        np.testing.assert_allclose(again.durations, run.durations, atol=1e-12)
        np.testing.assert_allclose(again.tasks["ready"], predecessors_end(again), atol=1e-12)
        assert np.isnan(again.tasks["joules"]).all()
    assert trace.runs[1].begin == pytest.approx(trace.runs[0].end)
