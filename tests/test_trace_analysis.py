"""Where time and energy went: every figure by hand on four tasks, the sums on random ones."""

import math
from dataclasses import asdict
from typing import Any

import numpy as np
import pytest
from hand_traces import four_tasks
from hypothesis import given, settings, strategies as st
from made_traces import cholesky, lu, made, real

from taskla.traces import Run, Trace, analysis
from taskla.traces.tables import empty

# -- by hand ---------------------------------------------------------------------------------------


def test_kernels_by_hand() -> None:
    trsm, potrf, syrk = analysis.by_kernel(four_tasks().run())
    assert asdict(trsm) == {
        "kernel": "trsm",
        "tasks": 2,
        "tile_tasks": 4,
        "time": 6.0,
        "share": 6 / 8.75,
        "gflops": 1.0,
        "joules": 5.0,
        "min": 2.0,
        "q1": 2.5,
        "median": 3.0,
        "q3": 3.5,
        "max": 4.0,
        "mean": 3.0,
        "deviation": 1.0,
    }
    assert (potrf.kernel, potrf.time, potrf.gflops, potrf.deviation) == ("potrf", 2.0, 0.5, 0.0)
    assert (syrk.kernel, syrk.time, syrk.gflops, syrk.joules) == ("syrk", 0.75, 4.0, 4.0)


def test_workers_by_hand() -> None:
    first, second = analysis.by_worker(four_tasks().run())
    assert asdict(first) == {
        "rank": 0,
        "worker": 0,
        "device": "cpu",
        "tasks": 2,
        "busy": 6.0,
        "overhead": 0.0,
        "startup": 1.0,
        "starvation": 0.0,
        "end": 1.0,
        "idle": 2.0,
        "busy_share": 0.75,
        "overhead_share": 0.0,
        "idle_share": 0.25,
    }
    assert (second.busy, second.overhead) == (2.75, 0.25)
    assert (second.startup, second.starvation, second.end) == (3.5, 1.5, 0.0)
    assert second.idle == 5.25


def test_where_the_time_went_by_hand() -> None:
    assert analysis.where_time_went(four_tasks().run()) == {
        "busy": 8.75,
        "overhead": 0.25,
        "start-up": 4.5,
        "starvation": 1.5,
        "end": 1.0,
    }


def test_the_run_by_hand() -> None:
    assert asdict(analysis.summary(four_tasks().run())) == {
        "run": 0,
        "program": "made",
        "status": "completed",
        "error": None,
        "engine": "threads",
        "policy": "prio",
        "repeat": 0,
        "ranks": 1,
        "workers": 2,
        "submitted": 4,
        "tasks": 4,
        "tile_tasks": 6,
        "makespan": 8.0,
        "critical_path": 6.75,
        "area": 4.375,
        "bound": 6.75,
        "efficiency": 6.75 / 8,
        "flops": 1e10,
        "gflops": 1.25,
        "bytes_read": 400,
        "bytes_written": 40,
        "messages": 0,
        "bytes_sent": 0,
        "clock_error": None,
        "energy_source": "measured",
        "joules": 15.0,
        "idle_joules": 5.0,
        "energy_note": None,
        "watts": 15 / 8,
        "gflops_per_watt": 10 / 15,
        "energy_delay": 120.0,
    }


def test_ready_tasks_and_progress_by_hand() -> None:
    run = four_tasks().run()
    times, counts = analysis.ready_over_time(run)
    assert times.tolist() == [0, 1, 3, 3.5, 7, 7.25]
    assert counts.tolist() == [1, 0, 1, 0, 1, 0]
    assert analysis.progress(run) == [(0, 1.0, 7.0, 3), (1, 7.25, 8.0, 1)]


def test_a_task_is_ready_no_later_than_it_starts() -> None:
    trace = four_tasks()
    trace.tables["tasks"]["ready"][3] += 1
    times, counts = analysis.ready_over_time(trace.run())
    assert times.tolist() == [0, 1, 3, 3.5, 7.25]
    assert counts.tolist() == [1, 0, 1, 0, 0]


def test_messages_are_counted_and_waiting_for_them_is_not_overhead() -> None:
    """Hand-scheduled: every task starts when its worker is free and its messages are there."""
    run = made(ranks=3).run()
    about = analysis.summary(run)
    assert (about.ranks, about.workers) == (3, 6)
    assert about.messages == run.messages.size > 0
    assert about.bytes_sent == 1000 * about.messages
    waited = run.tasks["ready"] < run.tasks["start"]
    assert (analysis.arrivals(run)[waited] > run.tasks["ready"][waited]).any()
    assert analysis.where_time_went(run)["overhead"] == 0.0
    without = dict(run.trace.tables, messages=empty("messages"))
    assert analysis.where_time_went(Trace(run.trace.header, without).run())["overhead"] > 1


def test_arrivals_of_the_right_tile_at_the_right_rank_in_time() -> None:
    trace = made(cholesky(2), ranks=2)
    run = trace.run()
    # potrf(0,0) on rank 0, trsm(1,0) on 1, syrk(1,1) on 0, potrf(1,1) on 1
    begin = run.begin
    arrived = (analysis.arrivals(run) - begin).tolist()
    assert arrived == [-np.inf, 1.5, 3.0, 4.5]
    messages = trace.tables["messages"]
    for column, value in (("i", 7), ("destination", 5), ("matrix", -1), ("end", begin + 99)):
        changed = messages.copy()
        changed[column][0] = value
        other = Trace(trace.header, {**trace.tables, "messages": changed}).run()
        assert analysis.arrivals(other)[1] == -np.inf
    # a later version of the tile, still before the task: the last one counts
    later = np.concatenate([messages, messages[:1]])
    later["end"][-1] += 1 / 4
    later["end"][0] -= 1 / 4
    other = Trace(trace.header, {**trace.tables, "messages": later}).run()
    assert analysis.arrivals(other)[1] - begin == 1.25


# -- what is not known -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "energy",
    [
        {"source": "unavailable"},
        {"source": "unavailable", "joules": 3.0},
        {"source": "measured"},
        {"source": "measured", "joules": "3"},
        {"source": "measured", "joules": math.nan},
        {"source": "measured", "joules": 10**400},
        {"source": "measured", "joules": True},
        {"source": ["measured"], "joules": 3.0},
        {},
        None,
    ],
)
def test_energy_that_is_not_known_is_unavailable(energy: Any) -> None:
    about = analysis.summary(four_tasks(energy=energy).run())
    assert about.energy_source == "unavailable"
    figures = (about.joules, about.idle_joules, about.watts, about.gflops_per_watt)
    assert figures == (None, None, None, None)
    assert about.energy_delay is None


def test_joules_of_a_kernel_need_those_of_all_its_tasks() -> None:
    trace = four_tasks()
    trace.tables["tasks"]["joules"][1] = np.nan
    joules = {kernel.kernel: kernel.joules for kernel in analysis.by_kernel(trace.run())}
    assert joules == {"potrf": 1.0, "trsm": None, "syrk": 4.0}


def test_tasks_that_take_no_time_have_no_rate() -> None:
    trace = four_tasks(scales=(0.0,))
    about = analysis.summary(trace.run())
    assert (about.makespan, about.efficiency, about.gflops, about.watts) == (0, None, None, None)
    assert all(k.gflops is None and k.share is None for k in analysis.by_kernel(trace.run()))
    assert all(worker.busy_share is None for worker in analysis.by_worker(trace.run()))


def test_a_run_of_which_nothing_ran() -> None:
    trace = four_tasks(status="failed", error="LinAlgError: no")
    run = Trace(trace.header, {}).run()
    about = analysis.summary(run)
    assert (about.status, about.error) == ("failed", "LinAlgError: no")
    assert (about.submitted, about.tasks, about.makespan, about.bound) == (4, 0, 0.0, 0.0)
    assert analysis.by_kernel(run) == []
    assert analysis.progress(run) == []
    assert [array.size for array in analysis.ready_over_time(run)] == [0, 0]
    assert set(analysis.where_time_went(run).values()) == {0.0}
    assert len(analysis.by_worker(run)) == 2


def test_tasks_of_no_step_make_no_progress() -> None:
    trace = four_tasks()
    trace.tables["tasks"]["k"] = -1
    assert analysis.progress(trace.run()) == []


def test_a_worker_without_tasks_starves() -> None:
    worker = analysis.by_worker(four_tasks(workers=3).run())[2]
    assert (worker.tasks, worker.starvation, worker.idle, worker.idle_share) == (0, 8.0, 8.0, 1.0)
    assert (worker.busy, worker.overhead, worker.startup, worker.end) == (0, 0, 0, 0)


# -- the sums, of any run --------------------------------------------------------------------------


def check_sums(run: Run) -> None:
    parts = analysis.where_time_went(run)
    assert list(parts) == list(analysis.PARTS)
    assert all(seconds >= 0 for seconds in parts.values())
    assert sum(parts.values()) == pytest.approx(len(run.workers) * run.makespan, rel=1e-9)
    for worker in analysis.by_worker(run):
        assert worker.busy + worker.idle == pytest.approx(run.makespan, rel=1e-9)
        idle = worker.overhead + worker.startup + worker.starvation + worker.end
        assert worker.idle == pytest.approx(idle, rel=1e-9)


def reference(run: Run) -> dict[str, float]:
    """`where_time_went` of a run of one rank, one gap after the other."""
    parts = dict.fromkeys(analysis.PARTS, 0.0)
    for lane in range(len(run.workers)):
        mine = run.tasks[run.lanes == lane]
        free, first = run.begin, True
        for task in mine[np.argsort(mine["start"])]:
            could = min(max(free, task["ready"]), task["start"])
            parts["start-up" if first else "starvation"] += could - free
            parts["start-up" if first else "overhead"] += task["start"] - could
            parts["busy"] += task["end"] - task["start"]
            free, first = task["end"], False
        parts["end" if mine.size else "starvation"] += run.end - free
    return parts


@given(
    st.sampled_from([cholesky, lu]), st.integers(1, 5), st.integers(1, 9), st.integers(0, 2**32 - 1)
)
@settings(max_examples=40)
def test_parts_of_a_random_valid_schedule(program: Any, nt: int, workers: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    trace = made(program(nt), workers=workers)
    tasks, begin = trace.tables["tasks"], trace.header["runs"][0]["begin"]
    source, target = trace.run().edges
    free = np.full(workers, begin)
    for row in range(tasks.size):
        before = tasks["end"][source[target == row]]
        ready, worker = max(begin, before.max(initial=begin)), random.integers(workers)
        start = max(ready, free[worker]) + random.choice([0.0, random.exponential()])
        end = free[worker] = start + random.choice([0.0, random.exponential()])
        tasks["worker"][row], tasks["ready"][row] = worker, ready
        tasks["start"][row], tasks["end"][row] = start, end
    run = Trace(trace.header, trace.tables).run()
    check_sums(run)
    assert analysis.where_time_went(run) == pytest.approx(reference(run), rel=1e-9, abs=1e-9)
    about = analysis.summary(run)
    assert about.bound <= run.makespan * (1 + 1e-9)
    times, counts = analysis.ready_over_time(run)
    assert (np.diff(times) > 0).all()
    assert (counts >= 0).all()
    assert counts[-1] == 0
    waited = float((run.tasks["start"] - run.tasks["ready"]).sum())
    assert float((counts[:-1] * np.diff(times)).sum()) == pytest.approx(waited, abs=1e-9)


@given(st.integers(1, 3), st.integers(0, 2**32 - 1))
@settings(max_examples=25)
def test_parts_of_times_that_no_engine_would_write(ranks: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    trace = made(cholesky(3), ranks=ranks)
    tasks = trace.tables["tasks"]
    begin = trace.header["runs"][0]["begin"]
    # overlapping, before the begin, ready after the start
    for column in ("ready", "start", "end"):
        tasks[column] = begin + random.uniform(-5, 20, tasks.size)
    tasks["end"] = np.maximum(tasks["start"], tasks["end"])
    check_sums(Trace(trace.header, trace.tables).run())


def test_parts_of_runs_with_messages_and_of_a_real_one() -> None:
    for trace in (made(lu(4), ranks=2, repeats=2), made(workers=20), real(n=64)):
        for run in trace.runs:
            check_sums(run)


def test_kernels_add_up_to_a_real_run() -> None:
    run = real(n=96, nb=16).run()
    kernels = analysis.by_kernel(run)
    assert {kernel.kernel: kernel.tasks for kernel in kernels} == {
        "potrf": 6,
        "trsm": 15,
        "syrk": 15,
        "gemm": 20,
    }
    assert sum(kernel.time for kernel in kernels) == pytest.approx(run.durations.sum())
    assert sum(kernel.share or 0 for kernel in kernels) == pytest.approx(1)
    assert [kernel.time for kernel in kernels] == sorted((k.time for k in kernels), reverse=True)
    assert all(k.min <= k.q1 <= k.median <= k.q3 <= k.max for k in kernels)
    # measured, modelled or unavailable: whatever this machine has
    about = analysis.summary(run)
    joules = [kernel.joules for kernel in kernels]
    if about.joules is None or about.idle_joules is None:
        assert joules == [None] * 4
    else:
        shared = sum(value for value in joules if value is not None)
        assert shared + about.idle_joules == pytest.approx(about.joules)
