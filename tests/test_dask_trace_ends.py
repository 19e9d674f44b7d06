"""Traces of Dask clusters that change or end, and what a worker keeps until it is asked.

Each test has a cluster of its own, or none; programs are in `dask_traces`.
"""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from distributed import Client, LocalCluster, wait

import taskla as tla
from taskla.distributions import Distribution, get
from taskla.engines import dask_notes, dask_watch
from taskla.engines.dask import joined_tasks
from taskla.engines.dask_notes import Book, Noted
from taskla.engines.dask_recording import workers_graph
from taskla.engines.dask_reports import topic
from taskla.engines.dask_watch import Watch
from taskla.traces import Recorder, read

pytestmark = pytest.mark.xdist_group("dask")

OWN = Path(__file__).with_name("dask_traces.py")
PATIENCE = 60


def spd(n: int = 600, nb: int = 50) -> tla.TiledMatrix:
    return tla.TiledMatrix.random((n, n), nb=nb, kind="spd", uplo="lower", seed=1)


def test_threads_of_a_worker_have_lanes() -> None:
    recorder = Recorder()
    with (
        LocalCluster(
            n_workers=1, threads_per_worker=3, host="127.0.0.1", dashboard_address="127.0.0.1:0"
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
        tla.engine("dask", client=client, trace=recorder, fuse=1),
    ):
        A = spd(600)
        tla.potrf(A)
        wait(A.persist(), timeout=PATIENCE)
    run = recorder.trace().run()
    assert run.info["workers"] == 3
    assert len(run.workers) >= 3
    assert set(run.tasks["worker"].tolist()) > {0}
    assert run.messages.size == 0
    for lane in range(len(run.workers)):
        mine = np.sort(run.tasks[run.lanes == lane], order="start")
        assert (mine["end"][:-1] <= mine["start"][1:]).all()


@pytest.mark.parametrize("name", ["own", "left", "default"])
def test_the_file_is_written_before_the_engines_cluster_goes(name: str, tmp_path: Path) -> None:
    file = tmp_path / "run.trace"
    found = subprocess.run(
        [sys.executable, "-W", "error", str(OWN), name, str(file)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert found.returncode == 0, found.stdout + found.stderr
    (run,) = read(file).runs
    assert run.info["status"] == "completed"
    assert run.tasks.size == run.info["tasks"]


def test_a_worker_that_leaves_hands_over_what_it_noted() -> None:
    recorder = Recorder()
    with (
        LocalCluster(
            n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address="127.0.0.1:0"
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
        tla.engine("dask", client=client, trace=recorder) as engine,
    ):
        A = spd()
        tla.potrf(A)
        L = A.persist()
        wait(L, timeout=PATIENCE)
        arrived = threading.Event()
        client.subscribe_topic(topic(engine.journal.name), lambda _: arrived.set())
        leaver = sorted(client.nthreads())[0]
        client.retire_workers([leaver])
        assert arrived.wait(PATIENCE)
        assert len(client.nthreads()) == 1
        assert leaver not in client.nthreads()
    run = recorder.trace().run()
    assert run.info["status"] == "completed"
    assert run.tasks.size == run.info["tasks"]
    assert (run.info["ranks"], len(run.info["clock"])) == (2, 2)
    assert set(run.tasks["rank"].tolist()) == {0, 1}


def test_a_cluster_that_is_gone_is_said(tmp_path: Path) -> None:
    file = tmp_path / "run.trace"
    with LocalCluster(
        n_workers=1, threads_per_worker=1, host="127.0.0.1", dashboard_address="127.0.0.1:0"
    ) as cluster:
        client = Client(cluster, set_as_default=False)

        def lose() -> None:
            with tla.engine("dask", client=client, trace=file):
                tla.potrf(spd(100))
                client.close()

        with pytest.warns(RuntimeWarning, match="lacks what workers noted"):
            lose()
    assert len(read(file)) == 0


def test_what_is_not_allowed_is_said_before_a_cluster_starts(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="energy is 'auto'; it is for a trace"):
        tla.engine("dask", energy="auto")
    with pytest.raises(ValueError, match="energy is 'sun'"):
        tla.engine("dask", trace=tmp_path / "a.trace", energy="sun")
    with pytest.raises(FileNotFoundError):
        tla.engine("dask", trace=tmp_path / "nowhere" / "a.trace")


# -- on a worker -----------------------------------------------------------------------------------


def noted(number: int, tasks: int) -> Noted:
    times = np.zeros(tasks)
    return Noted("program", number, 0.0, 1.0, times, times, np.zeros(tasks, np.int32), None)


def test_notes_are_limited_and_the_oldest_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dask_notes, "MOST", 10)
    book = Book(Watch(None))
    for number in (0, 1, 0, 2):
        book.add(noted(number, 4))
    found, lost, _ = book.take()
    # the second note of task 0 took the place of its first, and was newer than that of task 1
    assert [note.number for note in found] == [0, 2]
    assert lost == {"program": 4}
    assert book.take() == ([], {}, [])


def test_samples_are_limited_and_get_fewer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dask_watch, "MOST", 8)
    series: tuple[list[float], list[float]] = [], []
    for value in range(30):
        dask_watch._add(series, float(value))
    assert len(series[0]) == len(series[1]) <= 8
    assert (series[1][0], series[1][-1]) == (0, 29)
    assert sorted(series[1]) == series[1]


@pytest.mark.parametrize("map_", [get("col", 2), get("row", 3), get("2dbc", 4)], ids=str)
@pytest.mark.parametrize("width", [1, 8])
def test_the_graph_of_all_workers_is_the_program(map_: Distribution, width: int) -> None:
    from test_exchange import PROGRAMS, graph

    for algorithm, shapes in PROGRAMS:
        whole = graph(algorithm, shapes)
        maps = [None if grid.scratch or grid.everywhere else map_ for grid in whole.grids]
        found = joined_tasks(whole, maps)
        program = found.program.graph
        workers = workers_graph(found, width)
        assert workers.graph.multiplicity.sum() == program.n
        assert workers.graph.flops().sum() == pytest.approx(program.flops().sum())
        source, target = workers.graph.edges()
        assert (source < target).all()
