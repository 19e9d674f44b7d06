"""Paje: read back by a small parser of its definitions, and by ViTE itself."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from made_traces import cholesky, lu, made, real

from taskla.traces import Trace
from taskla.traces.exports import get
from taskla.traces.pictures.palette import colour_of

Event = tuple[str, dict[str, str]]

TOKEN = re.compile(r'"([^"]*)"|(\S+)')


def parse(path: Path) -> list[Event]:
    """The lines after the header, each with its values by the fields of its definition."""
    events: list[Event] = []
    fields: dict[str, tuple[str, list[tuple[str, str]]]] = {}
    code = ""
    for line in path.read_text("utf-8").splitlines():
        if line.startswith("%EventDef"):
            _, name, code = line.split()
            assert code not in fields
            fields[code] = name, []
        elif line.startswith("%EndEventDef"):
            code = ""
        elif line.startswith("%"):
            assert code
            _, field, kind = line.split()
            fields[code][1].append((field, kind))
        else:
            number, *values = [quoted or plain for quoted, plain in TOKEN.findall(line)]
            name, declared = fields[number]
            event = dict(zip([field for field, _ in declared], values, strict=True))
            for field, kind in declared:
                read = {"int": int, "double": float, "date": float}.get(kind, str)
                read(event[field])
            events.append((name, event))
    return events


def of(events: list[Event], name: str) -> list[dict[str, str]]:
    return [event for kind, event in events if kind == name]


def check(events: list[Event]) -> None:
    """What a reader relies on: order, and that all that is named has been defined."""
    times = [float(event["Time"]) for _, event in events if "Time" in event]
    assert times == sorted(times)
    assert min(times) >= 0
    types = {"0"} | {e["Alias"] for kind, e in events if re.fullmatch(r"PajeDefine\w+Type", kind)}
    values = {event["Alias"]: event for event in of(events, "PajeDefineEntityValue")}
    assert {event["Type"] for event in values.values()} <= types
    for value in values.values():
        parts = [float(part) for part in value["Color"].split()]
        assert len(parts) == 3
        assert all(0 <= part <= 1 for part in parts)
    alive = {"0"}
    started: dict[str, dict[str, str]] = {}
    for kind, event in events:
        if kind == "PajeCreateContainer":
            assert event["Type"] in types
            assert event["Container"] in alive
            assert event["Alias"] not in alive
            alive.add(event["Alias"])
        elif kind == "PajeDestroyContainer":
            alive.remove(event["Name"])
        elif kind == "PajeSetState":
            assert event["Container"] in alive
            assert event["Value"] in values
        elif kind == "PajeSetVariable":
            assert {event["Container"]} <= alive
            assert event["Type"] in types
        elif kind == "PajeStartLink":
            assert event["StartContainer"] in alive
            assert event["Key"] not in started
            started[event["Key"]] = event
        elif kind == "PajeEndLink":
            assert event["EndContainer"] in alive
            begin = started.pop(event["Key"])
            assert float(begin["Time"]) <= float(event["Time"])
            assert (begin["Type"], begin["Value"]) == (event["Type"], event["Value"])
    assert not started
    assert alive == {"0"}


def export(trace: Trace, folder: Path, run: int | None = None) -> list[Event]:
    path = folder / "out.trace"
    get("paje")(trace, path, run)
    events = parse(path)
    check(events)
    return events


@pytest.mark.parametrize(
    "trace",
    [
        lambda: made(),
        lambda: made(ranks=3, repeats=2),
        lambda: made(lu(4), ranks=2, workers=3, joules=None),
        lambda: made(duration=lambda kernel: 0.0),
        real,
    ],
    ids=["one rank", "ranks", "lu", "no time", "real"],
)
def test_every_event_is_as_declared(trace: Callable[[], Trace], tmp_path: Path) -> None:
    recorded = trace()
    run = recorded.run()
    events = export(recorded, tmp_path)
    names = {event["Alias"]: event["Name"] for event in of(events, "PajeDefineEntityValue")}
    states = Counter(names[event["Value"]] for event in of(events, "PajeSetState"))
    del states["idle"]
    assert states == Counter(run.kernels[code] for code in run.tasks["kernel"].tolist())
    assert len(of(events, "PajeStartLink")) == run.messages.size


def test_states_are_the_times_of_the_tasks(tmp_path: Path) -> None:
    trace = made(ranks=2, repeats=3)
    for number in range(3):
        run = trace.run(number)
        busy = np.zeros(len(run.workers))
        lanes = {f"w{w.rank}_{w.worker}": at for at, w in enumerate(run.workers)}
        since: dict[str, tuple[float, str]] = {}
        for kind, event in export(trace, tmp_path, number):
            container = event.get("Container", event.get("Name", ""))
            if container not in lanes or kind not in ("PajeSetState", "PajeDestroyContainer"):
                continue
            begin, state = since.get(container, (0.0, "idle"))
            if state != "idle":
                busy[lanes[container]] += float(event["Time"]) - begin
            since[container] = float(event["Time"]), event.get("Value", "idle")
        expected = np.bincount(run.lanes, weights=run.durations, minlength=len(run.workers))
        np.testing.assert_allclose(busy, expected, atol=1e-7)


def test_a_worker_is_idle_between_tasks_only(tmp_path: Path) -> None:
    # a chain of four tasks of a second: one worker has no gap, two take turns
    for workers, idle in ((1, [0.0, 4.0]), (2, [0.0, 0.0, 1.0, 2.0, 3.0, 4.0])):
        trace = made(cholesky(2), workers=workers, duration=lambda kernel: 1.0)
        events = of(export(trace, tmp_path), "PajeSetState")
        found = [float(event["Time"]) for event in events if event["Value"] == "idle"]
        assert found == pytest.approx(idle)


def test_a_message_goes_from_the_worker_that_made_the_tile_to_the_one_that_reads_it(
    tmp_path: Path,
) -> None:
    # with one worker a rank there is no doubt about it
    trace = made(ranks=3, workers=1)
    run = trace.run()
    events = export(trace, tmp_path)
    found = [
        (s["StartContainer"], e["EndContainer"], s["Value"], float(s["Time"]), float(e["Time"]))
        for s, e in zip(
            sorted(of(events, "PajeStartLink"), key=lambda event: int(event["Key"][1:])),
            sorted(of(events, "PajeEndLink"), key=lambda event: int(event["Key"][1:])),
            strict=True,
        )
    ]
    assert len(found) == run.messages.size > 0
    for (start, end, value, begin, over), message in zip(found, run.messages, strict=True):
        assert (start, end) == (f"w{message['source']}_0", f"w{message['destination']}_0")
        assert value == "1000"
        assert (begin, over) == pytest.approx(
            (message["start"] - run.begin, message["end"] - run.begin), abs=1e-9
        )


def test_variables_are_power_energy_memory_and_ready_tasks(tmp_path: Path) -> None:
    trace = made(cholesky(3), workers=1)
    events = export(trace, tmp_path)
    names = {event["Alias"]: event["Name"] for event in of(events, "PajeDefineVariableType")}
    assert sorted(names.values()) == [
        "memory (B)",
        "package-0 energy (J)",
        "package-0 power (W)",
        "ready tasks (tasks)",
    ]
    values: dict[str, list[float]] = {}
    for event in of(events, "PajeSetVariable"):
        values.setdefault(names[event["Type"]], []).append(float(event["Value"]))
    assert set(values["package-0 power (W)"]) == {50.0}
    assert values["package-0 energy (J)"][:3] == [0.0, 50.0, 100.0]
    # potrf(0) starts at once; two trsm are then ready, one starts, at 2 the other; ...
    ready = values["ready tasks (tasks)"]
    assert ready[:2] == [0.0, 1.0]
    assert ready[-1] == 0.0
    assert min(ready) >= 0


def test_colours_are_those_of_all_pictures(tmp_path: Path) -> None:
    for event in of(export(made(), tmp_path), "PajeDefineEntityValue"):
        if event["Name"] != "idle":
            parts = [round(float(part) * 255) for part in event["Color"].split()]
            assert "#" + "".join(f"{part:02x}" for part in parts) == colour_of(event["Name"])


@given(name=st.text(min_size=1, max_size=30))
@settings(max_examples=100, deadline=None)
def test_any_name_is_one_field(name: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    trace = made(cholesky(2))
    trace.header["kernels"][0] = name
    trace.header["matrices"][0]["name"] = name
    events = export(trace, tmp_path_factory.mktemp("paje"))
    assert len(of(events, "PajeDefineEntityValue")) == 4


def test_a_file_is_replaced_and_a_folder_is_not(tmp_path: Path) -> None:
    path = tmp_path / "out.trace"
    path.write_text("old")
    get("paje")(made(), path, None)
    assert path.read_text().startswith("%EventDef")
    (tmp_path / "folder").mkdir()
    with pytest.raises(FileExistsError, match="is not a file"):
        get("paje")(made(), tmp_path / "folder", None)
    with pytest.raises(FileNotFoundError, match="no such folder"):
        get("paje")(made(), tmp_path / "none" / "out.trace", None)
    with pytest.raises(ValueError, match="run is 7"):
        get("paje")(made(), path, 7)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["folder", "out.trace"]


# -- ViTE ------------------------------------------------------------------------------------------

_CLEAN = "0 errors and 0 warnings were found during parsing."


@pytest.fixture(scope="module")
def vite() -> list[str]:
    missing = [name for name in ("vite", "xvfb-run") if shutil.which(name) is None]
    if missing:
        reason = f"{' and '.join(missing)} not found; tests/system-packages installs them"
        assert "CI" not in os.environ, reason
        pytest.skip(reason)
    return ["xvfb-run", "-a", "vite", "-f"]


def drawn(vite: list[str], path: Path) -> tuple[str, str]:
    """What ViTE says of a trace, and the picture that it makes of it."""
    picture = path.with_suffix(".svg")
    done: Any = subprocess.run(
        [*vite, path, "-e", picture],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
        cwd=path.parent,  # where it leaves a log
    )
    return done.stdout + done.stderr, picture.read_text()


@pytest.mark.parametrize("ranks", [1, 3])
def test_vite_draws_it_without_a_warning(vite: list[str], ranks: int, tmp_path: Path) -> None:
    trace = made(lu(4), ranks=ranks)
    trace.header["kernels"][-1] = 'odd "name"\nof two lines; é < > & %s \\'
    path = tmp_path / "t.trace"
    get("paje")(trace, path, None)
    said, picture = drawn(vite, path)
    assert _CLEAN in said
    run = trace.run()
    for code in np.unique(run.tasks["kernel"]).tolist():
        colour = colour_of(run.kernels[code])
        parts = [int(colour[at : at + 2], 16) for at in (1, 3, 5)]
        found = re.findall(r"<rect[^>]*fill=\"rgb\((\d+),\s*(\d+),\s*(\d+)\)", picture)
        near = [
            rgb
            for rgb in found
            if max(abs(int(a) - b) for a, b in zip(rgb, parts, strict=True)) <= 1
        ]
        assert len(near) >= (run.tasks["kernel"] == code).sum()
    assert picture.count("<polygon") >= run.messages.size


def test_vite_would_say_if_an_event_were_wrong(vite: list[str], tmp_path: Path) -> None:
    path = tmp_path / "t.trace"
    get("paje")(made(), path, None)
    path.write_text(path.read_text().replace("S w0_1 k1", "S w9_9 k1"))
    said, _ = drawn(vite, path)
    assert _CLEAN not in said
