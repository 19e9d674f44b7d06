"""OTF2: read back by the reader of the otf2 package."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_traces import cholesky, lu, made, real
from otf2 import events, reader

from taskla.traces import Trace
from taskla.traces.exports import get
from taskla.traces.exports.otf2 import TICKS

TRACES = {
    "one rank": lambda: made(),
    "ranks": lambda: made(lu(4), ranks=3, repeats=2),
    "no energy": lambda: made(cholesky(3), joules=None),
    "no time": lambda: made(duration=lambda kernel: 0.0),
    "real": real,
}

NAMES = {
    ("package-0", "power"): "package-0 power",
    ("package-0", "energy"): "package-0 energy",
    ("memory", "memory"): "memory",
}

Located = list[tuple[str, str, Any]]


def export(trace: Trace, folder: Path, run: int | None = None) -> tuple[Located, dict[str, Any]]:
    """Events with the names of their location group and location, and some of the definitions."""
    path = folder / "out"
    get("otf2")(trace, path, run)
    found: Located = []
    with reader.open(str(path / "traces.otf2")) as archive:
        for location, event in archive.events:
            found.append((location.group.name, location.name, event))
        definitions = archive.definitions
        about = {
            "resolution": definitions.clock_properties.timer_resolution,
            "regions": [region.name for region in definitions.regions],
            "locations": [(place.group.name, place.name) for place in definitions.locations],
            "metrics": {m.member.name: m.member.unit for m in definitions.metrics},
        }
    return found, about


def of(found: Located, kind: str) -> Located:
    return [entry for entry in found if type(entry[2]).__name__ == kind]


@pytest.mark.parametrize("trace", TRACES.values(), ids=TRACES)
def test_tasks_are_regions_of_their_workers(trace: Callable[[], Trace], tmp_path: Path) -> None:
    run = trace().run()
    found, about = export(run.trace, tmp_path)
    assert about["resolution"] == TICKS
    assert set(about["regions"]) == {run.kernels[code] for code in run.tasks["kernel"]}
    workers = {(f"rank {worker.rank}", worker.name) for worker in run.workers}
    assert workers <= set(about["locations"])
    row = {task: at for at, task in enumerate(run.tasks["task"].tolist())}
    matrices = run.trace.names("matrices")
    seen = []
    inside: dict[tuple[str, str], int] = {}
    for group, place, event in found:
        lane = group, place
        if isinstance(event, events.Enter):
            assert lane not in inside
            values = {attribute.name: value for attribute, value in event.attributes.items()}
            task = run.tasks[row[values["task"]]]
            assert lane == (
                f"rank {task['rank']}",
                run.workers[run.lanes[row[values["task"]]]].name,
            )
            assert event.region.name == run.kernels[task["kernel"]]
            for name in ("i", "j", "k", "flops", "bytes_read", "bytes_written"):
                assert values[name] == task[name]
            assert (values["matrix"], values["format"]) == (matrices[task["matrix"]], "fp64")
            assert values.get("joules") == (None if np.isnan(task["joules"]) else task["joules"])
            assert event.time == pytest.approx((task["start"] - run.begin) * TICKS, abs=1)
            inside[lane] = row[values["task"]]
        elif isinstance(event, events.Leave):
            task = run.tasks[inside.pop(lane)]
            assert event.region.name == run.kernels[task["kernel"]]
            assert event.time == pytest.approx((task["end"] - run.begin) * TICKS, abs=1)
            seen.append(int(task["task"]))
    assert not inside
    assert sorted(seen) == run.tasks["task"].tolist()


def test_messages_are_sent_and_received(tmp_path: Path) -> None:
    run = made(ranks=3).run()
    found, _ = export(run.trace, tmp_path)
    sent = {event.msg_tag: (group, event) for group, _, event in of(found, "MpiSend")}
    received = {event.msg_tag: (group, event) for group, _, event in of(found, "MpiRecv")}
    assert len(sent) == len(received) == run.messages.size > 0
    for tag, message in enumerate(run.messages):
        (source, start), (target, end) = sent[tag], received[tag]
        assert (source, target) == (f"rank {message['source']}", f"rank {message['destination']}")
        assert (start.receiver, end.sender) == (message["destination"], message["source"])
        assert start.msg_length == end.msg_length == 1000
        assert start.communicator.name == "messages"
        assert start.time == pytest.approx((message["start"] - run.begin) * TICKS, abs=1)
        assert end.time == pytest.approx((message["end"] - run.begin) * TICKS, abs=1)


def test_samples_are_metrics(tmp_path: Path) -> None:
    run = made(cholesky(4)).run()
    found, about = export(run.trace, tmp_path)
    assert about["metrics"] == {
        "package-0 power": "W",
        "package-0 energy": "J",
        "memory": "B",
        "ready tasks": "tasks",
    }
    for series in run.series:
        mine = [
            (event.time, event.values[0])
            for _, _, event in of(found, "Metric")
            if event.metric.member.name == NAMES[series.name, series.kind]
        ]
        assert [value for _, value in mine] == series.value.tolist()
        times = [time for time, _ in mine]
        np.testing.assert_allclose(times, (series.time - run.begin) * TICKS, atol=1)


def test_a_run_of_several(tmp_path: Path) -> None:
    trace = made(cholesky(3), repeats=3)
    for number in range(3):
        found, _ = export(trace, tmp_path, number)
        last = max(event.time for _, _, event in of(found, "Leave"))
        assert last == pytest.approx(trace.run(number).makespan * TICKS, abs=1)
    with pytest.raises(ValueError, match="run is 3"):
        get("otf2")(trace, tmp_path / "out", 3)


def test_any_name_is_a_region(tmp_path: Path) -> None:
    trace = made(cholesky(2))
    trace.header["kernels"][0] = 'a "b"\n\0é\ud800'
    _, about = export(trace, tmp_path)
    assert 'a "b"\n é?' in about["regions"]


def test_only_an_archive_is_replaced(tmp_path: Path) -> None:
    export(made(lu(3), ranks=3), tmp_path)
    found, _ = export(made(cholesky(2)), tmp_path)
    assert Counter(type(event).__name__ for *_, event in found)["Enter"] == cholesky(2).n
    (tmp_path / "out" / "traces" / "mine.txt").write_text("precious")
    with pytest.raises(FileExistsError, match=r"holds 'traces/mine\.txt'"):
        get("otf2")(made(), tmp_path / "out", None)
    assert (tmp_path / "out" / "traces" / "mine.txt").exists()
    assert [entry.name for entry in tmp_path.iterdir()] == ["out"]


def test_without_otf2_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "otf2", None)
    monkeypatch.setitem(sys.modules, "otf2.writer", None)
    with pytest.raises(ImportError, match=r"pip install 'taskla\[otf2\]'"):
        get("otf2")(made(), tmp_path / "out", None)
    assert not list(tmp_path.iterdir())
