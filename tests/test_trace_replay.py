"""`replay` and `taskla trace replay`: recorded runs with another policy, on other workers."""

from __future__ import annotations

import csv
import json
import math
import sys
from importlib.metadata import EntryPoint
from io import StringIO
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from made_traces import cholesky, lu, made, real

from taskla import schedulers
from taskla.cli import main
from taskla.engines import replay as replay_module
from taskla.engines.replay import replay, resampled
from taskla.engines.simulation import simulate
from taskla.schedulers.eager import Eager
from taskla.traces import Trace, read, write

KEYS = ["policy", "workers", "makespan", "efficiency", "bounds", "idle"]
OWN = ("eager", "prio", "lws")


class Fifo(Eager):
    """Another's policy, first in first out."""

    name = "fifo"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "made.trace"
    write(made(cholesky(4)), path)
    return path


def run(file: Path, line: str = "") -> Result:
    return CliRunner().invoke(main, ["trace", "replay", str(file), *line.split()])


def rows(file: Path, line: str = "") -> list[dict[str, Any]]:
    result = run(file, line + " --json")
    assert result.exit_code == 0, result.stderr
    return [json.loads(text) for text in result.stdout.splitlines()]


# -- rows ------------------------------------------------------------------------------------------


def test_rows_by_hand() -> None:
    """Cholesky of 2 x 2 tiles is a chain: potrf, trsm, syrk, potrf of 1 second each."""
    found = replay(made(cholesky(2)).run(), ["prio"], [1, 4])
    assert found.rows == [
        {
            "policy": "prio",
            "workers": workers,
            "makespan": 4.0,
            "efficiency": 1 / workers,
            "bounds": {"critical_path": 4.0, "area": 4.0 / workers},
            "idle": 4.0 * (workers - 1),
        }
        for workers in (1, 4)
    ]
    assert list(found.rows[0]) == KEYS


@pytest.mark.parametrize("durations", ["task", "kernel"])
def test_rows_agree_with_schedules(durations: str) -> None:
    run = real(n=96, nb=16).run()
    found = replay(run, OWN, [1, 2, 5], durations=durations, seed=3)
    assert [(row["policy"], row["workers"]) for row in found.rows] == [
        (policy, workers) for policy in OWN for workers in (1, 2, 5)
    ]
    seconds = run.durations if durations == "task" else resampled(run, 3)
    total = math.fsum(seconds)
    for row, schedule in zip(found.rows, found.schedules, strict=True):
        np.testing.assert_allclose(schedule.end - schedule.start, seconds, rtol=0, atol=1e-12)
        assert row["makespan"] == schedule.makespan
        spent = row["workers"] * row["makespan"]
        assert row["efficiency"] == pytest.approx(total / spent, rel=1e-12)
        assert row["idle"] == pytest.approx(spent - total, abs=1e-12 * spent)
        assert row["bounds"]["area"] == pytest.approx(total / row["workers"], rel=1e-12)
        assert row["bounds"]["critical_path"] <= row["makespan"] * (1 + 1e-12)
        assert row["efficiency"] <= 1


def test_on_one_worker_it_lasts_the_sum_of_the_durations() -> None:
    trace = made(lu(5))
    for row in replay(trace.run(), OWN, [1]).rows:
        assert row["makespan"] == trace.run().durations.sum()
        assert row["efficiency"] == 1
        assert row["idle"] == 0


def test_rounding_makes_no_row_better_than_perfect() -> None:
    trace = made(lu(5))
    tasks = trace.tables["tasks"]
    for seed in range(30):
        tasks["end"] = tasks["start"] + np.random.default_rng(seed).random(tasks.size)
        (row,) = replay(Trace(trace.header, trace.tables).run(), ["eager"], [1]).rows
        assert 1 - 1e-12 < row["efficiency"] <= 1
        assert 0 <= row["idle"] < 1e-9


def test_the_schedule_is_that_of_the_graph_that_was_recorded() -> None:
    """Edges, priorities and order survive the way through a trace."""
    graph = cholesky(6)
    trace = made(graph)
    for policy in OWN:
        found = replay(trace.run(), [policy], [3])
        direct = simulate(graph, policy, 3, trace.run().durations)
        for mine, its in zip(found.schedules[0], direct, strict=True):
            assert mine.tolist() == its.tolist()


def test_a_compiled_replay_is_the_same() -> None:
    run = made(cholesky(6)).run()
    plain, compiled = (replay(run, OWN, [2, 3], compiled=c) for c in (False, True))
    assert plain.rows == compiled.rows
    with pytest.raises(ValueError, match=r"policy 'fifo' .* has no compiled twin"):
        replay(run, [Fifo()], [2], compiled=True)


def test_a_run_that_failed_is_replayed_as_far_as_it_came() -> None:
    trace = made(cholesky(5))
    info = {**trace.header["runs"][0], "status": "failed", "error": "ValueError: no"}
    ran = trace.tables["tasks"][trace.tables["tasks"]["task"] < 12]
    part = Trace({**trace.header, "runs": [info]}, {**trace.tables, "tasks": ran})
    found = replay(part.run(), ["eager"], [1])
    assert found.rows[0]["makespan"] == part.run().durations.sum()
    assert found.trace().run().info["status"] == "completed"
    assert found.trace().run().info["error"] is None


def test_tasks_that_take_no_time_leave_the_efficiency_open(tmp_path: Path) -> None:
    trace = made(cholesky(2), duration=lambda kernel: 0.0)
    (row,) = replay(trace.run(), ["eager"], [2]).rows
    assert row["makespan"] == row["idle"] == 0
    assert math.isnan(row["efficiency"])
    write(trace, tmp_path / "zero.trace")
    assert rows(tmp_path / "zero.trace", "--policy eager")[0]["efficiency"] is None


# -- durations by kernel ---------------------------------------------------------------------------


def test_durations_are_drawn_from_tasks_alike() -> None:
    trace = made(cholesky(8))
    tasks = trace.tables["tasks"]
    # the duration tells which task it is of
    tasks["end"] = tasks["start"] + (tasks["task"] + 1)
    # two of the gemms are larger than the others
    large = np.flatnonzero(tasks["kernel"] == trace.header["kernels"].index("gemm"))[[0, 5]]
    tasks["flops"][large] = 1e6
    run = trace.run()
    drawn = np.rint(resampled(run, 1)).astype(int) - 1
    assert (tasks["kernel"][drawn] == tasks["kernel"]).all()
    assert (tasks["flops"][drawn] == tasks["flops"]).all()
    gemm = np.flatnonzero(tasks["kernel"] == tasks["kernel"][large[0]])
    assert len(set(drawn[gemm])) > gemm.size / 3
    assert set(drawn[large]) <= set(large)


def test_a_seed_decides_what_is_drawn() -> None:
    trace = made(cholesky(6))
    trace.tables["tasks"]["end"] += np.arange(len(trace.tables["tasks"]))
    run = trace.run()
    makespans = [
        replay(run, ["prio"], [2], durations="kernel", seed=seed).rows[0]["makespan"]
        for seed in (1, 1, 2)
    ]
    assert makespans[0] == makespans[1] != makespans[2]
    # without a kernel of its own kind a task keeps its duration
    assert set(resampled(run, 4)) <= set(run.durations)


def test_all_simulated_runs_have_the_same_durations() -> None:
    trace = made(cholesky(6))
    trace.tables["tasks"]["end"] += np.arange(len(trace.tables["tasks"]))
    found = replay(trace.run(), OWN, [1, 3], durations="kernel")
    assert len({row["bounds"]["critical_path"] for row in found.rows}) == 1


# -- what is refused -------------------------------------------------------------------------------


def test_several_ranks_are_refused(tmp_path: Path) -> None:
    trace = made(cholesky(4), ranks=2)
    with pytest.raises(ValueError, match="has 2 ranks; a replay has all workers in one memory"):
        replay(trace.run(), ["eager"], [1])
    write(trace, tmp_path / "ranks.trace")
    assert run(tmp_path / "ranks.trace").exit_code == 2


def test_several_kinds_of_devices_are_refused() -> None:
    trace = made(cholesky(4))
    trace.header["devices"] = ["cpu", "cuda"]
    trace.tables["tasks"]["device"][3] = 1
    with pytest.raises(ValueError, match="has tasks on cpu, cuda; in a replay any worker runs any"):
        replay(trace.run(), ["eager"], [1])


def test_a_run_without_tasks_is_refused() -> None:
    trace = made(cholesky(4))
    trace.tables["tasks"] = trace.tables["tasks"][:0]
    with pytest.raises(ValueError, match="run 0 has no tasks"):
        replay(trace.run(), ["eager"], [1])


@pytest.mark.parametrize(
    ("line", "code", "message"),
    [
        ("--policy fifo", 2, "policy 'fifo' does not exist; there are eager, prio, lws"),
        ("--workers 0", 2, "0 is not allowed; it must be at least 1"),
        ("--workers 10001", 2, "workers is 10001; it must be from 1 to 10000"),
        ("--durations mean", 2, "'mean' is not one of 'task', 'kernel'"),
        ("--seed 3", 2, "--seed 3 goes with --durations kernel"),
        ("--run 9", 1, "run is 9; the trace has runs 0 to 0"),
        ("-o nowhere/out.trace", 1, "nowhere: no such folder"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(file: Path, line: str, code: int, message: str) -> None:
    result = run(file, line)
    assert result.exit_code == code
    assert result.stderr.startswith("Error: ")
    assert result.stderr.count("\n") == 1
    assert message in result.stderr
    assert result.stdout == ""


def test_durations_are_by_task_or_kernel() -> None:
    with pytest.raises(ValueError, match="durations is 'mean'; allowed: task, kernel"):
        replay(made().run(), ["eager"], [1], durations="mean")


# -- the command -----------------------------------------------------------------------------------


def test_json_has_these_keys(file: Path) -> None:
    found = rows(file, "--policy prio,lws --workers 1,2,4:5")
    assert [(row["policy"], row["workers"]) for row in found] == [
        (policy, workers) for policy in ("prio", "lws") for workers in (1, 2, 4, 5)
    ]
    for row in found:
        assert list(row) == KEYS
        assert list(row["bounds"]) == ["critical_path", "area"]
    assert found == replay(read(file).run(), ["prio", "lws"], [1, 2, 4, 5]).rows


def test_by_default_all_built_in_policies_on_the_workers_recorded(file: Path) -> None:
    assert [(row["policy"], row["workers"]) for row in rows(file)] == [(p, 2) for p in OWN]


def test_tables_have_a_column_a_bound(file: Path) -> None:
    columns = ["policy", "workers", "makespan", "efficiency", "critical_path", "area", "idle"]
    (row,) = rows(file, "--policy lws --workers 3")
    (line,) = csv.DictReader(StringIO(run(file, "--policy lws --workers 3 --csv").stdout))
    assert list(line) == columns
    assert float(line["area"]) == row["bounds"]["area"]
    assert float(line["critical_path"]) == row["bounds"]["critical_path"]
    assert float(line["idle"]) == row["idle"]
    assert run(file, "--policy lws").stdout.splitlines()[0].split() == columns


def test_a_run_is_chosen(tmp_path: Path) -> None:
    file = tmp_path / "repeats.trace"
    trace = made(cholesky(4), repeats=3)
    write(trace, file)
    for number in range(3):
        (row,) = rows(file, f"--policy eager --workers 1 --run {number}")
        assert row["makespan"] == pytest.approx(trace.run(number).durations.sum())
    (row,) = rows(file, "--policy eager --workers 1")
    assert row["makespan"] == pytest.approx(trace.run(1).durations.sum())


def test_a_seed_is_taken(file: Path) -> None:
    trace = read(file)
    trace.tables["tasks"]["end"] += np.arange(len(trace.tables["tasks"]))
    write(trace, file)
    (row,) = rows(file, "--policy eager --durations kernel --seed 5")
    expected = replay(trace.run(), ["eager"], [2], durations="kernel", seed=5).rows[0]
    assert row["makespan"] == expected["makespan"]
    (default,) = rows(file, "--policy eager --durations kernel")
    expected = replay(trace.run(), ["eager"], [2], durations="kernel", seed=0).rows[0]
    assert default["makespan"] == expected["makespan"] != row["makespan"]


def test_a_policy_of_another_package(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("another")
    module.Fifo = Fifo  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "another", module)
    entry = EntryPoint("fifo", "another:Fifo", schedulers.GROUP)
    monkeypatch.setattr(schedulers, "entry_points", lambda group: [entry])
    assert [row["policy"] for row in rows(file, "--policy fifo --workers 2,3")] == ["fifo"] * 2


# -- the trace of simulated runs -------------------------------------------------------------------


def test_simulated_runs_are_written_as_a_trace(file: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.trace"
    found = rows(file, f"--policy prio,lws --workers 1,3 -o {out}")
    trace = read(out)
    assert len(trace) == len(found) == 4
    recorded = read(file).run()
    for row, simulated in zip(found, trace.runs, strict=True):
        info = simulated.info
        assert (info["policy"], info["workers"]) == (row["policy"], row["workers"])
        assert (info["engine"], info["status"]) == ("simulation", "completed")
        assert info["energy"] == {"source": "unavailable"}
        assert info["program"] == recorded.program
        assert simulated.makespan == pytest.approx(row["makespan"], rel=1e-12)
        assert len(simulated.workers) == row["workers"]
        np.testing.assert_allclose(simulated.durations, recorded.durations, atol=1e-9)
        source, target = simulated.edges
        assert source.size == recorded.edges[0].size > 0
        assert (simulated.tasks["end"][source] <= simulated.tasks["start"][target] + 1e-9).all()


def test_a_simulated_run_replays_to_itself(file: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.trace"
    (row,) = rows(file, f"--policy lws --workers 2 -o {out}")
    assert rows(out, "--policy lws") == [row]


def test_no_rows_are_printed_when_nothing_can_be_written(file: Path, tmp_path: Path) -> None:
    result = run(file, f"-o {tmp_path}")
    assert result.exit_code != 0
    assert result.stdout == ""


def test_the_most_workers_are_a_trace_that_can_be_read(tmp_path: Path) -> None:
    found = replay(made(cholesky(2)).run(), ["lws"], [replay_module.MOST_WORKERS])
    write(found.trace(), tmp_path / "wide.trace")
    assert len(read(tmp_path / "wide.trace").run().workers) == replay_module.MOST_WORKERS
