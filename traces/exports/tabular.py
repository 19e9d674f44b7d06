"""Tables that pandas, polars and DuckDB read without taskla: one CSV or Parquet file a table.

The columns of `taskla.traces.tables`, with names in place of codes, and tables ``runs`` and
``matrices`` of what the header says. Times are seconds from the trace's origin; energy that is not
known is missing.
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from taskla.traces.exports.shared import replacing_folder
from taskla.traces.tables import MODES, TABLES
from taskla.traces.trace import Trace

__all__ = ["MATRICES", "RUNS", "SERIES", "write_csv", "write_parquet"]

#: Columns of the table ``runs``, and what they hold.
RUNS: dict[str, type] = {
    "run": int,
    "program": str,
    "graph": int,
    "engine": str,
    "policy": str,
    "workers": int,
    "ranks": int,
    "distribution": str,
    "repeat": int,
    "status": str,
    "error": str,
    "tasks": int,
    "tile_tasks": int,
    "begin": float,
    "end": float,
    "makespan": float,
    "energy_source": str,
    "joules": float,
    "idle_joules": float,
    "parameters": str,
}

#: Columns of the table ``matrices``.
MATRICES: dict[str, type] = {
    "graph": int,
    "matrix": str,
    "m": int,
    "n": int,
    "nb": int,
    "dtype": str,
    "scratch": bool,
}

#: What the table ``samples`` says of a series beside its name.
SERIES = ("kind", "unit", "source")


class _Names(NamedTuple):
    """A column of names: codes into a list in which each name stands once, -1 for none."""

    codes: NDArray[np.int64]
    names: list[str]


class _Values(NamedTuple):
    """A column of Python's values of one type, None where there is none."""

    values: list[Any]
    kind: type


_Column = NDArray[Any] | _Names | _Values
_Table = dict[str, _Column]


def write_csv(trace: Trace, path: str | os.PathLike[str], run: int | None = None) -> None:
    """Write a folder of CSV files, ``tasks.csv`` and so on; what is missing is an empty field.

    Parameters
    ----------
    trace : Trace
    path : path
        A folder; one that holds nothing but such an export is replaced.
    run : int, optional
        Default: all runs.

    Raises
    ------
    OSError
        When the parent folder does not exist, or what is there must not be replaced.
    ValueError
        When there is no such run.
    """
    _write(trace, path, run, "csv", _csv)


def write_parquet(trace: Trace, path: str | os.PathLike[str], run: int | None = None) -> None:
    """Write a folder of Parquet files, ``tasks.parquet`` and so on; names are dictionaries.

    Parameters
    ----------
    trace : Trace
    path : path
        A folder; one that holds nothing but such an export is replaced.
    run : int, optional
        Default: all runs.

    Raises
    ------
    OSError
        When the parent folder does not exist, or what is there must not be replaced.
    ValueError
        When there is no such run.
    ImportError
        When pyarrow is not installed.
    """
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError as error:
        raise ImportError("Parquet needs pyarrow: pip install 'taskla[viz]'") from error
    _write(trace, path, run, "parquet", _parquet)


def _write(
    trace: Trace,
    path: str | os.PathLike[str],
    run: int | None,
    suffix: str,
    writer: Callable[[_Table, Path], None],
) -> None:
    chosen = range(len(trace)) if run is None else [trace.run(run).number]
    names = [*TABLES, "runs", "matrices"]
    with replacing_folder(path, [f"{name}.{suffix}" for name in names]) as folder:
        folder.mkdir()
        for name in names:
            writer(_table(trace, name, list(chosen)), folder / f"{name}.{suffix}")


# -- what the tables hold --------------------------------------------------------------------------


def _table(trace: Trace, name: str, runs: list[int]) -> _Table:
    graphs = sorted({int(trace.header["runs"][run]["graph"]) for run in runs})
    if name == "runs":
        return _records([_run(trace, run) for run in runs], RUNS)
    if name == "matrices":
        about = [{**item, "matrix": item["name"]} for item in trace.header["matrices"]]
        return _records([item for item in about if item["graph"] in graphs], MATRICES)
    table = trace.tables[name]
    names = table.dtype.names or ()
    table = table[
        np.isin(table["run"], runs) if "run" in names else np.isin(table["graph"], graphs)
    ]
    columns: _Table = {}
    for column in TABLES[name]:
        values = table[column.name]
        if column.name == "mode":
            columns[column.name] = _names(values, list(MODES))
        elif column.names:
            columns[column.name] = _names(values, trace.names(column.names))
        else:
            columns[column.name] = np.ascontiguousarray(values)
    if name == "samples":
        for key in SERIES:
            listed = [item[key] for item in trace.header["series"]]
            columns[key] = _names(table["series"], listed)
    return columns


def _names(codes: NDArray[Any], names: list[str]) -> _Names:
    """Matrices of two graphs may have one name, and a dictionary holds each name once."""
    once = list(dict.fromkeys(names))
    # the last entry is for -1, no name
    codes_once = np.array([*map(once.index, names), -1], dtype=np.int64)
    return _Names(codes_once[codes], once)


def _run(trace: Trace, number: int) -> dict[str, Any]:
    run = trace.runs[number]
    energy = run.info.get("energy") or {}
    return {
        **run.info,
        "run": number,
        "makespan": run.makespan,
        "energy_source": energy.get("source"),
        "joules": energy.get("joules"),
        "idle_joules": energy.get("idle_joules"),
        "parameters": json.dumps(run.info.get("parameters") or {}),
    }


def _records(rows: list[dict[str, Any]], columns: dict[str, type]) -> _Table:
    return {
        name: _Values([_as(kind, row.get(name)) for row in rows], kind)
        for name, kind in columns.items()
    }


def _as(kind: type, value: Any) -> Any:
    """A value of the header as what its column holds: others may write anything there."""
    if value is None:
        return None
    if kind is str:
        return value if isinstance(value, str) else json.dumps(value)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if type(value) is not kind:
        return None
    # more than a column of integers holds
    return None if isinstance(value, int) and abs(value) >= 2**63 else value


# -- files -----------------------------------------------------------------------------------------


def _csv(table: _Table, path: Path) -> None:
    with path.open("x", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(table)
        writer.writerows(zip(*map(_texts, table.values()), strict=True))


def _texts(column: _Column) -> list[Any]:
    """The fields of a column; csv writes None as nothing."""
    if isinstance(column, _Values):
        return column.values
    if isinstance(column, _Names):
        names = [*column.names, None]
        return [names[code] for code in column.codes.tolist()]
    values: list[Any] = column.tolist()
    if column.dtype.kind == "f":
        return [None if value != value else value for value in values]
    return values


def _parquet(table: _Table, path: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    kinds = {
        int: pyarrow.int64(),
        float: pyarrow.float64(),
        str: pyarrow.string(),
        bool: pyarrow.bool_(),
    }

    def array(column: _Column) -> Any:
        if isinstance(column, _Values):
            return pyarrow.array(column.values, kinds[column.kind])
        if isinstance(column, _Names):
            codes = pyarrow.array(column.codes.astype(np.int32), mask=column.codes < 0)
            names = pyarrow.array(column.names, pyarrow.string())
            return pyarrow.DictionaryArray.from_arrays(codes, names)
        mask = np.isnan(column) if column.dtype.kind == "f" else None
        return pyarrow.array(column, mask=mask)

    columns = {name: array(column) for name, column in table.items()}
    parquet.write_table(pyarrow.table(columns), path, compression="zstd")
