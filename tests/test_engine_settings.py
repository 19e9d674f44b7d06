"""`tla.engine`, its options, and which engine is in force."""

from __future__ import annotations

import threading

import numpy as np
import pytest

import taskla as tla
from taskla import engines
from taskla.engines import available, base, cores, current
from taskla.engines.threads import ThreadsEngine


@pytest.fixture(autouse=True)
def _without_a_default(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(base, "_process_default", None)


def test_engine_is_in_force_inside_with():
    outer, inner = tla.engine("threads", workers=1), tla.engine(workers=2)
    with outer as entered:
        assert entered is current() is outer
        with inner, outer:
            assert current() is outer
        assert current() is outer
        with pytest.raises(ZeroDivisionError), inner:
            raise ZeroDivisionError
        assert current() is outer
    assert current() not in (inner, outer)


def test_the_default_setting_holds_wherever_no_with_is():
    chosen, other = tla.engine("threads", workers=3), tla.engine("threads", workers=1)
    chosen.set_default()
    seen = []
    with other:
        assert current() is other
        # A new thread is inside no `with` statement.
        thread = threading.Thread(target=lambda: seen.append(current()))
        thread.start()
        thread.join()
    assert [*seen, current()] == [chosen, chosen]


def test_without_a_setting_threads_run_with_default_options():
    engine = current()
    assert isinstance(engine, ThreadsEngine)
    assert engine is current()
    assert engine.workers == cores.cores()
    assert engine.policy.name == "lws"


@pytest.mark.parametrize("ranks", ["1", "2"])
def test_code_that_asks_for_no_engine_shares_nothing(
    monkeypatch: pytest.MonkeyPatch, ranks: str
) -> None:
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", ranks)
    monkeypatch.setenv("OMPI_COMM_WORLD_RANK", "0")
    assert current().name == "threads"


def test_a_launcher_of_several_ranks_decides_where_no_name_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = []
    monkeypatch.setattr(engines, "_load", lambda name: asked.append(name) or ThreadsEngine)
    monkeypatch.setenv("PMI_RANK", "0")
    for ranks in ("1", "2"):
        monkeypatch.setenv("PMI_SIZE", ranks)
        tla.engine()
        tla.engine("threads")
    assert asked == ["threads", "threads", "mpi", "threads"]


def test_an_engine_is_one_rank_unless_it_has_more():
    engine = tla.engine("threads")
    assert (engine.rank, engine.ranks) == (0, 1)
    assert engine.share([0.1, "text"]) == [[0.1, "text"]]


def test_available_lists_the_engines():
    lines = available()
    assert list(lines) == ["threads", "mpi", "dask"]
    assert all(line.endswith(".") for line in lines.values())


def test_repr_shows_the_settings():
    text = "ThreadsEngine(workers=2, policy='prio', fuse=1, progress=False)"
    assert repr(tla.engine("threads", workers=2, policy="prio", fuse=1, progress=False)) == text


@pytest.mark.parametrize(
    ("name", "options", "error", "message"),
    [
        ("cuda", {"comm": None}, ValueError, "'cuda' does not exist; there are threads, mpi, dask"),
        ("threads", {"trace": "no/x.trace"}, FileNotFoundError, "no: no such folder"),
        ("threads", {"worker": 2}, TypeError, "engine 'threads' has no option 'worker'"),
        ("threads", {"workers": 0}, ValueError, "workers is 0; it must be an integer of at least"),
        ("threads", {"workers": -1}, ValueError, "workers is -1"),
        ("threads", {"workers": 2.0}, ValueError, "workers is 2.0"),
        ("threads", {"workers": True}, ValueError, "workers is True"),
        ("threads", {"workers": "2"}, ValueError, "workers is '2'"),
        ("threads", {"fuse": 0}, ValueError, "fuse is 0; it must be an integer of at least 1"),
        ("threads", {"policy": "fifo"}, ValueError, "policy 'fifo' does not exist; there are"),
        ("threads", {"policy": 1}, TypeError, "policy is 1"),
        ("threads", {"progress": "yes"}, ValueError, "progress is 'yes'; it must be True, False"),
    ],
)
def test_wrong_settings_are_named(name, options, error, message):
    with pytest.raises(error, match=message):
        tla.engine(name, **options)


def test_workers_may_be_a_numpy_integer():
    assert tla.engine("threads", workers=np.int32(2)).workers == 2


# -- cores -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        # version 2: a quota in microseconds and its period, "max" for none
        ({"proc/self/cgroup": "0::/", "sys/fs/cgroup/cpu.max": "150000 100000"}, 2),
        ({"proc/self/cgroup": "0::/", "sys/fs/cgroup/cpu.max": "max 100000"}, 8),
        ({"proc/self/cgroup": "0::/", "sys/fs/cgroup/cpu.max": "1000 100000"}, 1),
        # the limit of a group above holds too
        (
            {
                "proc/self/cgroup": "0::/a/b",
                "sys/fs/cgroup/a/b/cpu.max": "600000 100000",
                "sys/fs/cgroup/a/cpu.max": "500000 100000",
            },
            5,
        ),
        # version 1, as the controllers are mounted, and in a container that sees the host's path
        (
            {
                "proc/self/cgroup": "3:memory:/x\n2:cpu,cpuacct:/job\n",
                "sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_quota_us": "250000",
                "sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_period_us": "100000",
            },
            3,
        ),
        (
            {
                "proc/self/cgroup": "2:cpuacct,cpu:/docker/0123",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "400000",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
            },
            4,
        ),
        (
            {
                "proc/self/cgroup": "1:cpu:/",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
            },
            8,
        ),
        # a quota of more than the affinity mask has, no cgroups, and what nobody understands
        ({"proc/self/cgroup": "0::/", "sys/fs/cgroup/cpu.max": "1600000 100000"}, 8),
        ({}, 8),
        ({"proc/self/cgroup": "0::/", "sys/fs/cgroup/cpu.max": "what"}, 8),
    ],
)
def test_cores_that_this_process_may_use(files, expected, tmp_path, monkeypatch):
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(8)), raising=False)
    assert cores.cores(tmp_path) == expected
