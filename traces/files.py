"""Trace files: a stored ZIP with ``header.json`` and one member a table.

A table is Parquet where pyarrow is installed (``tasks.parquet``), else a NumPy structured array
(``tasks.npy``). A file is written under another name, then renamed. What is read is not trusted:
nothing is unpickled, sizes are checked before memory is taken, codes and numbers before they are
used.
"""

from __future__ import annotations

import io
import json
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from taskla.atomic import replacing
from taskla.traces.checks import check
from taskla.traces.tables import TABLES, dtype_of, empty
from taskla.traces.trace import Trace

__all__ = ["read", "write"]

# A table that would take more memory than this when read is refused: Parquet compresses well.
_MOST_BYTES = 16 * 2**30
_MOST_HEADER = 64 * 2**20

Path_ = str | os.PathLike[str]


def write(trace: Trace, path: Path_, form: str | None = None) -> None:
    """Write a trace, whole or not at all; an existing file is replaced.

    Parameters
    ----------
    trace : Trace
    path : path
        Usually ``NAME.trace``.
    form : {"parquet", "npy"}, optional
        How tables are stored. Default: Parquet if pyarrow is there.

    Raises
    ------
    OSError
        When the parent folder does not exist, or what is there is not a file.
    ValueError
        When `form` is another word.
    ImportError
        When Parquet is asked for and pyarrow is not installed.
    """
    if form not in (None, "parquet", "npy"):
        raise ValueError(f"form is {form!r}; allowed: 'parquet', 'npy'")
    if form is None:
        form = "parquet" if _pyarrow() else "npy"
    elif form == "parquet" and not _pyarrow():
        raise ImportError("Parquet needs pyarrow: pip install 'taskla[viz]'")
    encode = {"parquet": _to_parquet, "npy": _to_npy}[form]
    with (
        replacing(path) as temporary,
        zipfile.ZipFile(temporary, "x", zipfile.ZIP_STORED) as archive,
    ):
        archive.writestr("header.json", json.dumps(trace.header, indent=1, allow_nan=False))
        for name, table in trace.tables.items():
            archive.writestr(f"{name}.{form}", encode(table))


def read(path: Path_) -> Trace:
    """Read a trace.

    Raises
    ------
    OSError
        When the file cannot be read.
    ValueError
        When it is not a trace, is damaged or incomplete, or of a later version.
    ImportError
        When its tables are Parquet and pyarrow is not installed.
    """
    path = Path(path)
    if path.is_dir():
        raise ValueError(f"{path}: is a folder, not a trace file")
    try:
        with zipfile.ZipFile(path) as archive:
            header = _header(archive)
            tables = {name: _table(archive, name) for name in TABLES}
            trace = Trace(header, tables)
            check(trace)
    except (OSError, ImportError):
        raise
    except Exception as error:
        # Of a damaged archive zipfile says what it stumbled over by one of a dozen types.
        # What a KeyError says is its key, quoted.
        reason = error.args[0] if isinstance(error, KeyError) else str(error)
        reason = " ".join(str(reason).split()) or type(error).__name__
        raise ValueError(
            f"{path}: not a trace file, or one that is damaged or cut short ({reason})"
        ) from None
    return trace


def _member(archive: zipfile.ZipFile, name: str, most: int) -> bytes:
    info = archive.getinfo(name)
    if info.compress_type != zipfile.ZIP_STORED:
        raise ValueError(f"{name} is compressed; members of a trace are stored")
    if info.file_size > most:
        raise ValueError(f"{name} has {info.file_size} bytes, more than {most}")
    return archive.read(info)


def _header(archive: zipfile.ZipFile) -> dict[str, Any]:
    text = _member(archive, "header.json", _MOST_HEADER)
    try:
        header = json.loads(text.decode("utf-8"))
    except RecursionError:
        raise ValueError("header.json is nested too deeply") from None
    if not isinstance(header, dict):
        raise ValueError("header.json is not an object")
    return header


def _table(archive: zipfile.ZipFile, name: str) -> NDArray[Any]:
    found = set(archive.namelist())
    for form, decode in (("parquet", _from_parquet), ("npy", _from_npy)):
        member = f"{name}.{form}"
        if member in found:
            return decode(name, _member(archive, member, _MOST_BYTES))
    raise ValueError(f"there is no {name}.parquet or {name}.npy in it")


# -- NumPy -----------------------------------------------------------------------------------------


def _to_npy(table: NDArray[Any]) -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array(stream, table, allow_pickle=False)
    return stream.getvalue()


def _from_npy(name: str, content: bytes) -> NDArray[Any]:
    stream = io.BytesIO(content)
    try:
        version = np.lib.format.read_magic(stream)
        if version != (1, 0):
            raise ValueError(f"{name}.npy has version {version}, not (1, 0)")
        shape, _, dtype = np.lib.format.read_array_header_1_0(stream)
    except ValueError:
        raise
    except Exception as error:
        # NumPy reads headers with Python's own tokenizer and parser: a broken one raises anything.
        raise ValueError(f"{name}.npy: {error}") from None
    expected = dtype_of(name)
    if dtype != expected or len(shape) != 1:
        raise ValueError(f"{name}.npy has other columns than a trace's")
    rest = content[stream.tell() :]
    if len(rest) != shape[0] * expected.itemsize:
        raise ValueError(f"{name}.npy is not as long as it says")
    return np.frombuffer(rest, expected).copy()


# -- Parquet ---------------------------------------------------------------------------------------


def _pyarrow() -> bool:
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError:
        return False
    return True


def _to_parquet(table: NDArray[Any]) -> bytes:
    import pyarrow
    from pyarrow import parquet

    columns = {}
    for name in table.dtype.names or ():
        column = np.ascontiguousarray(table[name], table[name].dtype.newbyteorder("="))
        # pyarrow.array would import pandas, for half a second
        columns[name] = pyarrow.Array.from_buffers(
            pyarrow.from_numpy_dtype(column.dtype), column.size, [None, pyarrow.py_buffer(column)]
        )
    sink = pyarrow.BufferOutputStream()
    parquet.write_table(pyarrow.table(columns), sink, compression="zstd")
    content: bytes = sink.getvalue().to_pybytes()
    return content


def _from_parquet(name: str, content: bytes) -> NDArray[Any]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise ImportError(
            f"{name} is stored as Parquet, which needs pyarrow: pip install 'taskla[viz]'"
        ) from error
    expected = dtype_of(name)
    try:
        file = parquet.ParquetFile(pyarrow.BufferReader(content))
        rows = file.metadata.num_rows
        if rows * expected.itemsize > _MOST_BYTES:
            raise ValueError(f"{name}.parquet has {rows} rows, too many to read")
        schema = file.schema_arrow
        wanted = [(column.name, expected[column.name]) for column in TABLES[name]]
        found = [(field.name, field.type) for field in schema]
        if found != [(key, pyarrow.from_numpy_dtype(dtype)) for key, dtype in wanted]:
            raise ValueError(f"{name}.parquet has other columns than a trace's")
        read = file.read()
    except (pyarrow.ArrowException, OSError) as error:
        raise ValueError(f"{name}.parquet: {str(error).splitlines()[0]}") from None
    table = empty(name, rows)
    for key, _ in wanted if rows else ():
        column = read[key]
        if column.null_count:
            raise ValueError(f"{name}.parquet has rows without {key}")
        table[key] = np.concatenate([_values(chunk, expected[key]) for chunk in column.chunks])
    return table


def _values(chunk: Any, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return the numbers of an array without nulls; its own way would import pandas."""
    values = np.frombuffer(chunk.buffers()[1], dtype.newbyteorder("="))
    return values[chunk.offset : chunk.offset + len(chunk)]
