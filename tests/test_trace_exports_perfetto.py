"""Perfetto: the structure of the events, as the Trace Event Format asks for it."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_traces import cholesky, lu, made, real

from taskla.traces import Trace
from taskla.traces.exports import get, perfetto

Events = list[dict[str, Any]]

TRACES = {
    "one rank": lambda: made(),
    "ranks": lambda: made(lu(4), ranks=3, repeats=2),
    "no energy": lambda: made(cholesky(3), joules=None),
    "no time": lambda: made(duration=lambda kernel: 0.0),
    # back to back, and not a whole number of nanoseconds long
    "odd times": lambda: made(workers=1, duration=lambda kernel: 2.6e-9),
    "real": real,
}


def export(trace: Trace, folder: Path, run: int | None = None) -> Events:
    path = folder / "out.json"
    get("perfetto")(trace, path, run)

    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is no JSON")

    found = json.loads(path.read_text("utf-8"), parse_constant=refuse)
    assert found["displayTimeUnit"] == "ms"
    events: Events = found["traceEvents"]
    for event in events:
        assert event["ph"] in "XCMsf"
        assert isinstance(event["name"], str)
        assert type(event["pid"]) is type(event["tid"]) is int
        assert isinstance(event["args"], dict)
        if event["ph"] != "M":
            assert event["ts"] >= 0
    return events


def of(events: Events, phase: str, category: str | None = None) -> Events:
    return [e for e in events if e["ph"] == phase and category in (None, e.get("cat"))]


def nanoseconds(microseconds: float) -> int:
    """Exact: what was written has three digits after the point."""
    assert microseconds * 1000 == pytest.approx(round(microseconds * 1000), abs=1e-3)
    return round(microseconds * 1000)


@pytest.mark.parametrize("trace", TRACES.values(), ids=TRACES)
def test_slices_are_the_tasks_one_after_another(trace: Callable[[], Trace], tmp_path: Path) -> None:
    run = trace().run()
    events = export(run.trace, tmp_path)
    slices = sorted(of(events, "X"), key=lambda event: event["args"]["task"])
    assert [event["args"]["task"] for event in slices] == run.tasks["task"].tolist()
    threads = defaultdict(list)
    for row, (event, task) in enumerate(zip(slices, run.tasks, strict=True)):
        assert (event["pid"], event["tid"]) == (task["rank"], task["worker"])
        assert event["ts"] == pytest.approx((task["start"] - run.begin) * 1e6, abs=1e-3)
        assert event["dur"] == pytest.approx((task["end"] - task["start"]) * 1e6, abs=2e-3)
        assert event["name"] == run.label(row)
        args = event["args"]
        assert args["kernel"] == event["cat"] == run.kernels[task["kernel"]]
        assert args["flops"] == task["flops"]
        assert (args["bytes_read"], args["bytes_written"]) == (
            task["bytes_read"],
            task["bytes_written"],
        )
        assert args["format"] == "fp64"
        assert args["joules"] == (None if np.isnan(task["joules"]) else task["joules"])
        mine = run.accesses[run.accesses["task"] == task["task"]]
        names = run.trace.names("matrices")
        assert args["tiles"] == [f"{names[a['matrix']]}({a['i']}, {a['j']})" for a in mine]
        begin = nanoseconds(event["ts"])
        threads[event["pid"], event["tid"]].append((begin, begin + nanoseconds(event["dur"])))
    for spans in threads.values():
        spans.sort()
        assert all(first[1] <= second[0] for first, second in pairwise(spans))


@pytest.mark.parametrize("trace", TRACES.values(), ids=TRACES)
def test_names_are_those_of_ranks_and_workers(trace: Callable[[], Trace], tmp_path: Path) -> None:
    run = trace().run()
    names = {
        (event["name"], event["pid"], event["tid"]): event["args"].get("name")
        for event in of(export(run.trace, tmp_path), "M")
    }
    for worker in run.workers:
        assert names["thread_name", worker.rank, worker.worker] == worker.name
        assert names["process_name", worker.rank, 0] == f"rank {worker.rank}"
    ranks = len({worker.rank for worker in run.workers})
    assert names["process_name", ranks, 0] == run.program


def within(event: dict[str, Any], slices: Events) -> int:
    """The task that an arrow's end belongs to: the slice around it, the only one."""
    found = [
        s["args"]["task"]
        for s in slices
        if (s["pid"], s["tid"]) == (event["pid"], event["tid"])
        and nanoseconds(s["ts"]) <= nanoseconds(event["ts"])
        and nanoseconds(event["ts"]) < nanoseconds(s["ts"]) + nanoseconds(s["dur"])
    ]
    assert len(found) == 1
    return int(found[0])


def pairs(events: Events, category: str) -> dict[int, tuple[dict[str, Any], dict[str, Any]]]:
    starts = {event["id"]: event for event in of(events, "s", category)}
    ends = {event["id"]: event for event in of(events, "f", category)}
    assert len(starts) == len(of(events, "s", category))
    assert starts.keys() == ends.keys()
    assert all(event["bp"] == "e" for event in ends.values())
    return {key: (starts[key], ends[key]) for key in starts}


def test_arrows_of_dependencies_are_the_edges(tmp_path: Path) -> None:
    run = made(lu(4), ranks=2).run()
    events = export(run.trace, tmp_path)
    found = pairs(events, "dependency")
    slices = of(events, "X")
    tasks = [(within(start, slices), within(end, slices)) for start, end in found.values()]
    assert sorted(tasks) == sorted(zip(*(end.tolist() for end in run.edges), strict=True))
    assert not found.keys() & pairs(events, "message").keys()


def test_arrows_of_messages_go_to_the_first_reader(tmp_path: Path) -> None:
    run = made(ranks=3).run()
    events = export(run.trace, tmp_path)
    slices = of(events, "X")
    found = pairs(events, "message")
    assert len(found) == run.messages.size > 0
    for number, message in enumerate(run.messages):
        start, end = found[number]
        assert within(start, slices) == message["task"]
        assert (start["pid"], end["pid"]) == (message["source"], message["destination"])
        assert start["args"]["bytes"] == 1000
        assert start["args"]["tile"] == f"A({message['i']}, {message['j']})"
        assert start["args"]["arrived"] - start["args"]["sent"] == pytest.approx(5e5)
        readers = run.edges[1][run.edges[0] == message["task"]]
        readers = readers[run.tasks["rank"][readers] == message["destination"]]
        first = run.tasks["start"][readers].min() - run.begin
        assert end["ts"] == pytest.approx(first * 1e6)
        assert within(end, slices) in run.tasks["task"][readers]


def test_messages_of_unknown_ends_have_no_arrow(tmp_path: Path) -> None:
    before = len(pairs(export(made(cholesky(3), ranks=2), tmp_path), "message"))
    trace = made(cholesky(3), ranks=2)
    trace.tables["messages"]["task"][0] = -1
    assert len(pairs(export(trace, tmp_path), "message")) == before - 1


def test_many_dependencies_are_not_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trace = made(ranks=2)
    edges = trace.run().edges[0].size
    monkeypatch.setattr(perfetto, "MOST_DEPENDENCIES", edges)
    assert len(pairs(export(trace, tmp_path), "dependency")) == edges
    monkeypatch.setattr(perfetto, "MOST_DEPENDENCIES", edges - 1)
    events = export(trace, tmp_path)
    assert not pairs(events, "dependency")
    assert pairs(events, "message")


def test_counters_are_the_samples(tmp_path: Path) -> None:
    run = made(cholesky(4)).run()
    counters = of(export(run.trace, tmp_path), "C")
    names = {
        ("package-0", "power"): "package-0 power",
        ("package-0", "energy"): "package-0 energy",
        ("memory", "memory"): "memory",
    }
    count = Counter(event["name"] for event in counters)
    for series in run.series:
        mine = [e for e in counters if e["name"] == names[series.name, series.kind]]
        assert len(mine) == series.value.size
        assert [event["args"] for event in mine] == [
            {series.unit: value} for value in series.value.tolist()
        ]
        times = [event["ts"] for event in mine]
        np.testing.assert_allclose(times, (series.time - run.begin) * 1e6, atol=1e-3)
    assert count["package-0 power"] > 0
    assert count["ready tasks"] > 0
    assert {event["pid"] for event in counters} == {1}


def test_any_name_is_a_string(tmp_path: Path) -> None:
    trace = made(cholesky(2))
    name = '"a\\\n\u2028</script>é\ud800'
    trace.header["kernels"][0] = name
    assert name in {event["cat"] for event in of(export(trace, tmp_path), "X")}


def test_a_file_is_replaced_and_a_folder_is_not(tmp_path: Path) -> None:
    export(made(cholesky(2)), tmp_path)
    assert len(of(export(made(cholesky(3)), tmp_path), "X")) == cholesky(3).n
    with pytest.raises(FileExistsError, match="is not a file"):
        get("perfetto")(made(), tmp_path, None)
    with pytest.raises(ValueError, match="run is 3"):
        export(made(), tmp_path, 3)
