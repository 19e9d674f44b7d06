"""One trace of the workers of a Dask cluster: tasks where they ran, Dask's transfers as messages.

One cluster of two worker processes serves all tests; `test_dask_trace_ends` has others.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from distributed import Client, wait

import taskla as tla
from taskla import programs
from taskla.algorithms.potrf import potrf
from taskla.coarsening import Coarse
from taskla.distributions import get
from taskla.energy import Meter, Source
from taskla.engines import dask_notes, dask_reports, dask_watch
from taskla.engines.dask import joined_tasks
from taskla.engines.dask_recording import workers_graph
from taskla.engines.threads import FUSE
from taskla.errors import NotPositiveDefiniteError
from taskla.machine import boot
from taskla.programs import Layout
from taskla.traces import Recorder, Run, Trace, read
from taskla.traces.analysis import summary
from taskla.traces.exports.shared import arrows

pytestmark = pytest.mark.xdist_group("dask")

PATIENCE = 60
N, NB = 600, 50


def spd(n: int = N, nb: int = NB, seed: int = 1) -> Any:
    return tla.TiledMatrix.random((n, n), nb=nb, kind="spd", uplo="lower", seed=seed)


def done(*matrices: Any) -> None:
    for matrix in matrices:
        wait(matrix.persist(), timeout=PATIENCE)


def coarse() -> Coarse:
    """What the program of `recorded` is for Dask."""
    graph = programs.program(potrf, (Layout(N, N, NB, np.dtype(float), "A"),), ("L",))
    return joined_tasks(graph, [get("col", 2)])


@pytest.fixture(scope="module")
def recorded(client: Client, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Cholesky factorisation, and a solve that finds the factor on the workers."""
    file = tmp_path_factory.mktemp("trace") / "run.trace"
    with tla.engine("dask", client=client, trace=file, energy="model"):
        A, B = spd(), tla.TiledMatrix.random((N, 80), nb=NB, seed=2)
        done(A, B)
        tla.potrf(A)
        L = A.persist()
        wait(L, timeout=PATIENCE)
        tla.potrs(A, B)
        done(B)
        del L
    return file


@pytest.fixture
def trace(recorded: Path) -> Trace:
    return read(recorded)


@pytest.fixture
def run(trace: Trace) -> Run:
    return trace.run(0)


# -- what is recorded ------------------------------------------------------------------------------


def test_every_task_of_the_program_is_there_once(trace: Trace, run: Run) -> None:
    program = coarse().program.graph
    assert [run.program for run in trace.runs] == ["potrf", "potrs"]
    for each in trace.runs:
        assert each.info["status"] == "completed"
        assert each.info["engine"] == "dask"
        assert (each.info["ranks"], each.info["workers"]) == (2, 1)
        assert each.info["rank_names"] == ["0", "1"]
        np.testing.assert_array_equal(each.tasks["task"], np.arange(each.info["tasks"]))
    assert run.info["distribution"] == "col"
    assert run.tasks["tile_tasks"].sum() == run.info["tile_tasks"] == program.n
    assert run.tasks["flops"].sum() == pytest.approx(program.flops().sum())
    found = run.graph()
    whole = workers_graph(coarse(), FUSE).graph
    for name in ("succ_ptr", "succ", "indptr", "tiles", "modes", "iteration"):
        np.testing.assert_array_equal(getattr(found, name), getattr(whole, name), err_msg=name)


def test_a_task_is_on_the_worker_that_owns_what_it_writes(run: Run) -> None:
    columns = {
        (column % 2, rank)
        for column, rank in zip(run.tasks["j"].tolist(), run.tasks["rank"].tolist(), strict=True)
    }
    # the cluster, not the name of a worker, says which of the two has the even columns
    assert columns in ({(0, 0), (1, 1)}, {(0, 1), (1, 0)})


def test_times_are_in_order(trace: Trace) -> None:
    for run in trace.runs:
        assert run.info["submitted"] < run.begin < run.end <= run.info["end"]
        assert (run.tasks["start"] >= run.begin).all()
        assert (run.tasks["start"] < run.tasks["end"]).all()
        source, target = run.edges
        assert source.size
        assert (run.tasks["end"][source] <= run.tasks["start"][target]).all()
    # workers have one thread each: nothing is at the same time, of both runs
    tasks = np.sort(trace.tables["tasks"], order="start")
    for rank in (0, 1):
        mine = tasks[tasks["rank"] == rank]
        assert mine.size
        assert (mine["worker"] == 0).all()
        assert (mine["end"][:-1] <= mine["start"][1:]).all()


def test_transfers_are_messages(run: Run) -> None:
    messages, tasks = run.messages, run.tasks
    assert messages.size
    assert (messages["bytes"] >= NB * NB * 8).all()
    assert (messages["source"] != messages["destination"]).all()
    assert (messages["start"] <= messages["end"]).all()
    assert (tasks["rank"][messages["task"]] == messages["source"]).all()
    readers = arrows(run)[1]
    assert (tasks["rank"][readers] == messages["destination"]).all()
    # one for each joined task that another worker has a dependency on
    made = {
        (joined, int(message["destination"]))
        for message in messages
        for joined, numbers in enumerate(workers_graph(coarse(), FUSE).number)
        if message["task"] in numbers
    }
    source, target = run.edges
    crossing = tasks["rank"][source] != tasks["rank"][target]
    needed = {
        (joined, int(tasks["rank"][reader]))
        for writer, reader in zip(source[crossing], target[crossing], strict=True)
        for joined, numbers in enumerate(workers_graph(coarse(), FUSE).number)
        if writer in numbers
    }
    assert made == needed


def test_what_a_program_finds_is_a_first_content(trace: Trace) -> None:
    messages = trace.run(1).messages
    # the factor is on both workers, the right-hand side is one tile column or two
    first = messages[messages["task"] < 0]
    assert first.size
    assert (first["bytes"] > 0).all()


def test_workers_are_in_the_header_and_their_memory_is_sampled(run: Run) -> None:
    # of one machine the processes have one clock
    assert [clock["rank"] for clock in run.info["clock"]] == [0, 1]
    assert summary(run).clock_error == 0
    memory = {series.name: series for series in run.series}
    assert set(memory) == {"rank 0 memory", "rank 1 memory"}
    assert all((series.value > 2**20).all() for series in memory.values())


def test_a_model_charges_tasks(run: Run) -> None:
    energy = run.info["energy"]
    assert energy["source"] == "modelled"
    assert run.tasks["joules"].sum() + energy["idle_joules"] == pytest.approx(energy["joules"])


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("info",), "dask"),
        (("summary", "--run", "0"), "clocks"),
        (("view", "--run", "0", "-o", "run.html"), "run.html"),
        (("view", "--run", "0", "-o", "run.png"), "run.png"),
        (("export", "--to", "paje", "-o", "run.paje"), "paje"),
    ],
    ids=lambda value: value[0] + value[-1][-5:] if isinstance(value, tuple) else "",
)
def test_the_commands_take_it(
    recorded: Path, tmp_path: Path, arguments: tuple[str, ...], word: str
) -> None:
    command, *options = arguments
    found = subprocess.run(
        [sys.executable, "-m", "taskla", "trace", command, str(recorded), *options],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert found.returncode == 0, found.stderr
    assert word in found.stdout


# -- which programs, and how they end --------------------------------------------------------------


def books() -> int:
    return len(dask_notes.books)


def test_nothing_is_noted_when_it_is_off(client: Client, tmp_path: Path) -> None:
    with tla.engine("dask", client=client) as engine:
        assert engine.journal is None
        A = spd(100)
        tla.potrf(A)
        assert set(client.run(books).values()) == {0}
        done(A)
    with tla.engine("dask", client=client, trace=tmp_path / "run.trace"):
        B = spd(100)
        tla.potrf(B)
        assert set(client.run(books).values()) == {1}
    assert set(client.run(books).values()) == {0}
    # what is left of a program is computed without anybody to note it
    B.compute()
    assert len(read(tmp_path / "run.trace")) == 0


def test_a_recorder_has_runs_as_they_end(client: Client) -> None:
    recorder = Recorder()
    before = time.perf_counter()
    with tla.engine("dask", client=client, trace=recorder, energy="off", fuse=1):
        assert len(recorder.trace()) == 0
        for repeat in range(2):
            recorder.context = {"repeat": repeat}
            A = spd(200)
            tla.potrf(A)
            A.compute()
            del A
            assert len(recorder.trace()) == repeat + 1
        # what is never computed never ran
        tla.potrf(spd(150))
    after = time.perf_counter()
    found = recorder.trace()
    assert [run.info["repeat"] for run in found.runs] == [0, 1]
    assert found.runs[0].info["graph"] == found.runs[1].info["graph"]
    assert found.runs[0].end <= found.runs[1].begin
    assert sum(run.makespan for run in found.runs) < after - before
    for run in found.runs:
        assert run.info["energy"] == {"source": "unavailable", "reason": "switched off"}
        assert (run.tasks["tile_tasks"] == 1).all()


def test_a_part_of_a_program_is_a_run(client: Client) -> None:
    recorder = Recorder()
    with tla.engine("dask", client=client, trace=recorder):
        A = spd(300)
        tla.potrf(A)
        A.block(0, 0)
        (run,) = recorder.trace().runs
        assert run.info["status"] == "completed"
        assert 0 < run.tasks.size < run.info["tasks"]
        A.compute()
    (run,) = recorder.trace().runs
    assert run.tasks.size == run.info["tasks"]


def test_a_program_that_failed_is_in_the_file(client: Client, tmp_path: Path) -> None:
    file = tmp_path / "failed.trace"
    a = np.eye(300) * 4
    a[170, 170] = -1
    with tla.engine("dask", client=client, trace=file, energy="off"):
        A = tla.TiledMatrix.from_array(a, nb=50, uplo="lower")
        tla.potrf(A)
        with pytest.raises(NotPositiveDefiniteError, match="171-th"):
            A.compute()
        B = spd(100)
        tla.potrf(B)
        done(B)
    failed, after = read(file).runs
    assert failed.info["status"] == "failed"
    assert "NotPositiveDefiniteError: 171-th leading minor" in failed.info["error"]
    assert "in task potrf on tile A(3, 3)" in failed.info["error"]
    assert 0 < failed.tasks.size < failed.info["tasks"]
    panels = failed.tasks["kernel"] == failed.kernels.index("potrf")
    assert failed.tasks["i"][panels].max() == 3
    assert after.info["status"] == "completed"


def test_one_that_was_left_is_interrupted(client: Client) -> None:
    recorder = Recorder()

    def leave() -> None:
        with tla.engine("dask", client=client, trace=recorder, energy="off"):
            A = spd(300, seed=5)
            tla.potrf(A)
            A.block(0, 0)
            raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        leave()
    (run,) = recorder.trace().runs
    assert (run.info["status"], run.info["error"]) == ("interrupted", "RuntimeError: enough")


# -- energy and clocks -----------------------------------------------------------------------------


METERS = dask_reports._meters


class Counter(Meter):
    """5 J with each reading."""

    readings = 0

    def read(self) -> float:
        Counter.readings += 1
        return 5.0 * Counter.readings


def with_meters() -> None:
    dask_reports._meters = lambda: Source((Counter("package-0", "package"),), None)


def as_before() -> int:
    """Undo what `with_meters` and `elsewhere` do; return how often the counter was read."""
    readings, Counter.readings = Counter.readings, 0
    dask_reports._meters, dask_reports.boot = METERS, boot
    for module in (dask_notes, dask_reports, dask_watch):
        module.clock = time.perf_counter  # type: ignore[attr-defined]
    return readings


def test_the_meters_of_a_machine_are_read_by_one_process(client: Client) -> None:
    recorder = Recorder()
    client.run(with_meters)
    try:
        with tla.engine("dask", client=client, trace=recorder):
            A = spd(seed=3)
            tla.potrf(A)
            done(A)
    finally:
        readings = sorted(client.run(as_before).values())
    assert readings[0] == 0 < readings[1]
    run = recorder.trace().run()
    energy = run.info["energy"]
    assert energy["source"] == "measured"
    assert 0 < energy["joules"] <= 5 * readings[1]
    assert [meter["name"] for meter in energy["meters"]] == ["rank 0 package-0"]
    assert np.nansum(run.tasks["joules"]) + energy["idle_joules"] == pytest.approx(energy["joules"])
    assert set(run.tasks["rank"][run.tasks["joules"] > 0].tolist()) == {0, 1}
    (joules,) = (series for series in run.series if series.kind == "energy")
    assert joules.value[-1] == pytest.approx(energy["joules"])


def elsewhere(ahead: float) -> None:
    """Let this worker seem to be on a machine of its own, whose clock is ahead."""
    dask_reports.boot = lambda: f"machine {os.getpid()}"
    for module in (dask_notes, dask_reports, dask_watch):
        module.clock = lambda: time.perf_counter() + ahead  # type: ignore[attr-defined]


def test_clocks_of_other_machines_are_aligned(client: Client) -> None:
    recorder = Recorder()
    for ahead, worker in enumerate(sorted(client.nthreads()), start=1):
        client.run(elsewhere, 1000.0 * ahead, workers=[worker])
    try:
        before = time.perf_counter()
        with tla.engine("dask", client=client, trace=recorder, energy="model"):
            A = spd(seed=4)
            tla.potrf(A)
            done(A)
        after = time.perf_counter()
    finally:
        client.run(as_before)
    run = recorder.trace().run()
    clocks = run.info["clock"]
    assert {round(clock["offset"] / 1000) for clock in clocks} == {1, 2}
    off = summary(run).clock_error
    assert off is not None
    assert 0 < off < 1
    assert run.makespan < after - before + off
    source, target = run.edges
    assert (run.tasks["start"][target] - run.tasks["end"][source] > -off).all()
    assert run.info["energy"]["source"] == "modelled"
