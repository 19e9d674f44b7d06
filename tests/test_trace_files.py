"""Trace files: what is written is read back; whatever else is there gets a clear error."""

from __future__ import annotations

import copy
import io
import json
import re
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from made_traces import lu, made, real

from taskla.traces import Trace, read, write
from taskla.traces.checks import check
from taskla.traces.tables import TABLES, VERSION, dtype_of, empty

TRACE = made(ranks=2, repeats=2)
FORMS = ("parquet", "npy")


def content(form: str) -> bytes:
    """The bytes of a trace file."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("header.json", json.dumps(TRACE.header))
        from taskla.traces import files

        encode = {"parquet": files._to_parquet, "npy": files._to_npy}[form]
        for name, table in TRACE.tables.items():
            archive.writestr(f"{name}.{form}", encode(table))
    return stream.getvalue()


CONTENT = {form: content(form) for form in FORMS}


def changed(**tables: Callable[[np.ndarray], None]) -> Trace:
    """A copy of the trace with changes."""
    copies = {name: table.copy() for name, table in TRACE.tables.items()}
    for name, change in tables.items():
        change(copies[name])
    return Trace(copy.deepcopy(TRACE.header), copies)


# -- there and back --------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("trace", [TRACE, made(lu(3)), made(joules=None)], ids=str)
def test_what_is_written_is_read_back(tmp_path: Path, trace: Trace, form: str) -> None:
    write(trace, tmp_path / "a.trace", form)
    again = read(tmp_path / "a.trace")
    assert again.header == trace.header
    for name in TABLES:
        assert again.tables[name].dtype == dtype_of(name)
        assert again.tables[name].tobytes() == trace.tables[name].tobytes()


@pytest.mark.parametrize("form", FORMS)
def test_a_trace_without_runs_is_one(tmp_path: Path, form: str) -> None:
    lists = ("runs", "graphs", "matrices", "kernels", "formats", "compressions", "devices")
    header = {"format": "taskla-trace", "version": VERSION, "series": []}
    write(Trace(header | {name: [] for name in lists}, {}), tmp_path / "a.trace", form)
    again = read(tmp_path / "a.trace")
    assert len(again) == 0
    with pytest.raises(ValueError, match="no runs"):
        again.run()


def test_members_are_stored_and_parquet_where_pyarrow_is(tmp_path: Path) -> None:
    write(TRACE, tmp_path / "a.trace")
    with zipfile.ZipFile(tmp_path / "a.trace") as archive:
        assert archive.namelist() == ["header.json", *(f"{name}.parquet" for name in TABLES)]
        assert {info.compress_type for info in archive.infolist()} == {zipfile.ZIP_STORED}


def test_without_pyarrow_tables_are_arrays_of_numpy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(TRACE, tmp_path / "p.trace", "parquet")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    write(TRACE, tmp_path / "n.trace")
    assert len(read(tmp_path / "n.trace")) == 2
    with pytest.raises(ImportError, match=r"taskla\[viz\]"):
        read(tmp_path / "p.trace")
    with pytest.raises(ImportError, match=r"taskla\[viz\]"):
        write(TRACE, tmp_path / "q.trace", "parquet")


def test_reading_and_writing_import_no_pandas(tmp_path: Path) -> None:
    write(TRACE, tmp_path / "a.trace", "parquet")
    code = (
        "import sys\nfrom taskla.traces import read, write\n"
        "write(read('a.trace'), 'b.trace', 'parquet')\nassert 'pandas' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, timeout=60, check=True)


def test_a_failure_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.trace"
    write(TRACE, path)
    before = path.read_bytes()

    def fail(_: Any) -> bytes:
        raise OSError("disk full")

    monkeypatch.setattr("taskla.traces.files._to_npy", fail)
    with pytest.raises(OSError, match="disk full"):
        write(TRACE, path, "npy")
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_another_form_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="form is 'csv'; allowed: 'parquet', 'npy'"):
        write(TRACE, tmp_path / "a.trace", "csv")


# -- what is no trace ------------------------------------------------------------------------------


def stored(members: dict[str, bytes | str], method: int = zipfile.ZIP_STORED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        for name, body in members.items():
            archive.writestr(name, body)
    return stream.getvalue()


def members(form: str = "npy") -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(CONTENT[form])) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def npy(array: np.ndarray, allow_pickle: bool = False) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=allow_pickle)
    return stream.getvalue()


class Bomb:
    """What must never be unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (pytest.fail, ("a pickle was loaded",))


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "not a trace file"),
        (b"PK\x03\x04 nothing", "not a trace file"),
        (b"#!/bin/sh\necho\n", "not a trace file"),
        (stored({"a.txt": "a"}), "header.json"),
        (stored({"header.json": "{"}), "Expecting"),
        (stored({"header.json": "[]"}), "not an object"),
        (stored({"header.json": "[" * 100_000}), "nested|Expecting"),
        (stored({"header.json": b"\xff\xfe"}), "decode"),
        (stored({"header.json": "{}"}), "no tasks"),
        (stored(members(), zipfile.ZIP_DEFLATED), "compressed"),
        (stored({**members(), "tasks.npy": npy(np.zeros(3))}), "other columns"),
        (stored({**members(), "tasks.npy": npy(empty("edges", 2))}), "other columns"),
        (stored({**members(), "tasks.npy": members()["tasks.npy"][:-5]}), "not as long"),
        (stored({**members(), "tasks.npy": b"\x93NUMPY\x01\x00\x04\x00{(}\n"}), "tasks.npy"),
        (stored({**members(), "tasks.npy": b"\x93NUMPY\x03\x00"}), "version"),
        (
            stored({**members(), "tasks.npy": npy(np.array([Bomb()], object), allow_pickle=True)}),
            "other columns",
        ),
        (stored({**members("parquet"), "tasks.parquet": b"PAR1PAR1"}), "tasks.parquet"),
        (
            stored({**members("parquet"), "tasks.parquet": members("parquet")["edges.parquet"]}),
            "other columns",
        ),
    ],
)
def test_a_file_that_is_no_trace_is_named(tmp_path: Path, body: bytes, reason: str) -> None:
    path = tmp_path / "a.trace"
    path.write_bytes(body)
    with pytest.raises(ValueError, match=reason) as caught:
        read(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_and_a_folder(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read(tmp_path / "a.trace")
    with pytest.raises(ValueError, match="is a folder"):
        read(tmp_path)


@pytest.mark.parametrize("form", FORMS)
def test_a_file_that_was_cut_short_is_refused(tmp_path: Path, form: str) -> None:
    path = tmp_path / "a.trace"
    for length in range(0, len(CONTENT[form]), 997):
        path.write_bytes(CONTENT[form][:length])
        with pytest.raises(ValueError, match="not a trace file"):
            read(path)


@pytest.mark.parametrize("form", FORMS)
@given(data=st.data())
@settings(max_examples=200)
def test_bytes_that_changed_do_no_harm(
    tmp_path_factory: pytest.TempPathFactory, form: str, data: st.DataObject
) -> None:
    body = bytearray(CONTENT[form])
    for _ in range(data.draw(st.integers(1, 4))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / f"changed-{form}.trace"
    path.write_bytes(body)
    try:
        trace = read(path)
    except (ValueError, OSError):
        return
    check(trace)


# -- what is no trace inside -----------------------------------------------------------------------


def put(column: str, value: Any) -> Callable[[np.ndarray], None]:
    def change(table: np.ndarray) -> None:
        table[column][-1] = value

    return change


@pytest.mark.parametrize(
    ("tables", "reason"),
    [
        ({"tasks": put("run", 2)}, "tasks: run"),
        ({"tasks": put("kernel", 99)}, "tasks: kernel"),
        ({"tasks": put("kernel", -1)}, "tasks: kernel"),
        ({"tasks": put("format", 9)}, "tasks: format"),
        ({"tasks": put("compression", 9)}, "tasks: compression"),
        ({"tasks": put("device", 9)}, "tasks: device"),
        ({"tasks": put("matrix", 9)}, "tasks: matrix"),
        ({"tasks": put("task", -1)}, "tasks: task"),
        ({"tasks": put("task", 0)}, "twice"),
        ({"tasks": put("worker", -1)}, "tasks: worker"),
        ({"tasks": put("rank", 2**30)}, "tasks: rank"),
        ({"tasks": put("start", np.nan)}, "tasks: start"),
        ({"tasks": put("end", np.inf)}, "tasks: end"),
        ({"tasks": put("end", -1.0)}, "ends before it starts"),
        ({"tasks": put("flops", np.nan)}, "tasks: flops"),
        ({"tasks": put("priority", np.inf)}, "tasks: priority"),
        ({"accesses": put("graph", 1)}, "accesses: graph"),
        ({"accesses": put("mode", 5)}, "accesses: mode"),
        ({"accesses": put("i", 5)}, "accesses: i"),
        ({"accesses": put("j", -1)}, "accesses: j"),
        ({"accesses": put("matrix", 1)}, "accesses: matrix"),
        ({"edges": put("graph", 7)}, "edges: graph"),
        ({"edges": put("source", 2**20)}, "edges"),
        ({"messages": put("start", np.nan)}, "messages: start"),
        ({"messages": put("end", -5.0)}, "messages"),
        ({"samples": put("series", 12)}, "samples: series"),
        ({"samples": put("value", np.nan)}, "samples"),
    ],
)
def test_tables_that_do_not_fit_are_refused(tables: dict[str, Any], reason: str) -> None:
    check(TRACE)
    with pytest.raises(ValueError, match=reason):
        check(changed(**tables))


def without(name: str) -> Callable[[dict[str, Any]], Any]:
    return lambda header: header.pop(name)


def item(name: str, key: str, value: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda header: header[name][0].update({key: value})


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda header: header.update(format="zip"), "does not say that it is a trace"),
        (lambda header: header.update(version=VERSION + 1), f"version {VERSION + 1}.*up to"),
        (lambda header: header.update(version="1"), "version is '1'"),
        *((without(name), f"no list '{name}'") for name in ("runs", "kernels", "series")),
        (lambda header: header.update(kernels=[1]), "'kernels' are not all names"),
        (lambda header: header.update(runs=[3]), "'runs' are not all objects"),
        (item("runs", "graph", 5), "graph 5, which is not there"),
        (item("runs", "graph", True), "graph True"),
        (item("runs", "begin", "0"), "begin '0'"),
        (item("runs", "end", -1.0), "goes from"),
        (item("runs", "begin", float("nan")), "goes from"),
        (item("runs", "workers", 10**9), "workers 1000000000"),
        (item("runs", "ranks", "x"), "ranks 'x'"),
        (item("runs", "ranks", 10**6), "2 workers on each of 1000000 ranks"),
        (item("runs", "parameters", [1]), "parameters"),
        (item("runs", "energy", 7), "energy"),
        (item("matrices", "nb", 0), "nb 0"),
        (item("matrices", "m", -4), "is -4 x"),
        (item("matrices", "m", 2**40), "is 1099511627776 x"),
        (item("matrices", "dtype", "object"), "data type 'object'"),
        (item("matrices", "dtype", "no"), "data type 'no'"),
        (item("matrices", "graph", 1), "graph 1"),
        (item("series", "unit", None), "unit None"),
    ],
)
def test_headers_that_do_not_fit_are_refused(
    change: Callable[[dict[str, Any]], Any], reason: str
) -> None:
    trace = changed()
    change(trace.header)
    with pytest.raises(ValueError, match=reason):
        check(trace)


# -- what a trace answers --------------------------------------------------------------------------


def test_a_run_that_is_not_there_is_refused() -> None:
    with pytest.raises(ValueError, match="run is 2; the trace has runs 0 to 1"):
        TRACE.run(2)
    with pytest.raises(ValueError, match="run is -1"):
        TRACE.run(-1)


def test_edges_are_between_tasks_that_ran() -> None:
    # of the 5 x 5 Cholesky, leave out the last task: the edges to it go as well
    last = TRACE.run(0).tasks["task"].max()
    trace = Trace(
        TRACE.header,
        TRACE.tables | {"tasks": TRACE.tables["tasks"][TRACE.tables["tasks"]["task"] != last]},
    )
    source, target = trace.run(0).edges
    whole_source, whole_target = TRACE.run(0).edges
    kept = whole_target != last
    assert kept.sum() < kept.size
    np.testing.assert_array_equal(source, whole_source[kept])
    np.testing.assert_array_equal(target, whole_target[kept])


def test_workers_that_had_nothing_to_do_are_there() -> None:
    run = made(workers=50).run()
    assert len(run.workers) == 50
    assert [tuple(worker)[:2] for worker in made(ranks=2, workers=2).run().workers] == [
        *((0, 0), (0, 1), (1, 0), (1, 1))
    ]


def test_labels_name_the_tile() -> None:
    run = TRACE.run(0)
    assert run.label(0) == "potrf A(0, 0)"
    assert run.label(1) == "trsm A(1, 0)"


def test_series_are_in_order_of_time() -> None:
    power, energy, memory = TRACE.run(0).series
    assert (power.name, power.kind, power.unit) == ("package-0", "power", "W")
    assert (energy.kind, energy.unit, memory.kind) == ("energy", "J", "memory")
    assert (np.diff(power.time) > 0).all()
    assert (power.value == 50).all()


# -- what is documented ----------------------------------------------------------------------------


def test_every_column_is_documented_with_its_type_and_unit() -> None:
    page = (Path(__file__).parents[1] / "docs" / "trace-format.md").read_text(encoding="utf-8")
    documented = {}
    for title, body in re.findall(r"^### (\w+)$(.*?)(?=^### |\Z)", page, re.MULTILINE | re.DOTALL):
        documented[title] = re.findall(r"^\| `(\w+)` \| (\w+) \| (?:(\w+) )?\|", body, re.MULTILINE)
    assert documented == {
        name: [(c.name, np.dtype(c.dtype).name, c.unit) for c in columns]
        for name, columns in TABLES.items()
    }
    for columns in TABLES.values():
        for column in columns:
            assert f"| {column.meaning}" in page
            assert not column.names or f"`{column.names}`" in page
    assert f"The version is {VERSION}." in page


def test_the_header_is_documented() -> None:
    page = (Path(__file__).parents[1] / "docs" / "trace-format.md").read_text(encoding="utf-8")
    trace = real()
    for key in {*trace.header, *trace.header["runs"][0], *trace.header["matrices"][0]}:
        assert f"`{key}`" in page or f" {key}" in page, key
