"""One trace of all ranks: tasks, messages and dependencies as they were, on one clock.

The programs are in `mpi_traces`.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_engine_mpi import mpirun
from test_exchange import MAPS, PROGRAMS, exchange, graph

from taskla.distributions import Distribution
from taskla.engines.mpi_clocks import Offset, aligned, offset
from taskla.engines.mpi_recording import job_graph
from taskla.operations import Access
from taskla.traces import Run, Trace, read
from taskla.traces.analysis import by_worker, summary
from taskla.traces.exports.shared import arrows

PROGRAMS_OF_RANKS = Path(__file__).with_name("mpi_traces.py")
pytestmark = pytest.mark.xdist_group("mpi")


def recorded(ranks: int, program: str, folder: Path) -> tuple[dict[str, Any], Trace]:
    """What a program prints, and the trace that it leaves."""
    file = folder / f"{program}.trace"
    done = mpirun(ranks, PROGRAMS_OF_RANKS, program, file, timeout=60)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-6000:]
    return json.loads(done.stdout.splitlines()[-1]), read(file)


@pytest.fixture(scope="module")
def on_ranks(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Path]:
    """Folder of what `several` leaves on so many ranks."""

    @cache
    def folder(ranks: int) -> Path:
        made = tmp_path_factory.mktemp("several")
        found, _ = recorded(ranks, "several", made)
        (made / "found.json").write_text(json.dumps(found), encoding="utf-8")
        return made

    return folder


@pytest.fixture(params=[2, 3, 4])
def several(
    request: pytest.FixtureRequest, on_ranks: Callable[[int], Path]
) -> tuple[int, dict[str, Any], Trace]:
    folder = on_ranks(request.param)
    found = json.loads((folder / "found.json").read_text(encoding="utf-8"))
    return request.param, found, read(folder / "several.trace")


@pytest.fixture
def file(on_ranks: Callable[[int], Path]) -> Path:
    return on_ranks(3) / "several.trace"


def error(run: Run) -> float:
    """By how much times of two ranks may be wrong against one another, in seconds."""
    return 2 * max(clock["error"] for clock in run.info["clock"]) + 1e-9


# -- what is recorded ------------------------------------------------------------------------------


def test_every_task_of_every_rank_is_there_once(
    several: tuple[int, dict[str, Any], Trace],
) -> None:
    ranks, _, trace = several
    # potrf twice, potrs, getrf, gemm
    assert len(trace) == 5
    for run in trace.runs:
        assert run.info["status"] == "completed"
        assert run.info["engine"] == "mpi"
        assert run.info["distribution"] == "2dbc"
        assert (run.info["ranks"], run.info["workers"]) == (ranks, 2)
        np.testing.assert_array_equal(run.tasks["task"], np.arange(run.info["tasks"]))
        assert run.tasks["tile_tasks"].sum() == run.info["tile_tasks"]
        assert set(run.tasks["rank"].tolist()) == set(range(ranks))
        assert len(run.workers) == 2 * ranks
        assert np.isfinite(run.tasks["joules"]).all()
    # repeats share a graph
    assert trace.runs[0].info["graph"] == trace.runs[1].info["graph"]
    assert len(trace.header["graphs"]) == 4


def test_a_task_is_on_the_rank_that_owns_what_it_writes(
    several: tuple[int, dict[str, Any], Trace],
) -> None:
    _, found, trace = several
    owners = np.array(found["owners"])
    tasks = trace.run(0).tasks
    np.testing.assert_array_equal(tasks["rank"], owners[tasks["i"], tasks["j"]])


def test_the_messages_are_those_that_the_engines_counted(
    several: tuple[int, dict[str, Any], Trace],
) -> None:
    _, found, trace = several
    messages = trace.tables["messages"]
    assert messages.size == found["messages"] > 0
    assert messages["bytes"].sum() == found["bytes"]
    assert (messages["source"] != messages["destination"]).all()


def test_nothing_is_before_its_cause(several: tuple[int, dict[str, Any], Trace]) -> None:
    ranks, _, trace = several
    for run in trace.runs:
        off = error(run)
        assert [clock["rank"] for clock in run.info["clock"]] == list(range(ranks))
        # on one machine; a clock that is off by more would be of no use
        assert off < 0.1
        assert run.info["shortest_message"] > -off
        source, target = run.edges
        assert (run.tasks["start"][target] - run.tasks["end"][source] > -off).all()
        sent = run.messages[run.messages["task"] >= 0]
        made = np.searchsorted(run.tasks["task"], sent["task"])
        assert (sent["start"] - run.tasks["end"][made] > -off).all()
        reader = arrows(run)[1][run.messages["task"] >= 0]
        assert (reader >= 0).all()
        assert (run.tasks["start"][reader] - sent["end"] > -off).all()


def test_dependencies_across_ranks_are_messages(
    several: tuple[int, dict[str, Any], Trace],
) -> None:
    for run in several[2].runs:
        source, target = run.edges
        rank = run.tasks["rank"]
        crossing = rank[source] != rank[target]
        # the solve reads a factor that is there from the begin
        assert crossing.any() or run.program == "potrs"
        edges = zip(source[crossing].tolist(), rank[target[crossing]].tolist(), strict=True)
        made = zip(run.messages["task"].tolist(), run.messages["destination"].tolist(), strict=True)
        # a task may make several tiles, and first contents are made by none
        assert set(edges) == {pair for pair in made if pair[0] >= 0}


def test_series_and_idle_shares_are_of_each_rank(
    several: tuple[int, dict[str, Any], Trace],
) -> None:
    ranks, _, trace = several
    run = trace.run(0)
    names = {series.name for series in run.series}
    assert names == {f"rank {rank} {what}" for rank in range(ranks) for what in ("memory", "ready")}
    figures = summary(run)
    assert (figures.ranks, figures.workers) == (ranks, 2 * ranks)
    for use in by_worker(run):
        mine = (run.tasks["rank"] == use.rank) & (run.tasks["worker"] == use.worker)
        assert use.idle == pytest.approx(run.makespan - run.durations[mine].sum())
        assert use.tasks == mine.sum()


def test_one_program_under_two_maps_is_two_graphs(tmp_path: Path) -> None:
    found, trace = recorded(2, "maps", tmp_path)
    assert len(trace.header["graphs"]) == 2
    assert [run.info["distribution"] for run in trace.runs] == ["row", "col"]
    assert trace.tables["messages"].size == found["messages"]
    for run in trace.runs:
        axis = "i" if run.info["distribution"] == "row" else "j"
        np.testing.assert_array_equal(run.tasks["rank"], run.tasks[axis] % 2)


def test_ranks_without_tasks_have_lanes(tmp_path: Path) -> None:
    found, trace = recorded(4, "few", tmp_path)
    # of an empty matrix there is nothing to run
    assert len(trace) == 2
    assert trace.tables["messages"].size == found["messages"]
    first, second = trace.runs
    assert set(first.tasks["rank"].tolist()) == {0, 1}
    assert set(second.tasks["rank"].tolist()) == {0}
    assert len(first.workers) == len(second.workers) == 8
    assert {use.idle_share for use in by_worker(second) if use.rank} == {1.0}


def test_a_run_that_failed_is_in_the_file(tmp_path: Path) -> None:
    found, trace = recorded(3, "indefinite", tmp_path)
    assert found["failed"] == 3
    failed, after = trace.runs
    assert failed.info["status"] == "failed"
    assert "NotPositiveDefiniteError" in failed.info["error"]
    assert 0 < failed.tasks.size < failed.info["tasks"]
    assert after.info["status"] == "completed"


# -- how it ends -----------------------------------------------------------------------------------


def test_a_rank_that_leaves_alone_ends_the_job(tmp_path: Path) -> None:
    done = mpirun(3, PROGRAMS_OF_RANKS, "alone", tmp_path / "alone.trace", timeout=40)
    assert done.returncode != 0
    assert "the first cause" in done.stderr


def test_all_ranks_hear_that_there_is_no_place_for_a_file(tmp_path: Path) -> None:
    done = mpirun(2, PROGRAMS_OF_RANKS, "unwritable", tmp_path, timeout=40)
    assert json.loads(done.stdout) == [["FileNotFoundError", "ValueError"]] * 2


def test_a_default_engine_writes_its_trace_at_the_end(tmp_path: Path) -> None:
    found, trace = recorded(2, "default", tmp_path)
    assert trace.tables["messages"].size == found["messages"]


def test_one_rank_records_what_threads_do(tmp_path: Path) -> None:
    found, trace = recorded(1, "several", tmp_path)
    assert (len(trace), found["messages"]) == (5, 0)
    assert {run.info["engine"] for run in trace.runs} == {"threads"}


# -- energy ----------------------------------------------------------------------------------------


def test_the_meters_of_a_machine_are_read_and_counted_once(tmp_path: Path) -> None:
    found, trace = recorded(3, "metered", tmp_path)
    assert found["readings"][1:] == [0, 0]
    assert found["recordings"] == 1
    (run,) = trace.runs
    assert run.parameters["op"] == "potrf"
    energy = run.info["energy"]
    # each reading but the first adds 5 J
    assert energy["joules"] == found["readings"][0] - 5 > 0
    assert [meter["name"] for meter in energy["meters"]] == ["rank 0 package-0"]
    assert np.nansum(run.tasks["joules"]) + energy["idle_joules"] == pytest.approx(energy["joules"])
    assert set(run.tasks["rank"][run.tasks["joules"] > 0].tolist()) == {0, 1, 2}


# -- clocks ----------------------------------------------------------------------------------------


def test_the_shortest_trip_tells_the_offset() -> None:
    # the clock is 10 s ahead; the second trip was the shortest, and its answer the slower half
    found = offset([0.0, 5.0, 9.0], [10.2, 15.1, 19.9], [1.0, 5.4, 10.0])
    assert found == (pytest.approx(5.2), pytest.approx(9.9), pytest.approx(0.2))
    assert abs(found.seconds - 10) <= found.error


@pytest.mark.parametrize(("asked", "answered"), [([], []), ([2.0], [1.0])])
def test_an_offset_needs_trips(asked: list[float], answered: list[float]) -> None:
    with pytest.raises(ValueError, match="a trip is needed"):
        offset(asked, asked, answered)


def test_between_two_measurements_the_offset_goes_on_evenly() -> None:
    # a clock that is 100 s ahead at 0, and 1 % too fast
    moments = np.array([0.0, 3.0, 10.0, np.nan])
    readings = 100 + 1.01 * moments
    first, last = Offset(0.0, 100.0, 0.0), Offset(10.0, 100.1, 0.0)
    np.testing.assert_allclose(aligned(readings, first, last), moments)
    np.testing.assert_allclose(aligned([107.0], first, first), [7.0])


def test_clocks_that_have_nothing_in_common_are_aligned(tmp_path: Path) -> None:
    found, trace = recorded(3, "skewed", tmp_path)
    seconds, off, truth, _ = found["off"]
    assert abs(seconds - truth) <= off
    for run in trace.runs:
        assert [round(clock["offset"] / 1000) for clock in run.info["clock"]] != [0, 0, 0]
        # the run lies between two measurements, each wrong by its error at most
        clock = run.info["clock"][1]
        assert abs(clock["drift"] - 1e-3) <= 5e-4 + 2 * clock["error"] / run.makespan
        assert 0 < run.makespan < 30
        assert run.info["shortest_message"] > -error(run)
        source, target = run.edges
        assert (run.tasks["start"][target] - run.tasks["end"][source] > -error(run)).all()


# -- the graph of all ranks ------------------------------------------------------------------------


@pytest.mark.parametrize("width", [1, 8])
@pytest.mark.parametrize("map_", MAPS, ids=str)
@pytest.mark.parametrize(
    ("algorithm", "shapes"), PROGRAMS, ids=lambda v: getattr(v, "__name__", "")
)
def test_the_graph_of_all_ranks_is_the_program(
    algorithm: Callable[..., None], shapes: list[tuple[int, int]], map_: Distribution, width: int
) -> None:
    found = exchange(graph(algorithm, shapes), map_)
    whole, place = found.graph, found.place
    job = job_graph(found, width)
    joined = job.graph
    np.testing.assert_array_equal(np.bincount(job.number_of), joined.multiplicity)
    np.testing.assert_array_equal(np.sort(np.concatenate(job.number)), np.arange(joined.n))
    np.testing.assert_allclose(joined.flops().sum(), whole.flops().sum())
    rank = np.zeros(joined.n, np.int64)
    for number, tasks in enumerate(job.number):
        rank[tasks] = number
    np.testing.assert_array_equal(rank[job.number_of], place)
    parts = [found.part(number, width).graph for number in range(map_.ranks)]
    assert joined.tiles.size == sum(part.tiles.size for part in parts)
    # a task has the tiles of its tile tasks
    assert {
        (int(job.number_of[task]), int(tile), int(mode))
        for task, tile, mode in zip(whole.task_of_access, whole.tiles, whole.modes, strict=True)
    } == set(
        zip(
            joined.task_of_access.tolist(),
            joined.tiles.tolist(),
            joined.modes.tolist(),
            strict=True,
        )
    )
    source, target = joined.edges()
    assert (source < target).all()
    crossing = rank[source] != rank[target]
    made = {
        (int(job.number_of[writer]), int(goes_to))
        for writer, goes_to in zip(found.writer, found.target, strict=True)
        if writer >= 0
    }
    # and waits for what comes in messages, and for nothing else of other ranks
    assert {
        (int(u), int(rank[v])) for u, v in zip(source[crossing], target[crossing], strict=True)
    } == made
    # what a task reads was made before it
    reached = closure(joined.n, source, target)
    before, after = (job.number_of[ends] for ends in whole.edges("raw"))
    for u, v in zip(before.tolist(), after.tolist(), strict=True):
        assert u == v or reached[u] >> v & 1
    # and tasks of one rank wait for one another only where one writes what the other touches
    touched: list[set[int]] = [set() for _ in range(joined.n)]
    written: list[set[int]] = [set() for _ in range(joined.n)]
    for task, tile, mode in zip(joined.task_of_access, joined.tiles, joined.modes, strict=True):
        touched[task].add(int(tile))
        if mode != Access.R:
            written[task].add(int(tile))
    for u, v in zip(source[~crossing].tolist(), target[~crossing].tolist(), strict=True):
        assert written[u] & touched[v] | touched[u] & written[v]


def closure(n: int, source: Any, target: Any) -> list[int]:
    """Of each task, the tasks that paths lead to, as bits."""
    reached = [0] * n
    for u, v in sorted(zip(source.tolist(), target.tolist(), strict=True), reverse=True):
        reached[u] |= 1 << v | reached[v]
    return reached


# -- what is made of it ----------------------------------------------------------------------------


def taskla(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "taskla", "trace", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize(
    "command",
    [
        ["info", "FILE"],
        ["summary", "FILE"],
        ["compare", "FILE", "FILE"],
        ["view", "FILE", "-o", "run.html"],
        ["view", "FILE", "-o", "run.png"],
        *(
            ["export", "FILE", "--to", form, "-o", f"to-{form}"]
            for form in ("paje", "perfetto", "otf2", "starpu-rec", "csv", "parquet")
        ),
    ],
    ids=lambda command: "-".join(command[:1] + command[3:4]),
)
def test_commands_take_the_file(command: list[str], file: Path, tmp_path: Path) -> None:
    pytest.importorskip("bokeh")
    pytest.importorskip("otf2")
    words = [str(file) if word == "FILE" else word for word in command]
    if "-o" in words:
        words[-1] = str(tmp_path / words[-1])
    done = taskla(*words)
    assert done.returncode == 0, done.stderr
    if words[0] == "summary":
        assert "workers 6, ranks 3" in done.stdout
        assert "clocks" in done.stdout


def test_messages_are_links_in_exports(file: Path, tmp_path: Path) -> None:
    messages = read(file).run(0).messages
    paje, perfetto = tmp_path / "run.trace", tmp_path / "run.json"
    assert taskla("export", file, "--run", "0", "--to", "paje", "-o", paje).returncode == 0
    assert taskla("export", file, "--run", "0", "--to", "perfetto", "-o", perfetto).returncode == 0
    lines = paje.read_text(encoding="utf-8").splitlines()
    assert sum(line.startswith("18 ") for line in lines) == messages.size
    assert sum(line.startswith("19 ") for line in lines) == messages.size
    events = json.loads(perfetto.read_text(encoding="utf-8"))["traceEvents"]
    made = (messages["task"] >= 0).sum()
    assert sum(event.get("cat") == "message" for event in events) == 2 * made
    assert {e["args"]["name"] for e in events if e["name"] == "process_name"} == {
        *(f"rank {rank}" for rank in range(3)),
        "potrf",
    }


def test_a_replay_of_several_ranks_is_refused(file: Path) -> None:
    done = taskla("replay", file)
    assert done.returncode == 2
    assert "3 ranks" in done.stderr
