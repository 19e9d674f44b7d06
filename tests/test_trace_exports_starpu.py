"""tasks.rec: read back field by field by a small parser of recutils' format, and by the import."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings, strategies as st
from made_traces import cholesky, lu, made, real

from taskla.traces import Run, Trace, read, write
from taskla.traces.exports import get
from taskla.traces.exports.starpu_import import read as read_starpu
from taskla.traces.tables import MODES

# As StarPU's starpu_fxt_tool writes them, in its order (src/debug/traces/starpu_fxt.c).
ORDER = (
    *("Name", "Model", "JobId", "SubmitOrder", "Priority", "DependsOn", "Tag", "WorkerId"),
    *("MemoryNode", "SubmitTime", "StartTime", "EndTime", "Footprint", "GFlop", "Iteration"),
    *("Parameters", "Handles", "Modes", "Sizes", "MPIRank"),
)


def parse(path: Path) -> list[dict[str, str]]:
    records: list[dict[str, str]] = [{}]
    for line in path.read_text("utf-8").splitlines():
        if not line:
            records.append({})
        else:
            name, _, value = line.partition(": ")
            assert name not in records[-1]
            records[-1][name] = value
    # the last task is followed by an empty line, too
    assert records.pop() == {}
    return records


def export(trace: Trace, folder: Path, run: int | None = None) -> Path:
    path = folder / "tasks.rec"
    get("starpu-rec")(trace, path, run)
    return path


@pytest.mark.parametrize(
    "trace", [lambda: made(), lambda: made(lu(3), ranks=3), real], ids=["one rank", "ranks", "real"]
)
def test_fields_are_those_of_the_tasks(trace: Callable[[], Trace], tmp_path: Path) -> None:
    run = trace().run()
    records = parse(export(run.trace, tmp_path))
    assert len(records) == run.tasks.size
    depends = {(int(a), int(b)) for a, b in run.tasks["task"][np.stack(run.edges, axis=1)]}
    found = set()
    for record, task in zip(records, run.tasks, strict=True):
        assert list(record) == [name for name in ORDER if name in record]
        assert record["Name"] == record["Model"] == run.kernels[task["kernel"]]
        assert int(record["JobId"]) == task["task"]
        assert int(record["SubmitOrder"]) == task["task"] + 1
        assert (int(record["WorkerId"]), int(record["MPIRank"])) == (task["worker"], task["rank"])
        for name, column in (("Submit", "submit"), ("Start", "start"), ("End", "end")):
            seconds = float(record[f"{name}Time"]) / 1000
            assert seconds == pytest.approx(max(task[column] - run.begin, 0), abs=1e-9)
        assert float(record.get("GFlop", 0)) * 1e9 == pytest.approx(task["flops"])
        assert float(record["Priority"]) == task["priority"]
        assert int(record["Iteration"]) == task["k"]
        assert record["Parameters"] == f"A({task['i']}, {task['j']})"
        assert int(record["Footprint"], 16) == zlib.crc32(record["Sizes"].encode())
        found |= {(int(other), int(task["task"])) for other in record.get("DependsOn", "").split()}
        mine = run.accesses[run.accesses["task"] == task["task"]]
        modes = [MODES[mode].replace("REDUX", "X") for mode in mine["mode"]]
        assert record["Modes"].split() == modes
        sizes = [int(size) for size in record["Sizes"].split()]
        assert len(record["Handles"].split()) == len(sizes) == mine.size
        reads = sum(size for size, mode in zip(sizes, modes, strict=True) if mode != "W")
        assert reads == task["bytes_read"]
    assert found == depends


def test_a_handle_is_a_tile(tmp_path: Path) -> None:
    run = made(cholesky(4)).run()
    tiles: dict[str, set[tuple[int, int]]] = {}
    for record, task in zip(parse(export(run.trace, tmp_path)), run.tasks, strict=True):
        mine = run.accesses[run.accesses["task"] == task["task"]]
        for handle, i, j in zip(record["Handles"].split(), mine["i"], mine["j"], strict=True):
            tiles.setdefault(handle, set()).add((int(i), int(j)))
    assert sorted(tiles.values(), key=sorted) == [{(i, j)} for i in range(4) for j in range(i + 1)]


# -- there and back --------------------------------------------------------------------------------


def same(first: Run, second: Run) -> None:
    assert first.tasks.size == second.tasks.size
    names = [[run.kernels[code] for code in run.tasks["kernel"]] for run in (first, second)]
    assert names[0] == names[1]
    for column in ("rank", "worker", "k", "bytes_read", "bytes_written"):
        np.testing.assert_array_equal(first.tasks[column], second.tasks[column], column)
    for column in ("flops", "priority"):
        np.testing.assert_allclose(first.tasks[column], second.tasks[column], rtol=1e-14)
    for column in ("submit", "ready", "start", "end"):
        # what was submitted before the run began was there from its begin on
        moments = [np.maximum(run.tasks[column] - run.begin, 0) for run in (first, second)]
        np.testing.assert_allclose(*moments, rtol=0, atol=2e-9, err_msg=column)
    for one, other in zip(first.edges, second.edges, strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(first.accesses["mode"], second.accesses["mode"])
    # of workers that had nothing to do, StarPU says nothing
    assert {w[:2] for w in second.workers} <= {w[:2] for w in first.workers}
    assert first.makespan == pytest.approx(second.makespan, abs=2e-9)


@pytest.mark.parametrize(
    "trace",
    [lambda: made(), lambda: made(lu(4), ranks=3, workers=3), lambda: real(repeats=2)],
    ids=["one rank", "ranks", "real"],
)
def test_an_export_is_imported_as_it_was(trace: Callable[[], Trace], tmp_path: Path) -> None:
    run = trace().run()
    back = read_starpu(export(run.trace, tmp_path, run.number))
    assert len(back) == 1
    same(run, back.run())
    # and it is a trace like others: it goes to a file, and through another export
    write(back, tmp_path / "back.trace")
    again = read(tmp_path / "back.trace")
    same(run, read_starpu(export(again, tmp_path)).run())
    assert back.run().graph().n == run.tasks.size


# recutils has no way to write spaces around a value, or line breaks but "\n"
names = st.text(st.characters(exclude_categories=["Cs", "Cc"]) | st.just("\n"), min_size=1).filter(
    lambda name: all(line == line.strip() for line in name.split("\n")) and name == name.strip()
)


@given(name=names)
@example(name="ends in a backslash\\")
@example(name="two\\\nlines")
@settings(max_examples=100, deadline=None)
def test_any_name_comes_back(name: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    trace = made(cholesky(2))
    trace.header["kernels"][0] = name
    trace.header["matrices"][0]["name"] = name
    back = read_starpu(export(trace, tmp_path_factory.mktemp("rec")))
    assert back.run().kernels[0] == name
    assert back.run().tasks.size == cholesky(2).n


def test_a_file_is_replaced_and_a_folder_is_not(tmp_path: Path) -> None:
    export(made(cholesky(2)), tmp_path)
    assert len(parse(export(made(cholesky(3)), tmp_path))) == cholesky(3).n
    with pytest.raises(FileExistsError, match="is not a file"):
        get("starpu-rec")(made(), tmp_path, None)
    with pytest.raises(ValueError, match="run is 3"):
        export(made(), tmp_path, 3)
