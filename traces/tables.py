"""The tables of a trace, column by column.

This is the one description of them: files are written and checked by it, and `docs/traces.md` is
held to it by a test.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["MODES", "TABLES", "VERSION", "Column", "dtype_of", "empty"]

#: Of the file; a reader refuses files of a later one.
VERSION = 1

#: Names of the codes in the column ``mode``, those of `taskla.operations.Access`.
MODES = ("", "R", "W", "RW", "REDUX")


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes
    ----------
    name : str
    dtype : str
        NumPy's.
    meaning : str
    unit : str
        "" for numbers without one.
    names : str
        The header's list whose item a code in this column stands for; "" for plain numbers.
    """

    name: str
    dtype: str
    meaning: str
    unit: str = ""
    names: str = ""


_RUN = Column("run", "i4", "number of the run, an index into the header's `runs`")
_GRAPH = Column("graph", "i4", "number of the graph, an index into the header's `graphs`")
_TASK = Column("task", "i4", "number of the task in its graph, in submission order")
_MATRIX = Column("matrix", "i2", "the matrix, -1 for none", names="matrices")
_I = Column("i", "i4", "tile row, -1 for none")
_J = Column("j", "i4", "tile column, -1 for none")
_FORMAT = Column("format", "i2", "number format that the task computes in", names="formats")
_LR_RANK = Column("lr_rank", "i4", "tile rank of a low-rank tile, -1 for a dense one")

#: table -> its columns, in order
TABLES: dict[str, tuple[Column, ...]] = {
    "tasks": (
        _RUN,
        _TASK,
        Column("kernel", "i2", "the operation", names="kernels"),
        Column(
            "matrix", "i2", "matrix of the tile that it writes first, -1 for none", "", "matrices"
        ),
        Column("i", "i4", "row of that tile, -1 for none"),
        Column("j", "i4", "column of that tile, -1 for none"),
        Column("k", "i4", "step of the algorithm's loop, -1 for none"),
        Column("rank", "i4", "process that ran it"),
        Column("worker", "i4", "worker of that process"),
        Column("device", "i2", "what kind of device ran it", names="devices"),
        Column("submit", "f8", "when it was submitted", "s"),
        Column("ready", "f8", "when its last predecessor had ended", "s"),
        Column("start", "f8", "when it started", "s"),
        Column("end", "f8", "when it ended", "s"),
        Column("flops", "f8", "floating-point operations", "flop"),
        Column("bytes_read", "i8", "bytes of the tiles that it reads", "byte"),
        Column("bytes_written", "i8", "bytes of the tiles that it writes", "byte"),
        _FORMAT,
        Column("compression", "i2", "compression of the tile that it writes", "", "compressions"),
        Column("lr_rank", "i4", "tile rank of the tile that it writes, -1 for a dense one"),
        Column("priority", "f8", "larger is more urgent"),
        Column("joules", "f8", "energy, NaN when unavailable", "J"),
        Column("tile_tasks", "i4", "tile tasks that were fused into it, 1 for none"),
    ),
    "accesses": (
        _GRAPH,
        _TASK,
        Column("operand", "u1", "operand of the operation, from 0"),
        Column("mode", "u1", "1 R, 2 W, 3 RW, 4 REDUX"),
        _MATRIX,
        _I,
        _J,
        Column("rows", "i4", "rows of the tile"),
        Column("cols", "i4", "columns of the tile"),
        Column("format", "i2", "number format of the tile", names="formats"),
        _LR_RANK,
    ),
    "edges": (
        _GRAPH,
        Column("source", "i4", "task that must end first"),
        Column("target", "i4", "task that waits for it"),
    ),
    "messages": (
        _RUN,
        Column("task", "i4", "task that made the tile version, -1 for a tile's first content"),
        _MATRIX,
        _I,
        _J,
        Column("source", "i4", "sending rank"),
        Column("destination", "i4", "receiving rank"),
        Column("bytes", "i8", "size of the message", "byte"),
        Column("start", "f8", "when sending began", "s"),
        Column("end", "f8", "when it had arrived", "s"),
    ),
    "samples": (
        _RUN,
        Column("series", "i2", "what was sampled", names="series"),
        Column("time", "f8", "when", "s"),
        Column("value", "f8", "in the unit of the series"),
    ),
}


def dtype_of(table: str) -> np.dtype[Any]:
    """Return the structured data type of a table's rows, little-endian."""
    return np.dtype([(column.name, f"<{column.dtype}") for column in TABLES[table]])


def empty(table: str, rows: int = 0) -> NDArray[Any]:
    """Return a table of `rows` rows of zeros."""
    return np.zeros(rows, dtype_of(table))
