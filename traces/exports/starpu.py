"""StarPU's ``tasks.rec``, written for its tools, pmtool and StarVZ.

Records of fields (GNU recutils), an empty line after each; the fields, and times in milliseconds,
are those of StarPU's ``starpu_fxt_tool``. `taskla.traces.exports.starpu_import` reads them.
"""

from __future__ import annotations

import os
import re
import zlib
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from taskla.atomic import replacing
from taskla.traces.exports.shared import tile
from taskla.traces.trace import Run, Trace

__all__ = ["write"]

# Those of `taskla.traces.tables.MODES`, as StarPU writes them.
_MODES = ("", "R", "W", "RW", "X")


def write(trace: Trace, path: str | os.PathLike[str], run: int | None = None) -> None:
    """Write one run as ``tasks.rec``, whole or not at all; an existing file is replaced.

    Times are milliseconds from the run's begin, to the nanosecond. A handle is the number of a tile
    among those of the run, a size the bytes of the tile, a footprint a hash of the sizes.

    Parameters
    ----------
    trace : Trace
    path : path
    run : int, optional
        Default: the one that `Trace.run` chooses.

    Raises
    ------
    OSError
        When the parent folder does not exist, or what is there is not a file.
    ValueError
        When there is no such run.
    """
    chosen = trace.run(run)
    with (
        replacing(path) as temporary,
        temporary.open("x", encoding="utf-8", errors="replace", newline="\n") as file,
    ):
        for record in _records(chosen):
            file.writelines(f"{name}: {value}\n" for name, value in record)
            file.write("\n")


def _records(run: Run) -> Iterator[list[tuple[str, str]]]:
    tasks, accesses = run.tasks, run.accesses
    source, target = run.edges
    order = np.argsort(target, kind="stable")
    sources = tasks["task"][source[order]]
    edge = np.searchsorted(target[order], np.arange(tasks.size + 1))
    access = np.searchsorted(accesses["task"], [*tasks["task"], np.iinfo(np.int32).max])
    handles, sizes = _handles(run)
    modes = np.array(_MODES)[accesses["mode"]]
    # what was submitted before the run began was there from its begin on
    times = {
        name: np.maximum(tasks[name] - run.begin, 0) * 1e3 for name in ("submit", "start", "end")
    }
    for row, task in enumerate(tasks):
        name = _text(run.kernels[task["kernel"]])
        # StarPU counts from 1, and takes 0 for none
        record = [
            ("Name", name),
            ("Model", name),
            ("JobId", str(task["task"])),
            ("SubmitOrder", str(task["task"] + 1)),
            ("Priority", f"{task['priority']:.17g}"),
        ]
        depends = sources[edge[row] : edge[row + 1]].tolist()
        if depends:
            record.append(("DependsOn", " ".join(map(str, depends))))
        record += [
            ("Tag", f"{task['task']:x}"),
            ("WorkerId", str(task["worker"])),
            ("MemoryNode", str(task["device"])),
            ("SubmitTime", f"{times['submit'][row]:.6f}"),
            ("StartTime", f"{times['start'][row]:.6f}"),
            ("EndTime", f"{times['end'][row]:.6f}"),
        ]
        mine = slice(access[row], access[row + 1])
        size = " ".join(map(str, sizes[mine].tolist()))
        record.append(("Footprint", f"{zlib.crc32(size.encode()):x}"))
        if task["flops"]:
            record.append(("GFlop", f"{task['flops'] / 1e9:.15g}"))
        if task["k"] >= 0:
            record.append(("Iteration", str(task["k"])))
        if task["matrix"] >= 0:
            record.append(("Parameters", _text(tile(run, row))))
        if size:
            record.append(("Handles", " ".join(f"{handle:x}" for handle in handles[mine].tolist())))
            record.append(("Modes", " ".join(modes[mine].tolist())))
            record.append(("Sizes", size))
        record.append(("MPIRank", str(task["rank"])))
        yield record


def _handles(run: Run) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The tile of each access, numbered from 1, and its bytes."""
    accesses = run.accesses
    _, handles = np.unique(accesses[["matrix", "i", "j"]], return_inverse=True)
    matrices = run.trace.header["matrices"]
    # the last entry is for -1, no matrix
    width = np.array([*(np.dtype(matrix["dtype"]).itemsize for matrix in matrices), 0], np.int64)
    sizes = accesses["rows"].astype(np.int64) * accesses["cols"] * width[accesses["matrix"]]
    return np.asarray(handles, np.int64) + 1, sizes


def _text(value: str) -> str:
    """A value of several lines goes on after ``+ ``; one that ends in a backslash would go on."""
    lines = re.split(r"\r\n|\r|\n", value)
    return "\n+ ".join(f"{line} " if line.endswith("\\") else line for line in lines)
