"""CSV and Parquet: read by pandas, polars and DuckDB, compared with the trace they came from."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from made_traces import cholesky, lu, made, real

from taskla.traces import Trace, read, write
from taskla.traces.exports import get
from taskla.traces.exports.tabular import MATRICES, RUNS, SERIES
from taskla.traces.tables import MODES, TABLES

Rows = list[dict[str, Any]]


def with_pandas(path: Path) -> Rows:
    import pandas

    reader: Callable[[Path], Any] = {".csv": pandas.read_csv, ".parquet": pandas.read_parquet}[
        path.suffix
    ]
    found: Rows = reader(path).astype(object).to_dict("records")
    return found


def with_polars(path: Path) -> Rows:
    import polars

    if path.suffix == ".parquet":
        return polars.read_parquet(path).to_dicts()
    return polars.read_csv(path, infer_schema_length=None).to_dicts()


def with_duckdb(path: Path) -> Rows:
    import duckdb

    reader = {".csv": "read_csv", ".parquet": "read_parquet"}[path.suffix]
    # nothing is guessed from a sample of the rows
    options = ", header = true, sample_size = -1" if path.suffix == ".csv" else ""
    with duckdb.connect() as connection:
        cursor = connection.execute(f"SELECT * FROM {reader}('{path}'{options})")
        names = [column[0] for column in cursor.description]
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


READERS = {"pandas": with_pandas, "polars": with_polars, "duckdb": with_duckdb}


def expected(trace: Trace, name: str) -> Rows:
    """The rows of a table with names in place of codes, one by one."""
    rows: Rows = []
    for record in trace.tables[name]:
        row: dict[str, Any] = {}
        for column in TABLES[name]:
            value = record[column.name].item()
            if column.name == "mode":
                value = MODES[value]
            elif column.names:
                item = None if value < 0 else trace.header[column.names][value]
                value = item["name"] if isinstance(item, dict) else item
            row[column.name] = value
        if name == "samples":
            series = trace.header["series"][record["series"]]
            row |= {key: series[key] for key in SERIES}
        rows.append(row)
    return rows


def same(found: Any, wanted: Any) -> bool:
    missing = [value is None or value != value for value in (found, wanted)]
    return all(missing) if any(missing) else bool(found == wanted)


def compare(found: Rows, wanted: Rows) -> None:
    assert len(found) == len(wanted)
    for row, other in zip(found, wanted, strict=True):
        assert list(row) == list(other)
        for key, value in row.items():
            assert same(value, other[key]), (key, value, other[key])


def odd() -> Trace:
    """Two graphs with matrices of one name, no energy, and names that need quotes."""
    trace = made(lu(3), ranks=2, joules=None)
    trace.header["kernels"][0] = 'a "b", c\nd; é'
    trace.header["matrices"].append({**trace.header["matrices"][0], "graph": 0})
    trace.tables["accesses"]["matrix"][-1] = len(trace.header["matrices"]) - 1
    trace.tables["tasks"]["matrix"][0] = -1
    return trace


TRACES = {
    "repeats": lambda: made(cholesky(3), repeats=2),
    "ranks": lambda: made(ranks=3),
    "odd": odd,
    "real": lambda: real(repeats=2),
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("form", ["csv", "parquet"])
@pytest.mark.parametrize("name", TRACES)
def test_tables_hold_what_the_trace_holds(
    name: str, form: str, reader: str, tmp_path: Path
) -> None:
    trace = TRACES[name]()
    get(form)(trace, tmp_path / "out", None)
    names = {entry.name for entry in (tmp_path / "out").iterdir()}
    assert names == {f"{table}.{form}" for table in (*TABLES, "runs", "matrices")}
    for table in TABLES:
        wanted = expected(trace, table)
        if wanted or form == "parquet":
            compare(READERS[reader](tmp_path / "out" / f"{table}.{form}"), wanted)


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_runs_and_matrices_are_those_of_the_header(form: str, reader: str, tmp_path: Path) -> None:
    trace = made(cholesky(3), ranks=2, repeats=3)
    trace.header["runs"][0]["parameters"] = {"op": "potrf", "n": 12}
    trace.header["runs"][1]["policy"] = {"odd": [1, "x"]}
    trace.header["runs"][2]["repeat"] = "third"
    get(form)(trace, tmp_path / "out", None)
    runs = READERS[reader](tmp_path / "out" / f"runs.{form}")
    assert [list(run) for run in runs] == [list(RUNS)] * 3
    for number, (row, run) in enumerate(zip(runs, trace.runs, strict=True)):
        assert row["run"] == number
        assert (row["program"], row["engine"]) == ("potrf", "threads")
        assert (row["workers"], row["ranks"], row["graph"]) == (2, 2, 0)
        assert row["makespan"] == pytest.approx(run.makespan, rel=1e-15)
        assert row["end"] - row["begin"] == pytest.approx(run.makespan, rel=1e-12)
        assert (row["energy_source"], row["idle_joules"]) == ("measured", 7.0)
        assert row["joules"] == 3.0 * run.tasks.size + 7.0
        assert same(row["error"], None)
    assert json.loads(runs[0]["parameters"]) == {"op": "potrf", "n": 12}
    assert json.loads(runs[1]["policy"]) == {"odd": [1, "x"]}
    assert [run["repeat"] for run in runs[:2]] == [0, 1]
    assert same(runs[2]["repeat"], None)
    (matrix,) = READERS[reader](tmp_path / "out" / f"matrices.{form}")
    assert list(matrix) == list(MATRICES)
    assert [matrix[key] for key in MATRICES] == [0, "A", 12, 12, 4, "float64", False]


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_one_run_is_that_run_and_its_graph(form: str, tmp_path: Path) -> None:
    first, second = made(cholesky(2), repeats=2), made(lu(2))
    tables = {}
    for name in TABLES:
        rows = second.tables[name].copy()
        for key, shift in (("run", 2), ("graph", 1), ("matrix", 1)):
            if key in (rows.dtype.names or ()):
                rows[key] += shift
        tables[name] = rows
    header = {
        **first.header,
        "runs": [{**run, "graph": 1} for run in second.header["runs"]],
        "graphs": [{}, {}],
    }
    header["runs"] = first.header["runs"] + header["runs"]
    matrices = [{**matrix, "graph": 1} for matrix in second.header["matrices"]]
    header["matrices"] = first.header["matrices"] + matrices
    for key in ("kernels", "formats", "devices", "compressions", "series"):
        header[key] = second.header[key]
    # the rows of the first program are left out: its kernels have other codes
    both = Trace(header, tables)
    get(form)(both, tmp_path / "out", 2)
    for name in TABLES:
        rows = with_polars(tmp_path / "out" / f"{name}.{form}") if expected(both, name) else []
        compare(rows, expected(both, name))
    get(form)(both, tmp_path / "out", 0)
    for name in ("tasks", "accesses", "edges"):
        assert with_polars(tmp_path / "out" / f"{name}.{form}") == []
    assert len(with_polars(tmp_path / "out" / f"runs.{form}")) == 1
    assert len(with_polars(tmp_path / "out" / f"matrices.{form}")) == 1
    with pytest.raises(ValueError, match="run is 3"):
        get(form)(both, tmp_path / "out", 3)


def test_names_in_parquet_are_categories(tmp_path: Path) -> None:
    import pandas

    get("parquet")(made(), tmp_path / "out", None)
    tasks = pandas.read_parquet(tmp_path / "out" / "tasks.parquet")
    assert isinstance(tasks["kernel"].dtype, pandas.CategoricalDtype)
    seconds = (tasks["end"] - tasks["start"]).groupby(tasks["kernel"], observed=True).sum()
    assert seconds["potrf"] == pytest.approx(5.0)
    assert seconds["gemm"] == pytest.approx(2.0 * 10)


def test_numbers_of_csv_are_exact(tmp_path: Path) -> None:
    trace = real()
    get("csv")(trace, tmp_path / "out", None)
    starts = [row["start"] for row in with_polars(tmp_path / "out" / "tasks.csv")]
    assert starts == trace.tables["tasks"]["start"].tolist()
    assert all(math.isfinite(start) for start in starts)


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_only_an_export_is_replaced(form: str, tmp_path: Path) -> None:
    path = tmp_path / "out"
    path.mkdir()
    get(form)(made(cholesky(2)), path, None)
    get(form)(made(cholesky(3)), path, None)
    assert len(with_polars(path / f"tasks.{form}")) == cholesky(3).n
    (path / "mine.txt").write_text("precious")
    with pytest.raises(FileExistsError, match=r"holds 'mine\.txt'"):
        get(form)(made(), path, None)
    assert (path / "mine.txt").read_text() == "precious"
    with pytest.raises(FileExistsError, match="not a folder"):
        get(form)(made(), path / "mine.txt", None)
    with pytest.raises(FileNotFoundError, match="no such folder"):
        get(form)(made(), tmp_path / "none" / "out", None)
    assert [entry.name for entry in tmp_path.iterdir()] == ["out"]


def test_an_export_that_fails_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "out"
    get("csv")(made(cholesky(2)), path, None)
    before = (path / "tasks.csv").read_bytes()
    trace = made()
    monkeypatch.setattr(trace, "names", lambda column: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        get("csv")(trace, path, None)
    assert (path / "tasks.csv").read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["out"]


def test_parquet_names_the_extra_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ImportError, match=r"pip install 'taskla\[viz\]'"):
        get("parquet")(made(), tmp_path / "out", None)


def test_what_was_written_and_read_exports_the_same(tmp_path: Path) -> None:
    trace = made(lu(3), ranks=2)
    write(trace, tmp_path / "run.trace")
    for number, one in enumerate((trace, read(tmp_path / "run.trace"))):
        get("csv")(one, tmp_path / str(number), None)
    for entry in (tmp_path / "0").iterdir():
        assert entry.read_bytes() == (tmp_path / "1" / entry.name).read_bytes()
